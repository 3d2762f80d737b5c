package cli

import (
	"errors"
	"fmt"
	"net/url"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"golang.org/x/net/http/httpguts"

	"github.com/caddy-dpop/caddy-dpop/internal/proof"
	"github.com/caddy-dpop/caddy-dpop/internal/token"
)

func proofCommand() *cobra.Command {
	var keyFile, method, target, token, nonce string
	cmd := &cobra.Command{
		Use:   "proof --key <file> --method <method> --url <url> [--token <token|@file>] [--nonce <nonce>]",
		Short: "Prints a proof for one request",
		Long: `
Prints a DPoP proof (RFC 9449) for one request, for use with other programs: the
value of its DPoP header. A proof for a resource needs the access token that is
sent with it; one for a token endpoint has none. Each proof works once, and for a
minute or so.

The key may come from ` + keyVariable + `, and the token from ` + tokenVariable + `.
A token may be given as itself, as @FILE, or as - for standard input.`,
		Example: `  $ caddy dpop proof --key key.jwk --method GET --url https://api.example.com/orders --token @token
  $ curl -H "Authorization: DPoP $(cat token)" \
      -H "DPoP: $(caddy dpop proof -k key.jwk -m GET -u https://api.example.com/orders -t @token)" \
      https://api.example.com/orders`,
		DisableFlagsInUseLine: true,
		Args:                  cobra.NoArgs,
		RunE: run(func(cmd *cobra.Command, _ []string) error {
			return printProof(cmd, keyFile, proof.Claims{Method: method, URL: target, Token: token, Nonce: nonce})
		}),
	}
	cmd.Flags().StringVarP(&keyFile, "key", "k", "", "File with the private key; - is standard input")
	cmd.Flags().StringVarP(&method, "method", "m", "", "Method of the request")
	cmd.Flags().StringVarP(&target, "url", "u", "", "URL of the request")
	cmd.Flags().StringVarP(&token, "token", "t", "", "Access token that is sent with the request: itself, @FILE or -")
	cmd.Flags().StringVarP(&nonce, "nonce", "n", "", "Nonce that the server has asked for")
	_ = cmd.MarkFlagRequired("method") // which is there
	_ = cmd.MarkFlagRequired("url")
	return cmd
}

// printProof makes a proof of claims as flags give them.
func printProof(cmd *cobra.Command, keyFile string, claims proof.Claims) error {
	if !httpguts.ValidHeaderFieldName(claims.Method) { // both are tokens (RFC 9110 §9.1)
		return errors.New("--method: not a method")
	}
	if !token.IsNQCHARs(claims.Nonce) { // RFC 9449 §8.1
		return errors.New("--nonce: it has a character that no nonce can have")
	}
	in := &input{cmd: cmd}
	key, err := in.key(keyFile)
	if err != nil {
		return err
	}
	if claims.Token, err = in.token(claims.Token); err != nil {
		return err
	}
	target, err := parseURL(claims.URL)
	if err != nil {
		return fmt.Errorf("--url: %w", err)
	}
	claims.URL, claims.IssuedAt = proof.Target(target), time.Now()
	text, err := proof.Sign(key, claims)
	if err != nil {
		return err
	}
	_, err = fmt.Fprintln(cmd.OutOrStdout(), text)
	return err
}

// parseURL reads the URL of a request: as it is sent, with its host in ASCII.
func parseURL(text string) (*url.URL, error) {
	u, err := url.Parse(text)
	if err != nil {
		return nil, errors.New("not a URL")
	}
	u.Scheme = strings.ToLower(u.Scheme)
	if u.Scheme != "https" && u.Scheme != "http" || u.Host == "" {
		return nil, errors.New("not an absolute http or https URL")
	}
	if u.User != nil {
		return nil, errors.New("a user name in a URL is not supported")
	}
	if u.Host, err = httpguts.PunycodeHostPort(u.Host); err != nil {
		return nil, err
	}
	u.RawPath = escapeRest(u.RawPath)
	return u, nil
}

// escapeRest escapes what no URL can hold in a path that has escapes. Otherwise
// net/url would make other escapes of it: of a%2Fb, a/b.
func escapeRest(path string) string {
	var b strings.Builder
	for i := range len(path) {
		if c := path[i]; c <= ' ' || c > '~' || strings.IndexByte("\"<>\\^`{|}", c) >= 0 {
			fmt.Fprintf(&b, "%%%02X", c)
		} else {
			b.WriteByte(c)
		}
	}
	return b.String()
}
