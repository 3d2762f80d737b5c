package caddytest

import (
	"net/http"
	"testing"
)

// A request that meets a second handler is judged by all of its settings on the
// credentials as they arrived; only its record is not made again.
func TestTwoHandlers(t *testing.T) {
	for _, row := range []struct {
		name, site string
		status     int
		user       string
	}{
		{"nested", "{{DPOP}}\nroute {\n{{DPOP}} claim_header X-User sub\nreverse_proxy {{BACKEND}}\n}", 200, "user-1"},
		{"the second is stricter", "{{DPOP}}\nroute {\n{{DPOP}} public_url https://other.example\nreverse_proxy {{BACKEND}}\n}", 401, ""},
		{"the first has rewritten the credentials", "{{DPOP}} upstream_token none\nroute {\n{{DPOP}}\nreverse_proxy {{BACKEND}}\n}", 200, ""},
		{"the first records nothing", "{{DPOP}} replay off\nroute {\n{{DPOP}}\nreverse_proxy {{BACKEND}}\n}", 200, ""},
		{"the second reports", "{{DPOP}}\nroute {\n{{DPOP}} mode report; public_url https://other.example\nreverse_proxy {{BACKEND}}\n}", 200, ""},
		{"three", "{{DPOP}}\nroute {\n{{DPOP}}\n{{DPOP}}\nreverse_proxy {{BACKEND}}\n}", 200, ""},
		{"the second reports, and leaves the first's claims", "{{DPOP}} claim_header X-User sub\nroute {\n{{DPOP}} mode report; public_url https://other.example; claim_header X-User sub\nreverse_proxy {{BACKEND}}\n}", 200, "user-1"},
		{"headers changed in place between them", "route {\n{{DPOP}} mode report; public_url https://other.example\nrequest_header Dpop ^e Xe\nrequest_header Authorization ^DPoP Custom\n{{DPOP}}\nreverse_proxy {{BACKEND}}\n}", 200, ""},
	} {
		t.Run(row.name, func(t *testing.T) {
			g := serve(t, setup{site: row.site})
			c := good(t, g.url+"/")
			if first := c.send(t); first.StatusCode != row.status {
				t.Fatalf("answered %d %q", first.StatusCode, first.Header.Values("WWW-Authenticate"))
			}
			if row.status == 200 {
				got := g.backend.one(t)
				if got.header.Get("Authorization") == "" || got.header["Dpop"] != nil || got.header.Get("X-User") != row.user {
					t.Errorf("the backend got %v", got.header)
				}
			} else {
				g.backend.none(t)
			}
			if replay := c.send(t); replay.StatusCode != 401 {
				t.Errorf("a replay was answered %d", replay.StatusCode)
			}
		})
	}
}

// An error route with a handler of its own judges the same request, and its
// record is the request's own.
func TestHandlerInErrorRoute(t *testing.T) {
	g := serve(t, setup{site: `{{DPOP}}
		error 500
		handle_errors {
			{{DPOP}}
			header X-Outcome {http.dpop.outcome}
			respond "sorry" 500
		}`})
	c := good(t, g.url+"/")
	if a := c.send(t); a.StatusCode != 500 || a.Header.Get("X-Outcome") != "accepted" || a.text != "sorry" {
		t.Errorf("answered %d %q %v", a.StatusCode, a.text, a.Header)
	}
	// refused twice, by the site and by its error route
	if a := c.send(t); a.StatusCode != 401 && a.StatusCode != 500 || a.text != "" {
		t.Errorf("a replay was answered %d %q", a.StatusCode, a.text)
	}
}

// With strict and optional handlers side by side no route lends its mode to another.
func TestModesByRoute(t *testing.T) {
	g := serve(t, setup{site: `
		handle /open/* {
			{{DPOP}} mode optional
			reverse_proxy {{BACKEND}}
		}
		handle {
			{{DPOP}}
			reverse_proxy {{BACKEND}}
		}`})
	header := http.Header{"Authorization": {"Bearer " + accessToken(t, map[string]any{"cnf": nil})}}
	call{url: g.url + "/open/x", header: header}.send(t).expect(t, 200)
	g.backend.one(t)
	call{url: g.url + "/x", header: header}.send(t).expect(t, 401, "DPoP invalid_token")
	g.backend.none(t)
	// what one has accepted the other knows as spent
	c := good(t, g.url+"/open/x")
	c.send(t).expect(t, 200)
	c.send(t).expect(t, 401, "DPoP invalid_dpop_proof")
}

// When a second handler refuses what the first accepted, error routes get the
// credentials as they arrived, and no claims.
func TestSecondHandlerRefuses(t *testing.T) {
	g := serve(t, setup{site: `{{DPOP}} claim_header X-User sub
		route {
			{{DPOP}} public_url https://other.example
		}
		handle_errors {
			reverse_proxy {{BACKEND}} {
				header_up X-Id "{http.auth.user.id}"
			}
		}`})
	c := good(t, g.url+"/")
	c.send(t)
	got := g.backend.one(t).header
	if got.Get("Authorization") != c.header.Get("Authorization") || got.Get("Dpop") != c.header.Get("Dpop") || got.Get("X-User") != "" || got.Get("X-Id") != "" {
		t.Errorf("the error route's backend got %v", got)
	}
}

// Where an inner handler has the upstream check proofs itself, the upstream's
// nonces are for the client, whatever the outer handler is set to.
func TestInnerHandlerSpeaksForTheUpstream(t *testing.T) {
	g := serve(t, setup{site: "{{DPOP}}\nroute {\n{{DPOP}} upstream_token dpop\nreverse_proxy {{BACKEND}}\n}"})
	g.backend.answer = func(w http.ResponseWriter, _ *http.Request) { w.Header().Set("DPoP-Nonce", "n") }
	if a := good(t, g.url+"/").send(t); a.Header.Get("DPoP-Nonce") != "n" {
		t.Errorf("the nonce was dropped: %v", a.Header)
	}
}

// A named route is another way to meet a handler twice.
func TestInvokedRoute(t *testing.T) {
	g := serve(t, setup{
		named: "&(protected) {\nroute {\n{{DPOP}}\nreverse_proxy {{BACKEND}}\n}\n}",
		site:  "{{DPOP}}\ninvoke protected",
	})
	c := good(t, g.url+"/")
	c.send(t).expect(t, 200)
	g.backend.one(t)
	c.send(t).expect(t, 401, "DPoP invalid_dpop_proof")
	g.backend.none(t)
}
