package caddydpop

import (
	"io"
	"net/http"
	"slices"
	"strings"

	"github.com/caddyserver/caddy/v2/modules/caddyhttp"

	"github.com/caddy-dpop/caddy-dpop/internal/failure"
)

// translator makes an upstream's answer fit the client. The upstream believes
// that it spoke with the holder of a Bearer token: its Bearer challenge becomes
// a DPoP challenge for a client that used DPoP (RFC 9449 §7.1), and a DPoP-Nonce
// of its own, which no one here would accept, gives way to the handler's. What it
// says of origins gives way to what the handler does.
type translator struct {
	caddyhttp.ResponseWriterWrapper
	challenger *failure.Challenger // nil: challenges are left alone
	req        *request
	wrote      bool
	sent       [2][]string // what was sent of the answers
}

// answers are the headers that are translated, and their names as trailers.
var (
	answers  = [2]string{"Dpop-Nonce", "Www-Authenticate"}
	trailers = [2]string{http.TrailerPrefix + "Dpop-Nonce", http.TrailerPrefix + "Www-Authenticate"}
)

// translate changes the headers before they are sent. Left alone are those of a
// nested handler that has refused the request, and those of an upstream that
// gets the client's own credentials: both speak for themselves.
func (t *translator) translate() {
	if t.wrote {
		return
	}
	header := t.Header()
	t.req.cors.apply(header)
	if t.req.verdict.outcome == refused || t.req.upstream == UpstreamDPoP {
		return
	}
	delete(header, "Dpop-Nonce")
	if t.req.nonce != "" {
		header["Dpop-Nonce"] = []string{t.req.nonce}
		header["Cache-Control"] = []string{"no-store"} // RFC 9449 §8.2
	}
	filter(header, "Trailer", t.isNoAnswer)
	values, ok := header["Www-Authenticate"]
	if !ok || t.challenger == nil || t.req.verdict.scheme != failure.DPoP {
		return
	}
	if values, ok = t.challenger.FromBearer(values); ok {
		header["Www-Authenticate"] = values
	}
}

// translated are the headers that this translator does not leave alone.
func (t *translator) translated() []string {
	if t.challenger == nil {
		return answers[:1]
	}
	return answers[:]
}

// isNoAnswer reports whether a trailer is not one of the headers that are
// translated, and so may follow as it is.
func (t *translator) isNoAnswer(name string) bool {
	return !slices.ContainsFunc(t.translated(), func(answer string) bool { return strings.EqualFold(answer, name) })
}

// finish is for what the upstream has set after the body: trailers, or before an
// error, headers.
func (t *translator) finish() {
	t.translate()
	if t.req.upstream == UpstreamDPoP {
		return
	}
	header := t.Header()
	for i, name := range t.translated() {
		delete(header, trailers[i])
		// A writer outside this one may hold the headers back until now.
		switch {
		case t.wrote && t.sent[i] != nil:
			header[name] = t.sent[i]
		case t.wrote:
			delete(header, name)
		}
	}
}

// WriteHeader implements http.ResponseWriter. Informational answers are passed
// on; after the final one headers no longer count.
func (t *translator) WriteHeader(status int) {
	t.translate()
	if status >= 200 || status == http.StatusSwitchingProtocols {
		t.note()
	}
	t.ResponseWriter.WriteHeader(status)
}

// Write implements http.ResponseWriter.
func (t *translator) Write(b []byte) (int, error) {
	t.begin()
	return t.ResponseWriter.Write(b)
}

// ReadFrom implements io.ReaderFrom.
func (t *translator) ReadFrom(r io.Reader) (int64, error) {
	t.begin()
	return t.ResponseWriterWrapper.ReadFrom(r)
}

// FlushError is for http.ResponseController, which would otherwise go past this
// writer, and send headers that are not translated.
func (t *translator) FlushError() error {
	t.begin()
	return http.NewResponseController(t.ResponseWriter).Flush()
}

// begin is before the first byte of a body, which sends the headers.
func (t *translator) begin() {
	t.translate()
	t.note()
}

// note notes that the headers are as they are to be.
func (t *translator) note() {
	if t.wrote {
		return
	}
	t.wrote = true
	for i, name := range t.translated() {
		t.sent[i] = slices.Clone(t.Header()[name])
	}
}

// Interface guards
var (
	_ http.ResponseWriter = (*translator)(nil)
	_ io.ReaderFrom       = (*translator)(nil)
	_ http.Pusher         = (*translator)(nil)
)
