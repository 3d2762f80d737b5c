//go:build interop

package redis

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"os"
	"strings"
	"testing"
	"time"

	redigo "github.com/gomodule/redigo/redis"

	"github.com/caddy-dpop/caddy-dpop/replay"
	"github.com/caddy-dpop/caddy-dpop/replay/redis/redistest"
)

// trusting returns the configuration of TLS with a root, and of mutual TLS with
// a certificate.
func trusting(t *testing.T, files redistest.Files, mutual bool) func() *tls.Config {
	t.Helper()
	text, err := os.ReadFile(files.Root)
	if err != nil {
		t.Fatal(err)
	}
	config := &tls.Config{RootCAs: x509.NewCertPool()}
	config.RootCAs.AppendCertsFromPEM(text)
	if mutual {
		pair, err := tls.LoadX509KeyPair(files.Certificate, files.Key)
		if err != nil {
			t.Fatal(err)
		}
		config.Certificates = []tls.Certificate{pair}
	}
	return config.Clone
}

func TestTLS(t *testing.T) {
	files := redistest.NewFiles(t, t.TempDir())
	server := redistest.StartTLS(t, files)
	s := newTestStore(t, Options{Addresses: []string{server.Address}, TLS: trusting(t, files, true)})
	use := newUse()
	record(t, s, use, nil)
	record(t, s, use, replay.ErrReplayed)
	server.Hang(t)
	recordFails(t, s, newUse(), "in time")
	server.Resume(t)
	recovers(t, s)

	for name, config := range map[string]func() *tls.Config{
		"another root":   trusting(t, redistest.NewFiles(t, t.TempDir()), true),
		"no certificate": trusting(t, files, false),
		"no TLS":         nil,
	} {
		s := newTestStore(t, Options{Addresses: []string{server.Address}, TLS: config})
		if err := timed(t, s, newUse()); !cannotTell(err) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func clusterOf(t *testing.T, masters, replicas int) []*redistest.Server {
	t.Helper()
	servers := make([]*redistest.Server, masters*(1+replicas))
	for i := range servers {
		servers[i] = redistest.Start(t, "cluster-enabled yes", "cluster-node-timeout 1000", "repl-diskless-sync-delay 0")
	}
	redistest.Cluster(t, replicas, servers...)
	return servers
}

// In a cluster each proof is recorded once, in the node that has its slot: also
// while the slot is on its way to another.
func TestCluster(t *testing.T) {
	servers := clusterOf(t, 3, 0)
	var all []string
	for _, server := range servers {
		all = append(all, server.Address)
	}
	var uses []replay.Use
	for _, addresses := range [][]string{all, all[:1]} {
		s := newTestStore(t, Options{Addresses: addresses, Timeout: 2 * time.Second})
		for range 200 {
			use := newUse()
			record(t, s, use, nil)
			uses = append(uses, use)
		}
		for _, use := range uses {
			record(t, s, use, replay.ErrReplayed)
		}
	}
	for _, server := range servers {
		if n := len(server.Keys(t)); n < 50 {
			t.Errorf("%s has %d records of %d", server.Address, n, len(uses))
		}
	}

	s := newTestStore(t, Options{Addresses: all, Timeout: 2 * time.Second})
	for range 100 {
		record(t, s, newUse(), nil)
	}
	used, fresh := newUse(), newUse()
	record(t, s, used, nil)
	for _, use := range []replay.Use{used, fresh} {
		slot := slotOf(s.nameOf(use.Key))
		from, to := owners(t, servers, slot)
		to.Do(t, "CLUSTER", "SETSLOT", slot, "IMPORTING", id(t, from))
		from.Do(t, "CLUSTER", "SETSLOT", slot, "MIGRATING", id(t, to))
	}
	record(t, s, used, replay.ErrReplayed)
	record(t, s, fresh, nil)
	record(t, s, fresh, replay.ErrReplayed)
}

func id(t *testing.T, server *redistest.Server) string {
	t.Helper()
	text, err := redigo.String(server.Do(t, "CLUSTER", "MYID"), nil)
	if err != nil {
		t.Fatal(err)
	}
	return text
}

// owners returns the server that has a slot, and another.
func owners(t *testing.T, servers []*redistest.Server, slot uint16) (owner, other *redistest.Server) {
	t.Helper()
	ranges, err := redigo.Values(servers[0].Do(t, "CLUSTER", "SLOTS"), nil)
	if err != nil {
		t.Fatal(err)
	}
	for _, r := range ranges {
		var first, last uint16
		var node []any
		if _, err := redigo.Scan(r.([]any), &first, &last, &node); err != nil {
			t.Fatal(err)
		}
		port := fmt.Sprint(node[1])
		for _, server := range servers {
			if server.Port != port {
				continue
			}
			if first <= slot && slot <= last {
				owner = server
			} else {
				other = server
			}
		}
	}
	return owner, other
}

// When a node of a cluster fails, its replica takes over by itself.
func TestClusterFailover(t *testing.T) {
	servers := clusterOf(t, 3, 1)
	s := newTestStore(t, Options{Addresses: []string{servers[0].Address, servers[1].Address, servers[2].Address}, Timeout: 2 * time.Second})
	var uses []replay.Use
	for range 100 {
		use := newUse()
		record(t, s, use, nil)
		uses = append(uses, use)
	}
	redistest.Await(t, "the records in the replicas", func() bool {
		n := 0
		for _, server := range servers[3:] {
			n += len(server.Keys(t))
		}
		return n == len(uses)
	})
	servers[0].Stop()
	for _, use := range uses {
		redistest.Await(t, "the record of a proof in the replica", func() bool {
			return errors.Is(s.Record(context.Background(), use), replay.ErrReplayed)
		})
	}
	for range 100 {
		redistest.Await(t, "a record", func() bool { return s.Record(context.Background(), newUse()) == nil })
	}
}

// The master that sentinels name is used, and the next one after a failover:
// whether it was asked for, or the master is gone or hangs.
func TestSentinelFailover(t *testing.T) {
	for name, fail := range map[string]func(t *testing.T, master, sentinel *redistest.Server){
		"asked for": func(t *testing.T, _, sentinel *redistest.Server) {
			redistest.Await(t, "the sentinel's consent", func() bool {
				_, err := sentinel.Try("SENTINEL", "FAILOVER", "mymaster")
				return err == nil
			})
		},
		"gone":  func(_ *testing.T, master, _ *redistest.Server) { master.Stop() },
		"hangs": func(t *testing.T, master, _ *redistest.Server) { master.Hang(t) },
	} {
		t.Run(name, func(t *testing.T) {
			master := redistest.Start(t, "repl-diskless-sync-delay 0")
			replica := redistest.Start(t, "replicaof 127.0.0.1 "+master.Port)
			sentinel := redistest.StartSentinel(t, "mymaster", master)
			redistest.Await(t, "the replica", func() bool {
				info, _ := redigo.String(replica.Try("INFO", "replication"))
				known, _ := redigo.Values(sentinel.Try("SENTINEL", "REPLICAS", "mymaster"))
				return strings.Contains(info, "master_link_status:up") && len(known) == 1
			})
			s := newTestStore(t, Options{Addresses: []string{sentinel.Address}, MasterName: "mymaster"})
			use := newUse()
			record(t, s, use, nil)
			redistest.Await(t, "the record in the replica", func() bool { return len(replica.Keys(t)) == 1 })
			fail(t, master, sentinel)
			redistest.Await(t, "the other master", func() bool {
				return timed(t, s, newUse()) == nil && len(replica.Keys(t)) > 1
			})
			record(t, s, use, replay.ErrReplayed)
			record(t, s, newUse(), nil)
		})
	}
}
