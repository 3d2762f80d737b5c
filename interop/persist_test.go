//go:build interop

package interop

import (
	"bytes"
	"fmt"
	"io"
	"math/rand/v2"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/caddy-dpop/caddy-dpop/internal/devissuer"
	"github.com/caddy-dpop/caddy-dpop/internal/jose"
	"github.com/caddy-dpop/caddy-dpop/internal/proof"
)

// persistentSite is a gateway that keeps accepted proofs in a file, what it needs,
// and a client.
type persistentSite struct {
	t                 *testing.T
	data              string
	url, admin        string
	file, log, config string
	gateway           *gateway

	key   *jose.PrivateKey
	token string
}

func newPersistentSite(t *testing.T) *persistentSite {
	t.Helper()
	t.Setenv("GORACE", "atexit_sleep_ms=0") // it ends often
	algorithm := jose.AllAlgorithms().Find("ES256")
	issuer, err := devissuer.Start(algorithm, audience)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(issuer.Stop)
	backend := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { _, _ = io.WriteString(w, "hello") }))
	t.Cleanup(backend.Close)
	dir := t.TempDir()
	s := &persistentSite{
		t: t, data: t.TempDir(), url: "http://" + freeAddress(t), admin: freeAddress(t),
		file: filepath.Join(dir, "proofs"), log: filepath.Join(t.TempDir(), "caddy.log"),
	}
	s.config = fmt.Sprintf(`{
	admin %s
	persist_config off
	log {
		output file %s
		format json
	}
}
%s {
	bind 127.0.0.1
	dpop {
		issuer %s
		audience %s
		replay memory {
			persist %s
		}
	}
	reverse_proxy %s
}
`, s.admin, s.log, s.url, issuer.URL, audience, s.file, backend.Listener.Addr())
	if s.key, err = jose.Generate(algorithm); err != nil {
		t.Fatal(err)
	}
	claims := issuer.Claims("client")
	claims["cnf"] = map[string]any{"jkt": s.key.Thumbprint}
	if s.token, err = issuer.Sign(claims); err != nil {
		t.Fatal(err)
	}
	return s
}

// start starts the gateway, which has served by the time it returns.
func (s *persistentSite) start() {
	s.t.Helper()
	s.gateway = runGateway(s.t, s.data, s.url, s.config)
}

// startNew starts it where there is no file, so that it cannot judge proofs of the
// second of the start.
func (s *persistentSite) startNew() {
	s.t.Helper()
	s.start()
	time.Sleep(time.Until(time.Now().Truncate(time.Second).Add(time.Second)))
}

func (s *persistentSite) end(by os.Signal) {
	s.t.Helper()
	if err := s.gateway.process.Signal(by); err != nil {
		s.t.Fatal(err)
	}
	if err := s.gateway.wait(); err != nil && by != os.Kill {
		s.t.Errorf("the gateway ended: %v", err)
	}
}

// proofs signs proofs of now.
func (s *persistentSite) proofs(n int) []string {
	s.t.Helper()
	all := make([]string, n)
	for i := range all {
		var err error
		all[i], err = proof.Sign(s.key, proof.Claims{Method: "GET", URL: s.url + "/", Token: s.token, IssuedAt: time.Now()})
		if err != nil {
			s.t.Fatal(err)
		}
	}
	return all
}

// send sends a request with a proof, and returns the answer's status.
func (s *persistentSite) send(client *http.Client, proof string) (int, error) {
	request, err := http.NewRequest("GET", s.url+"/", nil)
	if err != nil {
		return 0, err
	}
	request.Header.Set("Authorization", "DPoP "+s.token)
	request.Header.Set("DPoP", proof)
	response, err := client.Do(request)
	if err != nil {
		return 0, err
	}
	_, _ = io.Copy(io.Discard, response.Body)
	return response.StatusCode, response.Body.Close()
}

// expect sends each of the proofs once, by several connections.
func (s *persistentSite) expect(what string, proofs []string, status int) {
	s.t.Helper()
	client := &http.Client{Transport: &http.Transport{MaxIdleConnsPerHost: 4}}
	defer client.CloseIdleConnections()
	var wait sync.WaitGroup
	for worker := range 4 {
		wait.Go(func() {
			for i := worker; i < len(proofs); i += 4 {
				if got, err := s.send(client, proofs[i]); err != nil || got != status {
					s.t.Errorf("%s was answered %d, want %d (%v)", what, got, status, err)
					return
				}
			}
		})
	}
	wait.Wait()
}

// load sends proofs from several connections until the gateway is gone, and
// returns those that were answered 200, and those that were never sent.
func (s *persistentSite) load(end func()) (used, unused []string) {
	s.t.Helper()
	const workers = 4
	proofs := s.proofs(2000)
	client := &http.Client{Transport: &http.Transport{MaxIdleConnsPerHost: workers}}
	defer client.CloseIdleConnections()
	var next, accepted atomic.Int64
	var mu sync.Mutex
	var wait sync.WaitGroup
	for range workers {
		wait.Go(func() {
			for {
				i := int(next.Add(1)) - 1
				if i >= len(proofs) {
					return
				}
				status, err := s.send(client, proofs[i])
				switch {
				case err != nil: // the gateway is gone: this one may be used or not
					return
				case status == http.StatusOK:
					mu.Lock()
					used = append(used, proofs[i])
					mu.Unlock()
					accepted.Add(1)
				case status != http.StatusServiceUnavailable && status != http.StatusBadGateway: // while it stops
					s.t.Errorf("a new proof was answered %d", status)
					return
				}
			}
		})
	}
	wanted := 20 + rand.Int64N(300)
	for deadline := time.Now().Add(20 * time.Second); accepted.Load() < wanted; time.Sleep(time.Millisecond) {
		if time.Now().After(deadline) {
			s.t.Fatalf("only %d proofs were accepted", accepted.Load())
		}
	}
	end()
	wait.Wait()
	if int(next.Load()) >= len(proofs) {
		s.t.Fatal("the gateway ended after the load")
	}
	return used, proofs[next.Load():]
}

// However the gateway ends while it is under load, once it is there again no proof
// that was answered 200 is accepted, and all others are at once: those made
// before, and new ones.
func TestPersistEndsUnderLoad(t *testing.T) {
	s := newPersistentSite(t)
	s.startNew()
	var before, left []string
	for round := range 30 {
		by := os.Signal(os.Kill)
		if round%3 == 2 {
			by = syscall.SIGTERM
		}
		used, unused := s.load(func() { s.end(by) })
		s.start()
		s.expect("an unused proof of before the start", unused[:20], http.StatusOK)
		s.expect("a new proof", s.proofs(5), http.StatusOK)
		s.expect(fmt.Sprintf("round %d (%v): a used proof", round, by), used, http.StatusUnauthorized)
		s.expect("a proof used before", before, http.StatusUnauthorized)
		s.expect("a proof used since", unused[:20], http.StatusUnauthorized)
		if round%3 == 2 {
			s.expect("an unused proof of long before", left, http.StatusOK)
		}
		before, left = append(used[:20:20], unused[:20]...), unused[20:25]
		if round%3 == 2 {
			left = nil
		}
	}
	s.end(syscall.SIGTERM)
}

// A second gateway with the same file does not start, and `caddy validate` beside
// the first one opens nothing.
func TestPersistBesideOthers(t *testing.T) {
	s := newPersistentSite(t)
	path := filepath.Join(t.TempDir(), "Caddyfile")
	write := func(config string) {
		t.Helper()
		if err := os.WriteFile(path, []byte(config), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	caddy := func(args ...string) (string, error) {
		cmd := exec.CommandContext(t.Context(), gatewayBinary, append(args, "--config", path)...)
		cmd.Env = append(os.Environ(), "XDG_DATA_HOME="+t.TempDir(), "XDG_CONFIG_HOME="+t.TempDir())
		text, err := cmd.CombinedOutput()
		return string(text), err
	}
	write(s.config)
	if text, err := caddy("validate"); err != nil {
		t.Fatalf("%v: %s", err, text)
	}
	if _, err := os.Stat(s.file); err == nil {
		t.Fatal("validating made the file")
	}
	s.startNew()
	used := s.proofs(5)
	s.expect("a new proof", used, http.StatusOK)

	before, content := look(t, s.file)
	if text, err := caddy("validate"); err != nil {
		t.Errorf("validating beside the gateway: %v: %s", err, text)
	}
	write(strings.NewReplacer(s.url, "http://"+freeAddress(t), s.admin, "off", "output file "+s.log, "output stderr").Replace(s.config))
	text, err := caddy("run")
	if err == nil || !strings.Contains(text, s.file+" is open in another process") {
		t.Errorf("a second gateway: %v: %s", err, text)
	}
	after, now := look(t, s.file)
	if !os.SameFile(before, after) || !before.ModTime().Equal(after.ModTime()) || !bytes.Equal(content, now) {
		t.Error("the file was changed")
	}
	if entries, err := os.ReadDir(filepath.Dir(s.file)); err != nil || len(entries) != 1 {
		t.Errorf("beside the file there is now %v, %v", entries, err)
	}
	s.expect("a used proof", used, http.StatusUnauthorized)
	s.expect("a new proof", s.proofs(5), http.StatusOK)
	s.end(syscall.SIGTERM)
}

func look(t *testing.T, path string) (os.FileInfo, []byte) {
	t.Helper()
	info, err := os.Stat(path)
	if err != nil {
		t.Fatal(err)
	}
	content, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return info, content
}

// A damaged file is put aside, and the log says so; nothing of before is judged.
func TestPersistDamaged(t *testing.T) {
	s := newPersistentSite(t)
	s.startNew()
	used, _ := s.load(func() { s.end(os.Kill) })
	_, content := look(t, s.file)
	content[5000] ^= 1
	if err := os.WriteFile(s.file, content, 0o600); err != nil {
		t.Fatal(err)
	}
	s.start()
	s.expect("a used proof", used, http.StatusServiceUnavailable)
	if _, kept := look(t, s.file+".damaged"); !bytes.Equal(kept, content) {
		t.Error("what was put aside is not what was there")
	}
	_, log := look(t, s.log)
	if !strings.Contains(string(log), `"level":"error"`) || !strings.Contains(string(log), s.file+" is damaged") {
		t.Errorf("the log does not say so: %s", log)
	}
	time.Sleep(time.Second)
	s.expect("a new proof", s.proofs(5), http.StatusOK)
	s.end(syscall.SIGTERM)
}

// After a reload to another file, that one has everything.
func TestPersistReloaded(t *testing.T) {
	s := newPersistentSite(t)
	s.startNew()
	used := s.proofs(20)
	s.expect("a new proof", used, http.StatusOK)
	for range 4 {
		old := s.file
		s.file = filepath.Join(filepath.Dir(old), fmt.Sprint("proofs", rand.Uint64()))
		s.config = strings.Replace(s.config, old, s.file, 1)
		more, _ := s.load(func() {
			s.reload()
			s.end(os.Kill)
		})
		used = append(used, more...)
		s.start()
		s.expect("a used proof", used, http.StatusUnauthorized)
		s.expect("a new proof", s.proofs(5), http.StatusOK)
	}
	s.end(syscall.SIGTERM)
}

// reload has the gateway load the configuration.
func (s *persistentSite) reload() {
	s.t.Helper()
	response, err := http.Post("http://"+s.admin+"/load", "text/caddyfile", strings.NewReader(s.config))
	if err != nil {
		s.t.Fatal(err)
	}
	defer response.Body.Close()
	if text, _ := io.ReadAll(response.Body); response.StatusCode != http.StatusOK {
		s.t.Fatalf("reloading: %s: %s", response.Status, text)
	}
}
