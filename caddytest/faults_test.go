package caddytest

import (
	"bufio"
	"bytes"
	"compress/gzip"
	"crypto/rand"
	"encoding/json"
	"fmt"
	"io"
	mathrand "math/rand/v2"
	"net"
	"net/http"
	"net/http/httptest"
	"net/url"
	"runtime"
	"runtime/debug"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/caddy-dpop/caddy-dpop/internal/devissuer"
)

// callTimeout is for a call to a faulty issuer.
const callTimeout = time.Second

// fault is one way in which an authorization server fails.
type fault struct {
	name string
	// answer writes to a connection on which a request has come, and which is
	// closed afterwards. Good is the body of a good answer.
	answer func(conn net.Conn, good string)
	// refuses: nobody listens.
	refuses bool
	// flood is how many requests at once show how much memory it takes. Zero: it
	// is not meant to take any.
	flood int
	// fineForKeys: no fault in a key set.
	fineForKeys bool
}

// faults returns all of them. They redirect to the address given.
func faults(elsewhere string) []fault {
	const ok = "HTTP/1.1 200 OK\r\n"
	says := func(name string, body func(good string) string) fault {
		return fault{name: name, answer: answers("200 OK", body)}
	}
	always := func(text string) func(string) string { return func(string) string { return text } }
	with := func(member string) func(string) string {
		return func(good string) string { return joined("{"+member+"}", good) }
	}
	redirects := func(status string) func(net.Conn, string) {
		return func(conn net.Conn, good string) {
			answers(status, asItIs, "Location: "+elsewhere+"/?"+url.QueryEscape(good))(conn, good)
		}
	}
	large, many := strings.Repeat(" ", 4<<20), strings.Repeat(" ", 64<<10)
	gzippedLarge := gzipped(large)
	bomb := strings.Repeat(gzippedLarge, 100)
	nested := `"x":` + strings.Repeat("[", 100_000) + strings.Repeat("]", 100_000)
	return []fault{
		{name: "slow", answer: func(conn net.Conn, good string) {
			time.Sleep(callTimeout + callTimeout/2)
			answers("200 OK", asItIs)(conn, good)
		}},
		{name: "hang", answer: func(conn net.Conn, _ string) { hang(conn, "") }},
		{name: "hang-in-header", answer: func(conn net.Conn, _ string) { hang(conn, ok+"Content-Ty") }},
		{name: "hang-in-body", answer: func(conn net.Conn, good string) { hang(conn, ok+"\r\n"+good) }},
		{name: "drip-header", answer: func(conn net.Conn, _ string) { forever(conn, ok+"X: ", "a", 10*time.Millisecond) }},
		{name: "drip-body", flood: 250, answer: func(conn net.Conn, good string) { forever(conn, ok+"\r\n"+good, " ", 10*time.Millisecond) }},

		{name: "refuse", refuses: true},
		{name: "drop", answer: func(net.Conn, string) {}},
		{name: "reset", answer: func(conn net.Conn, _ string) { _ = conn.(*net.TCPConn).SetLinger(0) }},
		{name: "drop-in-header", answer: func(conn net.Conn, _ string) { fmt.Fprint(conn, ok+"Content-Ty") }},
		{name: "drop-in-body", answer: func(conn net.Conn, good string) {
			fmt.Fprintf(conn, ok+"Content-Length: %d\r\n\r\n%s", len(good)+10, good)
		}},
		{name: "drop-in-chunks", answer: func(conn net.Conn, good string) {
			fmt.Fprintf(conn, ok+"Transfer-Encoding: chunked\r\n\r\n%x\r\n%s\r\n", len(good), good)
		}},
		{name: "not-http", answer: func(conn net.Conn, good string) { fmt.Fprint(conn, "SSH-2.0-OpenSSH_9.9\r\n"+good) }},

		{name: "redirect-302", answer: redirects("302 Found")},
		{name: "redirect-307", answer: redirects("307 Temporary Redirect")},
		{name: "redirect-loop", answer: answers("307 Temporary Redirect", asItIs, "Location: ?again")},

		{name: "101", answer: answers("101 Switching Protocols", asItIs, "Upgrade: h2c")},
		{name: "204", answer: answers("204 No Content", always(""))},
		{name: "206", answer: answers("206 Partial Content", asItIs)},
		{name: "401", answer: answers("401 Unauthorized", asItIs,
			`WWW-Authenticate: DPoP error="use_dpop_nonce"`, `WWW-Authenticate: Basic realm="issuer"`, "DPoP-Nonce: other")},
		{name: "403", answer: answers("403 Forbidden", asItIs)},
		{name: "429", answer: answers("429 Too Many Requests", asItIs, "Retry-After: 60")},
		{name: "500", answer: answers("500 Internal Server Error", asItIs)},

		says("empty", always("")),
		says("empty-object", always("{}")),
		says("html", always("<!doctype html><title>Sign in</title>")),
		says("cut-json", func(good string) string { return good[:len(good)-1] }),
		says("trailing-object", func(good string) string { return good + "{}" }),
		says("trailing-letter", func(good string) string { return good + "x" }),
		says("repeated-members", func(good string) string { return joined(good, good) }),
		says("repeated-good-first", func(good string) string { return joined(good, opposite(good)) }),
		says("repeated-good-last", func(good string) string { return joined(opposite(good), good) }),
		says("array", func(good string) string { return "[" + good + "]" }),
		says("string", strconv.Quote),
		says("number", always("1")),
		says("null", always("null")),
		says("byte-order-mark", func(good string) string { return "\xef\xbb\xbf" + good }),
		says("utf-16", func(good string) string { return "\x00" + strings.Join(strings.Split(good, ""), "\x00") }),
		// what is not understood in a key set is ignored (RFC 7517 §5)
		{name: "bad-utf-8", fineForKeys: true, answer: answers("200 OK", with(`"`+"\xff"+`":1`))},

		says("4-mb", func(good string) string { return good + large }),
		{name: "100-mb", answer: func(conn net.Conn, good string) {
			forever(conn, fmt.Sprintf(ok+"Content-Length: %d\r\n\r\n%s", 100<<20, good), many, 0)
		}},
		{name: "endless-body", flood: 16, answer: func(conn net.Conn, good string) { forever(conn, ok+"\r\n"+good, many, 0) }},
		{name: "4-mb-gzipped", answer: answers("200 OK", func(good string) string { return gzipped(good) + gzippedLarge }, "Content-Encoding: gzip")},
		{name: "gzip-bomb", flood: 16, answer: answers("200 OK", always(bomb), "Content-Encoding: gzip")},
		{name: "not-gzip", answer: answers("200 OK", asItIs, "Content-Encoding: gzip")},
		says("nested-a-million", always(strings.Repeat("[", 1_000_000))),
		{name: "nested-in-a-member", flood: 16, answer: answers("200 OK", with(nested))},
		{name: "endless-header", flood: 16, answer: func(conn net.Conn, _ string) { forever(conn, ok+"X: ", strings.Repeat("a", 64<<10), 0) }},
		{name: "endless-headers", flood: 16, answer: func(conn net.Conn, _ string) { forever(conn, ok, strings.Repeat("X: a\r\n", 10_000), 0) }},
		{name: "endless-early-hints", answer: func(conn net.Conn, _ string) {
			forever(conn, "", strings.Repeat("HTTP/1.1 103 Early Hints\r\n\r\n", 1000), 0)
		}},
	}
}

func asItIs(good string) string { return good }

// answers returns what sends a well-formed answer.
func answers(status string, body func(good string) string, headers ...string) func(net.Conn, string) {
	return func(conn net.Conn, good string) {
		text := body(good)
		lines := append([]string{"HTTP/1.1 " + status, "Connection: close", "Content-Length: " + strconv.Itoa(len(text))}, headers...)
		fmt.Fprint(conn, strings.Join(lines, "\r\n")+"\r\n\r\n")
		// in small pieces, so that a large text takes no memory here
		_, _ = io.Copy(conn, io.LimitReader(strings.NewReader(text), int64(len(text))))
	}
}

// hang writes the beginning of an answer, and waits until the client goes.
func hang(conn net.Conn, beginning string) {
	fmt.Fprint(conn, beginning)
	_, _ = io.Copy(io.Discard, conn)
}

// forever writes the beginning of an answer, and then the same again and again
// until the client goes.
func forever(conn net.Conn, beginning, again string, pause time.Duration) {
	_, err := io.WriteString(conn, beginning)
	for chunk := []byte(again); err == nil; _, err = conn.Write(chunk) {
		time.Sleep(pause)
	}
}

// joined makes one JSON object of two.
func joined(first, second string) string { return first[:len(first)-1] + "," + second[1:] }

// opposite makes a body of the same kind that says something else.
func opposite(good string) string {
	switch {
	case strings.Contains(good, `"keys"`):
		return `{"keys":[]}`
	case strings.Contains(good, `"active"`):
		return `{"active":false}`
	}
	return `{"issuer":"https://other.example"}`
}

func gzipped(text string) string {
	var b bytes.Buffer
	w := gzip.NewWriter(&b)
	_, _ = io.WriteString(w, text)
	_ = w.Close()
	return b.String()
}

// role is what an authorization server is asked for, and what is tested of it.
type role struct {
	name string
	// test calls done when there is little left to do but wait.
	test      func(t *testing.T, g *gateway, s *faulty, done func())
	paths     string // how those begin that a fault concerns
	settings  string // of the issuer; {{URL}} is the server's
	timeout   time.Duration
	documents int               // for which a request may wait, one after the other
	opaque    bool              // tokens are, and so need a call each
	unless    func(*fault) bool // it is no fault in this role
}

// roles returns each role with each test that concerns it, or those with the
// names given. First are those that take longest.
func roles(names ...string) []role {
	const (
		metadata = "/.well-known/"
		asks     = " {\nclient_id gateway\nclient_secret s3cret\ncache 1m\nmax_in_flight 4\n}"
		atURL    = "introspection {{URL}}/introspect" + asks
	)
	none := func(*fault) bool { return false }
	fine := func(f *fault) bool { return f.fineForKeys }
	refuses := func(f *fault) bool { return f.refuses }
	all := []role{
		{"endpoint-later", endpointLater, metadata, "introspection" + asks, 3 * callTimeout, 1, true,
			func(f *fault) bool { return f.name != "hang" && f.name != "500" }},
		{"keys-later", later, "/keys", "jwks_url {{URL}}/keys", callTimeout, 1, false, fine},
		{"discovery-later", later, metadata, "discovery_url {{URL}}/.well-known/mine", callTimeout, 1, false, none},
		{"introspection-later", later, "/introspect", atURL, callTimeout, 1, true, none},

		{"keys", atFirst, "/keys", "jwks_url {{URL}}/keys", callTimeout, 1, false, fine},
		{"discovery", atFirst, metadata, "discovery_url {{URL}}/.well-known/mine", callTimeout, 1, false, none},
		{"well-known", atFirst, metadata, "", callTimeout, 2, false, none},
		{"introspection", atFirst, "/introspect", atURL, callTimeout, 1, true, none},
		// the timeout of a call about a token covers discovery, too
		{"endpoint", atFirst, metadata, "introspection" + asks, callTimeout, 1, true, none},
		{"first-document", passedOver, metadata + "oauth-authorization-server", "", callTimeout, 1, false, refuses},
	}
	return slices.DeleteFunc(all, func(r role) bool { return len(names) > 0 && !slices.Contains(names, r.name) })
}

// faulty is an authorization server with a fault in one role, which comes and goes.
type faulty struct {
	role
	fault
	name string
	url  string

	broken   atomic.Bool
	calls    atomic.Int64 // that the fault concerns
	rotated  atomic.Bool  // its key set has the stranger's key, too
	refusing atomic.Bool  // its introspection endpoint answers 500
	listener net.Listener
}

// serveFaulty starts a server for each fault in each role, and a site with a
// handler for each server, which accepts the tests' issuer too. All are well yet.
func serveFaulty(t *testing.T, roles []role, faults []fault) (*gateway, []*faulty) {
	t.Helper()
	g := serve(t, setup{}) // so that no server takes the ports that are meant for Caddy
	var all []*faulty
	var site strings.Builder
	for _, r := range roles {
		for _, f := range faults {
			if r.unless(&f) {
				continue
			}
			s := &faulty{role: r, fault: f, name: r.name + "/" + f.name}
			port := func() int { return 0 }
			if f.refuses {
				// where no system puts anybody else while nobody listens
				port = func() int { return 20_000 + mathrand.IntN(10_000) }
			}
			s.listen(t, func() string { return "127.0.0.1:" + strconv.Itoa(port()) })
			s.url = "http://" + s.listener.Addr().String()
			t.Cleanup(func() { _ = s.listener.Close() })
			all = append(all, s)
			fmt.Fprintf(&site, "dpop /%s/* {\nissuer %s {\ntimeout %v\n%s\n}\nissuer {{ISSUER}}\naudience %s\n}\n",
				s.name, s.url, s.timeout, strings.ReplaceAll(s.settings, "{{URL}}", s.url), audience)
		}
	}
	g.load(t, setup{site: site.String() + "reverse_proxy {{BACKEND}}\nhandle_errors {\nheader Reason {http.dpop.reason}\n}"})
	return g, all
}

// listen tries until it may.
func (s *faulty) listen(t *testing.T, address func() string) {
	t.Helper()
	var err error
	for range 50 {
		if s.listener, err = net.Listen("tcp", address()); err == nil {
			go s.serve(s.listener)
			return
		}
		time.Sleep(50 * time.Millisecond)
	}
	t.Fatal(err)
}

func (s *faulty) serve(listener net.Listener) {
	for {
		conn, err := listener.Accept()
		if err != nil {
			return
		}
		go s.talk(conn)
	}
}

// talk answers one request.
func (s *faulty) talk(conn net.Conn) {
	defer conn.Close()
	request, err := http.ReadRequest(bufio.NewReader(conn))
	if err != nil {
		return
	}
	_, _ = io.Copy(io.Discard, request.Body)
	path, answer := request.URL.Path, answers("200 OK", asItIs)
	if strings.HasPrefix(path, s.paths) {
		s.calls.Add(1)
		if s.broken.Load() {
			answer = s.answer
		}
	}
	if path == "/introspect" && s.refusing.Load() {
		answer = answers("500 Internal Server Error", asItIs)
	}
	answer(conn, s.good(path))
}

// good returns the body of a good answer. Every token is active.
func (s *faulty) good(path string) string {
	document := map[string]any{"issuer": s.url, "jwks_uri": s.url + "/keys", "introspection_endpoint": s.url + "/introspect"}
	switch path {
	case "/keys":
		keys := []any{issuer.Key.PublicJWK()}
		if s.rotated.Load() {
			keys = append(keys, stranger.Key.PublicJWK())
		}
		document = map[string]any{"keys": keys}
	case "/introspect":
		document = map[string]any{"active": true, "aud": audience, "cnf": map[string]any{"jkt": clientKey.Thumbprint}}
	}
	text, _ := json.Marshal(document)
	return string(text)
}

func (s *faulty) fail() {
	s.broken.Store(true)
	if s.refuses {
		_ = s.listener.Close()
	}
}

func (s *faulty) heal(t *testing.T) {
	t.Helper()
	s.broken.Store(false)
	if address := s.listener.Addr().String(); s.refuses {
		s.listen(t, func() string { return address })
	}
}

// token returns one that no request had before: of the server, and signed by
// whom it says, unless it is opaque.
func (s *faulty) token(t testing.TB, signer *devissuer.Issuer) string {
	t.Helper()
	if s.opaque {
		return rand.Text()
	}
	return tokenOf(t, signer, map[string]any{"iss": s.url})
}

// request returns a request to the server's handler, with a good proof. Those
// called fault must not reach the backend.
func (s *faulty) request(t testing.TB, g *gateway, name, token string) call {
	t.Helper()
	address := g.url + "/" + s.name + "/" + name
	return call{url: address, header: http.Header{"Authorization": {"DPoP " + token}, "Dpop": {dpop(t, "GET", address, token, nil)}}}
}

// refused sends a request, with a token by that signer, which has to be refused
// because the server fails: in the time of its calls, and a second for the rest.
func (s *faulty) refused(t *testing.T, g *gateway, signer *devissuer.Issuer) {
	t.Helper()
	reason := "keys_unavailable"
	if s.opaque {
		reason = "introspection_unavailable"
	}
	for tries := 1; ; tries++ {
		c, calls := s.request(t, g, "fault", s.token(t, signer)), s.calls.Load()
		start := time.Now()
		a := c.send(t)
		took := time.Since(start)
		a.expect(t, 503)
		pause, err := strconv.Atoi(a.Header.Get("Retry-After"))
		if err != nil || pause < 1 {
			t.Errorf("Retry-After %q", a.Header.Get("Retry-After"))
		}
		if a.Header.Get("DPoP-Nonce") != "" {
			t.Error("the server's nonce was passed on")
		}
		if got := a.Header.Get("Reason"); got != reason {
			t.Errorf("refused for %q, want %q", got, reason)
		}
		// two documents, and a few redirects of each, are the most
		if calls = s.calls.Load() - calls; calls > 8 {
			t.Errorf("%d calls", calls)
		}
		limit := time.Duration(s.documents)*s.timeout + time.Second
		if took <= limit {
			return
		}
		if tries == 3 { // a machine may be busy for a moment
			t.Errorf("took %v, want at most %v", took, limit)
			return
		}
		time.Sleep(time.Duration(pause) * time.Second)
	}
}

// accepted sends requests until one is accepted, as often as the answers say,
// and returns its token. Until then what the server is asked for is not to be had.
func (s *faulty) accepted(t *testing.T, g *gateway, signer *devissuer.Issuer) string {
	t.Helper()
	for waited := 0; ; {
		token := s.token(t, signer)
		a := s.request(t, g, "good", token).send(t)
		if a.StatusCode == 200 {
			return token
		}
		a.expect(t, 503)
		pause, _ := strconv.Atoi(a.Header.Get("Retry-After"))
		if waited += max(pause, 1); waited > 20 {
			t.Fatalf("the server is well, but requests have to wait for %d s or more", waited)
		}
		time.Sleep(time.Duration(max(pause, 1)) * time.Second)
	}
}

// Whatever is wrong with a key set, with discovery or with introspection: a
// token that depends on it is answered 503 and in time, others are accepted
// meanwhile, and so is that one when the server is well again.
func TestFaults(t *testing.T) {
	elsewhere := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		t.Errorf("a redirect to another host was followed: %s %s", r.Method, r.URL)
		text, _ := url.QueryUnescape(r.URL.RawQuery)
		_, _ = io.WriteString(w, text)
	}))
	t.Cleanup(elsewhere.Close)
	g, all := serveFaulty(t, roles(), faults(elsewhere.URL))
	// Most of it is waiting, so it is done at the same time; but no more at once
	// than a small machine can do.
	turns := make(chan struct{}, 12)
	var wait sync.WaitGroup
	for _, s := range all {
		turns <- struct{}{}
		wait.Go(func() {
			done := sync.OnceFunc(func() { <-turns })
			defer done()
			t.Run(s.name, func(t *testing.T) { s.test(t, g, s, done) })
		})
	}
	wait.Wait()
	for _, r := range g.backend.requests() {
		if strings.HasSuffix(r.uri, "/fault") {
			t.Errorf("the backend got %s", r.uri)
		}
	}
}

// atFirst tests a server that has failed since it was first asked.
func atFirst(t *testing.T, g *gateway, s *faulty, done func()) {
	s.fail()
	other := good(t, g.url+"/"+s.name+"/good")
	var wait sync.WaitGroup
	wait.Go(func() {
		if status, err := other.try(); err != nil || status != 200 {
			t.Errorf("the other issuer's token was answered %d, %v", status, err)
		}
	})
	s.refused(t, g, issuer)
	wait.Wait()
	done()
	if s.calls.Load() == 0 && !s.refuses {
		t.Error("the server was not asked")
	}
	s.heal(t)
	s.accepted(t, g, issuer)
}

// passedOver tests a server whose first document is no good, but its second is.
func passedOver(t *testing.T, g *gateway, s *faulty, _ func()) {
	s.fail()
	s.accepted(t, g, issuer)
	if s.calls.Load() == 0 {
		t.Error("the first document was not asked for")
	}
}

// later tests a server that was well at first. What it said then goes on
// serving: its keys, and its answer about a token.
func later(t *testing.T, g *gateway, s *faulty, done func()) {
	known := s.accepted(t, g, issuer)
	s.fail()
	s.rotated.Store(true)
	s.refused(t, g, stranger)
	done()
	s.request(t, g, "good", known).send(t).expect(t, 200)
	if !s.opaque { // by a key that is known
		s.request(t, g, "good", s.token(t, issuer)).send(t).expect(t, 200)
	}
	s.heal(t)
	s.accepted(t, g, stranger)
}

// endpointLater tests a server whose introspection endpoint was discovered, and
// whose discovery fails when it is made again, which is some time after the
// endpoint has failed for a moment. The endpoint goes on serving.
func endpointLater(t *testing.T, g *gateway, s *faulty, done func()) {
	s.accepted(t, g, issuer)
	s.refusing.Store(true)
	s.refused(t, g, issuer)
	s.refusing.Store(false)
	s.fail()
	done()
	calls := s.calls.Load()
	for deadline := time.Now().Add(20 * time.Second); s.calls.Load() == calls; time.Sleep(time.Second) {
		if time.Now().After(deadline) {
			t.Fatal("no discovery")
		}
		s.request(t, g, "good", s.token(t, issuer)).send(t).expect(t, 200)
	}
	s.request(t, g, "good", s.token(t, issuer)).send(t).expect(t, 200)
}

// While one issuer lets a request wait, others do not wait: those with its
// tokens that need no call, and those of other issuers, which may need one.
func TestFaultsDelayNoOther(t *testing.T) {
	release := make(chan struct{})
	patient := roles("keys", "discovery", "well-known", "introspection")
	for i := range patient {
		patient[i].timeout = 10 * time.Second
	}
	g, all := serveFaulty(t, patient, []fault{
		{name: "held", answer: func(conn net.Conn, good string) {
			<-release
			answers("200 OK", asItIs)(conn, good)
		}},
		{name: "well"},
	})
	for pair := range slices.Chunk(all, 2) {
		held, well := pair[0], pair[1]
		t.Run(held.name, func(t *testing.T) {
			known := held.token(t, issuer)
			held.request(t, g, "good", known).send(t).expect(t, 200)
			held.rotated.Store(true)
			held.fail()
			calls, waiting, status := held.calls.Load(), held.request(t, g, "good", held.token(t, stranger)), make(chan int, 1)
			go func() {
				got, _ := waiting.try()
				status <- got
			}()
			for held.calls.Load() == calls {
				select {
				case got := <-status:
					t.Fatalf("answered %d without a call", got)
				case <-time.After(time.Millisecond):
				}
			}
			for range 12 { // if each waited, it would be for longer than the one that is held
				held.request(t, g, "good", known).send(t).expect(t, 200)
				well.request(t, g, "good", well.token(t, issuer)).send(t).expect(t, 200)
				good(t, g.url+"/"+held.name+"/good").send(t).expect(t, 200)
			}
			select {
			case got := <-status:
				t.Fatalf("answered %d before its issuer answered", got)
			case release <- struct{}{}:
			}
			if got := <-status; got != 200 {
				t.Errorf("answered %d", got)
			}
		})
	}
}

// A thousand requests for what would take a lot of memory take little. They leave
// nothing behind, neither memory nor goroutines, and when the server is well
// again its tokens are accepted.
func TestFaultsTakeLittle(t *testing.T) {
	const enough = 50 << 20 // bytes
	// of garbage, which is left lying about on a busy machine, there is to be little
	defer debug.SetGCPercent(debug.SetGCPercent(25))
	requests := int64(1000)
	if raceDetector() {
		requests = 250 // it makes each byte cost ten times as much
	}
	hungry := slices.DeleteFunc(faults(""), func(f fault) bool { return f.flood == 0 })
	g, all := serveFaulty(t, roles("keys", "introspection"), hungry)
	for _, s := range all {
		t.Run(s.name, func(t *testing.T) {
			s.fail()
			client := &http.Client{Timeout: 10 * time.Second, Transport: &http.Transport{MaxIdleConnsPerHost: s.flood}}
			runtime.GC()
			goroutines, before := runtime.NumGoroutine(), heapInUse()
			var sent atomic.Int64
			var wait sync.WaitGroup
			for range s.flood {
				wait.Go(func() {
					for sent.Add(1) <= requests {
						response, err := s.request(t, g, "fault", s.token(t, issuer)).do(client)
						if err != nil {
							t.Error(err)
							continue
						}
						if _ = response.Body.Close(); response.StatusCode != 503 {
							t.Errorf("answered %d", response.StatusCode)
						}
					}
				})
			}
			finished := make(chan struct{})
			go func() {
				wait.Wait()
				close(finished)
			}()
			most := before
			for running := true; running; {
				select {
				case <-finished:
					running = false
				case <-time.After(5 * time.Millisecond):
				}
				if most = max(most, heapInUse()); most-before > enough {
					sent.Store(requests) // that will do
				}
			}
			client.CloseIdleConnections()
			if grown := most - before; grown > enough {
				t.Errorf("the heap grew by %d MiB meanwhile", grown>>20)
			}
			runtime.GC()
			if grown := heapInUse() - before; grown > enough {
				t.Errorf("the heap has grown by %d MiB", grown>>20)
			}
			s.heal(t)
			s.accepted(t, g, issuer)
			for deadline := time.Now().Add(10 * time.Second); runtime.NumGoroutine() > goroutines+50; time.Sleep(50 * time.Millisecond) {
				if time.Now().After(deadline) {
					t.Fatalf("%d goroutines, where there were %d", runtime.NumGoroutine(), goroutines)
				}
			}
		})
	}
}

// raceDetector reports whether this test is run with it.
func raceDetector() bool {
	info, _ := debug.ReadBuildInfo()
	return slices.Contains(info.Settings, debug.BuildSetting{Key: "-race", Value: "true"})
}

// heapInUse returns the size of the heap, with the garbage in it.
func heapInUse() int64 {
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return int64(m.HeapInuse)
}
