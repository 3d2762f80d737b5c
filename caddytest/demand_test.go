package caddytest

import (
	"net/http"
	"strings"
	"testing"
	"time"
)

func TestDemands(t *testing.T) {
	g := serve(t, setup{site: `{{DPOP}} mode optional; require_scope read; require_scope write; require_claim groups admin staff; require_acr gold silver; max_auth_age 5m
		reverse_proxy {{BACKEND}}`})
	send := func(changes map[string]any, scheme string) answer {
		claims := map[string]any{"scope": "write read", "groups": []string{"staff"}, "acr": "gold", "auth_time": time.Now().Unix()}
		for name, value := range changes {
			claims[name] = value
		}
		c := call{url: g.url, header: http.Header{}}
		if scheme == "Bearer" {
			claims["cnf"] = nil
		}
		token := accessToken(t, claims)
		if scheme == "DPoP" {
			c.header["Dpop"] = []string{dpop(t, "GET", g.url, token, nil)}
		}
		c.header["Authorization"] = []string{scheme + " " + token}
		return c.send(t)
	}
	for _, scheme := range []string{"DPoP", "Bearer"} {
		send(nil, scheme).expect(t, 200)
		g.backend.one(t)
		tail := ""
		if scheme == "DPoP" {
			tail = ", " + algs
		}
		for _, row := range []struct {
			name    string
			changes map[string]any
			status  int
			want    string // of the challenge, but for the description
		}{
			{"scope", map[string]any{"scope": "read"}, 403, `insufficient_scope", scope="read write"`},
			{"claim", map[string]any{"groups": "others"}, 403, `insufficient_scope"`},
			{"acr", map[string]any{"acr": "bronze"}, 401, `insufficient_user_authentication", acr_values="gold silver", max_age="300"`},
			{"age", map[string]any{"auth_time": time.Now().Unix() - 400}, 401, `insufficient_user_authentication", acr_values="gold silver", max_age="300"`},
			{"acr and scope", map[string]any{"acr": nil, "scope": nil}, 401, `insufficient_user_authentication", acr_values="gold silver", max_age="300", scope="read write"`},
		} {
			a := send(row.changes, scheme)
			got := a.Header.Values("WWW-Authenticate")
			if a.StatusCode != row.status || len(got) != 1 {
				t.Fatalf("%s, %s: answered %d %q", scheme, row.name, a.StatusCode, got)
			}
			head, rest, _ := strings.Cut(got[0], `, error_description="`)
			_, rest, _ = strings.Cut(rest, `"`)
			if head+rest != scheme+` error="`+row.want+tail {
				t.Errorf("%s, %s: challenge %q", scheme, row.name, got[0])
			}
			g.backend.none(t)
		}
	}
}
