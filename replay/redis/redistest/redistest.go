//go:build unix

package redistest

import (
	"bytes"
	"context"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	redigo "github.com/gomodule/redigo/redis"
)

// Server is a redis-server, or a sentinel, of its own process.
type Server struct {
	Address string // with the port
	Port    string

	dir    string
	config string
	cmd    *exec.Cmd
	output *bytes.Buffer
}

// Start starts a server on a free port of the loopback interface, with more
// directives of redis.conf, and stops it when the test ends.
func Start(t testing.TB, directives ...string) *Server {
	t.Helper()
	return start(t, "redis-server", directives)
}

// StartTLS is like Start, but the server speaks TLS alone, and demands that
// clients show a certificate of the same root.
func StartTLS(t testing.TB, files Files, directives ...string) *Server {
	t.Helper()
	s := prepare(t, "redis-server", append(directives,
		"port 0", "tls-port {{PORT}}", "tls-ca-cert-file "+files.Root, "tls-cert-file "+files.Certificate, "tls-key-file "+files.Key))
	s.Run(t)
	return s
}

// StartSentinel starts a sentinel that watches the server as its only one.
func StartSentinel(t testing.TB, master string, of *Server, directives ...string) *Server {
	t.Helper()
	return start(t, "redis-sentinel", append([]string{
		fmt.Sprintf("sentinel monitor %s 127.0.0.1 %s 1", master, of.Port),
		fmt.Sprintf("sentinel down-after-milliseconds %s 500", master),
		fmt.Sprintf("sentinel failover-timeout %s 3000", master),
	}, directives...))
}

func start(t testing.TB, program string, directives []string) *Server {
	t.Helper()
	s := prepare(t, program, append(directives, "port {{PORT}}"))
	s.Run(t)
	return s
}

func prepare(t testing.TB, program string, directives []string) *Server {
	t.Helper()
	path, err := exec.LookPath(program)
	if err != nil {
		t.Fatalf("these tests need %s, as of the Debian packages redis-server and redis-sentinel: %v", program, err)
	}
	s := &Server{Port: FreePort(t), dir: t.TempDir()}
	s.Address = net.JoinHostPort("127.0.0.1", s.Port)
	s.config = filepath.Join(s.dir, "redis.conf")
	directives = append([]string{"bind 127.0.0.1", "protected-mode no", "dir " + s.dir}, directives...)
	if program == "redis-server" {
		directives = append(directives, `save ""`)
	}
	text := strings.ReplaceAll(strings.Join(directives, "\n")+"\n", "{{PORT}}", s.Port)
	if err := os.WriteFile(s.config, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	s.cmd = exec.Command(path, s.config)
	t.Cleanup(s.Stop)
	return s
}

// Run starts the server again, after Stop.
func (s *Server) Run(t testing.TB) {
	t.Helper()
	s.output = new(bytes.Buffer)
	s.cmd = exec.Command(s.cmd.Path, s.config)
	s.cmd.Stdout, s.cmd.Stderr = s.output, s.output
	if err := s.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	for deadline := time.Now().Add(20 * time.Second); ; time.Sleep(10 * time.Millisecond) {
		connection, err := net.Dial("tcp", s.Address)
		if err == nil {
			_ = connection.Close()
			return
		}
		if time.Now().After(deadline) {
			s.Stop()
			t.Fatalf("%s did not start: %s", s.cmd.Path, s.output)
		}
	}
}

// Stop ends the server at once, whatever state it is in.
func (s *Server) Stop() {
	if s.cmd.Process == nil || s.cmd.ProcessState != nil {
		return
	}
	_ = s.cmd.Process.Kill()
	_ = s.cmd.Wait()
}

// Hang makes the server stop doing anything, while its connections stay open,
// until Resume.
func (s *Server) Hang(t testing.TB) { s.signal(t, syscall.SIGSTOP) }

// Resume lets the server go on after Hang.
func (s *Server) Resume(t testing.TB) { s.signal(t, syscall.SIGCONT) }

func (s *Server) signal(t testing.TB, signal os.Signal) {
	t.Helper()
	if err := s.cmd.Process.Signal(signal); err != nil {
		t.Fatal(err)
	}
}

// Do sends a command to the server as its default user, without a password.
func (s *Server) Do(t testing.TB, command string, args ...any) any {
	t.Helper()
	value, err := s.Try(command, args...)
	if err != nil {
		t.Fatalf("%s: %v", command, err)
	}
	return value
}

// Try is Do where the server may refuse.
func (s *Server) Try(command string, args ...any) (any, error) {
	const enough = 5 * time.Second
	connection, err := redigo.Dial("tcp", s.Address, redigo.DialConnectTimeout(enough), redigo.DialReadTimeout(enough))
	if err != nil {
		return nil, err
	}
	defer connection.Close()
	return connection.Do(command, args...)
}

// Keys returns the keys of database 0.
func (s *Server) Keys(t testing.TB) []string {
	t.Helper()
	keys, err := redigo.Strings(s.Do(t, "KEYS", "*"), nil)
	if err != nil {
		t.Fatal(err)
	}
	return keys
}

// TTL returns for how long a key is kept.
func (s *Server) TTL(t testing.TB, key string) time.Duration {
	t.Helper()
	milliseconds, err := redigo.Int64(s.Do(t, "PTTL", key), nil)
	if err != nil || milliseconds < 0 {
		t.Fatalf("PTTL: %d, %v", milliseconds, err)
	}
	return time.Duration(milliseconds) * time.Millisecond
}

// Cluster makes one cluster of the servers, which have `cluster-enabled yes`: of
// masters, each with so many replicas.
func Cluster(t testing.TB, replicas int, servers ...*Server) {
	t.Helper()
	args := []string{"--cluster", "create"}
	for _, s := range servers {
		args = append(args, s.Address)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 60*time.Second)
	defer cancel()
	args = append(args, "--cluster-replicas", strconv.Itoa(replicas), "--cluster-yes")
	output, err := exec.CommandContext(ctx, "redis-cli", args...).CombinedOutput()
	if err != nil {
		t.Fatalf("redis-cli: %v\n%s", err, output)
	}
	Await(t, "the cluster", func() bool {
		for _, s := range servers {
			info, _ := redigo.String(s.Try("CLUSTER", "INFO"))
			if !strings.Contains(info, "cluster_state:ok") {
				return false
			}
		}
		return true
	})
}

// Await waits until something is so.
func Await(t testing.TB, what string, so func() bool) {
	t.Helper()
	for deadline := time.Now().Add(30 * time.Second); !so(); time.Sleep(20 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("waited in vain for %s", what)
		}
	}
}

// FreePort returns a port of the loopback interface that is free, and with 10000
// added too: a cluster's nodes talk to each other there.
func FreePort(t testing.TB) string {
	t.Helper()
	const bus = 10_000
	for range 100 {
		listener, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		port := listener.Addr().(*net.TCPAddr).Port
		_ = listener.Close()
		if port = port%20_000 + 20_000; free(port) && free(port+bus) {
			return strconv.Itoa(port)
		}
	}
	t.Fatal("no free port")
	return ""
}

func free(port int) bool {
	listener, err := net.Listen("tcp", net.JoinHostPort("127.0.0.1", strconv.Itoa(port)))
	if err != nil {
		return false
	}
	_ = listener.Close()
	return true
}
