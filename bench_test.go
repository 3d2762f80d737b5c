package caddydpop

import (
	"context"
	"crypto/rand"
	"encoding/binary"
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/caddyserver/caddy/v2"
	"github.com/caddyserver/caddy/v2/modules/caddyhttp"
	"go.uber.org/zap"

	"github.com/caddy-dpop/caddy-dpop/internal/beside"
	"github.com/caddy-dpop/caddy-dpop/internal/jose"
	"github.com/caddy-dpop/caddy-dpop/internal/proof"
	"github.com/caddy-dpop/caddy-dpop/replay"
)

// bench is a handler with an issuer whose keys are in a file, that issuer's key,
// and a client's.
type bench struct {
	handler *Handler
	issuer  *jose.PrivateKey
	client  *jose.PrivateKey
	url     string
	at      time.Time // when proofs are made
}

func newBench(b testing.TB, algorithm string, change func(*Handler)) *bench {
	b.Helper()
	s := &bench{issuer: generate(b, "ES256"), client: generate(b, algorithm), url: "https://api.example.com/orders"}
	keys := filepath.Join(b.TempDir(), "keys.json")
	if err := os.WriteFile(keys, fmt.Appendf(nil, `{"keys":[%s]}`, s.issuer.Public), 0o600); err != nil {
		b.Fatal(err)
	}
	ctx := newContext(b)
	s.handler = &Handler{
		Issuers:   []*Issuer{{Issuer: "https://sso.example.com", JWKSFile: keys}},
		Audiences: []string{"https://api.example.com"},
	}
	if change != nil {
		change(s.handler)
	}
	if err := s.handler.Provision(ctx); err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() { _ = s.handler.Cleanup() })
	companion, err := companionOf(ctx)
	if err != nil {
		b.Fatal(err)
	}
	if err := companion.Start(); err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() { _ = companion.Stop() })
	s.handler.logger = zap.NewNop()
	if memory, ok := s.handler.store.(*replay.Memory); ok {
		s.handler.store = &unspent{Memory: memory}
	}
	// However long it takes, the proof is of now, and not of the second of the start.
	s.at = time.Now().Truncate(time.Second).Add(2 * time.Second)
	s.handler.now = func() time.Time { return s.at }
	return s
}

// unspent is the memory store, for which each use of a proof is the first one.
type unspent struct {
	*replay.Memory
	uses uint64
}

func (u *unspent) Record(ctx context.Context, use replay.Use) error {
	u.uses++
	binary.LittleEndian.PutUint64(use.Key[:], u.uses*0x9e3779b97f4a7c15)
	return u.Memory.Record(ctx, use)
}

func generate(b testing.TB, algorithm string) *jose.PrivateKey {
	b.Helper()
	key, err := jose.Generate(jose.AllAlgorithms().Find(algorithm))
	if err != nil {
		b.Fatal(err)
	}
	return key
}

// token signs a token that is bound to the client's key.
func (s *bench) token(b testing.TB) string {
	b.Helper()
	token, err := s.issuer.Sign(map[string]any{"typ": "at+jwt"}, map[string]any{
		"iss": "https://sso.example.com", "aud": "https://api.example.com", "sub": "user", "client_id": "client", "jti": rand.Text(),
		"iat": s.at.Unix(), "exp": s.at.Add(time.Hour).Unix(), "scope": "orders:read", "cnf": map[string]any{"jkt": s.client.Thumbprint},
	})
	if err != nil {
		b.Fatal(err)
	}
	return token
}

func (s *bench) proof(b testing.TB, key *jose.PrivateKey, token string) string {
	b.Helper()
	text, err := proof.Sign(key, proof.Claims{Method: "GET", URL: s.url, Token: token, IssuedAt: s.at})
	if err != nil {
		b.Fatal(err)
	}
	return text
}

// call is a request that can be handed to a handler again and again, as Caddy's
// server would make it.
type call struct {
	request *http.Request
	vars    map[string]any
	writer  discarded
}

func newCall(url string) *call {
	c := &call{vars: make(map[string]any), writer: make(discarded)}
	r := httptest.NewRequest("GET", url, nil)
	ctx := context.WithValue(r.Context(), caddyhttp.VarsCtxKey, c.vars)
	ctx = context.WithValue(ctx, caddyhttp.ServerCtxKey, new(caddyhttp.Server)) // without an access log, as Caddy's are by default
	ctx = context.WithValue(ctx, caddyhttp.ExtraLogFieldsCtxKey, new(caddyhttp.ExtraLogFields))
	c.request = r.WithContext(ctx)
	return c
}

// discarded is an answer that nobody reads.
type discarded http.Header

func (d discarded) Header() http.Header       { return http.Header(d) }
func (discarded) Write(b []byte) (int, error) { return len(b), nil }
func (discarded) WriteHeader(int)             {}

var upstream = caddyhttp.HandlerFunc(func(http.ResponseWriter, *http.Request) error { return nil })

// serve hands the request to the handler, with these credentials.
func (c *call) serve(h *Handler, authorization, dpop []string) error {
	clear(c.vars)
	clear(c.writer)
	c.request.Header["Authorization"] = authorization
	c.request.Header["Dpop"] = dpop
	if extra, ok := c.request.Context().Value(caddyhttp.ExtraLogFieldsCtxKey).(*caddyhttp.ExtraLogFields); ok {
		*extra = caddyhttp.ExtraLogFields{}
	}
	return h.ServeHTTP(c.writer, c.request, upstream)
}

// BenchmarkHandler is the whole handler, by how a request's proof is signed, each
// beside the bare verification of one signature by the same kind of key: in turn,
// so that the ratio holds on a machine whose speed drifts.
func BenchmarkHandler(b *testing.B) {
	for _, algorithm := range []string{"ES256", "EdDSA", "RS256", "PS256"} {
		b.Run(algorithm, func(b *testing.B) {
			s := newBench(b, algorithm, nil)
			token := s.token(b)
			authorization, dpop := []string{"DPoP " + token}, []string{s.proof(b, s.client, token)}
			c, bare := newCall(s.url), beside.Verification(b, algorithm)
			b.ReportAllocs()
			beside.Compare(b, bare, 1, func() {
				if err := c.serve(s.handler, authorization, dpop); err != nil {
					b.Fatal(err)
				}
			})
		})
	}
}

// BenchmarkIntrospected is a request with an opaque token, of which the issuer's
// answer is remembered.
func BenchmarkIntrospected(b *testing.B) {
	var jkt string
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "application/json")
		fmt.Fprintf(w, `{"active":true,"iss":"https://sso.example.com","aud":"https://api.example.com","sub":"user","cnf":{"jkt":%q}}`, jkt)
	}))
	defer server.Close()
	cache := caddy.Duration(time.Hour)
	s := newBench(b, "ES256", func(h *Handler) {
		h.Issuers[0].Introspection = &Introspection{URL: server.URL, ClientID: "gateway", Auth: "none", Cache: &cache}
	})
	jkt = s.client.Thumbprint
	const token = "2YotnFZFEjr1zCsicMWpAA"
	authorization, dpop := []string{"DPoP " + token}, []string{s.proof(b, s.client, token)}
	c := newCall(s.url)
	b.ReportAllocs()
	beside.Compare(b, beside.Verification(b, "ES256"), 1, func() {
		if err := c.serve(s.handler, authorization, dpop); err != nil {
			b.Fatal(err)
		}
	})
}

// BenchmarkNewToken is a request with a token that was not seen before, beside two
// bare verifications.
func BenchmarkNewToken(b *testing.B) {
	s := newBench(b, "ES256", nil)
	const many = 2000
	var authorizations, dpops [][]string
	for range many {
		token := s.token(b)
		authorizations, dpops = append(authorizations, []string{"DPoP " + token}), append(dpops, []string{s.proof(b, s.client, token)})
	}
	c, bare, n := newCall(s.url), beside.Verification(b, "ES256"), 0
	b.ReportAllocs()
	beside.Compare(b, bare, 2, func() {
		if n++; n%many == 0 { // all are known now
			for _, iss := range s.handler.issuers {
				iss.tokens = newTokenCache()
			}
			knownTokens = newKnownTokens()
		}
		if err := c.serve(s.handler, authorizations[n%many], dpops[n%many]); err != nil {
			b.Fatal(err)
		}
	})
}

// BenchmarkRefusal is a request that is refused, by how far it gets.
func BenchmarkRefusal(b *testing.B) {
	s := newBench(b, "ES256", nil)
	token := s.token(b)
	good := s.proof(b, s.client, token)
	authorization := []string{"DPoP " + token}
	for _, row := range []struct {
		what                string
		authorization, dpop []string
	}{
		{"no credentials", nil, nil},
		{"Bearer", []string{"Bearer " + token}, nil},
		{"no proof", authorization, nil},
		{"garbage", authorization, []string{"garbage"}},
		{"8 KiB of garbage", authorization, []string{garbage(8 << 10)}},
		{"claims of garbage", authorization, []string{good[:200] + garbage(7<<10) + good[len(good)-87:]}},
		{"wrong type", authorization, []string{"eyJhbGciOiJFUzI1NiJ9.e30.AAAA"}},
		{"another token", []string{"DPoP " + token + "A"}, []string{good}},
	} {
		b.Run(row.what, func(b *testing.B) {
			c, bare := newCall(s.url), beside.Verification(b, "ES256")
			b.ReportAllocs()
			beside.Compare(b, bare, 1, func() {
				if c.serve(s.handler, row.authorization, row.dpop) == nil {
					b.Fatal("accepted")
				}
			})
		})
	}
}

func garbage(n int) string {
	text := make([]byte, n)
	for i := range text {
		text[i] = "eyJ0.eXAiOiJk"[i%13]
	}
	return string(text)
}
