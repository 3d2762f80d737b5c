package inspect

import (
	"time"

	"github.com/caddy-dpop/caddy-dpop/internal/failure"
	"github.com/caddy-dpop/caddy-dpop/internal/jose"
	"github.com/caddy-dpop/caddy-dpop/internal/proof"
)

// proofChecks are those of a proof that can be taken apart, in their order.
var proofChecks = []string{"proof typ", "proof extensions", "proof alg", "proof jwk", "proof signature",
	"proof jti", "proof htm", "proof htu", "proof iat", "proof ath", "proof nonce"}

// proof is steps 3 to 6.
func (i *inspection) proof() {
	values := i.captured.Proof
	switch {
	case len(values) == 0 && i.plain:
		return // a Bearer token has none
	case values == nil:
		i.skip("DPoP", "one proof", "", "no --proof")
		return
	}
	text, f := i.gateway.ProofField(values)
	i.judge(stageProofField, "DPoP", "one proof", count(len(values), "field"), f)
	if f != nil {
		i.skipAll("there is not one proof", append([]string{"proof syntax"}, proofChecks...)...)
		return
	}
	parsed, f := proof.Parse(text)
	i.judge(stageProof, "proof syntax", "a JWS of at most 8192 bytes", count(len(text), "byte"), f)
	if f != nil {
		i.skipAll("the proof cannot be taken apart", proofChecks...)
		return
	}
	i.show("Proof header", parsed.Header())
	i.show("Proof claims", parsed.Claims())
	i.proofHeader(&parsed)
	i.proofClaims(&parsed)
}

// proofHeader is step 4 (RFC 9449 §4.3, checks 4 to 7).
func (i *inspection) proofHeader(parsed *proof.Parsed) {
	header := parsed.Header()
	i.judge(stageProof, "proof typ", "dpop+jwt", found(header, "typ"), parsed.CheckType())
	i.judge(stageProof, "proof extensions", "no crit, b64, zip", names(header, "crit", "b64", "zip"), parsed.CheckExtensions())
	_, f := parsed.Algorithm(i.site.Algorithms)
	i.judge(stageProof, "proof alg", words(i.site.Algorithms.Names()), found(header, "alg"), f)
	key, f := parsed.Key()
	if f != nil {
		i.judge(stageProof, "proof jwk", "a sound public key", kind(header, "jwk"), f)
	} else {
		i.key = key
		i.judge(stageProof, "proof jwk", "a sound public key", "thumbprint "+key.Thumbprint, nil)
	}
	// An algorithm that is not allowed here may well have signed.
	algorithm, unknown := parsed.Algorithm(jose.AllAlgorithms())
	switch {
	case unknown != nil:
		i.skip("proof signature", "by its jwk", "", "its alg is not known")
	case key == nil:
		i.skip("proof signature", "by its jwk", "", "its jwk is not a key")
	default:
		f := parsed.CheckSignature(algorithm, key)
		i.judge(stageProof, "proof signature", "by its jwk", verifies(f), f)
	}
}

// proofClaims is steps 5 and 6 (RFC 9449 §4.3, checks 3 and 8 to 12).
func (i *inspection) proofClaims(parsed *proof.Parsed) {
	p, malformed := parsed.Unverified()
	claims := parsed.Claims()
	i.judge(stageProofClaims, "proof jti", "a string of 1 to 512 bytes", found(claims, "jti"), malformed["jti"])
	i.proofMethod(p, found(claims, "htm"), malformed["htm"])
	i.proofURL(p, found(claims, "htu"), malformed["htu"])
	var early *failure.Failure
	if malformed["iat"] == nil {
		early = i.site.Window.CheckTime(p, i.now)
	}
	i.proofTime(claims, malformed["iat"], early)
	for _, claim := range []struct {
		name, expected string
		check          func(*proof.Proof, time.Time) *failure.Failure
	}{
		{"exp", "a time to come", i.site.Window.CheckExpiry},
		{"nbf", "a time that has come", i.site.Window.CheckStart},
	} {
		switch f := malformed[claim.name]; {
		case !claims.Has(claim.name): // a proof need not have it
		case f != nil:
			i.judge(stageProofClaims, "proof "+claim.name, "a number", found(claims, claim.name), f)
		default:
			i.judge(stageProofValidity, "proof "+claim.name, claim.expected, i.moment(claims, claim.name), claim.check(p, i.now))
		}
	}
	i.proofToken(p, found(claims, "ath"), malformed["ath"])
	i.proofNonce(p, found(claims, "nonce"), early)
}

func (i *inspection) proofMethod(p *proof.Proof, found string, malformed *failure.Failure) {
	switch {
	case malformed != nil:
		i.judge(stageProofClaims, "proof htm", i.captured.Method, found, malformed)
	case i.captured.Method == "":
		i.skip("proof htm", "", found, "no --method")
	default:
		i.judge(stageProofRequest, "proof htm", i.captured.Method, found, p.CheckMethod(i.captured.Method))
	}
}

func (i *inspection) proofURL(p *proof.Proof, found string, malformed *failure.Failure) {
	if malformed != nil {
		i.judge(stageProofClaims, "proof htu", "a string", found, malformed)
		return
	}
	if target := i.captured.Target; target != nil {
		i.judge(stageProofRequest, "proof htu", target.URI.String(), found, p.CheckURL([]proof.URI{target.URI}))
		return
	}
	if _, err := proof.ParseURI(found); err != nil {
		i.judge(stageProofRequest, "proof htu", "an absolute URI", found, p.CheckURL(nil))
		return
	}
	i.skip("proof htu", "", found, "no --url")
}

func (i *inspection) proofToken(p *proof.Proof, found string, malformed *failure.Failure) {
	switch {
	case malformed != nil:
		i.judge(stageProofClaims, "proof ath", "a string", found, malformed)
	case i.captured.Authorization == nil:
		i.skip("proof ath", "", found, "no --token")
	case i.token == "":
		i.skip("proof ath", "", found, "there is not one token")
	default:
		ath := proof.TokenHash(i.token)
		i.judge(stageProofRequest, "proof ath", ath, found, p.CheckToken(ath))
	}
}

// proofTime is step 6 as far as iat. Early is why it is not in the window.
func (i *inspection) proofTime(claims jose.Object, malformed, early *failure.Failure) {
	window := i.window()
	switch {
	case malformed != nil:
		i.judge(stageProofClaims, "proof iat", "a number", found(claims, "iat"), malformed)
	case i.site.Nonces == NoncesRequired:
		i.skip("proof iat", "", i.moment(claims, "iat"), "with required nonces it does not count")
	case i.site.Nonces == NoncesOnSkew && early != nil:
		i.skip("proof iat", window, i.moment(claims, "iat"), "it is outside, so that the nonce counts")
	default:
		i.judge(stageProofTime, "proof iat", window, i.moment(claims, "iat"), early)
	}
}

// proofNonce is step 6 as far as the nonce, which only the server that has issued
// it can judge.
func (i *inspection) proofNonce(p *proof.Proof, found string, early *failure.Failure) {
	const expected = "one of the server"
	_, given, odd := p.Nonce()
	switch {
	case i.site.Nonces == NoncesOff:
		i.skip("proof nonce", "", found, "nonces do not count")
	case odd != nil:
		i.judge(stageProofNonce, "proof nonce", "a string", found, odd)
	case given:
		i.skip("proof nonce", expected, found, "only the server knows its nonces")
	case i.site.Nonces == NoncesOnSkew && early == nil:
		i.skip("proof nonce", "", found, "it counts only where iat is wrong")
	default:
		f := failure.New(failure.NonceMissing, "the DPoP proof must have the nonce that comes with the answer")
		if early != nil {
			f.Details = early.Details
		}
		i.judge(stageProofTime, "proof nonce", expected, found, f)
	}
}
