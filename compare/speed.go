//go:build linux

package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"time"
)

// comparison is one run: all servers, with what is the same for each.
type comparison struct {
	iss         *issuer
	bare        verification
	servers     []*server
	clients     []*client
	rounds      int
	requests    int
	connections int
	limit       time.Duration // of a server in a round
	load        string        // of the machine, before
	notes       []string      // what could not be measured, or is to be known
}

// sample is one server in one round.
type sample struct {
	cpu           time.Duration // of its processes, for each accepted request
	bare          time.Duration // of one verification, in the same round
	rate          float64
	p50, p90, p99 time.Duration
	answered      int
}

func speed(ctx context.Context, args []string) error {
	flags := flag.NewFlagSet("speed", flag.ExitOnError)
	caddy := flags.String("caddy", "", "Caddy with this plugin")
	out := flags.String("json", "", "a file for the results")
	profile := flags.String("profile", "", "a folder for a processor profile of each Caddy, of a round that does not count")
	entries := flags.String("apache-entries", strconv.Itoa(apacheDefaultEntries), "sizes of mod_oauth2's cache, with commas; 0: without Apache")
	clients := flags.Int("clients", 20, "how many clients there are, each with a token")
	c := &comparison{load: loadAverage()}
	flags.IntVar(&c.rounds, "rounds", 45, "how often each server is measured")
	flags.IntVar(&c.requests, "requests", 600, "how many requests a server gets in a round, at most")
	flags.IntVar(&c.connections, "connections", 4, "on so many connections at once")
	flags.DurationVar(&c.limit, "limit", 3*time.Second, "for how long a server gets requests in a round, at most")
	_ = flags.Parse(args)

	dir, err := os.MkdirTemp("", "compare")
	if err != nil {
		return err
	}
	defer os.RemoveAll(dir)
	if err := c.prepare(*clients); err != nil {
		return err
	}
	stop, err := c.startServers(dir, *caddy, *entries)
	defer stop()
	if err != nil {
		return err
	}
	if err := c.verify(); err != nil {
		return err
	}
	samples, err := c.measure(ctx)
	if err != nil {
		return err
	}
	if *profile != "" {
		if err := c.profile(*profile); err != nil {
			return err
		}
	}
	c.noteForgotten()
	r := c.report(samples)
	if *out != "" {
		if err := r.save(*out); err != nil {
			return err
		}
	}
	r.print(os.Stdout)
	return nil
}

func (c *comparison) prepare(clients int) error {
	recent, _, _ := strings.Cut(c.load, " ")
	if busy, err := strconv.ParseFloat(recent, 64); err == nil && busy > 1 {
		c.notes = append(c.notes, "the machine was busy before, load average "+c.load+": servers then lose more than a loop does")
	}
	var err error
	if c.iss, err = newIssuer(); err != nil {
		return err
	}
	if c.bare, err = newVerification(); err != nil {
		return err
	}
	for range clients {
		one, err := c.iss.newClient(time.Hour)
		if err != nil {
			return err
		}
		c.clients = append(c.clients, one)
	}
	return nil
}

// startServers starts all; stop ends those that were started, also after an error.
func (c *comparison) startServers(dir, caddy, entries string) (stop func(), err error) {
	backend, stopBackend, err := startBackend()
	stop = func() {
		for _, s := range c.servers {
			s.stop()
		}
		if stopBackend != nil {
			stopBackend()
		}
	}
	if err != nil {
		return stop, err
	}
	folder := func(name string) string {
		path := filepath.Join(dir, name)
		_ = os.Mkdir(path, 0o700) // what fails shows in what is written there
		return path
	}
	persisted := folder("persist")
	for _, each := range []struct {
		name string
		site site
	}{
		{"Caddy alone", site{dir: folder("alone"), instead: "-"}},
		{"Caddy, one verification", site{dir: folder("bare"), instead: "bare_verification"}},
		{"Caddy, dpop", site{dir: folder("dpop")}},
		{"Caddy, dpop, persist", site{dir: persisted, dpop: "replay memory {\n persist " + filepath.Join(persisted, "proofs") + "\n}"}},
	} {
		s, err := startCaddy(caddy, each.name, each.site, c.iss.jwk(), backend)
		if err != nil {
			return stop, err
		}
		c.servers = append(c.servers, s)
		if err := s.await(c.iss); err != nil {
			return stop, err
		}
	}
	if entries == "0" {
		return stop, nil
	}
	apache, err := findApache()
	if err != nil {
		c.notes = append(c.notes, "Apache was not measured: "+err.Error())
		return stop, nil
	}
	if err := os.Chmod(dir, 0o755); err != nil { // its processes are another user's
		return stop, err
	}
	for _, text := range strings.Split(entries, ",") {
		n, err := strconv.Atoi(text)
		if err != nil {
			return stop, err
		}
		s, err := startApache(apache, folder("apache"+text), n, c.iss, backend)
		if err != nil {
			c.notes = append(c.notes, "Apache was not measured: "+err.Error())
			continue
		}
		c.servers = append(c.servers, s)
	}
	return stop, nil
}

// verify stops the run if this plugin accepts what it must refuse, or Apache a
// proof that was used: then it is not what is to be measured.
func (c *comparison) verify() error {
	for _, s := range c.servers {
		accepted, err := s.verifies(c.iss)
		if err != nil {
			return err
		}
		switch {
		case len(accepted) == 0 || !s.protects:
		case s.apache && accepted[0] != "a proof that was used":
			c.notes = append(c.notes, s.name+" accepts "+strings.Join(accepted, ", and "))
		default:
			return fmt.Errorf("%s accepts %s", s.name, strings.Join(accepted, ", and "))
		}
	}
	return nil
}

// measure goes through the servers again and again, in short rounds, so that each
// has its share of what the machine does besides.
func (c *comparison) measure(ctx context.Context) (map[*server][]sample, error) {
	samples := make(map[*server][]sample)
	for round := range c.rounds {
		var verifications []time.Duration
		row := make(map[*server]sample)
		for _, s := range c.servers {
			if err := ctx.Err(); err != nil {
				return nil, err
			}
			taken, err := c.bare.measure(runtime.NumCPU(), 300)
			if err != nil {
				return nil, err
			}
			verifications = append(verifications, taken)
			if row[s], err = c.one(s); err != nil {
				return nil, fmt.Errorf("%s, round %d: %w", s.name, round+1, err)
			}
		}
		var sum time.Duration
		for _, v := range verifications {
			sum += v
		}
		for s, one := range row {
			one.bare = sum / time.Duration(len(verifications))
			samples[s] = append(samples[s], one)
		}
		if (round+1)%10 == 0 {
			fmt.Fprintf(os.Stderr, "round %d of %d, load average %s\n", round+1, c.rounds, loadAverage())
		}
	}
	return samples, nil
}

// noteForgotten says where a cache of Apache's was too small for the proofs of the
// run: then it is faster than it could be without forgetting any.
func (c *comparison) noteForgotten() {
	for _, s := range c.servers {
		if !s.apache {
			continue
		}
		log, _ := os.ReadFile(s.log)
		if n := strings.Count(string(log), "dropping LRU entry"); n > 0 {
			c.notes = append(c.notes, fmt.Sprintf("%s forgot %d proofs that were still valid", s.name, n))
		}
	}
}

// one sends a server its requests, which are signed before, and shows that the
// last proof can't be used again.
func (c *comparison) one(s *server) (sample, error) {
	n := c.requests
	if s.batch > 0 {
		n = min(n, s.batch)
	}
	warm, err := c.sign(s.address, 5*c.connections)
	if err != nil {
		return sample{}, err
	}
	if _, err := sendAll(s.address, warm, c.connections, c.limit/3); err != nil {
		return sample{}, err
	}
	// Apache takes no proof that is older than five seconds.
	requests, err := c.sign(s.address, n)
	if err != nil {
		return sample{}, err
	}
	before, err := processorTime(s.pid())
	if err != nil {
		return sample{}, err
	}
	sent, err := sendAll(s.address, requests, c.connections, c.limit)
	if err != nil {
		return sample{}, err
	}
	after, err := processorTime(s.pid())
	if err != nil {
		return sample{}, err
	}
	want := 200
	if s.protects {
		want = 401
	}
	if status, err := ask(s.address, requests[sent.answered-1]); err != nil || status != want {
		return sample{}, fmt.Errorf("a request that was sent before: status %d, %v", status, err)
	}
	return sample{
		cpu:      (after - before) / time.Duration(sent.answered),
		rate:     float64(sent.answered) / sent.elapsed.Seconds(),
		p50:      percentile(sent.latencies, 0.50),
		p90:      percentile(sent.latencies, 0.90),
		p99:      percentile(sent.latencies, 0.99),
		answered: sent.answered,
	}, nil
}

// sign makes requests with fresh proofs, of each client in turn.
func (c *comparison) sign(address string, n int) ([][]byte, error) {
	requests := make([][]byte, n)
	for i := range requests {
		var err error
		if requests[i], err = c.clients[i%len(c.clients)].request(address); err != nil {
			return nil, err
		}
	}
	return requests, nil
}

// profile takes a profile of each Caddy under load, after the rounds, because being
// watched takes time too.
func (c *comparison) profile(dir string) error {
	const seconds = 15
	for _, s := range c.servers {
		if s.apache {
			continue
		}
		requests, err := c.sign(s.address, 30_000)
		if err != nil {
			return err
		}
		file := filepath.Join(dir, strings.ReplaceAll(strings.ReplaceAll(s.name, ",", ""), " ", "-")+".pprof")
		taken := make(chan error, 1)
		go func() {
			taken <- download(fmt.Sprintf("http://%s/debug/pprof/profile?seconds=%d", s.admin, seconds), file)
		}()
		sent, err := sendAll(s.address, requests, c.connections, seconds*time.Second)
		if err := errors.Join(err, <-taken); err != nil {
			return err
		}
		fmt.Fprintf(os.Stderr, "%s: %d requests\n", file, sent.answered)
	}
	return nil
}

func download(url, file string) error {
	answer, err := http.Get(url)
	if err != nil {
		return err
	}
	defer answer.Body.Close()
	out, err := os.Create(file)
	if err != nil {
		return err
	}
	if _, err := io.Copy(out, answer.Body); err != nil {
		return err
	}
	return out.Close()
}
