//go:build interop

package interop

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

// person is somebody with nothing but the plugin's commands, in a folder.
type person struct{ dir string }

// do runs a command, with a text for its standard input, and returns what it has
// put out, what it has said, and its exit status.
func (p person) do(t *testing.T, stdin string, args ...string) (out, said string, status int) {
	t.Helper()
	cmd := command(t, gatewayBinary, append([]string{"dpop"}, args...)...)
	cmd.Dir = p.dir
	cmd.Stdin = strings.NewReader(stdin)
	var stdout, stderr bytes.Buffer
	cmd.Stdout, cmd.Stderr = &stdout, &stderr
	err := cmd.Run()
	var exit *exec.ExitError
	if err != nil && !errors.As(err, &exit) {
		t.Fatal(err)
	}
	return stdout.String(), stderr.String(), cmd.ProcessState.ExitCode()
}

// keep runs a command that must end well, and keeps what it puts out in a file.
func (p person) keep(t *testing.T, file, stdin string, args ...string) string {
	t.Helper()
	out, said, status := p.do(t, stdin, args...)
	if status != 0 || strings.Contains(said, "warning") {
		t.Fatalf("%q ended with %d: %s", args, status, said)
	}
	if err := os.WriteFile(filepath.Join(p.dir, file), []byte(out), 0o600); err != nil {
		t.Fatal(err)
	}
	return strings.TrimSuffix(out, "\n")
}

// newPerson makes a key and gets a token by the arguments, with a secret.
func newPerson(t *testing.T, algorithm, secret string, args ...string) (person, string) {
	t.Helper()
	p := person{t.TempDir()}
	p.keep(t, "key.jwk", "", "keygen", "--alg", algorithm)
	p.keep(t, "thief.jwk", "", "keygen", "--alg", algorithm)
	token := p.keep(t, "token", secret+"\n", append([]string{"token", "--key", "key.jwk", "--client-secret", "-"}, args...)...)
	return p, token
}

// call has the person call a site with the token, and a thief who has no key. Name
// is of the cases that both are. Inspect must agree with the gateway.
func (p person) call(t *testing.T, site, name, reason string, settings ...string) {
	t.Helper()
	url := site + uri
	request := func(key, kind string) (string, string, int) {
		return p.do(t, "", "request", "--key", key, "--token", "@token", "--header", "X-Case: "+name+"/"+kind, "--data", "an order", url)
	}
	if out, said, status := request("key.jwk", "accepted"); out != "hello" || status != 0 {
		t.Errorf("%s: a request ended with %d: %q, %s", name, status, out, said)
	}
	if out, said, status := request("thief.jwk", "refused"); out != "" || status != 1 || !strings.Contains(said, "401 Unauthorized") || !strings.Contains(said, "invalid_token") {
		t.Errorf("%s: a thief's request ended with %d: %q, %s", name, status, out, said)
	}
	for key, want := range map[string]string{"key.jwk": "0 failed", "thief.jwk": "\n" + reason + ": "} {
		p.keep(t, "proof", "", "proof", "--key", key, "--token", "@token", "--method", "POST", "--url", url)
		out, said, status := p.do(t, "", append([]string{"inspect", "--token", "@token", "--proof", "@proof", "--method", "POST", "--url", url}, settings...)...)
		if !strings.Contains(out, want) || (status == 0) != (key == "key.jwk") {
			t.Errorf("%s: inspect of %s ended with %d: %s%s", name, key, status, out, said)
		}
	}
}

// checkCalls fails unless the gateway and the backend have seen the calls as they
// were made.
func checkCalls(t *testing.T, name, token, reason string, got map[string][]request, verdicts map[string][]verdict) {
	t.Helper()
	if want := (verdict{Outcome: "accepted"}); !slices.Contains(verdicts[name+"/accepted"], want) {
		t.Errorf("%s: the access log has %+v", name, verdicts[name+"/accepted"])
	}
	if want := (verdict{"refused", reason}); !slices.Contains(verdicts[name+"/refused"], want) || slices.Contains(verdicts[name+"/refused"], verdict{Outcome: "accepted"}) {
		t.Errorf("%s: the access log has %+v of the thief, want %+v", name, verdicts[name+"/refused"], want)
	}
	if len(got[name+"/refused"]) > 0 || len(got[name+"/accepted"]) != 1 {
		t.Fatalf("%s: the backend got %d requests, and %d of the thief", name, len(got[name+"/accepted"]), len(got[name+"/refused"]))
	}
	g := got[name+"/accepted"][0]
	if g.method != "POST" || g.uri != uri || g.body != "an order" {
		t.Errorf("%s: the backend got %s %s with body %q", name, g.method, g.uri, g.body)
	}
	sum := sha256.Sum256([]byte(token))
	checkForwarded(t, g, hex.EncodeToString(sum[:]))
}

// A person with the plugin's commands gets a token of a real authorization server
// that demands nonces, and calls a site that demands others.
func TestCommandsWithOIDCProvider(t *testing.T) {
	node := requireNode(t)
	backend := &backend{got: map[string][]request{}}
	server := httptest.NewServer(backend)
	t.Cleanup(server.Close)
	issuer := startProvider(t, node, "nonces")
	url := "http://" + freeAddress(t)
	config := caddyfile(url, issuer, server.Listener.Addr().String())
	gateway := startGateway(t, url, strings.Replace(config, "\t\tclaim_header", "\t\tnonce required\n\t\tclaim_header", 1))
	keys := fetched(t, issuer+"/jwks")
	tokens := map[string]string{}
	for _, kind := range []string{"ES256", "RS256", "Ed25519"} {
		p, token := newPerson(t, kind, "a secret of the test", "--issuer", issuer, "--client-id", "openid-client", "--auth", "client_secret_post",
			"--scope", "orders", "--resource", audience+"/"+kind)
		if err := os.WriteFile(filepath.Join(p.dir, "keys"), keys, 0o600); err != nil {
			t.Fatal(err)
		}
		tokens[kind] = token
		p.call(t, url, kind, "token_other_key", "--issuer", issuer, "--audience", audience, "--jwks", "keys", "--require-scope", "orders")
	}
	verdicts := gateway.stop(t)
	for kind, token := range tokens {
		checkCalls(t, kind, token, "token_other_key", backend.got, verdicts)
		if first := verdicts[kind+"/accepted"]; len(first) != 2 || first[0] != (verdict{"refused", "nonce_missing"}) {
			t.Errorf("%s: no nonce was asked for: %+v", kind, first)
		}
	}
}

func fetched(t *testing.T, url string) []byte {
	t.Helper()
	response, err := http.Get(url)
	if err != nil {
		t.Fatal(err)
	}
	defer response.Body.Close()
	var text bytes.Buffer
	if _, err := text.ReadFrom(response.Body); err != nil || response.StatusCode != http.StatusOK {
		t.Fatalf("%s: %s, %v", url, response.Status, err)
	}
	return text.Bytes()
}
