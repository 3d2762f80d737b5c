// Package demo tells the story of DPoP on one machine: a client, a thief, an
// issuer, a protected site and its backend, over real sockets.
package demo

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"time"

	"github.com/caddy-dpop/caddy-dpop/internal/authserver"
	"github.com/caddy-dpop/caddy-dpop/internal/devissuer"
	"github.com/caddy-dpop/caddy-dpop/internal/failure"
	"github.com/caddy-dpop/caddy-dpop/internal/jose"
)

// Audience is the resource that the demo's tokens are for.
const Audience = "https://api.example.com"

// Site is what the protected site must know.
type Site struct {
	Port    string // to listen on, at 127.0.0.1
	Issuer  string // URL of the issuer
	Backend string // host and port
}

// Demo is how the story is told.
type Demo struct {
	Out   io.Writer
	Start func(Site) error // starts the protected site
	// Keep is the program that commands to try by hand are printed for, after which
	// all goes on serving until the context ends. Empty: that is the end.
	Keep string
}

// Run starts an issuer and a backend, has the site started in front of them,
// and sends it requests. It writes what each got, and returns an error if any
// got something else than it should.
func (d *Demo) Run(ctx context.Context) error {
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
	if err := d.Start(Site{Port: port, Issuer: issuer.URL, Backend: backend.address}); err != nil {
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
	fmt.Fprintf(d.Out, "issuer   %s\nbackend  http://%s\nsite     %s\n\n", issuer.URL, backend.address, site)
	if err := tell(ctx, d.Out, scenes(client, thief, site), backend); err != nil || d.Keep == "" {
		return err
	}
	fmt.Fprintf(d.Out, commands, d.Keep, issuer.URL, site, Audience)
	<-ctx.Done()
	return nil
}

// newActor makes a key, and gets a token that is bound to it.
func newActor(ctx context.Context, issuer string, algorithm *jose.Algorithm) (*actor, error) {
	key, err := jose.Generate(algorithm)
	if err != nil {
		return nil, err
	}
	granted, err := authserver.NewClient(authserver.Trust{}, 5*time.Second).Token(ctx,
		authserver.TokenRequest{Issuer: issuer, Auth: authserver.ClientID{ID: "demo-client"}, Key: key})
	if err != nil {
		return nil, err
	}
	return &actor{key, granted.Token}, nil
}

// tell plays the scenes, and prints a table of them.
func tell(ctx context.Context, out io.Writer, scenes []scene, backend *backend) error {
	var failed []error
	row := func(cells ...any) {
		fmt.Fprintln(out, strings.TrimRight(fmt.Sprintf("%-47s  %-6v  %-7s  %s", cells...), " "))
	}
	row("REQUEST", "ANSWER", "BACKEND", "WHAT THE CLIENT IS TOLD")
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
		code, description := told(response)
		row(s.title, response.StatusCode, map[bool]string{true: "reached"}[reached], code)
		if description != "" {
			fmt.Fprintf(out, "    %s\n", description)
		}
	}
	if seen := backend.seen(); len(seen) > 0 {
		fmt.Fprintf(out, "\nWhat the backend saw of the first:\n%s", seen[0])
	}
	return errors.Join(failed...)
}

// told returns the error of the first challenge, and its description.
func told(response *http.Response) (code, description string) {
	challenges := failure.Receive(response.Header.Values("WWW-Authenticate"))
	if len(challenges) == 0 {
		return "", ""
	}
	if code = challenges[0].Get("error"); code == "" {
		return "use " + challenges[0].Scheme, ""
	}
	return code, challenges[0].Get("error_description")
}

// commands are what to try by hand: for a program, an issuer, a site and an audience.
const commands = `
Serving until interrupted. To try by hand, in another terminal:

  A client with a key and a token of its own:
    (umask 077; %[1]s dpop keygen > key.jwk)
    %[1]s dpop token --issuer %[2]s --client-id me --key key.jwk > token
    %[1]s dpop request --key key.jwk --token @token %[3]s/orders

  The token without its key, and as a Bearer token:
    (umask 077; %[1]s dpop keygen > thief.jwk)
    %[1]s dpop request --key thief.jwk --token @token %[3]s/orders
    curl -i -H "Authorization: Bearer $(cat token)" %[3]s/orders

  Why it is refused, check by check:
    %[1]s dpop proof --key thief.jwk --token @token --method GET --url %[3]s/orders > proof
    %[1]s dpop inspect --token @token --proof @proof --method GET --url %[3]s/orders \
      --issuer %[2]s --audience %[4]s
`

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
