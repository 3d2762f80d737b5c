package replay

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"math/rand/v2"
	"runtime"
	"sync"
	"sync/atomic"
	"testing"
	"time"
	"unsafe"

	"github.com/caddy-dpop/caddy-dpop/internal/beside"
)

// clock is a clock that tests set by hand.
type clock struct{ unix atomic.Int64 }

func (c *clock) now() time.Time          { return time.Unix(c.unix.Load(), 0) }
func (c *clock) advance(d time.Duration) { c.unix.Add(int64(d / time.Second)) }

const epoch = 1_700_000_000

// newTestMemory returns a store that started a second ago, for proofs of at
// most 70 seconds.
func newTestMemory(t testing.TB, maxEntries int) (*Memory, *clock) {
	t.Helper()
	c := new(clock)
	c.unix.Store(epoch)
	m := newMemory(maxEntries, c.now)
	m.Begin()
	m.Retain(Lifetimes{IssuedAt: 70 * time.Second})
	c.advance(time.Second)
	return m, c
}

func use(n int, iat int64) Use {
	return Use{Key: KeyOf("thumbprint", fmt.Sprint(n)), IssuedAt: time.Unix(iat, 0), By: ByIssuedAt}
}

func record(t testing.TB, m *Memory, u Use, want error) {
	t.Helper()
	if err := m.Record(context.Background(), u); !errors.Is(err, want) {
		t.Fatalf("Record: got %v, want %v", err, want)
	}
}

func TestMemoryRecordsOnce(t *testing.T) {
	m, _ := newTestMemory(t, 10)
	record(t, m, use(1, epoch+1), nil)
	record(t, m, use(1, epoch+1), ErrReplayed)
	record(t, m, use(2, epoch+1), nil)
	// the identifier is spent, whatever iat comes with it
	record(t, m, use(1, epoch+2), ErrReplayed)
}

func TestMemoryRefusesAtEverySecondOfTheWindow(t *testing.T) {
	const skew = 10
	for _, ahead := range []int64{-40, 0, skew} { // how far iat is ahead of the clock
		m, c := newTestMemory(t, 10)
		c.advance(100 * time.Second)
		iat := c.now().Unix() + ahead
		u := use(1, iat)
		record(t, m, u, nil)
		for c.now().Unix() <= iat+70 {
			record(t, m, u, ErrReplayed)
			c.advance(time.Second)
		}
		for range 100 {
			record(t, m, u, ErrForgotten)
			c.advance(time.Second)
		}
	}
}

func TestMemoryJudgesNothingOfBeforeTheStart(t *testing.T) {
	m, c := newTestMemory(t, 10)
	for _, iat := range []int64{-1 << 40, 0, 1, epoch - 1, epoch} {
		record(t, m, use(1, iat), ErrBeforeStart)
	}
	record(t, m, use(1, epoch+1), nil)
	c.advance(30 * time.Second)
	record(t, m, use(2, epoch), ErrBeforeStart)
}

func TestMemoryAcceptsNothingUntilItBegins(t *testing.T) {
	c := new(clock)
	c.unix.Store(epoch)
	m := newMemory(10, c.now)
	gone, cancel := context.WithCancel(t.Context())
	cancel()
	for _, iat := range []int64{epoch, epoch + 1, 1 << 40} {
		if err := m.Record(gone, use(1, iat)); !errors.Is(err, ErrBeforeStart) {
			t.Fatalf("Record: got %v", err)
		}
	}
	m.Begin()
	c.advance(5 * time.Second)
	m.Begin() // changes nothing
	record(t, m, use(1, epoch), ErrBeforeStart)
	record(t, m, use(1, epoch+1), nil)
}

// A server may listen before its store has begun: what comes then waits for it.
func TestMemoryAwaitsItsStart(t *testing.T) {
	c := new(clock)
	c.unix.Store(epoch)
	m := newMemory(10, c.now)
	answer := make(chan error)
	go func() { answer <- m.Record(t.Context(), use(1, epoch+1)) }()
	select {
	case err := <-answer:
		t.Fatalf("Record did not wait: %v", err)
	case <-time.After(50 * time.Millisecond):
	}
	m.Begin()
	if err := <-answer; err != nil {
		t.Fatal(err)
	}
}

func TestMemoryWiderWindowRevivesNothing(t *testing.T) {
	m, c := newTestMemory(t, 10)
	c.advance(100 * time.Second)
	iat := c.now().Unix()
	u := use(1, iat)
	record(t, m, u, nil)

	narrow := m.Retain(Lifetimes{IssuedAt: 10 * time.Second}) // beside the one of 70 s
	c.advance(30 * time.Second)
	record(t, m, u, ErrReplayed)
	narrow()

	// An entry is not held for longer when the window widens, but its proof stays refused.
	m.Retain(Lifetimes{IssuedAt: 300 * time.Second})
	c.advance(40 * time.Second)
	record(t, m, u, ErrReplayed)
	c.advance(time.Second)
	record(t, m, use(2, c.now().Unix()), nil)
	record(t, m, u, ErrForgotten)

	// One that was let go stays refused.
	m, c = newTestMemory(t, 10)
	c.advance(100 * time.Second)
	u = use(1, c.now().Unix())
	record(t, m, u, nil)
	c.advance(100 * time.Second)
	record(t, m, use(2, c.now().Unix()), nil) // the store moves on
	m.Retain(Lifetimes{IssuedAt: 300 * time.Second})
	record(t, m, u, ErrForgotten)
	record(t, m, use(3, u.IssuedAt.Unix()), ErrForgotten)
	record(t, m, use(4, c.now().Unix()), nil)
}

func TestMemoryNarrowerWindow(t *testing.T) {
	c := new(clock)
	c.unix.Store(epoch)
	m := newMemory(10, c.now)
	m.Begin()
	releaseWide := m.Retain(Lifetimes{IssuedAt: 300 * time.Second})
	m.Retain(Lifetimes{IssuedAt: 10 * time.Second})
	c.advance(time.Second)
	u := use(1, epoch+1)
	record(t, m, u, nil)
	c.advance(100 * time.Second)
	record(t, m, u, ErrReplayed)
	releaseWide()
	record(t, m, u, ErrForgotten)
	m.Retain(Lifetimes{IssuedAt: 300 * time.Second})
	record(t, m, u, ErrForgotten)
}

func TestMemoryClockSetBack(t *testing.T) {
	m, c := newTestMemory(t, 10)
	c.advance(100 * time.Second)
	u := use(1, c.now().Unix())
	record(t, m, u, nil)
	c.advance(80 * time.Second)
	record(t, m, use(2, c.now().Unix()), nil)
	c.advance(-80 * time.Second)
	record(t, m, u, ErrForgotten)
}

// A clock that jumps far ahead for a moment lets entries go, and those stay
// refused; but it does not shut out what comes after.
func TestMemoryClockAheadForAMoment(t *testing.T) {
	m, c := newTestMemory(t, 10)
	c.advance(100 * time.Second)
	u := use(1, c.now().Unix())
	record(t, m, u, nil)
	c.advance(1000 * time.Hour)
	record(t, m, use(2, u.IssuedAt.Unix()), ErrForgotten)
	c.advance(-1000 * time.Hour)
	record(t, m, u, ErrForgotten)
	c.advance(time.Second)
	record(t, m, use(3, c.now().Unix()), nil)
	record(t, m, use(3, c.now().Unix()), ErrReplayed)
}

func TestMemoryIsBoundedAndExact(t *testing.T) {
	const limit = 1000
	m, c := newTestMemory(t, limit)
	iat := c.now().Unix()
	for n := range limit {
		record(t, m, use(n, iat), nil)
	}
	record(t, m, use(limit, iat), ErrFull)
	record(t, m, use(0, iat), ErrReplayed) // nothing was evicted
	if live, most := m.Entries(); live != limit || most != limit {
		t.Fatalf("Entries: got %d of %d", live, most)
	}
	c.advance(70 * time.Second)
	record(t, m, use(limit, c.now().Unix()), ErrFull) // still all live
	c.advance(time.Second)
	for n := range limit {
		record(t, m, use(n, c.now().Unix()), nil)
	}
	record(t, m, use(limit, c.now().Unix()), ErrFull)

	wide := m.Limit(limit+1, nil)
	record(t, m, use(limit, c.now().Unix()), nil)
	narrow := m.Limit(10, nil)
	record(t, m, use(limit+1, c.now().Unix()), ErrFull)
	record(t, m, use(5, c.now().Unix()), ErrReplayed)
	narrow()
	m.Limit(limit+2, nil) // replaces the first, which is released after
	wide()
	record(t, m, use(limit+1, c.now().Unix()), nil)
	record(t, m, use(limit+2, c.now().Unix()), ErrFull)
}

func TestMemoryNearlyFull(t *testing.T) {
	m, c := newTestMemory(t, 1<<30)
	type told struct{ live, limit int }
	calls := make(chan told, 10)
	next := 0
	fill := func(n int, want ...told) {
		t.Helper()
		for range n {
			next++
			record(t, m, use(next, c.now().Unix()), nil)
		}
		for _, w := range want {
			select {
			case got := <-calls:
				if got != w {
					t.Fatalf("told of %d of %d, not of %d of %d", got.live, got.limit, w.live, w.limit)
				}
			case <-time.After(10 * time.Second):
				t.Fatal("not told")
			}
		}
		time.Sleep(10 * time.Millisecond)
		if len(calls) > 0 {
			t.Fatalf("told of %v", <-calls)
		}
	}
	tell := func(live, limit int) { calls <- told{live, limit} }
	m.Limit(100, tell)
	fill(79)
	fill(1, told{80, 100})
	fill(20) // once
	c.advance(71 * time.Second)
	fill(79) // of which the first were fewer than half
	fill(1, told{80, 100})
	release := m.Limit(120, tell)
	fill(15)
	fill(1, told{96, 120})
	m.Limit(120, tell) // a reload
	fill(1)
	release()
	fill(1)
	m.Limit(60, tell)
	record(t, m, use(next+1, c.now().Unix()), ErrFull)
	fill(0, told{98, 60})
}

// TestMemoryBesideAMap runs the store beside the plainest thing that does the
// same, with keys that repeat, a clock that moves, and pages that split.
func TestMemoryBesideAMap(t *testing.T) {
	m, c := newTestMemory(t, 1<<30)
	random := rand.New(rand.NewPCG(1, 2))
	reference := make(map[Key]int64)
	for range 300_000 {
		if random.IntN(1000) == 0 {
			c.advance(time.Duration(random.IntN(5)) * time.Second)
		}
		now := c.now().Unix()
		u := use(random.IntN(100_000), max(now-random.Int64N(60), epoch+1))
		iat, held := reference[u.Key]
		held = held && iat >= now-70
		err := m.Record(context.Background(), u)
		if held && !errors.Is(err, ErrReplayed) || !held && err != nil {
			t.Fatalf("Record: got %v, held %v", err, held)
		}
		if err == nil {
			reference[u.Key] = u.IssuedAt.Unix()
		}
	}
	live := 0
	for _, iat := range reference {
		if iat >= c.now().Unix()-70 {
			live++
		}
	}
	if got, _ := m.Entries(); got != live {
		t.Fatalf("Entries: got %d, want %d", got, live)
	}
}

func TestMemoryOneOfManyAtOnce(t *testing.T) {
	m, c := newTestMemory(t, 1<<20)
	for round := range 200 {
		u := use(round, c.now().Unix())
		var accepted atomic.Int32
		var wait sync.WaitGroup
		for range 16 {
			wait.Go(func() {
				if m.Record(context.Background(), u) == nil {
					accepted.Add(1)
				}
			})
		}
		wait.Wait()
		if n := accepted.Load(); n != 1 {
			t.Fatalf("round %d: accepted %d times", round, n)
		}
	}
}

// A proof that is at its end is accepted once, also while others move the
// horizon past it and take its slot.
func TestMemoryHorizonUnderConcurrency(t *testing.T) {
	m, c := newTestMemory(t, 1<<30)
	c.advance(200 * time.Second)
	stop := make(chan struct{})
	var moving sync.WaitGroup
	moving.Go(func() {
		for n := 0; ; n++ {
			select {
			case <-stop:
				return
			default:
				_ = m.Record(context.Background(), use(-n, c.now().Unix()))
				if n%50 == 0 {
					c.advance(time.Second)
				}
			}
		}
	})
	for round := range 2000 {
		u := use(round, c.now().Unix()-68)
		var accepted atomic.Int32
		var wait sync.WaitGroup
		for range 4 {
			wait.Go(func() {
				for range 20 {
					if m.Record(context.Background(), u) == nil {
						accepted.Add(1)
					}
				}
			})
		}
		wait.Wait()
		if n := accepted.Load(); n > 1 {
			t.Fatalf("round %d: accepted %d times", round, n)
		}
	}
	close(stop)
	moving.Wait()
}

func TestKeyOf(t *testing.T) {
	one, again := KeyOf("thumbprint", "jti"), KeyOf("thumbprint", "jti")
	if one != again {
		t.Error("one proof has two keys")
	}
	for _, other := range []Key{KeyOf("thumbprint", "other"), KeyOf("another", "jti"), KeyOf("thumbprin", "tjti"), KeyOf("", "thumbprint.jti")} {
		if one == other {
			t.Error("two proofs have one key")
		}
	}
}

func randomUse(n uint64, iat time.Time) Use {
	var u Use
	binary.LittleEndian.PutUint64(u.Key[:], n*0x9E3779B97F4A7C15)
	binary.LittleEndian.PutUint64(u.Key[8:], n)
	u.IssuedAt, u.By = iat, ByIssuedAt
	return u
}

// BenchmarkMemoryRecord inserts into a store that already holds so many, and tells
// how long a garbage collection takes with them.
func BenchmarkMemoryRecord(b *testing.B) {
	for _, held := range []uint64{1_000, 100_000, 1_000_000, 10_000_000} {
		b.Run(fmt.Sprint(held), func(b *testing.B) {
			m, c := newTestMemory(b, 1<<30)
			now := c.now()
			for n := range held {
				record(b, m, randomUse(n, now), nil)
			}
			size := float64(m.size()) / float64(held)
			began := time.Now()
			runtime.GC()
			collection := time.Since(began)
			b.ReportAllocs()
			next := held
			beside.Compare(b, beside.Verification(b, "ES256"), 1, func() {
				if m.Record(context.Background(), randomUse(next, now)) != nil {
					b.Fatal("not recorded")
				}
				next++
			})
			b.ReportMetric(size, "bytes/entry")
			b.ReportMetric(float64(collection.Microseconds())/1000, "ms/gc")
		})
	}
}

// BenchmarkMemoryRecordOnAllCores is the same from as many goroutines as there are
// cores.
func BenchmarkMemoryRecordOnAllCores(b *testing.B) {
	for _, held := range []uint64{1_000, 1_000_000, 10_000_000} {
		b.Run(fmt.Sprint(held), func(b *testing.B) {
			m, c := newTestMemory(b, 1<<30)
			now := c.now()
			for n := range held {
				record(b, m, randomUse(n, now), nil)
			}
			b.ReportAllocs()
			b.ResetTimer()
			var next atomic.Uint64
			next.Store(held)
			b.RunParallel(func(loop *testing.PB) {
				for loop.Next() {
					if m.Record(context.Background(), randomUse(next.Add(1), now)) != nil {
						b.Error("not recorded")
					}
				}
			})
		})
	}
}

// BenchmarkMemoryRecordWhileEntriesExpire inserts at a steady rate for as long as
// it takes to reuse each slot several times, and tells the longest that one insert
// took: there is no moment at which dead entries are cleared.
func BenchmarkMemoryRecordWhileEntriesExpire(b *testing.B) {
	const perSecond = 10_000
	m, c := newTestMemory(b, 1<<30)
	next, longest := uint64(0), time.Duration(0)
	b.ReportAllocs()
	for b.Loop() {
		if next++; next%perSecond == 0 {
			c.advance(time.Second)
		}
		began := time.Now()
		if m.Record(context.Background(), randomUse(next, c.now())) != nil {
			b.Fatal("not recorded")
		}
		longest = max(longest, time.Since(began))
	}
	live, _ := m.Entries()
	b.ReportMetric(float64(longest.Microseconds()), "longest-us")
	b.ReportMetric(float64(live), "entries")
}

// size returns the bytes of all pages and directories.
func (m *Memory) size() int {
	total := 0
	for i := range m.shards {
		total += 4 * cap(m.shards[i].directory)
		for _, chunk := range m.shards[i].chunks {
			total += cap(chunk) * int(unsafe.Sizeof(page{}))
		}
	}
	return total
}

// The census is what a count of all entries would be, in whatever order they come
// and go.
func TestCensus(t *testing.T) {
	random := rand.New(rand.NewPCG(1, 2))
	c := census{limit: limit{max: 500}, perSecond: make(map[uint32]int)}
	ends := make(map[uint32]int) // what is live
	horizon := uint32(1000)
	for range 100_000 {
		if random.IntN(200) == 0 {
			horizon += random.Uint32N(40)
		}
		a := Admission{Until: horizon + random.Uint32N(30), Horizon: horizon}
		live := 0
		for end, n := range ends {
			if end < horizon {
				delete(ends, end)
			} else {
				live += n
			}
		}
		if added := c.add(a); added != (live < c.limit.max) {
			t.Fatalf("added: %t, with %d of %d", added, live, c.limit.max)
		} else if added {
			ends[a.Until]++
			live++
		}
		if ends[a.Until] > 0 && random.IntN(3) == 0 {
			c.remove(a)
			ends[a.Until]--
			live--
		}
		if c.live != live {
			t.Fatalf("%d are live, not %d", c.live, live)
		}
	}
}
