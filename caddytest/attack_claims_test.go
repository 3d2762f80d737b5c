package caddytest

import (
	"encoding/hex"
	"math/big"
	"net/http"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/caddy-dpop/caddy-dpop/internal/proof"
)

// The claims of a proof, as every JSON type and at the edges of what they may be
// (RFC 9449 §4.2, RFC 7519 §2).
func TestAttackClaimsOfProofs(t *testing.T) {
	g := attacked(t, "")
	key := forgers()["EdDSA"]
	token := key.boundTo(t)
	now := time.Now().Unix()
	// How long the rows take does not matter: what is ahead is so by far.
	at := func(seconds int64) string { return strconv.FormatInt(now+seconds, 10) }
	text := func(value string) string { return strconv.Quote(value) }
	ath := proof.TokenHash(token)
	digest := unb64(ath)

	for _, row := range []struct {
		attack, source string
		option         option
		reason         string
	}{
		// iat: any number is a NumericDate, and nothing else is.
		{"no iat", "RFC 9449 §4.3 check 3", without("iat"), "proof_claims"},
		{"iat a string", "RFC 7519 §2", claim("iat", text(at(0))), "proof_claims"},
		{"iat null", "RFC 7519 §2", claim("iat", "null"), "proof_claims"},
		{"iat true", "RFC 7519 §2", claim("iat", "true"), "proof_claims"},
		{"iat an array", "RFC 7519 §2", claim("iat", "["+at(0)+"]"), "proof_claims"},
		{"iat an object", "RFC 7519 §2", claim("iat", `{"a":`+at(0)+"}"), "proof_claims"},
		{"iat infinite", "RFC 8259 §6", claim("iat", "1e999"), "proof_claims"},
		{"iat infinite and negative", "RFC 8259 §6", claim("iat", "-1e999"), "proof_claims"},
		{"iat NaN", "RFC 8259 §6", claim("iat", "NaN"), "proof_malformed"},
		{"iat in hexadecimal", "RFC 8259 §6", claim("iat", "0x"+strconv.FormatInt(now, 16)), "proof_malformed"},
		{"iat with a plus", "RFC 8259 §6", claim("iat", "+"+at(0)), "proof_malformed"},
		{"iat with a zero in front", "RFC 8259 §6", claim("iat", "0"+at(0)), "proof_malformed"},
		{"iat a date", "RFC 7519 §2", claim("iat", text(time.Unix(now, 0).Format(time.RFC3339))), "proof_claims"},
		{"iat zero", "Go's zero value", claim("iat", "0"), "proof_expired"},
		{"iat negative", "RFC 7519 §2", claim("iat", "-"+at(0)), "proof_expired"},
		{"iat below all integers", "int64(-1e300)", claim("iat", "-1e300"), "proof_expired"},
		{"iat beyond all integers", "int64(1e300) wraps to the least", claim("iat", "1e300"), "proof_early"},
		{"iat 2^64 later", "wraps to now", claim("iat", new(big.Int).Add(new(big.Int).Lsh(big.NewInt(1), 64), big.NewInt(now)).String()), "proof_early"},
		{"iat 2^32 later", "wraps to now", claim("iat", strconv.FormatInt(now+1<<32, 10)), "proof_early"},
		{"iat in milliseconds", "Date.now()", claim("iat", at(0)+"000"), "proof_early"},
		{"iat 72 seconds ago", "RFC 9449 §11.1", claim("iat", at(-72)), "proof_expired"},
		{"iat a minute ahead", "RFC 9449 §11.1", claim("iat", at(60)), "proof_early"},
		{"iat with a fraction", "RFC 7519 §2", claim("iat", at(0)+".25"), isAccepted},
		{"iat by an exponent", "RFC 8259 §6", claim("iat", at(0)+"0e-1"), isAccepted},
		{"IAT", "RFC 7519 §4", func(f *forgery) { f.claims = replaceOne(f.claims, `"iat"`, `"IAT"`) }, "proof_claims"},

		// exp and nbf need not be there, but count.
		{"exp past", "RFC 7519 §4.1.4", claim("exp", at(-12)), "proof_expired"},
		{"exp a string", "RFC 7519 §2", claim("exp", text(at(60))), "proof_claims"},
		{"exp null", "RFC 7519 §2", claim("exp", "null"), "proof_claims"},
		{"exp infinite", "RFC 8259 §6", claim("exp", "1e999"), "proof_claims"},
		{"exp zero", "Go's zero value", claim("exp", "0"), "proof_expired"},
		{"nbf ahead", "RFC 7519 §4.1.5", claim("nbf", at(60)), "proof_early"},
		{"nbf a string", "RFC 7519 §2", claim("nbf", `"0"`), "proof_claims"},
		{"nbf beyond all integers", "int64(1e300)", claim("nbf", "1e300"), "proof_early"},

		// jti.
		{"no jti", "RFC 9449 §4.3 check 3", without("jti"), "proof_claims"},
		{"jti empty", "RFC 9449 §4.2", claim("jti", `""`), "proof_claims"},
		{"jti a number", "RFC 7519 §4.1.7", claim("jti", "1"), "proof_claims"},
		{"jti null", "RFC 7519 §4.1.7", claim("jti", "null"), "proof_claims"},
		{"jti an array", "RFC 7519 §4.1.7", claim("jti", `["a"]`), "proof_claims"},
		{"jti of 513 bytes", "RFC 9449 §11.1: what is stored is bounded", claim("jti", text(strings.Repeat("a", 513))), "proof_claims"},
		{"jti of 513 bytes, by 171 characters", "RFC 9449 §11.1", claim("jti", text(strings.Repeat("€", 171))), "proof_claims"},
		{"jti of control characters", "RFC 7519 §4.1.7: any string", claim("jti", `"\u0000\r\n`+strconv.FormatInt(now, 36)+`"`), isAccepted},

		// htm.
		{"no htm", "RFC 9449 §4.3 check 3", without("htm"), "proof_claims"},
		{"htm another", "RFC 9449 §4.3 check 8", claim("htm", `"POST"`), "proof_method"},
		{"htm in lower case", "RFC 9110 §9.1", claim("htm", `"get"`), "proof_method"},
		{"htm with a space", "RFC 9110 §9.1", claim("htm", `"GET "`), "proof_method"},
		{"htm with a NUL", "RFC 9110 §9.1", claim("htm", `"GET\u0000"`), "proof_method"},
		{"htm empty", "net/http takes it for GET", claim("htm", `""`), "proof_method"},
		{"htm any", "RFC 9449 §4.3 check 8", claim("htm", `"*"`), "proof_method"},
		{"htm a list", "RFC 9449 §4.2", claim("htm", `"GET, POST"`), "proof_method"},
		{"htm an array", "RFC 9449 §4.2", claim("htm", `["GET"]`), "proof_claims"},
		{"htm null", "RFC 9449 §4.2", claim("htm", "null"), "proof_claims"},

		// ath.
		{"no ath", "RFC 9449 §4.3 check 12, Keycloak issue 38333", without("ath"), "proof_token"},
		{"ath of another token", "RFC 9449 §4.3 check 12", claim("ath", text(proof.TokenHash(token+"x"))), "proof_token"},
		{"ath empty", "Go's zero value", claim("ath", `""`), "proof_token"},
		{"ath null", "RFC 9449 §4.2", claim("ath", "null"), "proof_token"},
		{"ath an array", "RFC 9449 §4.2", claim("ath", "["+text(ath)+"]"), "proof_token"},
		{"ath with padding", "RFC 9449 §4.2", claim("ath", text(ath+"=")), "proof_token"},
		{"ath by another encoding", "RFC 4648 §3.5", claim("ath", text(otherSpelling(ath))), "proof_token"},
		{"ath in hexadecimal", "RFC 9449 §4.2", claim("ath", text(hex.EncodeToString(digest))), "proof_token"},
		{"ath cut short", "comparing a beginning", claim("ath", text(ath[:42])), "proof_token"},
		{"ath in another case", "comparing without case", claim("ath", text(swapped(ath))), "proof_token"},
		{"ath that is the token", "RFC 9449 §4.2", claim("ath", text(token)), "proof_token"},
	} {
		t.Run(row.attack+" ("+row.source+")", func(t *testing.T) {
			a := call{url: g.url, header: credentials(token, proofBy(key, "GET", g.url, token, row.option))}.send(t)
			g.because(t, a.Response, row.reason)
		})
	}
}

// What other software takes for the method or the URL of a request is none: the
// proof is for the request line.
func TestAttackOverrides(t *testing.T) {
	g := attacked(t, "")
	for _, row := range []struct {
		attack, source, name, value string
		htm, path                   string // of the proof, for a GET of /orders
	}{
		{"another method by a header", "RFC 9449 §4.3 check 8", "X-HTTP-Method-Override", "DELETE", "DELETE", "/orders"},
		{"another method by a header, old", "RFC 9449 §4.3 check 8", "X-HTTP-Method", "DELETE", "DELETE", "/orders"},
		{"another path by a header", "CVE-2018-14773 (Symfony)", "X-Original-URL", "/admin", "GET", "/admin"},
		{"another path by another header", "CVE-2018-14773 (Symfony)", "X-Rewrite-URL", "/admin", "GET", "/admin"},
		{"another path by a proxy's header", "RFC 9449 §4.3 check 9", "X-Forwarded-Prefix", "/admin", "GET", "/admin/orders"},
		{"another path by a proxy's header, old", "RFC 9449 §4.3 check 9", "X-Forwarded-Path", "/admin", "GET", "/admin"},
	} {
		t.Run(row.attack+" ("+row.source+")", func(t *testing.T) {
			send := func(htm, path string) *http.Response {
				token := accessToken(t, nil)
				c := call{url: g.url + "/orders", header: credentials(token, dpop(t, htm, g.url+path, token, nil))}
				c.header.Set(row.name, row.value)
				return c.send(t).Response
			}
			reason := "proof_url"
			if row.htm != "GET" {
				reason = "proof_method"
			}
			g.because(t, send(row.htm, row.path), reason)
			g.because(t, send("GET", "/orders"), isAccepted)
		})
	}
}
