package cli

import (
	"errors"
	"fmt"
	"os"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/caddy-dpop/caddy-dpop/internal/authserver"
)

// tokenTimeout is for each call to the issuer.
const tokenTimeout = 15 * time.Second

// tokenFlags are the flags of token.
type tokenFlags struct {
	issuer, client, secret, auth, keyFile, scope, resource string
}

func tokenCommand() *cobra.Command {
	var flags tokenFlags
	cmd := &cobra.Command{
		Use:   "token --issuer <url> --client-id <id> [--client-secret <secret>] --key <file> [--scope <scope>] [--resource <uri>]",
		Short: "Gets an access token that is bound to a key",
		Long: `
Gets an access token that is bound to the key (RFC 9449), by client credentials
(RFC 6749 section 4.4), and prints it. The token endpoint is found by the issuer's
metadata (RFC 8414, then OpenID Connect), over https, or http within this machine.
An issuer that demands a nonce gets a second request with it. A token that is not
bound to the key is not printed.

The client secret may come from ` + secretVariable + `, and is read from
standard input for -. Without one, the client shows its id alone. The key may
come from ` + keyVariable + `.`,
		Example: `  $ caddy dpop token --issuer https://sso.example.com/realms/main --client-id me --key key.jwk --client-secret - < secret > token
  $ caddy dpop token --issuer http://127.0.0.1:8080 --client-id me --key key.jwk --scope "orders:read orders:write" |
      caddy dpop request --key key.jwk --token - https://api.example.com/orders`,
		DisableFlagsInUseLine: true,
		Args:                  cobra.NoArgs,
		RunE:                  run(func(cmd *cobra.Command, _ []string) error { return printToken(cmd, &flags) }),
	}
	cmd.Flags().StringVarP(&flags.issuer, "issuer", "i", "", "URL of the issuer")
	cmd.Flags().StringVarP(&flags.client, "client-id", "c", "", "Id of the client")
	cmd.Flags().StringVarP(&flags.secret, "client-secret", "s", "", "Secret of the client; - is standard input")
	cmd.Flags().StringVar(&flags.auth, "auth", "client_secret_basic", "How the secret is shown: client_secret_basic or client_secret_post")
	cmd.Flags().StringVarP(&flags.keyFile, "key", "k", "", "File with the private key; - is standard input")
	cmd.Flags().StringVar(&flags.scope, "scope", "", "Scopes to ask for, with spaces between them")
	cmd.Flags().StringVar(&flags.resource, "resource", "", "Resource that the token is for (RFC 8707)")
	_ = cmd.MarkFlagRequired("issuer") // which is there
	_ = cmd.MarkFlagRequired("client-id")
	return cmd
}

func printToken(cmd *cobra.Command, flags *tokenFlags) error {
	in := &input{cmd: cmd}
	key, err := in.key(flags.keyFile)
	if err != nil {
		return err
	}
	auth, err := flags.clientAuth(in)
	if err != nil {
		return err
	}
	if err := authserver.CheckURL(flags.issuer, false); err != nil {
		return fmt.Errorf("--issuer: %w", err)
	}
	client := authserver.NewClient(authserver.Trust{}, tokenTimeout)
	granted, err := client.Token(cmd.Context(), authserver.TokenRequest{
		Issuer: flags.issuer, Auth: auth, Key: key, Scope: flags.scope, Resource: flags.resource,
	})
	if err != nil {
		return err
	}
	warning, err := granted.CheckBinding(key)
	if err != nil {
		return fmt.Errorf("the issuer has given a token that is of no use with this key: %w", err)
	}
	if warning != "" {
		fmt.Fprintln(cmd.ErrOrStderr(), "warning:", warning)
	}
	_, err = fmt.Fprintln(cmd.OutOrStdout(), granted.Token)
	return err
}

// clientAuth returns how the client shows who it is.
func (f *tokenFlags) clientAuth(in *input) (authserver.ClientAuth, error) {
	if f.auth != "client_secret_basic" && f.auth != "client_secret_post" {
		return nil, fmt.Errorf("--auth: unknown way %q: it is client_secret_basic or client_secret_post", f.auth)
	}
	secret := f.secret
	switch secret {
	case "":
		secret = os.Getenv(secretVariable)
	case "-":
		text, err := in.standard("client-secret")
		if err != nil {
			return nil, err
		}
		if secret = strings.TrimRight(string(text), "\r\n"); secret == "" {
			return nil, errors.New("--client-secret: standard input is empty")
		}
	}
	switch {
	case secret == "":
		return authserver.ClientID{ID: f.client}, nil
	case f.auth == "client_secret_post":
		return authserver.SecretPost{ID: f.client, Secret: secret}, nil
	}
	return authserver.SecretBasic{ID: f.client, Secret: secret}, nil
}
