//go:build linux

package main

import (
	"bufio"
	"fmt"
	"io"
	"net"
	"net/http"
	"time"
)

// connection is one that is kept alive. It does less than net/http's client, so
// that the load takes little from the servers with which it shares processors.
type connection struct {
	conn net.Conn
	in   *bufio.Reader
}

const answerTimeout = 10 * time.Second

func dial(address string) (*connection, error) {
	conn, err := net.DialTimeout("tcp", address, answerTimeout)
	if err != nil {
		return nil, err
	}
	return &connection{conn, bufio.NewReader(conn)}, nil
}

// answer is what counts of one.
type answer struct {
	status    int
	last      bool   // of its connection, as the server says
	challenge string // why a request was refused
}

// send sends a request as it is, and waits for the whole answer.
func (c *connection) send(request []byte) (answer, error) {
	if err := c.conn.SetDeadline(time.Now().Add(answerTimeout)); err != nil {
		return answer{}, err
	}
	if _, err := c.conn.Write(request); err != nil {
		return answer{}, err
	}
	got, err := http.ReadResponse(c.in, nil)
	if err != nil {
		return answer{}, err
	}
	_, err = io.Copy(io.Discard, got.Body)
	return answer{got.StatusCode, got.Close, got.Header.Get("WWW-Authenticate")}, err
}

func (c *connection) close() { _ = c.conn.Close() }

// ask sends one request on a connection of its own.
func ask(address string, request []byte) (int, error) {
	c, err := dial(address)
	if err != nil {
		return 0, err
	}
	defer c.close()
	got, err := c.send(request)
	return got.status, err
}

// accepted returns an error unless a request is answered with 200.
func accepted(address string, request []byte) error {
	status, err := ask(address, request)
	if err == nil && status != 200 {
		err = fmt.Errorf("status %d", status)
	}
	return err
}
