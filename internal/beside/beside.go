// Package beside has benchmarks measure themselves beside the bare verification of a
// signature by the standard library, which is what a request cannot cost less than.
package beside

import (
	"testing"
	"time"

	"github.com/caddy-dpop/caddy-dpop/internal/bare"
)

// Compare measures the processor time that work takes, as so many times that of so
// many calls of bare: in turns, so that the ratio holds while the machine's speed
// drifts, and on one that does other things too. A turn of work is as long as one of
// bare, so that cheap work does not find all caches cold again after each few calls.
func Compare(b *testing.B, bare func(), times int, work func()) {
	b.Helper()
	const batch = 64
	work()                                // the first one makes what is there from then on
	var ours, theirs, least time.Duration // least is what a turn of work takes
	calls, batches, began := 0, 0, processorTime()
	turn := func() {
		ours += processorTime() - began
		b.StopTimer() // which takes time of its own
		began = processorTime()
		for range batch {
			bare()
		}
		least = processorTime() - began
		theirs += least
		batches++
		b.StartTimer()
		began = processorTime()
	}
	for b.Loop() {
		work()
		if calls++; calls%batch == 0 && processorTime()-began >= least {
			turn()
		}
	}
	turn()
	bareTime := float64(theirs) / float64(batches*batch)
	b.ReportMetric(float64(ours)/float64(calls)/bareTime/float64(times), "of-bare")
	b.ReportMetric(bareTime, "bare-ns")
}

// Verification is what the standard library does for one signature of a proof.
func Verification(b *testing.B, algorithm string) func() {
	b.Helper()
	verify, err := bare.Verification(algorithm)
	if err != nil {
		b.Fatal(err)
	}
	return func() {
		if !verify() {
			b.Fatal("does not verify")
		}
	}
}
