package redis

import (
	"context"
	"errors"
	"strings"
	"sync"
	"time"
)

// pause is how long nothing is tried after a connection could not be opened: a
// flood of requests must not become a flood of connections.
const pause = 100 * time.Millisecond

// server is one server, and the one connection to it, opened when it is needed.
type server struct {
	open    func(context.Context) (*conn, error)
	timeout time.Duration // for opening
	closed  context.Context

	mu      sync.Mutex
	current *conn
	opening *opening // nil: none
	err     error    // of the last try that failed
	failed  time.Time
}

// opening is a try to open a connection, for all who wait for it.
type opening struct {
	done chan struct{}
	conn *conn
	err  error
}

// connection returns the connection. Opening one takes several round trips, and
// goes on when nobody waits any more.
func (s *server) connection(ctx context.Context) (*conn, error) {
	s.mu.Lock()
	if s.current != nil && !s.current.ended() {
		defer s.mu.Unlock()
		return s.current, nil
	}
	if s.opening == nil {
		if time.Since(s.failed) < pause {
			defer s.mu.Unlock()
			return nil, s.err
		}
		s.opening = &opening{done: make(chan struct{})}
		go s.try(s.opening)
	}
	o := s.opening
	s.mu.Unlock()
	select {
	case <-o.done:
		return o.conn, o.err
	case <-ctx.Done():
		return nil, context.Cause(ctx)
	}
}

func (s *server) try(o *opening) {
	ctx, cancel := context.WithTimeoutCause(s.closed, s.timeout, errTimeout)
	defer cancel()
	o.conn, o.err = s.open(ctx)
	s.mu.Lock()
	defer s.mu.Unlock()
	if o.err != nil {
		s.err, s.failed = o.err, time.Now()
	} else if s.closed.Err() != nil {
		o.conn.end(errShutDown)
	}
	s.current, s.opening = o.conn, nil
	close(o.done)
}

// replace has another connection opened, after a pause: what this one leads to
// is not, or no longer, what it should be.
func (s *server) replace(c *conn, err error) {
	c.end(err)
	s.mu.Lock()
	defer s.mu.Unlock()
	s.err, s.failed = err, time.Now()
}

// close ends the connection. None is opened any more: closed is done.
func (s *server) close() {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.current != nil {
		s.current.end(errShutDown)
	}
}

// firstOf asks all addresses at once, and returns what the first of them that
// succeeds does: one that hangs must not take the time of the others. What comes
// later is discarded.
func firstOf[T any](ctx context.Context, addresses []string, ask func(context.Context, string) (T, error), discard func(T)) (T, error) {
	type result struct {
		value T
		err   error
	}
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	results := make(chan result, len(addresses))
	for _, address := range addresses {
		go func() {
			value, err := ask(ctx, address)
			results <- result{value, err}
		}()
	}
	var problems []string
	for left := len(addresses) - 1; left >= 0; left-- {
		r := <-results
		if r.err == nil {
			go func() {
				for range left {
					if r := <-results; r.err == nil {
						discard(r.value)
					}
				}
			}()
			return r.value, nil
		}
		problems = append(problems, r.err.Error())
	}
	var none T
	return none, errors.New(strings.Join(problems, "; "))
}
