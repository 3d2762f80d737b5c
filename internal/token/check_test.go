package token

import (
	"testing"
	"time"

	"github.com/caddy-dpop/caddy-dpop/internal/failure"
)

var now = time.Unix(epoch, 0)

// rules returns the rules of the smallest useful site.
func rules() *Rules {
	return &Rules{
		Issuer:    testIssuer,
		Audiences: []string{"https://other.example.com", testAudience},
		Types:     []string{"at+jwt", "JWT", NoType},
		ClockSkew: 10 * time.Second,
	}
}

func profile(r *Rules)     { r.RFC9068, r.Types = true, []string{AccessTokenType} }
func anyAudience(r *Rules) { r.AnyAudience, r.Audiences = true, nil }
func only(types ...string) func(*Rules) {
	return func(r *Rules) { r.Types = types }
}

// check is one row: a token and how it is judged.
type check struct {
	name    string
	typ     string   // JSON text; empty: at+jwt
	changes []string // to the claims, as for claims
	rules   func(*Rules)
	want    failure.Reason // empty: accepted
}

const absent = "absent" // as typ: no such header

func run(t *testing.T, rows []check) {
	t.Helper()
	for _, row := range rows {
		t.Run(row.name, func(t *testing.T) {
			typ := row.typ
			switch typ {
			case "":
				typ = `"at+jwt"`
			case absent:
				typ = ""
			}
			r := rules()
			if row.rules != nil {
				row.rules(r)
			}
			expect(t, verified(t, typ, claims(row.changes...)).Check(r, now), row.want)
		})
	}
}

// RFC 7519 §4.1.1, RFC 9068 §4: iss must match exactly.
func TestCheckIssuer(t *testing.T) {
	run(t, []check{
		{name: "the issuer's"},
		{name: "escaped in JSON", changes: []string{"iss", `"https:\/\/sso.example.com\u002frealms/main"`}},
		{name: "another", changes: []string{"iss", `"https://canary.example.com"`}, want: failure.TokenIssuer},
		{name: "with a trailing slash", changes: []string{"iss", `"` + testIssuer + `/"`}, want: failure.TokenIssuer},
		{name: "in other case", changes: []string{"iss", `"https://SSO.example.com/realms/main"`}, want: failure.TokenIssuer},
		{name: "its beginning", changes: []string{"iss", `"https://sso.example.com/realms"`}, want: failure.TokenIssuer},
		{name: "missing", changes: []string{"iss", ""}, want: failure.TokenIssuer},
		{name: "null", changes: []string{"iss", "null"}, want: failure.TokenIssuer},
		{name: "an array", changes: []string{"iss", `["` + testIssuer + `"]`}, want: failure.TokenIssuer},
		{name: "under another name", changes: []string{"iss", "", "ISS", `"` + testIssuer + `"`}, want: failure.TokenIssuer},
	})
}

// RFC 8725 §3.11, RFC 9068 §4: typ, compared as RFC 7515 §4.1.9 says.
func TestCheckType(t *testing.T) {
	run(t, []check{
		{name: "at+jwt", typ: `"at+jwt"`},
		{name: "case", typ: `"AT+JWT"`},
		{name: "application/", typ: `"application/at+jwt"`},
		{name: "application/ in another case", typ: `"Application/At+JWT"`},
		{name: "JWT", typ: `"JWT"`},
		{name: "jwt", typ: `"jwt"`},
		{name: "none", typ: absent},
		{name: "none, which is not accepted", typ: absent, rules: only("at+jwt", "JWT"), want: failure.TokenType},
		{name: "JWT, which is not accepted", typ: `"JWT"`, rules: only("at+jwt", "-"), want: failure.TokenType},
		{name: "at+jwt, which is not accepted", typ: `"at+jwt"`, rules: only("-"), want: failure.TokenType},
		{name: "nothing is accepted", typ: `"at+jwt"`, rules: only(), want: failure.TokenType},
		{name: "case of the setting", typ: `"at+jwt"`, rules: only("AT+jwt")},
		{name: "a type of one's own", typ: `"canary+jwt"`, rules: only("canary+jwt")},
		{name: "the sign for none, spelt out", typ: `"-"`, want: failure.TokenType},
		{name: "the sign for none, when it alone is accepted", typ: `"-"`, rules: only("-"), want: failure.TokenType},
		{name: "the sign for none, escaped", typ: `"\u002d"`, rules: only("-"), want: failure.TokenType},
		{name: "a number", typ: `5`, want: failure.TokenType},
		{name: "a number, when none is accepted", typ: `5`, rules: only("-"), want: failure.TokenType},
		{name: "null, when none is accepted", typ: `null`, rules: only("-"), want: failure.TokenType},
		{name: "an array", typ: `["at+jwt"]`, want: failure.TokenType},
		{name: "empty", typ: `""`, want: failure.TokenType},
		{name: "application/ alone", typ: `"application/"`, want: failure.TokenType},
		{name: "application/ twice", typ: `"application/application/at+jwt"`, want: failure.TokenType},
		{name: "another tree", typ: `"text/at+jwt"`, want: failure.TokenType},
		{name: "a proof, RFC 9449 §4.2", typ: `"dpop+jwt"`, want: failure.TokenType},
		{name: "a logout token", typ: `"logout+jwt"`, want: failure.TokenType},
		{name: "a security event, RFC 8417 §2.3", typ: `"secevent+jwt"`, want: failure.TokenType},
		{name: "a longer name", typ: `"at+jwtx"`, want: failure.TokenType},
		{name: "a space", typ: `"at+jwt "`, want: failure.TokenType},
		{name: "a parameter", typ: `"at+jwt;canary=1"`, want: failure.TokenType},
		{name: "ſ for s is not case", typ: "\"te\u017ft\"", rules: only("test"), want: failure.TokenType},
	})
}

// RFC 8725 §3.12: what shows itself to be another kind of JWT.
func TestCheckKind(t *testing.T) {
	rows := []check{
		{name: "typ claim Bearer", typ: `"JWT"`, changes: []string{"typ", `"Bearer"`}},
		{name: "typ claim DPoP", typ: `"JWT"`, changes: []string{"typ", `"DPoP"`}},
		{name: "typ claim a number", typ: `"JWT"`, changes: []string{"typ", `5`}},
		{name: "typ claim IDs", typ: `"JWT"`, changes: []string{"typ", `"IDs"`}},
		{name: "nonce is no sign", typ: `"JWT"`, changes: []string{"nonce", `"a"`}},
	}
	for _, sign := range [][]string{
		{"at_hash", `"a"`}, {"c_hash", `"a"`}, {"at_hash", "null"}, // OpenID Connect Core §3.3.2.11
		{"events", `{"http://schemas.openid.net/event/backchannel-logout":{}}`}, // Back-Channel Logout §2.4, RFC 8417 §2.2
		{"events", "{}"},
		{"typ", `"ID"`}, {"typ", `"id"`}, {"typ", `"Refresh"`}, {"typ", `"Offline"`}, {"typ", `"Logout"`}, {"typ", `"LOGOUT"`},
	} {
		name := sign[0] + " " + sign[1]
		rows = append(rows,
			check{name: name + " under at+jwt", changes: sign},
			check{name: name + " under application/AT+jwt", typ: `"application/AT+jwt"`, changes: sign},
			check{name: name + " under JWT", typ: `"JWT"`, changes: sign, want: failure.TokenNotAccessToken},
			check{name: name + " without typ", typ: absent, changes: sign, want: failure.TokenNotAccessToken},
			check{name: name + " under a type of one's own", typ: `"x+jwt"`, changes: sign, rules: only("x+jwt"), want: failure.TokenNotAccessToken},
		)
	}
	run(t, rows)
}

// RFC 9068 §2.2: the claims that its profile requires.
func TestCheckProfile(t *testing.T) {
	rows := []check{
		{name: "complete", rules: profile},
		{name: "typ none", typ: absent, rules: profile, want: failure.TokenType},
		{name: "typ JWT", typ: `"JWT"`, rules: profile, want: failure.TokenType},
		{name: "iss missing", changes: []string{"iss", ""}, rules: profile, want: failure.TokenIssuer},
		{name: "exp missing", changes: []string{"exp", ""}, rules: profile, want: failure.TokenClaims},
		{name: "iat a string", changes: []string{"iat", `"1699999990"`}, rules: profile, want: failure.TokenClaims},
		{name: "iat null", changes: []string{"iat", "null"}, rules: profile, want: failure.TokenClaims},
		{name: "aud null", changes: []string{"aud", "null"}, rules: profile, want: failure.TokenClaims},
		{name: "aud an object, any will do", changes: []string{"aud", "{}"}, want: failure.TokenClaims,
			rules: func(r *Rules) { profile(r); anyAudience(r) }},
		{name: "typ JWT, by the default types", typ: `"JWT"`, want: failure.TokenType, rules: func(r *Rules) { r.RFC9068 = true }},
		{name: "aud missing, any will do", changes: []string{"aud", ""}, want: failure.TokenClaims,
			rules: func(r *Rules) { profile(r); anyAudience(r) }},
		{name: "aud another, any will do", changes: []string{"aud", `"x"`},
			rules: func(r *Rules) { profile(r); anyAudience(r) }},
	}
	for _, name := range []string{"sub", "client_id", "jti", "iat", "aud"} {
		rows = append(rows, check{name: name + " missing", changes: []string{name, ""}, rules: profile, want: failure.TokenClaims})
	}
	for _, name := range []string{"sub", "client_id", "jti"} {
		for _, value := range []string{`""`, "5", "null", "{}", `["a"]`} {
			rows = append(rows, check{name: name + " " + value, changes: []string{name, value}, rules: profile, want: failure.TokenClaims})
		}
		rows = append(rows, check{name: "without profile, no " + name, changes: []string{name, ""}})
	}
	run(t, append(rows, check{name: "without profile, no iat", changes: []string{"iat", ""}}))
}

// RFC 7519 §4.1.4 to §4.1.6. The skew is 10 seconds.
func TestCheckTime(t *testing.T) {
	run(t, []check{
		{name: "exp missing", changes: []string{"exp", ""}, want: failure.TokenClaims},
		{name: "exp a string", changes: []string{"exp", `"1700000300"`}, want: failure.TokenClaims},
		{name: "exp null", changes: []string{"exp", "null"}, want: failure.TokenClaims},
		{name: "exp true", changes: []string{"exp", "true"}, want: failure.TokenClaims},
		{name: "exp beyond float64", changes: []string{"exp", "1e400"}, want: failure.TokenClaims},
		{name: "exp beyond int64", changes: []string{"exp", "1e300"}},
		{name: "exp far below zero", changes: []string{"exp", "-1e300"}, want: failure.TokenExpired},
		{name: "exp zero", changes: []string{"exp", "0"}, want: failure.TokenExpired},
		{name: "exp long past", changes: []string{"exp", "1699990000"}, want: failure.TokenExpired},
		{name: "exp now", changes: []string{"exp", "1700000000"}},
		{name: "exp past, within the skew", changes: []string{"exp", "1699999991"}},
		{name: "exp a moment within the skew", changes: []string{"exp", "1699999990.001"}},
		{name: "exp exactly at the skew", changes: []string{"exp", "1699999990"}, want: failure.TokenExpired},
		{name: "exp a moment past the skew", changes: []string{"exp", "1699999989.999"}, want: failure.TokenExpired},
		{name: "exp with an exponent", changes: []string{"exp", "1.7000003e9"}},
		{name: "exp now, no skew", changes: []string{"exp", "1700000000"}, rules: func(r *Rules) { r.ClockSkew = 0 }, want: failure.TokenExpired},
		{name: "exp in a second, no skew", changes: []string{"exp", "1700000001"}, rules: func(r *Rules) { r.ClockSkew = 0 }},

		{name: "nbf past", changes: []string{"nbf", "1699999990"}},
		{name: "nbf exactly at the skew", changes: []string{"nbf", "1700000010"}},
		{name: "nbf past the skew", changes: []string{"nbf", "1700000010.5"}, want: failure.TokenEarly},
		{name: "nbf far ahead", changes: []string{"nbf", "1e300"}, want: failure.TokenEarly},
		{name: "nbf a string", changes: []string{"nbf", `"1699999990"`}, want: failure.TokenClaims},
		{name: "nbf null", changes: []string{"nbf", "null"}, want: failure.TokenClaims},

		{name: "iat missing", changes: []string{"iat", ""}},
		{name: "iat exactly at the skew", changes: []string{"iat", "1700000010"}},
		{name: "iat in the future", changes: []string{"iat", "1700000011"}, want: failure.TokenEarly},
		{name: "iat a string", changes: []string{"iat", `"1699999990"`}, want: failure.TokenClaims},
		{name: "iat an array", changes: []string{"iat", `[1699999990]`}, want: failure.TokenClaims},
		{name: "iat of long ago", changes: []string{"iat", "1"}},
	})
}

// RFC 7519 §4.1.3: aud is a string or an array of strings.
func TestCheckAudience(t *testing.T) {
	run(t, []check{
		{name: "the string"},
		{name: "another of the resource's", changes: []string{"aud", `"https://other.example.com"`}},
		{name: "among others", changes: []string{"aud", `["https://x.example", "` + testAudience + `"]`}},
		{name: "beside what is no string", changes: []string{"aud", `[5, null, {"a":1}, "` + testAudience + `"]`}},
		{name: "others", changes: []string{"aud", `["https://canary.example", "x"]`}, want: failure.TokenAudience},
		{name: "no strings", changes: []string{"aud", `[5, null, ["` + testAudience + `"]]`}, want: failure.TokenAudience},
		{name: "an empty array", changes: []string{"aud", `[]`}, want: failure.TokenAudience},
		{name: "another", changes: []string{"aud", `"https://canary.example"`}, want: failure.TokenAudience},
		{name: "in another case", changes: []string{"aud", `"https://API.example.com"`}, want: failure.TokenAudience},
		{name: "with a trailing slash", changes: []string{"aud", `"` + testAudience + `/"`}, want: failure.TokenAudience},
		{name: "a list in a string", changes: []string{"aud", `"x ` + testAudience + `"`}, want: failure.TokenAudience},
		{name: "an asterisk in the token", changes: []string{"aud", `"*"`}, want: failure.TokenAudience},
		{name: "missing", changes: []string{"aud", ""}, want: failure.TokenAudience},
		{name: "null", changes: []string{"aud", "null"}, want: failure.TokenAudience},
		{name: "an object", changes: []string{"aud", `{"` + testAudience + `":"` + testAudience + `"}`}, want: failure.TokenAudience},
		{name: "a number", changes: []string{"aud", "5"}, want: failure.TokenAudience},
		{name: "none is accepted", rules: func(r *Rules) { r.Audiences = nil }, want: failure.TokenAudience},
		{name: "any will do: another", changes: []string{"aud", `"x"`}, rules: anyAudience},
		{name: "any will do: missing", changes: []string{"aud", ""}, rules: anyAudience},
	})
}

// The operator is told by how many seconds a clock is off, and
// which audience was expected.
func TestCheckDetails(t *testing.T) {
	for _, row := range []struct {
		name, value, detail string
		want                any
	}{
		{"exp", "1699999900", "expired_seconds_ago", 100.0},
		{"nbf", "1700000100", "seconds_ahead", 100.0},
		{"iat", "1700000050.5", "seconds_ahead", 50.5},
		{"aud", `["x","y"]`, "found", "x y"},
		{"aud", `"x"`, "expected", "https://other.example.com " + testAudience},
	} {
		f := verified(t, `"at+jwt"`, claims(row.name, row.value)).Check(rules(), now)
		if f == nil {
			t.Fatalf("%s %s: accepted", row.name, row.value)
		}
		found := false
		for _, detail := range f.Details {
			found = found || detail.Name == row.detail && detail.Value == row.want
		}
		if !found {
			t.Errorf("%s %s: details %v, want %s %v", row.name, row.value, f.Details, row.detail, row.want)
		}
	}
}

// What a token has passed before changes no later judgement: by other rules, at
// other times, or by the same.
func TestCheckAgain(t *testing.T) {
	usual, strict, others, patient := rules(), rules(), rules(), rules()
	profile(strict)
	others.Audiences = []string{"https://nobody.example.com"}
	patient.ClockSkew = time.Minute
	all := map[string]*Rules{"usual": usual, "strict": strict, "others": others, "patient": patient}
	for _, changes := range [][]string{
		nil,
		{"nbf", "1700000100", "exp", "1700000200"},
		{"iat", "1700000100", "nbf", "1700000050", "exp", "1700000200"},
		{"iat", "", "exp", "1700000000.5"},
		{"exp", "\"1700000200\""},
		{"sub", "", "nbf", "0"},
	} {
		known := verified(t, `"at+jwt"`, claims(changes...))
		for round := range 3 {
			for at := time.Unix(epoch-80, 0); at.Before(time.Unix(epoch+280, 0)); at = at.Add(500 * time.Millisecond) {
				for name, r := range all {
					fresh := &Token{Claims: known.Claims, header: known.header}
					got, want := known.Check(r, at), fresh.Check(r, at)
					if (got == nil) != (want == nil) || got != nil && (got.Reason != want.Reason || got.Description != want.Description) {
						t.Fatalf("%q, round %d, rules %s, %v: %v, and for the first time %v", changes, round, name, at, got, want)
					}
				}
			}
		}
	}
}
