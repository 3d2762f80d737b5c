package caddydpop

import (
	"context"

	"github.com/caddyserver/caddy/v2"
	"github.com/caddyserver/caddy/v2/caddyconfig/caddyfile"

	"github.com/caddy-dpop/caddy-dpop/replay"
)

func init() {
	caddy.RegisterModule(MemoryReplay{})
	caddy.RegisterModule(NoReplay{})
}

// ReplayModule is what a module of the namespace `dpop.replay` must implement.
type ReplayModule interface {
	caddy.Module

	// ReplayStore returns the store. It is called once, after Provision; the store
	// is used until Cleanup.
	ReplayStore() replay.Store
}

// MemoryReplay records accepted proofs in memory. All handlers of a process
// share one such store, and it survives reloads of the configuration.
//
// After a start it cannot know what was accepted before: a proof made in the
// second of the start or earlier is answered 503 with `Retry-After: 1`.
type MemoryReplay struct {
	// How many proofs are remembered at once, at most; memory is taken as they
	// come, about 45 bytes for each. When that many could all still be accepted, new
	// ones are answered 503 until some cannot: none is ever forgotten early. Default:
	// `10000000`.
	MaxEntries int `json:"max_entries,omitempty"`

	memory *replay.Memory
}

// CaddyModule returns the Caddy module information.
func (MemoryReplay) CaddyModule() caddy.ModuleInfo {
	return caddy.ModuleInfo{
		ID:  "dpop.replay.memory",
		New: func() caddy.Module { return new(MemoryReplay) },
	}
}

// memoryPool holds the process's one memory store while any handler uses it.
var memoryPool = caddy.NewUsagePool()

const memoryKey = "memory"

// sharedMemory is a memory store in the pool.
type sharedMemory struct{ *replay.Memory }

// Destruct forgets everything: no handler is left that could ask.
func (sharedMemory) Destruct() error { return nil }

// Provision joins the process's memory store.
func (m *MemoryReplay) Provision(ctx caddy.Context) error {
	if m.MaxEntries < 0 {
		return wrong("replay.max_entries", "%d is negative", m.MaxEntries)
	}
	m.MaxEntries = orDefault(m.MaxEntries, replay.DefaultMaxEntries)
	companion, err := companionOf(ctx)
	if err != nil {
		return err
	}
	if err := companion.agree(m); err != nil {
		return err
	}
	shared, _, err := memoryPool.LoadOrNew(memoryKey, func() (caddy.Destructor, error) {
		return sharedMemory{replay.NewMemory(m.MaxEntries)}, nil
	})
	if err != nil {
		return err
	}
	m.memory = shared.(sharedMemory).Memory
	return nil
}

// ReplayStore implements ReplayModule.
func (m *MemoryReplay) ReplayStore() replay.Store { return m.memory }

// Cleanup leaves the memory store, if Provision joined it.
func (m *MemoryReplay) Cleanup() error {
	if m.memory == nil {
		return nil
	}
	_, err := memoryPool.Delete(memoryKey)
	return err
}

// UnmarshalCaddyfile sets the store up from Caddyfile tokens. Syntax:
//
//	replay memory {
//	    max_entries <n>
//	}
func (m *MemoryReplay) UnmarshalCaddyfile(d *caddyfile.Dispenser) error {
	b := newBlock(d)
	if err := b.noArguments(); err != nil {
		return err
	}
	return b.each(map[string]func() error{
		"max_entries": func() error { return b.count(&m.MaxEntries) },
	})
}

// NoReplay records nothing: within its lifetime, a proof is accepted any number
// of times.
type NoReplay struct{}

// CaddyModule returns the Caddy module information.
func (NoReplay) CaddyModule() caddy.ModuleInfo {
	return caddy.ModuleInfo{
		ID:  "dpop.replay.off",
		New: func() caddy.Module { return new(NoReplay) },
	}
}

// ReplayStore implements ReplayModule.
func (*NoReplay) ReplayStore() replay.Store { return noStore{} }

// UnmarshalCaddyfile takes no settings.
func (*NoReplay) UnmarshalCaddyfile(d *caddyfile.Dispenser) error {
	b := newBlock(d)
	if err := b.noArguments(); err != nil {
		return err
	}
	return b.each(nil)
}

type noStore struct{}

func (noStore) Record(context.Context, replay.Use) error { return nil }

func (noStore) Retain(replay.Lifetimes) (release func()) { return func() {} }

// Interface guards
var (
	_ caddy.Provisioner     = (*MemoryReplay)(nil)
	_ caddy.CleanerUpper    = (*MemoryReplay)(nil)
	_ caddyfile.Unmarshaler = (*MemoryReplay)(nil)
	_ caddyfile.Unmarshaler = (*NoReplay)(nil)
	_ ReplayModule          = (*MemoryReplay)(nil)
	_ ReplayModule          = (*NoReplay)(nil)
)
