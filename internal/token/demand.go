package token

import (
	"math"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/caddy-dpop/caddy-dpop/internal/failure"
	"github.com/caddy-dpop/caddy-dpop/internal/jose"
)

// Demands are what a good token must allow or show beyond being good.
type Demands struct {
	Scopes []string // all of them
	Claims []ClaimDemand
	// ACR are the authentication context classes of which the user's
	// authentication must have met one (RFC 9470 §3).
	ACR []string
	// MaxAuthAge is how long ago the user may have authenticated; zero: any time.
	MaxAuthAge time.Duration
	ClockSkew  time.Duration
}

// ClaimDemand demands that a claim has one of the values.
type ClaimDemand struct {
	Path   string
	Values []string
}

// Check holds a token's claims against the demands. A step-up of the
// authentication comes first: the client must go back to the issuer for it, and
// can ask for the scope on the way.
func (d *Demands) Check(claims jose.Object, now time.Time) *failure.Failure {
	missing := d.missingScopes(claims)
	if f := d.checkAuthentication(claims, now); f != nil {
		if missing {
			f.Parameters = append(f.Parameters, d.scopeParameter())
		}
		return f
	}
	if missing {
		f := failure.New(failure.ScopeMissing, "the access token does not have every scope that is required here",
			failure.Detail{Name: "expected", Value: strings.Join(d.Scopes, " ")},
			failure.Detail{Name: "found", Value: strings.Join(scopes(claims), " ")})
		f.Parameters = []failure.Parameter{d.scopeParameter()}
		return f
	}
	for _, demand := range d.Claims {
		if !demand.holds(claims) {
			return failure.New(failure.ClaimMissing, "the access token does not have a claim that is required here",
				failure.Detail{Name: "claim", Value: demand.Path})
		}
	}
	return nil
}

func (d *Demands) scopeParameter() failure.Parameter {
	return failure.Parameter{Name: "scope", Value: strings.Join(d.Scopes, " ")}
}

func (d *Demands) missingScopes(claims jose.Object) bool {
	if len(d.Scopes) == 0 {
		return false
	}
	found := scopes(claims)
	return slices.ContainsFunc(d.Scopes, func(scope string) bool { return !slices.Contains(found, scope) })
}

// scopes returns the token's scopes: of scope (RFC 8693 §4.2), else of scp,
// which some issuers have instead.
func scopes(claims jose.Object) []string {
	for _, name := range scopeClaims {
		if value, ok := claims.Get(name); ok {
			return words(value)
		}
	}
	return nil
}

var scopeClaims = []string{"scope", "scp"}

// words returns the words of a string, or the strings of an array.
func words(value jose.Value) []string {
	if text, ok := value.Text(); ok {
		return strings.Fields(text)
	}
	return elements(value)
}

// elements returns the strings, numbers and booleans of an array, or the one
// that the value is.
func elements(value jose.Value) []string {
	if text, ok := value.Scalar(); ok {
		return []string{text}
	}
	var all []string
	array, _ := value.Array()
	for _, element := range array {
		if text, ok := element.Scalar(); ok {
			all = append(all, text)
		}
	}
	return all
}

func (c *ClaimDemand) holds(claims jose.Object) bool {
	value, ok := Claim(claims, c.Path)
	if !ok {
		return false
	}
	found := elements(value)
	if slices.Contains(scopeClaims, c.Path) {
		found = words(value)
	}
	return slices.ContainsFunc(found, func(text string) bool { return slices.Contains(c.Values, text) })
}

// checkAuthentication checks how and when the user authenticated: acr and
// auth_time (RFC 9470 §6.1).
func (d *Demands) checkAuthentication(claims jose.Object, now time.Time) *failure.Failure {
	if len(d.ACR) > 0 {
		acr, _ := claims.Get("acr")
		if text, ok := acr.Text(); !ok || !slices.Contains(d.ACR, text) {
			return d.stepUp(failure.AuthenticationWeak, "the authentication of the user is not of a class that is required here",
				failure.Detail{Name: "found", Value: text})
		}
	}
	if d.MaxAuthAge > 0 {
		value, _ := claims.Get("auth_time")
		at, ok := value.Number()
		age := float64(now.UnixMilli())/1000 - at
		if !ok || age > (d.MaxAuthAge+d.ClockSkew).Seconds() {
			return d.stepUp(failure.AuthenticationOld, "the authentication of the user is too long ago, or not told",
				failure.Detail{Name: "age_seconds", Value: math.Round(age)})
		}
	}
	return nil
}

// stepUp is the failure by which a client learns what authentication to ask the
// issuer for (RFC 9470 §3).
func (d *Demands) stepUp(reason failure.Reason, description string, found failure.Detail) *failure.Failure {
	f := failure.New(reason, description, found)
	if len(d.ACR) > 0 {
		f.Parameters = append(f.Parameters, failure.Parameter{Name: "acr_values", Value: strings.Join(d.ACR, " ")})
	}
	if d.MaxAuthAge > 0 {
		f.Parameters = append(f.Parameters, failure.Parameter{Name: "max_age", Value: strconv.FormatInt(int64(d.MaxAuthAge.Seconds()), 10)})
	}
	return f
}

// IsNQCHARs reports whether a text has only what may stand in a scope and in a nonce:
// printable ASCII, but no space, quote and backslash (RFC 6749 appendix A).
func IsNQCHARs(text string) bool {
	return !strings.ContainsFunc(text, func(r rune) bool { return r <= ' ' || r > '~' || r == '"' || r == '\\' })
}
