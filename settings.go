package caddydpop

import (
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"reflect"
	"slices"
	"strconv"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/caddyserver/caddy/v2"
	"golang.org/x/net/http/httpguts"

	"github.com/caddy-dpop/caddy-dpop/internal/authserver"
	"github.com/caddy-dpop/caddy-dpop/internal/jose"
	"github.com/caddy-dpop/caddy-dpop/internal/proof"
	"github.com/caddy-dpop/caddy-dpop/internal/token"
)

// settingError is a wrong setting. It names the setting by its JSON path.
type settingError struct {
	path string
	err  error
}

func (e *settingError) Error() string { return e.path + ": " + e.err.Error() }

func (e *settingError) Unwrap() error { return e.err }

func wrong(path, format string, args ...any) error {
	return &settingError{path, fmt.Errorf(format, args...)}
}

// within puts the path of a containing setting before that of a wrong one.
func within(path string, err error) error {
	var e *settingError
	if errors.As(err, &e) {
		return &settingError{path + "." + e.path, e.err}
	}
	return err
}

// resolved returns a copy of settings in which every string's placeholders are
// replaced. The original keeps the placeholders: it may be logged, and the
// copy holds secrets.
func resolved[T any](settings T) (T, error) {
	result := settings
	err := resolveValue(reflect.ValueOf(&result).Elem(), "", caddy.NewReplacer())
	return result, err
}

func resolveValue(v reflect.Value, path string, repl *caddy.Replacer) error {
	switch v.Kind() {
	case reflect.String:
		text, err := repl.ReplaceOrErr(v.String(), true, true)
		if err != nil {
			if isSecret(path) { // part of which would stand in the error
				err = errors.New("holds a placeholder that is not known, or has no value")
			}
			return &settingError{path, err}
		}
		v.SetString(text)
	case reflect.Struct:
		for i := range v.NumField() {
			field := v.Type().Field(i)
			if !field.IsExported() {
				continue
			}
			name, _, _ := strings.Cut(field.Tag.Get("json"), ",")
			if path != "" {
				name = path + "." + name
			}
			if err := resolveValue(v.Field(i), name, repl); err != nil {
				return err
			}
		}
	case reflect.Slice:
		if v.Type().Elem().Kind() == reflect.Uint8 || v.IsNil() {
			return nil // a module's settings, which are its own
		}
		clone := reflect.MakeSlice(v.Type(), v.Len(), v.Len())
		reflect.Copy(clone, v)
		v.Set(clone)
		for i := range v.Len() {
			if err := resolveValue(v.Index(i), fmt.Sprintf("%s[%d]", path, i), repl); err != nil {
				return err
			}
		}
	case reflect.Pointer:
		if v.IsNil() {
			return nil
		}
		clone := reflect.New(v.Type().Elem())
		clone.Elem().Set(v.Elem())
		v.Set(clone)
		return resolveValue(v.Elem(), path, repl)
	}
	return nil
}

// isSecret reports whether a setting holds a secret, by its path.
func isSecret(path string) bool {
	return strings.HasSuffix(path, ".client_secret") || strings.HasSuffix(path, ".bearer_token") ||
		strings.HasPrefix(path, "nonce.secrets") || path == "password" || path == "username"
}

// checker finds wrong and contradictory settings. It looks at the settings
// alone, so that a Caddyfile's are checked when it is adapted, where lines are
// known, and again when they are provisioned, where placeholders are resolved.
type checker struct {
	adapting bool
}

// pending reports whether a setting's value is not known yet.
func (c checker) pending(text string) bool { return c.adapting && strings.Contains(text, "{") }

// handler checks all settings of a handler.
func (c checker) handler(h *Handler) error {
	if !c.pending(string(h.Mode)) && !slices.Contains([]Mode{"", ModeStrict, ModeOptional, ModeReport}, h.Mode) {
		return wrong("mode", "unknown mode %q: it is strict, optional or report", h.Mode)
	}
	if !c.pending(string(h.UpstreamToken)) && !slices.Contains([]UpstreamToken{"", UpstreamBearer, UpstreamDPoP, UpstreamNone}, h.UpstreamToken) {
		return wrong("upstream_token", "unknown value %q: it is bearer, dpop or none", h.UpstreamToken)
	}
	if err := checkDuration("clock_skew", h.clockSkew(), 0); err != nil {
		return err
	}
	if err := checkDuration("proof.max_age", h.Proof.maxAge(), time.Second); err != nil {
		return err
	}
	if _, err := c.algorithms(h.Proof.Algorithms, nil); err != nil {
		return &settingError{"proof.algorithms", err}
	}
	if err := c.nonce(h); err != nil {
		return err
	}
	if err := checkAudiences(h.Audiences); err != nil {
		return err
	}
	if err := c.issuers(h); err != nil {
		return err
	}
	if err := c.publicURLs(h); err != nil {
		return err
	}
	if strings.ContainsFunc(h.Realm, func(r rune) bool { return r < ' ' || r > '~' }) {
		return wrong("realm", "holds a character that is not printable ASCII")
	}
	if err := c.demands(h); err != nil {
		return err
	}
	if err := c.resource(h); err != nil {
		return err
	}
	if err := c.cors(h.CORS.Origins); err != nil {
		return err
	}
	return c.claimHeaders(h.ClaimHeaders)
}

// nonce checks that nonces are authentic by one kind of key, and that the
// upstream's do not stand in their way.
func (c checker) nonce(h *Handler) error {
	n := &h.Nonce
	if c.pending(string(n.Mode)) {
		return nil
	}
	if !slices.Contains([]NonceMode{"", NonceOff, NonceOnSkew, NonceRequired}, n.Mode) {
		return wrong("nonce.mode", "unknown mode %q: it is off, on_skew or required", n.Mode)
	}
	if n.mode() != NonceOff && h.UpstreamToken == UpstreamDPoP {
		return wrong("nonce.mode", "contradicts upstream_token dpop, with which nonces are the upstream's")
	}
	if err := checkDuration("nonce.lifetime", n.lifetime(), time.Second); err != nil {
		return err
	}
	if n.PerProcess && len(n.Secrets) > 0 {
		return wrong("nonce.per_process", "contradicts secret, which other processes may have")
	}
	for i, secret := range n.Secrets {
		if !c.pending(secret) && utf8.RuneCountInString(secret) < leastNonceSecret {
			return wrong("nonce.secrets", "a secret has fewer than %d characters", leastNonceSecret)
		}
		if slices.Contains(n.Secrets[:i], secret) {
			return wrong("nonce.secrets", "a secret is repeated")
		}
	}
	return nil
}

// cors checks that origins are written as browsers write them.
func (c checker) cors(origins []string) error {
	if err := checkWords("cors.origins", origins); err != nil {
		return err
	}
	for _, origin := range origins {
		if c.pending(origin) {
			continue
		}
		if origin == anyOrigin {
			if len(origins) > 1 {
				return wrong("cors.origins", "* is any origin, and leaves nothing for others to say")
			}
			continue
		}
		scheme, host, ok := strings.Cut(origin, "://")
		parsed, err := url.Parse(origin)
		if !ok || err != nil || scheme == "" || parsed.Host != host || host == "" || origin != strings.ToLower(origin) {
			if strings.Contains(origin, "@") {
				origin = "the value" // may hold a password
			} else {
				origin = strconv.Quote(origin)
			}
			return wrong("cors.origins", "%s is not an origin as browsers write it: scheme, host and perhaps port, in lower case, like https://app.example.com", origin)
		}
		if port := parsed.Port(); scheme == "https" && port == "443" || scheme == "http" && port == "80" {
			return wrong("cors.origins", "%q has the default port, which browsers leave out", origin)
		}
	}
	return nil
}

// resource checks what is published. Its identifier must be https, but for
// development (RFC 9728 §1.2).
func (c checker) resource(h *Handler) error {
	r := h.Resource
	if r == nil {
		return nil
	}
	for _, setting := range []struct{ path, url string }{
		{"resource.identifier", r.Identifier}, {"resource.documentation", r.Documentation}, {"resource.policy", r.Policy}, {"resource.tos", r.TOS},
	} {
		if setting.url == "" && setting.path != "resource.identifier" {
			continue
		}
		if err := c.url(setting.path, setting.url, false); err != nil {
			return err
		}
	}
	if strings.Contains(r.Identifier, "?") {
		return wrong("resource.identifier", "a query is not supported")
	}
	if err := checkWords("resource.scopes", r.Scopes); err != nil {
		return err
	}
	if r.JWKS == "" || c.pending(r.JWKS) {
		return nil
	}
	if path, err := proof.NormalizePath(r.JWKS); err != nil || path != r.JWKS {
		return wrong("resource.jwks", "%q is not a path in normal form, beginning with a slash", r.JWKS)
	}
	for _, issuer := range h.Issuers {
		if issuer.Introspection != nil && issuer.Introspection.PrivateKeyFile != "" {
			return nil
		}
	}
	return wrong("resource.jwks", "there is no private_key whose public half could be published")
}

// demands checks what tokens are required to have. Scopes and classes stand in
// challenges as lists of words (RFC 6749 §3.3).
func (c checker) demands(h *Handler) error {
	for _, list := range []struct {
		path  string
		words []string
	}{{"required_scopes", h.RequiredScopes}, {"required_acr", h.RequiredACR}} {
		path, words := list.path, list.words
		if err := checkWords(path, words); err != nil {
			return err
		}
		for _, word := range words {
			if !token.IsNQCHARs(word) {
				return wrong(path, "%q is not a word without spaces, quotes and backslashes", word)
			}
		}
	}
	for i, claim := range h.RequiredClaims {
		path := fmt.Sprintf("required_claims[%d]", i)
		if claim.Path == "" || len(claim.Values) == 0 {
			return wrong(path, "needs the path of a claim and a value at least")
		}
		if slices.Contains(claim.Values, "") {
			return wrong(path, "an empty value")
		}
	}
	if age := time.Duration(h.MaxAuthAge); age != 0 && age < time.Second {
		return wrong("max_auth_age", "%v is less than a second", age)
	}
	return nil
}

// maxDuration bounds every time that can be set.
const maxDuration = 24 * time.Hour

func checkDuration(path string, d, least time.Duration) error {
	if d < least || d > maxDuration {
		return wrong(path, "%v is not from %v to %v", d, least, maxDuration)
	}
	// In JSON a number is in nanoseconds, which nobody means.
	if d > 0 && d < time.Millisecond {
		return wrong(path, "%v is less than a millisecond: write \"10s\" for ten seconds", d)
	}
	return nil
}

// algorithms returns the algorithms in the order of the names, which must
// be known and different. Names that are not resolved yet are passed over.
func (c checker) algorithms(names, fallback []string) (jose.Algorithms, error) {
	if len(names) == 0 {
		names = fallback
	}
	all := jose.AllAlgorithms()
	var algorithms jose.Algorithms
	for _, name := range names {
		if c.pending(name) {
			continue
		}
		algorithm := all.Find(name)
		if algorithm == nil {
			return nil, fmt.Errorf("unknown algorithm %q: there are %s", name, strings.Join(all.Names(), " "))
		}
		if algorithms.Find(name) != nil {
			return nil, fmt.Errorf("%s is repeated", name)
		}
		algorithms = append(algorithms, algorithm)
	}
	return algorithms, nil
}

// checkWords checks a list of values: none is empty, and none stands twice.
func checkWords(path string, words []string) error {
	for i, word := range words {
		if word == "" {
			return wrong(path, "an empty value")
		}
		if slices.Contains(words[:i], word) {
			return wrong(path, "%s is repeated", word)
		}
	}
	return nil
}

func checkAudiences(audiences []string) error {
	if err := checkWords("audiences", audiences); err != nil {
		return err
	}
	if len(audiences) > 1 && slices.Contains(audiences, anyAudience) {
		return wrong("audiences", "* accepts any audience, and leaves nothing for other values to say")
	}
	return nil
}

func (c checker) issuers(h *Handler) error {
	if len(h.Issuers) == 0 {
		return wrong("issuers", "at least one issuer is required")
	}
	for i, config := range h.Issuers {
		path := fmt.Sprintf("issuers[%d]", i)
		if config == nil {
			return wrong(path, "is null")
		}
		if err := c.issuer(config); err != nil {
			var e *settingError
			if errors.Is(err, authserver.ErrPlainHTTP) && errors.As(err, &e) {
				err = wrong(e.path, "%w, which only allow_http permits", e.err)
			}
			return within(path, err)
		}
		if len(config.Audiences) == 0 && len(h.Audiences) == 0 {
			return wrong("audiences", "required, here or in every issuer (%s has none): the value of aud in tokens for this resource; * accepts any", config.Issuer)
		}
		for _, other := range h.Issuers[:i] {
			if other.Issuer == config.Issuer {
				return wrong(path+".issuer", "%s is repeated", config.Issuer)
			}
			if other.Introspection != nil && config.Introspection != nil {
				return wrong(path+".introspection", "%s introspects already: an opaque token does not say whose it is, and must not be shown to another issuer", other.Issuer)
			}
		}
	}
	return nil
}

func (c checker) issuer(i *Issuer) error {
	if i.JWKSURL != "" && i.JWKSFile != "" {
		return wrong("jwks_url", "contradicts jwks_file: keys come from one place")
	}
	keysKnown := i.JWKSURL != "" || i.JWKSFile != ""
	discovers := !keysKnown || i.Introspection != nil && i.Introspection.URL == ""
	if i.DiscoveryURL != "" && !discovers {
		return wrong("discovery_url", "is of no use: jwks_url or jwks_file says where keys come from")
	}
	// An issuer that is not asked for its metadata is a name that nobody calls.
	if err := c.url("issuer", i.Issuer, i.AllowHTTP || !discovers || i.DiscoveryURL != ""); err != nil {
		return err
	}
	if strings.Contains(i.Issuer, "?") {
		return wrong("issuer", "an issuer has no query (RFC 8414 section 2)")
	}
	if err := c.introspection(i); err != nil {
		return within("introspection", err)
	}
	for _, setting := range []struct{ path, url string }{{"discovery_url", i.DiscoveryURL}, {"jwks_url", i.JWKSURL}} {
		if setting.url == "" {
			continue
		}
		if err := c.url(setting.path, setting.url, i.AllowHTTP); err != nil {
			return err
		}
	}
	if err := checkAudiences(i.Audiences); err != nil {
		return err
	}
	if _, err := c.algorithms(i.Algorithms, nil); err != nil {
		return &settingError{"algorithms", err}
	}
	if i.Profile != "" && i.Profile != profileRFC9068 && !c.pending(i.Profile) {
		return wrong("profile", "unknown profile %q: there is rfc9068", i.Profile)
	}
	if i.Profile != "" && len(i.TokenTypes) > 0 {
		return wrong("token_types", "contradicts profile %s, which accepts at+jwt alone", i.Profile)
	}
	if err := checkWords("token_types", i.tokenTypes()); err != nil {
		return err
	}
	for _, typ := range i.TokenTypes {
		if strings.ContainsFunc(typ, func(r rune) bool { return r <= ' ' || r > '~' }) {
			return wrong("token_types", "%q is not a media type; - stands for a token without typ", typ)
		}
	}
	if err := checkWords("ca_files", i.CAFiles); err != nil {
		return err
	}
	if len(i.CAFiles) > 0 && i.JWKSFile != "" && i.Introspection == nil {
		return wrong("ca_files", "is of no use: with jwks_file the issuer is not called")
	}
	return checkDuration("timeout", i.timeout(), time.Millisecond)
}

// introspection checks that what the way of authentication needs is there, and
// nothing that it does not use.
func (c checker) introspection(i *Issuer) error {
	s := i.Introspection
	if s == nil {
		return nil
	}
	if s.URL != "" {
		if err := c.url("url", s.URL, i.AllowHTTP); err != nil {
			return err
		}
	}
	if !c.pending(s.Tokens) && !slices.Contains([]string{"", introspectOpaque, introspectAll}, s.Tokens) {
		return wrong("tokens", "unknown value %q: it is opaque or all", s.Tokens)
	}
	if s.SignedResponse && s.ClientID == "" {
		return wrong("client_id", "required with signed_response: answers must be for this client")
	}
	if err := checkDuration("cache", s.cache(), 0); err != nil {
		return err
	}
	if s.MaxInFlight < 0 || s.MaxInFlight > maxMaxInFlight {
		return wrong("max_in_flight", "%d is not from 1 to %d", s.MaxInFlight, maxMaxInFlight)
	}
	if c.pending(s.Auth) {
		return nil
	}
	auth := orDefault(s.Auth, authBasic)
	needs, known := authNeeds[auth]
	if !known {
		return wrong("auth", "unknown value %q: there are client_secret_basic, client_secret_post, private_key_jwt, tls_client_auth, bearer and none", s.Auth)
	}
	for _, setting := range []struct {
		path  string
		given bool
	}{
		{"client_id", s.ClientID != ""},
		{"client_secret", s.ClientSecret != ""},
		{"private_key_file", s.PrivateKeyFile != ""},
		{"client_certificate", s.ClientCertificate.given()},
		{"bearer_token", s.BearerToken != ""},
	} {
		needed := slices.Contains(needs, setting.path)
		if needed && !setting.given {
			return wrong(setting.path, "required for auth %s", auth)
		}
		// The client's id may stand anywhere: it is no credential.
		if !needed && setting.given && setting.path != "client_id" {
			return wrong(setting.path, "is of no use for auth %s", auth)
		}
	}
	if c := s.ClientCertificate; c.given() && (c.CertificateFile == "" || c.KeyFile == "") {
		return wrong("client_certificate", "needs both certificate_file and key_file")
	}
	return nil
}

// authNeeds are the settings that each way of authentication uses.
var authNeeds = map[string][]string{
	authBasic:  {"client_id", "client_secret"},
	authPost:   {"client_id", "client_secret"},
	authKeyJWT: {"client_id", "private_key_file"},
	authTLS:    {"client_id", "client_certificate"},
	authBearer: {"bearer_token"},
	authNone:   nil,
}

const maxMaxInFlight = 10_000

func (c checker) url(path, text string, allowHTTP bool) error {
	if c.pending(text) {
		return nil
	}
	if err := authserver.CheckURL(text, allowHTTP); err != nil {
		return wrongURL(path, text, err)
	}
	return nil
}

// wrongURL repeats what may be a URL, unless a secret may be in it.
func wrongURL(path, text string, err error) error {
	if strings.ContainsAny(text, "@?#") {
		return &settingError{path, err}
	}
	return wrong(path, "%q: %w", text, err)
}

func (c checker) publicURLs(h *Handler) error {
	if h.ForwardedHost && len(h.PublicURLs) > 0 {
		return wrong("forwarded_host", "contradicts public_url, with which no host of a request counts")
	}
	_, err := c.bases(h.PublicURLs)
	return err
}

// bases parses public URLs. Their paths lose a last slash, so that a
// request's path can follow.
func (c checker) bases(urls []string) ([]proof.URI, error) {
	var bases []proof.URI
	for i, text := range urls {
		if c.pending(text) {
			continue
		}
		path := fmt.Sprintf("public_urls[%d]", i)
		if strings.ContainsAny(text, "?#") {
			return nil, wrong(path, "a base URL has no query and no fragment")
		}
		base, err := proof.ParseURI(text)
		if err != nil {
			return nil, wrongURL(path, text, err)
		}
		base.Path = strings.TrimSuffix(base.Path, "/")
		if slices.Contains(bases, base) {
			return nil, wrong(path, "%q is repeated", text)
		}
		bases = append(bases, base)
	}
	return bases, nil
}

// notForClaims are the headers that have a meaning of their own, on the way or
// to this module, and so cannot carry a claim.
var notForClaims = []string{
	"Accept-Encoding", "Authorization", "Connection", "Content-Encoding", "Content-Length", "Content-Type", "Cookie", "Dpop", "Dpop-Nonce",
	"Expect", "Forwarded", "Host", "Http2-Settings", "Keep-Alive", "Proxy-Authorization", "Proxy-Connection", "Range", "Sec-Websocket-Key",
	"Te", "Trailer", "Transfer-Encoding", "Upgrade", "Via", "X-Forwarded-For", "X-Forwarded-Host", "X-Forwarded-Proto",
}

func (c checker) claimHeaders(headers []ClaimHeader) error {
	seen := make(map[string]bool)
	for i, header := range headers {
		path := fmt.Sprintf("claim_headers[%d]", i)
		if header.Path == "" {
			return wrong(path, "the path of the claim is empty")
		}
		if c.pending(header.Header) {
			continue
		}
		name := http.CanonicalHeaderKey(header.Header)
		switch {
		case !httpguts.ValidHeaderFieldName(header.Header):
			return wrong(path, "%q is not the name of a header", header.Header)
		case strings.ContainsAny(name, "_."):
			return wrong(path, "%q: Caddy drops request headers with _ or . in their names", header.Header)
		case slices.Contains(notForClaims, name):
			return wrong(path, "%s cannot carry a claim", header.Header)
		case seen[name]:
			return wrong(path, "%s is repeated", header.Header)
		}
		seen[name] = true
	}
	return nil
}

func canonical(headers []ClaimHeader) []ClaimHeader {
	result := slices.Clone(headers)
	for i := range result {
		result[i].Header = http.CanonicalHeaderKey(result[i].Header)
	}
	return result
}
