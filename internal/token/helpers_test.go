package token

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"encoding/base64"
	"encoding/json"
	"maps"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/caddy-dpop/caddy-dpop/internal/failure"
	"github.com/caddy-dpop/caddy-dpop/internal/jose"
)

const (
	testIssuer   = "https://sso.example.com/realms/main"
	testAudience = "https://api.example.com"
	epoch        = 1_700_000_000 // the time of all checks
)

// The issuer's keys, one of a kind.
var (
	ec256   = generate(func() (crypto.Signer, error) { return ecdsa.GenerateKey(elliptic.P256(), rand.Reader) })
	ec384   = generate(func() (crypto.Signer, error) { return ecdsa.GenerateKey(elliptic.P384(), rand.Reader) })
	ec521   = generate(func() (crypto.Signer, error) { return ecdsa.GenerateKey(elliptic.P521(), rand.Reader) })
	rsa2048 = generate(func() (crypto.Signer, error) { return rsa.GenerateKey(rand.Reader, 2048) })
	edKey   = generate(func() (crypto.Signer, error) {
		_, private, err := ed25519.GenerateKey(rand.Reader)
		return private, err
	})
)

func generate(key func() (crypto.Signer, error)) func() crypto.Signer {
	return sync.OnceValue(func() crypto.Signer {
		signer, err := key()
		if err != nil {
			panic(err)
		}
		return signer
	})
}

// signerOf returns the issuer's key for an algorithm.
func signerOf(alg string) crypto.Signer {
	switch alg {
	case "ES256":
		return ec256()
	case "ES384":
		return ec384()
	case "ES512":
		return ec521()
	case "EdDSA", "Ed25519":
		return edKey()
	}
	return rsa2048()
}

// publicKey returns the public half of an issuer's key, as a key set holds it.
func publicKey(t testing.TB, signer crypto.Signer) *jose.Key {
	t.Helper()
	key, err := jose.NewKey(signer.Public())
	if err != nil {
		t.Fatal(err)
	}
	return key
}

func algorithm(t testing.TB, name string) *jose.Algorithm {
	t.Helper()
	alg := jose.AllAlgorithms().Find(name)
	if alg == nil {
		t.Fatalf("no algorithm called %s", name)
	}
	return alg
}

func b64(data string) string { return base64.RawURLEncoding.EncodeToString([]byte(data)) }

var hashes = map[string]crypto.Hash{"256": crypto.SHA256, "384": crypto.SHA384, "512": crypto.SHA512}

// signature signs as RFC 7518 §3 and RFC 8037 §3.1 say, by the standard
// library alone.
func signature(t testing.TB, alg string, signer crypto.Signer, input string) []byte {
	t.Helper()
	if alg == "EdDSA" || alg == "Ed25519" {
		return ed25519.Sign(signer.(ed25519.PrivateKey), []byte(input))
	}
	hash := hashes[alg[2:]]
	h := hash.New()
	h.Write([]byte(input))
	digest := h.Sum(nil)
	var signed []byte
	var err error
	switch alg[:2] {
	case "ES":
		private := signer.(*ecdsa.PrivateKey)
		size := (private.Curve.Params().BitSize + 7) / 8
		r, s, signErr := ecdsa.Sign(rand.Reader, private, digest)
		if err = signErr; err == nil {
			signed = make([]byte, 2*size)
			r.FillBytes(signed[:size])
			s.FillBytes(signed[size:])
		}
	case "RS":
		signed, err = rsa.SignPKCS1v15(rand.Reader, signer.(*rsa.PrivateKey), hash, digest)
	case "PS":
		options := &rsa.PSSOptions{SaltLength: rsa.PSSSaltLengthEqualsHash}
		signed, err = rsa.SignPSS(rand.Reader, signer.(*rsa.PrivateKey), hash, digest, options)
	default:
		t.Fatalf("cannot sign by %s", alg)
	}
	if err != nil {
		t.Fatal(err)
	}
	return signed
}

// sign makes a token of a header and claims, by the algorithm and key given,
// whatever the header says of them.
func sign(t testing.TB, alg string, signer crypto.Signer, header, claims string) string {
	t.Helper()
	input := b64(header) + "." + b64(claims)
	return input + "." + b64(string(signature(t, alg, signer, input)))
}

// claims returns the claims of a good token, with changes in pairs: a name and
// its JSON text, which is empty to take the claim away.
func claims(changes ...string) string {
	all := map[string]string{
		"iss":       `"` + testIssuer + `"`,
		"aud":       `"` + testAudience + `"`,
		"exp":       "1700000300",
		"iat":       "1699999990",
		"sub":       `"alice"`,
		"client_id": `"app"`,
		"jti":       `"a-1"`,
	}
	for i := 0; i < len(changes); i += 2 {
		if changes[i+1] == "" {
			delete(all, changes[i])
		} else {
			all[changes[i]] = changes[i+1]
		}
	}
	var b strings.Builder
	for i, name := range slices.Sorted(maps.Keys(all)) {
		if i > 0 {
			b.WriteByte(',')
		}
		quoted, _ := json.Marshal(name)
		b.WriteString(string(quoted) + ":" + all[name])
	}
	return "{" + b.String() + "}"
}

// verified returns a token whose signature was checked. Typ is JSON text; empty
// means no typ.
func verified(t testing.TB, typ, claims string) *Token {
	t.Helper()
	header := `{"alg":"ES256"}`
	if typ != "" {
		header = `{"alg":"ES256","typ":` + typ + `}`
	}
	parsed, f := Parse(sign(t, "ES256", ec256(), header, claims))
	if f != nil {
		t.Fatal(f, f.Details)
	}
	token, f := parsed.VerifySignature(algorithm(t, "ES256"), []*jose.Key{publicKey(t, ec256())})
	if f != nil {
		t.Fatal(f)
	}
	return token
}

func object(t testing.TB, text string) jose.Object {
	t.Helper()
	o, err := jose.ParseObject([]byte(text))
	if err != nil {
		t.Fatalf("%s: %v", text, err)
	}
	return o
}

// expect checks that a failure has the reason, or that there is none if the
// reason is empty, and that it can be sent: 401, in the characters of
// error_description, without a word of the token (RFC 6750 §3).
func expect(t testing.TB, f *failure.Failure, want failure.Reason) {
	t.Helper()
	switch {
	case f == nil && want == "":
		return
	case f == nil:
		t.Fatalf("accepted, want %s", want)
	case f.Reason != want:
		t.Fatalf("got %q (%v), want %q", f, f.Details, want)
	}
	if f.Status() != 401 {
		t.Errorf("status %d, want 401", f.Status())
	}
	for _, c := range f.Description {
		if c < 0x20 || c > 0x7e || c == '"' || c == '\\' {
			t.Errorf("description %q holds %q", f.Description, c)
		}
	}
	if f.Description == "" || strings.Contains(f.Description, canary) {
		t.Errorf("description %q is empty or repeats the token", f.Description)
	}
}

// canary stands in values of tokens that no description may repeat.
const canary = "canary"
