//go:build linux

package main

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/sha256"
	"errors"
	"runtime"
	"sync"
	"time"
)

// bare is the standard library's verification of one P-256 signature, which no
// resource server can do without.
type bare struct {
	key       *ecdsa.PublicKey
	digest    [sha256.Size]byte
	signature []byte
}

func newBare() (*bare, error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, err
	}
	b := &bare{key: &key.PublicKey, digest: sha256.Sum256([]byte("message"))}
	b.signature, err = ecdsa.SignASN1(rand.Reader, key, b.digest[:])
	return b, err
}

// measure returns the processor time of one verification, on so many threads at
// once. A processor that shares a core, or a cache, with another one is slower
// when that is busy too, as it is under load.
func (b *bare) measure(threads, operations int) (time.Duration, error) {
	taken := make([]time.Duration, threads)
	failures := make([]error, threads)
	var all sync.WaitGroup
	for i := range threads {
		all.Go(func() {
			runtime.LockOSThread() // whose clock it is
			defer runtime.UnlockOSThread()
			start, err := threadTime()
			for range operations {
				if !ecdsa.VerifyASN1(b.key, b.digest[:], b.signature) {
					failures[i] = errors.New("the bare signature does not verify")
					return
				}
			}
			end, err2 := threadTime()
			taken[i], failures[i] = end-start, errors.Join(err, err2)
		})
	}
	all.Wait()
	var sum time.Duration
	for _, t := range taken {
		sum += t
	}
	return sum / time.Duration(threads*operations), errors.Join(failures...)
}
