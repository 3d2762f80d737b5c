package failure

import (
	"go/ast"
	"go/constant"
	"go/parser"
	"go/token"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
)

// source is one parsed file without tests.
type source struct {
	path string
	file *ast.File
}

// sources parses the Go files below a directory, apart from tests.
func sources(t *testing.T, files *token.FileSet, root string) []source {
	t.Helper()
	var all []source
	err := filepath.WalkDir(root, func(path string, entry fs.DirEntry, err error) error {
		name := entry.Name()
		switch {
		case err != nil:
			return err
		case entry.IsDir() && path != root && (strings.HasPrefix(name, ".") || strings.HasPrefix(name, "_") || name == "testdata" || name == "vendor"):
			return filepath.SkipDir
		case entry.IsDir() || !strings.HasSuffix(name, ".go") || strings.HasSuffix(name, "_test.go"):
			return nil
		}
		file, err := parser.ParseFile(files, path, nil, parser.SkipObjectResolution)
		if err != nil {
			return err
		}
		all = append(all, source{path, file})
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return all
}

// reasons returns the constants of type Reason, by name, from the source: a
// list written here would forget what the list of answers forgets.
func reasons(t *testing.T) map[string]Reason {
	t.Helper()
	all := make(map[string]Reason)
	for _, source := range sources(t, token.NewFileSet(), ".") {
		for _, declaration := range source.file.Decls {
			group, ok := declaration.(*ast.GenDecl)
			if !ok || group.Tok != token.CONST {
				continue
			}
			for _, spec := range group.Specs {
				spec := spec.(*ast.ValueSpec)
				if kind, ok := spec.Type.(*ast.Ident); !ok || kind.Name != "Reason" {
					continue
				}
				for i, name := range spec.Names {
					literal, ok := spec.Values[i].(*ast.BasicLit)
					if !ok {
						t.Fatalf("%s is no literal", name.Name)
					}
					all[name.Name] = Reason(constant.StringVal(constant.MakeFromLiteral(literal.Value, literal.Kind, 0)))
				}
			}
		}
	}
	if len(all) < 40 {
		t.Fatalf("only %d reasons found", len(all))
	}
	return all
}

func TestEachReasonHasAnAnswer(t *testing.T) {
	plain := regexp.MustCompile(`^[a-z]+(_[a-z]+)*$`)
	names := make(map[Reason]string)
	for name, reason := range reasons(t) {
		if other, ok := names[reason]; ok {
			t.Errorf("%s and %s are both %q", name, other, reason)
		}
		names[reason] = name
		if !plain.MatchString(string(reason)) {
			t.Errorf("%s is %q: not words in lower case", name, reason)
		}
		answer, ok := reasonAnswer[reason]
		if !ok {
			t.Errorf("%s has no answer", name)
			continue
		}
		f := New(reason, "what failed")
		switch f.Status() {
		case 400, 401, 403:
			if f.Passing() {
				t.Errorf("%s is the client's failure, and passes by itself", name)
			}
			if lines := (Challenger{Bearer: true}).Challenges(f, DPoP); len(lines) == 0 {
				t.Errorf("%s has no challenge (RFC 9110 §15.5.2)", name)
			}
		case 503:
			if !f.Passing() || f.RetryAfter < 1 {
				t.Errorf("%s: passing %t, Retry-After %d", name, f.Passing(), f.RetryAfter)
			}
		default:
			t.Errorf("%s has status %d", name, answer.status)
		}
	}
	for reason := range reasonAnswer {
		if names[reason] == "" {
			t.Errorf("%q has an answer and no constant", reason)
		}
	}
}

func TestReasonsAreNamedAsTheyAreSpelt(t *testing.T) {
	for name, reason := range reasons(t) {
		if words := strings.ReplaceAll(string(reason), "_", ""); !strings.EqualFold(name, words) {
			t.Errorf("%s is %q", name, reason)
		}
	}
}

func TestNew(t *testing.T) {
	detail := Detail{"expected", "a"}
	f := New(ProofURL, "the htu is wrong", detail, Detail{"found", 1.5})
	if f.Reason != ProofURL || f.Description != "the htu is wrong" || f.RetryAfter != 1 || len(f.Details) != 2 || f.Details[0] != detail {
		t.Errorf("%+v", f)
	}
	var err error = f
	if err.Error() != "proof_url: the htu is wrong" {
		t.Errorf("the error is %q", err)
	}
	if f.Status() != 401 || f.Passing() {
		t.Errorf("status %d, passing %t", f.Status(), f.Passing())
	}
}

// TestDescriptions looks at the descriptions wherever they are written.
func TestDescriptions(t *testing.T) {
	if _, err := os.Stat("../../go.mod"); err != nil {
		t.Fatal(err)
	}
	files := token.NewFileSet()
	found := 0
	for _, source := range sources(t, files, "../..") {
		ast.Inspect(source.file, func(node ast.Node) bool {
			call, ok := node.(*ast.CallExpr)
			if !ok || !isNew(call.Fun) {
				return true
			}
			at := files.Position(call.Pos())
			if len(call.Args) < 2 {
				t.Errorf("%s: no description", at)
				return true
			}
			texts := literals(call.Args[1])
			for _, text := range texts {
				found++
				// RFC 6750 §3: error_description is of %x20-21 / %x23-5B / %x5D-7E.
				for _, c := range []byte(text) {
					if c < 0x20 || c > 0x7e || c == '"' || c == '\\' {
						t.Errorf("%s: %q holds %q", at, text, c)
					}
				}
				if text == "" {
					t.Errorf("%s: an empty description", at)
				}
			}
			return true
		})
	}
	if found < 30 {
		t.Errorf("only %d descriptions found", found)
	}
}

// isNew reports whether an expression is failure.New.
func isNew(fun ast.Expr) bool {
	selector, ok := fun.(*ast.SelectorExpr)
	if !ok || selector.Sel.Name != "New" {
		return false
	}
	name, ok := selector.X.(*ast.Ident)
	return ok && name.Name == "failure"
}

// literals returns the string literals that an expression puts together.
func literals(expression ast.Expr) []string {
	switch e := expression.(type) {
	case *ast.BasicLit:
		if e.Kind == token.STRING {
			return []string{constant.StringVal(constant.MakeFromLiteral(e.Value, e.Kind, 0))}
		}
	case *ast.BinaryExpr:
		return append(literals(e.X), literals(e.Y)...)
	case *ast.ParenExpr:
		return literals(e.X)
	}
	return nil
}
