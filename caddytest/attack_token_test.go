package caddytest

import (
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"encoding/base64"
	"encoding/hex"
	"fmt"
	"math/big"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"
)

// localIssuer is the name of an issuer whose keys are in a file: the forgers'.
const localIssuer = "https://issuer.example"

// keyFile writes a key set whose keys have their algorithms' names for kid.
func keyFile(t *testing.T, keys ...*forger) string {
	t.Helper()
	all := make([]string, len(keys))
	for n, key := range keys {
		all[n] = fmt.Sprintf(`{"kid":%q,%s`, key.alg, key.jwk[1:])
	}
	file := filepath.Join(t.TempDir(), "keys.json")
	if err := os.WriteFile(file, []byte(`{"keys":[`+strings.Join(all, ",")+`]}`), 0o600); err != nil {
		t.Fatal(err)
	}
	return file
}

// attackedIssuer is a site that trusts the local issuer, by these keys.
func attackedIssuer(t *testing.T, settings string, keys ...*forger) *gateway {
	t.Helper()
	return serve(t, setup{site: "dpop {\nissuer " + localIssuer + " {\njwks_file " + keyFile(t, keys...) + "\n}\naudience " + audience + "\n" +
		strings.ReplaceAll(settings, ";", "\n") + "\n}\nreverse_proxy {{BACKEND}}" + saysWhy})
}

// tokenBy returns an access token by a forger that is good but for the options,
// bound to the client's key.
func tokenBy(key *forger, options ...option) string {
	now := time.Now().Unix()
	f := &forgery{
		key:    key,
		header: fmt.Sprintf(`{"typ":"at+jwt","alg":%q,"kid":%q}`, key.alg, key.alg),
		claims: fmt.Sprintf(`{"iss":%q,"aud":%q,"sub":"user-1","client_id":"client-1","jti":%q,"iat":%d,"exp":%d,"cnf":{"jkt":%q}}`,
			localIssuer, audience, rand.Text(), now, now+300, clientKey.Thumbprint),
	}
	return f.compact(options)
}

// cnf replaces the confirmation.
func cnf(value string) option { return claim("cnf", value) }

// A token as no issuer makes it for this resource, with a proof that is good.
func TestAttackTokens(t *testing.T) {
	ec, rsaKey, ed := forgers()["ES256"], forgers()["RS256"], forgers()["EdDSA"]
	g := attackedIssuer(t, "", ec, rsaKey, ed)
	attacker := ecForger("ES256", elliptic.P256())
	as := func(alg string, f *forger) *forger { return &forger{f.private, alg, f.jwk, f.jkt} }
	kid := func(value string) option { return head(`"kid":"ES256"`, `"kid":`+value) }
	noKid := head(`,"kid":"ES256"`, "")
	listener, called := startListener(t)
	certificate := base64.StdEncoding.EncodeToString(attacker.certificate())
	none := signed(func(string) []byte { return nil })
	now := time.Now().Unix()
	at := func(seconds int64) string { return strconv.FormatInt(now+seconds, 10) }
	own := clientKey.Thumbprint

	for _, row := range []struct {
		attack, source string
		key            *forger
		options        []option
		reason         string
	}{
		{"good", "RFC 9068 §2.2", ec, nil, isAccepted},
		{"good, without kid", "RFC 7515 §4.1.4", ec, []option{noKid}, isAccepted},
		{"good, RSA", "RFC 7518 §3.3", rsaKey, nil, isAccepted},
		{"good, EdDSA", "RFC 8037 §3.1", ed, nil, isAccepted},

		// Algorithms and keys.
		{"alg none", "CVE-2022-23540, RFC 8725 §2.1", as("none", ec), []option{none}, "token_algorithm"},
		{"alg NONE", "Auth0 authentication API, 2020", as("NONE", ec), []option{none}, "token_algorithm"},
		{"alg none, the issuer's kid", "RFC 8725 §2.1", ec, []option{head(`"alg":"ES256"`, `"alg":"none"`), none}, "token_algorithm"},
		{"no alg", "RFC 7515 §4.1.1", ec, []option{head(`"alg":"ES256",`, "")}, "token_malformed"},
		{"alg a number", "RFC 7515 §4.1.1", ec, []option{head(`"alg":"ES256"`, `"alg":256`)}, "token_malformed"},
		{"HMAC by the issuer's public key, PEM", "CVE-2015-9235, CVE-2016-10555", as("HS256", rsaKey), []option{signed(hmacWith(rsaKey.inPEM()))}, "token_algorithm"},
		{"HMAC by the issuer's public key, JWK", "CVE-2016-10555", as("HS256", rsaKey), []option{signed(hmacWith([]byte(rsaKey.jwk)))}, "token_algorithm"},
		{"HMAC by the issuer's public key, modulus", "CVE-2016-10555", as("HS256", rsaKey), []option{signed(hmacWith(unb64(valueOf(rsaKey.jwk, "n"))))}, "token_algorithm"},
		{"RS256 with the kid of an EC key", "RFC 8725 §3.1", rsaKey, []option{head(`"kid":"RS256"`, `"kid":"ES256"`)}, "token_key"},
		{"an Ed25519 key for ES256", "RFC 8725 §3.1", ec, []option{kid(`"EdDSA"`)}, "token_key"},
		{"PS256 that is RS256", "RFC 8725 §3.1", rsaKey, []option{head(`"alg":"RS256"`, `"alg":"PS256"`)}, "token_signature"},
		{"by another key, the issuer's kid", "RFC 8725 §3.10", attacker, nil, "token_signature"},
		{"by another key, no kid", "RFC 8725 §3.10", attacker, []option{noKid}, "token_signature"},
		{"an embedded key", "CVE-2018-0114, CVE-2026-27962 (Authlib)", attacker, []option{member("jwk", attacker.jwk)}, "token_signature"},
		{"an embedded key, no kid", "CVE-2018-0114", attacker, []option{noKid, member("jwk", attacker.jwk)}, "token_signature"},
		{"a remote key set", "RFC 8725 §3.10", attacker, []option{member("jku", `"http://`+listener+`/keys"`)}, "token_signature"},
		{"a remote certificate", "RFC 8725 §3.10", attacker, []option{member("x5u", `"http://`+listener+`/cert"`)}, "token_signature"},
		{"an embedded certificate", "RFC 7515 §4.1.6", attacker, []option{member("x5c", `["`+certificate+`"]`)}, "token_signature"},
		{"kid that is a path", "PortSwigger: kid path traversal", attacker, []option{kid(`"../../../../dev/null"`)}, "token_key"},
		{"kid that is SQL", "PortSwigger: kid injection", attacker, []option{kid(`"x' UNION SELECT 'a"`)}, "token_key"},
		{"kid that is a URL", "RFC 8725 §3.10", attacker, []option{kid(`"http://` + listener + `/keys"`)}, "token_key"},
		{"kid a number", "RFC 7515 §4.1.4", ec, []option{kid("1")}, "token_malformed"},
		{"kid null", "RFC 7515 §4.1.4", ec, []option{kid("null")}, "token_malformed"},
		{"kid in another case", "RFC 7515 §4.1.4", ec, []option{kid(`"es256"`)}, "token_key"},
		{"the client's own key, as in a proof", "RFC 8725 §2.8", attacker, []option{head("at+jwt", "dpop+jwt"), member("jwk", attacker.jwk)}, "token_signature"},
		{"r and s zero", "CVE-2022-21449", ec, []option{altered(func([]byte) []byte { return make([]byte, 64) })}, "token_signature"},
		{"no signature", "CVE-2020-28042 (ServiceStack)", ec, []option{none}, "token_signature"},
		{"a signature in DER", "RFC 7518 §3.4", ec, []option{altered(inDER)}, "token_signature"},

		// What changes what is signed, and how.
		{"crit", "RFC 7515 §4.1.11, CVE-2025-59420", ec, []option{member("crit", `["x"]`), member("x", "1")}, "token_malformed"},
		{"b64 false", "RFC 7797 §3", ec, []option{member("b64", "false")}, "token_malformed"},
		{"zip", "CVE-2024-28180", ec, []option{member("zip", `"DEF"`)}, "token_malformed"},
		{"alg twice", "RFC 7515 §4", ec, []option{member("alg", `"none"`)}, "token_malformed"},
		{"iss twice", "RFC 7519 §4", ec, []option{body(`{"iss"`, `{"iss":"https://other.example","iss"`)}, "token_malformed"},
		{"cnf twice", "RFC 7519 §4", ec, []option{body(`{"iss"`, `{"cnf":{"jkt":"x"},"iss"`)}, "token_malformed"},
		{"jkt twice", "RFC 7519 §4", ec, []option{body(`"cnf":{`, `"cnf":{"jkt":"x",`)}, "token_malformed"},
		{"jkt twice, by an escape", "RFC 8259 §7", ec, []option{body(`"cnf":{`, `"cnf":{"\u006akt":"x",`)}, "token_malformed"},
		{"bad UTF-8", "RFC 8259 §8.1", ec, []option{body(`"user-1"`, "\"user-\xff\"")}, "token_malformed"},
		{"data behind the claims", "RFC 8259 §2", ec, []option{func(f *forgery) { f.claims += "{}" }}, "token_malformed"},
		{"501 claims", "the cost of looking for repeated ones", ec, []option{body(`{"iss"`, "{"+manyMembers(494)+`"iss"`)}, "token_malformed"},
		{"1,000 levels deep", "CVE-2022-42004 (jackson-databind)", ec, []option{body(`{"iss"`, `{"x":`+strings.Repeat(`[`, 1000)+strings.Repeat(`]`, 1000)+`,"iss"`)}, "token_malformed"},
		{"other encodings", "RFC 4648 §3.5", ec, []option{encoded(sloppy)}, "token_malformed"},
		{"the signature by another encoding", "RFC 4648 §3.5", ec, []option{parts(func(p []string) []string { return []string{p[0], p[1], otherSpelling(p[2])} })}, "token_malformed"},
		{"padding", "RFC 7515 §2", ec, []option{spelt(func(compact string) string { return compact + "==" })}, "token_malformed"},
		{"JSON serialisation", "RFC 7515 §7.2", ec, []option{spelt(func(compact string) string {
			p := strings.Split(compact, ".")
			return fmt.Sprintf(`{"protected":%q,"payload":%q,"signature":%q}`, p[0], p[1], p[2])
		})}, "authorization_malformed"},
		{"five parts, as a JWE has", "RFC 7516 §7.1", ec, []option{parts(func(p []string) []string { return []string{p[0], "", "", p[1], p[2]} })}, "token_malformed"},
		{"four parts", "RFC 7515 §7.1", ec, []option{parts(func(p []string) []string { return append(p, "x") })}, "token_malformed"},
		{"two parts", "RFC 7515 §7.1", ec, []option{parts(func(p []string) []string { return p[:2] })}, "token_malformed"},
		{"a nested JWT", "RFC 8725 §3.3", ec, []option{func(f *forgery) { f.claims = tokenBy(ec) }, member("cty", `"JWT"`)}, "token_malformed"},
		{"no JWT", "RFC 6750 §2.1", ec, []option{spelt(func(string) string { return "opaque" })}, "token_malformed"},

		// Tokens that are something else.
		{"an ID token", "RFC 8725 §2.8, OpenID Connect Core §2", ec, []option{head("at+jwt", "JWT"), claim("at_hash", `"x"`)}, "token_not_access_token"},
		{"an ID token with c_hash", "OpenID Connect Core §3.3.2.11", ec, []option{head(`"typ":"at+jwt",`, ""), claim("c_hash", `"x"`)}, "token_not_access_token"},
		{"a logout token", "OpenID Connect Back-Channel Logout §2.4", ec, []option{head("at+jwt", "JWT"), claim("events", "{}")}, "token_not_access_token"},
		{"a logout token by its typ", "OpenID Connect Back-Channel Logout §2.4", ec, []option{head("at+jwt", "logout+jwt")}, "token_type"},
		{"a refresh token", "Keycloak's claim typ", ec, []option{head("at+jwt", "JWT"), claim("typ", `"Refresh"`)}, "token_not_access_token"},
		{"an offline token", "Keycloak's claim typ", ec, []option{head("at+jwt", "JWT"), claim("typ", `"offline"`)}, "token_not_access_token"},
		{"an introspection answer", "RFC 9701 §8.1", ec, []option{head("at+jwt", "token-introspection+jwt")}, "token_type"},
		{"a proof", "RFC 8725 §3.11", ec, []option{head("at+jwt", "dpop+jwt")}, "token_type"},
		{"a security event", "RFC 8417 §2.3", ec, []option{head("at+jwt", "secevent+jwt")}, "token_type"},
		{"typ a number", "RFC 7515 §4.1.9", ec, []option{head(`"at+jwt"`, "1")}, "token_type"},
		{"typ null", "RFC 7515 §4.1.9", ec, []option{head(`"at+jwt"`, "null")}, "token_type"},
		{"typ -, which settings have for none", "README, Settings", ec, []option{head("at+jwt", "-")}, "token_type"},
		{"typ with a combining mark", "RFC 7515 §4.1.9", ec, []option{head("at+jwt", "at+jwt\u0301")}, "token_type"},

		// Issuer and audience.
		{"no iss", "RFC 9068 §4", ec, []option{without("iss")}, "token_issuer"},
		{"iss with a slash", "RFC 8414 §3.3: the exact value", ec, []option{claim("iss", `"`+localIssuer+`/"`)}, "token_issuer"},
		{"iss in another case", "RFC 8414 §3.3", ec, []option{claim("iss", `"HTTPS://ISSUER.EXAMPLE"`)}, "token_issuer"},
		{"iss that is a part", "CVE-2024-53861 (PyJWT)", ec, []option{claim("iss", `"`+localIssuer[:len(localIssuer)-1]+`"`)}, "token_issuer"},
		{"iss an array", "RFC 7519 §4.1.1", ec, []option{claim("iss", `["`+localIssuer+`"]`)}, "token_issuer"},
		{"iss null", "RFC 7519 §4.1.1", ec, []option{claim("iss", "null")}, "token_issuer"},
		{"ISS", "RFC 7519 §4", ec, []option{without("iss"), claim("ISS", `"`+localIssuer+`"`)}, "token_issuer"},
		{"no aud", "RFC 9068 §4", ec, []option{without("aud")}, "token_audience"},
		{"another aud", "RFC 8725 §3.9", ec, []option{claim("aud", `"https://other.example"`)}, "token_audience"},
		{"aud that begins alike", "RFC 7519 §4.1.3", ec, []option{claim("aud", `"`+audience+`.evil.example"`)}, "token_audience"},
		{"aud that is a beginning", "RFC 7519 §4.1.3", ec, []option{claim("aud", `"`+audience[:len(audience)-1]+`"`)}, "token_audience"},
		{"aud with a slash", "RFC 7519 §4.1.3", ec, []option{claim("aud", `"`+audience+`/"`)}, "token_audience"},
		{"aud in another case", "RFC 7519 §4.1.3", ec, []option{claim("aud", `"`+strings.ToUpper(audience)+`"`)}, "token_audience"},
		{"aud an empty array", "CVE-2020-26160 (jwt-go)", ec, []option{claim("aud", "[]")}, "token_audience"},
		{"aud null", "CVE-2020-26160", ec, []option{claim("aud", "null")}, "token_audience"},
		{"aud an array of arrays", "RFC 7519 §4.1.3", ec, []option{claim("aud", `[["`+audience+`"]]`)}, "token_audience"},
		{"aud an object", "RFC 7519 §4.1.3", ec, []option{claim("aud", `{"`+audience+`":1}`)}, "token_audience"},
		{"aud of words", "RFC 7519 §4.1.3", ec, []option{claim("aud", `"x `+audience+`"`)}, "token_audience"},
		{"aud the sign for any", "README, Settings", ec, []option{claim("aud", `"*"`)}, "token_audience"},
		{"aud one of several", "RFC 7519 §4.1.3", ec, []option{claim("aud", `[1,null,"`+audience+`"]`)}, isAccepted},

		// Time, as every JSON type.
		{"no exp", "RFC 9068 §4", ec, []option{without("exp")}, "token_claims"},
		{"exp past", "RFC 7519 §4.1.4", ec, []option{claim("exp", at(-11))}, "token_expired"},
		{"exp a string", "RFC 7519 §2", ec, []option{claim("exp", `"`+at(300)+`"`)}, "token_claims"},
		{"exp null", "RFC 7519 §2", ec, []option{claim("exp", "null")}, "token_claims"},
		{"exp true", "RFC 7519 §2", ec, []option{claim("exp", "true")}, "token_claims"},
		{"exp false", "RFC 7519 §2", ec, []option{claim("exp", "false")}, "token_claims"},
		{"exp an array", "RFC 7519 §2", ec, []option{claim("exp", "["+at(300)+"]")}, "token_claims"},
		{"exp an object", "RFC 7519 §2", ec, []option{claim("exp", `{"a":`+at(300)+"}")}, "token_claims"},
		{"exp infinite", "RFC 8259 §6", ec, []option{claim("exp", "1e999")}, "token_claims"},
		{"exp zero", "a library's sign for never", ec, []option{claim("exp", "0")}, "token_expired"},
		{"exp negative", "RFC 7519 §2", ec, []option{claim("exp", "-1")}, "token_expired"},
		{"exp below all numbers", "int64(-1e300) is the least int64", ec, []option{claim("exp", "-1e300")}, "token_expired"},
		{"exp small, by an exponent", "RFC 8259 §6", ec, []option{claim("exp", at(300)+"e-10")}, "token_expired"},
		{"exp in milliseconds, past", "Date.now()", ec, []option{claim("exp", at(-1000)+"e-3")}, "token_expired"},
		{"exp with a fraction", "RFC 7519 §2", ec, []option{claim("exp", at(300)+".5")}, isAccepted},
		{"nbf ahead", "RFC 7519 §4.1.5", ec, []option{claim("nbf", at(60))}, "token_early"},
		{"nbf a string", "RFC 7519 §2", ec, []option{claim("nbf", `"0"`)}, "token_claims"},
		{"nbf null", "RFC 7519 §2", ec, []option{claim("nbf", "null")}, "token_claims"},
		{"nbf beyond all numbers", "int64(1e300) wraps", ec, []option{claim("nbf", "1e300")}, "token_early"},
		{"iat ahead", "RFC 9068 §4", ec, []option{claim("iat", at(60))}, "token_early"},
		{"iat a string", "RFC 7519 §2", ec, []option{claim("iat", `"0"`)}, "token_claims"},
		{"iat an object", "RFC 7519 §2", ec, []option{claim("iat", "{}")}, "token_claims"},

		// Confirmation, as every JSON type.
		{"no cnf", "RFC 9449 §7.1", ec, []option{without("cnf")}, "token_unbound"},
		{"cnf null", "RFC 7800 §3.1", ec, []option{cnf("null")}, "token_confirmation"},
		{"cnf a string", "RFC 7800 §3.1", ec, []option{cnf(`"` + own + `"`)}, "token_confirmation"},
		{"cnf JSON in a string", "RFC 7800 §3.1", ec, []option{cnf(`"{\"jkt\":\"` + own + `\"}"`)}, "token_confirmation"},
		{"cnf an array", "RFC 7800 §3.1", ec, []option{cnf(`[{"jkt":"` + own + `"}]`)}, "token_confirmation"},
		{"cnf true", "RFC 7800 §3.1", ec, []option{cnf("true")}, "token_confirmation"},
		{"cnf empty", "RFC 9449 §6.1", ec, []option{cnf("{}")}, "token_unbound"},
		{"JKT", "RFC 7519 §4", ec, []option{cnf(`{"JKT":"` + own + `"}`)}, "token_unbound"},
		{"jkt deeper", "RFC 9449 §6.1", ec, []option{cnf(`{"x":{"jkt":"` + own + `"}}`)}, "token_unbound"},
		{"jkt beside cnf", "RFC 9449 §6.1", ec, []option{without("cnf"), claim("jkt", `"`+own+`"`)}, "token_unbound"},
		{"cnf of the actor", "RFC 8693 §4.1", ec, []option{without("cnf"), claim("act", `{"cnf":{"jkt":"`+own+`"}}`)}, "token_unbound"},
		{"cnf by a path", "token.Claim looks by paths", ec, []option{without("cnf"), claim("cnf.jkt", `"`+own+`"`)}, "token_unbound"},
		{"jkt null", "RFC 9449 §6.1", ec, []option{cnf(`{"jkt":null}`)}, "token_other_key"},
		{"jkt an array", "RFC 9449 §6.1", ec, []option{cnf(`{"jkt":["` + own + `"]}`)}, "token_other_key"},
		{"jkt empty", "Go's zero value", ec, []option{cnf(`{"jkt":""}`)}, "token_other_key"},
		{"jkt of another key", "RFC 9449 §4.3 check 12", ec, []option{cnf(`{"jkt":"` + attacker.jkt + `"}`)}, "token_other_key"},
		{"jkt with padding", "RFC 9449 §6.1", ec, []option{cnf(`{"jkt":"` + own + `="}`)}, "token_other_key"},
		{"jkt in another case", "comparing without case", ec, []option{cnf(`{"jkt":"` + swapped(own) + `"}`)}, "token_other_key"},
		{"jkt cut short", "comparing a beginning", ec, []option{cnf(`{"jkt":"` + own[:42] + `"}`)}, "token_other_key"},
		{"jkt by another encoding", "RFC 4648 §3.5", ec, []option{cnf(`{"jkt":"` + otherSpelling(own) + `"}`)}, "token_other_key"},
		{"jkt in hexadecimal", "RFC 9449 §6.1", ec, []option{cnf(`{"jkt":"` + hex.EncodeToString(unb64(own)) + `"}`)}, "token_other_key"},
		{"bound to a certificate too", "RFC 8705 §3.1", ec, []option{body(`"cnf":{`, `"cnf":{"x5t#S256":"x",`)}, "token_confirmation"},
		{"bound to a key by value too", "RFC 7800 §3.2", ec, []option{body(`"cnf":{`, `"cnf":{"jwk":`+attacker.jwk+`,`)}, "token_confirmation"},
		{"bound to an encrypted key too", "RFC 7800 §3.3", ec, []option{body(`"cnf":{`, `"cnf":{"jwe":"x",`)}, "token_confirmation"},
		{"bound to a key id too", "RFC 7800 §3.4", ec, []option{body(`"cnf":{`, `"cnf":{"kid":"x",`)}, "token_confirmation"},
		{"bound to a key by URL too", "RFC 7800 §3.5", ec, []option{body(`"cnf":{`, `"cnf":{"jku":"http://`+listener+`/",`)}, "token_confirmation"},
		{"bound in a way that nobody knows too", "RFC 7800 §3.1", ec, []option{body(`"cnf":{`, `"cnf":{"x":"y",`)}, isAccepted},
	} {
		t.Run(row.attack+" ("+row.source+")", func(t *testing.T) {
			token := tokenBy(row.key, row.options...)
			a := call{url: g.url, header: credentials(token, dpop(t, "GET", g.url, token, nil))}.send(t)
			g.because(t, a.Response, row.reason)
		})
	}
	if called() {
		t.Error("a key was fetched from where a token said")
	}
}

// What one handler accepts of an issuer's algorithms, and has remembered, another that
// accepts fewer does not (RFC 8725 §3.1).
func TestAttackAlgorithmsOfOneIssuer(t *testing.T) {
	site := func(path, settings string) string {
		return "handle " + path + " {\ndpop {\nissuer " + issuer.URL + " {\n" + settings + "\n}\naudience " + audience + "\n}\nreverse_proxy {{BACKEND}}\n}\n"
	}
	g := serve(t, setup{site: site("/any", "algorithms ES256 RS256") + site("/rsa", "algorithms RS256") + saysWhy})
	token := accessToken(t, nil)
	for _, row := range []struct{ path, reason string }{{"/rsa", "token_algorithm"}, {"/any", isAccepted}, {"/rsa", "token_algorithm"}, {"/any", isAccepted}} {
		url := g.url + row.path
		a := call{url: url, header: credentials(token, dpop(t, "GET", url, token, nil))}.send(t)
		g.because(t, a.Response, row.reason)
	}
}

// swapped has upper case for lower, and lower for upper.
func swapped(text string) string {
	return strings.Map(func(r rune) rune {
		if r >= 'a' && r <= 'z' || r >= 'A' && r <= 'Z' {
			return r ^ 0x20
		}
		return r
	}, text)
}

// certificate is one that the forger has signed itself.
func (f *forger) certificate() []byte {
	template := &x509.Certificate{SerialNumber: big.NewInt(1), NotAfter: time.Now().Add(time.Hour)}
	der, err := x509.CreateCertificate(rand.Reader, template, template, f.private.Public(), f.private)
	if err != nil {
		panic(err)
	}
	return der
}
