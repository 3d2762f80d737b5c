package replay

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// gone is the context of a request that nobody waits for.
func gone(t testing.TB) context.Context {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	return ctx
}

// both are lifetimes where nonces count, and short ones where they do not.
var (
	short = Lifetimes{IssuedAt: lifetime}
	both  = Lifetimes{IssuedAt: lifetime, Nonce: 5 * time.Minute}
	wide  = Lifetimes{IssuedAt: 20 * time.Minute, Nonce: 30 * time.Minute}
)

func newClock() *clock {
	c := new(clock)
	c.unix.Store(epoch)
	return c
}

func newPath(t testing.TB) string { return filepath.Join(fastDir(t), "proofs") }

// whole fails unless a file had everything.
func whole(t testing.TB, m *Memory, r Restored) *Memory {
	t.Helper()
	if r.Lost != nil {
		t.Fatalf("lost: %v", r.Lost)
	}
	return m
}

func closed(t testing.TB, m *Memory) {
	t.Helper()
	if err := m.Close(); err != nil {
		t.Fatal(err)
	}
}

// After a restart, what was used is known, and what was not is good: also what was
// made before. After a kill too.
func TestPersistRestart(t *testing.T) {
	for _, kill := range []bool{false, true} {
		c, path := newClock(), newPath(t)
		m, restored := persisted(t, c, path, both)
		whole(t, m, restored)
		record(t, m, use(1, epoch), ErrBeforeStart) // a new file knows nothing
		c.advance(10 * time.Second)
		early := withNonce(0, epoch-3600, epoch+5)
		record(t, m, early, nil)
		for n := range 100 {
			record(t, m, use(n+1, epoch+int64(n%10)+1), nil)
		}
		for range 3 {
			if kill {
				path = killed(t, path)
			} else {
				closed(t, m)
			}
			c.advance(5 * time.Second)
			m, restored = persisted(t, c, path, both)
			if whole(t, m, restored); restored.Entries != 101 {
				t.Errorf("%d entries", restored.Entries)
			}
			record(t, m, early, ErrReplayed)
			for n := range 100 {
				record(t, m, use(n+1, epoch+int64(n%10)+1), ErrReplayed)
			}
			record(t, m, use(1000, epoch), ErrBeforeStart) // the start is the first one
			if live, _ := m.Entries(); live != 101 {
				t.Errorf("%d entries", live)
			}
		}
		record(t, m, use(200, epoch+3), nil) // made before the start, and not used
		record(t, m, withNonce(201, 1, epoch+5), nil)
		record(t, m, use(202, c.now().Unix()), nil)
		c.unix.Store(epoch + 5 + 300) // the last second of the nonce
		record(t, m, early, ErrReplayed)
		c.advance(time.Second)
		record(t, m, use(203, c.now().Unix()), nil)
		record(t, m, early, ErrForgotten)
	}
}

// What ends while no process runs stays refused, also by a wider window.
func TestPersistRestartLongAfter(t *testing.T) {
	for _, away := range []time.Duration{time.Minute, time.Hour, 12 * time.Hour} {
		c, path := newClock(), newPath(t)
		m, _ := persisted(t, c, path, short)
		c.advance(12 * time.Hour) // idle
		u := use(1, c.now().Unix())
		record(t, m, u, nil)
		path = killed(t, path)
		c.advance(away)
		longer := Lifetimes{IssuedAt: 24 * time.Hour, Nonce: 24 * time.Hour}
		m, restored := persisted(t, c, path, longer)
		whole(t, m, restored)
		for range 200 {
			if err := m.Record(t.Context(), u); err == nil {
				t.Fatalf("after %v: accepted twice", away)
			}
			record(t, m, use(int(c.unix.Load()), c.now().Unix()), nil)
			c.advance(time.Second)
		}
	}
}

// What an era let go of stays refused when nothing else tells of the era: after a
// reload and a restart, and whatever has moved the horizon.
func TestPersistForgottenEra(t *testing.T) {
	for _, by := range []Freshness{ByIssuedAt, ByNonce} {
		for _, restart := range []bool{false, true} {
			c, path := newClock(), newPath(t)
			day := func(n int) Lifetimes {
				return Lifetimes{IssuedAt: 24*time.Hour + time.Duration(n)*time.Second, Nonce: 24*time.Hour + time.Duration(n)*time.Second}
			}
			m, _ := persisted(t, c, path, Lifetimes{})
			release := m.Retain(Lifetimes{IssuedAt: 10 * time.Second, Nonce: 10 * time.Second})
			c.advance(24 * time.Hour) // idle, so that the horizon lags
			u := use(1, c.now().Unix())
			u.Nonce, u.By = c.now(), by
			record(t, m, u, nil)
			for n := range 4 {
				next := m.Retain(day(n))
				release()
				release = next
				c.advance(time.Hour)
				m.Entries() // as metrics do
				record(t, m, use(100+n, c.now().Unix()), nil)
				m.Entries()
				if restart {
					path = killed(t, path)
					m, _ = persisted(t, c, path, Lifetimes{})
					release = m.Retain(day(n))
				}
			}
			if n := len(m.all()); n > 6 {
				t.Errorf("%d eras", n)
			}
			record(t, m, u, ErrForgotten)
		}
	}
}

// The lifetimes of a restart are those of before; then others are retained.
func TestPersistReloadAfterRestart(t *testing.T) {
	for _, by := range []Freshness{ByIssuedAt, ByNonce} {
		c, path := newClock(), newPath(t)
		lifetimes := Lifetimes{IssuedAt: lifetime, Nonce: lifetime}
		m, _ := persisted(t, c, path, lifetimes)
		c.advance(100 * time.Second)
		u := use(1, c.now().Unix())
		u.Nonce, u.By = c.now(), by
		record(t, m, u, nil)
		m, _ = persisted(t, c, killed(t, path), lifetimes)
		m.Retain(wide)
		c.advance(lifetime + 10*time.Second)
		record(t, m, use(2, c.now().Unix()), nil)
		record(t, m, u, ErrForgotten)
	}
}

// A clock skew of a day lets an iat lie so far ahead.
func TestPersistFarAhead(t *testing.T) {
	for _, what := range []string{"restarts", "reloads", "both"} {
		c, path := newClock(), newPath(t)
		m, _ := persisted(t, c, path, Lifetimes{})
		release := m.Retain(Lifetimes{IssuedAt: 24*time.Hour + time.Minute})
		c.advance(time.Minute)
		u := use(1, c.now().Add(23*time.Hour).Unix())
		record(t, m, u, nil)
		for hour := range 60 {
			c.advance(time.Hour)
			week := Lifetimes{IssuedAt: 7*24*time.Hour + time.Duration(hour)*time.Second}
			if what != "reloads" {
				path = killed(t, path)
				closed(t, m)
				m, _ = persisted(t, c, path, Lifetimes{})
				release = m.Retain(week)
			} else if hour%29 == 0 {
				next := m.Retain(week)
				release()
				release = next
			}
			if what == "both" && hour%10 == 5 {
				week.IssuedAt += time.Hour
				next := m.Retain(week)
				release()
				release = next
			}
			if err := m.Record(t.Context(), u); err == nil {
				t.Fatalf("%s: accepted twice, %d hours after", what, hour)
			}
			record(t, m, use(int(c.unix.Load()), c.now().Unix()), nil)
		}
	}
}

// A narrower window, a restart, the wide one again: nothing comes back, and soon
// nothing that is new is refused.
func TestPersistLifetimesAcrossRestarts(t *testing.T) {
	c, path := newClock(), newPath(t)
	m, _ := persisted(t, c, path, wide)
	c.advance(100 * time.Second)
	first := use(1, c.now().Unix()) // recorded for 20 minutes
	record(t, m, first, nil)
	path = killed(t, path)
	m, _ = persisted(t, c, path, Lifetimes{IssuedAt: 10 * time.Second})
	record(t, m, first, ErrReplayed)
	second := use(2, c.now().Unix()) // for ten seconds
	record(t, m, second, nil)
	path = killed(t, path)
	c.advance(20 * time.Second)
	m, restored := persisted(t, c, path, wide)
	whole(t, m, restored)
	for _, u := range []Use{first, second} {
		record(t, m, u, ErrForgotten)
	}
	record(t, m, use(3, c.now().Unix()), nil)
	c.advance(20 * time.Minute)
	record(t, m, first, ErrForgotten)
	record(t, m, use(4, c.now().Unix()-20), nil)
}

// An era that is over refuses nothing that is new, although the file has it.
func TestPersistEraThatIsOver(t *testing.T) {
	for _, after := range []time.Duration{10 * time.Minute, 8 * time.Hour} {
		c, path := newClock(), newPath(t)
		m, _ := persisted(t, c, path, Lifetimes{})
		narrow := m.Retain(Lifetimes{IssuedAt: 5 * time.Second})
		c.advance(10 * time.Second)
		record(t, m, use(1, c.now().Unix()), nil)
		m.Retain(short)
		narrow()
		record(t, m, use(2, c.now().Unix()), nil)
		path = killed(t, path)
		c.advance(after)
		m, _ = persisted(t, c, path, short)
		record(t, m, use(3, c.now().Unix()), nil)
		record(t, m, use(4, c.now().Unix()-60), nil)
	}
}

// Handlers are set up one after the other, at each start: nothing that is new is
// refused for what the first of them says alone.
func TestPersistHandlersThatDiffer(t *testing.T) {
	c, path := newClock(), newPath(t)
	for range 3 {
		m := newMemory(1<<30, c.now)
		m.Retain(Lifetimes{IssuedAt: 10 * time.Second})
		m.Retain(short)
		m.Retain(both)
		_, _, err := m.Persist(path)
		if err != nil {
			t.Fatal(err)
		}
		now := c.now().Unix()
		if now > epoch {
			record(t, m, use(int(now), now-60), nil)
			record(t, m, withNonce(int(now)+1, now-3600, now-60), nil)
		}
		path = killed(t, path)
		closed(t, m)
		c.advance(100 * time.Second)
	}
}

// What was accepted while nonces did not count may have held one.
func TestPersistNoncesAcrossRestarts(t *testing.T) {
	for _, order := range []string{"restart", "reload, restart", "restart, reload", "reload, restart, restart"} {
		t.Run(order, func(t *testing.T) {
			c, path := newClock(), newPath(t)
			m, _ := persisted(t, c, path, short)
			c.advance(100 * time.Second)
			now := c.now().Unix()
			record(t, m, use(1, now), nil) // with a nonce of just before
			lifetimes := short
			for step := range strings.SplitSeq(order, ", ") {
				c.advance(time.Second)
				if step == "reload" {
					m.Retain(both)
					lifetimes = both
					record(t, m, use(int(c.unix.Load()), c.now().Unix()), nil)
					continue
				}
				if !strings.Contains(order, "reload") {
					lifetimes = both
				}
				path = killed(t, path)
				m, _ = persisted(t, c, path, lifetimes)
			}
			c.advance(100 * time.Second)
			record(t, m, use(2, c.now().Unix()), nil)
			record(t, m, withNonce(1, now, now-1), ErrForgotten)
			record(t, m, withNonce(3, now, c.now().Unix()-1), nil)
		})
	}
}

// They do not count either if the clock is set back meanwhile: to where the last
// proof was accepted.
func TestPersistNoncesAndAClockSetBack(t *testing.T) {
	for _, restart := range []bool{false, true} {
		c, path := newClock(), newPath(t)
		m, _ := persisted(t, c, path, short)
		c.advance(12 * time.Hour) // idle
		now := c.now().Unix()
		record(t, m, use(1, now), nil)
		c.advance(-20 * time.Second)
		if restart {
			m, _ = persisted(t, c, killed(t, path), both)
		} else {
			m.Retain(both)
		}
		c.advance(100 * time.Second)
		record(t, m, use(2, c.now().Unix()), nil)
		record(t, m, withNonce(1, now, now), ErrForgotten)
		record(t, m, withNonce(3, now, now+1), nil)
	}
}

// A clock that is set back brings nothing back that was written over.
func TestPersistClockSetBack(t *testing.T) {
	c, path := newClock(), newPath(t)
	m, _ := persisted(t, c, path, short)
	c.advance(100 * time.Second)
	old := c.now().Unix()
	for n := range 3 * blockSlots {
		record(t, m, use(n, old), nil)
	}
	c.advance(100 * time.Second)
	for n := range 2*blockSlots + 5 { // over the old ones
		record(t, m, use(1e6+n, c.now().Unix()), nil)
	}
	c.advance(-100 * time.Second)
	m, restored := persisted(t, c, killed(t, path), short)
	whole(t, m, restored)
	for n := range 3 * blockSlots {
		record(t, m, use(n, old), ErrForgotten)
	}
	for n := range 2*blockSlots + 5 {
		record(t, m, use(1e6+n, old+100), ErrReplayed)
	}
	record(t, m, use(1e7, old+101), nil)
}

// A machine that starts with a clock far ahead shuts nothing out for good.
func TestPersistStartsWithAWrongClock(t *testing.T) {
	c, path := newClock(), newPath(t)
	m, _ := persisted(t, c, path, short)
	c.advance(100 * time.Second)
	u := use(1, c.now().Unix())
	record(t, m, u, nil)
	path = killed(t, path)
	c.advance(1000 * time.Hour)
	m, _ = persisted(t, c, path, short)
	record(t, m, u, ErrForgotten)
	c.advance(-1000 * time.Hour)
	c.advance(2 * time.Second)
	record(t, m, u, ErrForgotten)
	record(t, m, use(2, c.now().Unix()), nil)
}

// One that runs ahead for a moment shuts nothing out for longer than a lifetime,
// whatever iat a record has.
func TestPersistClockAheadForAMoment(t *testing.T) {
	c, path := newClock(), newPath(t)
	m, _ := persisted(t, c, path, both)
	c.advance(100 * time.Second)
	now := c.now().Unix()
	record(t, m, withNonce(1, now+3600, now), nil)
	m, _ = persisted(t, c, killed(t, path), both)
	c.advance(30 * time.Minute)
	m.Entries()
	c.advance(both.Nonce - 30*time.Minute)
	record(t, m, use(2, c.now().Unix()), nil)
}

// More than fits under a new limit stays.
func TestPersistSmallerLimit(t *testing.T) {
	c, path := newClock(), newPath(t)
	m, _ := persisted(t, c, path, short)
	c.advance(10 * time.Second)
	for n := range 100 {
		record(t, m, use(n, epoch+10), nil)
	}
	path = killed(t, path)
	m = newMemory(10, c.now)
	m.Retain(short)
	if restored, _, err := m.Persist(path); err != nil || restored.Entries != 100 {
		t.Fatal(restored, err)
	}
	for n := range 100 {
		record(t, m, use(n, epoch+10), ErrReplayed)
	}
	record(t, m, use(100, epoch+10), ErrFull)
	if live, limit := m.Entries(); live != 100 || limit != 10 {
		t.Errorf("%d of %d", live, limit)
	}
	c.advance(lifetime + time.Second)
	record(t, m, use(101, c.now().Unix()), nil)
	if live, _ := m.Entries(); live != 1 {
		t.Errorf("%d entries", live)
	}
}

// reload is what Caddy does with a configuration that names a file, or none: it
// starts before the one of before stops.
func reload(t testing.TB, m *Memory, before func(), path string) (stop func()) {
	t.Helper()
	if path == "" {
		stop = m.Begin()
	} else {
		_, release, err := m.Persist(path)
		if err != nil {
			t.Fatal(err)
		}
		stop = release
	}
	if before != nil {
		before()
	}
	return stop
}

// Through reloads to another file, to none, and back, the file in use has
// everything, and one that is not in use is not taken for that.
func TestPersistReload(t *testing.T) {
	c, one, two := newClock(), newPath(t), newPath(t)
	m, n := newMemory(1<<30, c.now), 0
	m.Retain(short)
	var stop func()
	for _, path := range []string{one, one, two, "", two, one, "", "", one} {
		stop = reload(t, m, stop, path)
		c.advance(time.Second)
		n++
		record(t, m, use(n, c.now().Unix()), nil)
		for _, other := range []string{one, two} {
			if _, err := os.Stat(other); err != nil {
				continue
			}
			restarted, restored := persisted(t, c, killed(t, other), short)
			if other != path && restored.Lost == nil {
				t.Fatalf("step %d: a file that is not in use was taken for all", n)
			}
			for used := range n {
				again := use(used+1, epoch+int64(used)+1)
				err := restarted.Record(t.Context(), again)
				if !errors.Is(err, ErrReplayed) && (other == path || !errors.Is(err, ErrBeforeStart)) {
					t.Fatalf("step %d: %v", n, err)
				}
			}
			if other == path {
				record(t, whole(t, restarted, restored), use(99, epoch+1), nil)
			}
		}
	}
	m.persistence.mu.Lock()
	defer m.persistence.mu.Unlock()
	if len(m.persistence.files) != 1 || m.persistence.files[0].users != 1 {
		t.Errorf("%d files", len(m.persistence.files))
	}
}

// A file that takes the place of one that nobody uses any more.
func TestPersistReplacesWhatIsUnused(t *testing.T) {
	c, one, two := newClock(), newPath(t), newPath(t)
	m := newMemory(1<<30, c.now)
	m.Retain(short)
	reload(t, m, nil, one)()
	reload(t, m, nil, two)
	if len(m.persistence.all()) != 1 {
		t.Error("the first is still written")
	}
	if _, restored := persisted(t, c, one, short); !errors.Is(restored.Lost, errLeft) {
		t.Errorf("%+v", restored)
	}
}

// What a store that has begun finds in a file says nothing about what it knows,
// but damage is told of.
func TestPersistToldOfAFile(t *testing.T) {
	c, one, two := newClock(), newPath(t), newPath(t)
	m := newMemory(1<<30, c.now)
	m.Retain(short)
	reload(t, m, reload(t, m, nil, one), "")
	if restored, _, err := m.Persist(one); err != nil || restored.Lost != nil {
		t.Error(restored, err)
	}
	if err := os.WriteFile(two, []byte(journalMagic), 0o600); err != nil {
		t.Fatal(err)
	}
	if restored, _, err := m.Persist(two); err != nil || !errors.Is(restored.Lost, errDamaged) {
		t.Error(restored, err)
	}
}

// A proof is accepted when all files have it, and a file is let go of when nobody
// is about to write it.
func TestPersistTwoFiles(t *testing.T) {
	c, one, two := newClock(), newPath(t), newPath(t)
	m := newMemory(1<<30, c.now)
	m.Retain(short)
	reload(t, m, nil, one)
	stop := reload(t, m, nil, two)
	c.advance(time.Second)
	broken, failing := errors.New("broken"), true
	writing, proceed := make(chan bool), make(chan bool)
	t.Cleanup(func() { writeAt = (*os.File).WriteAt })
	writeAt = func(file *os.File, octets []byte, at int64) (int, error) {
		switch {
		case failing && file.Name() == two && len(octets) == recordSize:
			return 0, broken
		case !failing && file.Name() == one && len(octets) == recordSize:
			writing <- true
			<-proceed
		}
		return file.WriteAt(octets, at)
	}
	record(t, m, use(1, epoch+1), broken)
	failing = false
	answer := make(chan error)
	go func() { answer <- m.Record(t.Context(), use(1, epoch+1)) }()
	<-writing
	stopped := make(chan bool)
	go func() {
		stop()
		close(stopped)
	}()
	select {
	case <-stopped:
		t.Error("let go of while a record was on its way")
	case <-time.After(20 * time.Millisecond):
	}
	close(proceed)
	if err := <-answer; err != nil {
		t.Error(err)
	}
	<-stopped
}

// What a file that is being left says is never more than what is in it.
func TestPersistLeavesInOrder(t *testing.T) {
	c, one, two := newClock(), newPath(t), newPath(t)
	m := newMemory(1<<30, c.now)
	m.Retain(short)
	stop := reload(t, m, nil, one)
	c.advance(time.Second)
	reload(t, m, nil, two)
	answer, left, accepted := make(chan error, 1), "", false
	t.Cleanup(func() { writeAt = (*os.File).WriteAt })
	writeAt = func(file *os.File, octets []byte, at int64) (int, error) {
		if file.Name() == one && left == "" {
			left = "soon"
			go func() { answer <- m.Record(t.Context(), use(1, epoch+1)) }()
			time.Sleep(20 * time.Millisecond)
			accepted, left = len(answer) == 1, killed(t, one)
		}
		return file.WriteAt(octets, at)
	}
	stop()
	if err := <-answer; err != nil {
		t.Fatal(err)
	}
	m, restored := persisted(t, c, left, short)
	if err := m.Record(t.Context(), use(1, epoch+1)); accepted && err == nil {
		t.Errorf("accepted again: %+v", restored)
	}
}

// While proofs are accepted that the store is not told of, its file does not pass
// for all of them; and once none is any more, none that was can be judged.
func TestPersistSuspended(t *testing.T) {
	for _, resume := range []bool{false, true} {
		c, path := newClock(), newPath(t)
		m, _ := persisted(t, c, path, short)
		c.advance(time.Second)
		elsewhere := use(1, c.now().Unix())
		record(t, m, use(2, c.now().Unix()), nil)
		if err := m.Suspend(); err != nil {
			t.Fatal(err)
		}
		record(t, m, use(3, c.now().Unix()), nil) // it may still be asked
		c.advance(2 * time.Second)
		if resume {
			m.Resume()
			record(t, m, elsewhere, ErrBeforeStart)
			record(t, m, withNonce(4, epoch+10, epoch+1), ErrBeforeStart)
			record(t, m, use(2, epoch+1), ErrReplayed)
			c.advance(time.Second)
			record(t, m, use(5, c.now().Unix()), nil)
		}
		m, restored := persisted(t, c, killed(t, path), short)
		if resume != (restored.Lost == nil) || !resume && !errors.Is(restored.Lost, errLeft) {
			t.Errorf("resumed %v: %+v", resume, restored)
		}
		record(t, m, elsewhere, ErrBeforeStart)
		record(t, m, use(3, epoch+1), ErrReplayed)
	}
}

// Where another store is in use when this one comes, a file that was in order does
// not say what that has accepted: not before it is gone, nor if it goes on alone.
func TestPersistSuspendedFromTheBeginning(t *testing.T) {
	for _, resume := range []bool{false, true} {
		c, path := newClock(), newPath(t)
		m, _ := persisted(t, c, path, short)
		c.advance(2 * time.Second)
		record(t, m, use(1, c.now().Unix()), nil)
		closed(t, m)
		c.advance(time.Second)
		elsewhere := use(2, c.now().Unix())

		m = newMemory(1<<30, c.now)
		m.Retain(short)
		if err := m.Suspend(); err != nil {
			t.Fatal(err)
		}
		restored, _, err := m.Persist(path)
		if err != nil || !errors.Is(restored.Lost, errLeft) {
			t.Fatalf("%+v, %v", restored, err)
		}
		record(t, m, elsewhere, ErrBeforeStart)
		record(t, m, use(1, epoch+2), ErrReplayed) // the file has it
		c.advance(time.Second)
		meanwhile := use(3, c.now().Unix())
		record(t, m, use(4, c.now().Unix()), nil)
		if resume {
			m.Resume()
			record(t, m, meanwhile, ErrBeforeStart)
		}
		c.advance(time.Second)
		after := killed(t, path)
		closed(t, m)
		for _, path := range []string{path, after} {
			again, restored := persisted(t, c, path, short)
			if resume != (restored.Lost == nil) || !resume && !errors.Is(restored.Lost, errLeft) {
				t.Errorf("resumed %v: %+v", resume, restored)
			}
			record(t, again, meanwhile, ErrBeforeStart)
			record(t, again, use(4, epoch+4), ErrReplayed)
		}
	}
}

// One that cannot be written cannot say so.
func TestPersistSuspendedOnAFullDisk(t *testing.T) {
	c, path := newClock(), newPath(t)
	m, _ := persisted(t, c, path, short)
	c.advance(time.Second)
	full := errors.New("full")
	t.Cleanup(func() { writeAt = (*os.File).WriteAt })
	writeAt = func(*os.File, []byte, int64) (int, error) { return 0, full }
	if err := m.Suspend(); !errors.Is(err, full) {
		t.Error(err)
	}
	m.Resume()
	c.advance(time.Second)
	record(t, m, use(1, c.now().Unix()), full)
	writeAt = (*os.File).WriteAt
	record(t, m, use(1, c.now().Unix()), nil)
	m, restored := persisted(t, c, killed(t, path), short)
	if restored.Lost != nil {
		t.Error(restored.Lost)
	}
	record(t, m, use(2, epoch+1), ErrBeforeStart)
	record(t, m, use(1, c.now().Unix()), ErrReplayed)
}

// Restarts alone do not either.
func TestPersistManyRestartsOfMany(t *testing.T) {
	c, path := newClock(), newPath(t)
	m, _ := persisted(t, c, path, short)
	c.advance(time.Second)
	for n := range 3 * blockSlots {
		record(t, m, use(n, epoch+1), nil)
	}
	before, err := os.Stat(path)
	if err != nil {
		t.Fatal(err)
	}
	for range 5 {
		closed(t, m)
		m, _ = persisted(t, c, path, short)
	}
	if after, err := os.Stat(path); err != nil || after.Size() != before.Size() {
		t.Errorf("%d bytes, then %d, %v", before.Size(), after.Size(), err)
	}
}

// Reloads alone do not make files grow.
func TestPersistManyReloads(t *testing.T) {
	c, one, two := newClock(), newPath(t), newPath(t)
	m := newMemory(1<<30, c.now)
	m.Retain(short)
	stop := reload(t, m, nil, one)
	c.advance(time.Second)
	for n := range 10 * blockSlots {
		record(t, m, use(n, epoch+1), nil)
	}
	for round := range 20 {
		stop = reload(t, m, stop, []string{two, one}[round%2])
	}
	info, err := os.Stat(one)
	if err != nil || info.Size() > headerSize+12*blockSize {
		t.Errorf("%d bytes, %v", info.Size(), err)
	}
	m, restored := persisted(t, c, killed(t, one), short)
	if whole(t, m, restored); restored.Entries != 10*blockSlots {
		t.Errorf("%d entries", restored.Entries)
	}
}

// A reload that fails leaves everything as it was.
func TestPersistFailedReload(t *testing.T) {
	c, one, two := newClock(), newPath(t), newPath(t)
	m := newMemory(1<<30, c.now)
	m.Retain(short)
	reload(t, m, nil, one)
	c.advance(time.Second)
	record(t, m, use(1, epoch+1), nil)
	for _, path := range []string{two, one, ""} {
		reload(t, m, nil, path)() // another app fails to start
	}
	if err := os.WriteFile(two, []byte("something else"), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, _, err := m.Persist(two); err == nil {
		t.Fatal("took a foreign file")
	}
	record(t, m, use(2, epoch+1), nil)
	restarted, restored := persisted(t, c, killed(t, one), short)
	for n := range 2 {
		record(t, whole(t, restarted, restored), use(n+1, epoch+1), ErrReplayed)
	}
	if two, err := os.ReadFile(two); err != nil || string(two) != "something else" {
		t.Errorf("the foreign file is now %q, %v", two, err)
	}
}

// The first start may fail, and another follow: the file is in order.
func TestPersistFailedStart(t *testing.T) {
	c, path := newClock(), newPath(t)
	for n := range 5 {
		m := newMemory(1<<30, c.now)
		m.Retain(short)
		stop := reload(t, m, nil, path)
		c.advance(time.Second)
		record(t, m, use(n, c.now().Unix()), nil)
		stop()
		closed(t, m)
	}
	m, restored := persisted(t, c, path, short)
	for n := range 5 {
		record(t, whole(t, m, restored), use(n, epoch+int64(n)+1), ErrReplayed)
	}
}

// When a server stops, requests may come after it has let go of the file: they are
// recorded in it, and after its end refused.
func TestPersistWhileStopping(t *testing.T) {
	c, path := newClock(), newPath(t)
	m := newMemory(1<<30, c.now)
	m.Retain(short)
	stop := reload(t, m, nil, path)
	c.advance(time.Second)
	stop()
	record(t, m, use(1, epoch+1), nil)
	closed(t, m)
	if err := m.Record(t.Context(), use(2, epoch+1)); !errors.Is(err, os.ErrClosed) {
		t.Errorf("got %v", err)
	}
	m, restored := persisted(t, c, path, short)
	record(t, whole(t, m, restored), use(1, epoch+1), ErrReplayed)
	record(t, m, use(2, epoch+1), nil)
}

// A file that the machine's end may have taken something from is used on, and
// nothing of before is judged; one that was closed in order has everything.
func TestPersistMachineRestarted(t *testing.T) {
	content, c := usedFile(t, 10)
	path := written(t, fastDir(t), withHeader(t, content, func(h *header) { h.Boot[3]++ }))
	m, restored := persisted(t, c, path, short)
	record(t, whole(t, m, restored), use(1, epoch+5), ErrReplayed)
	record(t, m, use(11, epoch+5), nil)

	content, err := os.ReadFile(path) // as if the machine went down now
	if err != nil {
		t.Fatal(err)
	}
	path = written(t, fastDir(t), withHeader(t, content, func(h *header) { h.Boot[3]++ }))
	m, restored = persisted(t, c, path, short)
	if !errors.Is(restored.Lost, errCrashed) || restored.Entries != 11 {
		t.Fatalf("%+v", restored)
	}
	record(t, m, use(12, epoch+5), ErrBeforeStart)
	c.advance(time.Second)
	record(t, m, use(12, epoch+11), nil)
	closed(t, m)
	m, restored = persisted(t, c, path, short)
	record(t, whole(t, m, restored), use(12, epoch+11), ErrReplayed)
}

// failWrites has writes to files fail as long as it says so.
func failWrites(t *testing.T, fails func(octets []byte, at int64) error) {
	t.Helper()
	t.Cleanup(func() { writeAt = (*os.File).WriteAt })
	writeAt = func(file *os.File, octets []byte, at int64) (int, error) {
		if err := fails(octets, at); err != nil {
			n, _ := file.WriteAt(octets[:len(octets)/2], at) // some of it may be written
			return n, err
		}
		return file.WriteAt(octets, at)
	}
}

// No proof is accepted that could not be recorded: neither then, nor after a kill.
// As soon as the disk has room, proofs are accepted again.
func TestPersistDiskThatFails(t *testing.T) {
	for name, size := range map[string]int{"records": recordSize, "blocks": blockSize, "headers": headerSize} {
		t.Run(name, func(t *testing.T) {
			c, path := newClock(), newPath(t)
			m, _ := persisted(t, c, path, short)
			c.advance(10 * time.Second)
			failing, broken := false, errors.New("no room")
			failWrites(t, func(octets []byte, _ int64) error {
				if failing && len(octets) == size {
					return broken
				}
				return nil
			})
			var accepted []int
			for n := range 12 * blockSlots {
				failing = n%3 != 0
				switch err := m.Record(t.Context(), use(n, epoch+5)); {
				case err == nil:
					accepted = append(accepted, n)
				case !errors.Is(err, broken) || !failing:
					t.Fatal(err)
				}
			}
			if live, _ := m.Entries(); live != len(accepted) {
				t.Errorf("%d entries, of %d", live, len(accepted))
			}
			failing = false
			record(t, m, use(1e6, epoch+5), nil)
			m, restored := persisted(t, c, killed(t, path), short)
			for _, n := range accepted {
				record(t, whole(t, m, restored), use(n, epoch+5), ErrReplayed)
			}
			if restored.Entries != len(accepted)+1 {
				t.Errorf("%d entries, of %d", restored.Entries, len(accepted))
			}
		})
	}
}

// A header that could not be written is, before the next record.
func TestPersistHeaderThatFails(t *testing.T) {
	c, path := newClock(), newPath(t)
	m, _ := persisted(t, c, path, short)
	c.advance(100 * time.Second)
	now := c.now().Unix()
	record(t, m, use(1e6, now-40), nil) // in a block of its own
	for n := range blockSlots {
		record(t, m, use(n, now), nil)
	}
	failing, broken := true, errors.New("broken")
	failWrites(t, func(octets []byte, _ int64) error {
		if failing && len(octets) == headerSize {
			return broken
		}
		return nil
	})
	record(t, m, use(blockSlots, now), broken)
	record(t, m, use(1e6+1, now-40), broken)
	failing = false
	record(t, m, use(1e6+1, now-40), nil)
	m, restored := persisted(t, c, killed(t, path), short)
	record(t, whole(t, m, restored), use(1e6+1, now-40), ErrReplayed)
}

// A record is there to the last second of its proof, also in the file.
func TestPersistLastSecond(t *testing.T) {
	c, path := newClock(), newPath(t)
	m, _ := persisted(t, c, path, short)
	c.advance(100 * time.Second)
	iat := c.now().Unix()
	for n := range blockSlots {
		record(t, m, use(n, iat), nil)
	}
	c.advance(lifetime)
	record(t, m, use(1e6, c.now().Unix()), nil)
	m, _ = persisted(t, c, killed(t, path), short)
	for n := range blockSlots {
		record(t, m, use(n, iat), ErrReplayed)
	}
}

// A store that a file has no room for does not start, nor does one whose file
// cannot be written.
func TestPersistFullOrReadOnlyDisk(t *testing.T) {
	mounted := t.TempDir()
	if err := mount("size=256k", mounted); err != nil {
		t.Fatal("cannot mount a disk of its own, for which this must be root: ", err)
	}
	t.Cleanup(func() { _ = exec.Command("umount", mounted).Run() })
	c := newClock()
	path, ballast := filepath.Join(mounted, "proofs"), filepath.Join(mounted, "ballast")
	if err := os.WriteFile(ballast, make([]byte, 240<<10), 0o600); err != nil {
		t.Fatal(err)
	}
	for range 2 {
		_, _, err := newMemory(10, c.now).Persist(path)
		if err == nil || !strings.Contains(err.Error(), path) || !strings.Contains(err.Error(), "no space left") {
			t.Fatalf("a full disk: %v", err)
		}
	}
	if err := os.Remove(ballast); err != nil {
		t.Fatal(err)
	}
	m, _ := persisted(t, c, path, short)
	c.advance(time.Second)
	accepted := 0
	for {
		if err := m.Record(t.Context(), use(accepted, epoch+1)); err != nil {
			if !strings.Contains(err.Error(), "no space left") {
				t.Fatal(err)
			}
			break
		}
		accepted++
	}
	if accepted < blockSlots {
		t.Errorf("only %d were accepted", accepted)
	}
	restarted, restored := persisted(t, c, killed(t, path), short)
	for n := range accepted {
		record(t, m, use(n, epoch+1), ErrReplayed)
		record(t, whole(t, restarted, restored), use(n, epoch+1), ErrReplayed)
	}
	c.advance(lifetime + time.Second) // there is room within
	record(t, m, use(1e6, c.now().Unix()), nil)
	closed(t, m)
	if err := mount("remount,ro", mounted); err != nil {
		t.Fatal(err)
	}
	_, _, err := newMemory(10, c.now).Persist(path)
	if err == nil || !strings.Contains(err.Error(), path) || !strings.Contains(err.Error(), "read-only") {
		t.Errorf("a read-only disk: %v", err)
	}
}

func mount(options, path string) error {
	text, err := exec.Command("mount", "-t", "tmpfs", "-o", options, "tmpfs", path).CombinedOutput()
	if err != nil {
		return fmt.Errorf("%w: %s", err, text)
	}
	return nil
}
