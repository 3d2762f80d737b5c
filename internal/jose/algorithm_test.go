package jose

import (
	"bytes"
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/hmac"
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha256"
	"encoding/asn1"
	"math/big"
	mathrand "math/rand/v2"
	"slices"
	"strings"
	"sync"
	"testing"
)

// testKeys are a private key of each kind, made once.
var testKeys = sync.OnceValue(func() map[string]crypto.Signer {
	keys := make(map[string]crypto.Signer)
	for name, curve := range map[string]elliptic.Curve{"P-256": elliptic.P256(), "P-384": elliptic.P384(), "P-521": elliptic.P521()} {
		key, err := ecdsa.GenerateKey(curve, rand.Reader)
		if err != nil {
			panic(err)
		}
		keys[name] = key
	}
	key, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		panic(err)
	}
	keys["RSA"] = key
	_, edKey, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		panic(err)
	}
	keys["Ed25519"] = edKey
	return keys
})

// kinds says which key an algorithm needs, and its hash: RFC 7518 §3.1.
var kinds = []struct {
	alg, key string
	hash     crypto.Hash
}{
	{"ES256", "P-256", crypto.SHA256},
	{"ES384", "P-384", crypto.SHA384},
	{"ES512", "P-521", crypto.SHA512},
	{"PS256", "RSA", crypto.SHA256},
	{"PS384", "RSA", crypto.SHA384},
	{"PS512", "RSA", crypto.SHA512},
	{"RS256", "RSA", crypto.SHA256},
	{"RS384", "RSA", crypto.SHA384},
	{"RS512", "RSA", crypto.SHA512},
	{"EdDSA", "Ed25519", 0},
	{"Ed25519", "Ed25519", 0},
}

// signature signs by crypto/* alone, as a client would.
func signature(t *testing.T, alg string, private crypto.Signer, input string) []byte {
	t.Helper()
	at := slices.IndexFunc(kinds, func(kind struct {
		alg, key string
		hash     crypto.Hash
	}) bool {
		return kind.alg == alg
	})
	hash := kinds[at].hash
	digest := []byte(input)
	if hash != 0 {
		h := hash.New()
		h.Write([]byte(input))
		digest = h.Sum(nil)
	}
	var opts crypto.SignerOpts = hash
	if strings.HasPrefix(alg, "PS") {
		opts = &rsa.PSSOptions{SaltLength: hash.Size(), Hash: hash}
	}
	signature, err := private.Sign(rand.Reader, digest, opts)
	if err != nil {
		t.Fatal(err)
	}
	if key, ok := private.(*ecdsa.PrivateKey); ok {
		return raw(t, signature, (key.Params().BitSize+7)/8)
	}
	return signature
}

// raw turns an ECDSA signature in DER into that of RFC 7518 §3.4.
func raw(t *testing.T, der []byte, size int) []byte {
	t.Helper()
	var numbers struct{ R, S *big.Int }
	if _, err := asn1.Unmarshal(der, &numbers); err != nil {
		t.Fatal(err)
	}
	return slices.Concat(numbers.R.FillBytes(make([]byte, size)), numbers.S.FillBytes(make([]byte, size)))
}

func publicKey(t *testing.T, private crypto.Signer) *Key {
	t.Helper()
	key, err := NewKey(private.Public())
	if err != nil {
		t.Fatal(err)
	}
	return key
}

func find(t *testing.T, name string) *Algorithm {
	t.Helper()
	alg := AllAlgorithms().Find(name)
	if alg == nil {
		t.Fatalf("no algorithm %s", name)
	}
	return alg
}

func TestAlgorithmNames(t *testing.T) {
	want := make([]string, len(kinds))
	for i := range kinds {
		want[i] = kinds[i].alg
	}
	if got := AllAlgorithms().Names(); !slices.Equal(got, want) {
		t.Errorf("the algorithms are %v", got)
	}
	for _, name := range []string{"", "none", "NONE", "None", "HS256", "HS384", "HS512", "es256", "ES256 ", "E\u017f256",
		"ES256K", "Ed448", "RS1", "RSA1_5", "RSA-OAEP", "dir", "A128KW", "ECDH-ES"} {
		if AllAlgorithms().Find(name) != nil {
			t.Errorf("%q is an algorithm", name)
		}
	}
	some := Algorithms{find(t, "ES256")}
	if some.Find("ES256") == nil || some.Find("RS256") != nil || Algorithms(nil).Find("ES256") != nil {
		t.Error("Find looks beyond the set")
	}
	AllAlgorithms()[0] = nil
	if AllAlgorithms()[0] == nil {
		t.Error("AllAlgorithms gives away its own slice")
	}
}

func TestAlgorithmNamed(t *testing.T) {
	tests := []struct {
		name, alg string
		ok        bool
	}{
		{"ES256", "", true},
		{"ES256", "ES256", true},
		{"ES256", "ES384", false},
		{"ES256", "es256", false},
		{"RS256", "PS256", false},
		{"EdDSA", "EdDSA", true},
		{"EdDSA", "Ed25519", true}, // RFC 9864 §2.2
		{"Ed25519", "EdDSA", true},
		{"Ed25519", "Ed448", false},
		{"ES256", "EdDSA", false},
	}
	for _, test := range tests {
		if find(t, test.name).Named(test.alg) != test.ok {
			t.Errorf("%s by a key for %q: %t", test.name, test.alg, !test.ok)
		}
	}
}

func TestVerify(t *testing.T) {
	const input = "header.claims"
	for _, kind := range kinds {
		t.Run(kind.alg, func(t *testing.T) {
			private := testKeys()[kind.key]
			key, alg := publicKey(t, private), find(t, kind.alg)
			good := signature(t, kind.alg, private, input)
			if err := alg.Verify(key, input, good); err != nil {
				t.Fatal(err)
			}
			if alg.Verify(key, input+".", good) == nil || alg.Verify(key, "", good) == nil {
				t.Error("a signature holds for another input")
			}
			for _, bad := range [][]byte{nil, {}, {0}, good[1:], good[:len(good)-1], append([]byte{0}, good...), append(good[:len(good):len(good)], 0),
				slices.Concat(good, good), make([]byte, len(good)), []byte(strings.Repeat("\xff", len(good)))} {
				if alg.Verify(key, input, bad) == nil {
					t.Errorf("accepted: %x", bad)
				}
			}
			for i := range good {
				bad := slices.Clone(good)
				bad[i] ^= 0x10
				if i%8 == 0 && alg.Verify(key, input, bad) == nil {
					t.Errorf("accepted with octet %d changed", i)
				}
			}
		})
	}
}

func TestFits(t *testing.T) {
	// RFC 7518 §3.4 ties ES256 to P-256 and so on; RFC 8725 §3.1 and §3.2.
	for _, kind := range kinds {
		for name, private := range testKeys() {
			key := publicKey(t, private)
			alg := find(t, kind.alg)
			if alg.Fits(key) != (name == kind.key) {
				t.Errorf("%s fits a key on %s: %t", kind.alg, name, alg.Fits(key))
			}
			// Whatever the key, a signature by its own algorithm is none by another.
			for _, other := range kinds {
				same := other.alg == kind.alg || kind.key == "Ed25519" && other.key == "Ed25519"
				if other.key == name && !same && alg.Verify(key, "input", signature(t, other.alg, private, "input")) == nil {
					t.Errorf("a signature by %s holds as %s", other.alg, kind.alg)
				}
			}
		}
	}
	if find(t, "ES256").Fits(new(Key)) || find(t, "ES256").Verify(new(Key), "", nil) == nil {
		t.Error("ES256 fits no key at all")
	}
}

func TestVerifyRefusesECDSA(t *testing.T) {
	const input = "header.claims"
	for _, kind := range kinds[:3] {
		private := testKeys()[kind.key].(*ecdsa.PrivateKey)
		key, alg := publicKey(t, private), find(t, kind.alg)
		size := key.curve.size
		good := signature(t, kind.alg, private, input)
		r, s := good[:size:size], good[size:]
		zero := make([]byte, size)
		one := slices.Concat(zero[1:], []byte{1})
		n := private.Params().N
		order := n.FillBytes(make([]byte, size))
		h := kind.hash.New()
		h.Write([]byte(input))
		der, err := ecdsa.SignASN1(rand.Reader, private, h.Sum(nil))
		if err != nil {
			t.Fatal(err)
		}
		tests := []struct {
			name      string
			signature []byte
		}{
			{"DER, RFC 7518 §3.4 (CVE-2020-13822, elliptic)", der},
			{"DER, zeros to the size", append(slices.Clone(der), make([]byte, max(0, 2*size-len(der)))...)[:2*size]},
			{"r = s = 0 (CVE-2022-21449, Java)", slices.Concat(zero, zero)},
			{"r = 0", slices.Concat(zero, s)},
			{"s = 0", slices.Concat(r, zero)},
			{"r = n", slices.Concat(order, s)},
			{"s = n", slices.Concat(r, order)},
			{"r = s = n", slices.Concat(order, order)},
			{"r = s = 1", slices.Concat(one, one)},
			{"r and s exchanged", slices.Concat(s, r)},
			{"r alone", r},
			{"an octet short of s", good[:2*size-1]},
			{"r and s each an octet short", slices.Concat(r[:size-1], s[:size-1])},
			{"leading zeros", slices.Concat([]byte{0}, r, []byte{0}, s)},
			{"a zero between r and s", slices.Concat(r, []byte{0}, s)},
			{"an octet behind", slices.Concat(good, []byte{0})},
			{"a format octet first", slices.Concat([]byte{4}, good)},
		}
		if kind.key == "P-521" {
			// The one curve with room above n: the same numbers modulo n.
			plus := func(octets []byte) []byte {
				sum := new(big.Int).Add(new(big.Int).SetBytes(octets), n)
				return sum.FillBytes(make([]byte, size))
			}
			tests = append(tests, []struct {
				name      string
				signature []byte
			}{
				{"r + n", slices.Concat(plus(r), s)},
				{"s + n", slices.Concat(r, plus(s))},
				{"a bit above the order's size", slices.Concat([]byte{r[0] | 0x80}, r[1:], s)},
			}...)
		}
		for _, test := range tests {
			t.Run(kind.alg+", "+test.name, func(t *testing.T) {
				if alg.Verify(key, input, test.signature) == nil {
					t.Errorf("accepted: %x", test.signature)
				}
			})
		}
	}
}

func TestVerifyRefusesRSA(t *testing.T) {
	const input = "header.claims"
	private := testKeys()["RSA"].(*rsa.PrivateKey)
	key := publicKey(t, private)
	digest := sha256.Sum256([]byte(input))
	pss := func(salt int, hash crypto.Hash, digest []byte) []byte {
		signature, err := rsa.SignPSS(rand.Reader, private, hash, digest, &rsa.PSSOptions{SaltLength: salt})
		if err != nil {
			t.Fatal(err)
		}
		return signature
	}
	bare, err := rsa.SignPKCS1v15(rand.Reader, private, 0, digest[:]) // without the hash's name
	if err != nil {
		t.Fatal(err)
	}
	// A signature that begins with a zero octet, to leave it away.
	var short []byte
	shortInput := ""
	for i := 0; short == nil; i++ {
		shortInput = input + strings.Repeat(" ", i)
		if signature := signature(t, "RS256", private, shortInput); signature[0] == 0 {
			short = signature
		}
	}
	n := private.N
	plus := new(big.Int).Add(n, new(big.Int).SetBytes(short))
	tests := []struct {
		name, alg, input string
		signature        []byte
	}{
		// RFC 7518 §3.5: the salt has the size of the hash.
		{"PSS, no salt", "PS256", input, pss(0, crypto.SHA256, digest[:])},
		{"PSS, salt of 31 octets", "PS256", input, pss(31, crypto.SHA256, digest[:])},
		{"PSS, salt of 33 octets", "PS256", input, pss(33, crypto.SHA256, digest[:])},
		{"PSS, the longest salt, OpenSSL's and Go's default", "PS256", input, pss(rsa.PSSSaltLengthAuto, crypto.SHA256, digest[:])},
		{"PSS as PKCS #1 v1.5, RFC 8725 §3.1", "RS256", input, pss(32, crypto.SHA256, digest[:])},
		{"PKCS #1 v1.5 without the name of the hash", "RS256", input, bare},
		{"a leading zero left away", "RS256", shortInput, short[1:]},
		{"a leading zero more", "RS256", shortInput, slices.Concat([]byte{0}, short)},
		{"the same number modulo n", "RS256", shortInput, plus.FillBytes(make([]byte, 257))},
		{"zero", "RS256", input, make([]byte, 256)},
		{"one", "RS256", input, big.NewInt(1).FillBytes(make([]byte, 256))},
		{"n", "RS256", input, n.Bytes()},
		{"n - 1", "RS256", input, new(big.Int).Sub(n, big.NewInt(1)).Bytes()},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			if find(t, test.alg).Verify(key, test.input, test.signature) == nil {
				t.Errorf("accepted: %x", test.signature)
			}
		})
	}
	// What the tests above spoil must be good in itself.
	if err := find(t, "PS256").Verify(key, input, pss(32, crypto.SHA256, digest[:])); err != nil {
		t.Errorf("PSS, salt of 32 octets: %v", err)
	}
	if err := find(t, "RS256").Verify(key, shortInput, short); err != nil {
		t.Errorf("a signature with a leading zero: %v", err)
	}
}

func TestVerifyRefusesRSAKeyAsSecret(t *testing.T) {
	// CVE-2015-9235: an HMAC with the public key as its secret.
	key := publicKey(t, testKeys()["RSA"])
	mac := hmac.New(sha256.New, key.Public.(*rsa.PublicKey).N.Bytes())
	mac.Write([]byte("input"))
	for _, alg := range AllAlgorithms() {
		if alg.Verify(key, "input", mac.Sum(nil)) == nil {
			t.Errorf("%s takes an HMAC", alg.Name)
		}
	}
}

func TestVerifyRefusesEd25519(t *testing.T) {
	const input = "header.claims"
	private := testKeys()["Ed25519"].(ed25519.PrivateKey)
	key, alg := publicKey(t, private), find(t, "EdDSA")
	good := ed25519.Sign(private, []byte(input))
	// RFC 8032 §5.1.7: S is below the group's order, or there is a second signature.
	order, _ := new(big.Int).SetString("7237005577332262213973186563042994240857116359379907606001950938285454250989", 10)
	s := slices.Clone(good[32:])
	slices.Reverse(s)
	plus := new(big.Int).Add(new(big.Int).SetBytes(s), order).FillBytes(make([]byte, 32))
	slices.Reverse(plus)
	digest := crypto.SHA512.New()
	digest.Write([]byte(input))
	prehashed, err := private.Sign(nil, digest.Sum(nil), &ed25519.Options{Hash: crypto.SHA512})
	if err != nil {
		t.Fatal(err)
	}
	context, err := private.Sign(nil, []byte(input), &ed25519.Options{Context: "jose"})
	if err != nil {
		t.Fatal(err)
	}
	for name, signature := range map[string][]byte{
		"S + order":                    slices.Concat(good[:32], plus),
		"Ed25519ph, RFC 8032 §5.1":     prehashed,
		"Ed25519ctx, RFC 8032 §5.1":    context,
		"R and S exchanged":            slices.Concat(good[32:], good[:32]),
		"R neutral, S zero":            append([]byte{1}, make([]byte, 63)...),
		"an ECDSA signature by length": signature(t, "ES256", testKeys()["P-256"], input),
	} {
		if alg.Verify(key, input, signature) == nil {
			t.Errorf("%s: accepted", name)
		}
	}
}

func TestVerifyPublishedSignatures(t *testing.T) {
	tests := []struct {
		name, alg, jwk, input, signature string
	}{
		{"RFC 7515 appendix A.2", "RS256",
			`{"kty":"RSA","e":"AQAB","n":"ofgWCuLjybRlzo0tZWJjNiuSfb4p4fAkd_wWJcyQoTbji9k0l8W26mPddxHmfHQp-Vaw-4qPCJrcS2mJPMEzP1Pt0Bm4d4QlL-yRT-SFd2lZS-pCgNMsD1W_` +
				`YpRPEwOWvG6b32690r2jZ47soMZo9wGzjb_7OMg0LOL-bSf63kpaSHSXndS5z5rexMdbBYUsLA9e-KXBdQOS-UTo7WTBEMa2R2CapHg665xsmtdVMTBQY4uDZlxvb3qCo5ZwKh9kG4LT6_` +
				`I5IhlJH7aGhyxXFvUK-DWNmoudF8NAco9_h9iaGNj8q2ethFkMLs91kzk2PAcDTW9gb54h4FRWyuXpoQ"}`,
			"eyJhbGciOiJSUzI1NiJ9.eyJpc3MiOiJqb2UiLA0KICJleHAiOjEzMDA4MTkzODAsDQogImh0dHA6Ly9leGFtcGxlLmNvbS9pc19yb290Ijp0cnVlfQ",
			"cC4hiUPoj9Eetdgtv3hF80EGrhuB__dzERat0XF9g2VtQgr9PJbu3XOiZj5RZmh7AAuHIm4Bh-0Qc_lF5YKt_O8W2Fp5jujGbds9uJdbF9CUAr7t1dnZcAcQjbKBYNX4BAynRFdiuB--f_nZLgrnbyT" +
				"yWzO75vRK5h6xBArLIARNPvkSjtQBMHlb1L07Qe7K0GarZRmB_eSN9383LcOLn6_dO--xi12jzDwusC-eOkHWEsqtFZESc6BfI7noOPqvhJ1phCnvWh6IeYI2w9QOYEUipUTI8np6LbgGY9Fs98rqVt5AX" +
				"LIhWkWywlVmtVrBp0igcN_IoypGlUPQGe77Rw"},
		{"RFC 7515 appendix A.3", "ES256", rfc7515EC,
			"eyJhbGciOiJFUzI1NiJ9.eyJpc3MiOiJqb2UiLA0KICJleHAiOjEzMDA4MTkzODAsDQogImh0dHA6Ly9leGFtcGxlLmNvbS9pc19yb290Ijp0cnVlfQ",
			"DtEhU3ljbEg8L38VWAfUAqOyKAM6-Xx-F4GawxaepmXFCgfTjDxw5djxLa8ISlSApmWQxfKTUJqPP3-Kg6NU1Q"},
		{"RFC 8037 appendix A.4", "EdDSA", rfc8037Ed,
			"eyJhbGciOiJFZERTQSJ9.RXhhbXBsZSBvZiBFZDI1NTE5IHNpZ25pbmc",
			"hgyY0il_MGCjP0JzlnLWG1PPOt7-09PGcvMg3AIbQR6dWbhijcNR4ki4iylGjg5BhVsPt9g7sVvpAr_MuM0KAg"},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			key, err := ParseKey(object(t, test.jwk))
			if err != nil {
				t.Fatal(err)
			}
			signature, err := DecodeBase64URL(test.signature)
			if err != nil {
				t.Fatal(err)
			}
			if err := find(t, test.alg).Verify(key, test.input, signature); err != nil {
				t.Error(err)
			}
		})
	}
}

// The DER of a signature is what the standard library writes of its integers,
// however many zeros and high bits these begin with.
func TestAppendDER(t *testing.T) {
	random := mathrand.New(mathrand.NewPCG(1, 2))
	for range 20_000 {
		size := []int{32, 48, 66}[random.IntN(3)]
		signature := make([]byte, 2*size)
		for _, half := range [][]byte{signature[:size], signature[size:]} {
			for i := random.IntN(size + 1); i < size; i++ {
				half[i] = byte(random.IntN(256)) | byte(random.IntN(2))<<7
			}
		}
		want, err := asn1.Marshal(struct{ R, S *big.Int }{new(big.Int).SetBytes(signature[:size]), new(big.Int).SetBytes(signature[size:])})
		if err != nil {
			t.Fatal(err)
		}
		buffer := make([]byte, 0, len(signature)+overheadDER)
		if got := appendDER(buffer, signature); !bytes.Equal(got, want) || cap(got) != cap(buffer) {
			t.Fatalf("%x: got %x, want %x", signature, got, want)
		}
	}
}
