package proof

import (
	"crypto/rand"
	"time"

	"github.com/caddy-dpop/caddy-dpop/internal/jose"
)

// Claims are what a client says in a proof.
type Claims struct {
	Method   string
	URL      string
	Token    string // empty: the proof is for a token request, and has no ath
	IssuedAt time.Time
}

// Sign makes a proof with a fresh identifier (RFC 9449 §4.2).
func Sign(key *jose.PrivateKey, claims Claims) (string, error) {
	set := map[string]any{
		"jti": rand.Text(),
		"htm": claims.Method,
		"htu": claims.URL,
		"iat": claims.IssuedAt.Unix(),
	}
	if claims.Token != "" {
		set["ath"] = TokenHash(claims.Token)
	}
	return key.Sign(map[string]any{"typ": "dpop+jwt", "jwk": key.Public}, set)
}
