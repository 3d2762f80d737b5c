package caddytest

import (
	"crypto/ecdsa"
	"crypto/rand"
	"crypto/tls"
	"fmt"
	"math/big"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/caddy-dpop/caddy-dpop/internal/nonce"
)

// negated replaces a proof's signature by the other one that ECDSA has for it.
func negated(proof string) string {
	parts := strings.Split(proof, ".")
	signature := unb64(parts[2])
	n := forgers()["ES256"].private.(*ecdsa.PrivateKey).Params().N
	s := new(big.Int).Sub(n, new(big.Int).SetBytes(signature[32:]))
	return parts[0] + "." + parts[1] + "." + b64(slices.Concat(signature[:32], s.FillBytes(make([]byte, 32))))
}

// A proof is what its key and its jti say: used once, it is refused however else
// it, or the URL, is spelt, and whatever else is in it (RFC 9449 §11.1).
func TestAttackSecondUse(t *testing.T) {
	g := serve(t, setup{address: "http://:{{PORT}}", site: "{{DPOP}}\nreverse_proxy {{BACKEND}}" + saysWhy})
	host := "127.0.0.1:" + g.port
	ec, ed := forgers()["ES256"], forgers()["EdDSA"]
	renamed := *ed
	renamed.alg = "Ed25519"
	jti := func(text string) option { return claim("jti", `"`+text+`"`) }
	line := func(target string) string { return "GET " + target + " HTTP/1.1" }
	// use is a use of a proof. The first is plain; jtiOf says what the second's is.
	type use struct {
		line    string
		key     *forger
		token   string
		options []option
		respell func(proof string) string
	}
	for _, row := range []struct {
		attack, source string
		key            *forger
		second         func(u *use, id string) // changes what is sent the second time
		reason         string
	}{
		{"as it was", "RFC 9449 §11.1", ec, func(*use, string) {}, "proof_replayed"},
		{"with a query", "better-auth pull 10039", ec, func(u *use, _ string) { u.line = line("/orders?a=1") }, "proof_replayed"},
		{"with dot segments", "better-auth pull 10039", ec, func(u *use, _ string) { u.line = line("/x/../orders") }, "proof_replayed"},
		{"with an escape", "better-auth pull 10039", ec, func(u *use, _ string) { u.line = line("/%6frders") }, "proof_replayed"},
		{"with the absolute form", "better-auth pull 10039", ec, func(u *use, _ string) { u.line = line("http://" + host + "/orders") }, "proof_replayed"},
		{"by HTTP/1.0", "RFC 9449 §11.1", ec, func(u *use, _ string) { u.line = "GET /orders HTTP/1.0" }, "proof_replayed"},
		{"with the other signature that ECDSA has", "SEC 1 §4.1.3", ec, func(u *use, _ string) { u.respell = negated }, "proof_replayed"},
		{"signed again", "RFC 9449 §4.2", ec, func(u *use, id string) { u.options = []option{jti(id)} }, "proof_replayed"},
		{"with jti by an escape", "RFC 8259 §8.3", ec, func(u *use, id string) { u.options = []option{jti(`\u0061` + id[1:])} }, "proof_replayed"},
		{"with another iat", "RFC 9449 §11.1", ec, func(u *use, id string) {
			u.options = []option{jti(id), claim("iat", strconv.FormatInt(time.Now().Unix()+1, 10))}
		}, "proof_replayed"},
		{"with a nonce", "RFC 9449 §11.1", ec, func(u *use, id string) { u.options = []option{jti(id), claim("nonce", `"x"`)} }, "proof_replayed"},
		{"with another htu of the same URL", "better-auth pull 10039", ec, func(u *use, id string) {
			u.options = []option{jti(id), claim("htu", `"HTTP://`+host+`/%6Frders?x#y"`)}
		}, "proof_replayed"},
		{"with another header", "RFC 7515 §4", ec, func(u *use, id string) { u.options = []option{jti(id), member("kid", `"x"`)} }, "proof_replayed"},
		{"with another JWK of the key", "RFC 7638 §3.2", ec, func(u *use, id string) {
			u.options = []option{jti(id), head(`{"crv"`, `{"kid":"x","crv"`)}
		}, "proof_replayed"},
		{"for another token of the client", "RFC 9449 §11.1", ec, func(u *use, id string) {
			u.token, u.options = u.key.boundTo(t), []option{jti(id)}
		}, "proof_replayed"},
		{"by another name of its algorithm", "RFC 9864 §2.2", ed, func(u *use, id string) { u.key, u.options = &renamed, []option{jti(id)} }, "proof_replayed"},
		{"with the jti in upper case, which is another", "RFC 7519 §4.1.7", ec, func(u *use, id string) { u.options = []option{jti(strings.ToUpper(id))} }, isAccepted},
		{"with a NUL after the jti, which is another", "RFC 7519 §4.1.7", ec, func(u *use, id string) { u.options = []option{jti(id + `\u0000`)} }, isAccepted},
		{"with the jti of another key", "inji-certify pull 1000", ec, func(u *use, id string) {
			u.key, u.token, u.options = ed, ed.boundTo(t), []option{jti(id)}
		}, isAccepted},
	} {
		t.Run(row.attack+" ("+row.source+")", func(t *testing.T) {
			id := "a" + strings.ToLower(rand.Text())
			u := &use{line: line("/orders"), key: row.key, token: row.key.boundTo(t)}
			send := func(proof string) *http.Response {
				answers := exchange(t, g, fmt.Sprintf("%s\r\nHost: %s\r\nAuthorization: DPoP %s\r\nDPoP: %s\r\nConnection: close\r\n\r\n", u.line, host, u.token, proof))
				if len(answers) != 1 {
					t.Fatalf("%d answers", len(answers))
				}
				return answers[0]
			}
			proof := proofBy(u.key, "GET", g.url+"/orders", u.token, jti(id))
			g.because(t, send(proof), isAccepted)
			row.second(u, id)
			if u.options != nil {
				proof = proofBy(u.key, "GET", g.url+"/orders", u.token, u.options...)
			}
			if u.respell != nil {
				proof = u.respell(proof)
			}
			g.because(t, send(proof), row.reason)
		})
	}
}

// One proof at once by every protocol, through two handlers with settings of their
// own: one request passes.
func TestAttackSecondUseAtOnce(t *testing.T) {
	certFile, keyFile, roots := certificate(t)
	g := serve(t, setup{address: "https://127.0.0.1:{{PORT}}", site: "tls " + certFile + " " + keyFile + `
		@odd query odd=1
		handle @odd {
			{{DPOP}} clock_skew 20s; realm odd
			reverse_proxy {{BACKEND}}
		}
		handle {
			{{DPOP}} mode report
			reverse_proxy {{BACKEND}}
		}`})
	trust := func() *tls.Config { return &tls.Config{RootCAs: roots, MinVersion: tls.VersionTLS12} }
	// Not by HTTP/3: with many such requests Caddy's proxy has a data race of its own,
	// between the trailers of a body of unknown length and the header that announces them.
	h1, h2 := &http.Transport{TLSClientConfig: trust()}, &http.Transport{TLSClientConfig: trust(), ForceAttemptHTTP2: true}
	defer h1.CloseIdleConnections()
	defer h2.CloseIdleConnections()
	clients := []*http.Client{{Transport: h1}, {Transport: h2}}
	for range 5 {
		c := good(t, g.url+"/")
		var passed atomic.Int64
		var wait sync.WaitGroup
		for n := range 60 {
			sent := c
			sent.url += "?odd=" + strconv.Itoa(n/3%2)
			wait.Go(func() {
				response, err := sent.do(clients[n%2])
				if err != nil {
					t.Error(err)
					return
				}
				_ = response.Body.Close()
			})
		}
		wait.Wait()
		for _, got := range g.backend.requests() { // report mode passes on what it refuses as it is
			if got.header["Dpop"] == nil {
				passed.Add(1)
			}
		}
		if passed.Load() != 1 {
			t.Fatalf("%d requests were accepted", passed.Load())
		}
	}
}

// freshStore loads a site that alone uses the memory store, from its beginning.
func freshStore(t *testing.T, site string) *gateway {
	t.Helper()
	g := serve(t, setup{alone: true, site: "{{DPOP}} replay off"}) // lets go of the other tests' store
	g.load(t, setup{alone: true, site: site})
	restartedStore()
	return g
}

// A proof stays refused to the last moment at which it could be accepted, while
// others fill the store to its bound: nobody else's use makes room.
func TestAttackTimeAndRoom(t *testing.T) {
	const most = 150
	g := freshStore(t, "{{DPOP}} proof {; max_age 1s; }; clock_skew 1s; nonce on_skew {; lifetime 1s; }; replay memory {; max_entries "+strconv.Itoa(most)+"; }\nreverse_proxy {{BACKEND}}"+saysWhy)
	defer func() { // the other tests' store again
		g.load(t, setup{})
		restartedStore()
	}()
	issued := g.newNonce(t)
	now := float64(time.Now().UnixMilli()) / 1000
	url := g.url + "/"
	uses := []struct {
		attack, source string
		call           call
	}{
		{"dated ahead", "Keycloak issue 43505, sourcebot pull 1395", proven(t, url, map[string]any{"iat": now + 0.95})},
		{"of now", "Spring Security before 7.0.7: a flood evicted it", proven(t, url, map[string]any{"iat": now})},
		{"old, by a nonce", "RFC 9449 §11.1", proven(t, url, map[string]any{"iat": now - 100, "nonce": issued})},
		{"far ahead, by a nonce, later by its iat", "RFC 9449 §11.1", proven(t, url, map[string]any{"iat": now + 2.6, "nonce": issued})},
	}
	for _, u := range uses {
		g.because(t, u.call.send(t).Response, isAccepted)
	}
	// somebody else fills the store
	full := false
	for range most {
		a := good(t, url).send(t)
		if full = a.Header.Get("X-Reason") == "replay_full"; full {
			break
		}
	}
	if !full {
		t.Error("the store did not fill")
	}
	await(t, g.logs, func(e entry) bool {
		return e["level"] == "warn" && e["logger"] == "dpop.replay.memory" && e["entries"] == most*4/5. && e["max_entries"] == float64(most)
	})
	g.backend.requests()
	for end := now + 5; ; time.Sleep(50 * time.Millisecond) {
		at := float64(time.Now().UnixMilli()) / 1000
		if at > end {
			break
		}
		for _, u := range uses {
			a := u.call.send(t)
			if a.StatusCode == 200 {
				t.Fatalf("%s (%s): accepted again after %.1f s", u.attack, u.source, at-now)
			}
			// the store also refuses what it has let go of, but must not let go of it
			if a.Header.Get("X-Reason") == "proof_forgotten" {
				t.Fatalf("%s (%s): forgotten after %.1f s", u.attack, u.source, at-now)
			}
		}
	}
	g.backend.none(t)
}

// Nonces as nobody issued them, or not for now (RFC 9449 §8 and §9).
func TestAttackNonces(t *testing.T) {
	const secret = "a secret of these tests that is long enough"
	g := serve(t, setup{site: `
		handle /required {
			{{DPOP}} nonce required {; lifetime 1m; secret "` + secret + `"; }
			reverse_proxy {{BACKEND}}
		}
		handle /on_skew {
			{{DPOP}} nonce on_skew {; lifetime 1m; secret "` + secret + `"; }
			reverse_proxy {{BACKEND}}
		}
		handle /unrecorded {
			{{DPOP}} nonce required {; lifetime 1m; secret "` + secret + `"; }; replay off
			reverse_proxy {{BACKEND}}
		}
		handle /own {
			{{DPOP}} nonce required {; per_process; }
			reverse_proxy {{BACKEND}}
		}
		handle /unrecorded_on_skew {
			{{DPOP}} nonce on_skew {; lifetime 1m; secret "` + secret + `"; }; replay off
			reverse_proxy {{BACKEND}}
		}
		handle /own_on_skew {
			{{DPOP}} nonce on_skew {; per_process; }
			reverse_proxy {{BACKEND}}
		}` + saysWhy})
	ours := nonce.Keys{nonce.KeyOf(secret)}
	now := time.Now()
	issue := func(offset time.Duration) string { return ours.Issue(now.Add(offset)) }
	good := issue(0)
	octets := unb64(good)
	flipped := func(at int) string {
		changed := slices.Clone(octets)
		changed[at] ^= 1
		return b64(changed)
	}
	key := forgers()["EdDSA"]
	for _, row := range []struct {
		attack, source, nonce string
		reason                string // where nonces are required, and where iat is an hour off
	}{
		{"good", "RFC 9449 §9", good, isAccepted},
		{"of the future, within the skew of clocks", "SECURITY.md", issue(9 * time.Second), isAccepted},
		{"of the future", "SECURITY.md", issue(20 * time.Second), "nonce_wrong"},
		{"of the far future", "48 bits of milliseconds", ours.Issue(time.UnixMilli(1<<48 - 1)), "nonce_wrong"},
		{"too old", "RFC 9449 §8.2", issue(-70 * time.Second), "nonce_expired"},
		{"of 1970", "Go's zero value", ours.Issue(time.UnixMilli(0)), "nonce_expired"},
		{"of another secret", "RFC 9449 §8", nonce.Keys{nonce.KeyOf(secret + "x")}.Issue(now), "nonce_wrong"},
		{"by the secret itself", "the key is derived", nonce.Keys{[]byte(secret)}.Issue(now), "nonce_wrong"},
		{"with another time", "RFC 9449 §8.1: unpredictable", flipped(5), "nonce_wrong"},
		{"with another code", "RFC 9449 §8.1", flipped(23), "nonce_wrong"},
		{"with a zero code", "RFC 9449 §8.1", b64(append(slices.Clone(octets[:6]), make([]byte, 18)...)), "nonce_wrong"},
		{"without code", "RFC 9449 §8.1", b64(octets[:6]), "nonce_wrong"},
		{"cut short", "RFC 9449 §8.1", good[:31], "nonce_wrong"},
		{"with more behind", "RFC 9449 §8.1", good + "A", "nonce_wrong"},
		{"with padding", "RFC 4648 §3.2", good + "=", "nonce_wrong"},
		{"with a line break", "encoding/base64 skips it", good[:31] + "\n", "nonce_wrong"},
		{"with a line break more", "encoding/base64 skips it", good[:8] + "\n" + good[8:], "nonce_wrong"},
		{"with spaces", "RFC 9449 §8.1", " " + good, "nonce_wrong"},
		{"by the other alphabet", "RFC 4648 §4", otherAlphabet(ours, now), "nonce_wrong"},
		{"in another case", "RFC 4648 §5", swapped(good), "nonce_wrong"},
		{"twice", "RFC 9449 §8.1", good + good, "nonce_wrong"},
		{"empty", "Go's zero value", "", "nonce_wrong"},
		{"of 5,000 characters", "SECURITY.md", strings.Repeat("A", 4000), "nonce_wrong"},
	} {
		for path, iat := range map[string]int64{"/required": now.Unix(), "/unrecorded": now.Unix(), "/on_skew": now.Unix() - 3600} {
			t.Run(row.attack+", "+path+" ("+row.source+")", func(t *testing.T) {
				token := key.boundTo(t)
				url := g.url + path
				a := call{url: url, header: credentials(token, proofBy(key, "GET", url, token, claim("iat", strconv.FormatInt(iat, 10)), claim("nonce", strconv.Quote(row.nonce))))}.send(t)
				g.because(t, a.Response, row.reason)
				if row.reason != isAccepted && a.nonceOf(t) == row.nonce {
					t.Error("the answer has the client's own nonce")
				}
			})
		}
	}

	for _, row := range []struct {
		attack, path string
		change       func(c call, proof *[]option)
		reason       string
	}{
		{"in a header of the request", "/required", func(c call, _ *[]option) { c.header.Set("DPoP-Nonce", good) }, "nonce_missing"},
		{"in the header of the proof", "/required", func(_ call, proof *[]option) { *proof = append(*proof, member("nonce", strconv.Quote(good))) }, "nonce_missing"},
		{"in another case", "/required", func(_ call, proof *[]option) { *proof = append(*proof, claim("NONCE", strconv.Quote(good))) }, "nonce_missing"},
		{"of the secret, where the key is the process's own", "/own", func(_ call, proof *[]option) { *proof = append(*proof, claim("nonce", strconv.Quote(good))) }, "nonce_wrong"},
		{"of another process, beside a good iat: it may be of this one, before its start", "/own_on_skew", func(_ call, proof *[]option) { *proof = append(*proof, claim("nonce", strconv.Quote(good))) }, "nonce_wrong"},
		{"too old, beside a good iat", "/unrecorded_on_skew", func(_ call, proof *[]option) {
			*proof = append(*proof, claim("nonce", strconv.Quote(issue(-30*time.Minute))))
		}, isAccepted},
		{"so old that its use may be forgotten, beside a good iat", "/unrecorded_on_skew", func(_ call, proof *[]option) {
			*proof = append(*proof, claim("nonce", strconv.Quote(issue(-2*time.Hour))))
		}, "nonce_expired"},
		{"good, but the proof used before", "/required", func(_ call, proof *[]option) {
			*proof = append(*proof, claim("nonce", strconv.Quote(good)), claim("jti", `"used before"`))
			token := key.boundTo(t)
			first := call{url: g.url + "/required", header: credentials(token, proofBy(key, "GET", g.url+"/required", token, *proof...))}
			g.because(t, first.send(t).Response, isAccepted)
		}, "proof_replayed"},
	} {
		t.Run(row.attack, func(t *testing.T) {
			token := key.boundTo(t)
			c := call{url: g.url + row.path, header: http.Header{}}
			var options []option
			row.change(c, &options)
			c.header["Authorization"] = []string{"DPoP " + token}
			c.header["Dpop"] = []string{proofBy(key, "GET", c.url, token, options...)}
			g.because(t, c.send(t).Response, row.reason)
		})
	}
}

// otherAlphabet is a good nonce, spelt with the characters that base64 has in
// place of base64url's.
func otherAlphabet(keys nonce.Keys, now time.Time) string {
	for text := keys.Issue(now); ; text = keys.Issue(now) {
		if other := strings.NewReplacer("-", "+", "_", "/").Replace(text); other != text {
			return other
		}
		now = now.Add(-time.Millisecond)
	}
}
