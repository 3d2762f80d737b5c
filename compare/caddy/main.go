// Command caddy is Caddy with this plugin, and with a handler that verifies one
// signature for each request and does nothing else: the least that DPoP can cost in
// Caddy, with the caches and the collector of garbage as they are there.
package main

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/sha256"
	"errors"
	"net/http"

	"github.com/caddyserver/caddy/v2"
	"github.com/caddyserver/caddy/v2/caddyconfig/httpcaddyfile"
	caddycmd "github.com/caddyserver/caddy/v2/cmd"
	"github.com/caddyserver/caddy/v2/modules/caddyhttp"
	_ "github.com/caddyserver/caddy/v2/modules/standard"

	_ "github.com/caddy-dpop/caddy-dpop"
)

func main() {
	caddy.RegisterModule(bareVerification{})
	httpcaddyfile.RegisterHandlerDirective("bare_verification", func(h httpcaddyfile.Helper) (caddyhttp.MiddlewareHandler, error) {
		h.Next()
		return &bareVerification{}, nil
	})
	httpcaddyfile.RegisterDirectiveOrder("bare_verification", httpcaddyfile.Before, "basic_auth")
	caddycmd.Main()
}

type bareVerification struct {
	key       *ecdsa.PublicKey
	digest    [sha256.Size]byte
	signature []byte
}

// CaddyModule implements caddy.Module.
func (bareVerification) CaddyModule() caddy.ModuleInfo {
	return caddy.ModuleInfo{ID: "http.handlers.bare_verification", New: func() caddy.Module { return new(bareVerification) }}
}

// Provision implements caddy.Provisioner.
func (b *bareVerification) Provision(caddy.Context) error {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return err
	}
	b.key, b.digest = &key.PublicKey, sha256.Sum256([]byte("message"))
	b.signature, err = ecdsa.SignASN1(rand.Reader, key, b.digest[:])
	return err
}

// ServeHTTP implements caddyhttp.MiddlewareHandler.
func (b *bareVerification) ServeHTTP(w http.ResponseWriter, r *http.Request, next caddyhttp.Handler) error {
	if !ecdsa.VerifyASN1(b.key, b.digest[:], b.signature) {
		return caddyhttp.Error(http.StatusInternalServerError, errors.New("the signature does not verify"))
	}
	return next.ServeHTTP(w, r)
}
