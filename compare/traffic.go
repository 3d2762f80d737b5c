//go:build linux

package main

import (
	"context"
	"fmt"
	"sync"
	"sync/atomic"
	"time"
)

// traffic sends mixed requests at a steady rate, whatever the server does.
type traffic struct {
	address string
	source  chan signed
	starved atomic.Int64 // requests that were not signed in time
	retried atomic.Int64 // requests whose connection the server had closed

	mu         sync.Mutex
	latencies  []time.Duration // since they were taken
	refused    int             // of these, as was wanted
	unexpected []string
}

const soakConnections = 32

// One request in so many is one that was accepted before.
const replayEvery = 12

// run sends at so many requests a second until the context ends. A latency is
// counted from when a request was due, or was signed if that was later: a server
// that falls behind is not spared.
func (t *traffic) run(ctx context.Context, rate float64) {
	var next atomic.Int64
	var all sync.WaitGroup
	start := time.Now()
	for range soakConnections {
		all.Go(func() {
			w := &worker{traffic: t}
			defer w.hangUp()
			for {
				n := next.Add(1)
				due := start.Add(time.Duration(float64(n) / rate * float64(time.Second)))
				select {
				case <-ctx.Done():
					return
				case <-time.After(time.Until(due)):
				}
				one, from, ok := w.take(ctx, n, due)
				if !ok {
					return
				}
				got, err := w.send(one.Request)
				t.record(one, got, time.Since(from), err)
				if got.status == 200 {
					w.accepted = one.Request
				}
			}
		})
	}
	all.Wait()
}

// drain sends all that there are, on so many connections without a pause, and
// returns how long it took.
func (t *traffic) drain(connections int) time.Duration {
	var all sync.WaitGroup
	start := time.Now()
	for range connections {
		all.Go(func() {
			w := &worker{traffic: t}
			defer w.hangUp()
			for one := range t.source {
				sent := time.Now()
				got, err := w.send(one.Request)
				t.record(one, got, time.Since(sent), err)
			}
		})
	}
	all.Wait()
	return time.Since(start)
}

// record keeps what became of a request.
func (t *traffic) record(one signed, got answer, latency time.Duration, err error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.latencies = append(t.latencies, latency)
	switch {
	case got.status != one.Want || err != nil:
		if t.unexpected = append(t.unexpected, ""); len(t.unexpected) <= 20 {
			t.unexpected[len(t.unexpected)-1] = fmt.Sprintf("at %s status %d for %d, %v %s",
				time.Now().Format(time.TimeOnly), got.status, one.Want, err, got.challenge)
		}
	case got.status != 200:
		t.refused++
	}
}

// takeMinute returns what was recorded since it was last called.
func (t *traffic) takeMinute() (latencies []time.Duration, refused int) {
	t.mu.Lock()
	defer t.mu.Unlock()
	latencies, refused = t.latencies, t.refused
	t.latencies, t.refused = make([]time.Duration, 0, len(latencies)), 0
	return latencies, refused
}

// worker has one connection at a time.
type worker struct {
	*traffic
	conn     *connection
	accepted []byte // its last request that was
}

// take returns the next request, and from when its latency counts.
func (w *worker) take(ctx context.Context, n int64, due time.Time) (signed, time.Time, bool) {
	if n%replayEvery == 0 && w.accepted != nil {
		return signed{w.accepted, 401}, due, true
	}
	select {
	case one := <-w.source:
		return one, due, true
	default:
	}
	w.starved.Add(1)
	select {
	case one := <-w.source:
		return one, time.Now(), true
	case <-ctx.Done():
		return signed{}, due, false
	}
}

// send sends a request. A server may close a connection that waits for one, as
// Caddy does when it is configured anew: then the request was not read, and is
// sent again, once.
func (w *worker) send(request []byte) (answer, error) {
	kept := w.conn != nil
	got, err := w.try(request)
	if err != nil && kept {
		w.retried.Add(1)
		got, err = w.try(request)
	}
	return got, err
}

func (w *worker) try(request []byte) (answer, error) {
	if w.conn == nil {
		var err error
		if w.conn, err = dial(w.address); err != nil {
			w.conn = nil
			return answer{}, err
		}
	}
	got, err := w.conn.send(request)
	if err != nil || got.last {
		w.hangUp()
	}
	return got, err
}

func (w *worker) hangUp() {
	if w.conn != nil {
		w.conn.close()
		w.conn = nil
	}
}
