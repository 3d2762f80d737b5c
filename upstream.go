package caddydpop

import (
	"io"
	"iter"
	"net/http"
	"slices"
	"strings"
	"unicode"

	"go.uber.org/zap"
	"go.uber.org/zap/zapcore"

	"github.com/caddy-dpop/caddy-dpop/internal/jose"
	"github.com/caddy-dpop/caddy-dpop/internal/token"
)

// rewrite gives an accepted request the credentials and claims that the
// upstream is to see. It starts from the credentials as they arrived, because
// another handler may have rewritten them.
func (h *Handler) rewrite(header http.Header, req *request) {
	switch h.upstream {
	case UpstreamBearer:
		header["Authorization"] = []string{req.user.bearer}
		delete(header, "Dpop")
	case UpstreamDPoP:
		req.giveBack(header)
	case UpstreamNone:
		delete(header, "Authorization")
		delete(header, "Dpop")
	}
	req.upstream = h.upstream
	delete(header, "Dpop-Nonce")
	for _, claimHeader := range h.claimHeaders {
		delete(header, claimHeader.Header)
		if value, ok := h.claimValue(claimHeader, req.user.claims); ok {
			header[claimHeader.Header] = []string{value}
			req.claimHeaders = append(req.claimHeaders, claimHeader.Header)
		}
	}
	// A proxy after this handler would drop whatever the client lists in
	// Connection (RFC 9110 §7.6.1).
	filter(header, "Connection", func(option string) bool {
		return !isCredential(option) && !h.isClaimHeader(option)
	})
}

func isCredential(name string) bool {
	return strings.EqualFold(name, "Authorization") || strings.EqualFold(name, "DPoP") || strings.EqualFold(name, "DPoP-Nonce")
}

func isCredentialAlias(name string) bool {
	return isAlias(name, "Authorization") || isAlias(name, "DPoP") || isAlias(name, "DPoP-Nonce")
}

// removeH2C removes an upgrade to h2c, which a proxy would pass on.
func removeH2C(header http.Header) {
	if filter(header, "Upgrade", func(protocol string) bool { return !strings.EqualFold(protocol, "h2c") }) {
		delete(header, "Http2-Settings")
	}
}

// claimValue returns the value of a claim as a header's.
func (h *Handler) claimValue(claimHeader ClaimHeader, claims jose.Object) (string, bool) {
	claim, ok := token.Claim(claims, claimHeader.Path)
	if !ok {
		return "", false
	}
	value := claim.Plain()
	// Spaces at the ends of a header's value are not part of it (RFC 9110 §5.5): the
	// upstream would take one user for another.
	if strings.ContainsFunc(value, unicode.IsControl) || value != strings.TrimSpace(value) {
		if c := h.logger.Check(zapcore.WarnLevel, "claim cannot be the value of a header, and makes none"); c != nil {
			c.Write(zap.String("handler", h.name), zap.String("header", claimHeader.Header), zap.String("claim", claimHeader.Path))
		}
		return "", false
	}
	return value, true
}

// removeForged removes the client's own headers of the names that carry claims,
// and of those that CGI-like upstreams take for the same (Caddy
// GHSA-7r4p-vjf4-gxv4 and GHSA-f59h-q822-g45g), and its trailers that an upstream
// may take for headers. What a handler before has set is not the client's own.
func (h *Handler) removeForged(r *http.Request, req *request) {
	if r.Trailer != nil {
		h.removeTrailers(r)
	}
	if len(h.claimHeaders) == 0 {
		return
	}
	for name := range r.Header {
		if h.isClaimHeader(name) && !slices.Contains(req.claimHeaders, name) {
			delete(r.Header, name)
		}
	}
}

// removeTrailers removes the trailers that an upstream may merge into the
// headers it trusts. Their values, and names that were not announced, come with
// the end of the body.
func (h *Handler) removeTrailers(r *http.Request) {
	trailer := r.Trailer
	remove := func() {
		for name := range trailer {
			if isCredentialAlias(name) || h.isClaimHeader(name) {
				delete(trailer, name)
			}
		}
	}
	remove()
	r.Body = &bodyWithTrailers{r.Body, remove}
}

// bodyWithTrailers is a body that has trailers removed once they are there.
type bodyWithTrailers struct {
	io.ReadCloser
	remove func()
}

func (b *bodyWithTrailers) Read(p []byte) (int, error) {
	n, err := b.ReadCloser.Read(p)
	if err != nil {
		b.remove()
	}
	return n, err
}

func (h *Handler) isClaimHeader(name string) bool {
	for i := range h.claimHeaders {
		if isAlias(name, h.claimHeaders[i].Header) {
			return true
		}
	}
	return false
}

// isAlias reports whether some upstream may take a header's name for another's:
// those like CGI make one character of all that are neither letters nor digits
// (RFC 3875 §4.1.18 of hyphens, and servers of the others too).
func isAlias(name, of string) bool {
	if len(name) != len(of) {
		return false
	}
	for i := range len(name) {
		a, b := name[i], of[i]
		if isAlphanumeric(a) != isAlphanumeric(b) || isAlphanumeric(a) && a|0x20 != b|0x20 {
			return false
		}
	}
	return true
}

// listed returns the members of a header that is a list (RFC 9110 §5.6.1).
func listed(values []string) iter.Seq[string] {
	return func(yield func(string) bool) {
		for _, value := range values {
			for member := range strings.SplitSeq(value, ",") {
				if member = strings.TrimSpace(member); member != "" && !yield(member) {
					return
				}
			}
		}
	}
}

// filter removes members from a header that is a list, and reports whether there
// were any to remove.
func filter(header http.Header, name string, keep func(member string) bool) bool {
	values, ok := header[name]
	if !ok {
		return false
	}
	var kept []string
	removed := false
	for member := range listed(values) {
		if keep(member) {
			kept = append(kept, member)
		} else {
			removed = true
		}
	}
	switch {
	case !removed:
	case len(kept) == 0:
		delete(header, name)
	default:
		header[name] = []string{strings.Join(kept, ", ")}
	}
	return removed
}
