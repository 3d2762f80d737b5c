// Package bounded remembers things of tokens and clients, without growing past a
// bound.
package bounded

import (
	"crypto/sha256"
	"sync"
	"time"
)

// Bounds of every Cache.
const (
	MaxEntries = 100_000
	MaxBytes   = 128 << 20
)

// Key stands for a token: its hash, so that no token is kept.
type Key [sha256.Size]byte

// KeyOf returns the key of a token.
func KeyOf(token string) Key {
	var buffer [2048]byte // enough for most
	return sha256.Sum256(append(buffer[:0], token...))
}

// generation is how long a Cache keeps at least what nobody asks for, unless it is
// full: at most twice as long.
const generation = 10 * time.Minute

// Cache remembers values by key, in two generations. What is asked for is taken over
// into the young one; when that is full, or has lasted long enough, what was left in
// the old one is forgotten. So tokens that have expired do not pile up, and nobody
// can aim at what another uses.
type Cache[K comparable, V any] struct {
	mu         sync.RWMutex
	young, old map[K]entry[V]
	bytes      int       // of the young generation
	began      time.Time // the young generation
}

type entry[V any] struct {
	value V
	size  int
}

// NewCache returns an empty cache.
func NewCache[K comparable, V any]() *Cache[K, V] {
	return &Cache[K, V]{young: make(map[K]entry[V])}
}

// Get returns the value of a key, and whether there is one.
func (c *Cache[K, V]) Get(key K) (V, bool) {
	c.mu.RLock()
	e, ok := c.young[key]
	if ok {
		c.mu.RUnlock()
		return e.value, true
	}
	_, ok = c.old[key]
	c.mu.RUnlock()
	if !ok {
		return e.value, false
	}
	return c.takeOver(key)
}

// takeOver takes a value over into the young generation, if it is still there.
func (c *Cache[K, V]) takeOver(key K) (V, bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if e, ok := c.young[key]; ok {
		return e.value, true
	}
	e, ok := c.old[key]
	if ok {
		c.put(key, e)
	}
	return e.value, ok
}

// Put remembers a value, which takes about so many bytes, in place of the key's
// earlier one.
func (c *Cache[K, V]) Put(key K, value V, size int) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.put(key, entry[V]{value, size})
}

func (c *Cache[K, V]) put(key K, e entry[V]) {
	c.remove(key)
	const maxEntries, maxBytes = MaxEntries / 2, MaxBytes / 2
	if e.size > maxBytes {
		return
	}
	now := time.Now()
	if c.began.IsZero() {
		c.began = now
	}
	if len(c.young) >= maxEntries || c.bytes+e.size > maxBytes || now.Sub(c.began) >= generation {
		c.old, c.young = c.young, make(map[K]entry[V])
		c.bytes, c.began = 0, now
	}
	c.young[key] = e
	c.bytes += e.size
}

// Remove forgets the value of a key.
func (c *Cache[K, V]) Remove(key K) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.remove(key)
}

// Len returns how many values are remembered.
func (c *Cache[K, V]) Len() int {
	c.mu.RLock()
	defer c.mu.RUnlock()
	return len(c.young) + len(c.old)
}

func (c *Cache[K, V]) remove(key K) {
	delete(c.old, key)
	if e, ok := c.young[key]; ok {
		c.bytes -= e.size
		delete(c.young, key)
	}
}
