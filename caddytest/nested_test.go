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
		{"the second reports", "{{DPOP}}\nroute {\n{{DPOP}} mode report; public_url https://other.example\nreverse_proxy {{BACKEND}}\n}", 200, ""},
		{"invoked", "{{DPOP}}\nroute {\n{{DPOP}}\n{{DPOP}}\nreverse_proxy {{BACKEND}}\n}", 200, ""},
	} {
		t.Run(row.name, func(t *testing.T) {
			g := serve(t, setup{site: row.site})
			c := good(t, g.url+"/")
			c.send(t)
			a := c // a replay, whatever the first got
			if row.status == 200 {
				got := g.backend.one(t)
				if got.header.Get("Authorization") == "" || got.header["Dpop"] != nil || got.header.Get("X-User") != row.user {
					t.Errorf("the backend got %v", got.header)
				}
			} else {
				g.backend.none(t)
			}
			if answer := a.send(t); answer.StatusCode != 401 {
				t.Errorf("a replay was answered %d", answer.StatusCode)
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
