package jose

import (
	"crypto/ecdsa"
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/json"
	"math/big"
	"strings"
	"testing"
	"time"
)

// A private key that is written is read back as it was, by whatever algorithm.
func TestPrivateJWK(t *testing.T) {
	for _, kind := range kinds {
		t.Run(kind.alg, func(t *testing.T) {
			private := testKeys()[kind.key]
			key, err := NewPrivateKey(find(t, kind.alg), private)
			if err != nil {
				t.Fatal(err)
			}
			members, err := key.PrivateJWK()
			if err != nil {
				t.Fatal(err)
			}
			text, err := json.Marshal(members)
			if err != nil {
				t.Fatal(err)
			}
			again := parsed(t, string(text), kind.alg, private)
			if again.Thumbprint != key.Thumbprint || again.ID != key.Thumbprint || members["use"] != "sig" {
				t.Errorf("read back with thumbprint %s, id %s: %s", again.Thumbprint, again.ID, text)
			}
			// and says the same as the standard library does
			var want map[string]any
			if err := json.Unmarshal([]byte(privateJWK(t, private, nil)), &want); err != nil {
				t.Fatal(err)
			}
			for name, value := range want {
				if members[name] != value {
					t.Errorf("%s is %v, want %v", name, members[name], value)
				}
			}
			if len(members) != len(want)+3 { // kid, use, alg
				t.Errorf("members beside those of a key: %s", text)
			}
		})
	}
}

// RFC 7518 §6.2.2.1: d has the full size of the curve's order, zeros included.
func TestPrivateJWKKeepsLeadingZeros(t *testing.T) {
	private := testKeys()["P-256"].(*ecdsa.PrivateKey)
	d := make([]byte, 32)
	d[31] = 5
	small, err := ecdsa.ParseRawPrivateKey(private.Curve, d)
	if err != nil {
		t.Fatal(err)
	}
	key, err := NewPrivateKey(find(t, "ES256"), small)
	if err != nil {
		t.Fatal(err)
	}
	members, err := key.PrivateJWK()
	if err != nil || members["d"] != b64(d) {
		t.Errorf("d is %v, %v", members["d"], err)
	}
}

func TestParsePublicKey(t *testing.T) {
	for kind, private := range testKeys() {
		public := map[string]any{"d": nil, "p": nil, "q": nil, "dp": nil, "dq": nil, "qi": nil}
		want, err := ParseKey(object(t, privateJWK(t, private, public)))
		if err != nil {
			t.Fatal(err)
		}
		der, err := x509.MarshalPKIXPublicKey(private.Public())
		if err != nil {
			t.Fatal(err)
		}
		template := &x509.Certificate{SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "x"}, NotAfter: time.Now().Add(time.Hour)}
		certificate, err := x509.CreateCertificate(rand.Reader, template, template, private.Public(), private)
		if err != nil {
			t.Fatal(err)
		}
		forms := map[string]string{
			"a private JWK":     privateJWK(t, private, nil),
			"a public JWK":      "\n" + privateJWK(t, private, public) + "\n",
			"private PEM":       inPEM(t, private, false),
			"public PEM":        block("PUBLIC KEY", der),
			"a certificate":     block("CERTIFICATE", certificate),
			"an extended JWK":   privateJWK(t, private, merged(public, "ext", true, "key_ops", []string{"verify"})),
			"with another's id": privateJWK(t, private, merged(public, "kid", "other")),
		}
		if key, ok := private.(*rsa.PrivateKey); ok {
			forms["PKCS #1"] = block("RSA PUBLIC KEY", x509.MarshalPKCS1PublicKey(&key.PublicKey))
		}
		for form, text := range forms {
			t.Run(kind+", "+form, func(t *testing.T) {
				key, err := ParsePublicKey([]byte(text))
				if err != nil {
					t.Fatal(err)
				}
				if key.Thumbprint != want.Thumbprint {
					t.Errorf("thumbprint %s, want %s", key.Thumbprint, want.Thumbprint)
				}
			})
		}
	}
}

func merged(changes map[string]any, more ...any) map[string]any {
	all := make(map[string]any)
	for name, value := range changes {
		all[name] = value
	}
	for i := 0; i < len(more); i += 2 {
		all[more[i].(string)] = more[i+1]
	}
	return all
}

func TestParsePublicKeyRefuses(t *testing.T) {
	ec := testKeys()["P-256"]
	for name, row := range map[string]struct{ text, want string }{
		"nothing":                    {"", "neither a JWK nor a key in PEM"},
		"a set":                      {`{"keys":[]}`, "kty"},
		"a secret":                   {`{"kty":"oct","k":"AAAA"}`, "member k"},
		"a private key that is none": {privateJWK(t, ec, map[string]any{"d": "AQ"}), "does not belong to its public key"},
		"an unknown alg of one":      {privateJWK(t, ec, map[string]any{"alg": "ES256K"}), "alg"},
		"PEM of no key":              {block("EC PARAMETERS", []byte("x")), "PEM"},
		"PEM of a broken key":        {block("PRIVATE KEY", []byte("x")), "PEM"},
	} {
		t.Run(name, func(t *testing.T) {
			if key, err := ParsePublicKey([]byte(row.text)); err == nil || !strings.Contains(err.Error(), row.want) {
				t.Errorf("%v, %v, want %q", key, err, row.want)
			}
		})
	}
}
