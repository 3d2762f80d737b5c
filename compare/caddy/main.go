// Command caddy is Caddy with this plugin, and with a handler that verifies one
// signature for each request and does nothing else: the least that DPoP can cost in
// Caddy, with the caches and the collector of garbage as they are there.
package main

import (
	"errors"
	"net/http"

	"github.com/caddyserver/caddy/v2"
	"github.com/caddyserver/caddy/v2/caddyconfig/httpcaddyfile"
	caddycmd "github.com/caddyserver/caddy/v2/cmd"
	"github.com/caddyserver/caddy/v2/modules/caddyhttp"
	_ "github.com/caddyserver/caddy/v2/modules/standard"

	_ "github.com/caddy-dpop/caddy-dpop"
	"github.com/caddy-dpop/caddy-dpop/internal/bare"
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

type bareVerification struct{ verify func() bool }

// CaddyModule implements caddy.Module.
func (bareVerification) CaddyModule() caddy.ModuleInfo {
	return caddy.ModuleInfo{ID: "http.handlers.bare_verification", New: func() caddy.Module { return new(bareVerification) }}
}

// Provision implements caddy.Provisioner.
func (b *bareVerification) Provision(caddy.Context) (err error) {
	b.verify, err = bare.Verification("ES256")
	return err
}

// ServeHTTP implements caddyhttp.MiddlewareHandler.
func (b *bareVerification) ServeHTTP(w http.ResponseWriter, r *http.Request, next caddyhttp.Handler) error {
	if !b.verify() {
		return caddyhttp.Error(http.StatusInternalServerError, errors.New("the signature does not verify"))
	}
	return next.ServeHTTP(w, r)
}
