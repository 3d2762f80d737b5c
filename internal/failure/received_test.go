package failure

import (
	"reflect"
	"testing"
)

func TestReceive(t *testing.T) {
	for _, row := range []struct {
		name   string
		values []string
		want   []Received
	}{
		{"nothing", nil, nil},
		{"a scheme alone", []string{"DPoP"}, []Received{{Scheme: "DPoP"}}},
		{"parameters", []string{`DPoP error="use_dpop_nonce", algs=ES256`}, []Received{{"DPoP", []Parameter{{"error", "use_dpop_nonce"}, {"algs", "ES256"}}}}},
		{"space around =", []string{`DPoP error = "x"`}, []Received{{"DPoP", []Parameter{{"error", "x"}}}}},
		{"two in one value", []string{`DPoP error="a", algs="E, F", Bearer realm="r"`},
			[]Received{{"DPoP", []Parameter{{"error", "a"}, {"algs", "E, F"}}}, {"Bearer", []Parameter{{"realm", "r"}}}}},
		{"two values", []string{"DPoP", `Bearer realm="r"`}, []Received{{Scheme: "DPoP"}, {"Bearer", []Parameter{{"realm", "r"}}}}},
		{"escapes", []string{`DPoP error="a\"b\\c"`}, []Received{{"DPoP", []Parameter{{"error", `a"b\c`}}}}},
		{"no closing quote", []string{`DPoP error="a`}, []Received{{"DPoP", []Parameter{{"error", "a"}}}}},
		{"a last backslash", []string{`DPoP error="a\`}, []Received{{"DPoP", []Parameter{{"error", `a\`}}}}},
	} {
		t.Run(row.name, func(t *testing.T) {
			if got := Receive(row.values); !reflect.DeepEqual(got, row.want) {
				t.Errorf("got %q, want %q", got, row.want)
			}
		})
	}
}

// A client reads of each challenge what was put into it, and what it means.
func TestReceiveOwnChallenges(t *testing.T) {
	challenger := Challenger{Algorithms: "ES256 PS256", Realm: `a "realm"`, Metadata: "https://x.example/m", Bearer: true}
	for reason, answer := range reasonAnswer {
		f := New(reason, "what failed")
		lines := challenger.Challenges(f, DPoP)
		for i, received := range Receive(lines) {
			if received.Get("Realm") != challenger.Realm || received.Get("error") != string(answer.code) {
				t.Errorf("%s: of %s it is received %q", reason, lines[i], received)
			}
			if received.WantsNonce() != f.WantsNonce() {
				t.Errorf("%s: wants a nonce: %v", reason, received.WantsNonce())
			}
			if meaning, ok := meanings[answer.code]; !ok || received.Meaning() != meaning {
				t.Errorf("%s: means %q", reason, received.Meaning())
			}
		}
	}
}

// Another scheme's error of the same name asks for no nonce.
func TestWantsNonceIsOfDPoP(t *testing.T) {
	for line, want := range map[string]bool{
		`DPoP error="use_dpop_nonce"`:   true,
		`dpop ERROR=use_dpop_nonce`:     true,
		`Bearer error="use_dpop_nonce"`: false,
		`DPoP error="USE_DPOP_NONCE"`:   false,
		`DPoP`:                          false,
	} {
		if got := Receive([]string{line})[0].WantsNonce(); got != want {
			t.Errorf("%s: %v", line, got)
		}
	}
}

func FuzzReceive(f *testing.F) {
	f.Add(`DPoP error="a", algs="E\"", Bearer`)
	f.Fuzz(func(t *testing.T, value string) {
		for _, received := range Receive([]string{value, value}) {
			_ = received.WantsNonce()
			_ = received.Meaning()
		}
	})
}
