package jose

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/rsa"
	"crypto/sha256"
	"crypto/sha512"
	"errors"
	"slices"
)

// Algorithm is a digital signature algorithm by its JOSE name. There is no
// symmetric one, and none called none.
type Algorithm struct {
	Name string

	hash   crypto.Hash
	curve  string // EC: the one curve of the algorithm
	pss    bool   // RSA: by PSS
	family family
}

type family int

const (
	familyEC family = iota
	familyRSA
	familyEd25519
)

// algorithms is every algorithm that is implemented: RFC 7518 §3.1, RFC 8037
// §3.1 (EdDSA) and RFC 9864 §2.2 (Ed25519).
var algorithms = []*Algorithm{
	{Name: "ES256", family: familyEC, hash: crypto.SHA256, curve: "P-256"},
	{Name: "ES384", family: familyEC, hash: crypto.SHA384, curve: "P-384"},
	{Name: "ES512", family: familyEC, hash: crypto.SHA512, curve: "P-521"},
	{Name: "PS256", family: familyRSA, hash: crypto.SHA256, pss: true},
	{Name: "PS384", family: familyRSA, hash: crypto.SHA384, pss: true},
	{Name: "PS512", family: familyRSA, hash: crypto.SHA512, pss: true},
	{Name: "RS256", family: familyRSA, hash: crypto.SHA256},
	{Name: "RS384", family: familyRSA, hash: crypto.SHA384},
	{Name: "RS512", family: familyRSA, hash: crypto.SHA512},
	{Name: "EdDSA", family: familyEd25519},
	{Name: "Ed25519", family: familyEd25519},
}

// Algorithms is a set of algorithms, in order of preference.
type Algorithms []*Algorithm

// AllAlgorithms returns every algorithm that is implemented.
func AllAlgorithms() Algorithms { return slices.Clone(algorithms) }

// Find returns the algorithm of the set that has the name, or nil. Names are
// case-sensitive (RFC 7515 §4.1.1).
func (a Algorithms) Find(name string) *Algorithm {
	for _, alg := range a {
		if alg.Name == name {
			return alg
		}
	}
	return nil
}

// Names returns the names of the algorithms, in order.
func (a Algorithms) Names() []string {
	names := make([]string, len(a))
	for i, alg := range a {
		names[i] = alg.Name
	}
	return names
}

var (
	errFit       = errors.New("the key is not of the kind that the algorithm needs")
	errSignature = errors.New("the signature does not verify")
)

// Fits reports whether the algorithm signs with keys of this kind: for ECDSA
// that includes the curve (RFC 7518 §3.4).
func (a *Algorithm) Fits(key *Key) bool {
	switch key.Public.(type) {
	case *ecdsa.PublicKey:
		return a.family == familyEC && key.curve.name == a.curve
	case *rsa.PublicKey:
		return a.family == familyRSA
	case ed25519.PublicKey:
		return a.family == familyEd25519
	}
	return false
}

// Named reports whether alg, as a JWK states it, allows the algorithm. Empty
// allows any; EdDSA and Ed25519 are two names of one thing (RFC 9864 §2.2).
func (a *Algorithm) Named(alg string) bool {
	return alg == "" || alg == a.Name || a.family == familyEd25519 && (alg == "EdDSA" || alg == "Ed25519")
}

// Verify checks a signature over the signing input. Any signature that is not
// exactly of the algorithm's length is refused.
func (a *Algorithm) Verify(key *Key, input string, signature []byte) error {
	if !a.Fits(key) {
		return errFit
	}
	ok := false
	switch public := key.Public.(type) {
	case *ecdsa.PublicKey:
		size := key.curve.size // RFC 7518 §3.4: r and s at full size, not DER
		if len(signature) != 2*size {
			return errSignature
		}
		// The standard library has both on the heap: in one piece.
		hashed := a.digest(make([]byte, 0, a.hash.Size()+overheadDER+2*size), input)
		ok = ecdsa.VerifyASN1(public, hashed, appendDER(hashed, signature)[len(hashed):])
	case *rsa.PublicKey:
		hashed := a.digest(nil, input)
		if a.pss {
			// RFC 7518 §3.5: the salt is as long as the hash.
			opts := &rsa.PSSOptions{SaltLength: rsa.PSSSaltLengthEqualsHash}
			ok = rsa.VerifyPSS(public, a.hash, hashed, signature, opts) == nil
		} else {
			ok = rsa.VerifyPKCS1v15(public, a.hash, hashed, signature) == nil
		}
	case ed25519.PublicKey:
		var buffer [inputBuffer]byte
		ok = ed25519.Verify(public, append(buffer[:0], input...), signature)
	}
	if !ok {
		return errSignature
	}
	return nil
}

// inputBuffer is enough for most of what is signed, in bytes.
const inputBuffer = 1024

// digest appends the hash of what is signed.
func (a *Algorithm) digest(out []byte, input string) []byte {
	var buffer [inputBuffer]byte
	octets := append(buffer[:0], input...)
	switch a.hash {
	case crypto.SHA256:
		sum := sha256.Sum256(octets)
		return append(out, sum[:]...)
	case crypto.SHA384:
		sum := sha512.Sum384(octets)
		return append(out, sum[:]...)
	default:
		sum := sha512.Sum512(octets)
		return append(out, sum[:]...)
	}
}

// overheadDER is how much longer an ECDSA signature may become in DER, in bytes.
const overheadDER = 3 + 2*(2+1)

// appendDER appends an ECDSA signature, r and s at full size, as the DER that the
// standard library takes: a sequence of two integers (RFC 3279 §2.2.3).
func appendDER(out, signature []byte) []byte {
	r, s := minimal(signature[:len(signature)/2]), minimal(signature[len(signature)/2:])
	length := 2 + sizeDER(r) + 2 + sizeDER(s)
	out = append(out, 0x30)
	if length > 127 {
		out = append(out, 0x81)
	}
	out = append(out, byte(length))
	for _, integer := range [][]byte{r, s} {
		out = append(out, 0x02, byte(sizeDER(integer)))
		if sizeDER(integer) > len(integer) {
			out = append(out, 0) // or it would be negative
		}
		out = append(out, integer...)
	}
	return out
}

// minimal returns an integer without leading zeros, of at least one byte.
func minimal(integer []byte) []byte {
	for len(integer) > 1 && integer[0] == 0 {
		integer = integer[1:]
	}
	return integer
}

func sizeDER(integer []byte) int { return len(integer) + int(integer[0]>>7) }
