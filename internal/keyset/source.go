package keyset

import (
	"context"
	"errors"
	"fmt"
	"net/url"
	"strings"
	"time"

	"github.com/caddy-dpop/caddy-dpop/internal/jose"
)

// Source fetches a key set, and says for how long it serves.
type Source func(ctx context.Context) (*Set, time.Duration, error)

// FromURL is the source of a set whose address is known.
func FromURL(client *Client, address string) Source {
	return func(ctx context.Context) (*Set, time.Duration, error) {
		return fetchSet(ctx, client, address)
	}
}

func fetchSet(ctx context.Context, client *Client, address string) (*Set, time.Duration, error) {
	text, fresh, err := client.get(ctx, address)
	if err != nil {
		return nil, 0, err
	}
	set, err := Parse(text)
	if err != nil {
		return nil, 0, fmt.Errorf("%s: %w", address, err)
	}
	return set, fresh, nil
}

// FromIssuer is the source of a set whose address the issuer's metadata tells.
// The metadata is at discoveryURL, or if that is empty at the first well-known
// address that answers with a valid document. It is read again each time, so
// that an issuer may move its keys.
func FromIssuer(client *Client, issuer, discoveryURL string) Source {
	return func(ctx context.Context) (*Set, time.Duration, error) {
		address, err := discover(ctx, client, issuer, discoveryURL)
		if err != nil {
			return nil, 0, err
		}
		return fetchSet(ctx, client, address)
	}
}

// discover returns jwks_uri from the issuer's metadata.
func discover(ctx context.Context, client *Client, issuer, discoveryURL string) (string, error) {
	addresses := []string{discoveryURL}
	if discoveryURL == "" {
		addresses = wellKnown(issuer)
	}
	var failed []error
	for _, address := range addresses {
		text, _, err := client.get(ctx, address)
		if err == nil {
			var jwksURI string
			if jwksURI, err = readMetadata(text, issuer); err == nil {
				if err = CheckURL(jwksURI, client.allowHTTP); err == nil {
					return jwksURI, nil
				}
				err = fmt.Errorf("jwks_uri: %w", err)
			}
			err = fmt.Errorf("%s: %w", address, err)
		}
		failed = append(failed, err)
	}
	return "", fmt.Errorf("discovery: %w", errors.Join(failed...))
}

// wellKnown returns where an issuer's metadata may be: RFC 8414 §3.1 puts the
// well-known part between host and path, OpenID Connect Discovery §4 at the end.
func wellKnown(issuer string) []string {
	issuer = strings.TrimSuffix(issuer, "/")
	root, path := issuer, ""
	if u, err := url.Parse(issuer); err == nil {
		root, path = u.Scheme+"://"+u.Host, u.EscapedPath()
	}
	return []string{
		root + "/.well-known/oauth-authorization-server" + path,
		issuer + "/.well-known/openid-configuration",
	}
}

// readMetadata checks that a document is the issuer's own (RFC 8414 §3.3), and
// returns its jwks_uri.
func readMetadata(text []byte, issuer string) (string, error) {
	document, err := jose.ParseObject(text)
	if err != nil {
		return "", err
	}
	value, _ := document.Get("issuer")
	if stated, ok := value.Text(); !ok || stated != issuer {
		return "", fmt.Errorf("the document is of another issuer, %.200q", stated)
	}
	value, _ = document.Get("jwks_uri")
	jwksURI, ok := value.Text()
	if !ok {
		return "", errors.New("no jwks_uri")
	}
	return jwksURI, nil
}
