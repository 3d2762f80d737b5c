package authserver

import (
	"context"
	"crypto/sha256"
	"crypto/x509"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/caddy-dpop/caddy-dpop/internal/jose"
)

// KeyFinder finds the keys to verify a token with.
type KeyFinder interface {
	// Find returns the keys to try for a token's kid and alg: none if the issuer
	// has no such key. An *UnavailableError says that this cannot be told now.
	Find(ctx context.Context, kid string, algorithm *jose.Algorithm) (Found, error)

	// Serving returns the set that serves now, and has it refreshed like Find. A
	// token that another set has verified must be verified again: its key may have
	// been withdrawn.
	Serving(ctx context.Context) (*KeySet, error)

	// Status tells operators how the set is.
	Status() KeyStatus
}

// Found is what a key set holds for a token.
type Found struct {
	Keys []*jose.Key
	Set  *KeySet // that holds them
}

// UnavailableError says that what was asked for cannot be had for now.
type UnavailableError struct {
	Err        error
	RetryAfter time.Duration
}

func (e *UnavailableError) Error() string { return "not to be had for now: " + e.Err.Error() }

// Unwrap returns why it cannot be had.
func (e *UnavailableError) Unwrap() error { return e.Err }

const (
	// maxStale is how long a set serves while it cannot be refreshed.
	maxStale = 24 * time.Hour
	// maxWait is how long requests wait for the refresh of a set that nobody
	// used for so long that it went stale. It goes on without them.
	maxWait = time.Second
	// maxTimeout is longer than the refresh of a set in use takes.
	maxTimeout = 30 * time.Second
	// missInterval is the least time between fetches for unknown key ids.
	missInterval = 10 * time.Second
	// maxAbsent bounds the memory of key ids that a fetch has shown absent.
	maxAbsent = 1000
	// Pauses after failures: the first, doubled each time, up to the last.
	firstPause = time.Second
	lastPause  = 30 * time.Second
)

// KeyCache keeps the set of one source. It fetches when keys are first asked for,
// once for all who wait, and before the set goes stale. There is nothing to
// stop but the fetch under way: see Close.
type KeyCache struct {
	// Fetched is called after each fetch, with its error, if set before the first.
	Fetched func(error)

	source KeySource
	roots  func() *x509.CertPool
	now    func() time.Time
	ctx    context.Context // of fetches, which no request's end may cancel
	cancel context.CancelFunc

	mu        sync.Mutex
	set       *KeySet // nil: none yet
	setRoots  *x509.CertPool
	fetchedAt time.Time
	fresh     time.Duration
	flight    *flight // nil: none under way
	failures  int     // in a row
	lastErr   error
	retryAt   time.Time // no fetch before, after failures
	missAt    time.Time // when the last fetch for an unknown kid began
	absent    absentKeys
}

// flight is one fetch, which all who want it wait for.
type flight struct {
	done chan struct{}
	err  error // to be read after done
}

// NewKeyCache returns an empty cache in front of the source. A set does not serve
// once the roots are others than it was fetched under.
func NewKeyCache(source KeySource, roots func() *x509.CertPool) *KeyCache {
	ctx, cancel := context.WithCancel(context.Background())
	return &KeyCache{source: source, roots: roots, now: time.Now, ctx: ctx, cancel: cancel, absent: make(absentKeys)}
}

// Close cancels the fetch under way, if any.
func (c *KeyCache) Close() { c.cancel() }

// Find implements KeyFinder.
func (c *KeyCache) Find(ctx context.Context, kid string, algorithm *jose.Algorithm) (Found, error) {
	set, fetched, err := c.usable(ctx)
	if err != nil {
		return Found{}, err
	}
	keys, known := set.find(kid, algorithm)
	switch {
	case known:
		return Found{keys, set}, nil
	case fetched:
		c.mu.Lock()
		defer c.mu.Unlock()
		c.absent.add(kid)
		return Found{nil, set}, nil
	}
	return c.findUnknown(ctx, set, kid, algorithm)
}

// Serving implements KeyFinder.
func (c *KeyCache) Serving(ctx context.Context) (*KeySet, error) {
	set, _, err := c.usable(ctx)
	return set, err
}

// usable returns a set that may serve, and whether it was fetched since the
// call began.
func (c *KeyCache) usable(ctx context.Context) (set *KeySet, fetched bool, err error) {
	c.mu.Lock()
	now := c.now()
	age := now.Sub(c.fetchedAt)
	if c.set == nil || age >= maxStale || c.setRoots != c.roots() {
		set, fetched, err = c.first(ctx, now)
		c.mu.Unlock()
		return set, fetched, err
	}
	if age >= c.fresh && !now.Before(c.retryAt) {
		c.start()
	}
	set = c.set
	f := c.flight
	// Traffic refreshes a set as soon as it is stale. One well past that was not
	// used for a while, and may hold keys withdrawn since: worth a short wait,
	// unless the source is known to be failing.
	wait := f != nil && age >= c.fresh+maxTimeout && c.failures == 0
	c.mu.Unlock()
	if !wait {
		return set, false, nil
	}
	timer := time.NewTimer(maxWait)
	defer timer.Stop()
	select {
	case <-f.done:
	case <-timer.C:
	case <-ctx.Done():
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.set, c.set != set, nil
}

// first fetches the set when there is none that may serve. It is called with
// the lock held, and returns so.
func (c *KeyCache) first(ctx context.Context, now time.Time) (*KeySet, bool, error) {
	if c.flight == nil && now.Before(c.retryAt) {
		return nil, false, &UnavailableError{c.lastErr, c.retryAt.Sub(now)}
	}
	if err := c.await(ctx, c.start()); err != nil {
		return nil, false, c.unavailable(err)
	}
	return c.set, true, nil
}

var errNotYet = errors.New("the key id is unknown, and was looked up too recently to do it again")

// findUnknown looks a kid up that a set does not hold, if it is time to.
func (c *KeyCache) findUnknown(ctx context.Context, without *KeySet, kid string, algorithm *jose.Algorithm) (Found, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.set != without { // a fetch has ended meanwhile
		if keys, known := c.set.find(kid, algorithm); known {
			return Found{keys, c.set}, nil
		}
	}
	now := c.now()
	pause := max(missInterval-now.Sub(c.missAt), c.retryAt.Sub(now))
	if c.flight == nil && pause > 0 {
		if c.absent.has(kid) {
			return Found{nil, c.set}, nil
		}
		return Found{}, &UnavailableError{errNotYet, pause}
	}
	if c.flight == nil {
		c.missAt = now
	}
	if err := c.await(ctx, c.start()); err != nil {
		// What an earlier fetch has shown is no answer for this one.
		c.absent.remove(kid)
		return Found{}, c.unavailable(err)
	}
	keys, known := c.set.find(kid, algorithm)
	if !known {
		c.absent.add(kid)
	}
	return Found{keys, c.set}, nil
}

// unavailable says when keys will be asked for again, after a failure.
func (c *KeyCache) unavailable(err error) error {
	return &UnavailableError{err, max(firstPause, c.retryAt.Sub(c.now()))}
}

// await waits for a flight, without the lock that its caller holds.
func (c *KeyCache) await(ctx context.Context, f *flight) error {
	c.mu.Unlock()
	defer c.mu.Lock()
	select {
	case <-f.done:
		return f.err
	case <-ctx.Done():
		return fmt.Errorf("waiting for keys: %w", ctx.Err())
	}
}

// start begins a fetch unless one is under way, and returns it. It is called
// with the lock held.
func (c *KeyCache) start() *flight {
	if c.flight != nil {
		return c.flight
	}
	f := &flight{done: make(chan struct{})}
	c.flight = f
	go func() {
		defer close(f.done)
		roots := c.roots()
		set, fresh, err := c.source(c.ctx)
		if c.Fetched != nil {
			c.Fetched(err)
		}
		c.mu.Lock()
		defer c.mu.Unlock()
		c.flight, f.err, c.lastErr = nil, err, err
		now := c.now()
		if err != nil {
			c.retryAt = now.Add(min(firstPause<<min(c.failures, 5), lastPause))
			c.failures++
			return
		}
		if c.set == nil || c.setRoots != roots || c.set.sum != set.sum {
			c.set, c.setRoots = set, roots // what it verified stays verified otherwise
		}
		c.fresh, c.fetchedAt = fresh, now
		c.failures, c.retryAt = 0, time.Time{}
	}()
	return f
}

// KeyStatus is what an operator wants to know of a key set.
type KeyStatus struct {
	Keys      int       // that can verify tokens
	FetchedAt time.Time // zero: never
	Err       error     // of the last fetch
}

// Status implements KeyFinder.
func (c *KeyCache) Status() KeyStatus {
	c.mu.Lock()
	defer c.mu.Unlock()
	status := KeyStatus{FetchedAt: c.fetchedAt, Err: c.lastErr}
	if c.set != nil {
		status.Keys = c.set.Len()
	}
	return status
}

// absentKeys are the key ids that a fetch has shown absent, by their hash.
type absentKeys map[[sha256.Size]byte]struct{}

func (a absentKeys) has(kid string) bool {
	_, ok := a[sha256.Sum256([]byte(kid))]
	return ok
}

// add lets one of many go to make room: its next token is looked up again, or
// asked to wait.
func (a absentKeys) add(kid string) {
	if len(a) >= maxAbsent && !a.has(kid) {
		for other := range a {
			delete(a, other)
			break
		}
	}
	a[sha256.Sum256([]byte(kid))] = struct{}{}
}

func (a absentKeys) remove(kid string) { delete(a, sha256.Sum256([]byte(kid))) }
