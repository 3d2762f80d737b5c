// Package caddytest tests the plugin in a real Caddy, over real sockets.
package caddytest

import (
	"bytes"
	"context"
	"crypto/rand"
	"crypto/tls"
	"encoding/json"
	"fmt"
	"io"
	"log"
	"maps"
	mathrand "math/rand/v2"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/caddyserver/caddy/v2"
	"github.com/caddyserver/caddy/v2/caddyconfig"
	_ "github.com/caddyserver/caddy/v2/modules/standard"

	_ "github.com/caddy-dpop/caddy-dpop"
	"github.com/caddy-dpop/caddy-dpop/internal/devissuer"
	"github.com/caddy-dpop/caddy-dpop/internal/jose"
	"github.com/caddy-dpop/caddy-dpop/internal/proof"
)

const audience = "https://api.example.com"

// What all tests share: one issuer and one other that nobody trusts, a client's
// key, and the address of Caddy's admin API. There is one Caddy in a process.
var (
	issuer, stranger *devissuer.Issuer
	clientKey        *jose.PrivateKey
	adminAddress     string
	keeperPort       string
	storage          string // Caddy's
)

func TestMain(m *testing.M) { os.Exit(run(m)) }

func run(m *testing.M) int {
	var err error
	if issuer, err = devissuer.Start(algorithm("ES256"), audience); err != nil {
		log.Print(err)
		return 1
	}
	defer issuer.Stop()
	if stranger, err = devissuer.Start(algorithm("ES256"), audience); err != nil {
		log.Print(err)
		return 1
	}
	defer stranger.Stop()
	if clientKey, err = jose.Generate(algorithm("ES256")); err != nil {
		log.Print(err)
		return 1
	}
	if storage, err = os.MkdirTemp("", "caddytest"); err != nil {
		log.Print(err)
		return 1
	}
	defer os.RemoveAll(storage)
	adminAddress, keeperPort = "127.0.0.1:"+freePort(), freePort()
	defer func() { _ = caddy.Stop() }()
	return m.Run()
}

func algorithm(name string) *jose.Algorithm { return jose.AllAlgorithms().Find(name) }

// freePort returns a port that nothing listens on, and that the system does not
// give to connections meanwhile: those are from 32768 on, as a rule.
func freePort() string {
	for {
		port := strconv.Itoa(10_000 + mathrand.IntN(20_000))
		if listener, err := net.Listen("tcp", "127.0.0.1:"+port); err == nil {
			listener.Close()
			return port
		}
	}
}

// gateway is Caddy with one site, in front of a backend.
type gateway struct {
	port      string
	url       string // of the site, without a path
	backend   *backend
	logs      string // file of Caddy's default log
	accessLog string // file of the site's access log
	loads     int    // of configurations
}

// setup is what a test changes of the usual configuration. In its texts
// {{BACKEND}} stands for the backend, {{ISSUER}} for the issuer's URL, {{PORT}}
// for the site's port and {{DPOP}} for a dpop directive with the usual issuer
// and audience and what follows as further settings up to the line's end.
type setup struct {
	options string // global
	servers string // global options of servers
	named   string // named routes
	format  string // of both logs; default: format json
	address string // of the site; default: http://127.0.0.1:{{PORT}}
	site    string // directives; default: {{DPOP}} and a reverse_proxy
	alone   bool   // leave out the other site, which keeps the memory store alive
}

// serve starts the site: by a reload, if another test had one before.
func serve(t *testing.T, s setup) *gateway {
	t.Helper()
	g := &gateway{port: freePort(), backend: startBackend(t)}
	g.url = "http://127.0.0.1:" + g.port
	if strings.HasPrefix(s.address, "https") {
		g.url = "https" + g.url[4:]
	}
	dir := t.TempDir()
	g.logs, g.accessLog = filepath.Join(dir, "caddy.log"), filepath.Join(dir, "access.log")
	g.load(t, s)
	return g
}

// load loads a configuration for the gateway's port, backend and logs.
func (g *gateway) load(t *testing.T, s setup) {
	t.Helper()
	g.loads++
	if err := caddy.Load(g.config(t, s), true); err != nil {
		t.Fatalf("loading: %v", err)
	}
	g.awaitTakeover(t)
	awaitStore(t)
}

// awaitTakeover waits until the listener of the configuration before is gone:
// for a moment both accept connections, and what waits at the old one is reset.
func (g *gateway) awaitTakeover(t *testing.T) {
	t.Helper()
	scheme, transport := "http", &http.Transport{DisableKeepAlives: true}
	if strings.HasPrefix(g.url, "https") {
		scheme, transport.TLSClientConfig = "https", &tls.Config{InsecureSkipVerify: true} // looks at a status alone
	}
	probe := call{url: fmt.Sprintf("%s://127.0.0.1:%s/takeover-%d", scheme, g.port, g.loads)}
	client := &http.Client{Transport: transport, CheckRedirect: plainClient.CheckRedirect, Timeout: time.Second}
	inARow := 0
	for deadline := time.Now().Add(10 * time.Second); inARow < 10; {
		if time.Now().After(deadline) {
			t.Fatal("the configuration did not take over")
		}
		if response, err := probe.do(client); err == nil && response.StatusCode == http.StatusFound {
			_ = response.Body.Close()
			inARow++
		} else {
			inARow = 0
		}
	}
}

// config returns the JSON of a configuration.
func (g *gateway) config(t *testing.T, s setup) []byte {
	t.Helper()
	if s.address == "" {
		s.address = "http://127.0.0.1:{{PORT}}"
	}
	if s.site == "" {
		s.site = "{{DPOP}}\nreverse_proxy {{BACKEND}}"
	}
	if s.format == "" {
		s.format = "format json"
	}
	text := `{
	admin ` + adminAddress + `
	persist_config off
	auto_https off
	storage file_system ` + storage + `
	` + s.options + `
	servers {
		` + s.servers + `
	}
	log default {
		output file ` + g.logs + `
		` + s.format + `
		level DEBUG
	}
}
` + s.named + `
` + s.address + ` {
	bind 127.0.0.1
	log {
		output file ` + g.accessLog + `
		` + s.format + `
	}
	redir /takeover-` + strconv.Itoa(g.loads) + ` /
	` + s.site + `
}
`
	if !s.alone {
		text += "http://127.0.0.1:" + keeperPort + " {\nbind 127.0.0.1\n{{DPOP}}\n}\n"
	}
	lines := strings.Split(text, "\n")
	for i, line := range lines {
		if before, settings, ok := strings.Cut(line, "{{DPOP}}"); ok {
			lines[i] = before + "dpop {\nissuer " + issuer.URL + "\naudience " + audience + "\n" +
				strings.ReplaceAll(settings, ";", "\n") + "\n}"
		}
	}
	text = strings.NewReplacer("{{BACKEND}}", g.backend.address, "{{ISSUER}}", issuer.URL, "{{PORT}}", g.port).
		Replace(strings.Join(lines, "\n"))
	config, _, err := caddyconfig.GetAdapter("caddyfile").Adapt([]byte(text), map[string]any{"filename": "Caddyfile"})
	if err != nil {
		t.Fatalf("adapting: %v\n%s", err, text)
	}
	return config
}

// awaitStore waits until the memory store judges proofs made now: from the
// second after it began to record.
func awaitStore(t *testing.T) {
	t.Helper()
	next := time.Now().Truncate(time.Second).Add(time.Second)
	storeReady.Do(func() { time.Sleep(time.Until(next)) })
}

var storeReady sync.Once

// restartedStore waits as awaitStore does, after the store was started anew.
func restartedStore() {
	time.Sleep(time.Until(time.Now().Truncate(time.Second).Add(time.Second)))
}

// backend knows nothing of DPoP, and notes what it gets.
type backend struct {
	address string
	// answer is called for each request, if set.
	answer http.HandlerFunc

	mu  sync.Mutex
	got []got
}

// got is a request as the backend got it.
type got struct {
	method, uri, host, body string
	header                  http.Header
}

func startBackend(t *testing.T) *backend {
	t.Helper()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	b := &backend{address: listener.Addr().String()}
	server := &http.Server{Handler: b, ReadHeaderTimeout: 5 * time.Second}
	go func() { _ = server.Serve(listener) }()
	t.Cleanup(func() { _ = server.Close() })
	return b
}

func (b *backend) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	body, _ := io.ReadAll(r.Body)
	b.mu.Lock()
	b.got = append(b.got, got{r.Method, r.RequestURI, r.Host, string(body), r.Header})
	b.mu.Unlock()
	if b.answer != nil {
		b.answer(w, r)
		return
	}
	_, _ = io.WriteString(w, "hello")
}

// requests returns what the backend got since the last call.
func (b *backend) requests() []got {
	b.mu.Lock()
	defer b.mu.Unlock()
	all := b.got
	b.got = nil
	return all
}

// one returns the one request that the backend got since the last call.
func (b *backend) one(t *testing.T) got {
	t.Helper()
	all := b.requests()
	if len(all) != 1 {
		t.Fatalf("the backend got %d requests, want 1", len(all))
	}
	return all[0]
}

// none fails if the backend got anything since the last call.
func (b *backend) none(t *testing.T) {
	t.Helper()
	if all := b.requests(); len(all) != 0 {
		t.Fatalf("the backend got %d requests, want none: %+v", len(all), all)
	}
}

// accessToken returns a token for the client's key, with claims changed: nil
// removes one.
func accessToken(t testing.TB, changes map[string]any) string {
	t.Helper()
	return tokenOf(t, issuer, changes)
}

func tokenOf(t testing.TB, iss *devissuer.Issuer, changes map[string]any) string {
	t.Helper()
	claims := iss.Claims("client-1")
	claims["sub"] = "user-1"
	claims["cnf"] = map[string]any{"jkt": clientKey.Thumbprint}
	maps.Copy(claims, changes)
	maps.DeleteFunc(claims, func(_ string, v any) bool { return v == nil })
	token, err := iss.Sign(claims)
	if err != nil {
		t.Fatal(err)
	}
	return token
}

// dpop returns a proof by the client's key, with claims changed: nil removes one.
func dpop(t testing.TB, method, url, token string, changes map[string]any) string {
	t.Helper()
	return dpopBy(t, clientKey, method, url, token, changes)
}

func dpopBy(t testing.TB, key *jose.PrivateKey, method, url, token string, changes map[string]any) string {
	t.Helper()
	claims := map[string]any{
		"jti": rand.Text(), "htm": method, "htu": url, "iat": time.Now().Unix(), "ath": proof.TokenHash(token),
	}
	maps.Copy(claims, changes)
	maps.DeleteFunc(claims, func(_ string, v any) bool { return v == nil })
	text, err := key.Sign(map[string]any{"typ": "dpop+jwt", "jwk": key.Public}, claims)
	if err != nil {
		t.Fatal(err)
	}
	return text
}

// call is a request that a test sends.
type call struct {
	method string // default: GET
	url    string
	header http.Header
	body   string
	host   string // default: of the URL
}

// good returns a call that strict mode accepts.
func good(t testing.TB, url string) call {
	t.Helper()
	token := accessToken(t, nil)
	return call{url: url, header: http.Header{
		"Authorization": {"DPoP " + token},
		"Dpop":          {dpop(t, "GET", url, token, nil)},
	}}
}

// answer is what a call got.
type answer struct {
	*http.Response
	text string
}

// A connection for each request: a reload may close one that is kept.
var plainClient = &http.Client{
	Timeout:       10 * time.Second,
	Transport:     &http.Transport{DisableKeepAlives: true},
	CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
}

func (c call) send(t testing.TB) answer {
	t.Helper()
	return c.sendBy(t, plainClient)
}

func (c call) sendBy(t testing.TB, client *http.Client) answer {
	t.Helper()
	response, err := c.do(client)
	if err != nil {
		t.Fatal(err)
	}
	defer response.Body.Close()
	text, err := io.ReadAll(response.Body)
	if err != nil {
		t.Fatal(err)
	}
	return answer{response, string(text)}
}

// try sends the call where it may fail, and returns the status.
func (c call) try() (int, error) {
	response, err := c.do(plainClient)
	if err != nil {
		return 0, err
	}
	return response.StatusCode, response.Body.Close()
}

func (c call) do(client *http.Client) (*http.Response, error) {
	if c.method == "" {
		c.method = "GET"
	}
	request, err := http.NewRequestWithContext(context.Background(), c.method, c.url, strings.NewReader(c.body))
	if err != nil {
		return nil, err
	}
	maps.Copy(request.Header, c.header)
	request.Host = c.host
	return client.Do(request)
}

// expect fails unless the answer has the status and exactly the challenges.
func (a answer) expect(t testing.TB, status int, challenges ...string) {
	t.Helper()
	if a.StatusCode != status {
		t.Fatalf("answered %d, want %d (%q)", a.StatusCode, status, a.Header.Values("WWW-Authenticate"))
	}
	got := a.Header.Values("WWW-Authenticate")
	if len(got) != len(challenges) {
		t.Fatalf("challenges %q, want %q", got, challenges)
	}
	for i := range got {
		if !sameChallenge(got[i], challenges[i]) {
			t.Fatalf("challenge %q, want %q", got[i], challenges[i])
		}
	}
	if status >= 400 && a.Header.Get("Cache-Control") != "no-store" {
		t.Fatalf("a refusal with Cache-Control %q", a.Header.Get("Cache-Control"))
	}
}

const algs = `algs="ES256 PS256 RS256 EdDSA Ed25519"`

// Challenges as tests name them: scheme and error. Their descriptions are for people.
func sameChallenge(got, want string) bool {
	scheme, code, hasCode := strings.Cut(want, " ")
	tail := ""
	if scheme == "DPoP" {
		tail = algs
	}
	if !hasCode {
		return got == strings.TrimSpace(scheme+" "+tail)
	}
	head := fmt.Sprintf(`%s error="%s", error_description="`, scheme, code)
	if tail != "" {
		tail = ", " + tail
	}
	return strings.HasPrefix(got, head) && strings.HasSuffix(got, `"`+tail) && len(got) > len(head)+len(tail)+2
}

// entry is one line of a JSON log.
type entry map[string]any

// field returns a field of a line; a path of names leads into objects.
func (e entry) field(path ...string) any {
	var value any = map[string]any(e)
	for _, name := range path {
		object, _ := value.(map[string]any)
		value = object[name]
	}
	return value
}

// await returns the first line of a log for which the condition holds: a line
// may be written after the client has its answer.
func await(t testing.TB, file string, holds func(entry) bool) entry {
	t.Helper()
	for deadline := time.Now().Add(5 * time.Second); time.Now().Before(deadline); time.Sleep(10 * time.Millisecond) {
		text, _ := os.ReadFile(file)
		for line := range bytes.Lines(text) {
			var e entry
			if json.Unmarshal(line, &e) == nil && holds(e) {
				return e
			}
		}
	}
	text, _ := os.ReadFile(file)
	t.Fatalf("no such line in %s:\n%s", filepath.Base(file), text)
	return nil
}
