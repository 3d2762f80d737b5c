package redis

import (
	"context"
	"errors"
	"fmt"
	"net"
	"sync"
	"time"

	redigo "github.com/gomodule/redigo/redis"
)

// conn is one connection, which all calls share: commands are written as they
// come, without waiting for the replies to those before, and replies come in the
// order of the commands. A caller that no longer waits leaves its place in that
// order, so that no reply is ever taken for that of another.
type conn struct {
	address string
	redis   redigo.Conn
	raw     net.Conn      // closed to end it: TLS would first say goodbye to a server that hangs
	silence time.Duration // after which a server that owes a reply is given up

	wake chan struct{} // something is queued
	done chan struct{} // closed when it has ended

	mu    sync.Mutex
	queue []*call // not written yet
	owed  []*call // without a reply yet, oldest first; those queued too
	since time.Time
	watch *time.Timer // while replies are owed
	armed bool
	err   error // why it has ended
}

// call is one command.
type call struct {
	asking bool // after ASKING
	name   string
	args   []any
	reply  chan reply // with room for one
}

type reply struct {
	value any
	err   error
}

func newCall(asking bool, name string, args ...any) *call {
	return &call{asking, name, args, make(chan reply, 1)}
}

// maxOwed bounds the calls of a connection whose replies have not come.
const maxOwed = 10_000

var (
	errBusy     = errors.New("too many commands are waiting for the server")
	errUnasked  = errors.New("the server sent a reply that nothing had asked for")
	errTimeout  = errors.New("no reply in time")
	errShutDown = errors.New("the connection was closed here")
)

// newConn begins to use a connection that the server has accepted.
func newConn(address string, redis redigo.Conn, raw net.Conn, silence time.Duration) *conn {
	c := &conn{
		address: address,
		redis:   redis,
		raw:     raw,
		silence: silence,
		wake:    make(chan struct{}, 1),
		done:    make(chan struct{}),
	}
	c.watch = time.AfterFunc(silence, c.checkSilence)
	c.watch.Stop()
	go c.write()
	go c.read()
	return c
}

// do sends a command, once, and waits for its reply.
func (c *conn) do(ctx context.Context, asking bool, name string, args ...any) (any, error) {
	call := newCall(asking, name, args...)
	if err := c.send(call); err != nil {
		return nil, err
	}
	select {
	case r := <-call.reply:
		return r.value, r.err
	case <-ctx.Done():
	}
	select {
	case r := <-call.reply: // at the same moment
		return r.value, r.err
	default:
		return nil, context.Cause(ctx)
	}
}

func (c *conn) send(call *call) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	switch {
	case c.err != nil:
		return c.err
	case len(c.owed) >= maxOwed:
		return errBusy
	case len(c.owed) == 0:
		c.since = time.Now()
	}
	if call.asking {
		c.owed = append(c.owed, newCall(false, "ASKING")) // whose reply nobody waits for
	}
	c.queue = append(c.queue, call)
	c.owed = append(c.owed, call)
	if !c.armed {
		c.armed = true
		c.watch.Reset(c.silence)
	}
	select {
	case c.wake <- struct{}{}:
	default: // what wakes the writer is there already
	}
	return nil
}

// write writes what is queued: while it writes, the next is queued.
func (c *conn) write() {
	var batch []*call
	for {
		select {
		case <-c.wake:
		case <-c.done:
			return
		}
		clear(batch)
		c.mu.Lock()
		batch, c.queue = c.queue, batch[:0]
		c.mu.Unlock()
		// What goes wrong shows in Flush too, and ends the connection.
		for _, call := range batch {
			if call.asking {
				_ = c.redis.Send("ASKING")
			}
			_ = c.redis.Send(call.name, call.args...)
		}
		if err := c.redis.Flush(); err != nil {
			c.end(err)
			return
		}
	}
}

// read reads at all times, so that it notices when the server closes an idle
// connection: the next command would be lost on it.
func (c *conn) read() {
	for {
		value, err := c.redis.Receive()
		var refusal redigo.Error
		if err != nil && !errors.As(err, &refusal) {
			c.end(err)
			return
		}
		if !c.answer(reply{value, err}) {
			c.end(errUnasked)
			return
		}
	}
}

// answer gives a reply to the oldest call without one.
func (c *conn) answer(r reply) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	if len(c.owed) == 0 {
		return false
	}
	c.since = time.Now()
	c.owed[0].reply <- r
	c.owed[0] = nil
	c.owed = c.owed[1:]
	return true
}

// checkSilence ends the connection if a reply has been owed for too long. While
// replies come, if late, it goes on: each caller has a limit of its own.
func (c *conn) checkSilence() {
	c.mu.Lock()
	silent := time.Since(c.since)
	late := len(c.owed) > 0 && silent >= c.silence
	if c.armed = len(c.owed) > 0; c.armed && !late {
		c.watch.Reset(c.silence - silent)
	}
	c.mu.Unlock()
	if late {
		c.end(errTimeout)
	}
}

// end gives every call without a reply the error. None is sent again: the server
// may have done what it says.
func (c *conn) end(err error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.err != nil {
		return
	}
	c.err = fmt.Errorf("connection to %s: %w", c.address, err)
	close(c.done)
	_ = c.raw.Close()
	for _, call := range c.owed {
		call.reply <- reply{err: c.err}
	}
	c.queue, c.owed = nil, nil
}

// ended reports whether the connection is of no more use.
func (c *conn) ended() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.err != nil
}
