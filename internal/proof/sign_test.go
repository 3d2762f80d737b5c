package proof

import (
	"net/url"
	"testing"
	"time"

	"github.com/caddy-dpop/caddy-dpop/internal/jose"
)

func TestSignClaims(t *testing.T) {
	key, err := jose.Generate(jose.AllAlgorithms().Find("ES256"))
	if err != nil {
		t.Fatal(err)
	}
	at := time.Unix(1_700_000_000, 5e8)
	for _, c := range []Claims{
		{Method: "GET", URL: "https://api.example.com/", IssuedAt: at},
		{Method: "POST", URL: "https://api.example.com/a", Token: "token", Nonce: "n", IssuedAt: at},
	} {
		text, err := Sign(key, c)
		if err != nil {
			t.Fatal(err)
		}
		p, f := Verify(text, jose.AllAlgorithms())
		if f != nil {
			t.Fatal(f)
		}
		if p.Thumbprint != key.Thumbprint || p.IssuedAt != 1_700_000_000 || len(p.ID) < 16 {
			t.Errorf("thumbprint %s, iat %v, jti %s", p.Thumbprint, p.IssuedAt, p.ID)
		}
		target, err := ParseURI(c.URL)
		if err != nil {
			t.Fatal(err)
		}
		if f := p.CheckTarget(c.Method, []URI{target}); f != nil {
			t.Error(f)
		}
		nonce, given, f := p.Nonce()
		if f != nil || nonce != c.Nonce || given != (c.Nonce != "") {
			t.Errorf("nonce %q, %v, %v", nonce, given, f)
		}
		if f := p.CheckToken(TokenHash("token")); (f == nil) != (c.Token != "") {
			t.Errorf("for a token: %v", f)
		}
	}
}

func TestTarget(t *testing.T) {
	for text, want := range map[string]string{
		"https://api.example.com":             "https://api.example.com/",
		"https://api.example.com?a=b":         "https://api.example.com/",
		"https://api.example.com/a/b?c=d#e":   "https://api.example.com/a/b",
		"https://api.example.com:443/":        "https://api.example.com:443/",
		"http://me:secret@api.example.com/":   "http://api.example.com/",
		"http://[::1]:80/a%2fb":               "http://[::1]:80/a%2fb",
		"https://api.example.com/a b/é?x":     "https://api.example.com/a%20b/%C3%A9",
		"https://api.example.com//a/../b/./c": "https://api.example.com//a/../b/./c",
	} {
		u, err := url.Parse(text)
		if err != nil {
			t.Fatal(err)
		}
		if got := Target(u); got != want {
			t.Errorf("%s: %s, want %s", text, got, want)
		}
	}
}
