package caddytest

import (
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/caddyserver/caddy/v2"
)

const useNonce = "DPoP use_dpop_nonce"

// proven returns a call whose proof has the claims changed, with a new token.
func proven(t testing.TB, url string, changes map[string]any) call {
	t.Helper()
	token := accessToken(t, nil)
	return call{url: url, header: http.Header{
		"Authorization": {"DPoP " + token},
		"Dpop":          {dpop(t, "GET", url, token, changes)},
	}}
}

// nonceOf returns the one nonce of an answer, which nobody may store.
func (a answer) nonceOf(t testing.TB) string {
	t.Helper()
	values := a.Header.Values("DPoP-Nonce")
	if len(values) != 1 || values[0] == "" || a.Header.Get("Cache-Control") != "no-store" || len(a.Header.Values("Cache-Control")) != 1 {
		t.Fatalf("answered %d with DPoP-Nonce %q, Cache-Control %q", a.StatusCode, values, a.Header.Values("Cache-Control"))
	}
	return values[0]
}

func (a answer) noNonce(t testing.TB) {
	t.Helper()
	if values, ok := a.Header["Dpop-Nonce"]; ok {
		t.Fatalf("answered %d with DPoP-Nonce %q", a.StatusCode, values)
	}
}

// newNonce returns a nonce that the site asks a client to use.
func (g *gateway) newNonce(t testing.TB) string {
	t.Helper()
	a := proven(t, g.url+"/", map[string]any{"iat": 1}).send(t)
	a.expect(t, 401, useNonce)
	return a.nonceOf(t)
}

// What each mode makes of a proof's nonce and iat.
func TestNonceModes(t *testing.T) {
	const badProof = "DPoP invalid_dpop_proof"
	for _, mode := range []string{"off", "on_skew", "required"} {
		g := serve(t, setup{site: "{{DPOP}} nonce " + mode + "\nreverse_proxy {{BACKEND}}"})
		now, good := time.Now().Unix(), "x"
		if mode != "off" {
			good = g.newNonce(t)
		}
		changed := strings.Map(func(r rune) rune {
			if r == 'A' {
				return 'B'
			}
			return 'A'
		}, good)
		for _, row := range []struct {
			name                  string
			iat                   any
			nonce                 any // nil: none
			off, onSkew, required string
		}{
			{"now, no nonce", now, nil, "", "", useNonce},
			{"now, a good nonce", now, good, "", "", ""},
			{"now, another nonce", now, changed, "", "", useNonce},
			{"now, an empty nonce", now, "", "", "", useNonce},
			{"now, a nonce cut short", now, good[:len(good)-1], "", "", useNonce},
			{"now, a nonce that is a number", now, 1, "", badProof, badProof},
			{"now, a nonce that is an array", now, []string{good}, "", badProof, badProof},
			{"now, a nonce that is null", now, jsonNull{}, "", badProof, badProof},
			{"an hour ago, no nonce", now - 3600, nil, badProof, useNonce, useNonce},
			{"an hour ago, a good nonce", now - 3600, good, badProof, "", ""},
			{"an hour ago, another nonce", now - 3600, changed, badProof, useNonce, useNonce},
			{"an hour ahead, no nonce", now + 3600, nil, badProof, useNonce, useNonce},
			{"an hour ahead, a good nonce", now + 3600, good, badProof, "", ""},
			{"a year ahead, a good nonce", now + 365*86400, good, badProof, "", ""},
			{"no time at all, a good nonce", 1e300, good, badProof, "", ""},
			{"before all time, a good nonce", -1e300, good, badProof, "", ""},
			{"an iat that is a string, a good nonce", "now", good, badProof, badProof, badProof},
		} {
			t.Run(mode+"/"+row.name, func(t *testing.T) {
				want := map[string]string{"off": row.off, "on_skew": row.onSkew, "required": row.required}[mode]
				changes := map[string]any{"iat": row.iat}
				if row.nonce != nil {
					changes["nonce"] = row.nonce
				}
				c := proven(t, g.url+"/", changes)
				a := c.send(t)
				if want != "" {
					a.expect(t, 401, want)
					g.backend.none(t)
				} else {
					a.expect(t, 200)
					g.backend.one(t)
					c.send(t).expect(t, 401, badProof) // once
				}
				if want == useNonce {
					if fresh := a.nonceOf(t); fresh == changed {
						t.Error("the nonce is the client's own")
					}
				} else {
					a.noNonce(t)
				}
			})
		}
	}
}

// jsonNull is a claim that is there, and null.
type jsonNull struct{}

func (jsonNull) MarshalJSON() ([]byte, error) { return []byte("null"), nil }

// A nonce is good for its lifetime. An accepted answer brings the next one when
// that is half over, in place of any of the upstream's, and an answer to a client
// whose nonce is still young brings none.
func TestNonceLife(t *testing.T) {
	g := serve(t, setup{site: "{{DPOP}} nonce required {; lifetime 4s;}\n" +
		"reverse_proxy /dead {\nto 127.0.0.1:1\n}\nreverse_proxy {{BACKEND}}"})
	g.backend.answer = func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("DPoP-Nonce", "of-the-upstream")
		w.Header().Set("Cache-Control", "public, max-age=60")
		if r.URL.Path == "/trailer" {
			w.Header().Set("Trailer", "DPoP-Nonce")
			_, _ = w.Write([]byte("x"))
		}
	}
	nonce, issued := g.newNonce(t), time.Now()
	accepted := func(path string) answer {
		t.Helper()
		a := proven(t, g.url+path, map[string]any{"nonce": nonce}).send(t)
		if a.StatusCode != 200 && a.StatusCode != 502 {
			t.Fatalf("answered %d %q", a.StatusCode, a.Header.Values("WWW-Authenticate"))
		}
		return a
	}
	a := accepted("/")
	a.noNonce(t)
	if got := a.Header.Get("Cache-Control"); got != "public, max-age=60" {
		t.Errorf("Cache-Control %q", got)
	}
	time.Sleep(time.Until(issued.Add(2100 * time.Millisecond)))
	next := accepted("/").nonceOf(t)
	accepted("/trailer").nonceOf(t)
	if dead := accepted("/dead"); dead.StatusCode != 502 || dead.nonceOf(t) == "of-the-upstream" {
		t.Errorf("answered %d with the upstream's nonce", dead.StatusCode)
	}
	time.Sleep(time.Until(issued.Add(4100 * time.Millisecond)))
	proven(t, g.url+"/", map[string]any{"nonce": nonce}).send(t).expect(t, 401, useNonce)
	await(t, g.logs, func(e entry) bool { return e["reason"] == "nonce_expired" })
	nonce = next
	accepted("/")
	// where nonces are for skewed clocks alone, one that is too old does no harm, and is replaced
	g.load(t, setup{site: "{{DPOP}} nonce on_skew {; lifetime 1s;}\nreverse_proxy {{BACKEND}}"})
	proven(t, g.url+"/", map[string]any{"nonce": nonce}).send(t).nonceOf(t)
	good(t, g.url+"/").send(t).noNonce(t)
}

// In report mode the answer that is passed on brings the nonce, and all else is
// as it was.
func TestNonceInReportMode(t *testing.T) {
	g := serve(t, setup{site: "{{DPOP}} mode report; nonce required\nreverse_proxy {{BACKEND}}"})
	g.backend.answer = func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("DPoP-Nonce", "of-the-upstream")
		w.Header().Set("WWW-Authenticate", `Bearer realm="upstream"`)
		w.WriteHeader(http.StatusUnauthorized)
	}
	c := good(t, g.url+"/")
	a := c.send(t)
	nonce := a.nonceOf(t)
	if a.StatusCode != 401 || nonce == "of-the-upstream" || a.Header.Get("WWW-Authenticate") != `Bearer realm="upstream"` {
		t.Errorf("answered %d with nonce %q, challenge %q", a.StatusCode, nonce, a.Header.Get("WWW-Authenticate"))
	}
	if got := g.backend.one(t).header; got.Get("Dpop") != c.header.Get("Dpop") || got.Get("Authorization") != c.header.Get("Authorization") {
		t.Error("the backend did not get the request as it was")
	}
	await(t, g.logs, func(e entry) bool { return e["level"] == "warn" && e["reason"] == "nonce_missing" })
	// refused for another reason, the upstream's own headers pass
	a = call{url: g.url}.send(t)
	if got := a.Header.Values("DPoP-Nonce"); len(got) != 1 || got[0] != "of-the-upstream" {
		t.Errorf("DPoP-Nonce %q", got)
	}
	// and with the nonce the client is accepted
	a = proven(t, g.url+"/", map[string]any{"nonce": nonce}).send(t)
	if a.Header.Get("WWW-Authenticate") == `Bearer realm="upstream"` {
		t.Error("the request was not accepted")
	}
}

// What a nested handler tells the client passes the one around it.
func TestNonceOfANestedHandler(t *testing.T) {
	g := serve(t, setup{site: "{{DPOP}} clock_skew 5s\nroute {\n{{DPOP}} clock_skew 5s; nonce required\nreverse_proxy {{BACKEND}}\n}"})
	a := good(t, g.url+"/").send(t)
	a.expect(t, 401, useNonce)
	proven(t, g.url+"/", map[string]any{"nonce": a.nonceOf(t)}).send(t).expect(t, 200)

	// and the other way round
	g = serve(t, setup{site: "{{DPOP}} nonce required {; lifetime 4s;}\nroute {\n{{DPOP}}\nreverse_proxy {{BACKEND}}\n}"})
	nonce := g.newNonce(t)
	time.Sleep(2100 * time.Millisecond)
	proven(t, g.url+"/", map[string]any{"nonce": nonce}).send(t).nonceOf(t)
}

// Nonces outlive a reload, and a change of the secret as long as the old one is
// there; those of another secret are none.
func TestNonceKeys(t *testing.T) {
	const one, two = `"the first secret of the tests, long enough"`, `"the second secret of the tests, long too"`
	g := serve(t, setup{site: "{{DPOP}} nonce required\nreverse_proxy {{BACKEND}}"})
	load := func(settings string) {
		t.Helper()
		g.load(t, setup{site: "{{DPOP}} nonce required {; " + settings + ";}\nreverse_proxy {{BACKEND}}"})
	}
	accepts := func(nonce string, want int) {
		t.Helper()
		if a := proven(t, g.url+"/", map[string]any{"nonce": nonce}).send(t); a.StatusCode != want {
			t.Errorf("answered %d, want %d", a.StatusCode, want)
		}
	}
	restartedStore() // a nonce of the second in which another test used one of a shorter life would go with that
	stored := g.newNonce(t)
	load("lifetime 4m")
	accepts(stored, 200)
	load("secret " + one)
	accepts(stored, 401)
	first := g.newNonce(t)
	accepts(first, 200)
	load("secret " + two + " " + one)
	second := g.newNonce(t)
	accepts(first, 200)
	accepts(second, 200)
	load("secret " + two)
	accepts(first, 401)
	accepts(second, 200)
	load("per_process")
	accepts(second, 401)
	process := g.newNonce(t)
	load("per_process; lifetime 4m")
	accepts(process, 200)
	load("lifetime 3m")
	accepts(process, 401)
	accepts(stored, 200)
}

// The key in Caddy's storage is made once, when a configuration starts, for nobody
// else to read. One that is damaged is not replaced in silence.
func TestStoredNonceKey(t *testing.T) {
	dir := t.TempDir()
	file := filepath.Join(dir, "dpop", "nonce.key")
	g := serve(t, setup{})
	previous := storage
	storage = dir
	defer func() { storage = previous }()
	config := g.config(t, setup{site: "{{DPOP}} nonce on_skew\nreverse_proxy {{BACKEND}}"})
	if err := caddy.Validate(decoded(t, string(config))); err != nil {
		t.Fatal(err)
	}
	if found, _ := filepath.Glob(dir + "/*"); len(found) != 0 {
		t.Fatalf("validating has written %q", found)
	}
	g.load(t, setup{site: "{{DPOP}} nonce on_skew\nreverse_proxy {{BACKEND}}"})
	key, err := os.ReadFile(file)
	if err != nil || len(key) != 32 {
		t.Fatalf("a key of %d bytes, %v", len(key), err)
	}
	if info, err := os.Stat(file); err != nil || info.Mode().Perm()&0o077 != 0 {
		t.Errorf("others can read the key: %v %v", info.Mode(), err)
	}
	g.load(t, setup{site: "{{DPOP}} nonce required\nreverse_proxy {{BACKEND}}"})
	if again, err := os.ReadFile(file); err != nil || string(again) != string(key) {
		t.Error("a reload has changed the key")
	}
	if err := os.WriteFile(file, key[:31], 0o600); err != nil {
		t.Fatal(err)
	}
	if err := caddy.Load(g.config(t, setup{site: "{{DPOP}} nonce required; name other\nreverse_proxy {{BACKEND}}"}), true); err == nil || !strings.Contains(err.Error(), "dpop/nonce.key") {
		t.Errorf("a damaged key: %v", err)
	}
	g.awaitTakeover(t)
	good(t, g.url+"/").send(t).expect(t, 401, useNonce) // the old configuration goes on
}

// A proof that was accepted is refused for as long as it could be, to its last
// moment and past it: when its iat is of now, lies ahead, or did not count.
func TestRefusedToTheEnd(t *testing.T) {
	g := serve(t, setup{site: "{{DPOP}} proof {; max_age 2s;}; clock_skew 1s; nonce on_skew {; lifetime 2s;}\nreverse_proxy {{BACKEND}}"})
	nonce := g.newNonce(t)
	now := float64(time.Now().UnixMilli()) / 1000
	var wait sync.WaitGroup
	for name, changes := range map[string]map[string]any{
		"of now":                        {"iat": now},
		"of now, with a nonce":          {"iat": now, "nonce": nonce},
		"dated ahead":                   {"iat": now + 0.9},
		"too old, with a nonce":         {"iat": now - 100, "nonce": nonce},
		"far ahead, with a nonce":       {"iat": now + 4, "nonce": nonce},
		"very far ahead, with a nonce":  {"iat": now + 1e6, "nonce": nonce},
		"of now to the second, a nonce": {"iat": int64(now), "nonce": nonce},
	} {
		c := proven(t, g.url+"/", changes)
		wait.Go(func() {
			if a := c.send(t); a.StatusCode != 200 {
				t.Errorf("%s: answered %d", name, a.StatusCode)
			}
			for end := time.Now().Add(8 * time.Second); time.Now().Before(end); time.Sleep(100 * time.Millisecond) {
				if a := c.send(t); a.StatusCode != 401 {
					t.Errorf("%s: used again and answered %d after %v", name, a.StatusCode, 8*time.Second-time.Until(end))
					return
				}
			}
		})
	}
	wait.Wait()
}

// A handler that does not know a nonce, because it looks at none or has another key,
// accepts proofs that hold it all the same. By it another could accept them again, long
// after their iat.
func TestNonceOfAnotherHandler(t *testing.T) {
	const short = "{{DPOP}} proof {; max_age 1s; }; clock_skew 1s"
	g := freshStore(t, "@without header X-Without 1\nroute @without {\n"+short+"\nreverse_proxy {{BACKEND}}\n}\n"+
		"@other header X-Without 2\nroute @other {\n"+short+"; nonce on_skew {; secret "+strings.Repeat("k", 32)+"; }\nreverse_proxy {{BACKEND}}\n}\n"+
		"route {\n"+short+"; nonce on_skew\nreverse_proxy {{BACKEND}}\n}")
	defer func() { // the other tests' store again
		g.load(t, setup{})
		restartedStore()
	}()
	nonce := g.newNonce(t)
	var calls []call
	for _, handler := range []string{"1", "2"} {
		for _, nonce := range []string{nonce, "of another server"} {
			c := proven(t, g.url+"/", map[string]any{"nonce": nonce})
			c.header.Set("X-Without", handler)
			c.send(t).expect(t, 200)
			c.header.Del("X-Without")
			calls = append(calls, c)
		}
	}
	time.Sleep(4 * time.Second) // their iat is over, and so is a record of that
	for _, c := range calls {
		if a := c.send(t); a.StatusCode == 200 {
			t.Errorf("accepted again")
		}
	}
	proven(t, g.url+"/", map[string]any{"iat": 1, "nonce": nonce}).send(t).expect(t, 200) // another is good by it
}

// A nonce that is not known says nothing of a proof of before the start.
func TestOtherNonceOfBeforeTheStart(t *testing.T) {
	g := freshStore(t, "{{DPOP}} nonce on_skew\nreverse_proxy {{BACKEND}}")
	defer func() { // the other tests' store again
		g.load(t, setup{})
		restartedStore()
	}()
	before := map[string]any{"iat": time.Now().Unix() - 5}
	proven(t, g.url+"/", before).send(t).expect(t, 503)
	before["nonce"] = "of another server"
	proven(t, g.url+"/", before).send(t).expect(t, 503)
}
