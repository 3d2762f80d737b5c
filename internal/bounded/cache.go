// Package bounded remembers things of tokens, without growing past a bound.
package bounded

import (
	"crypto/sha256"
	"sync"
)

// Bounds of every Cache.
const (
	MaxEntries = 100_000
	MaxBytes   = 128 << 20
)

// Key stands for a token: its hash, so that no token is kept.
type Key [sha256.Size]byte

// KeyOf returns the key of a token.
func KeyOf(token string) Key { return sha256.Sum256([]byte(token)) }

// Cache remembers values by token. When there are too many, others make room.
// Which ones is left to chance, so that nobody can aim at another's.
type Cache[V any] struct {
	mu      sync.RWMutex
	entries map[Key]entry[V]
	bytes   int
}

type entry[V any] struct {
	value V
	size  int
}

// NewCache returns an empty cache.
func NewCache[V any]() *Cache[V] { return &Cache[V]{entries: make(map[Key]entry[V])} }

// Get returns the value of a key, and whether there is one.
func (c *Cache[V]) Get(key Key) (V, bool) {
	c.mu.RLock()
	defer c.mu.RUnlock()
	e, ok := c.entries[key]
	return e.value, ok
}

// Put remembers a value, which takes about so many bytes, in place of the key's
// earlier one.
func (c *Cache[V]) Put(key Key, value V, size int) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.remove(key)
	for other := range c.entries {
		if len(c.entries) < MaxEntries && c.bytes+size <= MaxBytes {
			break
		}
		c.remove(other)
	}
	c.entries[key] = entry[V]{value, size}
	c.bytes += size
}

// Remove forgets the value of a key.
func (c *Cache[V]) Remove(key Key) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.remove(key)
}

// Len returns how many values are remembered.
func (c *Cache[V]) Len() int {
	c.mu.RLock()
	defer c.mu.RUnlock()
	return len(c.entries)
}

func (c *Cache[V]) remove(key Key) {
	if e, ok := c.entries[key]; ok {
		c.bytes -= e.size
		delete(c.entries, key)
	}
}
