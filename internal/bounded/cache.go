// Package bounded remembers things of tokens and clients, without growing past a
// bound.
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
func KeyOf(token string) Key {
	var buffer [2048]byte // enough for most
	return sha256.Sum256(append(buffer[:0], token...))
}

// Cache remembers values by key. When there are too many, others make room. Which
// ones is left to chance, so that nobody can aim at another's.
type Cache[K comparable, V any] struct {
	mu      sync.RWMutex
	entries map[K]entry[V]
	bytes   int
}

type entry[V any] struct {
	value V
	size  int
}

// NewCache returns an empty cache.
func NewCache[K comparable, V any]() *Cache[K, V] {
	return &Cache[K, V]{entries: make(map[K]entry[V])}
}

// Get returns the value of a key, and whether there is one.
func (c *Cache[K, V]) Get(key K) (V, bool) {
	c.mu.RLock()
	defer c.mu.RUnlock()
	e, ok := c.entries[key]
	return e.value, ok
}

// Put remembers a value, which takes about so many bytes, in place of the key's
// earlier one.
func (c *Cache[K, V]) Put(key K, value V, size int) {
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
func (c *Cache[K, V]) Remove(key K) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.remove(key)
}

// Len returns how many values are remembered.
func (c *Cache[K, V]) Len() int {
	c.mu.RLock()
	defer c.mu.RUnlock()
	return len(c.entries)
}

func (c *Cache[K, V]) remove(key K) {
	if e, ok := c.entries[key]; ok {
		c.bytes -= e.size
		delete(c.entries, key)
	}
}
