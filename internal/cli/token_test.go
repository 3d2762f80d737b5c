package cli

import (
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"github.com/caddy-dpop/caddy-dpop/internal/devissuer"
	"github.com/caddy-dpop/caddy-dpop/internal/jose"
	"github.com/caddy-dpop/caddy-dpop/internal/token"
)

func TestToken(t *testing.T) {
	name, key := newKey(t)
	issuer, err := devissuer.Start(jose.AllAlgorithms().Find("ES256"), "https://api.example.com")
	if err != nil {
		t.Fatal(err)
	}
	defer issuer.Stop()
	for range 2 {
		text := execute("", "token", "--issuer", issuer.URL, "--client-id", "me", "--key", name, "--scope", "a b", "--resource", "https://r.example").want(t)
		parsed, f := token.Parse(strings.TrimSuffix(text, "\n"))
		if f != nil {
			t.Fatal(f)
		}
		if f := token.CheckBinding(key.Thumbprint, parsed.Claims()); f != nil {
			t.Error(f)
		}
		for name, want := range map[string]string{"client_id": "me", "scope": "a b", "aud": "https://r.example"} {
			value, _ := parsed.Claims().Get(name)
			if got, _ := value.Text(); got != want {
				t.Errorf("%s is %q, want %q", name, got, want)
			}
		}
		issuer.DemandNonces()
	}
}

// fakeIssuer answers token requests.
func fakeIssuer(t *testing.T, answer http.HandlerFunc) string {
	t.Helper()
	mux := http.NewServeMux()
	ts := httptest.NewServer(mux)
	t.Cleanup(ts.Close)
	mux.HandleFunc("GET /.well-known/openid-configuration", func(w http.ResponseWriter, _ *http.Request) {
		_, _ = io.WriteString(w, `{"issuer":"`+ts.URL+`","token_endpoint":"`+ts.URL+`/token"}`)
	})
	mux.HandleFunc("POST /token", answer)
	return ts.URL
}

// The secret comes from a flag, from standard input or from the environment, and
// is shown in the way that is asked for.
func TestTokenSecret(t *testing.T) {
	name, key := newKey(t)
	bound, err := key.Sign(nil, map[string]any{"cnf": map[string]any{"jkt": key.Thumbprint}})
	if err != nil {
		t.Fatal(err)
	}
	var seen string
	issuer := fakeIssuer(t, func(w http.ResponseWriter, r *http.Request) {
		user, password, basic := r.BasicAuth()
		seen = "none " + r.PostFormValue("client_id")
		if basic {
			seen = "basic " + user + " " + password
		} else if secret := r.PostFormValue("client_secret"); secret != "" {
			seen = "post " + r.PostFormValue("client_id") + " " + secret
		}
		_, _ = io.WriteString(w, `{"access_token":"`+bound+`","token_type":"DPoP"}`)
	})
	check := func(want, stdin string, more ...string) {
		t.Helper()
		args := append([]string{"token", "--issuer", issuer, "--client-id", "me", "--key", name}, more...)
		if got := execute(stdin, args...).want(t); got != bound+"\n" || seen != want {
			t.Errorf("seen %q, want %q; output %q", seen, want, got)
		}
	}
	check("none me", "")
	check("basic me s1", "", "--client-secret", "s1")
	check("basic me %40s1", "", "--client-secret", "@s1")
	check("basic me +s+2+", " s 2 \r\n", "--client-secret", "-")
	check("post me s1", "", "--client-secret", "s1", "--auth", "client_secret_post")
	t.Setenv(secretVariable, "s3")
	check("basic me s3", "")
	check("basic me s1", "", "--client-secret", "s1")

	args := []string{"token", "--issuer", issuer, "--client-id", "me"}
	execute("", append(args, "--key", name, "--client-secret", "-")...).refused(t, "standard input is empty")
	execute("", append(args, "--key", "-", "--client-secret", "-")...).refused(t, "neither a JWK")
	execute("", append(args, "--key", name, "--auth", "basic")...).refused(t, `unknown way "basic"`)
}

// A token that is of no use with the key is not put out, and what a server says is
// fit for a terminal.
func TestTokenRefused(t *testing.T) {
	name, key := newKey(t)
	jwt := func(jkt string) string {
		text, err := key.Sign(nil, map[string]any{"cnf": map[string]any{"jkt": jkt}})
		if err != nil {
			t.Fatal(err)
		}
		return text
	}
	for _, row := range []struct {
		name, answer string
		status       int
		want         string
	}{
		{"refused", `{"error":"invalid_client","error_description":"bad\u001b[2J\nsecret"}`, 401, `/token answered 401 Unauthorized: invalid_client: bad\x1b[2J\nsecret`},
		{"Bearer", `{"access_token":"opaque","token_type":"Bearer"}`, 200, `token_type is "Bearer", not DPoP`},
		{"bound to another key", `{"access_token":"` + jwt("x") + `","token_type":"DPoP"}`, 200, "bound to another key"},
	} {
		t.Run(row.name, func(t *testing.T) {
			issuer := fakeIssuer(t, func(w http.ResponseWriter, _ *http.Request) {
				w.WriteHeader(row.status)
				_, _ = io.WriteString(w, row.answer)
			})
			execute("", "token", "--issuer", issuer, "--client-id", "me", "--key", name).refused(t, row.want)
		})
	}
	t.Run("called Bearer", func(t *testing.T) {
		issuer := fakeIssuer(t, func(w http.ResponseWriter, _ *http.Request) {
			_, _ = io.WriteString(w, `{"access_token":"`+jwt(key.Thumbprint)+`","token_type":"Bearer"}`)
		})
		r := execute("", "token", "--issuer", issuer, "--client-id", "me", "--key", name)
		if r.failed != nil || !strings.HasPrefix(r.err, "warning: token_type is \"Bearer\"") || strings.Count(r.out, ".") != 2 {
			t.Errorf("%+v", r)
		}
	})
	execute("", "token", "--key", name).refused(t, `required flag(s) "client-id", "issuer" not set`)
	execute("", "token", "--issuer", "http://sso.example.com", "--client-id", "me", "--key", name).refused(t, "plain http to another machine")
	execute("", "token", "--issuer", "http://127.0.0.1:1", "--client-id", "me", "--key", name).refused(t, "discovery: ")
}
