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

// send sends a request as it is, and waits for the whole answer. The server may
// say that it is the connection's last.
func (c *connection) send(request []byte) (status int, last bool, err error) {
	if err := c.conn.SetDeadline(time.Now().Add(answerTimeout)); err != nil {
		return 0, true, err
	}
	if _, err := c.conn.Write(request); err != nil {
		return 0, true, err
	}
	answer, err := http.ReadResponse(c.in, nil)
	if err != nil {
		return 0, true, err
	}
	_, err = io.Copy(io.Discard, answer.Body)
	return answer.StatusCode, answer.Close, err
}

func (c *connection) close() { _ = c.conn.Close() }

// ask sends one request on a connection of its own.
func ask(address string, request []byte) (int, error) {
	c, err := dial(address)
	if err != nil {
		return 0, err
	}
	defer c.close()
	status, _, err := c.send(request)
	return status, err
}

// accepted returns an error unless a request is answered with 200.
func accepted(address string, request []byte) error {
	status, err := ask(address, request)
	if err == nil && status != 200 {
		err = fmt.Errorf("status %d", status)
	}
	return err
}
