package authserver

import (
	"context"
	"encoding/json"
	"errors"
	"io"
	"maps"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"testing"
	"time"

	"github.com/caddy-dpop/caddy-dpop/internal/jose"
	"github.com/caddy-dpop/caddy-dpop/internal/proof"
)

// tokenServer is an issuer with a token endpoint, below a path.
type tokenServer struct {
	issuer   string
	endpoint string // as the metadata tells it; %s is the server
	answer   http.HandlerFunc
	seen     []tokenCall
}

type tokenCall struct {
	form   url.Values
	header http.Header
	proof  jose.Object // the claims
}

func newTokenServer(t *testing.T, wellKnown string, answer http.HandlerFunc) *tokenServer {
	t.Helper()
	s := &tokenServer{answer: answer}
	mux := http.NewServeMux()
	server := httptest.NewServer(mux)
	t.Cleanup(server.Close)
	s.issuer = server.URL + "/realm"
	s.endpoint = server.URL + "/token?tenant=a b"
	mux.HandleFunc("GET "+wellKnown, func(w http.ResponseWriter, _ *http.Request) {
		_ = json.NewEncoder(w).Encode(map[string]any{"issuer": s.issuer, "token_endpoint": strings.ReplaceAll(s.endpoint, " ", "%20")})
	})
	mux.HandleFunc("POST /token", func(w http.ResponseWriter, r *http.Request) {
		p, f := proof.Verify(r.Header.Get("DPoP"), jose.AllAlgorithms())
		if f != nil {
			t.Errorf("the proof: %v", f)
			return
		}
		target, err := proof.ParseURI(server.URL + "/token")
		if err != nil {
			t.Error(err)
		}
		if f := p.CheckTarget("POST", []proof.URI{target}); f != nil {
			t.Errorf("the proof: %v", f)
		}
		if f := (proof.Window{MaxAge: 5 * time.Second}).CheckTime(p, time.Now()); f != nil {
			t.Errorf("the proof: %v", f)
		}
		if err := r.ParseForm(); err != nil {
			t.Error(err)
		}
		parsed, _ := proof.Parse(r.Header.Get("DPoP"))
		s.seen = append(s.seen, tokenCall{r.PostForm, r.Header, parsed.Claims()})
		s.answer(w, r)
	})
	return s
}

func (s *tokenServer) ask(t *testing.T, change func(*TokenRequest)) (Granted, error) {
	t.Helper()
	key, err := jose.Generate(jose.AllAlgorithms().Find("ES256"))
	if err != nil {
		t.Fatal(err)
	}
	r := TokenRequest{Issuer: s.issuer, Auth: ClientID{"me"}, Key: key}
	if change != nil {
		change(&r)
	}
	return NewClient(Trust{}, 5*time.Second).Token(context.Background(), r)
}

const (
	rfc8414       = "/.well-known/oauth-authorization-server/realm"
	openIDConnect = "/realm/.well-known/openid-configuration"
)

func TestToken(t *testing.T) {
	for _, wellKnown := range []string{rfc8414, openIDConnect} {
		s := newTokenServer(t, wellKnown, serve(`{"access_token":"abc","token_type":"DPoP","expires_in":60}`))
		granted, err := s.ask(t, func(r *TokenRequest) {
			r.Auth, r.Scope, r.Resource = SecretBasic{"a client", "s:cret+ü"}, "one two", "https://api.example.com"
		})
		if err != nil || granted != (Granted{"abc", "DPoP"}) {
			t.Fatalf("%+v, %v", granted, err)
		}
		want := url.Values{"grant_type": {"client_credentials"}, "scope": {"one two"}, "resource": {"https://api.example.com"}}
		if got := s.seen[0].form; !maps.EqualFunc(got, want, func(a, b []string) bool { return strings.Join(a, "|") == strings.Join(b, "|") }) {
			t.Errorf("the form is %v", got)
		}
		// RFC 6749 §2.3.1: form-encoded, then joined
		if got, want := s.seen[0].header.Get("Authorization"), "Basic "+b64pad("a+client:s%3Acret%2B%C3%BC"); got != want {
			t.Errorf("Authorization %s, want %s", got, want)
		}
		if s.seen[0].proof.Has("ath") || s.seen[0].proof.Has("nonce") {
			t.Error("the proof has ath or nonce")
		}
	}
}

func b64pad(text string) string {
	r, _ := http.NewRequest("GET", "/", nil)
	user, password, _ := strings.Cut(text, ":")
	r.SetBasicAuth(user, password)
	return strings.TrimPrefix(r.Header.Get("Authorization"), "Basic ")
}

// A challenge for a nonce is answered once, with a new proof.
func TestTokenNonce(t *testing.T) {
	challenge := func(w http.ResponseWriter) {
		w.Header().Set("DPoP-Nonce", "n-1")
		w.WriteHeader(http.StatusBadRequest)
		_, _ = io.WriteString(w, `{"error":"use_dpop_nonce","error_description":"use it"}`)
	}
	s := newTokenServer(t, rfc8414, nil)
	s.answer = func(w http.ResponseWriter, r *http.Request) {
		if len(s.seen) == 1 {
			challenge(w)
			return
		}
		serve(`{"access_token":"abc","token_type":"DPoP"}`)(w, r)
	}
	if granted, err := s.ask(t, nil); err != nil || granted.Token != "abc" {
		t.Fatalf("%+v, %v", granted, err)
	}
	nonce, _ := s.seen[1].proof.Get("nonce")
	first, _ := s.seen[0].proof.Get("jti")
	second, _ := s.seen[1].proof.Get("jti")
	if text, _ := nonce.Text(); text != "n-1" || string(first) == string(second) {
		t.Errorf("nonce %s, jti %s after %s", nonce, second, first)
	}

	always := newTokenServer(t, rfc8414, func(w http.ResponseWriter, _ *http.Request) { challenge(w) })
	var refused *TokenError
	if _, err := always.ask(t, nil); !errors.As(err, &refused) || refused.Code != "use_dpop_nonce" || len(always.seen) != 2 {
		t.Errorf("%v after %d requests", err, len(always.seen))
	}
}

func TestTokenRefused(t *testing.T) {
	for _, row := range []struct {
		name, answer string
		status       int
		want         string
		not          string
	}{
		{"an error", `{"error":"invalid_client","error_description":"who are you?"}`, 401, "/token?tenant=a%20b answered 401 Unauthorized: invalid_client: who are you?", ""},
		{"control characters", `{"error":"invalid_client\u001b[2J","error_description":"a\r\nb"}`, 401, `invalid_client\x1b[2J: a\r\nb`, "\x1b"},
		{"a nonce error without nonce", `{"error":"use_dpop_nonce"}`, 400, "use_dpop_nonce", ""},
		{"a page", `<html>`, 502, "answered 502 Bad Gateway", "html"},
		{"a page of success", `<html>`, 200, "no JSON object", ""},
		{"no token", `{"token_type":"DPoP"}`, 200, "no access_token", ""},
		{"a token that is none", `{"access_token":"a\nb","token_type":"DPoP"}`, 200, "character", "a\nb"},
		{"a redirect", `{}`, 307, "redirected", ""},
	} {
		t.Run(row.name, func(t *testing.T) {
			s := newTokenServer(t, rfc8414, func(w http.ResponseWriter, _ *http.Request) {
				w.Header().Set("Location", "/token?elsewhere")
				w.WriteHeader(row.status)
				_, _ = io.WriteString(w, row.answer)
			})
			granted, err := s.ask(t, nil)
			if err == nil || granted != (Granted{}) {
				t.Fatalf("got %+v", granted)
			}
			if !strings.Contains(err.Error(), row.want) || row.not != "" && strings.Contains(err.Error(), row.not) {
				t.Errorf("the error is %q, want %q", err, row.want)
			}
			if len(s.seen) != 1 {
				t.Errorf("%d requests", len(s.seen))
			}
		})
	}
}

// Credentials and proofs go to the endpoint over https alone, or within this machine.
func TestTokenEndpointURL(t *testing.T) {
	s := newTokenServer(t, rfc8414, nil)
	s.endpoint = "http://192.0.2.1/token"
	if _, err := s.ask(t, nil); err == nil || !strings.Contains(err.Error(), "plain http to another machine") {
		t.Error(err)
	}
	if _, err := s.ask(t, func(r *TokenRequest) { r.Issuer = "http://192.0.2.1" }); err == nil || !strings.Contains(err.Error(), "plain http to another machine") {
		t.Error(err)
	}
}

func TestGrantedBinding(t *testing.T) {
	key, err := jose.Generate(jose.AllAlgorithms().Find("ES256"))
	if err != nil {
		t.Fatal(err)
	}
	jwt := func(cnf any) string {
		text, err := key.Sign(nil, map[string]any{"cnf": cnf})
		if err != nil {
			t.Fatal(err)
		}
		return text
	}
	bound, other := jwt(map[string]any{"jkt": key.Thumbprint}), jwt(map[string]any{"jkt": "other"})
	for _, row := range []struct {
		name          string
		granted       Granted
		warning, fail string
	}{
		{"bound", Granted{bound, "DPoP"}, "", ""},
		{"case of token_type, RFC 6749 §5.1", Granted{bound, "dpop"}, "", ""},
		{"bound, called Bearer", Granted{bound, "Bearer"}, `token_type is "Bearer"`, ""},
		{"to another key", Granted{other, "DPoP"}, "", "bound to another key"},
		{"to nothing", Granted{jwt(map[string]any{}), "DPoP"}, "", "not bound"},
		{"opaque", Granted{"opaque", "DPoP"}, "only a site that introspects", ""},
		{"opaque, Bearer", Granted{"opaque", "Bearer"}, "", "not DPoP"},
		{"opaque, an escape", Granted{"opaque", "\x1b[2J"}, "", `\x1b[2J`},
	} {
		t.Run(row.name, func(t *testing.T) {
			warning, err := row.granted.CheckBinding(key)
			if row.warning == "" != (warning == "") || !strings.Contains(warning, row.warning) {
				t.Errorf("warning %q", warning)
			}
			if row.fail == "" != (err == nil) || err != nil && !strings.Contains(err.Error(), row.fail) {
				t.Errorf("error %v", err)
			}
		})
	}
}
