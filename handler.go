package caddydpop

import (
	"net/http"
	"strconv"
	"time"

	"github.com/caddyserver/caddy/v2/modules/caddyhttp"

	"github.com/caddy-dpop/caddy-dpop/internal/failure"
)

// ServeHTTP implements caddyhttp.MiddlewareHandler.
func (h *Handler) ServeHTTP(w http.ResponseWriter, r *http.Request, next caddyhttp.Handler) error {
	req := arrived(r)
	// 0. What is published needs no credentials (RFC 9728 §3).
	if done, err := h.servePublished(w, req); done {
		return err
	}
	// A browser asks without credentials whether it may send them.
	if cors := h.corsFor(r); cors != nil {
		if cors.preflight(w, r, req) {
			return nil
		}
		req.cors = cors
	}
	req.verdict, req.renew = verdict{handler: h.name}, false
	// Whatever becomes of the request, error routes and report mode included, what
	// an upstream takes for claims of the token must not come from the client, and
	// no tunnel may open behind which nobody would look.
	h.removeForged(r, req)
	removeH2C(r.Header)

	began := time.Now()
	granted, f := h.verify(r.Context(), req)
	verifyDuration.Observe(time.Since(began).Seconds())
	switch {
	case f == nil:
		h.conclude(r, req, accepted, nil)
		req.user = granted
		h.rewrite(r.Header, req, granted)
		if req.renew {
			req.nonce = h.nonces.issue(h.now())
		}
		tw := &translator{ResponseWriterWrapper: caddyhttp.ResponseWriterWrapper{ResponseWriter: w}, challenger: &h.challenger, req: req}
		err := next.ServeHTTP(tw, r)
		tw.finish() // error routes may send what the upstream has set
		return err
	case h.mode == ModeReport:
		h.conclude(r, req, reported, f)
		if f.WantsNonce() {
			req.nonce = h.nonces.issue(h.now())
		} else if req.cors == nil {
			return next.ServeHTTP(w, r)
		}
		tw := &translator{ResponseWriterWrapper: caddyhttp.ResponseWriterWrapper{ResponseWriter: w}, req: req}
		err := next.ServeHTTP(tw, r)
		tw.finish()
		return err
	default:
		h.conclude(r, req, refused, f)
		req.restore(r.Header)
		return h.refuse(w, req, f)
	}
}

// refuse answers by Caddy's error routes: the headers that are set here survive
// them (RFC 9449 §7.1, RFC 6750 §3).
func (h *Handler) refuse(w http.ResponseWriter, req *request, f *failure.Failure) error {
	header := w.Header()
	req.cors.apply(header)
	header["Cache-Control"] = []string{"no-store"}
	delete(header, "Retry-After")
	delete(header, "Dpop-Nonce")
	if f.WantsNonce() {
		header["Dpop-Nonce"] = []string{h.nonces.issue(h.now())}
	}
	if challenges := h.challenger.Challenges(f, req.verdict.scheme); len(challenges) > 0 {
		header["Www-Authenticate"] = challenges
	} else {
		delete(header, "Www-Authenticate")
	}
	if f.Passing() {
		header["Retry-After"] = []string{strconv.Itoa(f.RetryAfter)}
	}
	// Where in the code it was refused says less than the reason, and Caddy would take
	// longer to find that out than the refusal took.
	return caddyhttp.Error(f.Status(), caddyhttp.HandlerError{Err: f, Trace: "dpop"})
}
