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
// of its own, which no one here would accept, is dropped.
type translator struct {
	caddyhttp.ResponseWriterWrapper
	challenger *failure.Challenger
	req        *request
	wrote      bool
	challenges []string // as they were sent
}

// translate changes the headers before they are sent. An upstream that gets the
// client's own credentials, from this handler or one after it, speaks for itself.
func (t *translator) translate() {
	if t.wrote || t.req.upstream == UpstreamDPoP {
		return
	}
	header := t.Header()
	delete(header, "Dpop-Nonce")
	filter(header, "Trailer", isNoAnswer)
	values, ok := header["Www-Authenticate"]
	if !ok || t.req.verdict.scheme != failure.DPoP {
		return
	}
	if values, ok = t.challenger.FromBearer(values); ok {
		header["Www-Authenticate"] = values
	}
}

// isNoAnswer reports whether a trailer is not one of the headers that are
// translated, and so may follow as it is.
func isNoAnswer(name string) bool {
	return !strings.EqualFold(name, "DPoP-Nonce") && !strings.EqualFold(name, "WWW-Authenticate")
}

// finish is for what the upstream has set after the body: trailers, or before an
// error, headers.
func (t *translator) finish() {
	t.translate()
	if t.req.upstream == UpstreamDPoP {
		return
	}
	header := t.Header()
	for _, name := range []string{"Dpop-Nonce", "Www-Authenticate"} {
		delete(header, http.TrailerPrefix+name)
		if t.wrote {
			delete(header, name)
		}
	}
	// A writer outside this one may hold the headers back until now.
	if t.wrote && len(t.challenges) > 0 {
		header["Www-Authenticate"] = t.challenges
	}
}

// WriteHeader implements http.ResponseWriter. Informational answers are passed
// on; after the final one headers no longer count.
func (t *translator) WriteHeader(status int) {
	t.translate()
	if status >= 200 || status == http.StatusSwitchingProtocols {
		t.sent()
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
	t.sent()
}

// sent notes that the headers are as they are to be.
func (t *translator) sent() {
	if !t.wrote {
		t.wrote = true
		t.challenges = slices.Clone(t.Header()["Www-Authenticate"])
	}
}

// Interface guards
var (
	_ http.ResponseWriter = (*translator)(nil)
	_ io.ReaderFrom       = (*translator)(nil)
	_ http.Pusher         = (*translator)(nil)
)
