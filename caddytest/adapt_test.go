package caddytest

import (
	"bytes"
	"encoding/json"
	"flag"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/caddyserver/caddy/v2"
	"github.com/caddyserver/caddy/v2/caddyconfig"
)

var update = flag.Bool("update", false, "write what is adapted into testdata/adapt and the JSON twins of the examples")

// adapt returns the JSON that a Caddyfile is adapted to, for people, or the error.
func adapt(t *testing.T, text string) (string, bool) {
	t.Helper()
	config, warnings, err := caddyconfig.GetAdapter("caddyfile").Adapt([]byte(text), map[string]any{"filename": "Caddyfile"})
	if err != nil {
		return err.Error() + "\n", false
	}
	if len(warnings) > 0 {
		t.Errorf("warnings: %v", warnings)
	}
	var pretty bytes.Buffer
	if err := json.Indent(&pretty, config, "", "\t"); err != nil {
		t.Fatal(err)
	}
	return pretty.String() + "\n", true
}

const separator = "----------\n"

// Each file holds a Caddyfile, a line of dashes, and its JSON or the error.
func TestAdapt(t *testing.T) {
	files, err := filepath.Glob("testdata/adapt/*.txt")
	if err != nil || len(files) < 10 {
		t.Fatalf("%d files, %v", len(files), err)
	}
	for _, file := range files {
		t.Run(strings.TrimSuffix(filepath.Base(file), ".txt"), func(t *testing.T) {
			text, err := os.ReadFile(file)
			if err != nil {
				t.Fatal(err)
			}
			caddyfile, want, ok := strings.Cut(string(text), separator)
			if !ok && !*update {
				t.Fatal("no line of dashes")
			}
			got, _ := adapt(t, caddyfile)
			if *update {
				if err := os.WriteFile(file, []byte(caddyfile+separator+got), 0o600); err != nil {
					t.Fatal(err)
				}
				return
			}
			if got != want {
				t.Errorf("got\n%s\nwant\n%s", got, want)
			}
		})
	}
}

// Each wrong line is an error that names the setting and the line. In the rows
// it stands alone in a handler that has an issuer and an audience.
func TestWrongSettings(t *testing.T) {
	for _, row := range []struct{ line, setting string }{
		{"foo", "foo"},
		{"mode stict", "mode"},
		{"mode", "mode"},
		{"mode strict optional", "mode"},
		{"mode strict\nmode strict", "mode"},
		{"audience x", "audience"},
		{"issuer https://sso.example.com", "issuer"}, // repeated
		{"issuer https://b.example {\nfoo\n}", "foo"},
		{"issuer https://b.example {\njwks_url http://b.example/jwks\n}", "jwks_url"},
		{"issuer https://b.example {\ndiscovery_url ftp://b.example\n}", "discovery_url"},
		{"issuer https://b.example {\njwks_url https://b.example/jwks\njwks_file x\n}", "jwks_url"},
		{"issuer https://b.example {\ntimeout 0s\n}", "timeout"},
		{"issuer https://b.example {\ntimeout soon\n}", "timeout"},
		{"issuer https://b.example {\nalgorithms RS256 HS256\n}", "algorithms"},
		{"issuer https://b.example {\nalgorithms RS256 RS256\n}", "algorithms"},
		{"issuer https://b.example {\nprofile x\n}", "profile"},
		{"issuer https://b.example {\nprofile rfc9068\ntoken_types JWT\n}", "token_types"},
		{"issuer https://b.example {\nallow_http yes\n}", "allow_http"},
		{"issuer https://b.example {\naudience * x\n}", "audience"},
		{"issuer https://b.example {\nca\n}", "ca"},
		{"issuer http://b.example", "issuer"},
		{"issuer b.example", "issuer"},
		{"issuer https://b.example?x", "issuer"},
		{"issuer", "issuer"},
		{"issuer https://b.example {\ndiscovery_url https://b.example/x\njwks_url https://b.example/jwks\n}", "discovery_url"},
		{"issuer https://b.example {\nintrospection {\ntokens some\nauth none\n}\n}", "tokens"},
		{"issuer https://b.example {\nintrospection {\nclient_id a\n}\n}", "client_secret"},
		{"issuer https://b.example {\nintrospection {\nclient_secret a\n}\n}", "client_id"},
		{"issuer https://b.example {\nintrospection {\nclient_id a\nclient_secret b\nauth basic\n}\n}", "auth"},
		{"issuer https://b.example {\nintrospection {\nclient_id a\nauth private_key_jwt\n}\n}", "private_key"},
		{"issuer https://b.example {\nintrospection {\nclient_id a\nclient_secret b\nprivate_key c\n}\n}", "private_key"},
		{"issuer https://b.example {\nintrospection {\nclient_id a\nauth tls_client_auth\n}\n}", "client_cert"},
		{"issuer https://b.example {\nintrospection {\nclient_id a\nauth tls_client_auth\nclient_cert a\n}\n}", "client_cert"},
		{"issuer https://b.example {\nintrospection {\nauth bearer\n}\n}", "bearer_token"},
		{"issuer https://b.example {\nintrospection {\nauth none\nbearer_token a\n}\n}", "bearer_token"},
		{"issuer https://b.example {\nintrospection {\nauth none\nsigned_response\n}\n}", "client_id"},
		{"issuer https://b.example {\nintrospection {\nauth none\ncache -1s\n}\n}", "cache"},
		{"issuer https://b.example {\nintrospection {\nauth none\nmax_in_flight 0\n}\n}", "max_in_flight"},
		{"issuer https://b.example {\nintrospection http://b.example/i {\nauth none\n}\n}", "introspection"},
		{"issuer https://b.example {\nintrospection https://b.example/i x\n}", "introspection"},
		{"issuer https://b.example {\nintrospection {\nauth none\n}\n}\nissuer https://c.example {\nintrospection {\nauth none\n}\n}", "introspection"},
		{"clock_skew -1s", "clock_skew"},
		{"clock_skew 48h", "clock_skew"},
		{"clock_skew x", "clock_skew"},
		{"proof {\nmax_age 0s\n}", "max_age"},
		{"proof {\nmax_age -1s\n}", "max_age"},
		{"proof {\nmax_age 25h\n}", "max_age"},
		{"proof {\nalgorithms none\n}", "algorithms"},
		{"proof x {\nmax_age 1s\n}", "proof"},
		{"proof {\nfoo\n}", "foo"},
		{"replay", "replay"},
		{"replay rediss", "replay"},
		{"replay memory x", "memory"},
		{"replay memory {\nmax_entries 0\n}", "max_entries"},
		{"replay memory {\nmax_entries 1.5\n}", "max_entries"},
		{"replay memory {\nfoo\n}", "foo"},
		{"replay off {\nmax_entries 5\n}", "max_entries"},
		{"replay off\nreplay memory", "replay"},
		{"public_url api.example.com", "public_url"},
		{"public_url https://api.example.com?x", "public_url"},
		{"public_url https://a@api.example.com", "public_url"},
		{"public_url https://api.example.com https://API.example.com:443/", "public_url"},
		{"forwarded_host\npublic_url https://api.example.com", "forwarded_host"},
		{"upstream_token basic", "upstream_token"},
		{"claim_header X-A", "claim_header"},
		{"claim_header X-A sub\nclaim_header x-a sub", "claim_header"},
		{"claim_header Authorization sub", "claim_header"},
		{"claim_header X_A sub", "claim_header"},
		{"claim_header X:A sub", "claim_header"},
		{"require_scope", "require_scope"},
		{"require_scope \"a b\"", "require_scope"},
		{"require_scope a\nrequire_scope a", "require_scope"},
		{"require_claim a", "require_claim"},
		{"require_acr \"a b\"", "require_acr"},
		{"require_acr a\nrequire_acr b", "require_acr"},
		{"max_auth_age 0s", "max_auth_age"},
		{"max_auth_age x", "max_auth_age"},
		{"resource", "resource"},
		{"resource api.example.com", "resource"},
		{"resource http://api.example.com", "resource"},
		{"resource https://api.example.com?x", "resource"},
		{"resource https://api.example.com {\nfoo\n}", "foo"},
		{"resource https://api.example.com {\nscopes a a\n}", "scopes"},
		{"resource https://api.example.com {\ndocumentation docs\n}", "documentation"},
		{"resource https://api.example.com {\njwks /keys\n}", "jwks"},
		{"realm \"a\tb\"", "realm"},
		{"name \"\"", "name"},

		// what a variable of the environment that is not set leaves
		{"nonce \"\"", "nonce"},
		{"nonce \"\" {\nper_process\n}", "nonce"},
		{"require_claim a \"\"", "require_claim"},
		{"require_claim \"\" a", "require_claim"},
		{"claim_header X-A \"\"", "claim_header"},
		{"issuer https://b.example.com {\nintrospection \"\" {\nclient_id a\nclient_secret b\n}\n}", "introspection"},
		{"issuer https://b.example.com {\nintrospection https://b.example.com/i {\nclient_id a\nauth tls_client_auth\nclient_cert \"\" \"\"\n}\n}", "client_cert"},

		// and no error repeats a secret
		{"nonce required hunter2-hunter2-hunter2-hunter2-hunter2", "nonce"},
		{"issuer https://b.example.com {\nintrospection https://b.example.com/i {\nclient_secret hunter2 b\n}\n}", "client_secret"},
		{"public_url https://u:hunter2@api.example.com", "public_url"},
		{"public_url https://api.example.com?key=hunter2", "public_url"},
		{"cors https://u:hunter2@api.example.com", "cors"},
	} {
		text := "localhost\ndpop {\nissuer https://sso.example.com\naudience https://api.example.com\n" + row.line + "\n}\n"
		got, ok := adapt(t, text)
		if ok {
			t.Errorf("%q was accepted", row.line)
			continue
		}
		if !strings.Contains(got, row.setting) || !strings.Contains(strings.ToLower(got), "caddyfile:") || strings.Contains(got, "hunter2") {
			t.Errorf("%q: the error does not name the setting and the line: %s", row.line, got)
		}
	}
	if got, ok := adapt(t, "localhost\ndpop \"\" {\nissuer https://sso.example.com\naudience *\n}\n"); ok || !strings.Contains(got, "mode: an empty value") {
		t.Errorf("an empty mode: %s", got)
	}
}

// Where the route of what is published must be known, the error is at the setting.
func TestResourceWithMatcher(t *testing.T) {
	got, ok := adapt(t, "localhost\ndpop /api/* {\nissuer https://sso.example.com\naudience *\nresource {env.RESOURCE}\nname a\n}\n")
	if ok || !strings.Contains(got, "resource: with a matcher") || !strings.Contains(got, "Caddyfile:5") {
		t.Errorf("%s", got)
	}
}

// A placeholder is not judged before it has a value, and then it is.
func TestPlaceholdersInSettings(t *testing.T) {
	const text = `http://127.0.0.1:{{PORT}}
dpop {
	mode {env.DPOP_TEST_MODE}
	issuer https://sso.example.com {
		jwks_file {env.DPOP_TEST_FILE}
	}
	audience {env.DPOP_TEST_AUDIENCE}
}
`
	dir := t.TempDir()
	keys := filepath.Join(dir, "keys.json")
	unusable := filepath.Join(dir, "unusable.json")
	for file, text := range map[string]string{keys: `{"keys":[` + string(clientKey.Public) + `]}`, unusable: `{"keys":[{"kty":"AKP"}]}`} {
		if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	config, ok := adapt(t, strings.Replace(text, "{{PORT}}", freePort(), 1))
	if !ok {
		t.Fatal(config)
	}
	for _, row := range []struct{ mode, file, audience, want string }{
		{"strict", keys, "x", ""},
		{"", keys, "x", "mode"},
		{"{report", keys, "x", "mode"},
		{"strict", keys + ".missing", "x", "jwks_file"},
		{"strict", unusable, "x", "jwks_file"},
		{"strict", keys, "", "audiences[0]"},
	} {
		t.Setenv("DPOP_TEST_MODE", row.mode)
		t.Setenv("DPOP_TEST_FILE", row.file)
		t.Setenv("DPOP_TEST_AUDIENCE", row.audience)
		err := caddy.Validate(decoded(t, config))
		if row.want == "" && err != nil || row.want != "" && (err == nil || !strings.Contains(err.Error(), row.want)) {
			t.Errorf("%+v: %v", row, err)
		}
	}
	left, err := os.ReadDir(dir)
	if err != nil || len(left) != 2 {
		t.Errorf("validating wrote something: %v %v", left, err)
	}
}

func decoded(t *testing.T, text string) *caddy.Config {
	t.Helper()
	config := new(caddy.Config)
	if err := json.Unmarshal([]byte(text), config); err != nil {
		t.Fatal(err)
	}
	return config
}
