package authserver

import (
	"compress/gzip"
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"io"
	"log"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"
)

func TestCheckURL(t *testing.T) {
	for _, row := range []struct {
		url               string
		usual, allowsHTTP bool
	}{
		{"https://sso.example.com", true, true},
		{"https://sso.example.com:8443/jwks?x=1", true, true},
		{"HTTPS://sso.example.com", true, true},
		{"http://127.0.0.1:8080/jwks", true, true},
		{"http://127.9.9.9", true, true},
		{"http://[::1]:8080", true, true},
		{"http://[::ffff:127.0.0.1]", true, true},
		{"http://localhost:8080", true, true},
		{"http://LocalHost", true, true},
		{"http://sso.localhost", true, true}, // RFC 6761 §6.3

		{"http://sso.example.com", false, true},
		{"http://10.0.0.1", false, true},
		{"http://[2001:db8::1]", false, true},
		{"http://localhost.example.com", false, true},
		{"http://evil-localhost", false, true},
		{"http://127.0.0.1.example.com", false, true},
		{"http://0.0.0.0", false, true},
		{"http://2130706433", false, true}, // 127.0.0.1 to some, a name to others
		{"http://127.1", false, true},

		{"", false, false},
		{"/jwks", false, false},
		{"//sso.example.com/jwks", false, false},
		{"sso.example.com", false, false},
		{"https:", false, false},
		{"https:///jwks", false, false},
		{"https:sso.example.com", false, false},
		{"https://user@sso.example.com", false, false},
		{"https://user:password@sso.example.com", false, false},
		{"http://127.0.0.1@sso.example.com", false, false},
		{"https://sso.example.com/#fragment", false, false},
		{"https://sso.example.com/%zz", false, false},
		{"https://sso example.com", false, false},
		{"ftp://sso.example.com", false, false},
		{"file:///etc/passwd", false, false},
		{"file://localhost/etc/passwd", false, false},
	} {
		if err := CheckURL(row.url, false); (err == nil) != row.usual {
			t.Errorf("%s: %v", row.url, err)
		}
		if err := CheckURL(row.url, true); (err == nil) != row.allowsHTTP {
			t.Errorf("%s with allow_http: %v", row.url, err)
		}
	}
}

func TestGet(t *testing.T) {
	s := newServer(t, func(w http.ResponseWriter, r *http.Request) {
		if accept := r.Header.Get("Accept"); r.Method != "GET" || !strings.Contains(accept, "application/jwk-set+json") ||
			!strings.Contains(accept, "application/json") { // RFC 7517 §8.5
			t.Errorf("%s, Accept %s", r.Method, accept)
		}
		serve("document", "Cache-Control", "max-age=120")(w, r)
	})
	text, fresh, err := newTestClient(t).get(t.Context(), s.URL)
	if string(text) != "document" || fresh != 2*time.Minute || err != nil {
		t.Errorf("got %q, %v, %v", text, fresh, err)
	}
	s.expect(t, 1)
}

// A client checks for itself what the configuration or metadata says.
func TestGetNeedsHTTPS(t *testing.T) {
	dialed := false
	client := newTestClient(t)
	client.client().Transport = roundTrip(func(*http.Request) (*http.Response, error) {
		dialed = true
		return nil, io.ErrUnexpectedEOF
	})
	if _, _, err := client.get(t.Context(), "http://sso.example.com/jwks"); err == nil || dialed {
		t.Errorf("got %v, called: %t", err, dialed)
	}
	client.trust.AllowHTTP = true
	if _, _, err := client.get(t.Context(), "http://sso.example.com/jwks"); !errors.Is(err, io.ErrUnexpectedEOF) || !dialed {
		t.Errorf("got %v, called: %t", err, dialed)
	}
}

type roundTrip func(*http.Request) (*http.Response, error)

func (f roundTrip) RoundTrip(r *http.Request) (*http.Response, error) { return f(r) }

func TestGetTLS(t *testing.T) {
	start := func(config *tls.Config) *httptest.Server {
		s := httptest.NewUnstartedServer(serve("document"))
		s.TLS, s.Config.ErrorLog = config, log.New(io.Discard, "", 0)
		s.StartTLS()
		t.Cleanup(s.Close)
		return s
	}
	s, old := start(nil), start(&tls.Config{MinVersion: tls.VersionTLS10, MaxVersion: tls.VersionTLS11})
	roots := x509.NewCertPool()
	roots.AddCert(s.Certificate()) // of both: httptest has one
	client := NewClient(Trust{Roots: func() *x509.CertPool { return roots }}, 5*time.Second)
	defer client.CloseIdle()
	if text, _, err := client.get(t.Context(), s.URL); string(text) != "document" || err != nil {
		t.Errorf("with its root: %q, %v", text, err)
	}
	if _, _, err := client.get(t.Context(), old.URL); err == nil {
		t.Error("spoke TLS 1.1, RFC 8996 §5")
	}
	var unknown x509.UnknownAuthorityError
	if _, _, err := newTestClient(t).get(t.Context(), s.URL); !errors.As(err, &unknown) {
		t.Errorf("without its root: %v", err)
	}
}

// HTTPS_PROXY and its kin are honoured.
func TestClientUsesProxy(t *testing.T) {
	if newTestClient(t).client().Transport.(*http.Transport).Proxy == nil {
		t.Error("no proxy is ever used")
	}
}

func TestGetRedirects(t *testing.T) {
	other := newServer(t, serve("evil"))
	s := newServer(t, nil)
	port := s.URL[strings.LastIndexByte(s.URL, ':'):]
	for _, row := range []struct {
		name, location string
		code           int
		requests       int64
		ok             bool
	}{
		{"within the host", "/end", 302, 2, true},
		{"within the host, absolute", s.URL + "/end", 307, 2, true},
		{"within the host, for good", "/end", 308, 2, true},
		{"three times", "/3", 302, 4, true},
		{"four times", "/4", 302, 4, false},
		{"in circles", "/start", 302, 4, false},
		{"to another port", other.URL, 302, 1, false},
		{"to another name of this host", "http://localhost" + port, 302, 1, false},
		{"to another scheme", "https://" + strings.TrimPrefix(s.URL, "http://") + "/end", 302, 1, false},
		{"to another machine", "https://evil.example/", 301, 1, false},
		{"without a scheme", strings.TrimPrefix(other.URL, "http:"), 302, 1, false},
		{"to a file", "file:///etc/passwd", 302, 1, false},
		{"to nowhere", "", 302, 1, false},
	} {
		t.Run(row.name, func(t *testing.T) {
			s.requests.Store(0)
			s.respond(func(w http.ResponseWriter, r *http.Request) {
				next := map[string]string{"/start": row.location, "/4": "/3", "/3": "/2", "/2": "/end"}
				if location, ok := next[r.URL.Path]; ok {
					w.Header().Set("Location", location)
					w.WriteHeader(row.code)
					return
				}
				serve("document")(w, r)
			})
			text, _, err := newTestClient(t).get(t.Context(), s.URL+"/start")
			if (err == nil) != row.ok || (string(text) == "document") != row.ok {
				t.Errorf("got %q, %v", text, err)
			}
			s.expect(t, row.requests)
		})
	}
	other.expect(t, 0)
}

// Not even with allow_http does a server lead from https to http within itself.
func TestGetRedirectKeepsTheScheme(t *testing.T) {
	client := NewClient(Trust{AllowHTTP: true}, 5*time.Second)
	var asked []string
	client.client().Transport = roundTrip(func(r *http.Request) (*http.Response, error) {
		asked = append(asked, r.URL.String())
		w := httptest.NewRecorder()
		http.Redirect(w, r, "http://sso.example.com/jwks", http.StatusFound)
		return w.Result(), nil
	})
	if _, _, err := client.get(t.Context(), "https://sso.example.com/jwks"); err == nil || len(asked) != 1 {
		t.Errorf("got %v, asked for %v", err, asked)
	}
}

func TestGetTimesOut(t *testing.T) {
	for name, answer := range map[string]http.HandlerFunc{
		"no answer": func(_ http.ResponseWriter, r *http.Request) { <-r.Context().Done() },
		"half an answer": func(w http.ResponseWriter, r *http.Request) {
			w.Write([]byte(`{"keys":`))
			w.(http.Flusher).Flush()
			<-r.Context().Done()
		},
	} {
		t.Run(name, func(t *testing.T) {
			s := newServer(t, answer)
			client := NewClient(Trust{}, 50*time.Millisecond)
			defer client.CloseIdle()
			if text, _, err := client.get(t.Context(), s.URL); err == nil {
				t.Errorf("got %q", text)
			}
		})
	}
	ctx, cancel := context.WithCancel(t.Context())
	s := newServer(t, func(_ http.ResponseWriter, r *http.Request) {
		cancel()
		<-r.Context().Done()
	})
	if _, _, err := newTestClient(t).get(ctx, s.URL); !errors.Is(err, context.Canceled) {
		t.Errorf("cancelled: %v", err)
	}
}

func TestGetBoundsTheBody(t *testing.T) {
	zipped := func(size int) http.HandlerFunc {
		return func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Content-Encoding", "gzip")
			z := gzip.NewWriter(w)
			z.Write(make([]byte, size))
			z.Close()
		}
	}
	for name, row := range map[string]struct {
		answer http.HandlerFunc
		ok     bool
	}{
		"512 KiB":         {serve(strings.Repeat("a", 512<<10)), true},
		"a byte more":     {serve(strings.Repeat("a", 512<<10+1)), false},
		"512 KiB, zipped": {zipped(512 << 10), true},
		"a zip bomb":      {zipped(64 << 20), false},
		"shorter than it says": {func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Content-Length", "100")
			w.Write([]byte("a"))
		}, false},
	} {
		t.Run(name, func(t *testing.T) {
			s := newServer(t, row.answer)
			if text, _, err := newTestClient(t).get(t.Context(), s.URL); (err == nil) != row.ok || len(text) > 512<<10 {
				t.Errorf("%d bytes, %v", len(text), err)
			}
		})
	}
}

// What is too large is not even read to its end.
func TestGetStopsReading(t *testing.T) {
	client := newTestClient(t)
	body := new(endless)
	client.client().Transport = roundTrip(func(*http.Request) (*http.Response, error) {
		return &http.Response{StatusCode: 200, Header: http.Header{}, Body: body}, nil
	})
	if _, _, err := client.get(t.Context(), "https://sso.example.com/jwks"); err == nil {
		t.Error("took an answer without end")
	}
	if body.read > 512<<10+1 || !body.closed {
		t.Errorf("read %d bytes, closed: %t", body.read, body.closed)
	}
}

// endless is a body of 64 MiB, which is as good as endless.
type endless struct {
	read   int
	closed bool
}

func (e *endless) Read(p []byte) (int, error) {
	if e.read += len(p); e.read > 64<<20 {
		return 0, io.EOF
	}
	return len(p), nil
}

func (e *endless) Close() error {
	e.closed = true
	return nil
}

func TestGetNeedsStatus200(t *testing.T) {
	for _, code := range []int{201, 202, 203, 204, 206, 300, 304, 400, 401, 403, 404, 429, 500, 503} {
		s := newServer(t, func(w http.ResponseWriter, _ *http.Request) {
			w.WriteHeader(code)
			if code != 204 && code != 304 {
				w.Write([]byte(kids("a")))
			}
		})
		if _, _, err := newTestClient(t).get(t.Context(), s.URL); err == nil {
			t.Errorf("took an answer of status %d", code)
		}
	}
}

// RFC 9111 §4.2.1 and §5.2.2, within the bounds of SECURITY.md.
func TestFreshFor(t *testing.T) {
	for _, row := range []struct {
		control []string
		age     string
		want    time.Duration
	}{
		{nil, "", 10 * time.Minute},
		{[]string{""}, "", 10 * time.Minute},
		{[]string{"public"}, "", 10 * time.Minute},
		{[]string{"max-age=300"}, "", 5 * time.Minute},
		{[]string{"public, max-age=300, must-revalidate"}, "", 5 * time.Minute},
		{[]string{"public", "max-age=300"}, "", 5 * time.Minute}, // two fields are one list
		{[]string{"Max-Age=300"}, "", 5 * time.Minute},
		{[]string{`max-age="300"`}, "", 5 * time.Minute},
		{[]string{"s-maxage=1200, max-age=300"}, "", 5 * time.Minute}, // not a shared cache
		{[]string{"x-max-age=300"}, "", 10 * time.Minute},

		{[]string{"max-age=0"}, "", time.Minute},
		{[]string{"max-age=59"}, "", time.Minute},
		{[]string{"max-age=60"}, "", time.Minute},
		{[]string{"max-age=61"}, "", 61 * time.Second},
		{[]string{"max-age=3599"}, "", 3599 * time.Second},
		{[]string{"max-age=3600"}, "", time.Hour},
		{[]string{"max-age=3601"}, "", time.Hour},
		{[]string{"max-age=31536000"}, "", time.Hour},

		{[]string{"max-age=1200"}, "300", 15 * time.Minute}, // RFC 9111 §4.2.3
		{[]string{"max-age=1200"}, "1200", time.Minute},
		{[]string{"max-age=1200"}, "99999", time.Minute},
		{[]string{"max-age=1200"}, "99999999999999999999", time.Minute},
		{[]string{"max-age=1200"}, "x", 20 * time.Minute},
		{[]string{"max-age=31536000"}, "60", time.Hour},

		{[]string{"no-store"}, "", time.Minute},
		{[]string{"no-cache"}, "", time.Minute},
		{[]string{"NO-STORE"}, "", time.Minute},
		{[]string{"max-age=1200, no-store"}, "", time.Minute},
		{[]string{"no-cache", "max-age=1200"}, "", time.Minute},

		// RFC 9111 §4.2.1: what is invalid counts as stale.
		{[]string{"max-age"}, "", time.Minute},
		{[]string{"max-age="}, "", time.Minute},
		{[]string{"max-age=soon"}, "", time.Minute},
		{[]string{"max-age=-300"}, "", time.Minute},
		{[]string{"max-age=300.5"}, "", time.Minute},
		{[]string{"max-age= 300"}, "", time.Minute},
		{[]string{",;=,="}, "", 10 * time.Minute},
	} {
		header := http.Header{}
		for _, value := range row.control {
			header.Add("Cache-Control", value)
		}
		if row.age != "" {
			header.Set("Age", row.age)
		}
		if got := freshFor(header); got != row.want {
			t.Errorf("%q, Age %q: %v, want %v", row.control, row.age, got, row.want)
		}
	}
}
