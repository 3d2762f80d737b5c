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
	if c.Len() != 2 || c.young.bytes != 30 {
		t.Errorf("%d entries of %d bytes", c.Len(), c.young.bytes)
	}
	c.Remove(a)
	c.Remove(a)
	if _, ok := c.Get(a); ok || c.young.bytes != 10 {
		t.Errorf("removed, but %v, %d bytes", ok, c.young.bytes)
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
	}
	if bytes := c.young.bytes + c.old.bytes; c.Len() != MaxEntries || bytes != MaxEntries {
		t.Errorf("%d entries of %d bytes", c.Len(), bytes)
	}
	big := KeyOf("big")
	c.Put(big, -1, MaxBytes-10)
	if _, ok := c.Get(big); !ok || c.young.bytes+c.old.bytes > MaxBytes || c.Len() > 11 {
		t.Errorf("%v, %d entries of %d bytes", ok, c.Len(), c.young.bytes+c.old.bytes)
	}
	c.Put(big, -1, MaxBytes+1)
	if _, ok := c.Get(big); ok {
		t.Error("what is too big is remembered, or what it was instead of")
	}
}

// What fits stays, if it is asked for, in whatever order.
func TestWorkingSet(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := NewCache[int, int]()
		const used = MaxEntries * 9 / 10
		for n := range used {
			c.Put(n, n, 1)
		}
		for round := range 5 {
			time.Sleep(generation * 3 / 4)
			for n := range used {
				if _, ok := c.Get(n); !ok {
					t.Fatalf("round %d: %d was forgotten", round, n)
				}
			}
			c.Put(-1-round, round, 1)
		}
	})
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
	for _, part := range []part[int, int]{c.young, c.old} {
		bytes := 0
		for _, e := range part.entries {
			bytes += e.size
		}
		if bytes != part.bytes || bytes > MaxBytes {
			t.Errorf("%d bytes are taken for %d", bytes, part.bytes)
		}
	}
}
