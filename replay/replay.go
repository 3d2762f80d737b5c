// Package replay records which DPoP proofs were accepted, so that each is
// accepted once (RFC 9449 §11.1). Store is what a store must do; Memory is the
// store within one process.
package replay

import (
	"context"
	"crypto/sha256"
	"errors"
	"sync"
	"sync/atomic"
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

	// Retain tells the store for how long after its iat a handler may accept a
	// proof, until release is called. What a store keeps, it keeps for the longest
	// time that is retained.
	Retain(lifetime time.Duration) (release func())
}

// Use is one use of a proof.
type Use struct {
	Key      Key
	IssuedAt time.Time // iat
}

// Key identifies a proof among all proofs of all clients. It is a hash, so that
// nothing a client sends reaches a store as it is.
type Key [sha256.Size]byte

// KeyOf returns the key of the proof with this identifier (jti) by the key with
// this thumbprint. With the thumbprint in it, no client can spend the
// identifiers of another.
func KeyOf(thumbprint, jti string) Key {
	// A thumbprint is of fixed length and has no dot in it.
	return sha256.Sum256([]byte(thumbprint + "." + jti))
}

// Why a store does not accept a proof.
var (
	// ErrReplayed: the proof was accepted before.
	ErrReplayed = errors.New("the proof was used before")
	// ErrForgotten: the proof may have been accepted before, and its record let go.
	ErrForgotten = errors.New("the proof is older than what the store still knows")
	// ErrBeforeStart: the proof was made before the store began to record.
	ErrBeforeStart = errors.New("the proof was made before the store began to record")
	// ErrFull: the store holds as many live entries as it may.
	ErrFull = errors.New("the store is full")
)

// Retention is the lifetimes that handlers retain. The zero value is ready for
// use; stores embed it for their Retain.
type Retention struct {
	mu      sync.Mutex
	holders map[*time.Duration]struct{}
	longest atomic.Int64
}

// Retain is the method of Store.
func (r *Retention) Retain(lifetime time.Duration) (release func()) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.holders == nil {
		r.holders = make(map[*time.Duration]struct{})
	}
	holder := &lifetime
	r.holders[holder] = struct{}{}
	r.measure()
	return func() {
		r.mu.Lock()
		defer r.mu.Unlock()
		delete(r.holders, holder)
		r.measure()
	}
}

// measure finds the longest lifetime. When the last holder goes, the time that
// was retained stays as it is: nobody asked for less.
func (r *Retention) measure() {
	if len(r.holders) == 0 {
		return
	}
	var longest time.Duration
	for holder := range r.holders {
		longest = max(longest, *holder)
	}
	r.longest.Store(int64(longest))
}

// Longest returns the longest lifetime that is retained.
func (r *Retention) Longest() time.Duration {
	return time.Duration(r.longest.Load())
}
