// Package redis is a replay store in Redis, or Valkey, which any number of
// processes can share.
//
// A proof is recorded by one command, SET with NX and PX, which is sent once: if
// its reply is lost, nobody can tell whether this was the first use, and a second
// command would find the record of the first. (With what go-redis does by default,
// 20 of 20 first uses whose reply was lost were said to be replays.)
//
// Of clients for Redis this takes redigo, for the protocol alone. Measured on two
// cores with the server beside it, 50 goroutines at once, in processor time of the
// client and of the server for each proof:
//
//	go-redis v9.23.0   6.8 + 3.8 µs   14 allocations   8.2 MB more of Caddy
//	rueidis  v1.0.79   2.9 + 1.8 µs    6 allocations  10.2 MB
//	redigo   v1.9.3    5.1 + 3.4 µs   12 allocations   0.04 MB, as a pool
//	this package       4.4 + 2.4 µs   16 allocations   0.04 MB and itself
//
// rueidis keeps a goroutine for each of the calls that gave up while a server
// hangs, 2,000 after as many requests for a second and more, and panics when a
// server sends what it was not asked for. The others need a connection for each
// command under way. So commands share one here, see conn; what a cluster and
// sentinels need of a client is little, see client.
package redis

import (
	"context"
	"crypto/tls"
	"encoding/base64"
	"errors"
	"maps"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"go.uber.org/zap"

	"github.com/caddy-dpop/caddy-dpop/replay"
)

// Options are where the records are, and how they get there.
type Options struct {
	// Addresses, each with a port, are of the server, of nodes of a cluster, or with
	// MasterName of sentinels.
	Addresses  []string
	MasterName string

	Username string // of an ACL; empty: the default user
	Password string
	DB       int
	// TLS returns the configuration of a new connection, which is changed. Nil:
	// connections are not encrypted.
	TLS func() *tls.Config

	KeyPrefix string
	// Timeout is for each Record.
	Timeout time.Duration
	// AllowOnError accepts proofs that cannot be recorded because of an error.
	AllowOnError bool

	// Retention is that of all stores whose records are in the same place.
	Retention *replay.Retention
	// Logger returns where to log, as of now.
	Logger func() *zap.Logger
}

// Store records proofs in Redis.
type Store struct {
	*replay.Retention

	options Options
	client  *client
	now     func() time.Time

	lastErr atomic.Pointer[error] // nil: none

	mu       sync.Mutex
	passed   int               // proofs that an error let pass, and no line tells of
	told     time.Time         // when a line did
	policies map[string]string // what is wrong with it, by address
}

// New returns a store. It opens no connection until it is asked to.
func New(options Options) *Store {
	s := &Store{Retention: options.Retention, options: options, now: time.Now, policies: make(map[string]string)}
	s.client = newClient(options, s.checkPolicy)
	return s
}

// Open opens the connection in the background, trying until it can, or until
// stop is called.
func (s *Store) Open() (stop func()) {
	ctx, cancel := context.WithCancel(s.client.closed)
	go s.open(ctx)
	return cancel
}

func (s *Store) open(ctx context.Context) {
	const interval = time.Second
	for tries := 0; ; tries++ {
		_, err := s.client.entry.connection(ctx)
		logger := s.options.Logger().With(zap.Strings("addresses", s.options.Addresses))
		switch {
		case ctx.Err() != nil:
			return
		case err == nil && tries > 0:
			s.note(nil)
			logger.Info("Redis is to be had again")
			return
		case err == nil:
			return
		case tries == 0:
			logger.Warn("Redis is not to be had, and accepted proofs cannot be recorded", zap.Error(err))
		}
		s.note(err)
		select {
		case <-time.After(interval):
		case <-ctx.Done():
		}
	}
}

// Close ends all connections, and every Record that waits.
func (s *Store) Close() { s.client.shutDown() }

// margin is how much longer than it must a record is kept: so far may the clocks
// of processes that share the records differ.
const margin = 5 * time.Second

// Record implements replay.Store.
func (s *Store) Record(ctx context.Context, use replay.Use) error {
	now := s.now()
	admission, err := s.Admit(use, now)
	if err != nil {
		return err
	}
	end := time.Unix(int64(admission.Until)+1, 0) // of that second
	err = s.set(ctx, use.Key, max(end.Sub(now), 0)+margin)
	switch {
	case err == nil || errors.Is(err, replay.ErrReplayed):
		s.note(nil)
		return err
	case ctx.Err() != nil: // the client is gone, and says nothing of Redis
		return err
	}
	s.note(err)
	if s.options.AllowOnError {
		s.pass(err)
		return nil
	}
	return err
}

// set adds the record, unless it is there.
func (s *Store) set(ctx context.Context, key replay.Key, ttl time.Duration) error {
	ctx, cancel := context.WithTimeoutCause(ctx, s.options.Timeout, errTimeout)
	defer cancel()
	name := s.nameOf(key)
	value, err := s.client.do(ctx, name, "SET", name, "1", "NX", "PX", ttl.Milliseconds())
	switch {
	case err != nil:
		return err
	case value == nil:
		return replay.ErrReplayed
	case value != "OK":
		return errors.New("the server does not answer as Redis would")
	}
	return nil
}

// nameOf returns the name of a key in Redis.
func (s *Store) nameOf(key replay.Key) string {
	return s.options.KeyPrefix + base64.RawURLEncoding.EncodeToString(key[:])
}

// note remembers an error, or that there is none any more.
func (s *Store) note(err error) {
	switch {
	case err != nil:
		s.lastErr.Store(&err)
	case s.lastErr.Load() != nil:
		s.lastErr.Store(nil)
	}
}

// pass logs that proofs were accepted although they could not be recorded: a
// line a second at most.
func (s *Store) pass(err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.passed++
	if time.Since(s.told) < time.Second {
		return
	}
	s.options.Logger().Warn("accepted proofs that could not be recorded, so that each of them could be used again",
		zap.Int("proofs", s.passed), zap.Strings("addresses", s.options.Addresses), zap.Error(err))
	s.passed, s.told = 0, time.Now()
}

// Status is what an operator may want to know of a store.
type Status struct {
	Kind      string
	Addresses []string
	Err       error  // of the last Record, or try to connect
	Warning   string // what is wrong with servers' settings
}

// Status returns how the store fares.
func (s *Store) Status() Status {
	status := Status{Kind: "redis", Addresses: slices.Clone(s.options.Addresses)}
	if err := s.lastErr.Load(); err != nil {
		status.Err = *err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, address := range slices.Sorted(maps.Keys(s.policies)) {
		status.Warning = strings.TrimPrefix(status.Warning+"; "+s.policies[address], "; ")
	}
	return status
}

// Interface guards
var _ replay.Store = (*Store)(nil)
