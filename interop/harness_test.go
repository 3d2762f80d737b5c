//go:build interop

// Package interop lets real authorization servers and real clients meet the
// gateway: oidc-provider and Keycloak, openid-client and oauth4webapi, a browser,
// Redis. The test command in the folder above installs them.
package interop

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"io"
	"log"
	"math/rand/v2"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"
)

// All but the first build takes seconds: what is not done by then hangs.
const limit = 5 * time.Minute

// gatewayBinary is a Caddy with the plugin.
var gatewayBinary string

func TestMain(m *testing.M) { os.Exit(run(m)) }

// run builds the gateway before any test picks a port for it.
func run(m *testing.M) int {
	dir, err := os.MkdirTemp("", "interop")
	if err != nil {
		log.Print(err)
		return 1
	}
	defer os.RemoveAll(dir)
	gatewayBinary = filepath.Join(dir, "caddy")
	build := exec.Command("go", "build", "-race", "-tags", "nobadger,nomysql,nopgx", "-o", gatewayBinary, "../cmd/caddy")
	build.Stderr = os.Stderr
	if err := build.Run(); err != nil {
		log.Printf("building: %v", err)
		return 1
	}
	return m.Run()
}

// backend knows nothing of DPoP, and notes what it gets, by case.
type backend struct {
	mu  sync.Mutex
	got map[string][]request
}

type request struct {
	method, uri, body string
	header            http.Header
}

func (b *backend) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	body, err := io.ReadAll(r.Body)
	if err != nil {
		panic(http.ErrAbortHandler)
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	name := r.Header.Get("X-Case")
	b.got[name] = append(b.got[name], request{r.Method, r.RequestURI, string(body), r.Header})
	_, _ = io.WriteString(w, "hello")
}

// checkForwarded fails unless a request came with one token alone, as Bearer. The
// token is known by its SHA-256.
func checkForwarded(t *testing.T, g request, hash string) {
	t.Helper()
	if values := g.header.Values("Authorization"); len(values) != 1 {
		t.Errorf("the backend got %d Authorization fields, want 1", len(values))
	}
	token, ok := strings.CutPrefix(g.header.Get("Authorization"), "Bearer ")
	if sum := sha256.Sum256([]byte(token)); !ok || hex.EncodeToString(sum[:]) != hash {
		t.Error("the backend did not get the client's token as Bearer")
	}
	if proof := g.header.Values("DPoP"); len(proof) != 0 {
		t.Errorf("the backend got DPoP %q", proof)
	}
}

// requireNode returns the path of Node.js. A suite that skips itself would
// prove nothing, so what is missing is an error.
func requireNode(t *testing.T) string {
	t.Helper()
	node, err := exec.LookPath("node")
	if err != nil {
		t.Fatalf("these tests need Node.js 20 or later: %v", err)
	}
	if _, err := os.Stat("node_modules"); err != nil {
		t.Fatalf("run `npm ci` in interop/ first: %v", err)
	}
	return node
}

// command returns a command that ends with the test at the latest, and whose
// errors show in the test's output.
func command(t *testing.T, name string, args ...string) *exec.Cmd {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), limit)
	t.Cleanup(cancel)
	cmd := exec.CommandContext(ctx, name, args...)
	cmd.Cancel = func() error { return cmd.Process.Signal(syscall.SIGTERM) }
	cmd.WaitDelay = 10 * time.Second
	cmd.Stderr = t.Output()
	return cmd
}

// start starts a command, and returns what waits for its end.
func start(t *testing.T, cmd *exec.Cmd) (wait func() error) {
	t.Helper()
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	wait = sync.OnceValue(cmd.Wait)
	t.Cleanup(func() { _ = wait() })
	return wait
}

// gateway is Caddy with the plugin, in a process of its own.
type gateway struct {
	url       string
	process   *os.Process
	wait      func() error
	accessLog string
}

// startGateway runs a gateway, and returns once it can judge proofs
// without nonces: after the second of its start, before which it cannot know
// what was accepted.
func startGateway(t *testing.T, url, caddyfile string) *gateway {
	t.Helper()
	g := runGateway(t, t.TempDir(), url, caddyfile)
	time.Sleep(time.Until(time.Now().Truncate(time.Second).Add(time.Second)))
	return g
}

// runGateway runs Caddy with a Caddyfile, in which {{ACCESS_LOG}} stands for the
// file of the access log, and one of whose sites has the URL. Data is the folder
// of its storage.
func runGateway(t *testing.T, data, url, caddyfile string) *gateway {
	t.Helper()
	dir := t.TempDir()
	g := &gateway{url: url, accessLog: filepath.Join(dir, "access.log")}
	config := filepath.Join(dir, "Caddyfile")
	if err := os.WriteFile(config, []byte(strings.ReplaceAll(caddyfile, "{{ACCESS_LOG}}", g.accessLog)), 0o600); err != nil {
		t.Fatal(err)
	}
	cmd := command(t, gatewayBinary, "run", "--config", config)
	cmd.Env = append(os.Environ(), "XDG_DATA_HOME="+data, "XDG_CONFIG_HOME="+t.TempDir())
	g.wait = start(t, cmd)
	g.process = cmd.Process
	g.await(t)
	return g
}

// await returns once the gateway answers.
func (g *gateway) await(t *testing.T) {
	t.Helper()
	for deadline := time.Now().Add(20 * time.Second); ; time.Sleep(50 * time.Millisecond) {
		response, err := http.Get(g.url)
		if err == nil {
			response.Body.Close()
			if response.StatusCode != http.StatusUnauthorized {
				t.Fatalf("the gateway answered %s to a request without credentials", response.Status)
			}
			return
		}
		if time.Now().After(deadline) {
			t.Fatalf("the gateway did not start: %v", err)
		}
	}
}

// verdict is what the access log says of a request.
type verdict struct{ Outcome, Reason string }

// stop stops the gateway, which completes the access log and makes the race
// detector speak, and returns the log's verdicts by case.
func (g *gateway) stop(t *testing.T) map[string][]verdict {
	t.Helper()
	if err := g.process.Signal(syscall.SIGTERM); err != nil {
		t.Error(err)
	}
	if err := g.wait(); err != nil {
		t.Errorf("the gateway ended: %v", err)
	}
	log, err := os.Open(g.accessLog)
	if err != nil {
		t.Fatal(err)
	}
	defer log.Close()
	verdicts := map[string][]verdict{}
	for lines := json.NewDecoder(log); ; {
		var line struct {
			Request struct{ Headers http.Header }
			DPoP    verdict
		}
		switch err := lines.Decode(&line); err {
		case nil:
			name := line.Request.Headers.Get("X-Case")
			verdicts[name] = append(verdicts[name], line.DPoP)
		case io.EOF:
			return verdicts
		default:
			t.Fatalf("access log: %v", err)
		}
	}
}

// freeAddress returns an address of loopback that nothing listens on, and that the
// system does not give to connections meanwhile: those have ports from 32768 on,
// as a rule.
func freeAddress(t *testing.T) string {
	t.Helper()
	for range 100 {
		address := fmt.Sprintf("127.0.0.1:%d", 10_000+rand.IntN(20_000))
		if listener, err := net.Listen("tcp", address); err == nil {
			listener.Close()
			return address
		}
	}
	t.Fatal("found no free port")
	return ""
}
