package caddydpop

import (
	"net/url"
	"strings"

	"github.com/caddy-dpop/caddy-dpop/internal/failure"
	"github.com/caddy-dpop/caddy-dpop/internal/token"
)

// credentials are an access token and the scheme it came under.
type credentials struct {
	scheme failure.Scheme
	token  string
	jkt    string // thumbprint of the proof's key, once that is verified
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
	if !isToken68(creds.token) {
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
func isToken(text string) bool {
	for i := range len(text) {
		c := text[i]
		if !isAlphanumeric(c) && strings.IndexByte("!#$%&'*+-.^_`|~", c) < 0 {
			return false
		}
	}
	return text != ""
}

// isToken68 reports whether text is a token68 (RFC 9110 §11.2), as RFC 6750 §2.1
// and RFC 9449 §7.1 have access tokens.
func isToken68(text string) bool {
	text = strings.TrimRight(text, "=")
	for i := range len(text) {
		c := text[i]
		if !isAlphanumeric(c) && strings.IndexByte("-._~+/", c) < 0 {
			return false
		}
	}
	return text != ""
}

func isAlphanumeric(c byte) bool {
	return c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z' || c >= '0' && c <= '9'
}

// tokenInQuery reports whether a query has a parameter access_token
// (RFC 6750 §2.3), by any way of writing or separating it that is known of
// upstreams: ASP.NET does not look at case, and PHP makes underscores of dots
// and spaces, drops spaces before a name, and takes brackets for an array.
func tokenInQuery(query string) bool {
	for query != "" {
		var parameter string
		if end := strings.IndexAny(query, "&;"); end >= 0 {
			parameter, query = query[:end], query[end+1:]
		} else {
			parameter, query = query, ""
		}
		name, _, _ := strings.Cut(parameter, "=")
		if decoded, err := url.QueryUnescape(name); err == nil {
			name = decoded
		}
		name, _, _ = strings.Cut(strings.TrimLeft(name, " "), "[")
		if strings.EqualFold(underscores.Replace(name), "access_token") {
			return true
		}
	}
	return false
}

var underscores = strings.NewReplacer(".", "_", " ", "_")
