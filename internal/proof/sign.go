package proof

import (
	"crypto/rand"
	"net/url"
	"time"

	"github.com/caddy-dpop/caddy-dpop/internal/jose"
)

// Claims are what a client says in a proof.
type Claims struct {
	Method   string
	URL      string
	Token    string // empty: the proof is for a token request, and has no ath
	Nonce    string // empty: none
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
	if claims.Nonce != "" {
		set["nonce"] = claims.Nonce
	}
	return key.Sign(map[string]any{"typ": "dpop+jwt", "jwk": key.Public}, set)
}

// Target returns the htu of a request for a URL: without query and fragment
// (RFC 9449 §4.2), and with the path that is sent where it is empty.
func Target(u *url.URL) string {
	target := url.URL{Scheme: u.Scheme, Host: u.Host, Path: u.Path, RawPath: u.RawPath}
	if target.Path == "" {
		target.Path = "/"
	}
	return target.String()
}
