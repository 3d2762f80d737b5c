package token

import (
	"strings"
	"time"

	"github.com/caddy-dpop/caddy-dpop/internal/failure"
	"github.com/caddy-dpop/caddy-dpop/internal/jose"
)

// CheckAnswer holds what an issuer says of an active token (RFC 7662 §2.2)
// against the rules. Without aud the answer passes only where any audience does.
func CheckAnswer(answer jose.Object, rules *Rules, scheme failure.Scheme, now time.Time) *failure.Failure {
	if value, ok := answer.Get("iss"); ok {
		if iss, _ := value.Text(); iss != rules.Issuer {
			return failure.New(failure.TokenIssuer, "the access token is of an issuer that is not accepted here",
				failure.Detail{Name: "expected", Value: rules.Issuer}, failure.Detail{Name: "found", Value: iss})
		}
	}
	if answer.Has("exp") {
		if f := rules.CheckExpiry(answer, now); f != nil {
			return f
		}
	}
	if f := rules.checkStarts(answer, now); f != nil {
		return f
	}
	if f := rules.CheckAudience(answer); f != nil {
		return f
	}
	// token_type says no more than how the token was issued: some servers say
	// Bearer of every token. But what they say is a DPoP token is no Bearer token.
	value, _ := answer.Get("token_type")
	if tokenType, _ := value.Text(); scheme == failure.Bearer && strings.EqualFold(tokenType, string(failure.DPoP)) {
		return tokenBound()
	}
	return nil
}

// CheckAgreement checks that a token and what its issuer says of it do not
// contradict each other in whom the token is bound to, speaks for and is from.
func CheckAgreement(local, answer jose.Object) *failure.Failure {
	for _, name := range []string{"iss", "sub"} {
		a, inToken := local.Get(name)
		b, inAnswer := answer.Get(name)
		if inToken && inAnswer && !sameText(a, b) {
			return contradictory(name)
		}
	}
	a, inToken := local.Get("cnf")
	b, inAnswer := answer.Get("cnf")
	if !inToken || !inAnswer {
		return nil
	}
	first, firstOK := a.Object()
	second, secondOK := b.Object()
	if !firstOK || !secondOK {
		return contradictory("cnf")
	}
	x, _ := first.Get("jkt")
	y, _ := second.Get("jkt")
	if !sameText(x, y) {
		return contradictory("cnf")
	}
	return nil
}

func sameText(a, b jose.Value) bool {
	x, xOK := a.Text()
	y, yOK := b.Text()
	return xOK && yOK && x == y
}

func contradictory(name string) *failure.Failure {
	return failure.New(failure.TokenContradictory, "the "+name+" of the access token is not what its issuer says of it")
}

// IsOpaque reports whether a token is one that only its issuer understands. A
// token that begins with a JOSE header is none: some servers take a JWT with
// something after it for the JWT, and it would get past all that is checked of
// one. But an encrypted JWT (RFC 7516) is for its issuer to read.
func IsOpaque(text string) bool {
	header, ok := jose.ParseHeader(text)
	return !ok || header.Has("enc")
}
