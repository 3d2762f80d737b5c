// Package proof verifies DPoP proofs (RFC 9449 §4): text, request and clock in,
// a verified proof or a typed failure out. It knows nothing of HTTP servers.
package proof

import (
	"crypto/sha256"
	"encoding/base64"
	"math"
	"strings"
	"time"

	"github.com/caddy-dpop/caddy-dpop/internal/failure"
	"github.com/caddy-dpop/caddy-dpop/internal/jose"
)

const (
	// MaxSize bounds a proof's text, in bytes. RSA-4096 with long URLs stays below 4 KiB.
	MaxSize = 8 << 10
	// maxJTI bounds the proof's identifier, in bytes.
	maxJTI = 512
)

// Proof is a DPoP proof whose signature holds. Whether it is for this request,
// and made in time, is still to be checked.
type Proof struct {
	// Thumbprint is that of the key that signed (RFC 7638), as in cnf.jkt.
	Thumbprint string
	// Algorithm is the name of the signature's algorithm.
	Algorithm string
	// ID is jti, which no other proof by this key may repeat.
	ID string
	// IssuedAt is iat: seconds since 1970 by the client's clock, finite.
	IssuedAt float64

	nonce  *string  // nil: none
	odd    bool     // whether nonce is there but no string
	method string   // htm
	uri    string   // htu
	ath    string   // empty: none
	exp    *float64 // honoured if there, as for any JWT
	nbf    *float64 // likewise

	signedBy signedBy
	header   string // what Signers may remember that by; empty if they do
}

// Verify parses a proof and verifies its signature with the key that it
// carries (RFC 9449 §4.3, checks 2 to 7), and that its claims are of the types
// that they must have (check 3).
func Verify(compact string, allowed jose.Algorithms) (*Proof, *failure.Failure) {
	var none *Signers
	return none.Verify(compact, allowed)
}

// Verify is the function of that name, but what is remembered of a header is not
// read again.
func (s *Signers) Verify(compact string, allowed jose.Algorithms) (p *Proof, f *failure.Failure) {
	p = new(Proof) // here, it can be on the stack of who calls
	if f = s.verify(p, compact, allowed); f != nil {
		p = nil
	}
	return p, f
}

func (s *Signers) verify(p *Proof, compact string, allowed jose.Algorithms) *failure.Failure {
	header := jose.HeaderText(compact)
	by, known := s.find(header)
	var room jose.Room
	parsed, f := parse(compact, known, &room)
	if f != nil {
		return f
	}
	if known {
		header, f = "", by.allowedBy(allowed)
	} else {
		by, f = parsed.signedBy(allowed)
	}
	if f != nil {
		return f
	}
	if f := parsed.CheckSignature(by.algorithm, by.key); f != nil {
		return f
	}
	*p = Proof{Thumbprint: by.key.Thumbprint, Algorithm: by.algorithm.Name, signedBy: by, header: header}
	for _, name := range claimNames {
		if f := p.read(parsed.jws.Claims, name); f != nil {
			return f
		}
	}
	return nil
}

// Parsed is a proof taken apart. Nothing in it can be trusted yet. Its methods
// are the steps of Verify, which tools that explain a proof take one by one.
type Parsed struct {
	jws jose.JWS
}

// Parse takes a proof apart: check 2.
func Parse(compact string) (Parsed, *failure.Failure) { return parse(compact, false, new(jose.Room)) }

func parse(compact string, headerKnown bool, room *jose.Room) (Parsed, *failure.Failure) {
	if len(compact) > MaxSize {
		return Parsed{}, failure.New(failure.ProofTooLarge, "the DPoP proof is larger than 8192 bytes")
	}
	var jws jose.JWS
	var err error
	if headerKnown {
		jws, err = jose.ParseSmallJWSBody(compact, room)
	} else {
		jws, err = jose.ParseSmallJWS(compact, room)
	}
	if err != nil {
		return Parsed{}, failure.New(failure.ProofMalformed,
			"the DPoP proof is not a JWS in compact serialization", failure.Detail{Name: "error", Value: err})
	}
	return Parsed{jws}, nil
}

// signedBy is checks 4, 5 and 7: what the header says.
func (p *Parsed) signedBy(allowed jose.Algorithms) (signedBy, *failure.Failure) {
	if f := p.CheckType(); f != nil {
		return signedBy{}, f
	}
	if f := p.CheckExtensions(); f != nil {
		return signedBy{}, f
	}
	algorithm, f := p.Algorithm(allowed)
	if f != nil {
		return signedBy{}, f
	}
	key, f := p.Key()
	return signedBy{algorithm, key}, f
}

// Unverified returns the proof although nobody knows yet who has signed it, to
// explain it: with what is wrong with claims, by their names. It has no thumbprint,
// so that no token is bound to it.
func (p *Parsed) Unverified() (*Proof, map[string]*failure.Failure) {
	proof, failures := new(Proof), make(map[string]*failure.Failure)
	for _, name := range claimNames {
		if f := proof.read(p.jws.Claims, name); f != nil {
			failures[name] = f
		}
	}
	return proof, failures
}

// Header returns the JOSE header.
func (p *Parsed) Header() jose.Object { return p.jws.Header }

// Claims returns the claims.
func (p *Parsed) Claims() jose.Object { return p.jws.Claims }

// CheckType is check 4.
func (p *Parsed) CheckType() *failure.Failure {
	typ, _ := p.jws.Header.Get("typ")
	if text, ok := typ.Text(); !ok || !jose.MediaTypeIs(text, "dpop+jwt") {
		return failure.New(failure.ProofType, "the typ of the DPoP proof is not dpop+jwt", found(text))
	}
	return nil
}

// CheckExtensions checks that nothing changes how the proof must be read.
func (p *Parsed) CheckExtensions() *failure.Failure {
	if p.jws.Extended() {
		return failure.New(failure.ProofMalformed, "the DPoP proof has a crit, b64 or zip header, which is not supported")
	}
	return nil
}

// Algorithm is check 5: an asymmetric algorithm that is allowed.
func (p *Parsed) Algorithm(allowed jose.Algorithms) (*jose.Algorithm, *failure.Failure) {
	alg, _ := p.jws.Header.Get("alg")
	name, _ := alg.Text()
	algorithm := allowed.Find(name)
	if algorithm == nil {
		return nil, algorithmNotAllowed(allowed, name)
	}
	return algorithm, nil
}

func algorithmNotAllowed(allowed jose.Algorithms, name string) *failure.Failure {
	return failure.New(failure.ProofAlgorithm, "the alg of the DPoP proof is not one of "+strings.Join(allowed.Names(), " "), found(name))
}

// found tells the operator of a short text that the client chose.
func found(text string) failure.Detail {
	const enough = 32
	return failure.Detail{Name: "found", Value: text[:min(len(text), enough)]}
}

// Key is check 7, and what check 6 needs: jwk holds a public key.
func (p *Parsed) Key() (*jose.Key, *failure.Failure) {
	value, _ := p.jws.Header.Get("jwk")
	jwk, ok := value.Object()
	if !ok {
		return nil, failure.New(failure.ProofKey, "the DPoP proof has no jwk that is a JSON object")
	}
	key, err := jose.ParseKey(jwk)
	if err != nil {
		return nil, failure.New(failure.ProofKey,
			"the jwk of the DPoP proof is not a sound public key", failure.Detail{Name: "error", Value: err})
	}
	return key, nil
}

// CheckSignature is check 6.
func (p *Parsed) CheckSignature(algorithm *jose.Algorithm, key *jose.Key) *failure.Failure {
	if !algorithm.Fits(key) {
		return failure.New(failure.ProofKey, "the jwk of the DPoP proof is not a key for its alg")
	}
	if err := algorithm.Verify(key, p.jws.Input, p.jws.Signature); err != nil {
		return failure.New(failure.ProofSignature, "the signature of the DPoP proof does not verify with its jwk")
	}
	return nil
}

// claimNames are the claims that count, in the order in which they are read.
var claimNames = []string{"jti", "htm", "htu", "iat", "exp", "nbf", "nonce", "ath"}

// read reads one claim, by check 3: those that must be there are, and all are of
// their types. Whether a nonce is, matters only where nonces count; see Nonce.
func (p *Proof) read(claims jose.Object, name string) (f *failure.Failure) {
	switch name {
	case "jti":
		return p.readID(claims)
	case "htm":
		p.method, f = text(claims, name)
	case "htu":
		p.uri, f = text(claims, name)
	case "iat":
		return p.readIssuedAt(claims)
	case "exp":
		p.exp, f = optionalNumber(claims, name)
	case "nbf":
		p.nbf, f = optionalNumber(claims, name)
	case "nonce":
		if nonce, ok := claims.Get(name); ok {
			text, isText := nonce.Text()
			p.nonce, p.odd = &text, !isText
		}
	case "ath":
		if ath, ok := claims.Get(name); ok {
			if p.ath, ok = ath.Text(); !ok || p.ath == "" {
				return failure.New(failure.ProofToken, "the ath of the DPoP proof is not a string")
			}
		}
	}
	return f
}

func (p *Proof) readID(claims jose.Object) (f *failure.Failure) {
	if p.ID, f = text(claims, "jti"); f != nil {
		return f
	}
	if p.ID == "" || len(p.ID) > maxJTI {
		return failure.New(failure.ProofClaims, "the jti of the DPoP proof is not of 1 to 512 bytes")
	}
	return nil
}

func (p *Proof) readIssuedAt(claims jose.Object) *failure.Failure {
	value, ok := claims.Get("iat")
	if !ok {
		return failure.New(failure.ProofClaims, "the DPoP proof has no iat")
	}
	if p.IssuedAt, ok = value.Number(); !ok {
		return notANumber("iat")
	}
	return nil
}

// Nonce returns the nonce, and whether there is one, where nonces count
// (RFC 9449 §4.3, check 10).
func (p *Proof) Nonce() (text string, given bool, f *failure.Failure) {
	switch {
	case p.odd:
		return "", false, failure.New(failure.ProofClaims, "the nonce of the DPoP proof is not a string")
	case p.nonce == nil:
		return "", false, nil
	}
	return *p.nonce, true, nil
}

// Time returns iat as a time: to the millisecond, and of this age for any number.
func (p *Proof) Time() time.Time {
	const last = 1 << 40 // in the year 36812
	return time.UnixMilli(int64(math.Floor(min(max(p.IssuedAt, 0), last) * 1000)))
}

func text(claims jose.Object, name string) (string, *failure.Failure) {
	value, _ := claims.Get(name)
	s, ok := value.Text()
	if !ok {
		return "", failure.New(failure.ProofClaims, "the DPoP proof has no "+name+" that is a string")
	}
	return s, nil
}

// optionalNumber returns a claim that holds a finite number, or nil if it is not
// there.
func optionalNumber(claims jose.Object, name string) (*float64, *failure.Failure) {
	value, ok := claims.Get(name)
	if !ok {
		return nil, nil
	}
	n, ok := value.Number()
	if !ok {
		return nil, notANumber(name)
	}
	return &n, nil
}

func notANumber(name string) *failure.Failure {
	return failure.New(failure.ProofClaims, "the "+name+" of the DPoP proof is not a number")
}

// CheckRequest checks that the proof was made for this request: its method, one
// of its URLs, and its access token as sent, of which ath is the TokenHash (RFC 9449
// §4.3, checks 8, 9 and 12).
func (p *Proof) CheckRequest(method string, urls []URI, ath string) *failure.Failure {
	if f := p.CheckTarget(method, urls); f != nil {
		return f
	}
	return p.CheckToken(ath)
}

// CheckTarget is CheckRequest for a request without an access token: one for a
// token.
func (p *Proof) CheckTarget(method string, urls []URI) *failure.Failure {
	if f := p.CheckMethod(method); f != nil {
		return f
	}
	return p.CheckURL(urls)
}

// CheckMethod is check 8.
func (p *Proof) CheckMethod(method string) *failure.Failure {
	if p.method != method {
		return failure.New(failure.ProofMethod, "the htm of the DPoP proof is not the method of the request",
			failure.Detail{Name: "expected", Value: method}, found(p.method))
	}
	return nil
}

// CheckURL is check 9.
func (p *Proof) CheckURL(urls []URI) *failure.Failure {
	for i := range urls {
		if urls[i].isWritten(p.uri) {
			return nil
		}
	}
	found, err := ParseURI(p.uri)
	if err != nil {
		return failure.New(failure.ProofURL, "the htu of the DPoP proof is not an absolute http or https URI",
			failure.Detail{Name: "error", Value: err})
	}
	for i := range urls {
		if urls[i] == found {
			return nil
		}
	}
	expected := make([]string, len(urls))
	for i := range urls {
		expected[i] = urls[i].String()
	}
	return failure.New(failure.ProofURL, "the htu of the DPoP proof is not the URL of the request as this server is reached",
		failure.Detail{Name: "expected", Value: strings.Join(expected, " ")}, failure.Detail{Name: "found", Value: found.String()})
}

// CheckToken is check 12, as far as ath: what that must be is the TokenHash of the
// token.
func (p *Proof) CheckToken(ath string) *failure.Failure {
	if p.ath == "" {
		return failure.New(failure.ProofToken, "the DPoP proof has no ath")
	}
	if p.ath != ath {
		return failure.New(failure.ProofToken, "the ath of the DPoP proof is not the SHA-256 of the access token sent with it")
	}
	return nil
}

// TokenHash returns the ath of a token (RFC 9449 §4.2).
func TokenHash(token string) string { return EncodedHash(sha256.Sum256([]byte(token))) }

// EncodedHash returns the ath of a token that has this SHA-256.
func EncodedHash(hash [sha256.Size]byte) string { return base64.RawURLEncoding.EncodeToString(hash[:]) }

// Window is when a proof is accepted by its iat: from now - MaxAge - ClockSkew
// to now + ClockSkew, both included (RFC 9449 §4.3, check 11).
type Window struct {
	MaxAge    time.Duration
	ClockSkew time.Duration
}

// CheckTime checks iat against the window. The client's clock error goes to the
// operator in seconds, as a detail of the failure.
func (w Window) CheckTime(p *Proof, now time.Time) *failure.Failure {
	age := seconds(now) - p.IssuedAt
	skew := w.ClockSkew.Seconds()
	switch {
	case age > w.MaxAge.Seconds()+skew:
		return failure.New(failure.ProofExpired, "the iat of the DPoP proof is too long ago by this server's clock", clockError(-age))
	case age < -skew:
		return failure.New(failure.ProofEarly, "the iat of the DPoP proof is in the future by this server's clock", clockError(-age))
	}
	return nil
}

// CheckValidity honours exp and nbf, which a proof need not have.
func (w Window) CheckValidity(p *Proof, now time.Time) *failure.Failure {
	if f := w.CheckExpiry(p, now); f != nil {
		return f
	}
	return w.CheckStart(p, now)
}

// CheckExpiry honours exp (RFC 7519 §4.1.4).
func (w Window) CheckExpiry(p *Proof, now time.Time) *failure.Failure {
	if p.exp != nil && seconds(now)-w.ClockSkew.Seconds() >= *p.exp {
		return failure.New(failure.ProofExpired, "the exp of the DPoP proof has passed", clockError(*p.exp-seconds(now)))
	}
	return nil
}

// CheckStart honours nbf (RFC 7519 §4.1.5).
func (w Window) CheckStart(p *Proof, now time.Time) *failure.Failure {
	if p.nbf != nil && seconds(now)+w.ClockSkew.Seconds() < *p.nbf {
		return failure.New(failure.ProofEarly, "the nbf of the DPoP proof has not come", clockError(*p.nbf-seconds(now)))
	}
	return nil
}

func clockError(seconds float64) failure.Detail {
	const most = 1e12 // what logs can hold, and milliseconds of it too
	seconds = min(max(seconds, -most), most)
	return failure.Detail{Name: "clock_error_seconds", Value: math.Round(seconds*1000) / 1000}
}

func seconds(t time.Time) float64 {
	return float64(t.Unix()) + float64(t.Nanosecond())/1e9
}
