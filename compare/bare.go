//go:build linux

package main

import (
	"errors"
	"runtime"
	"sync"
	"time"

	"github.com/caddy-dpop/caddy-dpop/internal/bare"
)

// verification is the standard library's of one P-256 signature.
type verification func() bool

func newVerification() (verification, error) { return bare.Verification("ES256") }

// measure returns the processor time of one verification, on so many threads at
// once. A processor that shares a core, or a cache, with another one is slower
// when that is busy too, as it is under load.
func (verify verification) measure(threads, operations int) (time.Duration, error) {
	taken := make([]time.Duration, threads)
	failures := make([]error, threads)
	var all sync.WaitGroup
	for i := range threads {
		all.Go(func() {
			runtime.LockOSThread() // whose clock it is
			defer runtime.UnlockOSThread()
			start, err := threadTime()
			for range operations {
				if !verify() {
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
