package caddytest

import (
	"bytes"
	"encoding/json"
	"net/http"
	"os"
	"strings"
	"testing"

	"github.com/caddy-dpop/caddy-dpop/internal/failure"
)

func TestUpstreamToken(t *testing.T) {
	for _, row := range []struct{ setting, auth, proof string }{
		{"", "Bearer", ""},
		{"upstream_token bearer", "Bearer", ""},
		{"upstream_token dpop", "DPoP", "proof"},
		{"upstream_token none", "", ""},
	} {
		t.Run(row.setting, func(t *testing.T) {
			g := serve(t, setup{site: "{{DPOP}} " + row.setting + "\nreverse_proxy {{BACKEND}}"})
			c := good(t, g.url+"/")
			// what a client lists in Connection is dropped by the proxy, but for
			// what the handler has set
			c.header["Connection"] = []string{"Authorization, X-Drop", "dpop"}
			c.header["X-Drop"] = []string{"1"}
			c.header["Dpop-Nonce"] = []string{"x"}
			c.send(t).expect(t, 200)
			got := g.backend.one(t)
			scheme, token, _ := strings.Cut(got.header.Get("Authorization"), " ")
			if scheme != row.auth || len(got.header["Authorization"]) > 1 {
				t.Errorf("the backend got Authorization %q", got.header["Authorization"])
			}
			if _, sent, _ := strings.Cut(c.header.Get("Authorization"), " "); row.auth != "" && token != sent {
				t.Errorf("the backend got another token")
			}
			want := ""
			if row.proof != "" {
				want = c.header.Get("Dpop")
			}
			if got.header.Get("Dpop") != want {
				t.Errorf("the backend got DPoP %q", got.header["Dpop"])
			}
			if got.header["X-Drop"] != nil || got.header["Dpop-Nonce"] != nil {
				t.Errorf("the backend got %v", got.header)
			}
		})
	}
}

func TestClaimHeaders(t *testing.T) {
	g := serve(t, setup{
		// these let aliases of names through, which Caddy drops by itself
		servers: "expected_underscore_headers X_User\nexpected_dot_headers X.User",
		site: "{{DPOP}} mode optional; claim_header X-User sub; claim_header x-roles realm_access.roles; claim_header X-Url https://a.example/role; " +
			"claim_header X-Number n; claim_header X-Bool b; claim_header X-Null z; claim_header X-Bad bad; claim_header X-Led led; claim_header X-None none; claim_header X-Object o\n" +
			"reverse_proxy {{BACKEND}}",
	})
	claims := map[string]any{
		"sub": "Jürgen", "led": " admin", "realm_access": map[string]any{"roles": []string{"a", "b"}}, "https://a.example/role": "admin",
		"n": json.Number("12345678901234567890"), "b": true, "z": json.RawMessage("null"), "bad": "a\r\nX-Admin: 1", "o": map[string]any{"a": "\n"},
	}
	forged := http.Header{}
	for _, name := range []string{"X-User", "X_User", "X.user", "X-Roles", "X-None", "X-Bad", "X-Url", "x-number"} {
		forged[name] = []string{"forged", "twice"}
	}
	forged["Connection"] = []string{"X-User"}

	send := func(token string, spend bool) answer {
		c := call{url: g.url + "/", header: forged.Clone()}
		c.header["Authorization"] = []string{"DPoP " + token}
		if spend {
			c.header["Dpop"] = []string{dpop(t, "GET", g.url+"/", token, nil)}
		}
		return c.send(t)
	}
	send(accessToken(t, claims), true).expect(t, 200)
	got := g.backend.one(t)
	for name, want := range map[string]string{
		"X-User": "Jürgen", "X-Roles": `["a","b"]`, "X-Url": "admin", "X-Number": "12345678901234567890", "X-Bool": "true",
		"X-Null": "null", "X-Object": `{"a":"\n"}`,
	} {
		if values := got.header[name]; len(values) != 1 || values[0] != want {
			t.Errorf("%s: the backend got %q, want %q", name, values, want)
		}
	}
	for name := range got.header {
		switch name {
		case "X-None", "X-Bad", "X-Led", "X_user", "X.user", "X_User", "X.User", "X-Admin":
			t.Errorf("the backend got %s", name)
		}
	}
	await(t, g.logs, func(e entry) bool {
		return e["msg"] == "claim cannot be the value of a header, and makes none" && e["header"] == "X-Bad"
	})

	// a Bearer token's claims too, and nobody's own
	c := call{url: g.url + "/", header: forged.Clone()}
	c.header["Authorization"] = []string{"Bearer " + accessToken(t, map[string]any{"cnf": nil})}
	c.send(t).expect(t, 200)
	if user := g.backend.one(t).header["X-User"]; len(user) != 1 || user[0] != "user-1" {
		t.Errorf("the backend got X-User %q", user)
	}

	// refused requests lose theirs too: error routes may proxy
	g.load(t, setup{site: "{{DPOP}} claim_header X-User sub\nhandle_errors {\nreverse_proxy {{BACKEND}}\n}"})
	send(accessToken(t, nil), false)
	if user := g.backend.one(t).header["X-User"]; user != nil {
		t.Errorf("through the error route the backend got X-User %q", user)
	}
}

func TestUpgradeToH2CDoesNotGetThrough(t *testing.T) {
	send := func(g *gateway, c call, upgrade string) string {
		c.header["Connection"] = []string{"Upgrade, HTTP2-Settings"}
		c.header["Upgrade"] = []string{upgrade}
		c.header["Http2-Settings"] = []string{"AAMAAABkAARAAAAAAAIAAAAA"}
		c.send(t)
		return g.backend.one(t).header.Get("Upgrade")
	}
	g := serve(t, setup{})
	for _, row := range []struct{ upgrade, want string }{{"h2c", ""}, {"H2C", ""}, {"h2c, websocket", "websocket"}, {"websocket", "websocket"}} {
		if got := send(g, good(t, g.url+"/"), row.upgrade); got != row.want {
			t.Errorf("%s: the backend got Upgrade %q", row.upgrade, got)
		}
	}
	// not for those either that are passed on without being accepted
	for _, site := range []string{"{{DPOP}} mode report\nreverse_proxy {{BACKEND}}", "{{DPOP}}\nhandle_errors {\nreverse_proxy {{BACKEND}}\n}"} {
		g.load(t, setup{site: site})
		if got := send(g, call{url: g.url, header: http.Header{}}, "h2c"); got != "" {
			t.Errorf("the backend got Upgrade %q", got)
		}
	}
}

// What a client sends in trailers an upstream may merge into the headers that
// it trusts.
func TestRequestTrailers(t *testing.T) {
	for _, site := range []string{"{{DPOP}} claim_header X-User sub\nreverse_proxy {{BACKEND}}", "{{DPOP}} mode report; claim_header X-User sub\nreverse_proxy {{BACKEND}}"} {
		g := serve(t, setup{site: site})
		trailers := make(chan http.Header, 1)
		g.backend.answer = func(_ http.ResponseWriter, r *http.Request) { trailers <- r.Trailer }
		token := accessToken(t, nil)
		for _, announced := range []string{"X-Foo", "X-Foo, X-User, Authorization, DPoP, DPoP-Nonce", "X-User"} {
			status := raw(t, g, "POST / HTTP/1.1\r\nHost: 127.0.0.1:"+g.port+"\r\nAuthorization: DPoP "+token+"\r\nDPoP: "+dpop(t, "POST", g.url, token, nil)+
				"\r\nTransfer-Encoding: chunked\r\nTrailer: "+announced+"\r\nConnection: close\r\n\r\n4\r\nbody\r\n0\r\n"+
				"X-User: admin\r\nX_User: admin\r\nX-Foo: 1\r\nAuthorization: Bearer x\r\nDPoP: x\r\nDPoP-Nonce: x\r\n\r\n")
			got := g.backend.one(t)
			if status != 200 || got.body != "body" {
				t.Fatalf("answered %d, the backend got %q", status, got.body)
			}
			for name, values := range <-trailers {
				if name != "X-Foo" {
					t.Errorf("announced %s: the backend got the trailer %s: %q", announced, name, values)
				}
			}
		}
	}
}

// An upstream's trailers are translated like its headers: by being left out.
func TestResponseTrailers(t *testing.T) {
	g := serve(t, setup{})
	g.backend.answer = func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Trailer", "DPoP-Nonce, X-Foo")
		_, _ = w.Write([]byte("hello"))
		w.Header().Set("DPoP-Nonce", "x")
		w.Header().Set("X-Foo", "1")
		w.Header().Set(http.TrailerPrefix+"WWW-Authenticate", "Bearer")
	}
	a := good(t, g.url+"/").send(t)
	if a.Trailer.Get("X-Foo") != "1" || a.text != "hello" {
		t.Errorf("trailers %v, %q", a.Trailer, a.text)
	}
	for _, name := range []string{"DPoP-Nonce", "WWW-Authenticate"} {
		if values := a.Trailer.Values(name); len(values) > 0 && values[0] != "" {
			t.Errorf("the client got the trailer %s: %q", name, values)
		}
	}
}

func TestUpstreamChallenge(t *testing.T) {
	g := serve(t, setup{site: "{{DPOP}} mode optional\nreverse_proxy {{BACKEND}}"})
	g.backend.answer = func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("DPoP-Nonce", "upstream's")
		w.Header().Add("WWW-Authenticate", `Basic realm="a, Bearer b", Bearer realm="x", error="insufficient_scope", scope="a b"`)
		w.Header().Add("WWW-Authenticate", "bearer")
		w.Header().Set("X-Other", "1")
		if r.URL.Path == "/flush" {
			http.NewResponseController(w).Flush()
		} else {
			w.WriteHeader(http.StatusForbidden)
		}
		_, _ = w.Write([]byte("no"))
	}
	want := []string{`Basic realm="a, Bearer b"`, `DPoP realm="x", error="insufficient_scope", scope="a b", ` + algs, "DPoP " + algs}
	for _, path := range []string{"/", "/flush"} {
		a := good(t, g.url+path).send(t)
		if got := a.Header.Values("WWW-Authenticate"); strings.Join(got, "|") != strings.Join(want, "|") {
			t.Errorf("%s: challenges %q", path, got)
		}
		if a.Header["Dpop-Nonce"] != nil || a.Header.Get("X-Other") != "1" || a.text != "no" {
			t.Errorf("%s: headers %v", path, a.Header)
		}
	}

	// a client that used Bearer gets the upstream's challenge, but no nonce
	a := call{url: g.url, header: http.Header{"Authorization": {"Bearer " + accessToken(t, map[string]any{"cnf": nil})}}}.send(t)
	if got := a.Header.Values("WWW-Authenticate"); len(got) != 2 || a.Header["Dpop-Nonce"] != nil {
		t.Errorf("Bearer: %v", a.Header)
	}

	// with upstream_token dpop the upstream checks proofs itself
	g.load(t, setup{site: "{{DPOP}} upstream_token dpop\nreverse_proxy {{BACKEND}}"})
	a = good(t, g.url+"/").send(t)
	if a.Header.Get("Dpop-Nonce") != "upstream's" || len(a.Header.Values("WWW-Authenticate")) != 2 {
		t.Errorf("upstream_token dpop: %v", a.Header)
	}
}

// A writer outside the handler may hold the headers back: they arrive all the same.
func TestChallengeThroughEncode(t *testing.T) {
	for _, outer := range []string{"encode gzip", "templates", "header X-Other 1"} {
		for _, body := range []string{"", "no"} {
			g := serve(t, setup{site: "route {\n" + outer + "\n{{DPOP}}\nreverse_proxy {{BACKEND}}\n}"})
			g.backend.answer = func(w http.ResponseWriter, _ *http.Request) {
				w.Header().Set("Content-Type", "text/html")
				w.Header().Set("WWW-Authenticate", `Bearer error="invalid_token"`)
				w.Header().Set("DPoP-Nonce", "x")
				w.WriteHeader(http.StatusUnauthorized)
				_, _ = w.Write([]byte(body))
			}
			a := good(t, g.url+"/").send(t)
			if got := a.Header.Values("WWW-Authenticate"); len(got) != 1 || got[0] != `DPoP error="invalid_token", `+algs || a.Header["Dpop-Nonce"] != nil {
				t.Errorf("%s, body %q: %v", outer, body, a.Header)
			}
		}
	}
}

func TestPlaceholdersAndAccessLog(t *testing.T) {
	g := serve(t, setup{site: `{{DPOP}} mode optional; name api; claim_header X-Sub sub
		header >X-Seen "{http.auth.user.id}|{http.auth.user.realm.role}|{http.auth.user.nothing}|{http.dpop.outcome}|{http.dpop.reason}|{http.dpop.scheme}|{http.dpop.jkt}|{http.dpop.issuer}|{http.dpop.client_id}|{http.vars.dpop_request}"
		handle_errors {
			header X-Seen "{http.auth.user.id}|{http.dpop.outcome}|{http.dpop.reason}|{http.error.status_code}|{http.error.message}"
			respond "sorry" {http.error.status_code}
		}
		reverse_proxy {{BACKEND}}`})
	token := accessToken(t, map[string]any{"realm": map[string]any{"role": "{env.HOME}"}, "id": "forged"})
	c := call{url: g.url + "/", header: http.Header{"Authorization": {"DPoP " + token}, "Dpop": {dpop(t, "GET", g.url+"/", token, nil)}}}
	a := c.send(t)
	a.expect(t, 200)
	want := "user-1|{env.HOME}||accepted||DPoP|" + clientKey.Thumbprint + "|" + issuer.URL + "|client-1|"
	if got := a.Header.Get("X-Seen"); got != want {
		t.Errorf("placeholders: got %q, want %q", got, want)
	}
	line := await(t, g.accessLog, func(e entry) bool { return e.field("status") == 200.0 })
	if line["user_id"] != "user-1" || line.field("dpop", "outcome") != "accepted" || line.field("dpop", "jkt") != clientKey.Thumbprint ||
		line.field("dpop", "handler") != "api" || line.field("dpop", "client_id") != "client-1" {
		t.Errorf("access log: %v", line)
	}

	a = c.send(t) // a replay
	if a.StatusCode != 401 || a.text != "sorry" || len(a.Header.Values("WWW-Authenticate")) != 1 {
		t.Errorf("error route: %d %q %v", a.StatusCode, a.text, a.Header)
	}
	if got, want := a.Header.Get("X-Seen"), "|refused|proof_replayed|401|proof_replayed: the DPoP proof was used before"; got != want {
		t.Errorf("placeholders in the error route: got %q, want %q", got, want)
	}

	// without sub it is the client, and never a claim called id
	token = accessToken(t, map[string]any{"sub": nil, "id": "forged"})
	c = call{url: g.url + "/", header: http.Header{"Authorization": {"DPoP " + token}, "Dpop": {dpop(t, "GET", g.url+"/", token, nil)}}}
	if got := c.send(t).Header.Get("X-Seen"); !strings.HasPrefix(got, "client-1|") {
		t.Errorf("placeholders: got %q", got)
	}
}

// The module's own lines hold no token and no proof, at any level.
func TestLogsHoldNoCredentials(t *testing.T) {
	g := serve(t, setup{})
	c := good(t, g.url+"/orders")
	c.header["Dpop"] = []string{dpop(t, "GET", g.url+"/other?access_token=secret-in-htu#secret-in-fragment", strings.TrimPrefix(c.header.Get("Authorization"), "DPoP "), nil)}
	c.send(t).expect(t, 401, "DPoP invalid_dpop_proof")
	line := await(t, g.logs, func(e entry) bool { return e["reason"] == string(failure.ProofURL) })
	text, err := json.Marshal(line)
	if err != nil {
		t.Fatal(err)
	}
	for _, secret := range []string{strings.TrimPrefix(c.header.Get("Authorization"), "DPoP "), c.header.Get("Dpop"), "secret-in"} {
		if strings.Contains(string(text), secret) {
			t.Errorf("logged a credential: %s", text)
		}
	}
	if line["expected"] != g.url+"/orders" || line["found"] != g.url+"/other" {
		t.Errorf("logged %s", text)
	}

	// a client's clock error is logged in seconds
	token := accessToken(t, nil)
	call{url: g.url, header: http.Header{"Authorization": {"DPoP " + token}, "Dpop": {dpop(t, "GET", g.url, token, map[string]any{"iat": 1_000_000_000})}}}.send(t)
	line = await(t, g.logs, func(e entry) bool { return e["reason"] == string(failure.ProofExpired) })
	if off, ok := line["clock_error_seconds"].(float64); !ok || off > -1e8 {
		t.Errorf("logged %v", line)
	}
}

// With the filter of the example no log holds a proof: neither the access log,
// nor what Caddy writes of a request that failed.
func TestExampleKeepsProofsOutOfLogs(t *testing.T) {
	example, err := os.ReadFile("../examples/Caddyfile")
	if err != nil {
		t.Fatal(err)
	}
	const filter = "format filter {\n\t\t\trequest>headers>Dpop delete\n\t\t}"
	if !strings.Contains(string(example), filter) {
		t.Fatalf("the example has another filter")
	}
	g := serve(t, setup{format: filter, site: "{{DPOP}}\nreverse_proxy 127.0.0.1:1"})
	for _, c := range []call{good(t, g.url+"/502"), {url: g.url + "/401", header: http.Header{"Authorization": {"DPoP x"}, "Dpop": {"secret"}}}} {
		c.send(t)
		uri := strings.TrimPrefix(c.url, g.url)
		await(t, g.logs, func(e entry) bool { return e.field("request", "uri") == uri })
		await(t, g.accessLog, func(e entry) bool { return e.field("request", "uri") == uri })
		for _, file := range []string{g.logs, g.accessLog} {
			text, err := os.ReadFile(file)
			if err != nil {
				t.Fatal(err)
			}
			if bytes.Contains(text, []byte(c.header.Get("Dpop"))) {
				t.Errorf("%s: the log holds the proof", uri)
			}
		}
	}
}
