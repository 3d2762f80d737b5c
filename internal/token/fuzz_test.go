package token

import (
	"encoding/base64"
	"testing"

	"github.com/caddy-dpop/caddy-dpop/internal/jose"
)

// FuzzParse holds that whatever is sent is refused or taken apart without loss,
// and that nothing verifies but what the issuer signed.
func FuzzParse(f *testing.F) {
	signed := make(map[string]bool) // signing inputs: ECDSA leaves a choice of signatures
	add := func(alg, header, claims string) {
		compact := sign(f, alg, signerOf(alg), header, claims)
		p, failed := Parse(compact)
		if failed == nil {
			signed[p.jws.Input] = true
		}
		f.Add(compact)
	}
	add("ES256", `{"alg":"ES256","kid":"k1","typ":"at+jwt"}`, claims("cnf", `{"jkt":"`+jkt+`"}`))
	add("EdDSA", `{"alg":"EdDSA","typ":"JWT"}`, claims("aud", `["a","b"]`, "exp", "1e9"))
	add("RS256", `{"alg":"RS256","crit":["b64"],"b64":false}`, claims("cnf", "null"))
	add("ES256", `{"alg":"ES256","kid":5}`, `{"iss":"a","iss":"b"}`)
	add("ES256", `{"alg":"none"}`, `{"a":{"b":{"c":[{}]}},"a.b":1}`)
	f.Add("")
	f.Add("..")
	f.Add("e30.e30.")
	f.Add("2YotnFZFEjr1zCsicMWpAA")

	keys := []*jose.Key{publicKey(f, ec256()), publicKey(f, rsa2048()), publicKey(f, edKey())}
	all := jose.AllAlgorithms()
	loose := rules()
	anyAudience(loose)
	f.Fuzz(func(t *testing.T, compact string) {
		p, failed := Parse(compact)
		if (p == nil) == (failed == nil) {
			t.Fatal("neither a token nor a failure, or both")
		}
		if failed != nil {
			expect(t, failed, "token_malformed")
			return
		}
		if p.Algorithm == "" {
			t.Error("no algorithm")
		}
		if compact != p.jws.Input+"."+base64.RawURLEncoding.EncodeToString(p.jws.Signature) {
			t.Error("not the one spelling of this token")
		}
		for _, name := range []string{"crit", "b64", "zip"} {
			if p.jws.Header.Has(name) {
				t.Error("accepted", name)
			}
		}
		if alg := all.Find(p.Algorithm); alg != nil {
			if _, failed := p.VerifySignature(alg, keys); failed == nil && !signed[p.jws.Input] {
				t.Error("verified what the issuer did not sign")
			}
		}
		// None of these may panic, whatever the issuer signs.
		token := &Token{header: p.jws.Header, Claims: p.jws.Claims}
		token.Check(loose, now)
		token.Check(rules(), now)
		CheckBinding(jkt, token.Claims)
		if (CheckUnbound(token.Claims) == nil) == token.Claims.Has("cnf") {
			t.Error("CheckUnbound disagrees with the claims")
		}
		Claim(token.Claims, "a.b.c")
		Subject(token.Claims)
		ClientID(token.Claims)
		if p.Issuer() != testIssuer && token.Check(loose, now) == nil {
			t.Error("accepted another issuer's token")
		}
	})
}
