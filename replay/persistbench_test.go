package replay

import (
	"context"
	"os"
	"path/filepath"
	"runtime"
	"sync/atomic"
	"testing"
	"time"
)

// BenchmarkPersist has a million live entries: what the start of a store takes
// whose file has them, and then an insert, with a file and without.
func BenchmarkPersist(b *testing.B) {
	const held = 1_000_000
	lifetimes := Lifetimes{IssuedAt: time.Hour}
	iat := time.Now().Add(time.Minute)
	filled := func(b *testing.B, path string) *Memory {
		m := NewMemory(1 << 30)
		m.Retain(lifetimes)
		reload(b, m, nil, path)
		for n := range uint64(held) {
			record(b, m, randomUse(n, iat), nil)
		}
		return m
	}
	path := filepath.Join(b.TempDir(), "proofs")
	closed(b, filled(b, path))
	info, err := os.Stat(path)
	if err != nil {
		b.Fatal(err)
	}
	b.Run("start", func(b *testing.B) {
		b.ReportAllocs()
		before := heap()
		var m *Memory
		for b.Loop() {
			m = NewMemory(1 << 30)
			m.Retain(lifetimes)
			if restored, _, err := m.Persist(path); err != nil || restored.Entries != held {
				b.Fatal(restored, err)
			}
			b.StopTimer()
			closed(b, m)
			b.StartTimer()
		}
		b.ReportMetric(float64(heap()-before)/held, "heap-bytes/entry")
		b.ReportMetric(float64(info.Size())/held, "file-bytes/entry")
		runtime.KeepAlive(m)
	})
	for _, path := range []string{"", filepath.Join(b.TempDir(), "proofs")} {
		name := map[bool]string{true: "insert without a file", false: "insert with a file"}[path == ""]
		m := filled(b, path)
		var next atomic.Uint64
		next.Store(held)
		insert := func(b *testing.B) {
			if err := m.Record(context.Background(), randomUse(next.Add(1), iat)); err != nil {
				b.Error(err)
			}
		}
		b.Run(name, func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				insert(b)
			}
		})
		b.Run(name+" in parallel", func(b *testing.B) {
			b.RunParallel(func(p *testing.PB) {
				for p.Next() {
					insert(b)
				}
			})
		})
		closed(b, m)
	}
}

// heap returns the bytes of what is in use.
func heap() uint64 {
	runtime.GC()
	var stats runtime.MemStats
	runtime.ReadMemStats(&stats)
	return stats.HeapAlloc
}
