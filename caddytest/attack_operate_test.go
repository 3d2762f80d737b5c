package caddytest

import (
	"crypto/rand"
	"encoding/json"
	"fmt"
	"net/http"
	"net/http/httptest"
	"net/url"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/caddy-dpop/caddy-dpop/internal/failure"
)

// hostile are requests that put a text everywhere that a client can: one for each
// way to be refused that looks at it.
func hostile(t *testing.T, g *gateway, text string) []call {
	t.Helper()
	quoted, err := json.Marshal(text)
	if err != nil {
		t.Fatal(err)
	}
	inURL := url.PathEscape(text)
	key, target := forgers()["ES256"], g.url+"/"+inURL+"?q="+inURL
	token := key.boundTo(t)
	by := func(options ...option) call {
		return call{url: target, header: credentials(token, proofBy(key, "GET", target, token, options...))}
	}
	of := func(options ...option) call {
		token := tokenBy(forgers()["RS256"], options...)
		return call{url: target, header: credentials(token, proofBy(key, "GET", target, token))}
	}
	clean := strings.NewReplacer("\r", "", "\n", "", "\x1b", "").Replace(text) // what a field may hold
	plain := regexp.MustCompile(`[^a-z]`).ReplaceAllString(text, "")
	calls := []call{
		{url: target, header: http.Header{"Authorization": {clean}}},
		{url: target, header: http.Header{"Authorization": {plain + " x"}}},
		{url: target, header: http.Header{"Authorization": {"DPoP " + plain}, "Dpop": {clean}}},
		{url: target, header: http.Header{"User-Agent": {clean}, "Origin": {clean}, "Referer": {clean}}},
		{url: g.url, host: plain + ".example", header: credentials("x", "y")},
		{method: plain, url: target, header: credentials(token, "x")},
		by(head("dpop+jwt", plain)), by(head(`"ES256"`, `"`+plain+`"`)), by(head(`"P-256"`, string(quoted))), by(head(`"EC"`, string(quoted))), by(member("crit", string(quoted))),
		by(claim("htm", string(quoted))), by(claim("htu", string(quoted))), by(claim("htu", `"https://`+plain+`.example/`+inURL+`"`)), by(claim("ath", string(quoted))),
		by(claim("jti", string(quoted)), claim("iat", "1")), by(claim("nonce", string(quoted)), claim("iat", "1")), by(claim("iat", string(quoted))), by(claim("exp", string(quoted))),
		of(claim("iss", string(quoted))), of(head(`"kid":"RS256"`, `"kid":`+string(quoted))), of(head(`"at+jwt"`, string(quoted))), of(head(`"alg":"RS256"`, `"alg":`+string(quoted))),
		of(claim("aud", string(quoted))), of(claim("sub", string(quoted)), claim("aud", `"x"`)), of(claim("client_id", string(quoted)), claim("exp", "1")), of(claim("scope", string(quoted))), of(claim("cnf", string(quoted))),
	}
	return calls
}

// whatever is refused says nothing of what a client sent, in no header and no text.
func TestAttackEchoes(t *testing.T) {
	ec, rsaKey := forgers()["ES256"], forgers()["RS256"]
	for _, settings := range []string{"", "mode optional; realm x; require_scope a; require_acr b", "nonce required", "cors " + app} {
		g := serve(t, setup{address: "http://:{{PORT}}", site: "dpop {\nissuer " + localIssuer + " {\njwks_file " + keyFile(t, ec, rsaKey) + "\n}\naudience " + audience + "\n" +
			strings.ReplaceAll(settings, ";", "\n") + "\n}\nreverse_proxy {{BACKEND}}"})
		mark := "zq" + strings.ToLower(rand.Text()[:8])
		mark = regexp.MustCompile(`[^a-z]`).ReplaceAllString(mark, "z")
		for n, c := range hostile(t, g, mark) {
			a := c.send(t)
			if a.StatusCode < 400 {
				t.Fatalf("request %d was answered %d", n, a.StatusCode)
			}
			for name, values := range a.Header {
				if strings.Contains(strings.ToLower(fmt.Sprint(values)), mark) {
					t.Errorf("request %d: %s: %q", n, name, values)
				}
			}
			if strings.Contains(strings.ToLower(a.text), mark) {
				t.Errorf("request %d: answered %q", n, a.text)
			}
			g.backend.none(t)
		}
	}
}

// Nobody writes a line of the log, or a terminal's commands, by what is in a
// request or in a token (CWE-117, CWE-150), in either of Caddy's formats; and no line
// is longer than it needs to be.
func TestAttackLogs(t *testing.T) {
	const forged = "x\r\n{\"level\":\"info\",\"msg\":\"forged\"}\n2026/01/01 00:00:00.000\tINFO\tforged\x1b[2J\u2028end"
	for _, format := range []string{"format json", "format console"} {
		t.Run(format, func(t *testing.T) {
			ec, rsaKey := forgers()["ES256"], forgers()["RS256"]
			g := serve(t, setup{address: "http://:{{PORT}}", format: format, site: "dpop {\nissuer " + localIssuer + " {\njwks_file " + keyFile(t, ec, rsaKey) + "\n}\naudience " + audience + "\nrequire_scope a\nclaim_header X-User sub\n}\nreverse_proxy {{BACKEND}}"})
			before := logLines(t, g.logs)
			calls := hostile(t, g, forged)
			for _, c := range calls {
				c.send(t)
			}
			var ours []string
			for deadline := time.Now().Add(5 * time.Second); len(ours) < len(calls); time.Sleep(10 * time.Millisecond) {
				ours = nil
				for _, line := range logLines(t, g.logs)[len(before):] {
					if strings.Contains(line, "http.handlers.dpop") && strings.Contains(line, "refused request") {
						ours = append(ours, line)
					}
				}
				if time.Now().After(deadline) {
					t.Fatalf("%d lines for %d refusals", len(ours), len(calls))
				}
			}
			if len(ours) != len(calls) {
				t.Errorf("%d lines for %d refusals", len(ours), len(calls))
			}
			for _, line := range ours {
				if strings.Contains(line, "\x1b[2J") || strings.Contains(line, "\r") || strings.HasPrefix(line, `{"level":"info","msg":"forged"`) || strings.HasPrefix(line, "2026/01/01") {
					t.Errorf("logged %q", line)
				}
				if len(line) > 2000 {
					t.Errorf("a line of %d bytes", len(line))
				}
			}
		})
	}
}

func logLines(t *testing.T, file string) []string {
	t.Helper()
	text, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	return strings.Split(strings.TrimSuffix(string(text), "\n"), "\n")
}

// A token in the query is one that somebody may still use: of the target, the
// plugin's own lines have the path alone (RFC 6750 §5.3).
func TestAttackLogsHoldNoQuery(t *testing.T) {
	g := attacked(t, "")
	secret := "zq" + rand.Text()
	c := good(t, g.url+"/?access_token="+secret)
	g.because(t, c.send(t).Response, "token_in_query")
	await(t, g.logs, func(e entry) bool { return e["reason"] == "token_in_query" })
	for _, line := range logLines(t, g.logs) {
		if strings.Contains(line, "http.handlers.dpop") && strings.Contains(line, secret) {
			t.Errorf("logged %s", line)
		}
	}
}

// What a client chooses is cut short in the log: nobody fills a disk with one
// request (CWE-779).
func TestAttackLongLogLines(t *testing.T) {
	ec := forgers()["ES256"]
	g := attackedIssuer(t, "require_scope a", ec)
	long := strings.Repeat("x", 5000)
	token := tokenBy(ec)
	for _, row := range []struct {
		what   string
		call   call
		reason failure.Reason
	}{
		{"a path", call{url: g.url + "/" + long, header: credentials(token, "x")}, failure.ProofMalformed},
		{"a host in htu", call{url: g.url, header: credentials(token, dpop(t, "GET", "https://"+long+".example/", token, nil))}, failure.ProofURL},
		{"an htm", call{url: g.url, header: credentials(token, dpop(t, long, g.url, token, nil))}, failure.ProofMethod},
		{"scopes", withToken(t, g, tokenBy(ec, claim("scope", `"`+long+`"`))), failure.ScopeMissing},
		{"a typ", withToken(t, g, tokenBy(ec, head("at+jwt", long))), failure.TokenType},
		{"an audience", withToken(t, g, tokenBy(ec, claim("aud", `"`+long+`"`))), failure.TokenAudience},
		{"a client", withToken(t, g, tokenBy(ec, claim("client_id", `"`+long+`"`), claim("exp", "1"))), failure.TokenExpired},
	} {
		t.Run(row.what, func(t *testing.T) {
			row.call.send(t)
			line := await(t, g.logs, func(e entry) bool { return e["msg"] == "refused request" && e["reason"] == string(row.reason) })
			text, err := json.Marshal(line)
			if err != nil {
				t.Fatal(err)
			}
			if len(text) > 2000 {
				t.Errorf("a line of %d bytes", len(text))
			}
		})
	}
}

// What an issuer says of itself is cut short in the log and in the status, too.
func TestAttackLongIssuerErrors(t *testing.T) {
	var metadata string
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { fmt.Fprint(w, metadata) }))
	t.Cleanup(server.Close)
	metadata = fmt.Sprintf(`{"issuer":%q,"jwks_uri":"http://127.0.0.1:1/%s"}`, server.URL, strings.Repeat("x", 100_000))
	g := serve(t, setup{site: "dpop {\nissuer " + server.URL + "\naudience " + audience + "\nname long-errors\n}\nreverse_proxy {{BACKEND}}"})
	withToken(t, g, accessToken(t, map[string]any{"iss": server.URL})).send(t).expect(t, 503)
	line := await(t, g.logs, func(e entry) bool {
		return e["handler"] == "long-errors" && e["reason"] == string(failure.KeysUnavailable)
	})
	text, err := json.Marshal(line)
	if err != nil {
		t.Fatal(err)
	}
	_, status := admin(t, "GET", "/dpop/status", nil)
	if len(text) > 5000 {
		t.Errorf("a line of %d bytes", len(text))
	}
	if len(status) > 20_000 {
		t.Errorf("a status of %d bytes", len(status))
	}
}

// A client makes no series of metrics: there are as many as outcomes, reasons and
// schemes, whatever is sent.
func TestAttackMetricLabels(t *testing.T) {
	s := startServer(t)
	g := serve(t, setup{address: "http://:{{PORT}}", site: s.site("name attacked-metrics\nmode optional", "cache 0s")})
	send := func() {
		for n, c := range hostile(t, g, "zq"+strings.ToLower(rand.Text())) {
			a := c.send(t)
			if a.StatusCode < 400 {
				t.Fatalf("request %d was answered %d", n, a.StatusCode)
			}
		}
		for range 5 {
			withToken(t, g, rand.Text()).send(t)
			iss := accessToken(t, map[string]any{"iss": "https://" + rand.Text() + ".example"})
			withToken(t, g, iss).send(t)
		}
	}
	series := func() map[string]bool {
		all := make(map[string]bool)
		_, text := admin(t, "GET", "/metrics", nil)
		for line := range strings.Lines(text) {
			if name, _, ok := strings.Cut(line, " "); ok && strings.HasPrefix(name, "caddy_dpop_") {
				all[name] = true
			}
		}
		return all
	}
	send()
	before := series()
	if len(before) < 20 {
		t.Fatalf("only %d series", len(before))
	}
	send()
	for name := range series() {
		if !before[name] {
			t.Errorf("a new series: %s", name)
		}
	}
	labels := regexp.MustCompile(`^(accepted|refused|reported)\|[a-z_]*\|(DPoP|Bearer|)$`)
	requests := regexp.MustCompile(`^caddy_dpop_requests_total\{handler="attacked-metrics",outcome="(.*)",reason="(.*)",scheme="(.*)"\}$`)
	for name := range before {
		if found := requests.FindStringSubmatch(name); found != nil && !labels.MatchString(strings.Join(found[1:], "|")) {
			t.Errorf("labels of %s", name)
		}
	}
}

// No secret of the settings is in the status, in an answer, or in a log: also not
// when what it is for fails.
func TestAttackSecrets(t *testing.T) {
	const clientSecret, ownToken, nonceSecret, inURL = "SECRET-of-the-client", "SECRET-bearer-token", "SECRET-of-nonces-that-is-long-enough", "SECRET-in-a-url"
	failing := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if strings.HasSuffix(r.URL.Path, "/hang-up") {
			panic(http.ErrAbortHandler)
		}
		w.WriteHeader(http.StatusInternalServerError)
	}))
	t.Cleanup(failing.Close)
	issuerOf := func(n int) string { return fmt.Sprintf("%s/%d", failing.URL, n) }
	block := func(n int, settings string) string {
		return fmt.Sprintf("handle /%d {\ndpop {\nissuer %s {\n%s\n}\naudience %s\nname secrets-%d\nnonce required {\nsecret %q\n}\n}\nreverse_proxy {{BACKEND}}\n}\n", n, issuerOf(n), settings, audience, n, nonceSecret)
	}
	g := serve(t, setup{site: block(0, "introspection {\nclient_id gateway\nclient_secret "+clientSecret+"\n}") +
		block(1, "introspection "+issuerOf(1)+"/hang-up {\nauth bearer\nbearer_token "+ownToken+"\n}") +
		block(2, "jwks_url "+issuerOf(2)+"?key="+inURL) + block(3, "jwks_url "+issuerOf(3)+"/hang-up?key="+inURL)})
	for n := range 4 {
		target := fmt.Sprintf("%s/%d", g.url, n)
		nonce := call{url: target, header: credentials("x", dpop(t, "GET", target, "x", nil))}.send(t).nonceOf(t)
		for _, token := range []string{"opaque", accessToken(t, map[string]any{"iss": issuerOf(n)})} {
			call{url: target, header: credentials(token, dpop(t, "GET", target, token, map[string]any{"nonce": nonce}))}.send(t)
		}
	}
	await(t, g.logs, func(e entry) bool { return e["handler"] == "secrets-3" && e["reason"] == "keys_unavailable" })
	_, status := admin(t, "GET", "/dpop/status", nil)
	log, err := os.ReadFile(g.logs)
	if err != nil {
		t.Fatal(err)
	}
	var ours strings.Builder // Caddy itself logs the configuration's adapter warnings, not settings
	for line := range strings.Lines(string(log)) {
		if strings.Contains(line, "dpop") {
			ours.WriteString(line)
		}
	}
	for _, secret := range []string{clientSecret, ownToken, nonceSecret, inURL} {
		if strings.Contains(status, secret) {
			t.Errorf("the status holds %s", secret)
		}
		if strings.Contains(ours.String(), secret) {
			t.Errorf("the log holds %s", secret)
		}
	}
	if private := filepath.Join(storage, "dpop", "nonce.key"); strings.Contains(status, private) {
		t.Errorf("the status holds %s", private)
	}
}
