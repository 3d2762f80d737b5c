package caddydpop

import (
	"cmp"
	"errors"
	"maps"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/caddyserver/caddy/v2"
	"github.com/prometheus/client_golang/prometheus"

	"github.com/caddy-dpop/caddy-dpop/internal/authserver"
	"github.com/caddy-dpop/caddy-dpop/internal/failure"
)

// Metrics that are counted where something happens. They are the process's, and
// go on over reloads.
var (
	verifyDuration = prometheus.NewHistogram(prometheus.HistogramOpts{
		Name:    "caddy_dpop_verify_duration_seconds",
		Help:    "How long it took to judge a request, calls to issuers and stores included.",
		Buckets: []float64{.00005, .0001, .00025, .0005, .001, .0025, .01, .05, .25, 1, 5},
	})
	keyRefreshes = prometheus.NewCounterVec(prometheus.CounterOpts{
		Name: "caddy_dpop_jwks_refresh_total",
		Help: "Fetches of issuers' keys, by result: success or failure.",
	}, []string{"issuer", "result"})
	introspections = prometheus.NewCounterVec(prometheus.CounterOpts{
		Name: "caddy_dpop_introspection_total",
		Help: "Tokens that issuers were asked about, by result: active, inactive or failure.",
	}, []string{"issuer", "result"})
	introspectionDuration = prometheus.NewHistogram(prometheus.HistogramOpts{
		Name:    "caddy_dpop_introspection_duration_seconds",
		Help:    "How long issuers took to answer about a token, or not to, the wait for other calls included.",
		Buckets: prometheus.DefBuckets,
	})
)

// Metrics that are looked up when somebody asks for them.
var (
	requestsDesc = prometheus.NewDesc("caddy_dpop_requests_total",
		"Requests judged, by the handler's name, outcome, reason and scheme.", []string{"handler", "outcome", "reason", "scheme"}, nil)
	entriesDesc = prometheus.NewDesc("caddy_dpop_replay_entries",
		"Proofs that the memory store remembers.", nil, nil)
	capacityDesc = prometheus.NewDesc("caddy_dpop_replay_capacity",
		"Proofs that the memory store may remember.", nil, nil)
	keyAgeDesc = prometheus.NewDesc("caddy_dpop_jwks_age_seconds",
		"How long ago an issuer's keys were fetched last.", []string{"issuer"}, nil)
)

// registerMetrics adds the metrics to the registry of a configuration, of which
// each has a new one.
func registerMetrics(ctx caddy.Context) error {
	registry := ctx.GetMetricsRegistry()
	if registry == nil {
		return nil
	}
	for _, c := range []prometheus.Collector{verifyDuration, keyRefreshes, introspections, introspectionDuration, collector{}} {
		var already prometheus.AlreadyRegisteredError
		if err := registry.Register(c); err != nil && !errors.As(err, &already) {
			return err
		}
	}
	return nil
}

// collector looks up what is not counted where it happens.
type collector struct{}

// Describe implements prometheus.Collector.
func (collector) Describe(descs chan<- *prometheus.Desc) {
	for _, desc := range []*prometheus.Desc{requestsDesc, entriesDesc, capacityDesc, keyAgeDesc} {
		descs <- desc
	}
}

// Collect implements prometheus.Collector.
func (collector) Collect(metrics chan<- prometheus.Metric) {
	for handler, t := range tallies.all() {
		for _, c := range t.counts() {
			metrics <- prometheus.MustNewConstMetric(requestsDesc, prometheus.CounterValue, float64(c.Count),
				handler, string(c.Outcome), string(c.Reason), string(c.Scheme))
		}
	}
	memoryPool.Range(func(_, value any) bool {
		live, limit := value.(sharedMemory).Entries()
		metrics <- prometheus.MustNewConstMetric(entriesDesc, prometheus.GaugeValue, float64(live))
		metrics <- prometheus.MustNewConstMetric(capacityDesc, prometheus.GaugeValue, float64(limit))
		return true
	})
	for issuer, age := range keyAges(time.Now()) {
		metrics <- prometheus.MustNewConstMetric(keyAgeDesc, prometheus.GaugeValue, age.Seconds(), issuer)
	}
}

// keyAges are the ages of all fetched key sets, by issuer: of several of one
// issuer, the oldest.
func keyAges(now time.Time) map[string]time.Duration {
	ages := make(map[string]time.Duration)
	keySets.Range(func(id, value any) bool {
		if fetched := value.(*sharedKeySet).Status().FetchedAt; !fetched.IsZero() {
			issuer := id.(keySetID).issuer
			ages[issuer] = max(ages[issuer], now.Sub(fetched))
		}
		return true
	})
	return ages
}

// countRefresh counts a fetch of an issuer's keys.
func countRefresh(issuer string) func(error) {
	success, failed := keyRefreshes.WithLabelValues(issuer, "success"), keyRefreshes.WithLabelValues(issuer, "failure")
	return func(err error) {
		if err != nil {
			failed.Inc()
		} else {
			success.Inc()
		}
	}
}

// countIntrospection counts a call to an introspection endpoint.
func countIntrospection(issuer string) func(*authserver.Answer, time.Duration) {
	count := func(result string) prometheus.Counter { return introspections.WithLabelValues(issuer, result) }
	active, inactive, failed := count("active"), count("inactive"), count("failure")
	return func(answer *authserver.Answer, took time.Duration) {
		introspectionDuration.Observe(took.Seconds())
		switch {
		case answer == nil:
			failed.Inc()
		case answer.Active:
			active.Inc()
		default:
			inactive.Inc()
		}
	}
}

// tallies count requests, by the name of the handler that judged them.
var tallies tallyBook

type tallyBook struct {
	mu     sync.Mutex
	byName map[string]*tally
}

// of returns the tally of all handlers of a name, in all configurations.
func (b *tallyBook) of(name string) *tally {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.byName == nil {
		b.byName = make(map[string]*tally)
	}
	t, ok := b.byName[name]
	if !ok {
		t = &tally{counters: make(map[judgement]*counter)}
		b.byName[name] = t
	}
	return t
}

func (b *tallyBook) all() map[string]*tally {
	b.mu.Lock()
	defer b.mu.Unlock()
	return maps.Clone(b.byName)
}

// tally counts requests by what became of them.
type tally struct {
	last     atomic.Pointer[counter] // of the last request: most are judged the same
	mu       sync.RWMutex
	counters map[judgement]*counter
}

// counter counts requests of which the same became.
type counter struct {
	judgement
	number atomic.Uint64
}

// judgement is what became of a request, in the words of reason codes.
type judgement struct {
	Outcome outcome        `json:"outcome"`
	Reason  failure.Reason `json:"reason,omitempty"`
	Scheme  failure.Scheme `json:"scheme,omitempty"`
}

func (t *tally) add(j judgement) {
	c := t.last.Load()
	if c == nil || c.judgement != j {
		c = t.of(j)
		t.last.Store(c)
	}
	c.number.Add(1)
}

// of returns the counter of a judgement.
func (t *tally) of(j judgement) *counter {
	t.mu.RLock()
	c, ok := t.counters[j]
	t.mu.RUnlock()
	if ok {
		return c
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	if c, ok = t.counters[j]; !ok {
		c = &counter{judgement: j}
		t.counters[j] = c
	}
	return c
}

// count is how often something became of a request.
type count struct {
	judgement
	Count uint64 `json:"count"`
}

// counts returns all counts, most frequent first.
func (t *tally) counts() []count {
	t.mu.RLock()
	defer t.mu.RUnlock()
	counts := make([]count, 0, len(t.counters))
	for j, c := range t.counters {
		counts = append(counts, count{j, c.number.Load()})
	}
	slices.SortFunc(counts, func(a, b count) int {
		return cmp.Or(cmp.Compare(b.Count, a.Count), cmp.Compare(a.Outcome, b.Outcome), cmp.Compare(a.Reason, b.Reason), cmp.Compare(a.Scheme, b.Scheme))
	})
	return counts
}
