package caddydpop

import (
	"fmt"
	"strings"
	"unicode/utf8"

	"github.com/caddy-dpop/caddy-dpop/internal/failure"
	"github.com/caddy-dpop/caddy-dpop/internal/proof"
)

// publicURLs returns the URLs by which clients may know the target of the
// request, which a proof's htu must be one of. It is step 1: target, authority
// and forwarded headers that make no sense are refused.
func (h *Handler) publicURLs(req *request) ([]proof.URI, *failure.Failure) {
	path, f := targetPath(req)
	if f != nil {
		return nil, f
	}
	var scheme string
	if len(h.bases) == 0 {
		if scheme, f = req.scheme(); f != nil {
			return nil, f
		}
	}
	authority, err := proof.NormalizeAuthority(scheme, req.host)
	// RFC 9112 §3.2: a host that makes no sense is refused also where it does not
	// count. HTTP/1.0 may have none.
	if err != nil && req.host != "" {
		return nil, malformed("the authority of the request is not a host and an optional port")
	}
	if len(h.bases) > 0 {
		urls := make([]proof.URI, len(h.bases))
		for i, base := range h.bases {
			urls[i] = proof.URI{Scheme: base.Scheme, Authority: base.Authority, Path: base.Path + path}
		}
		return urls, nil
	}
	if h.ForwardedHost && req.forwarded != nil && len(req.forwarded.host) > 0 {
		host, f := single(req.forwarded.host, "X-Forwarded-Host")
		if f != nil {
			return nil, f
		}
		authority, err = proof.NormalizeAuthority(scheme, host)
	}
	if err != nil {
		return nil, malformed("the authority of the request is not a host and an optional port")
	}
	req.publicURL[0] = proof.URI{Scheme: scheme, Authority: authority, Path: path}
	return req.publicURL[:], nil
}

// targetPath returns the path of the request's target in normal form. A target
// without one (RFC 9112 §3.2.3 and §3.2.4) has no URL that a proof could name.
// It is taken from the target's text: net/url gives another path back for some.
func targetPath(req *request) (string, *failure.Failure) {
	path := req.target
	if scheme, rest, ok := strings.Cut(path, "://"); ok && !strings.HasPrefix(path, "/") {
		// RFC 9112 §3.2.2: the absolute form, which may have an empty path.
		if _, ok := proof.NormalizeScheme(scheme); !ok || req.url.User != nil {
			return "", malformed("the request target is an absolute URI of another scheme than http and https, or with user information")
		}
		path = "/"
		if end := strings.IndexAny(rest, "/?#"); end >= 0 && rest[end] == '/' {
			path = rest[end:]
		}
	}
	if strings.Contains(req.target, "#") {
		return "", malformed("the request target has a fragment")
	}
	path, _, _ = strings.Cut(path, "?")
	if !strings.HasPrefix(path, "/") {
		return "", malformed("the request target is not a path or an absolute URI")
	}
	path, err := proof.NormalizePath(escapeNonASCII(path))
	if err != nil {
		return "", malformed("the path of the request target is not that of a URI")
	}
	return path, nil
}

// escapeNonASCII writes the bytes of a target that no URI can hold, and that
// clients send all the same, in the way that they must stand in htu.
func escapeNonASCII(path string) string {
	if strings.IndexFunc(path, func(r rune) bool { return r >= utf8.RuneSelf }) < 0 {
		return path
	}
	var b strings.Builder
	for i := range len(path) {
		if path[i] < utf8.RuneSelf {
			b.WriteByte(path[i])
		} else {
			fmt.Fprintf(&b, "%%%02X", path[i])
		}
	}
	return b.String()
}

// scheme returns the scheme by which the client reached this server: its own, or
// that of the trusted proxy in front.
func (req *request) scheme() (string, *failure.Failure) {
	if req.forwarded != nil && len(req.forwarded.proto) > 0 {
		proto, f := single(req.forwarded.proto, "X-Forwarded-Proto")
		if f != nil {
			return "", f
		}
		scheme, ok := proof.NormalizeScheme(proto)
		if !ok {
			return "", malformed("the X-Forwarded-Proto of the request is neither http nor https")
		}
		return scheme, nil
	}
	if req.secure {
		return "https", nil
	}
	return "http", nil
}

// single returns the one value of a forwarded header. Of several, one may be the
// client's own.
func single(values []string, name string) (string, *failure.Failure) {
	if len(values) != 1 || strings.Contains(values[0], ",") {
		return "", malformed("the request has more than one value of " + name)
	}
	return strings.TrimSpace(values[0]), nil
}

func malformed(description string) *failure.Failure {
	return failure.New(failure.RequestMalformed, description)
}
