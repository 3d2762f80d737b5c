package caddytest

import (
	"encoding/json"
	"fmt"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"
)

// server is an authorization server that knows tokens, and counts what it is
// asked. Its keys and its tokens are those of the tests' issuer.
type server struct {
	*httptest.Server
	mu    sync.Mutex
	knows map[string]any // answers by token; others are inactive
	asked atomic.Int64   // introspections
	// answer replaces the introspection endpoint, if set.
	answer atomic.Pointer[http.HandlerFunc]
}

const clientSecret = "s3cret:+ %"

func startServer(t *testing.T) *server {
	t.Helper()
	s := &server{knows: make(map[string]any)}
	mux := http.NewServeMux()
	mux.HandleFunc("GET /.well-known/oauth-authorization-server", func(w http.ResponseWriter, _ *http.Request) {
		fmt.Fprintf(w, `{"issuer":%q,"jwks_uri":%q,"introspection_endpoint":%q}`, s.URL, issuer.URL+"/jwks", s.URL+"/introspect")
	})
	mux.HandleFunc("POST /introspect", func(w http.ResponseWriter, r *http.Request) {
		s.asked.Add(1)
		_ = r.ParseForm() // only with the body read can a handler see its client go
		if answer := s.answer.Load(); answer != nil {
			(*answer)(w, r)
			return
		}
		id, secret, _ := r.BasicAuth()
		if id != "gateway" || secret != "s3cret%3A%2B+%25" {
			http.Error(w, "who are you", http.StatusUnauthorized)
			return
		}
		s.mu.Lock()
		answer, ok := s.knows[r.PostFormValue("token")]
		s.mu.Unlock()
		if !ok {
			answer = map[string]any{"active": false}
		}
		_ = json.NewEncoder(w).Encode(answer)
	})
	s.Server = httptest.NewServer(mux)
	t.Cleanup(s.Close)
	return s
}

// know makes an opaque token that the server answers for, with a good answer but
// for the changes: nil removes a member.
func (s *server) know(token string, changes map[string]any) {
	answer := map[string]any{
		"active": true, "aud": audience, "sub": "user-1", "client_id": "client-1", "scope": "read", "iss": s.URL,
		"exp": time.Now().Add(time.Minute).Unix(), "token_type": "DPoP", "cnf": map[string]any{"jkt": clientKey.Thumbprint},
	}
	for name, value := range changes {
		if answer[name] = value; value == nil {
			delete(answer, name)
		}
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.knows[token] = answer
}

// site is a site whose handler introspects, with further settings of the
// handler and of the introspection.
func (s *server) site(handler, introspection string) string {
	return "dpop {\nissuer " + s.URL + " {\ntimeout 1s\nintrospection {\nclient_id gateway\nclient_secret \"" + clientSecret + "\"\n" +
		introspection + "\n}\n}\naudience " + audience + "\n" + handler + "\n}\nreverse_proxy {{BACKEND}}"
}

func withToken(t *testing.T, g *gateway, token string) call {
	t.Helper()
	return call{url: g.url, header: http.Header{"Authorization": {"DPoP " + token}, "Dpop": {dpop(t, "GET", g.url, token, nil)}}}
}

func TestOpaqueTokens(t *testing.T) {
	s := startServer(t)
	g := serve(t, setup{site: s.site("claim_header X-User sub", "") + " {\nheader_up X-Client {http.dpop.client_id}\n}"})
	other := map[string]any{"jkt": "0ZcOCORZNYy-DWpqq30jZyJGHTN0d2HglBV3uiguA4I"}
	for token, row := range map[string]struct {
		changes map[string]any
		status  int
		reason  string
	}{
		"good":            {nil, 200, ""},
		"aud-array":       {map[string]any{"aud": []string{"x", audience}}, 200, ""},
		"no-exp":          {map[string]any{"exp": nil}, 200, ""},
		"no-iss":          {map[string]any{"iss": nil}, 200, ""},
		"type-bearer":     {map[string]any{"token_type": "Bearer"}, 200, ""}, // some servers say so of all
		"no-aud":          {map[string]any{"aud": nil}, 401, "token_audience"},
		"other-aud":       {map[string]any{"aud": "https://other.example"}, 401, "token_audience"},
		"other-iss":       {map[string]any{"iss": "https://other.example"}, 401, "token_issuer"},
		"expired":         {map[string]any{"exp": time.Now().Unix() - 20}, 401, "token_expired"},
		"early":           {map[string]any{"nbf": time.Now().Unix() + 60}, 401, "token_early"},
		"unbound":         {map[string]any{"cnf": nil}, 401, "token_unbound"},
		"other-key":       {map[string]any{"cnf": other}, 401, "token_other_key"},
		"inactive":        {map[string]any{"active": false}, 401, "token_inactive"},
		"active-a-string": {map[string]any{"active": "true"}, 503, "introspection_unavailable"},
		"active-missing":  {map[string]any{"active": nil}, 503, "introspection_unavailable"},
	} {
		s.know(token, row.changes)
		a := withToken(t, g, token).send(t)
		if a.StatusCode != row.status {
			t.Errorf("%s: answered %d %q", token, a.StatusCode, a.Header.Values("WWW-Authenticate"))
			continue
		}
		switch row.status {
		case 200:
			if got := g.backend.one(t).header; got.Get("Authorization") != "Bearer "+token || got.Get("X-User") != "user-1" || got.Get("X-Client") != "client-1" {
				t.Errorf("%s: the backend got %v", token, got)
			}
			continue
		case 503:
			if a.Header.Get("Retry-After") == "" || a.Header.Get("WWW-Authenticate") != "" {
				t.Errorf("%s: headers %v", token, a.Header)
			}
		case 401:
			a.expect(t, 401, "DPoP invalid_token")
		}
		g.backend.none(t)
		await(t, g.logs, func(e entry) bool { return e["reason"] == row.reason })
	}
	withToken(t, g, "unknown").send(t).expect(t, 401, "DPoP invalid_token")
	// without introspection an opaque token is refused
	g.load(t, setup{})
	withToken(t, g, "good").send(t).expect(t, 401, "DPoP invalid_token")
}

func TestBearerTokensIntrospected(t *testing.T) {
	s := startServer(t)
	g := serve(t, setup{site: s.site("mode optional", "")})
	s.know("unbound", map[string]any{"cnf": nil, "token_type": "Bearer"})
	s.know("bound", map[string]any{"token_type": "Bearer"})
	s.know("said-to-be-dpop", map[string]any{"cnf": nil, "token_type": "dpop"})
	for token, status := range map[string]int{"unbound": 200, "bound": 401, "said-to-be-dpop": 401} {
		a := call{url: g.url, header: http.Header{"Authorization": {"Bearer " + token}}}.send(t)
		if a.StatusCode != status {
			t.Errorf("%s: answered %d", token, a.StatusCode)
		}
	}
}

// With `tokens all` a JWT is verified locally too, and must agree with the answer.
func TestTokensAll(t *testing.T) {
	s := startServer(t)
	g := serve(t, setup{site: s.site("require_scope read", "tokens all")})
	bound := map[string]any{"jkt": clientKey.Thumbprint}
	for _, row := range []struct {
		name           string
		claims, answer map[string]any
		status         int
		reason         string
	}{
		{"both are good", nil, nil, 200, ""},
		{"a lightweight token", map[string]any{"aud": nil, "sub": nil, "client_id": nil}, nil, 200, ""},
		{"aud of the answer counts", nil, map[string]any{"aud": "https://other.example"}, 401, "token_audience"},
		{"scope of the answer counts", map[string]any{"scope": "read"}, map[string]any{"scope": nil}, 403, "scope_missing"},
		{"inactive", nil, map[string]any{"active": false}, 401, "token_inactive"},
		{"cnf in the token alone", nil, map[string]any{"cnf": nil}, 200, ""},
		{"cnf in the answer alone", map[string]any{"cnf": nil}, nil, 200, ""},
		{"cnf in neither", map[string]any{"cnf": nil}, map[string]any{"cnf": nil}, 401, "token_unbound"},
		{"another cnf in the answer", nil, map[string]any{"cnf": map[string]any{"jkt": "x"}}, 401, "token_contradictory"},
		{"another kind of cnf in the answer", nil, map[string]any{"cnf": map[string]any{"x5t#S256": "x", "jkt": bound["jkt"]}}, 401, "token_confirmation"},
		{"another sub", nil, map[string]any{"sub": "user-2"}, 401, "token_contradictory"},
		{"another iss", nil, map[string]any{"iss": "https://other.example"}, 401, "token_contradictory"},
		{"expired by the token", map[string]any{"exp": time.Now().Unix() - 20}, nil, 401, "token_expired"},
		{"expired by the answer", nil, map[string]any{"exp": time.Now().Unix() - 20}, 401, "token_expired"},
	} {
		t.Run(row.name, func(t *testing.T) {
			claims := map[string]any{"iss": s.URL}
			for name, value := range row.claims {
				claims[name] = value
			}
			token := accessToken(t, claims)
			s.know(token, row.answer)
			a := withToken(t, g, token).send(t)
			if a.StatusCode != row.status {
				t.Fatalf("answered %d %q", a.StatusCode, a.Header.Values("WWW-Authenticate"))
			}
			if row.status != 200 {
				await(t, g.logs, func(e entry) bool { return e["reason"] == row.reason })
			}
		})
	}
	// a JWT that is not good by itself is not asked about, nor is one with
	// something after it, which a server may take for the JWT
	asked := s.asked.Load()
	for _, tail := range []string{".", "..", "...", ".a"} {
		token := accessToken(t, map[string]any{"iss": s.URL}) + tail
		s.know(token, nil)
		if a := withToken(t, g, token).send(t); a.StatusCode != 401 {
			t.Errorf("a JWT with %q after it: answered %d", tail, a.StatusCode)
		}
	}
	forged := tokenOf(t, stranger, map[string]any{"iss": s.URL})
	s.know(forged, nil)
	withToken(t, g, forged).send(t).expect(t, 401, "DPoP invalid_token")
	others := accessToken(t, map[string]any{"iss": s.URL, "cnf": map[string]any{"jkt": stranger.Key.Thumbprint}})
	s.know(others, map[string]any{"cnf": nil})
	withToken(t, g, others).send(t).expect(t, 401, "DPoP invalid_token")
	withToken(t, g, accessToken(t, nil)).send(t).expect(t, 401, "DPoP invalid_token") // of another issuer
	if now := s.asked.Load(); now != asked {
		t.Errorf("%d introspections of tokens that are not good by themselves", now-asked)
	}
}

func TestIntrospectionCache(t *testing.T) {
	s := startServer(t)
	g := serve(t, setup{site: s.site("", "cache 1m")})
	s.know("good", nil)
	for range 3 {
		withToken(t, g, "good").send(t).expect(t, 200)
	}
	if asked := s.asked.Load(); asked != 1 {
		t.Errorf("asked %d times", asked)
	}
	// the answer survives a reload, and every other check runs anew
	g.load(t, setup{site: s.site("require_scope write", "cache 1m")})
	if a := withToken(t, g, "good").send(t); a.StatusCode != 403 {
		t.Errorf("answered %d", a.StatusCode)
	}
	if asked := s.asked.Load(); asked != 1 {
		t.Errorf("asked %d times after a reload", asked)
	}
	// not without a cache, and negative answers never
	g.load(t, setup{site: s.site("", "cache 0s")})
	for range 2 {
		withToken(t, g, "good").send(t).expect(t, 200)
		withToken(t, g, "bad").send(t).expect(t, 401, "DPoP invalid_token")
	}
	if asked := s.asked.Load(); asked != 5 {
		t.Errorf("asked %d times in all", asked)
	}
}

// A positive answer serves no longer than its token, and not once the issuer has
// said otherwise to another handler.
func TestIntrospectionCacheEnds(t *testing.T) {
	s := startServer(t)
	site := s.site("", "cache 1m")
	g := serve(t, setup{site: "handle /now {\n" + strings.Replace(site, "cache 1m", "cache 0s", 1) + "\n}\nhandle {\n" + site + "\n}"})
	s.know("short", map[string]any{"exp": time.Now().Unix() + 2})
	s.know("revoked", nil)
	withToken(t, g, "short").send(t).expect(t, 200)
	withToken(t, g, "revoked").send(t).expect(t, 200)
	s.know("short", map[string]any{"active": false})
	s.know("revoked", map[string]any{"active": false})
	withToken(t, g, "revoked").send(t).expect(t, 200) // as it was told before
	now := call{url: g.url + "/now", header: http.Header{"Authorization": {"DPoP revoked"}, "Dpop": {dpop(t, "GET", g.url+"/now", "revoked", nil)}}}
	now.send(t).expect(t, 401, "DPoP invalid_token")
	withToken(t, g, "revoked").send(t).expect(t, 401, "DPoP invalid_token")
	for deadline := time.Now().Add(5 * time.Second); withToken(t, g, "short").send(t).StatusCode != 401; time.Sleep(100 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatal("the answer serves past the token's exp")
		}
	}
}

// Whatever is no clear answer is 503 within the timeout, and when the server
// recovers, so does the gateway, without a reload.
func TestIntrospectionFaults(t *testing.T) {
	s := startServer(t)
	g := serve(t, setup{site: s.site("", "cache 0s")})
	s.know("good", nil)
	write := func(status int, body string, headers ...string) http.HandlerFunc {
		return func(w http.ResponseWriter, _ *http.Request) {
			for i := 0; i < len(headers); i += 2 {
				w.Header().Set(headers[i], headers[i+1])
			}
			w.WriteHeader(status)
			_, _ = w.Write([]byte(body))
		}
	}
	release := make(chan struct{})
	defer close(release)
	for name, fault := range map[string]http.HandlerFunc{
		"401":              write(401, `{"active":true}`, "WWW-Authenticate", `Basic realm="issuer"`),
		"403":              write(403, ""),
		"429":              write(429, "", "Retry-After", "60"),
		"500":              write(500, `{"active":true}`),
		"204":              write(204, ""),
		"redirect":         write(307, "", "Location", s.URL+"/other"),
		"redirect away":    write(307, "", "Location", issuer.URL+"/jwks"),
		"HTML":             write(200, "<html>", "Content-Type", "text/html"),
		"truncated":        write(200, `{"active":true,"aud":"`+audience),
		"huge":             write(200, `{"active":true,"x":"`+strings.Repeat("a", 1<<20)+`"}`),
		"nested":           write(200, `{"active":true,"x":`+strings.Repeat("[", 1000)+strings.Repeat("]", 1000)+`}`),
		"repeated members": write(200, `{"active":false,"active":true}`),
		"trailing data":    write(200, `{"active":true}{}`),
		"an array":         write(200, `[{"active":true}]`),
		"hangs": func(_ http.ResponseWriter, r *http.Request) {
			select {
			case <-release:
			case <-r.Context().Done():
			}
		},
		"drops":             func(http.ResponseWriter, *http.Request) { panic(http.ErrAbortHandler) },
		"a challenge in it": write(401, "", "WWW-Authenticate", "Bearer"),
	} {
		s.answer.Store(&fault)
		start := time.Now()
		a := withToken(t, g, "good").send(t)
		a.expect(t, 503)
		if a.Header.Get("Retry-After") == "" {
			t.Errorf("%s: no Retry-After", name)
		}
		if took := time.Since(start); took > 2*time.Second {
			t.Errorf("%s: took %v", name, took)
		}
		g.backend.none(t)
		s.answer.Store(nil)
		withToken(t, g, "good").send(t).expect(t, 200)
		g.backend.one(t)
	}
}
