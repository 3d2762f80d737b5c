// Package caddydpop makes Caddy an OAuth 2.0 resource server that enforces DPoP
// (RFC 9449) in front of an upstream that knows nothing of DPoP.
package caddydpop

import (
	"encoding/json"
	"fmt"
	"strings"
	"time"

	"github.com/caddyserver/caddy/v2"
	"github.com/caddyserver/caddy/v2/modules/caddyhttp"
	"go.uber.org/zap"

	"github.com/caddy-dpop/caddy-dpop/internal/authserver"
	"github.com/caddy-dpop/caddy-dpop/internal/failure"
	"github.com/caddy-dpop/caddy-dpop/internal/jose"
	"github.com/caddy-dpop/caddy-dpop/internal/proof"
	"github.com/caddy-dpop/caddy-dpop/internal/token"
	"github.com/caddy-dpop/caddy-dpop/replay"
)

func init() {
	caddy.RegisterModule(Handler{})
}

// Handler enforces DPoP (RFC 9449). It verifies the access token and the DPoP
// proof of a request, and refuses the request, by Caddy's error routes, unless
// both are good and belong together. Then it removes the `DPoP` header, turns
// `Authorization: DPoP <token>` into `Authorization: Bearer <token>`, and
// invokes the next handler.
//
// The least that it needs is an issuer, whose keys are found by its metadata, and
// an audience:
//
//	{
//		"handler": "dpop",
//		"issuers": [{"issuer": "https://sso.example.com/realms/main"}],
//		"audiences": ["https://api.example.com"]
//	}
//
// The Caddyfile directive is `dpop`, and has its place before `basic_auth`. Settings
// that are unknown, repeated or contradict each other are errors.
//
// Placeholders, set once the handler has judged a request:
//
// Placeholder | Description
// ------------|---------------
// `{http.auth.user.id}` | The token's `sub`, else its `client_id`
// `{http.auth.user.<claim>}` | The claim at a dotted path
// `{http.dpop.outcome}` | `accepted`, `refused` or `reported`
// `{http.dpop.reason}` | Why the request was refused, or would have been; empty if accepted
// `{http.dpop.scheme}` | The scheme of the credentials: `DPoP`, `Bearer` or empty
// `{http.dpop.jkt}` | The thumbprint of the key that signed the proof (RFC 7638)
// `{http.dpop.issuer}` | The issuer of the token
// `{http.dpop.client_id}` | The client that the token was issued to
//
// The access log gets the same under the field `dpop`. Caddy redacts the
// `Authorization` header in its logs, but not `DPoP`: see examples/Caddyfile for
// the filter that removes it.
//
// Every string may hold placeholders that are known when the configuration is
// loaded, such as `{env.SECRET}` or `{file./run/secret}`. One that has no value
// is an error.
type Handler struct {
	// What is accepted:
	//
	// - `strict` (default): a token under the DPoP scheme, bound by `cnf.jkt` to
	// the key of a valid proof.
	// - `optional`: the same; and under the Bearer scheme a valid token without any `cnf`.
	// - `report`: as `optional`, but what that would refuse is passed on unchanged
	// and logged with its reason.
	Mode Mode `json:"mode,omitempty"`

	// Who issues the access tokens. At least one.
	Issuers []*Issuer `json:"issuers,omitempty"`

	// The values of `aud` that mean this resource; any one of them suffices. `*`
	// alone accepts tokens for whatever resource. Required, here or in every issuer.
	Audiences []string `json:"audiences,omitempty"`

	// How far clocks may differ, both ways, when a token's `exp`, `nbf` and `iat`
	// and a proof's `iat`, `exp` and `nbf` are checked. Default: `10s`.
	ClockSkew *caddy.Duration `json:"clock_skew,omitempty"`

	// What proofs are accepted.
	Proof Proof `json:"proof,omitzero"`

	// Whether proofs must hold a nonce of this server.
	Nonce Nonce `json:"nonce,omitzero"`

	// Where accepted proofs are recorded, so that each is accepted once. Default:
	// `{"store": "memory"}`.
	ReplayRaw json.RawMessage `json:"replay,omitempty" caddy:"namespace=dpop.replay inline_key=store"`

	// How clients reach this resource, if not as Caddy sees it: base URLs, which
	// may end in a path prefix that a proxy in front removes. With them, the `Host`
	// of a request and forwarded headers do not count. A site that answers to any
	// `Host` needs them: whoever got a token and a proof for a host of their own
	// could otherwise use both here.
	PublicURLs []string `json:"public_urls,omitempty"`

	// Whether the `X-Forwarded-Host` of a trusted proxy counts. By default its
	// `X-Forwarded-Proto` alone does. Many proxies pass on a client's own
	// `X-Forwarded-Host`: allow it only for one that sets the header itself.
	ForwardedHost bool `json:"forwarded_host,omitempty"`

	// Scopes that a token must have, all of them, in its `scope`, else its `scp`.
	RequiredScopes []string `json:"required_scopes,omitempty"`

	// Claims that a token must have; all of these must hold.
	RequiredClaims []RequiredClaim `json:"required_claims,omitempty"`

	// Authentication context classes, of which a token's `acr` must be one. Others
	// are answered by a step-up challenge (RFC 9470).
	RequiredACR []string `json:"required_acr,omitempty"`

	// How long ago the user may have authenticated, by a token's `auth_time`. Older
	// ones are answered by a step-up challenge (RFC 9470). Default: any time.
	MaxAuthAge caddy.Duration `json:"max_auth_age,omitempty"`

	// What the upstream gets for credentials:
	//
	// - `bearer` (default): `Authorization: Bearer` with the token, and no `DPoP`.
	// - `dpop`: the client's own credentials and proof, untouched.
	// - `none`: neither.
	UpstreamToken UpstreamToken `json:"upstream_token,omitempty"`

	// Claims that the upstream gets as request headers. The client's own headers
	// of these names never get through.
	ClaimHeaders []ClaimHeader `json:"claim_headers,omitempty"`

	// What clients can learn of this resource (RFC 9728). Default: nothing.
	Resource *Resource `json:"resource,omitempty"`

	// Lets scripts of other origins use this resource. Default: what the upstream
	// says of origins passes, and preflights need credentials, which they never have.
	CORS CORS `json:"cors,omitzero"`

	// The `realm` in challenges. Default: none.
	Realm string `json:"realm,omitempty"`

	// Tells handlers apart in logs, metrics and the status.
	Name string `json:"name,omitempty"`

	// The rest is made of the settings when they are provisioned.

	name         string
	mode         Mode
	issuers      issuers
	algorithms   jose.Algorithms // of proofs
	window       proof.Window
	bases        []proof.URI // public URLs, their paths without a last slash
	nonces       nonces
	store        replay.Store
	storeName    string
	companion    *App // nil: the store is the memory store, which itself waits for its start
	demands      token.Demands
	upstream     UpstreamToken
	claimHeaders []ClaimHeader // with canonical names
	challenger   failure.Challenger

	origins       []string
	published     published
	introspecting *issuer // the one that opaque tokens are shown to; nil: none

	now     func() time.Time
	logger  *zap.Logger
	flood   *sampler // of what is logged
	tally   *tally
	cleanup []func()
}

// Mode is what a Handler accepts.
type Mode string

// The modes; see Handler.Mode.
const (
	ModeStrict   Mode = "strict"
	ModeOptional Mode = "optional"
	ModeReport   Mode = "report"
)

// UpstreamToken is what an upstream gets for credentials.
type UpstreamToken string

// The values of Handler.UpstreamToken.
const (
	UpstreamBearer UpstreamToken = "bearer"
	UpstreamDPoP   UpstreamToken = "dpop"
	UpstreamNone   UpstreamToken = "none"
)

// Proof is what DPoP proofs are accepted.
type Proof struct {
	// The algorithms of signatures that are accepted. Default: `ES256`, `PS256`,
	// `RS256`, `EdDSA`, `Ed25519`. Possible are also `ES384`, `ES512`, `PS384`,
	// `PS512`, `RS384` and `RS512`: the curves P-384 and P-521 cost about 10 and 40
	// times as much to verify, and who sends a proof is anonymous until then.
	Algorithms []string `json:"algorithms,omitempty"`

	// For how long after its `iat` a proof is accepted. Default: `60s`.
	MaxAge *caddy.Duration `json:"max_age,omitempty"`
}

// RequiredClaim is a claim that a token must have.
type RequiredClaim struct {
	// The dotted path of the claim, such as `realm_access.roles`.
	Path string `json:"path"`

	// Of these one must be the claim's value, or in the array that it is. `scope` and
	// `scp` count as lists of words.
	Values []string `json:"values"`
}

// ClaimHeader is a claim that the upstream gets as a request header.
type ClaimHeader struct {
	// The name of the header.
	Header string `json:"header"`

	// The dotted path of the claim, such as `sub` or `realm_access.roles`. Strings,
	// numbers and booleans are passed as they are, anything else as compact JSON. A
	// claim makes no header if it is not there, holds a control character, or begins
	// or ends with a space, which is no part of a header's value.
	Path string `json:"path"`
}

const (
	defaultClockSkew = 10 * time.Second
	defaultMaxAge    = 60 * time.Second
)

var defaultProofAlgorithms = []string{"ES256", "PS256", "RS256", "EdDSA", "Ed25519"}

// CaddyModule returns the Caddy module information.
func (Handler) CaddyModule() caddy.ModuleInfo {
	return caddy.ModuleInfo{
		ID:  "http.handlers.dpop",
		New: func() caddy.Module { return new(Handler) },
	}
}

// Provision sets the handler up. It opens no connection and writes nothing:
// keys are fetched when the first token needs them.
func (h *Handler) Provision(ctx caddy.Context) error {
	settings, err := resolved(*h)
	if err != nil {
		return err
	}
	var check checker
	if err := check.handler(&settings); err != nil {
		return err
	}
	h.now = time.Now
	h.logger, h.flood = ctx.Logger(), new(sampler)
	h.name = settings.Name
	h.tally = tallies.of(h.name)
	if err := registerMetrics(ctx); err != nil {
		return err
	}
	h.mode = orDefault(settings.Mode, ModeStrict)
	h.upstream = orDefault(settings.UpstreamToken, UpstreamBearer)
	h.claimHeaders = canonical(settings.ClaimHeaders)
	h.window = proof.Window{
		MaxAge:    settings.Proof.maxAge(),
		ClockSkew: settings.clockSkew(),
	}
	h.demands = settings.demandsOf()
	if h.algorithms, err = check.algorithms(settings.Proof.Algorithms, defaultProofAlgorithms); err != nil {
		return &settingError{"proof.algorithms", err}
	}
	if h.bases, err = check.bases(settings.PublicURLs); err != nil {
		return err
	}
	h.origins = settings.CORS.Origins
	if err := h.publish(&settings); err != nil {
		return err
	}
	h.challenger = failure.Challenger{
		Algorithms: strings.Join(h.algorithms.Names(), " "),
		Realm:      settings.Realm,
		Metadata:   h.published.documentURL,
		Bearer:     h.mode != ModeStrict,
	}
	h.issuers = make(issuers, 0, len(settings.Issuers))
	for i, config := range settings.Issuers {
		iss, err := h.provisionIssuer(check, config, &settings)
		if err != nil {
			return within(fmt.Sprintf("issuers[%d]", i), err)
		}
		h.issuers = append(h.issuers, iss)
		if iss.introspection != nil {
			h.introspecting = iss
		}
	}
	if err := h.provisionNonces(ctx, &settings.Nonce); err != nil {
		return err
	}
	if err := h.provisionReplay(ctx); err != nil {
		return err
	}
	h.cleanup = append(h.cleanup, live.add(h))
	return nil
}

// provisionReplay loads the replay store, and tells it for how long this handler
// may accept a proof.
func (h *Handler) provisionReplay(ctx caddy.Context) error {
	if h.ReplayRaw == nil {
		h.ReplayRaw = json.RawMessage(`{"store": "memory"}`)
	}
	module, err := ctx.LoadModule(h, "ReplayRaw")
	if err != nil {
		return fmt.Errorf("loading replay store: %w", err)
	}
	provider, ok := module.(ReplayModule)
	if !ok {
		return fmt.Errorf("loading replay store: %T is no replay store", module)
	}
	h.store, h.storeName = provider.ReplayStore(), provider.CaddyModule().ID.Name()
	if _, memory := h.store.(*replay.Memory); !memory {
		companion, err := companionOf(ctx)
		if err != nil {
			return err
		}
		companion.others = true
		h.companion = companion
	}
	h.cleanup = append(h.cleanup, h.store.Retain(h.lifetimes()))
	if _, off := h.store.(noStore); off && h.nonces.mode != NonceRequired {
		h.logger.Warn("replay is off: within its lifetime a proof is accepted any number of times")
	}
	return nil
}

// Validate checks what only shows once the settings are provisioned: an issuer
// whose file has no key that can verify tokens would have all of them refused.
func (h *Handler) Validate() error {
	for _, iss := range h.issuers {
		file, ok := iss.keys.(*authserver.KeyFile)
		if !ok {
			continue
		}
		if file.Status().Keys == 0 {
			return wrong("jwks_file", "of issuer %s: no key in it can verify tokens", iss.rules.Issuer)
		}
	}
	return nil
}

// Cleanup releases what Provision acquired, also if that failed midway.
func (h *Handler) Cleanup() error {
	for _, release := range h.cleanup {
		release()
	}
	h.cleanup = nil
	return nil
}

func (h *Handler) clockSkew() time.Duration { return durationOr(h.ClockSkew, defaultClockSkew) }

func (p *Proof) maxAge() time.Duration { return durationOr(p.MaxAge, defaultMaxAge) }

func (h *Handler) demandsOf() token.Demands {
	demands := token.Demands{
		Scopes:     h.RequiredScopes,
		ACR:        h.RequiredACR,
		MaxAuthAge: time.Duration(h.MaxAuthAge),
		ClockSkew:  h.clockSkew(),
	}
	for _, claim := range h.RequiredClaims {
		demands.Claims = append(demands.Claims, token.ClaimDemand(claim))
	}
	return demands
}

// durationOr returns a duration for which zero is a value of its own.
func durationOr(set *caddy.Duration, fallback time.Duration) time.Duration {
	if set == nil {
		return fallback
	}
	return time.Duration(*set)
}

func orDefault[T comparable](value, fallback T) T {
	var zero T
	if value == zero {
		return fallback
	}
	return value
}

// Interface guards
var (
	_ caddy.Provisioner           = (*Handler)(nil)
	_ caddy.Validator             = (*Handler)(nil)
	_ caddy.CleanerUpper          = (*Handler)(nil)
	_ caddyhttp.MiddlewareHandler = (*Handler)(nil)
)
