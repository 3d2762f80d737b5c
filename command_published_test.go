package caddydpop

import (
	"encoding/base64"
	"encoding/json"
	"maps"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/caddy-dpop/caddy-dpop/internal/inspect"
	"github.com/caddy-dpop/caddy-dpop/internal/jose"
)

// publishedRequest is the request that a published proof is for.
type publishedRequest struct {
	proof, method, url, token string
	at                        int64
}

// failing are the checks that fail of it.
func (r publishedRequest) failing(t *testing.T) ([]string, string) {
	t.Helper()
	captured := &inspect.Capture{Proof: inspect.ParseProof(r.proof), Method: r.method}
	if r.token != "" {
		captured.Authorization = inspect.ParseAuthorization(r.token)
	}
	var err error
	if captured.Target, err = inspect.ParseTarget(r.url); err != nil {
		t.Fatal(err)
	}
	plugin := commandPlugin()
	site := plugin.Defaults
	site.Nonces, site.Algorithms = inspect.NoncesOff, jose.AllAlgorithms()
	report := inspect.Run(plugin.Gateway, &site, captured, time.Unix(r.at, 0))
	var text strings.Builder
	if err := report.Write(&text); err != nil {
		t.Fatal(err)
	}
	return failing(report), text.String()
}

// The proofs of public documents pass at their time. Each that is changed in one
// place, or meets a request that is another in one place, fails one check alone.
func TestInspectPublishedProofs(t *testing.T) {
	text, err := os.ReadFile("internal/proof/testdata/published-proofs.json")
	if err != nil {
		t.Fatal(err)
	}
	var file struct {
		Proofs []struct {
			Source, Proof string
			AccessToken   string `json:"access_token"`
			Claims        map[string]any
		}
	}
	if err := json.Unmarshal(text, &file); err != nil || len(file.Proofs) < 4 {
		t.Fatalf("%d proofs, %v", len(file.Proofs), err)
	}
	own := generated(t, "ES256")
	for _, p := range file.Proofs {
		t.Run(p.Source, func(t *testing.T) {
			good := publishedRequest{p.Proof, p.Claims["htm"].(string), p.Claims["htu"].(string), p.AccessToken, int64(p.Claims["iat"].(float64))}
			if failed, text := good.failing(t); failed != nil {
				t.Fatalf("as published, %q fail:\n%s", failed, text)
			}
			only := func(name string, r publishedRequest, want string) {
				t.Helper()
				if failed, text := r.failing(t); !slices.Equal(failed, []string{want}) {
					t.Errorf("%s: %q fail, want %q alone\n%s", name, failed, want, text)
				}
			}
			request := func(name, want string, change func(*publishedRequest)) {
				t.Helper()
				r := good
				change(&r)
				only(name, r, want)
			}
			request("another method", "proof htm", func(r *publishedRequest) { r.method = "DELETE" })
			request("another path", "proof htu", func(r *publishedRequest) { r.url += "x" })
			request("another host", "proof htu", func(r *publishedRequest) { r.url = strings.Replace(r.url, "://", "://x", 1) })
			request("too late", "proof iat", func(r *publishedRequest) { r.at += 71 })
			request("too soon", "proof iat", func(r *publishedRequest) { r.at -= 11 })
			request("a changed signature", "proof signature", func(r *publishedRequest) { r.proof = damaged(r.proof) })
			request("cut short", "proof syntax", func(r *publishedRequest) { r.proof = r.proof[:strings.LastIndexByte(r.proof, '.')] })
			if p.AccessToken != "" {
				request("another token", "proof ath", func(r *publishedRequest) { r.token += "x" })
			}

			// A member that is changed under the published signature fails that; what
			// it says is judged with a signature of its own.
			header, claims := parts(t, p.Proof)
			unsigned := func(header, claims map[string]any) publishedRequest {
				r := good
				r.proof = encoded(t, header) + "." + encoded(t, claims) + p.Proof[strings.LastIndexByte(p.Proof, '.'):]
				return r
			}
			signed := func(header, claims map[string]any) publishedRequest {
				r := good
				r.proof = signedWith(t, own, header, claims)
				return r
			}
			with := func(object map[string]any, name string, value any) map[string]any {
				object = maps.Clone(object)
				object[name] = value
				return object
			}
			only("another jti", unsigned(header, with(claims, "jti", "another")), "proof signature")
			header = with(header, "jwk", own.Public)
			header["alg"] = "ES256"
			if failed, text := signed(maps.Clone(header), maps.Clone(claims)).failing(t); failed != nil {
				t.Fatalf("signed anew, %q fail:\n%s", failed, text)
			}
			for _, row := range []struct {
				check, part, name string
				value             any
			}{
				{"proof typ", "header", "typ", "jwt"},
				{"proof extensions", "header", "crit", []string{"exp"}},
				{"proof jwk", "header", "jwk", map[string]any{"kty": "EC", "crv": "P-256", "x": "AA", "y": "AA"}},
				{"proof jti", "claims", "jti", nil},
				{"proof jti", "claims", "jti", 5},
				{"proof htm", "claims", "htm", strings.ToLower(good.method)},
				{"proof htu", "claims", "htu", good.url + "/"},
				{"proof iat", "claims", "iat", good.at - 71},
				{"proof iat", "claims", "iat", "now"},
				{"proof exp", "claims", "exp", good.at - 11},
				{"proof ath", "claims", "ath", "AAAA"},
			} {
				if row.name == "ath" && p.AccessToken == "" {
					continue
				}
				if row.part == "header" {
					only("another "+row.name, signed(with(header, row.name, row.value), maps.Clone(claims)), row.check)
				} else {
					only("another "+row.name, signed(maps.Clone(header), with(claims, row.name, row.value)), row.check)
				}
			}
		})
	}
}

// parts returns the header and the claims of a JWS.
func parts(t *testing.T, jws string) (header, claims map[string]any) {
	t.Helper()
	for i, part := range strings.Split(jws, ".")[:2] {
		text, err := base64.RawURLEncoding.DecodeString(part)
		if err == nil {
			err = json.Unmarshal(text, []*map[string]any{&header, &claims}[i])
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	return header, claims
}

func encoded(t *testing.T, object map[string]any) string {
	t.Helper()
	text, err := json.Marshal(object)
	if err != nil {
		t.Fatal(err)
	}
	return base64.RawURLEncoding.EncodeToString(text)
}
