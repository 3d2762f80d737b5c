package caddytest

import (
	"encoding/json"
	"net/http"
	"os"
	"regexp"
	"strconv"
	"strings"
	"testing"
)

// metric returns the value of one of Caddy's metrics, whose labels are written as
// it writes them, or zero if it is not there.
func metric(t *testing.T, name string) float64 {
	t.Helper()
	status, text := admin(t, "GET", "/metrics", nil)
	if status != 200 {
		t.Fatalf("/metrics: %d", status)
	}
	for line := range strings.Lines(text) {
		if value, ok := strings.CutPrefix(line, name+" "); ok {
			n, err := strconv.ParseFloat(strings.TrimSpace(value), 64)
			if err != nil {
				t.Fatal(err)
			}
			return n
		}
	}
	return 0
}

func requests(handler, outcome, reason, scheme string) string {
	return `caddy_dpop_requests_total{handler="` + handler + `",outcome="` + outcome + `",reason="` + reason + `",scheme="` + scheme + `"}`
}

// Each request is counted once, by what became of it. Counts go on over reloads,
// and over one that fails.
func TestMetrics(t *testing.T) {
	s := startServer(t)
	const name = "metrics-test"
	g := serve(t, setup{site: s.site("name "+name+"\nmode optional", "")})
	accepted, replayed := requests(name, "accepted", "", "DPoP"), requests(name, "refused", "proof_replayed", "DPoP")
	none, bearer := requests(name, "refused", "no_credentials", ""), requests(name, "refused", "token_issuer", "Bearer")
	reported := requests(name, "reported", "no_credentials", "")
	asked := func(result string) string {
		return `caddy_dpop_introspection_total{issuer="` + s.URL + `",result="` + result + `"}`
	}
	probes := metric(t, none) // of the harness itself
	// another test's server may have had the same address
	fetched := `caddy_dpop_jwks_refresh_total{issuer="` + s.URL + `",result="success"}`
	before := make(map[string]float64)
	for _, name := range []string{asked("active"), asked("inactive"), asked("failure"), fetched} {
		before[name] = metric(t, name)
	}

	c := call{url: g.url + "/", header: http.Header{}}
	token := accessToken(t, map[string]any{"iss": s.URL})
	c.header.Set("Authorization", "DPoP "+token)
	c.header.Set("Dpop", dpop(t, "GET", c.url, token, nil))
	c.send(t).expect(t, 200)
	c.send(t)
	c.send(t)
	call{url: g.url, header: http.Header{"Authorization": {"Bearer " + accessToken(t, nil)}}}.send(t)
	s.know("opaque", nil)
	withToken(t, g, "opaque").send(t).expect(t, 200)
	withToken(t, g, "unknown").send(t)
	handler := http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusBadGateway) })
	s.answer.Store(&handler)
	withToken(t, g, "unknown").send(t)

	check := func(when string) {
		t.Helper()
		for metricName, want := range map[string]float64{
			accepted:          2,
			replayed:          2,
			bearer:            1,
			asked("active"):   1,
			asked("inactive"): 1,
			asked("failure"):  1,
			"caddy_dpop_introspection_duration_seconds_count": metric(t, "caddy_dpop_introspection_duration_seconds_count"),
			"caddy_dpop_replay_capacity":                      10_000_000,
			fetched:                                           1,
		} {
			if got := metric(t, metricName) - before[metricName]; got != want {
				t.Errorf("%s: %s is %v, want %v", when, metricName, got, want)
			}
		}
		if n := metric(t, "caddy_dpop_replay_entries"); n < 2 { // and those of other tests
			t.Errorf("%s: %v entries", when, n)
		}
		if age := metric(t, `caddy_dpop_jwks_age_seconds{issuer="`+s.URL+`"}`); age <= 0 || age > 60 {
			t.Errorf("%s: the keys are %v s old", when, age)
		}
		if n := metric(t, "caddy_dpop_verify_duration_seconds_count"); n < 7 {
			t.Errorf("%s: %v judgements were timed", when, n)
		}
	}
	check("at first")
	if got := metric(t, none); got < probes {
		t.Errorf("without credentials: %v, before %v", got, probes)
	}
	g.load(t, setup{site: s.site("name "+name+"\nmode report", "")})
	call{url: g.url}.send(t)
	check("after a reload")
	if got := metric(t, reported); got < 1 {
		t.Errorf("reported: %v", got)
	}
	if status, _ := g.post(t, []byte(strings.Replace(string(g.config(t, setup{})), `"handler":"dpop"`, `"handler":"dpop","mode":"x"`, 1))); status == 200 {
		t.Error("a wrong configuration was loaded")
	}
	check("after a failed reload")
}

// The dashboard asks for metrics, labels and values that there are, and for every
// metric.
func TestDashboard(t *testing.T) {
	text, err := os.ReadFile("../examples/grafana/dashboard.json")
	if err != nil {
		t.Fatal(err)
	}
	var dashboard struct {
		Panels []struct {
			Title   string
			Targets []struct{ Expr string }
		}
	}
	if err := json.Unmarshal(text, &dashboard); err != nil {
		t.Fatal(err)
	}
	s := startServer(t)
	g := serve(t, setup{site: s.site("", "")})
	s.know("opaque", nil)
	withToken(t, g, "opaque").send(t).expect(t, 200)
	token := accessToken(t, map[string]any{"iss": s.URL})
	call{url: g.url, header: http.Header{"Authorization": {"DPoP " + token}, "Dpop": {dpop(t, "GET", g.url, token, nil)}}}.send(t).expect(t, 200)
	_, served := admin(t, "GET", "/metrics", nil)
	metrics := regexp.MustCompile(`caddy_dpop_\w+`)
	known := make(map[string]bool)
	for _, name := range metrics.FindAllString(served, -1) {
		known[name] = true
	}
	asked := make(map[string]bool)
	for _, panel := range dashboard.Panels {
		for _, target := range panel.Targets {
			for _, name := range metrics.FindAllString(target.Expr, -1) {
				asked[strings.TrimSuffix(name, "_bucket")] = true
				if !known[name] {
					t.Errorf("%s: there is no metric %s", panel.Title, name)
				}
			}
			for _, label := range regexp.MustCompile(`by \(([^)]*)\)|(\w+)=`).FindAllStringSubmatch(target.Expr, -1) {
				for name := range strings.SplitSeq(label[1]+label[2], ", ") {
					if !strings.Contains(served, name+`="`) {
						t.Errorf("%s: there is no label %s", panel.Title, name)
					}
				}
			}
		}
	}
	for name := range known {
		base := strings.TrimSuffix(strings.TrimSuffix(strings.TrimSuffix(name, "_bucket"), "_sum"), "_count")
		if !asked[base] && !asked[name] {
			t.Errorf("no panel shows %s", name)
		}
	}
}

// The steps of the migration, by the example as it stands: each lets through what
// it says, and the metric to watch tells of the clients that the next would stop.
func TestMigration(t *testing.T) {
	text, err := os.ReadFile("../examples/migration/Caddyfile")
	if err != nil {
		t.Fatal(err)
	}
	_, site, _ := strings.Cut(string(text), "\napi.example.com {\n\tlog\n")
	const name = "orders"
	change := strings.NewReplacer("https://sso.example.com/realms/main", issuer.URL, "backend:8080", "{{BACKEND}}")
	g := &gateway{}
	step := func(mode string) {
		t.Helper()
		if !strings.Contains(site, "\tmode report\n") {
			t.Fatal("the example does not begin with report")
		}
		s := setup{site: change.Replace(strings.Replace(strings.TrimSuffix(site, "}\n"), "mode report", "mode "+mode, 1))}
		if g.url == "" {
			g = serve(t, s)
		} else {
			g.load(t, s)
		}
	}
	// The labels that the example names, and those that such a series has besides.
	watched := regexp.MustCompile(`caddy_dpop_requests_total\{([^}]*)\}`).FindAllStringSubmatch(string(text), -1)
	if len(watched) != 2 || watched[0][1] != `handler="orders",outcome="reported"` || watched[1][1] != `handler="orders",outcome="accepted",scheme="Bearer"` {
		t.Fatalf("the example has one watch %q", watched)
	}
	series := []string{
		requests(name, "reported", "token_bound", "Bearer"),
		requests(name, "accepted", "", "Bearer"),
		requests(name, "refused", "bearer_refused", "Bearer"),
	}
	send := func(claims map[string]any) int {
		t.Helper()
		return call{url: g.url, header: http.Header{"Authorization": {"Bearer " + accessToken(t, claims)}}}.send(t).StatusCode
	}
	unbound := map[string]any{"cnf": nil}
	for _, row := range []struct {
		mode           string
		bound, unbound int       // the answers to Bearer tokens
		rises          []float64 // of the series
	}{
		{"report", 200, 200, []float64{1, 1, 0}},
		{"optional", 401, 200, []float64{0, 1, 0}},
		{"strict", 401, 401, []float64{0, 0, 2}},
	} {
		step(row.mode)
		var before []float64
		for _, name := range series {
			before = append(before, metric(t, name))
		}
		if got := send(nil); got != row.bound {
			t.Errorf("%s: a bound token as Bearer got %d", row.mode, got)
		}
		if got := send(unbound); got != row.unbound {
			t.Errorf("%s: an unbound token got %d", row.mode, got)
		}
		good(t, g.url+"/").send(t).expect(t, 200)
		for i, want := range row.rises {
			if got := metric(t, series[i]) - before[i]; got != want {
				t.Errorf("%s: %s rose by %v, want %v", row.mode, series[i], got, want)
			}
		}
	}
}

// The status says of each handler what an operator asks first.
func TestStatus(t *testing.T) {
	s := startServer(t)
	g := serve(t, setup{site: s.site("name status-test\nnonce on_skew", "")})
	type statusOf struct {
		Name, Mode, Nonce string
		Issuers           []struct {
			Issuer, LastRefresh, LastError string
			Keys                           int
		}
		Replay struct {
			Kind              string
			Entries, Capacity int
			LastError         string
		}
		Requests []struct {
			Outcome, Reason, Scheme string
			Count                   int
		}
	}
	read := func() (found statusOf) {
		t.Helper()
		code, text := admin(t, "GET", "/dpop/status", nil)
		var status struct{ Handlers []json.RawMessage }
		if err := json.Unmarshal([]byte(text), &status); err != nil || code != 200 {
			t.Fatalf("%d %v: %s", code, err, text)
		}
		for _, handler := range status.Handlers {
			var one statusOf
			if err := json.Unmarshal([]byte(strings.NewReplacer("last_refresh", "lastRefresh", "last_error", "lastError").Replace(string(handler))), &one); err != nil {
				t.Fatal(err)
			}
			if one.Name == "status-test" {
				if found.Name != "" {
					t.Fatal("the handler is there twice")
				}
				found = one
			}
		}
		if found.Name == "" {
			t.Fatalf("the handler is not in %s", text)
		}
		return found
	}
	if got := read(); got.Mode != "strict" || got.Nonce != "on_skew" || got.Issuers[0].Issuer != s.URL || got.Issuers[0].Keys != 0 || got.Issuers[0].LastRefresh != "" {
		t.Errorf("before keys were needed: %+v", got)
	}
	token := accessToken(t, map[string]any{"iss": s.URL})
	call{url: g.url, header: http.Header{"Authorization": {"DPoP " + token}, "Dpop": {dpop(t, "GET", g.url, token, nil)}}}.send(t).expect(t, 200)
	got := read()
	if got.Issuers[0].Keys != 1 || got.Issuers[0].LastRefresh == "" || got.Replay.Kind != "memory" || got.Replay.Entries < 1 || got.Replay.Capacity != 10_000_000 {
		t.Errorf("after a request: %+v", got)
	}
	found := false
	for _, c := range got.Requests {
		found = found || c.Outcome == "accepted" && c.Scheme == "DPoP" && c.Reason == "" && c.Count == 1
	}
	if !found {
		t.Errorf("requests: %+v", got.Requests)
	}
	if status, _ := admin(t, "POST", "/dpop/status", nil); status != 405 {
		t.Errorf("POST was answered %d", status)
	}
	// a configuration that fails to load leaves the status of the one that runs
	g.post(t, []byte(strings.Replace(string(g.config(t, setup{})), `"handler":"dpop"`, `"handler":"dpop","mode":"x"`, 1)))
	read()
}
