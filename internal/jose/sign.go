package jose

import (
	"bytes"
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"encoding/base64"
	"encoding/json"
	"encoding/pem"
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/lestrrat-go/jwx/v2/jwk"
)

// PrivateKey is a key pair for signing by one algorithm.
type PrivateKey struct {
	Algorithm *Algorithm
	// Public is the public key as a JWK, without members that do not belong to its value.
	Public json.RawMessage
	// Thumbprint is that of RFC 7638.
	Thumbprint string
	// ID is the key's kid, or else its thumbprint.
	ID string

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
	text, key, err := publicJWK(signer.Public())
	if err != nil {
		return nil, err
	}
	if !algorithm.Fits(key) {
		return nil, fmt.Errorf("%s: %w", algorithm.Name, errFit)
	}
	return &PrivateKey{algorithm, text, key.Thumbprint, key.Thumbprint, signer}, nil
}

// publicJWK writes a public key as a JWK, and reads it as a client's would be.
func publicJWK(public any) (json.RawMessage, *Key, error) {
	// jwx panics over a coordinate that is larger than the curve's.
	if ec, ok := public.(*ecdsa.PublicKey); ok {
		if _, err := ec.ECDH(); err != nil {
			return nil, nil, errors.New("not a point on a known curve")
		}
	}
	members, err := jwk.FromRaw(public)
	if err != nil {
		return nil, nil, err
	}
	text, err := json.Marshal(members)
	if err != nil {
		return nil, nil, err
	}
	object, err := ParseObject(text)
	if err != nil {
		return nil, nil, err
	}
	key, err := ParseKey(object)
	return text, key, err
}

// ParsePrivateKey reads a private key, a JWK or in PEM (PKCS #8, PKCS #1 or SEC 1).
// It signs by the alg of the JWK, or else by the usual one for its kind.
func ParsePrivateKey(text []byte) (*PrivateKey, error) {
	parsed, err := parsePrivate(text)
	if err != nil {
		return nil, fmt.Errorf("neither a JWK nor a key in PEM: %w", err)
	}
	if use := parsed.KeyUsage(); use != "" && use != string(jwk.ForSignature) {
		return nil, errors.New("the key's use is not sig")
	}
	if ops := parsed.KeyOps(); len(ops) > 0 && !slices.Contains(ops, jwk.KeyOpSign) {
		return nil, errors.New("the key's key_ops do not have sign")
	}
	var raw any
	if err := parsed.Raw(&raw); err != nil {
		return nil, err
	}
	signer, ok := raw.(crypto.Signer)
	if !ok {
		return nil, errors.New("not a private key")
	}
	name := parsed.Algorithm().String()
	if name == "" {
		name = usualAlgorithm(signer)
	}
	algorithm := Algorithms(algorithms).Find(name)
	if algorithm == nil {
		return nil, fmt.Errorf("the key's alg %q is not supported", name)
	}
	key, err := NewPrivateKey(algorithm, signer)
	if err != nil {
		return nil, err
	}
	if id := parsed.KeyID(); id != "" {
		key.ID = id
	}
	return key, key.probe()
}

// parsePrivate reads a JWK, or the first private key among the blocks of a PEM
// file, which may have parameters or certificates before it.
func parsePrivate(text []byte) (jwk.Key, error) {
	if !bytes.Contains(text, []byte("-----BEGIN")) {
		if _, err := ParseObject(text); err != nil {
			return nil, err
		}
		return jwk.ParseKey(text)
	}
	for {
		var block *pem.Block
		if block, text = pem.Decode(text); block == nil {
			return nil, errors.New("no private key")
		}
		if strings.HasSuffix(block.Type, "PRIVATE KEY") {
			return jwk.ParseKey(pem.EncodeToMemory(block), jwk.WithPEM(true))
		}
	}
}

// ParsePublicKey reads the public key of a JWK or a key in PEM, public or private.
func ParsePublicKey(text []byte) (*Key, error) {
	private, notPrivate := ParsePrivateKey(text)
	if notPrivate == nil {
		_, key, err := publicJWK(private.signer.Public())
		return key, err
	}
	if bytes.Contains(text, []byte("-----BEGIN")) {
		return parsePublicPEM(text, notPrivate)
	}
	object, err := ParseObject(text)
	if err != nil || object.Has("d") {
		return nil, notPrivate
	}
	return ParseKey(object)
}

func parsePublicPEM(text []byte, notPrivate error) (*Key, error) {
	if bytes.Contains(text, []byte("PRIVATE KEY-----")) {
		return nil, notPrivate
	}
	parsed, err := jwk.ParseKey(text, jwk.WithPEM(true))
	if err != nil {
		return nil, fmt.Errorf("no key in PEM: %w", err)
	}
	var public any
	if err := parsed.Raw(&public); err != nil {
		return nil, err
	}
	_, key, err := publicJWK(public)
	return key, err
}

// probe signs something, to find private keys that cannot sign, or belong to
// another public key than they say.
func (k *PrivateKey) probe() error {
	signature, err := k.sign("probe")
	if err != nil {
		return fmt.Errorf("the key cannot sign: %w", err)
	}
	object, err := ParseObject(k.Public)
	if err != nil {
		return err
	}
	public, err := ParseKey(object)
	if err != nil {
		return err
	}
	if k.Algorithm.Verify(public, "probe", signature) != nil {
		return errors.New("the private key does not belong to its public key")
	}
	return nil
}

// usualAlgorithm returns the algorithm that servers most likely accept of a key.
func usualAlgorithm(signer crypto.Signer) string {
	switch private := signer.(type) {
	case *ecdsa.PrivateKey:
		for _, a := range algorithms {
			if a.family == familyEC && a.elliptic() == private.Curve {
				return a.Name
			}
		}
	case *rsa.PrivateKey:
		return "RS256"
	case ed25519.PrivateKey:
		return "EdDSA"
	}
	return ""
}

// PublicJWK returns the public key as a JWK that names its id, use and algorithm.
func (k *PrivateKey) PublicJWK() map[string]any { return k.named(k.Public) }

// PrivateJWK returns the private key as a JWK, with the same names.
func (k *PrivateKey) PrivateJWK() (map[string]any, error) {
	members, err := jwk.FromRaw(k.signer)
	if err != nil {
		return nil, err
	}
	text, err := json.Marshal(members)
	if err != nil {
		return nil, err
	}
	return k.named(text), nil
}

func (k *PrivateKey) named(jwk []byte) map[string]any {
	set := make(map[string]any)
	_ = json.Unmarshal(jwk, &set) // an object
	set["kid"], set["use"], set["alg"] = k.ID, "sig", k.Algorithm.Name
	return set
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
		r, s, err := ecdsa.Sign(rand.Reader, private, a.digest(nil, input))
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
			return k.signer.Sign(rand.Reader, a.digest(nil, input), &rsa.PSSOptions{SaltLength: rsa.PSSSaltLengthEqualsHash, Hash: a.hash})
		}
		return k.signer.Sign(rand.Reader, a.digest(nil, input), a.hash)
	default:
		return k.signer.Sign(rand.Reader, []byte(input), crypto.Hash(0))
	}
}
