package caddydpop

import (
	"context"
	"testing"
	"time"

	"github.com/caddy-dpop/caddy-dpop/internal/failure"
	"github.com/caddy-dpop/caddy-dpop/replay"
)

// Caddy may serve by a configuration before its companion has started. Until then
// the memory store of the one before does not know that proofs will be accepted
// without it, and what goes by another store must wait: the load may yet fail.
func TestStoresWaitForTheMemoryStoreToBeTold(t *testing.T) {
	companion, err := companionOf(newContext(t))
	if err != nil {
		t.Fatal(err)
	}
	companion.others = true
	h := &Handler{store: noStore{}, companion: companion}
	use := replay.Use{IssuedAt: time.Now()}
	// where there is no memory store, nobody need be told
	if f := h.record(t.Context(), new(request), use); f != nil {
		t.Error(f)
	}

	memory := new(MemoryReplay)
	if err := memory.Provision(newContext(t)); err != nil {
		t.Fatal(err)
	}
	defer memory.Cleanup()
	gone, cancel := context.WithCancel(t.Context())
	cancel()
	if f := h.record(gone, new(request), use); f == nil || f.Reason != failure.ReplayUnavailable {
		t.Errorf("before the start: %v", f)
	}
	if err := companion.Start(); err != nil {
		t.Fatal(err)
	}
	if f := h.record(gone, new(request), use); f != nil {
		t.Errorf("after the start: %v", f)
	}
	if err := companion.Stop(); err != nil {
		t.Error(err)
	}
	if err := companion.Cleanup(); err != nil {
		t.Error(err)
	}
}
