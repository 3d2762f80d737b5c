package jose

import (
	"bytes"
	"crypto"
	"crypto/ecdh"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"encoding/json"
	"encoding/pem"
	"fmt"
	"slices"
	"strings"
	"testing"
)

// privateJWK writes a private key as RFC 7518 §6 and RFC 8037 §2 say, by the
// standard library alone. Changes replace members; nil takes one away.
func privateJWK(t *testing.T, private crypto.Signer, changes map[string]any) string {
	t.Helper()
	var members map[string]any
	switch key := private.(type) {
	case *ecdsa.PrivateKey:
		point, err := key.PublicKey.Bytes()
		if err != nil {
			t.Fatal(err)
		}
		d, err := key.Bytes()
		if err != nil {
			t.Fatal(err)
		}
		size := len(point) / 2
		members = map[string]any{"kty": "EC", "crv": key.Params().Name, "x": b64(point[1 : 1+size]), "y": b64(point[1+size:]), "d": b64(d)}
	case *rsa.PrivateKey:
		key.Precompute()
		members = map[string]any{"kty": "RSA", "n": b64(key.N.Bytes()), "e": "AQAB", "d": b64(key.D.Bytes()),
			"p": b64(key.Primes[0].Bytes()), "q": b64(key.Primes[1].Bytes()),
			"dp": b64(key.Precomputed.Dp.Bytes()), "dq": b64(key.Precomputed.Dq.Bytes()), "qi": b64(key.Precomputed.Qinv.Bytes())}
	case ed25519.PrivateKey:
		members = map[string]any{"kty": "OKP", "crv": "Ed25519", "x": b64(key.Public().(ed25519.PublicKey)), "d": b64(key.Seed())}
	}
	for name, value := range changes {
		if members[name] = value; value == nil {
			delete(members, name)
		}
	}
	text, err := json.Marshal(members)
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}

// inPEM writes a key in PEM: PKCS #8, or the kind's own older form.
func inPEM(t *testing.T, private crypto.Signer, older bool) string {
	t.Helper()
	kind, der, err := "PRIVATE KEY", []byte(nil), error(nil)
	rsaKey, isRSA := private.(*rsa.PrivateKey)
	switch {
	case !older:
		der, err = x509.MarshalPKCS8PrivateKey(private)
	case isRSA:
		kind, der = "RSA PRIVATE KEY", x509.MarshalPKCS1PrivateKey(rsaKey)
	default:
		kind = "EC PRIVATE KEY"
		der, err = x509.MarshalECPrivateKey(private.(*ecdsa.PrivateKey))
	}
	if err != nil {
		t.Fatal(err)
	}
	return block(kind, der)
}

func block(kind string, der []byte) string {
	return string(pem.EncodeToMemory(&pem.Block{Type: kind, Bytes: der}))
}

// parsed reads a private key, and checks that it signs by the algorithm what the
// standard library's public key verifies.
func parsed(t *testing.T, text, alg string, private crypto.Signer) *PrivateKey {
	t.Helper()
	key, err := ParsePrivateKey([]byte(text))
	if err != nil {
		t.Fatal(err)
	}
	if key.Algorithm.Name != alg {
		t.Errorf("signs by %s, want %s", key.Algorithm.Name, alg)
	}
	compact, err := key.Sign(map[string]any{"typ": "JWT"}, map[string]any{"sub": "a"})
	if err != nil {
		t.Fatal(err)
	}
	jws, err := ParseJWS(compact)
	if err != nil {
		t.Fatal(err)
	}
	if err := find(t, alg).Verify(publicKey(t, private), jws.Input, jws.Signature); err != nil {
		t.Error(err)
	}
	if name, _ := jws.Header.Get("alg"); string(name) != `"`+alg+`"` {
		t.Errorf("alg %s in the header", name)
	}
	return key
}

// usual is what a key without alg signs by.
var usual = map[string]string{"P-256": "ES256", "P-384": "ES384", "P-521": "ES512", "RSA": "RS256", "Ed25519": "EdDSA"}

func TestParsePrivateKey(t *testing.T) {
	for kind, private := range testKeys() {
		forms := map[string]string{
			"JWK":             privateJWK(t, private, nil),
			"JWK with spaces": "\n " + privateJWK(t, private, nil) + "\n",
			"PKCS #8":         inPEM(t, private, false),
			"after other text": "Bag Attributes\n    friendlyName: dpop\n" + // as openssl pkcs12 writes
				inPEM(t, private, false),
		}
		if kind != "Ed25519" { // which has no older form
			forms["PKCS #1 or SEC 1"] = inPEM(t, private, true)
		}
		for form, text := range forms {
			t.Run(kind+", "+form, func(t *testing.T) {
				key := parsed(t, text, usual[kind], private)
				if key.ID != key.Thumbprint {
					t.Errorf("id %q, want the thumbprint", key.ID)
				}
				public, err := ParseKey(object(t, privateJWK(t, private, map[string]any{
					"d": nil, "p": nil, "q": nil, "dp": nil, "dq": nil, "qi": nil})))
				if err != nil || public.Thumbprint != key.Thumbprint {
					t.Errorf("thumbprint %q, want %q (%v)", key.Thumbprint, public.Thumbprint, err)
				}
			})
		}
	}
}

// RFC 7517 §4.4 and §4.5: a JWK says by what it signs, and what it is called.
func TestParsePrivateKeyMembers(t *testing.T) {
	for _, kind := range kinds {
		private := testKeys()[kind.key]
		key := parsed(t, privateJWK(t, private, map[string]any{"alg": kind.alg, "kid": "the key", "use": "sig"}), kind.alg, private)
		if key.ID != "the key" || key.Thumbprint == "the key" {
			t.Errorf("%s: id %q, thumbprint %q", kind.alg, key.ID, key.Thumbprint)
		}
	}
	private := testKeys()["P-256"]
	if key := parsed(t, privateJWK(t, private, map[string]any{"kid": ""}), "ES256", private); key.ID != key.Thumbprint {
		t.Errorf("an empty kid is the id %q", key.ID)
	}
}

func TestParsePrivateKeyRefuses(t *testing.T) {
	ec, rsaKey, ed := testKeys()["P-256"], testKeys()["RSA"], testKeys()["Ed25519"]
	jwk := func(private crypto.Signer, changes ...any) string {
		all := make(map[string]any)
		for i := 0; i < len(changes); i += 2 {
			all[changes[i].(string)] = changes[i+1]
		}
		return privateJWK(t, private, all)
	}
	der := func(der []byte, err error) []byte {
		if err != nil {
			t.Fatal(err)
		}
		return der
	}
	small, err := rsa.GenerateKey(rand.Reader, 1024)
	if err != nil {
		t.Fatal(err)
	}
	agreement, err := ecdh.X25519().GenerateKey(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	for name, text := range map[string]string{
		"nothing":          "",
		"garbage":          "not a key",
		"null":             "null",
		"an array":         "[]",
		"a string":         `"key"`,
		"no members":       "{}",
		"cut short":        jwk(ec)[:40],
		"a set":            `{"keys":[` + jwk(ec) + `]}`,
		"an unknown kind":  jwk(ec, "kty", "AKP"),
		"an unknown curve": jwk(ec, "crv", "P-192"),
		"secp256k1":        jwk(ec, "crv", "secp256k1"),
		"X25519":           `{"kty":"OKP","crv":"X25519","x":"` + b64(agreement.PublicKey().Bytes()) + `","d":"` + b64(agreement.Bytes()) + `"}`,

		"a public EC key":      jwk(ec, "d", nil),
		"a public Ed25519 key": jwk(ed, "d", nil),
		"a public RSA key":     jwk(rsaKey, "d", nil, "p", nil, "q", nil, "dp", nil, "dq", nil, "qi", nil),
		"a secret":             `{"kty":"oct","k":"` + b64(make([]byte, 32)) + `"}`,
		"a secret for HS256":   `{"kty":"oct","alg":"HS256","k":"` + b64(make([]byte, 32)) + `"}`,

		"HS256 of an EC key":         jwk(ec, "alg", "HS256"),
		"none":                       jwk(ec, "alg", "none"),
		"another case":               jwk(ec, "alg", "es256"),
		"an alg for encryption":      jwk(ec, "alg", "ECDH-ES"),
		"RSA-OAEP":                   jwk(rsaKey, "alg", "RSA-OAEP-256"),
		"another curve's alg":        jwk(ec, "alg", "ES384"),
		"another kind's alg":         jwk(ec, "alg", "RS256"),
		"EdDSA of an RSA key":        jwk(rsaKey, "alg", "EdDSA"),
		"an alg that is no string":   jwk(ec, "alg", 5),
		"a kid that is no string":    jwk(ec, "kid", 5),
		"a d that is no string":      jwk(ec, "d", 5),
		"a d that is no base64url":   jwk(ec, "d", "!"),
		"a point not on the curve":   jwk(ec, "x", b64(make([]byte, 32))),
		"no y":                       jwk(ec, "y", nil),
		"another key's Ed25519 x":    jwk(ed, "x", b64(make([]byte, 32))),
		"an Ed25519 seed cut short":  jwk(ed, "d", "AQ"),
		"an Ed25519 seed of nothing": jwk(ed, "d", ""),
		"RSA of 1024 bits":           jwk(small),
		"RSA of 1024 bits, PEM":      inPEM(t, small, false),

		"a public key in PEM":     block("PUBLIC KEY", der(x509.MarshalPKIXPublicKey(ec.Public()))),
		"a public RSA key in PEM": block("RSA PUBLIC KEY", x509.MarshalPKCS1PublicKey(&rsaKey.(*rsa.PrivateKey).PublicKey)),
		"X25519 in PEM":           block("PRIVATE KEY", der(x509.MarshalPKCS8PrivateKey(agreement))),
		"a password needed":       block("ENCRYPTED PRIVATE KEY", der(x509.MarshalPKCS8PrivateKey(ec))),
		"an unknown kind of PEM":  block("OPENSSH PRIVATE KEY", der(x509.MarshalPKCS8PrivateKey(ec))),
		"PEM of garbage":          block("PRIVATE KEY", []byte("garbage")),
		"PEM of the wrong kind":   block("RSA PRIVATE KEY", der(x509.MarshalPKCS8PrivateKey(ec))),
		"PEM without an end":      inPEM(t, ec, false)[:60],
		"PEM of nothing":          "-----BEGIN PRIVATE KEY-----\n-----END PRIVATE KEY-----\n",
	} {
		t.Run(name, func(t *testing.T) {
			key, err := ParsePrivateKey([]byte(text))
			if err == nil || key != nil {
				t.Fatalf("got %v, %v", key, err)
			}
			// The error goes to a log.
			for _, member := range []string{`"d":"`, `"k":"`} {
				if _, secret, ok := strings.Cut(text, member); ok {
					if secret, _, _ = strings.Cut(secret, `"`); len(secret) > 8 && strings.Contains(err.Error(), secret) {
						t.Errorf("the error tells the key: %v", err)
					}
				}
			}
		})
	}
}

// What is published of a key says all that a verifier needs, and nothing more:
// in the map, in its JSON, and in what a key set's reader makes of it.
func TestPublicJWK(t *testing.T) {
	want := map[string][]string{
		"EC":  {"alg", "crv", "kid", "kty", "use", "x", "y"},
		"RSA": {"alg", "e", "kid", "kty", "n", "use"},
		"OKP": {"alg", "crv", "kid", "kty", "use", "x"},
	}
	for _, kind := range kinds {
		private := testKeys()[kind.key]
		// with members that must not get through, too
		key := parsed(t, privateJWK(t, private, map[string]any{
			"alg": kind.alg, "kid": "k", "key_ops": []string{"sign"}, "ext": true, "secret": "s"}), kind.alg, private)
		public := key.PublicJWK()
		var names []string
		for name := range public {
			names = append(names, name)
		}
		slices.Sort(names)
		if !slices.Equal(names, want[fmt.Sprint(public["kty"])]) {
			t.Errorf("%s: members %v", kind.alg, names)
		}
		if public["kid"] != "k" || public["use"] != "sig" || public["alg"] != kind.alg {
			t.Errorf("%s: kid %v, use %v, alg %v", kind.alg, public["kid"], public["use"], public["alg"])
		}
		text, err := json.Marshal(public)
		if err != nil {
			t.Fatal(err)
		}
		var secret struct{ D string }
		if err := json.Unmarshal([]byte(privateJWK(t, private, nil)), &secret); err != nil {
			t.Fatal(err)
		}
		if bytes.Contains(text, []byte(secret.D)) || bytes.Contains(key.Public, []byte(secret.D)) {
			t.Errorf("%s: the private key is published", kind.alg)
		}
		if err := CheckPublic(object(t, string(text))); err != nil {
			t.Errorf("%s: %v", kind.alg, err)
		}
		again, err := ParseKey(object(t, string(text)))
		if err != nil || again.Thumbprint != key.Thumbprint {
			t.Errorf("%s: read again: %v, %v", kind.alg, again, err)
		}
		// Who changes what they were given changes no other's.
		delete(public, "kty")
		if key.PublicJWK()["kty"] == nil {
			t.Error("all share one map")
		}
	}
}

// A key that cannot sign, or not for what it is published as, must not replace
// one that can.
func TestParsePrivateKeyProbes(t *testing.T) {
	key, err := Generate(Algorithms(algorithms).Find("ES256"))
	if err != nil {
		t.Fatal(err)
	}
	public := strings.TrimSuffix(string(key.Public), "}")
	for name, text := range map[string]string{
		"d of another key":  public + `,"d":"AQ"}`,
		"d empty":           public + `,"d":""}`,
		"d null":            public + `,"d":null}`,
		"public":            public + `}`,
		"repeated member":   public + `,"d":"AQ","d":"AQ"}`,
		"use enc":           public + `,"use":"enc","d":"AQ"}`,
		"key_ops verify":    public + `,"key_ops":["verify"],"d":"AQ"}`,
		"two keys":          public + `,"d":"AQ"}` + public + `}`,
		"PEM without a key": "-----BEGIN EC PARAMETERS-----\nBggqhkjOPQMBBw==\n-----END EC PARAMETERS-----\n",
	} {
		if _, err := ParsePrivateKey([]byte(text)); err == nil {
			t.Errorf("%s: accepted", name)
		}
	}

	// as openssl ecparam -genkey writes it
	private, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	der, err := x509.MarshalECPrivateKey(private)
	if err != nil {
		t.Fatal(err)
	}
	file := "-----BEGIN EC PARAMETERS-----\nBggqhkjOPQMBBw==\n-----END EC PARAMETERS-----\n" +
		string(pem.EncodeToMemory(&pem.Block{Type: "EC PRIVATE KEY", Bytes: der}))
	if _, err := ParsePrivateKey([]byte(file)); err != nil {
		t.Errorf("openssl's file: %v", err)
	}
}
