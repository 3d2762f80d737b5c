package authserver

import (
	"context"
	"crypto/x509"
	"errors"
	"fmt"
	"math"
	"net/http"
	"net/url"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sync/singleflight"

	"github.com/caddy-dpop/caddy-dpop/internal/bounded"
	"github.com/caddy-dpop/caddy-dpop/internal/jose"
	"github.com/caddy-dpop/caddy-dpop/internal/token"
)

const (
	// maxWaiting is how many calls may wait for others to end.
	maxWaiting = 1000
	// endpointFresh is how long a discovered endpoint serves.
	endpointFresh = time.Hour
)

// Introspection says whom an Introspector asks, and how.
type Introspection struct {
	Client       *Client
	Issuer       string
	URL          string // of the endpoint; empty: from the issuer's metadata
	DiscoveryURL string // of the metadata; empty: the well-known places
	Auth         ClientAuth
	MaxInFlight  int
	Signed       *Signed // nil: answers are plain JSON
	// Asked is called after each call with the answer, or nil if there was none, and
	// how long it took, if set.
	Asked func(answer *Answer, took time.Duration)
}

// Signed demands answers that are signed by the issuer (RFC 9701).
type Signed struct {
	Keys       KeyFinder
	Algorithms jose.Algorithms
	ClientID   string // whom they must be for
}

// Answer is what an authorization server says of a token (RFC 7662 §2.2).
type Answer struct {
	Active bool
	Claims jose.Object
	Holder token.Holder // by the claims
	At     time.Time    // when it was given

	expires float64        // exp; infinite if there is none
	roots   *x509.CertPool // that vouched for who gave it
	size    int            // in bytes, about
	number  uint64         // in the order in which answers were remembered
}

// Introspector asks an authorization server what it knows of tokens, once for
// all who want to know of one, and never more at once than it may. Positive
// answers are remembered; failures and negative ones are not.
type Introspector struct {
	Introspection
	now    func() time.Time
	ctx    context.Context // of calls, which no request's end may cancel
	cancel context.CancelFunc

	flights singleflight.Group
	slots   chan struct{}
	waiting atomic.Int64

	answers *bounded.Cache[bounded.Key, *Answer]
	count   atomic.Uint64 // of answers remembered so far

	mu       sync.Mutex
	endpoint discovered
}

// discovered is an endpoint as the issuer's metadata tells it.
type discovered struct {
	url      string // empty: not yet
	roots    *x509.CertPool
	retryAt  time.Time // no discovery before
	failures int       // in a row
	err      error     // of the last discovery
}

// NewIntrospector returns an Introspector without any answers yet.
func NewIntrospector(config Introspection) *Introspector {
	ctx, cancel := context.WithCancel(context.Background())
	return &Introspector{
		Introspection: config,
		now:           time.Now,
		ctx:           ctx,
		cancel:        cancel,
		slots:         make(chan struct{}, config.MaxInFlight),
		answers:       bounded.NewCache[bounded.Key, *Answer](),
	}
}

// Close cancels the calls under way, if any.
func (i *Introspector) Close() { i.cancel() }

// Introspect returns an answer for a token that is at most maxAge old. The error
// says why there is no clear answer: an *UnavailableError.
func (i *Introspector) Introspect(ctx context.Context, token string, maxAge time.Duration) (*Answer, error) {
	key := bounded.KeyOf(token)
	if answer := i.remembered(key, maxAge); answer != nil {
		return answer, nil
	}
	before := i.count.Load()
	flight := i.flights.DoChan(string(key[:]), func() (answer any, err error) {
		defer recovered(&err)
		// Another flight may have ended between the look above and this one.
		if known := i.remembered(key, math.MaxInt64); known != nil && known.number > before {
			return known, nil
		}
		began := i.now()
		fresh, err := i.ask(token)
		if i.Asked != nil {
			i.Asked(fresh, i.now().Sub(began))
		}
		if err == nil {
			i.remember(key, fresh)
		}
		return fresh, err
	})
	select {
	case result := <-flight:
		if result.Err != nil {
			return nil, &UnavailableError{result.Err, retryAfter(result.Err)}
		}
		return result.Val.(*Answer), nil
	case <-ctx.Done():
		return nil, &UnavailableError{ctx.Err(), firstPause}
	}
}

// recovered makes an error of a panic, which would end the process: a flight is
// in a goroutine of its own.
func recovered(err *error) {
	if cause := recover(); cause != nil {
		*err = fmt.Errorf("introspection: panic: %v", cause)
	}
}

// retryAfter returns when what failed may be tried again.
func retryAfter(err error) time.Duration {
	var inner *UnavailableError
	if errors.As(err, &inner) {
		return inner.RetryAfter
	}
	return firstPause
}

// remembered returns an answer that is young enough, for a token that has not
// expired since, or nil.
func (i *Introspector) remembered(key bounded.Key, maxAge time.Duration) *Answer {
	answer, ok := i.answers.Get(key)
	now := i.now()
	if !ok || now.Sub(answer.At) >= maxAge || float64(now.UnixMilli())/1000 >= answer.expires || answer.roots != i.Client.Roots() {
		return nil
	}
	return answer
}

// remember keeps a positive answer, and lets go of an earlier one if the answer
// is negative now.
func (i *Introspector) remember(key bounded.Key, answer *Answer) {
	if answer.Active {
		answer.number = i.count.Add(1)
		i.answers.Put(key, answer, answer.size)
	} else {
		i.answers.Remove(key)
	}
}

var errBusy = errors.New("too many introspection calls are waiting already")

// acquire waits for a slot for one more call.
func (i *Introspector) acquire(ctx context.Context) error {
	select {
	case i.slots <- struct{}{}:
		return nil
	default:
	}
	if i.waiting.Add(1) > maxWaiting {
		i.waiting.Add(-1)
		return errBusy
	}
	defer i.waiting.Add(-1)
	select {
	case i.slots <- struct{}{}:
		return nil
	case <-ctx.Done():
		return fmt.Errorf("waiting for other introspection calls: %w", ctx.Err())
	}
}

// ask makes one call. The timeout covers the wait for a slot, too.
func (i *Introspector) ask(token string) (*Answer, error) {
	ctx, cancel := context.WithTimeout(i.ctx, i.Client.timeout)
	defer cancel()
	if err := i.acquire(ctx); err != nil {
		return nil, err
	}
	defer func() { <-i.slots }()
	roots := i.Client.Roots() // that vouch for what follows
	endpoint, err := i.findEndpoint(ctx)
	if err != nil {
		return nil, err
	}
	form := url.Values{"token": {token}, "token_type_hint": {"access_token"}}
	header := http.Header{"Accept": {"application/json"}}
	if i.Signed != nil {
		header.Set("Accept", "application/"+signedType)
	}
	if err := i.Auth.authenticate(i.Issuer, form, header); err != nil {
		return nil, err
	}
	body, mediaType, err := i.Client.post(ctx, endpoint, header, form)
	if err != nil {
		i.doubtEndpoint()
		return nil, err
	}
	answer, err := i.read(ctx, body, mediaType)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", named(endpoint), err)
	}
	answer.roots = roots
	return answer, nil
}

// findEndpoint returns the configured endpoint, or the discovered one. An
// endpoint that was good goes on serving while discovery fails.
func (i *Introspector) findEndpoint(ctx context.Context) (string, error) {
	if i.URL != "" {
		return i.URL, nil
	}
	i.mu.Lock()
	known := i.endpoint
	i.mu.Unlock()
	if known.roots != i.Client.Roots() {
		known = discovered{}
	}
	if i.now().Before(known.retryAt) {
		if known.url == "" {
			return "", known.err
		}
		return known.url, nil
	}
	discovery := i.flights.DoChan("discovery", func() (any, error) { return i.discover(), nil })
	var enough <-chan time.Time // never, while no endpoint is known
	if known.url != "" {
		// It may have moved, but a call is to be made in the time that is left.
		timer := time.NewTimer(min(maxWait, i.Client.timeout/2))
		defer timer.Stop()
		enough = timer.C
	}
	select {
	case <-enough:
		return known.url, nil
	case result := <-discovery:
		found := result.Val.(discovered)
		if found.url == "" {
			return "", found.err
		}
		return found.url, nil
	case <-ctx.Done():
		return "", fmt.Errorf("waiting for discovery: %w", ctx.Err())
	}
}

// discover looks the endpoint up, and says when it is to be looked up again.
func (i *Introspector) discover() discovered {
	roots := i.Client.Roots()
	url, err := discover(i.ctx, i.Client, i.Issuer, i.DiscoveryURL, "introspection_endpoint")
	i.mu.Lock()
	defer i.mu.Unlock()
	if i.endpoint.roots != roots {
		i.endpoint = discovered{roots: roots}
	}
	e := &i.endpoint
	if e.err = err; err != nil {
		e.retryAt = i.now().Add(min(firstPause<<min(e.failures, 5), lastPause))
		e.failures++
	} else {
		e.url, e.failures, e.retryAt = url, 0, i.now().Add(endpointFresh)
	}
	return *e
}

// doubtEndpoint has the endpoint discovered again soon, in case it has moved.
func (i *Introspector) doubtEndpoint() {
	i.mu.Lock()
	defer i.mu.Unlock()
	if soon := i.now().Add(missInterval); soon.Before(i.endpoint.retryAt) {
		i.endpoint.retryAt = soon
	}
}

// read takes an answer from a body. What is not clearly one is an error, never
// a negative answer.
func (i *Introspector) read(ctx context.Context, body []byte, mediaType string) (*Answer, error) {
	var claims jose.Object
	var err error
	if i.Signed != nil {
		claims, err = i.readSigned(ctx, body, mediaType)
	} else {
		claims, err = jose.ParseObject(body)
	}
	if err != nil {
		return nil, fmt.Errorf("introspection answer: %w", err)
	}
	active, _ := claims.Get("active")
	switch string(active) {
	case "true", "false":
		answer := &Answer{Active: string(active) == "true", Claims: claims, Holder: token.HolderOf(claims), At: i.now(), expires: math.Inf(1)}
		if exp, ok := claims.Get("exp"); ok {
			answer.expires, _ = exp.Number() // what is no number is refused later
		}
		// taken apart, its members take more than its text
		answer.size = len(body) + 64*claims.Len()
		return answer, nil
	}
	return nil, errors.New("introspection answer: active is not a boolean")
}

// signedType is the media type, and the typ, of RFC 9701 §5.
const signedType = "token-introspection+jwt"

// readSigned verifies an answer that is a JWT (RFC 9701 §5): by a key of the
// issuer, of its type, from the issuer, and for this client.
func (i *Introspector) readSigned(ctx context.Context, body []byte, mediaType string) (jose.Object, error) {
	var none jose.Object
	if !jose.MediaTypeIs(mediaType, signedType) {
		return none, fmt.Errorf("not of the type application/%s, which signed_response requires", signedType)
	}
	jws, err := jose.ParseJWS(string(body))
	if err != nil {
		return none, err
	}
	text := func(object jose.Object, name string) string {
		value, _ := object.Get(name)
		s, _ := value.Text()
		return s
	}
	if !jose.MediaTypeIs(text(jws.Header, "typ"), signedType) {
		return none, fmt.Errorf("its typ is not %s", signedType)
	}
	if jws.Extended() {
		return none, errors.New("it has a crit, b64 or zip header")
	}
	algorithm := i.Signed.Algorithms.Find(text(jws.Header, "alg"))
	if algorithm == nil {
		return none, errors.New("its alg is not accepted")
	}
	found, err := i.Signed.Keys.Find(ctx, text(jws.Header, "kid"), algorithm)
	if err != nil {
		return none, err
	}
	if !slices.ContainsFunc(found.Keys, func(key *jose.Key) bool { return algorithm.Verify(key, jws.Input, jws.Signature) == nil }) {
		return none, errors.New("its signature does not verify with a key of the issuer")
	}
	if text(jws.Claims, "iss") != i.Issuer {
		return none, errors.New("it is of another issuer")
	}
	if !slices.Contains(jws.Claims.Strings("aud"), i.Signed.ClientID) {
		return none, errors.New("it is for another client")
	}
	if err := checkLifetime(jws.Claims, i.now()); err != nil {
		return none, err
	}
	value, _ := jws.Claims.Get("token_introspection")
	claims, ok := value.Object()
	if !ok {
		return none, errors.New("it has no token_introspection")
	}
	return claims, nil
}

// checkLifetime checks iat, which must be there, exp and nbf of a signed answer,
// with a minute for clocks to differ.
func checkLifetime(claims jose.Object, now time.Time) error {
	at := float64(now.Unix())
	const leeway = 60
	for _, name := range []string{"iat", "exp", "nbf"} {
		value, ok := claims.Get(name)
		if !ok && name != "iat" {
			continue
		}
		n, ok := value.Number()
		switch {
		case !ok:
			return fmt.Errorf("its %s is missing or not a number", name)
		case name == "exp" && at > n+leeway:
			return errors.New("it has expired")
		case name != "exp" && at < n-leeway:
			return fmt.Errorf("its %s is in the future", name)
		}
	}
	return nil
}
