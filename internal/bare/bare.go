// Package bare has what no resource server can do without, by the standard library
// alone: the verification of a proof's signature. Other figures are told beside it.
package bare

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha256"
	"fmt"
)

// signed is how much is signed of a proof for "https://api.example.com/orders", which
// holds the key, in bytes.
var signed = map[string]int{"ES256": 428, "EdDSA": 370, "RS256": 768, "PS256": 768}

// Verification returns what verifies one signature of a proof by a new key of the
// least size: it hashes what is signed, and reports whether the signature holds.
func Verification(algorithm string) (verify func() bool, err error) {
	message := make([]byte, signed[algorithm])
	digest := sha256.Sum256(message)
	var signature []byte
	switch algorithm {
	case "ES256":
		key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
		if err != nil {
			return nil, err
		}
		verify = func() bool {
			digest := sha256.Sum256(message)
			return ecdsa.VerifyASN1(&key.PublicKey, digest[:], signature)
		}
		signature, err = ecdsa.SignASN1(rand.Reader, key, digest[:])
		return verify, err
	case "EdDSA":
		public, private, err := ed25519.GenerateKey(rand.Reader)
		if err != nil {
			return nil, err
		}
		signature = ed25519.Sign(private, message)
		return func() bool { return ed25519.Verify(public, message, signature) }, nil
	}
	key, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		return nil, err
	}
	switch algorithm {
	case "RS256":
		verify = func() bool {
			digest := sha256.Sum256(message)
			return rsa.VerifyPKCS1v15(&key.PublicKey, crypto.SHA256, digest[:], signature) == nil
		}
		signature, err = rsa.SignPKCS1v15(rand.Reader, key, crypto.SHA256, digest[:])
	case "PS256":
		verify = func() bool {
			digest := sha256.Sum256(message)
			return rsa.VerifyPSS(&key.PublicKey, crypto.SHA256, digest[:], signature, nil) == nil
		}
		signature, err = rsa.SignPSS(rand.Reader, key, crypto.SHA256, digest[:], nil)
	default:
		return nil, fmt.Errorf("no bare verification by %s", algorithm)
	}
	return verify, err
}
