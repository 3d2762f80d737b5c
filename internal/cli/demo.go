package cli

import (
	"os"
	"os/signal"
	"syscall"

	"github.com/spf13/cobra"

	"github.com/caddy-dpop/caddy-dpop/internal/demo"
)

func demoCommand(plugin Plugin) *cobra.Command {
	var keep bool
	cmd := &cobra.Command{
		Use:   "demo [--keep]",
		Short: "Shows what DPoP does, on this machine",
		Long: `
Starts a development issuer, a backend and a site that is protected by DPoP,
all on the loopback interface, then sends the site good and bad requests and
shows what each got. Exits with 1 if any got something else than it should.

With --keep, all goes on serving until interrupted, and commands are printed that
can be tried by hand.`,
		Example: `  $ caddy dpop demo
  $ caddy dpop demo --keep`,
		DisableFlagsInUseLine: true,
		Args:                  cobra.NoArgs,
		RunE: run(func(cmd *cobra.Command, _ []string) error {
			ctx, stop := signal.NotifyContext(cmd.Context(), os.Interrupt, syscall.SIGTERM)
			defer stop()
			defer func() { _ = plugin.StopSite() }()
			d := demo.Demo{Out: cmd.OutOrStdout(), Start: plugin.StartSite}
			if keep {
				d.Keep = os.Args[0] // as it was called, so that it can be called again
			}
			return d.Run(ctx)
		}),
	}
	cmd.Flags().BoolVar(&keep, "keep", false, "Go on serving until interrupted")
	return cmd
}
