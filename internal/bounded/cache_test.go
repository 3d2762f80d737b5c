package bounded

import (
	"strconv"
	"testing"
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
	}
	if c.Len() != MaxEntries || c.bytes != MaxEntries {
		t.Errorf("%d entries of %d bytes", c.Len(), c.bytes)
	}
	big := KeyOf("big")
	c.Put(big, -1, MaxBytes-10)
	if _, ok := c.Get(big); !ok || c.bytes > MaxBytes || c.Len() > 11 {
		t.Errorf("%v, %d entries of %d bytes", ok, c.Len(), c.bytes)
	}
}
