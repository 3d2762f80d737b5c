package caddytest

import (
	"net/http"
	"os"
	"path/filepath"
	"testing"
	"time"
)

// A token that was verified before is accepted no longer than it would be
// without that: its key may be withdrawn, it may expire, and each handler has
// rules of its own.
func TestRememberedToken(t *testing.T) {
	keys := filepath.Join(t.TempDir(), "keys.json")
	write := func(key []byte) {
		t.Helper()
		if err := os.WriteFile(keys, []byte(`{"keys":[`+string(key)+`]}`), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	write(issuer.Key.Public)
	handler := func(settings string) string {
		return "dpop {\nissuer " + issuer.URL + " {\njwks_file " + keys + "\n}\nclock_skew 0s\n" + settings + "\n}\nreverse_proxy {{BACKEND}}\n"
	}
	g := serve(t, setup{site: "handle /a {\n" + handler("audience "+audience) + "}\nhandle /b {\n" + handler("audience other") +
		"}\nhandle /c {\n" + handler("audience "+audience+"\nrequire_scope x") + "}"})
	expires := time.Now().Add(10 * time.Second)
	token, err := issuer.Key.Sign(map[string]any{"typ": "at+jwt"}, map[string]any{
		"iss": issuer.URL, "aud": audience, "sub": "user-1", "exp": expires.Unix(), "cnf": map[string]any{"jkt": clientKey.Thumbprint},
	})
	if err != nil {
		t.Fatal(err)
	}
	send := func(path string) int {
		t.Helper()
		return call{url: g.url + path, header: http.Header{
			"Authorization": {"DPoP " + token}, "Dpop": {dpop(t, "GET", g.url+path, token, nil)},
		}}.send(t).StatusCode
	}
	// soon returns the status once it is the one wanted, or after three seconds.
	soon := func(path string, want int) int {
		t.Helper()
		for deadline := time.Now().Add(3 * time.Second); ; time.Sleep(50 * time.Millisecond) {
			if got := send(path); got == want || time.Now().After(deadline) {
				return got
			}
		}
	}
	for range 2 {
		for path, want := range map[string]int{"/a": 200, "/b": 401, "/c": 403} {
			if got := send(path); got != want {
				t.Fatalf("%s: answered %d, want %d", path, got, want)
			}
		}
	}
	write(stranger.Key.Public)
	if got := soon("/a", 401); got != 401 {
		t.Errorf("its key was withdrawn: answered %d", got)
	}
	write(issuer.Key.Public)
	if got := soon("/a", 200); got != 200 {
		t.Errorf("its key is back: answered %d", got)
	}
	time.Sleep(time.Until(expires))
	if got := soon("/a", 401); got != 401 {
		t.Errorf("expired: answered %d", got)
	}
	await(t, g.logs, func(e entry) bool { return e["reason"] == "token_expired" })
}
