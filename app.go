package caddydpop

import (
	"context"
	"fmt"
	"sync/atomic"
	"time"

	"github.com/caddyserver/caddy/v2"

	"github.com/caddy-dpop/caddy-dpop/replay"
)

func init() {
	caddy.RegisterModule(newApp())
}

// App is the companion of the handlers of one configuration. It needs no
// settings, and is there as soon as a handler is. What handlers must agree on
// it holds, and what opens or changes anything happens in its Start: never when
// a configuration is only validated, or fails to load.
type App struct {
	memory    *MemoryReplay // nil: no handler uses the memory store
	others    bool          // whether any uses another store
	bypassing bool          // whether proofs may be accepted without the memory store
	bypassed  chan struct{} // closed once that is noted: see bypass
	nonceKeys nonceKeys

	starts []func() (stop func(), err error)
	stops  []func()
}

func newApp() *App { return &App{bypassed: make(chan struct{})} }

// CaddyModule returns the Caddy module information.
func (*App) CaddyModule() caddy.ModuleInfo {
	return caddy.ModuleInfo{
		ID:  "dpop",
		New: func() caddy.Module { return newApp() },
	}
}

// companionOf returns the companion of the configuration that is being
// provisioned.
func companionOf(ctx caddy.Context) (*App, error) {
	companion, err := ctx.App("dpop")
	if err != nil {
		return nil, err
	}
	return companion.(*App), nil
}

// atStart has something done when the configuration starts, and stop when it
// stops: after the one that follows has started, or if this one failed to.
func (a *App) atStart(start func() (stop func(), err error)) {
	a.starts = append(a.starts, start)
}

// agree checks that all handlers set the one memory store up alike, which then
// begins to record by those settings when the configuration starts.
func (a *App) agree(m *MemoryReplay) error {
	if a.memory == nil {
		a.memory = m
		a.atStart(m.begin)
	}
	if a.memory.Persist != m.Persist {
		return wrong("replay.persist", "%q here and %q in another handler, but all handlers of a process share one memory store", m.Persist, a.memory.Persist)
	}
	if a.memory.MaxEntries != m.MaxEntries {
		return wrong("replay.max_entries", "%d here and %d in another handler, but all handlers of a process share one memory store",
			m.MaxEntries, a.memory.MaxEntries)
	}
	return nil
}

// bypassers are how many configurations accept proofs without the memory store: at
// most the one that serves, and the one that is to follow it.
var bypassers atomic.Int32

// bypass tells the memory store, of the configuration before or of this one, that
// proofs are accepted without it by the other of the two: what is in its file is
// then not all that was accepted, if a later configuration goes back to it.
func (a *App) bypass() error {
	if a.bypassing = a.others && a.memory == nil; a.bypassing {
		bypassers.Add(1)
	}
	if bypassers.Load() > 0 {
		if err := eachMemory((*replay.Memory).Suspend); err != nil {
			return fmt.Errorf("noting in the file of accepted proofs that others are accepted without it: %w", err)
		}
	}
	close(a.bypassed)
	return nil
}

// awaitBypass waits until a proof may be accepted without the memory store, and
// reports whether it may. Caddy may serve by a configuration before its companion
// has started; and then the load may fail, or the process be killed, before
// the store of the configuration before knows of what was accepted.
func (a *App) awaitBypass(ctx context.Context) bool {
	select {
	case <-a.bypassed:
		return true
	default:
	}
	needed := false
	_ = eachMemory(func(*replay.Memory) error {
		needed = true
		return nil
	})
	if !needed {
		return true
	}
	const patience = 10 * time.Second
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	select {
	case <-a.bypassed:
		return true
	case <-ctx.Done():
		return false
	}
}

// Cleanup implements caddy.CleanerUpper. Here no request is served by this
// configuration any more. If the one that goes on serving has the memory store, that
// knows nothing of the proofs that were accepted without it.
func (a *App) Cleanup() error {
	if !a.bypassing {
		return nil
	}
	a.bypassing = false
	bypassers.Add(-1)
	return eachMemory(func(m *replay.Memory) error {
		m.Resume()
		return nil
	})
}

// Start implements caddy.App. If one thing fails, those before it are stopped.
func (a *App) Start() error {
	if err := a.bypass(); err != nil {
		return err
	}
	for _, start := range a.starts {
		stop, err := start()
		if err != nil {
			_ = a.Stop() // Caddy stops the apps that have started alone
			return err
		}
		a.stops = append(a.stops, stop)
	}
	return nil
}

// Stop implements caddy.App.
func (a *App) Stop() error {
	for _, stop := range a.stops {
		stop()
	}
	a.stops = nil
	return nil
}

// Interface guards
var (
	_ caddy.App          = (*App)(nil)
	_ caddy.CleanerUpper = (*App)(nil)
)
