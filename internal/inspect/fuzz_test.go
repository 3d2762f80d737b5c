package inspect

import (
	"slices"
	"strings"
	"testing"
	"time"
	"unicode"

	"github.com/caddy-dpop/caddy-dpop/internal/authserver"
	"github.com/caddy-dpop/caddy-dpop/internal/failure"
	"github.com/caddy-dpop/caddy-dpop/internal/jose"
	"github.com/caddy-dpop/caddy-dpop/internal/proof"
	"github.com/caddy-dpop/caddy-dpop/internal/token"
)

// laxGateway takes whatever there is for credentials and proof.
var laxGateway = Gateway{
	Credentials: func(_ bool, authorization, _ []string, _ string) (failure.Scheme, string, *failure.Failure) {
		if len(authorization) == 0 {
			return "", "", failure.New(failure.NoCredentials, "none")
		}
		scheme, text, _ := strings.Cut(authorization[0], " ")
		return failure.Scheme(scheme), text, nil
	},
	ProofField: func(proofs []string) (string, *failure.Failure) {
		if len(proofs) == 0 {
			return "", failure.New(failure.ProofMissing, "none")
		}
		return proofs[0], nil
	},
	Signature: func(string, string, jose.Algorithms, authserver.KeyFinder) *failure.Failure { return nil },
}

// Whatever was captured, the report is of lines that can be printed, and says of
// each check one thing.
func FuzzRun(f *testing.F) {
	const header, claims = "eyJ0eXAiOiJkcG9wK2p3dCIsImFsZyI6IkVTMjU2In0", "eyJleHAiOiJ4IiwiY25mIjp7ImprdCI6MX0sImlhdCI6MWUzMDB9"
	f.Add("Authorization: DPoP "+header+"."+claims+".AAAA", header+"."+claims+".AAAA", "GET", "https://a/b?c", "off")
	f.Add("Bearer "+header+"..", "", "", "", "on_skew")
	f.Add("", "DPoP: "+header+"."+claims+".", "GET", "http://a", "required")
	f.Fuzz(func(t *testing.T, authorization, dpop, method, url, nonces string) {
		captured := &Capture{Authorization: ParseAuthorization(authorization), Proof: ParseProof(dpop), Method: method}
		captured.Target, _ = ParseTarget(url)
		site := &Site{
			Nonces: Nonces(nonces), Algorithms: jose.AllAlgorithms(), Window: proof.Window{MaxAge: time.Minute},
			Rules: token.Rules{Types: []string{"at+jwt"}},
		}
		report := Run(laxGateway, site, captured, time.Unix(1_700_000_000, 0))
		var text strings.Builder
		if err := report.Write(&text); err != nil {
			t.Fatal(err)
		}
		if strings.ContainsFunc(text.String(), func(r rune) bool { return r != '\n' && !unicode.IsPrint(r) }) {
			t.Errorf("%q", text.String())
		}
		for _, c := range report.Checks {
			if (c.Result == Failed) != (c.Failure != nil) || (c.Result == NotChecked) != (c.Why != "") {
				t.Errorf("%+v", c)
			}
			if c.Failure != nil && advice[c.Failure.Reason] == "" {
				t.Errorf("no advice for %s", c.Failure.Reason)
			}
		}
		failed := func(c Check) bool { return c.Result == Failed }
		if (report.First() != nil) != slices.ContainsFunc(report.Checks, failed) {
			t.Errorf("first is %v of\n%s", report.First(), text.String())
		}
	})
}
