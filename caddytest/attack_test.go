package caddytest

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha256"
	"encoding/asn1"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"math/big"
	"net/http"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/caddy-dpop/caddy-dpop/internal/proof"
)

// The tables of the files attack_*_test.go are attacks: one row each, with the
// document or the public fault that it comes from, and the reason by which the
// gateway refuses it. A row that is refused for another reason fails: the check
// that it is about is gone, or comes too late.

// In place of a reason:
const (
	isAccepted = ""
	byServer   = "refused by the HTTP server, before any handler"
)

// saysWhy makes the reason of a refusal a header of the answer.
const saysWhy = `
handle_errors {
	header X-Reason {http.dpop.reason}
	header X-Outcome {http.dpop.outcome}
	respond "" {http.error.status_code}
}`

// attacked is a site with further settings of its handler that says why it
// refuses what it refuses.
func attacked(t *testing.T, settings string) *gateway {
	t.Helper()
	return serve(t, setup{site: "{{DPOP}} " + settings + "\nreverse_proxy {{BACKEND}}" + saysWhy})
}

// because fails unless the answer is as the reason wants, and the backend got
// what was accepted, and nothing else.
func (g *gateway) because(t *testing.T, a *http.Response, reason string) {
	t.Helper()
	got, refusal := a.Header.Get("X-Reason"), a.StatusCode >= 400
	switch {
	case reason == isAccepted && (refusal || got != ""):
		t.Errorf("answered %d, refused because of %q", a.StatusCode, got)
	case reason == byServer && (!refusal || got != ""):
		t.Errorf("answered %d, and refused because of %q, not by the server", a.StatusCode, got)
	case reason != isAccepted && reason != byServer && (!refusal || got != reason):
		t.Errorf("answered %d, refused because of %q, not %q", a.StatusCode, got, reason)
	}
	if n := len(g.backend.requests()); (n == 1) != (reason == isAccepted) || n > 1 {
		t.Errorf("the backend got %d requests", n)
	}
}

// forger is a key pair of whatever quality, as text and for signing.
type forger struct {
	private  crypto.Signer
	alg, jwk string
	jkt      string // by the letter of RFC 7638, without a look at the key
}

func b64(octets []byte) string { return base64.RawURLEncoding.EncodeToString(octets) }

// thumbprintOf hashes a JWK that has the required members alone, in order.
func thumbprintOf(jwk string) string {
	sum := sha256.Sum256([]byte(jwk))
	return b64(sum[:])
}

// public is a forger that has a JWK and no private key.
func public(alg, jwk string) *forger { return &forger{alg: alg, jwk: jwk, jkt: thumbprintOf(jwk)} }

func ecForger(alg string, curve elliptic.Curve) *forger {
	private, err := ecdsa.GenerateKey(curve, rand.Reader)
	if err != nil {
		panic(err)
	}
	point, err := private.PublicKey.Bytes()
	if err != nil {
		panic(err)
	}
	size := len(point) / 2
	f := public(alg, fmt.Sprintf(`{"crv":%q,"kty":"EC","x":%q,"y":%q}`, private.Params().Name, b64(point[1:1+size]), b64(point[1+size:])))
	f.private = private
	return f
}

func rsaForger(alg string, bits int) *forger {
	private, err := rsa.GenerateKey(rand.Reader, bits)
	if err != nil {
		panic(err)
	}
	f := public(alg, rsaJWK("AQAB", private.N.Bytes()))
	f.private = private
	return f
}

func rsaJWK(e string, n []byte) string { return fmt.Sprintf(`{"e":%q,"kty":"RSA","n":%q}`, e, b64(n)) }

func edForger(alg string) *forger {
	key, private, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		panic(err)
	}
	f := public(alg, fmt.Sprintf(`{"crv":"Ed25519","kty":"OKP","x":%q}`, b64(key)))
	f.private = private
	return f
}

// forgers are keys that are as they should be, one of a kind.
var forgers = sync.OnceValue(func() map[string]*forger {
	all := map[string]*forger{
		"ES256": ecForger("ES256", elliptic.P256()), "ES384": ecForger("ES384", elliptic.P384()), "ES512": ecForger("ES512", elliptic.P521()),
		"EdDSA": edForger("EdDSA"), "RS256": rsaForger("RS256", 2048),
	}
	pss := *all["RS256"]
	pss.alg = "PS256"
	all["PS256"] = &pss
	return all
})

// sign signs as the forger's algorithm says.
func (f *forger) sign(input []byte) []byte {
	hash := map[string]crypto.Hash{"ES384": crypto.SHA384, "ES512": crypto.SHA512}[f.alg]
	if hash == 0 {
		hash = crypto.SHA256
	}
	h := hash.New()
	h.Write(input)
	digest := h.Sum(nil)
	var signature []byte
	var err error
	switch key := f.private.(type) {
	case nil:
		return make([]byte, 64)
	case ed25519.PrivateKey:
		return ed25519.Sign(key, input)
	case *ecdsa.PrivateKey:
		r, s, err := ecdsa.Sign(rand.Reader, key, digest)
		if err != nil {
			panic(err)
		}
		size := (key.Params().BitSize + 7) / 8
		return slices.Concat(r.FillBytes(make([]byte, size)), s.FillBytes(make([]byte, size)))
	case *rsa.PrivateKey:
		if f.alg == "PS256" {
			signature, err = rsa.SignPSS(rand.Reader, key, hash, digest, &rsa.PSSOptions{SaltLength: hash.Size()})
		} else {
			signature, err = rsa.SignPKCS1v15(rand.Reader, key, hash, digest)
		}
	}
	if err != nil {
		panic(err)
	}
	return signature
}

// inDER is an ECDSA signature in the form of other protocols.
func inDER(signature []byte) []byte {
	half := len(signature) / 2
	der, err := asn1.Marshal(struct{ R, S *big.Int }{new(big.Int).SetBytes(signature[:half]), new(big.Int).SetBytes(signature[half:])})
	if err != nil {
		panic(err)
	}
	return der
}

// forgery is a JWS before it is signed and spelt: good, but for what options change.
type forgery struct {
	key            *forger
	header, claims string
	encode         func(part string) string // of header and claims
	signature      func(input string) []byte
	spell          func(compact string) string
}

type option func(*forgery)

// head changes a text that is once in the header.
func head(old, changed string) option {
	return func(f *forgery) { f.header = replaceOne(f.header, old, changed) }
}

// body changes a text that is once in the claims.
func body(old, changed string) option {
	return func(f *forgery) { f.claims = replaceOne(f.claims, old, changed) }
}

// claim adds a claim, or replaces it.
func claim(name, value string) option {
	return func(f *forgery) {
		var all map[string]json.RawMessage
		if err := json.Unmarshal([]byte(f.claims), &all); err != nil {
			panic(err)
		}
		delete(all, name)
		rest, err := json.Marshal(all)
		if err != nil {
			panic(err)
		}
		f.claims = fmt.Sprintf("{%q:%s,%s", name, value, rest[1:])
	}
}

// without takes a claim away.
func without(name string) option {
	return func(f *forgery) {
		claim(name, "0")(f)
		f.claims = strings.Replace(f.claims, fmt.Sprintf("%q:0,", name), "", 1)
	}
}

// member adds a member to the header, in front.
func member(name, value string) option {
	return func(f *forgery) { f.header = fmt.Sprintf("{%q:%s,%s", name, value, f.header[1:]) }
}

func wholeBody(text string) option { return func(f *forgery) { f.claims = text } }

// signed replaces how it is signed.
func signed(signature func(input string) []byte) option {
	return func(f *forgery) { f.signature = signature }
}

// altered changes a good signature.
func altered(change func(signature []byte) []byte) option {
	return func(f *forgery) {
		sign := f.signature
		f.signature = func(input string) []byte { return change(sign(input)) }
	}
}

// spelt changes the whole text, once it is signed.
func spelt(spell func(compact string) string) option { return func(f *forgery) { f.spell = spell } }

// encoded changes how header and claims are encoded, before they are signed.
func encoded(encode func(part string) string) option { return func(f *forgery) { f.encode = encode } }

func replaceOne(text, old, changed string) string {
	if strings.Count(text, old) != 1 {
		panic(fmt.Sprintf("%q is not once in %s", old, text))
	}
	return strings.Replace(text, old, changed, 1)
}

func (f *forgery) compact(options []option) string {
	f.signature = func(input string) []byte { return f.key.sign([]byte(input)) }
	f.encode = func(part string) string { return b64([]byte(part)) }
	f.spell = func(compact string) string { return compact }
	for _, change := range options {
		change(f)
	}
	input := f.encode(f.header) + "." + f.encode(f.claims)
	return f.spell(input + "." + b64(f.signature(input)))
}

// proofBy returns a proof by a forger that is good but for the options.
func proofBy(key *forger, method, url, token string, options ...option) string {
	f := &forgery{
		key:    key,
		header: fmt.Sprintf(`{"typ":"dpop+jwt","alg":%q,"jwk":%s}`, key.alg, key.jwk),
		claims: fmt.Sprintf(`{"jti":%q,"htm":%q,"htu":%q,"iat":%d,"ath":%q}`, rand.Text(), method, url, time.Now().Unix(), proof.TokenHash(token)),
	}
	return f.compact(options)
}

// boundTo returns a good token that is bound to the forger's key, whatever that is.
func (f *forger) boundTo(t testing.TB) string {
	t.Helper()
	return accessToken(t, map[string]any{"cnf": map[string]any{"jkt": f.jkt}})
}

// credentials are those of a request.
func credentials(token string, proofs ...string) http.Header {
	return http.Header{"Authorization": {"DPoP " + token}, "Dpop": proofs}
}

// fresh are the credentials of a request that is good: none of it was used before.
func fresh(t testing.TB, method, url string) (token, proof string) {
	t.Helper()
	token = accessToken(t, nil)
	return token, dpop(t, method, url, token, nil)
}
