package bounded

import (
	"strconv"
	"sync"
	"testing"
	"testing/synctest"
	"time"
)

func TestCache(t *testing.T) {
	c := NewCache[Key, string]()
	a, b := KeyOf("a"), KeyOf("b")
	if _, ok := c.Get(a); ok {
		t.Error("an empty cache has a value")
	}
	c.Put(a, "1", 10)
	c.Put(b, "2", 10)
	c.Put(a, "3", 20)
	for key, want := range map[Key]string{a: "3", b: "2"} {
		if got, ok := c.Get(key); !ok || got != want {
			t.Errorf("got %q, %v, want %q", got, ok, want)
		}
	}
	if c.Len() != 2 || c.bytes != 30 {
		t.Errorf("%d entries of %d bytes", c.Len(), c.bytes)
	}
	c.Remove(a)
	c.Remove(a)
	if _, ok := c.Get(a); ok || c.bytes != 10 {
		t.Errorf("removed, but %v, %d bytes", ok, c.bytes)
	}
}

func TestBounds(t *testing.T) {
	c := NewCache[Key, int]()
	for n := range MaxEntries + 500 {
		key := KeyOf(strconv.Itoa(n))
		c.Put(key, n, 1)
		if got, ok := c.Get(key); !ok || got != n {
			t.Fatal("the last one was not remembered")
		}
		if c.Len() > MaxEntries {
			t.Fatalf("%d entries", c.Len())
		}
	}
	if c.Len() != MaxEntries/2+500 || c.bytes != 500 {
		t.Errorf("%d entries, %d bytes of young ones", c.Len(), c.bytes)
	}
	big, bigger := KeyOf("big"), KeyOf("bigger")
	for _, key := range []Key{big, bigger} {
		c.Put(key, -1, MaxBytes/2-10)
		if _, ok := c.Get(key); !ok || c.bytes > MaxBytes/2 {
			t.Errorf("%v, %d bytes", ok, c.bytes)
		}
	}
	if c.Len() != 2 {
		t.Errorf("%d entries beside two that fill it", c.Len()-2)
	}
	c.Put(big, -1, MaxBytes/2+1)
	if _, ok := c.Get(big); ok {
		t.Error("what is too big is remembered, or what it was instead of")
	}
}

// What is asked for stays, however much else there is; what is not is forgotten, also
// if there is little.
func TestGenerations(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := NewCache[string, int]()
		c.Put("used", 1, 1)
		for round := range 10 {
			c.Put("unused "+strconv.Itoa(round), round, 1)
			time.Sleep(generation - time.Second)
			if got, ok := c.Get("used"); !ok || got != 1 {
				t.Fatalf("round %d: what is used was forgotten", round)
			}
			time.Sleep(2 * time.Second)
		}
		if c.Len() > 4 {
			t.Errorf("%d entries", c.Len())
		}
		for n := range 10 * MaxEntries {
			c.Put(strconv.Itoa(n), n, 1)
			if n%(MaxEntries/4) == 0 {
				if got, ok := c.Get("used"); !ok || got != 1 {
					t.Fatalf("what is used was forgotten after %d others", n)
				}
			}
		}
		c.Remove("used")
		if _, ok := c.Get("used"); ok {
			t.Error("removed, but there")
		}
	})
}

// Readers, writers and those who take over are many at once.
func TestCacheRace(t *testing.T) {
	c := NewCache[int, int]()
	var all sync.WaitGroup
	for worker := range 8 {
		all.Go(func() {
			for n := range 20_000 {
				key := (n*7 + worker) % 5000
				if got, ok := c.Get(key); ok && got != key {
					t.Errorf("%d for %d", got, key)
				}
				c.Put(key, key, MaxBytes/8000)
				if n%100 == 0 {
					c.Remove(key)
				}
			}
		})
	}
	all.Wait()
	bytes := 0
	for _, e := range c.young {
		bytes += e.size
	}
	if bytes != c.bytes || bytes > MaxBytes/2 {
		t.Errorf("%d bytes are taken for %d", bytes, c.bytes)
	}
}
