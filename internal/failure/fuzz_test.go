package failure

import (
	"strings"
	"testing"
)

// Whatever an upstream sends for challenges, no Bearer challenge is left, no other
// one is lost, and there is one line for each.
func FuzzFromBearer(f *testing.F) {
	for _, seed := range []string{
		`Bearer`, `bearer realm="a, Bearer b", error="x"`, `Basic realm="a", Bearer error="invalid_token"`, `DPoP algs="ES256", Bearer`,
		`Negotiate`, `Bearer a=b, c`, `Bearer realm="\"", x`, `,,`, `Bearer=x`, ` Bearer`, `Bearer  x = y`, `Digest a="b\`, `Bearer "`,
	} {
		f.Add(seed, "")
		f.Add(seed, `Bearer scope="a b"`)
	}
	c := Challenger{Algorithms: "ES256 EdDSA"}
	f.Fuzz(func(t *testing.T, one, two string) {
		values := []string{one, two}
		before := Receive(values)
		lines, found := c.FromBearer(values)
		bearers, dpops := 0, 0
		for _, challenge := range before {
			switch {
			case strings.EqualFold(challenge.Scheme, "Bearer"):
				bearers++
			case strings.EqualFold(challenge.Scheme, "DPoP"):
				dpops++
			}
		}
		if found != (bearers > 0) {
			t.Fatalf("%q: found %t, of %d Bearer challenges", values, found, bearers)
		}
		want := len(before)
		if dpops > 0 {
			want -= bearers // the upstream's own DPoP challenge stands for them
		}
		if len(lines) != want {
			t.Fatalf("%q became %q", values, lines)
		}
		for _, line := range lines {
			if isOf(Bearer, line) || strings.ContainsAny(line, "\r\n") && !strings.ContainsAny(one+two, "\r\n") {
				t.Fatalf("%q became %q", values, lines)
			}
		}
		if again, found := c.FromBearer(lines); found {
			t.Fatalf("%q became %q, and that %q", values, lines, again)
		}
	})
}

// What is written as a challenge is read as it was meant, and is one line of
// plain ASCII, whatever the settings are.
func FuzzChallenges(f *testing.F) {
	f.Add("orders", "https://api.example.com/x", "read write")
	f.Add(`a"b\`, "", "")
	f.Add(`, Bearer x="y`, `", error="none`, `\`)
	f.Fuzz(func(t *testing.T, realm, metadata, scope string) {
		for _, text := range []string{realm, metadata, scope} {
			if strings.ContainsFunc(text, func(r rune) bool { return r < ' ' || r > '~' }) {
				return // settings have printable ASCII alone
			}
		}
		c := Challenger{Algorithms: "ES256", Realm: realm, Metadata: metadata, Bearer: true}
		failed := New(ScopeMissing, "description")
		failed.Parameters = []Parameter{{"scope", scope}}
		for _, scheme := range []Scheme{DPoP, Bearer} {
			lines := c.Challenges(failed, scheme)
			received := Receive(lines)
			if len(lines) != 1 || len(received) != 1 || received[0].Scheme != string(scheme) {
				t.Fatalf("%q", lines)
			}
			for name, want := range map[string]string{"realm": realm, "resource_metadata": metadata, "scope": scope, "error": "insufficient_scope"} {
				if got := received[0].Get(name); got != want {
					t.Fatalf("%s of %q is %q, want %q", name, lines[0], got, want)
				}
			}
		}
	})
}
