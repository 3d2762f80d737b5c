package authserver

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/caddy-dpop/caddy-dpop/internal/jose"
)

// "Refetched for unknown key ids at most every 10 seconds an
// issuer (other fetches do not count). Until an unknown key id could be looked
// up, its token is 503 with Retry-After; once a fetch has shown it absent, 401."

// The initial fetch answers the call that caused it. It does not count
// against the ten seconds: the next unknown kid is looked up at once.
func TestUnknownAfterTheInitialFetch(t *testing.T) {
	s := newServer(t, serve(kids("a")))
	c, _ := newTestCache(t, s)
	expectFind(t, c, "x", 0)
	s.expect(t, 1)
	expectFind(t, c, "y", 0)
	s.expect(t, 2)
	expectFind(t, c, "z", -1)
	s.expect(t, 2)
}

func TestUnknownIsLookedUpEveryTenSeconds(t *testing.T) {
	s := newServer(t, serve(kids("a"), "Cache-Control", "max-age=3600"))
	c, clock := newTestCache(t, s)
	expectFind(t, c, "a", 1)
	s.expect(t, 1)

	expectFind(t, c, "x", 0) // a fetch shows it absent
	s.expect(t, 2)
	for _, passed := range []time.Duration{0, 1, time.Second, missInterval - 1} {
		clock.set(passed)
		expectFind(t, c, "x", 0) // remembered
		if u := findUnavailable(t, c, t.Context(), "y"); u.RetryAfter != missInterval-passed {
			t.Errorf("after %v: RetryAfter %v", passed, u.RetryAfter)
		}
		expectFind(t, c, "a", 1) // known ones are served all the while
	}
	s.expect(t, 2)

	clock.set(missInterval)
	expectFind(t, c, "y", 0)
	s.expect(t, 3)
	expectFind(t, c, "x", 0) // still remembered
	expectFind(t, c, "z", -1)
	s.expect(t, 3)

	clock.set(2 * missInterval)
	expectFind(t, c, "x", 0) // looked up again, for it may be there by now
	s.expect(t, 4)
}

// A rotated key is found by its first token, without a wait.
func TestUnknownFindsARotatedKey(t *testing.T) {
	s := newServer(t, serve(kids("old"), "Cache-Control", "max-age=3600"))
	c, clock := newTestCache(t, s)
	expectFind(t, c, "old", 1)
	s.respond(serve(kids("old", "new"), "Cache-Control", "max-age=3600"))
	expectFind(t, c, "new", 1)
	expectFind(t, c, "new", 1)
	s.expect(t, 2)

	// Who looked at the old set, while another's fetch was about to end, finds it too.
	if found, err := c.findUnknown(t.Context(), nil, "new", jose.AllAlgorithms().Find("ES256")); err != nil || len(found.Keys) != 1 {
		t.Errorf("after another's fetch: %d keys, %v", len(found.Keys), err)
	}
	s.expect(t, 2)

	// One that was shown absent is found once it is there.
	clock.advance(missInterval)
	expectFind(t, c, "newer", 0)
	s.respond(serve(kids("new", "newer")))
	clock.advance(missInterval)
	expectFind(t, c, "newer", 1)
	expectFind(t, c, "old", -1) // withdrawn meanwhile, and not yet looked up
	s.expect(t, 4)
}

// Fetches for other reasons do not count against the ten seconds.
func TestUnknownAfterARefresh(t *testing.T) {
	s := newServer(t, serve(kids("a"), "Cache-Control", "max-age=600"))
	c, clock := newTestCache(t, s)
	expectFind(t, c, "a", 1)
	clock.set(10 * time.Minute)
	expectFind(t, c, "a", 1)
	settle(c)
	s.expect(t, 2)
	s.respond(serve(kids("a", "b")))
	expectFind(t, c, "b", 1)
	s.expect(t, 3)
}

// A lookup that fails shows nothing: 503 until one succeeds.
func TestUnknownWhileTheSourceFails(t *testing.T) {
	s := newServer(t, serve(kids("a"), "Cache-Control", "max-age=3600"))
	c, clock := newTestCache(t, s)
	expectFind(t, c, "a", 1)
	s.respond(status(500))
	for i := range 5 {
		clock.set(time.Duration(i) * missInterval)
		expectFind(t, c, "b", -1)
		s.expect(t, int64(2+i))
		expectFind(t, c, "b", -1)
		expectFind(t, c, "c", -1)
		clock.advance(missInterval - 1)
		expectFind(t, c, "b", -1)
		s.expect(t, int64(2+i))
		expectFind(t, c, "a", 1)
	}
	// The fifth failure's pause of 16 seconds is longer than the ten.
	clock.set(4*missInterval + 16*time.Second - 1)
	if u := findUnavailable(t, c, t.Context(), "b"); u.RetryAfter != 1 {
		t.Errorf("RetryAfter %v", u.RetryAfter)
	}
	s.expect(t, 6)
	s.respond(serve(kids("a", "b")))
	clock.advance(1)
	expectFind(t, c, "b", 1)
	s.expect(t, 7)
}

// However many different unknown kids arrive, and however: one fetch.
func TestUnknownFlood(t *testing.T) {
	s := newServer(t, serve(kids("a"), "Cache-Control", "max-age=3600"))
	c, clock := newTestCache(t, s)
	expectFind(t, c, "a", 1)
	for round := range int64(3) {
		s.expect(t, 1+round)
		var absent, later atomic.Int64
		var done sync.WaitGroup
		for i := range 1000 {
			done.Go(func() {
				if find(t, c, fmt.Sprintf("x-%d-%d", round, i)) < 0 {
					later.Add(1)
				} else {
					absent.Add(1)
				}
			})
		}
		done.Wait()
		s.expect(t, 2+round)
		if absent.Load() == 0 || absent.Load()+later.Load() != 1000 {
			t.Errorf("%d absent, %d to try later", absent.Load(), later.Load())
		}
		clock.advance(missInterval)
	}
}

// The same with each caller known to wait for the one fetch: all are answered
// by it, and those who come after within the ten seconds cause no other.
func TestUnknownFloodSharesOneFetch(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		set, err := ParseKeySet([]byte(kids("a")))
		if err != nil {
			t.Fatal(err)
		}
		var fetches atomic.Int64
		release := make(chan struct{}, 1)
		c := NewKeyCache(func(context.Context) (*KeySet, time.Duration, error) {
			fetches.Add(1)
			<-release
			return set, time.Hour, nil
		}, systemRoots)
		release <- struct{}{}
		expectFind(t, c, "a", 1)
		var done sync.WaitGroup
		for i := range 1000 {
			done.Go(func() { expectFind(t, c, fmt.Sprint("x-", i), 0) })
		}
		gone, cancel := context.WithCancel(t.Context())
		done.Go(func() {
			if u := findUnavailable(t, c, gone, "gone"); !errors.Is(u, context.Canceled) {
				t.Error(u)
			}
		})
		synctest.Wait()
		cancel() // one of them goes: the fetch goes on
		synctest.Wait()
		release <- struct{}{}
		done.Wait()
		for i := range 1000 {
			expectFind(t, c, fmt.Sprint("x-", i), 0)
			expectFind(t, c, fmt.Sprint("y-", i), -1)
		}
		expectFind(t, c, "gone", -1) // never told that it is absent
		if fetches.Load() != 2 {
			t.Errorf("%d fetches, want 2", fetches.Load())
		}
	})
}

// An unknown kid that comes while a background refresh is under way waits for
// that one, and does not spend the ten seconds.
func TestUnknownJoinsARefresh(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var fetches atomic.Int64
		release := make(chan string, 1)
		c := NewKeyCache(func(context.Context) (*KeySet, time.Duration, error) {
			fetches.Add(1)
			set, err := ParseKeySet([]byte(<-release))
			return set, 10 * time.Minute, err
		}, systemRoots)
		release <- kids("a")
		expectFind(t, c, "a", 1)
		time.Sleep(10 * time.Minute) // of the bubble's clock
		expectFind(t, c, "a", 1)     // starts the refresh
		var done sync.WaitGroup
		done.Go(func() { expectFind(t, c, "b", 1) })
		done.Go(func() { expectFind(t, c, "x", 0) })
		synctest.Wait()
		release <- kids("a", "b")
		done.Wait()
		if fetches.Load() != 2 {
			t.Errorf("%d fetches, want 2", fetches.Load())
		}
		release <- kids("a", "b", "c")
		expectFind(t, c, "c", 1)
		expectFind(t, c, "x", 0) // as the refresh showed
		expectFind(t, c, "y", -1)
		if fetches.Load() != 3 {
			t.Errorf("%d fetches, want 3", fetches.Load())
		}
	})
}

// A token without kid that no key fits is like one of an unknown kid. One with
// the kid of a key that is not for its alg is not: a fetch would tell nothing.
func TestUnknownByAlgorithm(t *testing.T) {
	s := newServer(t, serve(setText(rsaJWK().with(fields{"kid": "r"}), ecJWK().with(fields{"kid": "e", "alg": "ES512"}))))
	c, _ := newTestCache(t, s)
	expectFind(t, c, "r", 0)
	expectFind(t, c, "r", 0)
	expectFind(t, c, "e", 0)
	s.expect(t, 1)
	expectFind(t, c, "", 0)
	s.expect(t, 2)
	expectFind(t, c, "", 0)
	expectFind(t, c, "x", -1)
	s.expect(t, 2)
}

// What attackers can make the cache remember is bounded.
func TestUnknownMemoryIsBounded(t *testing.T) {
	absent := make(absentKeys)
	for i := range 3 * maxAbsent {
		absent.add(fmt.Sprint(i))
		if !absent.has(fmt.Sprint(i)) {
			t.Fatal("the last one was not remembered")
		}
		if len(absent) != min(i+1, maxAbsent) { // one goes for one that comes
			t.Fatalf("%d of %d remembered", len(absent), i+1)
		}
	}
	absent.add(fmt.Sprint(3*maxAbsent - 1)) // once more
	if len(absent) != maxAbsent {
		t.Errorf("%d remembered, %d after one of them came again", maxAbsent, len(absent))
	}
}

// What the fetch that a call waited for has shown holds for the next call too.
func TestUnknownFirstOfAll(t *testing.T) {
	s := newServer(t, serve(kids("a"), "Cache-Control", "max-age=3600"))
	c, _ := newTestCache(t, s)
	expectFind(t, c, "x", 0)
	expectFind(t, c, "y", 0) // by a fetch of its own
	expectFind(t, c, "x", 0)
	expectFind(t, c, "z", -1)
	s.expect(t, 2)
}

// A kid that was absent once is 503, not 401, when a later lookup fails.
func TestUnknownAbsentOnceThenFailing(t *testing.T) {
	s := newServer(t, serve(kids("a"), "Cache-Control", "max-age=3600"))
	c, clock := newTestCache(t, s)
	expectFind(t, c, "new", 0)
	s.respond(status(500))
	clock.advance(30 * time.Minute)
	expectFind(t, c, "new", -1)
	expectFind(t, c, "new", -1)
}
