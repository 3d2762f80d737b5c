package caddytest

import (
	"crypto/rand"
	"flag"
	"fmt"
	"net/http"
	"runtime"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"
)

// floodSize is how many requests each flood has: the default shows the figures of
// a moment, and -attack.flood 200000 those of a minute.
var floodSize = flag.Int("attack.flood", 300, "how many requests each hostile flood has")

// footprint is the memory in use, and how many goroutines there are, once all
// that is not needed is gone.
func footprint() (bytes, goroutines int) {
	var stats runtime.MemStats
	for range 3 {
		runtime.GC()
		time.Sleep(20 * time.Millisecond)
	}
	runtime.ReadMemStats(&stats)
	return int(stats.HeapInuse + stats.StackInuse), runtime.NumGoroutine()
}

// Floods that a client needs nothing for but a key of its own: proofs that are
// good in themselves with tokens of its own, and all that is refused before. None
// of them leaves a record, a remembered token or anything else that stays, and
// none makes a call to an issuer.
func TestAttackFloods(t *testing.T) {
	const name = "attacked-floods"
	o := startOrigin(t)
	ec := forgers()["ES256"]
	g := serve(t, setup{site: o.site("", "name "+name)})
	url := g.url + "/"
	transport := &http.Transport{MaxIdleConnsPerHost: 8}
	defer transport.CloseIdleConnections()
	client := &http.Client{Transport: transport}

	garbage := fmt.Sprintf("%s.%s.%s", b64([]byte(`{"alg":"ES256","kid":"x"}`)), b64([]byte(`{"iss":"https://nobody.example"}`)), b64(make([]byte, 64)))
	compact := proofBy(ec, "GET", url, garbage)
	input := compact[:strings.LastIndex(compact, ".")]
	for _, flood := range []struct {
		attack string
		next   func() (token, proof string) // of the next request
		reason string
	}{
		{"good proofs, tokens that are garbage", func() (string, string) { return garbage, proofBy(ec, "GET", url, garbage) }, "token_issuer"},
		{"good proofs, another garbage each", func() (string, string) {
			token := garbage[:strings.LastIndex(garbage, ".")+1] + b64(randomOctets(64))
			return token, proofBy(ec, "GET", url, token)
		}, "token_issuer"},
		{"good proofs, opaque tokens", func() (string, string) {
			token := rand.Text()
			return token, proofBy(ec, "GET", url, token)
		}, "token_malformed"},
		{"good proofs for another token", func() (string, string) { return garbage, proofBy(ec, "GET", url, "another") }, "proof_token"},
		{"proofs with a bad signature", func() (string, string) { return garbage, input + "." + b64(randomOctets(64)) }, "proof_signature"},
		{"proofs that are garbage", func() (string, string) { return garbage, rand.Text() }, "proof_malformed"},
	} {
		t.Run(flood.attack, func(t *testing.T) {
			send := func(n int) {
				t.Helper()
				var wait sync.WaitGroup
				var left, wrong atomic.Int64
				left.Store(int64(n))
				for range 8 {
					wait.Go(func() {
						for left.Add(-1) >= 0 {
							token, proof := flood.next()
							response, err := call{url: url, header: credentials(token, proof)}.do(client)
							if err != nil {
								wrong.Add(1)
								continue
							}
							if response.StatusCode != http.StatusUnauthorized {
								wrong.Add(1)
							}
							_ = response.Body.Close()
						}
					})
				}
				if wait.Wait(); wrong.Load() > 0 {
					t.Errorf("%d requests of the flood were not answered 401", wrong.Load())
				}
			}
			send(50) // for what is made once
			refused := requests(name, "refused", flood.reason, "DPoP")
			count, entries := metric(t, refused), metric(t, "caddy_dpop_replay_entries")
			bytes, goroutines := footprint()
			began := time.Now()
			send(*floodSize)
			took := time.Since(began)
			afterBytes, afterGoroutines := footprint()
			if got := metric(t, refused) - count; got != float64(*floodSize) {
				t.Errorf("%v refusals of %d by the metric", got, *floodSize)
			}
			if got := metric(t, "caddy_dpop_replay_entries"); got > entries {
				t.Errorf("%v entries in the replay store, before %v", got, entries)
			}
			if grown := afterBytes - bytes; grown > 20<<20 {
				t.Errorf("%d MiB stayed", grown>>20)
			}
			if grown := afterGoroutines - goroutines; grown > 20 {
				t.Errorf("%d goroutines stayed", grown)
			}
			if got := o.calls(); got != (calls{}) {
				t.Errorf("the issuer got %+v", got)
			}
			g.backend.none(t)
			t.Logf("%d requests in %v: %+d KiB, %+d goroutines", *floodSize, took.Round(time.Millisecond), (afterBytes-bytes)>>10, afterGoroutines-goroutines)
		})
	}
	withToken(t, g, o.token(t, o.key)).send(t).expect(t, 200)
}

func randomOctets(n int) []byte {
	octets := make([]byte, n)
	_, _ = rand.Read(octets)
	return octets
}
