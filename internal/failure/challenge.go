package failure

import (
	"slices"
	"strings"
)

// Scheme is an HTTP authentication scheme for access tokens.
type Scheme string

// The schemes: RFC 9449 §7.1 and RFC 6750 §2.1.
const (
	DPoP   Scheme = "DPoP"
	Bearer Scheme = "Bearer"
)

// Challenger writes the challenges of one protected resource.
type Challenger struct {
	Algorithms string // proof algorithms accepted, for algs (RFC 9449 §7.1)
	Realm      string // empty: none
	Metadata   string // URL, for resource_metadata (RFC 9728 §5.1); empty: none
	Bearer     bool   // whether Bearer tokens are accepted too
}

// Challenges returns the values of WWW-Authenticate, one a scheme, DPoP first.
// Used is the scheme of the credentials, or empty.
func (c Challenger) Challenges(f *Failure, used Scheme) []string {
	code := reasonAnswer[f.Reason].code
	if code == unavailable {
		return nil
	}
	switch code {
	case insufficientScope, insufficientAuthen:
		// Another scheme would not help: the client has shown who it is.
		return []string{c.challenge(used, code, f)}
	}
	dpopCode, bearerCode, offerBearer := code, code, c.Bearer
	switch {
	case code == noCode, code == invalidRequest:
	case used == Bearer && c.Bearer:
		// The Bearer token failed; DPoP is the other way in.
		dpopCode = noCode
	default:
		offerBearer = false
	}
	lines := make([]string, 0, 2)
	lines = append(lines, c.challenge(DPoP, dpopCode, f))
	if offerBearer {
		lines = append(lines, c.challenge(Bearer, bearerCode, f))
	}
	return lines
}

func (c Challenger) challenge(scheme Scheme, code code, f *Failure) string {
	var b strings.Builder
	b.Grow(256)
	b.WriteString(string(scheme))
	separator := " "
	param := func(name, value string) {
		b.WriteString(separator)
		b.WriteString(name)
		b.WriteString(`="`)
		b.WriteString(quotable(value))
		b.WriteByte('"')
		separator = ", "
	}
	if c.Realm != "" {
		param("realm", c.Realm)
	}
	if code != noCode {
		param("error", string(code))
		param("error_description", f.Description)
		for _, p := range f.Parameters {
			param(p.Name, p.Value)
		}
	}
	if scheme == DPoP {
		param("algs", c.Algorithms)
	}
	if c.Metadata != "" {
		param("resource_metadata", c.Metadata)
	}
	return b.String()
}

// quotable escapes what a quoted-string cannot hold as it is (RFC 9110 §5.6.4).
func quotable(value string) string {
	if !strings.ContainsAny(value, `"\`) {
		return value
	}
	return strings.NewReplacer(`\`, `\\`, `"`, `\"`).Replace(value)
}

// FromBearer turns the Bearer challenges among an upstream's into DPoP
// challenges, or drops them if it has one of its own, and reports whether there
// were any.
func (c Challenger) FromBearer(values []string) (lines []string, found bool) {
	var all []string
	for _, value := range values {
		all = append(all, splitChallenges(value)...)
	}
	own := slices.ContainsFunc(all, func(challenge string) bool { return isOf(DPoP, challenge) })
	for _, challenge := range all {
		if !isOf(Bearer, challenge) {
			lines = append(lines, challenge)
			continue
		}
		found = true
		if own {
			continue
		}
		line := string(DPoP)
		if _, params, _ := strings.Cut(challenge, " "); params != "" {
			line += " " + params + ","
		}
		lines = append(lines, line+` algs="`+c.Algorithms+`"`)
	}
	return lines, found
}

func isOf(scheme Scheme, challenge string) bool {
	name, _, _ := strings.Cut(challenge, " ")
	return strings.EqualFold(name, string(scheme))
}

// splitChallenges takes the challenges of one WWW-Authenticate value apart
// (RFC 9110 §11.6.1): at each comma outside quotes after which a scheme begins,
// not another parameter.
func splitChallenges(value string) []string {
	var challenges []string
	for _, element := range splitList(value) {
		if len(challenges) == 0 || !isParameter(element) {
			challenges = append(challenges, element)
			continue
		}
		last := &challenges[len(challenges)-1]
		if strings.Contains(*last, " ") {
			*last += ","
		}
		*last += " " + element
	}
	return challenges
}

// isParameter reports whether an element is name=value, without a scheme before it.
func isParameter(element string) bool {
	end := strings.IndexAny(element, " \t=\"")
	return end > 0 && strings.HasPrefix(strings.TrimLeft(element[end:], " \t"), "=")
}

// splitList splits a list at its commas outside quotes (RFC 9110 §5.6.1).
func splitList(value string) []string {
	var elements []string
	quoted, start := false, 0
	add := func(end int) {
		if element := strings.TrimSpace(value[start:end]); element != "" {
			elements = append(elements, element)
		}
		start = end + 1
	}
	for i := 0; i < len(value); i++ {
		switch c := value[i]; {
		case quoted && c == '\\':
			i++
		case c == '"':
			quoted = !quoted
		case c == ',' && !quoted:
			add(i)
		}
	}
	if start < len(value) {
		add(len(value))
	}
	return elements
}
