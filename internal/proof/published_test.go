package proof

import (
	"encoding/json"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/caddy-dpop/caddy-dpop/internal/failure"
)

// published is a proof that stands in a public document.
type published struct {
	Source string
	Proof  string
	Claims struct {
		JTI, HTM, HTU string
		IAT           int64
	}
	Thumbprint  string
	AccessToken string `json:"access_token"`
}

func publishedProofs(t testing.TB) []published {
	t.Helper()
	text, err := os.ReadFile("testdata/published-proofs.json")
	if err != nil {
		t.Fatal(err)
	}
	var file struct{ Proofs []published }
	if err := json.Unmarshal(text, &file); err != nil {
		t.Fatal(err)
	}
	if len(file.Proofs) < 4 {
		t.Fatalf("only %d proofs", len(file.Proofs))
	}
	return file.Proofs
}

// check says why the proof would not be accepted with a request at a time, or "".
func check(t *testing.T, p *Proof, method, url, token string, at int64) failure.Reason {
	t.Helper()
	window := Window{MaxAge: 60 * time.Second, ClockSkew: 10 * time.Second}
	if f := p.CheckRequest(method, urls(t, url), TokenHash(token)); f != nil {
		return f.Reason
	}
	for _, f := range []*failure.Failure{window.CheckTime(p, time.Unix(at, 0)), window.CheckValidity(p, time.Unix(at, 0))} {
		if f != nil {
			return f.Reason
		}
	}
	return ""
}

func TestPublishedProofs(t *testing.T) {
	for _, v := range publishedProofs(t) {
		t.Run(v.Source, func(t *testing.T) {
			p, f := Verify(v.Proof, defaults(t))
			if f != nil {
				t.Fatal(f)
			}
			if p.Thumbprint != v.Thumbprint || p.ID != v.Claims.JTI || p.Algorithm != "ES256" || p.IssuedAt != float64(v.Claims.IAT) {
				t.Errorf("%+v", p)
			}

			// Most of them were printed without their token: then ath is what fails,
			// and fails last of what CheckRequest checks.
			rest := failure.ProofToken
			if v.AccessToken != "" {
				rest = ""
			}
			method, url, token, at := v.Claims.HTM, v.Claims.HTU, v.AccessToken, v.Claims.IAT
			if reason := check(t, p, method, url, token, at); reason != rest {
				t.Errorf("as made: %q, not %q", reason, rest)
			}
			host, path, _ := strings.Cut(strings.TrimPrefix(url, "https://"), "/")
			name, port, _ := strings.Cut(host, ":")
			elsewhere := map[string]string{
				"other path":   url + "x",
				"path below":   url + "/",
				"no path":      "https://" + host,
				"case of path": "https://" + host + "/" + strings.ToUpper(path),
				"double slash": "https://" + host + "//" + path,
				"other host":   "https://other." + host + "/" + path,
				"host above":   "https://" + host[strings.Index(host, ".")+1:] + "/" + path,
				"other scheme": "http://" + host + "/" + path,
				"other port":   "https://" + name + ":1" + port + "/" + path,
			}
			for name, other := range elsewhere {
				if reason := check(t, p, method, other, token, at); reason != failure.ProofURL {
					t.Errorf("%s, %s: %q", name, other, reason)
				}
			}
			for _, other := range []string{"PUT", strings.ToLower(method), "", method + " "} {
				if reason := check(t, p, other, url, token, at); reason != failure.ProofMethod {
					t.Errorf("method %q: %q", other, reason)
				}
			}
			for _, other := range []string{"", token + "x", "x" + token, v.Proof} {
				if reason := check(t, p, method, url, other, at); reason != failure.ProofToken {
					t.Errorf("token %q: %q", other, reason)
				}
			}

			window := Window{MaxAge: 60 * time.Second, ClockSkew: 10 * time.Second}
			for offset, want := range map[int64]failure.Reason{-11: failure.ProofEarly, -10: "", 0: "", 70: "", 71: failure.ProofExpired, 86400 * 365: failure.ProofExpired} {
				f := window.CheckTime(p, time.Unix(at+offset, 0))
				if (f == nil) != (want == "") || f != nil && f.Reason != want {
					t.Errorf("%d seconds later: %v", offset, f)
				}
			}
		})
	}
}

func TestPublishedProofsWithOneByteChanged(t *testing.T) {
	for _, v := range publishedProofs(t) {
		t.Run(v.Source, func(t *testing.T) {
			for i := range len(v.Proof) {
				c := v.Proof[i]
				for _, other := range []byte{c ^ 1, c ^ 2, c ^ 0x20, c ^ 0x80, '.', '=', '\n'} {
					if other == c {
						continue
					}
					changed := v.Proof[:i] + string([]byte{other}) + v.Proof[i+1:]
					if _, f := Verify(changed, defaults(t)); f == nil {
						t.Errorf("accepted with byte %d of %q changed to %q", i, c, other)
					}
				}
				if _, f := Verify(v.Proof[:i]+v.Proof[i+1:], defaults(t)); f == nil {
					t.Errorf("accepted without byte %d", i)
				}
			}
		})
	}
}
