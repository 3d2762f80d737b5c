package caddytest

import (
	"bytes"
	"context"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/caddy-dpop/caddy-dpop/internal/devissuer"
	"github.com/caddy-dpop/caddy-dpop/internal/jose"
)

// program is the real binary, in a directory to work in.
type program struct {
	dir  string
	path string
}

func build(t *testing.T) *program {
	t.Helper()
	p := &program{dir: t.TempDir(), path: filepath.Join(t.TempDir(), "caddy")}
	if text, err := exec.Command("go", "build", "-o", p.path, "../cmd/caddy").CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, text)
	}
	return p
}

// said is what a script has written, and its exit status.
type said struct {
	out, err string
	status   int
}

// sh runs a script in which $caddy is the binary; it has a minute.
func (p *program) sh(t *testing.T, script string) said {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	cmd := exec.CommandContext(ctx, "sh", "-c", script)
	cmd.Dir = p.dir
	cmd.Env = append(os.Environ(), "caddy="+p.path, "HOME="+p.dir, "XDG_DATA_HOME="+p.dir, "XDG_CONFIG_HOME="+p.dir)
	var out, errs bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &errs
	err := cmd.Run()
	var exit *exec.ExitError
	if err != nil && !errors.As(err, &exit) {
		t.Fatal(err)
	}
	return said{out.String(), errs.String(), cmd.ProcessState.ExitCode()}
}

// good fails unless the script has ended with status 0, and returns what it has put out.
func (s said) good(t *testing.T) string {
	t.Helper()
	if s.status != 0 {
		t.Fatalf("exit status %d\n%s\n%s", s.status, s.out, s.err)
	}
	return s.out
}

// has fails unless the text has each part.
func has(t *testing.T, text string, parts ...string) {
	t.Helper()
	for _, part := range parts {
		if !strings.Contains(text, part) {
			t.Errorf("no %q in:\n%s", part, text)
		}
	}
}

// The command line by the real binary, from a key to an answer, and to why there
// was none.
func TestCommands(t *testing.T) {
	p := build(t)
	t.Run("pipes", func(t *testing.T) { testPipes(t, p) })
	t.Run("nonces", func(t *testing.T) { testNonces(t, p) })
	t.Run("refusals", func(t *testing.T) { testRefusals(t, p) })
	t.Run("keys", func(t *testing.T) { testKeys(t, p) })
	t.Run("help", func(t *testing.T) { testHelp(t, p) })
	t.Run("demo", func(t *testing.T) { testDemo(t, p) })
	t.Run("demo that keeps serving", func(t *testing.T) { testKeep(t, p) })
}

func testPipes(t *testing.T, p *program) {
	g := serve(t, setup{})
	out := p.sh(t, `set -e; umask 077
		$caddy dpop keygen > key.jwk
		$caddy dpop token --issuer `+issuer.URL+` --client-id me --key key.jwk |
			$caddy dpop request --key key.jwk --token - --data @key.jwk --method PUT '`+g.url+`/a%2Fb?c=d'`).good(t)
	if out != "hello" {
		t.Errorf("output %q", out)
	}
	got := g.backend.one(t)
	key, err := os.ReadFile(filepath.Join(p.dir, "key.jwk"))
	if err != nil {
		t.Fatal(err)
	}
	if got.method != "PUT" || got.uri != "/a%2Fb?c=d" || got.body != string(key) || !strings.HasPrefix(got.header.Get("Authorization"), "Bearer ey") {
		t.Errorf("the backend got %+v", got)
	}
	// with everything secret from the environment, and the key on standard input
	out = p.sh(t, `set -e
		export CADDY_DPOP_KEY="$(cat key.jwk)" CADDY_DPOP_CLIENT_SECRET=secret
		export CADDY_DPOP_TOKEN="$($caddy dpop token --issuer `+issuer.URL+` --client-id me)"
		$caddy dpop request `+g.url+`/
		$caddy dpop request --key - `+g.url+`/ < key.jwk
		curl -s -H "Authorization: DPoP $CADDY_DPOP_TOKEN" -H "DPoP: $($caddy dpop proof -m GET -u `+g.url+`/)" `+g.url+`/`).good(t)
	if out != "hellohellohello" {
		t.Errorf("output %q", out)
	}
}

func testNonces(t *testing.T, p *program) {
	own, err := devissuer.Start(algorithm("ES256"), audience)
	if err != nil {
		t.Fatal(err)
	}
	defer own.Stop()
	own.DemandNonces()
	g := serve(t, setup{site: "dpop {\nissuer " + own.URL + "\naudience " + audience + "\nnonce required\n}\nreverse_proxy {{BACKEND}}"})
	got := p.sh(t, `set -e; umask 077
		$caddy dpop keygen --alg EdDSA > key.jwk
		$caddy dpop token --issuer `+own.URL+` --client-id me --key key.jwk > token
		$caddy dpop request --include --key key.jwk --token @token --data x `+g.url+`/`)
	has(t, got.good(t), "HTTP/1.1 200 OK\n", "\n\nhello")
	has(t, got.err, "asks for a nonce")
	if r := g.backend.one(t); r.method != "POST" || r.body != "x" {
		t.Errorf("the backend got %+v", r)
	}
}

// What a site refuses, inspect explains with the reason that is in the log.
func testRefusals(t *testing.T, p *program) {
	g := serve(t, setup{})
	p.sh(t, `umask 077; $caddy dpop keygen > key.jwk; $caddy dpop keygen > thief.jwk
		$caddy dpop token --issuer `+issuer.URL+` --client-id me --key key.jwk > token`).good(t)
	for _, row := range []struct{ name, key, url, reason string }{
		{"a stolen token", "thief.jwk", g.url + "/", "token_other_key"},
		{"a proof for another path", "key.jwk", g.url + "/other", "proof_url"},
	} {
		t.Run(row.name, func(t *testing.T) {
			got := p.sh(t, `set -e
				$caddy dpop proof --key `+row.key+` --token @token --method GET --url `+row.url+` > proof
				curl -s -o /dev/null -v -H "Authorization: DPoP $(cat token)" -H "DPoP: $(cat proof)" `+g.url+`/ 2> head
				curl -s `+issuer.URL+`/jwks > jwks
				$caddy dpop inspect --token @head --proof @head --method GET --url `+g.url+`/ \
					--issuer `+issuer.URL+` --audience `+audience+` --jwks jwks`)
			if got.status != 1 || got.err != "" {
				t.Errorf("exit status %d: %s", got.status, got.err)
			}
			has(t, got.out, "\n"+row.reason+": ", " 1 failed, ", "its log has "+row.reason, "token signature   ok")
			g.backend.none(t)
			await(t, g.logs, func(e entry) bool { return e["reason"] == row.reason })
		})
	}
	got := p.sh(t, `$caddy dpop request --key thief.jwk --token @token `+g.url+`/`)
	if got.status != 1 || got.out != "" {
		t.Errorf("exit status %d, output %q", got.status, got.out)
	}
	has(t, got.err, "HTTP/1.1 401 Unauthorized\n", `WWW-Authenticate: DPoP error="invalid_token"`, "not bound to this key")
	got = p.sh(t, `$caddy dpop token --issuer `+issuer.URL+`/other --client-id me --key key.jwk`)
	if got.status != 1 || got.out != "" || !strings.HasPrefix(got.err, "Error: discovery: ") {
		t.Errorf("exit status %d, output %q, %s", got.status, got.out, got.err)
	}
}

// A key that keygen makes is what a private_key of the plugin is, and its owner is
// told when others can read it.
func testKeys(t *testing.T, p *program) {
	got := p.sh(t, `umask 022; $caddy dpop keygen > open.jwk; echo; umask 077; $caddy dpop keygen --alg PS256 > closed.jwk`)
	if got.good(t); strings.Count(got.err, "warning: others can read") != 1 {
		t.Errorf("standard error %q", got.err)
	}
	text, err := os.ReadFile(filepath.Join(p.dir, "closed.jwk"))
	if err != nil {
		t.Fatal(err)
	}
	key, err := jose.ParsePrivateKey(text)
	if err != nil || key.Algorithm.Name != "PS256" {
		t.Fatalf("%+v, %v", key, err)
	}
	if got := p.sh(t, `$caddy dpop thumbprint < closed.jwk`).good(t); got != key.Thumbprint+"\n" {
		t.Errorf("thumbprint %q, want %q", got, key.Thumbprint)
	}
	serve(t, setup{site: "dpop {\nissuer " + issuer.URL + " {\nintrospection " + issuer.URL + "/introspect {\nclient_id me\nauth private_key_jwt\n" +
		"private_key " + filepath.Join(p.dir, "closed.jwk") + "\n}\n}\naudience " + audience + "\n}"})
}

func testHelp(t *testing.T, p *program) {
	all := []string{"keygen", "thumbprint", "proof", "token", "request", "inspect", "demo"}
	for _, script := range []string{"$caddy help dpop", "$caddy dpop", "$caddy dpop --help"} {
		text := p.sh(t, script).good(t)
		has(t, text, "Examples:\n  $ caddy dpop demo")
		for _, name := range all {
			has(t, text, "\n  "+name+" ")
		}
	}
	for _, name := range all {
		has(t, p.sh(t, "$caddy dpop "+name+" --help").good(t), "Usage:\n  caddy dpop "+name, "Examples:\n  $ ")
	}
	got := p.sh(t, "$caddy dpop keygne")
	if got.status != 1 || got.out != "" || !strings.HasPrefix(got.err, `Error: unknown command "keygne"`) {
		t.Errorf("%+v", got)
	}
}

func testDemo(t *testing.T, p *program) {
	got := p.sh(t, "$caddy dpop demo")
	has(t, got.good(t),
		"REQUEST ", "the client's request                             200     reached\n",
		"captured and replayed    401              invalid_dpop_proof\n",
		"a proof by another key   401              invalid_token\n",
		"as a Bearer token             401              invalid_token\n",
		"a proof for another path                         401              invalid_dpop_proof\n",
		"an hour slow      401              use_dpop_nonce\n",
		"with the nonce of that answer          200     reached\n",
		"What the backend saw of the first:\n  GET /orders\n  Authorization: Bearer ey", "\n  DPoP: (none)\n")
	if got.err != "" {
		t.Errorf("standard error %q", got.err)
	}
	checkReadmeDemo(t, got.out)
	for line := range strings.Lines(got.out) {
		if len(line) > 101 {
			t.Errorf("a long line: %s", line)
		}
	}
	if found, _ := filepath.Glob(filepath.Join(p.dir, "caddy")); len(found) > 0 {
		t.Errorf("the demo has left %q", found)
	}
}

// Every command that demo --keep prints does what it is printed for.
func testKeep(t *testing.T, p *program) {
	cmd := exec.Command(p.path, "dpop", "demo", "--keep")
	printed := &lines{}
	cmd.Stdout, cmd.Stderr = printed, os.Stderr
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	defer func() { _ = cmd.Process.Kill() }()
	text := printed.await(t, "--audience "+audience+"\n")
	kept, text, _ := strings.Cut(text, "Serving until interrupted")
	commands := regexp.MustCompile(`(?m)^    \S(?:.*\\\n)?.*$`).FindAllString(text, -1)
	wants := []struct {
		status int
		out    string
	}{
		{0, ""}, {0, ""}, {0, "The backend got\n  GET /orders\n  Authorization: Bearer "},
		{0, ""}, {1, ""}, {0, "HTTP/1.1 401 Unauthorized"},
		{0, ""}, {1, "token_other_key: "},
	}
	if len(commands) != len(wants) {
		t.Fatalf("%d commands, want %d:\n%s", len(commands), len(wants), text)
	}
	for i, want := range wants {
		got := p.sh(t, commands[i])
		if got.status != want.status || !strings.Contains(got.out, want.out) || strings.Contains(got.err, "warning") {
			t.Errorf("%s\nexit status %d, want %d\n%s\n%s", commands[i], got.status, want.status, got.out, got.err)
		}
	}
	checkReadmeCommands(t, p, kept)
	if err := cmd.Process.Signal(syscall.SIGINT); err != nil {
		t.Fatal(err)
	}
	done := make(chan error, 1)
	go func() { done <- cmd.Wait() }()
	select {
	case err := <-done:
		if err != nil {
			t.Errorf("interrupted, it ended with %v", err)
		}
	case <-time.After(10 * time.Second):
		t.Error("interrupted, it goes on")
	}
}

// lines is what a program writes, for another goroutine to read.
type lines struct {
	mu   sync.Mutex
	text bytes.Buffer
}

func (l *lines) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.text.Write(p)
}

// await returns all that was written once it ends so.
func (l *lines) await(t *testing.T, end string) string {
	t.Helper()
	for deadline := time.Now().Add(20 * time.Second); time.Now().Before(deadline); time.Sleep(20 * time.Millisecond) {
		l.mu.Lock()
		text := l.text.String()
		l.mu.Unlock()
		if strings.HasSuffix(text, end) {
			return text
		}
	}
	t.Fatal("it does not serve")
	return ""
}
