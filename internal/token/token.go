// Package token verifies JWT access tokens (RFC 7519, RFC 8725, RFC 9068) and
// their binding to a key (RFC 7800, RFC 9449 §6). It is given the issuer's keys
// and the time, and calls nobody.
package token

import (
	"math"
	"slices"
	"strings"
	"sync/atomic"
	"time"

	"github.com/caddy-dpop/caddy-dpop/internal/failure"
	"github.com/caddy-dpop/caddy-dpop/internal/jose"
)

// MaxSize bounds an access token, in bytes.
const MaxSize = 16 << 10

// Parsed is a JWT taken apart. Nothing in it can be trusted yet.
type Parsed struct {
	jws       jose.JWS
	Algorithm string // alg
	KeyID     string // kid; empty: none
}

// Parse takes a token apart. It fails for opaque tokens too.
func Parse(compact string) (*Parsed, *failure.Failure) {
	p, f := Split(compact)
	if f != nil {
		return nil, f
	}
	if f := p.CheckExtensions(); f != nil {
		return nil, f
	}
	if f := p.ReadAlgorithm(); f != nil {
		return nil, f
	}
	if f := p.ReadKeyID(); f != nil {
		return nil, f
	}
	return p, nil
}

// Split is Parse as far as the header, for tools that explain a token: what the
// header says is still to be checked.
func Split(compact string) (*Parsed, *failure.Failure) {
	jws, err := jose.ParseJWS(compact)
	if err != nil {
		return nil, failure.New(failure.TokenMalformed, "the access token is not a JWT",
			failure.Detail{Name: "error", Value: err})
	}
	return &Parsed{jws: jws}, nil
}

// Header returns the JOSE header.
func (p *Parsed) Header() jose.Object { return p.jws.Header }

// Claims returns the claims.
func (p *Parsed) Claims() jose.Object { return p.jws.Claims }

// CheckExtensions checks that nothing changes how the token must be read.
func (p *Parsed) CheckExtensions() *failure.Failure {
	if p.jws.Extended() {
		return failure.New(failure.TokenMalformed, "the access token has a crit, b64 or zip header, which is not supported")
	}
	return nil
}

// ReadAlgorithm reads alg, which must be there.
func (p *Parsed) ReadAlgorithm() *failure.Failure {
	alg, _ := p.jws.Header.Get("alg")
	if p.Algorithm, _ = alg.Text(); p.Algorithm == "" {
		return failure.New(failure.TokenMalformed, "the access token has no alg")
	}
	return nil
}

// ReadKeyID reads kid, which need not be there.
func (p *Parsed) ReadKeyID() *failure.Failure {
	kid, ok := p.jws.Header.Get("kid")
	if !ok {
		return nil
	}
	if p.KeyID, ok = kid.Text(); !ok {
		return failure.New(failure.TokenMalformed, "the kid of the access token is not a string")
	}
	return nil
}

// Issuer returns iss as the token states it, to find the issuer whose keys
// must verify it; empty if there is none.
func (p *Parsed) Issuer() string {
	iss, _ := p.jws.Claims.Get("iss")
	text, _ := iss.Text()
	return text
}

// VerifySignature tries the keys in turn. On success the claims are the issuer's.
func (p *Parsed) VerifySignature(algorithm *jose.Algorithm, keys []*jose.Key) (*Token, *failure.Failure) {
	for _, key := range keys {
		if algorithm.Verify(key, p.jws.Input, p.jws.Signature) == nil {
			return &Token{Algorithm: algorithm.Name, Claims: p.jws.Claims, Holder: HolderOf(p.jws.Claims), header: p.jws.Header}, nil
		}
	}
	return nil, failure.New(failure.TokenSignature, "the signature of the access token does not verify with a key of its issuer")
}

// Token is an access token whose signature holds. It may be checked many times, by
// many at once.
type Token struct {
	Algorithm string // of the signature
	Claims    jose.Object
	Holder    Holder // by the claims

	header jose.Object
	passed atomic.Pointer[passed]
}

// passed says by which rules a token has passed Check, and when it does: they do not
// change, and nor does what it says.
type passed struct {
	rules       *Rules
	from, until float64 // by nbf, iat and exp
}

// Rules are what one protected resource demands of a token of one issuer.
type Rules struct {
	Issuer    string
	Audiences []string // any one suffices
	// AnyAudience accepts tokens for other resources, or for none.
	AnyAudience bool
	Types       []string // typ accepted; "-" is no typ at all
	// RFC9068 demands typ at+jwt and every claim of RFC 9068 §2.2.
	RFC9068   bool
	ClockSkew time.Duration
}

// AccessTokenType is the typ of RFC 9068 §2.1.
const AccessTokenType = "at+jwt"

// NoType stands among the accepted types for a token without typ.
const NoType = "-"

// Check holds the token against the rules, which must not change afterwards, at a time.
func (t *Token) Check(rules *Rules, now time.Time) *failure.Failure {
	if p := t.passed.Load(); p != nil && p.rules == rules && !rules.expired(p.until, now) && !rules.early(p.from, now) {
		return nil
	}
	if f := t.CheckLocally(rules, now); f != nil {
		return f
	}
	if rules.RFC9068 {
		if f := CheckProfile(t.Claims); f != nil {
			return f
		}
	}
	if f := rules.CheckAudience(t.Claims); f != nil {
		return f
	}
	t.passed.Store(&passed{rules, t.from(), t.until()})
	return nil
}

// from returns the later of nbf and iat.
func (t *Token) from() float64 {
	from := math.Inf(-1)
	for _, name := range startClaims {
		if at, ok, _ := timeClaim(t.Claims, name); ok {
			from = max(from, at)
		}
	}
	return from
}

func (t *Token) until() float64 {
	exp, _, _ := timeClaim(t.Claims, "exp")
	return exp
}

// CheckLocally is the part of Check for a token that its issuer is asked about
// too: what the issuer says of aud and other claims counts, and the token need
// not have them.
func (t *Token) CheckLocally(rules *Rules, now time.Time) *failure.Failure {
	if f := rules.CheckIssuer(t.Claims); f != nil {
		return f
	}
	typ, f := rules.CheckType(t.header)
	if f != nil {
		return f
	}
	if f := CheckKind(typ, t.Claims); f != nil {
		return f
	}
	if f := rules.CheckExpiry(t.Claims, now); f != nil {
		return f
	}
	return rules.checkStarts(t.Claims, now)
}

// CheckIssuer checks iss.
func (r *Rules) CheckIssuer(claims jose.Object) *failure.Failure {
	value, _ := claims.Get("iss")
	if iss, _ := value.Text(); iss != r.Issuer {
		return failure.New(failure.TokenIssuer, "the access token is of an issuer that is not accepted here")
	}
	return nil
}

// CheckType checks the typ header, and returns it.
func (r *Rules) CheckType(header jose.Object) (string, *failure.Failure) {
	typ := NoType
	if value, ok := header.Get("typ"); ok {
		if typ, ok = value.Text(); !ok || jose.MediaTypeIs(typ, NoType) {
			return "", failure.New(failure.TokenType, "the typ of the access token is not accepted here")
		}
	}
	types := r.Types
	if r.RFC9068 {
		types = []string{AccessTokenType}
	}
	for _, accepted := range types {
		if jose.MediaTypeIs(typ, accepted) {
			return typ, nil
		}
	}
	return typ, failure.New(failure.TokenType, "the typ of the access token is not accepted here",
		failure.Detail{Name: "expected", Value: strings.Join(types, " ")}, failure.Detail{Name: "found", Value: typ})
}

// CheckKind refuses a JWT that shows itself to be something else than an access
// token. RFC 9068 tokens say by their typ that they are one; for the rest it is
// all that stands between an ID token and the resource (RFC 8725 §3.12).
func CheckKind(typ string, claims jose.Object) *failure.Failure {
	if jose.MediaTypeIs(typ, AccessTokenType) {
		return nil
	}
	for _, name := range []string{"at_hash", "c_hash", "events"} {
		if claims.Has(name) {
			return failure.New(failure.TokenNotAccessToken, "the token has a claim that shows it to be no access token: "+name)
		}
	}
	value, _ := claims.Get("typ")
	kind, _ := value.Text()
	for _, other := range []string{"ID", "Refresh", "Offline", "Logout"} {
		if strings.EqualFold(kind, other) {
			return failure.New(failure.TokenNotAccessToken, "the token says of itself that it is no access token, by its typ claim")
		}
	}
	return nil
}

// CheckProfile checks that the claims that RFC 9068 §2.2 requires are there. exp
// and iss are checked for every token.
func CheckProfile(claims jose.Object) *failure.Failure {
	for _, name := range []string{"sub", "client_id", "jti"} {
		value, _ := claims.Get(name)
		if text, _ := value.Text(); text == "" {
			return failure.New(failure.TokenClaims, "the access token has no "+name+", which RFC 9068 requires")
		}
	}
	if !claims.Has("iat") {
		return failure.New(failure.TokenClaims, "the access token has no iat, which RFC 9068 requires")
	}
	if len(claims.Strings("aud")) == 0 {
		return failure.New(failure.TokenClaims, "the access token has no aud, which RFC 9068 requires")
	}
	return nil
}

// CheckExpiry checks exp, which must be there.
func (r *Rules) CheckExpiry(claims jose.Object, now time.Time) *failure.Failure {
	exp, ok, f := timeClaim(claims, "exp")
	if f != nil {
		return f
	}
	if !ok {
		return failure.New(failure.TokenClaims, "the access token has no exp")
	}
	if r.expired(exp, now) {
		return failure.New(failure.TokenExpired, "the access token has expired", failure.Detail{Name: "expired_seconds_ago", Value: seconds(now) - exp})
	}
	return nil
}

func (r *Rules) expired(exp float64, now time.Time) bool {
	return seconds(now)-r.ClockSkew.Seconds() >= exp
}

func (r *Rules) early(from float64, now time.Time) bool {
	return seconds(now)+r.ClockSkew.Seconds() < from
}

// startClaims are those from which on a token is good.
var startClaims = []string{"nbf", "iat"}

// checkStarts checks nbf and iat, each if it is there.
func (r *Rules) checkStarts(claims jose.Object, now time.Time) *failure.Failure {
	for _, name := range startClaims {
		if f := r.CheckStart(claims, name, now); f != nil {
			return f
		}
	}
	return nil
}

// CheckStart checks that a claim from which on the token is good, nbf or iat, is
// not in the future, if it is there.
func (r *Rules) CheckStart(claims jose.Object, name string, now time.Time) *failure.Failure {
	from, ok, f := timeClaim(claims, name)
	if f != nil {
		return f
	}
	if ok && r.early(from, now) {
		return failure.New(failure.TokenEarly, "the "+name+" of the access token is in the future by this server's clock",
			failure.Detail{Name: "seconds_ahead", Value: from - seconds(now)})
	}
	return nil
}

func seconds(t time.Time) float64 { return float64(t.UnixMilli()) / 1000 }

func timeClaim(claims jose.Object, name string) (float64, bool, *failure.Failure) {
	value, ok := claims.Get(name)
	if !ok {
		return 0, false, nil
	}
	n, ok := value.Number()
	if !ok {
		return 0, false, failure.New(failure.TokenClaims, "the "+name+" of the access token is not a number")
	}
	return n, true, nil
}

// CheckAudience checks that one of the token's audiences is accepted.
func (r *Rules) CheckAudience(claims jose.Object) *failure.Failure {
	if r.AnyAudience {
		return nil
	}
	found := claims.Strings("aud")
	for _, one := range found {
		if slices.Contains(r.Audiences, one) {
			return nil
		}
	}
	return failure.New(failure.TokenAudience, "the access token is not for this resource: its aud names another, or none",
		failure.Detail{Name: "expected", Value: strings.Join(r.Audiences, " ")}, failure.Detail{Name: "found", Value: strings.Join(found, " ")})
}

// uncheckedConfirmations are the registered confirmation methods of JWTs (RFC
// 7800 §3.1, RFC 8705 §3.1) that are not checked here. A token that carries one
// beside jkt demands more than would be verified.
var uncheckedConfirmations = []string{"x5t#S256", "jwk", "jwe", "kid", "jku"}

// CheckBinding checks that a token is bound to the key with the thumbprint, and
// to nothing else (RFC 9449 §6.1 and §7.1). Of the places that may hold its cnf,
// the token itself and what its issuer says of it, each that has one counts.
func CheckBinding(thumbprint string, places ...jose.Object) *failure.Failure {
	bound := false
	for _, claims := range places {
		cnf, ok := claims.Get("cnf")
		if !ok {
			continue
		}
		if f := checkConfirmation(cnf, thumbprint); f != nil {
			return f
		}
		bound = true
	}
	if !bound {
		return failure.New(failure.TokenUnbound, "the access token is not bound to a key: it has no cnf")
	}
	return nil
}

func checkConfirmation(cnf jose.Value, thumbprint string) *failure.Failure {
	jkt, f := confirmed(cnf)
	if f != nil {
		return f
	}
	if jkt == "" || jkt != thumbprint {
		return failure.New(failure.TokenOtherKey, "the access token is bound to another key than that of the DPoP proof",
			failure.Detail{Name: "expected", Value: jkt}, failure.Detail{Name: "found", Value: thumbprint})
	}
	return nil
}

// confirmed returns the thumbprint of the key that a cnf names, or an empty one if
// what it has there is none.
func confirmed(value jose.Value) (string, *failure.Failure) {
	cnf, ok := value.Object()
	if !ok {
		return "", failure.New(failure.TokenConfirmation, "the cnf of the access token is not a JSON object")
	}
	for _, name := range uncheckedConfirmations {
		if cnf.Has(name) {
			return "", failure.New(failure.TokenConfirmation, "the cnf of the access token demands a confirmation that is not supported here")
		}
	}
	value, ok = cnf.Get("jkt")
	if !ok {
		return "", failure.New(failure.TokenUnbound, "the access token is not bound to a DPoP key: its cnf has no jkt")
	}
	jkt, _ := value.Text()
	return jkt, nil
}

// CheckUnbound checks that a Bearer token is bound to no key at all: one that
// is must not be used without proof of possession (RFC 9449 §7.2).
func CheckUnbound(places ...jose.Object) *failure.Failure {
	for _, claims := range places {
		if claims.Has("cnf") {
			return tokenBound()
		}
	}
	return nil
}

func tokenBound() *failure.Failure {
	return failure.New(failure.TokenBound, "the access token is bound to a key and cannot be used as a Bearer token")
}
