package inspect

import (
	"strings"

	"github.com/caddy-dpop/caddy-dpop/internal/failure"
	"github.com/caddy-dpop/caddy-dpop/internal/proof"
)

// Capture is what was captured of a request.
type Capture struct {
	Authorization []string // the values of the field; nil: not captured
	Proof         []string // likewise of DPoP
	Method        string   // empty: not told
	Target        *Target  // nil: not told
}

// Target is the URL of a request as the client knows it.
type Target struct {
	URI   proof.URI
	Query string
}

// ParseTarget reads a URL.
func ParseTarget(text string) (*Target, error) {
	uri, err := proof.ParseURI(text)
	if err != nil {
		return nil, err
	}
	text, _, _ = strings.Cut(text, "#")
	_, query, _ := strings.Cut(text, "?")
	return &Target{uri, query}, nil
}

// ParseAuthorization reads what somebody has pasted of the Authorization of a
// request: the token alone, the value of the field, or its line. Each line is a
// field of its own.
func ParseAuthorization(text string) []string {
	values := fields(text, "authorization")
	for i, value := range values {
		if !strings.Contains(value, " ") {
			values[i] = string(failure.DPoP) + " " + value
		}
	}
	return values
}

// ParseProof reads what somebody has pasted of the DPoP field of a request: the
// proof alone, or the line of the field.
func ParseProof(text string) []string { return fields(text, "dpop") }

// fields returns the values of a field that stand in the lines of a text: in those
// with the field's name if any has a name, so that a whole head may be pasted, and
// else in all. They may have the mark that curl puts before what it sends.
func fields(text, name string) []string {
	named, all, head := []string{}, []string{}, false
	for line := range strings.Lines(text) {
		line = strings.TrimSpace(strings.TrimPrefix(strings.TrimSpace(line), "> "))
		found, value, ok := strings.Cut(line, ":")
		found = strings.TrimSpace(found)
		head = head || ok && found != "" && !strings.Contains(found, " ")
		if ok && strings.EqualFold(found, name) {
			named = append(named, strings.TrimSpace(value))
		}
		if line != "" {
			all = append(all, line)
		}
	}
	if head {
		return named
	}
	return all
}
