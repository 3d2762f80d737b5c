package authserver

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"strings"
	"time"

	"github.com/caddy-dpop/caddy-dpop/internal/failure"
	"github.com/caddy-dpop/caddy-dpop/internal/jose"
	"github.com/caddy-dpop/caddy-dpop/internal/printable"
	"github.com/caddy-dpop/caddy-dpop/internal/proof"
	"github.com/caddy-dpop/caddy-dpop/internal/token"
)

// TokenRequest asks for an access token by client credentials (RFC 6749 §4.4)
// that is bound to a key (RFC 9449 §5).
type TokenRequest struct {
	Issuer   string
	Auth     ClientAuth
	Key      *jose.PrivateKey
	Scope    string // empty: what the client has by default
	Resource string // empty: likewise (RFC 8707)
}

// Granted is the access token that a server gives.
type Granted struct {
	Token string
	Type  string // token_type
}

// TokenError is how a token endpoint refuses (RFC 6749 §5.2). Its text is fit for
// a terminal.
type TokenError struct {
	Endpoint          string
	Status            int
	Code, Description string // empty: not told
	nonce             string
}

func (e *TokenError) Error() string {
	text := fmt.Sprintf("%s answered %d %s", printable.Text(e.Endpoint, maxShown), e.Status, http.StatusText(e.Status))
	for _, part := range []string{e.Code, e.Description} {
		if part != "" {
			text += ": " + printable.Text(part, maxShown)
		}
	}
	return text
}

const maxShown = 300 // characters of what a server says

// Token asks the issuer for a token, and once more if it wants a proof with a
// nonce (RFC 9449 §8).
func (c *Client) Token(ctx context.Context, r TokenRequest) (Granted, error) {
	endpoint, err := discover(ctx, c, r.Issuer, "", "token_endpoint")
	if err != nil {
		return Granted{}, err
	}
	granted, err := c.requestToken(ctx, endpoint, r, "")
	var refused *TokenError
	if errors.As(err, &refused) && failure.IsNonceError(refused.Code) && refused.nonce != "" {
		return c.requestToken(ctx, endpoint, r, refused.nonce)
	}
	return granted, err
}

func (c *Client) requestToken(ctx context.Context, endpoint string, r TokenRequest, nonce string) (Granted, error) {
	target, err := url.Parse(endpoint)
	if err != nil {
		return Granted{}, err
	}
	dpop, err := proof.Sign(r.Key, proof.Claims{Method: http.MethodPost, URL: proof.Target(target), Nonce: nonce, IssuedAt: time.Now()})
	if err != nil {
		return Granted{}, err
	}
	form := url.Values{"grant_type": {"client_credentials"}}
	for name, value := range map[string]string{"scope": r.Scope, "resource": r.Resource} {
		if value != "" {
			form.Set(name, value)
		}
	}
	header := http.Header{
		"Accept":       {"application/json"},
		"Content-Type": {"application/x-www-form-urlencoded"},
		"Dpop":         {dpop},
	}
	if err := r.Auth.authenticate(r.Issuer, form, header); err != nil {
		return Granted{}, err
	}
	ctx, cancel := context.WithTimeout(ctx, c.timeout)
	defer cancel()
	response, err := c.do(ctx, http.MethodPost, endpoint, header, strings.NewReader(form.Encode()))
	if err != nil {
		return Granted{}, err
	}
	defer response.Body.Close()
	return readGrant(endpoint, response)
}

// readGrant reads the answer of a token endpoint (RFC 6749 §5.1 and §5.2).
func readGrant(endpoint string, response *http.Response) (Granted, error) {
	text, err := readBody(endpoint, response)
	if err != nil {
		return Granted{}, err
	}
	body, err := jose.ParseObject(text)
	if response.StatusCode != http.StatusOK {
		return Granted{}, &TokenError{endpoint, response.StatusCode, member(body, "error"), member(body, "error_description"), response.Header.Get("DPoP-Nonce")}
	}
	if err != nil {
		return Granted{}, fmt.Errorf("%s: the answer is no JSON object: %w", endpoint, err)
	}
	granted := Granted{Token: member(body, "access_token"), Type: member(body, "token_type")}
	if granted.Token == "" {
		return Granted{}, fmt.Errorf("%s: the answer has no access_token", endpoint)
	}
	// RFC 6749 A.12 would allow spaces, which no Authorization header could hold.
	if strings.ContainsFunc(granted.Token, func(r rune) bool { return r <= ' ' || r > '~' }) {
		return Granted{}, fmt.Errorf("%s: the access_token has a character that no token can have", endpoint)
	}
	return granted, nil
}

func member(object jose.Object, name string) string {
	value, _ := object.Get(name)
	text, _ := value.Text()
	return text
}

// CheckBinding checks that the token is bound to the key: by its cnf if it is a
// JWT, and by token_type otherwise (RFC 9449 §5). Some servers say Bearer of every
// token, which the warning is about.
func (g Granted) CheckBinding(key *jose.PrivateKey) (warning string, err error) {
	isDPoP := strings.EqualFold(g.Type, string(failure.DPoP))
	parsed, f := token.Split(g.Token)
	if f == nil {
		if f := token.CheckBinding(key.Thumbprint, parsed.Claims()); f != nil {
			return "", errors.New(f.Description)
		}
	}
	switch {
	case isDPoP && f != nil:
		return "the token is not a JWT: only a site that introspects takes it; of some issuers a resource that is asked for (RFC 8707) makes it one", nil
	case isDPoP:
		return "", nil
	case f == nil:
		return fmt.Sprintf("token_type is %q, although the token is bound to the key", printable.Text(g.Type, maxShown)), nil
	}
	return "", fmt.Errorf("token_type is %q, not DPoP: the token is not bound to the key", printable.Text(g.Type, maxShown))
}
