//go:build interop

package redis

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"runtime"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	redigo "github.com/gomodule/redigo/redis"
	"go.uber.org/zap/zapcore"

	"github.com/caddy-dpop/caddy-dpop/replay"
	"github.com/caddy-dpop/caddy-dpop/replay/redis/redistest"
)

// single returns a server, and a store in it.
func single(t *testing.T, options Options, directives ...string) (*redistest.Server, *Store) {
	t.Helper()
	server := redistest.Start(t, directives...)
	options.Addresses = []string{server.Address}
	return server, newTestStore(t, options)
}

// Of many copies at once, sent to two stores as two processes have them, one is
// accepted.
func TestExactlyOnce(t *testing.T) {
	server, first := single(t, Options{Timeout: 5 * time.Second})
	second := newTestStore(t, Options{Addresses: []string{server.Address}, Timeout: 5 * time.Second})
	for range 50 {
		var wg sync.WaitGroup
		var accepted, replayed atomic.Int64
		use := newUse()
		for n := range 100 {
			wg.Go(func() {
				switch err := []*Store{first, second}[n%2].Record(context.Background(), use); {
				case err == nil:
					accepted.Add(1)
				case errors.Is(err, replay.ErrReplayed):
					replayed.Add(1)
				default:
					t.Error(err)
				}
			})
		}
		wg.Wait()
		if accepted.Load() != 1 || replayed.Load() != 99 {
			t.Fatalf("%d accepted, %d replayed", accepted.Load(), replayed.Load())
		}
	}
	if n := len(server.Keys(t)); n != 50 {
		t.Errorf("%d records", n)
	}
}

// A record is kept until the end of the last second in which a handler could
// accept the proof, and a little longer.
func TestKeptLongEnough(t *testing.T) {
	server, s := single(t, Options{})
	for name, row := range map[string]struct {
		iat, nonce time.Duration // from now; nonce 0: none
		noIAT      bool
		until      time.Duration
	}{
		"now":               {until: 70 * time.Second},
		"past":              {iat: -60 * time.Second, until: 10 * time.Second},
		"ahead":             {iat: 10 * time.Second, until: 80 * time.Second},
		"nonce":             {nonce: -1 * time.Second, until: 299 * time.Second},
		"old nonce":         {iat: 20 * time.Second, nonce: -290 * time.Second, until: 90 * time.Second},
		"nonce without iat": {nonce: -100 * time.Second, noIAT: true, until: 200 * time.Second},
	} {
		server.Do(t, "FLUSHALL")
		now := time.Now()
		use := newUse()
		use.IssuedAt = now.Add(row.iat)
		if row.noIAT {
			use.IssuedAt = time.Time{}
		}
		if row.nonce != 0 {
			use.Nonce, use.By = now.Add(row.nonce), replay.ByNonce
		}
		record(t, s, use, nil)
		record(t, s, use, replay.ErrReplayed)
		keys := server.Keys(t)
		if len(keys) != 1 {
			t.Fatalf("%s: %q", name, keys)
		}
		const slow = 3 * time.Second // this machine
		if ttl := server.TTL(t, keys[0]); ttl < row.until+margin-slow || ttl > row.until+time.Second+margin {
			t.Errorf("%s: kept for %v, want %v and the rest of the second and %v", name, ttl, row.until, margin)
		}
	}
}

// What can be sent of a database, a password and a user is sent.
func TestAccess(t *testing.T) {
	t.Run("database", func(t *testing.T) {
		server, s := single(t, Options{DB: 3})
		record(t, s, newUse(), nil)
		if n := len(server.Keys(t)); n != 0 {
			t.Errorf("%d records in database 0", n)
		}
		if info, _ := redigo.String(server.Do(t, "INFO", "keyspace"), nil); !strings.Contains(info, "db3:keys=1") {
			t.Error(info)
		}
		s = newTestStore(t, Options{Addresses: []string{server.Address}, DB: 99})
		recordFails(t, s, newUse(), "DB index")
	})
	t.Run("password", func(t *testing.T) {
		server, s := single(t, Options{Password: "s3cret"}, "requirepass s3cret")
		record(t, s, newUse(), nil)
		recordFails(t, newTestStore(t, Options{Addresses: []string{server.Address}}), newUse(), "NOAUTH")
		recordFails(t, newTestStore(t, Options{Addresses: []string{server.Address}, Password: "oth3r"}), newUse(), "WRONGPASS")
	})
	t.Run("password where none is needed", func(t *testing.T) {
		_, s := single(t, Options{Password: "s3cret"})
		record(t, s, newUse(), nil)
	})
	t.Run("user with one right", func(t *testing.T) {
		logger, logs := observed()
		server, s := single(t, Options{Username: "caddy", Password: "s3cret", Logger: logger}, "maxmemory-policy allkeys-lru")
		server.Do(t, "ACL", "SETUSER", "caddy", "on", ">s3cret", "+set", "~dpop:*")
		use := newUse()
		record(t, s, use, nil)
		record(t, s, use, replay.ErrReplayed)
		redistest.Await(t, "a word on what cannot be told", func() bool { return s.Status().Warning != "" })
		if lines := logs.FilterMessageSnippet("cannot tell whether Redis evicts").All(); len(lines) != 1 || lines[0].Level != zapcore.InfoLevel {
			t.Errorf("%+v", lines)
		}
		s.options.KeyPrefix = "other:"
		recordFails(t, s, newUse(), "NOPERM")

		server.Do(t, "ACL", "SETUSER", "caddy", "+info")
		s = newTestStore(t, Options{Addresses: []string{server.Address}, Username: "caddy", Password: "s3cret", Logger: logger})
		record(t, s, newUse(), nil)
		redistest.Await(t, "the warning", func() bool { return strings.Contains(s.Status().Warning, "allkeys-lru") })
		for _, line := range logs.All() {
			if text := fmt.Sprint(line.Message, line.ContextMap()); strings.Contains(text, "s3cret") || strings.Contains(text, "dpop:") {
				t.Errorf("a line with a secret or a key: %s", text)
			}
		}
	})
}

// A policy that evicts is warned of, once it can be seen.
func TestPolicy(t *testing.T) {
	logger, logs := observed()
	server, s := single(t, Options{Logger: logger})
	defer s.Open()()
	record(t, s, newUse(), nil)
	time.Sleep(100 * time.Millisecond)
	if logs.Len() != 0 || s.Status().Warning != "" {
		t.Errorf("%v %q", logs.All(), s.Status().Warning)
	}

	server.Stop()
	s = newTestStore(t, Options{Addresses: []string{server.Address}, Logger: logger})
	defer s.Open()()
	redistest.Await(t, "the error", func() bool { return s.Status().Err != nil })
	server = redistest.Start(t, "maxmemory-policy volatile-ttl")
	moved := newTestStore(t, Options{Addresses: []string{server.Address}, Logger: logger})
	defer moved.Open()()
	redistest.Await(t, "the warning", func() bool { return moved.Status().Warning != "" })
	lines := logs.FilterMessageSnippet("evicts").All()
	if len(lines) != 1 || lines[0].Level != zapcore.WarnLevel || lines[0].ContextMap()["maxmemory_policy"] != "volatile-ttl" {
		t.Errorf("%+v", lines)
	}
	status := moved.Status()
	if status.Kind != "redis" || status.Addresses[0] != server.Address || !strings.Contains(status.Warning, "maxmemory-policy is volatile-ttl") {
		t.Errorf("%+v", status)
	}
	// Another connection tells the same, and is not worth another line.
	server.Do(t, "CLIENT", "KILL", "TYPE", "normal")
	recovers(t, moved)
	time.Sleep(100 * time.Millisecond)
	if n := logs.FilterMessageSnippet("evicts").Len(); n != 1 {
		t.Errorf("%d lines", n)
	}
}

// A server that is not there at the start is looked at once it is.
func TestServerComesLater(t *testing.T) {
	logger, logs := observed()
	server, s := single(t, Options{Logger: logger}, "maxmemory-policy allkeys-random")
	server.Stop()
	defer s.Open()()
	redistest.Await(t, "the error", func() bool { return s.Status().Err != nil })
	server.Run(t)
	redistest.Await(t, "the warning", func() bool { return strings.Contains(s.Status().Warning, "allkeys-random") })
	if logs.FilterMessageSnippet("not to be had").Len() != 1 || logs.FilterMessageSnippet("to be had again").Len() != 1 {
		t.Errorf("%v", logs.All())
	}
	record(t, s, newUse(), nil)
}

// Whatever is wrong with Redis, a Record says in time that it cannot tell, and
// nothing needs to be done here when it is right again.
func TestTroubles(t *testing.T) {
	t.Run("full", func(t *testing.T) {
		server, s := single(t, Options{})
		record(t, s, newUse(), nil)
		server.Do(t, "CONFIG", "SET", "maxmemory", "1")
		recordFails(t, s, newUse(), "OOM")
		server.Do(t, "CONFIG", "SET", "maxmemory", "0")
		record(t, s, newUse(), nil)
	})
	t.Run("replica", func(t *testing.T) {
		master := redistest.Start(t)
		server, s := single(t, Options{})
		record(t, s, newUse(), nil)
		server.Do(t, "REPLICAOF", "127.0.0.1", master.Port)
		recordFails(t, s, newUse(), "READONLY")
		server.Do(t, "REPLICAOF", "NO", "ONE")
		recovers(t, s)
	})
	t.Run("loading", func(t *testing.T) {
		server, s := single(t, Options{}, "key-load-delay 1000", "loading-process-events-interval-bytes 1024", "enable-debug-command yes")
		server.Do(t, "DEBUG", "POPULATE", 3000)
		server.Do(t, "SAVE")
		server.Stop()
		server.Run(t)
		if err := timed(t, s, newUse()); !cannotTell(err) { // LOADING, or nothing yet
			t.Error(err)
		}
		recovers(t, s)
	})
	t.Run("stopped", func(t *testing.T) {
		server, s := single(t, Options{})
		record(t, s, newUse(), nil)
		server.Stop()
		recordFails(t, s, newUse(), "connect")
		server.Run(t)
		recovers(t, s)
	})
	t.Run("restarted", func(t *testing.T) {
		server, s := single(t, Options{})
		record(t, s, newUse(), nil)
		server.Stop()
		server.Run(t)
		record(t, s, newUse(), nil) // the loss of an idle connection costs no proof
	})
	t.Run("too many clients", func(t *testing.T) {
		server, s := single(t, Options{}, "maxclients 1")
		var other redigo.Conn
		redistest.Await(t, "the only place", func() bool {
			var err error
			if other, err = redigo.Dial("tcp", server.Address); err == nil {
				_, err = other.Do("PING")
			}
			return err == nil
		})
		if err := timed(t, s, newUse()); !cannotTell(err) {
			t.Error(err)
		}
		_ = other.Close()
		recovers(t, s)
	})
	t.Run("errors that are allowed", func(t *testing.T) {
		server, s := single(t, Options{AllowOnError: true})
		use := newUse()
		record(t, s, use, nil)
		server.Hang(t)
		record(t, s, use, nil)
		server.Resume(t)
		redistest.Await(t, "recovery", func() bool { return errors.Is(s.Record(context.Background(), use), replay.ErrReplayed) })
	})
}

// Thousands who ask a server that hangs get their answer in time, and leave
// nothing behind.
func TestHangs(t *testing.T) {
	server, s := single(t, Options{})
	flood := func(n int, check func(error)) {
		var wg sync.WaitGroup
		for range n {
			wg.Go(func() { check(timed(t, s, newUse())) })
		}
		wg.Wait()
	}
	flood(500, func(error) {})
	record(t, s, newUse(), nil)
	idle, idleSockets := runtime.NumGoroutine(), sockets(t)
	server.Hang(t)
	for range 3 {
		flood(2000, func(err error) {
			if !cannotTell(err) {
				t.Errorf("Record: %v", err)
			}
		})
		if n := runtime.NumGoroutine(); n > idle+200 {
			t.Errorf("%d goroutines, and %d before", n, idle)
		}
		if n := sockets(t); n > idleSockets+200 {
			t.Errorf("%d sockets, and %d before", n, idleSockets)
		}
	}
	server.Resume(t)
	recovers(t, s)
	for range 100 {
		use := newUse()
		record(t, s, use, nil)
		record(t, s, use, replay.ErrReplayed)
	}
}

// sockets returns how many this process has.
func sockets(t *testing.T) int {
	t.Helper()
	entries, err := os.ReadDir("/proc/self/fd")
	if err != nil {
		t.Fatal(err)
	}
	n := 0
	for _, entry := range entries {
		if target, _ := os.Readlink("/proc/self/fd/" + entry.Name()); strings.HasPrefix(target, "socket:") {
			n++
		}
	}
	return n
}

// A reply that is lost on the way is no replay: the command was done, and is not
// sent again.
func TestLostReply(t *testing.T) {
	server := redistest.Start(t)
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer listener.Close()
	var lose atomic.Bool
	go func() {
		for {
			client, err := listener.Accept()
			if err != nil {
				return
			}
			go relay(client, server.Address, &lose)
		}
	}()
	s := newTestStore(t, Options{Addresses: []string{listener.Addr().String()}})
	record(t, s, newUse(), nil)
	for n := range 20 {
		server.Do(t, "CONFIG", "RESETSTAT")
		lose.Store(true)
		use := newUse()
		recordFails(t, s, use, "")
		lose.Store(false)
		stats, err := redigo.String(server.Do(t, "INFO", "commandstats"), nil)
		if err != nil || !strings.Contains(stats, "cmdstat_set:calls=1,") {
			t.Fatalf("%d: not done once: %s", n, stats)
		}
		recovers(t, s)
		record(t, s, use, replay.ErrReplayed)
	}
}

// relay connects a client to the server, but loses its next reply, and the
// connection with it.
func relay(client net.Conn, address string, lose *atomic.Bool) {
	server, err := net.Dial("tcp", address)
	if err != nil {
		_ = client.Close()
		return
	}
	go func() { _, _ = io.Copy(server, client) }()
	defer client.Close()
	defer server.Close()
	octets := make([]byte, 4096)
	for {
		n, err := server.Read(octets)
		if err != nil || lose.Load() {
			return
		}
		if _, err := client.Write(octets[:n]); err != nil {
			return
		}
	}
}
