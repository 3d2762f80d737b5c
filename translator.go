package caddydpop

import (
	"io"
	"net/http"

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
	used       failure.Scheme
	wrote      bool
}

func (t *translator) translate() {
	if t.wrote {
		return
	}
	header := t.Header()
	delete(header, "Dpop-Nonce")
	if values, ok := header["Www-Authenticate"]; ok && t.used == failure.DPoP {
		if values, ok = t.challenger.FromBearer(values); ok {
			header["Www-Authenticate"] = values
		}
	}
}

// WriteHeader implements http.ResponseWriter. Informational answers are passed
// on; after the final one headers no longer count.
func (t *translator) WriteHeader(status int) {
	t.translate()
	if status >= 200 || status == http.StatusSwitchingProtocols {
		t.wrote = true
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
	t.wrote = true
}

// Interface guards
var (
	_ http.ResponseWriter = (*translator)(nil)
	_ io.ReaderFrom       = (*translator)(nil)
	_ http.Pusher         = (*translator)(nil)
)
