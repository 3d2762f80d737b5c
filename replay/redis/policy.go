package redis

import (
	"context"
	"fmt"
	"strings"
	"time"

	redigo "github.com/gomodule/redigo/redis"
	"go.uber.org/zap"
)

// checkPolicy warns of a server that evicts: what it drops before its time can
// be replayed.
func (s *Store) checkPolicy(c *conn) {
	policy, err := policyOf(c, s.options.Timeout)
	if c.ended() {
		return // the next connection will show
	}
	var problem string
	switch {
	case err != nil:
		problem = fmt.Sprintf("%s: whether it evicts is not known: neither CONFIG GET nor INFO tells (%v)", c.address, err)
	case policy != "noeviction":
		problem = fmt.Sprintf("%s: maxmemory-policy is %s", c.address, policy)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.policies[c.address] == problem {
		return
	}
	s.policies[c.address] = problem
	logger := s.options.Logger().With(zap.String("address", c.address))
	switch {
	case problem == "":
		delete(s.policies, c.address)
	case err != nil:
		logger.Info("cannot tell whether Redis evicts: make sure that its maxmemory-policy is noeviction", zap.Error(err))
	default:
		logger.Warn("Redis evicts what it should keep, and a proof whose record is gone can be replayed: "+
			"set its maxmemory-policy to noeviction, or use a Redis of its own for the records", zap.String("maxmemory_policy", policy))
	}
}

// policyOf asks for maxmemory-policy, in the way that the user's rights allow.
func policyOf(c *conn, timeout time.Duration) (string, error) {
	ctx, cancel := context.WithTimeoutCause(context.Background(), timeout, errTimeout)
	defer cancel()
	setting, err := redigo.Strings(c.do(ctx, false, "CONFIG", "GET", "maxmemory-policy"))
	if err == nil && len(setting) == 2 {
		return setting[1], nil
	}
	info, err := redigo.String(c.do(ctx, false, "INFO", "memory"))
	if err != nil {
		return "", say(err)
	}
	for line := range strings.Lines(info) {
		if policy, ok := strings.CutPrefix(line, "maxmemory_policy:"); ok {
			return strings.TrimSpace(policy), nil
		}
	}
	return "", fmt.Errorf("INFO does not say")
}
