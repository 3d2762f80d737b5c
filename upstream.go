package caddydpop

import (
	"net/http"
	"strings"
	"unicode"

	"go.uber.org/zap"
	"go.uber.org/zap/zapcore"

	"github.com/caddy-dpop/caddy-dpop/internal/failure"
	"github.com/caddy-dpop/caddy-dpop/internal/jose"
	"github.com/caddy-dpop/caddy-dpop/internal/token"
)

// rewrite gives an accepted request the credentials and claims that the
// upstream is to see. It starts from the credentials as they arrived, because
// another handler may have rewritten them.
func (h *Handler) rewrite(header http.Header, req *request, granted *access) {
	switch h.upstream {
	case UpstreamBearer:
		header["Authorization"] = []string{string(failure.Bearer) + " " + granted.token}
		delete(header, "Dpop")
	case UpstreamDPoP:
		header["Authorization"] = req.authorization
		delete(header, "Dpop")
		if len(req.proof) > 0 {
			header["Dpop"] = req.proof
		}
	case UpstreamNone:
		delete(header, "Authorization")
		delete(header, "Dpop")
	}
	delete(header, "Dpop-Nonce")
	for _, claimHeader := range h.claimHeaders {
		if value, ok := h.claimValue(claimHeader, granted.claims); ok {
			header[claimHeader.Header] = []string{value}
		}
	}
	h.keepThroughProxy(header)
}

// claimValue returns the value of a claim as a header's.
func (h *Handler) claimValue(claimHeader ClaimHeader, claims jose.Object) (string, bool) {
	claim, ok := token.Claim(claims, claimHeader.Path)
	if !ok {
		return "", false
	}
	value, ok := claim.Scalar()
	if !ok {
		value = claim.Compact()
	}
	if strings.ContainsFunc(value, unicode.IsControl) {
		if c := h.logger.Check(zapcore.WarnLevel, "claim holds a control character, and makes no header"); c != nil {
			c.Write(zap.String("handler", h.name), zap.String("header", claimHeader.Header), zap.String("claim", claimHeader.Path))
		}
		return "", false
	}
	return value, true
}

// removeClaimHeaders removes the client's own headers of the names that carry
// claims, and of those that CGI-like upstreams take for the same (Caddy
// GHSA-7r4p-vjf4-gxv4 and GHSA-f59h-q822-g45g).
func (h *Handler) removeClaimHeaders(header http.Header) {
	if len(h.claimHeaders) == 0 {
		return
	}
	for name := range header {
		if h.isClaimHeader(name) {
			delete(header, name)
		}
	}
}

var hyphens = strings.NewReplacer("_", "-", ".", "-")

func (h *Handler) isClaimHeader(name string) bool {
	name = hyphens.Replace(name)
	for i := range h.claimHeaders {
		if strings.EqualFold(name, h.claimHeaders[i].Header) {
			return true
		}
	}
	return false
}

// keepThroughProxy sees to it that a proxy after this handler sends on what the
// handler has set. It would drop whatever the client lists in Connection
// (RFC 9110 §7.6.1), and it passes on an upgrade to h2c, behind which nobody
// would check further requests.
func (h *Handler) keepThroughProxy(header http.Header) {
	filter(header, "Connection", func(option string) bool {
		return !strings.EqualFold(option, "Authorization") && !strings.EqualFold(option, "DPoP") && !h.isClaimHeader(option)
	})
	if filter(header, "Upgrade", func(protocol string) bool { return !strings.EqualFold(protocol, "h2c") }) {
		delete(header, "Http2-Settings")
	}
}

// filter removes members from a header that is a list (RFC 9110 §5.6.1), and
// reports whether there were any to remove.
func filter(header http.Header, name string, keep func(member string) bool) bool {
	values, ok := header[name]
	if !ok {
		return false
	}
	var kept []string
	removed := false
	for member := range strings.SplitSeq(strings.Join(values, ","), ",") {
		member = strings.TrimSpace(member)
		if member == "" {
			continue
		}
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
