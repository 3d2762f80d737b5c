package cli

import (
	"encoding/json"
	"strings"
	"testing"
	"time"

	"github.com/caddy-dpop/caddy-dpop/internal/jose"
	"github.com/caddy-dpop/caddy-dpop/internal/proof"
)

// captured is a good token and proof in files, and when they were made.
type captured struct {
	token, proof, head string
	at                 time.Time
	key                *jose.PrivateKey
}

func capture(t *testing.T) captured {
	t.Helper()
	_, key := newKey(t)
	at := time.Unix(1_700_000_000, 0)
	token, err := key.Sign(map[string]any{"typ": "at+jwt", "kid": key.ID}, map[string]any{
		"iss": "https://sso.example.com", "aud": "https://api.example.com", "exp": at.Unix() + 300,
		"cnf": map[string]any{"jkt": key.Thumbprint},
	})
	if err != nil {
		t.Fatal(err)
	}
	dpop, err := proof.Sign(key, proof.Claims{Method: "GET", URL: "https://api.example.com/orders", Token: token, IssuedAt: at})
	if err != nil {
		t.Fatal(err)
	}
	head := "> GET /orders HTTP/2\n> Host: api.example.com\n> authorization: DPoP " + token + "\n> dpop: " + dpop + "\n"
	return captured{file(t, token+"\n"), file(t, dpop+"\n"), file(t, head), at, key}
}

func TestInspect(t *testing.T) {
	c := capture(t)
	all := []string{"--method", "GET", "--url", "https://api.example.com/orders", "--at", "2023-11-14T22:13:20Z"}
	for _, args := range [][]string{
		{"--token", "@" + c.token, "--proof", "@" + c.proof},
		{"--token", "@" + c.head, "--proof", "@" + c.head},
	} {
		text := execute("", append(append([]string{"inspect"}, args...), all...)...).want(t)
		for _, part := range []string{"Proof header\n", "Token claims\n", "binding           ok", " 0 failed, "} {
			if !strings.Contains(text, part) {
				t.Errorf("no %q in\n%s", part, text)
			}
		}
	}
	// of now, the proof is years old
	out, errs := execute("", "inspect", "--token", "@"+c.token, "--proof", "@"+c.proof).exit(t, true)
	if !strings.Contains(out, "\nproof_expired: ") || errs != "" {
		t.Errorf("%s\nstandard error: %s", out, errs)
	}
}

// What flags say of the site counts.
func TestInspectSettings(t *testing.T) {
	c := capture(t)
	keys := func(key *jose.PrivateKey) string {
		text, err := json.Marshal(map[string]any{"keys": []any{key.PublicJWK()}})
		if err != nil {
			t.Fatal(err)
		}
		return file(t, string(text))
	}
	base := []string{"inspect", "--token", "@" + c.token, "--proof", "@" + c.proof}
	for _, row := range []struct {
		args   []string
		line   string // of the table, its columns with one space between them
		failed bool
	}{
		{[]string{"--at", "1700000000"}, "token iss not checked https://sso.example.com (no --issuer)", false},
		{[]string{"--at", "1700000000.5", "--issuer", "https://sso.example.com"}, "token iss ok", false},
		{[]string{"--at", "1700000000", "--issuer", "https://sso.example.com/"}, "token iss FAILED", true},
		{[]string{"--at", "1700000000", "--audience", "a,https://api.example.com"}, "token aud ok", false},
		{[]string{"--at", "1700000000", "--audience", "a", "--audience", "https://api.example.com"}, "token aud ok", false},
		{[]string{"--at", "1700000000", "--audience", "*"}, "token aud ok", false},
		{[]string{"--at", "1700000000", "--audience", "a"}, "token aud FAILED", true},
		{[]string{"--at", "1700000000", "--algorithms", "ES256,EdDSA"}, "proof alg ok ES256 EdDSA", false},
		{[]string{"--at", "1700000000", "--algorithms", "EdDSA"}, "proof alg FAILED EdDSA", true},
		{[]string{"--at", "1700000070"}, "proof iat ok", false},
		{[]string{"--at", "1700000071"}, "proof iat FAILED", true},
		{[]string{"--at", "1700000071", "--max-age", "61s"}, "proof iat ok", false},
		{[]string{"--at", "1700000071", "--clock-skew", "11s"}, "proof iat ok", false},
		{[]string{"--at", "1700000309"}, "token exp ok", true},
		{[]string{"--at", "1700000309", "--clock-skew", "0s"}, "token exp FAILED", true},
		{[]string{"--at", "1700000071", "--nonces", "required"}, "proof nonce FAILED", true},
		{[]string{"--at", "1700000000", "--nonces", "on_skew"}, "proof nonce not checked", false},
		{[]string{"--at", "1700000000", "--method", "POST"}, "proof htm FAILED POST GET", true},
		{[]string{"--at", "1700000000", "--url", "https://API.example.com:443/orders?a=b"}, "proof htu ok", false},
		{[]string{"--at", "1700000000", "--url", "https://api.example.com/orders/"}, "proof htu FAILED", true},
		{[]string{"--at", "1700000000", "--jwks", keys(c.key)}, "token signature ok", false},
		{[]string{"--at", "1700000000", "--token-algorithms", "ES256,PS256"}, "token alg ok ES256 PS256", false},
		{[]string{"--at", "1700000000", "--token-types", "application/AT+JWT,-"}, "token typ ok AT+JWT -", false},
		{[]string{"--at", "1700000000", "--token-types", "JWT"}, "token typ FAILED JWT", true},
		{[]string{"--at", "1700000000", "--profile", "rfc9068"}, "token profile FAILED sub client_id jti iat aud aud", true},
		{[]string{"--at", "1700000000", "--require-scope", "a,b"}, "required scope FAILED a b none", true},
		{[]string{"--at", "1700000000", "--require-claim", "iss=x,https://sso.example.com", "--require-claim", "aud=https://api.example.com"}, "required iss ok x or", false},
		{[]string{"--at", "1700000000", "--require-claim", "cnf.x=a=b"}, "required cnf.x FAILED a=b none", true},
		{[]string{"--at", "1700000000", "--require-acr", "mfa"}, "required acr FAILED mfa none", true},
		{[]string{"--at", "1700000000", "--max-auth-age", "5m"}, "required auth_time FAILED at most 5m0s ago none", true},
	} {
		out, errs := execute("", append(base[:len(base):len(base)], row.args...)...).exit(t, row.failed)
		found := false
		for line := range strings.Lines(out) {
			found = found || strings.HasPrefix(strings.Join(strings.Fields(line), " "), row.line)
		}
		if !found || errs != "" {
			t.Errorf("%v: no %q in\n%s\nstandard error: %s", row.args, row.line, out, errs)
		}
	}
	for _, row := range []struct {
		args []string
		want string
	}{
		{[]string{"--at", "yesterday"}, "--at: neither a time"},
		{[]string{"--at", "1e300"}, "--at: neither a time"},
		{[]string{"--at", "NaN"}, "--at: neither a time"},
		{[]string{"--at", "-1"}, "--at: neither a time"},
		{[]string{"--mode", "report"}, `--mode: unknown mode "report"`},
		{[]string{"--nonces", "always"}, `--nonces: unknown mode "always"`},
		{[]string{"--algorithms", "HS256"}, `--algorithms: unknown algorithm "HS256"`},
		{[]string{"--url", "/orders"}, "--url: not an absolute"},
		{[]string{"--token-algorithms", "none"}, `--token-algorithms: unknown algorithm "none"`},
		{[]string{"--profile", "rfc9449"}, `--profile: unknown profile "rfc9449": there is rfc9068`},
		{[]string{"--profile", "rfc9068", "--token-types", "JWT"}, "--token-types contradicts --profile rfc9068"},
		{[]string{"--require-claim", "role"}, `--require-claim: "role" is not path=value`},
		{[]string{"--jwks", file(t, `{"keys":[]}`)}, "--jwks: no key in it"},
		{[]string{"--jwks", file(t, `{}`)}, "--jwks: key set"},
		{[]string{"--jwks", "nowhere"}, "--jwks: open nowhere"},
		{[]string{"--audience", ""}, "--audience: it is empty"},
		{[]string{"--at", ""}, "--at: it is empty"},
		{[]string{"--url", ""}, "--url: it is empty"},
		{[]string{"--max-age", "0"}, "--max-age: 0s is less than a second"},
		{[]string{"--clock-skew", "-5s"}, "--clock-skew: -5s is negative"},
		{[]string{"--max-auth-age", "1ms"}, "--max-auth-age: 1ms is less than a second"},
	} {
		execute("", append(base[:len(base):len(base)], row.args...)...).refused(t, row.want)
	}
	execute("", "inspect").refused(t, "nothing to inspect")
	execute("", "inspect", "--token", "-", "--proof", "-").refused(t, "cannot both read standard input")
}

// The token may come from the environment, and with a proof alone none is needed.
func TestInspectInputs(t *testing.T) {
	c := capture(t)
	out, _ := execute("", "inspect", "--proof", "@"+c.proof, "--at", "1700000000").exit(t, false)
	if !strings.Contains(out, "(no --token)") || strings.Contains(out, "Token header") {
		t.Errorf("a proof alone:\n%s", out)
	}
	t.Setenv(tokenVariable, "@"+c.token)
	out, _ = execute("", "inspect", "--at", "1700000000").exit(t, false)
	if !strings.Contains(out, "Token header") || !strings.Contains(out, "(no --proof)") {
		t.Errorf("a token of the environment:\n%s", out)
	}
}

func TestParseTime(t *testing.T) {
	for text, want := range map[string]int64{
		"0":                              0,
		"1700000000":                     1_700_000_000_000,
		"1700000000.25":                  1_700_000_000_250,
		"1.7e9":                          1_700_000_000_000,
		"2023-11-14T22:13:20Z":           1_700_000_000_000,
		"2023-11-14T23:13:20.5+01:00":    1_700_000_000_500,
		"253402300799":                   253402300799000,
		"2023-11-14T22:13:20.123456789Z": 1_700_000_000_123,
	} {
		if got, err := parseTime(text); err != nil || got.UnixMilli() != want {
			t.Errorf("%s: %v, %v", text, got, err)
		}
	}
	if now, err := parseTime(""); err != nil || time.Since(now).Abs() > time.Minute {
		t.Errorf("now is %v, %v", now, err)
	}
}
