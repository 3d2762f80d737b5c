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

	start  atomic.Int64  // the millisecond in which the store began to record
	begun  chan struct{} // closed then
	seed   maphash.Seed
	census census
	shards [shards]table

	persistence persistence
}

const (
	shardBits = 6
	shards    = 1 << shardBits
)

// NewMemory returns an empty store for at most maxEntries live entries. Until
// Begin or Persist it accepts nothing.
func NewMemory(maxEntries int) *Memory { return newMemory(maxEntries, time.Now) }

func newMemory(maxEntries int, now func() time.Time) *Memory {
	m := &Memory{seed: maphash.MakeSeed(), begun: make(chan struct{})}
	m.now, m.changed = now, m.persistence.retain
	m.start.Store(math.MaxInt64)
	m.census = census{limit: limit{max: maxEntries}, perSecond: make(map[uint32]int)}
	return m
}

func (m *Memory) hasBegun() bool { return m.start.Load() != math.MaxInt64 }

// startAt begins to record, unless the store has begun before.
func (m *Memory) startAt(start int64) {
	if m.start.CompareAndSwap(math.MaxInt64, start) {
		close(m.begun)
	}
}

// Record implements Store.
func (m *Memory) Record(ctx context.Context, use Use) error {
	if !m.hasBegun() {
		m.awaitStart(ctx)
	}
	key := entryKey{binary.LittleEndian.Uint64(use.Key[:]), binary.LittleEndian.Uint64(use.Key[8:])}
	position := key.position(m.seed)
	shard := &m.shards[position>>(64-shardBits)]
	shard.mu.Lock()
	defer shard.mu.Unlock()
	if m.beforeStart(use) {
		if shard.holds(key, position<<shardBits, max(m.horizon.Load(), 1)) {
			return ErrReplayed
		}
		return ErrBeforeStart
	}
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
	if err := m.persistence.append(journalRecord{key, admission.Until, m.horizon.Load()}); err != nil {
		m.census.remove(admission)
		return err
	}
	shard.insert(key, position, admission, m.seed)
	return nil
}

// patience is how long a proof waits for the store to begin.
const patience = 10 * time.Second

// awaitStart waits: a server may listen a moment before its store has read a file.
func (m *Memory) awaitStart(ctx context.Context) {
	timer := time.NewTimer(patience)
	defer timer.Stop()
	select {
	case <-m.begun:
	case <-ctx.Done():
	case <-timer.C:
	}
}

// restore enters a record from a file.
func (m *Memory) restore(r journalRecord, horizon uint32) {
	position := r.key.position(m.seed)
	shard := &m.shards[position>>(64-shardBits)]
	position <<= shardBits
	shard.mu.Lock()
	defer shard.mu.Unlock()
	if !shard.holds(r.key, position, horizon) {
		admission := Admission{Until: r.end, Horizon: horizon}
		m.census.count(admission)
		shard.insert(r.key, position, admission, m.seed)
	}
}

// copyTo appends all live entries to a file.
func (m *Memory) copyTo(j *journal) error {
	horizon := max(m.horizon.Load(), 1) // zero stands for no end
	for i := range m.shards {
		if err := m.shards[i].copyTo(j, horizon); err != nil {
			return err
		}
	}
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
// are not released, counts. Entries above a lower bound live out their time. When
// four fifths of it are taken, nearlyFull is called in a goroutine of its own: again
// only after less than half were, or the bound has changed.
func (m *Memory) Limit(maxEntries int, nearlyFull func(live, limit int)) (release func()) {
	c := &m.census
	set := &limit{maxEntries, nearlyFull}
	c.mu.Lock()
	defer c.mu.Unlock()
	c.limits = append(c.limits, set)
	c.set(set)
	return func() {
		c.mu.Lock()
		defer c.mu.Unlock()
		c.limits = slices.DeleteFunc(c.limits, func(l *limit) bool { return l == set })
		if len(c.limits) > 0 {
			c.set(c.limits[len(c.limits)-1])
		}
	}
}

// limit is a bound, and who is told when it is near.
type limit struct {
	max        int
	nearlyFull func(live, limit int)
}

// Entries returns how many live entries there are, and how many there may be.
func (m *Memory) Entries() (live, limit int) {
	horizon := m.advance(m.now())
	m.census.mu.Lock()
	defer m.census.mu.Unlock()
	m.census.expire(horizon)
	return m.census.live, m.census.limit.max
}

// census counts the live entries, by the second of their end, so that the count
// is exact at any time although nobody visits the dead ones.
type census struct {
	mu        sync.Mutex
	limit     limit    // the one that counts
	limits    []*limit // those that are not released, in order
	told      bool     // that the limit is near
	live      int
	perSecond map[uint32]int
	recent    [8]secondCount // not in perSecond yet: nearly all end in these seconds
	from      uint32         // no second before this is counted
}

// secondCount is how many more entries end in a second than perSecond says.
type secondCount struct {
	second uint32
	more   int32
}

// add counts an entry, unless there are as many as there may be.
func (c *census) add(a Admission) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.expire(a.Horizon)
	room := c.live < c.limit.max
	if room {
		c.change(a, 1)
	}
	c.tell()
	return room
}

// set has another limit count.
func (c *census) set(l *limit) {
	c.told = c.told && c.limit.max == l.max
	c.limit = *l
}

// tell tells who asked to be told when the limit is near.
func (c *census) tell() {
	switch {
	case c.told:
		c.told = c.live >= c.limit.max/2
	case c.live >= c.limit.max-c.limit.max/5 && c.limit.nearlyFull != nil:
		c.told = true
		go c.limit.nearlyFull(c.live, c.limit.max)
	}
}

// count counts an entry also if there are too many.
func (c *census) count(a Admission) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.change(a, 1)
}

// remove takes back an entry that was counted.
func (c *census) remove(a Admission) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.change(a, -1)
}

// change counts, unless another call has moved on past the entry's end meanwhile.
func (c *census) change(a Admission, by int) {
	if a.Until < c.from {
		return
	}
	c.live += by
	recent := &c.recent[a.Until%uint32(len(c.recent))]
	if recent.second != a.Until {
		c.settle(recent)
		recent.second = a.Until
	}
	recent.more += int32(by)
}

// settle has perSecond say what it should.
func (c *census) settle(recent *secondCount) {
	if recent.more != 0 {
		c.perSecond[recent.second] += int(recent.more)
		recent.more = 0
	}
}

func (c *census) expire(horizon uint32) {
	if horizon <= c.from {
		return
	}
	for i := range c.recent {
		c.settle(&c.recent[i])
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
