package authserver

import (
	"context"
	"crypto/x509"
	"errors"
	"net/http"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"
)

// Whoever comes first, and however many: one fetch.
func TestCacheFetchesOnceForAll(t *testing.T) {
	release := make(chan struct{})
	s := newServer(t, func(w http.ResponseWriter, r *http.Request) {
		<-release
		serve(kids("a"))(w, r)
	})
	c, _ := newTestCache(t, s)
	if st := c.Status(); st.Keys != 0 || st.Err != nil || !st.FetchedAt.IsZero() {
		t.Errorf("before the first fetch: %+v", st)
	}
	const callers = 100
	var found atomic.Int64
	var started, done sync.WaitGroup
	started.Add(callers)
	for range callers {
		done.Go(func() {
			started.Done()
			answer, err := c.Find(context.Background(), "a", algorithm("ES256"))
			keys := answer.Keys
			if err == nil && len(keys) == 1 {
				found.Add(1)
			}
		})
	}
	started.Wait()
	close(release)
	done.Wait()
	if found.Load() != callers {
		t.Errorf("%d of %d callers got the key", found.Load(), callers)
	}
	s.expect(t, 1)
	if st := c.Status(); st.Keys != 1 || st.Err != nil || st.FetchedAt.IsZero() {
		t.Errorf("after it: %+v", st)
	}
}

// The same where each caller is known to wait, and for a source that fails.
func TestCacheSharesAFailure(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var fetches atomic.Int64
		release := make(chan struct{})
		down := errors.New("down")
		c := NewKeyCache(func(context.Context) (*KeySet, time.Duration, error) {
			fetches.Add(1)
			<-release
			return nil, 0, down
		}, systemRoots)
		var done sync.WaitGroup
		for range 100 {
			done.Go(func() {
				u := findUnavailable(t, c, t.Context(), "a")
				if !errors.Is(u, down) {
					t.Errorf("got %v, which does not say why", u)
				}
			})
		}
		synctest.Wait()
		close(release)
		done.Wait()
		if fetches.Load() != 1 {
			t.Errorf("%d fetches", fetches.Load())
		}
	})
}

// After a failure the source is left alone for a while that doubles, and
// callers are told how much of it is left.
func TestCacheBacksOff(t *testing.T) {
	s := newServer(t, status(500))
	c, clock := newTestCache(t, s)
	requests := int64(0)
	fail := func(pause time.Duration) {
		t.Helper()
		findUnavailable(t, c, t.Context(), "a")
		requests++
		s.expect(t, requests)
		for _, passed := range []time.Duration{0, pause / 2, pause - 1} {
			clock.advance(passed)
			if u := findUnavailable(t, c, t.Context(), "a"); u.RetryAfter != pause-passed || u.Err != c.Status().Err {
				t.Errorf("pause %v, %v of it passed: RetryAfter %v, %v", pause, passed, u.RetryAfter, u.Err)
			}
			clock.advance(-passed)
		}
		s.expect(t, requests)
		clock.advance(pause)
	}
	for _, seconds := range []time.Duration{1, 2, 4, 8, 16, 30, 30, 30} {
		fail(seconds * time.Second)
	}
	if c.Status().Err == nil {
		t.Error("the status tells of no error")
	}

	s.respond(serve(kids("a")))
	expectFind(t, c, "a", 1)
	requests++
	s.expect(t, requests)
	if st := c.Status(); st.Err != nil || st.Keys != 1 {
		t.Errorf("recovered, but status %+v", st)
	}

	// and the next failure is a first one again
	clock.advance(maxStale)
	s.respond(serve("<html>"))
	fail(time.Second)
}

// While the source fails, a set serves for 24 hours after it was fetched.
func TestCacheServesAStaleSet(t *testing.T) {
	s := newServer(t, serve(kids("a"), "Cache-Control", "max-age=600"))
	c, clock := newTestCache(t, s)
	expectFind(t, c, "a", 1)
	s.respond(status(503))
	for at := time.Duration(0); at < maxStale; at += 7 * time.Minute {
		clock.set(at)
		expectFind(t, c, "a", 1)
		settle(c)
	}
	if st := c.Status(); st.Err == nil || st.Keys != 1 || !st.FetchedAt.Equal(epoch) {
		t.Errorf("status %+v", st)
	}
	clock.set(maxStale - 1)
	expectFind(t, c, "a", 1)
	settle(c)
	clock.set(maxStale + lastPause)
	before := s.requests.Load()
	findUnavailable(t, c, t.Context(), "a")
	s.expect(t, before+1)
	findUnavailable(t, c, t.Context(), "a") // within the pause
	s.expect(t, before+1)

	clock.advance(lastPause)
	s.respond(serve(kids("b")))
	expectFind(t, c, "b", 1)
	expectFind(t, c, "b", 1)
	s.expect(t, before+2)
}

// A set that nobody asked for in 24 hours does not serve, not even once.
func TestCacheDropsAnOldSet(t *testing.T) {
	s := newServer(t, serve(kids("a")))
	c, clock := newTestCache(t, s)
	expectFind(t, c, "a", 1)
	s.respond(status(500))
	clock.advance(maxStale)
	expectFind(t, c, "a", -1)
	s.expect(t, 2)
}

// Refreshed before it is stale, while callers are served from the old set.
func TestCacheRefreshesInTheBackground(t *testing.T) {
	s := newServer(t, serve(kids("old", "both"), "Cache-Control", "max-age=600"))
	c, clock := newTestCache(t, s)
	expectFind(t, c, "old", 1)
	clock.set(10*time.Minute - 1)
	expectFind(t, c, "old", 1)
	settle(c)
	s.expect(t, 1)

	release := make(chan struct{})
	s.respond(func(w http.ResponseWriter, r *http.Request) {
		<-release
		serve(kids("new", "both"), "Cache-Control", "max-age=600")(w, r)
	})
	clock.set(10 * time.Minute)
	for range 10 { // none of them waits: the answer comes after
		expectFind(t, c, "old", 1)
	}
	close(release)
	settle(c)
	s.expect(t, 2)
	expectFind(t, c, "new", 1)
	if st := c.Status(); !st.FetchedAt.Equal(epoch.Add(10 * time.Minute)) {
		t.Errorf("status %+v", st)
	}

	// the new set's own time counts from when it came
	clock.set(20*time.Minute - 1)
	expectFind(t, c, "both", 1)
	settle(c)
	s.expect(t, 2)
	clock.set(20 * time.Minute)
	expectFind(t, c, "both", 1)
	settle(c)
	s.expect(t, 3)
}

// A background refresh that fails is tried again, with the same pauses.
func TestCacheRefreshBacksOff(t *testing.T) {
	s := newServer(t, serve(kids("a"), "Cache-Control", "max-age=600"))
	c, clock := newTestCache(t, s)
	expectFind(t, c, "a", 1)
	s.respond(status(500))
	at := 10 * time.Minute
	for i, pause := range []time.Duration{1, 2, 4, 8} {
		for _, moment := range []time.Duration{at, at + 1, at + pause*time.Second - 1} {
			clock.set(moment)
			expectFind(t, c, "a", 1)
			settle(c)
			s.expect(t, int64(2+i))
		}
		at += pause * time.Second
	}
}

// A set that went stale unused may hold keys withdrawn since: its next caller
// waits for the new one.
func TestCacheRefreshesAStaleSetFirst(t *testing.T) {
	s := newServer(t, serve(kids("old"), "Cache-Control", "max-age=600"))
	c, clock := newTestCache(t, s)
	expectFind(t, c, "old", 1)
	s.respond(serve(kids("new")))
	clock.set(10*time.Minute + maxTimeout)
	expectFind(t, c, "old", 0) // shown absent by the fetch that this call waited for
	s.expect(t, 2)
	expectFind(t, c, "new", 1)
	s.expect(t, 2)
}

// But not for long, and not at all once the source is known to fail.
func TestCacheStaleWaitIsShort(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		set, err := ParseKeySet([]byte(kids("a")))
		if err != nil {
			t.Fatal(err)
		}
		var fetches atomic.Int64
		c := NewKeyCache(func(ctx context.Context) (*KeySet, time.Duration, error) {
			if fetches.Add(1) == 1 {
				return set, 10 * time.Minute, nil
			}
			select {
			case <-time.After(5 * time.Second):
				return nil, 0, errors.New("hangs")
			case <-ctx.Done():
				return nil, 0, ctx.Err()
			}
		}, systemRoots)
		took := func(ctx context.Context) time.Duration {
			start := time.Now()
			found, err := c.Find(ctx, "a", algorithm("ES256"))
			keys := found.Keys
			if len(keys) != 1 || err != nil {
				t.Errorf("got %v, %v: want the stale set's key", keys, err)
			}
			return time.Since(start)
		}
		took(t.Context())
		time.Sleep(time.Hour) // of the bubble's clock
		cancelled, cancel := context.WithCancel(t.Context())
		cancel()
		if d := took(cancelled); d != 0 {
			t.Errorf("a caller that is gone waited for %v", d)
		}
		if d := took(t.Context()); d != maxWait {
			t.Errorf("waited for %v, want %v", d, maxWait)
		}
		time.Sleep(4 * time.Second)
		synctest.Wait()
		time.Sleep(2 * time.Second) // past the pause: a fetch is under way again
		if d := took(t.Context()); d != 0 {
			t.Errorf("waited for %v, where the source is known to fail", d)
		}
		synctest.Wait()
		if fetches.Load() != 3 {
			t.Errorf("%d fetches, want 3", fetches.Load())
		}
		c.Close()
		synctest.Wait()
	})
}

// One caller's end does not end the fetch that others wait for.
func TestCacheOutlivesACaller(t *testing.T) {
	arrived, release := make(chan struct{}), make(chan struct{})
	var ended atomic.Bool
	s := newServer(t, func(w http.ResponseWriter, r *http.Request) {
		close(arrived)
		select {
		case <-release:
			serve(kids("a"))(w, r)
		case <-r.Context().Done():
			ended.Store(true)
		}
	})
	c, _ := newTestCache(t, s)
	ctx, cancel := context.WithCancel(t.Context())
	go func() {
		<-arrived
		cancel()
	}()
	if u := findUnavailable(t, c, ctx, "a"); !errors.Is(u, context.Canceled) {
		t.Errorf("got %v, want context.Canceled within", u)
	}
	close(release)
	expectFind(t, c, "a", 1)
	s.expect(t, 1)
	if ended.Load() || c.Status().Err != nil {
		t.Errorf("the fetch was cancelled: %+v", c.Status())
	}
}

func TestCacheClose(t *testing.T) {
	arrived, ended := make(chan struct{}), make(chan struct{})
	s := newServer(t, func(_ http.ResponseWriter, r *http.Request) {
		close(arrived)
		<-r.Context().Done()
		close(ended)
	})
	c, clock := newTestCache(t, s)
	go func() {
		<-arrived
		c.Close()
	}()
	if u := findUnavailable(t, c, t.Context(), "a"); !errors.Is(u, context.Canceled) {
		t.Errorf("got %v, want context.Canceled within", u)
	}
	<-ended
	c.Close() // twice is once
	clock.advance(time.Hour)
	expectFind(t, c, "a", -1) // and nothing is asked for any more
	s.expect(t, 1)
}

func TestUnavailableError(t *testing.T) {
	down := errors.New("down")
	u := &UnavailableError{Err: down, RetryAfter: time.Second}
	if !errors.Is(u, down) || u.Error() != "not to be had for now: down" {
		t.Error(u)
	}
}

// A set that is fetched again as it was is the same set: what it has verified
// stays verified. Any other is another.
func TestServing(t *testing.T) {
	s := newServer(t, serve(kids("a"), "Cache-Control", "max-age=600"))
	c, clock := newTestCache(t, s)
	serving := func() *KeySet {
		t.Helper()
		set, err := c.Serving(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		return set
	}
	first := serving()
	clock.set(10 * time.Minute)
	serving() // starts the refresh
	settle(c)
	s.expect(t, 2)
	if serving() != first {
		t.Error("the same set is another")
	}
	s.respond(serve(kids("a", "b"), "Cache-Control", "max-age=600"))
	clock.set(20 * time.Minute)
	serving()
	settle(c)
	if serving() == first {
		t.Error("another set is the same")
	}
	s.respond(status(500))
	clock.set(72 * time.Hour)
	if set, err := c.Serving(t.Context()); err == nil {
		t.Errorf("served %v after its time", set)
	}
}

// A set that came while other roots were trusted serves no more: whoever they vouched
// for chose its keys. Where it cannot be fetched anew, there is none.
func TestSetOfOtherRoots(t *testing.T) {
	set, err := ParseKeySet([]byte(`{"keys":[]}`))
	if err != nil {
		t.Fatal(err)
	}
	roots, failed := x509.NewCertPool(), error(nil)
	c := NewKeyCache(func(context.Context) (*KeySet, time.Duration, error) { return set, time.Hour, failed }, func() *x509.CertPool { return roots })
	defer c.Close()
	if _, err := c.Serving(t.Context()); err != nil {
		t.Fatal(err)
	}
	roots, failed = x509.NewCertPool(), errors.New("whom the new roots do not vouch for")
	if _, err := c.Serving(t.Context()); !errors.Is(err, failed) {
		t.Errorf("with other roots: %v", err)
	}
}
