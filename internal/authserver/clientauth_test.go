package authserver

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/base64"
	"encoding/json"
	"encoding/pem"
	"errors"
	"io"
	"log"
	"math/big"
	"net"
	"net/http"
	"net/http/httptest"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/caddy-dpop/caddy-dpop/internal/jose"
)

// asked is what an authorization server saw of one call.
type asked struct {
	method, query string
	header        http.Header
	form          url.Values
}

// ask introspects a token with the given credentials, and returns what the
// server saw.
func ask(t *testing.T, auth ClientAuth, token string) asked {
	t.Helper()
	var seen asked
	s := newServer(t, func(w http.ResponseWriter, r *http.Request) {
		if err := r.ParseForm(); err != nil {
			t.Error(err)
		}
		seen = asked{r.Method, r.URL.RawQuery, r.Header.Clone(), r.PostForm}
		serve(`{"active":true}`, "Content-Type", "application/json")(w, r)
	})
	i, _ := newTestIntrospector(t, Introspection{URL: s.URL, Auth: auth})
	if answer := introspect(t, i, token, 0); answer == nil || !answer.Active {
		t.Fatalf("answer %+v", answer)
	}
	s.expect(t, 1)
	return seen
}

// rest checks what is the same for all, and returns the form without it.
func (a asked) rest(t *testing.T, token string) url.Values {
	t.Helper()
	// RFC 7662 §2.1: never in a URL, where logs would have it.
	if a.method != "POST" || a.query != "" || a.header.Get("Content-Type") != "application/x-www-form-urlencoded" ||
		a.header.Get("Accept") != "application/json" {
		t.Errorf("%s ?%s, header %v", a.method, a.query, a.header)
	}
	for name, values := range a.form {
		if len(values) != 1 {
			t.Errorf("%s: %q", name, values)
		}
	}
	if a.form.Get("token") != token || a.form.Get("token_type_hint") != "access_token" {
		t.Errorf("form %v", a.form)
	}
	rest := url.Values{}
	for name, values := range a.form {
		if name != "token" && name != "token_type_hint" {
			rest[name] = values
		}
	}
	return rest
}

// A token arrives as it is, whatever of the token68 characters (RFC 9110
// §11.2) and others it has.
func TestIntrospectSendsTheToken(t *testing.T) {
	for _, token := range []string{"opaque", "a-._~+/==", "a+b&token=c%20 d", strings.Repeat("a", 16<<10)} {
		if rest := ask(t, ClientID{}, token).rest(t, token); len(rest) != 0 {
			t.Errorf("beside the token: %v", rest)
		}
	}
}

// RFC 6749 §2.3.1: id and secret are form-encoded, and joined by a colon after.
func TestSecretBasic(t *testing.T) {
	for _, row := range []struct{ id, secret, pair string }{
		{"s6BhdRkqt3", "7Fjfp0ZBr1KtDRbnfVdmIw", "s6BhdRkqt3:7Fjfp0ZBr1KtDRbnfVdmIw"}, // the RFC's own
		{"a:b", "c:d", "a%3Ab:c%3Ad"},
		{"50%", "%41", "50%25:%2541"},
		{"a+b", "c d", "a%2Bb:c+d"},
		{"a/b=", "&?#", "a%2Fb%3D:%26%3F%23"},
		{"https://api.example.com", `"\<>`, "https%3A%2F%2Fapi.example.com:%22%5C%3C%3E"},
		{"ü", "£ €\U0001f511", "%C3%BC:%C2%A3+%E2%82%AC%F0%9F%94%91"}, // RFC 6749 appendix B has £ and €
		{"a", "\x7f\r\n", "a:%7F%0D%0A"},
	} {
		seen := ask(t, SecretBasic{row.id, row.secret}, "opaque")
		if rest := seen.rest(t, "opaque"); len(rest) != 0 {
			t.Errorf("beside the token: %v", rest)
		}
		header := seen.header["Authorization"]
		if want := "Basic " + base64.StdEncoding.EncodeToString([]byte(row.pair)); len(header) != 1 || header[0] != want {
			t.Errorf("Authorization %q, want %q", header, want)
			continue
		}
		// and as a server undoes it
		id, secret, _ := strings.Cut(row.pair, ":")
		id, idErr := url.QueryUnescape(id)
		secret, secretErr := url.QueryUnescape(secret)
		if idErr != nil || secretErr != nil || id != row.id || secret != row.secret {
			t.Errorf("a server reads %q and %q", id, secret)
		}
	}
}

func TestSecretPost(t *testing.T) {
	for _, secret := range []string{"secret", "a:b%41+c d&token=e=£"} {
		seen := ask(t, SecretPost{"the client", secret}, "opaque")
		rest := seen.rest(t, "opaque")
		if len(rest) != 2 || rest.Get("client_id") != "the client" || rest.Get("client_secret") != secret || seen.header.Get("Authorization") != "" {
			t.Errorf("sent %v, Authorization %q", rest, seen.header["Authorization"])
		}
	}
}

func TestClientIDAndBearer(t *testing.T) {
	seen := ask(t, ClientID{"the client"}, "opaque")
	if rest := seen.rest(t, "opaque"); len(rest) != 1 || rest.Get("client_id") != "the client" || seen.header.Get("Authorization") != "" {
		t.Errorf("client id: sent %v, Authorization %q", rest, seen.header["Authorization"])
	}
	seen = ask(t, ClientID{}, "opaque")
	if rest := seen.rest(t, "opaque"); len(rest) != 0 || seen.header.Get("Authorization") != "" {
		t.Errorf("nothing: sent %v, Authorization %q", rest, seen.header["Authorization"])
	}
	seen = ask(t, BearerToken{"23410913-abewfq.123483"}, "opaque")
	header := seen.header["Authorization"]
	if rest := seen.rest(t, "opaque"); len(rest) != 0 || len(header) != 1 || header[0] != "Bearer 23410913-abewfq.123483" { // RFC 7662 §2.1
		t.Errorf("bearer: sent %v, Authorization %q", rest, header)
	}
}

func newKey(t testing.TB, alg string) *jose.PrivateKey {
	t.Helper()
	key, err := jose.Generate(algorithm(alg))
	if err != nil {
		t.Fatal(err)
	}
	return key
}

// published is the key set that an authorization server reads of a client's keys.
func published(t testing.TB, keys ...*jose.PrivateKey) *KeySet {
	t.Helper()
	texts := make([]fields, len(keys))
	for i, key := range keys {
		texts[i] = key.PublicJWK()
	}
	set, err := ParseKeySet([]byte(setText(texts...)))
	if err != nil || set.Len() != len(keys) {
		t.Fatalf("%d keys published, %v", set.Len(), err)
	}
	return set
}

// assertion verifies an assertion as an authorization server does (RFC 7523 §3),
// and returns its claims.
func assertion(t *testing.T, form url.Values, key *jose.PrivateKey) map[string]any {
	t.Helper()
	if form.Get("client_assertion_type") != "urn:ietf:params:oauth:client-assertion-type:jwt-bearer" || form.Get("client_id") != "the client" {
		t.Errorf("form %v", form)
	}
	compact := form.Get("client_assertion")
	jws, err := jose.ParseJWS(compact)
	if err != nil {
		t.Fatal(err)
	}
	head, payload, _ := strings.Cut(compact, ".")
	payload, _, _ = strings.Cut(payload, ".")
	var header, claims map[string]any
	for part, into := range map[string]*map[string]any{head: &header, payload: &claims} {
		text, err := jose.DecodeBase64URL(part)
		if err == nil {
			err = json.Unmarshal(text, into)
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	if len(header) != 3 || header["typ"] != "JWT" || header["kid"] != key.ID || header["alg"] != key.Algorithm.Name {
		t.Errorf("header %v", header)
	}
	keys, _ := published(t, key).find(key.ID, key.Algorithm)
	if len(keys) != 1 || key.Algorithm.Verify(keys[0], jws.Input, jws.Signature) != nil {
		t.Errorf("the assertion does not verify with the key that is published (%d found)", len(keys))
	}
	return claims
}

func TestKeyJWT(t *testing.T) {
	for _, alg := range []string{"ES256", "ES512", "PS256", "RS256", "EdDSA"} {
		key := newKey(t, alg)
		key.ID = "the key"
		before := time.Now().Unix()
		seen := ask(t, KeyJWT{"the client", func() *jose.PrivateKey { return key }}, "opaque")
		rest := seen.rest(t, "opaque")
		if len(rest) != 3 || seen.header.Get("Authorization") != "" {
			t.Errorf("sent %v, Authorization %q", rest, seen.header["Authorization"])
		}
		claims := assertion(t, rest, key)
		if iat, _ := claims["iat"].(float64); iat < float64(before) || iat > float64(time.Now().Unix()) {
			t.Errorf("iat %v", claims["iat"])
		}
	}
}

// Each assertion is a fresh one, for this issuer and a minute, by the key that
// is in use then.
func TestKeyJWTClaims(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		key := newKey(t, "ES256")
		auth := KeyJWT{"the client", func() *jose.PrivateKey { return key }}
		seen := make(map[any]bool)
		for range 100 {
			if len(seen) == 50 {
				key = newKey(t, "ES256") // as when its file has changed
			}
			form, header := url.Values{}, http.Header{}
			if err := auth.authenticate("https://sso.example.com/realms/main", form, header); err != nil || len(header) != 0 {
				t.Fatal(err, header)
			}
			claims := assertion(t, form, key)
			now := float64(time.Now().Unix())
			if len(claims) != 6 || claims["iss"] != "the client" || claims["sub"] != "the client" ||
				claims["aud"] != "https://sso.example.com/realms/main" || claims["iat"] != now || claims["exp"] != now+60 {
				t.Fatalf("claims %v", claims)
			}
			if jti, _ := claims["jti"].(string); len(jti) < 22 || seen[jti] { // 128 bits in base64
				t.Fatalf("jti %q, seen before: %t", jti, seen[jti])
			}
			seen[claims["jti"]] = true
			time.Sleep(time.Second) // of the bubble
		}
	})
}

// auths that fail are no reason to call without credentials.
type failingAuth struct{}

func (failingAuth) authenticate(string, url.Values, http.Header) error {
	return errors.New("no credentials")
}

func TestAuthFailureCallsNobody(t *testing.T) {
	s := newServer(t, serve(`{"active":true}`))
	i, _ := newTestIntrospector(t, Introspection{URL: s.URL, Auth: failingAuth{}})
	if u := cannotTell(t, i, "opaque", 0); !strings.Contains(u.Error(), "no credentials") {
		t.Errorf("got %v", u)
	}
	s.expect(t, 0)
}

// authority is a certificate authority of a test.
type authority struct {
	certificate *x509.Certificate
	key         *ecdsa.PrivateKey
	pool        *x509.CertPool
}

var serials atomic.Int64

func certificate(t *testing.T, name string, by *authority) ([]byte, *ecdsa.PrivateKey) {
	t.Helper()
	key := newEC(elliptic.P256())
	template := &x509.Certificate{
		SerialNumber:          big.NewInt(serials.Add(1)),
		Subject:               pkix.Name{CommonName: name},
		NotBefore:             time.Now().Add(-time.Hour),
		NotAfter:              time.Now().Add(time.Hour),
		BasicConstraintsValid: true,
	}
	parent, signer := template, key
	if by != nil {
		parent, signer = by.certificate, by.key
		template.IPAddresses = []net.IP{net.IPv4(127, 0, 0, 1)}
		template.ExtKeyUsage = []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth}
		template.KeyUsage = x509.KeyUsageDigitalSignature
	} else {
		template.IsCA, template.KeyUsage = true, x509.KeyUsageCertSign
	}
	der, err := x509.CreateCertificate(rand.Reader, template, parent, &key.PublicKey, signer)
	if err != nil {
		t.Fatal(err)
	}
	return der, key
}

func newAuthority(t *testing.T, name string) *authority {
	t.Helper()
	der, key := certificate(t, name, nil)
	parsed, err := x509.ParseCertificate(der)
	if err != nil {
		t.Fatal(err)
	}
	a := &authority{parsed, key, x509.NewCertPool()}
	a.pool.AddCert(parsed)
	return a
}

func (a *authority) issue(t *testing.T, name string) *tls.Certificate {
	t.Helper()
	der, key := certificate(t, name, a)
	return &tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key}
}

// write writes a certificate and its key in PEM, and returns the files.
func write(t *testing.T, dir string, c *tls.Certificate) (certFile, keyFile string) {
	t.Helper()
	der, err := x509.MarshalPKCS8PrivateKey(c.PrivateKey)
	if err != nil {
		t.Fatal(err)
	}
	certFile, keyFile = filepath.Join(dir, "cert.pem"), filepath.Join(dir, "key.pem")
	for name, block := range map[string]*pem.Block{
		certFile: {Type: "CERTIFICATE", Bytes: c.Certificate[0]}, keyFile: {Type: "PRIVATE KEY", Bytes: der}} {
		if err := os.WriteFile(name, pem.EncodeToMemory(block), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	return certFile, keyFile
}

// secureServer is a server over TLS whose certificate may change, and which
// counts the connections that were opened.
type secureServer struct {
	*httptest.Server
	certificate atomic.Pointer[tls.Certificate]
	connections atomic.Int64
	requests    atomic.Int64
}

func newSecureServer(t *testing.T, first *tls.Certificate, clients *x509.CertPool, answer http.HandlerFunc) *secureServer {
	t.Helper()
	s := new(secureServer)
	s.certificate.Store(first)
	s.Server = httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		s.requests.Add(1)
		answer(w, r)
	}))
	s.TLS = &tls.Config{GetCertificate: func(*tls.ClientHelloInfo) (*tls.Certificate, error) { return s.certificate.Load(), nil }}
	if clients != nil {
		s.TLS.ClientAuth, s.TLS.ClientCAs = tls.RequireAndVerifyClientCert, clients
	}
	s.Config.ErrorLog = log.New(io.Discard, "", 0)
	s.Config.ConnState = func(_ net.Conn, state http.ConnState) {
		if state == http.StateNew {
			s.connections.Add(1)
		}
	}
	// Where certificates of clients count, each request has a connection of its own;
	// otherwise all share one, however close they follow each other.
	s.EnableHTTP2 = clients == nil
	s.Config.SetKeepAlivesEnabled(clients == nil)
	s.StartTLS()
	// httptest puts a certificate of its own first, for clients that name no server
	s.TLS.Certificates = nil
	t.Cleanup(s.Close)
	return s
}

// RFC 8705 §2.1: the certificate is the credential, and the client's id says whose.
func TestTLSClientAuth(t *testing.T) {
	servers, clients, strangers := newAuthority(t, "servers"), newAuthority(t, "clients"), newAuthority(t, "strangers")
	var name, id string
	s := newSecureServer(t, servers.issue(t, "sso"), clients.pool, func(w http.ResponseWriter, r *http.Request) {
		name, id = r.TLS.PeerCertificates[0].Subject.CommonName, r.PostFormValue("client_id")
		serve(`{"active":true}`)(w, r)
	})
	with := func(certificate func() (*tls.Certificate, error)) *Introspector {
		client := NewClient(Trust{Roots: func() *x509.CertPool { return servers.pool }, Certificate: certificate}, 5*time.Second)
		t.Cleanup(client.CloseIdle)
		i, _ := newTestIntrospector(t, Introspection{Client: client, URL: s.URL, Auth: ClientID{"the client"}})
		return i
	}

	dir := t.TempDir()
	certFile, keyFile := write(t, dir, clients.issue(t, "first"))
	i := with(func() (*tls.Certificate, error) {
		pair, err := tls.LoadX509KeyPair(certFile, keyFile)
		return &pair, err
	})
	for _, want := range []string{"first", "second"} {
		write(t, dir, clients.issue(t, want))
		introspect(t, i, want, 0)
		if name != want || id != "the client" {
			t.Errorf("%s: came as %q, client_id %q", want, name, id)
		}
	}

	for reason, certificate := range map[string]func() (*tls.Certificate, error){
		"no certificate":    nil,
		"cannot be read":    func() (*tls.Certificate, error) { return nil, errors.New("cannot be read") },
		"another authority": func() (*tls.Certificate, error) { return strangers.issue(t, "stranger"), nil },
	} {
		before := s.requests.Load()
		cannotTell(t, with(certificate), "opaque", 0)
		if s.requests.Load() != before {
			t.Errorf("%s: the token was sent", reason)
		}
	}
}

// Roots that change count at once: for new connections, and for those that the
// old ones vouched for.
func TestRootsChange(t *testing.T) {
	first, second := newAuthority(t, "first"), newAuthority(t, "second")
	s := newSecureServer(t, first.issue(t, "sso"), nil, serve(`{"active":true}`))
	var roots atomic.Pointer[x509.CertPool]
	roots.Store(first.pool)
	client := NewClient(Trust{Roots: roots.Load}, 5*time.Second)
	t.Cleanup(client.CloseIdle)
	i, _ := newTestIntrospector(t, Introspection{Client: client, URL: s.URL})
	for range 3 { // over one connection
		introspect(t, i, "opaque", 0)
	}
	if n := s.connections.Load(); n != 1 {
		t.Fatalf("%d connections", n)
	}

	// The server still shows what the old root vouched for: neither it nor the
	// connection that is open counts any more.
	roots.Store(second.pool)
	if u := cannotTell(t, i, "opaque", 0); !errors.As(u, new(x509.UnknownAuthorityError)) {
		t.Errorf("got %v", u)
	}
	if n := s.requests.Load(); n != 3 {
		t.Errorf("%d requests: the token was sent", n)
	}
	s.certificate.Store(second.issue(t, "sso"))
	introspect(t, i, "opaque", 0)
	introspect(t, i, "opaque", 0)
	if n := s.connections.Load(); n != 3 {
		t.Errorf("%d connections", n)
	}

	// and back, while a connection by the second is open
	s.certificate.Store(first.issue(t, "sso"))
	roots.Store(first.pool)
	introspect(t, i, "opaque", 0)
	if n := s.connections.Load(); n != 4 {
		t.Errorf("%d connections", n)
	}
}

// Answers and endpoints that servers under other roots gave do not count.
func TestRootsChangeWhatIsRemembered(t *testing.T) {
	var discovered, calls atomic.Int64
	var s *server
	s = newServer(t, func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/introspect" {
			calls.Add(1)
			serve(`{"active":true}`)(w, r)
			return
		}
		discovered.Add(1)
		serve(`{"issuer":"`+s.URL+`","introspection_endpoint":"`+s.URL+`/introspect"}`)(w, r)
	})
	var roots atomic.Pointer[x509.CertPool]
	client := NewClient(Trust{Roots: roots.Load}, 5*time.Second)
	t.Cleanup(client.CloseIdle)
	i, _ := newTestIntrospector(t, Introspection{Client: client, Issuer: s.URL})
	for n := range int64(3) {
		pool := x509.NewCertPool()
		pool.AddCert(newAuthority(t, "authority").certificate)
		roots.Store(pool)
		introspect(t, i, "opaque", time.Hour)
		introspect(t, i, "opaque", time.Hour)
		if discovered.Load() != n+1 || calls.Load() != n+1 {
			t.Errorf("%d discoveries and %d calls under %d roots", discovered.Load(), calls.Load(), n+1)
		}
	}
}

// Roots count for discovery, too.
func TestRootsOfDiscovery(t *testing.T) {
	a, b := newAuthority(t, "a"), newAuthority(t, "b")
	var s *secureServer
	s = newSecureServer(t, a.issue(t, "sso"), nil, func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/introspect" {
			serve(`{"active":true}`)(w, r)
			return
		}
		serve(`{"issuer":"`+s.URL+`","introspection_endpoint":"`+s.URL+`/introspect"}`)(w, r)
	})
	for _, trusted := range []*authority{b, a} {
		client := NewClient(Trust{Roots: func() *x509.CertPool { return trusted.pool }}, 5*time.Second)
		t.Cleanup(client.CloseIdle)
		i, _ := newTestIntrospector(t, Introspection{Client: client, Issuer: s.URL})
		if trusted == a {
			introspect(t, i, "opaque", 0)
		} else if u := cannotTell(t, i, "opaque", 0); s.requests.Load() != 0 || !errors.As(u, new(x509.UnknownAuthorityError)) {
			t.Errorf("got %v after %d requests", u, s.requests.Load())
		}
	}
}

// Credentials and token stay with the server that was asked.
func TestRedirectsGetNoCredentials(t *testing.T) {
	other := newServer(t, serve(`{"active":true}`))
	key := newKey(t, "ES256")
	for name, auth := range map[string]ClientAuth{
		"basic":  SecretBasic{"the client", "secret"},
		"post":   SecretPost{"the client", "secret"},
		"jwt":    KeyJWT{"the client", func() *jose.PrivateKey { return key }},
		"bearer": BearerToken{"token"},
		"none":   ClientID{},
	} {
		for _, code := range []int{301, 302, 303, 307, 308} {
			for _, location := range []string{other.URL, "/elsewhere", ""} {
				s := newServer(t, func(w http.ResponseWriter, r *http.Request) {
					if r.URL.Path == "/elsewhere" {
						serve(`{"active":true}`)(w, r)
						return
					}
					w.Header().Set("Location", location)
					w.WriteHeader(code)
				})
				i, _ := newTestIntrospector(t, Introspection{URL: s.URL + "/introspect", Auth: auth})
				cannotTell(t, i, "opaque", 0)
				if n := s.requests.Load(); n != 1 {
					t.Errorf("%s, %d to %q: %d requests", name, code, location, n)
				}
			}
		}
	}
	other.expect(t, 0)
}

// newTestIntrospector returns an introspector with what is missing of its
// settings, and its clock.
func newTestIntrospector(t testing.TB, config Introspection) (*Introspector, *clock) {
	t.Helper()
	if config.Client == nil {
		config.Client = newTestClient(t)
	}
	if config.Issuer == "" {
		config.Issuer = "https://sso.example.com"
	}
	if config.Auth == nil {
		config.Auth = ClientID{}
	}
	if config.MaxInFlight == 0 {
		config.MaxInFlight = 4
	}
	i := NewIntrospector(config)
	t.Cleanup(i.Close)
	clock := new(clock)
	i.now = clock.now
	return i, clock
}

// introspect asks about a token, and returns the answer that there must be.
func introspect(t testing.TB, i *Introspector, token string, maxAge time.Duration) *Answer {
	t.Helper()
	answer, err := i.Introspect(context.Background(), token, maxAge)
	if err != nil {
		t.Fatal(err)
	}
	return answer
}

// cannotTell asks about a token of which there must be no clear answer.
func cannotTell(t testing.TB, i *Introspector, token string, maxAge time.Duration) *UnavailableError {
	t.Helper()
	answer, err := i.Introspect(context.Background(), token, maxAge)
	if answer != nil {
		t.Errorf("got an answer, %s", answer.Claims.Names())
	}
	return unavailable(t, err)
}
