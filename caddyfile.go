package caddydpop

import (
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"

	"github.com/caddyserver/caddy/v2"
	"github.com/caddyserver/caddy/v2/caddyconfig"
	"github.com/caddyserver/caddy/v2/caddyconfig/caddyfile"
	"github.com/caddyserver/caddy/v2/caddyconfig/httpcaddyfile"
)

func init() {
	httpcaddyfile.RegisterDirective("dpop", parseCaddyfile)
	// Before everything that uses credentials or sends them on.
	httpcaddyfile.RegisterDirectiveOrder("dpop", httpcaddyfile.Before, "basic_auth")
}

// parseCaddyfile makes the route of a directive, and where that has a matcher
// another for what is published, which the matcher may leave out.
func parseCaddyfile(h httpcaddyfile.Helper) ([]httpcaddyfile.ConfigValue, error) {
	h.Next()
	matchers, err := h.ExtractMatcherSet()
	if err != nil {
		return nil, err
	}
	handler := new(Handler)
	b, err := handler.unmarshalCaddyfile(h.Dispenser)
	if err != nil {
		return nil, err
	}
	routes := h.NewRoute(matchers, handler)
	if matchers == nil || handler.Resource == nil {
		return routes, nil
	}
	path, err := handler.Resource.documentPath()
	if err != nil {
		return nil, b.locate(wrong("resource.identifier", "with a matcher, it must be known here, without placeholders: %w", err))
	}
	paths := []string{path}
	if handler.Resource.JWKS != "" {
		paths = append(paths, handler.Resource.JWKS)
	}
	return append(routes, h.NewRoute(caddy.ModuleMap{
		"method": h.JSON([]string{"GET", "HEAD"}),
		"path":   h.JSON(paths),
	}, handler)...), nil
}

// UnmarshalCaddyfile sets the handler up from Caddyfile tokens. Syntax:
//
//	dpop [<matcher>] [strict|optional|report] {
//	    mode strict|optional|report
//	    issuer <url> {
//	        audience      <value...>
//	        discovery_url <url>
//	        jwks_url      <url>
//	        jwks_file     <path>
//	        algorithms    <alg...>
//	        token_types   <typ...>
//	        profile       rfc9068
//	        allow_http
//	        ca            <pem file...>
//	        timeout       <duration>
//	        introspection [<url>] {
//	            tokens        opaque|all
//	            client_id     <id>
//	            client_secret <secret>
//	            auth          client_secret_basic|client_secret_post|private_key_jwt|tls_client_auth|bearer|none
//	            private_key   <file>
//	            client_cert   <cert> <key>
//	            bearer_token  <token>
//	            signed_response
//	            cache         <duration>
//	            max_in_flight <n>
//	        }
//	    }
//	    audience   <value...>
//	    clock_skew <duration>
//	    proof {
//	        algorithms <alg...>
//	        max_age    <duration>
//	    }
//	    nonce off|on_skew|required {
//	        lifetime <duration>
//	        secret   <secret...>
//	        per_process
//	    }
//	    replay memory {
//	        max_entries <n>
//	        persist     <file>
//	    }
//	    replay redis {
//	        address     <host:port...>
//	        master_name <name>
//	        username    <name>
//	        password    <password>
//	        db          <n>
//	        tls         [ca <pem>] [cert <pem> <key>]
//	        key_prefix  <prefix>
//	        timeout     <duration>
//	        on_error    deny|allow
//	    }
//	    replay off
//	    public_url     <base-url...>
//	    forwarded_host
//	    require_scope  <scope...>
//	    require_claim  <path> <value...>
//	    require_acr    <acr...>
//	    max_auth_age   <duration>
//	    upstream_token bearer|dpop|none
//	    claim_header   <header> <path>
//	    resource <identifier> {
//	        name          <text>
//	        documentation <url>
//	        policy        <url>
//	        tos           <url>
//	        scopes        <scope...>
//	        jwks          <path>
//	    }
//	    cors           <origin...>
//	    realm          <name>
//	    name           <name>
//	}
//
// Every setting may stand once, but for issuer, require_scope, require_claim and
// claim_header. The fields of Handler and Issuer say what the settings mean.
func (h *Handler) UnmarshalCaddyfile(d *caddyfile.Dispenser) error {
	_, err := h.unmarshalCaddyfile(d)
	return err
}

// unmarshalCaddyfile also tells where settings stand.
func (h *Handler) unmarshalCaddyfile(d *caddyfile.Dispenser) (*block, error) {
	b := newBlock(d)
	if d.NextArg() {
		b.note("mode")
		b.seen["mode"] = true
		if err := b.argument("mode", (*string)(&h.Mode)); err != nil {
			return nil, err
		}
	}
	err := b.each(map[string]func() error{
		"mode":           func() error { return b.text((*string)(&h.Mode)) },
		"issuer":         func() error { return h.unmarshalIssuer(b) },
		"audience":       func() error { return b.list(&h.Audiences) },
		"clock_skew":     func() error { return b.duration(&h.ClockSkew) },
		"proof":          func() error { return h.Proof.unmarshal(b) },
		"nonce":          func() error { return h.Nonce.unmarshal(b) },
		"replay":         func() error { return h.unmarshalReplay(b) },
		"public_url":     func() error { return b.list(&h.PublicURLs) },
		"forwarded_host": func() error { return b.flag(&h.ForwardedHost) },
		"require_scope":  func() error { return b.more(&h.RequiredScopes) },
		"require_claim":  func() error { return h.unmarshalRequiredClaim(b) },
		"require_acr":    func() error { return b.list(&h.RequiredACR) },
		"max_auth_age":   func() error { return b.positive(&h.MaxAuthAge) },
		"upstream_token": func() error { return b.text((*string)(&h.UpstreamToken)) },
		"claim_header":   func() error { return h.unmarshalClaimHeader(b) },
		"resource":       func() error { return h.unmarshalResource(b) },
		"cors":           func() error { return h.unmarshalCORS(b) },
		"realm":          func() error { return b.text(&h.Realm) },
		"name":           func() error { return b.text(&h.Name) },
	}, "issuer", "require_scope", "require_claim", "claim_header")
	if err != nil {
		return nil, err
	}
	return b, b.locate(checker{adapting: true}.handler(h))
}

func (h *Handler) unmarshalIssuer(b *block) error {
	issuer := new(Issuer)
	path := fmt.Sprintf("issuers[%d]", len(h.Issuers))
	h.Issuers = append(h.Issuers, issuer)
	if err := b.text(&issuer.Issuer); err != nil {
		return err
	}
	inner := b.within(path)
	inner.note("issuer")
	return inner.each(map[string]func() error{
		"audience":      func() error { return inner.list(&issuer.Audiences) },
		"discovery_url": func() error { return inner.text(&issuer.DiscoveryURL) },
		"jwks_url":      func() error { return inner.text(&issuer.JWKSURL) },
		"jwks_file":     func() error { return inner.text(&issuer.JWKSFile) },
		"algorithms":    func() error { return inner.list(&issuer.Algorithms) },
		"token_types":   func() error { return inner.list(&issuer.TokenTypes) },
		"profile":       func() error { return inner.text(&issuer.Profile) },
		"allow_http":    func() error { return inner.flag(&issuer.AllowHTTP) },
		"ca":            func() error { return inner.list(&issuer.CAFiles) },
		"timeout":       func() error { return inner.duration(&issuer.Timeout) },
		"introspection": func() error { return issuer.unmarshalIntrospection(inner) },
	})
}

func (i *Issuer) unmarshalIntrospection(b *block) error {
	i.Introspection = new(Introspection)
	s := i.Introspection
	inner := b.within(b.path + ".introspection")
	if b.d.NextArg() {
		inner.note("url")
		if err := inner.argument("introspection", &s.URL); err != nil {
			return err
		}
	}
	return inner.each(map[string]func() error{
		"tokens":          func() error { return inner.text(&s.Tokens) },
		"client_id":       func() error { return inner.text(&s.ClientID) },
		"client_secret":   func() error { return inner.text(&s.ClientSecret) },
		"auth":            func() error { return inner.text(&s.Auth) },
		"private_key":     func() error { return inner.text(&s.PrivateKeyFile) },
		"client_cert":     func() error { return s.unmarshalCertificate(inner) },
		"bearer_token":    func() error { return inner.text(&s.BearerToken) },
		"signed_response": func() error { return inner.flag(&s.SignedResponse) },
		"cache":           func() error { return inner.duration(&s.Cache) },
		"max_in_flight":   func() error { return inner.count(&s.MaxInFlight) },
	})
}

func (i *Introspection) unmarshalCertificate(b *block) error {
	i.ClientCertificate = new(ClientCertificate)
	certificate, key := &i.ClientCertificate.CertificateFile, &i.ClientCertificate.KeyFile
	if !b.d.AllArgs(certificate, key) {
		return b.argErr()
	}
	return b.filled("client_cert", *certificate, *key)
}

func (p *Proof) unmarshal(b *block) error {
	inner := b.within("proof")
	if err := inner.noArguments(); err != nil {
		return err
	}
	return inner.each(map[string]func() error{
		"algorithms": func() error { return inner.list(&p.Algorithms) },
		"max_age":    func() error { return inner.duration(&p.MaxAge) },
	})
}

func (n *Nonce) unmarshal(b *block) error {
	inner := b.within("nonce")
	if !b.d.NextArg() {
		return b.argErr()
	}
	inner.note("mode")
	if err := inner.argument("nonce", (*string)(&n.Mode)); err != nil {
		return err
	}
	return inner.each(map[string]func() error{
		"lifetime":    func() error { return inner.duration(&n.Lifetime) },
		"secret":      func() error { return inner.list(&n.Secrets) },
		"per_process": func() error { return inner.flag(&n.PerProcess) },
	})
}

func (h *Handler) unmarshalReplay(b *block) error {
	if !b.d.NextArg() {
		return b.argErr()
	}
	const namespace = "dpop.replay"
	store := b.d.Val()
	if _, err := caddy.GetModule(namespace + "." + store); err != nil {
		var known []string
		for _, module := range caddy.GetModules(namespace) {
			known = append(known, module.ID.Name())
		}
		return b.d.Errf("replay: unknown store '%s': there are %s", store, strings.Join(known, ", "))
	}
	module, err := caddyfile.UnmarshalModule(b.d, namespace+"."+store)
	if err != nil {
		return err
	}
	h.ReplayRaw = caddyconfig.JSONModuleObject(module, "store", store, nil)
	return nil
}

func (h *Handler) unmarshalClaimHeader(b *block) error {
	var header ClaimHeader
	if !b.d.AllArgs(&header.Header, &header.Path) {
		return b.argErr()
	}
	b.note(fmt.Sprintf("claim_headers[%d]", len(h.ClaimHeaders)))
	h.ClaimHeaders = append(h.ClaimHeaders, header)
	return nil
}

func (h *Handler) unmarshalResource(b *block) error {
	h.Resource = new(Resource)
	r := h.Resource
	inner := b.within("resource")
	inner.note("identifier")
	if err := b.text(&r.Identifier); err != nil {
		return err
	}
	return inner.each(map[string]func() error{
		"name":          func() error { return inner.text(&r.Name) },
		"documentation": func() error { return inner.text(&r.Documentation) },
		"policy":        func() error { return inner.text(&r.Policy) },
		"tos":           func() error { return inner.text(&r.TOS) },
		"scopes":        func() error { return inner.list(&r.Scopes) },
		"jwks":          func() error { return inner.text(&r.JWKS) },
	})
}

func (h *Handler) unmarshalCORS(b *block) error {
	b.note("cors.origins")
	return b.list(&h.CORS.Origins)
}

func (h *Handler) unmarshalRequiredClaim(b *block) error {
	b.note(fmt.Sprintf("required_claims[%d]", len(h.RequiredClaims)))
	args := b.d.RemainingArgs()
	if len(args) < 2 {
		return b.argErr()
	}
	h.RequiredClaims = append(h.RequiredClaims, RequiredClaim{Path: args[0], Values: args[1:]})
	return nil
}

// block reads the settings of one block, and notes where they stand.
type block struct {
	d     *caddyfile.Dispenser
	path  string                     // JSON path of the block
	lines map[string]caddyfile.Token // by JSON path, of the whole directive
	seen  map[string]bool            // settings of this block

	current string // the setting that is being read
}

// newBlock begins at the name of a directive, or of a module.
func newBlock(d *caddyfile.Dispenser) *block {
	d.Next()
	return &block{d: d, lines: map[string]caddyfile.Token{"": d.Token()}, seen: make(map[string]bool), current: d.Val()}
}

// within returns the block that follows, whose settings are at the JSON path.
func (b *block) within(path string) *block {
	b.lines[path] = b.d.Token()
	return &block{d: b.d, path: path, lines: b.lines, seen: make(map[string]bool), current: b.current}
}

// note remembers that a setting stands at the current token.
func (b *block) note(setting string) {
	if b.path != "" {
		setting = b.path + "." + setting
	}
	b.lines[setting] = b.d.Token()
}

// jsonNames are the JSON names of settings that are called otherwise here.
var jsonNames = map[string]string{
	"address":       "addresses",
	"audience":      "audiences",
	"ca":            "ca_files",
	"claim_header":  "claim_headers",
	"client_cert":   "client_certificate",
	"private_key":   "private_key_file",
	"issuer":        "issuers",
	"public_url":    "public_urls",
	"require_acr":   "required_acr",
	"require_claim": "required_claims",
	"require_scope": "required_scopes",
	"secret":        "secrets",
}

// each reads the block's settings. Unknown ones are errors, and so are repeated
// ones but for those named.
func (b *block) each(settings map[string]func() error, repeatable ...string) error {
	for nesting := b.d.Nesting(); b.d.NextBlock(nesting); {
		name := b.d.Val()
		read, ok := settings[name]
		if !ok {
			return b.d.Errf("unknown setting '%s'", name)
		}
		if b.seen[name] {
			return b.d.Errf("setting '%s' is repeated", name)
		}
		b.seen[name] = !slices.Contains(repeatable, name)
		b.current = name
		b.note(orDefault(jsonNames[name], name))
		if err := read(); err != nil {
			return err
		}
	}
	return nil
}

// argErr is the error for too many or too few arguments of a setting. It repeats none
// of them: one may be a secret.
func (b *block) argErr() error {
	return b.d.Errf("%s: wrong argument count or unexpected line ending", b.current)
}

// argument takes the current token for the only argument of what is called name.
func (b *block) argument(name string, value *string) error {
	*value = b.d.Val()
	if err := b.filled(name, *value); err != nil {
		return err
	}
	return b.noArguments()
}

// filled checks that no value is empty, as one is whose variable in the environment
// is not set: it would quietly stand for a default.
func (b *block) filled(name string, values ...string) error {
	if slices.Contains(values, "") {
		return b.d.Errf("%s: an empty value", name)
	}
	return nil
}

func (b *block) noArguments() error {
	if b.d.NextArg() {
		return b.argErr()
	}
	return nil
}

func (b *block) text(value *string) error {
	name := b.d.Val()
	if !b.d.AllArgs(value) {
		return b.argErr()
	}
	return b.filled(name, *value)
}

func (b *block) list(values *[]string) error {
	name := b.d.Val()
	*values = b.d.RemainingArgs()
	if len(*values) == 0 {
		return b.argErr()
	}
	return b.filled(name, *values...)
}

// more reads a list that goes on where the setting is repeated.
func (b *block) more(values *[]string) error {
	var list []string
	err := b.list(&list)
	*values = append(*values, list...)
	return err
}

func (b *block) flag(value *bool) error {
	*value = true
	return b.noArguments()
}

func (b *block) count(value *int) error {
	name := b.d.Val()
	var text string
	if err := b.text(&text); err != nil {
		return err
	}
	n, err := strconv.Atoi(text)
	if err != nil || n < 1 {
		return b.d.Errf("%s: '%s' is not a whole number from 1 on", name, text)
	}
	*value = n
	return nil
}

func (b *block) duration(value **caddy.Duration) error {
	name := b.d.Val()
	var text string
	if err := b.text(&text); err != nil {
		return err
	}
	d, err := caddy.ParseDuration(text)
	if err != nil {
		return b.d.Errf("%s: '%s' is not a duration", name, text)
	}
	*value = (*caddy.Duration)(&d)
	return nil
}

// positive reads a duration for which zero would mean the default.
func (b *block) positive(value *caddy.Duration) error {
	name := b.d.Val()
	var d *caddy.Duration
	if err := b.duration(&d); err != nil {
		return err
	}
	if *d <= 0 {
		return b.d.Errf("%s: must be more than zero", name)
	}
	*value = *d
	return nil
}

// locate adds to an error about a setting where the setting stands: itself, or
// the nearest of what contains it.
func (b *block) locate(err error) error {
	var wrong *settingError
	if !errors.As(err, &wrong) {
		return err
	}
	path := wrong.path
	token, ok := b.lines[path]
	for !ok {
		path = path[:max(strings.LastIndexAny(path, ".["), 0)]
		token, ok = b.lines[path]
	}
	// These are arguments of what contains them.
	name := wrong.path
	for _, argument := range []string{".url", ".identifier", ".mode", ".origins"} {
		name = strings.TrimSuffix(name, argument)
	}
	name = name[strings.LastIndexByte(name, '.')+1:]
	name, _, _ = strings.Cut(name, "[")
	for caddyfileName, jsonName := range jsonNames {
		if jsonName == name {
			name = caddyfileName
		}
	}
	return fmt.Errorf("%s: %w, at %s:%d", name, wrong.err, token.File, token.Line)
}

// Interface guards
var _ caddyfile.Unmarshaler = (*Handler)(nil)
