package caddydpop

import (
	"context"
	"errors"
	"math"
	"strings"

	"github.com/caddy-dpop/caddy-dpop/internal/authserver"
	"github.com/caddy-dpop/caddy-dpop/internal/failure"
	"github.com/caddy-dpop/caddy-dpop/internal/jose"
	"github.com/caddy-dpop/caddy-dpop/internal/proof"
	"github.com/caddy-dpop/caddy-dpop/internal/token"
	"github.com/caddy-dpop/caddy-dpop/replay"
)

// signers are the keys of the clients of all handlers, whose proofs were accepted.
var signers = proof.NewSigners()

// verify judges a request, in the order that costs a hostile client most and
// this server least: nothing before the token is looked at calls out, and
// nothing before the record keeps anything about the request.
func (h *Handler) verify(ctx context.Context, req *request) (access, *failure.Failure) {
	// 1. The target and the authority of the request (RFC 9110 §7.1).
	urls, f := h.publicURLs(req)
	if f != nil {
		return access{}, f
	}
	// 2. One Authorization with one token (RFC 9449 §7.1, RFC 6750 §2.1).
	creds, f := h.credentials(req)
	if f != nil {
		return access{}, f
	}
	if creds.scheme == failure.Bearer {
		return h.verifyBearer(ctx, req, creds)
	}
	// 3. One proof (RFC 9449 §4.3, check 1).
	field, f := req.proofField()
	if f != nil {
		return access{}, f
	}
	// 4. The proof's syntax and signature (checks 2 to 7).
	p, f := signers.Verify(field, h.algorithms)
	if f != nil {
		return access{}, f
	}
	req.verdict.jkt, creds.jkt = p.Thumbprint, p.Thumbprint
	creds.read()
	// 5. The proof is for this request (checks 8, 9 and 12).
	if f := p.CheckRequest(req.method, urls, creds.ath); f != nil {
		return access{}, f
	}
	now := h.now()
	if f := h.window.CheckValidity(p, now); f != nil {
		return access{}, f
	}
	// 6. The proof is of now (checks 10 and 11).
	use, f := h.checkFresh(ctx, req, p, now)
	if f != nil {
		return access{}, f
	}
	// 7. The token is good, and for this resource (RFC 9068 §4).
	good, f := h.verifyToken(ctx, req, creds)
	if f != nil {
		return access{}, f
	}
	// 8. The token is bound to the key of the proof (check 12, RFC 7800 §3.1).
	if f := good.holder.CheckBinding(p.Thumbprint, good.claims, good.local); f != nil {
		return access{}, f
	}
	// 9. The proof was not used before (RFC 9449 §11.1).
	if f := h.record(ctx, req, use); f != nil {
		return access{}, f
	}
	signers.Remember(p)
	creds.remember()
	// 10. The token allows what is asked for here (RFC 6750 §3.1, RFC 9470 §3).
	if f := h.demands.Check(good.claims, now); f != nil {
		return access{}, f
	}
	return access{creds.bearer, good.claims}, nil
}

// verifyBearer judges a request with a Bearer token, where those are accepted:
// the token must not be bound to any key (RFC 9449 §7.2).
func (h *Handler) verifyBearer(ctx context.Context, req *request, creds credentials) (access, *failure.Failure) {
	creds.read()
	good, f := h.verifyToken(ctx, req, creds)
	if f != nil {
		return access{}, f
	}
	if f := token.CheckUnbound(good.claims, good.local); f != nil {
		return access{}, f
	}
	if f := h.demands.Check(good.claims, h.now()); f != nil {
		return access{}, f
	}
	return access{asBearer(creds.token), good.claims}, nil
}

// grant is what a good token says. Its cnf may be in either.
type grant struct {
	claims jose.Object
	holder *token.Holder // by the claims
	local  jose.Object   // of the token itself, where claims are what its issuer says of it
}

// verifyToken verifies an access token by the issuer that it names, or if it is
// opaque by the one that introspects. Any other issuer is not asked.
func (h *Handler) verifyToken(ctx context.Context, req *request, creds credentials) (grant, *failure.Failure) {
	if h.introspecting != nil && token.IsOpaque(creds.token) {
		req.verdict.issuer = h.introspecting.rules.Issuer
		return h.introspect(ctx, req, h.introspecting, creds, nil)
	}
	iss, good, f := h.verifyJWT(ctx, creds)
	if iss != nil {
		req.verdict.issuer = iss.rules.Issuer
	}
	if f != nil {
		return grant{}, f
	}
	req.verdict.clientID = good.Holder.ClientID
	if iss.introspection != nil && iss.introspection.all {
		if f := good.CheckLocally(iss.rules, h.now()); f != nil {
			return grant{}, f
		}
		if f := creds.checkBinding(good); f != nil {
			return grant{}, f // its issuer's answer could not mend that
		}
		return h.introspect(ctx, req, iss, creds, good)
	}
	if f := good.Check(iss.rules, h.now()); f != nil {
		return grant{}, f
	}
	return grant{claims: good.Claims, holder: &good.Holder}, nil
}

// checkBinding is step 8 as far as the token alone can tell.
func (c credentials) checkBinding(local *token.Token) *failure.Failure {
	switch {
	case c.scheme == failure.Bearer:
		return token.CheckUnbound(local.Claims)
	case local.Claims.Has("cnf"):
		return local.Holder.CheckBinding(c.jkt, local.Claims, jose.Object{})
	}
	return nil // the answer may have a cnf
}

// verifyJWT verifies a JWT by the keys of the issuer that it names, unless the
// same keys have verified it before. The issuer is returned also if they do not.
func (h *Handler) verifyJWT(ctx context.Context, creds credentials) (*issuer, *token.Token, *failure.Failure) {
	for _, iss := range h.issuers {
		if good := iss.tokens.find(ctx, iss, creds.hash); good != nil {
			return iss, good, nil
		}
	}
	parsed, f := token.Parse(creds.token)
	if f != nil {
		return nil, nil, f
	}
	iss := h.issuers.find(parsed.Issuer())
	if iss == nil {
		return nil, nil, failure.New(failure.TokenIssuer, "the access token is of an issuer that is not accepted here",
			differing(h.issuers.names(), parsed.Issuer())...)
	}
	algorithm := iss.algorithms.Find(parsed.Algorithm)
	if algorithm == nil {
		return iss, nil, failure.New(failure.TokenAlgorithm, "the alg of the access token is not accepted here",
			differing(iss.algorithms.Names(), parsed.Algorithm)...)
	}
	found, err := iss.keys.Find(ctx, parsed.KeyID, algorithm)
	if err != nil {
		return iss, nil, unavailable(failure.KeysUnavailable, "the keys of the token's issuer cannot be had at the moment", err)
	}
	if len(found.Keys) == 0 {
		return iss, nil, failure.New(failure.TokenKey, "the access token is signed by a key that its issuer does not have",
			failure.Detail{Name: "found", Value: parsed.KeyID})
	}
	good, f := parsed.VerifySignature(algorithm, found.Keys)
	if f != nil {
		return iss, nil, f
	}
	iss.tokens.add(creds.hash, good, found.Set, len(creds.token))
	return iss, good, nil
}

// differing tells the log what was expected and found.
func differing(expected []string, found string) []failure.Detail {
	return []failure.Detail{{Name: "expected", Value: strings.Join(expected, " ")}, {Name: "found", Value: found}}
}

// unavailable is the failure when an issuer cannot be asked: it says nothing
// about the token.
func unavailable(reason failure.Reason, description string, err error) *failure.Failure {
	f := failure.New(reason, description, failure.Detail{Name: "error", Value: err})
	var later *authserver.UnavailableError
	if errors.As(err, &later) {
		f.RetryAfter = max(f.RetryAfter, int(math.Ceil(later.RetryAfter.Seconds())))
	}
	return f
}

// record spends the proof, unless this very request has spent it already, when
// it met another handler with the same store.
func (h *Handler) record(ctx context.Context, req *request, use replay.Use) *failure.Failure {
	for _, r := range req.records {
		if r.store == h.store && r.key == use.Key {
			return nil
		}
	}
	if h.companion != nil && !h.companion.awaitBypass(ctx) {
		return failure.New(failure.ReplayUnavailable, "whether the DPoP proof was used before cannot be told at the moment: this server is starting")
	}
	if err := h.store.Record(ctx, use); err != nil {
		return h.notRecorded(err, use)
	}
	if req.records == nil {
		req.records = req.first[:0]
	}
	req.records = append(req.records, record{h.store, use.Key})
	return nil
}

// notRecorded is the failure for a proof that a store does not accept.
func (h *Handler) notRecorded(err error, use replay.Use) *failure.Failure {
	unknown := errors.Is(err, replay.ErrForgotten) || errors.Is(err, replay.ErrBeforeStart)
	switch {
	case unknown && !use.Nonce.IsZero():
		return expiredNonce() // a new one is to be had at once
	case errors.Is(err, replay.ErrReplayed):
		return failure.New(failure.ProofReplayed, "the DPoP proof was used before")
	case errors.Is(err, replay.ErrForgotten):
		return failure.New(failure.ProofForgotten, "the DPoP proof is too old to tell whether it was used before")
	case errors.Is(err, replay.ErrBeforeStart):
		return failure.New(failure.ProofBeforeStart, "the DPoP proof was made before this server started, which cannot tell whether it was used: send a fresh one")
	case errors.Is(err, replay.ErrFull):
		return failure.New(failure.ReplayFull, "too many DPoP proofs are in use at the moment")
	}
	return failure.New(failure.ReplayUnavailable, "whether the DPoP proof was used before cannot be told at the moment",
		failure.Detail{Name: "error", Value: err})
}
