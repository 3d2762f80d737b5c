// Package failure is the one place that knows why a request can be refused,
// and what the client is told about it: reason codes for the operator, and
// status and challenge for the client (RFC 6750 §3, RFC 9449 §7.1).
package failure

import "net/http"

// Reason says in one word why a request was refused. The words are fixed: logs,
// placeholders, metrics and documentation use the same.
type Reason string

// The reasons, in the order in which a request can meet them.
const (
	RequestMalformed Reason = "request_malformed" // target, authority or forwarded headers

	NoCredentials          Reason = "no_credentials"
	SchemeUnsupported      Reason = "scheme_unsupported"
	AuthorizationRepeated  Reason = "authorization_repeated"
	AuthorizationMalformed Reason = "authorization_malformed"
	TokenInQuery           Reason = "token_in_query" // beside the one in Authorization
	BearerRefused          Reason = "bearer_refused" // in strict mode
	BearerWithProof        Reason = "bearer_with_proof"

	ProofMissing   Reason = "proof_missing"
	ProofRepeated  Reason = "proof_repeated"
	ProofTooLarge  Reason = "proof_too_large"
	ProofMalformed Reason = "proof_malformed"
	ProofType      Reason = "proof_type"
	ProofAlgorithm Reason = "proof_algorithm"
	ProofKey       Reason = "proof_key"
	ProofSignature Reason = "proof_signature"
	ProofClaims    Reason = "proof_claims" // one is missing or of the wrong type
	ProofMethod    Reason = "proof_method"
	ProofURL       Reason = "proof_url"
	ProofToken     Reason = "proof_token" // ath
	ProofExpired   Reason = "proof_expired"
	ProofEarly     Reason = "proof_early"

	NonceMissing     Reason = "nonce_missing"
	NonceWrong       Reason = "nonce_wrong" // not one of ours
	NonceExpired     Reason = "nonce_expired"
	NonceUnavailable Reason = "nonce_unavailable" // there is no key yet

	TokenMalformed      Reason = "token_malformed"
	TokenIssuer         Reason = "token_issuer"
	TokenType           Reason = "token_type"
	TokenAlgorithm      Reason = "token_algorithm"
	TokenKey            Reason = "token_key"
	TokenSignature      Reason = "token_signature"
	TokenClaims         Reason = "token_claims"
	TokenNotAccessToken Reason = "token_not_access_token"
	TokenExpired        Reason = "token_expired"
	TokenEarly          Reason = "token_early"
	TokenAudience       Reason = "token_audience"
	TokenUnbound        Reason = "token_unbound" // under the DPoP scheme
	TokenBound          Reason = "token_bound"   // under the Bearer scheme
	TokenConfirmation   Reason = "token_confirmation"
	TokenOtherKey       Reason = "token_other_key"
	KeysUnavailable     Reason = "keys_unavailable"

	TokenInactive            Reason = "token_inactive"      // as introspection says
	TokenContradictory       Reason = "token_contradictory" // introspection says otherwise
	IntrospectionUnavailable Reason = "introspection_unavailable"

	ProofReplayed     Reason = "proof_replayed"
	ProofForgotten    Reason = "proof_forgotten"    // its record may be gone
	ProofBeforeStart  Reason = "proof_before_start" // its record may be another process's
	ReplayFull        Reason = "replay_full"
	ReplayUnavailable Reason = "replay_unavailable"

	ScopeMissing       Reason = "scope_missing"
	ClaimMissing       Reason = "claim_missing"
	AuthenticationWeak Reason = "authentication_weak" // acr
	AuthenticationOld  Reason = "authentication_old"  // auth_time
)

// code is an OAuth error code as it stands in a challenge.
type code string

const (
	noCode             code = "" // RFC 6750 §3.1: without credentials, no error
	invalidRequest     code = "invalid_request"
	invalidToken       code = "invalid_token"
	invalidDPoPProof   code = "invalid_dpop_proof"
	useDPoPNonce       code = "use_dpop_nonce" // RFC 9449 §9
	insufficientScope  code = "insufficient_scope"
	insufficientAuthen code = "insufficient_user_authentication" // RFC 9470 §3
	unavailable        code = "unavailable"                      // never sent: 503 has no challenge
)

const defaultRetryAfter = 1 // seconds

type answer struct {
	status int
	code   code
}

var (
	badRequest   = answer{http.StatusBadRequest, invalidRequest}
	noneGiven    = answer{http.StatusUnauthorized, noCode}
	badProof     = answer{http.StatusUnauthorized, invalidDPoPProof}
	wantsNonce   = answer{http.StatusUnauthorized, useDPoPNonce}
	badToken     = answer{http.StatusUnauthorized, invalidToken}
	forbidden    = answer{http.StatusForbidden, insufficientScope}
	stepUp       = answer{http.StatusUnauthorized, insufficientAuthen}
	notNow       = answer{http.StatusServiceUnavailable, unavailable}
	reasonAnswer = map[Reason]answer{
		RequestMalformed: badRequest,

		NoCredentials:          noneGiven,
		SchemeUnsupported:      noneGiven,
		AuthorizationRepeated:  badRequest,
		AuthorizationMalformed: badRequest,
		TokenInQuery:           badRequest,
		BearerRefused:          badToken,
		BearerWithProof:        badRequest,

		ProofMissing:   badProof,
		ProofRepeated:  badProof,
		ProofTooLarge:  badProof,
		ProofMalformed: badProof,
		ProofType:      badProof,
		ProofAlgorithm: badProof,
		ProofKey:       badProof,
		ProofSignature: badProof,
		ProofClaims:    badProof,
		ProofMethod:    badProof,
		ProofURL:       badProof,
		ProofToken:     badProof,
		ProofExpired:   badProof,
		ProofEarly:     badProof,

		NonceMissing:     wantsNonce,
		NonceWrong:       wantsNonce,
		NonceExpired:     wantsNonce,
		NonceUnavailable: notNow,

		TokenMalformed:      badToken,
		TokenIssuer:         badToken,
		TokenType:           badToken,
		TokenAlgorithm:      badToken,
		TokenKey:            badToken,
		TokenSignature:      badToken,
		TokenClaims:         badToken,
		TokenNotAccessToken: badToken,
		TokenExpired:        badToken,
		TokenEarly:          badToken,
		TokenAudience:       badToken,
		TokenUnbound:        badToken,
		TokenBound:          badToken,
		TokenConfirmation:   badToken,
		TokenOtherKey:       badToken,
		KeysUnavailable:     notNow,

		TokenInactive:            badToken,
		TokenContradictory:       badToken,
		IntrospectionUnavailable: notNow,

		ProofReplayed:     badProof,
		ProofForgotten:    badProof,
		ProofBeforeStart:  notNow,
		ReplayFull:        notNow,
		ReplayUnavailable: notNow,

		ScopeMissing:       forbidden,
		ClaimMissing:       forbidden,
		AuthenticationWeak: stepUp,
		AuthenticationOld:  stepUp,
	}
)

// Failure is why a request is refused. The zero value is of no use; see New.
type Failure struct {
	Reason Reason
	// Description tells the client what failed and what was expected, in the
	// characters of RFC 6750 §3, and never repeats what a client sent.
	Description string
	// Details are for the operator alone.
	Details []Detail
	// Parameters stand in the challenge after the description. They come from the
	// configuration alone.
	Parameters []Parameter
	// RetryAfter is in seconds, and counts for failures that pass by themselves.
	RetryAfter int
}

// Parameter is a further parameter of a challenge, such as scope.
type Parameter struct{ Name, Value string }

// Detail is one fact about a failure, such as what was expected or found.
type Detail struct {
	Name  string
	Value any // a string, a float64 or an error
}

// New returns a failure. The description must be plain ASCII without quotes or
// backslashes, and hold nothing of the request.
func New(reason Reason, description string, details ...Detail) *Failure {
	return &Failure{Reason: reason, Description: description, Details: details, RetryAfter: defaultRetryAfter}
}

// Error is what the operator reads in Caddy's error log and {err.message}.
func (f *Failure) Error() string { return string(f.Reason) + ": " + f.Description }

// Status returns the HTTP status of the answer.
func (f *Failure) Status() int { return reasonAnswer[f.Reason].status }

// WantsNonce reports whether the client is to try again with the nonce that the
// answer has (RFC 9449 §9).
func (f *Failure) WantsNonce() bool { return reasonAnswer[f.Reason].code == useDPoPNonce }

// Passing reports whether the same credentials, or fresh ones, may succeed
// later without any change by the client: the cause lies here.
func (f *Failure) Passing() bool { return reasonAnswer[f.Reason].code == unavailable }
