package authserver

import (
	"bytes"
	"crypto/sha256"
	"encoding/json"
	"errors"
	"fmt"
	"slices"

	"github.com/lestrrat-go/jwx/v2/jwk"

	"github.com/caddy-dpop/caddy-dpop/internal/jose"
)

const (
	// maxSetSize bounds what a server may answer, in bytes.
	maxSetSize = 512 << 10
	// maxKeys bounds the keys of a set.
	maxKeys = 100
	// maxCandidates is how many keys a token without kid is tried against.
	maxCandidates = 4
)

// KeySet is a JWK Set (RFC 7517 §5), reduced to the keys that can verify tokens.
type KeySet struct {
	keys []setKey
	sum  [sha256.Size]byte // of its text
}

type setKey struct {
	id        string
	algorithm string // alg; empty: any that fits
	key       *jose.Key
}

// Len returns how many keys of the set can verify tokens.
func (s *KeySet) Len() int { return len(s.keys) }

// ParseKeySet reads a JWK Set. Keys that are not for verifying signatures, are too
// weak, or are not understood are skipped, as RFC 7517 §5 advises: the next
// kind of key to be invented must not cut off the ones in use.
func ParseKeySet(text []byte) (*KeySet, error) {
	if len(text) > maxSetSize {
		return nil, fmt.Errorf("key set larger than %d bytes", maxSetSize)
	}
	// The set is read leniently, and each key strictly: one that is ambiguous is
	// skipped like any other that is not understood.
	keys, err := elementsOf(text)
	if err != nil {
		return nil, fmt.Errorf("key set: %w", err)
	}
	if len(keys) > maxKeys {
		return nil, fmt.Errorf("key set of more than %d keys", maxKeys)
	}
	set := &KeySet{sum: sha256.Sum256(text)}
	for _, element := range keys {
		if key, ok := parseKey(element); ok {
			set.keys = append(set.keys, key)
		}
	}
	return set, nil
}

// elementsOf returns the elements of a set's keys. With two members of that name,
// nobody could tell which keys are meant.
func elementsOf(text []byte) ([]json.RawMessage, error) {
	var all json.RawMessage // the whole of the text, and well-formed
	if err := json.Unmarshal(text, &all); err != nil {
		return nil, err
	}
	decoder := json.NewDecoder(bytes.NewReader(all))
	if start, err := decoder.Token(); err != nil || start != json.Delim('{') {
		return nil, errors.New("not a JSON object")
	}
	var keys []json.RawMessage
	for decoder.More() {
		name, err := decoder.Token()
		if err != nil {
			return nil, err
		}
		var value json.RawMessage
		if err := decoder.Decode(&value); err != nil {
			return nil, err
		}
		if name != "keys" {
			continue
		}
		if keys != nil {
			return nil, errors.New("two members called keys")
		}
		if err := json.Unmarshal(value, &keys); err != nil || keys == nil {
			return nil, errors.New("keys is not an array")
		}
	}
	if keys == nil {
		return nil, errors.New("no array called keys")
	}
	return keys, nil
}

// parseKey reads one key, and reports whether it can verify signatures.
func parseKey(text []byte) (setKey, bool) {
	object, err := jose.ParseObject(text)
	if err != nil {
		return setKey{}, false
	}
	// A key that the whole world can read must verify nothing.
	if err := jose.CheckPublic(object); err != nil {
		return setKey{}, false
	}
	parsed, err := jwk.ParseKey(text)
	if err != nil {
		return setKey{}, false
	}
	if use := parsed.KeyUsage(); use != "" && use != string(jwk.ForSignature) {
		return setKey{}, false
	}
	if ops := parsed.KeyOps(); len(ops) > 0 && !slices.Contains(ops, jwk.KeyOpVerify) {
		return setKey{}, false
	}
	var public any
	if err := parsed.Raw(&public); err != nil {
		return setKey{}, false
	}
	key, err := jose.NewKey(public)
	if err != nil {
		return setKey{}, false
	}
	return setKey{parsed.KeyID(), parsed.Algorithm().String(), key}, true
}

// find returns the keys to try for a token's kid and alg. Without kid it is the
// first few keys that fit; with it, the first few of those that have it. Known reports
// whether the set answers the question: it holds the kid, or some key that fits.
func (s *KeySet) find(kid string, algorithm *jose.Algorithm) (keys []*jose.Key, known bool) {
	for i := range s.keys {
		k := &s.keys[i]
		if kid != "" && k.id != kid {
			continue
		}
		known = known || kid != ""
		if !algorithm.Fits(k.key) || !algorithm.Named(k.algorithm) {
			continue
		}
		known = true
		if keys = append(keys, k.key); len(keys) == maxCandidates {
			break
		}
	}
	return keys, known
}
