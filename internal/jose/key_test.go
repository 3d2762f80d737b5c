package jose

import (
	"crypto/ecdh"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"encoding/base64"
	"encoding/binary"
	"encoding/hex"
	"fmt"
	"math/big"
	"strings"
	"testing"
)

// Keys printed in RFCs.
const (
	rfc7638N = "0vx7agoebGcQSuuPiLJXZptN9nndrQmbXEps2aiAFbWhM78LhWx4cbbfAAtVT86zwu1RK7aPFFxuhDR1L6tSoc_BJECPebWKRXjBZCiFV4n3oknjhMstn64tZ_2W" +
		"-5JsGY4Hc5n9yBXArwl93lqt7_RN5w6Cf0h4QyQ5v-65YGjQR0_FDW2QvzqY368QQMicAtaSqzs8KJZgnYb9c7d0zgdAZHzu6qMQvRL5hajrn1n91CbOpbISD08qNLyr" +
		"dkt-bFTWhAI4vMQFh6WeZu0fM4lFd2NcRwr3XPksINHaQ-G_xBniIqbw0Ls1jF44-csFCur-kEgU8awapJzKnqDKgw"
	rfc7638RSA = `{"kty":"RSA","n":"` + rfc7638N + `","e":"AQAB","alg":"RS256","kid":"2011-04-29"}` // §3.1

	rfc8037X  = "11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo"
	rfc8037Ed = `{"kty":"OKP","crv":"Ed25519","x":"` + rfc8037X + `"}` // appendix A.2

	rfc7515X  = "f83OJ3D2xF1Bg8vub9tLe1gHMzV76e8Tus9uPHvRVEU"
	rfc7515Y  = "x_FEzRu9m36HLN_tue659LNpXW6pCyStikYjKIWI5a0"
	rfc7515EC = `{"kty":"EC","crv":"P-256","x":"` + rfc7515X + `","y":"` + rfc7515Y + `"}` // appendix A.3
)

func TestThumbprint(t *testing.T) {
	tests := []struct {
		name, jwk, want string
	}{
		{"RSA, RFC 7638 §3.1", rfc7638RSA, "NzbLsXh8uDCcd-6MNwXF4W_7noWXFZAfHkxZsRGC9Xs"},
		{"Ed25519, RFC 8037 appendix A.3", rfc8037Ed, "kPrK_qmxVWaYVA9wwBF6Iuo3vVzz7TxHCTwXBygrS4k"},
		{"P-256, RFC 9449 §6.1",
			`{"kty":"EC","x":"l8tFrhx-34tV3hRICRDY9zCkDlpBhF42UQUfWVAWBFs","y":"9VE4jf_Ok_o64zbTTlcuNJajHmt6v9TDVrU0CdvGRDA","crv":"P-256"}`,
			"0ZcOCORZNYy-DWpqq30jZyJGHTN0d2HglBV3uiguA4I"},
		// RFC 7638 §3.2: the required members alone, whatever their order and spelling.
		{"other order, other members, white space, escapes",
			` { "ext" : true , "key_ops":["verify"], "use":"sig", "kid":"a\"b", "x":"\u0031` + rfc8037X[1:] + `" , "crv":"Ed\u0032` + `5519","\u006bty":"OKP" } `,
			"kPrK_qmxVWaYVA9wwBF6Iuo3vVzz7TxHCTwXBygrS4k"},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			key, err := ParseKey(object(t, test.jwk))
			if err != nil {
				t.Fatal(err)
			}
			if key.Thumbprint != test.want {
				t.Errorf("thumbprint %s, not %s", key.Thumbprint, test.want)
			}
		})
	}
}

func b64(b []byte) string { return base64.RawURLEncoding.EncodeToString(b) }

func ecJWK(crv string, x, y []byte) string {
	return fmt.Sprintf(`{"kty":"EC","crv":%q,"x":%q,"y":%q}`, crv, b64(x), b64(y))
}

func rsaJWK(n *big.Int, e ...byte) string {
	return fmt.Sprintf(`{"kty":"RSA","n":%q,"e":%q}`, b64(n.Bytes()), b64(e))
}

// modulus returns an odd number of so many bits. Nothing but a factorisation
// can tell it from an RSA modulus.
func modulus(bits uint) *big.Int {
	n := new(big.Int).Lsh(big.NewInt(1), bits-1)
	return n.Add(n, big.NewInt(12345))
}

// coordinates returns a point on a curve.
func coordinates(t *testing.T, curve elliptic.Curve) (x, y []byte) {
	t.Helper()
	key, err := ecdsa.GenerateKey(curve, rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	point, err := key.PublicKey.Bytes()
	if err != nil {
		t.Fatal(err)
	}
	size := len(point) / 2
	return point[1 : 1+size], point[1+size:]
}

func TestParseKeyAccepts(t *testing.T) {
	x256, y256 := coordinates(t, elliptic.P256())
	x384, y384 := coordinates(t, elliptic.P384())
	x521, y521 := coordinates(t, elliptic.P521())
	tests := []struct {
		name, jwk, kind string
	}{
		{"P-256", ecJWK("P-256", x256, y256), "*ecdsa.PublicKey"},
		{"P-384", ecJWK("P-384", x384, y384), "*ecdsa.PublicKey"},
		{"P-521", ecJWK("P-521", x521, y521), "*ecdsa.PublicKey"},
		{"RFC 7515 appendix A.3", rfc7515EC, "*ecdsa.PublicKey"},
		{"Ed25519", rfc8037Ed, "ed25519.PublicKey"},
		{"RSA", rfc7638RSA, "*rsa.PublicKey"},
		{"RSA of 2048 bits", rsaJWK(modulus(2048), 1, 0, 1), "*rsa.PublicKey"},
		{"RSA of 2049 bits", rsaJWK(modulus(2049), 1, 0, 1), "*rsa.PublicKey"},
		{"RSA of 3072 bits", rsaJWK(modulus(3072), 1, 0, 1), "*rsa.PublicKey"},
		{"RSA of 4096 bits", rsaJWK(modulus(4096), 1, 0, 1), "*rsa.PublicKey"},
		{"RSA, e = 3", rsaJWK(modulus(2048), 3), "*rsa.PublicKey"},
		{"RSA, e = 17", rsaJWK(modulus(2048), 17), "*rsa.PublicKey"},
		{"members of no account, RFC 7517 §4",
			`{"ext":true,"key_ops":["verify"],"use":"enc","alg":"none","kid":7,"x5c":[],"D":"AQ","K":"AQ",` + rfc8037Ed[1:], "ed25519.PublicKey"},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			key, err := ParseKey(object(t, test.jwk))
			if err != nil {
				t.Fatal(err)
			}
			if kind := fmt.Sprintf("%T", key.Public); kind != test.kind {
				t.Errorf("the key is a %s, not a %s", kind, test.kind)
			}
		})
	}
}

func TestParseKeyReadsTheValue(t *testing.T) {
	key, err := ParseKey(object(t, rfc7638RSA))
	if err != nil {
		t.Fatal(err)
	}
	if public := key.Public.(*rsa.PublicKey); public.E != 65537 || b64(public.N.Bytes()) != rfc7638N {
		t.Errorf("n and e are %x and %d", public.N, public.E)
	}
	key, err = ParseKey(object(t, rfc7515EC))
	if err != nil {
		t.Fatal(err)
	}
	point, _ := key.Public.(*ecdsa.PublicKey).Bytes()
	if b64(point[1:33]) != rfc7515X || b64(point[33:]) != rfc7515Y {
		t.Errorf("the point is %x", point)
	}
	key, err = ParseKey(object(t, rfc8037Ed))
	if err != nil {
		t.Fatal(err)
	}
	if public := key.Public.(ed25519.PublicKey); b64(public) != rfc8037X {
		t.Errorf("the point is %x", public)
	}
}

func TestParseKeyRefuses(t *testing.T) {
	x, y := coordinates(t, elliptic.P256())
	x384, y384 := coordinates(t, elliptic.P384())
	x521, y521 := coordinates(t, elliptic.P521())
	one := big.NewInt(1)
	otherY := append([]byte(nil), y...)
	otherY[31] ^= 1
	negative := new(big.Int).Sub(elliptic.P256().Params().P, new(big.Int).SetBytes(y))
	p := elliptic.P256().Params().P.Bytes()
	zero := make([]byte, 32)
	even := new(big.Int).Sub(modulus(2048), one)
	nOctets := modulus(2048).Bytes()
	tests := []struct {
		name, jwk string
	}{
		{"no member", `{}`},
		{"no kty, RFC 7517 §4.1", strings.Replace(rfc7515EC, "kty", "KTY", 1)},
		{"kty that is no string", `{"kty":["EC"]}`},
		{"kty of another case, RFC 7517 §4.1", strings.Replace(rfc7515EC, `"EC"`, `"ec"`, 1)},
		{"kty that is empty", `{"kty":""}`},
		{"kty oct: symmetric, RFC 9449 §4.3 check 7", `{"kty":"oct"}`},
		{"kty of ML-DSA", `{"kty":"AKP","alg":"ML-DSA-44","pub":"AQ"}`},

		{"EC, no crv", strings.Replace(rfc7515EC, "crv", "CRV", 1)},
		{"EC, crv is no string", strings.Replace(rfc7515EC, `"P-256"`, `256`, 1)},
		{"EC, crv of another case", strings.Replace(rfc7515EC, "P-256", "p-256", 1)},
		{"EC on secp256k1, RFC 8812 §3.1", strings.Replace(rfc7515EC, "P-256", "secp256k1", 1)},
		{"EC on Ed25519", strings.Replace(rfc7515EC, "P-256", "Ed25519", 1)},
		{"EC, no x", strings.Replace(rfc7515EC, `"x"`, `"X"`, 1)},
		{"EC, no y", strings.Replace(rfc7515EC, `"y"`, `"Y"`, 1)},
		{"EC, x is null", fmt.Sprintf(`{"kty":"EC","crv":"P-256","x":null,"y":%q}`, b64(y))},
		{"EC, x with padding, RFC 7518 §2", strings.Replace(rfc7515EC, rfc7515X, rfc7515X+"=", 1)},
		{"EC, x with a line break", strings.Replace(rfc7515EC, rfc7515X, rfc7515X+`\n`, 1)},
		{"EC, x with a trailing bit: a second thumbprint for one key", strings.Replace(rfc7515EC, rfc7515X, rfc7515X[:42]+"V", 1)},
		{"EC, x is empty", ecJWK("P-256", nil, y)},
		{"EC, y is empty", ecJWK("P-256", x, nil)},
		{"EC, x without its first octet, RFC 7518 §6.2.1.2", ecJWK("P-256", x[1:], y)},
		{"EC, y without its last octet, RFC 7518 §6.2.1.2", ecJWK("P-256", x, y[:31])},
		{"EC, x with a leading zero", ecJWK("P-256", append([]byte{0}, x...), y)},
		{"EC, both with a leading zero", ecJWK("P-256", append([]byte{0}, x...), append([]byte{0}, y...))},
		{"EC, x longer by what y is shorter", ecJWK("P-256", append(append([]byte(nil), x...), y[0]), y[1:])},
		{"EC, a whole point as x", ecJWK("P-256", append(append([]byte{4}, x...), y...), nil)},
		{"EC, a point of P-384 on P-256", ecJWK("P-256", x384, y384)},
		{"EC, a point of P-256 on P-384", ecJWK("P-384", x, y)},
		{"EC, a point of P-256 on P-384, filled up", ecJWK("P-384", append(make([]byte, 16), x...), append(make([]byte, 16), y...))},
		{"EC, a point of P-521 of 65 octets", ecJWK("P-521", x521[1:], y521[1:])},
		{"EC, off the curve, RFC 8725 §3.4 (CVE-2015-7940, Bouncy Castle)", ecJWK("P-256", x, otherY)},
		{"EC, off the curve: x and y exchanged", ecJWK("P-256", y, x)},
		{"EC, infinity as zeros", ecJWK("P-256", zero, zero)},
		{"EC, x = 0, y = 1", ecJWK("P-256", zero, append(make([]byte, 31), 1))},
		{"EC, x = p", ecJWK("P-256", p, y)},
		{"EC, y = p", ecJWK("P-256", x, p)},
		{"EC, all bits", ecJWK("P-256", []byte(strings.Repeat("\xff", 32)), []byte(strings.Repeat("\xff", 32)))},

		{"OKP, no crv", strings.Replace(rfc8037Ed, "crv", "CRV", 1)},
		{"OKP, crv of another case", strings.Replace(rfc8037Ed, "Ed25519", "ed25519", 1)},
		{"OKP on X25519, which signs nothing, RFC 8037 §3.2", strings.Replace(rfc8037Ed, "Ed25519", "X25519", 1)},
		{"OKP on Ed448", strings.Replace(rfc8037Ed, "Ed25519", "Ed448", 1)},
		{"OKP on P-256", strings.Replace(rfc8037Ed, "Ed25519", "P-256", 1)},
		{"OKP, no x", `{"kty":"OKP","crv":"Ed25519"}`},
		{"OKP, x is a number", `{"kty":"OKP","crv":"Ed25519","x":1}`},
		{"OKP, x is empty: ed25519.Verify would panic", `{"kty":"OKP","crv":"Ed25519","x":""}`},
		{"OKP, x of 31 octets", fmt.Sprintf(`{"kty":"OKP","crv":"Ed25519","x":%q}`, b64(x[:31]))},
		{"OKP, x of 33 octets", fmt.Sprintf(`{"kty":"OKP","crv":"Ed25519","x":%q}`, b64(append([]byte{1}, x...)))},
		{"OKP, x with a trailing bit", strings.Replace(rfc8037Ed, "HURo", "HURp", 1)},

		{"RSA, no n", strings.Replace(rfc7638RSA, `"n"`, `"N"`, 1)},
		{"RSA, no e", strings.Replace(rfc7638RSA, `"e"`, `"E"`, 1)},
		{"RSA, e is a number", strings.Replace(rfc7638RSA, `"AQAB"`, `65537`, 1)},
		{"RSA, n is empty", rsaJWK(new(big.Int), 1, 0, 1)},
		{"RSA, e is empty", rsaJWK(modulus(2048))},
		{"RSA of 512 bits", rsaJWK(modulus(512), 1, 0, 1)},
		{"RSA of 1024 bits, RFC 7518 §3.3", rsaJWK(modulus(1024), 1, 0, 1)},
		{"RSA of 2047 bits, RFC 7518 §3.3", rsaJWK(modulus(2047), 1, 0, 1)},
		{"RSA of 4097 bits", rsaJWK(modulus(4097), 1, 0, 1)},
		{"RSA of 8192 bits", rsaJWK(modulus(8192), 1, 0, 1)},
		{"RSA of 16384 bits: slow to verify (CVE-2023-29409, crypto/tls)", rsaJWK(modulus(16384), 1, 0, 1)},
		{"RSA, n with a leading zero, RFC 7518 §6.3.1.1",
			fmt.Sprintf(`{"kty":"RSA","n":%q,"e":"AQAB"}`, b64(append([]byte{0}, nOctets...)))},
		{"RSA, n of 1024 bits filled up to 2048",
			fmt.Sprintf(`{"kty":"RSA","n":%q,"e":"AQAB"}`, b64(append(make([]byte, 128), modulus(1024).Bytes()...)))},
		{"RSA, n with padding", strings.Replace(rfc7638RSA, "nqDKgw", "nqDKgw==", 1)},
		{"RSA, n with a trailing bit", strings.Replace(rfc7638RSA, "nqDKgw", "nqDKgx", 1)},
		{"RSA, n is even", rsaJWK(even, 1, 0, 1)},
		{"RSA, e = 0", rsaJWK(modulus(2048), 0)},
		{"RSA, e = 1: every message is its own signature", rsaJWK(modulus(2048), 1)},
		{"RSA, e = 2", rsaJWK(modulus(2048), 2)},
		{"RSA, e = 65536", rsaJWK(modulus(2048), 1, 0, 0)},
		{"RSA, e with a leading zero, RFC 7518 §6.3.1.2", rsaJWK(modulus(2048), 0, 1, 0, 1)},
		{"RSA, e = 65539: costs more to verify", rsaJWK(modulus(2048), 1, 0, 3)},
		{"RSA, e = 1 with leading zeros", rsaJWK(modulus(2048), 0, 0, 0, 1)},
		{"RSA, e = 2^31 + 1", rsaJWK(modulus(2048), 0x80, 0, 0, 1)},
		{"RSA, e = 2^32 - 1", rsaJWK(modulus(2048), 0xff, 0xff, 0xff, 0xff)},
		{"RSA, e = 2^32 + 3, which wraps to 3", rsaJWK(modulus(2048), 1, 0, 0, 0, 3)},
		{"RSA, e = 2^64 + 65537, which wraps to 65537", rsaJWK(modulus(2048), 1, 0, 0, 0, 0, 0, 1, 0, 1)},
		{"RSA, e as long as n", rsaJWK(modulus(2048), nOctets...)},
	}
	// A private key in a proof has been shown to the world (RFC 9449 §4.3 check 7).
	// That any value counts, also null, leaves nothing to misread.
	for _, member := range []string{"d", "p", "q", "dp", "dq", "qi", "oth", "k"} {
		for kty, jwk := range map[string]string{"EC": rfc7515EC, "OKP": rfc8037Ed, "RSA": rfc7638RSA} {
			tests = append(tests,
				struct{ name, jwk string }{kty + " with " + member, `{"` + member + `":"AQ",` + jwk[1:]},
				struct{ name, jwk string }{kty + " with " + member + " that is null", jwk[:len(jwk)-1] + `,"` + member + `":null}`})
		}
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			if key, err := ParseKey(object(t, test.jwk)); err == nil {
				t.Errorf("%s was accepted as %v", test.jwk, key.Public)
			}
		})
	}
	// The other y of the same x is another key, and a sound one.
	if _, err := ParseKey(object(t, ecJWK("P-256", x, negative.FillBytes(zero)))); err != nil {
		t.Errorf("the negative of a point: %v", err)
	}
}

// smallOrder are all encodings that decode to one of the eight points of small
// order: RFC 8032 §5.1.3 allows the first eight alone, crypto/ed25519 all.
var smallOrder = []struct {
	name, point string
}{
	{"order 1", "0100000000000000000000000000000000000000000000000000000000000000"},
	{"order 2", "ecffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f"},
	{"order 4", "0000000000000000000000000000000000000000000000000000000000000000"},
	{"order 4, x odd", "0000000000000000000000000000000000000000000000000000000000000080"},
	{"order 8", "26e8958fc2b227b045c3f489f2ef98f0d5dfac05d3c63339b13802886d53fc05"},
	{"order 8, x odd", "26e8958fc2b227b045c3f489f2ef98f0d5dfac05d3c63339b13802886d53fc85"},
	{"order 8, other y", "c7176a703d4dd84fba3c0b760d10670f2a2053fa2c39ccc64ec7fd7792ac037a"},
	{"order 8, other y, x odd", "c7176a703d4dd84fba3c0b760d10670f2a2053fa2c39ccc64ec7fd7792ac03fa"},
	{"order 1, x = -0", "0100000000000000000000000000000000000000000000000000000000000080"},
	{"order 2, x = -0", "ecffffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff"},
	{"order 4, y = p", "edffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f"},
	{"order 4, y = p, x odd", "edffffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff"},
	{"order 1, y = p+1", "eeffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f"},
	{"order 1, y = p+1, x = -0", "eeffffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff"},
}

func TestParseKeyRefusesSmallOrder(t *testing.T) {
	for _, test := range smallOrder {
		t.Run(test.name, func(t *testing.T) {
			point, err := hex.DecodeString(test.point)
			if err != nil {
				t.Fatal(err)
			}
			if _, err := ParseKey(object(t, fmt.Sprintf(`{"kty":"OKP","crv":"Ed25519","x":%q}`, b64(point)))); err == nil {
				t.Error("accepted")
			}
			// The row is worth its place only if nobody's signature holds under it: R
			// the neutral point and S zero, for one message in eight at least.
			signature := make([]byte, ed25519.SignatureSize)
			signature[0] = 1
			forged := 0
			for i := range uint32(200) {
				if ed25519.Verify(point, binary.BigEndian.AppendUint32(nil, i), signature) {
					forged++
				}
			}
			if forged == 0 {
				t.Error("no signature can be forged: not a point of small order")
			}
		})
	}
}

func TestParseKeyRefusesNonCanonicalEd25519(t *testing.T) {
	// RFC 8032 §5.1.3 step 1: y is below p = 2^255 - 19. From p to 2^255 - 1 are
	// 19 values, each with two signs.
	for low := 0xed; low <= 0xff; low++ {
		for _, high := range []byte{0x7f, 0xff} {
			point := []byte(strings.Repeat("\xff", 32))
			point[0], point[31] = byte(low), high
			if _, err := ParseKey(object(t, fmt.Sprintf(`{"kty":"OKP","crv":"Ed25519","x":%q}`, b64(point)))); err == nil {
				t.Errorf("accepted: %x", point)
			}
		}
	}
}

func TestParseKeyAcceptsLargeEd25519(t *testing.T) {
	// Just below p, and with each octet in turn what tells it from p and more.
	base := []byte(strings.Repeat("\xff", 32))
	base[31] = 0x7f
	for i := range base {
		point := append([]byte(nil), base...)
		if point[i]--; i == 0 {
			point[0] = 0xeb // p - 2
		}
		if _, err := ParseKey(object(t, fmt.Sprintf(`{"kty":"OKP","crv":"Ed25519","x":%q}`, b64(point)))); err != nil {
			t.Errorf("%x: %v", point, err)
		}
	}
}

func TestNewKey(t *testing.T) {
	small, err := rsa.GenerateKey(rand.Reader, 1024)
	if err != nil {
		t.Fatal(err)
	}
	private, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	p224, err := ecdsa.GenerateKey(elliptic.P224(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	public, edPrivate, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	x25519, err := ecdh.X25519().GenerateKey(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	tests := []struct {
		name   string
		public any
		ok     bool
	}{
		{"P-256", &private.PublicKey, true},
		{"Ed25519", public, true},
		{"RSA of 2048 bits", &rsa.PublicKey{N: modulus(2048), E: 65537}, true},
		{"RSA of 8192 bits, an issuer's own choice", &rsa.PublicKey{N: modulus(8192), E: 65537}, true},
		{"RSA of 8193 bits", &rsa.PublicKey{N: modulus(8193), E: 65537}, false},
		{"RSA of 1024 bits", &small.PublicKey, false},
		{"RSA of 2047 bits", &rsa.PublicKey{N: modulus(2047), E: 65537}, false},
		{"RSA, n is even", &rsa.PublicKey{N: new(big.Int).Add(modulus(2048), big.NewInt(1)), E: 65537}, false},
		{"RSA, e = 1", &rsa.PublicKey{N: modulus(2048), E: 1}, false},
		{"RSA, e = 65536", &rsa.PublicKey{N: modulus(2048), E: 65536}, false},
		{"Ed25519 of 16 octets, which ed25519.Verify would panic at", public[:16], false},
		{"Ed25519 of no octets", ed25519.PublicKey{}, false},
		{"Ed25519 of small order", ed25519.PublicKey(make([]byte, 32)), false},
		//lint:ignore SA1019 there is no other way to make a point off the curve
		{"P-256, off the curve", &ecdsa.PublicKey{Curve: elliptic.P256(), X: big.NewInt(1), Y: big.NewInt(1)}, false},
		{"P-224", &p224.PublicKey, false},
		{"private EC key", private, false},
		{"private RSA key", small, false},
		{"private Ed25519 key", edPrivate, false},
		{"X25519", x25519.PublicKey(), false},
		{"symmetric key", []byte("secret"), false},
		{"nothing", nil, false},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			key, err := NewKey(test.public)
			if (err == nil) != test.ok || (key != nil) != test.ok {
				t.Errorf("got %v, %v", key, err)
			}
		})
	}
}
