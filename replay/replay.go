// Package replay records which DPoP proofs were accepted, so that each is
// accepted once (RFC 9449 §11.1). Store is what a store must do; Memory is the
// store within one process.
package replay

import (
	"context"
	"crypto/sha256"
	"errors"
	"time"
)

// Store records accepted proofs. Other stores can be added as Caddy modules of
// the namespace dpop.replay. A Store is comparable: handlers that share one
// hold equal values.
type Store interface {
	// Record notes that a proof is being accepted, in one atomic step: of any
	// number of calls with one key, for as long as any handler could accept the
	// proof, exactly one returns nil. ErrReplayed and the other errors of this
	// package say why it is not accepted; any other error says that the store
	// cannot tell, and the proof is not accepted either.
	Record(ctx context.Context, use Use) error

	// Retain tells the store for how long a handler may accept a proof, until
	// release is called. What a store keeps, it keeps for the longest time that is
	// retained.
	Retain(lifetimes Lifetimes) (release func())
}

// Use is one use of a proof.
type Use struct {
	Key Key
	// IssuedAt is the proof's iat. Zero: no handler will ever accept it by that.
	IssuedAt time.Time
	// Nonce is when the nonce in the proof was issued, also if it is no longer good.
	// Zero: none, or none of ours.
	Nonce time.Time
	// By is what shows that the proof is fresh.
	By Freshness
	// OtherNonce says that the proof has a nonce of which the handler does not know
	// when it was issued. Another may accept the proof by that.
	OtherNonce bool
}

// Freshness is what shows that a proof was made of late. It may be both.
type Freshness uint8

// What a handler may accept a proof by (RFC 9449 §4.3, check 11).
const (
	ByIssuedAt Freshness = 1 << iota // its iat is now
	ByNonce                          // its nonce was issued of late
)

// FarAhead bounds how long a record must be kept because a handler that goes by
// nonces accepted a proof whose iat lies ahead, at which another could accept it
// again. Handlers accept a proof of an iat further ahead of its nonce by its
// nonce alone.
const FarAhead = time.Hour

// Key identifies a proof among all proofs of all clients. It is a hash, so that
// nothing a client sends reaches a store as it is.
type Key [sha256.Size]byte

// KeyOf returns the key of the proof with this identifier (jti) by the key with
// this thumbprint. With the thumbprint in it, no client can spend the
// identifiers of another.
func KeyOf(thumbprint, jti string) Key {
	// A thumbprint is of fixed length and has no dot in it.
	var buffer [128]byte // enough for most
	return sha256.Sum256(append(append(append(buffer[:0], thumbprint...), '.'), jti...))
}

// Why a store does not accept a proof.
var (
	// ErrReplayed: the proof was accepted before.
	ErrReplayed = errors.New("the proof was used before")
	// ErrForgotten: the proof may have been accepted before, and its record let go.
	ErrForgotten = errors.New("the proof is older than what the store still knows")
	// ErrBeforeStart: the proof, or the nonce in it, was made before the store began
	// to record.
	ErrBeforeStart = errors.New("the proof was made before the store began to record")
	// ErrFull: the store holds as many live entries as it may.
	ErrFull = errors.New("the store is full")
)
