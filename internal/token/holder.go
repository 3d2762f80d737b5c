package token

import (
	"github.com/caddy-dpop/caddy-dpop/internal/failure"
	"github.com/caddy-dpop/caddy-dpop/internal/jose"
)

// Holder is whose a token is. What a token says of that does not change: it is read
// once, and not for each request.
type Holder struct {
	// ClientID is that of the client: see ClientID.
	ClientID string

	boundTo string // thumbprint of the one key that it is bound to; empty: see CheckBinding
}

// HolderOf reads claims, which need not make sense.
func HolderOf(claims jose.Object) Holder {
	h := Holder{ClientID: ClientID(claims)}
	if cnf, ok := claims.Get("cnf"); ok {
		h.boundTo, _ = confirmed(cnf)
	}
	return h
}

// CheckBinding is the function of that name, for the claims that this is the holder
// of, and those of another place, or none.
func (h Holder) CheckBinding(thumbprint string, claims, other jose.Object) *failure.Failure {
	if h.boundTo != "" && h.boundTo == thumbprint && !other.Has("cnf") {
		return nil
	}
	return CheckBinding(thumbprint, claims, other)
}
