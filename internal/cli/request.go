package cli

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/textproto"
	"net/url"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"golang.org/x/net/http/httpguts"

	"github.com/caddy-dpop/caddy-dpop/internal/failure"
	"github.com/caddy-dpop/caddy-dpop/internal/jose"
	"github.com/caddy-dpop/caddy-dpop/internal/printable"
	"github.com/caddy-dpop/caddy-dpop/internal/proof"
)

// requestFlags are the flags of request.
type requestFlags struct {
	method, data, keyFile, token string
	headers                      []string
	include                      bool
}

func requestCommand() *cobra.Command {
	var flags requestFlags
	cmd := &cobra.Command{
		Use:   "request --key <file> --token <token|@file> [--method <method>] [--data <data|@file>] [--header <header>] [--include] <url>",
		Short: "Sends a request with a token and a proof",
		Long: `
Sends a request with an access token and a fresh DPoP proof (RFC 9449), and once
more if the server asks for a nonce. The body of the answer goes to standard
output, its status to standard error, as does what a challenge means. Redirects are
not followed: a proof is for one URL.

The exit status is 1 if the status of the answer is 400 or more. The key may come
from ` + keyVariable + `, and the token from ` + tokenVariable + `. Token and
data may be given as themselves, as @FILE, or as - for standard input. Roots of
one's own are taken from the file that SSL_CERT_FILE names.`,
		Example: `  $ caddy dpop request --key key.jwk --token @token https://api.example.com/orders
  $ caddy dpop request -k key.jwk -t @token -d '{"item": 1}' -H 'Content-Type: application/json' https://api.example.com/orders`,
		DisableFlagsInUseLine: true,
		Args:                  cobra.ExactArgs(1),
		RunE:                  run(func(cmd *cobra.Command, args []string) error { return sendRequest(cmd, &flags, args[0]) }),
	}
	cmd.Flags().StringVarP(&flags.method, "method", "m", "", "Method of the request (default GET, with data POST)")
	cmd.Flags().StringVarP(&flags.data, "data", "d", "", "Body of the request: itself, @FILE or -")
	cmd.Flags().StringArrayVarP(&flags.headers, "header", "H", nil, `Header of the request, "Name: value"; repeatable`)
	cmd.Flags().StringVarP(&flags.keyFile, "key", "k", "", "File with the private key; - is standard input")
	cmd.Flags().StringVarP(&flags.token, "token", "t", "", "Access token: itself, @FILE or -")
	cmd.Flags().BoolVarP(&flags.include, "include", "i", false, "Print the status and the headers of the answer before its body")
	return cmd
}

// signedRequest is a request that can be sent more than once, each time with a new proof.
type signedRequest struct {
	method string
	url    *url.URL
	host   string // empty: of the URL
	header http.Header
	body   []byte // nil: none
	key    *jose.PrivateKey
	token  string
}

func sendRequest(cmd *cobra.Command, flags *requestFlags, target string) error {
	r, err := flags.request(&input{cmd: cmd}, target)
	if err != nil {
		return err
	}
	response, err := r.send(cmd.Context(), "")
	if err != nil {
		return err
	}
	if nonce := response.Header.Get("DPoP-Nonce"); nonce != "" && wantsNonce(response) {
		_ = response.Body.Close()
		fmt.Fprintln(cmd.ErrOrStderr(), "the server asks for a nonce: sending the request again with it")
		if response, err = r.send(cmd.Context(), nonce); err != nil {
			return err
		}
	}
	defer response.Body.Close()
	tell(cmd.ErrOrStderr(), response)
	if flags.include {
		writeHead(cmd.OutOrStdout(), response)
	}
	if _, err := io.Copy(cmd.OutOrStdout(), response.Body); err != nil {
		return fmt.Errorf("the body of the answer: %w", err)
	}
	if response.StatusCode >= 400 {
		return errShown
	}
	return nil
}

// request makes of the flags what is to be sent.
func (f *requestFlags) request(in *input, target string) (*signedRequest, error) {
	r := &signedRequest{method: f.method, header: make(http.Header)}
	var err error
	if r.url, err = parseURL(target); err != nil {
		if strings.Contains(target, "@") { // it may hold a password
			target = "URL"
		}
		return nil, fmt.Errorf("%s: %w", target, err)
	}
	if r.key, err = in.key(f.keyFile); err != nil {
		return nil, err
	}
	if r.token, err = in.token(f.token); err != nil {
		return nil, err
	}
	if r.token == "" {
		return nil, fmt.Errorf("no token: give --token, or the token in %s; caddy dpop token gets one", tokenVariable)
	}
	for _, line := range f.headers {
		if err := r.addHeader(line); err != nil {
			return nil, err
		}
	}
	if in.cmd.Flags().Changed("data") {
		if err := r.setBody(in, f.data); err != nil {
			return nil, err
		}
	}
	if r.method == "" {
		r.method = http.MethodGet
	}
	return r, nil
}

// addHeader takes a header line. Host is no header to Go, and is what the proof's
// URL has for its host.
func (r *signedRequest) addHeader(line string) error {
	name, value, ok := strings.Cut(line, ":")
	value = textproto.TrimString(value)
	if !ok || !httpguts.ValidHeaderFieldName(name) || !httpguts.ValidHeaderFieldValue(value) {
		return fmt.Errorf("--header %q: not a name, a colon and a value", line)
	}
	switch name = http.CanonicalHeaderKey(name); name {
	case "Authorization", "Dpop":
		return fmt.Errorf("--header: %s is what this command makes", name)
	case "Host":
		r.host = value
	default:
		r.header.Add(name, value)
	}
	return nil
}

// setBody takes the data, and as curl does says that it is a form unless a header
// says something else.
func (r *signedRequest) setBody(in *input, data string) error {
	r.body = []byte(data)
	if name, isFile := strings.CutPrefix(data, "@"); isFile || data == "-" {
		var err error
		if r.body, err = in.file("data", name); err != nil {
			return err
		}
	}
	if r.method == "" {
		r.method = http.MethodPost
	}
	if r.header.Get("Content-Type") == "" {
		r.header.Set("Content-Type", "application/x-www-form-urlencoded")
	}
	return nil
}

// client follows no redirect.
var client = &http.Client{CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }}

// send sends the request with a new proof.
func (r *signedRequest) send(ctx context.Context, nonce string) (*http.Response, error) {
	target := *r.url
	if r.host != "" {
		target.Host = r.host
	}
	dpop, err := proof.Sign(r.key, proof.Claims{
		Method: r.method, URL: proof.Target(&target), Token: r.token, Nonce: nonce, IssuedAt: time.Now(),
	})
	if err != nil {
		return nil, err
	}
	request, err := http.NewRequestWithContext(ctx, r.method, r.url.String(), bytes.NewReader(r.body))
	if err != nil {
		return nil, err
	}
	request.Host = r.host
	request.Header = r.header.Clone()
	request.Header.Set("Authorization", string(failure.DPoP)+" "+r.token)
	request.Header.Set("DPoP", dpop)
	response, err := client.Do(request)
	var failed *url.Error
	if errors.As(err, &failed) {
		err = fmt.Errorf("%s: %w", r.url.Redacted(), failed.Err)
	}
	return response, err
}

func wantsNonce(response *http.Response) bool {
	return response.StatusCode == http.StatusUnauthorized &&
		slices.ContainsFunc(failure.Receive(response.Header.Values("WWW-Authenticate")), failure.Received.WantsNonce)
}

const maxHeader = 1000 // characters of a header that are shown

// tell says what the answer is, and what its challenges mean.
func tell(out io.Writer, response *http.Response) {
	fmt.Fprintln(out, statusLine(response))
	if response.StatusCode >= 300 && response.StatusCode < 400 {
		if location, err := response.Location(); err == nil {
			fmt.Fprintf(out, "it redirects to %s, which is not followed: the proof is for one URL alone\n", printable.Text(location.String(), maxHeader))
		}
	}
	for _, challenge := range response.Header.Values("WWW-Authenticate") {
		fmt.Fprintf(out, "WWW-Authenticate: %s\n", printable.Text(challenge, maxHeader))
	}
	for _, challenge := range failure.Receive(response.Header.Values("WWW-Authenticate")) {
		fmt.Fprintf(out, "  %s: %s\n", printable.Text(challenge.Scheme, maxHeader), challenge.Meaning())
	}
	if after := response.Header.Get("Retry-After"); after != "" {
		fmt.Fprintf(out, "Retry-After: %s\n", printable.Text(after, maxHeader))
	}
}

func statusLine(response *http.Response) string {
	return fmt.Sprintf("%s %s", response.Proto, printable.Text(response.Status, maxHeader))
}

// writeHead writes the status and the headers as they would stand on the wire.
func writeHead(out io.Writer, response *http.Response) {
	fmt.Fprintf(out, "%s\n", statusLine(response))
	names := make([]string, 0, len(response.Header))
	for name := range response.Header {
		names = append(names, name)
	}
	slices.Sort(names)
	for _, name := range names {
		for _, value := range response.Header[name] {
			fmt.Fprintf(out, "%s: %s\n", printable.Text(name, maxHeader), printable.Text(value, maxHeader))
		}
	}
	fmt.Fprintln(out)
}
