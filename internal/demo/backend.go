package demo

import (
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"sync"
	"time"
)

// backend knows nothing of DPoP. It notes what it gets, and answers with it.
type backend struct {
	address string
	server  *http.Server

	mu  sync.Mutex
	got []string
}

func startBackend() (*backend, error) {
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return nil, err
	}
	b := &backend{address: listener.Addr().String()}
	b.server = &http.Server{Handler: b, ReadHeaderTimeout: 5 * time.Second}
	go func() { _ = b.server.Serve(listener) }()
	return b, nil
}

func (b *backend) stop() { _ = b.server.Close() }

// ServeHTTP notes the request line and the headers that DPoP is about.
func (b *backend) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	var note strings.Builder
	fmt.Fprintf(&note, "  %s %s\n", r.Method, r.URL)
	for _, name := range []string{"Authorization", "DPoP", "X-Client"} {
		value := strings.Join(r.Header.Values(name), ", ")
		if len(value) > 40 {
			value = value[:40] + "..."
		}
		if value == "" {
			value = "(none)"
		}
		fmt.Fprintf(&note, "  %s: %s\n", name, value)
	}
	b.mu.Lock()
	b.got = append(b.got, note.String())
	b.mu.Unlock()
	_, _ = io.WriteString(w, "The backend got\n"+note.String()) // a client that has gone needs no answer
}

func (b *backend) seen() []string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.got
}
