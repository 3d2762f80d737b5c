package caddydpop

import (
	"net/http"
	"net/url"
	"slices"

	"github.com/caddyserver/caddy/v2"
	"github.com/caddyserver/caddy/v2/modules/caddyhttp"

	"github.com/caddy-dpop/caddy-dpop/internal/failure"
	"github.com/caddy-dpop/caddy-dpop/internal/jose"
	"github.com/caddy-dpop/caddy-dpop/internal/proof"
	"github.com/caddy-dpop/caddy-dpop/replay"
)

// request is a request as it arrived, before any directive could change it, and
// what became of it. Every handler that the request meets, in nested or error
// routes too, judges the same one.
type request struct {
	method string
	target string // of the request line, or :path
	url    *url.URL
	host   string
	secure bool // whether Caddy itself was reached by TLS

	forwarded *forwarded // nil: the peer is none of Caddy's trusted proxies

	authorization []string
	proof         []string
	room          [2]string // the one value that each of them has nearly always

	publicURL [1]proof.URI // where the configuration has none

	records []record // made in stores on behalf of this request
	first   [1]record
	verdict verdict
	renew   bool   // whether the client's nonce is in the second half of its life
	nonce   string // for the client, with the answer; empty: none
	cors    *corsAnswer

	// What the last handler that accepted the request made of it.
	user         *access // nil: none has
	granted      access  // what user points to
	upstream     UpstreamToken
	claimHeaders []string // names of those that were set
}

// forwarded is what a proxy says of the request that it got.
type forwarded struct {
	proto, host []string
}

// restore takes back what handlers before have made of the request, when one
// refuses it: error routes get the credentials as they arrived, and no claims.
func (req *request) restore(header http.Header) {
	if req.user == nil {
		return
	}
	req.giveBack(header)
	for _, name := range req.claimHeaders {
		delete(header, name)
	}
	req.user, req.claimHeaders = nil, nil
}

// giveBack sets the credentials to what they were when they arrived.
func (req *request) giveBack(header http.Header) {
	for name, values := range map[string][]string{"Authorization": req.authorization, "Dpop": req.proof} {
		delete(header, name)
		if len(values) > 0 {
			header[name] = slices.Clone(values)
		}
	}
}

// record is a proof that this request has spent.
type record struct {
	store replay.Store
	key   replay.Key
}

// verdict is what the last handler found, for placeholders and logs. What is not
// known, because it failed before, is empty.
type verdict struct {
	handler  string
	outcome  outcome
	reason   failure.Reason
	scheme   failure.Scheme
	jkt      string
	issuer   string
	clientID string
}

// outcome is what became of a request.
type outcome string

const (
	accepted outcome = "accepted"
	refused  outcome = "refused"
	reported outcome = "reported" // would be refused, but for report mode
)

// access is the right that a request has shown to have.
type access struct {
	bearer string // the token as a Bearer token, for an upstream
	claims jose.Object
}

// requestVar is where the request is kept among Caddy's request variables.
const requestVar = "dpop_request"

// String keeps the credentials out of `{http.vars.dpop_request}`.
func (*request) String() string { return "" }

// arrived returns the request as it arrived: as the first handler finds it, and
// every other one finds it again.
func arrived(r *http.Request) *request {
	ctx := r.Context()
	vars, _ := ctx.Value(caddyhttp.VarsCtxKey).(map[string]any)
	if req, ok := vars[requestVar].(*request); ok {
		return req
	}
	req := &request{
		method: r.Method,
		target: r.RequestURI,
		url:    r.URL,
		host:   r.Host,
		secure: r.TLS != nil,
	}
	if original, ok := ctx.Value(caddyhttp.OriginalRequestCtxKey).(http.Request); ok {
		req.method, req.target, req.url = original.Method, original.RequestURI, original.URL
	}
	// Other directives may change the values of a header in place.
	if trusted, _ := vars[caddyhttp.TrustedProxyVarKey].(bool); trusted {
		req.forwarded = &forwarded{slices.Clone(r.Header["X-Forwarded-Proto"]), slices.Clone(r.Header["X-Forwarded-Host"])}
	}
	req.authorization = append(req.room[0:0:1], r.Header["Authorization"]...)
	req.proof = append(req.room[1:1:2], r.Header["Dpop"]...)
	if vars != nil {
		vars[requestVar] = req
	}
	if repl, ok := ctx.Value(caddy.ReplacerCtxKey).(*caddy.Replacer); ok {
		repl.Map(req.placeholder)
	}
	return req
}
