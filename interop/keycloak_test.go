//go:build interop

package interop

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"encoding/json"
	"encoding/pem"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"
)

// keycloakSites are the gateway's: the example as it stands, which asks Keycloak
// about each token, and others that judge its JWTs by their signature.
var keycloakSites = []string{"introspected", "jwt", "optional"}

// keycloakCase is a call with a token of one of the realm's clients, how the
// gateway is to answer it, and the user that the backend is to see.
type keycloakCase struct {
	site, token, kind string
	status            int
	challenges        []string
	reason, user      string
}

func keycloakCases() []keycloakCase {
	var all []keycloakCase
	accepted := func(site, token, kind, user string) {
		all = append(all, keycloakCase{site, token, kind, http.StatusOK, nil, "", user})
	}
	refused := func(site, token, kind, reason string, challenges ...string) {
		all = append(all, keycloakCase{site, token, kind, http.StatusUnauthorized, challenges, reason, ""})
	}
	const badProof, badToken = "dpop invalid_dpop_proof", "dpop invalid_token"
	for _, site := range keycloakSites {
		// under DPoP the modes do not differ
		good := map[string]string{"service": "service-account-service", "app": "alice"}
		bad := map[string]string{"old-service": "token_unbound"}
		if site == "introspected" {
			good["slim-service"] = "service-account-slim-service"
		} else {
			bad["slim-service"] = "token_audience" // such a token does not say whom it is for
		}
		for token, user := range good {
			accepted(site, token, "dpop", user)
			refused(site, token, "replay", "proof_replayed", badProof)
			refused(site, token, "other-key", "token_other_key", badToken)
		}
		for token, reason := range bad {
			for _, kind := range []string{"dpop", "replay", "other-key"} {
				refused(site, token, kind, reason, badToken)
			}
		}
		switch {
		case site != "optional":
			for _, token := range []string{"service", "app", "slim-service", "old-service"} {
				refused(site, token, "bearer", "bearer_refused", badToken)
			}
		default:
			for token, reason := range map[string]string{"service": "token_bound", "app": "token_bound", "slim-service": "token_audience"} {
				refused(site, token, "bearer", reason, "dpop", "bearer invalid_token")
			}
			accepted(site, "old-service", "bearer", "service-account-old-service")
		}
		accepted(site, "revoked", "before", "service-account-service")
	}
	accepted("jwt", "revoked", "after", "service-account-service")
	accepted("optional", "revoked", "after", "service-account-service")
	refused("introspected", "revoked", "after", "token_inactive", badToken)
	return all
}

func TestKeycloak(t *testing.T) {
	node := requireNode(t)
	backend := &backend{got: map[string][]request{}}
	server := httptest.NewServer(backend)
	t.Cleanup(server.Close)
	keycloak := startKeycloak(t)
	sites := map[string]string{}
	for _, site := range keycloakSites {
		sites[site] = "http://" + freeAddress(t)
	}
	keycloak.makeRealm(t, sites["introspected"])
	gateway := startGateway(t, sites["introspected"], keycloakCaddyfile(t, keycloak.url, server.Listener.Addr().String(), sites))
	checkGuide(t, node, keycloak, sites["introspected"])

	// And by the plugin's commands, with a realm that is the same for all.
	p, token := newPerson(t, "ES256", keycloak.secrets["service"], "--issuer", keycloak.url+"/realms/shop", "--client-id", "service")
	for _, site := range keycloakSites {
		p.call(t, sites[site], site+"/commands", "token_other_key", "--issuer", keycloak.url+"/realms/shop", "--audience", "orders-api")
	}

	clients := startKeycloakClients(t, node, keycloak, sites)
	results := map[string]result{}
	for len(results) < len(keycloakCases()) {
		r := clients.next(t)
		results[r.Case] = r.result
	}
	rotate(t, keycloak, clients)
	verdicts := gateway.stop(t)

	for _, c := range keycloakCases() {
		name := strings.Join([]string{c.site, c.token, c.kind}, "/")
		t.Run(name, func(t *testing.T) {
			r, ok := results[name]
			if !ok {
				t.Fatal("the clients did not try it")
			}
			delete(results, name)
			if r.Status != c.status || !slices.Equal(r.Challenges, c.challenges) {
				t.Errorf("got status %d, answer %q, challenges %q, want %d with %q", r.Status, r.Answer, r.Challenges, c.status, c.challenges)
			}
			outcome, want := "refused", 0
			if c.status == http.StatusOK {
				outcome, want = "accepted", 1
			}
			if got := verdicts[name]; !slices.Equal(got, []verdict{{outcome, c.reason}}) {
				t.Errorf("the access log has %+v, want %s %s", got, outcome, c.reason)
			}
			got := backend.got[name]
			if len(got) != want {
				t.Fatalf("the backend got %d requests, want %d", len(got), want)
			}
			if want == 1 {
				checkForwarded(t, got[0], r.Token)
				if user := got[0].header.Values("X-User"); !slices.Equal(user, []string{c.user}) {
					t.Errorf("the backend got X-User %q, want %q", user, c.user)
				}
			}
		})
	}
	for name := range results {
		t.Errorf("the clients tried %s, which nothing here checks", name)
	}
	for _, site := range keycloakSites {
		checkCalls(t, site+"/commands", token, "token_other_key", backend.got, verdicts)
		for _, v := range verdicts[site+"/traffic"] {
			if v.Outcome != "accepted" {
				t.Fatalf("%s: while Keycloak changed its key, a request was %s: %s", site, v.Outcome, v.Reason)
			}
		}
	}
}

// rotate gives Keycloak a new signing key while the clients go on: each new token
// is signed by it at once, and no request is to be refused.
func rotate(t *testing.T, keycloak *keycloak, clients *keycloakClients) {
	t.Helper()
	before := clients.awaitTraffic(t, "", 20)
	keycloak.admin(t, "POST", "/admin/realms/shop/components", map[string]any{
		"name":         "next",
		"providerId":   "rsa-generated",
		"providerType": "org.keycloak.keys.KeyProvider",
		"config":       map[string][]string{"priority": {"200"}, "algorithm": {"RS256"}},
	}, nil)
	clients.awaitTraffic(t, before, 20)
	clients.stop(t)
}

// checkGuide runs the client of the example.
func checkGuide(t *testing.T, node string, keycloak *keycloak, site string) {
	t.Helper()
	// Where it finds its package, as if that had been installed beside it.
	dir := t.TempDir()
	modules, err := filepath.Abs("node_modules")
	if err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink(modules, filepath.Join(dir, "node_modules")); err != nil {
		t.Fatal(err)
	}
	program, err := os.ReadFile("../examples/keycloak/client.mjs")
	if err != nil {
		t.Fatal(err)
	}
	file := filepath.Join(dir, "client.mjs")
	if err := os.WriteFile(file, program, 0o600); err != nil {
		t.Fatal(err)
	}
	cmd := command(t, node, file, keycloak.url+"/realms/shop", "service", site+"/")
	cmd.Env = append(os.Environ(), "CLIENT_SECRET="+keycloak.secrets["service"])
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("the client of the guide: %v", err)
	}
	for _, want := range []string{
		"with the key: 200 hello\n",
		"without it, as DPoP: 401 DPoP error=\"invalid_dpop_proof\"",
		"without it, as Bearer: 401 DPoP error=\"invalid_token\"",
	} {
		if !strings.Contains(string(out), want) {
			t.Errorf("the client of the guide does not say %q, but:\n%s", want, out)
		}
	}
}

// keycloakCaddyfile returns the example's Caddyfile, with the addresses of the
// test, and a site for each other way to judge the realm's tokens.
func keycloakCaddyfile(t *testing.T, keycloak, backend string, sites map[string]string) string {
	t.Helper()
	text, err := os.ReadFile("../examples/keycloak/Caddyfile")
	if err != nil {
		t.Fatal(err)
	}
	key := filepath.Join(t.TempDir(), "gateway.pem")
	writeKey(t, key)
	config := string(text)
	for _, change := range [][2]string{
		{"reverse_proxy localhost:9001", "reverse_proxy " + backend},
		{"http://localhost:9001", "http://" + freeAddress(t)},
		{"http://localhost:9000", sites["introspected"]},
		{"http://localhost:8080", keycloak},
		{"gateway.pem", key},
		{"\tlog\n", "\tlog {\n\t\toutput file {{ACCESS_LOG}}\n\t\tformat json\n\t}\n"},
		{"{\n\t# As in", "{\n\tadmin off\n\tpersist_config off\n\t# As in"},
	} {
		if !strings.Contains(config, change[0]) {
			t.Fatalf("the example has no %q", change[0])
		}
		config = strings.ReplaceAll(config, change[0], change[1])
	}
	for site, mode := range map[string]string{"jwt": "strict", "optional": "optional"} {
		config += fmt.Sprintf(`
%s {
	log {
		output file {{ACCESS_LOG}}
		format json
	}
	dpop %s {
		issuer %s/realms/shop
		audience orders-api
		claim_header X-User preferred_username
	}
	reverse_proxy %s
}
`, sites[site], mode, keycloak, backend)
	}
	return config
}

func writeKey(t *testing.T, file string) {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	der, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(file, pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: der}), 0o600); err != nil {
		t.Fatal(err)
	}
}

// keycloak is a Keycloak on loopback, whose database is in its memory.
type keycloak struct {
	url      string
	password string            // of its administrator, and of Alice
	secrets  map[string]string // of clients
}

func startKeycloak(t *testing.T) *keycloak {
	t.Helper()
	found, err := filepath.Glob("../.cache/keycloak/keycloak-*/bin/kc.sh")
	if err != nil || len(found) != 1 {
		t.Fatalf("found %d Keycloaks in .cache, want the one that the test command installs (%v)", len(found), err)
	}
	k := &keycloak{url: "http://" + freeAddress(t), password: rand.Text(), secrets: map[string]string{}}
	address, err := url.Parse(k.url)
	if err != nil {
		t.Fatal(err)
	}
	// It ends with this process, however that ends, by the shell's standard input.
	cmd := exec.Command("sh", "-c", `"$0" "$@" >&2 & cat >/dev/null; kill $!; wait $!`, found[0], "start-dev", "--db=dev-mem", "--cache=local",
		"--http-host=127.0.0.1", "--http-port="+address.Port(), "--health-enabled=false", "--metrics-enabled=false")
	cmd.Env = append(os.Environ(), "KC_BOOTSTRAP_ADMIN_USERNAME=admin", "KC_BOOTSTRAP_ADMIN_PASSWORD="+k.password)
	var log bytes.Buffer
	cmd.Stderr = &log
	stdin, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = stdin.Close()
		_ = cmd.Wait()
		if t.Failed() {
			t.Logf("Keycloak:\n%s", &log)
		}
	})
	for deadline := time.Now().Add(limit); ; time.Sleep(250 * time.Millisecond) {
		response, err := http.Get(k.url + "/realms/master/.well-known/openid-configuration")
		if err == nil {
			response.Body.Close()
			if response.StatusCode == http.StatusOK {
				return k
			}
		}
		if time.Now().After(deadline) {
			t.Fatalf("Keycloak did not start: %v", err)
		}
	}
}

// makeRealm makes the realm of the example, as the guide does, for a gateway.
func (k *keycloak) makeRealm(t *testing.T, gateway string) {
	t.Helper()
	text, err := os.ReadFile("../examples/keycloak/realm.json")
	if err != nil {
		t.Fatal(err)
	}
	const example = "http://localhost:9000"
	if !bytes.Contains(text, []byte(example)) {
		t.Fatalf("the example's realm has no %s", example)
	}
	realm := json.RawMessage(bytes.ReplaceAll(text, []byte(example), []byte(gateway)))
	k.admin(t, "POST", "/admin/realms", realm, nil)
	var clients []struct{ ClientID, Secret string }
	k.admin(t, "GET", "/admin/realms/shop/clients", nil, &clients)
	for _, client := range clients {
		if strings.HasSuffix(client.ClientID, "service") {
			k.secrets[client.ClientID] = client.Secret
		}
	}
	var users []struct{ ID string }
	k.admin(t, "GET", "/admin/realms/shop/users?username=alice", nil, &users)
	if len(k.secrets) != 3 || len(users) != 1 {
		t.Fatalf("the realm has secrets for %d clients, and %d users", len(k.secrets), len(users))
	}
	k.admin(t, "PUT", "/admin/realms/shop/users/"+users[0].ID+"/reset-password",
		map[string]any{"type": "password", "value": k.password, "temporary": false}, nil)
}

// admin calls Keycloak's admin API.
func (k *keycloak) admin(t *testing.T, method, path string, body, into any) {
	t.Helper()
	response, err := http.PostForm(k.url+"/realms/master/protocol/openid-connect/token", url.Values{
		"grant_type": {"password"}, "client_id": {"admin-cli"}, "username": {"admin"}, "password": {k.password},
	})
	if err != nil {
		t.Fatal(err)
	}
	defer response.Body.Close()
	var token struct {
		AccessToken string `json:"access_token"`
	}
	if err := json.NewDecoder(response.Body).Decode(&token); err != nil || token.AccessToken == "" {
		t.Fatalf("no token for the administrator: %s, %v", response.Status, err)
	}
	var content io.Reader
	if body != nil {
		text, err := json.Marshal(body)
		if err != nil {
			t.Fatal(err)
		}
		content = bytes.NewReader(text)
	}
	request, err := http.NewRequestWithContext(t.Context(), method, k.url+path, content)
	if err != nil {
		t.Fatal(err)
	}
	request.Header.Set("Authorization", "Bearer "+token.AccessToken)
	request.Header.Set("Content-Type", "application/json")
	if response, err = http.DefaultClient.Do(request); err != nil {
		t.Fatal(err)
	}
	defer response.Body.Close()
	answer, err := io.ReadAll(response.Body)
	if err != nil || response.StatusCode/100 != 2 {
		t.Fatalf("%s %s: %s %s (%v)", method, path, response.Status, answer, err)
	}
	if into != nil {
		if err := json.Unmarshal(answer, into); err != nil {
			t.Fatalf("%s %s: %s: %v in %.200s", method, path, response.Status, err, answer)
		}
	}
}

// keycloakClients are real clients of the realm.
type keycloakClients struct {
	lines *json.Decoder
	stdin io.Closer
	wait  func() error
}

// line is what they print of a call: of one that is a case, or one of the traffic.
type line struct {
	result
	Kid string
}

func startKeycloakClients(t *testing.T, node string, keycloak *keycloak, sites map[string]string) *keycloakClients {
	t.Helper()
	plan, err := json.Marshal(map[string]any{
		"issuer": keycloak.url + "/realms/shop", "path": uri, "sites": sites, "secrets": keycloak.secrets, "password": keycloak.password,
	})
	if err != nil {
		t.Fatal(err)
	}
	cmd := command(t, node, "keycloak.mjs", string(plan))
	stdin, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	stdout, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	return &keycloakClients{json.NewDecoder(stdout), stdin, start(t, cmd)}
}

func (c *keycloakClients) next(t *testing.T) line {
	t.Helper()
	var l line
	if err := c.lines.Decode(&l); err != nil {
		t.Fatalf("the clients failed: %v, %v", err, c.wait())
	}
	return l
}

// awaitTraffic reads of the traffic until each site has accepted so many tokens
// that were signed by one key, which is another than the one given, and returns
// that key's id. Until then nothing may be refused.
func (c *keycloakClients) awaitTraffic(t *testing.T, other string, enough int) string {
	t.Helper()
	kid, accepted := "", map[string]int{}
	for {
		l := c.next(t)
		if l.Status != http.StatusOK {
			t.Fatalf("%s: a token signed by %q was answered %d", l.Case, l.Kid, l.Status)
		}
		if l.Kid == other {
			continue
		}
		if kid == "" {
			kid = l.Kid
		}
		if l.Kid != kid {
			t.Fatalf("a token is signed by %q, others by %q", l.Kid, kid)
		}
		accepted[l.Case]++
		fewest := enough
		for _, site := range keycloakSites {
			fewest = min(fewest, accepted[site+"/traffic"])
		}
		if fewest == enough {
			return kid
		}
	}
}

// stop ends the clients, once they have done what they are at.
func (c *keycloakClients) stop(t *testing.T) {
	t.Helper()
	_ = c.stdin.Close()
	for c.lines.More() {
		if l := c.next(t); l.Status != http.StatusOK {
			t.Errorf("%s: a token signed by %q was answered %d", l.Case, l.Kid, l.Status)
		}
	}
	if err := c.wait(); err != nil {
		t.Errorf("the clients failed: %v", err)
	}
}
