package caddytest

import (
	"bytes"
	"context"
	"crypto/rand"
	"crypto/tls"
	"encoding/json"
	"fmt"
	"io"
	"maps"
	"net/http"
	"net/http/httptest"
	"runtime/pprof"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/caddy-dpop/caddy-dpop/internal/devissuer"
	"github.com/caddy-dpop/caddy-dpop/internal/jose"
	"github.com/caddy-dpop/caddy-dpop/internal/proof"
)

// origin is an authorization server that signs tokens with keys of its own, and
// says of every token that it is asked about that it is good. It counts the
// calls it gets, and can be made to hang.
type origin struct {
	*httptest.Server
	key                        *jose.PrivateKey // that its tokens are signed by at first
	set                        atomic.Pointer[[]byte]
	discovered, fetched, asked atomic.Int64 // calls so far: for metadata, for keys, about tokens
	now, most                  atomic.Int64 // calls about tokens under way, and most at once so far
	gate                       atomic.Pointer[chan struct{}]
}

func startOrigin(t *testing.T) *origin {
	t.Helper()
	o := &origin{key: generate(t, "ES256")}
	o.publish(t, o.key)
	mux := http.NewServeMux()
	mux.HandleFunc("GET /.well-known/oauth-authorization-server", func(w http.ResponseWriter, _ *http.Request) {
		o.discovered.Add(1)
		fmt.Fprintf(w, `{"issuer":%q,"jwks_uri":%q,"introspection_endpoint":%q}`, o.URL, o.URL+"/jwks", o.URL+"/introspect")
	})
	mux.HandleFunc("GET /jwks", func(w http.ResponseWriter, r *http.Request) {
		o.fetched.Add(1)
		o.pass(r)
		_, _ = w.Write(*o.set.Load())
	})
	mux.HandleFunc("POST /introspect", func(w http.ResponseWriter, r *http.Request) {
		o.asked.Add(1)
		n := o.now.Add(1)
		for most := o.most.Load(); n > most && !o.most.CompareAndSwap(most, n); most = o.most.Load() {
		}
		_ = r.ParseForm() // only with the body read can a handler see its client go
		o.pass(r)
		o.now.Add(-1) // before the answer, upon which the next call may come
		_ = json.NewEncoder(w).Encode(map[string]any{
			"active": true, "iss": o.URL, "aud": audience, "sub": "user-1", "client_id": "client-1",
			"exp": time.Now().Add(time.Minute).Unix(), "cnf": map[string]any{"jkt": clientKey.Thumbprint},
		})
	})
	o.Server = httptest.NewServer(mux)
	t.Cleanup(o.Close)
	return o
}

// publish makes these keys the server's key set.
func (o *origin) publish(t *testing.T, keys ...*jose.PrivateKey) {
	t.Helper()
	public := make([]any, len(keys))
	for n, key := range keys {
		public[n] = key.PublicJWK()
	}
	set, err := json.Marshal(map[string]any{"keys": public})
	if err != nil {
		t.Fatal(err)
	}
	o.set.Store(&set)
}

// hold makes the server hang when it is asked for keys or about tokens, from now
// until the function is called that hold returns.
func (o *origin) hold(t *testing.T) (release func()) {
	t.Helper()
	gate := make(chan struct{})
	o.gate.Store(&gate)
	release = sync.OnceFunc(func() {
		o.gate.Store(nil)
		close(gate)
	})
	t.Cleanup(release)
	return release
}

// pass returns once the server does not hang, or the caller is gone.
func (o *origin) pass(r *http.Request) {
	if gate := o.gate.Load(); gate != nil {
		select {
		case <-*gate:
		case <-r.Context().Done():
		}
	}
}

// calls are how many there were, by kind.
type calls struct{ discovered, fetched, asked int64 }

func (o *origin) calls() calls {
	return calls{o.discovered.Load(), o.fetched.Load(), o.asked.Load()}
}

// token returns a good token, signed by a key.
func (o *origin) token(t *testing.T, key *jose.PrivateKey) string {
	t.Helper()
	return tokenOf(t, &devissuer.Issuer{URL: o.URL, Key: key, Audience: audience}, nil)
}

// site is a site that trusts the server, with further settings of the issuer and
// of the handler.
func (o *origin) site(settings, handler string) string {
	return "dpop {\nissuer " + o.URL + " {\n" + settings + "\n}\naudience " + audience + "\n" + handler + "\n}\nreverse_proxy {{BACKEND}}"
}

// ways are the ways to learn whether a token is good, and the calls that each
// takes when nothing is known yet.
var ways = []struct {
	name, settings string
	opaque         bool
	calls          calls
}{
	{"by keys", "timeout 1m", false, calls{1, 1, 0}},
	{"by introspection", "timeout 1m\nintrospection {\nauth none\n}", true, calls{1, 0, 1}},
	{"by introspection of all", "timeout 1m\nintrospection {\nauth none\ntokens all\n}", true, calls{1, 0, 1}},
	{"by both", "timeout 1m\nintrospection {\nauth none\ntokens all\n}", false, calls{2, 1, 1}},
}

// tokenFor returns a good token that is a JWT, or opaque.
func (o *origin) tokenFor(t *testing.T, opaque bool) string {
	t.Helper()
	if opaque {
		return "opaque"
	}
	return o.token(t, o.key)
}

func generate(t *testing.T, alg string) *jose.PrivateKey {
	t.Helper()
	key, err := jose.Generate(algorithm(alg))
	if err != nil {
		t.Fatal(err)
	}
	return key
}

// patientClient gives requests time to be held.
var patientClient = &http.Client{Transport: plainClient.Transport, Timeout: time.Minute}

// burst is what calls got that were sent at once.
type burst struct {
	wait sync.WaitGroup

	mu    sync.Mutex
	got   map[string]int // how many got what
	pause time.Duration  // the longest that a 503 asked for
}

// send sends calls at once, by the clients in turn, and does not wait.
func send(all []call, clients ...*http.Client) *burst {
	b := &burst{got: make(map[string]int)}
	for n, c := range all {
		b.wait.Go(func() { b.note(c.do(clients[n%len(clients)])) })
	}
	return b
}

// note notes what a call got. A refusal counts only if it is as it should be.
func (b *burst) note(response *http.Response, err error) {
	var what string
	var pause int
	if err == nil {
		what = strconv.Itoa(response.StatusCode)
		challenge := response.Header.Get("WWW-Authenticate")
		switch response.StatusCode {
		case http.StatusUnauthorized:
			if sameChallenge(challenge, "DPoP invalid_token") {
				what += " invalid_token"
			}
		case http.StatusServiceUnavailable:
			if pause, _ = strconv.Atoi(response.Header.Get("Retry-After")); pause < 1 || pause > 10 || challenge != "" {
				what = fmt.Sprintf("503 with Retry-After %q and challenge %q", response.Header["Retry-After"], challenge)
			}
		}
		_, err = io.Copy(io.Discard, response.Body)
		_ = response.Body.Close()
	}
	if err != nil {
		what = err.Error()
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	b.got[what]++
	b.pause = max(b.pause, time.Duration(pause)*time.Second)
}

// refused returns how many have got a 503 so far.
func (b *burst) refused() int64 {
	b.mu.Lock()
	defer b.mu.Unlock()
	return int64(b.got["503"])
}

// expect waits for all answers, and fails unless they are these.
func (b *burst) expect(t *testing.T, want map[string]int) {
	t.Helper()
	if b.wait.Wait(); !maps.Equal(b.got, want) {
		t.Fatalf("answered %v, want %v", b.got, want)
	}
}

// reach waits until a number is what it should be.
func reach(t *testing.T, what string, want int64, get func() int64) {
	t.Helper()
	got := get()
	for deadline := time.Now().Add(30 * time.Second); got != want; got = get() {
		if time.Now().After(deadline) {
			t.Fatalf("%s: %d, want %d", what, got, want)
		}
		time.Sleep(20 * time.Millisecond)
	}
}

// waiting returns how many requests wait for an authorization server: how many
// goroutines of the handler stand at one and the same place of that package.
func waiting() int64 {
	var profile bytes.Buffer
	_ = pprof.Lookup("goroutine").WriteTo(&profile, 1) // stacks, each with how many stand there
	most := int64(0)
	for stack := range strings.SplitSeq(profile.String(), "\n\n") {
		count, frames, _ := strings.Cut(stack, " @ ")
		if strings.Contains(frames, "/internal/authserver.(") && strings.Contains(frames, ".(*Handler).ServeHTTP") {
			n, _ := strconv.ParseInt(count, 10, 64)
			most = max(most, n)
		}
	}
	return most
}

// steady is traffic that must go on being served whatever else happens.
type steady struct {
	served atomic.Int64
	stop   func()
}

// keepSending sends one call after the other until it is stopped, or the test ends.
func keepSending(t *testing.T, client *http.Client, next func() call) *steady {
	t.Helper()
	s, done := new(steady), make(chan struct{})
	var wait sync.WaitGroup
	s.stop = sync.OnceFunc(func() {
		close(done)
		wait.Wait()
	})
	t.Cleanup(s.stop)
	wait.Go(func() {
		for {
			select {
			case <-done:
				return
			case <-time.After(10 * time.Millisecond):
			}
			b := send([]call{next()}, client)
			if b.wait.Wait(); b.got["200"] != 1 {
				t.Errorf("steady traffic was answered %v", b.got)
				return
			}
			s.served.Add(1)
		}
	})
	return s
}

// goesOn waits until some more has been served.
func (s *steady) goesOn(t *testing.T) {
	t.Helper()
	enough := s.served.Load() + 5
	reach(t, "steady traffic still to be served", 0, func() int64 { return max(0, enough-s.served.Load()) })
}

// A hundred first requests of a token that nobody has seen, at once: the
// authorization server is asked once for all of them.
func TestFloodOfFirstRequests(t *testing.T) {
	for _, way := range ways {
		t.Run(way.name, func(t *testing.T) {
			o := startOrigin(t)
			g := serve(t, setup{site: o.site(way.settings, "")})
			token := o.tokenFor(t, way.opaque)
			first := make([]call, 100)
			for n := range first {
				first[n] = withToken(t, g, token)
			}
			release := o.hold(t)
			b := send(first, patientClient)
			reach(t, "requests that wait", 100, waiting)
			release()
			b.expect(t, map[string]int{"200": 100})
			if got := o.calls(); got != way.calls {
				t.Errorf("%+v, want %+v", got, way.calls)
			}
		})
	}
}

// Of those who wait for the one call to the authorization server some go away,
// the one whose request has caused the call among them: the others are served by it.
func TestFloodWhoseSendersGo(t *testing.T) {
	for _, way := range ways {
		t.Run(way.name, func(t *testing.T) {
			o := startOrigin(t)
			g := serve(t, setup{site: o.site(way.settings, "")})
			token := o.tokenFor(t, way.opaque)
			ctx, leave := context.WithCancel(t.Context())
			// goes sends a request that ends with the context.
			goes := func(query string) {
				request, err := http.NewRequestWithContext(ctx, "GET", g.url+"/?"+query, nil)
				if err != nil {
					t.Fatal(err)
				}
				request.Header = withToken(t, g, token).header
				go func() {
					if response, err := patientClient.Do(request); err == nil {
						t.Errorf("%s was answered %d", query, response.StatusCode)
						_ = response.Body.Close()
					}
				}()
			}
			others := make([]call, 20)
			for n := range others {
				others[n] = withToken(t, g, token)
			}
			release := o.hold(t)
			goes("first")
			reach(t, "calls that hang", 1, func() int64 { return max(o.fetched.Load(), o.asked.Load()) })
			goes("later")
			b := send(others, patientClient)
			reach(t, "requests that wait", 22, waiting)
			leave()
			for _, query := range []string{"first", "later"} { // logged once the handler has seen them go
				await(t, g.accessLog, func(e entry) bool { return e.field("request", "uri") == "/?"+query })
			}
			reach(t, "requests that still wait", 20, waiting)
			release()
			b.expect(t, map[string]int{"200": 20})
			if got := o.calls(); got != way.calls {
				t.Errorf("%+v, want %+v", got, way.calls)
			}
		})
	}
}

// An issuer changes its key while traffic flows and somebody sends a thousand
// tokens with random key ids. Nobody with a good token notices, the key that is
// withdrawn is trusted no more from the next fetch on, and there is one fetch
// in ten seconds: till then the random ones are told to come back, and then
// that there is no such key.
func TestFloodOfKeyIDs(t *testing.T) {
	o := startOrigin(t)
	g := serve(t, setup{site: o.site("timeout 1m", "")})
	from := func(key *jose.PrivateKey) call { return withToken(t, g, o.token(t, key)) }
	fetched := func(want int64) {
		t.Helper()
		if got := o.fetched.Load(); got != want {
			t.Fatalf("%d fetches, want %d", got, want)
		}
	}
	random := make([]call, 1000)
	for n := range random {
		unknown := *o.key
		unknown.ID = rand.Text()
		random[n] = from(&unknown)
	}
	oldTraffic := keepSending(t, patientClient, func() call { return from(o.key) })
	oldTraffic.goesOn(t)
	fetched(1)

	// the new key is looked up for its first tokens, once
	newKey := generate(t, "ES256")
	o.publish(t, newKey, o.key)
	first := make([]call, 20)
	for n := range first {
		first[n] = from(newKey)
	}
	send(first, patientClient).expect(t, map[string]int{"200": 20})
	fetched(2)
	newTraffic := keepSending(t, patientClient, func() call { return from(newKey) })

	// no other key id is, within ten seconds
	b := send(random, patientClient)
	b.expect(t, map[string]int{"503": 1000})
	oldTraffic.goesOn(t)
	newTraffic.goesOn(t)
	fetched(2)

	// the old key goes, which nobody can know before the next fetch
	oldTraffic.stop()
	o.publish(t, newKey)
	last := o.token(t, o.key)
	withToken(t, g, last).send(t).expect(t, 200)

	// Now all of them can be looked up, as they were told, by one fetch for which
	// nobody else waits. Their proofs are as good as new: nothing has spent them.
	time.Sleep(b.pause)
	release := o.hold(t)
	b = send(random, patientClient)
	reach(t, "requests that wait", 1000, waiting)
	newTraffic.goesOn(t)
	release()
	b.expect(t, map[string]int{"401 invalid_token": 1000})
	send(random, patientClient).expect(t, map[string]int{"401 invalid_token": 1000}) // as is known by now
	newTraffic.goesOn(t)
	fetched(3)

	newTraffic.stop()
	g.backend.requests()
	for _, token := range []string{last, o.token(t, o.key)} {
		if a := withToken(t, g, token).send(t); a.StatusCode != 401 && a.StatusCode != 503 {
			t.Errorf("a token by the key that was withdrawn was answered %d", a.StatusCode)
		}
	}
	g.backend.none(t)
}

// Five thousand opaque tokens that nobody has seen, at once, while the
// authorization server hangs: it gets no more calls at once than it may, a
// thousand requests wait, the rest is refused at once, and tokens of another issuer
// are served all the while. When the server answers again, those who wait are
// served, and so is who comes then.
func TestFloodOfOpaqueTokens(t *testing.T) {
	const inFlight, queue, all = 20, 1000, 5000
	o := startOrigin(t)
	certFile, keyFile, roots := certificate(t)
	g := serve(t, setup{address: "https://127.0.0.1:{{PORT}}", site: "tls " + certFile + " " + keyFile + "\n" +
		o.site(fmt.Sprintf("timeout 1m\nintrospection {\nauth none\nmax_in_flight %d\n}", inFlight), "issuer {{ISSUER}}")})
	// By HTTP/2: two hundred requests share a connection, which is there already.
	clients := make([]*http.Client, all/200)
	for n := range clients {
		transport := &http.Transport{ForceAttemptHTTP2: true, TLSClientConfig: &tls.Config{RootCAs: roots, MinVersion: tls.VersionTLS12}}
		t.Cleanup(transport.CloseIdleConnections)
		clients[n] = &http.Client{Transport: transport, Timeout: time.Minute}
		good(t, g.url).sendBy(t, clients[n]).expect(t, 200)
	}
	neverSeen := func(n int) []call {
		tokens := make([]call, n)
		for i := range tokens {
			tokens[i] = withToken(t, g, rand.Text())
		}
		return tokens
	}
	flood := neverSeen(all)
	others := keepSending(t, clients[0], func() call { return good(t, g.url) })

	release := o.hold(t)
	b := send(flood, clients...)
	reach(t, "refused at once", all-inFlight-queue, b.refused)
	reach(t, "requests that wait", inFlight+queue, waiting)
	reach(t, "calls that hang", inFlight, o.now.Load)
	others.goesOn(t)
	release()
	b.expect(t, map[string]int{"200": inFlight + queue, "503": all - inFlight - queue})

	// and there is room to wait again
	release = o.hold(t)
	b = send(neverSeen(inFlight+10), clients...)
	reach(t, "requests that wait", inFlight+10, waiting)
	release()
	b.expect(t, map[string]int{"200": inFlight + 10})

	if most := o.most.Load(); most != inFlight {
		t.Errorf("%d calls at once", most)
	}
	if got, want := o.calls(), (calls{1, 0, inFlight + queue + inFlight + 10}); got != want {
		t.Errorf("%+v, want %+v", got, want)
	}
}

// Nobody waits for longer than the timeout, which holds for the wait and the
// call together: one after the other they would take a minute. When the
// server answers again, so does the gateway.
func TestFloodIsAnsweredInTime(t *testing.T) {
	o := startOrigin(t)
	g := serve(t, setup{site: o.site("timeout 1s\nintrospection {\nauth none\nmax_in_flight 5\n}", "")})
	flood := make([]call, 300)
	for n := range flood {
		flood[n] = withToken(t, g, rand.Text())
	}
	release := o.hold(t)
	send(flood, plainClient).expect(t, map[string]int{"503": 300}) // the client gives up after ten seconds
	release()
	withToken(t, g, "another").send(t).expect(t, 200)
}

// Nobody makes the gateway call an authorization server without a good proof, nor
// by a token of an issuer that is not configured: not when nothing is known yet,
// as each good request shows at last by the calls it takes.
func TestFloodOfBadProofs(t *testing.T) {
	unknown := startOrigin(t)
	es384 := generate(t, "ES384")
	hour := func(hours int) map[string]any {
		return map[string]any{"iat": time.Now().Add(time.Duration(hours) * time.Hour).Unix()}
	}
	for _, way := range ways {
		o := startOrigin(t)
		g := serve(t, setup{site: "handle /nonce {\n" + o.site(way.settings, "nonce required") + "\n}\nhandle {\n" + o.site(way.settings, "") + "\n}"})
		target := g.url + "/"
		token := o.tokenFor(t, way.opaque)
		right := dpop(t, "GET", target, token, nil)
		input := right[:strings.LastIndex(right, ".")]
		another := dpop(t, "GET", target, token, nil)
		untyped, err := clientKey.Sign(map[string]any{"typ": "JWT", "jwk": clientKey.Public}, map[string]any{
			"jti": rand.Text(), "htm": "GET", "htu": target, "iat": time.Now().Unix(), "ath": proof.TokenHash(token),
		})
		if err != nil {
			t.Fatal(err)
		}
		ofUnknown := unknown.token(t, unknown.key)
		for _, row := range []struct {
			name, path, token string
			proof             []string
			challenge, reason string
		}{
			{"none", "/", token, nil, "DPoP invalid_dpop_proof", "proof_missing"},
			{"malformed", "/", token, []string{input}, "DPoP invalid_dpop_proof", "proof_malformed"},
			{"typ", "/", token, []string{untyped}, "DPoP invalid_dpop_proof", "proof_type"},
			{"alg", "/", token, []string{dpopBy(t, es384, "GET", target, token, nil)}, "DPoP invalid_dpop_proof", "proof_algorithm"},
			{"signature", "/", token, []string{input + another[strings.LastIndex(another, "."):]}, "DPoP invalid_dpop_proof", "proof_signature"},
			{"htm", "/", token, []string{dpop(t, "POST", target, token, nil)}, "DPoP invalid_dpop_proof", "proof_method"},
			{"htu", "/", token, []string{dpop(t, "GET", target+"x", token, nil)}, "DPoP invalid_dpop_proof", "proof_url"},
			{"ath", "/", token, []string{dpop(t, "GET", target, "other", nil)}, "DPoP invalid_dpop_proof", "proof_token"},
			{"iat long ago", "/", token, []string{dpop(t, "GET", target, token, hour(-1))}, "DPoP invalid_dpop_proof", "proof_expired"},
			{"iat to come", "/", token, []string{dpop(t, "GET", target, token, hour(1))}, "DPoP invalid_dpop_proof", "proof_early"},
			{"no nonce", "/nonce", token, []string{dpop(t, "GET", g.url+"/nonce", token, nil)}, "DPoP use_dpop_nonce", "nonce_missing"},
			{"another issuer's token", "/", ofUnknown, []string{dpop(t, "GET", target, ofUnknown, nil)}, "DPoP invalid_token", "token_issuer"},
		} {
			t.Run(way.name+"/"+row.name, func(t *testing.T) {
				uri := row.path + "?row=" + rand.Text() // tells the lines of the log apart
				call{url: g.url + uri, header: http.Header{"Authorization": {"DPoP " + row.token}, "Dpop": row.proof}}.send(t).expect(t, 401, row.challenge)
				line := await(t, g.accessLog, func(e entry) bool { return e.field("request", "uri") == uri })
				if reason := line.field("dpop", "reason"); reason != row.reason {
					t.Errorf("the reason is %v, want %s", reason, row.reason)
				}
				if got := o.calls(); got != (calls{}) {
					t.Errorf("%+v", got)
				}
			})
		}
		withToken(t, g, token).send(t).expect(t, 200)
		if got := o.calls(); got != way.calls {
			t.Errorf("%s: %+v, want %+v", way.name, got, way.calls)
		}
	}
	if got := unknown.calls(); got != (calls{}) {
		t.Errorf("the issuer that is not configured got %+v", got)
	}
}
