package jose

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"encoding/base64"
	"encoding/json"
	"fmt"

	"github.com/lestrrat-go/jwx/v2/jwk"
)

// PrivateKey is a key pair for signing by one algorithm.
type PrivateKey struct {
	Algorithm *Algorithm
	// Public is the public key as a JWK, without members that do not belong to its value.
	Public json.RawMessage
	// Thumbprint is that of RFC 7638.
	Thumbprint string

	signer crypto.Signer
}

// Generate makes a key pair for an algorithm; RSA keys have the least size that
// is accepted.
func Generate(algorithm *Algorithm) (*PrivateKey, error) {
	var signer crypto.Signer
	var err error
	switch algorithm.family {
	case familyEC:
		signer, err = ecdsa.GenerateKey(algorithm.elliptic(), rand.Reader)
	case familyRSA:
		signer, err = rsa.GenerateKey(rand.Reader, MinRSABits)
	case familyEd25519:
		_, signer, err = ed25519.GenerateKey(rand.Reader)
	}
	if err != nil {
		return nil, err
	}
	return NewPrivateKey(algorithm, signer)
}

func (a *Algorithm) elliptic() elliptic.Curve {
	for _, c := range curves {
		if c.name == a.curve {
			return c.elliptic
		}
	}
	return nil
}

// NewPrivateKey wraps a private key of the kind that the algorithm needs.
func NewPrivateKey(algorithm *Algorithm, signer crypto.Signer) (*PrivateKey, error) {
	public, err := jwk.FromRaw(signer.Public())
	if err != nil {
		return nil, err
	}
	text, err := json.Marshal(public)
	if err != nil {
		return nil, err
	}
	object, err := ParseObject(text)
	if err != nil {
		return nil, err
	}
	key, err := ParseKey(object)
	if err != nil {
		return nil, err
	}
	if !algorithm.Fits(key) {
		return nil, fmt.Errorf("%s: %w", algorithm.Name, errFit)
	}
	return &PrivateKey{algorithm, text, key.Thumbprint, signer}, nil
}

// Sign returns a JWS in compact serialization with the header and the claims.
// It sets the alg of the header.
func (k *PrivateKey) Sign(header, claims map[string]any) (string, error) {
	complete := map[string]any{"alg": k.Algorithm.Name}
	for name, value := range header {
		complete[name] = value
	}
	head, err := json.Marshal(complete)
	if err != nil {
		return "", err
	}
	payload, err := json.Marshal(claims)
	if err != nil {
		return "", err
	}
	encode := base64.RawURLEncoding.EncodeToString
	input := encode(head) + "." + encode(payload)
	signature, err := k.sign(input)
	if err != nil {
		return "", err
	}
	return input + "." + encode(signature), nil
}

func (k *PrivateKey) sign(input string) ([]byte, error) {
	a := k.Algorithm
	switch a.family {
	case familyEC:
		// RFC 7518 §3.4: r and s at full size, not DER.
		private := k.signer.(*ecdsa.PrivateKey)
		r, s, err := ecdsa.Sign(rand.Reader, private, a.digest(input))
		if err != nil {
			return nil, err
		}
		size := (private.Curve.Params().BitSize + 7) / 8
		signature := make([]byte, 2*size)
		r.FillBytes(signature[:size])
		s.FillBytes(signature[size:])
		return signature, nil
	case familyRSA:
		if a.pss {
			return k.signer.Sign(rand.Reader, a.digest(input), &rsa.PSSOptions{SaltLength: rsa.PSSSaltLengthEqualsHash, Hash: a.hash})
		}
		return k.signer.Sign(rand.Reader, a.digest(input), a.hash)
	default:
		return k.signer.Sign(rand.Reader, []byte(input), crypto.Hash(0))
	}
}
