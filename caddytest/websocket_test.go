package caddytest

import (
	"bufio"
	"fmt"
	"net"
	"net/http"
	"strings"
	"testing"
	"time"
)

// A connection that is upgraded goes through the handler's writer.
func TestWebSocket(t *testing.T) {
	g := serve(t, setup{})
	g.backend.answer = func(w http.ResponseWriter, r *http.Request) {
		if r.Header.Get("Upgrade") != "websocket" {
			t.Errorf("the backend got Upgrade %q", r.Header["Upgrade"])
		}
		conn, buffered, err := http.NewResponseController(w).Hijack()
		if err != nil {
			t.Error(err)
			return
		}
		defer conn.Close()
		fmt.Fprint(conn, "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nDPoP-Nonce: x\r\n\r\n")
		line, err := buffered.ReadString('\n')
		if err != nil {
			t.Error(err)
		}
		fmt.Fprintf(conn, "echo %s", line)
	}
	conn, err := net.Dial("tcp", "127.0.0.1:"+g.port)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	if err := conn.SetDeadline(time.Now().Add(10 * time.Second)); err != nil {
		t.Fatal(err)
	}
	token := accessToken(t, nil)
	fmt.Fprintf(conn, "GET /ws HTTP/1.1\r\nHost: 127.0.0.1:%s\r\nAuthorization: DPoP %s\r\nDPoP: %s\r\nConnection: Upgrade, Authorization\r\nUpgrade: websocket\r\n\r\n",
		g.port, token, dpop(t, "GET", g.url+"/ws", token, nil))
	reader := bufio.NewReader(conn)
	response, err := http.ReadResponse(reader, nil)
	if err != nil {
		t.Fatal(err)
	}
	if response.StatusCode != http.StatusSwitchingProtocols || response.Header.Get("DPoP-Nonce") != "" {
		t.Fatalf("answered %d %v", response.StatusCode, response.Header)
	}
	fmt.Fprint(conn, "hello\n")
	if line, err := reader.ReadString('\n'); err != nil || line != "echo hello\n" {
		t.Errorf("got %q, %v", line, err)
	}
	if got := g.backend.one(t); !strings.HasPrefix(got.header.Get("Authorization"), "Bearer ") {
		t.Errorf("the backend got %q", got.header["Authorization"])
	}
}
