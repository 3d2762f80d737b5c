package cli

import (
	"context"
	"crypto/x509"
	"errors"
	"fmt"
	"math"
	"os"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"github.com/caddy-dpop/caddy-dpop/internal/authserver"
	"github.com/caddy-dpop/caddy-dpop/internal/inspect"
	"github.com/caddy-dpop/caddy-dpop/internal/jose"
	"github.com/caddy-dpop/caddy-dpop/internal/token"
)

// inspectFlags are the flags of inspect.
type inspectFlags struct {
	token, proof, method, url, at string

	mode, nonces, issuer, keys string
	algorithms, audiences      []string
	maxAge, clockSkew          time.Duration

	signatures, types []string
	profile           string

	scopes, claims, acr []string
	maxAuthAge          time.Duration
}

func inspectCommand(plugin Plugin) *cobra.Command {
	var flags inspectFlags
	cmd := &cobra.Command{
		Use:   "inspect [--token <token>] [--proof <proof>] [--method <method>] [--url <url>] [--at <time>]",
		Short: "Explains what is wrong with a captured token and proof",
		Long: `
Shows what is in an access token and a DPoP proof that were captured of a request,
and every check that the plugin would make of them and that needs no server: what
was expected and found, and where a check fails, what to do, with the reason code
that the log has. The exit status is 1 if a check fails.

Token and proof may be given as themselves, as @FILE, or as - for standard input.
They may be lines of headers, or a whole head as curl -v prints it. The token may
come from ` + tokenVariable + `.

What is not told is not checked: give the method and the URL of the request as the
client knows it, and unless the request is of now, its time. The flags from --mode
on are the settings of the site. The signature of the token can be checked with the
keys of its issuer, a JWK Set, by --jwks.`,
		Example: `  $ caddy dpop inspect --token @token --proof @proof --method GET --url https://api.example.com/orders
  $ curl -v ... 2> head; caddy dpop inspect --token @head --proof @head --at 2026-01-31T12:00:00Z`,
		DisableFlagsInUseLine: true,
		Args:                  cobra.NoArgs,
		RunE:                  run(func(cmd *cobra.Command, _ []string) error { return runInspect(cmd, plugin, &flags) }),
	}
	cmd.Flags().SortFlags = false
	cmd.Flags().StringVarP(&flags.token, "token", "t", "", "Access token or Authorization header: itself, @FILE or -")
	cmd.Flags().StringVarP(&flags.proof, "proof", "p", "", "Proof or DPoP header: itself, @FILE or -")
	cmd.Flags().StringVarP(&flags.method, "method", "m", "", "Method of the request")
	cmd.Flags().StringVarP(&flags.url, "url", "u", "", "URL of the request")
	cmd.Flags().StringVar(&flags.at, "at", "", "Time of the request: RFC 3339, or seconds since 1970 (default now)")
	defaults := plugin.Defaults
	cmd.Flags().StringVar(&flags.mode, "mode", "strict", "Mode of the site: strict or optional")
	cmd.Flags().StringVar(&flags.issuer, "issuer", "", "Issuer that the site trusts")
	cmd.Flags().StringSliceVar(&flags.audiences, "audience", nil, "Audiences that the site accepts")
	cmd.Flags().StringVar(&flags.keys, "jwks", "", "File with the keys of the issuer; - is standard input")
	cmd.Flags().StringSliceVar(&flags.algorithms, "algorithms", defaults.Algorithms.Names(), "Algorithms of proofs that the site accepts")
	cmd.Flags().DurationVar(&flags.maxAge, "max-age", defaults.Window.MaxAge, "How old a proof may be")
	cmd.Flags().DurationVar(&flags.clockSkew, "clock-skew", defaults.Window.ClockSkew, "How far clocks may differ")
	cmd.Flags().StringVar(&flags.nonces, "nonces", string(inspect.NoncesOff), "When the site asks for nonces: off, on_skew or required")
	cmd.Flags().StringSliceVar(&flags.signatures, "token-algorithms", defaults.Signatures.Names(), "Algorithms of tokens that the site accepts of the issuer")
	cmd.Flags().StringSliceVar(&flags.types, "token-types", defaults.Rules.Types, "Types of tokens (typ) that the site accepts; - is none at all")
	cmd.Flags().StringVar(&flags.profile, "profile", "", "Profile that the site demands of tokens: rfc9068")
	cmd.Flags().StringSliceVar(&flags.scopes, "require-scope", nil, "Scopes that the site requires, all of them")
	cmd.Flags().StringArrayVar(&flags.claims, "require-claim", nil, "Claim that the site requires: path=value, or path=value,value; repeatable")
	cmd.Flags().StringSliceVar(&flags.acr, "require-acr", nil, "Authentication classes of which the site requires one")
	cmd.Flags().DurationVar(&flags.maxAuthAge, "max-auth-age", 0, "How long ago the user may have authenticated (default any time)")
	return cmd
}

func runInspect(cmd *cobra.Command, plugin Plugin, flags *inspectFlags) error {
	if err := flags.check(cmd.Flags()); err != nil {
		return err
	}
	in := &input{cmd: cmd}
	captured, err := flags.capture(in)
	if err != nil {
		return err
	}
	site, err := flags.site(in, plugin.Defaults)
	if err != nil {
		return err
	}
	at, err := parseTime(flags.at)
	if err != nil {
		return fmt.Errorf("--at: %w", err)
	}
	report := inspect.Run(plugin.Gateway, site, captured, at)
	if err := report.Write(cmd.OutOrStdout()); err != nil {
		return err
	}
	if report.First() != nil {
		return errShown
	}
	return nil
}

// check refuses what no site can have, and a flag that is given but empty, such as of
// a variable that is not set: it would look at less than was meant.
func (f *inspectFlags) check(flags *pflag.FlagSet) (err error) {
	flags.Visit(func(flag *pflag.Flag) {
		if text := flag.Value.String(); (text == "" || text == "[]") && flag.Name != "token" && flag.Name != "proof" {
			err = fmt.Errorf("--%s: it is empty", flag.Name)
		}
	})
	switch {
	case err != nil:
		return err
	case f.maxAge < time.Second:
		return fmt.Errorf("--max-age: %v is less than a second", f.maxAge)
	case f.clockSkew < 0:
		return fmt.Errorf("--clock-skew: %v is negative", f.clockSkew)
	case f.maxAuthAge != 0 && f.maxAuthAge < time.Second:
		return fmt.Errorf("--max-auth-age: %v is less than a second", f.maxAuthAge)
	}
	return nil
}

// capture reads what was captured. The same file may have both fields.
func (f *inspectFlags) capture(in *input) (*inspect.Capture, error) {
	captured := &inspect.Capture{Method: f.method}
	token := f.token
	if !in.cmd.Flags().Changed("token") {
		token = os.Getenv(tokenVariable)
	}
	if token != "" || in.cmd.Flags().Changed("token") {
		text, err := in.value("token", token)
		if err != nil {
			return nil, err
		}
		captured.Authorization = inspect.ParseAuthorization(text)
	}
	if in.cmd.Flags().Changed("proof") {
		text, err := in.value("proof", f.proof)
		if err != nil {
			return nil, err
		}
		captured.Proof = inspect.ParseProof(text)
	}
	if captured.Authorization == nil && captured.Proof == nil {
		return nil, errors.New("nothing to inspect: give --token, --proof, or both")
	}
	if f.url != "" {
		var err error
		if captured.Target, err = inspect.ParseTarget(f.url); err != nil {
			return nil, fmt.Errorf("--url: %w", err)
		}
	}
	return captured, nil
}

// site makes settings of the flags.
func (f *inspectFlags) site(in *input, defaults inspect.Site) (*inspect.Site, error) {
	site := defaults
	switch f.mode {
	case "strict":
	case "optional":
		site.Optional = true
	default:
		return nil, fmt.Errorf("--mode: unknown mode %q: it is strict or optional", f.mode)
	}
	site.Nonces = inspect.Nonces(f.nonces)
	if !slices.Contains([]inspect.Nonces{inspect.NoncesOff, inspect.NoncesOnSkew, inspect.NoncesRequired}, site.Nonces) {
		return nil, fmt.Errorf("--nonces: unknown mode %q: it is off, on_skew or required", f.nonces)
	}
	var err error
	if site.Algorithms, err = algorithmsOf("algorithms", f.algorithms); err != nil {
		return nil, err
	}
	if site.Signatures, err = algorithmsOf("token-algorithms", f.signatures); err != nil {
		return nil, err
	}
	switch f.profile {
	case "":
	case "rfc9068":
		if in.cmd.Flags().Changed("token-types") {
			return nil, errors.New("--token-types contradicts --profile rfc9068, which accepts at+jwt alone")
		}
		site.Rules.RFC9068 = true
	default:
		return nil, fmt.Errorf("--profile: unknown profile %q: there is rfc9068", f.profile)
	}
	site.Rules.Types = nil
	for _, typ := range f.types {
		site.Rules.Types = append(site.Rules.Types, jose.TrimMediaType(typ))
	}
	if site.Demands, err = f.demands(); err != nil {
		return nil, err
	}
	site.Window.MaxAge, site.Window.ClockSkew = f.maxAge, f.clockSkew
	site.Rules.Issuer, site.Rules.Audiences, site.Rules.ClockSkew = f.issuer, f.audiences, f.clockSkew
	site.Rules.AnyAudience = slices.Contains(f.audiences, "*")
	if f.keys != "" {
		text, err := in.file("jwks", f.keys)
		if err != nil {
			return nil, err
		}
		if site.Keys, err = keysOf(text); err != nil {
			return nil, fmt.Errorf("--jwks: %w", err)
		}
	}
	return &site, nil
}

// algorithmsOf returns the algorithms that a flag names.
func algorithmsOf(flag string, names []string) (jose.Algorithms, error) {
	all := jose.AllAlgorithms()
	var some jose.Algorithms
	for _, name := range names {
		algorithm := all.Find(name)
		if algorithm == nil {
			return nil, fmt.Errorf("--%s: unknown algorithm %q: there are %s", flag, name, strings.Join(all.Names(), " "))
		}
		some = append(some, algorithm)
	}
	return some, nil
}

// demands makes what the site requires of good tokens.
func (f *inspectFlags) demands() (token.Demands, error) {
	demands := token.Demands{Scopes: f.scopes, ACR: f.acr, MaxAuthAge: f.maxAuthAge, ClockSkew: f.clockSkew}
	for _, text := range f.claims {
		path, values, _ := strings.Cut(text, "=")
		if path == "" || values == "" {
			return demands, fmt.Errorf("--require-claim: %q is not path=value", text)
		}
		demands.Claims = append(demands.Claims, token.ClaimDemand{Path: path, Values: strings.Split(values, ",")})
	}
	return demands, nil
}

// keysOf reads a JWK Set.
func keysOf(text []byte) (authserver.KeyFinder, error) {
	set, err := authserver.ParseKeySet(text)
	if err != nil {
		return nil, err
	}
	if set.Len() == 0 {
		return nil, errors.New("no key in it can verify tokens")
	}
	source := func(context.Context) (*authserver.KeySet, time.Duration, error) { return set, time.Hour, nil }
	return authserver.NewKeyCache(source, func() *x509.CertPool { return nil }), nil
}

// parseTime reads a time; nothing is now.
func parseTime(text string) (time.Time, error) {
	if text == "" {
		return time.Now(), nil
	}
	if at, err := time.Parse(time.RFC3339, text); err == nil {
		return at, nil
	}
	const last = 253402300799 // in the year 9999
	seconds, err := strconv.ParseFloat(text, 64)
	if err != nil || !(seconds >= 0 && seconds <= last) {
		return time.Time{}, errors.New("neither a time as RFC 3339 has it, such as 2026-01-31T12:00:00Z, nor seconds since 1970")
	}
	whole, fraction := math.Modf(seconds)
	return time.Unix(int64(whole), int64(fraction*1e9)), nil
}
