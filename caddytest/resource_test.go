package caddytest

import (
	"encoding/json"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"
)

// What is published needs no credentials, also where the directive's matcher
// leaves it out, and challenges say where it is.
func TestResource(t *testing.T) {
	key := filepath.Join(t.TempDir(), "key.json")
	const private = `{"kty":"EC","crv":"P-256","x":"f83OJ3D2xF1Bg8vub9tLe1gHMzV76e8Tus9uPHvRVEU","y":"x_FEzRu9m36HLN_tue659LNpXW6pCyStikYjKIWI5a0","d":"jpsQnnGQmL-YBIffH1136cspYG6-0iY7X1fCE9-E9LI"%s}`
	write := func(kid string) {
		t.Helper()
		if err := os.WriteFile(key, []byte(strings.Replace(private, "%s", `,"kid":"`+kid+`"`, 1)), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	write("one")
	site := func(matcher string) string {
		return "dpop " + matcher + " {\nissuer " + issuer.URL + " {\nintrospection {\nauth private_key_jwt\nclient_id gateway\nprivate_key " + key + "\n}\n}\naudience " + audience +
			"\nresource https://api.example.com/v1 {\nname Orders\ndocumentation https://docs.example.com\nscopes read write\njwks /gateway/keys\n}\n}\nreverse_proxy {{BACKEND}}"
	}
	g := serve(t, setup{site: site("")})
	const document = "/.well-known/oauth-protected-resource/v1"
	get := func(path string) (map[string]any, answer) {
		t.Helper()
		a := call{url: g.url + path, header: http.Header{"Origin": {"https://any.example"}}}.send(t)
		var body map[string]any
		if err := json.Unmarshal([]byte(a.text), &body); err != nil || a.StatusCode != 200 {
			t.Fatalf("%s: answered %d %q", path, a.StatusCode, a.text)
		}
		if a.Header.Get("Access-Control-Allow-Origin") != "*" {
			t.Errorf("%s: not for any origin", path)
		}
		return body, a
	}
	for _, matcher := range []string{"", "/v1/*"} {
		g.load(t, setup{site: site(matcher)})
		body, a := get(document)
		for name, want := range map[string]string{
			"resource":                          `"https://api.example.com/v1"`,
			"authorization_servers":             `["` + issuer.URL + `"]`,
			"bearer_methods_supported":          `["header"]`,
			"dpop_signing_alg_values_supported": `["ES256","PS256","RS256","EdDSA","Ed25519"]`,
			"dpop_bound_access_tokens_required": `true`,
			"scopes_supported":                  `["read","write"]`,
			"resource_name":                     `"Orders"`,
			"resource_documentation":            `"https://docs.example.com"`,
			"jwks_uri":                          `"https://api.example.com/gateway/keys"`,
		} {
			if got, _ := json.Marshal(body[name]); string(got) != want {
				t.Errorf("%s: got %s, want %s", name, got, want)
			}
		}
		if a.Header.Get("Content-Type") != "application/json" {
			t.Errorf("type %q", a.Header.Get("Content-Type"))
		}
		if a := (call{method: "HEAD", url: g.url + document}).send(t); a.StatusCode != 200 || a.text != "" {
			t.Errorf("HEAD: answered %d %q", a.StatusCode, a.text)
		}
		g.backend.none(t)
		want := `DPoP ` + algs + `, resource_metadata="https://api.example.com` + document + `"`
		if got := (call{url: g.url + "/v1/x"}).send(t).Header.Get("WWW-Authenticate"); got != want {
			t.Errorf("challenge %q, want %q", got, want)
		}
	}
	// what the matcher leaves out otherwise is left alone
	if a := (call{url: g.url + "/open"}).send(t); a.StatusCode != 200 {
		t.Errorf("answered %d", a.StatusCode)
	}
	g.backend.one(t)

	// the keys are public halves, as the file now has them
	kids := func() []string {
		t.Helper()
		body, a := get("/gateway/keys")
		if strings.Contains(a.text, `"d"`) || a.Header.Get("Content-Type") != "application/jwk-set+json" {
			t.Fatalf("published %s", a.text)
		}
		var all []string
		for _, k := range body["keys"].([]any) {
			all = append(all, k.(map[string]any)["kid"].(string))
		}
		return all
	}
	if got := kids(); !slices.Equal(got, []string{"one"}) {
		t.Errorf("keys %q", got)
	}
	write("another")
	for deadline := time.Now().Add(5 * time.Second); !slices.Equal(kids(), []string{"another"}); time.Sleep(100 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatal("the old key is still published")
		}
	}

	// optional mode does not say that tokens must be bound
	g.load(t, setup{site: "{{DPOP}} mode optional; resource https://api.example.com\nreverse_proxy {{BACKEND}}"})
	if body, _ := get("/.well-known/oauth-protected-resource"); body["dpop_bound_access_tokens_required"] != nil || body["jwks_uri"] != nil {
		t.Errorf("optional: %v", body)
	}
	// RFC 9728 §3.1: only a slash that directly follows the host goes.
	for identifier, path := range map[string]string{"https://api.example.com/": "", "https://api.example.com/v1/": "/v1/", "https://api.example.com//": "//"} {
		g.load(t, setup{site: "{{DPOP}} resource " + identifier + "\nreverse_proxy {{BACKEND}}"})
		if body, _ := get("/.well-known/oauth-protected-resource" + path); body["resource"] != identifier {
			t.Errorf("%s: at %q is %v", identifier, path, body)
		}
	}
	// and any other way to ask needs credentials
	if a := (call{method: "POST", url: g.url + "/.well-known/oauth-protected-resource"}).send(t); a.StatusCode != 401 {
		t.Errorf("POST: answered %d", a.StatusCode)
	}
}

// The example for what is published also where the handler gets only a part of the
// requests, as it stands.
func TestResourceInHandlePath(t *testing.T) {
	text, err := os.ReadFile("../examples/resource/Caddyfile")
	if err != nil {
		t.Fatal(err)
	}
	key := filepath.Join(t.TempDir(), "gateway.pem")
	writeKey(t, key)
	_, snippet, _ := strings.Cut(string(text), "\n(dpop) {\n")
	snippet, site, _ := strings.Cut(snippet, "\napi.example.com {\n\tlog\n")
	change := strings.NewReplacer("https://sso.example.com/realms/main", issuer.URL, "gateway.pem", key, "backend:8080", "{{BACKEND}}")
	g := serve(t, setup{named: change.Replace("(dpop) {\n" + snippet), site: change.Replace(strings.TrimSuffix(site, "}\n"))})
	const metadata = "/.well-known/oauth-protected-resource/v1"
	var document struct {
		Resource string
		JWKSURI  string `json:"jwks_uri"`
	}
	a := call{url: g.url + metadata}.send(t)
	if err := json.Unmarshal([]byte(a.text), &document); err != nil || a.StatusCode != 200 || document.Resource != "https://api.example.com/v1" || document.JWKSURI != "https://api.example.com/gateway-keys" {
		t.Errorf("the metadata: %d %s", a.StatusCode, a.text)
	}
	if a := (call{url: g.url + "/gateway-keys"}).send(t); a.StatusCode != 200 || !strings.Contains(a.text, `"kid"`) {
		t.Errorf("the keys: %d %s", a.StatusCode, a.text)
	}
	a = call{url: g.url + "/v1/orders"}.send(t)
	if want := `resource_metadata="https://api.example.com` + metadata + `"`; a.StatusCode != 401 || !strings.Contains(a.Header.Get("WWW-Authenticate"), want) {
		t.Errorf("without credentials: %d %q", a.StatusCode, a.Header.Get("WWW-Authenticate"))
	}
	for _, path := range []string{metadata, "/gateway-keys"} {
		if a := (call{method: "POST", url: g.url + path}).send(t); a.StatusCode != 401 {
			t.Errorf("POST %s: answered %d", path, a.StatusCode)
		}
	}
	g.backend.none(t)
	good(t, g.url+"/v1/orders").send(t).expect(t, 200)
	if got := g.backend.one(t); got.uri != "/orders" {
		t.Errorf("the backend got %s", got.uri)
	}
}
