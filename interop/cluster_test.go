//go:build interop

package interop

import (
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/caddy-dpop/caddy-dpop/internal/devissuer"
	"github.com/caddy-dpop/caddy-dpop/internal/jose"
	"github.com/caddy-dpop/caddy-dpop/internal/proof"
	"github.com/caddy-dpop/caddy-dpop/replay/redis/redistest"
)

// cluster is two gateways of one resource, and a client of it.
type cluster struct {
	nodes  [2]string
	key    *jose.PrivateKey
	token  string
	client *http.Client
}

const resourceURL = "https://api.example.com/orders"

// startCluster starts two gateways, each with a storage of its own, in processes
// of their own. Settings are of the handler.
func startCluster(t *testing.T, settings string) *cluster {
	t.Helper()
	algorithm := jose.AllAlgorithms().Find("ES256")
	issuer, err := devissuer.Start(algorithm, audience)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(issuer.Stop)
	backend := httptest.NewServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) {}))
	t.Cleanup(backend.Close)
	c := &cluster{client: &http.Client{Timeout: 10 * time.Second, Transport: &http.Transport{MaxIdleConnsPerHost: 100}}}
	if c.key, err = jose.Generate(algorithm); err != nil {
		t.Fatal(err)
	}
	claims := issuer.Claims("client")
	claims["cnf"] = map[string]any{"jkt": c.key.Thumbprint}
	if c.token, err = issuer.Sign(claims); err != nil {
		t.Fatal(err)
	}
	for i := range c.nodes {
		c.nodes[i] = "http://" + freeAddress(t)
		runGateway(t, t.TempDir(), c.nodes[i], fmt.Sprintf(`{
	admin off
	persist_config off
	log {
		level WARN
	}
}

%s {
	bind 127.0.0.1
	dpop {
		issuer %s
		audience %s
		public_url https://api.example.com
		%s
	}
	reverse_proxy %s
}
`, c.nodes[i], issuer.URL, audience, settings, backend.Listener.Addr()))
	}
	time.Sleep(time.Until(time.Now().Truncate(time.Second).Add(time.Second)))
	return c
}

// prove makes a proof for the resource.
func (c *cluster) prove(t *testing.T, nonce string) string {
	t.Helper()
	text, err := proof.Sign(c.key, proof.Claims{Method: "GET", URL: resourceURL, Token: c.token, Nonce: nonce, IssuedAt: time.Now()})
	if err != nil {
		t.Fatal(err)
	}
	return text
}

// send sends a proof to a node, and returns the status and the nonce.
func (c *cluster) send(node int, proof string) (int, string, error) {
	request, err := http.NewRequest("GET", c.nodes[node]+"/orders", nil)
	if err != nil {
		return 0, "", err
	}
	request.Header.Set("Authorization", "DPoP "+c.token)
	request.Header.Set("DPoP", proof)
	response, err := c.client.Do(request)
	if err != nil {
		return 0, "", err
	}
	defer response.Body.Close()
	_, err = io.Copy(io.Discard, response.Body)
	return response.StatusCode, response.Header.Get("DPoP-Nonce"), err
}

// storm sends a hundred copies of a proof at once, half to each node, and returns
// how many were accepted.
func (c *cluster) storm(t *testing.T, proof string) int32 {
	t.Helper()
	var accepted atomic.Int32
	var wait sync.WaitGroup
	ready := make(chan struct{})
	for n := range 100 {
		wait.Go(func() {
			<-ready
			switch status, _, err := c.send(n%2, proof); {
			case err != nil:
				t.Error(err)
			case status == http.StatusOK:
				accepted.Add(1)
			case status != http.StatusUnauthorized:
				t.Errorf("a copy was answered %d", status)
			}
		})
	}
	close(ready)
	wait.Wait()
	return accepted.Load()
}

// Of a hundred copies of a proof over two gateways that share a Redis exactly one
// is accepted; with a memory each, as they must be told apart from, two are.
func TestClusterAcceptsOnce(t *testing.T) {
	server := redistest.Start(t)
	for _, row := range []struct {
		name, settings string
		want           int32
	}{
		{"a Redis", "replay redis {\n\t\t\taddress " + server.Address + "\n\t\t\ttimeout 5s\n\t\t}", 1},
		{"a memory each", "", 2},
	} {
		t.Run(row.name, func(t *testing.T) {
			c := startCluster(t, row.settings)
			for round := range 50 {
				if got := c.storm(t, c.prove(t, "")); got != row.want {
					t.Fatalf("round %d: %d of 100 copies were accepted, want %d", round, got, row.want)
				}
			}
			used := c.prove(t, "")
			for node, want := range []int{http.StatusOK, map[int32]int{1: http.StatusUnauthorized, 2: http.StatusOK}[row.want]} {
				if status, _, err := c.send(node, used); err != nil || status != want {
					t.Errorf("node %d answered %d, %v, want %d", node, status, err, want)
				}
			}
		})
	}
}

// Gateways with a secret in common accept each other's nonces; those with a key
// each do not, and then need no store in common.
func TestClusterNonces(t *testing.T) {
	for _, row := range []struct {
		name, settings string
		other          int // what the node that did not issue the nonce answers
	}{
		{"a secret in common", "nonce required {\n\t\t\tsecret \"a secret of the tests, of enough characters\"\n\t\t}", http.StatusOK},
		{"a key for each process", "nonce required {\n\t\t\tper_process\n\t\t}", http.StatusUnauthorized},
	} {
		t.Run(row.name, func(t *testing.T) {
			c := startCluster(t, row.settings)
			_, nonce, err := c.send(0, c.prove(t, ""))
			if err != nil || nonce == "" {
				t.Fatalf("got no nonce: %v", err)
			}
			if status, _, err := c.send(0, c.prove(t, nonce)); err != nil || status != http.StatusOK {
				t.Errorf("the node that issued the nonce answered %d, %v", status, err)
			}
			proof := c.prove(t, nonce)
			if status, _, err := c.send(1, proof); err != nil || status != row.other {
				t.Errorf("the other node answered %d, %v, want %d", status, err, row.other)
			}
			if row.other != http.StatusOK {
				for range 20 {
					if got := c.storm(t, c.prove(t, nonce)); got != 1 {
						t.Fatalf("%d of 100 copies were accepted over both, want 1", got)
					}
				}
			}
		})
	}
}
