package caddydpop

import (
	"crypto/x509"
	"encoding/pem"
	"errors"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/caddyserver/caddy/v2"

	"github.com/caddy-dpop/caddy-dpop/internal/authserver"
	"github.com/caddy-dpop/caddy-dpop/internal/jose"
	"github.com/caddy-dpop/caddy-dpop/internal/token"
	"github.com/caddy-dpop/caddy-dpop/internal/watch"
)

// Issuer is an authorization server whose access tokens are accepted.
type Issuer struct {
	// The exact value of `iss` in its tokens: a URL. Unless a source of keys is
	// given, the issuer's metadata is looked for below it: as RFC 8414 says, then
	// as OpenID Connect Discovery does.
	Issuer string `json:"issuer"`

	// Like the handler's `audiences`, which these replace for this issuer.
	Audiences []string `json:"audiences,omitempty"`

	// Where the issuer's metadata is, if not at a well-known place.
	DiscoveryURL string `json:"discovery_url,omitempty"`

	// Where the issuer's keys are (a JWK Set). Then there is no discovery.
	JWKSURL string `json:"jwks_url,omitempty"`

	// A local file with the issuer's keys (a JWK Set). It is read again when it changes.
	JWKSFile string `json:"jwks_file,omitempty"`

	// The algorithms of token signatures that are accepted. Default: every `RS*`,
	// `PS*` and `ES*`, `EdDSA` and `Ed25519`.
	Algorithms []string `json:"algorithms,omitempty"`

	// The values of the `typ` header that are accepted; case and an `application/`
	// prefix do not matter, and `-` is a token without `typ`. Default: `at+jwt`,
	// `JWT` and `-`.
	TokenTypes []string `json:"token_types,omitempty"`

	// `rfc9068` demands the `typ` at+jwt, and every claim that RFC 9068 requires.
	Profile string `json:"profile,omitempty"`

	// Allows plain HTTP to this issuer off the loopback interface: whoever is on
	// the way can then choose whose tokens are good.
	AllowHTTP bool `json:"allow_http,omitempty"`

	// Files with the roots (PEM) to trust for this issuer's TLS, in place of the system's.
	CAFiles []string `json:"ca_files,omitempty"`

	// For each call to the issuer. Default: `5s`.
	Timeout *caddy.Duration `json:"timeout,omitempty"`

	// Asks the issuer about tokens: about those that are no JWTs, or about all.
	// Default: no token is introspected, and opaque ones are refused.
	Introspection *Introspection `json:"introspection,omitempty"`
}

const (
	defaultIssuerTimeout = 5 * time.Second
	profileRFC9068       = "rfc9068"
	anyAudience          = "*"
)

var defaultTokenTypes = []string{token.AccessTokenType, "JWT", token.NoType}

// issuer is an Issuer as requests need it.
type issuer struct {
	rules      *token.Rules // in one piece: a token that has passed them keeps them
	algorithms jose.Algorithms
	keys       authserver.KeyFinder
	tokens     *tokenCache // that the keys have verified

	introspection *introspection // nil: none
}

// issuers are those of a handler. They are few.
type issuers []*issuer

// find returns the issuer of the exact value of iss, or nil.
func (all issuers) find(iss string) *issuer {
	for _, one := range all {
		if one.rules.Issuer == iss {
			return one
		}
	}
	return nil
}

// names returns the values of iss, in order.
func (all issuers) names() []string {
	names := make([]string, len(all))
	for i, one := range all {
		names[i] = one.rules.Issuer
	}
	slices.Sort(names)
	return names
}

// provisionIssuer makes an issuer of checked settings.
func (h *Handler) provisionIssuer(check checker, config *Issuer, settings *Handler) (*issuer, error) {
	iss := new(issuer)
	var err error
	if iss.algorithms, err = check.algorithms(config.Algorithms, jose.AllAlgorithms().Names()); err != nil {
		return nil, &settingError{"algorithms", err}
	}
	audiences := config.Audiences
	if len(audiences) == 0 {
		audiences = settings.Audiences
	}
	iss.rules = &token.Rules{
		Issuer:      config.Issuer,
		Audiences:   audiences,
		AnyAudience: audiences[0] == anyAudience,
		Types:       config.tokenTypes(),
		RFC9068:     config.Profile == profileRFC9068,
		ClockSkew:   settings.clockSkew(),
	}
	if err := h.provisionKeys(config, iss); err != nil {
		return nil, err
	}
	return iss, h.provisionIntrospection(config, iss)
}

// tokenTypes returns the accepted types without the prefix that does not matter.
func (i *Issuer) tokenTypes() []string {
	if len(i.TokenTypes) == 0 {
		return defaultTokenTypes
	}
	types := make([]string, len(i.TokenTypes))
	for n, typ := range i.TokenTypes {
		types[n] = strings.ToLower(jose.TrimMediaType(typ))
	}
	return types
}

// keySets holds the key sets of all handlers, so that they survive reloads.
var keySets = caddy.NewUsagePool()

// keySetID is all that a key set belongs to: trust must not mix.
type keySetID struct {
	issuer       string
	jwksURL      string
	discoveryURL string
	roots        string // names of the files; empty: the system's
	allowHTTP    bool
	timeout      time.Duration
}

func (i *Issuer) keySetID() keySetID {
	return keySetID{
		issuer:       i.Issuer,
		jwksURL:      i.JWKSURL,
		discoveryURL: i.DiscoveryURL,
		roots:        strings.Join(i.CAFiles, "\n"),
		allowHTTP:    i.AllowHTTP,
		timeout:      i.timeout(),
	}
}

func (i *Issuer) timeout() time.Duration { return durationOr(i.Timeout, defaultIssuerTimeout) }

// sharedKeySet is a key set in the pool, with the tokens that it has verified.
type sharedKeySet struct {
	*authserver.KeyCache
	client *authserver.Client
	tokens *tokenCache
}

// Destruct ends the key set when the last handler lets go of it.
func (s *sharedKeySet) Destruct() error {
	s.Close()
	s.client.CloseIdle()
	return nil
}

// provisionKeys sets where the issuer's keys come from. Only files are read.
func (h *Handler) provisionKeys(config *Issuer, iss *issuer) error {
	if config.JWKSFile != "" {
		file, err := authserver.NewKeyFile(config.JWKSFile)
		if err != nil {
			return &settingError{"jwks_file", err}
		}
		iss.keys, iss.tokens = file, newTokenCache()
		return nil
	}
	trust, err := config.trust()
	if err != nil {
		return err
	}
	id := config.keySetID()
	shared, _, err := keySets.LoadOrNew(id, func() (caddy.Destructor, error) {
		client := authserver.NewClient(trust, id.timeout)
		source := authserver.KeysFromIssuer(client, id.issuer, id.discoveryURL)
		if id.jwksURL != "" {
			source = authserver.KeysFromURL(client, id.jwksURL)
		}
		cache := authserver.NewKeyCache(source, client.Roots)
		cache.Fetched = countRefresh(id.issuer)
		return &sharedKeySet{cache, client, newTokenCache()}, nil
	})
	if err != nil {
		return err
	}
	h.cleanup = append(h.cleanup, func() { _, _ = keySets.Delete(id) })
	set := shared.(*sharedKeySet)
	iss.keys, iss.tokens = set, set.tokens
	return nil
}

// trust returns whom calls to the issuer trust.
func (i *Issuer) trust() (authserver.Trust, error) {
	trust := authserver.Trust{AllowHTTP: i.AllowHTTP}
	if len(i.CAFiles) == 0 {
		return trust, nil
	}
	roots := new(rootFiles)
	for _, name := range i.CAFiles {
		file, err := watch.Open(name, parseCertificates)
		if err != nil {
			return trust, &settingError{"ca_files", err}
		}
		roots.files = append(roots.files, file)
	}
	trust.Roots = roots.pool
	return trust, nil
}

// rootFiles are files that hold the roots to trust.
type rootFiles struct {
	files []*watch.File[*certificates]

	mu      sync.Mutex
	current []*certificates
	made    *x509.CertPool // of current
}

// certificates are what one file holds.
type certificates struct{ all []*x509.Certificate }

func parseCertificates(text []byte) (*certificates, error) {
	result := new(certificates)
	for {
		var block *pem.Block
		if block, text = pem.Decode(text); block == nil {
			break
		}
		if block.Type != "CERTIFICATE" {
			continue
		}
		certificate, err := x509.ParseCertificate(block.Bytes)
		if err != nil {
			return nil, err
		}
		result.all = append(result.all, certificate)
	}
	if len(result.all) == 0 {
		return nil, errors.New("no certificate in PEM")
	}
	return result, nil
}

// pool returns the roots, the same pool until a file changes.
func (r *rootFiles) pool() *x509.CertPool {
	r.mu.Lock()
	defer r.mu.Unlock()
	current := make([]*certificates, len(r.files))
	for i, file := range r.files {
		current[i] = file.Get()
	}
	if r.made != nil && slices.Equal(current, r.current) {
		return r.made
	}
	r.current, r.made = current, x509.NewCertPool()
	for _, file := range current {
		for _, certificate := range file.all {
			r.made.AddCert(certificate)
		}
	}
	return r.made
}
