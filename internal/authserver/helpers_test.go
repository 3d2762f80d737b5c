package authserver

import (
	"context"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"encoding/base64"
	"encoding/json"
	"errors"
	"math/big"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/caddy-dpop/caddy-dpop/internal/jose"
)

// clock is a clock that tests set by hand.
type clock struct{ offset atomic.Int64 }

var epoch = time.Unix(1_700_000_000, 0)

func (c *clock) now() time.Time          { return epoch.Add(time.Duration(c.offset.Load())) }
func (c *clock) advance(d time.Duration) { c.offset.Add(int64(d)) }
func (c *clock) set(d time.Duration)     { c.offset.Store(int64(d)) } // since the epoch

func b64(data []byte) string { return base64.RawURLEncoding.EncodeToString(data) }

// fields is a JWK to be written.
type fields map[string]any

// with returns a copy with changes; nil takes a member away.
func (f fields) with(changes fields) fields {
	out := fields{}
	for name, value := range f {
		out[name] = value
	}
	for name, value := range changes {
		if out[name] = value; value == nil {
			delete(out, name)
		}
	}
	return out
}

func (f fields) String() string {
	text, err := json.Marshal(f)
	if err != nil {
		panic(err)
	}
	return string(text)
}

// The keys of all tests, one of a kind, as public JWKs.
var (
	rsaPrivate = sync.OnceValue(func() *rsa.PrivateKey {
		private, err := rsa.GenerateKey(rand.Reader, 2048)
		if err != nil {
			panic(err)
		}
		return private
	})
	ecPrivate = sync.OnceValue(func() *ecdsa.PrivateKey { return newEC(elliptic.P256()) })
	edPrivate = sync.OnceValue(func() ed25519.PrivateKey {
		_, private, err := ed25519.GenerateKey(rand.Reader)
		if err != nil {
			panic(err)
		}
		return private
	})
)

func newEC(curve elliptic.Curve) *ecdsa.PrivateKey {
	private, err := ecdsa.GenerateKey(curve, rand.Reader)
	if err != nil {
		panic(err)
	}
	return private
}

func rsaJWK() fields { return rsaFields(&rsaPrivate().PublicKey) }

func rsaFields(public *rsa.PublicKey) fields {
	return fields{"kty": "RSA", "n": b64(public.N.Bytes()), "e": b64(big.NewInt(int64(public.E)).Bytes())}
}

func ecJWK() fields { return ecFields(&ecPrivate().PublicKey) }

func ecFields(public *ecdsa.PublicKey) fields {
	point, err := public.Bytes()
	if err != nil {
		panic(err)
	}
	size := len(point) / 2
	return fields{"kty": "EC", "crv": public.Params().Name, "x": b64(point[1 : 1+size]), "y": b64(point[1+size:])}
}

func edJWK() fields {
	return fields{"kty": "OKP", "crv": "Ed25519", "x": b64(edPrivate().Public().(ed25519.PublicKey))}
}

// setText writes a JWK Set.
func setText(keys ...fields) string {
	texts := make([]string, len(keys))
	for i, key := range keys {
		texts[i] = key.String()
	}
	return `{"keys":[` + strings.Join(texts, ",") + `]}`
}

// kids writes a set of EC keys with these ids.
func kids(ids ...string) string {
	keys := make([]fields, len(ids))
	for i, id := range ids {
		keys[i] = ecJWK().with(fields{"kid": id})
	}
	return setText(keys...)
}

func algorithm(name string) *jose.Algorithm { return jose.AllAlgorithms().Find(name) }

// server is a server of key sets that counts its requests.
type server struct {
	*httptest.Server
	requests atomic.Int64
	answer   atomic.Pointer[http.HandlerFunc]
}

func newServer(t testing.TB, answer http.HandlerFunc) *server {
	t.Helper()
	s := new(server)
	s.respond(answer)
	s.Server = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		s.requests.Add(1)
		(*s.answer.Load())(w, r)
	}))
	t.Cleanup(s.Close)
	return s
}

func (s *server) respond(answer http.HandlerFunc) { s.answer.Store(&answer) }

// serve answers with a document, and with headers in pairs.
func serve(document string, headers ...string) http.HandlerFunc {
	return func(w http.ResponseWriter, _ *http.Request) {
		for i := 0; i < len(headers); i += 2 {
			w.Header().Add(headers[i], headers[i+1])
		}
		w.Write([]byte(document))
	}
}

func status(code int) http.HandlerFunc {
	return func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(code) }
}

func (s *server) expect(t testing.TB, requests int64) {
	t.Helper()
	if got := s.requests.Load(); got != requests {
		t.Fatalf("%d requests so far, want %d", got, requests)
	}
}

func newTestClient(t testing.TB) *Client {
	t.Helper()
	client := NewClient(Trust{}, 5*time.Second)
	t.Cleanup(client.CloseIdle)
	return client
}

// newTestCache returns a cache in front of a server, and its clock.
func newTestCache(t testing.TB, s *server) (*KeyCache, *clock) {
	t.Helper()
	c := NewKeyCache(KeysFromURL(newTestClient(t), s.URL), systemRoots)
	t.Cleanup(c.Close)
	clock := new(clock)
	c.now = clock.now
	return c, clock
}

// settle waits for the fetch under way, if any.
func settle(c *KeyCache) {
	c.mu.Lock()
	f := c.flight
	c.mu.Unlock()
	if f != nil {
		<-f.done
	}
}

// find asks for an ES256 key, and returns how many there are: -1 if that cannot
// be told now.
func find(t testing.TB, f KeyFinder, kid string) int {
	t.Helper()
	found, err := f.Find(t.Context(), kid, algorithm("ES256"))
	keys := found.Keys
	if err != nil {
		unavailable(t, err)
		return -1
	}
	return len(keys)
}

func expectFind(t testing.TB, f KeyFinder, kid string, want int) {
	t.Helper()
	if got := find(t, f, kid); got != want {
		t.Errorf("key %q: %d keys, want %d (-1: cannot be told)", kid, got, want)
	}
}

// unavailable checks that an error says that keys cannot be had, and for how
// long: something that can stand in Retry-After.
func unavailable(t testing.TB, err error) *UnavailableError {
	t.Helper()
	var u *UnavailableError
	if !errors.As(err, &u) {
		t.Errorf("got %v, want an *UnavailableError", err)
		return &UnavailableError{}
	}
	if u.RetryAfter <= 0 || u.RetryAfter > lastPause {
		t.Errorf("RetryAfter %v", u.RetryAfter)
	}
	if u.Err == nil || u.Error() == "" {
		t.Error("no word of why")
	}
	return u
}

// findUnavailable asks for a key that cannot be had.
func findUnavailable(t testing.TB, f KeyFinder, ctx context.Context, kid string) *UnavailableError {
	t.Helper()
	found, err := f.Find(ctx, kid, algorithm("ES256"))
	keys := found.Keys
	if len(keys) != 0 {
		t.Errorf("%d keys beside the error", len(keys))
	}
	return unavailable(t, err)
}

func systemRoots() *x509.CertPool { return nil }
