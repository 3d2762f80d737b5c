package caddytest

import (
	"encoding/json"
	"go/ast"
	"go/parser"
	"go/token"
	"maps"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
)

// inReadme returns the indented block of the README that begins with a line like
// this, without its indentation.
func inReadme(t *testing.T, first string) string {
	t.Helper()
	readme, err := os.ReadFile("../README.md")
	if err != nil {
		t.Fatal(err)
	}
	place := regexp.MustCompile(`(?m)^    ` + first).FindIndex(readme)
	if place == nil {
		t.Fatalf("no block in the README begins with %s", first)
	}
	var block strings.Builder
	for line := range strings.Lines(string(readme[place[0]:])) {
		line, indented := strings.CutPrefix(line, "    ")
		if !indented && line != "\n" {
			break
		}
		block.WriteString(line)
	}
	return strings.TrimRight(block.String(), "\n") + "\n"
}

// alike is what a program has printed, without what differs from run to run.
func alike(text string) string {
	for _, change := range [][2]string{
		{`127\.0\.0\.1:\d+`, "127.0.0.1:0"},
		{`Bearer eyJ[\w-]+`, "Bearer eyJ"},
		{`(?m)(^|[^\w-])[\w-]{43}([^\w-]|$)`, "${1}thumbprint${2}"}, // which may begin or end with a hyphen
		{`[\w-]+\.\.\.`, "..."},                                     // cut short in a table
	} {
		text = regexp.MustCompile(change[0]).ReplaceAllString(text, change[1])
	}
	return text
}

func TestAlike(t *testing.T) {
	inner := strings.Repeat("x", 41)
	for _, thumbprint := range []string{"-" + inner + "x", "x" + inner + "-", "_" + inner + "_", "x" + inner + "x"} {
		if got := alike("found " + thumbprint + "\n" + thumbprint + " and x" + thumbprint); got != "found thumbprint\nthumbprint and x"+thumbprint {
			t.Errorf("%q", got)
		}
	}
}

// checkReadmeDemo fails unless the README shows what the demo prints.
func checkReadmeDemo(t *testing.T, printed string) {
	t.Helper()
	if got, want := alike(inReadme(t, "issuer   http")), alike(printed); got != want {
		t.Errorf("the README has\n%s\nbut the demo prints\n%s", got, want)
	}
}

// checkReadmeCommands fails unless the commands of the README, at a demo that goes
// on serving, print what it shows.
func checkReadmeCommands(t *testing.T, p *program, kept string) {
	t.Helper()
	there := regexp.MustCompile(`(?m)^(issuer|site) +(http\S+)`)
	now := there.FindAllStringSubmatch(kept, -1)
	var change []string
	for i, then := range there.FindAllStringSubmatch(inReadme(t, "issuer   http"), -1) {
		change = append(change, then[2], now[i][2])
	}
	change = append(change, "caddy dpop", "$caddy dpop")
	block := inReadme(t, `\$ caddy dpop request --key thief`)
	var printed strings.Builder
	for _, command := range regexp.MustCompile(`(?m)^\$ (?:.*\\\n)?.*\n`).FindAllString(block, -1) {
		got := p.sh(t, "("+strings.NewReplacer(change...).Replace(strings.TrimSuffix(command[2:], "\n"))+") 2>&1")
		printed.WriteString(command + got.out)
	}
	if got, want := alike(block), alike(printed.String()); got != want {
		t.Errorf("the README has\n%s\nbut its commands print\n%s", got, want)
	}
}

// The line of the log that the README shows has what such lines have.
func TestReadmeLogLine(t *testing.T) {
	var shown entry
	if err := json.Unmarshal([]byte(inReadme(t, `\{"level":"info"`)), &shown); err != nil {
		t.Fatal(err)
	}
	g := serve(t, setup{})
	c := good(t, g.url+"/other")
	c.url = g.url + "/"
	c.send(t)
	line := await(t, g.logs, func(e entry) bool { return e["reason"] == "proof_url" && e["logger"] == shown["logger"] })
	if got, want := slices.Sorted(maps.Keys(shown)), slices.Sorted(maps.Keys(line)); !slices.Equal(got, want) {
		t.Errorf("the README has the fields %q, the log %q", got, want)
	}
	for _, name := range []string{"level", "msg", "outcome", "reason", "scheme", "method", "description"} {
		if shown[name] != line[name] {
			t.Errorf("%s is %v in the README, %v in the log", name, shown[name], line[name])
		}
	}
}

// The README says what to do for each reason code that there is, and for no other.
func TestReadmeHasEveryReason(t *testing.T) {
	readme, err := os.ReadFile("../README.md")
	if err != nil {
		t.Fatal(err)
	}
	source, err := os.ReadFile("../internal/failure/failure.go")
	if err != nil {
		t.Fatal(err)
	}
	reasons := regexp.MustCompile(`Reason = "([a-z_]+)"`).FindAllStringSubmatch(string(source), -1)
	if len(reasons) < 30 {
		t.Fatalf("only %d reasons", len(reasons))
	}
	_, table, _ := strings.Cut(string(readme), "| reason | what to look at |")
	table, _, _ = strings.Cut(table, "\n\n")
	documented := make(map[string]bool)
	for line := range strings.SplitSeq(table, "\n") {
		column, _, _ := strings.Cut(strings.TrimPrefix(line, "|"), "|")
		for _, code := range regexp.MustCompile("`([a-z_]+)`").FindAllStringSubmatch(column, -1) {
			documented[code[1]] = true
		}
	}
	for _, reason := range reasons {
		if !documented[reason[1]] {
			t.Errorf("the README does not have %s", reason[1])
		}
		delete(documented, reason[1])
	}
	for code := range documented {
		t.Errorf("the README has %s, which there is not", code)
	}
}

// What the documents link to in this repository is there.
func TestLinks(t *testing.T) {
	links := 0
	for _, pattern := range []string{"../*.md", "../docs/*.md", "../examples/*/*.md"} {
		files, err := filepath.Glob(pattern)
		if err != nil || len(files) == 0 {
			t.Fatalf("%s: %d files, %v", pattern, len(files), err)
		}
		for _, file := range files {
			text, err := os.ReadFile(file)
			if err != nil {
				t.Fatal(err)
			}
			for _, link := range regexp.MustCompile(`\]\(([^)]+)\)`).FindAllStringSubmatch(string(text), -1) {
				target, anchor, _ := strings.Cut(link[1], "#")
				if strings.Contains(target, "://") {
					continue
				}
				links++
				if target == "" {
					heading := "(?mi)^#+ " + strings.ReplaceAll(regexp.QuoteMeta(anchor), "-", " ") + "$"
					if !regexp.MustCompile(heading).Match(text) {
						t.Errorf("%s: no heading for #%s", file, anchor)
					}
				} else if _, err := os.Stat(filepath.Join(filepath.Dir(file), target)); err != nil {
					t.Errorf("%s: %v", file, err)
				}
			}
		}
	}
	if links < 20 {
		t.Errorf("only %d links", links)
	}
}

// Each setting has a text for Caddy's site, which is made of these comments.
func TestSettingsAreDocumented(t *testing.T) {
	settings := 0
	for _, file := range []string{"module", "nonce", "issuer", "introspect", "resource", "cors", "store", "redis"} {
		parsed, err := parser.ParseFile(token.NewFileSet(), "../"+file+".go", nil, parser.ParseComments)
		if err != nil {
			t.Fatal(err)
		}
		ast.Inspect(parsed, func(node ast.Node) bool {
			structure, ok := node.(*ast.StructType)
			if !ok {
				return true
			}
			for _, field := range structure.Fields.List {
				if field.Tag == nil || !strings.Contains(field.Tag.Value, "json:") || len(field.Names) == 0 || !field.Names[0].IsExported() {
					continue
				}
				settings++
				if text := strings.TrimSpace(field.Doc.Text()); !strings.HasSuffix(text, ".") {
					t.Errorf("%s: %s has no text: %q", file, field.Names[0], text)
				}
			}
			return true
		})
	}
	if settings < 60 {
		t.Errorf("only %d settings", settings)
	}
}
