// Package demo tells the story of DPoP on one machine: a client, a thief, an
// issuer, a protected site and its backend, over real sockets.
package demo

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"strings"
	"sync"
	"text/tabwriter"
	"time"

	"github.com/caddy-dpop/caddy-dpop/internal/devissuer"
	"github.com/caddy-dpop/caddy-dpop/internal/jose"
	"github.com/caddy-dpop/caddy-dpop/internal/proof"
)

// Audience is the resource that the demo's tokens are for.
const Audience = "https://api.example.com"

// Site is what the protected site must know.
type Site struct {
	Port    string // to listen on, at 127.0.0.1
	Issuer  string // URL of the issuer
	Backend string // host and port
}

// Run starts an issuer and a backend, has the site started in front of them,
// and sends it requests. It writes what each got, and returns an error if any
// got something else than it should.
func Run(ctx context.Context, out io.Writer, startSite func(Site) error) error {
	algorithm := jose.AllAlgorithms().Find("ES256")
	issuer, err := devissuer.Start(algorithm, Audience)
	if err != nil {
		return fmt.Errorf("starting the issuer: %w", err)
	}
	defer issuer.Stop()
	backend, err := startBackend()
	if err != nil {
		return fmt.Errorf("starting the backend: %w", err)
	}
	defer backend.stop()
	port, err := freePort()
	if err != nil {
		return fmt.Errorf("finding a port for the site: %w", err)
	}
	if err := startSite(Site{Port: port, Issuer: issuer.URL, Backend: backend.address}); err != nil {
		return fmt.Errorf("starting the site: %w", err)
	}
	client, err := newActor(ctx, issuer.URL, algorithm)
	if err != nil {
		return fmt.Errorf("getting a token: %w", err)
	}
	thief, err := jose.Generate(algorithm)
	if err != nil {
		return err
	}
	site := "http://127.0.0.1:" + port
	fmt.Fprintf(out, "issuer   %s\nbackend  http://%s\nsite     %s\n\n", issuer.URL, backend.address, site)
	return tell(ctx, out, scenes(client, thief, site), backend)
}

// scene is one request, and what it must get.
type scene struct {
	title string
	want  int
	reach bool // whether it must reach the backend
	send  func(ctx context.Context) (*http.Response, error)
}

// actor is a client with a token that is bound to its key.
type actor struct {
	key   *jose.PrivateKey
	token string
}

func scenes(client *actor, thief *jose.PrivateKey, site string) []scene {
	const path = "/orders"
	now := func(d time.Duration) time.Time { return time.Now().Add(d) }
	// One good request is captured by whoever watches: token and proof.
	var captured *http.Request
	return []scene{
		{"the client's request", http.StatusOK, true, func(ctx context.Context) (*http.Response, error) {
			return patiently(ctx, func() (*http.Request, error) {
				var err error
				captured, err = signed(ctx, client.key, client.token, "GET", site+path, site+path, now(0))
				return captured, err
			})
		}},
		{"the same request again, captured and replayed", http.StatusUnauthorized, false, func(ctx context.Context) (*http.Response, error) {
			return http.DefaultClient.Do(captured.Clone(ctx))
		}},
		{"the token, stolen, with a proof by the thief's key", http.StatusUnauthorized, false, func(ctx context.Context) (*http.Response, error) {
			return send(signed(ctx, thief, client.token, "GET", site+path, site+path, now(0)))
		}},
		{"the token, stolen, as a Bearer token", http.StatusUnauthorized, false, func(ctx context.Context) (*http.Response, error) {
			return bare(ctx, site+path, "Bearer "+client.token)
		}},
		{"the token without a proof", http.StatusUnauthorized, false, func(ctx context.Context) (*http.Response, error) {
			return bare(ctx, site+path, "DPoP "+client.token)
		}},
		{"a proof for another path", http.StatusUnauthorized, false, func(ctx context.Context) (*http.Response, error) {
			return send(signed(ctx, client.key, client.token, "GET", site+"/admin", site+path, now(0)))
		}},
		{"a proof for another method", http.StatusUnauthorized, false, func(ctx context.Context) (*http.Response, error) {
			return send(signed(ctx, client.key, client.token, "DELETE", site+path, site+path, now(0)))
		}},
		{"a proof by a clock that is an hour slow", http.StatusUnauthorized, false, func(ctx context.Context) (*http.Response, error) {
			return send(signed(ctx, client.key, client.token, "GET", site+path, site+path, now(-time.Hour)))
		}},
		{"no credentials", http.StatusUnauthorized, false, func(ctx context.Context) (*http.Response, error) {
			return bare(ctx, site+path, "")
		}},
		{"the client's next request", http.StatusOK, true, func(ctx context.Context) (*http.Response, error) {
			return send(signed(ctx, client.key, client.token, "GET", site+path, site+path, now(0)))
		}},
	}
}

// tell plays the scenes, and prints a table of them.
func tell(ctx context.Context, out io.Writer, scenes []scene, backend *backend) error {
	var failed []error
	table := tabwriter.NewWriter(out, 0, 0, 2, ' ', 0)
	fmt.Fprintln(table, "REQUEST\tANSWER\tREACHED BACKEND\tWHAT THE CLIENT IS TOLD")
	for _, s := range scenes {
		before := len(backend.seen())
		response, err := s.send(ctx)
		if err != nil {
			return fmt.Errorf("%s: %w", s.title, err)
		}
		_ = response.Body.Close()
		reached := len(backend.seen()) > before
		if response.StatusCode != s.want || reached != s.reach {
			failed = append(failed, fmt.Errorf("%s: answered %d, wanted %d; reached the backend %v, wanted %v",
				s.title, response.StatusCode, s.want, reached, s.reach))
		}
		fmt.Fprintf(table, "%s\t%d\t%s\t%s\n", s.title, response.StatusCode, yesNo(reached), told(response))
	}
	if err := table.Flush(); err != nil {
		return err
	}
	if seen := backend.seen(); len(seen) > 0 {
		fmt.Fprintf(out, "\nWhat the backend saw of the first:\n%s", seen[0])
	}
	return errors.Join(failed...)
}

func yesNo(yes bool) string {
	if yes {
		return "yes"
	}
	return "no"
}

// told returns the error and its description from a challenge, for people.
func told(response *http.Response) string {
	challenge := response.Header.Get("WWW-Authenticate")
	if challenge == "" {
		return ""
	}
	code, description := parameter(challenge, "error"), parameter(challenge, "error_description")
	if code == "" {
		return "use DPoP"
	}
	return code + ": " + description
}

func parameter(challenge, name string) string {
	_, rest, _ := strings.Cut(challenge, name+`="`)
	value, _, _ := strings.Cut(rest, `"`)
	return value
}

// newActor makes a key, and gets a token that is bound to it.
func newActor(ctx context.Context, issuer string, algorithm *jose.Algorithm) (*actor, error) {
	key, err := jose.Generate(algorithm)
	if err != nil {
		return nil, err
	}
	endpoint := issuer + "/token"
	dpop, err := proof.Sign(key, proof.Claims{Method: "POST", URL: endpoint, IssuedAt: time.Now()})
	if err != nil {
		return nil, err
	}
	form := url.Values{"grant_type": {"client_credentials"}, "client_id": {"demo-client"}}
	request, err := http.NewRequestWithContext(ctx, "POST", endpoint, strings.NewReader(form.Encode()))
	if err != nil {
		return nil, err
	}
	request.Header.Set("Content-Type", "application/x-www-form-urlencoded")
	request.Header.Set("DPoP", dpop)
	response, err := http.DefaultClient.Do(request)
	if err != nil {
		return nil, err
	}
	defer response.Body.Close()
	var body struct {
		AccessToken string `json:"access_token"`
	}
	if err := json.NewDecoder(response.Body).Decode(&body); err != nil {
		return nil, err
	}
	if body.AccessToken == "" {
		return nil, fmt.Errorf("the issuer answered %s", response.Status)
	}
	return &actor{key, body.AccessToken}, nil
}

// signed makes a request with a proof, which may be for another method and URL.
func signed(ctx context.Context, key *jose.PrivateKey, token, method, proofURL, target string, at time.Time) (*http.Request, error) {
	dpop, err := proof.Sign(key, proof.Claims{Method: method, URL: proofURL, Token: token, IssuedAt: at})
	if err != nil {
		return nil, err
	}
	request, err := http.NewRequestWithContext(ctx, "GET", target, nil)
	if err != nil {
		return nil, err
	}
	request.Header.Set("Authorization", "DPoP "+token)
	request.Header.Set("DPoP", dpop)
	return request, nil
}

func send(request *http.Request, err error) (*http.Response, error) {
	if err != nil {
		return nil, err
	}
	return http.DefaultClient.Do(request)
}

func bare(ctx context.Context, target, authorization string) (*http.Response, error) {
	request, err := http.NewRequestWithContext(ctx, "GET", target, nil)
	if err != nil {
		return nil, err
	}
	if authorization != "" {
		request.Header.Set("Authorization", authorization)
	}
	return http.DefaultClient.Do(request)
}

// patiently sends a request, and a fresh one a second later if the answer is
// 503, as it is for proofs that are no younger than the server.
func patiently(ctx context.Context, request func() (*http.Request, error)) (*http.Response, error) {
	for try := 0; ; try++ {
		response, err := send(request())
		if err != nil || response.StatusCode != http.StatusServiceUnavailable || try == 3 {
			return response, err
		}
		_ = response.Body.Close()
		select {
		case <-time.After(time.Second):
		case <-ctx.Done():
			return nil, ctx.Err()
		}
	}
}

// backend knows nothing of DPoP. It notes what it gets.
type backend struct {
	address string
	server  *http.Server

	mu  sync.Mutex
	got []string
}

func startBackend() (*backend, error) {
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return nil, err
	}
	b := &backend{address: listener.Addr().String()}
	b.server = &http.Server{Handler: b, ReadHeaderTimeout: 5 * time.Second}
	go func() { _ = b.server.Serve(listener) }()
	return b, nil
}

func (b *backend) stop() { _ = b.server.Close() }

// ServeHTTP notes the request line and the headers that DPoP is about.
func (b *backend) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	var note strings.Builder
	fmt.Fprintf(&note, "  %s %s\n", r.Method, r.URL)
	for _, name := range []string{"Authorization", "DPoP", "X-Client"} {
		value := strings.Join(r.Header.Values(name), ", ")
		if len(value) > 40 {
			value = value[:40] + "..."
		}
		if value == "" {
			value = "(none)"
		}
		fmt.Fprintf(&note, "  %s: %s\n", name, value)
	}
	b.mu.Lock()
	b.got = append(b.got, note.String())
	b.mu.Unlock()
	fmt.Fprintln(w, "hello")
}

func (b *backend) seen() []string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.got
}

// freePort returns a port of 127.0.0.1 that nothing listens on.
func freePort() (string, error) {
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return "", err
	}
	defer listener.Close()
	_, port, err := net.SplitHostPort(listener.Addr().String())
	return port, err
}
