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
// full: at most twice as long, while others come.
const generation = 10 * time.Minute

// Cache remembers values by key, in two generations. What is asked for is taken over
// into the young one; when that has lasted long enough, what was left in the old one
// is forgotten, so that tokens which have expired do not pile up. When there are too
// many, old ones make room; which of them is left to chance, so that nobody can aim
// at another's.
type Cache[K comparable, V any] struct {
	mu         sync.RWMutex
	young, old part[K, V]
	began      time.Time // the young generation
}

// part is a generation.
type part[K comparable, V any] struct {
	entries map[K]entry[V]
	bytes   int
}

func (p *part[K, V]) put(key K, e entry[V]) {
	if p.entries == nil {
		p.entries = make(map[K]entry[V])
	}
	p.entries[key] = e
	p.bytes += e.size
}

func (p *part[K, V]) remove(key K) {
	if e, ok := p.entries[key]; ok {
		p.bytes -= e.size
		delete(p.entries, key)
	}
}

type entry[V any] struct {
	value V
	size  int
}

// NewCache returns an empty cache.
func NewCache[K comparable, V any]() *Cache[K, V] { return new(Cache[K, V]) }

// Get returns the value of a key, and whether there is one.
func (c *Cache[K, V]) Get(key K) (V, bool) {
	c.mu.RLock()
	e, ok := c.young.entries[key]
	if ok {
		c.mu.RUnlock()
		return e.value, true
	}
	_, ok = c.old.entries[key]
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
	if e, ok := c.young.entries[key]; ok {
		return e.value, true
	}
	e, ok := c.old.entries[key]
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
	if e.size > MaxBytes {
		return
	}
	if now := time.Now(); now.Sub(c.began) >= generation {
		c.age()
		c.began = now
	}
	for c.len() >= MaxEntries || c.young.bytes+c.old.bytes+e.size > MaxBytes {
		if len(c.old.entries) == 0 {
			c.age()
		}
		for other := range c.old.entries {
			c.old.remove(other)
			break
		}
	}
	c.young.put(key, e)
}

// age forgets the old generation, and has the young one be old.
func (c *Cache[K, V]) age() { c.old, c.young = c.young, part[K, V]{} }

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
	return c.len()
}

func (c *Cache[K, V]) len() int { return len(c.young.entries) + len(c.old.entries) }

func (c *Cache[K, V]) remove(key K) {
	c.young.remove(key)
	c.old.remove(key)
}
