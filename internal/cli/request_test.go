package cli

import (
	"io"
	"maps"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"github.com/caddy-dpop/caddy-dpop/internal/proof"
)

// received is what a server got of one request.
type received struct {
	method, uri, host, body string
	header                  http.Header
	claims                  map[string]any // of the proof
}

// server answers requests, and notes them.
type server struct {
	url  string
	seen []received
}

func serve(t *testing.T, answer http.HandlerFunc) *server {
	t.Helper()
	s := new(server)
	ts := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		body, _ := io.ReadAll(r.Body)
		_, claims := verified(t, r.Header.Get("DPoP"))
		s.seen = append(s.seen, received{r.Method, r.RequestURI, r.Host, string(body), r.Header, claims})
		answer(w, r)
	}))
	t.Cleanup(ts.Close)
	s.url = ts.URL
	return s
}

// exit fails unless the command has ended with this status, and returns what it
// has written.
func (r result) exit(t *testing.T, failed bool) (out, errs string) {
	t.Helper()
	if (r.failed != nil) != failed {
		t.Errorf("ended with %v", r.failed)
	}
	return r.out, r.err
}

func TestRequest(t *testing.T) {
	name, _ := newKey(t)
	s := serve(t, func(w http.ResponseWriter, _ *http.Request) { _, _ = io.WriteString(w, "the body") })
	out, errs := execute("", "request", "--key", name, "--token", "tok", s.url+"/a%2Fb?c=d#e").exit(t, false)
	if out != "the body" || errs != "HTTP/1.1 200 OK\n" {
		t.Errorf("output %q, standard error %q", out, errs)
	}
	got := s.seen[0]
	if got.method != "GET" || got.uri != "/a%2Fb?c=d" || got.body != "" || got.header.Get("Authorization") != "DPoP tok" || got.header.Get("Content-Type") != "" {
		t.Errorf("the server got %+v", got)
	}
	want := map[string]any{"htm": "GET", "htu": s.url + "/a%2Fb", "ath": proof.TokenHash("tok"), "jti": got.claims["jti"], "iat": got.claims["iat"]}
	if !maps.Equal(got.claims, want) {
		t.Errorf("the proof has %v", got.claims)
	}
}

func TestRequestFlags(t *testing.T) {
	name, _ := newKey(t)
	s := serve(t, func(http.ResponseWriter, *http.Request) {})
	const form = "application/x-www-form-urlencoded"
	for _, row := range []struct {
		name  string
		stdin string
		args  []string
		want  received
		typ   string
	}{
		{"method", "", []string{"-m", "DELETE"}, received{method: "DELETE"}, ""},
		{"a method of one's own", "", []string{"-m", "purge"}, received{method: "purge"}, ""},
		{"data", "", []string{"-d", "a=b"}, received{method: "POST", body: "a=b"}, form},
		{"data and method", "", []string{"-d", "a=b", "-m", "PUT"}, received{method: "PUT", body: "a=b"}, form},
		{"empty data", "", []string{"-d", ""}, received{method: "POST"}, form},
		{"data of a file", "", []string{"-d", "@" + file(t, "x\ny\n")}, received{method: "POST", body: "x\ny\n"}, form},
		{"data of standard input", "x\n", []string{"-d", "-"}, received{method: "POST", body: "x\n"}, form},
		{"data and its type", "", []string{"-d", "{}", "-H", "content-type: application/json"}, received{method: "POST", body: "{}"}, "application/json"},
		{"a host", "", []string{"-H", "Host: api.example.com:8443"}, received{method: "GET", host: "api.example.com:8443"}, ""},
	} {
		t.Run(row.name, func(t *testing.T) {
			s.seen = nil
			execute(row.stdin, append([]string{"request", "-k", name, "-t", "tok", s.url + "/x"}, row.args...)...).exit(t, false)
			got := s.seen[0]
			if row.want.host == "" {
				row.want.host = strings.TrimPrefix(s.url, "http://")
			}
			if got.method != row.want.method || got.body != row.want.body || got.host != row.want.host || got.header.Get("Content-Type") != row.typ {
				t.Errorf("the server got %+v", got)
			}
			if got.claims["htm"] != got.method || got.claims["htu"] != "http://"+got.host+"/x" {
				t.Errorf("the proof has %v", got.claims)
			}
		})
	}
	t.Run("headers", func(t *testing.T) {
		s.seen = nil
		execute("", "request", "-k", name, "-t", "tok", "-H", "X-A: 1", "-H", "x-a:2", "-H", "X-B:", s.url).exit(t, false)
		header := s.seen[0].header
		if got := header.Values("X-A"); len(got) != 2 || got[0] != "1" || got[1] != "2" || header.Values("X-B")[0] != "" {
			t.Errorf("the server got %v", header)
		}
	})
	for header, want := range map[string]string{
		"Authorization: x":      "is what this command makes",
		"dpop: x":               "is what this command makes",
		"x":                     "not a name, a colon and a value",
		"a b: c":                "not a name, a colon and a value",
		"a: b\r\nDPoP: another": "not a name, a colon and a value",
	} {
		execute("", "request", "-k", name, "-t", "tok", "-H", header, s.url).refused(t, want)
	}
	execute("", "request", "-k", name, s.url).refused(t, "no token: give --token")
	execute("", "request", "-k", name, "-t", "tok", "orders").refused(t, "not an absolute http or https URL")
	execute("", "request", "-k", name, "-t", "tok").refused(t, "accepts 1 arg(s), received 0")
	execute("", "request", "-k", name, "-t", "tok", "http://127.0.0.1:1/?a=b").refused(t, "127.0.0.1:1")
}

// challenge answers that a nonce is wanted.
func challenge(w http.ResponseWriter, nonce string) {
	w.Header().Set("DPoP-Nonce", nonce)
	w.Header().Set("WWW-Authenticate", `DPoP error="use_dpop_nonce", error_description="use it"`)
	w.WriteHeader(http.StatusUnauthorized)
}

// A nonce challenge is answered once, by the whole request with a new proof.
func TestRequestNonce(t *testing.T) {
	name, _ := newKey(t)
	var s *server
	s = serve(t, func(w http.ResponseWriter, _ *http.Request) {
		if len(s.seen) == 1 {
			challenge(w, "n-1")
		}
	})
	_, errs := execute("", "request", "-k", name, "-t", "tok", "-d", "the data", "-H", "X-A: b", s.url).exit(t, false)
	if len(s.seen) != 2 {
		t.Fatalf("%d requests", len(s.seen))
	}
	first, second := s.seen[0], s.seen[1]
	if first.claims["nonce"] != nil || second.claims["nonce"] != "n-1" || first.claims["jti"] == second.claims["jti"] {
		t.Errorf("proofs have %v, then %v", first.claims, second.claims)
	}
	if second.body != "the data" || second.header.Get("X-A") != "b" || second.method != "POST" {
		t.Errorf("the second request is %+v", second)
	}
	if !strings.Contains(errs, "asks for a nonce") || !strings.HasSuffix(errs, "HTTP/1.1 200 OK\n") {
		t.Errorf("standard error %q", errs)
	}

	always := serve(t, func(w http.ResponseWriter, _ *http.Request) { challenge(w, "n") })
	_, errs = execute("", "request", "-k", name, "-t", "tok", always.url).exit(t, true)
	if len(always.seen) != 2 || !strings.Contains(errs, "must hold the nonce") {
		t.Errorf("%d requests; standard error %q", len(always.seen), errs)
	}
}

// What looks like a nonce challenge and is none is not answered.
func TestRequestNoNonceChallenge(t *testing.T) {
	name, _ := newKey(t)
	for what, answer := range map[string]http.HandlerFunc{
		"no nonce": func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("WWW-Authenticate", `DPoP error="use_dpop_nonce"`)
			w.WriteHeader(http.StatusUnauthorized)
		},
		"another error": func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("DPoP-Nonce", "n")
			w.Header().Set("WWW-Authenticate", `DPoP error="invalid_token"`)
			w.WriteHeader(http.StatusUnauthorized)
		},
		"another scheme": func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("DPoP-Nonce", "n")
			w.Header().Set("WWW-Authenticate", `Bearer error="use_dpop_nonce"`)
			w.WriteHeader(http.StatusUnauthorized)
		},
		"another status": func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("DPoP-Nonce", "n")
			w.Header().Set("WWW-Authenticate", `DPoP error="use_dpop_nonce"`)
			w.WriteHeader(http.StatusForbidden)
		},
	} {
		s := serve(t, answer)
		execute("", "request", "-k", name, "-t", "tok", s.url).exit(t, true)
		if len(s.seen) != 1 {
			t.Errorf("%s: %d requests", what, len(s.seen))
		}
	}
}

// A proof is for one URL: no redirect takes it to another.
func TestRequestFollowsNoRedirect(t *testing.T) {
	name, _ := newKey(t)
	for _, status := range []int{301, 302, 303, 307, 308} {
		s := serve(t, func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Location", "/other?x=\u009b2J")
			w.WriteHeader(status)
			_, _ = io.WriteString(w, "moved")
		})
		out, errs := execute("", "request", "-k", name, "-t", "tok", s.url).exit(t, false)
		if len(s.seen) != 1 || out != "moved" {
			t.Errorf("%d: %d requests, output %q", status, len(s.seen), out)
		}
		if strings.Contains(errs, "\u009b") {
			t.Errorf("%d: standard error %q", status, errs)
		}
	}
	s := serve(t, func(w http.ResponseWriter, _ *http.Request) {
		http.Redirect(w, httptest.NewRequest("GET", "/", nil), "/other", http.StatusFound)
	})
	_, errs := execute("", "request", "-k", name, "-t", "tok", s.url).exit(t, false)
	if !strings.Contains(errs, "it redirects to "+s.url+"/other, which is not followed") {
		t.Errorf("standard error %q", errs)
	}
}

// A refusal is explained on standard error, whatever the server has put into it.
func TestRequestRefused(t *testing.T) {
	name, _ := newKey(t)
	s := serve(t, func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Add("WWW-Authenticate", `DPoP error="invalid_token", error_description="unbound", algs="ES256"`)
		w.Header().Add("WWW-Authenticate", "Bearer realm=\"a\u009bb\"")
		w.Header().Set("Retry-After", "3")
		w.WriteHeader(http.StatusUnauthorized)
		_, _ = io.WriteString(w, `{"x":1}`)
	})
	out, errs := execute("", "request", "-k", name, "-t", "tok", s.url).exit(t, true)
	if out != `{"x":1}` {
		t.Errorf("output %q", out)
	}
	for _, part := range []string{
		"HTTP/1.1 401 Unauthorized\n",
		`WWW-Authenticate: DPoP error="invalid_token", error_description="unbound", algs="ES256"` + "\n",
		`WWW-Authenticate: Bearer realm="a\u009bb"` + "\n",
		"  DPoP: the token is not good here",
		"  Bearer: credentials of this scheme are accepted",
		"Retry-After: 3\n",
	} {
		if !strings.Contains(errs, part) {
			t.Errorf("no %q in standard error %q", part, errs)
		}
	}
	if strings.Contains(errs, "Error:") {
		t.Errorf("an error beside the answer: %q", errs)
	}
}

func TestRequestInclude(t *testing.T) {
	name, _ := newKey(t)
	s := serve(t, func(w http.ResponseWriter, _ *http.Request) {
		w.Header()["Date"] = nil
		w.Header().Set("X-B", "2")
		w.Header().Set("X-A", "1")
		w.Header().Add("X-A", "3")
		_, _ = io.WriteString(w, "body")
	})
	out, _ := execute("", "request", "-i", "-k", name, "-t", "tok", s.url).exit(t, false)
	const want = "HTTP/1.1 200 OK\nContent-Length: 4\nContent-Type: text/plain; charset=utf-8\nX-A: 1\nX-A: 3\nX-B: 2\n\nbody"
	if out != want {
		t.Errorf("output %q, want %q", out, want)
	}
}
