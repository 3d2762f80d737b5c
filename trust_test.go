package caddydpop

import (
	"encoding/json"
	"encoding/pem"
	"net/http/httptest"
	"os"
	"path/filepath"
	"testing"

	"github.com/caddyserver/caddy/v2"
)

// Handlers share a key set, and an introspector, just when all is the same that
// says whom to trust, and who asks: what one was told must not serve another.
func TestTrustDoesNotMix(t *testing.T) {
	server := httptest.NewTLSServer(nil)
	server.Close()
	roots := filepath.Join(t.TempDir(), "roots.pem")
	if err := os.WriteFile(roots, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: server.Certificate().Raw}), 0o600); err != nil {
		t.Fatal(err)
	}
	const name = "https://sso.example.com"
	provisioned := func(change func(*Issuer)) *issuer {
		t.Helper()
		config := &Issuer{Issuer: name, Introspection: &Introspection{URL: name + "/introspect", ClientID: "gateway", ClientSecret: "secret"}}
		change(config)
		h := &Handler{Issuers: []*Issuer{config}, Audiences: []string{"https://api.example.com"}, ReplayRaw: json.RawMessage(`{"store":"off"}`)}
		if err := h.Provision(newContext(t)); err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = h.Cleanup() })
		return h.issuers.find(name)
	}
	usual := provisioned(func(*Issuer) {})
	for _, row := range []struct {
		what               string
		change             func(*Issuer)
		keys, introspector bool // whether they are the usual ones
	}{
		{"nothing", func(*Issuer) {}, true, true},
		{"what is accepted", func(i *Issuer) { i.TokenTypes, i.Audiences = []string{"JWT"}, []string{"x"} }, true, true},
		{"where keys are", func(i *Issuer) { i.JWKSURL = name + "/jwks" }, false, false},
		{"where metadata is", func(i *Issuer) { i.DiscoveryURL = name + "/metadata" }, false, false},
		{"roots", func(i *Issuer) { i.CAFiles = []string{roots} }, false, false},
		{"plain http", func(i *Issuer) { i.AllowHTTP = true }, false, false},
		{"the endpoint", func(i *Issuer) { i.Introspection.URL = name + "/other" }, true, false},
		{"the client", func(i *Issuer) { i.Introspection.ClientID = "other" }, true, false},
		{"its secret", func(i *Issuer) { i.Introspection.ClientSecret = "other" }, true, false},
		{"how it shows who it is", func(i *Issuer) { i.Introspection.Auth = authPost }, true, false},
		{"signed answers", func(i *Issuer) { i.Introspection.SignedResponse = true }, true, false},
		{"how long answers serve", func(i *Issuer) { i.Introspection.Cache = new(caddy.Duration) }, true, true},
	} {
		t.Run(row.what, func(t *testing.T) {
			other := provisioned(row.change)
			if shared := other.keys == usual.keys; shared != row.keys {
				t.Errorf("the key set is shared: %v", shared)
			}
			if shared := other.introspection.introspector == usual.introspection.introspector; shared != row.introspector {
				t.Errorf("the introspector is shared: %v", shared)
			}
		})
	}
}
