package authserver

import (
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha256"
	"fmt"
	"math/big"
	"slices"
	"strings"
	"testing"

	"github.com/caddy-dpop/caddy-dpop/internal/jose"
)

// RFC 7517 §5: keys that are not understood, or not for this, are skipped, and
// the ones beside them go on serving.
func TestParseSkipsKeys(t *testing.T) {
	weak := &rsa.PublicKey{N: new(big.Int).SetBit(big.NewInt(1), 1023, 1), E: 65537}
	huge := &rsa.PublicKey{N: new(big.Int).SetBit(big.NewInt(1), 8192, 1), E: 65537}
	private := rsaJWK().with(fields{"d": b64(rsaPrivate().D.Bytes()),
		"p": b64(rsaPrivate().Primes[0].Bytes()), "q": b64(rsaPrivate().Primes[1].Bytes())})
	scalar, err := ecPrivate().Bytes()
	if err != nil {
		t.Fatal(err)
	}
	for _, row := range []struct {
		name string
		key  string
		kept bool
	}{
		{"RSA", rsaJWK().String(), true},
		{"EC", ecJWK().String(), true},
		{"P-384", ecFields(&newEC(elliptic.P384()).PublicKey).String(), true},
		{"P-521", ecFields(&newEC(elliptic.P521()).PublicKey).String(), true},
		{"OKP", edJWK().String(), true},
		{"alg Ed25519, RFC 9864 §2.2", edJWK().with(fields{"alg": "Ed25519"}).String(), true},
		{"members of no meaning here", rsaJWK().with(fields{"ext": true, "x": fields{"y": []int{1}}, "exp": 5}).String(), true},

		{"use sig, RFC 7517 §4.2", ecJWK().with(fields{"use": "sig"}).String(), true},
		{"use enc", ecJWK().with(fields{"use": "enc"}).String(), false},
		{"use of another kind", ecJWK().with(fields{"use": "tls"}).String(), false},
		{"use a number", ecJWK().with(fields{"use": 1}).String(), false},
		{"key_ops verify, RFC 7517 §4.3", ecJWK().with(fields{"key_ops": []string{"verify"}}).String(), true},
		{"key_ops verify among others", ecJWK().with(fields{"key_ops": []string{"wrapKey", "verify"}}).String(), true},
		{"key_ops sign alone", ecJWK().with(fields{"key_ops": []string{"sign"}}).String(), false},
		{"key_ops encrypt", ecJWK().with(fields{"key_ops": []string{"encrypt"}}).String(), false},
		{"key_ops a string", ecJWK().with(fields{"key_ops": "verify"}).String(), false},
		{"use enc and key_ops verify", ecJWK().with(fields{"use": "enc", "key_ops": []string{"verify"}}).String(), false},

		{"symmetric, RFC 7518 §6.4", fields{"kty": "oct", "k": "AyM1SysPpbyDfgZld3umj1qzKObwVMkoqQ-EstJQLr_T"}.String(), false},
		{"symmetric for HS256", fields{"kty": "oct", "alg": "HS256", "use": "sig", "k": "AAAA"}.String(), false},
		{"private RSA, RFC 7518 §6.3.2", private.String(), false},
		{"private EC, RFC 7518 §6.2.2", ecJWK().with(fields{"d": b64(scalar)}).String(), false},
		{"private OKP, RFC 8037 §2", edJWK().with(fields{"d": b64(edPrivate().Seed())}).String(), false},

		{"RSA of 1024 bits, RFC 7518 §3.3", rsaFields(weak).String(), false},
		{"RSA of more than 8192 bits", rsaFields(huge).String(), false},
		{"RSA without e", rsaJWK().with(fields{"e": nil}).String(), false},
		{"AKP, ML-DSA", fields{"kty": "AKP", "alg": "ML-DSA-44", "pub": "AAAA", "kid": "pq"}.String(), false},
		{"no kty", ecJWK().with(fields{"kty": nil}).String(), false},
		{"kty a number", ecJWK().with(fields{"kty": 5}).String(), false},
		{"kty in small letters", ecJWK().with(fields{"kty": "ec"}).String(), false},
		{"kty of another key", ecJWK().with(fields{"kty": "RSA"}).String(), false},
		{"secp256k1, RFC 8812", ecJWK().with(fields{"crv": "secp256k1"}).String(), false},
		{"X25519, RFC 8037 §3.2", edJWK().with(fields{"crv": "X25519"}).String(), false},
		{"Ed448", edJWK().with(fields{"crv": "Ed448"}).String(), false},
		{"EC without y", ecJWK().with(fields{"y": nil}).String(), false},
		{"x is no base64url", ecJWK().with(fields{"x": "!!!"}).String(), false},
		{"kid a number", ecJWK().with(fields{"kid": 5}).String(), false},
		{"kid an object", ecJWK().with(fields{"kid": fields{}}).String(), false},
		{"alg a number", ecJWK().with(fields{"alg": 5}).String(), false},
		{"x5c a string", ecJWK().with(fields{"x5c": "AAAA"}).String(), false},

		{"RSA with primes alone, RFC 7518 §6.3.2", private.with(fields{"d": nil}).String(), false},
		{"RSA with e = 1", rsaJWK().with(fields{"e": "AQ"}).String(), false},
		{"RSA with e = 2", rsaJWK().with(fields{"e": "Ag"}).String(), false},
		{"Ed25519 too short", edJWK().with(fields{"x": "AAAA"}).String(), false},
		{"Ed25519 of small order", edJWK().with(fields{"x": b64(make([]byte, 32))}).String(), false},
		{"EC off the curve", ecJWK().with(fields{"y": b64(make([]byte, 32))}).String(), false},
		{"EC too short", ecJWK().with(fields{"x": "AAAA"}).String(), false},
		{"a repeated member", `{"kid":"a",` + ecJWK().with(fields{"kid": "b"}).String()[1:], false},

		{"a string", `"key"`, false},
		{"null", `null`, false},
		{"a number", `5`, false},
		{"an array", `[` + ecJWK().String() + `]`, false},
		{"an empty object", `{}`, false},
		{"a set in the set", kids("inner"), false},
	} {
		t.Run(row.name, func(t *testing.T) {
			good := rsaJWK().with(fields{"kid": "good"}).String()
			set, err := ParseKeySet([]byte(`{"keys":[` + row.key + `,` + good + `]}`))
			if err != nil {
				t.Fatal(err)
			}
			want := 1
			if row.kept {
				want = 2
			}
			if set.Len() != want {
				t.Errorf("%d keys kept, want %d", set.Len(), want)
			}
			if keys, _ := set.find("good", algorithm("RS256")); len(keys) != 1 {
				t.Error("the good key beside it is gone")
			}
		})
	}
}

func TestParseRefuses(t *testing.T) {
	many := func(n int) string { return strings.TrimSuffix(strings.Repeat(`{"kty":"x"},`, n), ",") }
	padded := func(size int) string {
		text := `{"keys":[],"pad":""}`
		return strings.Replace(text, `""`, `"`+strings.Repeat("a", size-len(text))+`"`, 1)
	}
	for _, row := range []struct {
		name, text string
		ok         bool
	}{
		{"no keys", `{"keys":[]}`, true},
		{"other members", `{"issuer":"a","keys":[]}`, true},
		{"100 keys", `{"keys":[` + many(100) + `]}`, true},
		{"101 keys", `{"keys":[` + many(101) + `]}`, false},
		{"512 KiB", padded(512 << 10), true},
		{"a byte more", padded(512<<10 + 1), false},
		{"empty", ``, false},
		{"HTML", `<!doctype html><title>Sign in</title>`, false},
		{"an array", `[` + ecJWK().String() + `]`, false},
		{"one key, not a set", ecJWK().String(), false},
		{"keys missing", `{}`, false},
		{"keys in capitals", `{"KEYS":[]}`, false},
		{"keys null", `{"keys":null}`, false},
		{"keys an object", `{"keys":{"a":` + ecJWK().String() + `}}`, false},
		{"keys a string", `{"keys":"[]"}`, false},
		{"data after it", `{"keys":[]}{}`, false},
		{"cut short", `{"keys":[`, false},
	} {
		t.Run(row.name, func(t *testing.T) {
			set, err := ParseKeySet([]byte(row.text))
			if (err == nil) != row.ok || (set != nil) != row.ok {
				t.Errorf("got %v, %v", set, err)
			}
		})
	}
}

// What find returns are the keys of the set, and they verify.
func TestParsedKeyVerifies(t *testing.T) {
	set, err := ParseKeySet([]byte(setText(rsaJWK().with(fields{"kid": "r"}), ecJWK().with(fields{"kid": "e"}))))
	if err != nil {
		t.Fatal(err)
	}
	digest := sha256.Sum256([]byte("input"))
	signed, err := rsa.SignPKCS1v15(rand.Reader, rsaPrivate(), 5 /* SHA-256 */, digest[:])
	if err != nil {
		t.Fatal(err)
	}
	keys, _ := set.find("r", algorithm("RS256"))
	if len(keys) != 1 || algorithm("RS256").Verify(keys[0], "input", signed) != nil {
		t.Error("the key does not verify what its private half signed")
	}
}

func TestFind(t *testing.T) {
	ec := func(kid, alg string) fields {
		key := ecFields(&newEC(elliptic.P256()).PublicKey)
		if kid != "" {
			key["kid"] = kid
		}
		if alg != "" {
			key["alg"] = alg
		}
		return key
	}
	rsaKey := func(kid, alg string) fields {
		key := rsaJWK().with(fields{"kid": kid})
		if alg != "" {
			key["alg"] = alg
		}
		return key
	}
	anonymous := make([]fields, 6)
	for i := range anonymous {
		anonymous[i] = ec("", "")
	}
	for _, row := range []struct {
		name     string
		keys     []fields
		kid, alg string
		want     []int // positions of the keys
		known    bool
	}{
		{"by kid", []fields{ec("a", ""), ec("b", "")}, "b", "ES256", []int{1}, true},
		{"kid in another case", []fields{ec("a", "")}, "A", "ES256", nil, false},
		{"kid unknown", []fields{ec("a", ""), ec("", "")}, "b", "ES256", nil, false},
		{"kid, where keys have none", []fields{ec("", "")}, "a", "ES256", nil, false},
		{"empty set", nil, "a", "ES256", nil, false},
		{"two keys of one kid", []fields{ec("a", ""), ec("b", ""), ec("a", "")}, "a", "ES256", []int{0, 2}, true},
		{"two keys of one kid, two kinds", []fields{rsaKey("a", ""), ec("a", "")}, "a", "ES256", []int{1}, true},
		{"two keys of one kid, two algorithms", []fields{rsaKey("a", "RS256"), rsaKey("a", "PS256")}, "a", "PS256", []int{1}, true},

		// The kid is known, so that another fetch would tell nothing.
		{"kid of a key of another kind", []fields{rsaKey("a", "")}, "a", "ES256", nil, true},
		{"kid of a key on another curve", []fields{ec("a", "")}, "a", "ES384", nil, true},
		{"kid of a key for another algorithm", []fields{rsaKey("a", "RS256")}, "a", "PS256", nil, true},
		{"kid of a key for encryption", []fields{rsaKey("a", "RSA-OAEP")}, "a", "RS256", nil, true},
		{"kid of a key for who knows what", []fields{rsaKey("a", "X1")}, "a", "RS256", nil, true},
		{"alg of the key", []fields{rsaKey("a", "RS256")}, "a", "RS256", []int{0}, true},
		{"no alg of the key", []fields{rsaKey("a", "")}, "a", "RS512", []int{0}, true},
		{"Ed25519 is EdDSA, RFC 9864 §2.2", []fields{edJWK().with(fields{"kid": "a", "alg": "Ed25519"})}, "a", "EdDSA", []int{0}, true},
		{"EdDSA is Ed25519, RFC 9864 §2.2", []fields{edJWK().with(fields{"kid": "a", "alg": "EdDSA"})}, "a", "Ed25519", []int{0}, true},

		{"no kid: all that fit", []fields{rsaKey("a", ""), ec("b", ""), ec("", "ES256"), ec("c", "ES512")}, "", "ES256", []int{1, 2}, true},
		{"no kid: none fits", []fields{rsaKey("a", ""), ec("b", "ES512")}, "", "ES256", nil, false},
		{"no kid: empty set", nil, "", "ES256", nil, false},
		{"no kid: four at most", anonymous, "", "ES256", []int{0, 1, 2, 3}, true},
		{"no kid: four that fit", append([]fields{rsaKey("a", ""), rsaKey("b", "")}, anonymous...), "", "ES256", []int{2, 3, 4, 5}, true},
	} {
		t.Run(row.name, func(t *testing.T) {
			set, err := ParseKeySet([]byte(setText(row.keys...)))
			if err != nil {
				t.Fatal(err)
			}
			if set.Len() != len(row.keys) {
				t.Fatalf("%d of %d keys kept", set.Len(), len(row.keys))
			}
			var want []*jose.Key
			for _, i := range row.want {
				want = append(want, set.keys[i].key)
			}
			keys, known := set.find(row.kid, algorithm(row.alg))
			if !slices.Equal(keys, want) || known != row.known {
				t.Errorf("got %s, known %t; want the keys %v, known %t", positions(set, keys), known, row.want, row.known)
			}
		})
	}
}

func positions(set *KeySet, keys []*jose.Key) string {
	var at []int
	for _, key := range keys {
		at = append(at, slices.IndexFunc(set.keys, func(k setKey) bool { return k.key == key }))
	}
	return fmt.Sprint("the keys ", at)
}
