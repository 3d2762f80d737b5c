package inspect

import (
	"bytes"
	"fmt"
	"io"
	"strings"
	"text/tabwriter"

	"github.com/caddy-dpop/caddy-dpop/internal/failure"
	"github.com/caddy-dpop/caddy-dpop/internal/printable"
)

// How many characters of a value are shown: of header and claims, in the table,
// and where a failure is explained.
const (
	maxShown     = 100
	maxCell      = 36
	maxExplained = 256
)

// Write explains the report to a person.
func (r *Report) Write(out io.Writer) error {
	var text bytes.Buffer
	for _, part := range r.Parts {
		fmt.Fprintf(&text, "%s\n", part.Title)
		table := tabwriter.NewWriter(&text, 0, 0, 2, ' ', 0)
		for _, field := range part.Fields {
			fmt.Fprintf(table, "  %s\t%s\n", printable.Text(field.Name, maxCell), printable.Text(field.Value, maxShown))
		}
		_ = table.Flush() // to memory
		text.WriteByte('\n')
	}
	r.writeChecks(&text)
	r.writeFailures(&text)
	r.writeVerdict(&text)
	_, err := out.Write(text.Bytes())
	return err
}

func (r *Report) writeChecks(text *bytes.Buffer) {
	table := tabwriter.NewWriter(text, 0, 0, 2, ' ', 0)
	fmt.Fprintln(table, "CHECK\tRESULT\tEXPECTED\tFOUND")
	for _, c := range r.Checks {
		found := printable.Text(c.Found, maxCell)
		if c.Why != "" {
			if found != "" {
				found += " "
			}
			found += "(" + c.Why + ")"
		}
		fmt.Fprintf(table, "%s\t%s\t%s\t%s\n", c.Name, c.Result, printable.Text(c.Expected, maxCell), found)
	}
	_ = table.Flush() // to memory
}

// writeFailures explains what failed, with the reason code that logs have.
func (r *Report) writeFailures(text *bytes.Buffer) {
	for _, c := range r.Checks {
		if c.Failure == nil {
			continue
		}
		fmt.Fprintf(text, "\n%s: %s\n", c.Failure.Reason, c.Failure.Description)
		line := func(name, value string) { fmt.Fprintf(text, "  %-12s%s\n", name, value) }
		line("check", c.Name)
		line("expected", printable.Text(c.Expected, maxExplained))
		line("found", printable.Text(c.Found, maxExplained))
		for _, detail := range c.Failure.Details {
			if detail.Name != "expected" && detail.Name != "found" {
				line(detailNames[detail.Name], printable.Text(fmt.Sprint(detail.Value), maxExplained))
			}
		}
		line("what to do", wrapped(advice[c.Failure.Reason]))
	}
}

// wrapped breaks a text into lines that stand below each other.
func wrapped(text string) string {
	const width = 70
	var b strings.Builder
	length := 0
	for word := range strings.FieldsSeq(text) {
		switch {
		case length == 0:
		case length+1+len(word) > width:
			b.WriteString("\n              ")
			length = 0
		default:
			b.WriteByte(' ')
			length++
		}
		b.WriteString(word)
		length += len(word)
	}
	return b.String()
}

// detailNames are the details of failures that are shown, as people read them.
var detailNames = map[string]string{
	"error":               "because",
	"clock_error_seconds": "clock error",
	"expired_seconds_ago": "seconds ago",
	"seconds_ahead":       "in seconds",
	"claim":               "claim",
	"age_seconds":         "age, s",
}

func (r *Report) writeVerdict(text *bytes.Buffer) {
	results := make(map[Result]int)
	for _, c := range r.Checks {
		results[c.Result]++
	}
	fmt.Fprintf(text, "\n%d ok, %d failed, %d not checked.", results[OK], results[Failed], results[NotChecked])
	if first := r.First(); first != nil {
		fmt.Fprintf(text, " With these settings the site refuses the request: its log has %s.", first.Reason)
	}
	fmt.Fprintf(text, "\nOnly the server can tell whether a proof was used before (%s).\n", failure.ProofReplayed)
}
