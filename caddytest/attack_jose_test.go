package caddytest

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/hmac"
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha256"
	"crypto/x509"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"encoding/pem"
	"fmt"
	"math/big"
	"net"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
)

// hmacWith signs by HS256.
func hmacWith(secret []byte) func(string) []byte {
	return func(input string) []byte {
		mac := hmac.New(sha256.New, secret)
		mac.Write([]byte(input))
		return mac.Sum(nil)
	}
}

// inPEM is a forger's public key as servers store it.
func (f *forger) inPEM() []byte {
	der, err := x509.MarshalPKIXPublicKey(f.private.Public())
	if err != nil {
		panic(err)
	}
	return pem.EncodeToMemory(&pem.Block{Type: "PUBLIC KEY", Bytes: der})
}

// parts changes the parts of a compact serialisation.
func parts(change func(parts []string) []string) option {
	return spelt(func(compact string) string { return strings.Join(change(strings.Split(compact, ".")), ".") })
}

const base64URL = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_"

// otherSpelling is another encoding of the same octets, which a lenient decoder
// takes for the same: the last character has bits that stand for nothing.
func otherSpelling(encoding string) string {
	last := strings.IndexByte(base64URL, encoding[len(encoding)-1])
	return encoding[:len(encoding)-1] + base64URL[last|1:last|1+1]
}

// sloppy encodes a part so. Spaces make the last group short.
func sloppy(part string) string {
	for len(part)%3 != 1 {
		part += " "
	}
	return otherSpelling(b64([]byte(part)))
}

func unb64(text string) []byte {
	octets, err := base64.RawURLEncoding.DecodeString(text)
	if err != nil {
		panic(err)
	}
	return octets
}

// valueOf is a member of a JWK that is a string.
func valueOf(jwk, name string) string {
	var all map[string]string
	if err := json.Unmarshal([]byte(jwk), &all); err != nil {
		panic(err)
	}
	return all[name]
}

// manyMembers are so many members of an object.
func manyMembers(n int) string {
	var b strings.Builder
	for i := range n {
		fmt.Fprintf(&b, `"m%d":0,`, i)
	}
	return b.String()
}

// plusOrder is the same Ed25519 signature, but for the group's order added to S.
func plusOrder(signature []byte) []byte {
	order, _ := new(big.Int).SetString("7237005577332262213973186563042994240857116359379907606001950938285454250989", 10)
	s := slices.Clone(signature[32:])
	slices.Reverse(s)
	s = new(big.Int).Add(new(big.Int).SetBytes(s), order).FillBytes(make([]byte, 32))
	slices.Reverse(s)
	return slices.Concat(signature[:32], s)
}

// startListener waits for somebody to call, and reports whether anybody has.
func startListener(t *testing.T) (address string, called func() bool) {
	t.Helper()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = listener.Close() })
	var calls atomic.Int64
	go func() {
		for {
			conn, err := listener.Accept()
			if err != nil {
				return
			}
			calls.Add(1)
			_ = conn.Close()
		}
	}()
	return listener.Addr().String(), func() bool { return calls.Load() > 0 }
}

// smallOrder are all encodings of the points of small order on edwards25519, and
// of the same points by coordinates that are not reduced (Chalkias, Garillot,
// Nikolaenko: Taming the many EdDSAs, table 6).
var smallOrder = []string{
	"0100000000000000000000000000000000000000000000000000000000000000",
	"ecffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f",
	"0000000000000000000000000000000000000000000000000000000000000080",
	"0000000000000000000000000000000000000000000000000000000000000000",
	"c7176a703d4dd84fba3c0b760d10670f2a2053fa2c39ccc64ec7fd7792ac037a",
	"c7176a703d4dd84fba3c0b760d10670f2a2053fa2c39ccc64ec7fd7792ac03fa",
	"26e8958fc2b227b045c3f489f2ef98f0d5dfac05d3c63339b13802886d53fc05",
	"26e8958fc2b227b045c3f489f2ef98f0d5dfac05d3c63339b13802886d53fc85",
	"0100000000000000000000000000000000000000000000000000000000000080",
	"ecffffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff",
	"eeffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f",
	"eeffffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff",
	"edffffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff",
	"edffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f",
}

// forgeFor finds a signature of which crypto/ed25519 says that the key of small
// order has made it: S is zero, and R a point of small order.
func forgeFor(key []byte) func(string) []byte {
	return func(input string) []byte {
		for _, text := range smallOrder {
			r, _ := hex.DecodeString(text)
			signature := slices.Concat(r, make([]byte, 32))
			if ed25519.Verify(key, []byte(input), signature) {
				return signature
			}
		}
		return make([]byte, 64)
	}
}

// oddRSA is a key of so many bits that nobody has made.
func oddRSA(bits int, e string) *forger {
	n := make([]byte, bits/8)
	_, _ = rand.Read(n)
	n[0] |= 0x80
	n[len(n)-1] |= 1
	return public("RS256", rsaJWK(e, n))
}

// signatureOf is some signature of so many octets.
func signatureOf(size int) option {
	return signed(func(string) []byte { return append([]byte{0}, make([]byte, size-1)...) })
}

// A proof as no client makes it: refused, also where the token is bound to its
// very key, which is all that an attacker would have to get an issuer to do.
func TestAttackJOSEOfProofs(t *testing.T) {
	const all = "proof {; algorithms ES256 ES384 ES512 RS256 PS256 EdDSA; }"
	g := attacked(t, all)
	ec, ed, rsaKey := forgers()["ES256"], forgers()["EdDSA"], forgers()["RS256"]
	private := ec.private.(*ecdsa.PrivateKey)
	n := private.Params().N
	zero, order := make([]byte, 32), n.Bytes()
	x, y := valueOf(ec.jwk, "x"), valueOf(ec.jwk, "y")
	// listener is where remote keys would be fetched from.
	listener, called := startListener(t)
	keyAt := func(name string) option { return member(name, `"http://`+listener+`/keys"`) }
	as := func(alg string, f *forger) *forger { return &forger{f.private, alg, f.jwk, f.jkt} }
	ecKey := func(jwk string) *forger { return public("ES256", jwk) }
	weak := rsaForger("RS256", 1024)

	type row struct {
		attack, source string
		key            *forger
		options        []option
		reason         string
	}
	rows := []row{
		{"good", "RFC 9449 §4.2", ec, nil, isAccepted},
		{"good, Ed25519", "RFC 8037 §3.1", ed, nil, isAccepted},
		{"good, PSS", "RFC 7518 §3.5", forgers()["PS256"], nil, isAccepted},

		// None, HMAC, and what else is no asymmetric signature.
		{"alg none", "CVE-2022-23540, RFC 8725 §2.1", as("none", ec), []option{signed(func(string) []byte { return nil })}, "proof_algorithm"},
		{"alg nOnE", "Auth0 authentication API, 2020", as("nOnE", ec), []option{signed(func(string) []byte { return nil })}, "proof_algorithm"},
		{"alg none with a signature", "RFC 8725 §2.1", as("none", ec), nil, "proof_algorithm"},
		{"no alg", "RFC 7515 §4.1.1", ec, []option{head(`"alg":"ES256",`, "")}, "proof_algorithm"},
		{"alg null", "RFC 7515 §4.1.1", ec, []option{head(`"alg":"ES256"`, `"alg":null`)}, "proof_algorithm"},
		{"alg an array", "RFC 7515 §4.1.1", ec, []option{head(`"alg":"ES256"`, `"alg":["ES256"]`)}, "proof_algorithm"},
		{"alg in lower case", "RFC 7515 §4.1.1", as("es256", ec), nil, "proof_algorithm"},
		{"alg with a space", "RFC 7515 §4.1.1", as("ES256 ", ec), nil, "proof_algorithm"},
		{"ALG beside no alg", "RFC 7515 §4", ec, []option{head(`"alg"`, `"ALG"`)}, "proof_algorithm"},
		{"HMAC by the public key's JWK", "CVE-2015-9235, RFC 8725 §2.1", as("HS256", ec), []option{signed(hmacWith([]byte(ec.jwk)))}, "proof_algorithm"},
		{"HMAC by the public key's PEM", "CVE-2016-10555", as("HS256", rsaKey), []option{signed(hmacWith(rsaKey.inPEM()))}, "proof_algorithm"},
		{"HMAC by a symmetric jwk", "RFC 9449 §4.3 check 5", public("HS256", `{"k":"AAAA","kty":"oct"}`), []option{signed(hmacWith([]byte{0, 0, 0}))}, "proof_algorithm"},
		{"HMAC with an empty key", "CVE-2019-20933", public("HS256", `{"k":"","kty":"oct"}`), []option{signed(hmacWith(nil))}, "proof_algorithm"},
		{"an algorithm of encryption", "RFC 8725 §3.2", as("ECDH-ES", ec), nil, "proof_algorithm"},
		{"secp256k1", "RFC 8812 §3.2", as("ES256K", ec), nil, "proof_algorithm"},
		{"SHA-1", "RFC 8725 §3.2", as("RS1", rsaKey), nil, "proof_algorithm"},

		// Algorithm, kind of key and curve that do not belong together.
		{"ES256 with an RSA key", "RFC 8725 §3.1", as("ES256", rsaKey), nil, "proof_key"},
		{"RS256 with an EC key", "RFC 8725 §3.1", as("RS256", ec), nil, "proof_key"},
		{"EdDSA with an EC key", "RFC 8725 §3.1", as("EdDSA", ec), nil, "proof_key"},
		{"ES256 with an Ed25519 key", "RFC 8725 §3.1", as("ES256", ed), nil, "proof_key"},
		{"ES256 with a key on P-384", "RFC 7518 §3.4", as("ES256", forgers()["ES384"]), nil, "proof_key"},
		{"ES384 with a key on P-256", "RFC 7518 §3.4", as("ES384", ec), nil, "proof_key"},
		{"RS256 by PSS", "RFC 8725 §3.1", rsaKey, []option{signed(func(input string) []byte { return forgers()["PS256"].sign([]byte(input)) })}, "proof_signature"},
		{"PS256 by PKCS #1", "RFC 8725 §3.1", forgers()["PS256"], []option{signed(func(input string) []byte { return rsaKey.sign([]byte(input)) })}, "proof_signature"},
		{"PSS without salt", "RFC 7518 §3.5", forgers()["PS256"], []option{signed(func(input string) []byte {
			sum := sha256.Sum256([]byte(input))
			signature, _ := rsa.SignPSS(rand.Reader, rsaKey.private.(*rsa.PrivateKey), crypto.SHA256, sum[:], &rsa.PSSOptions{SaltLength: 0})
			return signature
		})}, "proof_signature"},
		{"P-256 that is called P-384", "CVE-2020-0601 (curve of the attacker's choice)", ecKey(strings.Replace(ec.jwk, "P-256", "P-384", 1)), nil, "proof_key"},
		{"a curve of one's own", "CVE-2020-0601", ecKey(strings.Replace(ec.jwk, "P-256", "X-256", 1)), nil, "proof_key"},
		{"X25519, a key for agreement", "RFC 8037 §3.2", public("EdDSA", strings.Replace(ed.jwk, "Ed25519", "X25519", 1)), nil, "proof_key"},

		// Keys that are remote, embedded elsewhere, private or symmetric.
		{"no jwk", "RFC 9449 §4.3 check 3", ec, []option{head(`"jwk"`, `"JWK"`)}, "proof_key"},
		{"jku for jwk", "RFC 9449 §4.2, CVE-2018-0114", ec, []option{head(`"jwk"`, `"JWK"`), keyAt("jku")}, "proof_key"},
		{"x5u for jwk", "RFC 7515 §4.1.5", ec, []option{head(`"jwk"`, `"JWK"`), keyAt("x5u")}, "proof_key"},
		{"jku beside jwk", "RFC 7515 §4.1.2", ec, []option{keyAt("jku"), keyAt("x5u")}, isAccepted},
		{"x5u within jwk", "RFC 7517 §4.6", ec, []option{head(`{"crv"`, `{"x5u":"http://`+listener+`/keys","crv"`)}, isAccepted},
		{"kid for jwk", "RFC 9449 §4.2", ec, []option{head(`"jwk":`+ec.jwk, `"kid":"`+ec.jkt+`"`)}, "proof_key"},
		{"another's jwk", "RFC 9449 §4.3 check 6", ec, []option{head(ec.jwk, string(clientKey.Public))}, "proof_signature"},
		{"a private EC key", "RFC 9449 §4.3 check 7, liboauth2 CVE-2026-54431", ec, []option{head(`{"crv"`, `{"d":"AQ","crv"`)}, "proof_key"},
		{"a private Ed25519 key", "RFC 8037 §2", ed, []option{head(`{"crv"`, `{"d":"AQ","crv"`)}, "proof_key"},
		{"a private key, by an escape", "RFC 8259 §7", ec, []option{head(`{"crv"`, `{"\u0064":"AQ","crv"`)}, "proof_key"},
		{"a private key that is null", "RFC 9449 §4.3 check 7", ec, []option{head(`{"crv"`, `{"d":null,"crv"`)}, "proof_key"},
		{"a secret beside the key", "RFC 7518 §6.4", ec, []option{head(`{"crv"`, `{"k":"AQ","crv"`)}, "proof_key"},
		{"a symmetric jwk for ES256", "RFC 9449 §4.3 check 7", ecKey(`{"k":"AQ","kty":"oct"}`), nil, "proof_key"},

		// jwk of other types (go-dpop issue 23 panics on the second).
		{"jwk a string", "RFC 7515 §4.1.3", ec, []option{head(ec.jwk, `"`+strings.ReplaceAll(ec.jwk, `"`, `\"`)+`"`)}, "proof_key"},
		{"kty a number", "go-dpop issue 23", ec, []option{head(`"kty":"EC"`, `"kty":1`)}, "proof_key"},
		{"x a number", "go-dpop issue 23", ec, []option{head(`"`+x+`"`, "1")}, "proof_key"},
		{"crv null", "go-dpop issue 23", ec, []option{head(`"P-256"`, "null")}, "proof_key"},
		{"jwk an array", "RFC 7515 §4.1.3", ec, []option{head(ec.jwk, "["+ec.jwk+"]")}, "proof_key"},
		{"jwk a key set", "RFC 7517 §5", ec, []option{head(ec.jwk, `{"keys":[`+ec.jwk+"]}")}, "proof_key"},
		{"jwk null", "RFC 7515 §4.1.3", ec, []option{head(ec.jwk, "null")}, "proof_key"},

		// Points and coordinates.
		{"off the curve", "CVE-2015-7940, CVE-2017-16007", ecKey(strings.Replace(ec.jwk, y, x, 1)), nil, "proof_key"},
		{"the point at infinity", "CVE-2017-16007", ecKey(fmt.Sprintf(`{"crv":"P-256","kty":"EC","x":%q,"y":%q}`, b64(zero), b64(zero))), nil, "proof_key"},
		{"a coordinate that is not reduced", "SEC 1 §2.3.5", ecKey(strings.Replace(ec.jwk, x, b64(slices.Repeat([]byte{0xff}, 32)), 1)), nil, "proof_key"},
		{"a coordinate cut short", "RFC 7518 §6.2.1.2", ecKey(strings.Replace(ec.jwk, x, b64([]byte{1}), 1)), nil, "proof_key"},
		{"a coordinate with a zero more", "RFC 7518 §6.2.1.2", ecKey(strings.Replace(ec.jwk, x, b64(slices.Concat([]byte{0}, unb64(x))), 1)), nil, "proof_key"},
		{"no y", "RFC 7518 §6.2.1.3", ecKey(strings.Replace(ec.jwk, `,"y"`, `,"Y"`, 1)), nil, "proof_key"},
		{"a coordinate with padding", "RFC 7515 §2", ec, []option{head(x, x+"=")}, "proof_key"},
		{"a coordinate with a line break", "encoding/base64 skips it", ec, []option{head(x, x[:8]+`\n`+x[8:])}, "proof_key"},
		{"a coordinate by another encoding", "RFC 4648 §3.5: one key would have two thumbprints", ec, []option{head(x, otherSpelling(x))}, "proof_key"},
		{"a coordinate in hexadecimal", "RFC 7518 §6.2.1.2", ec, []option{head(x, hex.EncodeToString(unb64(x)))}, "proof_key"},

		// RSA: weak, huge and odd.
		{"RSA of 1024 bits, truly signed", "RFC 7518 §3.3", weak, nil, "proof_key"},
		{"RSA of 2040 bits", "RFC 7518 §3.3", oddRSA(2040, "AQAB"), []option{signatureOf(255)}, "proof_key"},
		{"RSA of 4104 bits", "the cost of a modular exponentiation", oddRSA(4104, "AQAB"), []option{signatureOf(513)}, "proof_key"},
		{"RSA of 16384 bits", "the cost of a modular exponentiation, CVE-2023-6237", oddRSA(16384, "AQAB"), []option{signatureOf(2048)}, "proof_key"},
		{"RSA with exponent 1: each message is its signature", "RFC 8017 §3.1", oddRSA(2048, "AQ"), []option{signatureOf(256)}, "proof_key"},
		{"RSA with an even exponent", "RFC 8017 §3.1", oddRSA(2048, "Ag"), []option{signatureOf(256)}, "proof_key"},
		{"RSA with exponent 0", "RFC 8017 §3.1", oddRSA(2048, "AA"), []option{signatureOf(256)}, "proof_key"},
		{"RSA without exponent", "RFC 7518 §6.3.1.2", oddRSA(2048, ""), []option{signatureOf(256)}, "proof_key"},
		{"RSA with an exponent of 2^31-1", "three times the cost", oddRSA(2048, "f____w"), []option{signatureOf(256)}, "proof_key"},
		{"RSA with an exponent that wraps to 65537", "int(2^64+65537)", oddRSA(2048, b64([]byte{1, 0, 0, 0, 0, 0, 1, 0, 1})), []option{signatureOf(256)}, "proof_key"},
		{"RSA with an exponent as large as the modulus", "the cost of a modular exponentiation", oddRSA(2048, b64(slices.Repeat([]byte{0xff}, 256))), []option{signatureOf(256)}, "proof_key"},
		{"RSA with leading zeros in n", "RFC 7518 §2: one key would have two thumbprints", rsaKey, []option{head(`"n":"`+valueOf(rsaKey.jwk, "n"), `"n":"`+b64(slices.Concat([]byte{0}, unb64(valueOf(rsaKey.jwk, "n")))))}, "proof_key"},
		{"RSA with leading zeros in e", "RFC 7518 §2", rsaKey, []option{head("AQAB", "AAEAAQ")}, "proof_key"},
		{"RSA with an even modulus", "RFC 8017 §3.1", public("RS256", rsaJWK("AQAB", append(slices.Repeat([]byte{0xff}, 255), 0xfe))), []option{signatureOf(256)}, "proof_key"},
		{"RSA without modulus", "RFC 7518 §6.3.1.1", public("RS256", rsaJWK("AQAB", nil)), nil, "proof_key"},

		// Signatures.
		{"of something else", "RFC 9449 §4.3 check 6", ec, []option{signed(func(string) []byte { return ec.sign([]byte("x")) })}, "proof_signature"},
		{"none", "RFC 9449 §4.3 check 6", ec, []option{signed(func(string) []byte { return nil })}, "proof_signature"},
		{"in DER", "RFC 7518 §3.4, CVE-2020-13822", ec, []option{altered(inDER)}, "proof_signature"},
		{"r and s zero", "CVE-2022-21449", ec, []option{altered(func([]byte) []byte { return make([]byte, 64) })}, "proof_signature"},
		{"r zero", "CVE-2022-21449", ec, []option{altered(func(s []byte) []byte { return slices.Concat(zero, s[32:]) })}, "proof_signature"},
		{"s zero", "CVE-2022-21449", ec, []option{altered(func(s []byte) []byte { return slices.Concat(s[:32], zero) })}, "proof_signature"},
		{"r and s the order", "CVE-2022-21449", ec, []option{altered(func([]byte) []byte { return slices.Concat(order, order) })}, "proof_signature"},
		{"a zero behind", "RFC 7518 §3.4", ec, []option{altered(func(s []byte) []byte { return append(s, 0) })}, "proof_signature"},
		{"zeros in front of r and s", "RFC 7518 §3.4", ec, []option{altered(func(s []byte) []byte { return slices.Concat([]byte{0}, s[:32], []byte{0}, s[32:]) })}, "proof_signature"},
		{"an RSA signature with a zero in front", "RFC 8017 §8.2.2", rsaKey, []option{altered(func(s []byte) []byte { return append([]byte{0}, s...) })}, "proof_signature"},
		{"an Ed25519 signature, S not reduced", "RFC 8032 §5.1.7, CVE-2020-36843", ed, []option{altered(plusOrder)}, "proof_signature"},

		// What changes what is signed.
		{"crit", "RFC 7515 §4.1.11", ec, []option{member("crit", `["exp"]`), member("exp", "1")}, "proof_malformed"},
		{"crit of something unknown", "CVE-2025-59420 (Authlib)", ec, []option{member("crit", `["x"]`), member("x", "1")}, "proof_malformed"},
		{"an empty crit", "RFC 7515 §4.1.11", ec, []option{member("crit", "[]")}, "proof_malformed"},
		{"b64 false, claims unencoded", "RFC 7797 §3", ec, []option{member("b64", "false"), member("crit", `["b64"]`), encoded(func(part string) string {
			if strings.Contains(part, "htm") {
				return strings.ReplaceAll(part, ".", "")
			}
			return b64([]byte(part))
		})}, "proof_malformed"},
		{"b64 false alone", "RFC 7797 §6", ec, []option{member("b64", "false")}, "proof_malformed"},
		{"b64 true", "RFC 7797 §3", ec, []option{member("b64", "true")}, "proof_malformed"},
		{"zip", "RFC 7516 §4.1.3, CVE-2024-28180 (go-jose)", ec, []option{member("zip", `"DEF"`)}, "proof_malformed"},

		// typ.
		{"no typ", "RFC 9449 §4.3 check 4", ec, []option{head(`"typ"`, `"TYP"`)}, "proof_type"},
		{"typ a number", "go-dpop panics", ec, []option{head(`"dpop+jwt"`, "1")}, "proof_type"},
		{"typ null", "go-dpop panics", ec, []option{head(`"dpop+jwt"`, "null")}, "proof_type"},
		{"typ JWT: any other token by this key", "RFC 8725 §3.11", ec, []option{head("dpop+jwt", "JWT")}, "proof_type"},
		{"typ of an attestation", "draft-ietf-oauth-attestation-based-client-auth", ec, []option{head("dpop+jwt", "oauth-client-attestation-pop+jwt")}, "proof_type"},
		{"typ of another tree", "RFC 7515 §4.1.9", ec, []option{head("dpop+jwt", "image/dpop+jwt")}, "proof_type"},

		// JSON.
		{"alg twice", "RFC 7515 §4", ec, []option{member("alg", `"none"`)}, "proof_malformed"},
		{"jwk twice", "RFC 7515 §4", ec, []option{member("jwk", string(clientKey.Public))}, "proof_malformed"},
		{"x twice in jwk, by an escape", "RFC 8259 §7", ec, []option{head(`{"crv"`, `{"\u0078":"AQ","crv"`)}, "proof_malformed"},
		{"jti twice", "RFC 7519 §4", ec, []option{body(`{"jti"`, `{"jti":"x","jti"`)}, "proof_malformed"},
		{"htu twice", "RFC 7519 §4", ec, []option{body(`{"jti"`, `{"htu":"https://other.example/","jti"`)}, "proof_malformed"},
		{"bad UTF-8 in a name", "RFC 8259 §8.1", ec, []option{body(`{"jti"`, "{\"\xff\":1,\"jti\"")}, "proof_malformed"},
		{"bad UTF-8 in jti: it would become U+FFFD", "RFC 8259 §8.1", ec, []option{body(`{"jti":"`, "{\"jti\":\"\xc3\x28")}, "proof_malformed"},
		{"overlong UTF-8", "RFC 3629 §3", ec, []option{body(`{"jti":"`, "{\"jti\":\"\xc0\xaf")}, "proof_malformed"},
		{"half a surrogate pair in jti", "RFC 8259 §8.2", ec, []option{body(`{"jti":"`, `{"jti":"\ud800`)}, "proof_malformed"},
		{"a byte order mark", "RFC 8259 §8.1", ec, []option{body(`{"jti"`, "\ufeff{\"jti\"")}, "proof_malformed"},
		{"a second object", "RFC 8259 §2", ec, []option{body(`{"jti"`, `{}{"jti"`)}, "proof_malformed"},
		{"data behind", "RFC 8259 §2", ec, []option{func(f *forgery) { f.header += "x" }}, "proof_malformed"},
		{"a NUL behind", "RFC 8259 §2", ec, []option{func(f *forgery) { f.header += "\x00" }}, "proof_malformed"},
		{"a comment", "RFC 8259 §2", ec, []option{body(`{"jti"`, `{/**/"jti"`)}, "proof_malformed"},
		{"a bare word", "RFC 8259 §3", ec, []option{body(`{"jti"`, `{x:1,"jti"`)}, "proof_malformed"},
		{"a trailing comma", "RFC 8259 §4", ec, []option{head(`{"typ"`, `{"x":[1,],"typ"`)}, "proof_malformed"},
		{"a control character", "RFC 8259 §7", ec, []option{body(`{"jti":"`, "{\"jti\":\"\n")}, "proof_malformed"},
		{"claims that are an array", "RFC 7519 §7.2", ec, []option{wholeBody("[]")}, "proof_malformed"},
		{"claims that are a string", "RFC 7519 §7.2", ec, []option{wholeBody(`"{}"`)}, "proof_malformed"},
		{"no claims", "RFC 7519 §7.2", ec, []option{wholeBody("")}, "proof_malformed"},
		{"17 levels deep", "CVE-2022-42004 (jackson-databind)", ec, []option{body(`{"jti"`, `{"x":`+strings.Repeat("[", 16)+strings.Repeat("]", 16)+`,"jti"`)}, "proof_malformed"},
		{"2,000 levels deep", "encoding/json allows 10,000", ec, []option{body(`{"jti"`, `{"x":`+strings.Repeat("[", 2000)+strings.Repeat("]", 2000)+`,"jti"`)}, "proof_malformed"},
		{"htu twice, with 20 members between", "RFC 7519 §4", ec, []option{body(`{"jti"`, `{"htu":"https://other.example/",`+manyMembers(20)+`"jti"`)}, "proof_malformed"},
		{"101 members", "the cost of looking for repeated ones", ec, []option{body(`{"jti"`, "{"+manyMembers(96)+`"jti"`)}, "proof_malformed"},
		{"100 members", "the bound", ec, []option{body(`{"jti"`, "{"+manyMembers(95)+`"jti"`)}, isAccepted},

		// Serialisations.
		{"JSON, flattened", "RFC 7515 §7.2.2", ec, []option{spelt(func(compact string) string {
			p := strings.Split(compact, ".")
			return fmt.Sprintf(`{"protected":%q,"payload":%q,"signature":%q}`, p[0], p[1], p[2])
		})}, "proof_malformed"},
		{"JSON, general", "RFC 7515 §7.2.1", ec, []option{spelt(func(compact string) string {
			p := strings.Split(compact, ".")
			return fmt.Sprintf(`{"payload":%q,"signatures":[{"protected":%q,"signature":%q}]}`, p[1], p[0], p[2])
		})}, "proof_malformed"},
		{"five parts, as a JWE has", "RFC 7516 §7.1", ec, []option{parts(func(p []string) []string { return []string{p[0], "", "", p[1], p[2]} })}, "proof_malformed"},
		{"four parts", "RFC 7515 §7.1", ec, []option{parts(func(p []string) []string { return append(p, "x") })}, "proof_malformed"},
		{"two parts", "RFC 7515 §7.1", ec, []option{parts(func(p []string) []string { return p[:2] })}, "proof_malformed"},
		{"detached claims", "RFC 7515 appendix F", ec, []option{parts(func(p []string) []string { return []string{p[0], "", p[2]} })}, "proof_malformed"},
		{"two proofs joined", "RFC 9449 §4.3 check 1", ec, []option{spelt(func(compact string) string { return compact + "," + compact })}, "proof_malformed"},
		{"in quotes", "RFC 9449 §4.1", ec, []option{spelt(func(compact string) string { return `"` + compact + `"` })}, "proof_malformed"},
		{"with the scheme in front", "RFC 9449 §4.1", ec, []option{spelt(func(compact string) string { return "DPoP " + compact })}, "proof_malformed"},
		{"with parameters behind", "RFC 9449 §4.1", ec, []option{spelt(func(compact string) string { return compact + ";x=1" })}, "proof_malformed"},
		{"more than 8 KiB", "CVE-2025-61920 (Authlib)", ec, []option{body(`{"jti"`, `{"x":"`+strings.Repeat("x", 6000)+`","jti"`)}, "proof_too_large"},

		// Encodings.
		{"header with padding", "RFC 7515 §2", ec, []option{encoded(func(part string) string {
			for len(part)%3 != 1 {
				part += " "
			}
			return base64.URLEncoding.EncodeToString([]byte(part))
		})}, "proof_malformed"},
		{"another alphabet", "RFC 4648 §4", ec, []option{head(`{"typ"`, `{"x":"???","typ"`), encoded(func(part string) string { return base64.RawStdEncoding.EncodeToString([]byte(part)) })}, "proof_malformed"},
		{"header and claims by other encodings", "RFC 4648 §3.5", ec, []option{encoded(sloppy)}, "proof_malformed"},
		{"the signature by another encoding", "RFC 4648 §3.5", ec, []option{parts(func(p []string) []string { return []string{p[0], p[1], otherSpelling(p[2])} })}, "proof_malformed"},
		{"a character that is none", "RFC 4648 §3.3", ec, []option{parts(func(p []string) []string { return []string{p[0] + "*", p[1], p[2]} })}, "proof_malformed"},
	}
	for _, name := range []string{"d", "p", "q", "dp", "dq", "qi", "oth", "k"} {
		rows = append(rows, row{"a private RSA key, by " + name + " alone", "RFC 7518 §6.3.2", rsaKey, []option{head(`{"e"`, `{"`+name+`":"AQ","e"`)}, "proof_key"})
	}
	for n, text := range smallOrder {
		point, _ := hex.DecodeString(text)
		rows = append(rows, row{fmt.Sprintf("point of small order, %d", n), "RFC 8032 §5.1.7, Chalkias et al. 2020", public("EdDSA", fmt.Sprintf(`{"crv":"Ed25519","kty":"OKP","x":%q}`, b64(point))),
			[]option{signed(forgeFor(point))}, "proof_key"})
	}
	for _, row := range rows {
		t.Run(row.attack+" ("+row.source+")", func(t *testing.T) {
			token := row.key.boundTo(t)
			a := call{url: g.url, header: credentials(token, proofBy(row.key, "GET", g.url, token, row.options...))}.send(t)
			g.because(t, a.Response, row.reason)
		})
	}
	if called() {
		t.Error("a key was fetched from where a proof said")
	}
}
