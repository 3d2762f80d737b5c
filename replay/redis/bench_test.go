//go:build interop

package redis

import (
	"context"
	"fmt"
	"testing"

	redigo "github.com/gomodule/redigo/redis"

	"github.com/caddy-dpop/caddy-dpop/replay/redis/redistest"
)

// What a recorded proof costs, beside a round trip that does nothing.
func BenchmarkRecord(b *testing.B) {
	server := redistest.Start(b)
	b.Run("PING", func(b *testing.B) {
		connection, err := redigo.Dial("tcp", server.Address)
		if err != nil {
			b.Fatal(err)
		}
		defer connection.Close()
		b.ReportAllocs()
		for b.Loop() {
			if _, err := connection.Do("PING"); err != nil {
				b.Fatal(err)
			}
		}
	})
	for _, at := range []int{1, 50, 500} {
		b.Run(fmt.Sprintf("%d at once", at), func(b *testing.B) {
			s := newTestStore(b, Options{Addresses: []string{server.Address}})
			b.ReportAllocs()
			b.SetParallelism(at)
			b.RunParallel(func(pb *testing.PB) {
				for pb.Next() {
					if err := s.Record(context.Background(), newUse()); err != nil {
						b.Error(err)
					}
				}
			})
		})
	}
}
