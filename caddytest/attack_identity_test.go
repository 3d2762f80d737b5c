package caddytest

import (
	"net/http"
	"strings"
	"testing"
)

// folded is a header's name as upstreams with CGI variables have it: lighttpd makes
// an underscore of everything that is neither letter nor digit.
func folded(name string) string {
	return strings.Map(func(r rune) rune {
		if r >= 'a' && r <= 'z' || r >= '0' && r <= '9' {
			return r
		}
		return '_'
	}, strings.ToLower(name))
}

// aliases of X-User, and why an upstream may take each for it.
var aliases = []struct{ name, source string }{
	{"X-User", "Caddy GHSA-7r4p-vjf4-gxv4"},
	{"x-USER", "RFC 9110 §5.1"},
	{"X_User", "Caddy GHSA-f59h-q822-g45g"},
	{"x_user", "Caddy GHSA-f59h-q822-g45g"},
	{"X.User", "PHP makes an underscore of it, Caddy GHSA-49wc-4hcv-v58q"},
	{"X+User", "lighttpd, http_cgi_encode_varname"},
	{"X~User", "lighttpd, http_cgi_encode_varname"},
}

// aliasesAllowed lets Caddy pass on names that it drops otherwise.
const aliasesAllowed = "expected_underscore_headers X_User\nexpected_dot_headers X.User"

// Whatever a client calls its own copy of a claim header, no upstream gets it, in
// no mode, nor by an error route.
func TestAttackIdentityHeaders(t *testing.T) {
	const proxy = "\nreverse_proxy {{BACKEND}}"
	const errorRoute = "\nhandle_errors {\nreverse_proxy {{BACKEND}}\n}"
	bearer := func(t *testing.T, g *gateway) call {
		return call{url: g.url, header: http.Header{"Authorization": {"Bearer " + accessToken(t, map[string]any{"cnf": nil})}}}
	}
	proven := func(t *testing.T, g *gateway) call { return good(t, g.url) }
	nobody := func(_ *testing.T, g *gateway) call { return call{url: g.url, header: http.Header{}} }
	without := func(t *testing.T, g *gateway) call {
		token := accessToken(t, map[string]any{"sub": nil})
		return call{url: g.url, header: credentials(token, dpop(t, "GET", g.url, token, nil))}
	}
	for _, mode := range []struct {
		name, site string
		call       func(*testing.T, *gateway) call
		want       string // X-User at the upstream
	}{
		{"strict, accepted", "{{DPOP}} claim_header X-User sub" + proxy, proven, "user-1"},
		{"strict, accepted without the claim", "{{DPOP}} claim_header X-User sub" + proxy, without, ""},
		{"strict, refused", "{{DPOP}} claim_header X-User sub" + proxy + errorRoute, nobody, ""},
		{"strict, accepted, then an error", "{{DPOP}} claim_header X-User sub\nerror 500" + errorRoute, proven, "user-1"},
		{"strict, accepted without the claim, then an error", "{{DPOP}} claim_header X-User sub\nerror 500" + errorRoute, without, ""},
		{"optional, Bearer accepted", "{{DPOP}} mode optional; claim_header X-User sub" + proxy, bearer, "user-1"},
		{"optional, refused", "{{DPOP}} mode optional; claim_header X-User sub" + proxy + errorRoute, nobody, ""},
		{"report, refused", "{{DPOP}} mode report; claim_header X-User sub" + proxy, nobody, ""},
		{"report, accepted without the claim", "{{DPOP}} mode report; claim_header X-User sub" + proxy, without, ""},
		{"the second handler alone has it", "{{DPOP}}\nroute {\n{{DPOP}} claim_header X-User sub" + proxy + "\n}", without, ""},
		{"the first handler alone has it", "{{DPOP}} claim_header X-User sub\nroute {\n{{DPOP}}" + proxy + "\n}", without, ""},
		{"the second handler's claim is not there", "{{DPOP}} claim_header X-User sub\nroute {\n{{DPOP}} claim_header X-User none" + proxy + "\n}", proven, ""},
		{"the second handler refuses", "{{DPOP}} claim_header X-User sub\nroute {\n{{DPOP}} require_scope none" + proxy + "\n}" + errorRoute, proven, ""},
		{"the token is not passed on", "{{DPOP}} upstream_token none; claim_header X-User sub" + proxy, without, ""},
		{"the credentials are passed on", "{{DPOP}} upstream_token dpop; claim_header X-User sub" + proxy, without, ""},
	} {
		g := serve(t, setup{servers: aliasesAllowed, site: mode.site})
		for _, alias := range aliases {
			t.Run(mode.name+": "+alias.name+" ("+alias.source+")", func(t *testing.T) {
				for _, connection := range []string{"", alias.name, "X-User"} {
					c := mode.call(t, g)
					c.header[alias.name] = []string{"forged", "forged"}[:1+len(connection)%2]
					if connection != "" {
						c.header["Connection"] = []string{"close, " + connection}
					}
					c.send(t)
					got := g.backend.one(t).header
					if values := got["X-User"]; mode.want == "" && values != nil || mode.want != "" && (len(values) != 1 || values[0] != mode.want) {
						t.Errorf("the backend got X-User %q, want %q", values, mode.want)
					}
					for name, values := range got {
						if folded(name) == "x_user" && name != "X-User" {
							t.Errorf("the backend got %s: %q", name, values)
						}
					}
				}
			})
		}
	}
}

// The same by HTTP/2 and HTTP/3, and as trailers.
func TestAttackIdentityByOtherProtocols(t *testing.T) {
	g, roots := overTLS(t, "claim_header X-User sub")
	trailers := make(chan http.Header, 1)
	g.backend.answer = func(_ http.ResponseWriter, r *http.Request) { trailers <- r.Trailer }
	url := "https://127.0.0.1:" + g.port + "/"
	for protocol, send := range map[string]sender{"HTTP/2": byHTTP2, "HTTP/3": byHTTP3} {
		for _, alias := range aliases {
			name := strings.ToLower(alias.name)
			t.Run(protocol+": "+name+" ("+alias.source+")", func(t *testing.T) {
				for _, announced := range []string{"x-foo", "x-foo, " + name} {
					token := accessToken(t, map[string]any{"sub": nil})
					fields := []field{{":method", "GET"}, {":scheme", "https"}, {":authority", "127.0.0.1:" + g.port}, {":path", "/"},
						{"authorization", "DPoP " + token}, {"dpop", dpop(t, "GET", url, token, nil)}, {name, "forged"}, {"trailer", announced}}
					if _, err := send(t, g, roots, fields, []field{{"x-foo", "1"}, {name, "forged"}, {"dpop-nonce", "forged"}}); err != nil {
						t.Fatal(err)
					}
					got := g.backend.one(t).header
					for _, header := range []http.Header{got, <-trailers} {
						for name := range header {
							if folded(name) == "x_user" || folded(name) == "dpop_nonce" {
								t.Errorf("announced %s: the backend got %s: %q", announced, name, header[name])
							}
						}
					}
				}
			})
		}
	}
}

// What a client lists in Connection, the proxy takes away after the handler has
// run (RFC 9110 §7.6.1): that must not be what the handler has set, or the
// upstream would have nothing, and might take something else.
func TestAttackConnectionLists(t *testing.T) {
	g := serve(t, setup{site: "{{DPOP}} claim_header X-User sub\nreverse_proxy {{BACKEND}}"})
	for _, row := range []struct {
		attack      string
		connections []string
	}{
		{"Authorization", []string{"Authorization"}},
		{"in lower case", []string{"authorization"}},
		{"among others", []string{"close, Authorization, X-Drop"}},
		{"with odd white space", []string{"close\t,\t Authorization\t,,"}},
		{"in a field of its own", []string{"close", "X-Drop", "AUTHORIZATION"}},
		{"the claim's header", []string{"X-User"}},
		{"the claim's header in lower case", []string{"close,x-user"}},
		{"everything", []string{"close, Authorization, DPoP, X-User, DPoP-Nonce, X-Drop"}},
		{"twice", []string{"Authorization, Authorization", "X-User, X-User"}},
		{"with parameters", []string{"Authorization;q=1, X-User;q=0"}},
		{"in quotes", []string{`"Authorization", "X-User"`}},
		{"10,000 times", []string{strings.Repeat("X-User,", 1200)}},
	} {
		t.Run(row.attack, func(t *testing.T) {
			c := good(t, g.url)
			c.header["Connection"] = row.connections
			c.header["X-Drop"] = []string{"1"}
			c.send(t).expect(t, 200)
			got := g.backend.one(t).header
			if len(got["Authorization"]) != 1 || !strings.HasPrefix(got.Get("Authorization"), "Bearer ") || len(got["X-User"]) != 1 || got.Get("X-User") != "user-1" || got["Dpop"] != nil {
				t.Errorf("the backend got %v", got)
			}
			if listed := strings.Contains(strings.Join(row.connections, ","), "X-Drop"); (got["X-Drop"] == nil) != listed {
				t.Errorf("the backend got X-Drop %q", got["X-Drop"])
			}
		})
	}
}

// A claim is a header's value or none: what an issuer lets its users choose makes
// no second header, no other value and no second user.
func TestAttackClaimsAsHeaders(t *testing.T) {
	ec := forgers()["ES256"]
	g := attackedIssuer(t, "claim_header X-User name", ec)
	const none = "(none)"
	for _, row := range []struct{ attack, source, claim, want string }{
		{"a line break", "RFC 9110 §5.5, CWE-113", `"admin\r\nX-Admin: 1"`, none},
		{"a line feed", "CWE-113", `"admin\nX-Admin: 1"`, none},
		{"a carriage return", "CWE-113", `"admin\rX-Admin: 1"`, none},
		{"a line break at the end", "CWE-113", `"admin\r\n"`, none},
		{"a folded line", "RFC 9112 §5.2", `"a\r\n admin"`, none},
		{"a NUL", "RFC 9110 §5.5", `"admin\u0000x"`, none},
		{"a tab", "RFC 9110 §5.5", `"admin\tx"`, none},
		{"a backspace", "CWE-150", `"x\badmin"`, none},
		{"delete", "RFC 9110 §5.5", `"admin\u007f"`, none},
		{"a control character above ASCII", "CWE-150", `"admin\u0085X-Admin: 1"`, none},
		{"a space in front", "RFC 9110 §5.5: it is not part of the value", `" admin"`, none},
		{"a space behind", "RFC 9110 §5.5", `"admin "`, none},
		{"a space that is none behind", "the upstream may trim it", `"admin\u00a0"`, none},
		{"a line separator", "no line break in HTTP", `"a\u2028b"`, "a\u2028b"},
		{"another script", "RFC 9110 §5.5: obs-text", `"Ιησούς"`, "Ιησούς"},
		{"a letter that becomes a line break when cut to its last byte", "CVE-2018-12116 (Node.js)", `"a\u010aX-Admin: 1\u560d"`, "a\u010aX-Admin: 1\u560d"},
		{"empty", "SECURITY.md: as it is", `""`, ""},
		{"null", "RFC 8259 §3", "null", "null"},
		{"a number as it is spelt", "float64 would round it", "12345678901234567890.10", "12345678901234567890.10"},
		{"an object", "SECURITY.md", `{ "a" : "\r\n" }`, `{"a":"\r\n"}`},
		{"a placeholder", "Caddy's replacer", `"{env.HOME}{http.request.header.X-Forged}"`, "{env.HOME}{http.request.header.X-Forged}"},
		{"a comma", "RFC 9110 §5.3: a list to some", `"a, admin"`, "a, admin"},
		{"not there", "Caddy GHSA-7r4p-vjf4-gxv4", "", none},
	} {
		t.Run(row.attack+" ("+row.source+")", func(t *testing.T) {
			var options []option
			if row.claim != "" {
				options = append(options, claim("name", row.claim))
			}
			token := tokenBy(ec, options...)
			c := call{url: g.url, header: credentials(token, dpop(t, "GET", g.url, token, nil))}
			c.header["X-User"] = []string{"forged"}
			c.header["X-Forged"] = []string{"forged"}
			a := c.send(t)
			if a.StatusCode != 200 {
				t.Fatalf("answered %d", a.StatusCode)
			}
			got := g.backend.one(t).header
			values, there := got["X-User"]
			if row.want == none && there || row.want != none && (len(values) != 1 || values[0] != row.want) {
				t.Errorf("the backend got X-User %q, want %q", values, row.want)
			}
			if got["X-Admin"] != nil {
				t.Error("the backend got X-Admin")
			}
		})
	}
}

// Claims that are no plain text are nobody, and not somebody else.
func TestAttackUserIDs(t *testing.T) {
	ec := forgers()["ES256"]
	g := serve(t, setup{site: "dpop {\nissuer " + localIssuer + " {\njwks_file " + keyFile(t, ec) + "\n}\naudience " + audience + "\n}\nheader >X-Id \"{http.auth.user.id}|{http.auth.user.name}\"\nreverse_proxy {{BACKEND}}"})
	for _, row := range []struct {
		attack  string
		options []option
		want    string
	}{
		{"sub", nil, "user-1|"},
		{"a claim called id", []option{claim("id", `"admin"`)}, "user-1|"},
		{"sub null", []option{claim("sub", "null")}, "client-1|"},
		{"sub empty", []option{claim("sub", `""`)}, "client-1|"},
		{"no sub", []option{without("sub")}, "client-1|"},
		{"sub an array", []option{claim("sub", `["admin"]`)}, "|"},
		{"sub an object", []option{claim("sub", `{"id":"admin"}`)}, "|"},
		{"SUB", []option{claim("SUB", `"admin"`)}, "user-1|"},
		{"a claim with dots for one within another", []option{claim("http.auth.user.id", `"admin"`)}, "user-1|"},
		{"a placeholder", []option{claim("name", `"{http.auth.user.id}{env.HOME}"`)}, "user-1|{http.auth.user.id}{env.HOME}"},
	} {
		t.Run(row.attack, func(t *testing.T) {
			token := tokenBy(ec, row.options...)
			a := call{url: g.url, header: credentials(token, dpop(t, "GET", g.url, token, nil))}.send(t)
			if got := a.Header.Get("X-Id"); a.StatusCode != 200 || got != row.want {
				t.Errorf("answered %d, the id is %q, want %q", a.StatusCode, got, row.want)
			}
		})
	}
}
