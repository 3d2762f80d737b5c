// Package cli is the command line, caddy dpop: what a person needs to try DPoP, to
// call an API that demands it, and to see why a request was refused. What
// programs read goes to standard output alone; all else goes to standard error.
package cli

import (
	"errors"
	"fmt"
	"io"
	"os"
	"strings"

	"github.com/spf13/cobra"

	"github.com/caddy-dpop/caddy-dpop/internal/demo"
	"github.com/caddy-dpop/caddy-dpop/internal/inspect"
	"github.com/caddy-dpop/caddy-dpop/internal/jose"
	"github.com/caddy-dpop/caddy-dpop/internal/printable"
)

// Plugin is what commands need of the plugin that they come with.
type Plugin struct {
	Gateway   inspect.Gateway
	Defaults  inspect.Site // what a site has that sets nothing
	StartSite func(demo.Site) error
	StopSite  func() error
}

// Commands returns the commands below caddy dpop.
func Commands(plugin Plugin) []*cobra.Command {
	return []*cobra.Command{
		keygenCommand(),
		thumbprintCommand(),
		proofCommand(),
		tokenCommand(),
		requestCommand(),
		inspectCommand(plugin),
		demoCommand(plugin),
	}
}

// Environment variables that secrets may come from.
const (
	keyVariable    = "CADDY_DPOP_KEY"
	tokenVariable  = "CADDY_DPOP_TOKEN"
	secretVariable = "CADDY_DPOP_CLIENT_SECRET"
)

// errShown ends a command with exit status 1 when all has been said.
var errShown = errors.New("failed")

// run makes what a command does into what cobra runs: errors are fit for a
// terminal, although servers have written parts of some.
func run(do func(cmd *cobra.Command, args []string) error) func(*cobra.Command, []string) error {
	return func(cmd *cobra.Command, args []string) error {
		err := do(cmd, args)
		switch {
		case err == nil:
			return nil
		case errors.Is(err, errShown):
			cmd.SilenceErrors = true
			return err
		}
		lines := strings.Split(err.Error(), "\n")
		for i := range lines {
			lines[i] = printable.Text(lines[i], maxLine)
		}
		return errors.New(strings.Join(lines, "\n"))
	}
}

const maxLine = 1000 // characters of an error

// maxInput bounds keys, tokens and proofs, in bytes.
const maxInput = 1 << 20

// input reads what the flags of a command name. Standard input can be one of them.
type input struct {
	cmd  *cobra.Command
	used string // the flag that standard input is for
}

// file reads FILE, or standard input for -.
func (in *input) file(flag, name string) ([]byte, error) {
	if name == "-" {
		return in.standard(flag)
	}
	text, err := os.ReadFile(name)
	switch {
	case err == nil:
	case strings.ContainsAny(name, "{\n"): // it may be the key itself
		return nil, fmt.Errorf("--%s: not a file that can be read: it takes a file's name, or - for standard input", flag)
	default:
		return nil, fmt.Errorf("--%s: %w", flag, err)
	}
	return text, nil
}

func (in *input) standard(flag string) ([]byte, error) {
	if in.used != "" {
		return nil, fmt.Errorf("--%s and --%s cannot both read standard input", in.used, flag)
	}
	in.used = flag
	text, err := io.ReadAll(in.cmd.InOrStdin())
	if err != nil {
		return nil, fmt.Errorf("--%s: reading standard input: %w", flag, err)
	}
	return text, nil
}

// value returns a value that is given as itself, as @FILE, or by - for standard
// input.
func (in *input) value(flag, text string) (string, error) {
	name, isFile := strings.CutPrefix(text, "@")
	if !isFile && text != "-" {
		return text, nil
	}
	content, err := in.file(flag, name)
	if len(content) > maxInput {
		return "", fmt.Errorf("--%s: more than %d bytes", flag, maxInput)
	}
	return strings.TrimSpace(string(content)), err
}

// key returns the private key that --key names, or that is in the environment.
func (in *input) key(name string) (*jose.PrivateKey, error) {
	text, err := []byte(os.Getenv(keyVariable)), error(nil)
	switch {
	case name != "":
		text, err = in.file("key", name)
	case len(text) == 0:
		return nil, fmt.Errorf("no key: give --key FILE, or the key itself in %s; caddy dpop keygen makes one", keyVariable)
	default:
		name = keyVariable
	}
	if err != nil {
		return nil, err
	}
	key, err := jose.ParsePrivateKey(text)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", fileName(name), err)
	}
	return key, nil
}

// fileName is what a person calls the file that a flag names.
func fileName(name string) string {
	if name == "-" {
		return "standard input"
	}
	return name
}

// token returns the access token that --token gives, or without it the environment,
// which may have none.
func (in *input) token(text string) (string, error) {
	if !in.cmd.Flags().Changed("token") {
		text = os.Getenv(tokenVariable)
	}
	token, err := in.value("token", text)
	if err == nil && text != "" && token == "" {
		return "", errors.New("--token: it is empty")
	}
	if err == nil && strings.ContainsFunc(token, func(r rune) bool { return r <= ' ' || r > '~' }) {
		return "", errors.New("--token: it has a character that no token can have")
	}
	return token, err
}
