package inspect

import (
	"go/ast"
	"go/parser"
	"go/token"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/caddy-dpop/caddy-dpop/internal/failure"
	"github.com/caddy-dpop/caddy-dpop/internal/jose"
)

func object(t *testing.T, text string) jose.Object {
	t.Helper()
	o, err := jose.ParseObject([]byte(text))
	if err != nil {
		t.Fatal(err)
	}
	return o
}

// What is not public of a key is not shown, wherever it stands.
func TestShowHidesPrivateKeys(t *testing.T) {
	for _, text := range []string{
		`{"x":{"kty":"EC","crv":"P-256","x":"AA","y":"AA","d":"SECRET"}}`,
		`{"x":{"crv":"P-256","d":"SECRET"}}`,
		`{"x":{"kty":"oct","k":"SECRET"}}`,
		`{"x":{"jwk":{"kty":"RSA","n":"AA","p":"SECRET"}}}`,
		`{"x":[1,[{"kty":"OKP","d":"SECRET"}]]}`,
	} {
		if got := found(object(t, text), "x"); strings.Contains(got, "SECRET") {
			t.Errorf("%s is shown as %s", text, got)
		}
	}
	for _, text := range []string{`{"x":{"d":"1"}}`, `{"x":{"kty":"EC","x":"A"}}`, `{"x":"d"}`, `{"x":[1]}`} {
		if got := found(object(t, text), "x"); strings.Contains(got, "private") {
			t.Errorf("%s is not shown", text)
		}
	}
}

// What a client has chosen can neither move the cursor nor pass for a line of the
// report.
func TestWriteEscapes(t *testing.T) {
	r := &Report{}
	i := &inspection{}
	i.show("Token claims", object(t, `{"a\u001b[2Jb":"c\u001b[31m\nproof htu ok","n":1e999,"iat":1e300}`))
	r.Parts = i.Parts
	evil := "x\x1b[2J\ny"
	r.Checks = []Check{
		{Name: "proof htm", Result: Failed, Expected: evil, Found: evil, Failure: failure.New(failure.ProofMethod, "d", failure.Detail{Name: "error", Value: evil})},
		{Name: "proof htu", Result: NotChecked, Found: evil, Why: "w"},
	}
	var text strings.Builder
	if err := r.Write(&text); err != nil {
		t.Fatal(err)
	}
	if strings.ContainsAny(text.String(), "\x1b") || strings.Contains(text.String(), "\ny") {
		t.Errorf("%q", text.String())
	}
	if !strings.Contains(text.String(), `x\x1b[2J\ny`) {
		t.Errorf("%q", text.String())
	}
}

func TestFirst(t *testing.T) {
	late, early := failure.New(failure.TokenOtherKey, ""), failure.New(failure.ProofClaims, "")
	r := &Report{Checks: []Check{{}, {Failure: late, stage: stageBinding}, {Failure: early, stage: stageProofClaims}, {Failure: late, stage: stageProofClaims}}}
	if r.First() != early {
		t.Errorf("first is %v", r.First())
	}
	if (&Report{Checks: []Check{{}}}).First() != nil {
		t.Error("first of none")
	}
}

func TestMoments(t *testing.T) {
	i := &inspection{}
	for text, want := range map[string]string{
		`{}`:            "none",
		`{"x":"a"}`:     "a",
		`{"x":0}`:       "1970-01-01T00:00:00Z, ",
		`{"x":1e300}`:   "1e+300, in ",
		`{"x":-1}`:      "-1, ",
		`{"x":2.5e11}`:  "9892-",
		`{"x":2.55e11}`: "2.55e+11, ",
	} {
		if got := i.moment(object(t, text), "x"); !strings.HasPrefix(got, want) {
			t.Errorf("%s is shown as %s, want %s", text, got, want)
		}
	}
	for seconds, want := range map[float64]string{0: "now", 0.0001: "now", -1.5: "1.5 s ago", 3600: "in 3600 s"} {
		if got := distance(seconds); got != want {
			t.Errorf("%v: %s", seconds, got)
		}
	}
}

// There is advice for each reason that the packages which are asked can give, and
// for each detail a name.
func TestAdvice(t *testing.T) {
	const elsewhere = "TokenInactive TokenContradictory KeysUnavailable IntrospectionUnavailable RequestMalformed" // needs a server, or is step 1
	for _, dir := range []string{"../proof", "../token", "../.."} {
		for name, reasons := range reasonsIn(t, dir) {
			switch filepath.Base(name) {
			case "answer.go":
				continue // what an issuer says
			case "credentials.go", "verify.go", "proof.go", "token.go", "demand.go":
			default:
				continue
			}
			for _, reason := range reasons {
				if strings.Contains(elsewhere, reason) || strings.HasPrefix(reason, "Replay") || slices.Contains([]string{"ProofReplayed", "ProofForgotten", "ProofBeforeStart"}, reason) {
					continue
				}
				if !hasAdvice[reason] {
					t.Errorf("%s: no advice for %s", name, reason)
				}
			}
		}
	}
	for reason, text := range advice {
		if text == "" || strings.HasSuffix(text, ".") {
			t.Errorf("%s: %q", reason, text)
		}
	}
	for _, name := range []string{"error", "clock_error_seconds", "expired_seconds_ago", "seconds_ahead", "claim", "age_seconds"} {
		if detailNames[name] == "" {
			t.Errorf("no name for %s", name)
		}
	}
}

// hasAdvice are the names of the reasons that there is advice for.
var hasAdvice = func() map[string]bool {
	found := make(map[string]bool)
	file, err := parser.ParseFile(token.NewFileSet(), "advice.go", nil, 0)
	if err != nil {
		panic(err)
	}
	ast.Inspect(file, func(n ast.Node) bool {
		if pair, ok := n.(*ast.KeyValueExpr); ok {
			if key, ok := pair.Key.(*ast.SelectorExpr); ok {
				found[key.Sel.Name] = true
			}
		}
		return true
	})
	return found
}()

// reasonsIn returns the reasons that the files of a directory make failures of.
func reasonsIn(t *testing.T, dir string) map[string][]string {
	t.Helper()
	files, err := filepath.Glob(dir + "/*.go")
	if err != nil || len(files) == 0 {
		t.Fatal(err)
	}
	found := make(map[string][]string)
	for _, name := range files {
		if strings.HasSuffix(name, "_test.go") {
			continue
		}
		file, err := parser.ParseFile(token.NewFileSet(), name, nil, 0)
		if err != nil {
			t.Fatal(err)
		}
		ast.Inspect(file, func(n ast.Node) bool {
			call, ok := n.(*ast.CallExpr)
			if !ok || len(call.Args) == 0 {
				return true
			}
			function, _ := call.Fun.(*ast.SelectorExpr)
			reason, ok := call.Args[0].(*ast.SelectorExpr)
			if ok && function != nil && function.Sel.Name == "New" {
				found[name] = append(found[name], reason.Sel.Name)
			}
			return true
		})
	}
	return found
}
