package caddydpop

import (
	"net/http"
	"strings"
	"sync"
	"time"

	"github.com/caddyserver/caddy/v2/modules/caddyhttp"
	"go.uber.org/zap"
	"go.uber.org/zap/zapcore"

	"github.com/caddy-dpop/caddy-dpop/internal/failure"
	"github.com/caddy-dpop/caddy-dpop/internal/token"
)

// conclude notes what became of a request: for placeholders, for metrics, for the
// access log, and in a line of its own unless it was accepted.
func (h *Handler) conclude(r *http.Request, req *request, o outcome, f *failure.Failure) {
	req.verdict.outcome = o
	if f != nil {
		req.verdict.reason = f.Reason
	}
	h.tally.add(judgement{o, req.verdict.reason, req.verdict.scheme})
	if logsAccess(r) {
		if extra, ok := r.Context().Value(caddyhttp.ExtraLogFieldsCtxKey).(*caddyhttp.ExtraLogFields); ok {
			extra.Set(zap.Object("dpop", &req.verdict))
		}
	}
	if f == nil {
		return
	}
	level := zapcore.InfoLevel
	switch {
	case o == reported:
		level = zapcore.WarnLevel
	case f.Passing():
		level = zapcore.ErrorLevel
	}
	if !h.flood.lets(f.Reason, h.now()) {
		return
	}
	if c := h.logger.Check(level, messages[o]); c != nil {
		c.Write(append(req.fields(r), detailFields(f)...)...)
	}
}

// logsAccess reports whether the server has an access log: without one nothing of
// Caddy's reads the field, and to set it costs about as much as to hash a proof's
// identifier.
func logsAccess(r *http.Request) bool {
	server, ok := r.Context().Value(caddyhttp.ServerCtxKey).(*caddyhttp.Server)
	return !ok || server.Logs != nil
}

var messages = map[outcome]string{
	refused:  "refused request",
	reported: "would refuse request",
}

// fields describe a request, without anything that could be a credential: of
// the target the path alone, and of the headers none.
func (req *request) fields(r *http.Request) []zap.Field {
	clientIP, _ := caddyhttp.GetVar(r.Context(), caddyhttp.ClientIPVarKey).(string)
	return []zap.Field{
		zap.Inline(&req.verdict),
		zap.String("method", req.method),
		zap.String("host", clipped(req.host)),
		zap.String("path", clipped(req.url.EscapedPath())),
		zap.String("client_ip", clientIP),
	}
}

// Bounds of what the log takes of a text that a client chose, and of an error, which
// may hold some that an issuer chose.
const (
	maxDetail = 256
	maxError  = 1024
)

func clipped(text string) string { return clippedTo(text, maxDetail) }

func clippedTo(text string, most int) string {
	if len(text) <= most {
		return text
	}
	return strings.ToValidUTF8(text[:most], "") + "..."
}

func detailFields(f *failure.Failure) []zap.Field {
	fields := []zap.Field{zap.String("description", f.Description)}
	for _, detail := range f.Details {
		switch value := detail.Value.(type) {
		case string:
			detail.Value = clipped(value)
		case error:
			detail.Value = clippedTo(value.Error(), maxError)
		}
		fields = append(fields, zap.Any(detail.Name, detail.Value))
	}
	return fields
}

// MarshalLogObject implements zapcore.ObjectMarshaler.
func (v *verdict) MarshalLogObject(enc zapcore.ObjectEncoder) error {
	for _, field := range []struct{ name, value string }{
		{"handler", v.handler},
		{"outcome", string(v.outcome)},
		{"reason", string(v.reason)},
		{"scheme", string(v.scheme)},
		{"jkt", v.jkt},
		{"issuer", v.issuer},
		{"client_id", v.clientID},
	} {
		if field.value != "" {
			enc.AddString(field.name, clipped(field.value))
		}
	}
	return nil
}

// sampler lets the first hundred refusals of each reason in each second be logged,
// and then every hundredth, so that a flood of one hides no other.
type sampler struct {
	mu     sync.Mutex
	second int64
	counts map[failure.Reason]int
}

func (s *sampler) lets(reason failure.Reason, now time.Time) bool {
	const first, every = 100, 100
	s.mu.Lock()
	defer s.mu.Unlock()
	if second := now.Unix(); second != s.second || s.counts == nil {
		s.second, s.counts = second, make(map[failure.Reason]int)
	}
	s.counts[reason]++
	n := s.counts[reason]
	return n <= first || n%every == 0
}

// placeholder resolves the placeholders that the handler documents.
func (req *request) placeholder(key string) (any, bool) {
	if claim, ok := strings.CutPrefix(key, "http.auth.user."); ok {
		return req.userPlaceholder(claim), true
	}
	name, ok := strings.CutPrefix(key, "http.dpop.")
	if !ok {
		return nil, false
	}
	switch name {
	case "outcome":
		return string(req.verdict.outcome), true
	case "reason":
		return string(req.verdict.reason), true
	case "scheme":
		return string(req.verdict.scheme), true
	case "jkt":
		return req.verdict.jkt, true
	case "issuer":
		return req.verdict.issuer, true
	case "client_id":
		return req.verdict.clientID, true
	}
	return nil, false
}

// userPlaceholder resolves {http.auth.user.*} from the token of an accepted
// request: to nothing for any other, and for claims that are not there. The
// user's id is who the token speaks for, whatever claim is called id.
func (req *request) userPlaceholder(claim string) string {
	if req.user == nil {
		return ""
	}
	if claim == "id" {
		return token.Subject(req.user.claims)
	}
	value, ok := token.Claim(req.user.claims, claim)
	if !ok {
		return ""
	}
	return value.Plain()
}
