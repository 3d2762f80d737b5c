//go:build interop

package caddytest

import (
	"net/http"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/caddy-dpop/caddy-dpop/replay/redis/redistest"
)

// redisSite is a site whose proofs are recorded in a server, with more settings
// of the store and of the handler.
func redisSite(server *redistest.Server, store, handler string) string {
	return "{{DPOP}} replay redis {; address " + server.Address + "; " + store + "; }; " + handler + "\nreverse_proxy {{BACKEND}}"
}

func TestRedis(t *testing.T) {
	server := redistest.Start(t)
	g := serve(t, setup{site: redisSite(server, "", "")})
	first := good(t, g.url+"/")
	first.send(t).expect(t, 200)
	g.backend.one(t)
	first.send(t).expect(t, 401, "DPoP invalid_dpop_proof")
	g.backend.none(t)
	keys := server.Keys(t)
	if len(keys) != 1 || !strings.HasPrefix(keys[0], "dpop:") || server.TTL(t, keys[0]) > 80*time.Second {
		t.Fatalf("%q", keys)
	}

	// A reload changes the handler, then the store, and what was used stays used.
	for _, site := range []string{
		redisSite(server, "", "mode optional; proof {; max_age 90s; }"),
		redisSite(server, "timeout 300ms; on_error allow", ""),
		redisSite(server, "", ""),
	} {
		g.load(t, setup{site: site})
		first.send(t).expect(t, 401, "DPoP invalid_dpop_proof")
		next := good(t, g.url+"/")
		next.send(t).expect(t, 200)
		next.send(t).expect(t, 401, "DPoP invalid_dpop_proof")
	}
	if n := len(server.Keys(t)); n != 4 {
		t.Errorf("%d records", n)
	}
}

// What one server has accepted the other refuses; and handlers that share a store
// record a request once.
func TestRedisIsShared(t *testing.T) {
	server := redistest.Start(t)
	const public = "public_url https://api.example.com"
	g := serve(t, setup{site: redisSite(server, "", public)})
	c := good(t, "https://api.example.com/")
	c.url = g.url
	c.send(t).expect(t, 200)
	other := serve(t, setup{site: redisSite(server, "timeout 400ms", public)})
	c.url = other.url
	c.send(t).expect(t, 401, "DPoP invalid_dpop_proof")

	store := "{{DPOP}} replay redis {; address " + server.Address + "; }"
	nested := serve(t, setup{site: store + "\nroute {\n" + store + "\nreverse_proxy {{BACKEND}}\n}"})
	c = good(t, nested.url+"/")
	c.send(t).expect(t, 200)
	c.send(t).expect(t, 401, "DPoP invalid_dpop_proof")
}

// While Redis is down or hangs, proofs are answered 503 in time, and everything
// before the record as ever.
func TestRedisTroubles(t *testing.T) {
	server := redistest.Start(t, "requirepass hunter2")
	g := serve(t, setup{site: redisSite(server, "password hunter2", "")})
	good(t, g.url+"/").send(t).expect(t, 200)
	g.backend.one(t)
	for name, trouble := range map[string]struct{ begin, end func() }{
		"stopped": {server.Stop, func() { server.Run(t) }},
		"hangs":   {func() { server.Hang(t) }, func() { server.Resume(t) }},
	} {
		trouble.begin()
		for range 3 {
			c := good(t, g.url+"/")
			start := time.Now()
			a := c.send(t)
			took := time.Since(start)
			a.expect(t, 503)
			if a.Header.Get("Retry-After") == "" {
				t.Errorf("%s: no Retry-After", name)
			}
			if took > 250*time.Millisecond+100*time.Millisecond {
				t.Errorf("%s: answered after %v", name, took)
			}
		}
		await(t, g.logs, func(e entry) bool { return e["reason"] == "replay_unavailable" && e["error"] != nil })

		bad := good(t, g.url+"/")
		bad.header = http.Header{"Authorization": bad.header["Authorization"], "Dpop": {bad.header.Get("Dpop")[:len(bad.header.Get("Dpop"))-8] + "AAAAAAAA"}}
		bad.send(t).expect(t, 401, "DPoP invalid_dpop_proof")
		token := accessToken(t, map[string]any{"cnf": map[string]any{"jkt": "another"}})
		call{url: g.url + "/", header: http.Header{
			"Authorization": {"DPoP " + token}, "Dpop": {dpop(t, "GET", g.url+"/", token, nil)},
		}}.send(t).expect(t, 401, "DPoP invalid_token")
		g.backend.none(t)

		trouble.end()
		redistest.Await(t, "recovery", func() bool {
			status, err := good(t, g.url+"/").try()
			return err == nil && status == 200
		})
		g.backend.requests()
	}
	if text, err := os.ReadFile(g.logs); err != nil || strings.Contains(string(text), "hunter2") || strings.Contains(string(text), "dpop:") {
		t.Errorf("the log holds the password or a key, %v:\n%s", err, text)
	}
}

// With on_error allow a proof that cannot be recorded passes, with a word in the
// log, and a replay that can be seen does not.
func TestRedisOnErrorAllow(t *testing.T) {
	server := redistest.Start(t)
	g := serve(t, setup{site: redisSite(server, "on_error allow", "")})
	used := good(t, g.url+"/")
	used.send(t).expect(t, 200)
	used.send(t).expect(t, 401, "DPoP invalid_dpop_proof")
	server.Hang(t)
	used.send(t).expect(t, 200)
	good(t, g.url+"/").send(t).expect(t, 200)
	await(t, g.logs, func(e entry) bool {
		return e["level"] == "warn" && strings.HasPrefix(e["msg"].(string), "accepted proofs that could not be recorded")
	})
	server.Resume(t)
	redistest.Await(t, "recovery", func() bool {
		status, err := used.try()
		return err == nil && status == 401
	})
}

// A configuration starts without Redis, and what is wrong there is in the log as
// soon as it can be seen.
func TestRedisComesLater(t *testing.T) {
	server := redistest.Start(t, "maxmemory-policy allkeys-lru")
	server.Stop()
	g := serve(t, setup{site: redisSite(server, "", "")})
	await(t, g.logs, func(e entry) bool {
		return e["level"] == "warn" && e["logger"] == "dpop.replay.redis" && strings.HasPrefix(e["msg"].(string), "Redis is not to be had")
	})
	server.Run(t)
	await(t, g.logs, func(e entry) bool { return e["level"] == "warn" && e["maxmemory_policy"] == "allkeys-lru" })
	good(t, g.url+"/").send(t).expect(t, 200)
}

// The files of TLS are read again when they change.
func TestRedisTLS(t *testing.T) {
	dir := t.TempDir()
	files := redistest.NewFiles(t, dir)
	server := redistest.StartTLS(t, files)
	g := serve(t, setup{site: redisSite(server, "tls ca "+files.Root+" cert "+files.Certificate+" "+files.Key, "")})
	good(t, g.url+"/").send(t).expect(t, 200)
	redistest.NewFiles(t, dir)
	server.Stop()
	server.Run(t)
	redistest.Await(t, "the new certificates", func() bool {
		status, err := good(t, g.url+"/").try()
		return err == nil && status == 200
	})
}
