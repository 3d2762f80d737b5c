package token

import (
	"testing"

	"github.com/caddy-dpop/caddy-dpop/internal/failure"
	"github.com/caddy-dpop/caddy-dpop/internal/jose"
)

// jkt is the thumbprint of RFC 9449 §6.1's example.
const jkt = "0ZcOCORZNYy-DWpqq30jZyJGHTN0d2HglBV3uiguA4I"

// RFC 9449 §6.1 and §7.1, RFC 7800 §3.1. The second answer is that of a Bearer
// token's check: any cnf at all refuses it (RFC 9449 §7.2).
func TestConfirmation(t *testing.T) {
	for _, row := range []struct {
		name, claims string
		bound, bare  failure.Reason
	}{
		{"the proof's key", `{"cnf":{"jkt":"` + jkt + `"}}`, "", failure.TokenBound},
		{"escaped in JSON", `{"cnf":{"jk\u0074":"\u0030` + jkt[1:] + `"}}`, "", failure.TokenBound},
		{"no cnf", `{"sub":"a"}`, failure.TokenUnbound, ""},
		{"no claims", `{}`, failure.TokenUnbound, ""},
		{"CNF is not cnf", `{"CNF":{"jkt":"` + jkt + `"}}`, failure.TokenUnbound, ""},
		{"jkt outside of cnf", `{"jkt":"` + jkt + `"}`, failure.TokenUnbound, ""},
		{"cnf deeper", `{"act":{"cnf":{"jkt":"` + jkt + `"}}}`, failure.TokenUnbound, ""},

		{"cnf null", `{"cnf":null}`, failure.TokenConfirmation, failure.TokenBound},
		{"cnf a string", `{"cnf":"` + jkt + `"}`, failure.TokenConfirmation, failure.TokenBound},
		{"cnf an array", `{"cnf":[{"jkt":"` + jkt + `"}]}`, failure.TokenConfirmation, failure.TokenBound},
		{"cnf false", `{"cnf":false}`, failure.TokenConfirmation, failure.TokenBound},
		{"cnf empty", `{"cnf":{}}`, failure.TokenUnbound, failure.TokenBound},
		{"cnf of another kind", `{"cnf":{"example":1}}`, failure.TokenUnbound, failure.TokenBound},
		{"JKT is not jkt", `{"cnf":{"JKT":"` + jkt + `"}}`, failure.TokenUnbound, failure.TokenBound},

		{"jkt a number", `{"cnf":{"jkt":5}}`, failure.TokenOtherKey, failure.TokenBound},
		{"jkt null", `{"cnf":{"jkt":null}}`, failure.TokenOtherKey, failure.TokenBound},
		{"jkt an array", `{"cnf":{"jkt":["` + jkt + `"]}}`, failure.TokenOtherKey, failure.TokenBound},
		{"jkt empty", `{"cnf":{"jkt":""}}`, failure.TokenOtherKey, failure.TokenBound},
		{"jkt of another key", `{"cnf":{"jkt":"canary` + jkt[6:] + `"}}`, failure.TokenOtherKey, failure.TokenBound},
		{"jkt in another case", `{"cnf":{"jkt":"0zcOCORZNYy-DWpqq30jZyJGHTN0d2HglBV3uiguA4I"}}`, failure.TokenOtherKey, failure.TokenBound},
		{"jkt padded", `{"cnf":{"jkt":"` + jkt + `="}}`, failure.TokenOtherKey, failure.TokenBound},
		{"jkt cut short", `{"cnf":{"jkt":"` + jkt[:42] + `"}}`, failure.TokenOtherKey, failure.TokenBound},

		// A registered confirmation that nobody checks refuses the token.
		{"x5t#S256 beside jkt, RFC 8705 §3.1", `{"cnf":{"jkt":"` + jkt + `","x5t#S256":"A4DtL2JmUMhAsvJj5tKyn64SqzmuXbMrJa0n761y5v0"}}`, failure.TokenConfirmation, failure.TokenBound},
		{"jwk beside jkt, RFC 7800 §3.2", `{"cnf":{"jwk":{"kty":"EC"},"jkt":"` + jkt + `"}}`, failure.TokenConfirmation, failure.TokenBound},
		{"jwe beside jkt, RFC 7800 §3.3", `{"cnf":{"jkt":"` + jkt + `","jwe":"a.b.c.d.e"}}`, failure.TokenConfirmation, failure.TokenBound},
		{"kid beside jkt, RFC 7800 §3.4", `{"cnf":{"kid":"a","jkt":"` + jkt + `"}}`, failure.TokenConfirmation, failure.TokenBound},
		{"jku beside jkt, RFC 7800 §3.5", `{"cnf":{"jkt":"` + jkt + `","jku":"https://a.example"}}`, failure.TokenConfirmation, failure.TokenBound},
		{"null beside jkt", `{"cnf":{"jkt":"` + jkt + `","x5t#S256":null}}`, failure.TokenConfirmation, failure.TokenBound},
		{"x5t#S256 alone", `{"cnf":{"x5t#S256":"A4DtL2JmUMhAsvJj5tKyn64SqzmuXbMrJa0n761y5v0"}}`, failure.TokenConfirmation, failure.TokenBound},

		// RFC 7800 §3.1: members that are not understood must be ignored.
		{"Keycloak's own beside jkt", `{"cnf":{"jkt":"` + jkt + `","kc-jkt-type":"DPoP"}}`, "", failure.TokenBound},
		{"a private one beside jkt", `{"cnf":{"https://a.example/x":{"jwk":1},"jkt":"` + jkt + `","X5T#S256":"a"}}`, "", failure.TokenBound},
	} {
		t.Run(row.name, func(t *testing.T) {
			claims := object(t, row.claims)
			expect(t, CheckBinding(jkt, claims), row.bound)
			expect(t, HolderOf(claims).CheckBinding(jkt, claims, jose.Object{}), row.bound)
			expect(t, CheckUnbound(claims), row.bare)
		})
	}
}

// What is no string is equal to nothing, not even to a thumbprint that is not there.
func TestBindingComparesStrings(t *testing.T) {
	for _, value := range []string{"5", "null", "{}", `[""]`, `""`} {
		claims := object(t, `{"cnf":{"jkt":`+value+`}}`)
		expect(t, CheckBinding("", claims), failure.TokenOtherKey)
		expect(t, HolderOf(claims).CheckBinding("", claims, jose.Object{}), failure.TokenOtherKey)
	}
}
