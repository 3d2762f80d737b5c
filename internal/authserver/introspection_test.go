package authserver

import (
	"compress/gzip"
	"context"
	"crypto/hmac"
	"crypto/sha256"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"math"
	"net/http"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/caddy-dpop/caddy-dpop/internal/bounded"
	"github.com/caddy-dpop/caddy-dpop/internal/jose"
)

const (
	oauthPath  = "/.well-known/oauth-authorization-server"
	openIDPath = "/.well-known/openid-configuration"
)

// about is the metadata of the issuer at a path. An endpoint that begins with a
// slash is the site's own.
func about(issuerPath, endpoint string) page {
	return func(s *site) http.HandlerFunc {
		address := endpoint
		if strings.HasPrefix(address, "/") {
			address = s.URL + address
		}
		return serve(`{"issuer":"` + s.URL + issuerPath + `","jwks_uri":"` + s.URL + `/jwks","introspection_endpoint":"` + address + `"}`)
	}
}

// By discovery, as for keys, and never to where it may not lead.
func TestIntrospectionDiscovery(t *testing.T) {
	good := fixed(`{"active":true}`)
	for _, row := range []struct {
		name, issuer, discovery string // paths
		pages                   map[string]page
		asked                   []string
		ok                      bool
	}{
		{"RFC 8414", "", "", map[string]page{oauthPath: about("", "/i"), "/i": good}, []string{oauthPath, "/i"}, true},
		{"OpenID Connect", "", "", map[string]page{openIDPath: about("", "/i"), "/i": good}, []string{oauthPath, openIDPath, "/i"}, true},
		{"a path, RFC 8414", "/realms/main", "", map[string]page{oauthPath + "/realms/main": about("/realms/main", "/i"), "/i": good},
			[]string{oauthPath + "/realms/main", "/i"}, true},
		{"a path, OpenID Connect", "/realms/main", "", map[string]page{"/realms/main" + openIDPath: about("/realms/main", "/i"), "/i": good},
			[]string{oauthPath + "/realms/main", "/realms/main" + openIDPath, "/i"}, true},
		{"a trailing slash", "/", "", map[string]page{oauthPath: about("/", "/i"), "/i": good}, []string{oauthPath, "/i"}, true},
		{"a configured place", "", "/meta", map[string]page{"/meta": about("", "/i"), "/i": good}, []string{"/meta", "/i"}, true},
		{"the second after one without it", "", "", map[string]page{oauthPath: metadata("", "/jwks"), openIDPath: about("", "/i"), "/i": good},
			[]string{oauthPath, openIDPath, "/i"}, true},
		{"the second after another issuer's", "", "", map[string]page{oauthPath: about("/other", "/evil"), openIDPath: about("", "/i"), "/i": good},
			[]string{oauthPath, openIDPath, "/i"}, true},
		{"the second after plain http", "", "", map[string]page{oauthPath: about("", "http://sso.example.com/i"), openIDPath: about("", "/i"), "/i": good},
			[]string{oauthPath, openIDPath, "/i"}, true},
		{"the second after HTML", "", "", map[string]page{oauthPath: fixed("<html>"), openIDPath: about("", "/i"), "/i": good},
			[]string{oauthPath, openIDPath, "/i"}, true},

		{"nowhere", "", "", nil, []string{oauthPath, openIDPath}, false},
		{"a configured place alone", "", "/meta", map[string]page{oauthPath: about("", "/i"), "/i": good}, []string{"/meta"}, false},
		{"another issuer's", "", "", map[string]page{oauthPath: about("/other", "/i"), openIDPath: about("/", "/i"), "/i": good},
			[]string{oauthPath, openIDPath}, false},
		{"plain http off loopback", "", "", map[string]page{oauthPath: about("", "http://sso.example.com/i")}, []string{oauthPath, openIDPath}, false},
		{"a file", "", "", map[string]page{oauthPath: about("", "file:///i")}, []string{oauthPath, openIDPath}, false},
		{"with a password", "", "", map[string]page{oauthPath: about("", "https://a:b@sso.example.com/i")}, []string{oauthPath, openIDPath}, false},
		{"a path alone", "", "", map[string]page{oauthPath: fixed(`{"issuer":"ISSUER","introspection_endpoint":"/i"}`), "/i": good},
			[]string{oauthPath, openIDPath}, false},
		{"an endpoint that is no string", "", "", map[string]page{oauthPath: func(s *site) http.HandlerFunc {
			return serve(`{"issuer":"` + s.URL + `","introspection_endpoint":["` + s.URL + `/i"]}`)
		}, "/i": good}, []string{oauthPath, openIDPath}, false},
	} {
		t.Run(row.name, func(t *testing.T) {
			s := newSite(t, row.pages)
			config := Introspection{Issuer: s.URL + row.issuer}
			if row.discovery != "" {
				config.DiscoveryURL = s.URL + row.discovery
			}
			i, _ := newTestIntrospector(t, config)
			if row.ok {
				introspect(t, i, "opaque", 0)
			} else {
				cannotTell(t, i, "opaque", 0)
			}
			if s.mu.Lock(); !slices.Equal(s.paths, row.asked) {
				t.Errorf("asked for %v, want %v", s.paths, row.asked)
			}
			s.mu.Unlock()
		})
	}
}

// With an endpoint in the settings nobody asks for metadata.
func TestIntrospectionURLNeedsNoDiscovery(t *testing.T) {
	s := newSite(t, map[string]page{"/i": fixed(`{"active":true}`), oauthPath: about("", "/evil")})
	i, _ := newTestIntrospector(t, Introspection{Issuer: s.URL, URL: s.URL + "/i"})
	introspect(t, i, "opaque", 0)
	s.respond(status(500))
	cannotTell(t, i, "opaque", 0)
	s.respond(serve(`{"active":true}`))
	introspect(t, i, "opaque", 0)
	s.expect(t, 3)
}

// The endpoint of a URL in the settings is checked as well as a discovered one.
func TestIntrospectionNeedsHTTPS(t *testing.T) {
	client, dialed := newTestClient(t), 0
	client.client().Transport = roundTrip(func(*http.Request) (*http.Response, error) {
		dialed++
		return nil, io.ErrUnexpectedEOF
	})
	i, _ := newTestIntrospector(t, Introspection{Client: client, URL: "http://sso.example.com/i", Auth: SecretPost{"id", "secret"}})
	if cannotTell(t, i, "opaque", 0); dialed != 0 {
		t.Error("sent a token in the clear")
	}
	client.trust.AllowHTTP = true
	if cannotTell(t, i, "opaque", 0); dialed != 1 {
		t.Error("allow_http does not allow it")
	}
}

// What was discovered serves for an hour; after a failed call it is looked up
// again, but not for each.
func TestIntrospectionEndpointIsFoundAgain(t *testing.T) {
	var endpoint atomic.Value
	endpoint.Store("/old")
	var discovered, calls atomic.Int64
	var s *server
	s = newServer(t, func(w http.ResponseWriter, r *http.Request) {
		switch r.URL.Path {
		case oauthPath:
			discovered.Add(1)
			serve(`{"issuer":"`+s.URL+`","introspection_endpoint":"`+s.URL+endpoint.Load().(string)+`"}`)(w, r)
		case endpoint.Load():
			calls.Add(1)
			serve(`{"active":true}`)(w, r)
		default:
			w.WriteHeader(404)
		}
	})
	i, clock := newTestIntrospector(t, Introspection{Issuer: s.URL})
	expect := func(d, c int64) {
		t.Helper()
		if discovered.Load() != d || calls.Load() != c {
			t.Fatalf("%d discoveries and %d calls, want %d and %d", discovered.Load(), calls.Load(), d, c)
		}
	}
	introspect(t, i, "a", 0)
	introspect(t, i, "b", 0)
	clock.set(time.Hour - 1)
	introspect(t, i, "c", 0)
	expect(1, 3)
	clock.set(time.Hour)
	introspect(t, i, "a", 0)
	introspect(t, i, "a", 0)
	expect(2, 5)

	endpoint.Store("/new")
	for range 10 {
		cannotTell(t, i, "a", 0) // at the old place
	}
	expect(2, 5)
	clock.advance(10*time.Second - 1)
	cannotTell(t, i, "a", 0)
	expect(2, 5)
	clock.advance(1)
	introspect(t, i, "a", 0)
	introspect(t, i, "b", 0)
	expect(3, 7)
}

// While the metadata cannot be had, an endpoint that was good goes on serving,
// and the metadata is not asked for by each who needs it.
func TestIntrospectionOutlivesItsMetadata(t *testing.T) {
	var down atomic.Bool
	var discovered atomic.Int64
	var s *server
	s = newServer(t, func(w http.ResponseWriter, r *http.Request) {
		switch {
		case r.URL.Path == "/i":
			serve(`{"active":true}`)(w, r)
		case r.URL.Path == oauthPath && discovered.Add(1) > 0 && !down.Load():
			serve(`{"issuer":"`+s.URL+`","introspection_endpoint":"`+s.URL+`/i"}`)(w, r)
		default:
			w.WriteHeader(503)
		}
	})
	i, clock := newTestIntrospector(t, Introspection{Issuer: s.URL})
	down.Store(true)
	attempts := int64(0)
	for _, pause := range []time.Duration{1, 2, 4, 8, 16, 30, 30} {
		attempts++
		cannotTell(t, i, "a", 0)
		clock.advance(pause*time.Second - 1)
		cannotTell(t, i, "a", 0)
		if discovered.Load() != attempts {
			t.Fatalf("%d discoveries, want %d", discovered.Load(), attempts)
		}
		clock.advance(1)
	}
	down.Store(false)
	introspect(t, i, "a", 0)
	down.Store(true)
	for range 5 {
		clock.advance(time.Hour)
		introspect(t, i, "a", 0)
	}
	if discovered.Load() != attempts+6 {
		t.Errorf("%d discoveries, want %d", discovered.Load(), attempts+6)
	}
}

// While a well-known place hangs, who waits is told so within the timeout, and the
// other place is asked all the same, for those who come later.
func TestIntrospectionDiscoveryHangs(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		client := fake(t, time.Second, func(r *http.Request) (*http.Response, error) {
			switch r.URL.Path {
			case oauthPath:
				<-r.Context().Done()
				return nil, r.Context().Err()
			case openIDPath:
				select {
				case <-r.Context().Done():
					return nil, r.Context().Err()
				case <-time.After(500 * time.Millisecond):
					return reply(200, `{"issuer":"https://sso.example.com","introspection_endpoint":"https://sso.example.com/i"}`), nil
				}
			}
			return reply(200, `{"active":true}`), nil
		})
		i, _ := newTestIntrospector(t, Introspection{Client: client})
		start := time.Now()
		cannotTell(t, i, "a", 0)
		if took := time.Since(start); took != time.Second {
			t.Errorf("took %v", took)
		}
		time.Sleep(time.Second)
		introspect(t, i, "a", 0)
	})
}

// One discovery serves all who need it.
func TestIntrospectionDiscoversOnceForAll(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var discoveries, calls atomic.Int64
		client := fake(t, time.Second, func(r *http.Request) (*http.Response, error) {
			if r.Method == "GET" {
				discoveries.Add(1)
				time.Sleep(100 * time.Millisecond)
				return reply(200, `{"issuer":"https://sso.example.com","introspection_endpoint":"https://sso.example.com/i"}`), nil
			}
			calls.Add(1)
			return reply(200, `{"active":true}`), nil
		})
		i, _ := newTestIntrospector(t, Introspection{Client: client, MaxInFlight: 64})
		var done sync.WaitGroup
		for n := range 64 {
			done.Go(func() { introspect(t, i, fmt.Sprint("token ", n), 0) })
		}
		done.Wait()
		if discoveries.Load() != 1 || calls.Load() != 64 {
			t.Errorf("%d discoveries, %d calls", discoveries.Load(), calls.Load())
		}
	})
}

// fake returns a client whose calls are answered in this process.
func fake(t testing.TB, timeout time.Duration, answer roundTrip) *Client {
	t.Helper()
	client := NewClient(Trust{}, timeout)
	client.client().Transport = answer
	return client
}

func reply(code int, body string) *http.Response {
	return &http.Response{StatusCode: code, Status: fmt.Sprint(code), Header: http.Header{}, Body: io.NopCloser(strings.NewReader(body))}
}

// What is not clearly an answer says nothing about a token: never that it is
// inactive, and nothing that is remembered.
func TestUnclearAnswers(t *testing.T) {
	zipped := func(text string, size int) http.HandlerFunc {
		return func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Content-Encoding", "gzip")
			z := gzip.NewWriter(w)
			io.WriteString(z, text)
			for range size >> 20 {
				z.Write(make([]byte, 1<<20))
			}
			z.Close()
		}
	}
	challenge := func(code int) http.HandlerFunc {
		return func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("WWW-Authenticate", `Bearer error="invalid_token"`)
			w.Header().Set("Content-Type", "application/json")
			w.WriteHeader(code)
			io.WriteString(w, `{"active":true}`)
		}
	}
	rows := map[string]http.HandlerFunc{
		"HTML":                  serve("<!doctype html><title>Sign in</title>", "Content-Type", "text/html"),
		"nothing":               serve(""),
		"white space":           serve("\n"),
		"truncated":             serve(`{"active":true`),
		"truncated in a name":   serve(`{"act`),
		"more after it":         serve(`{"active":true}{"active":false}`),
		"not UTF-8":             serve("{\"active\":true,\"sub\":\"\xff\"}"),
		"not JSON":              serve(`{active:true}`),
		"a byte order mark":     serve("\ufeff" + `{"active":true}`),
		"an array":              serve(`[{"active":true}]`),
		"true":                  serve(`true`),
		"null":                  serve(`null`),
		"a string":              serve(`"active"`),
		"no members":            serve(`{}`),
		"no active":             serve(`{"sub":"alice"}`),
		"ACTIVE":                serve(`{"ACTIVE":true}`),
		"active deeper":         serve(`{"token":{"active":true}}`),
		"active of text":        serve(`{"active":"true"}`),
		"active of false text":  serve(`{"active":"false"}`),
		"active 1":              serve(`{"active":1}`),
		"active 0":              serve(`{"active":0}`),
		"active null":           serve(`{"active":null}`),
		"active an array":       serve(`{"active":[true]}`),
		"active TRUE":           serve(`{"active":TRUE}`),
		"active twice":          serve(`{"active":true,"active":true}`),
		"active twice, escaped": serve(`{"active":true,"\u0061ctive":false}`),
		"a claim twice":         serve(`{"active":true,"sub":"alice","sub":"bob"}`),
		"a cnf's member twice":  serve(`{"active":true,"cnf":{"jkt":"a","jkt":"b"}}`),
		"nested deeply":         serve(`{"active":true,"a":` + strings.Repeat("[", 20) + strings.Repeat("]", 20) + `}`),
		"nested very deeply":    serve(`{"active":true,"a":` + strings.Repeat(`{"a":`, 50_000) + "1" + strings.Repeat("}", 50_001)),
		"too many members":      serve(`{"active":true` + members(5000) + `}`),
		"larger than 512 KiB":   serve(`{"active":true,"a":"` + strings.Repeat("a", 512<<10) + `"}`),
		"larger by white space": serve(`{"active":true}` + strings.Repeat(" ", 512<<10)),
		"a zip bomb":            zipped(`{"active":true}`, 64<<20),
		"not what it says":      serve(`{"active":true}`, "Content-Encoding", "gzip"),
		"shorter than it says":  serve(`{"active":true}`, "Content-Length", "100"),
		"a signed one":          serve(`e30.eyJhY3RpdmUiOnRydWV9.`, "Content-Type", "application/token-introspection+jwt"),
		"no answer": func(w http.ResponseWriter, _ *http.Request) {
			panic(http.ErrAbortHandler)
		},
	}
	for _, code := range []int{201, 202, 203, 204, 206, 300, 302, 304, 400, 401, 403, 404, 407, 429, 500, 502, 503} {
		rows[fmt.Sprint(code)] = challenge(code)
		if code == 204 || code == 304 {
			rows[fmt.Sprint(code)] = status(code)
		}
	}
	s := newServer(t, nil)
	i, _ := newTestIntrospector(t, Introspection{URL: s.URL + "/introspect", Auth: SecretPost{"the client", "canary-secret"}})
	for name, answer := range rows {
		t.Run(name, func(t *testing.T) {
			s.requests.Store(0)
			s.respond(answer)
			for n := range int64(2) { // a failure is not remembered
				u := cannotTell(t, i, "canary-token", time.Hour)
				s.expect(t, n+1)
				if text := u.Error(); strings.Contains(text, "canary") || strings.Contains(text, "invalid_token") {
					t.Errorf("the error says too much: %s", text)
				}
			}
			// and not held against the server
			s.respond(serve(`{"active":true}`))
			if answer := introspect(t, i, "canary-token", 0); !answer.Active {
				t.Error("not active, after failures")
			}
			i.answers.Remove(bounded.KeyOf("canary-token"))
		})
	}
}

func members(n int) string {
	var b strings.Builder
	for i := range n {
		fmt.Fprintf(&b, `,"m%d":0`, i)
	}
	return b.String()
}

// A failure leaves what is remembered of other tokens, and of this one, as it is.
func TestFailureLeavesAnswers(t *testing.T) {
	s := newServer(t, serve(`{"active":true}`))
	i, clock := newTestIntrospector(t, Introspection{URL: s.URL})
	introspect(t, i, "a", 10*time.Second)
	s.respond(status(500))
	cannotTell(t, i, "b", time.Hour)
	introspect(t, i, "a", 10*time.Second)
	s.expect(t, 2)
	// but it does not make them serve longer
	clock.set(10 * time.Second)
	if answer, err := i.Introspect(t.Context(), "a", 10*time.Second); answer != nil || err == nil {
		t.Errorf("got %v, %v", answer, err)
	}
}

// What is clear, in whatever form.
func TestClearAnswers(t *testing.T) {
	s := newServer(t, nil)
	i, clock := newTestIntrospector(t, Introspection{URL: s.URL})
	for text, active := range map[string]bool{
		`{"active":true}`: true,
		"\r\n{ \"sub\" : \"alice\" ,\t\"active\" : true }\n": true,
		`{"\u0061ctive":true}`:                               true,
		`{"active":true,"exp":"soon","aud":5}`:               true, // the caller's to judge
		`{"active":false}`:                                   false,
		`{"active":false,"sub":"alice"}`:                     false,
	} {
		clock.advance(time.Second)
		for _, mediaType := range []string{"application/json", "application/json;charset=UTF-8", "text/plain", ";"} {
			s.respond(serve(text, "Content-Type", mediaType))
			answer := introspect(t, i, "opaque", 0)
			if answer.Active != active || !answer.Claims.Has("active") || !answer.At.Equal(clock.now()) || answer.size < len(text) {
				t.Errorf("%s: %+v", text, answer)
			}
		}
	}
	s.respond(serve(`{"active":true,"pad":"` + strings.Repeat("a", 512<<10-24) + `"}`)) // 512 KiB
	introspect(t, i, "opaque", 0)
}

// Inactive is an answer, but not one to remember: tokens can become active.
func TestInactiveIsNotRemembered(t *testing.T) {
	s := newServer(t, serve(`{"active":false}`))
	i, _ := newTestIntrospector(t, Introspection{URL: s.URL})
	for n := range int64(3) {
		if answer := introspect(t, i, "opaque", time.Hour); answer.Active {
			t.Error("active")
		}
		s.expect(t, n+1)
	}
	if n := i.answers.Len(); n != 0 {
		t.Errorf("%d answers remembered", n)
	}
	s.respond(serve(`{"active":true}`))
	if answer := introspect(t, i, "opaque", time.Hour); !answer.Active {
		t.Error("not active")
	}
}

// A positive answer serves for maxAge, whoever asks with whichever, and no longer.
func TestPositiveAnswersAreRemembered(t *testing.T) {
	var given atomic.Int64
	s := newServer(t, func(w http.ResponseWriter, r *http.Request) {
		fmt.Fprintf(w, `{"active":true,"n":%d,"token":%q}`, given.Add(1), r.PostFormValue("token"))
	})
	i, clock := newTestIntrospector(t, Introspection{URL: s.URL})
	expect := func(token string, maxAge time.Duration, want string) {
		t.Helper()
		answer := introspect(t, i, token, maxAge)
		n, _ := answer.Claims.Get("n")
		whose, _ := answer.Claims.Get("token")
		if text, _ := whose.Text(); string(n) != want || text != token {
			t.Fatalf("%s: got answer %s about %s, want %s", token, n, whose, want)
		}
	}
	expect("a", 10*time.Second, "1")
	clock.set(10*time.Second - 1)
	expect("a", 10*time.Second, "1")
	expect("a", 20*time.Second, "1")
	expect("a", 5*time.Second, "2") // which does for all
	expect("a", 10*time.Second, "2")
	clock.set(15*time.Second - 2)
	expect("a", 5*time.Second, "2")
	clock.set(20*time.Second - 2)
	expect("a", 10*time.Second, "2")
	clock.set(20*time.Second - 1)
	expect("a", 10*time.Second, "3")

	// for each token its own
	expect("b", 10*time.Second, "4")
	expect("a", 10*time.Second, "3")
	expect("b", 10*time.Second, "4")
	expect("A", 10*time.Second, "5")
	expect("a ", 10*time.Second, "6")

	// and none of them if nothing may be remembered
	expect("a", 0, "7")
	expect("a", 0, "8")
	expect("a", 0, "9")
}

// Once a token was said to be inactive, no earlier answer counts any more,
// however long one may serve.
func TestInactiveEndsWhatIsRemembered(t *testing.T) {
	s := newServer(t, serve(`{"active":true}`))
	i, clock := newTestIntrospector(t, Introspection{URL: s.URL})
	introspect(t, i, "revoked", time.Hour)
	introspect(t, i, "good", time.Hour)
	s.respond(serve(`{"active":false}`))
	clock.set(10 * time.Second)
	if introspect(t, i, "revoked", 10*time.Second).Active || introspect(t, i, "revoked", time.Hour).Active {
		t.Error("a revoked token came back")
	}
	if !introspect(t, i, "good", time.Hour).Active {
		t.Error("another token went with it")
	}
}

// Never past exp.
func TestRememberedEndsWithTheToken(t *testing.T) {
	for exp, lasts := range map[string]time.Duration{
		"1700000005": 5 * time.Second, "1700000005.25": 5250 * time.Millisecond, "1700003600": time.Minute, // maxAge
		"1699999999": 0, "0": 0, "-1": 0, `"1700003600"`: 0, "null": 0, // nothing to hold a time against
	} {
		s := newServer(t, serve(`{"active":true,"exp":`+exp+`}`))
		i, clock := newTestIntrospector(t, Introspection{URL: s.URL})
		introspect(t, i, "opaque", time.Minute)
		if lasts > 0 {
			clock.set(lasts - time.Millisecond)
			introspect(t, i, "opaque", time.Minute)
			s.expect(t, 1)
		}
		clock.set(lasts)
		introspect(t, i, "opaque", time.Minute)
		s.expect(t, 2)
	}
}

// 100 requests with one token: one call, and one answer for all.
func TestOneCallForAll(t *testing.T) {
	for _, body := range []string{`{"active":true}`, `{"active":false}`, `nonsense`} {
		synctest.Test(t, func(t *testing.T) {
			var calls, answered, failed atomic.Int64
			release := make(chan struct{})
			client := fake(t, time.Second, func(*http.Request) (*http.Response, error) {
				calls.Add(1)
				<-release
				return reply(200, body), nil
			})
			i, _ := newTestIntrospector(t, Introspection{Client: client, URL: "https://sso.example.com/i", MaxInFlight: 64})
			var done sync.WaitGroup
			for range 100 {
				done.Go(func() {
					answer, err := i.Introspect(context.Background(), "opaque", 0)
					switch {
					case err != nil:
						unavailable(t, err)
						failed.Add(1)
					case answer.Active == strings.Contains(body, "true"):
						answered.Add(1)
					}
				})
			}
			synctest.Wait()
			close(release)
			done.Wait()
			if calls.Load() != 1 || answered.Load()+failed.Load() != 100 || (failed.Load() != 0) != (body == "nonsense") {
				t.Errorf("%s: %d calls, %d answered, %d failed", body, calls.Load(), answered.Load(), failed.Load())
			}
		})
	}
}

// The first to ask goes away, as others do: the rest get their answer.
func TestCallOutlivesItsCaller(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var calls atomic.Int64
		client := fake(t, time.Second, func(r *http.Request) (*http.Response, error) {
			calls.Add(1)
			select {
			case <-time.After(500 * time.Millisecond):
				return reply(200, `{"active":true}`), nil
			case <-r.Context().Done():
				return nil, r.Context().Err()
			}
		})
		i, _ := newTestIntrospector(t, Introspection{Client: client, URL: "https://sso.example.com/i"})
		first, leave := context.WithCancel(context.Background())
		var done sync.WaitGroup
		start := time.Now()
		for n := range 10 {
			ctx := context.Background()
			if n%2 == 0 {
				ctx = first
			}
			done.Go(func() {
				answer, err := i.Introspect(ctx, "opaque", time.Hour)
				if n%2 == 1 {
					if err != nil || !answer.Active || time.Since(start) != 500*time.Millisecond {
						t.Errorf("who stayed got %v, %v after %v", answer, err, time.Since(start))
					}
					return
				}
				if u := unavailable(t, err); !errors.Is(u, context.Canceled) || answer != nil || time.Since(start) != 100*time.Millisecond {
					t.Errorf("who left got %v, %v after %v", answer, err, time.Since(start))
				}
			})
			synctest.Wait() // so that the first to ask is one who leaves
		}
		time.Sleep(100 * time.Millisecond)
		leave()
		done.Wait()
		introspect(t, i, "opaque", time.Hour) // remembered, though its first caller left
		if calls.Load() != 1 {
			t.Errorf("%d calls", calls.Load())
		}
	})
}

// gauge counts what is under way, and remembers the most there was.
type gauge struct {
	mu        sync.Mutex
	now, most int
}

func (g *gauge) add(n int) {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.now += n
	g.most = max(g.most, g.now)
}

func (g *gauge) load() (now, most int) {
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.now, g.most
}

// 5,000 tokens never seen, and a server that hangs: so many calls as may be, a
// thousand more that wait, the rest refused at once, and all within the timeout.
func TestFloodAgainstAServerThatHangs(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const timeout = 200 * time.Millisecond
		var calls gauge
		var hangs atomic.Bool
		hangs.Store(true)
		client := fake(t, timeout, func(r *http.Request) (*http.Response, error) {
			calls.add(1)
			defer calls.add(-1)
			if !hangs.Load() {
				return reply(200, `{"active":true}`), nil
			}
			<-r.Context().Done()
			return nil, r.Context().Err()
		})
		i, _ := newTestIntrospector(t, Introspection{Client: client, URL: "https://sso.example.com/i", MaxInFlight: 64})
		flood := func() {
			var atOnce, inTime atomic.Int64
			var done sync.WaitGroup
			start := time.Now()
			for n := range 5000 {
				done.Go(func() {
					cannotTell(t, i, fmt.Sprint("token ", n), 0)
					switch time.Since(start) {
					case 0:
						atOnce.Add(1)
					case timeout:
						inTime.Add(1)
					}
				})
			}
			synctest.Wait()
			if now, _ := calls.load(); now != 64 || i.waiting.Load() != maxWaiting || atOnce.Load() != 5000-64-maxWaiting {
				t.Errorf("%d calls, %d waiting, %d refused", now, i.waiting.Load(), atOnce.Load())
			}
			done.Wait()
			if inTime.Load() != 64+maxWaiting {
				t.Errorf("%d answered at the timeout", inTime.Load())
			}
			synctest.Wait()
			if now, most := calls.load(); most != 64 || now != 0 || i.waiting.Load() != 0 || len(i.slots) != 0 || i.answers.Len() != 0 {
				t.Errorf("%d calls at most, and after all %d, %d waiting, %d slots taken, %d answers",
					most, now, i.waiting.Load(), len(i.slots), i.answers.Len())
			}
		}
		flood()
		flood() // nothing is left of the first
		hangs.Store(false)
		introspect(t, i, "token 0", 0)
	})
}

// Those who wait are let in as others end.
func TestWaitersAreLetIn(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var calls gauge
		client := fake(t, 5*time.Second, func(*http.Request) (*http.Response, error) {
			calls.add(1)
			defer calls.add(-1)
			time.Sleep(10 * time.Millisecond)
			return reply(200, `{"active":true}`), nil
		})
		i, _ := newTestIntrospector(t, Introspection{Client: client, URL: "https://sso.example.com/i", MaxInFlight: 8})
		var done sync.WaitGroup
		start := time.Now()
		for n := range 8 + maxWaiting {
			done.Go(func() { introspect(t, i, fmt.Sprint("token ", n), 0) })
		}
		done.Wait()
		_, most := calls.load()
		if took := time.Since(start); most != 8 || took != 10*time.Millisecond*(8+maxWaiting)/8 {
			t.Errorf("%d at once, %v", most, took)
		}
	})
}

// A token that was remembered is good while the server hangs, and needs no slot.
func TestRememberedNeedsNoSlot(t *testing.T) {
	s := newServer(t, serve(`{"active":true}`))
	i, _ := newTestIntrospector(t, Introspection{URL: s.URL, MaxInFlight: 1})
	introspect(t, i, "known", time.Hour)
	i.slots <- struct{}{}
	introspect(t, i, "known", time.Hour)
	<-i.slots
	s.expect(t, 1)
}

// The same over the network: servers that hang, drip or go silent halfway.
func TestSlowServers(t *testing.T) {
	const timeout = 200 * time.Millisecond
	for name, answer := range map[string]http.HandlerFunc{
		"no answer": func(_ http.ResponseWriter, r *http.Request) { <-r.Context().Done() },
		"half an answer": func(w http.ResponseWriter, r *http.Request) {
			io.WriteString(w, `{"active":`)
			w.(http.Flusher).Flush()
			<-r.Context().Done()
		},
		"drop by drop": func(w http.ResponseWriter, r *http.Request) {
			io.WriteString(w, `{"active":true`)
			for r.Context().Err() == nil {
				io.WriteString(w, " ")
				w.(http.Flusher).Flush()
				time.Sleep(5 * time.Millisecond)
			}
		},
	} {
		t.Run(name, func(t *testing.T) {
			s := newServer(t, func(w http.ResponseWriter, r *http.Request) {
				io.Copy(io.Discard, r.Body) // else the server does not see its client leave
				answer(w, r)
			})
			client := NewClient(Trust{}, timeout)
			t.Cleanup(client.CloseIdle)
			i, _ := newTestIntrospector(t, Introspection{Client: client, URL: s.URL, MaxInFlight: 8})
			start := time.Now()
			var done sync.WaitGroup
			for n := range 100 {
				done.Go(func() { cannotTell(t, i, fmt.Sprint("token ", n), 0) })
			}
			done.Wait()
			if took := time.Since(start); took > timeout+time.Second {
				t.Errorf("took %v", took)
			}
			s.respond(serve(`{"active":true}`))
			introspect(t, i, "token 0", 0)
		})
	}
}

// What is remembered is bounded in number and in bytes, and the last is there.
func TestAnswersAreBounded(t *testing.T) {
	for _, row := range []struct{ size, add, want int }{
		{100, bounded.MaxEntries + 500, 100_000},
		{512 << 10, 1000, 256}, // 128 MiB
	} {
		i, _ := newTestIntrospector(t, Introspection{})
		for n := range row.add {
			key := bounded.KeyOf(fmt.Sprint(n))
			answer := &Answer{Active: true, At: epoch, expires: math.Inf(1), size: row.size}
			i.remember(key, answer)
			if i.remembered(key, time.Second) != answer || i.answers.Len() > row.want {
				t.Fatalf("%d: %d answers", n, i.answers.Len())
			}
		}
		if n := i.answers.Len(); n != row.want {
			t.Errorf("%d answers, want %d", n, row.want)
		}
		// negative ones push out nobody
		for n := range 1000 {
			i.remember(bounded.KeyOf(fmt.Sprint("negative ", n)), &Answer{At: epoch, expires: math.Inf(1), size: row.size})
		}
		if n := i.answers.Len(); n != row.want {
			t.Errorf("%d answers after negative ones, want %d", n, row.want)
		}
	}
}

// Many members in little text take more memory than the text.
func TestAnswerSizeCountsMembers(t *testing.T) {
	text := `{"active":true` + members(1000) + `}`
	s := newServer(t, serve(text))
	i, _ := newTestIntrospector(t, Introspection{URL: s.URL})
	if size := introspect(t, i, "opaque", 0).size; size < len(text)+1000*48 {
		t.Errorf("%d bytes counted for 1000 members", size)
	}
}

func TestIntrospectorClose(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		client := fake(t, time.Hour, func(r *http.Request) (*http.Response, error) {
			<-r.Context().Done()
			return nil, r.Context().Err()
		})
		i, _ := newTestIntrospector(t, Introspection{Client: client, URL: "https://sso.example.com/i", MaxInFlight: 2})
		start := time.Now()
		var done sync.WaitGroup
		for n := range 10 { // two that call, eight that wait for those
			done.Go(func() {
				if u := cannotTell(t, i, fmt.Sprint(n), 0); !errors.Is(u, context.Canceled) {
					t.Errorf("got %v", u)
				}
			})
		}
		synctest.Wait()
		i.Close()
		done.Wait()
		cannotTell(t, i, "after that", 0)
		if took := time.Since(start); took != 0 {
			t.Errorf("ended after %v", took)
		}
		i.Close()
	})
}

// keysFrom returns a finder of keys in a set, or of none if they cannot be had.
func keysFrom(t testing.TB, set *KeySet, err error) KeyFinder {
	t.Helper()
	c := NewKeyCache(func(context.Context) (*KeySet, time.Duration, error) { return set, time.Hour, err }, systemRoots)
	t.Cleanup(c.Close)
	return c
}

const signedMedia = "application/token-introspection+jwt"

// RFC 9701 §5: an answer is a JWT of its own type, signed by a key of the
// issuer, of the issuer, and for this client.
func TestSignedAnswers(t *testing.T) {
	key, stranger, rsaKey := newKey(t, "ES256"), newKey(t, "ES256"), newKey(t, "RS256")
	key.ID, stranger.ID, rsaKey.ID = "the key", "the key", "another key"
	signed := &Signed{keysFrom(t, published(t, key, rsaKey), nil), jose.Algorithms{algorithm("ES256")}, "the client"}

	type changes = map[string]any
	change := func(all, some changes) changes {
		all = maps.Clone(all)
		for name, value := range some {
			if all[name] = value; value == nil {
				delete(all, name)
			}
		}
		return all
	}
	header := changes{"typ": "token-introspection+jwt", "kid": "the key"}
	claims := changes{"iss": "https://sso.example.com", "aud": "the client", "iat": 1_700_000_000,
		"token_introspection": changes{"active": true, "sub": "alice"}}
	sign := func(by *jose.PrivateKey, head, body changes) string {
		t.Helper()
		compact, err := by.Sign(change(header, head), change(claims, body))
		if err != nil {
			t.Fatal(err)
		}
		return compact
	}
	forge := func(alg string, signature func(input string) []byte) string {
		head, _ := json.Marshal(change(header, changes{"alg": alg}))
		body, _ := json.Marshal(claims)
		input := b64(head) + "." + b64(body)
		return input + "." + b64(signature(input))
	}
	unsigned := func(string) []byte { return nil }
	hmacBy := func(secret []byte) func(string) []byte {
		return func(input string) []byte {
			mac := hmac.New(sha256.New, secret)
			mac.Write([]byte(input))
			return mac.Sum(nil)
		}
	}
	good := sign(key, nil, nil)
	inside := func(value any) string { return sign(key, nil, changes{"token_introspection": value}) }

	for _, row := range []struct {
		name, mediaType, body string
		ok                    bool
	}{
		{"a good one", signedMedia, good, true},
		{"a media type with a parameter, in other case", "Application/Token-Introspection+JWT; charset=utf-8", good, true},
		{"a typ with its prefix, in other case", signedMedia, sign(key, changes{"typ": "application/Token-Introspection+jwt"}, nil), true},
		{"no kid", signedMedia, sign(key, changes{"kid": nil}, nil), true},
		{"aud an array", signedMedia, sign(key, nil, changes{"aud": []string{"another", "the client"}}), true},
		{"claims of no account", signedMedia, sign(key, changes{"jku": "https://evil.example"}, changes{"jti": "a", "active": false}), true},

		{"no media type", "", good, false},
		{"JSON by its media type", "application/json", good, false},
		{"a JWT by its media type", "application/jwt", good, false},
		{"plain JSON", "application/json", `{"active":true}`, false},
		{"plain JSON, called a JWT", signedMedia, `{"active":true}`, false},
		{"nothing", signedMedia, "", false},
		{"two parts", signedMedia, good[:strings.LastIndexByte(good, '.')], false},
		{"a JWE, RFC 9701 §5", signedMedia, good + ".a.b", false},

		{"no typ", signedMedia, sign(key, changes{"typ": nil}, nil), false},
		{"the typ of any JWT", signedMedia, sign(key, changes{"typ": "JWT"}, nil), false},
		{"the typ of an access token", signedMedia, sign(key, changes{"typ": "at+jwt"}, nil), false},
		{"a typ that is no string", signedMedia, sign(key, changes{"typ": []string{"token-introspection+jwt"}}, nil), false},
		{"crit", signedMedia, sign(key, changes{"crit": []string{"exp"}}, nil), false},
		{"b64", signedMedia, sign(key, changes{"b64": true}, nil), false},
		{"zip", signedMedia, sign(key, changes{"zip": "DEF"}, nil), false},

		{"alg none", signedMedia, forge("none", unsigned), false},
		{"alg None", signedMedia, forge("None", unsigned), false},
		{"alg empty", signedMedia, forge("", unsigned), false},
		{"ES256 without a signature", signedMedia, forge("ES256", unsigned), false},
		{"ES256 of zeros", signedMedia, forge("ES256", func(string) []byte { return make([]byte, 64) }), false},
		{"HS256 by the public key", signedMedia, forge("HS256", hmacBy(key.Public)), false},
		{"HS256 by the client's id", signedMedia, forge("HS256", hmacBy([]byte("the client"))), false},
		{"HS256 called ES256", signedMedia, forge("ES256", hmacBy(key.Public)), false},
		{"an alg not accepted", signedMedia, sign(rsaKey, changes{"kid": "another key"}, nil), false},
		{"a key of nobody, by a known kid", signedMedia, sign(stranger, nil, nil), false},
		{"a key of nobody, in the header", signedMedia, sign(stranger, changes{"kid": nil, "jwk": stranger.PublicJWK()}, nil), false},
		{"an unknown kid", signedMedia, sign(key, changes{"kid": "unknown"}, nil), false},
		{"claims of another", signedMedia, func() string {
			a, b := strings.Split(good, "."), strings.Split(inside(changes{"active": true, "sub": "bob"}), ".")
			return a[0] + "." + b[1] + "." + a[2]
		}(), false},

		{"no iss", signedMedia, sign(key, nil, changes{"iss": nil}), false},
		{"another's iss", signedMedia, sign(key, nil, changes{"iss": "https://evil.example"}), false},
		{"an iss with a slash more", signedMedia, sign(key, nil, changes{"iss": "https://sso.example.com/"}), false},
		{"an iss that is no string", signedMedia, sign(key, nil, changes{"iss": []string{"https://sso.example.com"}}), false},
		{"no iat, RFC 9701 §5", signedMedia, sign(key, nil, changes{"iat": nil}), false},
		{"iat of the future", signedMedia, sign(key, nil, changes{"iat": 1_700_000_100}), false},
		{"expired, RFC 7519 §4.1.4", signedMedia, sign(key, nil, changes{"exp": 1_699_999_900}), false},
		{"exp a string", signedMedia, sign(key, nil, changes{"exp": "soon"}), false},
		{"not yet good", signedMedia, sign(key, nil, changes{"nbf": 1_700_000_100}), false},
		{"no aud", signedMedia, sign(key, nil, changes{"aud": nil}), false},
		{"aud empty", signedMedia, sign(key, nil, changes{"aud": ""}), false},
		{"another's aud", signedMedia, sign(key, nil, changes{"aud": "another"}), false},
		{"others' aud", signedMedia, sign(key, nil, changes{"aud": []string{"another", "The Client"}}), false},
		{"no token_introspection", signedMedia, inside(nil), false},
		{"no token_introspection, active beside it", signedMedia, sign(key, nil, changes{"token_introspection": nil, "active": true}), false},
		{"token_introspection a string", signedMedia, inside(`{"active":true}`), false},
		{"token_introspection an array", signedMedia, inside([]any{changes{"active": true}}), false},
		{"token_introspection true", signedMedia, inside(true), false},
		{"no active within", signedMedia, inside(changes{"sub": "alice"}), false},
		{"active of text within", signedMedia, inside(changes{"active": "true"}), false},
		{"active beside alone", signedMedia, sign(key, nil, changes{"active": true, "token_introspection": changes{}}), false},
	} {
		t.Run(row.name, func(t *testing.T) {
			s := newServer(t, func(w http.ResponseWriter, r *http.Request) {
				if accept := r.Header.Get("Accept"); accept != signedMedia { // RFC 9701 §4
					t.Errorf("Accept %s", accept)
				}
				serve(row.body, "Content-Type", row.mediaType)(w, r)
			})
			i, _ := newTestIntrospector(t, Introspection{URL: s.URL, Signed: signed})
			if !row.ok {
				cannotTell(t, i, "opaque", time.Hour)
				cannotTell(t, i, "opaque", time.Hour)
				s.expect(t, 2)
				return
			}
			answer := introspect(t, i, "opaque", time.Hour)
			sub, _ := answer.Claims.Get("sub")
			if text, _ := sub.Text(); !answer.Active || text != "alice" || answer.Claims.Has("iss") {
				t.Errorf("answer %v, sub %s", answer.Claims.Names(), sub)
			}
			introspect(t, i, "opaque", time.Hour)
			s.expect(t, 1)
		})
	}

	t.Run("inactive", func(t *testing.T) {
		s := newServer(t, serve(inside(changes{"active": false}), "Content-Type", signedMedia))
		i, _ := newTestIntrospector(t, Introspection{URL: s.URL, Signed: signed})
		for range 2 {
			if introspect(t, i, "opaque", time.Hour).Active {
				t.Error("active")
			}
		}
		s.expect(t, 2)
	})

	// That keys cannot be had says nothing about the token either.
	t.Run("keys unavailable", func(t *testing.T) {
		s := newServer(t, serve(good, "Content-Type", signedMedia))
		down := errors.New("down")
		i, _ := newTestIntrospector(t, Introspection{URL: s.URL, Signed: &Signed{
			keysFrom(t, nil, down), signed.Algorithms, "the client"}})
		if u := cannotTell(t, i, "opaque", 0); !errors.Is(u, down) {
			t.Errorf("got %v, which does not say why", u)
		}
	})
	t.Run("the set has no key", func(t *testing.T) {
		s := newServer(t, serve(good, "Content-Type", signedMedia))
		i, _ := newTestIntrospector(t, Introspection{URL: s.URL, Signed: &Signed{
			keysFrom(t, new(KeySet), nil), signed.Algorithms, "the client"}})
		cannotTell(t, i, "opaque", 0)
	})
}

// Keys that do not come keep nobody longer than the timeout.
func TestSignedAnswerWaitsForKeys(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		key := newKey(t, "ES256")
		compact, err := key.Sign(map[string]any{"typ": "token-introspection+jwt"}, map[string]any{
			"iss": "https://sso.example.com", "aud": "the client", "iat": epoch.Unix(), "token_introspection": map[string]any{"active": true}})
		if err != nil {
			t.Fatal(err)
		}
		client := fake(t, 200*time.Millisecond, func(r *http.Request) (*http.Response, error) {
			answer := reply(200, compact)
			answer.Header.Set("Content-Type", signedMedia)
			return answer, nil
		})
		cache := NewKeyCache(func(ctx context.Context) (*KeySet, time.Duration, error) {
			select {
			case <-ctx.Done():
				return nil, 0, ctx.Err()
			case <-time.After(time.Second):
				return published(t, key), time.Hour, nil
			}
		}, systemRoots)
		defer cache.Close()
		i, _ := newTestIntrospector(t, Introspection{Client: client, URL: "https://sso.example.com/i",
			Signed: &Signed{cache, jose.AllAlgorithms(), "the client"}})
		start := time.Now()
		cannotTell(t, i, "opaque", 0)
		if took := time.Since(start); took != 200*time.Millisecond {
			t.Errorf("took %v", took)
		}
		time.Sleep(time.Second)
		if !introspect(t, i, "opaque", 0).Active {
			t.Error("not active")
		}
	})
}
