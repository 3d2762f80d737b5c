package caddydpop

import (
	"encoding/json"
	"errors"
	"maps"
	"net/http"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/caddyserver/caddy/v2"

	"github.com/caddy-dpop/caddy-dpop/internal/authserver"
	"github.com/caddy-dpop/caddy-dpop/replay"
	"github.com/caddy-dpop/caddy-dpop/replay/redis"
)

func init() {
	caddy.RegisterModule(AdminStatus{})
}

// AdminStatus is an endpoint of Caddy's admin API, `GET /dpop/status`, that says
// how the handlers are: their issuers' keys, their replay store, and what became
// of requests.
type AdminStatus struct{}

// CaddyModule returns the Caddy module information.
func (AdminStatus) CaddyModule() caddy.ModuleInfo {
	return caddy.ModuleInfo{
		ID:  "admin.api.dpop",
		New: func() caddy.Module { return new(AdminStatus) },
	}
}

// Provision registers the metrics. The admin API serves those of a configuration
// even if that fails to load, before its handlers are reached.
func (AdminStatus) Provision(ctx caddy.Context) error { return registerMetrics(ctx) }

// Routes implements caddy.AdminRouter.
func (AdminStatus) Routes() []caddy.AdminRoute {
	return []caddy.AdminRoute{{Pattern: "/dpop/status", Handler: caddy.AdminHandlerFunc(serveStatus)}}
}

func serveStatus(w http.ResponseWriter, r *http.Request) error {
	if r.Method != http.MethodGet {
		w.Header().Set("Allow", http.MethodGet)
		return caddy.APIError{HTTPStatus: http.StatusMethodNotAllowed, Err: errors.New("the status can only be read")}
	}
	w.Header().Set("Content-Type", "application/json")
	return json.NewEncoder(w).Encode(struct {
		Handlers []handlerStatus `json:"handlers"`
	}{live.status()})
}

// live are the handlers of the configurations that are loaded: one, or two while
// one follows another. The admin API asks here, because its module may be of a
// configuration that failed to load.
var live liveHandlers

type liveHandlers struct {
	mu       sync.Mutex
	handlers map[*Handler]struct{}
}

func (l *liveHandlers) add(h *Handler) (remove func()) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.handlers == nil {
		l.handlers = make(map[*Handler]struct{})
	}
	l.handlers[h] = struct{}{}
	return func() {
		l.mu.Lock()
		defer l.mu.Unlock()
		delete(l.handlers, h)
	}
}

func (l *liveHandlers) status() []handlerStatus {
	l.mu.Lock()
	handlers := slices.Collect(maps.Keys(l.handlers))
	l.mu.Unlock()
	statuses := make([]handlerStatus, 0, len(handlers))
	for _, h := range handlers {
		statuses = append(statuses, h.status())
	}
	slices.SortFunc(statuses, func(a, b handlerStatus) int { return strings.Compare(a.Name, b.Name) })
	return statuses
}

// handlerStatus is how a handler is.
type handlerStatus struct {
	Name    string         `json:"name"`
	Mode    Mode           `json:"mode"`
	Nonce   NonceMode      `json:"nonce"`
	Issuers []issuerStatus `json:"issuers"`
	Replay  replayStatus   `json:"replay"`
	// of all handlers of the name since the process began
	Requests []count `json:"requests"`
}

type issuerStatus struct {
	Issuer      string     `json:"issuer"`
	Keys        int        `json:"keys"` // that can verify tokens
	LastRefresh *time.Time `json:"last_refresh,omitempty"`
	LastError   string     `json:"last_error,omitempty"`
}

type replayStatus struct {
	Kind      string `json:"kind"`
	Entries   *int   `json:"entries,omitempty"`
	Capacity  *int   `json:"capacity,omitempty"`
	LastError string `json:"last_error,omitempty"`
	Warning   string `json:"warning,omitempty"`
}

func (h *Handler) status() handlerStatus {
	status := handlerStatus{Name: h.name, Mode: h.mode, Nonce: h.nonces.mode, Requests: h.tally.counts()}
	for _, iss := range h.issuers {
		status.Issuers = append(status.Issuers, issuerStatusOf(iss.rules.Issuer, iss.keys))
	}
	slices.SortFunc(status.Issuers, func(a, b issuerStatus) int { return strings.Compare(a.Issuer, b.Issuer) })
	status.Replay.Kind = h.storeName
	switch store := h.store.(type) {
	case *replay.Memory:
		entries, capacity := store.Entries()
		status.Replay.Entries, status.Replay.Capacity = &entries, &capacity
	case *redis.Store:
		found := store.Status()
		status.Replay.Warning = found.Warning
		if found.Err != nil {
			status.Replay.LastError = clippedTo(found.Err.Error(), maxError)
		}
	}
	return status
}

func issuerStatusOf(name string, keys authserver.KeyFinder) issuerStatus {
	status := issuerStatus{Issuer: name}
	found := keys.Status()
	status.Keys = found.Keys
	if !found.FetchedAt.IsZero() {
		status.LastRefresh = &found.FetchedAt
	}
	if found.Err != nil {
		status.LastError = clippedTo(found.Err.Error(), maxError)
	}
	return status
}

// Interface guards
var (
	_ caddy.AdminRouter = (*AdminStatus)(nil)
	_ caddy.Provisioner = (*AdminStatus)(nil)
)
