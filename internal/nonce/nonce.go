// Package nonce makes nonces for DPoP proofs (RFC 9449 §8 and §9) that need no
// memory: a nonce carries the time at which it was issued, and is authentic. Who
// has the key accepts it, in whatever process it was issued.
package nonce

import (
	"crypto/hkdf"
	"crypto/hmac"
	"crypto/sha256"
	"encoding/base64"
	"encoding/binary"
	"time"
)

// KeySize is the length of a key, in bytes.
const KeySize = 32

const (
	timeSize = 6 // milliseconds since 1970, for 8,900 years
	macSize  = 18
	size     = timeSize + macSize // three bytes are four characters, so that each nonce has one text
)

// Keys make nonces authentic: the first one issues, all are accepted.
type Keys [][]byte

// KeyOf returns the key that is made from a secret of any length.
func KeyOf(secret string) []byte {
	key, err := hkdf.Key(sha256.New, []byte(secret), nil, "caddy-dpop nonce", KeySize)
	if err != nil {
		panic(err) // only of a key that is too long for the hash
	}
	return key
}

// Issue returns a nonce of now, to the millisecond. Its characters are those of
// base64url, all of which a nonce may have (NQCHAR, RFC 9449 §8.1).
func (k Keys) Issue(now time.Time) string {
	var octets [size]byte
	binary.BigEndian.PutUint64(octets[:8], uint64(now.UnixMilli())<<16)
	copy(octets[timeSize:], mac(k[0], octets[:timeSize]))
	return base64.RawURLEncoding.EncodeToString(octets[:])
}

// Issued returns when a nonce was issued, or false if it is not one of ours.
func (k Keys) Issued(nonce string) (time.Time, bool) {
	var octets [size]byte
	if len(nonce) != base64.RawURLEncoding.EncodedLen(size) {
		return time.Time{}, false
	}
	// Go's decoder skips line breaks: then there are too few bytes.
	if n, err := base64.RawURLEncoding.Decode(octets[:], []byte(nonce)); err != nil || n != size {
		return time.Time{}, false
	}
	for _, key := range k {
		if hmac.Equal(mac(key, octets[:timeSize]), octets[timeSize:]) {
			var milliseconds [8]byte
			copy(milliseconds[2:], octets[:timeSize])
			return time.UnixMilli(int64(binary.BigEndian.Uint64(milliseconds[:]))), true
		}
	}
	return time.Time{}, false
}

func mac(key, message []byte) []byte {
	h := hmac.New(sha256.New, key)
	h.Write(message)
	return h.Sum(nil)[:macSize]
}
