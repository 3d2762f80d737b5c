package caddytest

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	"net/url"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/caddy-dpop/caddy-dpop/replay"
)

// admin posts to Caddy's admin API.
func admin(t *testing.T, method, path string, body []byte) (int, string) {
	t.Helper()
	// A load replaces the admin API's own listener too, and may cut a connection.
	var response *http.Response
	for try := 0; ; try++ {
		request, err := http.NewRequestWithContext(context.Background(), method, "http://"+adminAddress+path, bytes.NewReader(body))
		if err != nil {
			t.Fatal(err)
		}
		request.Header.Set("Content-Type", "application/json")
		if response, err = plainClient.Do(request); err == nil {
			break
		}
		if try == 5 {
			t.Fatal(err)
		}
		time.Sleep(10 * time.Millisecond)
	}
	defer response.Body.Close()
	text, err := io.ReadAll(response.Body)
	if err != nil {
		t.Fatal(err)
	}
	return response.StatusCode, string(text)
}

// post posts a configuration made by config to /load. When it returns, one
// configuration alone serves the site: the new one or, if that failed, the old.
func (g *gateway) post(t *testing.T, config []byte) (int, string) {
	t.Helper()
	status, text := admin(t, "POST", "/load", config)
	g.awaitTakeover(t)
	return status, text
}

func TestConfigurationByAdminAPI(t *testing.T) {
	g := serve(t, setup{})
	spent := good(t, g.url+"/")
	spent.send(t).expect(t, 200)

	g.loads++
	optional := g.config(t, setup{site: "{{DPOP}} mode optional\nreverse_proxy {{BACKEND}}"})
	if status, text := g.post(t, optional); status != 200 {
		t.Fatalf("loading: %d %s", status, text)
	}
	call{url: g.url}.send(t).expect(t, 401, "DPoP", "Bearer") // it has taken effect
	spent.send(t).expect(t, 401, "DPoP invalid_dpop_proof")   // and what was used stays used

	for _, row := range []struct{ old, new, setting string }{
		{`"mode":"optional"`, `"mode":"optinal"`, "mode"},
		{`"mode":"optional"`, `"moed":"strict"`, "moed"},
		{`"mode":"optional"`, `"MODE":"report"`, "MODE"},
		{`"mode":"optional"`, `"mode":"strict","Mode":"report"`, "Mode"},
		{`"mode":"optional"`, `"proof":{"Max_age":"1h"}`, "Max_age"},
		{`"mode":"optional"`, `"proof":null`, "proof"},
		{`"mode":"optional"`, `"claim_headers":[{"header":"X-A","PATH":"sub"}]`, "claim_headers[0].PATH"},
		{`"mode":"optional"`, `"required_claims":[{"path":"sub","value\u017f":["a"],"values":["b"]}]`, "required_claims[0].value"},
		{`"mode":"optional"`, `"max_auth_age":60`, "max_auth_age"},
		{`"issuer":"` + issuer.URL + `"`, `"issuer":"` + issuer.URL + `","introspection":{"client_id":"a","client_secret":"x{TOPSECRET}y"}`, "client_secret"},
		{`"mode":"optional"`, `"proof":{"max_age":"0s"}`, "proof.max_age"},
		{`"mode":"optional"`, `"proof":{"max_age":60}`, "proof.max_age"},
		{`"mode":"optional"`, `"clock_skew":10`, "clock_skew"},
		{`"audiences":["` + audience + `"]`, `"audiences":[]`, "audiences"},
		{`"audiences":["` + audience + `"]`, `"audiences":["*","x"]`, "audiences"},
		{`"issuer":"` + issuer.URL + `"`, `"issuer":"sso.example.com"`, "issuers[0].issuer"},
		{`"issuer":"` + issuer.URL + `"`, `"issuer":"http://sso.example.com"`, "issuers[0].issuer"},
		{`"issuer":"` + issuer.URL + `"`, `"issuer":"` + issuer.URL + `","jwks_file":"/nonexistent"`, "issuers[0].jwks_file"},
		{`"issuer":"` + issuer.URL + `"`, `"issuer":"` + issuer.URL + `","ca_files":["/nonexistent"]`, "issuers[0].ca_files"},
		{`"issuer":"` + issuer.URL + `"`, `"issuer":"` + issuer.URL + `","algorithms":["none"]`, "issuers[0].algorithms"},
		{`"issuer":"` + issuer.URL + `"`, `"issuer":"` + issuer.URL + `","profile":"rfc9069"`, "issuers[0].profile"},
		{`"mode":"optional"`, `"proof":{"algorithms":["HS256"]}`, "proof.algorithms"},
		{`"mode":"optional"`, `"proof":{"max_age":"-1s"}`, "proof.max_age"},
		{`"mode":"optional"`, `"clock_skew":"-1s"`, "clock_skew"},
		{`"mode":"optional"`, `"clock_skew":""`, "clock_skew"},
		{`"mode":"optional"`, `"max_auth_age":"300"`, "max_auth_age"},
		{`"issuer":"` + issuer.URL + `"`, `"issuer":"` + issuer.URL + `","timeout":"5"`, "issuers[0].timeout"},
		{`"issuer":"` + issuer.URL + `"`, `"issuer":"` + issuer.URL + `","introspection":{"auth":"none","client_certificate":{"certificate_file":"a"}}`, "client_certificate: is of no use"},
		{`"issuer":"` + issuer.URL + `"`, `"issuer":"` + issuer.URL + `","introspection":{"auth":"tls_client_auth","client_id":"a","client_certificate":{"certificate_file":"a"}}`, "client_certificate: needs both"},
		{`"mode":"optional"`, `"required_claims":[{"path":"sub","values":[""]}]`, "required_claims[0]"},
		{`"mode":"optional"`, `"replay":{"store":"rediss"}`, "rediss"},
		{`"mode":"optional"`, `"replay":{"store":"memory","max_entries":5}`, "replay.max_entries"}, // the other handler has the default
		{`"mode":"optional"`, `"nonce":{"mode":"sometimes"}`, "nonce.mode"},
		{`"mode":"optional"`, `"nonce":{"mode":"required","secrets":["{env.DPOP_TEST_TOPSECRET}"]}`, "nonce.secrets"},
		{`"mode":"optional"`, `"nonce":{"mode":"required","secrets":["TOPSECRET"]}`, "nonce.secrets"},
		{`"mode":"optional"`, `"nonce":{"mode":"required","lifetime":300}`, "nonce.lifetime"},
		{`"mode":"optional"`, `"public_urls":["api.example.com"]`, "public_urls[0]"},
		{`"mode":"optional"`, `"forwarded_host":true,"public_urls":["https://api.example.com"]`, "forwarded_host"},
		{`"mode":"optional"`, `"upstream_token":"basic"`, "upstream_token"},
		{`"mode":"optional"`, `"claim_headers":[{"header":"Host","path":"sub"}]`, "claim_headers[0]"},
		{`"mode":"optional"`, `"claim_headers":[{"header":"X-A","path":"sub"},{"header":"x-a","path":"sub"}]`, "claim_headers[1]"},
		{`"mode":"optional"`, `"cors":{"origins":["https://a.example/"]}`, "cors.origins"},
		{`"mode":"optional"`, `"cors":{"origins":["a.example"]}`, "cors.origins"},
		{`"mode":"optional"`, `"cors":{"origins":["https://A.example"]}`, "cors.origins"},
		{`"mode":"optional"`, `"cors":{"origins":["https://a.example:443"]}`, "cors.origins"},
		{`"mode":"optional"`, `"cors":{"origins":["*","https://a.example"]}`, "cors.origins"},
		{`"mode":"optional"`, `"cors":{"origins":["null"]}`, "cors.origins"},
		{`"mode":"optional"`, `"realm":"{env.DPOP_TEST_NO_SUCH}"`, "realm"},
		{`"mode":"optional"`, `"realm":"{no.such}"`, "realm"},
	} {
		bad := strings.Replace(string(optional), row.old, row.new, 1)
		if bad == string(optional) {
			t.Fatalf("%s: nothing to replace in %s", row.old, optional)
		}
		status, text := g.post(t, []byte(bad))
		if status == 200 || !strings.Contains(text, row.setting) || strings.Contains(text, "TOPSECRET") {
			t.Errorf("%s: answered %d %s", row.new, status, text)
		}
		// the old one goes on serving
		call{url: g.url}.send(t).expect(t, 401, "DPoP", "Bearer")
	}
	spent.send(t).expect(t, 401, "DPoP invalid_dpop_proof")
	good(t, g.url+"/").send(t).expect(t, 200)
}

// Every JSON key that the contract has so far is known, and means what it says.
func TestEveryJSONKey(t *testing.T) {
	g := serve(t, setup{})
	g.loads++
	var config map[string]any
	if err := json.Unmarshal(g.config(t, setup{alone: true, site: "{{DPOP}}\nreverse_proxy {{BACKEND}}"}), &config); err != nil {
		t.Fatal(err)
	}
	text, err := json.Marshal(config)
	if err != nil {
		t.Fatal(err)
	}
	handler := `{"handler":"dpop","name":"n","mode":"strict","issuers":[{"issuer":"` + issuer.URL + `","audiences":["` + audience + `"],` +
		`"discovery_url":"","jwks_url":"` + issuer.URL + `/jwks","jwks_file":"","algorithms":["ES256"],"token_types":["application/AT+JWT"],` +
		`"profile":"","allow_http":false,"ca_files":[],"timeout":"5s",` +
		`"introspection":{"url":"` + issuer.URL + `/introspect","tokens":"opaque","client_id":"a","client_secret":"b","auth":"client_secret_basic","private_key_file":"",` +
		`"client_certificate":{"certificate_file":"","key_file":""},"bearer_token":"","signed_response":false,"cache":"10s","max_in_flight":64}}],"audiences":[],"clock_skew":"10s",` +
		`"proof":{"algorithms":["ES256"],"max_age":"60s"},"nonce":{"mode":"off","lifetime":"5m","secrets":[],"per_process":false},"replay":{"store":"memory","max_entries":10000000,"persist":""},` +
		`"required_scopes":[],"required_claims":[],"required_acr":[],"max_auth_age":"0s",` +
		`"public_urls":[],"forwarded_host":false,"upstream_token":"bearer","claim_headers":[],"cors":{"origins":[]},"realm":"r \"x\""}`
	start := bytes.Index(text, []byte(`{"audiences"`))
	end := start + bytes.Index(text[start:], []byte(`]}`)) + 2
	text = []byte(string(text[:start]) + handler + string(text[end:]))
	if status, answer := g.post(t, text); status != 200 {
		t.Fatalf("loading: %d %s\n%s", status, answer, text)
	}
	good(t, g.url+"/").send(t).expect(t, 200)
	a := call{url: g.url}.send(t)
	if got := a.Header.Get("WWW-Authenticate"); got != `DPoP realm="r \"x\"", algs="ES256"` {
		t.Errorf("challenge %q", got)
	}
}

// A configuration that fails to load after its apps were started leaves the
// running one as it was.
func TestFailedLoadChangesNothing(t *testing.T) {
	g := serve(t, setup{alone: true})
	taken, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer taken.Close()
	for range 10 { // apps start in any order
		bad := g.config(t, setup{alone: true, address: "http://" + taken.Addr().String(), site: "{{DPOP}} replay memory {; max_entries 1;}"})
		if status, text := g.post(t, bad); status == 200 {
			t.Fatalf("loaded: %s", text)
		}
		for range 3 {
			good(t, g.url+"/").send(t).expect(t, 200)
		}
	}
}

// A flood of refusals for one reason hides no other.
func TestFloodHidesNoReason(t *testing.T) {
	g := serve(t, setup{})
	for range 400 {
		call{url: g.url}.send(t)
	}
	call{url: g.url, header: http.Header{"Authorization": {"DPoP x"}, "Dpop": {"x"}}}.send(t)
	await(t, g.logs, func(e entry) bool { return e["reason"] == "proof_malformed" })
}

// Under load, each reload with something changed: no proof is accepted twice,
// none is revived, and none is refused that is fresh. Nothing is left behind, and
// keys are not fetched again.
func TestReloadsUnderLoad(t *testing.T) {
	const reloads = 50
	issuerURL, err := url.Parse(issuer.URL)
	if err != nil {
		t.Fatal(err)
	}
	var fetches atomic.Int32
	keys := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		fetches.Add(1)
		httputil.NewSingleHostReverseProxy(issuerURL).ServeHTTP(w, r)
	}))
	defer keys.Close()
	g := serve(t, setup{alone: true, site: "{{DPOP}} replay off"}) // lets go of the other tests' store
	load := func(n int) {
		settings := []string{
			"proof {\nmax_age 30s\n}", "proof {\nmax_age 2m\n}", "mode optional", "clock_skew 30s", "nonce on_skew", "nonce required",
			"nonce required {\nlifetime 1m\n}", "replay memory {\nmax_entries 20000\n}", "replay memory {\nmax_entries 30000\n}", "upstream_token none",
		}[n%10]
		g.load(t, setup{alone: true, site: fmt.Sprintf("dpop {\nissuer %s {\njwks_url %s/jwks\n}\naudience %s\nrealm r%d\n%s\n}\nreverse_proxy {{BACKEND}} {\ntransport http {\nkeepalive off\n}\n}",
			issuer.URL, keys.URL, audience, n, settings)})
		if got := (call{url: g.url}.send(t)).Header.Get("WWW-Authenticate"); !strings.Contains(got, fmt.Sprintf(`realm="r%d"`, n)) {
			t.Errorf("reload %d has not taken effect: challenge %q", n, got)
		}
	}
	load(0)
	restartedStore()
	good(t, g.url+"/").send(t).expect(t, 200)
	idle := runtime.NumGoroutine()
	stop := make(chan struct{})
	var wait sync.WaitGroup
	var sent atomic.Int32
	spent := make(chan call, 1<<16)
	for range 4 {
		wait.Go(func() {
			for {
				select {
				case <-stop:
					return
				default:
				}
				c, answer, err := freshCall(t, g.url+"/")
				// Linux resets what waits at a listener that a reload closes:
				// such a proof may be spent or not
				switch {
				case err != nil:
					continue
				case answer.StatusCode != 200:
					t.Errorf("a fresh proof was answered %d: %q", answer.StatusCode, answer.Header["Www-Authenticate"])
					return
				}
				if status, err := c.try(); err == nil && status != 401 {
					t.Errorf("a replay was answered %d", status)
					return
				}
				sent.Add(1)
				spent <- c
			}
		})
	}
	for n := 1; n <= reloads; n++ {
		load(n)
		time.Sleep(20 * time.Millisecond)
	}
	close(stop)
	wait.Wait()
	close(spent)
	if sent.Load() < reloads {
		t.Fatalf("only %d requests were sent", sent.Load())
	}
	load(reloads + 1)
	for c := range spent {
		if a := c.send(t); a.StatusCode != 401 {
			t.Fatalf("a spent proof was answered %d after the reloads", a.StatusCode)
		}
	}
	if n := fetches.Load(); n != 1 {
		t.Errorf("the key set was fetched %d times", n)
	}
	for deadline := time.Now().Add(10 * time.Second); runtime.NumGoroutine() > idle+20; time.Sleep(50 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("%d goroutines after the reloads, %d before", runtime.NumGoroutine(), idle)
		}
	}
	g.load(t, setup{})
	restartedStore()
}

// freshCall sends a good request, as a client that knows nonces does, and returns
// what it sent last, and the answer's head.
func freshCall(t *testing.T, url string) (call, *http.Response, error) {
	c := good(t, url)
	answer, err := c.do(plainClient)
	if err != nil {
		return c, nil, err
	}
	_ = answer.Body.Close()
	// Twice: a request that is under way while its configuration goes may be asked again.
	for range 2 {
		nonce := answer.Header.Get("DPoP-Nonce")
		if answer.StatusCode != 401 || nonce == "" {
			break
		}
		c = proven(t, url, map[string]any{"nonce": nonce})
		if answer, err = c.do(plainClient); err != nil {
			return c, nil, err
		}
		_ = answer.Body.Close()
	}
	return c, answer, nil
}

// The store begins to record when a reload brings it in: what was made before
// it cannot judge.
func TestStoreBroughtInByReload(t *testing.T) {
	g := serve(t, setup{alone: true, site: "{{DPOP}} replay off\nreverse_proxy {{BACKEND}}"})
	c := good(t, g.url+"/")
	c.send(t).expect(t, 200)
	c.send(t).expect(t, 200)
	await(t, g.logs, func(e entry) bool {
		return e["level"] == "warn" && strings.HasPrefix(e["msg"].(string), "replay is off")
	})
	g.load(t, setup{})
	a := c.send(t)
	a.expect(t, 503)
	if a.Header.Get("Retry-After") != "1" {
		t.Errorf("Retry-After %q", a.Header.Get("Retry-After"))
	}
	restartedStore()
	c.send(t).expect(t, 503)
	good(t, g.url+"/").send(t).expect(t, 200)
}

// A store that is gone back to does not know what another accepted meanwhile, though
// its file has all that itself did.
func TestStoreLeftAndBroughtBack(t *testing.T) {
	const site = "{{DPOP}} replay %s\nreverse_proxy {{BACKEND}}"
	memory := setup{alone: true, site: fmt.Sprintf(site, "memory {; persist "+filepath.Join(t.TempDir(), "proofs")+";}")}
	g := serve(t, memory)
	restartedStore()
	before, unused := good(t, g.url+"/"), good(t, g.url+"/")
	before.send(t).expect(t, 200)
	g.load(t, setup{alone: true, site: fmt.Sprintf(site, "off")})
	meanwhile := good(t, g.url+"/")
	meanwhile.send(t).expect(t, 200)
	g.load(t, memory)
	for range 2 {
		meanwhile.send(t).expect(t, 503)
		unused.send(t).expect(t, 503)
		before.send(t).expect(t, 401, "DPoP invalid_dpop_proof") // the file has it
		restartedStore()
		good(t, g.url+"/").send(t).expect(t, 200)
	}
	// without another between them, a reload takes nothing away
	unused = good(t, g.url+"/")
	memory.site += "\n# changed"
	g.load(t, memory)
	unused.send(t).expect(t, 200)
}

// A configuration that accepts proofs without the store, but fails to load, leaves
// behind it a store that knows nothing of them.
func TestStoreBypassedByAFailedLoad(t *testing.T) {
	g := serve(t, setup{alone: true})
	unused := good(t, g.url+"/")
	taken, err := net.Listen("tcp", "127.0.0.1:0") // where the other cannot listen
	if err != nil {
		t.Fatal(err)
	}
	defer taken.Close()
	bypassing := setup{alone: true, site: "{{DPOP}} replay off\nreverse_proxy {{BACKEND}}\n}\nhttp://" + taken.Addr().String() + " {\nbind 127.0.0.1"}
	began := false
	for range 20 { // apps start in any order
		if status, text := g.post(t, g.config(t, bypassing)); status == 200 {
			t.Fatalf("loaded: %s", text)
		}
		if began = unused.send(t).StatusCode == 503; began {
			break
		}
		unused = good(t, g.url+"/")
	}
	if !began {
		t.Fatal("no load got so far that it began")
	}
	unused.send(t).expect(t, 503)
	restartedStore()
	good(t, g.url+"/").send(t).expect(t, 200)
}

// A configuration whose store has a file, but that fails to load, leaves behind it a
// file that does not pass for all: the one that goes on accepts proofs without it.
func TestStoreOfAFailedLoad(t *testing.T) {
	const site = "{{DPOP}} replay %s\nreverse_proxy {{BACKEND}}"
	g := serve(t, setup{alone: true, site: fmt.Sprintf(site, "off")})
	taken, err := net.Listen("tcp", "127.0.0.1:0") // where the other cannot listen
	if err != nil {
		t.Fatal(err)
	}
	defer taken.Close()
	file := filepath.Join(t.TempDir(), "proofs")
	bad := setup{alone: true, site: fmt.Sprintf(site, "memory {; persist "+file+";}") + "\n}\nhttp://" + taken.Addr().String() + " {\nbind 127.0.0.1"}
	for range 20 { // apps start in any order
		if status, text := g.post(t, g.config(t, bad)); status == 200 {
			t.Fatalf("loaded: %s", text)
		}
		if _, err := os.Stat(file); err == nil {
			break
		}
	}
	good(t, g.url+"/").send(t).expect(t, 200)
	restarted := replay.NewMemory(10)
	restored, release, err := restarted.Persist(file)
	if err != nil {
		t.Fatal(err)
	}
	defer restarted.Close()
	defer release()
	if restored.Lost == nil {
		t.Error("the file passes for all that was accepted")
	}
}

func TestStoreIsBounded(t *testing.T) {
	const full = "{{DPOP}} proof {; max_age 1s;}; clock_skew 0s; replay memory {; max_entries 3;}\nreverse_proxy {{BACKEND}}"
	g := serve(t, setup{alone: true, site: "{{DPOP}} replay off"}) // lets go of the other tests' store
	g.load(t, setup{alone: true, site: full})
	restartedStore()
	var calls []call
	for len(calls) < 3 {
		c := good(t, g.url+"/")
		c.send(t).expect(t, 200)
		calls = append(calls, c)
	}
	a := good(t, g.url+"/").send(t)
	a.expect(t, 503)
	if a.Header.Get("Retry-After") == "" {
		t.Error("no Retry-After")
	}
	for _, c := range calls {
		if a := c.send(t); a.StatusCode == 200 {
			t.Error("an entry was evicted")
		}
	}
	// when the entries' time is over there is room again
	for deadline := time.Now().Add(10 * time.Second); ; time.Sleep(50 * time.Millisecond) {
		if good(t, g.url+"/").send(t).StatusCode == 200 {
			break
		}
		if time.Now().After(deadline) {
			t.Fatal("the store stayed full")
		}
	}
	// a larger bound counts from the reload on
	g.load(t, setup{alone: true, site: strings.Replace(full, "max_entries 3", "max_entries 100", 1)})
	for range 20 {
		good(t, g.url+"/").send(t).expect(t, 200)
	}
	g.load(t, setup{})
	restartedStore()
}
