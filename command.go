package caddydpop

import (
	"context"
	"crypto/x509"
	_ "embed"
	"errors"
	"fmt"
	"net/url"
	"os"
	"time"

	"github.com/caddyserver/caddy/v2"
	"github.com/caddyserver/caddy/v2/caddyconfig"
	caddycmd "github.com/caddyserver/caddy/v2/cmd"
	"github.com/spf13/cobra"

	"github.com/caddy-dpop/caddy-dpop/internal/authserver"
	"github.com/caddy-dpop/caddy-dpop/internal/cli"
	"github.com/caddy-dpop/caddy-dpop/internal/demo"
	"github.com/caddy-dpop/caddy-dpop/internal/failure"
	"github.com/caddy-dpop/caddy-dpop/internal/inspect"
	"github.com/caddy-dpop/caddy-dpop/internal/jose"
	"github.com/caddy-dpop/caddy-dpop/internal/proof"
	"github.com/caddy-dpop/caddy-dpop/internal/token"
)

func init() {
	caddycmd.RegisterCommand(caddycmd.Command{
		Name:  "dpop",
		Usage: "keygen|thumbprint|proof|token|request|inspect|demo",
		Short: "Tools for DPoP (RFC 9449)",
		Long: `
Tools for OAuth 2.0 DPoP (RFC 9449): keys, tokens that are bound to them, requests
with proofs, and why one was refused. None of them needs a configuration.`,
		CobraFunc: func(cmd *cobra.Command) {
			cmd.Example = `  $ caddy dpop demo
  $ caddy dpop keygen > key.jwk
  $ caddy dpop token --issuer https://sso.example.com --client-id me --key key.jwk > token
  $ caddy dpop request --key key.jwk --token @token https://api.example.com/orders`
			cmd.DisableFlagsInUseLine = true
			cmd.RunE = func(cmd *cobra.Command, args []string) error {
				if len(args) > 0 {
					return fmt.Errorf("unknown command %q: see caddy dpop --help", args[0])
				}
				return cmd.Help()
			}
			cmd.AddCommand(cli.Commands(commandPlugin())...)
		},
	})
}

// commandPlugin is what commands need of this plugin.
func commandPlugin() cli.Plugin {
	algorithms, err := checker{}.algorithms(nil, defaultProofAlgorithms)
	if err != nil {
		panic(err) // the defaults are known
	}
	return cli.Plugin{
		Gateway: inspect.Gateway{
			Credentials: judgeCredentials,
			ProofField:  func(proofs []string) (string, *failure.Failure) { return (&request{proof: proofs}).proofField() },
			Signature:   judgeSignature,
		},
		Defaults: inspect.Site{
			Algorithms: algorithms,
			Window:     proof.Window{MaxAge: defaultMaxAge, ClockSkew: defaultClockSkew},
			Rules:      token.Rules{Types: defaultTokenTypes},
			Signatures: jose.AllAlgorithms(),
		},
		StartSite: startDemoSite,
		StopSite:  caddy.Stop,
	}
}

// judgeCredentials is step 2 for what was captured of a request.
func judgeCredentials(optional bool, authorization, proofs []string, query string) (failure.Scheme, string, *failure.Failure) {
	h := &Handler{mode: ModeStrict}
	if optional {
		h.mode = ModeOptional
	}
	creds, f := h.credentials(&request{authorization: authorization, proof: proofs, url: &url.URL{RawQuery: query}})
	return creds.scheme, creds.token, f
}

// judgeSignature is the part of step 7 that needs the issuer's keys. Without any,
// it goes as far as finding none.
func judgeSignature(text, issuerName string, algorithms jose.Algorithms, keys authserver.KeyFinder) *failure.Failure {
	if keys == nil {
		none := func(context.Context) (*authserver.KeySet, time.Duration, error) {
			return nil, 0, errors.New("none given")
		}
		keys = authserver.NewKeyCache(none, func() *x509.CertPool { return nil })
	}
	iss := &issuer{rules: &token.Rules{Issuer: issuerName}, algorithms: algorithms, keys: keys, tokens: newTokenCache()}
	h := &Handler{issuers: issuers{iss}}
	creds := credentials{token: text}
	creds.read()
	_, _, f := h.verifyJWT(context.Background(), creds)
	return f
}

//go:embed examples/demo/Caddyfile
var demoCaddyfile []byte

// startDemoSite starts the site that the demo is about.
func startDemoSite(site demo.Site) error {
	for name, value := range map[string]string{
		"DPOP_DEMO_PORT":    site.Port,
		"DPOP_DEMO_ISSUER":  site.Issuer,
		"DPOP_DEMO_BACKEND": site.Backend,
	} {
		if err := os.Setenv(name, value); err != nil {
			return err
		}
	}
	config, _, err := caddyconfig.GetAdapter("caddyfile").Adapt(demoCaddyfile, map[string]any{"filename": "Caddyfile"})
	if err != nil {
		return err
	}
	return caddy.Load(config, true)
}
