package demo

import (
	"context"
	"errors"
	"io"
	"net/http"
	"strings"
	"testing"
)

// site answers all requests alike, in place of one that is protected.
func site(t *testing.T, status int) func(Site) error {
	return func(s Site) error {
		server := &http.Server{Addr: "127.0.0.1:" + s.Port, Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			w.Header().Set("WWW-Authenticate", `DPoP error="invalid_token", error_description="no"`)
			w.WriteHeader(status)
		})}
		started := make(chan struct{})
		go func() {
			close(started)
			_ = server.ListenAndServe()
		}()
		<-started
		t.Cleanup(func() { _ = server.Close() })
		for {
			response, err := http.Get("http://" + server.Addr)
			if err == nil {
				return response.Body.Close()
			}
		}
	}
}

// A site that does not do what the story says makes the demo fail, whatever it
// does instead; the table tells what it did.
func TestDemoTellsWhatHappens(t *testing.T) {
	for status, want := range map[int][]string{
		http.StatusOK: {
			"the same request again, captured and replayed: answered 200, wanted 401",
			"the client's request: answered 200, wanted 200; reached the backend false, wanted true",
		},
		http.StatusUnauthorized: {"the client's request: answered 401, wanted 200"},
	} {
		var out strings.Builder
		err := (&Demo{Out: &out, Start: site(t, status), Keep: "caddy"}).Run(context.Background())
		if err == nil {
			t.Fatal("all went well")
		}
		for _, part := range want {
			if !strings.Contains(err.Error(), part) {
				t.Errorf("no %q in %v", part, err)
			}
		}
		if !strings.Contains(out.String(), "invalid_token\n    no\n") || strings.Contains(out.String(), "Serving") {
			t.Error(out.String())
		}
	}
}

func TestDemoWithoutSite(t *testing.T) {
	broken := errors.New("broken")
	err := (&Demo{Out: io.Discard, Start: func(Site) error { return broken }}).Run(context.Background())
	if !errors.Is(err, broken) {
		t.Error(err)
	}
}
