package caddydpop

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"net/textproto"
	"net/url"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"
	"unicode"

	"github.com/caddyserver/caddy/v2"
	"github.com/caddyserver/caddy/v2/caddyconfig/caddyfile"
	"github.com/caddyserver/caddy/v2/modules/caddyhttp"
	"go.uber.org/zap"

	"github.com/caddy-dpop/caddy-dpop/internal/jose"
	"github.com/caddy-dpop/caddy-dpop/internal/proof"
)

// bothSchemes are the credentials that count (RFC 9110 §11.4, RFC 9449 §7.1).
var bothSchemes = regexp.MustCompile(`^(?i:dpop|bearer) +[A-Za-z0-9._~+/-]+=*$`)

// FuzzAuthorization holds what is taken for credentials beside their grammar.
func FuzzAuthorization(f *testing.F) {
	for _, seed := range []string{"", "DPoP a", "dpop   a.b.c==", "Bearer x", "DPoP", "DPoP ", "DPoP a b", "DPoP\ta", "DPoP =", "Basic a", "DPoP a,b", "\u212aPoP a", "DPoP a=b"} {
		f.Add(seed)
	}
	h := &Handler{mode: ModeOptional}
	f.Fuzz(func(t *testing.T, field string) {
		creds, failed := h.credentials(&request{authorization: []string{field}, url: new(url.URL)})
		good := bothSchemes.MatchString(field)
		if good {
			_, token, _ := strings.Cut(field, " ")
			token = strings.TrimLeft(token, " ")
			good = len(token) <= 16<<10
			if failed == nil && creds.token != token {
				t.Fatalf("%q: the token is %q", field, creds.token)
			}
		}
		if (failed == nil) != good {
			t.Fatalf("%q: %+v, %v", field, creds, failed)
		}
		if failed == nil && !strings.EqualFold(string(creds.scheme), field[:len(creds.scheme)]) {
			t.Fatalf("%q: the scheme is %s", field, creds.scheme)
		}
		for _, several := range [][]string{{field, field}, {field, ""}, {"", field}} {
			if _, failed := h.credentials(&request{authorization: several, url: new(url.URL)}); failed == nil {
				t.Fatalf("%q: accepted", several)
			}
		}
	})
}

// FuzzTokenInQuery holds that no token is in a query that net/url finds there.
func FuzzTokenInQuery(f *testing.F) {
	for _, seed := range []string{"", "access_token=x", "a=b&access%5Ftoken", "ACCESS_TOKEN=", "access.token[]=x", "a;access_token", "access_tokens=1", "%zz&access_token=x", "a=access_token", "+access_token"} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, query string) {
		values, _ := url.ParseQuery(query) // what it can make of it
		for name := range values {
			if strings.EqualFold(name, "access_token") && !tokenInQuery(query) {
				t.Fatalf("%q has %q", query, name)
			}
		}
		if tokenInQuery(query) && !tokenInQuery("a=b&"+query) {
			t.Fatalf("%q has one, and none after another parameter", query)
		}
	})
}

// FuzzTarget holds the path that a proof must name beside what net/http makes of a
// request line.
func FuzzTarget(f *testing.F) {
	for _, seed := range []string{
		"/", "/a/../b?c#d", "/a%2Fb|c", "//x", "http://h/a", "http://h", "HTTPS://h?x://y/z", "*", "/caf\xc3\xa9", "/%zz", "/a\\b", "http:/a", "ftp://h/a", "http://u@h/a", "/a://b/../c", "/%2e%2E/x", "h:80",
	} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, target string) {
		r, err := http.ReadRequest(bufio.NewReader(strings.NewReader("GET " + target + " HTTP/1.1\r\nHost: h\r\n\r\n")))
		if err != nil || r.RequestURI != target {
			return
		}
		path, failed := targetPath(&request{target: r.RequestURI, url: r.URL})
		if failed != nil {
			return
		}
		if again, err := proof.NormalizePath(path); err != nil || again != path {
			t.Fatalf("%q: its path %q is not in normal form, but %q, %v", target, path, again, err)
		}
		if strings.ContainsAny(path, "?#") || strings.Contains(target, "#") {
			t.Fatalf("%q: its path is %q", target, path)
		}
		// Without dots a decoded path is the decoded path of net/url, to which Caddy
		// and upstreams go.
		if decoded, err := url.PathUnescape(path); err != nil || !strings.Contains(target, ".") && !strings.Contains(strings.ToLower(target), "%2e") && decoded != r.URL.Path && r.URL.Path != "" {
			t.Fatalf("%q: its path is %q, and by net/url %q: %v", target, decoded, r.URL.Path, err)
		}
	})
}

// FuzzConnection holds that nothing that a client lists in Connection takes away
// what the handler has set, by the rule that Caddy's proxy goes by.
func FuzzConnection(f *testing.F) {
	for _, seed := range []string{"close", "Authorization", " x-user\t, DPoP", "AUTHORIZATION,,X-User;q=1", "\u00a0Authorization", "Upgrade, X-User\x0b"} {
		f.Add(seed, "")
		f.Add(seed, seed)
	}
	h := &Handler{upstream: UpstreamBearer, claimHeaders: []ClaimHeader{{"X-User", "sub"}}}
	claims, err := jose.ParseObject([]byte(`{"sub":"user-1"}`))
	if err != nil {
		f.Fatal(err)
	}
	f.Fuzz(func(t *testing.T, one, two string) {
		header := http.Header{"Connection": {one, two}, "X-Other": {"1"}}
		h.rewrite(header, &request{user: &access{asBearer("token"), claims}})
		for _, field := range header["Connection"] { // as Caddy's reverse_proxy does
			for option := range strings.SplitSeq(field, ",") {
				if option = textproto.TrimString(option); option != "" {
					header.Del(option)
				}
			}
		}
		if header.Get("Authorization") != "Bearer token" || header.Get("X-User") != "user-1" {
			t.Fatalf("%q and %q leave %v", one, two, header)
		}
	})
}

// FuzzForged holds that no spelling of a claim's header is left that an upstream
// may take for it, and that no other header goes.
func FuzzForged(f *testing.F) {
	for _, seed := range []string{"X-User", "x_user", "X.User", "X-Users", "XUser", "X--User", "X-User-", "Y-User"} {
		f.Add(seed)
	}
	h := &Handler{claimHeaders: []ClaimHeader{{"X-User", "sub"}}}
	f.Fuzz(func(t *testing.T, name string) {
		header := http.Header{name: {"forged"}}
		h.removeForged(&http.Request{Header: header}, new(request))
		_, left := header[name]
		if alias := strings.NewReplacer("_", "-", ".", "-").Replace(name); left && strings.EqualFold(alias, "X-User") {
			t.Fatalf("%q is left", name)
		}
		if letters := notLetters.ReplaceAllString(name, ""); !left && !strings.EqualFold(letters, "XUser") {
			t.Fatalf("%q is gone", name)
		}
	})
}

var notLetters = regexp.MustCompile(`[^A-Za-z0-9]`)

// FuzzCORS holds that an answer allows one origin at most, one of the list, and
// has no line break that was not there.
func FuzzCORS(f *testing.F) {
	f.Add("https://app.example.com", "GET", "authorization, dpop", "X-Total, dpop-nonce")
	f.Add("null", "*", "a\r\nb", ",,")
	f.Add("https://app.example.com,https://evil.example", "G T", `"x"`, "")
	h := &Handler{origins: []string{"https://app.example.com", "http://localhost:3000"}}
	f.Fuzz(func(t *testing.T, origin, method, headers, exposed string) {
		r := httptest.NewRequest("OPTIONS", "/", nil)
		r.Header = http.Header{"Origin": {origin}, "Access-Control-Request-Method": {method}, "Access-Control-Request-Headers": {headers}}
		w := httptest.NewRecorder()
		c := h.corsFor(r)
		answered := c.preflight(w, r, &request{method: "OPTIONS"})
		header := http.Header{"Access-Control-Expose-Headers": {exposed}, "Access-Control-Allow-Origin": {"*"}, "Access-Control-Allow-Credentials": {"true"}}
		c.apply(header)
		for _, got := range []http.Header{w.Header(), header} {
			allowed := got["Access-Control-Allow-Origin"]
			if len(allowed) > 1 || len(allowed) == 1 && (allowed[0] != origin || !slices.Contains(h.origins, origin)) || got["Access-Control-Allow-Credentials"] != nil {
				t.Fatalf("%q may read it: %v", origin, got)
			}
		}
		if answered && strings.ContainsAny(fmt.Sprint(w.Header()), "\r\n") {
			t.Fatalf("%q", w.Header())
		}
	})
}

// FuzzCaddyfile holds that settings are understood or refused, and mean the same in
// JSON.
func FuzzCaddyfile(f *testing.F) {
	const issuer = "issuer https://issuer.example {\n%s\n}\naudience a\n%s"
	for _, seed := range [][2]string{
		{"", ""}, {"introspection {\nauth none\n}", "nonce required {\nsecret \"0123456789012345678901234567890123456789\"\n}"}, {"algorithms ES256\ntoken_types - JWT", "replay memory {\nmax_entries 5\n}"},
		{"timeout 1s\nca /nonexistent", "proof {\nalgorithms ES256\nmax_age 10s\n}\nclock_skew 0s"}, {"jwks_url https://a.example", "claim_header X-User a.b\nrequire_claim a b c\nrequire_scope a\nrequire_acr b\nmax_auth_age 5m"},
		{"", "resource https://a.example/b {\nname x\nscopes a\n}\ncors https://a.example\nrealm x\nname y\nupstream_token none"}, {"", "public_url https://a.example/b https://c.example\nmode report"}, {"", "mode {env.X}"},
		{"", "replay redis {\naddress a:1\n}"}, {"", "replay off"}, {"allow_http\nallow_http", ""}, {"introspection {\nclient_cert a\n}", ""}, {"}", "{"},
	} {
		f.Add(fmt.Sprintf("dpop {\n"+issuer+"\n}", seed[0], seed[1]))
	}
	f.Add("dpop strict")
	f.Add("dpop report {\nmode strict\n}")
	f.Fuzz(func(t *testing.T, text string) {
		var h Handler
		if err := h.UnmarshalCaddyfile(caddyfile.NewTestDispenser(text)); err != nil {
			if err.Error() == "" {
				t.Fatalf("%q: refused without a word", text)
			}
			return
		}
		written, err := json.Marshal(h)
		if err != nil {
			t.Fatalf("%q: %v", text, err)
		}
		var read Handler
		if err := json.Unmarshal(written, &read); err != nil {
			t.Fatalf("%q: as JSON it is refused: %v\n%s", text, err, written)
		}
		again, err := json.Marshal(read)
		if err != nil || !bytes.Equal(again, written) {
			t.Fatalf("%q: as JSON it is another: %v\n%s\n%s", text, err, written, again)
		}
		if !strings.Contains(text, "{") || len(h.Issuers) == 0 {
			t.Fatalf("%q: accepted without an issuer", text)
		}
	})
}

// FuzzSettings holds that JSON settings are read by their exact names, each once.
func FuzzSettings(f *testing.F) {
	for _, seed := range []string{
		`{"issuers":[{"issuer":"https://a.example"}],"audiences":["a"]}`, `{"mode":"strict","Mode":"report"}`, `{"proof":{"max_age":"1s"}}`, `{"proof":{"Max_age":1}}`, `{"issuers":[null]}`,
		`{"claim_headers":[{"header":"a","path":"b"}],"nonce":{"secrets":[]},"replay":{"store":"off","x":{"a":1,"a":2}}}`, `{"cors":{"origins":["*"]},"resource":{}}`, `{"clock_skew":10}`, `[]`, `null`,
	} {
		f.Add([]byte(seed))
	}
	f.Fuzz(func(t *testing.T, text []byte) {
		var h Handler
		if h.UnmarshalJSON(text) != nil {
			return
		}
		object, err := jose.ParseObject(text)
		if err != nil {
			t.Fatalf("%s: accepted: %v", text, err)
		}
		written, err := json.Marshal(h)
		if err != nil {
			t.Fatalf("%s: %v", text, err)
		}
		var names map[string]json.RawMessage
		if err := json.Unmarshal(written, &names); err != nil {
			t.Fatal(err)
		}
		for _, name := range object.Names() {
			if value, _ := object.Get(name); names[name] == nil && !isZero(value) {
				t.Fatalf("%s: what became of %s?\n%s", text, name, written)
			}
		}
	})
}

// isZero reports whether a value is left out when settings are written.
func isZero(value jose.Value) bool {
	zero := regexp.MustCompile(`^(null|false|0|""|\[\]|\{\})$`)
	if object, ok := value.Object(); ok {
		for _, name := range object.Names() {
			if inner, _ := object.Get(name); !isZero(inner) {
				return false
			}
		}
		return true
	}
	text := value.Compact()
	return zero.MatchString(text) || regexp.MustCompile(`^"?[-+]?[0.eEnµumhsd+-]*"?$`).MatchString(text)
}

// fuzzed is a handler at a fixed time, whose replay store is off.
func fuzzed(f *testing.F, mode Mode, keys string) *Handler {
	h := &Handler{
		Mode:         mode,
		Issuers:      []*Issuer{{Issuer: "https://issuer.example", JWKSFile: keys}},
		Audiences:    []string{"https://api.example.com"},
		ReplayRaw:    json.RawMessage(`{"store":"off"}`),
		ClaimHeaders: []ClaimHeader{{"X-User", "sub"}},
	}
	if err := h.Provision(newContext(f)); err != nil {
		f.Fatal(err)
	}
	f.Cleanup(func() { _ = h.Cleanup() })
	h.logger = zap.NewNop()
	h.now = func() time.Time { return time.Unix(1_800_000_000, 0) }
	return h
}

// FuzzServeHTTP sends requests as bytes through the whole handler, in each mode:
// what is forwarded is what was meant to be, and what is refused is refused in order.
func FuzzServeHTTP(f *testing.F) {
	generate := func() *jose.PrivateKey {
		key, err := jose.Generate(jose.AllAlgorithms().Find("EdDSA"))
		if err != nil {
			f.Fatal(err)
		}
		return key
	}
	issuer, client := generate(), generate()
	keys := filepath.Join(f.TempDir(), "keys.json")
	if err := os.WriteFile(keys, fmt.Appendf(nil, `{"keys":[%s]}`, issuer.Public), 0o600); err != nil {
		f.Fatal(err)
	}
	handlers := []*Handler{fuzzed(f, ModeStrict, keys), fuzzed(f, ModeOptional, keys), fuzzed(f, ModeReport, keys)}
	sign := func(changes map[string]any) string {
		claims := map[string]any{"iss": "https://issuer.example", "aud": "https://api.example.com", "sub": "user-1", "exp": 1_900_000_000, "cnf": map[string]any{"jkt": client.Thumbprint}}
		for name, value := range changes {
			if claims[name] = value; value == nil {
				delete(claims, name)
			}
		}
		token, err := issuer.Sign(map[string]any{"typ": "at+jwt"}, claims)
		if err != nil {
			f.Fatal(err)
		}
		return token
	}
	bound, unbound := sign(nil), sign(map[string]any{"cnf": nil})
	prove := func(method, path, token string) string {
		text, err := proof.Sign(client, proof.Claims{Method: method, URL: "http://api.example.com" + path, Token: token, IssuedAt: time.Unix(1_800_000_000, 0)})
		if err != nil {
			f.Fatal(err)
		}
		return text
	}
	const host = "Host: api.example.com\r\n"
	good := "Authorization: DPoP " + bound + "\r\nDPoP: " + prove("GET", "/orders", bound) + "\r\n"
	for _, seed := range []string{
		"GET /orders HTTP/1.1\r\n" + host + good,
		"GET /orders?a=b HTTP/1.1\r\n" + host + good + "X-User: admin\r\nx_user: admin\r\nConnection: Authorization, X-User\r\nUpgrade: h2c\r\n",
		"GET http://api.example.com/orders HTTP/1.1\r\n" + host + good,
		"POST /orders HTTP/1.1\r\n" + host + good + "Content-Length: 4\r\n",
		"GET /orders HTTP/1.1\r\n" + host + "Authorization: Bearer " + unbound + "\r\n",
		"GET /orders HTTP/1.1\r\n" + host + "Authorization: Bearer " + bound + "\r\n",
		"GET /orders HTTP/1.1\r\n" + host + "Authorization: DPoP " + unbound + "\r\nDPoP: " + prove("GET", "/orders", unbound) + "\r\n",
		"GET /orders HTTP/1.1\r\n" + host + good + good,
		"OPTIONS * HTTP/1.1\r\n" + host, "CONNECT a:1 HTTP/1.1\r\n" + host,
		"PUT /orders HTTP/1.1\r\n" + host + good + "Transfer-Encoding: chunked\r\nTrailer: X-User, Authorization\r\n",
	} {
		f.Add([]byte(seed + "\r\n"))
	}
	f.Fuzz(func(t *testing.T, text []byte) {
		for _, h := range handlers {
			r, err := http.ReadRequest(bufio.NewReader(bytes.NewReader(text)))
			if err != nil {
				return
			}
			serve(t, h, r, text)
		}
	})
}

func serve(t *testing.T, h *Handler, r *http.Request, text []byte) {
	repl := caddy.NewReplacer()
	ctx := context.WithValue(r.Context(), caddy.ReplacerCtxKey, repl)
	ctx = context.WithValue(ctx, caddyhttp.VarsCtxKey, make(map[string]any))
	ctx = context.WithValue(ctx, caddyhttp.OriginalRequestCtxKey, *r)
	r = r.WithContext(ctx)
	before := r.Header.Clone()
	forwarded := false
	next := caddyhttp.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) error {
		forwarded = true
		_, _ = io.Copy(io.Discard, r.Body)
		return nil
	})
	w := httptest.NewRecorder()
	err := h.ServeHTTP(w, r, next)
	outcome, _ := repl.GetString("http.dpop.outcome")
	if (err == nil) != forwarded || forwarded == (outcome == string(refused)) {
		t.Fatalf("%q in %s mode: forwarded %t, %s, %v", text, h.mode, forwarded, outcome, err)
	}
	for name := range r.Header {
		if h.isClaimHeader(name) && (name != "X-User" || outcome != string(accepted)) {
			t.Fatalf("%q in %s mode: %s is forwarded", text, h.mode, name)
		}
	}
	if slices.ContainsFunc(r.Header["Upgrade"], func(value string) bool {
		return strings.Contains(strings.ToLower(value), "h2c") && !strings.ContainsAny(value, "/;\"") && len(value) == 3
	}) {
		t.Fatalf("%q in %s mode: an upgrade to h2c is forwarded", text, h.mode)
	}
	switch outcome {
	case string(accepted):
		sent, _ := bothSchemesToken(before["Authorization"])
		if got := r.Header["Authorization"]; len(got) != 1 || got[0] != "Bearer "+sent || sent == "" || r.Header["Dpop"] != nil || r.Header["Dpop-Nonce"] != nil {
			t.Fatalf("%q in %s mode: forwarded with %v", text, h.mode, r.Header)
		}
		if scheme, _ := repl.GetString("http.dpop.scheme"); scheme == "DPoP" && len(before["Dpop"]) != 1 || scheme == "Bearer" && (h.mode == ModeStrict || len(before["Dpop"]) != 0) {
			t.Fatalf("%q in %s mode: accepted under %s", text, h.mode, scheme)
		}
		if user := r.Header["X-User"]; len(user) != 1 || user[0] != "user-1" {
			t.Fatalf("%q in %s mode: X-User %q", text, h.mode, user)
		}
	case string(reported):
		for _, name := range []string{"Authorization", "Dpop"} {
			if !slices.Equal(r.Header[name], before[name]) {
				t.Fatalf("%q: %s became %q", text, name, r.Header[name])
			}
		}
	case string(refused):
		var failed caddyhttp.HandlerError
		if !errors.As(err, &failed) || !slices.Contains([]int{400, 401, 403, 503}, failed.StatusCode) {
			t.Fatalf("%q in %s mode: %v", text, h.mode, err)
		}
		challenges := w.Header()["Www-Authenticate"]
		if len(challenges) == 0 || w.Header().Get("Cache-Control") != "no-store" {
			t.Fatalf("%q in %s mode: answered %v", text, h.mode, w.Header())
		}
		for _, challenge := range challenges {
			if strings.ContainsFunc(challenge, func(r rune) bool { return r > unicode.MaxASCII || unicode.IsControl(r) }) {
				t.Fatalf("%q in %s mode: challenge %q", text, h.mode, challenge)
			}
		}
	default:
		t.Fatalf("%q in %s mode: %q", text, h.mode, outcome)
	}
}

// bothSchemesToken is the token of the one field that there must be.
func bothSchemesToken(fields []string) (string, bool) {
	if len(fields) != 1 || !bothSchemes.MatchString(fields[0]) {
		return "", false
	}
	_, token, _ := strings.Cut(fields[0], " ")
	return strings.TrimLeft(token, " "), true
}
