package redis

import (
	"bufio"
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"net"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"go.uber.org/zap"
	"go.uber.org/zap/zapcore"
	"go.uber.org/zap/zaptest/observer"

	"github.com/caddy-dpop/caddy-dpop/replay"
)

const testTimeout = 250 * time.Millisecond

// newTestStore returns a store for proofs of at most 70 seconds or, by nonce, 300.
func newTestStore(t testing.TB, options Options) *Store {
	t.Helper()
	options.KeyPrefix = "dpop:"
	if options.Timeout == 0 {
		options.Timeout = testTimeout
	}
	if options.Logger == nil {
		options.Logger = zap.NewNop
	}
	options.Retention = new(replay.Retention)
	s := New(options)
	t.Cleanup(s.Close)
	t.Cleanup(s.Retain(replay.Lifetimes{IssuedAt: 70 * time.Second, Nonce: 300 * time.Second}))
	return s
}

// observed returns a logger for Options, and what it logs.
func observed() (func() *zap.Logger, *observer.ObservedLogs) {
	core, logs := observer.New(zapcore.DebugLevel)
	logger := zap.New(core)
	return func() *zap.Logger { return logger }, logs
}

// newUse returns the use of a new proof, made now.
func newUse() replay.Use {
	use := replay.Use{IssuedAt: time.Now(), By: replay.ByIssuedAt}
	_, _ = rand.Read(use.Key[:])
	return use
}

// record fails unless a Record returns in time what it should.
func record(t testing.TB, s *Store, use replay.Use, want error) {
	t.Helper()
	if err := timed(t, s, use); !errors.Is(err, want) {
		t.Fatalf("Record: %v, want %v", err, want)
	}
}

// recordFails fails unless a Record returns in time that the store cannot tell,
// for a reason that names the word.
func recordFails(t testing.TB, s *Store, use replay.Use, word string) {
	t.Helper()
	if err := timed(t, s, use); !cannotTell(err) || !strings.Contains(err.Error(), word) {
		t.Fatalf("Record: %v, want an error with %q", err, word)
	}
}

func timed(t testing.TB, s *Store, use replay.Use) error {
	t.Helper()
	start := time.Now()
	err := s.Record(context.Background(), use)
	if took := time.Since(start); took > s.options.Timeout+100*time.Millisecond {
		t.Errorf("Record took %v", took)
	}
	return err
}

func cannotTell(err error) bool {
	if err == nil {
		return false
	}
	for _, known := range []error{replay.ErrReplayed, replay.ErrForgotten, replay.ErrBeforeStart, replay.ErrFull} {
		if errors.Is(err, known) {
			return false
		}
	}
	return true
}

// recovers waits until proofs are recorded again.
func recovers(t testing.TB, s *Store) {
	t.Helper()
	start := time.Now()
	for s.Record(context.Background(), newUse()) != nil {
		if time.Since(start) > 30*time.Second {
			t.Fatal("no recovery")
		}
		time.Sleep(10 * time.Millisecond)
	}
}

// fakeServer speaks Redis' protocol, and answers what a test wants.
type fakeServer struct {
	address     string
	connections atomic.Int64
	answer      func(args []string) string // with its end; empty: none

	mu  sync.Mutex
	got []string
}

func fake(t testing.TB, answer func(args []string) string) *fakeServer {
	t.Helper()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = listener.Close() })
	f := &fakeServer{address: listener.Addr().String(), answer: answer}
	go func() {
		for {
			connection, err := listener.Accept()
			if err != nil {
				return
			}
			f.connections.Add(1)
			t.Cleanup(func() { _ = connection.Close() })
			go f.serve(connection)
		}
	}()
	return f
}

func (f *fakeServer) serve(connection net.Conn) {
	defer connection.Close()
	reader := bufio.NewReader(connection)
	for {
		args, err := readCommand(reader)
		if err != nil {
			return
		}
		f.mu.Lock()
		f.got = append(f.got, strings.Join(args, " "))
		f.mu.Unlock()
		if _, err := io.WriteString(connection, f.answer(args)); err != nil {
			return
		}
	}
}

func readCommand(reader *bufio.Reader) (args []string, err error) {
	var n, size int
	if _, err = fmt.Fscanf(reader, "*%d\r\n", &n); err != nil {
		return nil, err
	}
	for range n {
		if _, err = fmt.Fscanf(reader, "$%d\r\n", &size); err != nil {
			return nil, err
		}
		arg := make([]byte, size+2)
		if _, err = io.ReadFull(reader, arg); err != nil {
			return nil, err
		}
		args = append(args, string(arg[:size]))
	}
	return args, nil
}

// commands returns what the server got that begins so.
func (f *fakeServer) commands(prefix string) (all []string) {
	f.mu.Lock()
	defer f.mu.Unlock()
	for _, command := range f.got {
		if strings.HasPrefix(command, prefix) {
			all = append(all, command)
		}
	}
	return all
}

func (f *fakeServer) count(prefix string) int { return len(f.commands(prefix)) }

// always answers one thing to each SET, and what Redis would to all else.
func always(answer string) func([]string) string {
	return func(args []string) string {
		switch {
		case args[0] == "HELLO":
			return "-ERR unknown command 'HELLO'\r\n"
		case args[0] == "SET" || answer == "":
			return answer
		case args[0] == "CONFIG":
			return "*2\r\n$16\r\nmaxmemory-policy\r\n$10\r\nnoeviction\r\n"
		}
		return "+OK\r\n"
	}
}
