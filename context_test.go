package caddydpop

import (
	"testing"

	"github.com/caddyserver/caddy/v2"
)

// newContext is the context of a configuration that has nothing in it: what is
// provisioned with it finds the companion app, as in a real one.
func newContext(tb testing.TB) caddy.Context {
	tb.Helper()
	config, err := caddy.ProvisionContext(new(caddy.Config))
	if err != nil {
		tb.Fatal(err)
	}
	ctx, cancel := caddy.NewContext(config)
	tb.Cleanup(cancel)
	return ctx
}
