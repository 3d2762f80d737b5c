package caddytest

import (
	"fmt"
	"net/http"
	"strings"
	"testing"
	"time"
)

// Every way in but the one that strict mode has, and every way to use a bound
// token without its key where Bearer tokens are accepted (RFC 9449 §7.2).
func TestAttackDowngrade(t *testing.T) {
	bound, unbound := accessToken(t, nil), accessToken(t, map[string]any{"cnf": nil})
	bearer := func(token string) http.Header { return http.Header{"Authorization": {"Bearer " + token}} }
	proven := func(header http.Header, url, token string) http.Header {
		header["Dpop"] = []string{dpop(t, "GET", url, token, nil)}
		return header
	}
	type row struct {
		attack, source   string
		header           http.Header
		strict, optional string // reasons
	}
	rows := func(url string) []row {
		return []row{
			{"no credentials", "RFC 9449 §7.1", http.Header{}, "no_credentials", "no_credentials"},
			{"a bound token as Bearer", "RFC 9449 §7.2", bearer(bound), "bearer_refused", "token_bound"},
			{"a bound token as bEARER", "RFC 9110 §11.1", http.Header{"Authorization": {"bEARER " + bound}}, "bearer_refused", "token_bound"},
			{"a bound token as Bearer, with a proof", "RFC 9449 §7.2", proven(bearer(bound), url, bound), "bearer_refused", "bearer_with_proof"},
			{"an unbound token as Bearer, with a proof", "RFC 9449 §7.2", proven(bearer(unbound), url, unbound), "bearer_refused", "bearer_with_proof"},
			{"an unbound token as Bearer, with an empty proof", "RFC 9449 §7.2", http.Header{"Authorization": {"Bearer " + unbound}, "Dpop": {""}}, "bearer_refused", "bearer_with_proof"},
			{"an unbound token as Bearer", "RFC 6750 §2.1", bearer(unbound), "bearer_refused", isAccepted},
			{"an unbound token as DPoP", "RFC 9449 §7.1", credentials(unbound, dpop(t, "GET", url, unbound, nil)), "token_unbound", "token_unbound"},
			{"a bound token as DPoP without proof", "RFC 9449 §7.1", http.Header{"Authorization": {"DPoP " + bound}}, "proof_missing", "proof_missing"},
			{"a bound token as Token", "RFC 9110 §11.1", http.Header{"Authorization": {"Token " + bound}}, "scheme_unsupported", "scheme_unsupported"},
			{"a bound token as Basic", "RFC 7617", http.Header{"Authorization": {"Basic " + bound}}, "scheme_unsupported", "scheme_unsupported"},
			{"a bound token as PoP", "the scheme of early drafts", http.Header{"Authorization": {"PoP " + bound}}, "scheme_unsupported", "scheme_unsupported"},
			{"a bound token without scheme", "RFC 9110 §11.4", http.Header{"Authorization": {bound}}, "scheme_unsupported", "scheme_unsupported"},
			{"a token bound to a certificate as Bearer", "RFC 8705 §3", bearer(accessToken(t, map[string]any{"cnf": map[string]any{"x5t#S256": "x"}})), "bearer_refused", "token_bound"},
			{"a token with an empty cnf as Bearer", "README, Modes", bearer(accessToken(t, map[string]any{"cnf": map[string]any{}})), "bearer_refused", "token_bound"},
			{"a token with a cnf of false as Bearer", "README, Modes", bearer(accessToken(t, map[string]any{"cnf": false})), "bearer_refused", "token_bound"},
			{"a token with an empty jkt as Bearer", "README, Modes", bearer(accessToken(t, map[string]any{"cnf": map[string]any{"jkt": ""}})), "bearer_refused", "token_bound"},
			{"a proof as a Bearer token", "RFC 8725 §2.8", bearer(dpop(t, "GET", url, bound, nil)), "bearer_refused", "token_issuer"},
			{"a token in X-Authorization", "RFC 6750 §2", http.Header{"X-Authorization": {"Bearer " + unbound}}, "no_credentials", "no_credentials"},
		}
	}
	check := func(mode string, g *gateway) {
		for _, row := range rows(g.url) {
			t.Run(mode+": "+row.attack+" ("+row.source+")", func(t *testing.T) {
				reason := row.strict
				if mode == "optional" {
					reason = row.optional
				}
				g.because(t, call{url: g.url, header: row.header}.send(t).Response, reason)
			})
		}
	}
	check("strict", attacked(t, ""))
	check("optional", attacked(t, "mode optional"))
}

// A second token in the query (RFC 6750 §2.3), as an upstream may find it there
// that looks in the query first: somebody else's, which nothing would verify.
func TestAttackSecondTokens(t *testing.T) {
	g := attacked(t, "")
	for _, row := range []struct{ query, source, reason string }{
		{"access_token=x", "RFC 6750 §2.3", "token_in_query"},
		{"a=b&access_token=x", "RFC 6750 §2.3", "token_in_query"},
		{"a=b;access_token=x", "W3C HTML 4.01 B.2.2", "token_in_query"},
		{"&&access_token", "RFC 6750 §2.3", "token_in_query"},
		{"ACCESS_TOKEN=x", "ASP.NET", "token_in_query"},
		{"access%5Ftoken=x", "RFC 3986 §2.1", "token_in_query"},
		{"%61%63cess_token=x", "RFC 3986 §2.1", "token_in_query"},
		{"access.token=x", "PHP, php_register_variable_ex", "token_in_query"},
		{"access+token=x", "PHP, php_register_variable_ex", "token_in_query"},
		{"access%20token=x", "PHP, php_register_variable_ex", "token_in_query"},
		{"+%20access_token=x", "PHP, php_register_variable_ex", "token_in_query"},
		{"access_token[]=x", "PHP, php_register_variable_ex", "token_in_query"},
		{"access_token%5Ba%5D=x", "PHP, php_register_variable_ex", "token_in_query"},
		{"access[token=x", "PHP, php_register_variable_ex: a bracket that is not closed becomes _", "token_in_query"},
		{"access%5Btoken=x", "PHP, php_register_variable_ex: a bracket that is not closed becomes _", "token_in_query"},
		{"access_token%00a=x", "PHP, php_register_variable_ex: not binary safe", "token_in_query"},
		{"access_token%00%zz=x", "PHP, php_url_decode leaves what is no escape", "token_in_query"},
		{"access%5Ftoken[%zz]=x", "PHP, php_url_decode leaves what is no escape", "token_in_query"},
		{"%u0061ccess_token=x", "ASP.NET, HttpUtility.UrlDecode", "token_in_query"},
		{"access_tokens=x&my_access_token=x&token=access_token", "RFC 6750 §2.3", isAccepted},
		{"access[0]=token", "PHP", isAccepted},
	} {
		t.Run(row.query+" ("+row.source+")", func(t *testing.T) {
			token, proof := fresh(t, "GET", g.url+"/")
			answers := exchange(t, g, "GET /?"+row.query+" HTTP/1.1\r\nHost: 127.0.0.1:"+g.port+"\r\nAuthorization: DPoP "+token+"\r\nDPoP: "+proof+"\r\nConnection: close\r\n\r\n")
			if len(answers) != 1 {
				t.Fatalf("%d answers", len(answers))
			}
			g.because(t, answers[0], row.reason)
		})
	}
}

// What a site does before and around the handler opens no way past it.
func TestAttackRoutes(t *testing.T) {
	for _, row := range []struct {
		attack, site, path string
		htu                string // of the proof
		reason             string
	}{
		{"a proof for the path after handle_path", "handle_path /api/* {\n{{DPOP}}\nreverse_proxy {{BACKEND}}\n}", "/api/orders", "/orders", "proof_url"},
		{"a proof for the path after rewrite", "rewrite * /internal{uri}\n{{DPOP}}\nreverse_proxy {{BACKEND}}", "/orders", "/internal/orders", "proof_url"},
		{"a proof for the path after uri replace", "uri replace public private\n{{DPOP}}\nreverse_proxy {{BACKEND}}", "/public", "/private", "proof_url"},
		{"a proof for the path before them", "uri replace public private\n{{DPOP}}\nreverse_proxy {{BACKEND}}", "/public", "/public", isAccepted},
		{"a nested handler for another resource", "{{DPOP}}\nhandle /api/* {\n{{DPOP}} public_url https://api.example\nreverse_proxy {{BACKEND}}\n}", "/api/orders", "/api/orders", "proof_url"},
		{"a variable of the handler's name", "vars dpop_request x\n{{DPOP}}\nreverse_proxy {{BACKEND}}", "/orders", "/other", "proof_url"},
		{"the path of published metadata, by dots", "{{DPOP}} resource https://api.example\nreverse_proxy {{BACKEND}}", "/.well-known/oauth-protected-resource/../x", "/other", "proof_url"},
		{"a path below published metadata", "{{DPOP}} resource https://api.example\nreverse_proxy {{BACKEND}}", "/.well-known/oauth-protected-resource/x", "/other", "proof_url"},
		{"the path of published metadata, in another case", "{{DPOP}} resource https://api.example\nreverse_proxy {{BACKEND}}", "/.WELL-KNOWN/oauth-protected-resource", "/other", "proof_url"},
	} {
		t.Run(row.attack, func(t *testing.T) {
			g := serve(t, setup{site: row.site + saysWhy})
			token := accessToken(t, nil)
			answers := exchange(t, g, fmt.Sprintf("GET %s HTTP/1.1\r\nHost: 127.0.0.1:%s\r\nAuthorization: DPoP %s\r\nDPoP: %s\r\nConnection: close\r\n\r\n",
				row.path, g.port, token, dpop(t, "GET", g.url+row.htu, token, nil)))
			if len(answers) != 1 {
				t.Fatalf("%d answers", len(answers))
			}
			g.because(t, answers[0], row.reason)
		})
	}
}

// An upgrade to h2c opens a tunnel behind which no request would be looked at, and a
// proxy may pass it on (h2c smuggling, Bishop Fox 2020): not with good credentials
// either, in no mode, however it is spelt.
func TestAttackUpgradesToH2C(t *testing.T) {
	for _, mode := range []string{"strict", "optional", "report"} {
		g := attacked(t, "mode "+mode)
		for _, upgrade := range []string{"h2c", "H2C", "h2c, h2c", "websocket, h2c", "\th2c ,", "x\r\nUpgrade: h2c"} {
			token, proof := fresh(t, "GET", g.url+"/")
			answers := exchange(t, g, "GET / HTTP/1.1\r\nHost: 127.0.0.1:"+g.port+"\r\nAuthorization: DPoP "+token+"\r\nDPoP: "+proof+
				"\r\nConnection: Upgrade, HTTP2-Settings, close\r\nUpgrade: "+upgrade+"\r\nHTTP2-Settings: AAMAAABkAARAAAAAAAIAAAAA\r\n\r\n")
			if len(answers) != 1 {
				t.Fatalf("%s, %q: %d answers", mode, upgrade, len(answers))
			}
			for _, got := range peek(g.backend) {
				if strings.Contains(strings.ToLower(strings.Join(got.header["Upgrade"], ",")), "h2c") || got.header["Http2-Settings"] != nil {
					t.Errorf("%s, %q: the backend got %v", mode, upgrade, got.header)
				}
			}
			g.because(t, answers[0], isAccepted)
		}
	}
}

// What is refused makes no upgrade: not to a WebSocket, and not by its method.
func TestAttackUpgrades(t *testing.T) {
	g := attacked(t, "")
	g.backend.answer = func(w http.ResponseWriter, _ *http.Request) {
		t.Error("the backend was asked to upgrade")
		w.WriteHeader(http.StatusSwitchingProtocols)
	}
	for _, upgrade := range []string{"websocket", "h2c", "h2c, websocket", "TLS/1.0", "websocket\r\nUpgrade: h2c"} {
		answers := exchange(t, g, "GET / HTTP/1.1\r\nHost: 127.0.0.1:"+g.port+"\r\nConnection: Upgrade, HTTP2-Settings, close\r\nUpgrade: "+upgrade+
			"\r\nHTTP2-Settings: AAMAAABkAARAAAAAAAIAAAAA\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n")
		if len(answers) != 1 {
			t.Fatalf("%s: %d answers", upgrade, len(answers))
		}
		g.because(t, answers[0], "no_credentials")
	}
}

// A WebSocket by HTTP/3 is a request of the method CONNECT (RFC 9220), and needs
// its proof like any other. Other protocols get nowhere.
func TestAttackExtendedConnect(t *testing.T) {
	g, roots := overTLS(t, "")
	url := "https://127.0.0.1:" + g.port + "/ws"
	for _, row := range []struct {
		attack, protocol, htm string
		credentials           bool
		reason                string
	}{
		{"without credentials", "websocket", "CONNECT", false, "no_credentials"},
		{"with a proof for GET, which the upstream gets", "websocket", "GET", true, "proof_method"},
		{"another protocol, without credentials", "connect-udp", "CONNECT", false, "no_credentials"},
		{"another protocol, with a proof for GET", "webtransport", "GET", true, "proof_method"},
	} {
		t.Run(row.attack, func(t *testing.T) {
			mark := strings.ReplaceAll(row.attack, " ", "-") + fmt.Sprint(time.Now().UnixNano())
			fields := []field{{":method", "CONNECT"}, {":protocol", row.protocol}, {":scheme", "https"}, {":authority", "127.0.0.1:" + g.port}, {":path", "/ws"},
				{"sec-websocket-version", "13"}, {"x-mark", mark}}
			if row.credentials {
				token := accessToken(t, nil)
				fields = append(fields, field{"authorization", "DPoP " + token}, field{"dpop", dpop(t, row.htm, url, token, nil)})
			}
			if _, err := byHTTP3(t, g, roots, fields, nil); err != nil {
				t.Fatal(err)
			}
			line := await(t, g.accessLog, func(e entry) bool { return len(marks(e)) == 1 && marks(e)[0] == mark })
			if reason := line.field("dpop", "reason"); reason != row.reason {
				t.Errorf("answered %v because of %v, want %s", line["status"], reason, row.reason)
			}
			g.backend.none(t)
		})
	}
}

// A preflight is all that the handler answers for others, and it says nothing to
// who is not listed; nothing that looks like one gets past it.
func TestAttackCORS(t *testing.T) {
	g := serve(t, setup{site: "{{DPOP}} cors " + app + "\nreverse_proxy {{BACKEND}}" + saysWhy})
	for _, row := range []struct {
		attack, method string
		header         http.Header
		status         int
		allowed        string // Access-Control-Allow-Origin
	}{
		{"a preflight", "OPTIONS", http.Header{"Origin": {app}, "Access-Control-Request-Method": {"GET"}}, 204, app},
		{"another origin", "OPTIONS", http.Header{"Origin": {"https://evil.example"}, "Access-Control-Request-Method": {"GET"}}, 204, ""},
		{"an origin that ends alike", "OPTIONS", http.Header{"Origin": {"https://evil" + app[8:]}, "Access-Control-Request-Method": {"GET"}}, 204, ""},
		{"an origin that begins alike", "OPTIONS", http.Header{"Origin": {app + ".evil.example"}, "Access-Control-Request-Method": {"GET"}}, 204, ""},
		{"an origin with user information", "OPTIONS", http.Header{"Origin": {"https://app.example.com@evil.example"}, "Access-Control-Request-Method": {"GET"}}, 204, ""},
		{"an origin with a dot behind", "OPTIONS", http.Header{"Origin": {app + "."}, "Access-Control-Request-Method": {"GET"}}, 204, ""},
		{"two origins in one", "OPTIONS", http.Header{"Origin": {app + ", https://evil.example"}, "Access-Control-Request-Method": {"GET"}}, 204, ""},
		{"two origins", "OPTIONS", http.Header{"Origin": {app, "https://evil.example"}, "Access-Control-Request-Method": {"GET"}}, 204, ""},
		{"null", "OPTIONS", http.Header{"Origin": {"null"}, "Access-Control-Request-Method": {"GET"}}, 204, ""},
		{"*", "OPTIONS", http.Header{"Origin": {"*"}, "Access-Control-Request-Method": {"GET"}}, 204, ""},
		{"no origin", "OPTIONS", http.Header{"Access-Control-Request-Method": {"GET"}}, 401, ""},
		{"an empty origin", "OPTIONS", http.Header{"Origin": {""}, "Access-Control-Request-Method": {"GET"}}, 401, ""},
		{"no method asked for", "OPTIONS", http.Header{"Origin": {app}}, 401, app},
		{"two methods asked for", "OPTIONS", http.Header{"Origin": {app}, "Access-Control-Request-Method": {"GET", "PUT"}}, 401, app},
		{"a list of methods asked for", "OPTIONS", http.Header{"Origin": {app}, "Access-Control-Request-Method": {"GET, PUT"}}, 401, app},
		{"another method", "GET", http.Header{"Origin": {app}, "Access-Control-Request-Method": {"GET"}}, 401, app},
		{"the method in lower case", "options", http.Header{"Origin": {app}, "Access-Control-Request-Method": {"GET"}}, 401, app},
		{"the method by a header", "POST", http.Header{"Origin": {app}, "Access-Control-Request-Method": {"GET"}, "X-Http-Method-Override": {"OPTIONS"}}, 401, app},
		{"odd headers asked for", "OPTIONS", http.Header{"Origin": {app}, "Access-Control-Request-Method": {"GET"}, "Access-Control-Request-Headers": {`dpop, "x", a b, é, <script>`}}, 204, app},
	} {
		t.Run(row.attack, func(t *testing.T) {
			a := call{method: row.method, url: g.url, header: row.header}.send(t)
			if a.StatusCode != row.status || a.Header.Get("Access-Control-Allow-Origin") != row.allowed || len(a.Header.Values("Access-Control-Allow-Origin")) > 1 {
				t.Errorf("answered %d for %q", a.StatusCode, a.Header.Values("Access-Control-Allow-Origin"))
			}
			if names := a.Header.Get("Access-Control-Allow-Headers"); names != "" && names != "dpop" {
				t.Errorf("headers %q are allowed", names)
			}
			if a.Header.Get("Access-Control-Allow-Credentials") != "" {
				t.Error("credentials are allowed")
			}
			g.backend.none(t)
		})
	}
}
