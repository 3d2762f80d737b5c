package caddydpop

import (
	"testing"
	"time"

	"github.com/caddy-dpop/caddy-dpop/internal/failure"
)

// A flood leaves a hundred lines in a second, and then every hundredth.
func TestSampler(t *testing.T) {
	s, now := new(sampler), time.Unix(1_700_000_000, 0)
	for range 2 {
		lines := 0
		for range 1000 {
			if s.lets(failure.ProofMalformed, now) {
				lines++
			}
		}
		if lines != 109 {
			t.Errorf("%d lines", lines)
		}
		if !s.lets(failure.ProofReplayed, now) {
			t.Error("another reason has no line")
		}
		now = now.Add(time.Second)
	}
}
