package caddydpop

import (
	"testing"

	"github.com/caddyserver/caddy/v2"
)

// newContext returns the context of a configuration of its own, in which modules
// find each other and their companion.
func newContext(t testing.TB) caddy.Context {
	t.Helper()
	configuration, err := caddy.ProvisionContext(new(caddy.Config))
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := caddy.NewContext(configuration)
	t.Cleanup(cancel)
	return ctx
}
