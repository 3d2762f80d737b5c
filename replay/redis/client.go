package redis

import (
	"context"
	"errors"
	"net"
	"strings"
	"sync"
	"time"

	redigo "github.com/gomodule/redigo/redis"
)

// client finds the server that a command is for: the one server, the one that
// sentinels name, or the node of a cluster that has the key's slot.
type client struct {
	options Options
	opened  func(*conn) // called for each new connection
	entry   *server     // of a cluster, whichever of its nodes answers first

	closed context.Context
	close  context.CancelFunc

	mu    sync.RWMutex
	nodes map[string]*server // of a cluster, by address
	slots []*server          // as far as redirections told; nil: no cluster
}

// Opening a connection may take so many times the timeout: it is several round
// trips, and nobody waits for longer than the timeout. But so long at the least.
const (
	openings     = 5
	leastOpening = time.Second
)

func newClient(options Options, opened func(*conn)) *client {
	c := &client{options: options, opened: opened, nodes: make(map[string]*server)}
	c.closed, c.close = context.WithCancel(context.Background())
	c.entry = c.newServer(c.enter)
	return c
}

func (c *client) newServer(open func(context.Context) (*conn, error)) *server {
	return &server{open: open, timeout: max(openings*c.options.Timeout, leastOpening), closed: c.closed}
}

// shutDown ends all connections.
func (c *client) shutDown() {
	c.close()
	c.entry.close()
	c.mu.RLock()
	defer c.mu.RUnlock()
	for _, node := range c.nodes {
		node.close()
	}
}

// do sends a command about a key, once: it is sent again only to where a server
// says that it belongs instead, which has not done it.
func (c *client) do(ctx context.Context, key, name string, args ...any) (any, error) {
	node, asking := c.nodeOf(key), false
	const maxRedirections = 5
	for range 1 + maxRedirections {
		conn, err := node.connection(ctx)
		if err != nil {
			c.forget(node)
			return nil, err
		}
		value, err := conn.do(ctx, asking, name, args...)
		if err == nil {
			return value, nil
		}
		var refusal redigo.Error
		if !errors.As(err, &refusal) {
			if conn.ended() {
				c.forget(node)
			}
			return nil, err
		}
		kind, target := redirection(refusal, conn.address)
		switch kind {
		case "MOVED":
			node, asking = c.learn(key, target), false
		case "ASK": // this once
			node, asking = c.node(target), true
		case "READONLY": // of a server that became a replica, there is another master
			node.replace(conn, say(refusal))
			return nil, say(refusal)
		default:
			return nil, say(refusal)
		}
	}
	return nil, errors.New("the cluster does not agree on where the key belongs")
}

// redirection returns the kind of an error, and which server it names, if any.
// Its host may be empty: that of the server that says so.
func redirection(refusal redigo.Error, from string) (kind, target string) {
	fields := strings.Fields(string(refusal))
	if len(fields) == 0 {
		return "", ""
	}
	kind = fields[0]
	if kind != "MOVED" && kind != "ASK" {
		return kind, ""
	}
	colon := strings.LastIndexByte(fields[len(fields)-1], ':') // an IPv6 address has no brackets
	if len(fields) != 3 || colon < 0 {
		return "", ""
	}
	host, port := fields[2][:colon], fields[2][colon+1:]
	if host == "" {
		host, _, _ = net.SplitHostPort(from)
	}
	return kind, net.JoinHostPort(host, port)
}

// nodeOf returns the server that has a key, as far as known.
func (c *client) nodeOf(key string) *server {
	c.mu.RLock()
	defer c.mu.RUnlock()
	if c.slots != nil {
		if node := c.slots[slotOf(key)]; node != nil {
			return node
		}
	}
	return c.entry
}

// node returns the node of a cluster with the address.
func (c *client) node(address string) *server {
	c.mu.Lock()
	defer c.mu.Unlock()
	node, ok := c.nodes[address]
	if !ok {
		node = c.newServer(func(ctx context.Context) (*conn, error) { return c.open(ctx, address, "", "") })
		c.nodes[address] = node
	}
	return node
}

// learn remembers which node has the slot of a key. Slots are learnt one by one,
// by a redirection each: that asks for no right but that to the command itself.
func (c *client) learn(key, address string) *server {
	node := c.node(address)
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.slots == nil {
		c.slots = make([]*server, slots)
	}
	c.slots[slotOf(key)] = node
	return node
}

// forget lets the cluster say again who has the slots of a node that failed.
func (c *client) forget(node *server) {
	if node == c.entry {
		return
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	for i := range c.slots {
		if c.slots[i] == node {
			c.slots[i] = nil
		}
	}
}

// enter opens a connection to where commands go first.
func (c *client) enter(ctx context.Context) (*conn, error) {
	addresses := c.options.Addresses
	switch {
	case c.options.MasterName != "":
		master, err := firstOf(ctx, addresses, c.askSentinel, func(string) {})
		if err != nil {
			return nil, err
		}
		return c.open(ctx, master, "role", "master")
	case len(addresses) > 1:
		// Each of servers that know nothing of each other would accept a proof once.
		open := func(ctx context.Context, address string) (*conn, error) {
			return c.open(ctx, address, "mode", "cluster")
		}
		return firstOf(ctx, addresses, open, func(conn *conn) { conn.end(errShutDown) })
	default:
		return c.open(ctx, addresses[0], "", "")
	}
}
