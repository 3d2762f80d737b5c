package caddytest

import (
	"fmt"
	"net/http"
	"strings"
	"testing"

	"github.com/caddy-dpop/caddy-dpop/internal/proof"
)

// Faults that were published of other software that verifies proofs, or that
// tells upstreams who a user is. Two more are TestAttackTimeAndRoom: Keycloak issue
// 43505 and Spring Security's flood.
func TestAttackPublishedFaults(t *testing.T) {
	const path = "/orders"
	key := forgers()["ES256"]
	thief := forgers()["EdDSA"]
	stolen := key.boundTo(t)
	proxied := setup{servers: "trusted_proxies static 127.0.0.1", site: "{{DPOP}} forwarded_host\nreverse_proxy {{BACKEND}}" + saysWhy}
	strict := setup{site: "{{DPOP}}\nreverse_proxy {{BACKEND}}" + saysWhy}
	optional := setup{site: "{{DPOP}} mode optional\nreverse_proxy {{BACKEND}}" + saysWhy}
	claims := setup{servers: aliasesAllowed, site: "{{DPOP}} claim_header X-User-Id sub\nreverse_proxy {{BACKEND}}" + saysWhy}
	by := func(f *forger, token string, options ...option) func(*gateway) http.Header {
		return func(g *gateway) http.Header {
			return credentials(token, proofBy(f, "GET", g.url+path, token, options...))
		}
	}
	with := func(name string, value string, header func(*gateway) http.Header) func(*gateway) http.Header {
		return func(g *gateway) http.Header {
			h := header(g)
			h[name] = append(h[name], value)
			return h
		}
	}
	unbound := accessToken(t, map[string]any{"cnf": nil})

	for _, row := range []struct {
		fault, where string
		setup        setup
		header       func(g *gateway) http.Header
		reason       string
	}{
		{"a private key in jwk is accepted", "liboauth2 before 2.3.0, CVE-2026-54431", strict,
			by(key, stolen, head(`{"crv"`, `{"d":"`+b64(privateOctets(key))+`","crv"`)), "proof_key"},
		{"cnf is not held against the proof's key", "Duende GHSA-v9xq-2mvm-x8xc", strict, by(thief, stolen), "token_other_key"},
		{"cnf is not held against the proof's key", "giantswarm/mcp-oauth issue 384", strict, by(thief, stolen), "token_other_key"},
		{"a malformed forwarded host moves the path", "Auth0 express-oauth2-jwt-bearer before 1.9.1", proxied,
			with("X-Forwarded-Host", "api.example.com/orders?", by(key, stolen, claim("htu", `"http://api.example.com/orders"`))), "request_malformed"},
		{"a malformed forwarded host moves the host", "Auth0 express-oauth2-jwt-bearer before 1.9.1", proxied,
			with("X-Forwarded-Host", "evil.example#api.example.com", by(key, stolen, claim("htu", `"http://evil.example/orders"`))), "request_malformed"},
		{"ath is not checked: none", "Keycloak issue 38333", strict, by(key, stolen, without("ath")), "proof_token"},
		{"ath is not checked: another's", "Keycloak issue 38333", strict, by(key, stolen, claim("ath", `"`+proof.TokenHash("x")+`"`)), "proof_token"},
		{"jkt is not checked", "Keycloak issue 38333", strict, by(thief, stolen), "token_other_key"},
		{"a bound token works as a Bearer token", "Keycloak issue 36476, authkestra pull 288", optional,
			func(*gateway) http.Header { return http.Header{"Authorization": {"Bearer " + stolen}} }, "token_bound"},
		{"an unbound token works as a DPoP token", "Keycloak issue 36476, descope/go-sdk pull 737", optional, by(key, unbound), "token_unbound"},
		{"two Authorization fields are not refused", "Keycloak issue 36476", optional, with("Authorization", "Bearer "+unbound, by(key, stolen)), "authorization_repeated"},
		{"two DPoP fields, of which the first counts", "inji-certify pull 1000", strict, with("Dpop", "x", by(key, stolen)), "proof_repeated"},
		{"panic on a typ that is a number", "go-dpop", strict, by(key, stolen, head(`"dpop+jwt"`, "7")), "proof_type"},
		{"panic on a kty that is a number", "go-dpop issue 23", strict, by(key, stolen, head(`"kty":"EC"`, `"kty":1`)), "proof_key"},
		{"a private key in jwk is accepted", "go-dpop", strict, by(key, stolen, head(`{"crv"`, `{"d":"AQ","crv"`)), "proof_key"},
		{"panic on an htu that is no URL", "nuts-node pull 4112", strict, by(key, stolen, claim("htu", `"%zz"`)), "proof_url"},
		{"panic on an htu with a bad escape", "nuts-node pull 4112", strict, by(key, stolen, claim("htu", `"http://127.0.0.1/%zz"`)), "proof_url"},
		{"a client's identity header gets through beside a token without the claim", "Caddy GHSA-7r4p-vjf4-gxv4", claims,
			func(g *gateway) http.Header {
				token := accessToken(t, map[string]any{"sub": nil})
				h := credentials(token, dpop(t, "GET", g.url+path, token, nil))
				h["X-User-Id"] = []string{"admin"}
				return h
			}, isAccepted},
		{"an alias of an identity header gets through", "Caddy GHSA-f59h-q822-g45g", claims,
			with("X_User_Id", "admin", by(key, stolen)), isAccepted},
		{"a dotted alias of an identity header gets through", "Caddy GHSA-49wc-4hcv-v58q", claims,
			with("X.User.Id", "admin", by(key, stolen)), isAccepted},
	} {
		t.Run(row.fault+" ("+row.where+")", func(t *testing.T) {
			g := serve(t, row.setup)
			a := call{url: g.url + path, header: row.header(g)}.send(t)
			for _, got := range peek(g.backend) {
				for name, values := range got.header {
					if folded(name) == "x_user_id" && strings.Contains(fmt.Sprint(values), "admin") {
						t.Errorf("the backend got %s: %q", name, values)
					}
				}
			}
			g.because(t, a.Response, row.reason)
		})
	}

	// better-auth pull 10039: the replay key had the raw method and URL, which were
	// compared more leniently. TestAttackSecondUse has all spellings.
	g := serve(t, strict)
	token, used := fresh(t, "GET", g.url+path)
	for n, query := range []string{"", "?a=1"} {
		a := call{url: g.url + path + query, header: credentials(token, used)}.send(t)
		g.because(t, a.Response, []string{isAccepted, "proof_replayed"}[n])
	}
}

// peek returns what the backend got so far, and leaves it there.
func peek(b *backend) []got {
	b.mu.Lock()
	defer b.mu.Unlock()
	return append([]got(nil), b.got...)
}

// privateOctets are the private half of an EC key.
func privateOctets(f *forger) []byte {
	octets, err := f.private.(interface{ Bytes() ([]byte, error) }).Bytes()
	if err != nil {
		panic(err)
	}
	return octets
}
