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
// A slot whose time is over is free without anybody having to clear it, and what
// was in it stays refused: see Retention.
type Memory struct {
	Retention

	now    func() time.Time
	start  atomic.Int64 // the millisecond in which the store began to record
	seed   maphash.Seed
	census census
	shards [shards]table
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
	m.start.Store(math.MaxInt64)
	m.census = census{max: maxEntries, perSecond: make(map[uint32]int)}
	return m
}

// Begin begins to record, unless the store has begun before. It knows nothing
// of proofs that were made up to now: see ErrBeforeStart.
func (m *Memory) Begin() {
	now := m.now()
	if m.start.CompareAndSwap(math.MaxInt64, now.UnixMilli()) {
		m.begin(now)
	}
}

// Record implements Store.
func (m *Memory) Record(_ context.Context, use Use) error {
	if m.beforeStart(use) {
		return ErrBeforeStart
	}
	key := entryKey{binary.LittleEndian.Uint64(use.Key[:]), binary.LittleEndian.Uint64(use.Key[8:])}
	position := key.position(m.seed)
	shard := &m.shards[position>>(64-shardBits)]
	shard.mu.Lock()
	defer shard.mu.Unlock()
	// It is admitted under the lock: a slot freed by a later horizon than the one
	// that lets this proof be judged could have held its record.
	admission, err := m.Admit(use, m.now())
	if err != nil {
		return err
	}
	position <<= shardBits // what is left of it is the table's
	if shard.holds(key, position, admission.Horizon) {
		return ErrReplayed
	}
	if !m.census.add(admission) {
		return ErrFull
	}
	shard.insert(key, position, admission, m.seed)
	return nil
}

// beforeStart reports whether the proof may have been accepted before the store
// began to record. By its iat it may within the second of the start, which
// clients seldom tell more exactly. A nonce shows it to the millisecond: who has
// one of before may have used it, and a new one is to be had at once.
func (m *Memory) beforeStart(use Use) bool {
	start := m.start.Load()
	if !use.Nonce.IsZero() && use.Nonce.UnixMilli() <= start {
		return true
	}
	return use.By&ByNonce == 0 && use.IssuedAt.Unix() <= start/1000 || start == math.MaxInt64
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
	horizon := m.advance(m.now())
	m.census.mu.Lock()
	defer m.census.mu.Unlock()
	m.census.expire(horizon)
	return m.census.live, m.census.max
}

// census counts the live entries, by the second of their end, so that the count
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
func (c *census) add(a Admission) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.expire(a.Horizon)
	if c.live >= c.max {
		return false
	}
	// Another call may have moved on meanwhile: such an entry is born dead.
	if a.Until >= c.from {
		c.perSecond[a.Until]++
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
