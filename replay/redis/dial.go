package redis

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"strings"

	redigo "github.com/gomodule/redigo/redis"
)

// open opens a connection that is ready for commands. With a property, such as
// its role, the server must say of itself that this is so.
func (c *client) open(ctx context.Context, address, property, wanted string) (*conn, error) {
	raw, redis, err := c.dial(ctx, address)
	if err != nil {
		return nil, err
	}
	stop := context.AfterFunc(ctx, func() { _ = raw.Close() })
	err = c.greet(redis, property, wanted)
	if !stop() {
		err = context.Cause(ctx)
	}
	if err != nil {
		_ = raw.Close()
		return nil, fmt.Errorf("%s: %w", address, err)
	}
	conn := newConn(address, redis, raw, c.options.Timeout)
	go c.opened(conn)
	return conn, nil
}

func (c *client) dial(ctx context.Context, address string) (net.Conn, redigo.Conn, error) {
	raw, err := new(net.Dialer).DialContext(ctx, "tcp", address)
	if err != nil {
		return nil, nil, err // names the address
	}
	if c.options.TLS == nil {
		return raw, redigo.NewConn(raw, 0, 0), nil
	}
	config := c.options.TLS()
	config.ServerName, _, _ = net.SplitHostPort(address)
	secure := tls.Client(raw, config)
	if err := secure.HandshakeContext(ctx); err != nil {
		_ = raw.Close()
		return nil, nil, fmt.Errorf("%s: %w", address, err)
	}
	return raw, redigo.NewConn(secure, 0, 0), nil
}

// greet authenticates, selects the database, and asks what the server is. Redis
// lets every user do the first and the last, whatever its rights.
func (c *client) greet(redis redigo.Conn, property, wanted string) error {
	if err := c.authenticate(redis); err != nil {
		return err
	}
	if c.options.DB != 0 {
		if _, err := redis.Do("SELECT", c.options.DB); err != nil {
			return say(err)
		}
	}
	greeting, err := redigo.Values(redis.Do("HELLO", 2))
	switch {
	case err != nil && property == "" && isUnknownCommand(err):
		return nil // of Redis 5, or of a proxy
	case err != nil:
		return say(err)
	case property == "":
		return nil
	}
	for i := 0; i+1 < len(greeting); i += 2 {
		name, _ := redigo.String(greeting[i], nil)
		if name != property {
			continue
		}
		if value, _ := redigo.String(greeting[i+1], nil); value != wanted {
			return fmt.Errorf("its %s is %s, not %s", property, value, wanted)
		}
		return nil
	}
	return fmt.Errorf("it does not say its %s", property)
}

func isUnknownCommand(err error) bool {
	text := err.Error()
	return strings.HasPrefix(text, "ERR") && strings.Contains(text, "command")
}

func (c *client) authenticate(redis redigo.Conn) error {
	if c.options.Password == "" {
		return nil
	}
	credentials := []any{c.options.Password}
	if c.options.Username != "" {
		credentials = []any{c.options.Username, c.options.Password}
	}
	_, err := redis.Do("AUTH", credentials...)
	if err != nil && strings.Contains(err.Error(), "without any password configured") {
		return nil // so that a password can be set here first, then there
	}
	return say(err)
}

// askSentinel returns the address of the master.
func (c *client) askSentinel(ctx context.Context, address string) (string, error) {
	raw, redis, err := c.dial(ctx, address)
	if err != nil {
		return "", err
	}
	defer raw.Close()
	defer context.AfterFunc(ctx, func() { _ = raw.Close() })()
	ask := func() ([]string, error) {
		return redigo.Strings(redis.Do("SENTINEL", "get-master-addr-by-name", c.options.MasterName))
	}
	master, err := ask()
	var refusal redigo.Error
	if errors.As(err, &refusal) && strings.HasPrefix(string(refusal), "NOAUTH") {
		if err = c.authenticate(redis); err == nil {
			master, err = ask()
		}
	}
	switch {
	case errors.Is(err, redigo.ErrNil):
		err = fmt.Errorf("it knows no master %q", c.options.MasterName)
	case ctx.Err() != nil:
		err = context.Cause(ctx)
	case err == nil && len(master) != 2:
		err = errors.New("it does not say where the master is")
	}
	if err != nil {
		return "", fmt.Errorf("sentinel %s: %w", address, say(err))
	}
	return net.JoinHostPort(master[0], master[1]), nil
}

// say returns an error as it may be logged. A server's may quote what it was
// sent: a password, or the key of a proof.
func say(err error) error {
	var refusal redigo.Error
	if !errors.As(err, &refusal) {
		return err
	}
	const most = 200
	text, _, _ := strings.Cut(string(refusal), "with args")
	if strings.HasPrefix(text, "ERR") {
		if quote := strings.IndexAny(text, "'`\""); quote >= 0 {
			text = text[:quote]
		}
	}
	return fmt.Errorf("the server says: %s", strings.TrimRight(text[:min(len(text), most)], " ,"))
}
