//go:build interop

package interop

import (
	"encoding/json"
	"fmt"
	"net/http/httptest"
	"slices"
	"strings"
	"testing"
)

// A client whose clock is an hour off gets in by its own handling of nonces, where
// there are any, and goes on after a restart of the gateway, which its nonces are
// from before of.
func TestSkewedClients(t *testing.T) {
	node := requireNode(t)
	backend := &backend{got: map[string][]request{}}
	server := httptest.NewServer(backend)
	t.Cleanup(server.Close)
	issuer := startProvider(t, node)
	data := t.TempDir()
	for _, seconds := range []string{"-3600", "3600"} {
		t.Run(seconds, func(t *testing.T) {
			sites := map[string]string{}
			config := "{\n\tadmin off\n\tpersist_config off\n\tlog {\n\t\tlevel WARN\n\t}\n}\n"
			for _, mode := range []string{"off", "on_skew", "required"} {
				sites[mode] = "http://" + freeAddress(t)
				config += fmt.Sprintf(`
%s {
	bind 127.0.0.1
	log {
		output file {{ACCESS_LOG}}
		format json
	}
	dpop {
		issuer %s
		audience %s
		nonce %s
	}
	reverse_proxy %s
}
`, sites[mode], issuer, audience, mode, server.Listener.Addr())
			}
			gateway := runGateway(t, data, sites["off"], config)
			text, err := json.Marshal(sites)
			if err != nil {
				t.Fatal(err)
			}
			cmd := command(t, node, "skew.mjs", issuer, audience, seconds, string(text))
			stdin, err := cmd.StdinPipe()
			if err != nil {
				t.Fatal(err)
			}
			stdout, err := cmd.StdoutPipe()
			if err != nil {
				t.Fatal(err)
			}
			wait := start(t, cmd)
			lines := json.NewDecoder(stdout)
			for round, restarted := range []bool{false, false, true} {
				if restarted {
					gateway.stop(t)
					gateway = runGateway(t, data, sites["off"], config)
				}
				if round > 0 {
					if _, err := stdin.Write([]byte("again\n")); err != nil {
						t.Fatal(err)
					}
				}
				for range sites {
					var r result
					if err := lines.Decode(&r); err != nil {
						t.Fatalf("the client failed: %v, %v", err, wait())
					}
					want, challenges := 200, []string(nil)
					if strings.HasSuffix(r.Case, "/off") {
						want, challenges = 401, []string{"dpop invalid_dpop_proof"}
					}
					if r.Status != want || !slices.Equal(r.Challenges, challenges) {
						t.Errorf("%s: answered %d %q, want %d %q", r.Case, r.Status, r.Challenges, want, challenges)
					}
				}
			}
			for name, verdicts := range gateway.stop(t) {
				if strings.HasPrefix(name, "2/") && !strings.HasSuffix(name, "/off") && len(verdicts) != 2 {
					t.Errorf("%s: after the restart the client got in by %d requests, not by a challenge and its answer", name, len(verdicts))
				}
			}
			_ = stdin.Close()
			if err := wait(); err != nil {
				t.Errorf("the client failed: %v", err)
			}
		})
	}
}
