package caddydpop

import (
	"context"
	"encoding/base64"
	"encoding/json"
	"errors"
	"maps"
	"math/rand/v2"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/caddyserver/caddy/v2"
	"github.com/caddyserver/caddy/v2/modules/caddyhttp"
	"go.uber.org/zap"

	"github.com/caddy-dpop/caddy-dpop/internal/authserver"
	"github.com/caddy-dpop/caddy-dpop/internal/failure"
	"github.com/caddy-dpop/caddy-dpop/internal/inspect"
	"github.com/caddy-dpop/caddy-dpop/internal/jose"
	"github.com/caddy-dpop/caddy-dpop/internal/proof"
)

// inspected is a site, and the settings by which inspect judges as it does.
type inspected struct {
	handler  *Handler
	settings inspect.Site
	issuer   *jose.PrivateKey
	client   *jose.PrivateKey
	other    *jose.PrivateKey
	now      time.Time
}

const inspectedURL = "https://api.example.com/orders"

func newInspected(t *testing.T, optional bool, nonces inspect.Nonces, settings ...func(*Handler)) *inspected {
	t.Helper()
	s := &inspected{now: time.Unix(1_700_000_000, 0)}
	es256 := jose.AllAlgorithms().Find("ES256")
	for _, key := range []**jose.PrivateKey{&s.issuer, &s.client, &s.other} {
		made, err := jose.Generate(es256)
		if err != nil {
			t.Fatal(err)
		}
		*key = made
	}
	keys, err := json.Marshal(map[string]any{"keys": []any{s.issuer.PublicJWK()}})
	if err != nil {
		t.Fatal(err)
	}
	file := filepath.Join(t.TempDir(), "keys.json")
	if err := os.WriteFile(file, keys, 0o600); err != nil {
		t.Fatal(err)
	}
	s.handler = &Handler{
		Mode:      ModeStrict,
		Issuers:   []*Issuer{{Issuer: "https://sso.example.com", JWKSFile: file}},
		Audiences: []string{"https://api.example.com"},
		Nonce:     Nonce{Mode: NonceMode(nonces), PerProcess: nonces != inspect.NoncesOff},
		ReplayRaw: json.RawMessage(`{"store":"off"}`),
	}
	if optional {
		s.handler.Mode = ModeOptional
	}
	for _, set := range settings {
		set(s.handler)
	}
	if err := s.handler.Provision(newContext(t)); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = s.handler.Cleanup() })
	s.handler.logger = zap.NewNop()
	s.handler.now = func() time.Time { return s.now }
	s.settings = commandPlugin().Defaults
	s.settings.Optional, s.settings.Nonces = optional, nonces
	s.settings.Rules.Issuer, s.settings.Rules.Audiences, s.settings.Rules.ClockSkew = "https://sso.example.com", s.handler.Audiences, defaultClockSkew
	if s.settings.Keys, err = authserver.NewKeyFile(file); err != nil {
		t.Fatal(err)
	}
	return s
}

// draft is a request to be made. Claims are the values of members; nil removes one.
type draft struct {
	method, url   string
	authorization []string // nil: made of the token
	proofs        []string // nil: made of the proof
	tokenHeader   map[string]any
	tokenClaims   map[string]any
	tokenKey      *jose.PrivateKey
	proofHeader   map[string]any
	proofClaims   map[string]any
	proofKey      *jose.PrivateKey
	scheme        string
	damageProof   bool
	damageToken   bool
	withoutATH    bool
}

func (s *inspected) draft() *draft {
	return &draft{
		method: "GET", url: inspectedURL, scheme: "DPoP", tokenKey: s.issuer, proofKey: s.client,
		tokenHeader: map[string]any{"typ": "at+jwt", "kid": s.issuer.ID},
		tokenClaims: map[string]any{
			"iss": "https://sso.example.com", "aud": "https://api.example.com", "sub": "user", "client_id": "client", "jti": "t-1",
			"iat": s.now.Unix() - 5, "exp": s.now.Unix() + 300, "cnf": map[string]any{"jkt": s.client.Thumbprint},
		},
		proofHeader: map[string]any{"typ": "dpop+jwt", "jwk": s.client.Public},
		proofClaims: map[string]any{"jti": "p-1", "htm": "GET", "htu": inspectedURL, "iat": s.now.Unix()},
	}
}

// capture makes the request.
func (d *draft) capture(t *testing.T) *inspect.Capture {
	t.Helper()
	target, err := inspect.ParseTarget(d.url)
	if err != nil {
		t.Fatal(err)
	}
	captured := &inspect.Capture{Authorization: d.authorization, Proof: d.proofs, Method: d.method, Target: target}
	token := signedWith(t, d.tokenKey, d.tokenHeader, d.tokenClaims)
	if d.damageToken {
		token = damaged(token)
	}
	if captured.Authorization == nil {
		captured.Authorization = []string{d.scheme + " " + token}
	} else if len(captured.Authorization) == 1 {
		_, token, _ = strings.Cut(captured.Authorization[0], " ")
	}
	if captured.Proof == nil {
		claims := maps.Clone(d.proofClaims)
		if _, set := claims["ath"]; !set && !d.withoutATH {
			claims["ath"] = proof.TokenHash(token)
		}
		text := signedWith(t, d.proofKey, d.proofHeader, claims)
		if d.damageProof {
			text = damaged(text)
		}
		captured.Proof = []string{text}
	}
	return captured
}

// damaged changes the signature of a JWS.
func damaged(text string) string {
	last := strings.LastIndexByte(text, '.') + 1
	b := []byte(text)
	if b[last] == 'A' {
		b[last] = 'B'
	} else {
		b[last] = 'A'
	}
	return string(b)
}

// signedWith signs a header that may have any alg.
func signedWith(t *testing.T, key *jose.PrivateKey, header, claims map[string]any) string {
	t.Helper()
	for _, part := range []map[string]any{header, claims} {
		maps.DeleteFunc(part, func(_ string, value any) bool { return value == nil })
	}
	text, err := key.Sign(header, claims)
	if err != nil {
		t.Fatal(err)
	}
	return text
}

// inspect returns the report on a request, and as it is written.
func (s *inspected) inspect(t *testing.T, captured *inspect.Capture) (*inspect.Report, string) {
	t.Helper()
	report := inspect.Run(commandPlugin().Gateway, &s.settings, captured, s.now)
	var text strings.Builder
	if err := report.Write(&text); err != nil {
		t.Fatal(err)
	}
	return report, text.String()
}

// reason returns why the gateway refuses the request; nothing if it accepts it.
func (s *inspected) reason(t *testing.T, captured *inspect.Capture) failure.Reason {
	t.Helper()
	target := captured.Target.URI.String()
	if captured.Target.Query != "" {
		target += "?" + captured.Target.Query
	}
	r := httptest.NewRequest(captured.Method, target, nil)
	r.Header["Authorization"], r.Header["Dpop"] = captured.Authorization, captured.Proof
	r = r.WithContext(context.WithValue(r.Context(), caddyhttp.VarsCtxKey, make(map[string]any)))
	err := s.handler.ServeHTTP(httptest.NewRecorder(), r, caddyhttp.HandlerFunc(func(http.ResponseWriter, *http.Request) error { return nil }))
	var f *failure.Failure
	if err != nil && !errors.As(err, &f) {
		t.Fatal(err)
	}
	if f == nil {
		return ""
	}
	return f.Reason
}

// newDemandingInspected is a site that sets what most leave as it is.
func newDemandingInspected(t *testing.T) *inspected {
	t.Helper()
	s := newInspected(t, false, inspect.NoncesOff, func(h *Handler) {
		h.Issuers[0].Algorithms, h.Issuers[0].Profile = []string{"ES256"}, profileRFC9068
		h.RequiredScopes = []string{"read", "write"}
		h.RequiredClaims = []RequiredClaim{{"realm_access.roles", []string{"admin", "owner"}}, {"tenant", []string{"a"}}}
		h.RequiredACR, h.MaxAuthAge = []string{"mfa", "hwk"}, caddy.Duration(5*time.Minute)
	})
	s.settings.Signatures, s.settings.Rules.RFC9068 = jose.Algorithms{jose.AllAlgorithms().Find("ES256")}, true
	s.settings.Demands = s.handler.demands
	return s
}

// demanded is a good request for such a site.
func (s *inspected) demanded() *draft {
	d := s.draft()
	maps.Copy(d.tokenClaims, map[string]any{
		"scope": "write read", "realm_access": map[string]any{"roles": []string{"owner"}}, "tenant": "a", "acr": "mfa", "auth_time": s.now.Unix() - 309,
	})
	return d
}

// What is about such settings fails that check alone, with the gateway's reason.
func TestInspectDemands(t *testing.T) {
	s := newDemandingInspected(t)
	if report, text := s.inspect(t, s.demanded().capture(t)); report.First() != nil || s.reason(t, s.demanded().capture(t)) != "" {
		t.Fatalf("a good request is refused:\n%s", text)
	}
	claim := func(name string, value any) func(*draft) { return func(d *draft) { d.tokenClaims[name] = value } }
	faults := []fault{
		{"alg of the token", failure.TokenAlgorithm, "token alg", func(d *draft) { d.tokenKey = generated(t, "ES512") }},
		{"typ of the token", failure.TokenType, "token typ", func(d *draft) { d.tokenHeader["typ"] = "JWT" }},
		{"no client_id", failure.TokenClaims, "token profile", claim("client_id", nil)},
		{"no jti", failure.TokenClaims, "token profile", claim("jti", nil)},
		{"a scope too few", failure.ScopeMissing, "required scope", claim("scope", "read writer")},
		{"no scope", failure.ScopeMissing, "required scope", claim("scope", nil)},
		{"another role", failure.ClaimMissing, "required realm_access.roles", claim("realm_access", map[string]any{"roles": []string{"user"}})},
		{"no tenant", failure.ClaimMissing, "required tenant", claim("tenant", nil)},
		{"a weak authentication", failure.AuthenticationWeak, "required acr", claim("acr", "pwd")},
		{"an old authentication", failure.AuthenticationOld, "required auth_time", claim("auth_time", s.now.Unix()-311)},
		{"an authentication of no time", failure.AuthenticationOld, "required auth_time", claim("auth_time", nil)},
	}
	for _, fault := range faults {
		t.Run(fault.name, func(t *testing.T) {
			d := s.demanded()
			fault.make(d)
			captured := d.capture(t)
			if got := s.reason(t, captured); got != fault.reason {
				t.Fatalf("the gateway says %q, want %q", got, fault.reason)
			}
			report, text := s.inspect(t, captured)
			failed := failing(report)
			if !slices.Equal(failed, []string{fault.check}) || report.First().Reason != fault.reason {
				t.Errorf("failed: %q, want %q for %s\n%s", failed, fault.check, fault.reason, text)
			}
			if _, advice, ok := strings.Cut(text, "  what to do  "); !ok || strings.HasPrefix(advice, "\n") {
				t.Errorf("no advice in\n%s", text)
			}
		})
	}
	random := rand.New(rand.NewPCG(1, 2))
	for range 500 {
		d := s.demanded()
		var made []string
		for range 2 + random.IntN(2) {
			fault := faults[random.IntN(len(faults))]
			fault.make(d)
			made = append(made, fault.name)
		}
		captured := d.capture(t)
		report, text := s.inspect(t, captured)
		if want := s.reason(t, captured); report.First() == nil || report.First().Reason != want {
			t.Fatalf("%v: %v; the gateway says %q\n%s", made, report.First(), want, text)
		}
	}
}

// failing are the names of the checks that fail.
func failing(report *inspect.Report) []string {
	var names []string
	for _, c := range report.Checks {
		if c.Failure != nil {
			names = append(names, c.Name)
		}
	}
	return names
}

func generated(t *testing.T, algorithm string) *jose.PrivateKey {
	t.Helper()
	key, err := jose.Generate(jose.AllAlgorithms().Find(algorithm))
	if err != nil {
		t.Fatal(err)
	}
	return key
}

// faults are ways to make a request wrong, by the check that must fail for each.
func (s *inspected) faults(t *testing.T) []fault {
	t.Helper()
	es512 := generated(t, "ES512")
	hs256 := base64.RawURLEncoding.EncodeToString([]byte(`{"typ":"dpop+jwt","alg":"HS256"}`)) + ".e30.AAAA"
	header := func(name string, value any) func(*draft) { return func(d *draft) { d.proofHeader[name] = value } }
	claim := func(name string, value any) func(*draft) { return func(d *draft) { d.proofClaims[name] = value } }
	tokenHeader := func(name string, value any) func(*draft) { return func(d *draft) { d.tokenHeader[name] = value } }
	tokenClaim := func(name string, value any) func(*draft) { return func(d *draft) { d.tokenClaims[name] = value } }
	var withD map[string]any
	if err := json.Unmarshal(s.client.Public, &withD); err != nil {
		t.Fatal(err)
	}
	withD["d"] = "c2VjcmV0LXZhbHVlLXRoYXQtbm9ib2R5LW1heS1zZWU"
	return []fault{
		{"no credentials", failure.NoCredentials, "Authorization", func(d *draft) { d.authorization = []string{} }},
		{"another scheme", failure.SchemeUnsupported, "Authorization", func(d *draft) { d.authorization = []string{"Basic YTpi"} }},
		{"two tokens", failure.AuthorizationRepeated, "Authorization", func(d *draft) { d.authorization = []string{"DPoP a", "DPoP b"} }},
		{"a token in quotes", failure.AuthorizationMalformed, "Authorization", func(d *draft) { d.authorization = []string{`DPoP "a"`} }},
		{"a token too large", failure.AuthorizationMalformed, "Authorization", func(d *draft) { d.authorization = []string{"DPoP " + strings.Repeat("a", 16<<10+1)} }},
		{"a token in the query", failure.TokenInQuery, "query", func(d *draft) { d.url += "?a=b&access_token=x" }},
		{"the Bearer scheme", "", "scheme", func(d *draft) { d.scheme = "Bearer" }},

		{"no proof", failure.ProofMissing, "DPoP", func(d *draft) { d.proofs = []string{} }},
		{"two proofs", failure.ProofRepeated, "DPoP", func(d *draft) { d.proofs = []string{"a", "b"} }},
		{"a proof too large", failure.ProofTooLarge, "proof syntax", header("x", strings.Repeat("a", 8<<10))},
		{"a proof that is none", failure.ProofMalformed, "proof syntax", func(d *draft) { d.proofs = []string{"a.b.c"} }},
		{"crit", failure.ProofMalformed, "proof extensions", header("crit", []string{"x"})},
		{"typ of the proof", failure.ProofType, "proof typ", header("typ", "JWT")},
		{"alg of the proof", failure.ProofAlgorithm, "proof alg", func(d *draft) { d.proofKey, d.proofHeader["jwk"] = es512, es512.Public }},
		{"an unknown alg of the proof", failure.ProofAlgorithm, "proof alg", func(d *draft) { d.proofs = []string{hs256} }},
		{"a private jwk", failure.ProofKey, "proof jwk", header("jwk", withD)},
		{"no jwk", failure.ProofKey, "proof jwk", header("jwk", nil)},
		{"a jwk of another kind", failure.ProofKey, "proof signature", header("jwk", es512.Public)},
		{"signed by another key", failure.ProofSignature, "proof signature", func(d *draft) { d.proofKey = s.other }},
		{"a damaged signature", failure.ProofSignature, "proof signature", func(d *draft) { d.damageProof = true }},
		{"no jti", failure.ProofClaims, "proof jti", claim("jti", nil)},
		{"no htm", failure.ProofClaims, "proof htm", claim("htm", nil)},
		{"no htu", failure.ProofClaims, "proof htu", claim("htu", nil)},
		{"no iat", failure.ProofClaims, "proof iat", claim("iat", nil)},
		{"an iat that is a string", failure.ProofClaims, "proof iat", claim("iat", "1700000000")},
		{"an exp that is a string", failure.ProofClaims, "proof exp", claim("exp", "never")},
		{"htm", failure.ProofMethod, "proof htm", claim("htm", "get")},
		{"htu", failure.ProofURL, "proof htu", claim("htu", "http://api.example.com/orders")},
		{"htu that is no URI", failure.ProofURL, "proof htu", claim("htu", "/orders")},
		{"ath", failure.ProofToken, "proof ath", claim("ath", proof.TokenHash("another"))},
		{"no ath", failure.ProofToken, "proof ath", func(d *draft) { d.withoutATH = true }},
		{"an ath that is a number", failure.ProofToken, "proof ath", claim("ath", 5)},
		{"a proof that has expired", failure.ProofExpired, "proof exp", claim("exp", s.now.Unix()-11)},
		{"a proof that is not yet good", failure.ProofEarly, "proof nbf", claim("nbf", s.now.Unix()+11)},
		{"iat long ago", failure.ProofExpired, "proof iat", claim("iat", s.now.Unix()-71)},
		{"iat in the future", failure.ProofEarly, "proof iat", claim("iat", s.now.Unix()+11)},

		{"a token cut short", failure.TokenMalformed, "token syntax", func(d *draft) { d.authorization = []string{"DPoP " + hs256[:len(hs256)-9]} }},
		{"crit of the token", failure.TokenMalformed, "token extensions", tokenHeader("crit", []string{"x"})},
		{"a kid that is a number", failure.TokenMalformed, "token kid", tokenHeader("kid", 5)},
		{"iss", failure.TokenIssuer, "token iss", tokenClaim("iss", "https://sso.example.com/")},
		{"alg of the token", failure.TokenIssuer, "token iss", func(d *draft) { d.authorization = []string{"DPoP " + hs256} }},
		{"an unknown kid", failure.TokenKey, "token signature", tokenHeader("kid", "other")},
		{"a damaged token", failure.TokenSignature, "token signature", func(d *draft) { d.damageToken = true }},
		{"signed by another issuer's key", failure.TokenSignature, "token signature", func(d *draft) { d.tokenKey = s.other }},
		{"typ of the token", failure.TokenType, "token typ", tokenHeader("typ", "logout+jwt")},
		{"an ID token", failure.TokenNotAccessToken, "token kind", func(d *draft) { d.tokenHeader["typ"], d.tokenClaims["at_hash"] = "JWT", "x" }},
		{"a refresh token", failure.TokenNotAccessToken, "token kind", func(d *draft) { d.tokenHeader["typ"], d.tokenClaims["typ"] = "JWT", "Refresh" }},
		{"no exp", failure.TokenClaims, "token exp", tokenClaim("exp", nil)},
		{"an nbf that is a string", failure.TokenClaims, "token nbf", tokenClaim("nbf", "now")},
		{"a token that has expired", failure.TokenExpired, "token exp", tokenClaim("exp", s.now.Unix()-10)},
		{"a token that is not yet good", failure.TokenEarly, "token nbf", tokenClaim("nbf", s.now.Unix()+11)},
		{"a token of the future", failure.TokenEarly, "token iat", tokenClaim("iat", s.now.Unix()+11)},
		{"aud", failure.TokenAudience, "token aud", tokenClaim("aud", []string{"https://other.example.com"})},
		{"no cnf", failure.TokenUnbound, "token cnf", tokenClaim("cnf", nil)},
		{"cnf without jkt", failure.TokenUnbound, "token cnf", tokenClaim("cnf", map[string]any{})},
		{"cnf that is a string", failure.TokenConfirmation, "token cnf", tokenClaim("cnf", "x")},
		{"cnf of a certificate too", failure.TokenConfirmation, "token cnf", tokenClaim("cnf", map[string]any{"jkt": s.client.Thumbprint, "x5t#S256": "x"})},
		{"another key", failure.TokenOtherKey, "binding", tokenClaim("cnf", map[string]any{"jkt": s.other.Thumbprint})},
	}
}

// fault is a way to make a request wrong. An empty reason is one that the site's
// settings decide.
type fault struct {
	name   string
	reason failure.Reason
	check  string
	make   func(*draft)
}

// Each fault is found, by the check that is about it and no other, with the reason
// that the gateway logs, and advice. A good request has none.
func TestInspectFindsEachFault(t *testing.T) {
	s := newInspected(t, false, inspect.NoncesOff)
	report, text := s.inspect(t, s.draft().capture(t))
	if report.First() != nil || s.reason(t, s.draft().capture(t)) != "" || strings.Contains(text, "FAILED") {
		t.Fatalf("a good request is refused:\n%s", text)
	}
	covered := make(map[failure.Reason]bool)
	for _, fault := range s.faults(t) {
		t.Run(fault.name, func(t *testing.T) {
			d := s.draft()
			fault.make(d)
			captured := d.capture(t)
			want := s.reason(t, captured)
			if fault.reason != "" && want != fault.reason {
				t.Fatalf("the gateway says %s, want %s", want, fault.reason)
			}
			covered[want] = true
			report, text := s.inspect(t, captured)
			if first := report.First(); first == nil || first.Reason != want {
				t.Errorf("first is %v, but the gateway says %s\n%s", first, want, text)
			}
			index := slices.IndexFunc(report.Checks, func(c inspect.Check) bool { return c.Failure != nil })
			if got := report.Checks[index]; got.Name != fault.check {
				t.Errorf("the check is %q, want %q\n%s", got.Name, fault.check, text)
			}
			for _, part := range []string{"\n" + string(want) + ": ", "  expected ", "  found ", "its log has " + string(want)} {
				if !strings.Contains(text, part) {
					t.Errorf("no %q in\n%s", part, text)
				}
			}
			_, advice, _ := strings.Cut(text, "  what to do  ")
			if advice, _, _ = strings.Cut(advice, "\n"); advice == "" {
				t.Errorf("no advice in\n%s", text)
			}
			shows(t, text, captured)
		})
	}
	if len(covered) < 30 {
		t.Errorf("only %d reasons", len(covered))
	}
}

// shows fails if the text shows the token's signature, or a private key.
func shows(t *testing.T, text string, captured *inspect.Capture) {
	t.Helper()
	for _, value := range captured.Authorization {
		if parts := strings.Split(value, "."); len(parts) == 3 && len(parts[2]) > 8 && strings.Contains(text, parts[2][:8]) {
			t.Errorf("the signature of the token is shown:\n%s", text)
		}
	}
	if strings.Contains(text, "c2VjcmV0") {
		t.Errorf("a private key is shown:\n%s", text)
	}
}

// However many faults a request has, the first that inspect names is the one that
// the gateway logs.
func TestInspectAgreesWithTheGateway(t *testing.T) {
	const rounds = 1500
	for _, site := range []*inspected{
		newInspected(t, false, inspect.NoncesOff),
		newInspected(t, true, inspect.NoncesOff),
		newInspected(t, false, inspect.NoncesOnSkew),
		newInspected(t, false, inspect.NoncesRequired),
	} {
		random := rand.New(rand.NewPCG(1, 2))
		faults := site.faults(t)
		for range rounds {
			d := site.draft()
			var made []string
			for range 1 + random.IntN(3) {
				fault := faults[random.IntN(len(faults))]
				fault.make(d)
				made = append(made, fault.name)
			}
			captured := d.capture(t)
			want := site.reason(t, captured)
			if want == failure.NonceUnavailable {
				t.Fatal("no nonce key")
			}
			report, text := site.inspect(t, captured)
			var got failure.Reason
			if first := report.First(); first != nil {
				got = first.Reason
			}
			if got != want {
				t.Fatalf("%s, %v: %q; the gateway says %q\n%s", site.settings.Nonces, made, got, want, text)
			}
			shows(t, text, captured)
		}
	}
}

// What depends on a setting of the site.
func TestInspectSettings(t *testing.T) {
	strict, optional := newInspected(t, false, inspect.NoncesOff), newInspected(t, true, inspect.NoncesOff)
	onSkew, required := newInspected(t, false, inspect.NoncesOnSkew), newInspected(t, false, inspect.NoncesRequired)
	bearer := func(d *draft) { d.scheme = "Bearer" }
	alone := func(d *draft) { d.scheme, d.proofs = "Bearer", []string{} }
	for _, row := range []struct {
		name string
		site *inspected
		make func(*draft)
		want failure.Reason
	}{
		{"Bearer, strict", strict, bearer, failure.BearerRefused},
		{"Bearer with a proof", optional, bearer, failure.BearerWithProof},
		{"a bound token as Bearer", optional, alone, failure.TokenBound},
		{"an unbound token as Bearer", optional, func(d *draft) { alone(d); d.tokenClaims["cnf"] = nil }, ""},
		{"an unbound token as DPoP", optional, func(d *draft) { d.tokenClaims["cnf"] = nil }, failure.TokenUnbound},
		{"another alg of the token", strict, func(d *draft) {
			claims := base64.RawURLEncoding.EncodeToString([]byte(`{"iss":"https://sso.example.com"}`))
			d.authorization = []string{"DPoP " + base64.RawURLEncoding.EncodeToString([]byte(`{"alg":"HS256"}`)) + "." + claims + ".AAAA"}
			d.proofClaims["ath"] = proof.TokenHash(d.authorization[0][5:])
		}, failure.TokenAlgorithm},
		{"no nonce", required, func(*draft) {}, failure.NonceMissing},
		{"a nonce that is a number", required, func(d *draft) { d.proofClaims["nonce"] = 5 }, failure.ProofClaims},
		{"a nonce that is a number, in the window", onSkew, func(d *draft) { d.proofClaims["nonce"] = 5 }, failure.ProofClaims},
		{"a nonce that is a number, where none count", strict, func(d *draft) { d.proofClaims["nonce"] = 5 }, ""},
	} {
		t.Run(row.name, func(t *testing.T) {
			d := row.site.draft()
			row.make(d)
			captured := d.capture(t)
			if len(captured.Proof) == 0 {
				captured.Proof = nil // not captured
			}
			if got := row.site.reason(t, captured); got != row.want {
				t.Errorf("the gateway says %q, want %q", got, row.want)
			}
			report, text := row.site.inspect(t, captured)
			var got failure.Reason
			if first := report.First(); first != nil {
				got = first.Reason
			}
			if got != row.want {
				t.Errorf("got %q, want %q\n%s", got, row.want, text)
			}
		})
	}
	t.Run("a nonce, out of the window", func(t *testing.T) {
		for _, site := range []*inspected{onSkew, required} {
			d := site.draft()
			d.proofClaims["iat"], d.proofClaims["nonce"] = 5, "n"
			if report, text := site.inspect(t, d.capture(t)); report.First() != nil || !strings.Contains(text, "only the server knows") {
				t.Errorf("refused:\n%s", text)
			}
		}
	})
}

// What was not captured, or cannot be judged, is said not to be checked.
func TestInspectNotChecked(t *testing.T) {
	s := newInspected(t, false, inspect.NoncesOff)
	s.settings.Keys, s.settings.Rules.Issuer, s.settings.Rules.Audiences = nil, "", nil
	whole := s.draft().capture(t)
	opaque := s.draft()
	opaque.authorization = []string{"DPoP opaque-token"}
	opaque.proofClaims["ath"] = proof.TokenHash("opaque-token")
	relative := s.draft()
	relative.proofClaims["htu"] = "/orders"
	withoutURL := relative.capture(t)
	withoutURL.Target = nil
	twice := s.draft()
	twice.proofs = []string{"a", "b"}
	for _, row := range []struct {
		name     string
		captured *inspect.Capture
		want     map[string]string // why, by check
		failed   bool
	}{
		{"no settings", &inspect.Capture{Authorization: whole.Authorization, Proof: whole.Proof}, map[string]string{
			"query": "no --url", "proof htm": "no --method", "proof htu": "no --url", "token iss": "no --issuer", "token signature": "no --jwks", "token aud": "no --audience",
		}, false},
		{"a token alone", &inspect.Capture{Authorization: whole.Authorization}, map[string]string{"DPoP": "no --proof", "binding": "there is no proof with a key"}, false},
		{"a proof alone", &inspect.Capture{Proof: whole.Proof}, map[string]string{"Authorization": "no --token", "proof ath": "no --token"}, false},
		{"an opaque token", opaque.capture(t), map[string]string{
			"token syntax": "its issuer alone knows what it says: a site that does not introspect refuses it", "binding": "its issuer alone knows",
		}, false},
		{"a relative htu and no URL", withoutURL, map[string]string{"query": "no --url"}, true},
		{"two proofs", twice.capture(t), map[string]string{"proof syntax": "there is not one proof", "proof iat": "there is not one proof", "binding": "there is no proof with a key"}, true},
	} {
		t.Run(row.name, func(t *testing.T) {
			report, text := s.inspect(t, row.captured)
			if (report.First() != nil) != row.failed {
				t.Errorf("failed: %v\n%s", report.First(), text)
			}
			for name, why := range row.want {
				index := slices.IndexFunc(report.Checks, func(c inspect.Check) bool { return c.Name == name })
				if index < 0 || report.Checks[index].Why != why || report.Checks[index].Result != inspect.NotChecked {
					t.Errorf("%s is not left out for %q:\n%s", name, why, text)
				}
			}
		})
	}
}

// Names of checks are unique, and every one is made or said not to be, whatever fails.
func TestInspectMissesNoCheck(t *testing.T) {
	s := newInspected(t, false, inspect.NoncesOff)
	good, _ := s.inspect(t, s.draft().capture(t))
	var all []string
	for _, c := range good.Checks {
		if slices.Contains(all, c.Name) {
			t.Errorf("%s twice", c.Name)
		}
		all = append(all, c.Name)
	}
	for _, fault := range s.faults(t) {
		d := s.draft()
		fault.make(d)
		report, text := s.inspect(t, d.capture(t))
		for _, name := range all {
			if !slices.ContainsFunc(report.Checks, func(c inspect.Check) bool { return c.Name == name }) {
				t.Errorf("%s: no check %s\n%s", fault.name, name, text)
			}
		}
	}
}
