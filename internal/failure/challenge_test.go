package failure

import (
	"slices"
	"strings"
	"testing"
)

const (
	algs = `algs="ES256 PS256"`
	why  = `error_description="what failed"`
)

// TestAnswers is what clients get (README), by reason, scheme and mode.
func TestAnswers(t *testing.T) {
	dpop := func(code string) string { return `DPoP error="` + code + `", ` + why + `, ` + algs }
	bearer := func(code string) string { return `Bearer error="` + code + `", ` + why }
	const none Scheme = ""
	tests := []struct {
		name             string
		reasons          []Reason
		used             Scheme
		status           int
		strict, optional []string
	}{
		{"no credentials (RFC 9449 §7.1, RFC 6750 §3.1: no error)", []Reason{NoCredentials, SchemeUnsupported}, none, 401,
			[]string{"DPoP " + algs}, []string{"DPoP " + algs, "Bearer"}},
		{"Authorization repeated or malformed, or a second token", []Reason{AuthorizationRepeated, AuthorizationMalformed, TokenInQuery}, none, 400,
			[]string{dpop("invalid_request")}, []string{dpop("invalid_request"), bearer("invalid_request")}},
		{"the same, under DPoP", []Reason{AuthorizationRepeated, AuthorizationMalformed, TokenInQuery}, DPoP, 400,
			[]string{dpop("invalid_request")}, []string{dpop("invalid_request"), bearer("invalid_request")}},
		{"the same, under Bearer", []Reason{AuthorizationRepeated, AuthorizationMalformed, TokenInQuery}, Bearer, 400,
			[]string{dpop("invalid_request")}, []string{dpop("invalid_request"), bearer("invalid_request")}},
		{"the request's target or authority", []Reason{RequestMalformed}, none, 400,
			[]string{dpop("invalid_request")}, []string{dpop("invalid_request"), bearer("invalid_request")}},
		{"Bearer in strict mode", []Reason{BearerRefused}, Bearer, 401,
			[]string{dpop("invalid_token")}, nil},
		{"Bearer token invalid, or with any cnf", []Reason{TokenMalformed, TokenIssuer, TokenType, TokenAlgorithm, TokenKey, TokenSignature, TokenClaims,
			TokenNotAccessToken, TokenExpired, TokenEarly, TokenAudience, TokenBound}, Bearer, 401,
			nil, []string{"DPoP " + algs, bearer("invalid_token")}},
		{"Bearer with a DPoP header", []Reason{BearerWithProof}, Bearer, 400,
			nil, []string{dpop("invalid_request"), bearer("invalid_request")}},
		{"proof missing, repeated, malformed, wrong, stale, replayed", []Reason{ProofMissing, ProofRepeated, ProofTooLarge, ProofMalformed, ProofType,
			ProofAlgorithm, ProofKey, ProofSignature, ProofClaims, ProofMethod, ProofURL, ProofToken, ProofExpired, ProofEarly, ProofReplayed, ProofForgotten}, DPoP, 401,
			[]string{dpop("invalid_dpop_proof")}, []string{dpop("invalid_dpop_proof")}},
		{"token invalid, unbound, bound to another key", []Reason{TokenMalformed, TokenIssuer, TokenType, TokenAlgorithm, TokenKey, TokenSignature, TokenClaims,
			TokenNotAccessToken, TokenExpired, TokenEarly, TokenAudience, TokenUnbound, TokenConfirmation, TokenOtherKey}, DPoP, 401,
			[]string{dpop("invalid_token")}, []string{dpop("invalid_token")}},
		{"keys or replay store not to be had", []Reason{KeysUnavailable, ReplayFull, ReplayUnavailable, ProofBeforeStart}, DPoP, 503,
			[]string{}, []string{}},
		{"scope or claim missing", []Reason{ScopeMissing, ClaimMissing}, DPoP, 403,
			[]string{dpop("insufficient_scope")}, []string{dpop("insufficient_scope")}},
		{"scope or claim missing, under Bearer", []Reason{ScopeMissing, ClaimMissing}, Bearer, 403,
			nil, []string{bearer("insufficient_scope")}},
		{"acr or age of authentication", []Reason{AuthenticationWeak, AuthenticationOld}, DPoP, 401,
			[]string{dpop("insufficient_user_authentication")}, []string{dpop("insufficient_user_authentication")}},
		{"acr or age of authentication, under Bearer", []Reason{AuthenticationWeak, AuthenticationOld}, Bearer, 401,
			nil, []string{bearer("insufficient_user_authentication")}},
		{"keys not to be had, under Bearer", []Reason{KeysUnavailable}, Bearer, 503,
			nil, []string{}},
	}
	for _, test := range tests {
		for _, reason := range test.reasons {
			t.Run(test.name+", "+string(reason), func(t *testing.T) {
				f := New(reason, "what failed")
				if f.Status() != test.status {
					t.Errorf("status %d, not %d", f.Status(), test.status)
				}
				strict := Challenger{Algorithms: "ES256 PS256"}
				optional := Challenger{Algorithms: "ES256 PS256", Bearer: true}
				if got := strict.Challenges(f, test.used); test.strict != nil && !slices.Equal(got, test.strict) {
					t.Errorf("strict:\ngot  %q\nwant %q", got, test.strict)
				}
				if got := optional.Challenges(f, test.used); test.optional != nil && !slices.Equal(got, test.optional) {
					t.Errorf("optional:\ngot  %q\nwant %q", got, test.optional)
				}
			})
		}
	}
}

func TestRealm(t *testing.T) {
	tests := []struct {
		name, realm, want string
	}{
		{"none", "", `DPoP algs="ES256"`},
		{"plain", "api", `DPoP realm="api", algs="ES256"`},
		{"spaces and commas", "a, b = c", `DPoP realm="a, b = c", algs="ES256"`},
		// RFC 9110 §5.6.4.
		{"quotes", `the "api"`, `DPoP realm="the \"api\"", algs="ES256"`},
		{"backslashes", `a\b`, `DPoP realm="a\\b", algs="ES256"`},
		{"backslash last, which would eat the quote", `a\`, `DPoP realm="a\\", algs="ES256"`},
		{"both", `\"`, `DPoP realm="\\\"", algs="ES256"`},
		{"another challenge", `a", error="x`, `DPoP realm="a\", error=\"x", algs="ES256"`},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			c := Challenger{Algorithms: "ES256", Realm: test.realm, Bearer: true}
			lines := c.Challenges(New(NoCredentials, "none"), "")
			if len(lines) != 2 || lines[0] != test.want {
				t.Errorf("got %q, want %q first", lines, test.want)
			}
			bearer := strings.TrimSuffix(strings.Replace(strings.Replace(test.want, "DPoP", "Bearer", 1), `algs="ES256"`, "", 1), ", ")
			if got := lines[len(lines)-1]; got != strings.TrimSpace(bearer) {
				t.Errorf("got %q, want %q last", got, bearer)
			}
		})
	}
}

func TestRealmStandsInEachChallenge(t *testing.T) {
	c := Challenger{Algorithms: "ES256", Realm: "api", Bearer: true}
	want := []string{
		`DPoP realm="api", error="invalid_request", error_description="two tokens", algs="ES256"`,
		`Bearer realm="api", error="invalid_request", error_description="two tokens"`,
	}
	if got := c.Challenges(New(TokenInQuery, "two tokens"), Bearer); !slices.Equal(got, want) {
		t.Errorf("got %q, want %q", got, want)
	}
}

func TestUnavailableIsNeverSent(t *testing.T) {
	for name, reason := range reasons(t) {
		for _, c := range []Challenger{{}, {Bearer: true}} {
			for _, used := range []Scheme{"", DPoP, Bearer} {
				for _, line := range c.Challenges(New(reason, "why"), used) {
					if strings.Contains(line, "unavailable") || strings.Contains(line, `error=""`) {
						t.Errorf("%s: %q", name, line)
					}
					// what a token lacks is looked at after its scheme was accepted
					lacks := slices.Contains([]code{insufficientScope, insufficientAuthen}, reasonAnswer[reason].code)
					if !c.Bearer && !lacks && strings.HasPrefix(line, "Bearer") {
						t.Errorf("%s: Bearer is offered where it is refused: %q", name, line)
					}
				}
			}
		}
	}
}

func TestFromBearer(t *testing.T) {
	tests := []struct {
		name string
		in   []string
		want []string
		ok   bool
	}{
		{"none", nil, nil, false},
		{"bare", []string{`Bearer`}, []string{`DPoP ` + algs}, true},
		{"any case, RFC 9110 §11.1", []string{`bEARER realm="a"`}, []string{`DPoP realm="a", ` + algs}, true},
		{"with parameters", []string{`Bearer realm="a", error="invalid_token"`}, []string{`DPoP realm="a", error="invalid_token", ` + algs}, true},
		{"another scheme", []string{`Basic realm="a, Bearer b"`}, []string{`Basic realm="a, Bearer b"`}, false},
		{"a scheme that begins alike", []string{`BearerX realm="a"`}, []string{`BearerX realm="a"`}, false},
		{"two on one line, RFC 9110 §11.6.1", []string{`Basic realm="a", Bearer realm="b", scope="c d"`},
			[]string{`Basic realm="a"`, `DPoP realm="b", scope="c d", ` + algs}, true},
		{"two on one line, Bearer first", []string{`Bearer realm="b", Basic realm="a"`}, []string{`DPoP realm="b", ` + algs, `Basic realm="a"`}, true},
		{"bare, then another", []string{`Bearer, Basic realm="a"`}, []string{`DPoP ` + algs, `Basic realm="a"`}, true},
		{"two lines", []string{`Bearer`, `Negotiate YWJj==`}, []string{`DPoP ` + algs, `Negotiate YWJj==`}, true},
		{"a comma and a scheme in quotes", []string{`Bearer realm="a, Basic b"`}, []string{`DPoP realm="a, Basic b", ` + algs}, true},
		{"an escaped quote", []string{`Bearer realm="a\", Basic b"`}, []string{`DPoP realm="a\", Basic b", ` + algs}, true},
		{"spaces around the equals sign, RFC 9110 §5.6.3", []string{`Bearer realm="a" , error = "b"`}, []string{`DPoP realm="a", error = "b", ` + algs}, true},
		{"an empty element after a bare scheme", []string{`Bearer ,, realm="a"`}, []string{`DPoP realm="a", ` + algs}, true},
		{"one of its own", []string{`Bearer realm="a", DPoP algs="RS256"`}, []string{`DPoP algs="RS256"`}, true},
		{"empty elements, RFC 9110 §5.6.1", []string{`, ,Bearer realm="a" ,, error="b",`}, []string{`DPoP realm="a", error="b", ` + algs}, true},
	}
	c := Challenger{Algorithms: "ES256 PS256"}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			got, ok := c.FromBearer(test.in)
			if !slices.Equal(got, test.want) || ok != test.ok {
				t.Errorf("got %q, %t; want %q, %t", got, ok, test.want, test.ok)
			}
		})
	}
}

func TestParametersStandInTheChallenge(t *testing.T) {
	f := New(AuthenticationOld, "too old")
	f.Parameters = []Parameter{{"max_age", "60"}, {"scope", `a "b`}}
	want := `DPoP error="insufficient_user_authentication", error_description="too old", max_age="60", scope="a \"b", algs="ES256"`
	if got := (Challenger{Algorithms: "ES256"}).Challenges(f, DPoP); len(got) != 1 || got[0] != want {
		t.Errorf("got %q, want %q", got, want)
	}
}
