package caddydpop

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/sha256"
	"encoding/json"
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/caddyserver/caddy/v2/modules/caddyhttp"
	"go.uber.org/zap"

	"github.com/caddy-dpop/caddy-dpop/internal/jose"
	"github.com/caddy-dpop/caddy-dpop/internal/proof"
)

// bench is a handler with an issuer whose keys are in a file, a client's key and
// a token for it.
type bench struct {
	handler *Handler
	client  *jose.PrivateKey
	token   string
}

func newBench(b *testing.B) *bench {
	b.Helper()
	algorithm := jose.AllAlgorithms().Find("ES256")
	issuerKey, err := jose.Generate(algorithm)
	if err != nil {
		b.Fatal(err)
	}
	client, err := jose.Generate(algorithm)
	if err != nil {
		b.Fatal(err)
	}
	keys := filepath.Join(b.TempDir(), "keys.json")
	if err := os.WriteFile(keys, fmt.Appendf(nil, `{"keys":[%s]}`, issuerKey.Public), 0o600); err != nil {
		b.Fatal(err)
	}
	handler := &Handler{
		Issuers:   []*Issuer{{Issuer: "https://sso.example.com", JWKSFile: keys}},
		Audiences: []string{"https://api.example.com"},
		ReplayRaw: json.RawMessage(`{"store":"off"}`),
	}
	if err := handler.Provision(newContext(b)); err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() { _ = handler.Cleanup() })
	handler.logger = zap.NewNop()
	now := time.Now()
	token, err := issuerKey.Sign(map[string]any{"typ": "at+jwt"}, map[string]any{
		"iss": "https://sso.example.com", "aud": "https://api.example.com", "sub": "user", "client_id": "client", "jti": rand.Text(),
		"iat": now.Unix(), "exp": now.Add(time.Hour).Unix(), "scope": "orders:read", "cnf": map[string]any{"jkt": client.Thumbprint},
	})
	if err != nil {
		b.Fatal(err)
	}
	return &bench{handler, client, token}
}

func (s *bench) request(b *testing.B, dpop string) *http.Request {
	b.Helper()
	r := httptest.NewRequest("GET", "https://api.example.com/orders", nil)
	r.Header["Authorization"] = []string{"DPoP " + s.token}
	r.Header["Dpop"] = []string{dpop}
	return r
}

var upstream = caddyhttp.HandlerFunc(func(http.ResponseWriter, *http.Request) error { return nil })

// BenchmarkHandler is the whole handler beside the bare verification of one
// signature by the same kind of key, which is the ratio to look at.
func BenchmarkHandler(b *testing.B) {
	s := newBench(b)
	dpop, err := proof.Sign(s.client, proof.Claims{Method: "GET", URL: "https://api.example.com/orders", Token: s.token, IssuedAt: time.Now()})
	if err != nil {
		b.Fatal(err)
	}
	b.Run("bare verification", bareVerification)
	for name, proof := range map[string]string{"accepted": dpop, "refused as garbage": "garbage"} {
		b.Run(name, func(b *testing.B) {
			r := s.request(b, proof)
			header := r.Header.Clone()
			vars := make(map[string]any)
			ctx := context.WithValue(r.Context(), caddyhttp.VarsCtxKey, vars)
			b.ReportAllocs()
			for b.Loop() {
				clear(vars)
				r := r.WithContext(ctx)
				r.Header = header.Clone()
				err := s.handler.ServeHTTP(httptest.NewRecorder(), r, upstream)
				if (err == nil) != (name == "accepted") {
					b.Fatal(err)
				}
			}
		})
	}
}

func bareVerification(b *testing.B) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		b.Fatal(err)
	}
	digest := sha256.Sum256([]byte("message"))
	signature, err := ecdsa.SignASN1(rand.Reader, key, digest[:])
	if err != nil {
		b.Fatal(err)
	}
	for b.Loop() {
		if !ecdsa.VerifyASN1(&key.PublicKey, digest[:], signature) {
			b.Fatal("does not verify")
		}
	}
}
