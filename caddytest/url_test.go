package caddytest

import (
	"bufio"
	"fmt"
	"net"
	"net/http"
	"strings"
	"testing"
)

// The proof is for the URL as the client sent it, whatever was done to the
// request before.
func TestAfterRewrites(t *testing.T) {
	for _, row := range []struct {
		name, site, method, path, wantMethod, wantURI string
	}{
		{"handle_path", "handle_path /api/* {\n{{DPOP}}\nreverse_proxy {{BACKEND}}\n}", "GET", "/api/orders?a=1", "GET", "/orders?a=1"},
		{"rewrite", "rewrite /old /new?b=2\n{{DPOP}}\nreverse_proxy {{BACKEND}}", "GET", "/old", "GET", "/new?b=2"},
		{"uri", "uri strip_prefix /v1\n{{DPOP}}\nreverse_proxy {{BACKEND}}", "GET", "/v1/orders", "GET", "/orders"},
		{"method", "method PUT\n{{DPOP}}\nreverse_proxy {{BACKEND}}", "POST", "/orders", "PUT", "/orders"},
		{"route", "route {\nrewrite * /x\n{{DPOP}}\nreverse_proxy {{BACKEND}}\n}", "GET", "/orders", "GET", "/x"},
		{"request_header", "request_header Host other.example\n{{DPOP}}\nreverse_proxy {{BACKEND}}", "GET", "/orders", "GET", "/orders"},
	} {
		t.Run(row.name, func(t *testing.T) {
			g := serve(t, setup{site: row.site})
			token := accessToken(t, nil)
			send := func(htm, htu string) answer {
				return call{method: row.method, url: g.url + row.path, header: http.Header{
					"Authorization": {"DPoP " + token}, "Dpop": {dpop(t, htm, htu, token, nil)},
				}}.send(t)
			}
			path, _, _ := strings.Cut(row.path, "?")
			send(row.method, g.url+path).expect(t, 200)
			if got := g.backend.one(t); got.method != row.wantMethod || got.uri != row.wantURI {
				t.Errorf("the backend got %s %s", got.method, got.uri)
			}
			wantPath, _, _ := strings.Cut(row.wantURI, "?")
			if row.wantMethod != row.method || wantPath != path {
				send(row.wantMethod, g.url+wantPath).expect(t, 401, "DPoP invalid_dpop_proof")
				g.backend.none(t)
			}
		})
	}
}

// ask sends a request with a proof for htu.
func ask(t *testing.T, g *gateway, htu string, header http.Header) answer {
	t.Helper()
	token := accessToken(t, nil)
	header = header.Clone()
	header["Authorization"] = []string{"DPoP " + token}
	header["Dpop"] = []string{dpop(t, "GET", htu, token, nil)}
	return call{url: g.url + "/orders", header: header, host: header.Get("Host")}.send(t)
}

func TestForwardedHeaders(t *testing.T) {
	const trust = "trusted_proxies static 127.0.0.1"
	proto := func(values ...string) http.Header { return http.Header{"X-Forwarded-Proto": values} }
	host := func(values ...string) http.Header {
		return http.Header{"X-Forwarded-Proto": {"https"}, "X-Forwarded-Host": values}
	}
	const evil = "https://evil.example/orders"
	for _, row := range []struct {
		name     string
		servers  string
		settings string
		header   http.Header
		htu      string // SELF stands for the address of the site
		status   int
	}{
		{"untrusted: proto does not count", "", "", proto("https"), "https://SELF/orders", 401},
		{"untrusted: the site's own scheme does", "", "", proto("https"), "http://SELF/orders", 200},
		{"untrusted: several values are none of our business", "", "", proto("https", "http"), "http://SELF/orders", 200},
		{"untrusted: host does not count", "", "forwarded_host", host("evil.example"), evil, 401},
		{"untrusted: host alone does not count", "", "forwarded_host", host("evil.example"), "http://evil.example/orders", 401},
		{"trusted: proto counts", trust, "", proto("https"), "https://SELF/orders", 200},
		{"trusted: in capitals", trust, "", proto("HTTPS"), "https://SELF/orders", 200},
		{"trusted: the site's own scheme does not", trust, "", proto("https"), "http://SELF/orders", 401},
		{"trusted: no proto", trust, "", http.Header{}, "http://SELF/orders", 200},
		{"trusted: two protos", trust, "", proto("https", "https"), "https://SELF/orders", 400},
		{"trusted: a list of protos", trust, "", proto("https, http"), "https://SELF/orders", 400},
		{"trusted: another proto", trust, "", proto("ftp"), "https://SELF/orders", 400},
		{"trusted: an empty proto", trust, "", proto(""), "https://SELF/orders", 400},
		{"trusted: host passed on does not count", trust, "", host("evil.example"), evil, 401},
		{"trusted: host counts if told so", trust, "forwarded_host", host("api.example.com"), "https://api.example.com/orders", 200},
		{"trusted: host with default port", trust, "forwarded_host", host("API.example.com:443"), "https://api.example.com/orders", 200},
		{"trusted: two hosts", trust, "forwarded_host", host("a.example", "b.example"), "https://a.example/orders", 400},
		{"trusted: a list of hosts", trust, "forwarded_host", host("a.example, b.example"), "https://a.example/orders", 400},
		// Auth0 express 1.9.1: a malformed forwarded host moved the path
		{"trusted: a host with a path", trust, "forwarded_host", host("api.example.com/victim"), "https://api.example.com/victim/orders", 400},
		{"trusted: a host with a query", trust, "forwarded_host", host("api.example.com?"), "https://api.example.com/orders", 400},
		{"trusted: a host with user information", trust, "forwarded_host", host("a@api.example.com"), "https://api.example.com/orders", 400},
		{"trusted: an empty host", trust, "forwarded_host", host(""), "https://SELF/orders", 400},
		{"public_url: nothing of the request counts", trust, "public_url https://api.example.com", proto("x", "y"), "https://api.example.com/orders", 200},
		{"public_url: Host does not", "", "public_url https://api.example.com", http.Header{}, "http://SELF/orders", 401},
		{"public_url: a prefix", "", "public_url https://api.example.com/v1/", http.Header{}, "https://api.example.com/v1/orders", 200},
		{"public_url: the prefix is needed", "", "public_url https://api.example.com/v1", http.Header{}, "https://api.example.com/orders", 401},
		{"public_url: any of several", "", "public_url https://a.example https://b.example:443/x", http.Header{}, "https://b.example/x/orders", 200},
	} {
		t.Run(row.name, func(t *testing.T) {
			g := serve(t, setup{servers: row.servers, site: "{{DPOP}} " + row.settings + "\nreverse_proxy {{BACKEND}}"})
			a := ask(t, g, strings.Replace(row.htu, "SELF", "127.0.0.1:"+g.port, 1), row.header)
			if a.StatusCode != row.status {
				t.Fatalf("answered %d, want %d %q", a.StatusCode, row.status, a.Header.Values("WWW-Authenticate"))
			}
			if row.status == 200 {
				g.backend.one(t)
			} else {
				g.backend.none(t)
			}
		})
	}
}

// raw sends bytes as they are, and returns the status of the answer.
func raw(t *testing.T, g *gateway, text string) int {
	t.Helper()
	conn, err := net.Dial("tcp", "127.0.0.1:"+g.port)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	if _, err := fmt.Fprint(conn, text); err != nil {
		t.Fatal(err)
	}
	response, err := http.ReadResponse(bufio.NewReader(conn), nil)
	if err != nil {
		t.Fatal(err)
	}
	_ = response.Body.Close()
	return response.StatusCode
}

func TestRequestTargets(t *testing.T) {
	g := serve(t, setup{address: "http://:{{PORT}}"})
	token := accessToken(t, nil)
	self := "127.0.0.1:" + g.port
	for _, row := range []struct {
		name, line, host, htm, htu string
		status                     int
	}{
		{"origin form", "GET /orders HTTP/1.1", self, "GET", "http://" + self + "/orders", 200},
		{"HTTP/1.0", "GET /orders HTTP/1.0", self, "GET", "http://" + self + "/orders", 200},
		{"absolute form", "GET http://api.example/orders HTTP/1.1", self, "GET", "http://api.example/orders", 200},
		{"absolute form: Host does not count", "GET http://api.example/orders HTTP/1.1", self, "GET", "http://" + self + "/orders", 401},
		{"absolute form: the scheme is the connection's", "GET https://api.example/orders HTTP/1.1", self, "GET", "https://api.example/orders", 401},
		{"absolute form: empty path", "GET http://api.example HTTP/1.1", self, "GET", "http://api.example/", 200},
		{"absolute form: another scheme", "GET ftp://api.example/orders HTTP/1.1", self, "GET", "http://api.example/orders", 400},
		{"absolute form: user information", "GET http://a@api.example/orders HTTP/1.1", self, "GET", "http://api.example/orders", 400},
		{"a fragment", "GET /orders#x HTTP/1.1", self, "GET", "http://" + self + "/orders", 400},
		{"two slashes", "GET //orders HTTP/1.1", self, "GET", "http://" + self + "//orders", 200},
		{"two slashes are not one", "GET //orders HTTP/1.1", self, "GET", "http://" + self + "/orders", 401},
		{"dot segments", "GET /a/../orders HTTP/1.1", self, "GET", "http://" + self + "/orders", 200},
		{"a browser's bare pipe", "GET /a|b HTTP/1.1", self, "GET", "http://" + self + "/a|b", 200},
		// net/url forgets what was escaped in such a path
		{"beside a reserved character that is escaped", "GET /a%2Fb|c HTTP/1.1", self, "GET", "http://" + self + "/a%2Fb|c", 200},
		{"which it is not when it is not", "GET /a%2Fb|c HTTP/1.1", self, "GET", "http://" + self + "/a/b|c", 401},
		{"beside a reserved character that is not", "GET /a!b|c HTTP/1.1", self, "GET", "http://" + self + "/a!b|c", 200},
		{"bare UTF-8", "GET /caf\xc3\xa9 HTTP/1.1", self, "GET", "http://" + self + "/caf%C3%A9", 200},
		{"a backslash", "GET /a\\b HTTP/1.1", self, "GET", "http://" + self + "/a/b", 400},
		{"default port", "GET /orders HTTP/1.1", "api.example:80", "GET", "http://api.example/orders", 200},
		{"empty port", "GET /orders HTTP/1.1", "api.example:", "GET", "http://api.example/orders", 200},
		{"other port", "GET /orders HTTP/1.1", "api.example:443", "GET", "http://api.example/orders", 401},
		{"port out of range", "GET /orders HTTP/1.1", "api.example:65536", "GET", "http://api.example:65536/orders", 400},
		{"host with a percent sign", "GET /orders HTTP/1.1", "api%zz.example", "GET", "http://api.example/orders", 400},
		{"host of two parts", "GET /orders HTTP/1.1", "api.example:80:80", "GET", "http://api.example/orders", 400},
		{"IPv6", "GET /orders HTTP/1.1", "[::1]:80", "GET", "http://[::1]/orders", 200},
		{"IPv6 without its end", "GET /orders HTTP/1.1", "[::1", "GET", "http://[::1]/orders", 400},
		{"an unknown method", "BREW /orders HTTP/1.1", self, "BREW", "http://" + self + "/orders", 200},
		{"authority form", "CONNECT api.example:80 HTTP/1.1", "api.example:80", "CONNECT", "http://api.example/", 400},
	} {
		t.Run(row.name, func(t *testing.T) {
			status := raw(t, g, fmt.Sprintf("%s\r\nHost: %s\r\nAuthorization: DPoP %s\r\nDPoP: %s\r\nConnection: close\r\n\r\n",
				row.line, row.host, token, dpop(t, row.htm, row.htu, token, nil)))
			if status != row.status {
				t.Errorf("answered %d, want %d", status, row.status)
			}
			if row.status == 200 {
				g.backend.one(t)
			} else {
				g.backend.none(t)
			}
		})
	}
	// with no host at all there is no URL
	if status := raw(t, g, "GET / HTTP/1.0\r\n\r\n"); status != 400 {
		t.Errorf("no host: answered %d", status)
	}
}

// A host that makes no sense is refused where it does not count, too.
func TestHostBesidePublicURL(t *testing.T) {
	g := serve(t, setup{address: "http://:{{PORT}}", site: "{{DPOP}} public_url https://api.example\nreverse_proxy {{BACKEND}}"})
	token := accessToken(t, nil)
	for host, status := range map[string]int{"any.example": 200, "any.example:80:80": 400, "[::1": 400, "any%zz.example": 400} {
		got := raw(t, g, fmt.Sprintf("GET /orders HTTP/1.1\r\nHost: %s\r\nAuthorization: DPoP %s\r\nDPoP: %s\r\nConnection: close\r\n\r\n",
			host, token, dpop(t, "GET", "https://api.example/orders", token, nil)))
		if got != status {
			t.Errorf("%s: answered %d, want %d", host, got, status)
		}
	}
}
