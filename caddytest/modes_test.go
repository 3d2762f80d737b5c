package caddytest

import (
	"net/http"
	"testing"
)

func TestOptional(t *testing.T) {
	g := serve(t, setup{site: "{{DPOP}} mode optional\nreverse_proxy {{BACKEND}}"})
	target := g.url + "/orders"
	bound := accessToken(t, nil)
	unbound := accessToken(t, map[string]any{"cnf": nil})
	bearer := func(token string) http.Header { return http.Header{"Authorization": {"Bearer " + token}} }
	cnf := func(cnf any) http.Header { return bearer(accessToken(t, map[string]any{"cnf": cnf})) }

	for _, row := range []struct {
		name       string
		header     http.Header
		status     int
		challenges []string
	}{
		{"no credentials", nil, 401, []string{"DPoP", "Bearer"}},
		{"another scheme", http.Header{"Authorization": {"Basic eDp5"}}, 401, []string{"DPoP", "Bearer"}},
		{"two fields", http.Header{"Authorization": {"Bearer a", "Bearer b"}}, 400, []string{"DPoP invalid_request", "Bearer invalid_request"}},
		{"Bearer with a proof", http.Header{"Authorization": {"Bearer " + unbound}, "Dpop": {dpop(t, "GET", target, unbound, nil)}},
			400, []string{"DPoP invalid_request", "Bearer invalid_request"}},
		{"Bearer with a bound token (RFC 9449 §7.2)", bearer(bound), 401, []string{"DPoP", "Bearer invalid_token"}},
		{"Bearer with an empty cnf", cnf(map[string]any{}), 401, []string{"DPoP", "Bearer invalid_token"}},
		{"Bearer with a cnf of another kind", cnf(map[string]any{"x5t#S256": "x"}), 401, []string{"DPoP", "Bearer invalid_token"}},
		{"Bearer with a cnf of an unknown kind", cnf(map[string]any{"foo": 1}), 401, []string{"DPoP", "Bearer invalid_token"}},
		{"Bearer with a cnf that is no object", cnf("x"), 401, []string{"DPoP", "Bearer invalid_token"}},
		{"Bearer with an expired token", bearer(accessToken(t, map[string]any{"cnf": nil, "exp": 1})), 401, []string{"DPoP", "Bearer invalid_token"}},
		{"an unbound token under DPoP", http.Header{"Authorization": {"DPoP " + unbound}, "Dpop": {dpop(t, "GET", target, unbound, nil)}},
			401, []string{"DPoP invalid_token"}},
		{"DPoP without proof", http.Header{"Authorization": {"DPoP " + bound}}, 401, []string{"DPoP invalid_dpop_proof"}},
	} {
		t.Run(row.name, func(t *testing.T) {
			call{url: target, header: row.header}.send(t).expect(t, row.status, row.challenges...)
			g.backend.none(t)
		})
	}

	call{url: target, header: bearer(unbound)}.send(t).expect(t, 200)
	if got := g.backend.one(t); got.header.Get("Authorization") != "Bearer "+unbound {
		t.Errorf("the backend got %q", got.header["Authorization"])
	}
	// a Bearer token may be used any number of times
	call{url: target, header: bearer(unbound)}.send(t).expect(t, 200)
	g.backend.one(t)
	good(t, target).send(t).expect(t, 200)
	g.backend.one(t)
}

// cnf: null is a cnf too; tokenOf cannot make one, because nil removes a claim.
func TestBearerWithNullConfirmation(t *testing.T) {
	g := serve(t, setup{site: "{{DPOP}} mode optional\nreverse_proxy {{BACKEND}}"})
	claims := issuer.Claims("client-1")
	claims["cnf"] = nil
	token, err := issuer.Sign(claims)
	if err != nil {
		t.Fatal(err)
	}
	call{url: g.url, header: http.Header{"Authorization": {"Bearer " + token}}}.send(t).expect(t, 401, "DPoP", "Bearer invalid_token")
	g.backend.none(t)
}

func TestReport(t *testing.T) {
	g := serve(t, setup{site: "{{DPOP}} mode report; name orders; claim_header X-User sub\nreverse_proxy {{BACKEND}}"})
	target := g.url + "/orders"
	bound := accessToken(t, nil)
	for _, row := range []struct {
		name   string
		header http.Header
		reason string
	}{
		{"no credentials", http.Header{}, "no_credentials"},
		{"Bearer with a bound token", http.Header{"Authorization": {"Bearer " + bound}}, "token_bound"},
		{"no proof", http.Header{"Authorization": {"DPoP " + bound}}, "proof_missing"},
		{"a bad proof", http.Header{"Authorization": {"DPoP " + bound}, "Dpop": {"x"}}, "proof_malformed"},
		{"repeated", http.Header{"Authorization": {"DPoP a", "DPoP b"}, "Dpop": {"a", "b"}}, "authorization_repeated"},
		{"nonce header and connection options", http.Header{"Dpop-Nonce": {"x"}, "Connection": {"X-Other"}, "X-Other": {"1"}}, "no_credentials"},
	} {
		t.Run(row.name, func(t *testing.T) {
			header := row.header.Clone()
			header["X-User"] = []string{"admin"}
			a := call{url: target, header: header}.send(t)
			if a.StatusCode != 200 || a.Header.Get("WWW-Authenticate") != "" {
				t.Fatalf("answered %d %v", a.StatusCode, a.Header)
			}
			got := g.backend.one(t)
			for _, name := range []string{"Authorization", "Dpop", "Dpop-Nonce"} {
				if len(got.header[name]) != len(row.header[name]) {
					t.Errorf("%s: the backend got %q, want %q", name, got.header[name], row.header[name])
				}
			}
			if got.header["X-User"] != nil {
				t.Errorf("the client's own X-User got through: %q", got.header["X-User"])
			}
			line := await(t, g.logs, func(e entry) bool {
				return e["msg"] == "would refuse request" && e["reason"] == row.reason
			})
			if line["level"] != "warn" || line["outcome"] != "reported" || line["handler"] != "orders" {
				t.Errorf("logged %v", line)
			}
		})
	}

	c := good(t, target)
	c.send(t).expect(t, 200)
	got := g.backend.one(t)
	if got.header.Get("Authorization") == c.header.Get("Authorization") || got.header["Dpop"] != nil || got.header.Get("X-User") != "user-1" {
		t.Errorf("what report accepts was not rewritten: %v", got.header)
	}
	// and it was spent
	c.send(t).expect(t, 200)
	if got := g.backend.one(t); got.header.Get("Dpop") == "" {
		t.Error("a replay was rewritten")
	}
	await(t, g.logs, func(e entry) bool { return e["reason"] == "proof_replayed" && e["outcome"] == "reported" })
}
