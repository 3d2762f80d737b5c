package caddydpop

import (
	"errors"
	"testing"

	"github.com/caddy-dpop/caddy-dpop/internal/bounded"
	"github.com/caddy-dpop/caddy-dpop/internal/failure"
)

// Of a token the text is known once it was accepted, and bound to a key. Whatever is
// known, each request is judged as if nothing was.
func TestKnownTokens(t *testing.T) {
	knownTokens = newKnownTokens()
	site := newBench(t, "ES256", func(h *Handler) { h.Mode = ModeOptional })
	other := newBench(t, "ES256", func(h *Handler) { h.Issuers, h.Audiences = site.handler.Issuers, []string{"https://other.example.com"} })
	thief := generate(t, "ES256")
	unbound, err := site.issuer.Sign(map[string]any{"typ": "at+jwt"}, map[string]any{
		"iss": "https://sso.example.com", "aud": "https://api.example.com", "sub": "user", "exp": site.at.Unix() + 600,
	})
	if err != nil {
		t.Fatal(err)
	}
	token := site.token(t)
	proof := site.proof(t, site.client, token)
	for _, row := range []struct {
		what                 string
		at                   *bench
		authorization, proof string
		want                 failure.Reason // empty: accepted
		known                int
	}{
		{"another token, with its proof", site, "DPoP " + token + "A", proof, failure.ProofToken, 0},
		{"a forged token", site, "DPoP " + token + "A", site.proof(t, site.client, token+"A"), failure.TokenSignature, 0},
		{"another key", site, "DPoP " + token, site.proof(t, thief, token), failure.TokenOtherKey, 0},
		{"another audience", other, "DPoP " + token, proof, failure.TokenAudience, 0},
		{"a Bearer token", site, "Bearer " + unbound, "", "", 0},
		{"good", site, "DPoP " + token, proof, "", 1},
		{"good again", site, "dpop  " + token, proof, "", 1},
		{"known, as a Bearer token", site, "Bearer " + token, "", failure.TokenBound, 1},
		{"known, with another key", site, "DPoP " + token, site.proof(t, thief, token), failure.TokenOtherKey, 1},
		{"known, with another token's proof", site, "DPoP " + token, site.proof(t, site.client, unbound), failure.ProofToken, 1},
		{"known, but for its end", site, "DPoP " + token + "=", proof, failure.ProofToken, 1},
		{"known, at another site", other, "DPoP " + token, proof, failure.TokenAudience, 1},
	} {
		c := newCall(row.at.url)
		var dpop []string
		if row.proof != "" {
			dpop = []string{row.proof}
		}
		err := c.serve(row.at.handler, []string{row.authorization}, dpop)
		var got failure.Reason
		if f := new(failure.Failure); errors.As(err, &f) {
			got = f.Reason
		}
		if got != row.want || (err == nil) != (row.want == "") {
			t.Errorf("%s: %v, want %q", row.what, err, row.want)
		}
		if got := knownTokens.Len(); got != row.known {
			t.Errorf("%s: %d tokens are known, want %d", row.what, got, row.known)
		}
		if got := c.request.Header.Get("Authorization"); row.want == "" && row.proof != "" && got != "Bearer "+token {
			t.Errorf("%s: the upstream gets %q", row.what, got)
		}
	}
	known, ok := knownTokens.Get(token)
	if !ok || known.hash != bounded.KeyOf(token) || known.bearer != "Bearer "+token {
		t.Fatalf("known are %q and %x, %v", known.bearer, known.hash, ok)
	}
}
