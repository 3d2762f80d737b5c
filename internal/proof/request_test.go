package proof

import (
	"strings"
	"testing"
	"time"

	"github.com/caddy-dpop/caddy-dpop/internal/failure"
	"github.com/caddy-dpop/caddy-dpop/internal/jose"
)

// urls parses URLs that must be good.
func urls(t *testing.T, texts ...string) []URI {
	t.Helper()
	parsed := make([]URI, len(texts))
	for i, text := range texts {
		var err error
		if parsed[i], err = ParseURI(text); err != nil {
			t.Fatalf("parsing %s: %v", text, err)
		}
	}
	return parsed
}

func TestCheckRequest(t *testing.T) {
	const url = "https://api.example.com/things"
	s := signers()["EdDSA"]
	ath := TokenHash("token")
	tests := []struct {
		name, old, new     string // of the claims
		method, url, token string // of the request
		want               failure.Reason
	}{
		{"as made", "GET", "GET", "GET", url, "token", ""},

		// RFC 9449 §4.3 check 8; RFC 9110 §9.1: methods are case-sensitive.
		{"other method", "GET", "GET", "POST", url, "token", failure.ProofMethod},
		{"method in lower case", "GET", "get", "GET", url, "token", failure.ProofMethod},
		{"method with a space", "GET", "GET ", "GET", url, "token", failure.ProofMethod},
		{"HEAD is not GET", "GET", "GET", "HEAD", url, "token", failure.ProofMethod},
		{"empty htm", "GET", "", "GET", url, "token", failure.ProofMethod},
		{"htm of any", "GET", "*", "GET", url, "token", failure.ProofMethod},
		{"a method of one's own", "GET", "PURGE", "PURGE", url, "token", ""},

		// RFC 9449 §4.3 check 9.
		{"other path", "GET", "GET", "GET", "https://api.example.com/others", "token", failure.ProofURL},
		{"path below", "GET", "GET", "GET", url + "/1", "token", failure.ProofURL},
		{"path above", "GET", "GET", "GET", "https://api.example.com/", "token", failure.ProofURL},
		{"trailing slash", "GET", "GET", "GET", url + "/", "token", failure.ProofURL},
		{"case of the path", "GET", "GET", "GET", "https://api.example.com/Things", "token", failure.ProofURL},
		{"double slash", "GET", "GET", "GET", "https://api.example.com//things", "token", failure.ProofURL},
		{"other host", "GET", "GET", "GET", "https://api.example.org/things", "token", failure.ProofURL},
		{"host above", "GET", "GET", "GET", "https://example.com/things", "token", failure.ProofURL},
		{"host with a trailing dot", "GET", "GET", "GET", "https://api.example.com./things", "token", failure.ProofURL},
		{"other scheme", "GET", "GET", "GET", "http://api.example.com/things", "token", failure.ProofURL},
		{"other port", "GET", "GET", "GET", "https://api.example.com:8443/things", "token", failure.ProofURL},
		{"the other scheme's port", "GET", "GET", "GET", "https://api.example.com:80/things", "token", failure.ProofURL},
		{"default port", "GET", "GET", "GET", "https://api.example.com:443/things", "token", ""},
		{"htu with a query, RFC 9449 §4.3 check 9", "/things", "/things?a=b", "GET", url, "token", ""},
		{"htu with a fragment, RFC 9449 §4.3 check 9", "/things", "/things#a", "GET", url, "token", ""},
		{"htu with both, a question mark in the fragment", "/things", "/things?x#a?b/../c", "GET", url, "token", ""},
		{"htu with a default port, RFC 3986 §6.2.3", "api.example.com", "api.example.com:443", "GET", url, "token", ""},
		{"htu in upper case, RFC 3986 §6.2.2.1", "https://api.example.com", "HTTPS://API.EXAMPLE.COM", "GET", url, "token", ""},
		{"htu with dot segments, RFC 3986 §6.2.2.3", "/things", "/a/../things", "GET", url, "token", ""},
		{"htu with an escaped letter, RFC 3986 §6.2.2.2", "/things", "/%74hings", "GET", url, "token", ""},
		{"htu with an escaped slash", "com/things", "com%2Fthings", "GET", url, "token", failure.ProofURL},
		{"htu with user information", "//api", "//user@api", "GET", url, "token", failure.ProofURL},
		{"htu whose host is user information", "//api.example.com", "//api.example.com@evil.example", "GET", url, "token", failure.ProofURL},
		{"htu that is a path, RFC 9449 §4.2", "https://api.example.com/things", "/things", "GET", url, "token", failure.ProofURL},
		{"htu without a scheme", "https://", "//", "GET", url, "token", failure.ProofURL},
		{"htu that is empty", "https://api.example.com/things", "", "GET", url, "token", failure.ProofURL},
		{"htu with %zz (nuts-node pull 4112)", "/things", "/things%zz", "GET", url, "token", failure.ProofURL},
		{"htu with a space behind", "/things", "/things ", "GET", url, "token", failure.ProofURL},
		{"htu of two URLs", "/things", "/things https://evil.example/", "GET", url, "token", failure.ProofURL},

		// RFC 9449 §4.3 check 12, §4.2.
		{"other token", "GET", "GET", "GET", url, "Token", failure.ProofToken},
		{"token with a space", "GET", "GET", "GET", url, "token ", failure.ProofToken},
		{"no token", "GET", "GET", "GET", url, "", failure.ProofToken},
		{"no ath", `"ath"`, `"ATH"`, "GET", url, "token", failure.ProofToken},
		{"no ath and no token", `"ath"`, `"ATH"`, "GET", url, "", failure.ProofToken},
		{"ath that is the token", ath, "token", "GET", url, "token", failure.ProofToken},
		{"ath with padding", ath, ath + "=", "GET", url, "token", failure.ProofToken},
		{"ath cut short", ath, ath[:42], "GET", url, "token", failure.ProofToken},
		{"ath of another case", ath, strings.ToLower(ath), "GET", url, "token", failure.ProofToken},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			p, f := Verify(s.sign(t, s.header(), edit(t, claims, test.old, test.new)), defaults(t))
			if f != nil {
				t.Fatal(f)
			}
			f = p.CheckRequest(test.method, urls(t, test.url), TokenHash(test.token))
			switch {
			case test.want != "":
				refused(t, f, test.want)
			case f != nil:
				t.Error(f)
			}
		})
	}
}

func TestCheckRequestTakesAnyOfTheURLs(t *testing.T) {
	// The setting public_url may be several.
	s := signers()["EdDSA"]
	p, f := Verify(s.sign(t, s.header(), claims), defaults(t))
	if f != nil {
		t.Fatal(f)
	}
	one, other := "https://one.example/things", "https://api.example.com/things"
	for _, list := range [][]string{{other}, {one, other}, {other, one}} {
		if f := p.CheckRequest("GET", urls(t, list...), TokenHash("token")); f != nil {
			t.Errorf("%v: %v", list, f)
		}
	}
	refused(t, p.CheckRequest("GET", urls(t, one), TokenHash("token")), failure.ProofURL)
	refused(t, p.CheckRequest("GET", nil, TokenHash("token")), failure.ProofURL)
	refused(t, p.CheckRequest("GET", []URI{{}}, TokenHash("token")), failure.ProofURL)
	if (&URI{}).isWritten("://") {
		t.Error("no URI is taken for one")
	}
}

func TestCheckRequestSaysWhatWasExpected(t *testing.T) {
	s := signers()["EdDSA"]
	p, f := Verify(s.sign(t, s.header(), claims), defaults(t))
	if f != nil {
		t.Fatal(f)
	}
	f = p.CheckRequest("GET", urls(t, "https://one.example:443/", "http://two.example"), TokenHash("token"))
	refused(t, f, failure.ProofURL)
	want := map[string]any{"expected": "https://one.example/ http://two.example/", "found": "https://api.example.com/things"}
	for _, detail := range f.Details {
		if detail.Value != want[detail.Name] {
			t.Errorf("%s is %v", detail.Name, detail.Value)
		}
		delete(want, detail.Name)
	}
	if len(want) > 0 {
		t.Errorf("details are missing: %v", want)
	}
}

func TestTokenHash(t *testing.T) {
	// RFC 9449 §7.1.
	const token, want = "Kz~8mXK1EalYznwH-LC-1fBAo.4Ljp~zsPE_NeO.gxU", "fUHyO2r2Z3DZ53EsNrWBb0xWXoaNy59IiKCAqksmQEo"
	if got := TokenHash(token); got != want {
		t.Errorf("%s, not %s", got, want)
	}
}

func TestCheckTarget(t *testing.T) {
	// RFC 9449 §5: a proof for a token request has no ath.
	s := signers()["EdDSA"]
	p, f := Verify(s.sign(t, s.header(), edit(t, claims, `"ath"`, `"ATH"`)), defaults(t))
	if f != nil {
		t.Fatal(f)
	}
	here := urls(t, "https://api.example.com/things")
	if f := p.CheckTarget("GET", here); f != nil {
		t.Error(f)
	}
	refused(t, p.CheckTarget("POST", here), failure.ProofMethod)
	refused(t, p.CheckTarget("GET", urls(t, "https://api.example.com/")), failure.ProofURL)
	refused(t, p.CheckRequest("GET", here, TokenHash("token")), failure.ProofToken)
}

func TestSign(t *testing.T) {
	for _, alg := range jose.AllAlgorithms() {
		t.Run(alg.Name, func(t *testing.T) {
			key, err := jose.Generate(alg)
			if err != nil {
				t.Fatal(err)
			}
			made := Claims{Method: "GET", URL: "https://api.example.com/things?a=b", Token: "token", IssuedAt: now.Add(300 * time.Millisecond)}
			ids := make(map[string]bool)
			for range 3 {
				compact, err := Sign(key, made)
				if err != nil {
					t.Fatal(err)
				}
				p, f := Verify(compact, jose.Algorithms{alg})
				if f != nil {
					t.Fatal(f)
				}
				if p.Thumbprint != key.Thumbprint || p.Algorithm != alg.Name || p.IssuedAt != 1700000000 {
					t.Errorf("%+v", p)
				}
				if f := p.CheckRequest("GET", urls(t, "https://api.example.com/things"), TokenHash("token")); f != nil {
					t.Error(f)
				}
				ids[p.ID] = true
			}
			if len(ids) != 3 {
				t.Errorf("identifiers repeat: %v", ids)
			}
			made.Token = ""
			compact, err := Sign(key, made)
			if err != nil {
				t.Fatal(err)
			}
			p, f := Verify(compact, jose.Algorithms{alg})
			if f != nil {
				t.Fatal(f)
			}
			refused(t, p.CheckRequest("GET", urls(t, "https://api.example.com/things"), TokenHash("")), failure.ProofToken)
		})
	}
}
