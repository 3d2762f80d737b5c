//go:build linux

package main

import (
	"errors"
	"fmt"
	"slices"
	"sync"
	"sync/atomic"
	"time"
)

// outcome is what became of a batch of requests.
type outcome struct {
	answered  int
	last      int // the number of the last one that was
	latencies []time.Duration
	elapsed   time.Duration
}

// sendAll sends requests on so many connections, each of which sends the next one
// when it has its answer, until there are none or the time is over. All must be
// answered with 200.
func sendAll(address string, requests [][]byte, connections int, limit time.Duration) (outcome, error) {
	conns := make([]*connection, connections)
	for i := range conns {
		c, err := dial(address)
		if err != nil {
			return outcome{}, err
		}
		defer c.close()
		conns[i] = c
	}
	var next atomic.Int64
	var all sync.WaitGroup
	latencies := make([][]time.Duration, connections)
	failures := make([]error, connections)
	last := make([]int, connections)
	start := time.Now()
	for i, c := range conns {
		all.Go(func() {
			for {
				n := int(next.Add(1)) - 1
				sent := time.Now()
				if n >= len(requests) || sent.Sub(start) > limit {
					return
				}
				got, err := c.send(requests[n])
				if err == nil && (got.status != 200 || got.last) {
					err = fmt.Errorf("status %d, last of the connection: %t", got.status, got.last)
				}
				if err != nil {
					failures[i] = fmt.Errorf("request %d: %w", n, err)
					return
				}
				latencies[i], last[i] = append(latencies[i], time.Since(sent)), n
			}
		})
	}
	all.Wait()
	result := outcome{elapsed: time.Since(start), last: slices.Max(last)}
	result.latencies = slices.Concat(latencies...)
	result.answered = len(result.latencies)
	return result, errors.Join(failures...)
}

// percentile is of sorted values.
func percentile(sorted []time.Duration, p float64) time.Duration {
	if len(sorted) == 0 {
		return 0
	}
	return sorted[min(int(p*float64(len(sorted))), len(sorted)-1)]
}

func median(values []float64) float64 {
	if len(values) == 0 {
		return 0
	}
	sorted := slices.Sorted(slices.Values(values))
	return (sorted[(len(sorted)-1)/2] + sorted[len(sorted)/2]) / 2
}
