package redis

import (
	"context"
	"encoding/base64"
	"errors"
	"fmt"
	"net"
	"runtime"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	redigo "github.com/gomodule/redigo/redis"

	"github.com/caddy-dpop/caddy-dpop/replay"
)

// What a server answers to SET is an acceptance, a replay, or nothing that could
// be told from.
func TestAnswers(t *testing.T) {
	for answer, want := range map[string]string{
		"+OK\r\n":          "",
		"$-1\r\n":          replay.ErrReplayed.Error(),
		"$2\r\nOK\r\n":     "not answer as Redis",
		"+QUEUED\r\n":      "not answer as Redis",
		":1\r\n":           "not answer as Redis",
		"*0\r\n":           "not answer as Redis",
		"HTTP/1.1 400\r\n": "unexpected response",
		"$3\r\nOK\r\nxx":   "bad",
		"":                 "no reply in time",
		"-LOADING Redis is loading the dataset in memory\r\n":                       "LOADING",
		"-OOM command not allowed when used memory > 'maxmemory'.\r\n":              "OOM",
		"-READONLY You can't write against a read only replica.\r\n":                "READONLY",
		"-NOAUTH Authentication required.\r\n":                                      "NOAUTH",
		"-MISCONF Redis is configured to save RDB snapshots, but it's not able\r\n": "MISCONF",
		"-CLUSTERDOWN The cluster is down\r\n":                                      "CLUSTERDOWN",
		"-MOVED\r\n":                                                                "MOVED",
		"-MOVED 1 nowhere\r\n":                                                      "says",
		"-\r\n":                                                                     "says",
	} {
		server := fake(t, always(answer))
		s := newTestStore(t, Options{Addresses: []string{server.address}})
		err := timed(t, s, newUse())
		if want == "" && err != nil || want != "" && (err == nil || !strings.Contains(err.Error(), want)) {
			t.Errorf("%q: %v, want %q", answer, err, want)
		}
		if want != replay.ErrReplayed.Error() && want != "" && !cannotTell(err) {
			t.Errorf("%q: %v says more than can be told", answer, err)
		}
		if n := server.count("SET"); n != 1 {
			t.Errorf("%q: %d commands for one proof", answer, n)
		}
	}
}

// The command is exactly this one, and the key a hash.
func TestCommand(t *testing.T) {
	server := fake(t, always("+OK\r\n"))
	s := newTestStore(t, Options{Addresses: []string{server.address}})
	now := time.Now()
	s.now = func() time.Time { return now }
	use := replay.Use{Key: replay.KeyOf("thumbprint", "jti"), IssuedAt: now, By: replay.ByIssuedAt}
	record(t, s, use, nil)
	sets := server.commands("SET ")
	if len(sets) != 1 {
		t.Fatalf("%q", sets)
	}
	end := time.Unix(now.Unix()+71, 0) // of the last second
	want := fmt.Sprintf("SET dpop:%s 1 NX PX %d", base64.RawURLEncoding.EncodeToString(use.Key[:]), (end.Sub(now) + margin).Milliseconds())
	if sets[0] != want {
		t.Errorf("%q, want %q", sets[0], want)
	}
}

// What cannot be judged is refused without asking anybody.
func TestForgotten(t *testing.T) {
	server := fake(t, always("+OK\r\n"))
	s := newTestStore(t, Options{Addresses: []string{server.address}, AllowOnError: true})
	now := time.Now()
	s.now = func() time.Time { return now }
	record(t, s, newUse(), nil)
	old := newUse()
	now = now.Add(5 * time.Minute)
	fresh := newUse()
	fresh.IssuedAt = now
	record(t, s, fresh, nil)
	record(t, s, fresh, nil) // as far as this server tells
	record(t, s, old, replay.ErrForgotten)
	if n := server.count("SET"); n != 3 {
		t.Errorf("%d commands", n)
	}
}

// A record is kept for some time, however the clock stands.
func TestTTLIsNeverZero(t *testing.T) {
	server := fake(t, always("+OK\r\n"))
	for _, ago := range []time.Duration{70 * time.Second, 71 * time.Second, time.Hour} {
		s := newTestStore(t, Options{Addresses: []string{server.address}})
		use := newUse()
		use.IssuedAt = use.IssuedAt.Add(-ago)
		record(t, s, use, nil)
	}
	for _, command := range server.commands("SET ") {
		if ttl, _ := strconv.ParseInt(strings.Fields(command)[5], 10, 64); ttl < margin.Milliseconds() {
			t.Errorf("%q", command)
		}
	}
}

// A reply that comes late is nobody's: not of the call that gave up, nor of any
// other.
func TestLateReplies(t *testing.T) {
	var hold atomic.Bool
	hold.Store(true)
	free := make(chan struct{})
	server := fake(t, func(args []string) string {
		if args[0] == "SET" && hold.Load() {
			<-free
			return "$-1\r\n" // a replay, if it were of anybody
		}
		return always("+OK\r\n")(args)
	})
	s := newTestStore(t, Options{Addresses: []string{server.address}})
	recordFails(t, s, newUse(), "in time")
	time.Sleep(2 * pause) // until the silence is too long
	hold.Store(false)
	close(free)
	time.Sleep(2 * pause)
	for range 100 {
		record(t, s, newUse(), nil)
	}
	if n := server.connections.Load(); n != 2 {
		t.Errorf("%d connections: one that owes a reply for too long is given up", n)
	}
}

// A client that goes away leaves its place to the reply.
func TestCancellation(t *testing.T) {
	asked, free := make(chan struct{}), make(chan struct{})
	var n atomic.Int64
	server := fake(t, func(args []string) string {
		if args[0] == "SET" && n.Add(1) == 1 {
			close(asked)
			<-free
			return "$-1\r\n" // of the first call
		}
		return always("+OK\r\n")(args)
	})
	s := newTestStore(t, Options{Addresses: []string{server.address}, Timeout: 5 * time.Second})
	ctx, cancel := context.WithCancel(t.Context())
	var wg sync.WaitGroup
	wg.Go(func() {
		if err := s.Record(ctx, newUse()); !errors.Is(err, context.Canceled) {
			t.Errorf("a canceled Record: %v", err)
		}
	})
	<-asked
	for range 10 {
		wg.Go(func() {
			if err := s.Record(context.Background(), newUse()); err != nil {
				t.Error(err)
			}
		})
	}
	cancel()
	time.Sleep(50 * time.Millisecond)
	close(free)
	wg.Wait()
	if n := server.connections.Load(); n != 1 {
		t.Errorf("%d connections", n)
	}
	allowing := newTestStore(t, Options{Addresses: []string{server.address}, AllowOnError: true})
	if err := allowing.Record(ctx, newUse()); !errors.Is(err, context.Canceled) {
		t.Errorf("Record of a client that is gone: %v", err)
	}
}

// A reply that nothing had asked for ends the connection.
func TestUnaskedReply(t *testing.T) {
	server := fake(t, always("+OK\r\n$-1\r\n"))
	s := newTestStore(t, Options{Addresses: []string{server.address}})
	for range 5 {
		record(t, s, newUse(), nil)
		time.Sleep(20 * time.Millisecond)
	}
	if n := server.connections.Load(); n != 5 {
		t.Errorf("%d connections", n)
	}
}

// Behind an address there may be another server after a failover: a replica says
// that it is one, and is left.
func TestReplicaIsLeft(t *testing.T) {
	var server *fakeServer
	server = fake(t, func(args []string) string {
		if args[0] == "SET" && server.connections.Load() == 1 {
			return "-READONLY You can't write against a read only replica.\r\n"
		}
		return always("+OK\r\n")(args)
	})
	s := newTestStore(t, Options{Addresses: []string{server.address}})
	recordFails(t, s, newUse(), "READONLY")
	recordFails(t, s, newUse(), "READONLY") // for a moment
	time.Sleep(pause + 20*time.Millisecond)
	record(t, s, newUse(), nil)
}

// An idle connection that the server closes is not used for the next proof.
func TestIdleConnectionIsClosed(t *testing.T) {
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer listener.Close()
	go func() {
		for {
			connection, err := listener.Accept()
			if err != nil {
				return
			}
			f := &fakeServer{answer: always("+OK\r\n")}
			go f.serve(connection)
			time.AfterFunc(100*time.Millisecond, func() { _ = connection.Close() })
		}
	}()
	s := newTestStore(t, Options{Addresses: []string{listener.Addr().String()}})
	for range 4 {
		record(t, s, newUse(), nil)
		time.Sleep(200 * time.Millisecond)
	}
}

// Where connections are refused, few are tried.
func TestRefused(t *testing.T) {
	var tries atomic.Int64
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer listener.Close()
	go func() {
		for {
			connection, err := listener.Accept()
			if err != nil {
				return
			}
			tries.Add(1)
			_, _ = connection.Write([]byte("-ERR max number of clients reached\r\n"))
			_ = connection.Close()
		}
	}()
	s := newTestStore(t, Options{Addresses: []string{listener.Addr().String()}, Password: "x"})
	start := time.Now()
	for range 1000 {
		if err := s.Record(context.Background(), newUse()); !cannotTell(err) {
			t.Fatal(err)
		}
	}
	if n, most := tries.Load(), 2+int64(time.Since(start)/pause); n > most {
		t.Errorf("%d connections in %v", n, time.Since(start))
	}
}

// With on_error allow, what cannot be recorded passes, and is told of once a
// second.
func TestAllowOnError(t *testing.T) {
	logger, logs := observed()
	var answer atomic.Value
	answer.Store("-OOM command not allowed\r\n")
	server := fake(t, func(args []string) string { return always(answer.Load().(string))(args) })
	s := newTestStore(t, Options{Addresses: []string{server.address}, AllowOnError: true, Logger: logger})
	start := time.Now()
	n := 0
	for ; time.Since(start) < 2500*time.Millisecond; n++ {
		record(t, s, newUse(), nil)
		time.Sleep(time.Millisecond)
	}
	lines := logs.FilterMessageSnippet("accepted proofs").All()
	if len(lines) < 2 || len(lines) > 4 {
		t.Errorf("%d lines", len(lines))
	}
	told := int64(0)
	for _, line := range lines {
		told += line.ContextMap()["proofs"].(int64)
	}
	if told < int64(n)/2 || told > int64(n) {
		t.Errorf("%d of %d were told of", told, n)
	}
	if err := s.Status().Err; err == nil || !strings.Contains(err.Error(), "OOM") {
		t.Error(err)
	}
	answer.Store("$-1\r\n")
	record(t, s, newUse(), replay.ErrReplayed)
	if err := s.Status().Err; err != nil {
		t.Error(err)
	}
}

// Redirections are followed: the server that says so has done nothing.
func TestRedirections(t *testing.T) {
	second := fake(t, always("+OK\r\n"))
	first := fake(t, always("-MOVED 1 "+second.address+"\r\n"))
	s := newTestStore(t, Options{Addresses: []string{first.address}})
	use := newUse()
	for range 3 {
		record(t, s, use, nil)
	}
	if n, m := first.count("SET"), second.count("SET"); n != 1 || m != 3 {
		t.Errorf("%d and %d commands", n, m)
	}

	// An empty host is that of the server that says so.
	_, port, _ := net.SplitHostPort(second.address)
	first = fake(t, always("-MOVED 1 :"+port+"\r\n"))
	s = newTestStore(t, Options{Addresses: []string{first.address}})
	record(t, s, newUse(), nil)

	// ASK holds once, and goes before the command.
	third := fake(t, always("+OK\r\n"))
	first = fake(t, always("-ASK 1 "+third.address+"\r\n"))
	s = newTestStore(t, Options{Addresses: []string{first.address}})
	for range 2 {
		record(t, s, use, nil)
	}
	if n, m, asked := first.count("SET"), third.count("SET"), third.count("ASKING"); n != 2 || m != 2 || asked != 2 {
		t.Errorf("%d, %d and %d commands", n, m, asked)
	}

	// It ends where servers do not agree.
	var loop *fakeServer
	loop = fake(t, func(args []string) string { return always("-MOVED 1 " + loop.address + "\r\n")(args) })
	s = newTestStore(t, Options{Addresses: []string{loop.address}})
	recordFails(t, s, newUse(), "agree")

	// Where a node is gone, the others are asked anew.
	gone := fake(t, always("+OK\r\n"))
	var target atomic.Value
	target.Store("127.0.0.1:1")
	entry := fake(t, func(args []string) string { return always("-MOVED 1 " + target.Load().(string) + "\r\n")(args) })
	s = newTestStore(t, Options{Addresses: []string{entry.address}})
	use = newUse()
	recordFails(t, s, use, "refused")
	target.Store(gone.address)
	record(t, s, use, nil)
}

// Several addresses must be of one cluster, and of one of them that answers.
func TestSeveralAddresses(t *testing.T) {
	mode := func(mode string) func([]string) string {
		return func(args []string) string {
			if args[0] == "HELLO" {
				return "*4\r\n$4\r\nmode\r\n$" + strconv.Itoa(len(mode)) + "\r\n" + mode + "\r\n$4\r\nrole\r\n$6\r\nmaster\r\n"
			}
			return always("+OK\r\n")(args)
		}
	}
	cluster, standalone, other := fake(t, mode("cluster")), fake(t, mode("standalone")), fake(t, mode("standalone"))
	hangs := fake(t, func([]string) string { return "" })
	s := newTestStore(t, Options{Addresses: []string{standalone.address, other.address}})
	recordFails(t, s, newUse(), "its mode is standalone, not cluster")
	if standalone.count("SET")+other.count("SET") > 0 {
		t.Error("a proof was recorded in one of two servers that know nothing of each other")
	}
	s = newTestStore(t, Options{Addresses: []string{"127.0.0.1:1", hangs.address, cluster.address}})
	record(t, s, newUse(), nil)
	s = newTestStore(t, Options{Addresses: []string{hangs.address, fake(t, always("")).address}})
	recordFails(t, s, newUse(), "in time")
}

// The first sentinel that knows says where the master is, which must be one.
func TestSentinels(t *testing.T) {
	role := func(role string) func([]string) string {
		return func(args []string) string {
			if args[0] == "HELLO" {
				return "*2\r\n$4\r\nrole\r\n$" + strconv.Itoa(len(role)) + "\r\n" + role + "\r\n"
			}
			return always("+OK\r\n")(args)
		}
	}
	master, replica := fake(t, role("master")), fake(t, role("replica"))
	saying := func(server *fakeServer) func([]string) string {
		_, port, _ := net.SplitHostPort(server.address)
		return func([]string) string {
			return "*2\r\n$9\r\n127.0.0.1\r\n$" + strconv.Itoa(len(port)) + "\r\n" + port + "\r\n"
		}
	}
	hangs := fake(t, func([]string) string { return "" })
	sentinel := fake(t, saying(master))
	s := newTestStore(t, Options{Addresses: []string{hangs.address, "127.0.0.1:1", sentinel.address}, MasterName: "mymaster"})
	record(t, s, newUse(), nil)
	if n := sentinel.count("SENTINEL get-master-addr-by-name mymaster"); n != 1 {
		t.Errorf("%d questions", n)
	}
	s = newTestStore(t, Options{Addresses: []string{fake(t, saying(replica)).address}, MasterName: "mymaster"})
	recordFails(t, s, newUse(), "its role is replica, not master")
	s = newTestStore(t, Options{Addresses: []string{fake(t, func([]string) string { return "*-1\r\n" }).address}, MasterName: "mymaster"})
	recordFails(t, s, newUse(), `knows no master "mymaster"`)

	// One that asks for a password gets it.
	var passed atomic.Bool
	closed := fake(t, func(args []string) string {
		switch {
		case args[0] == "AUTH":
			passed.Store(args[1] == "secret")
			return "+OK\r\n"
		case !passed.Load():
			return "-NOAUTH Authentication required.\r\n"
		}
		return saying(master)(args)
	})
	s = newTestStore(t, Options{Addresses: []string{closed.address}, MasterName: "mymaster", Password: "secret"})
	record(t, s, newUse(), nil)
}

// A server may quote what it was sent.
func TestSay(t *testing.T) {
	for text, want := range map[string]string{
		"ERR unknown command 'AUTH', with args beginning with: 'secret' ": "the server says: ERR unknown command",
		"ERR unknown command `SET`, with args beginning with: `dpop:x`":   "the server says: ERR unknown command",
		"ERR max number of clients reached":                               "the server says: ERR max number of clients reached",
		"WRONGPASS invalid username-password pair or user is disabled.":   "the server says: WRONGPASS invalid username-password pair or user is disabled.",
		"NOPERM with args: secret":                                        "the server says: NOPERM",
	} {
		if got := say(redigo.Error(text)).Error(); got != want {
			t.Errorf("%q, want %q", got, want)
		}
	}
	if got := say(redigo.Error(strings.Repeat("x", 1000))).Error(); len(got) > 250 {
		t.Errorf("%d characters", len(got))
	}
}

// Nothing is opened by making a store, and nothing is left when it is closed.
func TestClose(t *testing.T) {
	server := fake(t, func(args []string) string {
		if args[0] == "SET" {
			return ""
		}
		return always("+OK\r\n")(args)
	})
	s := newTestStore(t, Options{Addresses: []string{server.address}, Timeout: 10 * time.Second})
	time.Sleep(50 * time.Millisecond)
	if n := server.connections.Load(); n != 0 {
		t.Fatalf("%d connections", n)
	}
	stop := s.Open()
	defer stop()
	result := make(chan error)
	go func() { result <- s.Record(context.Background(), newUse()) }()
	for server.count("SET") == 0 {
		time.Sleep(10 * time.Millisecond)
	}
	s.Close()
	if err := <-result; !cannotTell(err) {
		t.Error(err)
	}
	if err := s.Record(context.Background(), newUse()); !cannotTell(err) {
		t.Error(err)
	}
	if n := server.connections.Load(); n != 1 {
		t.Errorf("%d connections", n)
	}
	stacks := make([]byte, 1<<20)
	for deadline := time.Now().Add(5 * time.Second); ; time.Sleep(10 * time.Millisecond) {
		all := string(stacks[:runtime.Stack(stacks, true)])
		if !strings.Contains(all, "redis.(*conn)") {
			return
		}
		if time.Now().After(deadline) {
			t.Fatalf("goroutines are left:\n%s", all)
		}
	}
}
