package inspect

import "github.com/caddy-dpop/caddy-dpop/internal/failure"

// advice is what to do about each reason that a check can fail for.
var advice = map[failure.Reason]string{
	failure.NoCredentials:          "the client must send Authorization: DPoP and the token",
	failure.SchemeUnsupported:      "the scheme must be DPoP: Authorization: DPoP and the token",
	failure.AuthorizationRepeated:  "send one Authorization field; a proxy may add another, and a pasted token must be one line",
	failure.AuthorizationMalformed: "send the scheme, one space and the token as it was issued, without quotes",
	failure.TokenInQuery:           "remove access_token from the query: the Authorization header has the token",
	failure.BearerRefused:          "send the token under the DPoP scheme, not Bearer; a site in optional mode also accepts Bearer tokens that are bound to nothing (--mode optional)",
	failure.BearerWithProof:        "send the token under the DPoP scheme, as there is a proof",

	failure.ProofMissing:   "send a DPoP field with a proof",
	failure.ProofRepeated:  "send one DPoP field; a proxy may add another, and a pasted proof must be one line",
	failure.ProofTooLarge:  "make the proof smaller: it needs few claims, and no certificates in its header",
	failure.ProofMalformed: "make the proof with a JOSE library: three base64url parts without padding or line breaks, of JSON that repeats no member, and no crit, b64 or zip in the header",
	failure.ProofType:      "set typ to dpop+jwt in the header of the proof",
	failure.ProofAlgorithm: "sign by an algorithm that the site accepts (algs in its challenge), or allow this one by proof { algorithms } (--algorithms)",
	failure.ProofKey:       "put the public half of the key, and nothing of the private one, into jwk, of the kind that alg needs",
	failure.ProofSignature: "sign with the private half of the very key in jwk, over header and claims as they are sent; ECDSA signatures are r and s, not DER",
	failure.ProofClaims:    "send the claim, with the type that RFC 9449 section 4.2 says: strings, and numbers for times",
	failure.ProofMethod:    "make each proof for the method of its request, in upper case",
	failure.ProofURL:       "make each proof for the URL of its request without query and fragment; if the URL is right, the site does not know how clients reach it: see trusted_proxies and public_url",
	failure.ProofToken:     "ath is the base64url SHA-256, without padding, of the token that is sent: make a new proof when the token changes",
	failure.ProofExpired:   "set the client's clock, make a proof for each request, or let the site ask for nonces (nonce on_skew); for a proof of an earlier time, tell the time by --at",
	failure.ProofEarly:     "set the client's clock, or let the site ask for nonces (nonce on_skew); iat is in seconds, not milliseconds; for a proof of another time, tell the time by --at",
	failure.NonceMissing:   "make the proof again with the nonce of the answer's DPoP-Nonce",

	failure.TokenMalformed:      "is it an access token, whole and as it was issued? Opaque ones need introspection, or an issuer that gives a JWT for this resource",
	failure.TokenIssuer:         "get the token from the issuer that the site trusts; iss must be the very same text, a last slash included",
	failure.TokenType:           "is it an access token? Otherwise see token_types",
	failure.TokenAlgorithm:      "have the issuer sign by an asymmetric algorithm",
	failure.TokenKey:            "the issuer has no such key: is the key set of this issuer, and was the key rotated?",
	failure.TokenSignature:      "the token was changed, or is signed by another key than the issuer's",
	failure.TokenClaims:         "have the issuer put the claim in, with its type",
	failure.TokenNotAccessToken: "send the access token, not the ID, refresh or logout token",
	failure.TokenExpired:        "get a new token; for a token of an earlier time, tell the time by --at",
	failure.TokenEarly:          "the clocks of issuer and server differ; for a token of another time, tell the time by --at",
	failure.TokenAudience:       "ask the issuer for a token for this resource (resource, audience or scope), or set the site's audience",
	failure.TokenUnbound:        "have the token issued with a proof at the token endpoint, where the issuer must support DPoP for this client",
	failure.TokenBound:          "send this token under the DPoP scheme, with a proof",
	failure.TokenConfirmation:   "the token is bound in another way too, such as to a certificate, which the site cannot check",
	failure.AuthenticationWeak:  "have the user authenticate again, with acr_values as the challenge has them; the issuer must then put acr into the token",
	failure.AuthenticationOld:   "have the user authenticate again, with max_age as the challenge has it; the issuer must then put auth_time into the token",
	failure.ScopeMissing:        "ask the issuer for every scope that is expected, and let this client have them there",
	failure.ClaimMissing:        "have the issuer put the claim into its access tokens, and give this user or client the value",

	failure.TokenOtherKey: "make proofs with the key that the token was issued for, or get a token with this one",
}
