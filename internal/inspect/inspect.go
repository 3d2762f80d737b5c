// Package inspect explains what the gateway makes of a captured access token and
// DPoP proof: every check that needs no server, by the gateway's own functions.
// Where the gateway stops at the first check that fails, it goes on with those
// that can be judged all the same.
package inspect

import (
	"time"

	"github.com/caddy-dpop/caddy-dpop/internal/authserver"
	"github.com/caddy-dpop/caddy-dpop/internal/failure"
	"github.com/caddy-dpop/caddy-dpop/internal/jose"
	"github.com/caddy-dpop/caddy-dpop/internal/proof"
	"github.com/caddy-dpop/caddy-dpop/internal/token"
)

// Gateway is what the gateway does at the steps that packages proof and token
// know nothing of.
type Gateway struct {
	// Credentials takes scheme and token from the values of Authorization. Optional
	// is whether Bearer tokens are accepted too.
	Credentials func(optional bool, authorization, proofs []string, query string) (failure.Scheme, string, *failure.Failure)
	// ProofField takes the proof from the values of DPoP.
	ProofField func(proofs []string) (string, *failure.Failure)
	// Signature verifies a token, by an algorithm that is accepted of its issuer and
	// by keys that are the issuer's.
	Signature func(token, issuer string, algorithms jose.Algorithms, keys authserver.KeyFinder) *failure.Failure
}

// Site is by what settings a site judges.
type Site struct {
	Optional   bool // whether Bearer tokens are accepted too
	Nonces     Nonces
	Algorithms jose.Algorithms // of proofs
	Window     proof.Window
	Rules      token.Rules          // Issuer and Audiences may be empty: not told
	Signatures jose.Algorithms      // of tokens
	Keys       authserver.KeyFinder // nil: not given
	Demands    token.Demands        // none: not told
}

// Nonces is when nonces count.
type Nonces string

// The values of Nonces.
const (
	NoncesOff      Nonces = "off"
	NoncesOnSkew   Nonces = "on_skew"
	NoncesRequired Nonces = "required"
)

// Report is what came of an inspection.
type Report struct {
	Parts  []Part // of what was captured, for the eye
	Checks []Check
}

// Check is one thing that the gateway checks.
type Check struct {
	Name     string
	Result   Result
	Expected string
	Found    string
	Why      string           // it was not checked
	Failure  *failure.Failure // if it failed

	stage stage
}

// Result is what came of a check.
type Result string

// The results.
const (
	OK         Result = "ok"
	Failed     Result = "FAILED"
	NotChecked Result = "not checked"
)

// stage is when the gateway makes a check. Of several that fail, what it says is
// of the first.
type stage int

const (
	stageCredentials stage = iota
	stageProofField
	stageProof
	stageProofClaims  // they are there, and of their types
	stageProofRequest // they are of this request
	stageProofValidity
	stageProofNonce // there it is a string
	stageProofTime
	stageTokenHeader // it says what it must
	stageToken
	stageBinding
	stageDemands
)

// First returns the failure that the gateway would log, or nil.
func (r *Report) First() *failure.Failure {
	var first *Check
	for i := range r.Checks {
		if c := &r.Checks[i]; c.Failure != nil && (first == nil || c.stage < first.stage) {
			first = c
		}
	}
	if first == nil {
		return nil
	}
	return first.Failure
}

// inspection is one under way.
type inspection struct {
	Report
	gateway  Gateway
	site     *Site
	captured *Capture
	now      time.Time

	token string    // empty: there is none that can be judged
	key   *jose.Key // of the proof; nil: likewise
	plain bool      // whether the token is a Bearer token by right
}

// Run makes every check as of a time.
func Run(gateway Gateway, site *Site, captured *Capture, now time.Time) *Report {
	i := &inspection{gateway: gateway, site: site, captured: captured, now: now}
	i.credentials()
	i.proof()
	i.accessToken()
	return &i.Report
}

// judge notes a check that was made.
func (i *inspection) judge(s stage, name, expected, found string, f *failure.Failure) {
	result := OK
	if f != nil {
		result = Failed
	}
	i.Checks = append(i.Checks, Check{Name: name, Result: result, Expected: expected, Found: found, Failure: f, stage: s})
}

// skip notes a check that could not be made.
func (i *inspection) skip(name, expected, found, why string) {
	i.Checks = append(i.Checks, Check{Name: name, Result: NotChecked, Expected: expected, Found: found, Why: why})
}

func (i *inspection) skipAll(why string, names ...string) {
	for _, name := range names {
		i.skip(name, "", "", why)
	}
}

// credentials is step 2.
func (i *inspection) credentials() {
	const expected = "one scheme and one token"
	values := i.captured.Authorization
	if values == nil {
		i.skip("Authorization", expected, "", "no --token")
		return
	}
	// The header by itself: where Bearer tokens are accepted, and there is nothing else.
	scheme, text, f := i.gateway.Credentials(true, values, nil, "")
	i.judge(stageCredentials, "Authorization", expected, describeAuthorization(values, scheme, text), f)
	if f != nil {
		i.skipAll("there is not one token", "query", "scheme")
		return
	}
	i.token = text
	if i.captured.Target == nil {
		i.skip("query", "no second token", "", "no --url")
	} else {
		_, _, f = i.gateway.Credentials(true, values, nil, i.captured.Target.Query)
		i.judge(stageCredentials, "query", "no second token", has(f != nil, "access_token"), f)
	}
	_, _, f = i.gateway.Credentials(i.site.Optional, values, i.captured.Proof, "")
	accepted := string(failure.DPoP)
	if i.site.Optional {
		accepted += ", or Bearer without proof"
	}
	i.judge(stageCredentials, "scheme", accepted, string(scheme), f)
	i.plain = f == nil && scheme == failure.Bearer
}
