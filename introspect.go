package caddydpop

import (
	"context"
	"crypto/sha256"
	"crypto/tls"
	"encoding/hex"
	"strings"
	"sync"
	"time"

	"github.com/caddyserver/caddy/v2"

	"github.com/caddy-dpop/caddy-dpop/internal/authserver"
	"github.com/caddy-dpop/caddy-dpop/internal/failure"
	"github.com/caddy-dpop/caddy-dpop/internal/jose"
	"github.com/caddy-dpop/caddy-dpop/internal/token"
	"github.com/caddy-dpop/caddy-dpop/internal/watch"
)

// Introspection is how an issuer is asked what it knows of a token (RFC 7662).
type Introspection struct {
	// The URL of the endpoint. Default: from the issuer's metadata.
	URL string `json:"url,omitempty"`

	// Which tokens are introspected:
	//
	// - `opaque` (default): those that are no JWTs, which are verified locally.
	// - `all`: every one. Of a JWT the signature, `iss`, `exp`, `nbf` and `typ` are
	// verified locally too, while `aud`, scopes and other claims come from the answer.
	// A `cnf`, `sub` or `iss` in both must agree, and a `cnf` in either counts.
	Tokens string `json:"tokens,omitempty"`

	// Who this server is to the issuer.
	ClientID string `json:"client_id,omitempty"`

	// The secret of `client_secret_basic` and `client_secret_post`.
	ClientSecret string `json:"client_secret,omitempty"`

	// How this server shows who it is: `client_secret_basic` (default),
	// `client_secret_post`, `private_key_jwt`, `tls_client_auth`, `bearer` or `none`.
	Auth string `json:"auth,omitempty"`

	// The file with the private key of `private_key_jwt`: a JWK, or PEM. It is read
	// again when it changes.
	PrivateKeyFile string `json:"private_key_file,omitempty"`

	// The certificate of `tls_client_auth`.
	ClientCertificate *ClientCertificate `json:"client_certificate,omitempty"`

	// The access token of `bearer`.
	BearerToken string `json:"bearer_token,omitempty"`

	// Demands that answers are JWTs signed by the issuer (RFC 9701).
	SignedResponse bool `json:"signed_response,omitempty"`

	// How long a positive answer may serve, though never past the token's `exp`;
	// `0` is not at all. A token that is revoked is accepted for so long. Default: `10s`.
	Cache *caddy.Duration `json:"cache,omitempty"`

	// How many calls may be under way at once. A thousand more may wait, and beyond
	// those requests are answered 503. Default: `64`.
	MaxInFlight int `json:"max_in_flight,omitempty"`
}

// ClientCertificate is a certificate for mutual TLS. Its files are read again
// when they change.
type ClientCertificate struct {
	// The file with the certificate, and those between it and the root (PEM).
	CertificateFile string `json:"certificate_file,omitempty"`

	// The file with its private key (PEM).
	KeyFile string `json:"key_file,omitempty"`
}

const (
	introspectOpaque = "opaque"
	introspectAll    = "all"

	authBasic  = "client_secret_basic"
	authPost   = "client_secret_post"
	authKeyJWT = "private_key_jwt"
	authTLS    = "tls_client_auth"
	authBearer = "bearer"
	authNone   = "none"

	defaultAnswerCache = 10 * time.Second
	defaultMaxInFlight = 64
)

// introspection is an Introspection as requests need it.
type introspection struct {
	introspector *authserver.Introspector
	all          bool
	cache        time.Duration
}

// introspectors holds the introspectors of all handlers, so that their answers
// survive reloads.
var introspectors = caddy.NewUsagePool()

// introspectorID is all that an answer belongs to: trust must not mix.
type introspectorID struct {
	keySetID
	url, clientID, auth, certificate, key string
	signed                                bool
	maxInFlight                           int
	signers                               string // keys and algorithms of signed answers
	secrets                               string // hash of the secrets
}

// sharedIntrospector is an introspector in the pool.
type sharedIntrospector struct {
	*authserver.Introspector
	client *authserver.Client
}

// Destruct ends the introspector when the last handler lets go of it.
func (s *sharedIntrospector) Destruct() error {
	s.Close()
	s.client.CloseIdle()
	return nil
}

// provisionIntrospection makes an introspection of checked settings. It reads
// files, and calls nobody.
func (h *Handler) provisionIntrospection(config *Issuer, iss *issuer) error {
	settings := config.Introspection
	if settings == nil {
		return nil
	}
	auth, err := h.clientAuth(settings)
	if err != nil {
		return err
	}
	trust, err := config.trust()
	if err != nil {
		return err
	}
	id := introspectorID{
		keySetID:    config.keySetID(),
		url:         settings.URL,
		clientID:    settings.ClientID,
		auth:        orDefault(settings.Auth, authBasic),
		key:         settings.PrivateKeyFile,
		signed:      settings.SignedResponse,
		maxInFlight: orDefault(settings.MaxInFlight, defaultMaxInFlight),
		secrets:     hashed(settings.ClientSecret, settings.BearerToken),
	}
	if certificate := settings.ClientCertificate; certificate.given() {
		id.certificate = certificate.CertificateFile + "\n" + certificate.KeyFile
		if trust.Certificate, err = certificate.open(); err != nil {
			return err
		}
	}
	what := authserver.Introspection{
		Client:       authserver.NewClient(trust, id.timeout),
		Issuer:       config.Issuer,
		URL:          settings.URL,
		DiscoveryURL: config.DiscoveryURL,
		Auth:         auth,
		MaxInFlight:  id.maxInFlight,
		Asked:        countIntrospection(config.Issuer),
	}
	if settings.SignedResponse {
		id.signers = config.JWKSFile + "\n" + strings.Join(iss.algorithms.Names(), " ")
		what.Signed = &authserver.Signed{Keys: iss.keys, Algorithms: iss.algorithms, ClientID: settings.ClientID}
	}
	shared, _, err := introspectors.LoadOrNew(id, func() (caddy.Destructor, error) {
		return &sharedIntrospector{authserver.NewIntrospector(what), what.Client}, nil
	})
	if err != nil {
		return err
	}
	h.cleanup = append(h.cleanup, func() { _, _ = introspectors.Delete(id) })
	iss.introspection = &introspection{
		introspector: shared.(*sharedIntrospector).Introspector,
		all:          settings.Tokens == introspectAll,
		cache:        settings.cache(),
	}
	return nil
}

func (i *Introspection) cache() time.Duration { return durationOr(i.Cache, defaultAnswerCache) }

// clientAuth returns how this server shows the issuer who it is.
func (h *Handler) clientAuth(i *Introspection) (authserver.ClientAuth, error) {
	switch orDefault(i.Auth, authBasic) {
	case authPost:
		return authserver.SecretPost{ID: i.ClientID, Secret: i.ClientSecret}, nil
	case authKeyJWT:
		file, err := watch.Open(i.PrivateKeyFile, jose.ParsePrivateKey)
		if err != nil {
			return nil, &settingError{"introspection.private_key_file", err}
		}
		h.published.keys = append(h.published.keys, file.Get)
		return authserver.KeyJWT{ID: i.ClientID, Key: file.Get}, nil
	case authTLS, authNone:
		return authserver.ClientID{ID: i.ClientID}, nil
	case authBearer:
		return authserver.BearerToken{Token: i.BearerToken}, nil
	}
	return authserver.SecretBasic{ID: i.ClientID, Secret: i.ClientSecret}, nil
}

// given reports whether there is one: in JSON, all may be empty.
func (c *ClientCertificate) given() bool { return c != nil && *c != (ClientCertificate{}) }

// open reads the certificate, and returns it as its files then are. While they
// do not fit each other, as when one is replaced and the other not yet, the pair
// that did goes on serving.
func (c *ClientCertificate) open() (func() (*tls.Certificate, error), error) {
	asItIs := func(text []byte) ([]byte, error) { return text, nil }
	certificate, err := watch.Open(c.CertificateFile, asItIs)
	if err != nil {
		return nil, &settingError{"introspection.client_certificate.certificate_file", err}
	}
	key, err := watch.Open(c.KeyFile, asItIs)
	if err != nil {
		return nil, &settingError{"introspection.client_certificate.key_file", err}
	}
	good, err := tls.X509KeyPair(certificate.Get(), key.Get())
	if err != nil {
		return nil, &settingError{"introspection.client_certificate", err}
	}
	var mu sync.Mutex
	return func() (*tls.Certificate, error) {
		mu.Lock()
		defer mu.Unlock()
		if pair, err := tls.X509KeyPair(certificate.Get(), key.Get()); err == nil {
			good = pair
		}
		current := good
		return &current, nil
	}, nil
}

// hashed returns a hash of secrets, for telling settings apart.
func hashed(secrets ...string) string {
	hash := sha256.New()
	for _, secret := range secrets {
		sum := sha256.Sum256([]byte(secret))
		hash.Write(sum[:])
	}
	return hex.EncodeToString(hash.Sum(nil))
}

// introspect asks the issuer about a token, and holds the answer against the
// handler's rules for that issuer. Local is the token as it was verified locally,
// or nil if it is opaque.
func (h *Handler) introspect(ctx context.Context, req *request, iss *issuer, creds credentials, local *token.Token) (grant, *failure.Failure) {
	answer, err := iss.introspection.introspector.Introspect(ctx, creds.token, iss.introspection.cache)
	if err != nil {
		return grant{}, unavailable(failure.IntrospectionUnavailable, "whether the access token is good cannot be told at the moment", err)
	}
	if !answer.Active {
		return grant{}, failure.New(failure.TokenInactive, "the access token is not active, as its issuer says")
	}
	good := grant{claims: answer.Claims, holder: &answer.Holder}
	if local != nil {
		if f := token.CheckAgreement(local.Claims, answer.Claims); f != nil {
			return grant{}, f
		}
		good.local = local.Claims
	}
	req.verdict.clientID = answer.Holder.ClientID
	if f := token.CheckAnswer(answer.Claims, iss.rules, creds.scheme, h.now()); f != nil {
		return grant{}, f
	}
	return good, nil
}
