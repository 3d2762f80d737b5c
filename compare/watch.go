//go:build linux

package main

import (
	"bufio"
	"fmt"
	"net/http"
	"strconv"
	"strings"
	"time"
)

// gauges are what is watched of a Caddy.
type gauges struct {
	resident, heap, goroutines, entries float64
}

// gauges reads Caddy's metrics, and what the system says of its memory.
func (s *server) gauges() (gauges, error) {
	answer, err := http.Get("http://" + s.admin + "/metrics")
	if err != nil {
		return gauges{}, err
	}
	defer answer.Body.Close()
	values := make(map[string]float64)
	for lines := bufio.NewScanner(answer.Body); lines.Scan(); {
		name, value, _ := strings.Cut(lines.Text(), " ")
		values[name], _ = strconv.ParseFloat(value, 64)
	}
	g := gauges{heap: values["go_memstats_heap_inuse_bytes"], goroutines: values["go_goroutines"], entries: values["caddy_dpop_replay_entries"]}
	if g.heap == 0 || g.goroutines == 0 {
		return g, fmt.Errorf("no memory and goroutines among the metrics of Caddy")
	}
	g.resident, err = residentBytes(s.pid())
	return g, err
}

// reload loads a configuration through the admin API.
func (s *server) reload(caddyfile string) error {
	request, err := http.NewRequest("POST", "http://"+s.admin+"/load", strings.NewReader(caddyfile))
	if err != nil {
		return err
	}
	request.Header.Set("Content-Type", "text/caddyfile")
	answer, err := http.DefaultClient.Do(request)
	if err != nil {
		return err
	}
	defer answer.Body.Close()
	if answer.StatusCode != 200 {
		return fmt.Errorf("reload: %s", answer.Status)
	}
	return nil
}

// idleGoroutines waits until there have been as many for a while, or at most as
// many as is wanted.
func (s *server) idleGoroutines(wanted float64) (float64, error) {
	var last float64
	same := 0
	for range 90 {
		now, err := s.gauges()
		if err != nil {
			return 0, err
		}
		if now.goroutines <= wanted {
			return now.goroutines, nil
		}
		if now.goroutines != last {
			same = 0
		}
		last = now.goroutines
		if same++; wanted == 0 && same > 10 {
			break
		}
		time.Sleep(time.Second)
	}
	return last, nil
}
