package caddydpop

import (
	"bytes"
	"encoding/hex"
	"strconv"
	"strings"
	"unicode/utf8"

	"github.com/caddy-dpop/caddy-dpop/internal/failure"
	"github.com/caddy-dpop/caddy-dpop/internal/token"
)

// credentials are an access token and the scheme it came under.
type credentials struct {
	scheme     failure.Scheme
	token      string
	tokenForms        // once the token is looked at
	jkt        string // thumbprint of the proof's key, once that is verified
}

// credentials is step 2: one Authorization field with one token under a scheme
// that is accepted, and no second token (RFC 9110 §11.6.2, RFC 6750 §2).
func (h *Handler) credentials(req *request) (credentials, *failure.Failure) {
	var none credentials
	switch len(req.authorization) {
	case 0:
		return none, failure.New(failure.NoCredentials, "the request has no Authorization")
	case 1:
	default:
		return none, failure.New(failure.AuthorizationRepeated, "the request has more than one Authorization field")
	}
	scheme, rest, _ := strings.Cut(req.authorization[0], " ")
	if !isToken(scheme) {
		return none, failure.New(failure.AuthorizationMalformed, "the Authorization is not a scheme and one token")
	}
	creds := credentials{token: strings.TrimLeft(rest, " ")}
	switch {
	case strings.EqualFold(scheme, string(failure.DPoP)):
		creds.scheme = failure.DPoP
	case strings.EqualFold(scheme, string(failure.Bearer)):
		creds.scheme = failure.Bearer
	default:
		return none, failure.New(failure.SchemeUnsupported, "the scheme of the Authorization is not supported")
	}
	req.verdict.scheme = creds.scheme
	if len(creds.token) > token.MaxSize {
		return none, failure.New(failure.AuthorizationMalformed, "the access token is larger than 16384 bytes")
	}
	if !creds.recall() && !isToken68(creds.token) {
		return none, failure.New(failure.AuthorizationMalformed, "the Authorization is not a scheme and one token")
	}
	if tokenInQuery(req.url.RawQuery) {
		return none, failure.New(failure.TokenInQuery, "the request has a second access token, in its query")
	}
	if creds.scheme == failure.Bearer {
		if h.mode == ModeStrict {
			return none, failure.New(failure.BearerRefused, "Bearer tokens are not accepted here: use a DPoP-bound token under the DPoP scheme")
		}
		if len(req.proof) > 0 {
			return none, failure.New(failure.BearerWithProof, "the request has a DPoP proof beside a token under the Bearer scheme")
		}
	}
	return creds, nil
}

// proofField is step 3: exactly one DPoP field (RFC 9449 §4.3, check 1).
func (req *request) proofField() (string, *failure.Failure) {
	switch len(req.proof) {
	case 0:
		return "", failure.New(failure.ProofMissing, "the request has no DPoP proof")
	case 1:
		return req.proof[0], nil
	}
	return "", failure.New(failure.ProofRepeated, "the request has more than one DPoP field")
}

// isToken reports whether text is a token (RFC 9110 §5.6.2).
func isToken(text string) bool { return text != "" && consistsOf(text, &tokenBytes) }

// isToken68 reports whether text is a token68 (RFC 9110 §11.2), as RFC 6750 §2.1
// and RFC 9449 §7.1 have access tokens.
func isToken68(text string) bool {
	text = strings.TrimRight(text, "=")
	return text != "" && consistsOf(text, &token68Bytes)
}

var tokenBytes, token68Bytes = bytesOf("!#$%&'*+-.^_`|~"), bytesOf("-._~+/")

// bytesOf returns a table of letters, digits and the bytes of more.
func bytesOf(more string) (table [256]bool) {
	for c := range table {
		table[c] = isAlphanumeric(byte(c)) || strings.IndexByte(more, byte(c)) >= 0
	}
	return table
}

func consistsOf(text string, table *[256]bool) bool {
	for i := range len(text) {
		if !table[text[i]] {
			return false
		}
	}
	return true
}

func isAlphanumeric(c byte) bool {
	return c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z' || c >= '0' && c <= '9'
}

// tokenInQuery reports whether a query has a parameter access_token
// (RFC 6750 §2.3), by any way of writing or separating it that is known of
// upstreams.
func tokenInQuery(query string) bool {
	for query != "" {
		var parameter string
		if end := strings.IndexAny(query, "&;"); end >= 0 {
			parameter, query = query[:end], query[end+1:]
		} else {
			parameter, query = query, ""
		}
		name, _, _ := strings.Cut(parameter, "=")
		if isAccessToken(name) {
			return true
		}
	}
	return false
}

// isAccessToken reports whether some upstream takes a parameter's name for
// access_token. Many leave a per cent sign that begins no escape as it is. ASP.NET
// does not look at case, and knows %uXXXX. PHP drops spaces before a name and what
// follows a NUL, takes what follows a bracket for an index, and makes underscores
// of dots, spaces and brackets that are not closed.
//
// Names are read byte by byte: who sends thousands of them is anonymous yet, and
// by regular expressions they would cost more than signatures do.
func isAccessToken(name string) bool {
	const want = "access_token"
	if len(name) < len(want) {
		return false
	}
	var buffer, again [64]byte
	octets := unescapeOctets(again[:0], unescapeUnicode(buffer[:0], name))
	octets, _, _ = bytes.Cut(bytes.TrimLeft(octets, " "), []byte{0})
	array := octets
	if bracket := bytes.IndexByte(octets, '['); bracket >= 0 {
		array = octets[:bracket]
	}
	for i, c := range octets {
		if c == '.' || c == ' ' || c == '[' {
			octets[i] = '_'
		}
	}
	return bytes.EqualFold(octets, []byte(want)) || bytes.EqualFold(array, []byte(want))
}

// unescapeUnicode appends a name without its %uXXXX.
func unescapeUnicode(out []byte, name string) []byte {
	for i := 0; i < len(name); i++ {
		if name[i] == '%' && len(name)-i >= 6 && name[i+1]|0x20 == 'u' {
			if n, err := strconv.ParseUint(name[i+2:i+6], 16, 16); err == nil {
				out = utf8.AppendRune(out, rune(n))
				i += 5
				continue
			}
		}
		out = append(out, name[i])
	}
	return out
}

// unescapeOctets appends a name without its %XX, and with spaces for plus signs.
func unescapeOctets(out, name []byte) []byte {
	for i := 0; i < len(name); i++ {
		c := name[i]
		switch {
		case c == '+':
			c = ' '
		case c == '%' && len(name)-i >= 3:
			var octet [1]byte
			if _, err := hex.Decode(octet[:], name[i+1:i+3]); err == nil {
				c = octet[0]
				i += 2
			}
		}
		out = append(out, c)
	}
	return out
}
