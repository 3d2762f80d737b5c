//go:build interop

package interop

import (
	"bufio"
	"bytes"
	"crypto/sha256"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path"
	"path/filepath"
	"reflect"
	"regexp"
	"slices"
	"strings"
	"testing"
)

// spaStep is what a person does at the page of examples/spa: the requests that it
// leads to, what the page says then, and what a script in the page found out.
type spaStep struct {
	name          string
	requests      []string
	said, problem string
	found         []string
}

const (
	spaHello   = "Hello from the backend"
	spaRefused = "Refused, as it should be: "
	spaBlocked = "gave no answer that this page may read"
)

var spaSteps = []spaStep{
	{name: "open"},
	{name: "sign in", requests: []string{
		"GET openid-configuration 200", "GET openid-configuration 200", "POST token 400", "POST token 200",
	}, said: "Signed in."},
	{name: "call", requests: []string{"GET orders 401 use_dpop_nonce", "GET orders 200"}, said: spaHello},
	{name: "call again", requests: []string{"GET orders 200"}, said: spaHello},
	{name: "replay", requests: []string{"GET orders 401 invalid_dpop_proof"}, said: spaRefused},
	{name: "bearer", requests: []string{"GET orders 401 invalid_token"}, said: spaRefused},
	{name: "other key", requests: []string{"GET orders 401 use_dpop_nonce", "GET orders 401 invalid_token"}, said: spaRefused},
	{name: "read the key", said: "InvalidAccessError"},
	{name: "take something", found: []string{"ECDSA as jwk: InvalidAccessError", "ECDSA as pkcs8: InvalidAccessError"}},
	{name: "smuggle", found: []string{"connect-src", "img-src", "require-trusted-types-for", "script-src-elem", "style-src-elem"}},
	{name: "second: open"},
	{name: "second: sign in", requests: []string{
		"GET openid-configuration 200", "GET openid-configuration 200", "POST token 400", "POST token 200",
	}, said: "Signed in."},
	{name: "second: call", requests: []string{"GET orders 0"}, problem: spaBlocked},
	{name: "second: other ways", requests: []string{"GET orders 0", "GET orders 0", "GET orders 401"},
		found: []string{"a token: TypeError", "nothing: TypeError", "no-cors: opaque 0 "}},
}

// spaVerdicts are the gateway's on all of that, preflights apart.
var spaVerdicts = []verdict{
	{"refused", "no_credentials"}, // of the test, to see whether it has started
	{"refused", "nonce_missing"}, {"accepted", ""},
	{"accepted", ""},
	{"refused", "proof_replayed"},
	{"refused", "bearer_refused"},
	{"refused", "nonce_missing"}, {"refused", "token_other_key"},
	{"refused", "no_credentials"}, {"refused", "no_credentials"}, // the second page's other ways: no answer can be read
}

// spaRequest is one that the page has sent, and its answer: status 0 is none.
type spaRequest struct {
	Method, URL, Authorization, DPoP string
	Status                           int
	Challenge, Nonce                 string
}

// spaShown is what the page shows of a request.
type spaShown struct {
	Status   string
	Sections map[string]map[string]string
}

// spaResult is what became of a step.
type spaResult struct {
	Step, Said, Problem, Thumbprint string
	Wire                            []spaRequest
	Shown                           []spaShown
	Logged                          []spaMessage
	Width                           int
	Found                           []string
}

// spaMessage is one of the browser's own: on its console, or of a policy that was violated.
type spaMessage struct{ Type, Text, URL string }

// The page of the example, in a real browser, with the example's own gateway and
// authorization server.
func TestBrowser(t *testing.T) {
	node, browser := requireNode(t), requireBrowser(t)
	requireSamePackages(t)
	var forwarded []request
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		forwarded = append(forwarded, request{method: r.Method, uri: r.RequestURI, header: r.Header}) // one at a time
		w.Header().Set("Access-Control-Allow-Origin", "*")                                            // which the gateway replaces
		_, _ = io.WriteString(w, spaHello)
	}))
	t.Cleanup(server.Close)
	example := copySPA(t, server.Listener.Addr().String())
	example.startProvider(t, node)
	caddyfile, err := os.ReadFile(filepath.Join(example.dir, "Caddyfile"))
	if err != nil {
		t.Fatal(err)
	}
	gateway := runGateway(t, t.TempDir(), example.api, string(caddyfile))
	results := example.use(t, node, browser)
	verdicts := gateway.stop(t)[""]
	server.Close()

	verdicts = slices.DeleteFunc(verdicts, func(v verdict) bool { return v == verdict{} }) // preflights
	if !slices.Equal(verdicts, spaVerdicts) {
		t.Errorf("the access log has %+v, want %+v", verdicts, spaVerdicts)
	}
	for i, want := range spaSteps {
		t.Run(want.name, func(t *testing.T) {
			if i >= len(results) {
				t.Fatal("the person did not come to it")
			}
			want.check(t, results[i])
		})
	}
	if len(results) == len(spaSteps) {
		checkPages(t, results, forwarded)
	}
}

func (s *spaStep) check(t *testing.T, r spaResult) {
	if r.Step != s.name {
		t.Fatalf("the person did %q", r.Step)
	}
	var requests []string
	for _, w := range r.Wire {
		requests = append(requests, w.String())
	}
	if !slices.Equal(requests, s.requests) {
		t.Errorf("requests %q, want %q", requests, s.requests)
	}
	if !strings.Contains(r.Said, s.said) || !strings.Contains(r.Problem, s.problem) || s.problem == "" && s.found == nil && r.Problem != "" {
		t.Errorf("the page says %q, and of a problem %q", r.Said, r.Problem)
	}
	if !slices.Equal(r.Found, s.found) {
		t.Errorf("found %q, want %q", r.Found, s.found)
	}
	if r.Width > 390 {
		t.Errorf("on a phone the page is %d pixels wide", r.Width)
	}
	if s.found != nil {
		return // it was not by the page's own doing
	}
	// Signing in begins on a page that is gone.
	if len(r.Shown) < len(r.Wire)-1 {
		t.Fatalf("the page shows %d of %d requests", len(r.Shown), len(r.Wire))
	}
	for i, w := range r.Wire[len(r.Wire)-len(r.Shown):] {
		w.checkShown(t, r.Shown[i])
	}
}

var challengeError = regexp.MustCompile(` error="([^"]*)"`)

func (w spaRequest) String() string {
	text := fmt.Sprintf("%s %s %d", w.Method, path.Base(w.URL), w.Status)
	if match := challengeError.FindStringSubmatch(w.Challenge); match != nil {
		text += " " + match[1]
	}
	return text
}

// checkShown fails unless the page shows what went over the wire, but for the
// token.
func (w spaRequest) checkShown(t *testing.T, s spaShown) {
	t.Helper()
	status := fmt.Sprint(w.Status)
	if w.Status == 0 {
		status = "failed"
	}
	asked, answer := s.Sections["Request"], s.Sections["Answer"]
	if s.Status != status || w.Status != 0 && !strings.HasPrefix(answer["Status"], status) ||
		asked["URL"] != w.URL || answer["WWW-Authenticate"] != w.Challenge || answer["DPoP-Nonce"] != w.Nonce {
		t.Errorf("%s is shown as %q with the sections %q", w, s.Status, s.Sections)
	}
	scheme, _, _ := strings.Cut(w.Authorization, " ")
	if shown := asked["Authorization"]; !strings.HasPrefix(shown, scheme) || len(shown) > len("Bearer ")+60 {
		t.Errorf("%s: Authorization is shown as %q", w, shown)
	}
	for i, title := range []string{"Its header", "Its claims"} {
		if want := w.part(t, i); len(s.Sections[title]) != len(want) || !shows(s.Sections[title], want) {
			t.Errorf("%s is shown as %q, and is %q", title, s.Sections[title], want)
		}
	}
}

// part returns the header of a request's proof, or its claims: strings as they are,
// anything else as JSON. Without a proof it is empty.
func (w spaRequest) part(t *testing.T, i int) map[string]string {
	t.Helper()
	if w.DPoP == "" {
		return nil
	}
	text, err := base64.RawURLEncoding.DecodeString(strings.Split(w.DPoP, ".")[i])
	if err != nil {
		t.Fatal(err)
	}
	var members map[string]json.RawMessage
	if err := json.Unmarshal(text, &members); err != nil {
		t.Fatal(err)
	}
	part := map[string]string{}
	for name, value := range members {
		var s string
		if json.Unmarshal(value, &s) != nil {
			s = string(value)
		}
		part[name] = s
	}
	return part
}

func shows(shown, want map[string]string) bool {
	for name, value := range want {
		if shown[name] != value {
			return false
		}
	}
	return true
}

// checkPages checks what no step shows alone.
func checkPages(t *testing.T, results []spaResult, forwarded []request) {
	t.Helper()
	steps := map[string]spaResult{}
	for _, r := range results {
		steps[r.Step] = r
	}
	stolen, replayed := steps["call again"].Wire[0], steps["replay"].Wire[0]
	if stolen.DPoP == "" || replayed.DPoP != stolen.DPoP || replayed.Authorization != stolen.Authorization {
		t.Error("the replay is not the call, byte for byte")
	}
	_, token, _ := strings.Cut(stolen.Authorization, " ")
	if bearer := steps["bearer"].Wire[0]; bearer.DPoP != "" || bearer.Authorization != "Bearer "+token {
		t.Error("the Bearer call is not with the token alone")
	}
	for _, name := range []string{"sign in", "second: sign in"} {
		shown := steps[name].Shown
		claims := shown[len(shown)-1].Sections["The token’s claims"]
		if want := `{"jkt":"` + steps[name].Thumbprint + `"}`; claims["cnf"] != want || claims["sub"] != "alice" {
			t.Errorf("%s: the token's claims are shown as %q, want cnf %s", name, claims, want)
		}
	}
	if steps["second: open"].Thumbprint == steps["open"].Thumbprint {
		t.Error("another origin has the page's key")
	}

	// The backend got what was accepted, and nothing else.
	if len(forwarded) != 2 {
		t.Errorf("the backend got %d requests, want 2", len(forwarded))
	}
	hash := sha256.Sum256([]byte(token))
	for _, g := range forwarded {
		checkForwarded(t, g, hex.EncodeToString(hash[:]))
		if user := g.header.Values("X-User"); g.method != "GET" || g.uri != "/orders" || !slices.Equal(user, []string{"alice"}) {
			t.Errorf("the backend got %s %s of %q", g.method, g.uri, user)
		}
	}

	checkNonces(t, results)
	checkConsole(t, results)
}

// checkNonces fails unless each proof has the last nonce that its key got of its server.
func checkNonces(t *testing.T, results []spaResult) {
	t.Helper()
	nonces := map[string]string{}
	for _, r := range results {
		for _, w := range r.Wire {
			if w.DPoP == "" {
				continue
			}
			server := w.part(t, 0)["jwk"] + w.URL
			if nonce := w.part(t, 1)["nonce"]; nonce != nonces[server] {
				t.Errorf("%s: the proof for %s has the nonce %q, and the server's last is %q", r.Step, w, nonce, nonces[server])
			}
			if w.Nonce != "" {
				nonces[server] = w.Nonce
			}
		}
	}
}

// checkConsole fails if the browser says more than that requests were refused,
// and of the second page, that it is of another origin. What violates the policy
// on purpose is a step of its own.
func checkConsole(t *testing.T, results []spaResult) {
	t.Helper()
	refused := map[spaMessage]int{}
	blocked := 0
	for _, r := range results {
		if r.Step == "smuggle" {
			continue
		}
		for _, w := range r.Wire {
			if w.Status >= 400 {
				text := fmt.Sprintf("Failed to load resource: the server responded with a status of %d (%s)", w.Status, http.StatusText(w.Status))
				refused[spaMessage{"error", text, w.URL}]++
			}
		}
		for _, m := range r.Logged {
			second := strings.HasPrefix(r.Step, "second: ")
			switch {
			case m.Type == "error" && strings.Contains(m.Text, "has been blocked by CORS policy") && second:
				blocked++
			case m.Type == "error" && m.Text == "Failed to load resource: net::ERR_FAILED" && second:
			default:
				refused[m]--
			}
		}
	}
	for m, left := range refused {
		if left != 0 {
			t.Errorf("the browser's console has %+v %d times too few", m, left)
		}
	}
	if blocked != 3 {
		t.Errorf("the browser's console tells of %d requests that another origin may not make, want 3", blocked)
	}
}

// requireBrowser returns the path of Chromium.
func requireBrowser(t *testing.T) string {
	t.Helper()
	for _, name := range []string{"chromium", "chromium-browser", "google-chrome"} {
		if file, err := exec.LookPath(name); err == nil {
			return file
		}
	}
	t.Fatal("this test needs Chromium: no chromium, chromium-browser or google-chrome is in PATH")
	return ""
}

// requireSamePackages fails if the example names others than the test runs.
func requireSamePackages(t *testing.T) {
	t.Helper()
	var example, ours struct {
		Packages map[string]map[string]any
	}
	for file, into := range map[string]any{"../examples/spa/package-lock.json": &example, "package-lock.json": &ours} {
		text, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		if err := json.Unmarshal(text, into); err != nil {
			t.Fatalf("%s: %v", file, err)
		}
	}
	if len(example.Packages) < 2 {
		t.Error("the example's lock file has no packages")
	}
	for name, is := range example.Packages {
		if name != "" && !reflect.DeepEqual(is, ours.Packages[name]) {
			t.Errorf("%s is not the same in the example's lock file", name)
		}
	}
}

// spa is a copy of the example, at addresses of the test.
type spa struct {
	dir                       string
	page, second, api, issuer string // origins
}

func copySPA(t *testing.T, backend string) *spa {
	t.Helper()
	s := &spa{dir: t.TempDir()}
	changes := []string{
		"reverse_proxy localhost:9001", "reverse_proxy " + backend,
		"{\n\t# As in", "{\n\tadmin off\n\tpersist_config off\n\t# As in",
		"\tlog\n", "\tlog {\n\t\toutput file {{ACCESS_LOG}}\n\t\tformat json\n\t}\n",
		"root .", "root " + s.dir,
	}
	for address, origin := range map[string]*string{
		"http://localhost:8080": &s.page, "http://localhost:8081": &s.second, "http://localhost:9000": &s.api, "http://localhost:3000": &s.issuer,
		"http://localhost:9001": new(string),
	} {
		*origin = "http://" + freeAddress(t)
		changes = append(changes, address, *origin)
	}
	for _, name := range []string{"Caddyfile", "index.html", "style.css", "icon.svg", "app.js", "key.js", "show.js", "server.mjs"} {
		text, err := os.ReadFile("../examples/spa/" + name)
		if err != nil {
			t.Fatal(err)
		}
		for change := range slices.Chunk(changes, 2) {
			if name == "Caddyfile" && !bytes.Contains(text, []byte(change[0])) {
				t.Fatalf("the example's Caddyfile has no %q", change[0])
			}
		}
		text = []byte(strings.NewReplacer(changes...).Replace(string(text)))
		if err := os.WriteFile(filepath.Join(s.dir, name), text, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	modules, err := filepath.Abs("node_modules")
	if err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink(modules, filepath.Join(s.dir, "node_modules")); err != nil {
		t.Fatal(err)
	}
	return s
}

// startProvider starts the example's authorization server.
func (s *spa) startProvider(t *testing.T, node string) {
	t.Helper()
	// It ends with this process, however that ends.
	const untilInputEnds = "process.stdin.resume().on('end', () => process.exit()); import(process.argv[1])"
	cmd := command(t, node, "-e", untilInputEnds, filepath.Join(s.dir, "server.mjs"))
	if _, err := cmd.StdinPipe(); err != nil {
		t.Fatal(err)
	}
	stdout, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	wait := start(t, cmd)
	lines := bufio.NewScanner(stdout)
	for lines.Scan() {
		if strings.Contains(lines.Text(), s.issuer) {
			go func() { _, _ = io.Copy(io.Discard, stdout) }()
			return
		}
	}
	t.Fatalf("the example's authorization server ended: %v", wait())
}

// use has a person use the page, and returns what became of each step.
func (s *spa) use(t *testing.T, node, browser string) []spaResult {
	t.Helper()
	plan, err := json.Marshal(map[string]string{"browser": browser, "page": s.page, "second": s.second, "api": s.api})
	if err != nil {
		t.Fatal(err)
	}
	cmd := command(t, node, "spa.mjs", string(plan))
	cmd.Env = append(os.Environ(), "TMPDIR="+t.TempDir()) // for the browser's profile
	if _, err := cmd.StdinPipe(); err != nil {
		t.Fatal(err)
	}
	stdout, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	wait := start(t, cmd)
	var results []spaResult
	for lines := json.NewDecoder(stdout); lines.More(); {
		var r spaResult
		if err := lines.Decode(&r); err != nil {
			t.Fatal(err)
		}
		results = append(results, r)
	}
	if err := wait(); err != nil {
		t.Errorf("the person gave up after %d steps: %v", len(results), err)
	}
	return results
}
