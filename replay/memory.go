package replay

import (
	"context"
	"encoding/binary"
	"hash/maphash"
	"math"
	"slices"
	"sync"
	"sync/atomic"
	"time"
)

// DefaultMaxEntries bounds a Memory unless it is told otherwise.
const DefaultMaxEntries = 10_000_000

// Memory is the store within one process. It keeps an entry exactly until no
// proof like it could be accepted, never evicts one before, and refuses new
// proofs once it is full.
//
// What it has let go of stays refused, also if a reload widens the time for
// which proofs are accepted, or the clock is set back: a proof is judged only if
// its iat is not below the horizon, all entries from the horizon on are held,
// and the horizon never goes back. An entry below it is dead; its slot is free
// without anybody having to clear it.
type Memory struct {
	Retention

	now     func() time.Time
	start   atomic.Uint32 // the second in which the store began to record
	horizon atomic.Uint32
	newest  atomic.Uint32 // the highest iat on record
	seed    maphash.Seed
	census  census
	shards  [shards]table
}

const (
	shardBits = 6
	shards    = 1 << shardBits
)

// NewMemory returns an empty store for at most maxEntries live entries. Until
// Begin it accepts nothing.
func NewMemory(maxEntries int) *Memory { return newMemory(maxEntries, time.Now) }

func newMemory(maxEntries int, now func() time.Time) *Memory {
	m := &Memory{now: now, seed: maphash.MakeSeed()}
	m.start.Store(math.MaxUint32)
	m.census = census{max: maxEntries, perSecond: make(map[uint32]int)}
	return m
}

// Begin begins to record, unless the store has begun before. It knows nothing
// of proofs that were made up to now: see ErrBeforeStart.
func (m *Memory) Begin() {
	start := second(m.now())
	if m.start.CompareAndSwap(math.MaxUint32, start) {
		raise(&m.newest, start)
		raise(&m.horizon, start+1)
	}
}

// second returns the second that a time lies in, as slots hold it. Zero stands
// for an empty slot.
func second(t time.Time) uint32 {
	return uint32(min(max(t.Unix(), 1), math.MaxUint32-2))
}

// Record implements Store.
func (m *Memory) Record(_ context.Context, use Use) error {
	iat := second(use.IssuedAt)
	if iat <= m.start.Load() {
		return ErrBeforeStart
	}
	key := entryKey{binary.LittleEndian.Uint64(use.Key[:]), binary.LittleEndian.Uint64(use.Key[8:])}
	position := key.position(m.seed)
	shard := &m.shards[position>>(64-shardBits)]
	shard.mu.Lock()
	defer shard.mu.Unlock()
	// The horizon is read under the lock: a slot freed by a later horizon than
	// the one that lets this proof be judged could have held its record.
	horizon := m.advance()
	if iat < horizon {
		return ErrForgotten
	}
	position <<= shardBits // what is left of it is the table's
	if shard.holds(key, position, horizon) {
		return ErrReplayed
	}
	if !m.census.add(iat, horizon) {
		return ErrFull
	}
	raise(&m.newest, iat)
	shard.insert(key, position, iat, horizon, m.seed)
	return nil
}

// advance moves the horizon to what the clock and the longest lifetime say, but
// not past the newest entry: beyond it nothing was let go of, and a clock that
// runs ahead for a moment must not shut out what comes after.
func (m *Memory) advance() uint32 {
	horizon := second(m.now().Add(-m.Longest()))
	return raise(&m.horizon, min(horizon, m.newest.Load()+1))
}

// raise sets v to at least value, and returns what it is then.
func raise(v *atomic.Uint32, value uint32) uint32 {
	for {
		old := v.Load()
		if old >= value {
			return old
		}
		if v.CompareAndSwap(old, value) {
			return value
		}
	}
}

// Limit sets the bound until release is called: the last one set, of those that
// are not released, counts. Entries above a lower bound live out their time.
func (m *Memory) Limit(maxEntries int) (release func()) {
	c := &m.census
	limit := &maxEntries
	c.mu.Lock()
	defer c.mu.Unlock()
	c.limits = append(c.limits, limit)
	c.max = maxEntries
	return func() {
		c.mu.Lock()
		defer c.mu.Unlock()
		c.limits = slices.DeleteFunc(c.limits, func(l *int) bool { return l == limit })
		if len(c.limits) > 0 {
			c.max = *c.limits[len(c.limits)-1]
		}
	}
}

// Entries returns how many live entries there are, and how many there may be.
func (m *Memory) Entries() (live, limit int) {
	horizon := m.advance()
	m.census.mu.Lock()
	defer m.census.mu.Unlock()
	m.census.expire(horizon)
	return m.census.live, m.census.max
}

// census counts the live entries, by the second of their iat, so that the count
// is exact at any time although nobody visits the dead ones.
type census struct {
	mu        sync.Mutex
	max       int
	limits    []*int // those that are not released, in order
	live      int
	perSecond map[uint32]int
	from      uint32 // no second before this is counted
}

// add counts an entry, unless there are as many as there may be.
func (c *census) add(iat, horizon uint32) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.expire(horizon)
	if c.live >= c.max {
		return false
	}
	// Another call may have moved on meanwhile: such an entry is born dead.
	if iat >= c.from {
		c.perSecond[iat]++
		c.live++
	}
	return true
}

func (c *census) expire(horizon uint32) {
	if horizon <= c.from {
		return
	}
	if int(horizon-c.from) > len(c.perSecond) {
		for s, n := range c.perSecond {
			if s < horizon {
				c.live -= n
				delete(c.perSecond, s)
			}
		}
	} else {
		for s := c.from; s < horizon; s++ {
			c.live -= c.perSecond[s]
			delete(c.perSecond, s)
		}
	}
	c.from = horizon
}
