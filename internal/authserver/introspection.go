package authserver

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sync/singleflight"

	"github.com/caddy-dpop/caddy-dpop/internal/jose"
)

const (
	// maxAnswers and maxAnswerBytes bound the memory of positive answers.
	maxAnswers     = 100_000
	maxAnswerBytes = 128 << 20
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
	At     time.Time // when it was given

	size int // of its text
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

	mu           sync.Mutex
	answers      map[tokenKey]*Answer
	bytes        int
	endpoint     string // discovered
	discoveredAt time.Time
}

type tokenKey [sha256.Size]byte

// NewIntrospector returns an Introspector without any answers yet.
func NewIntrospector(config Introspection) *Introspector {
	ctx, cancel := context.WithCancel(context.Background())
	return &Introspector{
		Introspection: config,
		now:           time.Now,
		ctx:           ctx,
		cancel:        cancel,
		slots:         make(chan struct{}, config.MaxInFlight),
		answers:       make(map[tokenKey]*Answer),
	}
}

// Close cancels the calls under way, if any.
func (i *Introspector) Close() { i.cancel() }

// Introspect returns an answer for a token that is at most maxAge old. The error
// says why there is no clear answer: an *UnavailableError.
func (i *Introspector) Introspect(ctx context.Context, token string, maxAge time.Duration) (*Answer, error) {
	key := tokenKey(sha256.Sum256([]byte(token)))
	if answer := i.remembered(key, maxAge); answer != nil {
		return answer, nil
	}
	flight := i.flights.DoChan(string(key[:]), func() (any, error) {
		answer, err := i.ask(token)
		if err == nil && answer.Active {
			i.remember(key, answer)
		}
		return answer, err
	})
	select {
	case result := <-flight:
		if result.Err != nil {
			return nil, &UnavailableError{result.Err, firstPause}
		}
		return result.Val.(*Answer), nil
	case <-ctx.Done():
		return nil, &UnavailableError{ctx.Err(), firstPause}
	}
}

// remembered returns an answer that is young enough, or nil.
func (i *Introspector) remembered(key tokenKey, maxAge time.Duration) *Answer {
	i.mu.Lock()
	defer i.mu.Unlock()
	answer := i.answers[key]
	if answer == nil || i.now().Sub(answer.At) >= maxAge {
		return nil
	}
	return answer
}

// remember keeps a positive answer, and lets others go to make room. Which ones
// is left to chance, so that nobody can aim at another's.
func (i *Introspector) remember(key tokenKey, answer *Answer) {
	i.mu.Lock()
	defer i.mu.Unlock()
	i.forget(key)
	for other := range i.answers {
		if len(i.answers) < maxAnswers && i.bytes+answer.size <= maxAnswerBytes {
			break
		}
		i.forget(other)
	}
	i.answers[key] = answer
	i.bytes += answer.size
}

func (i *Introspector) forget(key tokenKey) {
	if answer := i.answers[key]; answer != nil {
		i.bytes -= answer.size
		delete(i.answers, key)
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
		i.forgetEndpoint()
		return nil, err
	}
	answer, err := i.read(ctx, body, mediaType)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", endpoint, err)
	}
	return answer, nil
}

// findEndpoint returns the configured endpoint, or the discovered one.
func (i *Introspector) findEndpoint(ctx context.Context) (string, error) {
	if i.URL != "" {
		return i.URL, nil
	}
	i.mu.Lock()
	endpoint, age := i.endpoint, i.now().Sub(i.discoveredAt)
	i.mu.Unlock()
	if endpoint != "" && age < endpointFresh {
		return endpoint, nil
	}
	found, err, _ := i.flights.Do("discovery", func() (any, error) {
		return discover(ctx, i.Client, i.Issuer, i.DiscoveryURL, "introspection_endpoint")
	})
	if err != nil {
		return "", err
	}
	i.mu.Lock()
	defer i.mu.Unlock()
	i.endpoint, i.discoveredAt = found.(string), i.now()
	return i.endpoint, nil
}

// forgetEndpoint has the endpoint discovered again, in case it has moved.
func (i *Introspector) forgetEndpoint() {
	i.mu.Lock()
	defer i.mu.Unlock()
	i.endpoint = ""
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
		return &Answer{Active: string(active) == "true", Claims: claims, At: i.now(), size: len(body)}, nil
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
	if jws.Header.Has("crit") || jws.Header.Has("b64") || jws.Header.Has("zip") {
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
	value, _ := jws.Claims.Get("token_introspection")
	claims, ok := value.Object()
	if !ok {
		return none, errors.New("it has no token_introspection")
	}
	return claims, nil
}
