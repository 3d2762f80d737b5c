package authserver

import (
	"context"
	"errors"
	"fmt"
	"net/url"
	"strings"
	"time"

	"github.com/caddy-dpop/caddy-dpop/internal/jose"
)

// KeySource fetches a key set, and says for how long it serves.
type KeySource func(ctx context.Context) (*KeySet, time.Duration, error)

// KeysFromURL is the source of a set whose address is known.
func KeysFromURL(client *Client, address string) KeySource {
	return func(ctx context.Context) (*KeySet, time.Duration, error) {
		return fetchSet(ctx, client, address)
	}
}

func fetchSet(ctx context.Context, client *Client, address string) (*KeySet, time.Duration, error) {
	text, fresh, err := client.get(ctx, address)
	if err != nil {
		return nil, 0, err
	}
	set, err := ParseKeySet(text)
	if err != nil {
		return nil, 0, fmt.Errorf("%s: %w", named(address), err)
	}
	return set, fresh, nil
}

// KeysFromIssuer is the source of a set whose address the issuer's metadata tells.
// The metadata is at discoveryURL, or if that is empty at the first well-known
// address that answers with a valid document. It is read again each time, so
// that an issuer may move its keys.
func KeysFromIssuer(client *Client, issuer, discoveryURL string) KeySource {
	return func(ctx context.Context) (*KeySet, time.Duration, error) {
		address, err := discover(ctx, client, issuer, discoveryURL, "jwks_uri")
		if err != nil {
			return nil, 0, err
		}
		return fetchSet(ctx, client, address)
	}
}

// discover returns a URL that the issuer's metadata tells: of the first
// document that is valid and has it.
func discover(ctx context.Context, client *Client, issuer, discoveryURL, member string) (string, error) {
	addresses := []string{discoveryURL}
	if discoveryURL == "" {
		addresses = wellKnown(issuer)
	}
	var failed []error
	for _, address := range addresses {
		text, _, err := client.get(ctx, address)
		if err != nil {
			failed = append(failed, err)
			continue
		}
		found, err := readMetadata(text, issuer, member)
		if err == nil {
			err = client.checkNamed(found, address)
		}
		if err == nil {
			return found, nil
		}
		failed = append(failed, fmt.Errorf("%s: %s: %w", named(address), member, err))
	}
	return "", fmt.Errorf("discovery: %w", errors.Join(failed...))
}

// checkNamed checks a URL that a document names. One that came from elsewhere must
// not send this server to the services of its own machine, such as Caddy's admin
// API, which trust whoever is here.
func (c *Client) checkNamed(found, document string) error {
	if err := CheckURL(found, c.trust.AllowHTTP); err != nil {
		return err
	}
	if !c.trust.AllowHTTP && strings.HasPrefix(document, "https:") && !strings.HasPrefix(found, "https:") {
		return errors.New("plain http, named by a document that came by https")
	}
	return nil
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
// returns the URL that is one of its members.
func readMetadata(text []byte, issuer, member string) (string, error) {
	document, err := jose.ParseObject(text)
	if err != nil {
		return "", err
	}
	value, _ := document.Get("issuer")
	if stated, ok := value.Text(); !ok || stated != issuer {
		return "", fmt.Errorf("the document is of another issuer, %.200q", stated)
	}
	value, _ = document.Get(member)
	found, ok := value.Text()
	if !ok {
		return "", errors.New("the document does not have it")
	}
	return found, nil
}
