package authserver

import (
	"crypto/rand"
	"encoding/base64"
	"net/http"
	"net/url"
	"time"

	"github.com/caddy-dpop/caddy-dpop/internal/jose"
)

// ClientAuth is how this resource server shows the authorization server who it is.
type ClientAuth interface {
	// authenticate adds credentials to the form or the header of a request.
	authenticate(issuer string, form url.Values, header http.Header) error
}

// SecretBasic is client_secret_basic: id and secret are form-encoded before they
// are joined (RFC 6749 §2.3.1), which servers that need it not undo all the same.
type SecretBasic struct{ ID, Secret string }

func (a SecretBasic) authenticate(_ string, _ url.Values, header http.Header) error {
	pair := url.QueryEscape(a.ID) + ":" + url.QueryEscape(a.Secret)
	header.Set("Authorization", "Basic "+base64.StdEncoding.EncodeToString([]byte(pair)))
	return nil
}

// SecretPost is client_secret_post (RFC 6749 §2.3.1).
type SecretPost struct{ ID, Secret string }

func (a SecretPost) authenticate(_ string, form url.Values, _ http.Header) error {
	form.Set("client_id", a.ID)
	form.Set("client_secret", a.Secret)
	return nil
}

// KeyJWT is private_key_jwt (RFC 7523 §2.2, OpenID Connect Core §9).
type KeyJWT struct {
	ID  string
	Key func() *jose.PrivateKey
}

// assertionLifetime is how long an assertion is good.
const assertionLifetime = time.Minute

func (a KeyJWT) authenticate(issuer string, form url.Values, _ http.Header) error {
	key, now := a.Key(), time.Now()
	assertion, err := key.Sign(map[string]any{"typ": "JWT", "kid": key.ID}, map[string]any{
		"iss": a.ID,
		"sub": a.ID,
		"aud": issuer,
		"jti": rand.Text(),
		"iat": now.Unix(),
		"exp": now.Add(assertionLifetime).Unix(),
	})
	if err != nil {
		return err
	}
	form.Set("client_id", a.ID)
	form.Set("client_assertion_type", "urn:ietf:params:oauth:client-assertion-type:jwt-bearer")
	form.Set("client_assertion", assertion)
	return nil
}

// ClientID is tls_client_auth (RFC 8705 §2.1), where the certificate is the
// credential, and also none, where there is no credential.
type ClientID struct{ ID string }

func (a ClientID) authenticate(_ string, form url.Values, _ http.Header) error {
	if a.ID != "" {
		form.Set("client_id", a.ID)
	}
	return nil
}

// BearerToken is an access token of this resource server's own (RFC 7662 §2.1).
type BearerToken struct{ Token string }

func (a BearerToken) authenticate(_ string, _ url.Values, header http.Header) error {
	header.Set("Authorization", "Bearer "+a.Token)
	return nil
}
