package proof

import (
	"encoding/json"
	"strings"
	"testing"
	"time"
	"unicode/utf8"

	"github.com/lestrrat-go/jwx/v2/jwa"
	"github.com/lestrrat-go/jwx/v2/jwk"
	"github.com/lestrrat-go/jwx/v2/jws"

	"github.com/caddy-dpop/caddy-dpop/internal/failure"
	"github.com/caddy-dpop/caddy-dpop/internal/jose"
)

// byJWX verifies a proof's signature with its own jwk by jwx, and says whether jwx
// could make anything of it. Of a key that it panics over it could not: jwx 2.1.7
// takes 31 bytes for a key of Ed25519.
func byJWX(compact, header string) (good bool) {
	defer func() {
		if recover() != nil {
			good = false
		}
	}()
	var fields struct {
		Alg string
		JWK json.RawMessage
	}
	if err := json.Unmarshal([]byte(header), &fields); err != nil {
		return false
	}
	if fields.Alg == "Ed25519" { // which jwx does not know by this name
		fields.Alg = "EdDSA"
	}
	key, err := jwk.ParseKey(fields.JWK)
	if err != nil {
		return false
	}
	var alg jwa.SignatureAlgorithm
	if err := alg.Accept(fields.Alg); err != nil {
		return false
	}
	_, err = jws.Verify([]byte(compact), jws.WithKey(alg, key))
	return err == nil
}

// FuzzBesideJWX holds our verifier beside another: of what we accept jwx says that
// the signature is good, and of a signature that jwx finds good we never say that
// it is not. All else that we refuse we refuse for another reason.
func FuzzBesideJWX(f *testing.F) {
	for _, s := range signers() {
		f.Add(s.alg, s.header(), claims, []byte(nil))
		f.Add(s.alg, s.header(), claims, []byte{0})
		f.Add(s.alg, strings.Replace(s.header(), `{"typ"`, `{"kid":"x","typ"`, 1), strings.Replace(claims, "GET", "POST", 1), []byte(nil))
	}
	f.Add("ES256", `{"alg":"none"}`, claims, []byte{0})
	f.Add("EdDSA", `{"typ":"dpop+jwt","alg":"EdDSA","jwk":{"kty":"OKP","crv":"Ed25519","x":"`+b64(make([]byte, 31))+`"}}`, claims, make([]byte, 64))
	f.Fuzz(func(t *testing.T, name, header, body string, signature []byte) {
		s, ok := signers()[name]
		if !ok || name == "ES384" {
			return
		}
		input := b64([]byte(header)) + "." + b64([]byte(body))
		if len(signature) == 0 {
			signature = s.signature(t, input)
		}
		compact := input + "." + b64(signature)
		_, failed := Verify(compact, defaults(t))
		good := byJWX(compact, header)
		switch {
		case failed == nil && !good:
			t.Fatalf("accepted, and by jwx its signature is not good: %s", compact)
		case failed != nil && failed.Reason == failure.ProofSignature && good:
			t.Fatalf("its signature is refused, and by jwx it is good: %s", compact)
		}
	})
}

// A proof that we make is good for what it was made for, and for nothing else.
func FuzzSignedProof(f *testing.F) {
	f.Add("GET", "https://api.example.com/things?a=b#c", "token", int64(1700000000))
	f.Add("POST", "HTTP://[::1]:80/%7e/../x", "", int64(0))
	f.Add("", "https://example.com/\x00", "\u2028", int64(-1))
	key := func() *jose.PrivateKey {
		key, err := jose.Generate(jose.AllAlgorithms().Find("EdDSA"))
		if err != nil {
			f.Fatal(err)
		}
		return key
	}()
	f.Fuzz(func(t *testing.T, method, url, token string, at int64) {
		if !utf8.ValidString(method+url) || len(method)+len(url) > 4000 || at < -1<<40 || at > 1<<40 {
			return
		}
		compact, err := Sign(key, Claims{Method: method, URL: url, Token: token, IssuedAt: time.Unix(at, 0)})
		if err != nil {
			t.Fatal(err)
		}
		p, failed := Verify(compact, defaults(t))
		if failed != nil {
			if len(compact) <= MaxSize {
				t.Fatalf("%q: %v", compact, failed)
			}
			return
		}
		target, err := ParseURI(url)
		failed = p.CheckRequest(method, []URI{target}, TokenHash(token))
		if good := err == nil && token != ""; (failed == nil) != good {
			t.Fatalf("%q: %v, %v", compact, err, failed)
		}
		if failed == nil {
			for _, other := range []*failure.Failure{p.CheckRequest(method+"x", []URI{target}, TokenHash(token)), p.CheckRequest(method, []URI{{target.Scheme, target.Authority, target.Path + "x"}}, TokenHash(token)), p.CheckRequest(method, []URI{target}, TokenHash(token+"x"))} {
				if other == nil {
					t.Fatalf("%q is good for something else", compact)
				}
			}
		}
		window := Window{MaxAge: time.Minute}
		for offset, want := range map[int64]bool{-1: false, 0: true, 60: true, 61: false} {
			if got := window.CheckTime(p, time.Unix(at+offset, 0)) == nil; got != want {
				t.Fatalf("%q is good %d seconds later: %t", compact, offset, got)
			}
		}
	})
}
