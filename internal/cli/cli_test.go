package cli

import (
	"bytes"
	"encoding/json"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/spf13/cobra"

	"github.com/caddy-dpop/caddy-dpop/internal/authserver"
	"github.com/caddy-dpop/caddy-dpop/internal/failure"
	"github.com/caddy-dpop/caddy-dpop/internal/inspect"
	"github.com/caddy-dpop/caddy-dpop/internal/jose"
	"github.com/caddy-dpop/caddy-dpop/internal/proof"
	"github.com/caddy-dpop/caddy-dpop/internal/token"
)

// plugin judges less than the real one, which has tests of its own.
var plugin = Plugin{
	Gateway: inspect.Gateway{
		Credentials: func(_ bool, authorization, _ []string, _ string) (failure.Scheme, string, *failure.Failure) {
			return failure.DPoP, strings.TrimPrefix(strings.Join(authorization, ""), "DPoP "), nil
		},
		ProofField: func(proofs []string) (string, *failure.Failure) { return strings.Join(proofs, ""), nil },
		Signature:  func(string, string, jose.Algorithms, authserver.KeyFinder) *failure.Failure { return nil },
	},
	Defaults: inspect.Site{
		Algorithms: jose.AllAlgorithms(),
		Window:     proof.Window{MaxAge: time.Minute, ClockSkew: 10 * time.Second},
		Rules:      token.Rules{Types: []string{"at+jwt"}},
		Signatures: jose.AllAlgorithms(),
	},
}

// result is what a command has written, and how it ended.
type result struct {
	out, err string
	failed   error
}

// execute runs a command with arguments, and a text for standard input.
func execute(stdin string, args ...string) result {
	var out, errs bytes.Buffer
	root := &cobra.Command{Use: "dpop", SilenceUsage: true} // as Caddy's
	root.AddCommand(Commands(plugin)...)
	root.SetArgs(args)
	root.SetIn(strings.NewReader(stdin))
	root.SetOut(&out)
	root.SetErr(&errs)
	failed := root.Execute()
	return result{out.String(), errs.String(), failed}
}

// want fails unless the command has ended well, with nothing on standard error.
func (r result) want(t *testing.T) string {
	t.Helper()
	if r.failed != nil || r.err != "" {
		t.Fatalf("failed: %v; standard error: %s", r.failed, r.err)
	}
	return r.out
}

// refused fails unless the command has ended with an error that says so, and has
// put out nothing.
func (r result) refused(t *testing.T, text string) {
	t.Helper()
	if r.failed == nil || !strings.Contains(r.err, text) || r.out != "" {
		t.Errorf("ended with %v; standard error: %q, want %q; output: %q", r.failed, r.err, text, r.out)
	}
}

// file writes a file, and returns its name.
func file(t *testing.T, text string) string {
	t.Helper()
	name := filepath.Join(t.TempDir(), "file")
	if err := os.WriteFile(name, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	return name
}

func newKey(t *testing.T) (file_ string, key *jose.PrivateKey) {
	t.Helper()
	text := execute("", "keygen").want(t)
	key, err := jose.ParsePrivateKey([]byte(text))
	if err != nil {
		t.Fatal(err)
	}
	return file(t, text), key
}

// verified returns a proof that was printed, and its claims.
func verified(t *testing.T, text string) (*proof.Proof, map[string]any) {
	t.Helper()
	text = strings.TrimSuffix(text, "\n")
	p, f := proof.Verify(text, jose.AllAlgorithms())
	if f != nil {
		t.Fatalf("%v: %s", f, text)
	}
	parsed, _ := proof.Parse(text)
	claims := make(map[string]any)
	for _, name := range parsed.Claims().Names() {
		value, _ := parsed.Claims().Get(name)
		claims[name] = value.Plain()
	}
	return p, claims
}

// Keys of all algorithms are made, read, and sign.
func TestKeygen(t *testing.T) {
	for _, algorithm := range jose.AllAlgorithms() {
		t.Run(algorithm.Name, func(t *testing.T) {
			text := execute("", "keygen", "--alg", algorithm.Name).want(t)
			if strings.Count(text, "\n") != 1 {
				t.Errorf("not one line: %s", text)
			}
			var members map[string]any
			if err := json.Unmarshal([]byte(text), &members); err != nil {
				t.Fatal(err)
			}
			thumbprint := strings.TrimSuffix(execute(text, "thumbprint").want(t), "\n")
			if members["alg"] != algorithm.Name || members["kid"] != thumbprint || members["use"] != "sig" || members["d"] == nil {
				t.Errorf("thumbprint %s of %s", thumbprint, text)
			}
			p, _ := verified(t, execute(text, "proof", "--key", "-", "--method", "GET", "--url", "https://a/").want(t))
			if p.Thumbprint != thumbprint || p.Algorithm != algorithm.Name {
				t.Errorf("a proof by %s with %s", p.Algorithm, p.Thumbprint)
			}
		})
	}
	execute("", "keygen", "--alg", "HS256").refused(t, `unknown algorithm "HS256": there are ES256`)
	execute("", "keygen", "key.jwk").refused(t, "unknown command")
	if first := execute("", "keygen").want(t); first == execute("", "keygen").want(t) {
		t.Error("twice the same key")
	}
}

// A private key is shown by keygen alone.
func TestKeysStaySecret(t *testing.T) {
	name, _ := newKey(t)
	text, err := os.ReadFile(name)
	if err != nil {
		t.Fatal(err)
	}
	var members struct{ D string }
	if err := json.Unmarshal(text, &members); err != nil || members.D == "" {
		t.Fatal(err)
	}
	cut := file(t, strings.Replace(string(text), `"kty":"EC"`, `"kty":"RSA"`, 1))
	for _, args := range [][]string{
		{"thumbprint", "--key", name},
		{"thumbprint", "--key", cut},
		{"proof", "--key", name, "--method", "GET", "--url", "https://a/"},
		{"proof", "--key", cut, "--method", "GET", "--url", "https://a/"},
		{"token", "--key", name, "--issuer", "http://127.0.0.1:1", "--client-id", "c"},
		{"request", "--key", name, "--token", "t", "http://127.0.0.1:1"},
		{"inspect", "--token", "@" + name},
		{"inspect", "--proof", "@" + name},
	} {
		r := execute("", args...)
		if strings.Contains(r.out+r.err, members.D) {
			t.Errorf("%s shows the key: %s %s", args[0], r.out, r.err)
		}
	}
}

func TestThumbprint(t *testing.T) {
	// RFC 7638 §3.1
	const example = `{"kty":"RSA","n":"0vx7agoebGcQSuuPiLJXZptN9nndrQmbXEps2aiAFbWhM78LhWx4cbbfAAtVT86zwu1RK7aPFFxuhDR1L6tSoc_BJECPebWKRXjBZCiFV4n3oknjhMstn64tZ_2W-5JsGY4Hc5n9yBXArwl93lqt7_RN5w6Cf0h4QyQ5v-65YGjQR0_FDW2QvzqY368QQMicAtaSqzs8KJZgnYb9c7d0zgdAZHzu6qMQvRL5hajrn1n91CbOpbISD08qNLyrdkt-bFTWhAI4vMQFh6WeZu0fM4lFd2NcRwr3XPksINHaQ-G_xBniIqbw0Ls1jF44-csFCur-kEgU8awapJzKnqDKgw","e":"AQAB","alg":"RS256","kid":"2011-04-29"}`
	if got := execute("", "thumbprint", "--key", file(t, example)).want(t); got != "NzbLsXh8uDCcd-6MNwXF4W_7noWXFZAfHkxZsRGC9Xs\n" {
		t.Error(got)
	}
	execute("", "thumbprint").refused(t, "standard input: neither a JWK nor a key in PEM")
	execute("", "thumbprint", "--key", "nowhere").refused(t, "--key: open nowhere")
}

// Keys, tokens and secrets have several ways in; standard input is one of them, once.
func TestInputs(t *testing.T) {
	name, key := newKey(t)
	text, err := os.ReadFile(name)
	if err != nil {
		t.Fatal(err)
	}
	proofArgs := func(more ...string) []string {
		return append([]string{"proof", "--method", "GET", "--url", "https://a/"}, more...)
	}
	ath := proof.TokenHash("tok")
	check := func(r result, wantATH any) {
		t.Helper()
		p, claims := verified(t, r.want(t))
		if p.Thumbprint != key.Thumbprint || claims["ath"] != wantATH {
			t.Errorf("by %s, ath %v, want %v", p.Thumbprint, claims["ath"], wantATH)
		}
	}
	check(execute("", proofArgs("--key", name)...), nil)
	check(execute(string(text), proofArgs("--key", "-")...), nil)
	check(execute("", proofArgs("--key", name, "--token", "tok")...), ath)
	check(execute("", proofArgs("--key", name, "--token", "@"+file(t, "tok\n"))...), ath)
	check(execute("tok\n", proofArgs("--key", name, "--token", "-")...), ath)
	execute(string(text), proofArgs("--key", "-", "--token", "-")...).refused(t, "--key and --token cannot both read standard input")
	execute("", proofArgs("--key", name, "--token", "a b")...).refused(t, "a character that no token can have")
	execute("", proofArgs("--key", name, "--token", "@nowhere")...).refused(t, "--token: open nowhere")
	execute("", proofArgs()...).refused(t, "no key: give --key FILE, or the key itself in CADDY_DPOP_KEY")
	execute("", proofArgs("--key", file(t, "{}"))...).refused(t, "neither a JWK nor a key in PEM")
	execute(strings.Repeat("x", maxInput+1), proofArgs("--key", name, "--token", "-")...).refused(t, "more than 1048576 bytes")

	t.Setenv(keyVariable, string(text))
	check(execute("", proofArgs()...), nil)
	t.Setenv(tokenVariable, "tok")
	check(execute("", proofArgs()...), ath)
	check(execute("", proofArgs("--token", "other")...), proof.TokenHash("other"))
	check(execute("", proofArgs("--token", "")...), nil)
	t.Setenv(keyVariable, "x")
	execute("", proofArgs()...).refused(t, "CADDY_DPOP_KEY: neither a JWK")
}

func TestProof(t *testing.T) {
	name, _ := newKey(t)
	for url, want := range map[string]string{
		"https://api.example.com":              "https://api.example.com/",
		"HTTPS://api.example.com/a?b=c#d":      "https://api.example.com/a",
		"http://127.0.0.1:8080/a%2Fb/c d":      "http://127.0.0.1:8080/a%2Fb/c%20d",
		"https://bücher.example/é":             "https://xn--bcher-kva.example/%C3%A9",
		"https://a/%2f/{é}^|\\\"`<>":           "https://a/%2f/%7B%C3%A9%7D%5E%7C%5C%22%60%3C%3E",
		"https://a/%2f!$&'()*+,;=:@[]-._~":     "https://a/%2f!$&'()*+,;=:@[]-._~",
		"https://[2001:db8::1]:8443//a/../b/.": "https://[2001:db8::1]:8443//a/../b/.",
	} {
		_, claims := verified(t, execute("", "proof", "-k", name, "-m", "PATCH", "-u", url, "-n", "n-1").want(t))
		if claims["htu"] != want || claims["htm"] != "PATCH" || claims["nonce"] != "n-1" || len(claims) != 5 {
			t.Errorf("%s: %v", url, claims)
		}
	}
	for url, want := range map[string]string{
		"/orders":                "not an absolute http or https URL",
		"api.example.com":        "not an absolute http or https URL",
		"ftp://a/":               "not an absolute http or https URL",
		"https://me:secret@a/":   "a user name",
		"https://a b/":           "not a URL",
		"https://a/\x1b]0;x\x07": "not a URL",
	} {
		r := execute("", "proof", "--key", name, "--method", "GET", "--url", url)
		r.refused(t, want)
		if strings.Contains(r.err, "secret") {
			t.Errorf("the password is shown: %s", r.err)
		}
	}
	for _, row := range []struct{ flag, value, want string }{
		{"--method", "", "not a method"},
		{"--method", "G T", "not a method"},
		{"--nonce", `a"b`, "no nonce can have"},
		{"--nonce", "a b", "no nonce can have"},
		{"--token", "-", "--token: it is empty"},
		{"--key", `{"kty":"EC","d":"secret"}`, "--key: not a file that can be read"},
	} {
		r := execute("\n", "proof", "--key", name, "--method", "GET", "--url", "https://a/", row.flag, row.value)
		r.refused(t, row.want)
		if strings.Contains(r.err, "secret") {
			t.Errorf("the key is shown: %s", r.err)
		}
	}
	r := execute("", "request", "--key", name, "--token", "t", "https://me:secret@a/")
	r.refused(t, "URL: a user name")
	if strings.Contains(r.err, "secret") {
		t.Errorf("the password is shown: %s", r.err)
	}
	execute("", "proof", "--key", name).refused(t, `required flag(s) "method", "url" not set`)
}

// An error that a server has written a part of is fit for a terminal, and one that
// was shown already is not shown twice.
func TestErrors(t *testing.T) {
	for _, row := range []struct {
		err  error
		want string
	}{
		{errors.New("a\x1b[2J\nb"), "Error: a\\x1b[2J\nb\n"},
		{errShown, ""},
	} {
		var errs bytes.Buffer
		cmd := &cobra.Command{Use: "x", SilenceUsage: true, RunE: run(func(*cobra.Command, []string) error { return row.err })}
		cmd.SetArgs(nil)
		cmd.SetErr(&errs)
		if err := cmd.Execute(); err == nil || errs.String() != row.want {
			t.Errorf("%v: %q", err, errs.String())
		}
	}
}

// Each command has help with what it is, how it is called, and an example.
func TestHelp(t *testing.T) {
	for _, cmd := range Commands(plugin) {
		text := execute("", cmd.Name(), "--help").want(t)
		for _, part := range []string{strings.TrimSpace(cmd.Long), "\nUsage:\n  dpop " + cmd.Use + "\n", "\nExamples:\n  $ ", "caddy dpop " + cmd.Name()} {
			if !strings.Contains(text, part) {
				t.Errorf("%s --help does not have %q:\n%s", cmd.Name(), part, text)
			}
		}
		for line := range strings.Lines(cmd.Long) {
			if len(line) > 84 {
				t.Errorf("%s: a long line: %s", cmd.Name(), line)
			}
		}
	}
}
