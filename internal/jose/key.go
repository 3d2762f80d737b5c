package jose

import (
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rsa"
	"crypto/sha256"
	"encoding/base64"
	"errors"
	"fmt"
	"math/big"
)

// Bounds of RSA keys. Below the lower one a key is too weak (RFC 7518 §3.3);
// above the upper one, checking an anonymous client's signature costs too much.
const (
	MinRSABits = 2048
	MaxRSABits = 4096
)

// Key is a public key for verifying signatures.
type Key struct {
	// Public is an *ecdsa.PublicKey, *rsa.PublicKey or ed25519.PublicKey.
	Public any
	// Thumbprint is the base64url SHA-256 thumbprint of RFC 7638.
	Thumbprint string

	curve *curve // of an elliptic curve key
}

// NewKey wraps a public key that came by another way than a client's JWK: an
// issuer's. It has no thumbprint. Issuers choose larger RSA keys at their own cost,
// up to twice the bits that a client may use.
func NewKey(public any) (*Key, error) {
	switch public := public.(type) {
	case *ecdsa.PublicKey:
		if _, err := public.ECDH(); err != nil {
			return nil, errors.New("not a point on a known curve")
		}
		for _, c := range curves {
			if c.elliptic == public.Curve {
				return &Key{Public: public, curve: c}, nil
			}
		}
	case *rsa.PublicKey:
		if bits := public.N.BitLen(); bits < MinRSABits || bits > 2*MaxRSABits {
			return nil, fmt.Errorf("an RSA key of %d bits, where %d to %d are accepted", bits, MinRSABits, 2*MaxRSABits)
		}
		if public.N.Bit(0) == 0 || !soundExponent(int64(public.E)) {
			return nil, errors.New("an RSA key with an unsound modulus or exponent")
		}
		return &Key{Public: public}, nil
	case ed25519.PublicKey:
		if len(public) != ed25519.PublicKeySize || !soundEd25519(public) {
			return nil, errors.New("not a sound Ed25519 key")
		}
		return &Key{Public: public}, nil
	}
	return nil, fmt.Errorf("a key of type %T is not supported", public)
}

type curve struct {
	name     string
	elliptic elliptic.Curve
	size     int // bytes of a coordinate
}

var curves = []*curve{
	{"P-256", elliptic.P256(), 32},
	{"P-384", elliptic.P384(), 48},
	{"P-521", elliptic.P521(), 66},
}

// secretMembers are the members of a JWK that no public key has: those of
// private keys (RFC 7518 §6.2.2, §6.3.2, RFC 8037 §2) and of symmetric ones
// (RFC 7518 §6.4.1).
var secretMembers = []string{"d", "p", "q", "dp", "dq", "qi", "oth", "k"}

// CheckPublic checks that a JWK has no member of private and symmetric keys.
func CheckPublic(jwk Object) error {
	for _, name := range secretMembers {
		if jwk.Has(name) {
			return fmt.Errorf("member %s does not belong in a public key", name)
		}
	}
	return nil
}

// ParseKey takes the public key from a JWK (RFC 7517): EC on P-256, P-384 or
// P-521, OKP on Ed25519, or RSA. Members that say nothing about the key's value
// are ignored.
func ParseKey(jwk Object) (*Key, error) {
	if err := CheckPublic(jwk); err != nil {
		return nil, err
	}
	kty, err := textMember(jwk, "kty")
	if err != nil {
		return nil, err
	}
	switch kty {
	case "EC":
		return parseEC(jwk)
	case "OKP":
		return parseOKP(jwk)
	case "RSA":
		return parseRSA(jwk)
	}
	return nil, errors.New("kty is not EC, OKP or RSA")
}

func textMember(jwk Object, name string) (string, error) {
	value, ok := jwk.Get(name)
	if !ok {
		return "", fmt.Errorf("member %s is missing", name)
	}
	text, ok := value.Text()
	if !ok {
		return "", fmt.Errorf("member %s is not a string", name)
	}
	return text, nil
}

// octets returns the text and the decoded value of a base64url member.
func octets(jwk Object, name string) (string, []byte, error) {
	text, err := textMember(jwk, name)
	if err != nil {
		return "", nil, err
	}
	value, err := DecodeBase64URL(text)
	if err != nil {
		return "", nil, fmt.Errorf("member %s is %w", name, err)
	}
	return text, value, nil
}

func parseEC(jwk Object) (*Key, error) {
	crv, err := textMember(jwk, "crv")
	if err != nil {
		return nil, err
	}
	for _, c := range curves {
		if c.name == crv {
			return parsePoint(jwk, c)
		}
	}
	return nil, errors.New("crv is not P-256, P-384 or P-521")
}

func parsePoint(jwk Object, c *curve) (*Key, error) {
	x, xOctets, err := octets(jwk, "x")
	if err != nil {
		return nil, err
	}
	y, yOctets, err := octets(jwk, "y")
	if err != nil {
		return nil, err
	}
	// RFC 7518 §6.2.1.2: the full size of a coordinate, leading zeros included.
	if len(xOctets) != c.size || len(yOctets) != c.size {
		return nil, errors.New("x and y are not the curve's size")
	}
	point := make([]byte, 0, 1+2*66)
	point = append(point, 4)
	point = append(append(point, xOctets...), yOctets...)
	public, err := ecdsa.ParseUncompressedPublicKey(c.elliptic, point)
	if err != nil {
		return nil, errors.New("x and y are not a point on the curve")
	}
	return &Key{
		Public:     public,
		Thumbprint: thumbprint(`{"crv":"`, c.name, `","kty":"EC","x":"`, x, `","y":"`, y, `"}`),
		curve:      c,
	}, nil
}

func parseOKP(jwk Object) (*Key, error) {
	crv, err := textMember(jwk, "crv")
	if err != nil {
		return nil, err
	}
	if crv != "Ed25519" {
		return nil, errors.New("crv is not Ed25519")
	}
	x, xOctets, err := octets(jwk, "x")
	if err != nil {
		return nil, err
	}
	if len(xOctets) != ed25519.PublicKeySize {
		return nil, errors.New("x is not the curve's size")
	}
	if !soundEd25519(xOctets) {
		return nil, errors.New("x is a small-order point or not canonical")
	}
	return &Key{
		Public:     ed25519.PublicKey(xOctets),
		Thumbprint: thumbprint(`{"crv":"Ed25519","kty":"OKP","x":"`, x, `"}`),
	}, nil
}

// smallOrderY are the y coordinates, little endian, of the eight points of
// small order. A signature by such a "key" holds for messages that nobody
// signed, and crypto/ed25519 accepts it.
var smallOrderY = [][ed25519.PublicKeySize]byte{
	{1}, // order 1
	{0xec, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff,
		0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x7f}, // order 2
	{}, // order 4
	{0x26, 0xe8, 0x95, 0x8f, 0xc2, 0xb2, 0x27, 0xb0, 0x45, 0xc3, 0xf4, 0x89, 0xf2, 0xef, 0x98, 0xf0,
		0xd5, 0xdf, 0xac, 0x05, 0xd3, 0xc6, 0x33, 0x39, 0xb1, 0x38, 0x02, 0x88, 0x6d, 0x53, 0xfc, 0x05}, // order 8
	{0xc7, 0x17, 0x6a, 0x70, 0x3d, 0x4d, 0xd8, 0x4f, 0xba, 0x3c, 0x0b, 0x76, 0x0d, 0x10, 0x67, 0x0f,
		0x2a, 0x20, 0x53, 0xfa, 0x2c, 0x39, 0xcc, 0xc6, 0x4e, 0xc7, 0xfd, 0x77, 0x92, 0xac, 0x03, 0x7a}, // order 8
}

// soundEd25519 reports whether an encoded point has y below 2^255-19, so that
// it is the only encoding of its point (RFC 8032 §5.1.3), and is not of small
// order. That it lies on the curve shows when a signature is verified.
func soundEd25519(point []byte) bool {
	var y [ed25519.PublicKeySize]byte
	copy(y[:], point)
	y[31] &= 0x7f // the sign of x
	for i := range smallOrderY {
		if y == smallOrderY[i] {
			return false
		}
	}
	if y[31] != 0x7f || y[0] < 0xed {
		return true
	}
	for _, b := range y[1:31] {
		if b != 0xff {
			return true
		}
	}
	return false
}

func parseRSA(jwk Object) (*Key, error) {
	n, nOctets, err := octets(jwk, "n")
	if err != nil {
		return nil, err
	}
	e, eOctets, err := octets(jwk, "e")
	if err != nil {
		return nil, err
	}
	// RFC 7518 §2, Base64urlUInt: no leading zero octets.
	if len(nOctets) == 0 || nOctets[0] == 0 || len(eOctets) == 0 || eOctets[0] == 0 {
		return nil, errors.New("n and e are not in their shortest form")
	}
	modulus := new(big.Int).SetBytes(nOctets)
	if bits := modulus.BitLen(); bits < MinRSABits || bits > MaxRSABits {
		return nil, fmt.Errorf("n is not of %d to %d bits", MinRSABits, MaxRSABits)
	}
	if modulus.Bit(0) == 0 {
		return nil, errors.New("n is even")
	}
	if len(eOctets) > 4 {
		return nil, errExponent
	}
	exponent := new(big.Int).SetBytes(eOctets).Int64()
	if !soundExponent(exponent) || exponent > maxExponent {
		return nil, errExponent
	}
	return &Key{
		Public:     &rsa.PublicKey{N: modulus, E: int(exponent)},
		Thumbprint: thumbprint(`{"e":"`, e, `","kty":"RSA","n":"`, n, `"}`),
	}, nil
}

// maxExponent is the exponent that nearly all keys have. Larger ones make a
// verification cost up to three times as much, and who sends a key is anonymous.
const maxExponent = 65537

var errExponent = errors.New("e is not odd and from 3 to 65537")

// soundExponent reports whether crypto/rsa can hold a public exponent, and it is
// odd and not 1, which would make every message its own signature.
func soundExponent(e int64) bool { return e >= 3 && e <= 1<<31-1 && e&1 == 1 }

// thumbprint hashes the JSON of RFC 7638 §3, given in parts. The parts that a
// client sent are canonical base64url, so they need no escaping.
func thumbprint(parts ...string) string {
	var buffer [1024]byte
	text := buffer[:0]
	for _, part := range parts {
		text = append(text, part...)
	}
	sum := sha256.Sum256(text)
	return base64.RawURLEncoding.EncodeToString(sum[:])
}
