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
	limit       time.Duration // of a server's turn
	load        string        // of the machine, before
	notes       []string      // what could not be measured, or is to be known
}

// sample is one server in one round.
type sample struct {
	taken     time.Duration // by its processes, for all accepted requests
	elapsed   time.Duration
	latencies []time.Duration // of these
	bare      time.Duration   // of one verification, in the same round
}

// add adds another turn of the server.
func (s *sample) add(turn sample) {
	s.taken += turn.taken
	s.elapsed += turn.elapsed
	s.latencies = append(s.latencies, turn.latencies...)
}

func (s *sample) answered() int { return len(s.latencies) }

// cpu is the processor time of an accepted request.
func (s *sample) cpu() time.Duration { return s.taken / time.Duration(s.answered()) }

func speed(ctx context.Context, args []string) error {
	flags := flag.NewFlagSet("speed", flag.ExitOnError)
	caddy := flags.String("caddy", "", "Caddy with this plugin")
	out := flags.String("json", "", "a file for the results")
	profile := flags.String("profile", "", "a folder for a processor profile of each Caddy, of a round that does not count")
	entries := flags.String("apache-entries", fmt.Sprintf("%d,%d", apacheDefaultEntries, 10*apacheDefaultEntries), "sizes of mod_oauth2's cache, with commas; 0: without Apache")
	clients := flags.Int("clients", 20, "how many clients there are, each with a token")
	c := &comparison{load: loadAverage()}
	flags.IntVar(&c.rounds, "rounds", 15, "how often all servers are measured, Caddy's twice each time")
	flags.IntVar(&c.requests, "requests", 3000, "how many requests a server gets in a turn, at most")
	flags.IntVar(&c.connections, "connections", 4, "on so many connections at once")
	flags.DurationVar(&c.limit, "limit", 3*time.Second, "for how long a server gets requests in a turn, at most")
	_ = flags.Parse(args)
	for name, few := range map[string]bool{"rounds": c.rounds < 1, "requests": c.requests < 4, "connections": c.connections < 1, "clients": *clients < 1, "limit": c.limit <= 0} {
		if few {
			return fmt.Errorf("-%s: %s is too few", name, flags.Lookup(name).Value)
		}
	}

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
	rounds, err := c.measure(ctx)
	if err != nil {
		return err
	}
	if *profile != "" {
		if err := c.profile(*profile); err != nil {
			return err
		}
	}
	c.noteForgotten()
	r := c.report(rounds)
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

// What is measured while others have the processors is theirs too.
const (
	mostStolen  = 0.02 // of their time, in a round that counts
	leastRounds = 10   // that must count, or all do
)

// measure goes through the servers again and again, so that each has its share of what
// the machine does besides. A turn is long enough for what a server does now and then,
// such as to collect its garbage, and for how it does when it has no rest.
func (c *comparison) measure(ctx context.Context) ([]map[*server]*sample, error) {
	var all, quiet []map[*server]*sample
	for n := range c.rounds {
		began, stolen := time.Now(), stolenTime()
		round, err := c.round(ctx)
		if err != nil {
			return nil, fmt.Errorf("round %d: %w", n+1, err)
		}
		all = append(all, round)
		tolerated := mostStolen * float64(time.Since(began)) * float64(runtime.NumCPU())
		if float64(stolenTime()-stolen) <= tolerated {
			quiet = append(quiet, round)
		}
		if (n+1)%10 == 0 {
			fmt.Fprintf(os.Stderr, "round %d of %d, load average %s\n", n+1, c.rounds, loadAverage())
		}
	}
	switch {
	case len(quiet) == len(all):
	case len(quiet) < leastRounds:
		c.notes = append(c.notes, fmt.Sprintf("in all but %d of %d rounds more than %.0f %% of the processors' time was stolen by other virtual machines; all count", len(quiet), len(all), 100*mostStolen))
		return all, nil
	default:
		c.notes = append(c.notes, fmt.Sprintf("%d of %d rounds count: in the others more than %.0f %% of the processors' time was stolen by other virtual machines", len(quiet), len(all), 100*mostStolen))
	}
	return quiet, nil
}

// round gives each server its turn, and Caddy's a second one: they are near
// each other, and the machine's speed drifts.
func (c *comparison) round(ctx context.Context) (map[*server]*sample, error) {
	const turns = 2
	var verifications time.Duration
	measured := 0
	round := make(map[*server]*sample)
	for turn := range turns {
		for _, s := range c.servers {
			if s.apache && turn > 0 {
				continue
			}
			if err := ctx.Err(); err != nil {
				return nil, err
			}
			taken, err := c.bare.measure(runtime.NumCPU(), 300)
			if err != nil {
				return nil, err
			}
			verifications += taken
			measured++
			one, err := c.turn(s)
			if err != nil {
				return nil, fmt.Errorf("%s: %w", s.name, err)
			}
			if round[s] == nil {
				round[s] = new(sample)
			}
			round[s].add(one)
		}
	}
	for _, one := range round {
		one.bare = verifications / time.Duration(measured)
	}
	return round, nil
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

// turn sends a server its requests, which are signed before, and shows that the
// last proof can't be used again. A quarter as many come before, and do not count:
// what was in the processors' caches was another server's.
func (c *comparison) turn(s *server) (sample, error) {
	n := c.requests
	if s.batch > 0 {
		n = min(n, s.batch)
	}
	warm, err := c.sign(s.address, n/4)
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
	if sent.answered == 0 {
		return sample{}, fmt.Errorf("no request was answered within %s", c.limit)
	}
	time.Sleep(5 * time.Millisecond) // what follows the last answer is of the requests too
	after, err := processorTime(s.pid())
	if err != nil {
		return sample{}, err
	}
	want := 200
	if s.protects {
		want = 401
	}
	if status, err := ask(s.address, requests[sent.last]); err != nil || status != want {
		return sample{}, fmt.Errorf("a request that was sent before: status %d, %v", status, err)
	}
	return sample{taken: after - before, elapsed: sent.elapsed, latencies: sent.latencies}, nil
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
		requests, err := c.sign(s.address, 60_000)
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
