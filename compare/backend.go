//go:build linux

package main

import (
	"net"
	"net/http"
	"time"
)

// startBackend serves a small answer, which is the same behind every server.
func startBackend() (address string, stop func(), err error) {
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return "", nil, err
	}
	server := &http.Server{ReadHeaderTimeout: answerTimeout, Handler: http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "application/json")
		_, _ = w.Write([]byte(`{"orders":[{"id":1,"state":"sent"}]}`))
	})}
	go func() { _ = server.Serve(listener) }()
	return listener.Addr().String(), func() { _ = server.Close() }, nil
}

// freeAddress is one that nobody listens on, outside the range from which the
// system takes ports for connections.
func freeAddress() (string, error) {
	var last error
	for port := 21000; port < 22000; port++ {
		address := (&net.TCPAddr{IP: net.IPv4(127, 0, 0, 1), Port: port}).String()
		if given[address] {
			continue
		}
		listener, err := net.Listen("tcp", address)
		if err != nil {
			last = err
			continue
		}
		given[address] = true
		return address, listener.Close()
	}
	return "", last
}

// given has the addresses that freeAddress has returned.
var given = make(map[string]bool)

// waitFor tries until there is no error, or the time is over.
func waitFor(limit time.Duration, try func() error) error {
	deadline := time.Now().Add(limit)
	for {
		err := try()
		if err == nil || time.Now().After(deadline) {
			return err
		}
		time.Sleep(50 * time.Millisecond)
	}
}
