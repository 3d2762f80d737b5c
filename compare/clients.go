//go:build linux

package main

import (
	"crypto/rand"
	"fmt"
	"time"

	"github.com/caddy-dpop/caddy-dpop/internal/jose"
	"github.com/caddy-dpop/caddy-dpop/internal/proof"
)

const (
	issuerName = "https://sso.example.com"
	audience   = "https://api.example.com"
	path       = "/orders"
)

// issuer signs access tokens; servers have its key from their configuration.
type issuer struct{ key *jose.PrivateKey }

func newKey() (*jose.PrivateKey, error) { return jose.Generate(jose.AllAlgorithms().Find("ES256")) }

func newIssuer() (*issuer, error) {
	key, err := newKey()
	if err != nil {
		return nil, err
	}
	return &issuer{key}, nil
}

// jwk is the public key, with what says that it is for tokens' signatures.
func (i *issuer) jwk() string {
	return fmt.Sprintf(`{"kid":%q,"use":"sig","alg":"ES256",%s`, i.key.ID, i.key.Public[1:])
}

// client has a key, and an access token that is bound to it.
type client struct {
	key   *jose.PrivateKey
	token string
}

func (i *issuer) newClient(lifetime time.Duration) (*client, error) {
	key, err := newKey()
	if err != nil {
		return nil, err
	}
	now := time.Now()
	token, err := i.key.Sign(map[string]any{"typ": "at+jwt", "kid": i.key.ID}, map[string]any{
		"iss": issuerName, "aud": audience, "sub": "user", "client_id": "client", "jti": rand.Text(), "scope": "orders:read",
		"iat": now.Unix(), "exp": now.Add(lifetime).Unix(), "cnf": map[string]any{"jkt": key.Thumbprint},
	})
	if err != nil {
		return nil, err
	}
	return &client{key, token}, nil
}

// proof is a fresh one for a request to a server, about a token.
func (c *client) proof(address, token string) (string, error) {
	return c.proofOf(address, token, time.Now())
}

func (c *client) proofOf(address, token string, at time.Time) (string, error) {
	return proof.Sign(c.key, proof.Claims{Method: "GET", URL: "http://" + address + path, Token: token, IssuedAt: at})
}

// request is one with a fresh proof, as it goes over the wire.
func (c *client) request(address string) ([]byte, error) {
	dpop, err := c.proof(address, c.token)
	if err != nil {
		return nil, err
	}
	return wire(address, c.token, dpop), nil
}

// wire writes a request; without a token, or a proof, its field is left out.
func wire(address, token, dpop string) []byte {
	out := fmt.Appendf(nil, "GET %s HTTP/1.1\r\nHost: %s\r\nAccept: application/json\r\n", path, address)
	if token != "" {
		out = fmt.Appendf(out, "Authorization: DPoP %s\r\n", token)
	}
	if dpop != "" {
		out = fmt.Appendf(out, "DPoP: %s\r\n", dpop)
	}
	return append(out, "\r\n"...)
}
