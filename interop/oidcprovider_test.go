//go:build interop

package interop

import (
	"bufio"
	"encoding/json"
	"fmt"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"testing"
)

const (
	audience = "https://api.example.com"
	// The URI has whatever a proxy may be tempted to tidy up.
	uri = "/orders/a%2Fb/caf%C3%A9/?q=a%20b&empty=&q=%26&x"
)

// testCase is a call that a client makes with its token. One that is accepted
// has a method, one that is refused a challenge and a reason.
type testCase struct {
	library, grant, tokenAlgorithm, proofAlgorithm, kind string

	method, challenge, reason string
}

func (c testCase) String() string {
	return strings.Join([]string{c.library, c.grant, c.tokenAlgorithm, c.proofAlgorithm, c.kind}, "/")
}

// cases returns what the clients must have tried. The list is not the clients'
// own, so that one which they leave out is missed.
func cases() []testCase {
	var all []testCase
	for _, library := range []string{"openid-client", "oauth4webapi"} {
		for _, grant := range []string{"client_credentials", "authorization_code"} {
			for _, token := range []string{"RS256", "PS256", "ES256", "EdDSA", "Ed25519", "opaque"} {
				for _, proof := range []string{"RS256", "PS256", "ES256", "Ed25519"} {
					all = append(all,
						testCase{library, grant, token, proof, "get", "GET", "", ""},
						testCase{library, grant, token, proof, "post", "POST", "", ""},
						testCase{library, grant, token, proof, "replay", "", "dpop invalid_dpop_proof", "proof_replayed"},
						testCase{library, grant, token, proof, "other-key", "", "dpop invalid_token", "token_other_key"},
						testCase{library, grant, token, proof, "bearer", "", "dpop invalid_token", "bearer_refused"},
					)
				}
			}
		}
	}
	return all
}

// result is a case, as the client saw it.
type result struct {
	Case           string
	Token          string // its SHA-256
	TokenAlgorithm string `json:"token_alg"`
	ProofAlgorithm string `json:"proof_alg"`
	Status         int
	Answer         string
	Challenges     []string
}

func TestRealClients(t *testing.T) {
	node := requireNode(t)
	backend := &backend{got: map[string][]request{}}
	server := httptest.NewServer(backend)
	t.Cleanup(server.Close)
	issuer := startProvider(t, node)
	url := "http://" + freeAddress(t)
	gateway := startGateway(t, url, caddyfile(url, issuer, server.Listener.Addr().String()))
	results := runClients(t, node, issuer, url+uri)
	verdicts := gateway.stop(t)

	for _, c := range cases() {
		name := c.String()
		t.Run(name, func(t *testing.T) {
			r, ok := results[name]
			if !ok {
				t.Fatal("the clients did not try it")
			}
			delete(results, name)
			proofAlgorithm := c.proofAlgorithm
			if c.kind == "bearer" {
				proofAlgorithm = "" // there is no proof
			}
			if r.TokenAlgorithm != c.tokenAlgorithm || r.ProofAlgorithm != proofAlgorithm {
				t.Errorf("the token was signed by %q, the proof by %q", r.TokenAlgorithm, r.ProofAlgorithm)
			}
			if c.method != "" {
				c.checkAccepted(t, r, backend.got[name], verdicts[name])
			} else {
				c.checkRefused(t, r, backend.got[name], verdicts[name])
			}
		})
	}
	for name := range results {
		t.Errorf("the clients tried %s, which nothing here checks", name)
	}
}

func (c testCase) checkAccepted(t *testing.T, r result, got []request, verdicts []verdict) {
	if r.Status != http.StatusOK || r.Answer != "hello" {
		t.Errorf("got status %d, answer %q, challenges %q", r.Status, r.Answer, r.Challenges)
	}
	if want := []verdict{{Outcome: "accepted"}}; !slices.Equal(verdicts, want) {
		t.Errorf("the access log has %+v, want %+v", verdicts, want)
	}
	if len(got) != 1 {
		t.Fatalf("the backend got %d requests, want 1", len(got))
	}
	var body string
	if c.method == "POST" {
		body = `{"case":"` + r.Case + `"}`
	}
	g := got[0]
	if g.method != c.method || g.uri != uri || g.body != body {
		t.Errorf("the backend got %s %s with body %q", g.method, g.uri, g.body)
	}
	checkForwarded(t, g, r.Token)
	if client := g.header.Values("X-Client"); !slices.Equal(client, []string{c.library}) {
		t.Errorf("the backend got X-Client %q", client)
	}
}

func (c testCase) checkRefused(t *testing.T, r result, got []request, verdicts []verdict) {
	if want := []string{c.challenge}; r.Status != http.StatusUnauthorized || !slices.Equal(r.Challenges, want) {
		t.Errorf("got status %d, answer %q, challenges %q, want 401 with %q", r.Status, r.Answer, r.Challenges, want)
	}
	if want := []verdict{{Outcome: "refused", Reason: c.reason}}; !slices.Equal(verdicts, want) {
		t.Errorf("the access log has %+v, want %+v", verdicts, want)
	}
	if len(got) != 0 {
		t.Errorf("the backend got %d requests, want none", len(got))
	}
}

// startProvider starts the authorization server, and returns its issuer.
func startProvider(t *testing.T, node string, options ...string) string {
	t.Helper()
	cmd := command(t, node, append([]string{"provider.mjs", audience}, options...)...)
	// Its standard input ends with this process, however that ends.
	if _, err := cmd.StdinPipe(); err != nil {
		t.Fatal(err)
	}
	stdout, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	start(t, cmd)
	var ready struct{ Issuer string }
	if err := json.NewDecoder(stdout).Decode(&ready); err != nil || ready.Issuer == "" {
		t.Fatalf("the provider did not start: %v", err)
	}
	return ready.Issuer
}

// caddyfile returns the configuration of a gateway for the provider.
func caddyfile(url, issuer, backend string) string {
	return fmt.Sprintf(`{
	admin off
	persist_config off
	log {
		level WARN
	}
}

%s {
	bind 127.0.0.1
	log {
		output file {{ACCESS_LOG}}
		format json
	}
	dpop {
		issuer %s {
			introspection {
				client_id gateway
				client_secret "a secret: 100%% + more"
				signed_response
			}
		}
		audience %s
		claim_header X-Client client_id
	}
	reverse_proxy %s
}
`, url, issuer, audience, backend)
}

// runClients runs the clients, and returns what they saw, by case.
func runClients(t *testing.T, node, issuer, url string) map[string]result {
	t.Helper()
	cmd := command(t, node, "clients.mjs", issuer, audience, url)
	stdout, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	wait := start(t, cmd)
	results := map[string]result{}
	lines := bufio.NewScanner(stdout)
	for lines.Scan() {
		var r result
		if err := json.Unmarshal(lines.Bytes(), &r); err != nil {
			t.Fatalf("the clients printed %q: %v", lines.Text(), err)
		}
		if _, ok := results[r.Case]; ok {
			t.Errorf("the clients tried %s twice", r.Case)
		}
		results[r.Case] = r
	}
	if err := wait(); err != nil {
		t.Fatalf("the clients failed: %v", err)
	}
	return results
}
