package devissuer

import (
	"context"
	"testing"
	"time"

	"github.com/caddy-dpop/caddy-dpop/internal/authserver"
	"github.com/caddy-dpop/caddy-dpop/internal/jose"
	"github.com/caddy-dpop/caddy-dpop/internal/token"
)

// Tokens are what was asked for, bound to the client's key, with nonces and without.
func TestTokens(t *testing.T) {
	algorithm := jose.AllAlgorithms().Find("ES256")
	issuer, err := Start(algorithm, "https://api.example.com")
	if err != nil {
		t.Fatal(err)
	}
	defer issuer.Stop()
	key, err := jose.Generate(algorithm)
	if err != nil {
		t.Fatal(err)
	}
	client := authserver.NewClient(authserver.Trust{}, 5*time.Second)
	ask := func(auth authserver.ClientAuth, scope, resource string) jose.Object {
		t.Helper()
		granted, err := client.Token(context.Background(), authserver.TokenRequest{
			Issuer: issuer.URL, Auth: auth, Key: key, Scope: scope, Resource: resource,
		})
		if err != nil {
			t.Fatal(err)
		}
		if warning, err := granted.CheckBinding(key); warning != "" || err != nil {
			t.Errorf("%s, %v", warning, err)
		}
		parsed, f := token.Parse(granted.Token)
		if f != nil {
			t.Fatal(f)
		}
		return parsed.Claims()
	}
	check := func(claims jose.Object, want map[string]string) {
		t.Helper()
		for name, text := range want {
			value, _ := claims.Get(name)
			if got, _ := value.Text(); got != text {
				t.Errorf("%s is %q, want %q", name, got, text)
			}
		}
	}
	check(ask(authserver.ClientID{ID: "me"}, "", ""), map[string]string{"client_id": "me", "aud": "https://api.example.com", "scope": ""})
	issuer.DemandNonces()
	check(ask(authserver.SecretBasic{ID: "you", Secret: "s"}, "a b", "https://other"), map[string]string{"client_id": "you", "aud": "https://other", "scope": "a b"})
	check(ask(authserver.SecretPost{ID: "they", Secret: "s"}, "", ""), map[string]string{"client_id": "they"})
}
