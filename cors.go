package caddydpop

import (
	"net/http"
	"slices"
	"strings"
)

// CORS lets scripts in browsers, of other origins, use this resource (the Fetch
// standard's CORS protocol).
type CORS struct {
	// The origins, such as `https://app.example.com`; `*` alone is any. Their
	// preflights are answered, without credentials, and answers to them can be read,
	// `DPoP-Nonce` and `WWW-Authenticate` included. An upstream's own
	// `Access-Control-*` headers are replaced. Cookies are never allowed: a proof is
	// what shows who sends a request.
	Origins []string `json:"origins,omitempty"`
}

const anyOrigin = "*"

// corsAnswer is what answers to a request say of its origin.
type corsAnswer struct {
	allowed string // empty: it may not read them
}

// corsFor returns what to say to a request's origin, or nil if this handler has
// nothing to say of origins.
func (h *Handler) corsFor(r *http.Request) *corsAnswer {
	if len(h.origins) == 0 {
		return nil
	}
	origin := r.Header["Origin"]
	switch {
	case len(origin) != 1:
	case h.origins[0] == anyOrigin:
		return &corsAnswer{anyOrigin}
	case slices.Contains(h.origins, origin[0]):
		return &corsAnswer{origin[0]}
	}
	return new(corsAnswer)
}

// apply sets the headers of an answer. Names that an upstream exposes stay so.
func (c *corsAnswer) apply(header http.Header) {
	if c == nil {
		return
	}
	exposed := []string{"DPoP-Nonce", "WWW-Authenticate"}
	for name := range listed(header["Access-Control-Expose-Headers"]) {
		if !slices.ContainsFunc(exposed, func(other string) bool { return strings.EqualFold(name, other) }) {
			exposed = append(exposed, name)
		}
	}
	for name := range header {
		if strings.HasPrefix(name, "Access-Control-") {
			delete(header, name)
		}
	}
	varies := false
	for name := range listed(header["Vary"]) {
		varies = varies || strings.EqualFold(name, "Origin")
	}
	if !varies {
		header["Vary"] = append(slices.Clone(header["Vary"]), "Origin")
	}
	if c.allowed != "" {
		header["Access-Control-Allow-Origin"] = []string{c.allowed}
		header["Access-Control-Expose-Headers"] = []string{strings.Join(exposed, ", ")}
	}
}

// preflight answers a browser that asks whether it may send a request, and
// reports whether it did. What it asks for is allowed by name: `*` would not
// cover Authorization.
func (c *corsAnswer) preflight(w http.ResponseWriter, r *http.Request, req *request) bool {
	if c == nil || req.method != http.MethodOptions || r.Header.Get("Origin") == "" {
		return false
	}
	method := r.Header["Access-Control-Request-Method"]
	if len(method) != 1 || !isToken(method[0]) {
		return false
	}
	header := w.Header()
	c.apply(header)
	header["Vary"] = append(header["Vary"], "Access-Control-Request-Method", "Access-Control-Request-Headers")
	if c.allowed != "" {
		delete(header, "Access-Control-Expose-Headers")
		header.Set("Access-Control-Allow-Methods", method[0])
		var names []string
		for name := range listed(r.Header["Access-Control-Request-Headers"]) {
			if isToken(name) {
				names = append(names, name)
			}
		}
		if len(names) > 0 {
			header.Set("Access-Control-Allow-Headers", strings.Join(names, ", "))
		}
		header.Set("Access-Control-Max-Age", "600")
	}
	w.WriteHeader(http.StatusNoContent)
	return true
}
