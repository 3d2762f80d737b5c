//go:build linux

package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"math"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"time"
)

// A soak has so many windows, which are minutes when it lasts half an hour.
const windows = 30

// soaked is a soak: Caddy under load for a time, and what was seen of it.
type soaked struct {
	*server
	signer  *signer
	site    site
	backend string
	traffic *traffic
	bare    verification
	lasts   time.Duration
	idle    float64
	rate    float64
	minutes []minute
	reloads int
}

// minute is what was seen in one window.
type minute struct {
	sent, refused  int
	p50, p99       time.Duration
	gauges         // the mean of its samples
	reloaded       bool
	starved, again int64
	stolen         time.Duration // from the machine: see stolenTime
	bare           time.Duration // of one verification: how fast the machine was
}

func soak(ctx context.Context, args []string) error {
	flags := flag.NewFlagSet("soak", flag.ExitOnError)
	caddy := flags.String("caddy", "", "Caddy with this plugin")
	share := flags.Float64("share", 0.5, "how much of what the machine can do is asked of it")
	s := new(soaked)
	flags.DurationVar(&s.lasts, "for", 30*time.Minute, "how long it lasts, after some seconds that it takes to measure what the machine can do")
	_ = flags.Parse(args)
	if s.lasts < time.Minute {
		return errors.New("a soak of less than a minute shows nothing")
	}
	if *share <= 0 || *share > 1 {
		return fmt.Errorf("-share: %g is not between 0 and 1", *share)
	}
	dir, err := os.MkdirTemp("", "soak")
	if err != nil {
		return err
	}
	defer os.RemoveAll(dir)
	stop, err := s.prepare(dir, *caddy)
	defer stop()
	if err != nil {
		return err
	}
	most := math.Inf(1) // of a machine whose speed drifts, what it surely can do
	for range 5 {
		once, err := s.calibrate()
		if err != nil {
			return err
		}
		most = min(most, once)
	}
	s.rate = most * *share
	fmt.Printf("The machine can do %.0f mixed requests/s. For %s: %.0f/s, on %d connections. Idle: %.0f goroutines. Load average %s.\n\n",
		most, s.lasts, s.rate, soakConnections, s.idle, loadAverage())
	if err := s.run(ctx); err != nil {
		return err
	}
	return s.check()
}

// prepare starts what there is to start; stop ends it, also after an error.
func (s *soaked) prepare(dir, caddy string) (stop func(), err error) {
	var stops []func()
	stop = func() {
		for _, each := range slices.Backward(stops) {
			each()
		}
	}
	var stopBackend func()
	if s.backend, stopBackend, err = startBackend(); err != nil {
		return stop, err
	}
	stops = append(stops, stopBackend)
	if s.bare, err = newVerification(); err != nil {
		return stop, err
	}
	if s.signer, err = startSigner(); err != nil {
		return stop, err
	}
	stops = append(stops, s.signer.stop)
	// A short soak has windows too short for the default max_age: used proofs must be
	// as many in the second third as in the last. Connections to the backend end soon,
	// for goroutines to be counted.
	age := max(10*time.Second, min(time.Minute, s.lasts/windows))
	s.site = site{dir: dir, dpop: fmt.Sprintf("proof {\n max_age %s\n}", age), proxy: "transport http {\n keepalive 5s\n}"}
	if s.server, err = startCaddy(caddy, "Caddy, dpop", s.site, s.signer.jwk, s.backend); err != nil {
		return stop, err
	}
	stops = append(stops, s.stop)
	if err := s.signer.begin(s.address); err != nil {
		return stop, err
	}
	if err := waitFor(startTimeout, s.acceptsOne); err != nil {
		return stop, s.failure(err)
	}
	s.idle, err = s.idleGoroutines(0)
	return stop, err
}

// acceptsOne sends a request that must be accepted.
func (s *soaked) acceptsOne() error {
	for {
		if one, err := s.signer.next(); err != nil || one.Want == 200 {
			return errors.Join(err, accepted(s.address, one.Request))
		}
	}
}

// calibrate measures how many requests of the mix a second this machine can do, which
// has to sign them too.
func (s *soaked) calibrate() (float64, error) {
	const many = 12_000
	const piped = 200 // no more have waited in the pipe, and may be too old
	source := make(chan signed, piped)
	failed := make(chan error, 1)
	go func() {
		defer close(source)
		for n := range piped + many {
			one, err := s.signer.next()
			if err != nil {
				failed <- err
				return
			}
			if n >= piped {
				source <- one
			}
		}
	}()
	t := &traffic{address: s.address, source: source}
	elapsed := t.drain(8)
	select {
	case err := <-failed:
		return 0, err
	default:
	}
	if len(t.unexpected) > 0 {
		return 0, fmt.Errorf("to measure what the machine can do: %d answers of %d are not what they should be, such as %s", len(t.unexpected), many, t.unexpected[0])
	}
	return many / elapsed.Seconds(), nil
}

// run sends traffic, watches, and loads a configuration again and again.
func (s *soaked) run(interrupted context.Context) error {
	ctx, cancel := context.WithTimeout(interrupted, s.lasts)
	defer cancel()
	s.traffic = &traffic{address: s.address, source: make(chan signed, int(s.rate)+1)}
	go func() {
		for {
			one, err := s.signer.next()
			if err != nil {
				return
			}
			select {
			case s.traffic.source <- one:
			case <-ctx.Done():
				return
			}
		}
	}()
	done := make(chan struct{})
	go func() {
		s.traffic.run(ctx, s.rate)
		close(done)
	}()
	err := s.watch(interrupted)
	cancel()
	<-done
	return err
}

// watch makes a line for each window, of samples of which each has twenty. Every
// third begins with a reload.
func (s *soaked) watch(ctx context.Context) error {
	fmt.Printf("%6s %9s %9s %8s %8s %9s %9s %10s %9s %8s %s\n", "minute", "requests", "refused", "p50 ms", "p99 ms", "RSS MiB", "heap MiB", "goroutines", "proofs", "bare µs", "")
	const samples = 20
	ticks := time.NewTicker(s.lasts / (windows * samples))
	defer ticks.Stop()
	for n := range windows {
		m := minute{}
		starved, again, stolen := s.traffic.starved.Load(), s.traffic.retried.Load(), stolenTime()
		if n%3 == 2 {
			m.reloaded = true
			if err := s.reloadOnce(); err != nil {
				return err
			}
		}
		for range samples {
			select {
			case <-ticks.C:
			case <-ctx.Done():
				return ctx.Err()
			}
			one, err := s.gauges()
			if err != nil {
				return err
			}
			m.resident += one.resident / samples
			m.heap += one.heap / samples
			m.goroutines += one.goroutines / samples
			m.entries += one.entries / samples
			bare, err := s.bare.measure(1, 20)
			if err != nil {
				return err
			}
			m.bare += bare / samples
		}
		var latencies []time.Duration
		latencies, m.refused = s.traffic.takeMinute()
		slices.Sort(latencies)
		m.sent, m.p50, m.p99 = len(latencies), percentile(latencies, 0.50), percentile(latencies, 0.99)
		m.starved, m.again = s.traffic.starved.Load()-starved, s.traffic.retried.Load()-again
		m.stolen = stolenTime() - stolen
		s.minutes = append(s.minutes, m)
		m.print(n + 1)
	}
	return nil
}

func (m *minute) print(n int) {
	var notes []string
	if m.reloaded {
		notes = append(notes, "reload")
	}
	if m.again > 0 {
		notes = append(notes, fmt.Sprintf("%d on a new connection", m.again))
	}
	if m.stolen > 0 {
		notes = append(notes, fmt.Sprintf("%d ms stolen", m.stolen.Milliseconds()))
	}
	if m.starved > 0 {
		notes = append(notes, fmt.Sprintf("%d signed late", m.starved))
	}
	const mebi = 1 << 20
	fmt.Printf("%6d %9d %9d %8.2f %8.2f %9.1f %9.1f %10.0f %9.0f %8.0f %s\n", n, m.sent, m.refused,
		m.p50.Seconds()*1000, m.p99.Seconds()*1000, m.resident/mebi, m.heap/mebi, m.goroutines, m.entries, microseconds(m.bare), strings.Join(notes, ", "))
}

// reloadOnce loads the configuration with another realm: one that is the same
// would not be loaded.
func (s *soaked) reloadOnce() error {
	s.reloads++
	text, err := os.ReadFile(filepath.Join(s.site.dir, "Caddyfile"))
	if err != nil {
		return err
	}
	realm := fmt.Sprintf("dpop {\n realm reload%d\n", s.reloads)
	return s.reload(strings.Replace(string(text), "dpop {\n", realm, 1))
}

// check says what holds, and returns an error if anything does not.
func (s *soaked) check() error {
	goroutines, err := s.idleGoroutines(s.idle)
	if err != nil {
		return err
	}
	var failed []string
	say := func(ok bool, format string, args ...any) {
		text := fmt.Sprintf(format, args...)
		if !ok {
			failed = append(failed, text)
			text += ": FAILED"
		}
		fmt.Println(text)
	}
	fmt.Println()
	third := len(s.minutes) / 3
	second, last := s.minutes[third:2*third], s.minutes[2*third:]
	memory := func(name string, of func(minute) float64) {
		change := mean(last, of)/mean(second, of) - 1
		say(math.Abs(change) <= 0.05, "%s in the last third is %+.1f %% from the second third's (within 5 %%)", name, 100*change)
	}
	memory("RSS", func(m minute) float64 { return m.resident })
	memory("heap in use", func(m minute) float64 { return m.heap })
	// How long an answer takes while others have the processors says nothing of Caddy.
	// They may have them for less than the hundredth part of the time that p99 is about.
	const tolerable = 0.005
	tolerated := time.Duration(tolerable * float64(s.lasts) / windows * float64(runtime.NumCPU()))
	var own []float64 // of minutes that were this machine's own
	var worst minute
	sent := 0
	var late int64
	for _, m := range s.minutes {
		if m.stolen <= tolerated {
			own = append(own, m.p99.Seconds()*1000)
			if m.p99 > worst.p99 {
				worst = m
			}
		}
		sent += m.sent
		late += m.starved
	}
	say(3*len(own) >= 2*len(s.minutes), "in %d of %d minutes at most %.1f %% of the processors' time was stolen (at least two thirds)", len(own), len(s.minutes), 100*tolerable)
	most, middle := worst.p99.Seconds()*1000, median(own)
	say(most <= 2*middle, "p99 is at most %.2f ms in those, with %d ms stolen; the median one's is %.2f ms (within twice that)", most, worst.stolen.Milliseconds(), middle)
	say(goroutines <= s.idle, "%.0f goroutines in the end, %.0f when idle before", goroutines, s.idle)
	say(len(s.traffic.unexpected) == 0, "%d of %d answers were not what they should be", len(s.traffic.unexpected), sent)
	for _, each := range s.traffic.unexpected[:min(5, len(s.traffic.unexpected))] {
		fmt.Println("  such as", each)
	}
	wanted := s.rate * s.lasts.Seconds()
	say(float64(sent) >= 0.99*wanted, "%d requests of %.0f were sent in time, %d of them signed late; %d reloads", sent, wanted, late, s.reloads)
	if len(failed) > 0 {
		return fmt.Errorf("%d checks failed", len(failed))
	}
	return nil
}

func mean(minutes []minute, of func(minute) float64) float64 {
	var sum float64
	for _, m := range minutes {
		sum += of(m)
	}
	return sum / float64(len(minutes))
}
