package caddydpop

import (
	"testing"

	"github.com/caddyserver/caddy/v2"
)

// contextOfNothing is that of a configuration in which there is nothing else.
func contextOfNothing(t testing.TB) caddy.Context {
	t.Helper()
	ctx, err := caddy.ProvisionContext(new(caddy.Config))
	if err != nil {
		t.Fatal(err)
	}
	return ctx
}
