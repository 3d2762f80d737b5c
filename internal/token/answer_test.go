package token

import (
	"strings"
	"testing"
	"time"

	"github.com/caddy-dpop/caddy-dpop/internal/failure"
	"github.com/caddy-dpop/caddy-dpop/internal/jose"
)

// answer writes what an issuer says of a good token (RFC 7662 §2.2), with
// changes as for claims.
func answer(changes ...string) string {
	return claims(append([]string{"active", "true", "token_type", `"DPoP"`, "cnf", `{"jkt":"` + jkt + `"}`}, changes...)...)
}

// bare is an answer with the least that there can be under any audience.
const bare = `{"active":true}`

func TestCheckAnswer(t *testing.T) {
	aud := func(value string) string { return answer("aud", value) }
	for _, row := range []struct {
		name, answer string
		rules        func(*Rules)
		want         failure.Reason
	}{
		{name: "a good one", answer: answer()},
		{name: "nothing but active, any audience", answer: bare, rules: anyAudience},
		{name: "nothing but active", answer: bare, want: failure.TokenAudience},

		// iss: need not be there, but must be the issuer.
		{name: "no iss", answer: answer("iss", "")},
		{name: "iss escaped in JSON", answer: answer("iss", `"https:\/\/sso.example.com\u002frealms/main"`)},
		{name: "another's iss", answer: answer("iss", `"https://canary.example.com"`), want: failure.TokenIssuer},
		{name: "iss with a slash more", answer: answer("iss", `"`+testIssuer+`/"`), want: failure.TokenIssuer},
		{name: "iss in another case", answer: answer("iss", `"`+strings.ToUpper(testIssuer)+`"`), want: failure.TokenIssuer},
		{name: "iss empty", answer: answer("iss", `""`), want: failure.TokenIssuer},
		{name: "iss null", answer: answer("iss", "null"), want: failure.TokenIssuer},
		{name: "iss an array", answer: answer("iss", `["`+testIssuer+`"]`), want: failure.TokenIssuer},
		{name: "another's iss, any audience", answer: answer("iss", `"https://canary.example.com"`), rules: anyAudience, want: failure.TokenIssuer},

		// exp: need not be there; a skew of 10 s after it is too late.
		{name: "no exp", answer: answer("exp", "")},
		{name: "exp within the skew", answer: answer("exp", "1699999991")},
		{name: "exp a millisecond within the skew", answer: answer("exp", "1699999990.001")},
		{name: "exp at the skew", answer: answer("exp", "1699999990"), want: failure.TokenExpired},
		{name: "exp long ago", answer: answer("exp", "0"), want: failure.TokenExpired},
		{name: "exp negative", answer: answer("exp", "-1"), want: failure.TokenExpired},
		{name: "exp of text", answer: answer("exp", `"1700000300"`), want: failure.TokenClaims},
		{name: "exp null", answer: answer("exp", "null"), want: failure.TokenClaims},
		{name: "exp true", answer: answer("exp", "true"), want: failure.TokenClaims},
		{name: "exp too large to hold", answer: answer("exp", "1e999"), want: failure.TokenClaims},
		{name: "expired, no skew", answer: answer("exp", "1700000000"), rules: func(r *Rules) { r.ClockSkew = 0 }, want: failure.TokenExpired},
		{name: "a second left, no skew", answer: answer("exp", "1700000001"), rules: func(r *Rules) { r.ClockSkew = 0 }},

		// nbf and iat: need not be there; up to a skew of 10 s ahead.
		{name: "no iat", answer: answer("iat", "")},
		{name: "nbf past", answer: answer("nbf", "1600000000")},
		{name: "nbf at the skew", answer: answer("nbf", "1700000010")},
		{name: "nbf beyond the skew", answer: answer("nbf", "1700000010.001"), want: failure.TokenEarly},
		{name: "nbf of text", answer: answer("nbf", `"0"`), want: failure.TokenClaims},
		{name: "nbf null", answer: answer("nbf", "null"), want: failure.TokenClaims},
		{name: "iat at the skew", answer: answer("iat", "1700000010")},
		{name: "iat beyond the skew", answer: answer("iat", "1700000010.001"), want: failure.TokenEarly},
		{name: "iat an array", answer: answer("iat", "[1]"), want: failure.TokenClaims},
		{name: "iat null", answer: answer("iat", "null"), want: failure.TokenClaims},

		// aud: without it, under any audience alone.
		{name: "one of several accepted", answer: aud(`"https://other.example.com"`)},
		{name: "an array with it", answer: aud(`["https://canary.example.com","` + testAudience + `"]`)},
		{name: "an array without it", answer: aud(`["https://canary.example.com","https://x.example.com"]`), want: failure.TokenAudience},
		{name: "an empty array", answer: aud("[]"), want: failure.TokenAudience},
		{name: "an array in an array", answer: aud(`[["` + testAudience + `"]]`), want: failure.TokenAudience},
		{name: "no aud", answer: answer("aud", ""), want: failure.TokenAudience},
		{name: "aud null", answer: aud("null"), want: failure.TokenAudience},
		{name: "aud of two words", answer: aud(`"` + testAudience + ` https://other.example.com"`), want: failure.TokenAudience},
		{name: "aud an object", answer: aud(`{"` + testAudience + `":1}`), want: failure.TokenAudience},
		{name: "aud the sign for any", answer: aud(`"*"`), want: failure.TokenAudience},
		{name: "aud with a slash more", answer: aud(`"` + testAudience + `/"`), want: failure.TokenAudience},
		{name: "another aud", answer: aud(`"https://canary.example.com"`), want: failure.TokenAudience},
		{name: "another aud, any audience", answer: aud(`"https://canary.example.com"`), rules: anyAudience},
		{name: "no aud, any audience", answer: answer("aud", ""), rules: anyAudience},
		{name: "aud null, any audience", answer: aud("null"), rules: anyAudience},

		// The rules for JWTs' headers and RFC 9068's claims are for JWTs.
		{name: "no JWT's types", answer: answer(), rules: only("at+jwt")},
		{name: "an unknown claim", answer: answer("nested", `{"exp":0,"iss":"canary"}`)},
	} {
		t.Run(row.name, func(t *testing.T) {
			r := rules()
			if row.rules != nil {
				row.rules(r)
			}
			expect(t, CheckAnswer(object(t, row.answer), r, failure.DPoP, now), row.want)
		})
	}
}

// The answer is judged at the time that it is given, not at that of its coming:
// what is remembered of a token ends with the token.
func TestCheckAnswerOverTime(t *testing.T) {
	a := object(t, answer("nbf", "1700000000"))
	for _, row := range []struct {
		at   int64 // milliseconds after the epoch
		want failure.Reason
	}{
		{-10_001, failure.TokenEarly}, {-10_000, ""}, {0, ""}, {309_999, ""}, {310_000, failure.TokenExpired},
	} {
		expect(t, CheckAnswer(a, rules(), failure.DPoP, now.Add(time.Duration(row.at)*time.Millisecond)), row.want)
	}
}

// token_type decides one thing only: DPoP under the Bearer scheme refuses.
func TestCheckAnswerTokenType(t *testing.T) {
	for tokenType, bearer := range map[string]failure.Reason{
		"":         "", // none
		`"Bearer"`: "", `"bearer"`: "", `"mac"`: "", `"N_A"`: "", `"access_token"`: "", `""`: "",
		`"DPoP"`: failure.TokenBound, `"dpop"`: failure.TokenBound, `"DPOP"`: failure.TokenBound, `"\u0044PoP"`: failure.TokenBound,
		`" DPoP"`: "", `"DPoPx"`: "", `null`: "", `5`: "", `["DPoP"]`: "",
	} {
		a := object(t, answer("token_type", tokenType))
		t.Run("Bearer, "+tokenType, func(t *testing.T) { expect(t, CheckAnswer(a, rules(), failure.Bearer, now), bearer) })
		t.Run("DPoP, "+tokenType, func(t *testing.T) { expect(t, CheckAnswer(a, rules(), failure.DPoP, now), "") })
	}
}

// A token and what its issuer says of it agree in iss, sub and cnf wherever both
// have them.
func TestCheckAgreement(t *testing.T) {
	cnf := func(members string) string { return `{"cnf":{` + members + `}}` }
	bound := cnf(`"jkt":"` + jkt + `"`)
	for _, row := range []struct {
		name, a, b string
		agree      bool
	}{
		{"neither says anything", `{}`, bare, true},
		{"all the same", claims("cnf", `{"jkt":"`+jkt+`"}`), answer(), true},
		{"the same, escaped", `{"sub":"alice"}`, `{"sub":"\u0061lice"}`, true},
		{"other claims differ", claims("client_id", `"a"`, "scope", `"a"`, "aud", `"a"`, "exp", "1"), claims("scope", `"b"`), true},
		{"iss and sub in one", `{"iss":"https://a.example","sub":"alice"}`, bare, true},

		{"iss differs", `{"iss":"https://a.example"}`, `{"iss":"https://b.example"}`, false},
		{"iss differs in case", `{"iss":"https://a.example"}`, `{"iss":"https://A.example"}`, false},
		{"iss null in one", `{"iss":"https://a.example"}`, `{"iss":null}`, false},
		{"iss null in both", `{"iss":null}`, `{"iss":null}`, false},
		{"iss an array in both", `{"iss":["a"]}`, `{"iss":["a"]}`, false},
		{"sub differs", `{"sub":"alice"}`, `{"sub":"canary"}`, false},
		{"sub differs in case", `{"sub":"alice"}`, `{"sub":"Alice"}`, false},
		{"sub empty in one", `{"sub":"alice"}`, `{"sub":""}`, false},
		{"sub empty in both", `{"sub":""}`, `{"sub":""}`, true},
		{"sub a number in both", `{"sub":5}`, `{"sub":5}`, false},
		{"sub text and number", `{"sub":"5"}`, `{"sub":5}`, false},

		{"cnf the same", bound, bound, true},
		{"cnf in one", bound, bare, true}, // and counts: see TestBindingInSeveralPlaces
		{"cnf null in one alone", `{"cnf":null}`, bare, true},
		{"cnf with a member more", bound, cnf(`"jkt":"` + jkt + `","kc-jkt-type":"DPoP"`), true},
		{"cnf of different keys", bound, cnf(`"jkt":"canary"`), false},
		{"jkt in one", bound, cnf(`"x5t#S256":"a"`), false},
		{"cnf empty in one", bound, cnf(``), false},
		{"jkt in neither", cnf(`"x5t#S256":"a"`), cnf(`"x5t#S256":"a"`), false},
		{"cnf empty in both", cnf(``), cnf(``), false},
		{"jkt null in both", cnf(`"jkt":null`), cnf(`"jkt":null`), false},
		{"jkt a number in both", cnf(`"jkt":5`), cnf(`"jkt":5`), false},
		{"jkt an array in one", bound, cnf(`"jkt":["` + jkt + `"]`), false},
		{"cnf null in one of both", bound, `{"cnf":null}`, false},
		{"cnf null in both", `{"cnf":null}`, `{"cnf":null}`, false},
		{"cnf a string in both", `{"cnf":"` + jkt + `"}`, `{"cnf":"` + jkt + `"}`, false},
		{"cnf an array in both", `{"cnf":[{"jkt":"` + jkt + `"}]}`, `{"cnf":[{"jkt":"` + jkt + `"}]}`, false},
	} {
		t.Run(row.name, func(t *testing.T) {
			want := failure.TokenContradictory
			if row.agree {
				want = ""
			}
			a, b := object(t, row.a), object(t, row.b)
			expect(t, CheckAgreement(a, b), want)
			expect(t, CheckAgreement(b, a), want)
		})
	}
}

// A cnf in either place counts, and each must hold.
func TestBindingInSeveralPlaces(t *testing.T) {
	const (
		none  = `{"sub":"a"}`
		good  = `{"cnf":{"jkt":"` + jkt + `"}}`
		other = `{"cnf":{"jkt":"canary"}}`
		mtls  = `{"cnf":{"jkt":"` + jkt + `","x5t#S256":"a"}}`
		empty = `{"cnf":{}}`
		null  = `{"cnf":null}`
	)
	for _, row := range []struct {
		name          string
		places        []string
		bound, unused failure.Reason // under DPoP, under Bearer
	}{
		{"nowhere to look", nil, failure.TokenUnbound, ""},
		{"in neither", []string{none, none}, failure.TokenUnbound, ""},
		{"in the first", []string{good, none}, "", failure.TokenBound},
		{"in the second", []string{none, good}, "", failure.TokenBound},
		{"in both", []string{good, good}, "", failure.TokenBound},
		{"in the last of three", []string{none, none, good}, "", failure.TokenBound},
		{"the first is another key's", []string{other, good}, failure.TokenOtherKey, failure.TokenBound},
		{"the second is another key's", []string{good, other}, failure.TokenOtherKey, failure.TokenBound},
		{"another key's beside none", []string{none, other}, failure.TokenOtherKey, failure.TokenBound},
		{"a certificate in the first", []string{mtls, good}, failure.TokenConfirmation, failure.TokenBound},
		{"a certificate in the second", []string{good, mtls}, failure.TokenConfirmation, failure.TokenBound},
		{"the first is empty", []string{empty, good}, failure.TokenUnbound, failure.TokenBound},
		{"the second is empty", []string{good, empty}, failure.TokenUnbound, failure.TokenBound},
		{"the second is null", []string{good, null}, failure.TokenConfirmation, failure.TokenBound},
		{"null beside none", []string{none, null}, failure.TokenConfirmation, failure.TokenBound},
	} {
		t.Run(row.name, func(t *testing.T) {
			var places []jose.Object
			for _, text := range row.places {
				places = append(places, object(t, text))
			}
			expect(t, CheckBinding(jkt, places...), row.bound)
			expect(t, CheckUnbound(places...), row.unused)
			if len(places) == 2 {
				expect(t, HolderOf(places[0]).CheckBinding(jkt, places[0], places[1]), row.bound)
			}
		})
	}
}

// What begins with a JOSE header is a JWT, good or not, and must not be shown to
// another issuer than its own; what does not is opaque, and so is a JWE.
func TestIsOpaque(t *testing.T) {
	head := func(text string) string { return b64(text) + ".e30.AA" }
	for _, row := range []struct {
		name, token string
		want        bool
	}{
		{"a JWT", sign(t, "ES256", ec256(), `{"alg":"ES256"}`, claims()), false},
		{"its signature empty", b64(`{"alg":"none"}`) + ".e30.", false},
		{"its claims no JSON", b64(`{"alg":"ES256"}`) + ".!.AA", false},
		{"its claims empty", b64(`{"alg":"ES256"}`) + "..AA", false},
		{"an alg that nobody knows", head(`{"alg":"canary"}`), false},
		{"an alg that is no string", head(`{"alg":5}`), false},
		{"white space in the header", head("{ \"typ\" : \"JWT\",\n\"alg\":\"ES256\" } "), false},
		{"a name escaped", head(`{"\u0061lg":"ES256"}`), false},
		{"one dot", b64(`{"alg":"ES256"}`) + ".e30", false},
		{"four parts", b64(`{"alg":"ES256"}`) + ".e30.AA.AA", false},
		{"a header alone", b64(`{"alg":"ES256"}`), false},

		{"nothing", "", true},
		{"a word", "canary", true},
		{"a word of dots", "a.b.c", true},
		{"dots alone", "..", true},
		{"a JWE, RFC 7516 §3.1", b64(`{"alg":"RSA-OAEP","enc":"A128GCM"}`) + ".a.b.c.d", true},
		{"no alg", head(`{"typ":"JWT"}`), true},
		{"ALG is not alg", head(`{"ALG":"ES256"}`), true},
		{"a header that is an array", head(`["alg"]`), true},
		{"a header that is a string", head(`"alg"`), true},
		{"a header that is no JSON", head(`alg`), true},
		{"a header with more after it", head(`{"alg":"ES256"}{}`), true},
		{"a header with padding", "eyJhbGciOiJFUzI1NiJ9==.e30.AA", true},
	} {
		if got := IsOpaque(row.token); got != row.want {
			t.Errorf("%s: %t", row.name, got)
		}
	}
}

// CheckLocally is for tokens whose issuer is asked too: it checks iss, typ, kind,
// exp, nbf and iat, and leaves aud and the claims of RFC 9068 to the answer.
func TestCheckLocally(t *testing.T) {
	for _, row := range []struct {
		name    string
		typ     string
		changes []string
		rules   func(*Rules)
		want    failure.Reason
	}{
		{name: "a good one"},
		{name: "another aud", changes: []string{"aud", `"https://canary.example.com"`}},
		{name: "no aud", changes: []string{"aud", ""}},
		{name: "no sub, client_id, jti and iat", changes: []string{"sub", "", "client_id", "", "jti", "", "iat", ""}},
		{name: "RFC 9068, its claims in the answer", changes: []string{"aud", "", "sub", "", "client_id", "", "jti", "", "iat", ""}, rules: profile},

		{name: "another's iss", changes: []string{"iss", `"https://canary.example.com"`}, want: failure.TokenIssuer},
		{name: "no iss", changes: []string{"iss", ""}, want: failure.TokenIssuer},
		{name: "no exp", changes: []string{"exp", ""}, want: failure.TokenClaims},
		{name: "exp null", changes: []string{"exp", "null"}, want: failure.TokenClaims},
		{name: "expired within the skew", changes: []string{"exp", "1699999991"}},
		{name: "expired", changes: []string{"exp", "1699999990"}, want: failure.TokenExpired},
		{name: "nbf ahead", changes: []string{"nbf", "1700000011"}, want: failure.TokenEarly},
		{name: "iat ahead", changes: []string{"iat", "1700000011"}, want: failure.TokenEarly},
		{name: "a typ not accepted", typ: `"logout+jwt"`, want: failure.TokenType},
		{name: "JWT under RFC 9068", typ: `"JWT"`, rules: profile, want: failure.TokenType},
		{name: "at_hash", typ: `"JWT"`, changes: []string{"at_hash", `"a"`}, want: failure.TokenNotAccessToken},
		{name: "an ID token of Keycloak", typ: `"JWT"`, changes: []string{"typ", `"ID"`}, want: failure.TokenNotAccessToken},
		{name: "a refresh token of Keycloak", typ: absent, changes: []string{"typ", `"Refresh"`}, want: failure.TokenNotAccessToken},
	} {
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
			expect(t, verified(t, typ, claims(row.changes...)).CheckLocally(r, now), row.want)
		})
	}
}
