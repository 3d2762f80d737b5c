package caddytest

import (
	"os"
	"regexp"
	"strings"
	"testing"
)

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
