//go:build linux

package main

import (
	"encoding/json"
	"fmt"
	"io"
	"os"
	"slices"
	"text/tabwriter"
	"time"
)

// report is what a comparison has found: medians of its rounds, and latencies of all.
type report struct {
	// BareMicroseconds is one bare verification.
	BareMicroseconds float64
	Rows             []row
	Notes            []string
	load             string
	connections      int
}

type row struct {
	Server string
	Apache bool
	// Microseconds is the processor time of an accepted request.
	Microseconds float64
	// Over is what that is more than Caddy's alone, in bare verifications.
	Over float64
	// OverLeast is the same in verifications as they are in Caddy.
	OverLeast float64
	// TimesDpop is how many times that of Caddy with dpop it is.
	TimesDpop     float64
	Rate          float64
	P50, P90, P99 float64 // milliseconds
	Requests      int
}

func (c *comparison) report(rounds []map[*server]*sample) *report {
	r := &report{Notes: c.notes, load: c.load, connections: c.connections}
	alone, least, dpop := c.servers[0], c.servers[1], c.servers[2]
	// Ratios are of one round each, in which the machine is the same for all.
	of := func(value func(round map[*server]*sample) float64) float64 {
		var values []float64
		for _, round := range rounds {
			values = append(values, value(round))
		}
		return median(values)
	}
	r.BareMicroseconds = of(func(round map[*server]*sample) float64 { return microseconds(round[alone].bare) })
	over := func(round map[*server]*sample, s *server) float64 {
		return float64(round[s].cpu() - round[alone].cpu())
	}
	for _, s := range c.servers {
		var latencies []time.Duration // of all rounds: in one there are few of Apache's
		for _, round := range rounds {
			latencies = append(latencies, round[s].latencies...)
		}
		slices.Sort(latencies)
		latency := func(p float64) float64 { return microseconds(percentile(latencies, p)) / 1000 }
		line := row{
			Server:       s.name,
			Apache:       s.apache,
			Microseconds: of(func(round map[*server]*sample) float64 { return microseconds(round[s].cpu()) }),
			Over:         of(func(round map[*server]*sample) float64 { return over(round, s) / float64(round[s].bare) }),
			OverLeast:    of(func(round map[*server]*sample) float64 { return over(round, s) / over(round, least) }),
			TimesDpop:    of(func(round map[*server]*sample) float64 { return float64(round[s].cpu()) / float64(round[dpop].cpu()) }),
			Rate: of(func(round map[*server]*sample) float64 {
				return float64(round[s].answered()) / round[s].elapsed.Seconds()
			}),
			P50: latency(0.50), P90: latency(0.90), P99: latency(0.99),
			Requests: len(latencies),
		}
		r.Rows = append(r.Rows, line)
	}
	return r
}

func microseconds(d time.Duration) float64 { return float64(d) / float64(time.Microsecond) }

func (r *report) save(file string) error {
	text, err := json.MarshalIndent(r, "", "\t")
	if err != nil {
		return err
	}
	return os.WriteFile(file, text, 0o644)
}

// What the project wants of itself.
const (
	mostOver  = 1.25 // bare verifications over Caddy alone
	leastLess = 3.0  // times less than Apache
)

func (r *report) print(w io.Writer) {
	table := tabwriter.NewWriter(w, 0, 0, 2, ' ', tabwriter.AlignRight)
	fmt.Fprintln(table, "server\tCPU/request\tover Caddy alone\tof Caddy, dpop\trequests/s\tp50\tp90\tp99\taccepted\t")
	for _, one := range r.Rows {
		fmt.Fprintf(table, "%s\t%.0f µs\t%.2f verifications\t× %.2f\t%.0f\t%.2f ms\t%.2f ms\t%.2f ms\t%d\t\n",
			one.Server, one.Microseconds, one.Over, one.TimesDpop, one.Rate, one.P50, one.P90, one.P99, one.Requests)
	}
	_ = table.Flush()
	fmt.Fprintf(w, "\nOne bare P-256 verification, in the same rounds: %.1f µs in a loop. Medians of rounds; %d connections; load average before: %s.\n",
		r.BareMicroseconds, r.connections, r.load)
	dpop := r.Rows[2]
	fmt.Fprintf(w, "Caddy with dpop over Caddy alone: %.2f bare verifications (target: at most %.2f), %s; %.2f of those in Caddy.\n",
		dpop.Over, mostOver, verdict(dpop.Over <= mostOver), dpop.OverLeast)
	for _, one := range r.Rows {
		if one.Apache {
			fmt.Fprintf(w, "%s: %.2f times Caddy with dpop (target: at least %.0f), %s.\n",
				one.Server, one.TimesDpop, leastLess, verdict(one.TimesDpop >= leastLess))
		}
	}
	for _, note := range r.Notes {
		fmt.Fprintln(w, "Note:", note+".")
	}
}

func verdict(met bool) string {
	if met {
		return "met"
	}
	return "NOT met"
}
