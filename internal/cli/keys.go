package cli

import (
	"encoding/json"
	"fmt"
	"os"
	"runtime"
	"strings"

	"github.com/spf13/cobra"

	"github.com/caddy-dpop/caddy-dpop/internal/jose"
)

func keygenCommand() *cobra.Command {
	var name string
	cmd := &cobra.Command{
		Use:   "keygen [--alg <algorithm>]",
		Short: "Makes a private key, and prints it as a JWK",
		Long: `
Makes a private key for DPoP, and writes it to standard output as a JWK on one
line. Its kid is its thumbprint. The other commands read it by --key, this plugin
by private_key, and so does any JOSE library.

Algorithms: ` + strings.Join(jose.AllAlgorithms().Names(), " ") + `.
RSA keys, for those that begin with PS or RS, have 2048 bits.`,
		Example: `  $ (umask 077; caddy dpop keygen > key.jwk)
  $ caddy dpop keygen --alg EdDSA > key.jwk`,
		DisableFlagsInUseLine: true,
		Args:                  cobra.NoArgs,
		RunE:                  run(func(cmd *cobra.Command, _ []string) error { return keygen(cmd, name) }),
	}
	cmd.Flags().StringVarP(&name, "alg", "a", "ES256", "Algorithm that the key signs by")
	return cmd
}

func keygen(cmd *cobra.Command, name string) error {
	algorithm := jose.AllAlgorithms().Find(name)
	if algorithm == nil {
		return fmt.Errorf("unknown algorithm %q: there are %s", name, strings.Join(jose.AllAlgorithms().Names(), " "))
	}
	key, err := jose.Generate(algorithm)
	if err != nil {
		return err
	}
	members, err := key.PrivateJWK()
	if err != nil {
		return err
	}
	text, err := json.Marshal(members)
	if err != nil {
		return err
	}
	if out, ok := cmd.OutOrStdout().(*os.File); ok && othersCanRead(out) {
		fmt.Fprintln(cmd.ErrOrStderr(), "warning: others can read the file that the private key goes to: chmod 600, or umask 077 before")
	}
	_, err = fmt.Fprintf(cmd.OutOrStdout(), "%s\n", text)
	return err
}

// othersCanRead reports whether a file is one on disk that all users may read.
// Windows tells nothing of that by a mode.
func othersCanRead(file *os.File) bool {
	info, err := file.Stat()
	return err == nil && runtime.GOOS != "windows" && info.Mode().IsRegular() && info.Mode().Perm()&0o004 != 0
}

func thumbprintCommand() *cobra.Command {
	var name string
	cmd := &cobra.Command{
		Use:   "thumbprint [--key <file>]",
		Short: "Prints the thumbprint of a key",
		Long: `
Prints the thumbprint of a key (RFC 7638): what stands in cnf.jkt of the tokens
that are bound to it, and as jkt in the log. The key may be private or public, a
JWK, or in PEM, and is read from standard input unless --key names a file.`,
		Example: `  $ caddy dpop thumbprint --key key.jwk
  $ caddy dpop keygen | tee key.jwk | caddy dpop thumbprint`,
		DisableFlagsInUseLine: true,
		Args:                  cobra.NoArgs,
		RunE:                  run(func(cmd *cobra.Command, _ []string) error { return thumbprint(cmd, name) }),
	}
	cmd.Flags().StringVarP(&name, "key", "k", "-", "File with the key; - is standard input")
	return cmd
}

func thumbprint(cmd *cobra.Command, name string) error {
	text, err := (&input{cmd: cmd}).file("key", name)
	if err != nil {
		return err
	}
	key, err := jose.ParsePublicKey(text)
	if err != nil {
		return fmt.Errorf("%s: %w", fileName(name), err)
	}
	_, err = fmt.Fprintln(cmd.OutOrStdout(), key.Thumbprint)
	return err
}
