package caddydpop

import (
	"context"
	"errors"

	"github.com/caddyserver/caddy/v2"
	"github.com/caddyserver/caddy/v2/caddyconfig/caddyfile"
	"go.uber.org/zap"

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
// After a start it cannot know what was accepted before, unless it has a file to
// persist it in: a proof made in the second of the start or earlier is answered
// 503 with `Retry-After: 1`, and a nonce of before counts no more.
type MemoryReplay struct {
	// How many proofs are remembered at once, at most; memory is taken as they
	// come, about 45 bytes for each. When that many could all still be accepted, new
	// ones are answered 503 until some cannot: none is ever forgotten early. At 80 %
	// the log has a warning. Default: `10000000`.
	MaxEntries int `json:"max_entries,omitempty"`

	// A file in which accepted proofs are recorded too, so that they stay refused
	// after a restart, a crash or a kill of this process, and nothing is left to be
	// judged by the start. One process at a time can use it. It grows to about 40
	// bytes for each proof that is remembered at once. After a crash of the machine,
	// or where the file is found damaged, the store begins anew. Default: none.
	Persist string `json:"persist,omitempty"`

	memory *replay.Memory
	logger *zap.Logger
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

// Destruct ends the store: no handler is left that could ask.
func (s sharedMemory) Destruct() error { return s.Close() }

// eachMemory calls visit with the memory store, if any handler uses it.
func eachMemory(visit func(*replay.Memory) error) error {
	var errs []error
	memoryPool.Range(func(_, value any) bool {
		errs = append(errs, visit(value.(sharedMemory).Memory))
		return true
	})
	return errors.Join(errs...)
}

// Provision joins the process's memory store.
func (m *MemoryReplay) Provision(ctx caddy.Context) error {
	if m.MaxEntries < 0 {
		return wrong("replay.max_entries", "%d is negative", m.MaxEntries)
	}
	m.MaxEntries = orDefault(m.MaxEntries, replay.DefaultMaxEntries)
	var err error
	if m.Persist, err = caddy.NewReplacer().ReplaceOrErr(m.Persist, true, true); err != nil {
		return &settingError{"replay.persist", err}
	}
	m.logger = ctx.Logger()
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

// begin lets the store begin to record, by these settings until stop is called:
// those of the configuration that follows count, or of the one before if this one
// fails to load. The store lives on while any handler uses it.
func (m *MemoryReplay) begin() (stop func(), err error) {
	release := m.memory.Limit(m.MaxEntries, m.warnNearlyFull)
	if m.Persist == "" {
		stop := m.memory.Begin()
		return func() {
			stop()
			release()
		}, nil
	}
	restored, closeFile, err := m.memory.Persist(m.Persist)
	if err != nil {
		release()
		return nil, &settingError{"replay.persist", err}
	}
	fields := []zap.Field{zap.String("file", m.Persist), zap.Int("entries", restored.Entries)}
	if restored.Lost != nil {
		m.logger.Error("accepted proofs are missing in their file: those made up to now cannot be judged if this server has just started",
			append(fields, zap.Error(restored.Lost))...)
	} else {
		m.logger.Info("accepted proofs are recorded in a file", fields...)
	}
	return func() {
		closeFile()
		release()
	}, nil
}

// warnNearlyFull is for the operator to act before proofs are refused.
func (m *MemoryReplay) warnNearlyFull(live, limit int) {
	m.logger.Warn("the store of accepted proofs is nearly full: beyond max_entries, new ones are answered 503",
		zap.Int("entries", live), zap.Int("max_entries", limit))
}

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
//	    persist     <file>
//	}
func (m *MemoryReplay) UnmarshalCaddyfile(d *caddyfile.Dispenser) error {
	b := newBlock(d)
	if err := b.noArguments(); err != nil {
		return err
	}
	return b.each(map[string]func() error{
		"max_entries": func() error { return b.count(&m.MaxEntries) },
		"persist":     func() error { return b.text(&m.Persist) },
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
