package caddydpop

import (
	_ "embed"
	"os"

	"github.com/caddyserver/caddy/v2"
	"github.com/caddyserver/caddy/v2/caddyconfig"
	caddycmd "github.com/caddyserver/caddy/v2/cmd"
	"github.com/spf13/cobra"

	"github.com/caddy-dpop/caddy-dpop/internal/demo"
)

func init() {
	caddycmd.RegisterCommand(caddycmd.Command{
		Name:  "dpop",
		Usage: "demo",
		Short: "Tools for DPoP (RFC 9449)",
		CobraFunc: func(cmd *cobra.Command) {
			cmd.AddCommand(&cobra.Command{
				Use:   "demo",
				Short: "Shows what DPoP does, on this machine",
				Long: `
Starts a development issuer, a backend and a site that is protected by DPoP,
all on the loopback interface, then sends the site good and bad requests and
shows what each got. Exits with 1 if any got something else than it should.`,
				Args: cobra.NoArgs,
				RunE: runDemo,
			})
		},
	})
}

//go:embed examples/demo/Caddyfile
var demoCaddyfile []byte

func runDemo(cmd *cobra.Command, _ []string) error {
	cmd.SilenceUsage = true
	defer func() { _ = caddy.Stop() }()
	return demo.Run(cmd.Context(), cmd.OutOrStdout(), func(site demo.Site) error {
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
	})
}
