//go:build interop

// Package interop lets a real authorization server and real clients meet the
// gateway: oidc-provider, openid-client and oauth4webapi.
//
//	cd interop && npm ci && go test -race -tags interop .
package interop

import (
	"bufio"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"
)

const (
	audience = "https://api.example.com"
	// The URI has whatever a proxy may be tempted to tidy up.
	uri = "/orders/a%2Fb/caf%C3%A9/?q=a%20b&empty=&q=%26&x"
	// All but the first build takes seconds: what is not done by then hangs.
	limit = 5 * time.Minute
)

// testCase is a call that a client makes with its token. One that is accepted
// has a method, one that is refused a challenge and a reason.
type testCase struct {
	library, grant, tokenAlgorithm, proofAlgorithm, kind string

	method, challenge, reason string
}

func (c testCase) String() string {
	return strings.Join([]string{c.library, c.grant, c.tokenAlgorithm, c.proofAlgorithm, c.kind}, "/")
}

// cases returns what the clients must have tried. The list is not the clients'
// own, so that one which they leave out is missed.
func cases() []testCase {
	var all []testCase
	for _, library := range []string{"openid-client", "oauth4webapi"} {
		for _, grant := range []string{"client_credentials", "authorization_code"} {
			for _, token := range []string{"RS256", "PS256", "ES256", "EdDSA", "Ed25519", "opaque"} {
				for _, proof := range []string{"RS256", "PS256", "ES256", "Ed25519"} {
					all = append(all,
						testCase{library, grant, token, proof, "get", "GET", "", ""},
						testCase{library, grant, token, proof, "post", "POST", "", ""},
						testCase{library, grant, token, proof, "replay", "", "dpop invalid_dpop_proof", "proof_replayed"},
						testCase{library, grant, token, proof, "other-key", "", "dpop invalid_token", "token_other_key"},
						testCase{library, grant, token, proof, "bearer", "", "dpop invalid_token", "bearer_refused"},
					)
				}
			}
		}
	}
	return all
}

// result is a case, as the client saw it.
type result struct {
	Case           string
	Token          string // its SHA-256
	TokenAlgorithm string `json:"token_alg"`
	ProofAlgorithm string `json:"proof_alg"`
	Status         int
	Answer         string
	Challenges     []string
}

func TestRealClients(t *testing.T) {
	node := requireNode(t)
	backend := &backend{got: map[string][]request{}}
	server := httptest.NewServer(backend)
	t.Cleanup(server.Close)
	issuer := startProvider(t, node)
	gateway := startGateway(t, issuer, server.Listener.Addr().String())
	results := runClients(t, node, issuer, gateway.url+uri)
	verdicts := gateway.stop(t)

	for _, c := range cases() {
		name := c.String()
		t.Run(name, func(t *testing.T) {
			r, ok := results[name]
			if !ok {
				t.Fatal("the clients did not try it")
			}
			delete(results, name)
			proofAlgorithm := c.proofAlgorithm
			if c.kind == "bearer" {
				proofAlgorithm = "" // there is no proof
			}
			if r.TokenAlgorithm != c.tokenAlgorithm || r.ProofAlgorithm != proofAlgorithm {
				t.Errorf("the token was signed by %q, the proof by %q", r.TokenAlgorithm, r.ProofAlgorithm)
			}
			if c.method != "" {
				c.checkAccepted(t, r, backend.got[name], verdicts[name])
			} else {
				c.checkRefused(t, r, backend.got[name], verdicts[name])
			}
		})
	}
	for name := range results {
		t.Errorf("the clients tried %s, which nothing here checks", name)
	}
}

func (c testCase) checkAccepted(t *testing.T, r result, got []request, verdicts []verdict) {
	if r.Status != http.StatusOK || r.Answer != "hello" {
		t.Errorf("got status %d, answer %q, challenges %q", r.Status, r.Answer, r.Challenges)
	}
	if want := []verdict{{Outcome: "accepted"}}; !slices.Equal(verdicts, want) {
		t.Errorf("the access log has %+v, want %+v", verdicts, want)
	}
	if len(got) != 1 {
		t.Fatalf("the backend got %d requests, want 1", len(got))
	}
	var body string
	if c.method == "POST" {
		body = `{"case":"` + r.Case + `"}`
	}
	g := got[0]
	if g.method != c.method || g.uri != uri || g.body != body {
		t.Errorf("the backend got %s %s with body %q", g.method, g.uri, g.body)
	}
	if values := g.header.Values("Authorization"); len(values) != 1 {
		t.Errorf("the backend got %d Authorization fields, want 1", len(values))
	}
	token, ok := strings.CutPrefix(g.header.Get("Authorization"), "Bearer ")
	if sum := sha256.Sum256([]byte(token)); !ok || hex.EncodeToString(sum[:]) != r.Token {
		t.Error("the backend did not get the client's token as Bearer")
	}
	if proof := g.header.Values("DPoP"); len(proof) != 0 {
		t.Errorf("the backend got DPoP %q", proof)
	}
	if client := g.header.Values("X-Client"); !slices.Equal(client, []string{c.library}) {
		t.Errorf("the backend got X-Client %q", client)
	}
}

func (c testCase) checkRefused(t *testing.T, r result, got []request, verdicts []verdict) {
	if want := []string{c.challenge}; r.Status != http.StatusUnauthorized || !slices.Equal(r.Challenges, want) {
		t.Errorf("got status %d, answer %q, challenges %q, want 401 with %q", r.Status, r.Answer, r.Challenges, want)
	}
	if want := []verdict{{Outcome: "refused", Reason: c.reason}}; !slices.Equal(verdicts, want) {
		t.Errorf("the access log has %+v, want %+v", verdicts, want)
	}
	if len(got) != 0 {
		t.Errorf("the backend got %d requests, want none", len(got))
	}
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

// startProvider starts the authorization server, and returns its issuer.
func startProvider(t *testing.T, node string) string {
	t.Helper()
	cmd := command(t, node, "provider.mjs", audience)
	// Its standard input ends with this process, however that ends.
	if _, err := cmd.StdinPipe(); err != nil {
		t.Fatal(err)
	}
	stdout, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	start(t, cmd)
	var ready struct{ Issuer string }
	if err := json.NewDecoder(stdout).Decode(&ready); err != nil || ready.Issuer == "" {
		t.Fatalf("the provider did not start: %v", err)
	}
	return ready.Issuer
}

// gateway is Caddy with the plugin, in a process of its own.
type gateway struct {
	url       string
	process   *os.Process
	wait      func() error
	accessLog string
}

func startGateway(t *testing.T, issuer, backend string) *gateway {
	t.Helper()
	dir := t.TempDir()
	binary := filepath.Join(dir, "caddy")
	build := command(t, "go", "build", "-race", "-tags", "nobadger,nomysql,nopgx", "-o", binary, "../cmd/caddy")
	if err := build.Run(); err != nil {
		t.Fatalf("building: %v", err)
	}
	g := &gateway{url: "http://" + freeAddress(t), accessLog: filepath.Join(dir, "access.log")}
	caddyfile := filepath.Join(dir, "Caddyfile")
	config := fmt.Sprintf(`{
	admin off
	persist_config off
	log {
		level WARN
	}
}

%s {
	bind 127.0.0.1
	log {
		output file %s
		format json
	}
	dpop {
		issuer %s {
			introspection {
				client_id gateway
				client_secret "a secret: 100%% + more"
				signed_response
			}
		}
		audience %s
		claim_header X-Client client_id
	}
	reverse_proxy %s
}
`, g.url, g.accessLog, issuer, audience, backend)
	if err := os.WriteFile(caddyfile, []byte(config), 0o600); err != nil {
		t.Fatal(err)
	}
	cmd := command(t, binary, "run", "--config", caddyfile)
	cmd.Env = append(os.Environ(), "XDG_DATA_HOME="+t.TempDir(), "XDG_CONFIG_HOME="+t.TempDir())
	g.wait = start(t, cmd)
	g.process = cmd.Process
	g.await(t)
	return g
}

// await returns once the gateway can judge proofs: after the second of its
// start, from which it cannot know what was accepted before.
func (g *gateway) await(t *testing.T) {
	t.Helper()
	for deadline := time.Now().Add(20 * time.Second); ; time.Sleep(50 * time.Millisecond) {
		response, err := http.Get(g.url)
		if err == nil {
			response.Body.Close()
			if response.StatusCode != http.StatusUnauthorized {
				t.Fatalf("the gateway answered %s to a request without credentials", response.Status)
			}
			break
		}
		if time.Now().After(deadline) {
			t.Fatalf("the gateway did not start: %v", err)
		}
	}
	time.Sleep(time.Until(time.Now().Truncate(time.Second).Add(time.Second)))
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

// runClients runs the clients, and returns what they saw, by case.
func runClients(t *testing.T, node, issuer, url string) map[string]result {
	t.Helper()
	cmd := command(t, node, "clients.mjs", issuer, audience, url)
	stdout, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	wait := start(t, cmd)
	results := map[string]result{}
	lines := bufio.NewScanner(stdout)
	for lines.Scan() {
		var r result
		if err := json.Unmarshal(lines.Bytes(), &r); err != nil {
			t.Fatalf("the clients printed %q: %v", lines.Text(), err)
		}
		if _, ok := results[r.Case]; ok {
			t.Errorf("the clients tried %s twice", r.Case)
		}
		results[r.Case] = r
	}
	if err := wait(); err != nil {
		t.Fatalf("the clients failed: %v", err)
	}
	return results
}

// freeAddress returns an address of loopback that nothing listens on.
func freeAddress(t *testing.T) string {
	t.Helper()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer listener.Close()
	return listener.Addr().String()
}
