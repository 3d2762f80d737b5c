package proof

import (
	"testing"
	"time"

	"github.com/caddy-dpop/caddy-dpop/internal/failure"
)

// now is 1700000000 by the clock of the tests.
var now = time.Unix(1700000000, 0)

// at returns a good proof with another iat.
func at(t *testing.T, iat string) *Proof {
	t.Helper()
	s := signers()["EdDSA"]
	p, f := Verify(s.sign(t, s.header(), edit(t, claims, "1700000000", iat)), defaults(t))
	if f != nil {
		t.Fatal(f)
	}
	return p
}

func TestCheckTime(t *testing.T) {
	usual := Window{MaxAge: 60 * time.Second, ClockSkew: 10 * time.Second}
	exact := Window{MaxAge: 60 * time.Second}
	none := Window{}
	tests := []struct {
		name   string
		window Window
		iat    string
		want   failure.Reason
	}{
		// now - max_age - clock_skew ≤ iat ≤ now + clock_skew.
		{"now", usual, "1700000000", ""},
		{"oldest", usual, "1699999930", ""},
		{"older", usual, "1699999929", failure.ProofExpired},
		{"older by a millisecond", usual, "1699999929.999", failure.ProofExpired},
		{"newest", usual, "1700000010", ""},
		{"newer", usual, "1700000011", failure.ProofEarly},
		{"newer by a millisecond", usual, "1700000010.001", failure.ProofEarly},
		{"a fraction within, at the old end", usual, "1699999930.001", ""},
		{"a fraction within, at the new end", usual, "1700000009.999", ""},
		{"no skew: now", exact, "1700000000", ""},
		{"no skew: oldest", exact, "1699999940", ""},
		{"no skew: older", exact, "1699999939.5", failure.ProofExpired},
		{"no skew: newer", exact, "1700000000.5", failure.ProofEarly},
		{"no window: now", none, "1700000000", ""},
		{"no window: before", none, "1699999999", failure.ProofExpired},
		{"no window: after", none, "1700000001", failure.ProofEarly},

		// Numbers that an integer cannot hold: int64(1e300) wraps.
		{"1e300", usual, "1e300", failure.ProofEarly},
		{"-1e300", usual, "-1e300", failure.ProofExpired},
		{"the greatest", usual, "1.7976931348623157e308", failure.ProofEarly},
		{"the least", usual, "-1.7976931348623157e308", failure.ProofExpired},
		{"2^63", usual, "9223372036854775808", failure.ProofEarly},
		{"2^64 and now, which wraps to now", usual, "18446744075409551616", failure.ProofEarly},
		{"2^32 and now, which wraps to now", usual, "5994967296", failure.ProofEarly},
		{"zero", usual, "0", failure.ProofExpired},
		{"negative zero", usual, "-0", failure.ProofExpired},
		{"next to nothing", usual, "1e-400", failure.ProofExpired},
		{"in milliseconds, as Date.now() gives it", usual, "1700000000000", failure.ProofEarly},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			f := test.window.CheckTime(at(t, test.iat), now)
			switch {
			case test.want != "":
				refused(t, f, test.want)
			case f != nil:
				t.Error(f)
			}
		})
	}
}

func TestCheckTimeCountsParts(t *testing.T) {
	window := Window{MaxAge: 1500 * time.Millisecond, ClockSkew: 250 * time.Millisecond}
	p := at(t, "1700000000")
	for offset, want := range map[time.Duration]failure.Reason{
		1750 * time.Millisecond: "", 1751 * time.Millisecond: failure.ProofExpired,
		-250 * time.Millisecond: "", -251 * time.Millisecond: failure.ProofEarly,
	} {
		f := window.CheckTime(p, now.Add(offset))
		if (f == nil) != (want == "") || f != nil && f.Reason != want {
			t.Errorf("%v later: %v", offset, f)
		}
	}
}

func TestCheckValidity(t *testing.T) {
	window := Window{MaxAge: 60 * time.Second, ClockSkew: 10 * time.Second}
	tests := []struct {
		name, claim string
		want        failure.Reason
	}{
		{"neither", `"x":1`, ""},
		// RFC 7519 §4.1.4: on or after exp the JWT must not be accepted.
		{"exp to come", `"exp":1700000060`, ""},
		{"exp just gone, within the skew", `"exp":1699999991`, ""},
		{"exp, last moment", `"exp":1699999990.001`, ""},
		{"exp reached", `"exp":1699999990`, failure.ProofExpired},
		{"exp gone", `"exp":1699999900`, failure.ProofExpired},
		{"exp zero", `"exp":0`, failure.ProofExpired},
		{"exp -1e300", `"exp":-1e300`, failure.ProofExpired},
		{"exp 1e300", `"exp":1e300`, ""},
		// RFC 7519 §4.1.5: the current time must be after or equal to nbf.
		{"nbf gone", `"nbf":1600000000`, ""},
		{"nbf zero", `"nbf":0`, ""},
		{"nbf, first moment", `"nbf":1700000010`, ""},
		{"nbf to come", `"nbf":1700000010.001`, failure.ProofEarly},
		{"nbf 1e300", `"nbf":1e300`, failure.ProofEarly},
		{"nbf -1e300", `"nbf":-1e300`, ""},
		{"both good", `"nbf":1700000000,"exp":1700000001`, ""},
		{"exp gone and nbf to come", `"nbf":1700000100,"exp":1699999900`, failure.ProofExpired},
	}
	s := signers()["EdDSA"]
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			p, f := Verify(s.sign(t, s.header(), edit(t, claims, `{"jti"`, `{`+test.claim+`,"jti"`)), defaults(t))
			if f != nil {
				t.Fatal(f)
			}
			f = window.CheckValidity(p, now)
			switch {
			case test.want != "":
				refused(t, f, test.want)
			case f != nil:
				t.Error(f)
			}
		})
	}
}

func TestClockErrorIsSaidInSeconds(t *testing.T) {
	// how far a client's clock is ahead (or behind, by a minus).
	window := Window{MaxAge: 60 * time.Second, ClockSkew: 10 * time.Second}
	for iat, want := range map[string]float64{
		"1700003600.25": 3600.25, "1699996400": -3600, "1700000010.12345": 10.123,
	} {
		f := window.CheckTime(at(t, iat), now)
		if f == nil || len(f.Details) != 1 || f.Details[0].Name != "clock_error_seconds" || f.Details[0].Value != want {
			t.Errorf("iat %s: %+v", iat, f)
		}
	}
}

// Stores count with the time of any iat: none may wrap.
func TestTimeOfAnyNumber(t *testing.T) {
	for iat, want := range map[string]int64{"1e300": 1 << 40, "9223372036854775807": 1 << 40, "-1e300": 0, "-1": 0, "1700000000.999": 1700000000} {
		if got := at(t, iat).Time().Unix(); got != want {
			t.Errorf("iat %s is at %d, want %d", iat, got, want)
		}
	}
}
