package proof

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/hmac"
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha256"
	"encoding/asn1"
	"encoding/base64"
	"fmt"
	"math/big"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/caddy-dpop/caddy-dpop/internal/failure"
	"github.com/caddy-dpop/caddy-dpop/internal/jose"
)

// signer is a client's key, as it stands in a proof.
type signer struct {
	private crypto.Signer
	alg     string
	jwk     string
}

// signers are one for each algorithm that is allowed by default, and ES384, by
// the algorithm's name.
var signers = sync.OnceValue(func() map[string]signer {
	all := make(map[string]signer)
	for alg, curve := range map[string]elliptic.Curve{"ES256": elliptic.P256(), "ES384": elliptic.P384()} {
		private, err := ecdsa.GenerateKey(curve, rand.Reader)
		if err != nil {
			panic(err)
		}
		point, err := private.PublicKey.Bytes()
		if err != nil {
			panic(err)
		}
		size := len(point) / 2
		all[alg] = signer{private, alg, fmt.Sprintf(`{"kty":"EC","crv":%q,"x":%q,"y":%q}`,
			private.Params().Name, b64(point[1:1+size]), b64(point[1+size:]))}
	}
	rsaKey, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		panic(err)
	}
	for _, alg := range []string{"RS256", "PS256"} {
		all[alg] = signer{rsaKey, alg, fmt.Sprintf(`{"kty":"RSA","n":%q,"e":"AQAB"}`, b64(rsaKey.N.Bytes()))}
	}
	public, edKey, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		panic(err)
	}
	for _, alg := range []string{"EdDSA", "Ed25519"} {
		all[alg] = signer{edKey, alg, fmt.Sprintf(`{"kty":"OKP","crv":"Ed25519","x":%q}`, b64(public))}
	}
	return all
})

func b64(b []byte) string { return base64.RawURLEncoding.EncodeToString(b) }

// sign returns the proof of any header and claims whatever, as JSON texts.
func (s signer) sign(t *testing.T, header, claims string) string {
	t.Helper()
	input := b64([]byte(header)) + "." + b64([]byte(claims))
	return input + "." + b64(s.signature(t, input))
}

func (s signer) signature(t *testing.T, input string) []byte {
	t.Helper()
	hash := map[string]crypto.Hash{"ES256": crypto.SHA256, "ES384": crypto.SHA384, "RS256": crypto.SHA256, "PS256": crypto.SHA256}[s.alg]
	digest := []byte(input)
	if hash != 0 {
		h := hash.New()
		h.Write([]byte(input))
		digest = h.Sum(nil)
	}
	var opts crypto.SignerOpts = hash
	if s.alg == "PS256" {
		opts = &rsa.PSSOptions{SaltLength: hash.Size(), Hash: hash}
	}
	signature, err := s.private.Sign(rand.Reader, digest, opts)
	if err != nil {
		t.Fatal(err)
	}
	if key, ok := s.private.(*ecdsa.PrivateKey); ok {
		var numbers struct{ R, S *big.Int }
		if _, err := asn1.Unmarshal(signature, &numbers); err != nil {
			t.Fatal(err)
		}
		size := (key.Params().BitSize + 7) / 8
		return slices.Concat(numbers.R.FillBytes(make([]byte, size)), numbers.S.FillBytes(make([]byte, size)))
	}
	return signature
}

// header is that of a good proof by the signer.
func (s signer) header() string {
	return fmt.Sprintf(`{"typ":"dpop+jwt","alg":%q,"jwk":%s}`, s.alg, s.jwk)
}

// claims are those of a good proof, for the token of this name.
var claims = `{"jti":"id-1","htm":"GET","htu":"https://api.example.com/things","iat":1700000000,"ath":"` + TokenHash("token") + `"}`

// defaults are the algorithms that are allowed by default.
func defaults(t *testing.T) jose.Algorithms {
	t.Helper()
	var set jose.Algorithms
	for _, name := range []string{"ES256", "PS256", "RS256", "EdDSA", "Ed25519"} {
		alg := jose.AllAlgorithms().Find(name)
		if alg == nil {
			t.Fatalf("no algorithm %s", name)
		}
		set = append(set, alg)
	}
	return set
}

// edit replaces a text that must be there.
func edit(t *testing.T, text, old, new string) string {
	t.Helper()
	if strings.Count(text, old) != 1 {
		t.Fatalf("%q is not once in %s", old, text)
	}
	return strings.Replace(text, old, new, 1)
}

// refused checks that a failure is there and has the reason.
func refused(t *testing.T, f *failure.Failure, want failure.Reason) {
	t.Helper()
	switch {
	case f == nil:
		t.Errorf("accepted, not refused by %s", want)
	case f.Reason != want:
		t.Errorf("refused by %s (%s), not by %s", f.Reason, f.Description, want)
	}
}

func TestVerify(t *testing.T) {
	for name, s := range signers() {
		if name == "ES384" {
			continue
		}
		t.Run(name, func(t *testing.T) {
			p, f := Verify(s.sign(t, s.header(), claims), defaults(t))
			if f != nil {
				t.Fatal(f)
			}
			jwk, err := jose.ParseObject([]byte(s.jwk))
			if err != nil {
				t.Fatal(err)
			}
			key, err := jose.ParseKey(jwk)
			if err != nil {
				t.Fatal(err)
			}
			if p.Thumbprint != key.Thumbprint || p.Thumbprint == "" {
				t.Errorf("thumbprint %s, not %s", p.Thumbprint, key.Thumbprint)
			}
			if p.Algorithm != name || p.ID != "id-1" || p.IssuedAt != 1700000000 {
				t.Errorf("algorithm %s, ID %s, issued at %v", p.Algorithm, p.ID, p.IssuedAt)
			}
		})
	}
}

func TestVerifyAccepts(t *testing.T) {
	s := signers()["ES256"]
	tests := []struct {
		name             string
		old, new         string // of the header
		oldClaim, newOne string // of the claims
	}{
		{name: "typ in upper case, RFC 7515 §4.1.9", old: "dpop+jwt", new: "DPoP+JWT"},
		{name: "typ with application/, RFC 7515 §4.1.9", old: "dpop+jwt", new: "application/dpop+jwt"},
		{name: "typ by an escape, RFC 8259 §7", old: "dpop+jwt", new: `dpop\u002bjwt`},
		{name: "jwk with ext and key_ops, as WebCrypto exports it", old: `{"kty"`, new: `{"ext":true,"key_ops":["verify"],"kty"`},
		{name: "jwk with use, alg and kid, RFC 7517 §4", old: `{"kty"`, new: `{"use":"sig","alg":"ES256","kid":"1","kty"`},
		{name: "header with members of no account, RFC 7515 §4", old: `{"typ"`, new: `{"kid":"1","nonce":1,"jku":"https://example.com","typ"`},
		{name: "D in upper case is not d, RFC 7515 §4", old: `{"kty"`, new: `{"D":"AQ","kty"`},
		{name: "white space, RFC 8259 §2", old: `{"typ":`, new: " {\n\t\"typ\" : "},
		{name: "jti of 512 bytes", oldClaim: "id-1", newOne: strings.Repeat("x", 512)},
		{name: "jti of 512 bytes by 128 characters", oldClaim: "id-1", newOne: strings.Repeat("😀", 128)},
		{name: "jti of 512 bytes by escapes", oldClaim: "id-1", newOne: strings.Repeat(`\u0041`, 512)},
		{name: "jti of one byte", oldClaim: "id-1", newOne: "x"},
		{name: "iat with a fraction, RFC 7519 §2", oldClaim: "1700000000", newOne: "1700000000.25"},
		{name: "iat with an exponent, RFC 7519 §2", oldClaim: "1700000000", newOne: "17e8"},
		{name: "exp and nbf, RFC 7519 §4.1", oldClaim: `{"jti"`, newOne: `{"exp":1700000060,"nbf":1.7e9,"jti"`},
		{name: "no ath, as in a token request, RFC 9449 §4.2", oldClaim: `"ath"`, newOne: `"ATH"`},
		{name: "other claims, RFC 9449 §4.2", oldClaim: `{"jti"`, newOne: `{"JTI":7,"iss":[],"nonce":"n","jti"`},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			header, body := s.header(), claims
			if test.old != "" {
				header = edit(t, header, test.old, test.new)
			}
			if test.oldClaim != "" {
				body = edit(t, body, test.oldClaim, test.newOne)
			}
			if _, f := Verify(s.sign(t, header, body), defaults(t)); f != nil {
				t.Error(f)
			}
		})
	}
}

func TestVerifyRefusesHeader(t *testing.T) {
	s := signers()["ES256"]
	jwk := func(text string) string { return `"jwk":` + text }
	good := jwk(s.jwk)
	tests := []struct {
		name, old, new string
		want           failure.Reason
	}{
		// RFC 9449 §4.3 check 4.
		{"no typ", `"typ"`, `"TYP"`, failure.ProofType},
		{"typ JWT: any other token by the key, RFC 8725 §3.11", "dpop+jwt", "JWT", failure.ProofType},
		{"typ of an access token, RFC 9068 §2.1", "dpop+jwt", "at+jwt", failure.ProofType},
		{"typ of an attestation's proof", "dpop+jwt", "oauth-client-attestation-pop+jwt", failure.ProofType},
		{"typ with a space", "dpop+jwt", "dpop+jwt ", failure.ProofType},
		{"typ of another tree", "dpop+jwt", "text/dpop+jwt", failure.ProofType},
		{"typ with a combining mark", "dpop+jwt", "dpop+jwt\u0301", failure.ProofType},
		{"typ in full-width letters", "dpop+jwt", "ｄpop+jwt", failure.ProofType},
		{"typ that is empty", "dpop+jwt", "", failure.ProofType},
		{"typ that is null", `"dpop+jwt"`, `null`, failure.ProofType},
		{"typ that is an array", `"dpop+jwt"`, `["dpop+jwt"]`, failure.ProofType},

		// RFC 9449 §4.3 check 5.
		{"no alg", `"alg"`, `"ALG"`, failure.ProofAlgorithm},
		{"alg none (CVE-2015-9235, jsonwebtoken)", `"ES256"`, `"none"`, failure.ProofAlgorithm},
		{"alg nOnE (auth0's JWT API, 2020)", `"ES256"`, `"nOnE"`, failure.ProofAlgorithm},
		{"alg HS256", `"ES256"`, `"HS256"`, failure.ProofAlgorithm},
		{"alg that is not allowed here", `"ES256"`, `"ES384"`, failure.ProofAlgorithm},
		{"alg of another case, RFC 7515 §4.1.1", `"ES256"`, `"es256"`, failure.ProofAlgorithm},
		{"alg with a long s", `"ES256"`, `"Eſ256"`, failure.ProofAlgorithm},
		{"alg for encryption", `"ES256"`, `"ECDH-ES"`, failure.ProofAlgorithm},
		{"alg that is empty", `"ES256"`, `""`, failure.ProofAlgorithm},
		{"alg that is null", `"ES256"`, `null`, failure.ProofAlgorithm},
		{"alg that is an array", `"ES256"`, `["ES256"]`, failure.ProofAlgorithm},

		// RFC 7515 §4.1.11, RFC 7797 §3, RFC 7516 §4.1.3.
		{"crit", `{"typ"`, `{"crit":["exp"],"exp":1,"typ"`, failure.ProofMalformed},
		{"crit that is empty", `{"typ"`, `{"crit":[],"typ"`, failure.ProofMalformed},
		{"crit that is null", `{"typ"`, `{"crit":null,"typ"`, failure.ProofMalformed},
		{"crit by an escape", `{"typ"`, `{"\u0063rit":["b64"],"typ"`, failure.ProofMalformed},
		{"b64 false", `{"typ"`, `{"b64":false,"typ"`, failure.ProofMalformed},
		{"b64 true", `{"typ"`, `{"b64":true,"typ"`, failure.ProofMalformed},
		{"zip", `{"typ"`, `{"zip":"DEF","typ"`, failure.ProofMalformed},

		// RFC 7515 §4, RFC 8725 §2.4.
		{"typ twice", `{"typ"`, `{"typ":"JWT","typ"`, failure.ProofMalformed},
		{"alg twice, by an escape", `{"typ"`, `{"\u0061lg":"none","typ"`, failure.ProofMalformed},
		{"jwk twice", `{"typ"`, `{"jwk":{},"typ"`, failure.ProofMalformed},
		{"kty twice within jwk", `{"kty"`, `{"kty":"oct","kty"`, failure.ProofMalformed},
		{"x twice within jwk, by an escape", `{"kty"`, `{"\u0078":"AQ","kty"`, failure.ProofMalformed},
		{"data after the header", `{"typ"`, `{}{"typ"`, failure.ProofMalformed},
		{"a lone surrogate", `{"typ"`, `{"kid":"\ud800","typ"`, failure.ProofMalformed},
		{"bad UTF-8", `{"typ"`, "{\"kid\":\"\xff\",\"typ\"", failure.ProofMalformed},

		// RFC 9449 §4.2 and §4.3 check 7.
		{"no jwk", `"jwk"`, `"JWK"`, failure.ProofKey},
		{"kid for jwk", good, `"kid":"0ZcOCORZNYy-DWpqq30jZyJGHTN0d2HglBV3uiguA4I"`, failure.ProofKey},
		{"jwk that is null", good, jwk(`null`), failure.ProofKey},
		{"jwk that is a string", good, jwk(`"` + strings.ReplaceAll(s.jwk, `"`, `\"`) + `"`), failure.ProofKey},
		{"jwk that is an array", good, jwk(`[` + s.jwk + `]`), failure.ProofKey},
		{"jwk that is empty", good, jwk(`{}`), failure.ProofKey},
		{"jwk that is a key set", good, jwk(`{"keys":[` + s.jwk + `]}`), failure.ProofKey},
		{"jwk with d: a private key", `{"kty"`, `{"d":"AQ","kty"`, failure.ProofKey},
		{"jwk with d by an escape", `{"kty"`, `{"\u0064":"AQ","kty"`, failure.ProofKey},
		{"jwk with k", `{"kty"`, `{"k":"AQ","kty"`, failure.ProofKey},
		{"jwk that is symmetric", good, jwk(`{"kty":"oct","k":"AQ"}`), failure.ProofKey},
		{"jwk on P-384 for ES256, RFC 7518 §3.4", good, jwk(signers()["ES384"].jwk), failure.ProofKey},
		{"RSA key for ES256, RFC 8725 §3.1", good, jwk(signers()["RS256"].jwk), failure.ProofKey},
		{"Ed25519 key for ES256", good, jwk(signers()["EdDSA"].jwk), failure.ProofKey},
		{"EC key for RS256", `"ES256"`, `"RS256"`, failure.ProofKey},
		{"EC key for EdDSA", `"ES256"`, `"EdDSA"`, failure.ProofKey},
		{"off the curve (CVE-2015-7940)", good, jwk(`{"kty":"EC","crv":"P-256","x":"AQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQE","y":"AQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQE"}`), failure.ProofKey},
		{"infinity", good, jwk(`{"kty":"EC","crv":"P-256","x":"AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA","y":"AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA"}`), failure.ProofKey},

		// RFC 9449 §4.3 check 6: the key must be the one that signed.
		{"another client's key", good, jwk(`{"kty":"EC","crv":"P-256","x":"l8tFrhx-34tV3hRICRDY9zCkDlpBhF42UQUfWVAWBFs","y":"9VE4jf_Ok_o64zbTTlcuNJajHmt6v9TDVrU0CdvGRDA"}`), failure.ProofSignature},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			_, f := Verify(s.sign(t, edit(t, s.header(), test.old, test.new), claims), defaults(t))
			refused(t, f, test.want)
		})
	}
}

func TestVerifyRefusesClaims(t *testing.T) {
	s := signers()["ES256"]
	ath := `"ath":"` + TokenHash("token") + `"`
	tests := []struct {
		name, old, new string
		want           failure.Reason
	}{
		// RFC 9449 §4.3 check 3, §4.2.
		{"no jti", `"jti"`, `"JTI"`, failure.ProofClaims},
		{"jti that is empty", `"id-1"`, `""`, failure.ProofClaims},
		{"jti that is a number", `"id-1"`, `1`, failure.ProofClaims},
		{"jti that is null", `"id-1"`, `null`, failure.ProofClaims},
		{"jti that is an array", `"id-1"`, `["id-1"]`, failure.ProofClaims},
		{"jti of 513 bytes", `id-1`, strings.Repeat("x", 513), failure.ProofClaims},
		{"jti of 516 bytes by 129 characters", `id-1`, strings.Repeat("😀", 129), failure.ProofClaims},
		{"no htm", `"htm"`, `"Htm"`, failure.ProofClaims},
		{"htm that is a number", `"GET"`, `1`, failure.ProofClaims},
		{"htm that is an array", `"GET"`, `["GET","POST"]`, failure.ProofClaims},
		{"no htu", `"htu"`, `"HTU"`, failure.ProofClaims},
		{"htu that is null", `"https://api.example.com/things"`, `null`, failure.ProofClaims},
		{"htu that is an array", `"https://api.example.com/things"`, `["https://api.example.com/things"]`, failure.ProofClaims},
		{"no iat", `"iat"`, `"Iat"`, failure.ProofClaims},
		{"iat that is a string, RFC 7519 §2", `1700000000`, `"1700000000"`, failure.ProofClaims},
		{"iat that is null", `1700000000`, `null`, failure.ProofClaims},
		{"iat that is true", `1700000000`, `true`, failure.ProofClaims},
		{"iat that is an array", `1700000000`, `[1700000000]`, failure.ProofClaims},
		{"iat that is infinite", `1700000000`, `1e309`, failure.ProofClaims},
		{"iat that is infinite and negative", `1700000000`, `-1e309`, failure.ProofClaims},
		{"iat of a very large exponent", `1700000000`, `1e99999999999999999999`, failure.ProofClaims},
		{"exp that is a string", `{"jti"`, `{"exp":"1800000000","jti"`, failure.ProofClaims},
		{"exp that is null", `{"jti"`, `{"exp":null,"jti"`, failure.ProofClaims},
		{"exp that is infinite", `{"jti"`, `{"exp":1e400,"jti"`, failure.ProofClaims},
		{"nbf that is a string", `{"jti"`, `{"nbf":"1","jti"`, failure.ProofClaims},
		{"nbf that is null", `{"jti"`, `{"nbf":null,"jti"`, failure.ProofClaims},
		{"ath that is a number", ath, `"ath":1`, failure.ProofToken},
		{"ath that is null", ath, `"ath":null`, failure.ProofToken},
		{"ath that is empty", ath, `"ath":""`, failure.ProofToken},
		{"ath that is an array", ath, `"ath":["` + TokenHash("token") + `"]`, failure.ProofToken},

		// RFC 7519 §4: claim names are unique.
		{"jti twice", `{"jti"`, `{"jti":"id-0","jti"`, failure.ProofMalformed},
		{"htu twice, by an escape", `{"jti"`, `{"\u0068tu":"https://evil.example/","jti"`, failure.ProofMalformed},
		{"iat twice with one value", `{"jti"`, `{"iat":1700000000,"jti"`, failure.ProofMalformed},
		{"jti with a lone surrogate, which would equal another's", `id-1`, `\udc00`, failure.ProofMalformed},
		{"jti in bad UTF-8, which would equal another's", `id-1`, "\xff", failure.ProofMalformed},
		{"iat with a leading zero", `1700000000`, `01700000000`, failure.ProofMalformed},
		{"iat that is not a number", `1700000000`, `NaN`, failure.ProofMalformed},
		{"iat in hexadecimal", `1700000000`, `0x6553f100`, failure.ProofMalformed},
		{"data after the claims", `{"jti"`, `{} {"jti"`, failure.ProofMalformed},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			_, f := Verify(s.sign(t, s.header(), edit(t, claims, test.old, test.new)), defaults(t))
			refused(t, f, test.want)
		})
	}
}

func TestVerifyRefusesText(t *testing.T) {
	s := signers()["ES256"]
	good := s.sign(t, s.header(), claims)
	parts := strings.Split(good, ".")
	header, body, signature := parts[0], parts[1], parts[2]
	input := header + "." + body
	binary := s.signature(t, input)
	var der []byte
	{
		digest := sha256.Sum256([]byte(input))
		var err error
		if der, err = s.private.Sign(rand.Reader, digest[:], crypto.SHA256); err != nil {
			t.Fatal(err)
		}
	}
	mac := hmac.New(sha256.New, []byte(s.jwk))
	mac.Write([]byte(input))
	rs := signers()["RS256"]
	tests := []struct {
		name, compact string
		want          failure.Reason
	}{
		// RFC 9449 §4.3 check 2: a single well-formed JWT.
		{"nothing", "", failure.ProofMalformed},
		{"no JWS", "dpop", failure.ProofMalformed},
		{"two parts", input, failure.ProofMalformed},
		{"four parts", good + "." + signature, failure.ProofMalformed},
		{"five parts: encrypted", good + ".AA.AA", failure.ProofMalformed},
		{"two proofs in one field, RFC 9110 §5.3", good + ", " + good, failure.ProofMalformed},
		{"a space before", " " + good, failure.ProofMalformed},
		{"a space behind", good + " ", failure.ProofMalformed},
		{"a line feed behind", good + "\n", failure.ProofMalformed},
		{"in quotes", `"` + good + `"`, failure.ProofMalformed},
		{"padding", good + "==", failure.ProofMalformed},
		{"JSON serialisation, RFC 7515 §7.2.2",
			fmt.Sprintf(`{"payload":%q,"protected":%q,"signature":%q}`, body, header, signature), failure.ProofMalformed},
		{"empty claims", header + ".." + signature, failure.ProofMalformed},
		{"empty header", "." + body + "." + signature, failure.ProofMalformed},

		// RFC 9449 §4.3 check 6.
		{"no signature (CVE-2020-28042, ServiceStack)", input + ".", failure.ProofSignature},
		{"zeros for a signature (CVE-2022-21449, Java)", input + "." + b64(make([]byte, 64)), failure.ProofSignature},
		{"DER, RFC 7518 §3.4", input + "." + b64(der), failure.ProofSignature},
		{"an octet short", input + "." + b64(binary[:63]), failure.ProofSignature},
		{"an octet more", input + "." + b64(append(binary, 0)), failure.ProofSignature},
		{"an HMAC by the public key (CVE-2015-9235, jsonwebtoken)", input + "." + b64(mac.Sum(nil)), failure.ProofSignature},
		{"signature of other claims", header + "." + b64([]byte(edit(t, claims, "id-1", "id-2"))) + "." + signature, failure.ProofSignature},
		{"signature of another header", b64([]byte(s.header()+" ")) + "." + body + "." + signature, failure.ProofSignature},
		{"signature by RS256 as PS256", func() string {
			return rs.sign(t, edit(t, rs.header(), "RS256", "PS256"), claims)
		}(), failure.ProofSignature},
		{"signature without the header", header + "." + body + "." + b64(s.signature(t, body)), failure.ProofSignature},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			_, f := Verify(test.compact, defaults(t))
			refused(t, f, test.want)
		})
	}
	if _, f := Verify(good, nil); f == nil || f.Reason != failure.ProofAlgorithm {
		t.Errorf("no algorithm allowed: %v", f)
	}
}

func TestVerifyRefusesForgeableKeys(t *testing.T) {
	// With the neutral point for a key, R neutral and S zero is a signature of
	// everything, and one thumbprint everybody's.
	point, forged := make([]byte, 32), make([]byte, 64)
	point[0], forged[0] = 1, 1
	header := fmt.Sprintf(`{"typ":"dpop+jwt","alg":"EdDSA","jwk":{"kty":"OKP","crv":"Ed25519","x":%q}}`, b64(point))
	input := b64([]byte(header)) + "." + b64([]byte(claims))
	if !ed25519.Verify(point, []byte(input), forged) {
		t.Fatal("crypto/ed25519 refuses it by itself now: the test shows nothing")
	}
	_, f := Verify(input+"."+b64(forged), defaults(t))
	refused(t, f, failure.ProofKey)

	// With the exponent 1 the signature is the padded hash itself.
	s := signers()["RS256"]
	header = edit(t, s.header(), "AQAB", "AQ")
	input = b64([]byte(header)) + "." + b64([]byte(claims))
	digest := sha256.Sum256([]byte(input))
	prefix := []byte("\x30\x31\x30\x0d\x06\x09\x60\x86\x48\x01\x65\x03\x04\x02\x01\x05\x00\x04\x20") // RFC 8017 §9.2
	padded := slices.Concat([]byte{0, 1}, []byte(strings.Repeat("\xff", 256-3-len(prefix)-32)), []byte{0}, prefix, digest[:])
	_, f = Verify(input+"."+b64(padded), defaults(t))
	refused(t, f, failure.ProofKey)

	// y = 2 is on no curve: whatever refuses it, it must not be accepted.
	point = make([]byte, 32)
	point[0] = 2
	header = fmt.Sprintf(`{"typ":"dpop+jwt","alg":"EdDSA","jwk":{"kty":"OKP","crv":"Ed25519","x":%q}}`, b64(point))
	if _, f := Verify(b64([]byte(header))+"."+b64([]byte(claims))+"."+b64(forged), defaults(t)); f == nil {
		t.Error("a point off the curve was accepted")
	}
}

func TestVerifyBoundsSize(t *testing.T) {
	s := signers()["ES256"]
	// ofSize returns a good proof of exactly so many bytes: base64url leaves out
	// one length in four, so that white space goes into either part.
	ofSize := func(size int) string {
		for header := s.header(); len(header) < 1000; header += " " {
			spare := size - len(b64([]byte(header))) - 1 - 1 - 86
			body := claims + strings.Repeat(" ", max(0, spare*3/4-len(claims)))
			if compact := s.sign(t, header, body); len(compact) == size {
				return compact
			}
		}
		t.Fatalf("no proof of %d bytes", size)
		return ""
	}
	if _, f := Verify(ofSize(8192), defaults(t)); f != nil {
		t.Errorf("8192 bytes: %v", f)
	}
	_, f := Verify(ofSize(8193), defaults(t))
	refused(t, f, failure.ProofTooLarge)
	_, f = Verify(strings.Repeat(".", 1<<20), defaults(t))
	refused(t, f, failure.ProofTooLarge)
}

func TestDescriptionsHoldNothingOfTheProof(t *testing.T) {
	// A description never repeats a client's input.
	const mark = "zxq7"
	s := signers()["ES256"]
	proofs := []string{
		mark,
		s.sign(t, edit(t, s.header(), "dpop+jwt", mark), claims),
		s.sign(t, edit(t, s.header(), "ES256", mark), claims),
		s.sign(t, edit(t, s.header(), "P-256", mark), claims),
		s.sign(t, edit(t, s.header(), `"EC"`, `"`+mark+`"`), claims),
		s.sign(t, s.header(), edit(t, claims, "1700000000", `"`+mark+`"`)),
		s.sign(t, s.header(), edit(t, claims, "id-1", strings.Repeat(mark, 200))),
	}
	for _, compact := range proofs {
		if _, f := Verify(compact, defaults(t)); f == nil || strings.Contains(f.Description, mark) {
			t.Errorf("%q: %v", compact, f)
		}
	}
	for old, reason := range map[string]failure.Reason{
		"GET": failure.ProofMethod, "https://api.example.com/things": failure.ProofURL, "api.example.com": failure.ProofURL, TokenHash("token"): failure.ProofToken,
	} {
		p, f := Verify(s.sign(t, s.header(), edit(t, claims, old, mark)), defaults(t))
		if f != nil {
			t.Fatal(f)
		}
		f = p.CheckRequest("GET", urls(t, "https://api.example.com/things"), TokenHash("token"))
		refused(t, f, reason)
		if f != nil && strings.Contains(f.Description, mark) {
			t.Errorf("%v", f)
		}
	}
}
