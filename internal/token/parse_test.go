package token

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/hmac"
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha256"
	"crypto/x509"
	"encoding/base64"
	"encoding/pem"
	"strings"
	"testing"

	"github.com/caddy-dpop/caddy-dpop/internal/failure"
	"github.com/caddy-dpop/caddy-dpop/internal/jose"
)

func TestParse(t *testing.T) {
	good := sign(t, "ES256", ec256(), `{"alg":"ES256","kid":"k1","typ":"at+jwt"}`, claims())
	p, f := Parse(good)
	if f != nil {
		t.Fatal(f)
	}
	if p.Algorithm != "ES256" || p.KeyID != "k1" || p.Issuer() != testIssuer {
		t.Errorf("got alg %q, kid %q, iss %q", p.Algorithm, p.KeyID, p.Issuer())
	}
	p, f = Parse(sign(t, "ES256", ec256(), `{"alg":"\u0045S256"}`, claims()))
	if f != nil || p.Algorithm != "ES256" || p.KeyID != "" {
		t.Errorf("got %+v, %v: want alg ES256 and no kid", p, f)
	}
}

func TestParseRefuses(t *testing.T) {
	token := func(header string) string { return b64(header) + "." + b64(claims()) + "." + b64("signature") }
	withClaims := func(claims string) string { return token(`{"alg":"ES256"}`)[:21] + b64(claims) + ".AAAA" }
	if _, f := Parse(withClaims(claims())); f != nil {
		t.Fatal("the frame of the rows below is no good token:", f)
	}
	for name, compact := range map[string]string{
		"empty":                    "",
		"opaque":                   "2YotnFZFEjr1zCsicMWpAA",
		"opaque with dots":         "a.b.c",
		"two parts":                b64(`{"alg":"ES256"}`) + "." + b64(claims()),
		"four parts":               token(`{"alg":"ES256"}`) + ".AAAA",
		"five parts, a JWE":        "e30.e30.e30.e30.e30",
		"leading dot":              "." + token(`{"alg":"ES256"}`),
		"padding, RFC 7515 §2":     token(`{"alg":"ES256"}`) + "=",
		"a line break in a part":   strings.Replace(token(`{"alg":"ES256"}`), ".", ".\n", 1),
		"base64, not base64url":    b64(`{"alg":"ES256"}`) + "." + b64(claims()) + ".+/+/",
		"trailing bits not zero":   b64(`{"alg":"ES256"}`) + "." + b64(claims()) + ".AB",
		"header is no JSON":        token(`alg`),
		"header is an array":       token(`["alg"]`),
		"header has data after it": token(`{"alg":"ES256"} {}`),
		"header is not UTF-8":      token("{\"alg\":\"ES256\",\"kid\":\"\xff\"}"),

		// RFC 7515 §4: names must be unique, and in RFC 8725 §2.4 what happens else
		"alg repeated":           token(`{"alg":"ES256","alg":"none"}`),
		"alg repeated, escaped":  token(`{"alg":"ES256","\u0061lg":"none"}`),
		"kid repeated":           token(`{"alg":"ES256","kid":"a","kid":"b"}`),
		"typ repeated, deeper":   token(`{"alg":"ES256","x":{"typ":1,"typ":2}}`),
		"claim repeated":         withClaims(`{"iss":"a","iss":"b"}`),
		"claim repeated, deeper": withClaims(`{"cnf":{"jkt":"a","jkt":"b"}}`),

		"claims are a string":        withClaims(`"claims"`),
		"claims have data after":     withClaims(`{}x`),
		"claims are empty":           withClaims(``),
		"alg missing":                token(`{"kid":"a"}`),
		"alg in capitals":            token(`{"ALG":"ES256"}`),
		"alg empty":                  token(`{"alg":""}`),
		"alg null":                   token(`{"alg":null}`),
		"alg a number":               token(`{"alg":256}`),
		"alg an array":               token(`{"alg":["ES256"]}`),
		"kid a number":               token(`{"alg":"ES256","kid":1}`),
		"kid null":                   token(`{"alg":"ES256","kid":null}`),
		"kid an object":              token(`{"alg":"ES256","kid":{}}`),
		"kid is half a surrogate":    token(`{"alg":"ES256","kid":"\ud800"}`),
		"crit, RFC 7515 §4.1.11":     token(`{"alg":"ES256","crit":["exp"],"exp":1}`),
		"crit empty":                 token(`{"alg":"ES256","crit":[]}`),
		"crit null":                  token(`{"alg":"ES256","crit":null}`),
		"b64 false, RFC 7797 §3":     token(`{"alg":"ES256","b64":false}`),
		"b64 true":                   token(`{"alg":"ES256","b64":true}`),
		"b64 with crit":              token(`{"alg":"ES256","b64":false,"crit":["b64"]}`),
		"zip, RFC 7516 §4.1.3":       token(`{"alg":"ES256","zip":"DEF"}`),
		"zip in an escaped spelling": token(`{"alg":"ES256","\u007aip":"DEF"}`),
	} {
		t.Run(name, func(t *testing.T) {
			_, f := Parse(compact)
			expect(t, f, failure.TokenMalformed)
		})
	}
}

// Header parameters that choose a key are not looked at: the issuer's key set
// alone has keys (RFC 8725 §3.10).
func TestParseIgnoresOtherHeaders(t *testing.T) {
	header := `{"alg":"ES256","jku":"https://evil.example","jwk":{"kty":"EC"},"x5u":"https://evil.example","x5c":["AAAA"],"CRIT":["a"],"cty":"JWT"}`
	if _, f := Parse(sign(t, "ES256", ec256(), header, claims())); f != nil {
		t.Error(f)
	}
}

func TestIssuer(t *testing.T) {
	for iss, want := range map[string]string{
		`"https://a.example"`: "https://a.example", `"https:\/\/a.example"`: "https://a.example",
		"": "", "null": "", "5": "", `["https://a.example"]`: "",
	} {
		p, f := Parse(sign(t, "ES256", ec256(), `{"alg":"ES256"}`, claims("iss", iss)))
		if f != nil {
			t.Fatal(f)
		}
		if got := p.Issuer(); got != want {
			t.Errorf("iss %s: got %q, want %q", iss, got, want)
		}
	}
}

func TestVerifySignature(t *testing.T) {
	for _, name := range jose.AllAlgorithms().Names() {
		t.Run(name, func(t *testing.T) {
			signer := signerOf(name)
			p, f := Parse(sign(t, name, signer, `{"alg":"`+name+`"}`, claims()))
			if f != nil {
				t.Fatal(f)
			}
			// all keys of the issuer, the right one last
			keys := []*jose.Key{otherKey(t), publicKey(t, signer)}
			token, f := p.VerifySignature(algorithm(t, name), keys)
			expect(t, f, "")
			if token.Claims.Len() == 0 || !token.header.Has("alg") {
				t.Error("the token lacks its claims or its header")
			}
			_, f = p.VerifySignature(algorithm(t, name), keys[:1])
			expect(t, f, failure.TokenSignature)
			_, f = p.VerifySignature(algorithm(t, name), nil)
			expect(t, f, failure.TokenSignature)
		})
	}
}

// otherKey returns a key that signed nothing.
func otherKey(t testing.TB) *jose.Key {
	t.Helper()
	private, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	return publicKey(t, private)
}

// RFC 8725 §2.1, §3.1: whatever alg says, a token verifies by the one algorithm
// that the key is for, and there is neither none nor a symmetric one.
func TestAlgorithmConfusion(t *testing.T) {
	keys := []*jose.Key{
		publicKey(t, rsa2048()), publicKey(t, ec256()), publicKey(t, ec384()), publicKey(t, ec521()), publicKey(t, edKey()),
	}
	good := sign(t, "ES256", ec256(), `{"alg":"ES256"}`, claims())
	cut := strings.LastIndexByte(good, '.')
	body, signed := good[:cut], mustDecode(t, good[cut+1:])
	parts := strings.Split(good, ".")
	der, err := ec256().Sign(rand.Reader, digest(body), crypto.SHA256)
	if err != nil {
		t.Fatal(err)
	}
	shortSalt, err := rsa.SignPSS(rand.Reader, rsa2048().(*rsa.PrivateKey), crypto.SHA256,
		digest(b64(`{"alg":"PS256"}`)+"."+b64(claims())), &rsa.PSSOptions{SaltLength: 8})
	if err != nil {
		t.Fatal(err)
	}
	rows := map[string]string{
		"none, no signature":          b64(`{"alg":"none"}`) + "." + b64(claims()) + ".",
		"None":                        b64(`{"alg":"None"}`) + "." + b64(claims()) + ".",
		"none with a signature":       b64(`{"alg":"none"}`) + "." + parts[1] + "." + parts[2],
		"ES256 without a signature":   body + ".",
		"es256 in small letters":      sign(t, "ES256", ec256(), `{"alg":"es256"}`, claims()),
		"ES256 with RS256's key":      sign(t, "RS256", rsa2048(), `{"alg":"ES256"}`, claims()),
		"RS256 with ES256's key":      sign(t, "ES256", ec256(), `{"alg":"RS256"}`, claims()),
		"ES384 with ES256's key":      sign(t, "ES256", ec256(), `{"alg":"ES384"}`, claims()),
		"ES256 with ES384's key":      sign(t, "ES384", ec384(), `{"alg":"ES256"}`, claims()),
		"RS256 signed by PS256":       sign(t, "PS256", rsa2048(), `{"alg":"RS256"}`, claims()),
		"PS256 signed by RS256":       sign(t, "RS256", rsa2048(), `{"alg":"PS256"}`, claims()),
		"RS256 signed by RS512":       sign(t, "RS512", rsa2048(), `{"alg":"RS256"}`, claims()),
		"EdDSA with ES256's key":      sign(t, "ES256", ec256(), `{"alg":"EdDSA"}`, claims()),
		"PS256, salt of 8 bytes":      b64(`{"alg":"PS256"}`) + "." + b64(claims()) + "." + b64(string(shortSalt)),
		"ES256 in DER":                body + "." + b64(string(der)),
		"ES256, a zero byte after":    body + "." + b64(string(signed)+"\x00"),
		"ES256, a byte short":         body + "." + b64(string(signed[:63])),
		"ES256, r and s zero":         body + "." + b64(string(make([]byte, 64))),
		"other claims":                parts[0] + "." + b64(claims("sub", `"root"`)) + "." + parts[2],
		"other header":                b64(`{"alg":"ES256","typ":"at+jwt"}`) + "." + parts[1] + "." + parts[2],
		"signature of another token":  body + "." + strings.Split(sign(t, "ES256", ec256(), `{"alg":"ES256"}`, `{}`), ".")[2],
		"header with a space in JSON": b64(`{"alg": "ES256"}`) + "." + parts[1] + "." + parts[2],
	}
	for name, secret := range publicSecrets(t, rsa2048().Public()) {
		input := b64(`{"alg":"HS256"}`) + "." + b64(claims())
		mac := hmac.New(sha256.New, secret)
		mac.Write([]byte(input))
		rows["HS256 keyed with the public key, "+name] = input + "." + b64(string(mac.Sum(nil)))
	}
	for name, compact := range rows {
		t.Run(name, func(t *testing.T) {
			p, f := Parse(compact)
			if f != nil {
				t.Fatal(f)
			}
			if alg := jose.AllAlgorithms().Find(p.Algorithm); alg != nil {
				_, f := p.VerifySignature(alg, keys)
				expect(t, f, failure.TokenSignature)
				return
			}
			// No such algorithm. Even by all others it does not verify, unless
			// the name alone is wrong.
			if name == "es256 in small letters" {
				return
			}
			for _, alg := range jose.AllAlgorithms() {
				_, f := p.VerifySignature(alg, keys)
				expect(t, f, failure.TokenSignature)
			}
		})
	}
	for _, name := range []string{"none", "None", "", "HS256", "HS384", "HS512", "es256", "RSA-OAEP", "dir", "ES256K"} {
		if jose.AllAlgorithms().Find(name) != nil {
			t.Errorf("%s is an algorithm", name)
		}
	}
}

// publicSecrets returns the forms in which a verifier may hold a public key.
func publicSecrets(t testing.TB, public crypto.PublicKey) map[string][]byte {
	t.Helper()
	der, err := x509.MarshalPKIXPublicKey(public)
	if err != nil {
		t.Fatal(err)
	}
	pkcs1 := x509.MarshalPKCS1PublicKey(public.(*rsa.PublicKey))
	return map[string][]byte{
		"DER":           der,
		"PEM":           pem.EncodeToMemory(&pem.Block{Type: "PUBLIC KEY", Bytes: der}),
		"PKCS #1 PEM":   pem.EncodeToMemory(&pem.Block{Type: "RSA PUBLIC KEY", Bytes: pkcs1}),
		"its modulus":   public.(*rsa.PublicKey).N.Bytes(),
		"nothing":       {},
		"modulus, text": []byte(b64(string(public.(*rsa.PublicKey).N.Bytes()))),
	}
}

func digest(input string) []byte {
	sum := sha256.Sum256([]byte(input))
	return sum[:]
}

func mustDecode(t testing.TB, text string) []byte {
	t.Helper()
	data, err := base64.RawURLEncoding.DecodeString(text)
	if err != nil {
		t.Fatal(err)
	}
	return data
}
