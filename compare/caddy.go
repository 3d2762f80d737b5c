//go:build linux

package main

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"time"
)

// server is one of those that are compared, or that which is watched.
type server struct {
	name    string
	address string
	admin   string // Caddy's
	log     string
	*process

	protects bool // it demands proofs
	apache   bool
	batch    int // at most so many requests a turn; 0: no limit
}

// site is what a Caddyfile is made for.
type site struct {
	dir     string
	dpop    string // settings of the directive
	instead string // a directive in its place, or "-" for none
	proxy   string // settings of reverse_proxy
}

// caddyfile is the smallest site there is: dpop with its default settings.
func (s *site) caddyfile(admin, address, backend string) string {
	directive := fmt.Sprintf(`dpop {
		issuer %s {
			jwks_file %s
		}
		audience %s
		%s
	}`, issuerName, filepath.Join(s.dir, "keys.json"), audience, s.dpop)
	if s.instead != "" {
		directive = strings.TrimPrefix(s.instead, "-")
	}
	return fmt.Sprintf(`{
	admin %s
	persist_config off
}

http://%s {
	%s
	reverse_proxy %s {
		%s
	}
}
`, admin, address, directive, backend, s.proxy)
}

// startCaddy starts a Caddy for a site, which trusts an issuer's key.
func startCaddy(binary, name string, s site, jwk, backend string) (*server, error) {
	admin, err := freeAddress()
	if err != nil {
		return nil, err
	}
	address, err := freeAddress()
	if err != nil {
		return nil, err
	}
	config := filepath.Join(s.dir, "Caddyfile")
	for file, text := range map[string]string{
		config:                            s.caddyfile(admin, address, backend),
		filepath.Join(s.dir, "keys.json"): fmt.Sprintf(`{"keys":[%s]}`, jwk),
	} {
		if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
			return nil, err
		}
	}
	p, err := start(s.dir, binary, "run", "--config", config)
	if err != nil {
		return nil, err
	}
	return &server{name: name, address: address, admin: admin, log: p.log, process: p, protects: s.instead == ""}, nil
}

const startTimeout = 20 * time.Second

// await returns when the server accepts a request. After its start Caddy refuses
// proofs for a second, because they may have been used before.
func (s *server) await(iss *issuer) error {
	c, err := iss.newClient(time.Minute)
	if err != nil {
		return err
	}
	err = waitFor(startTimeout, func() error {
		request, err := c.request(s.address)
		if err != nil {
			return err
		}
		return accepted(s.address, request)
	})
	if err != nil {
		err = fmt.Errorf("%s: %w", s.name, s.failure(err))
	}
	return err
}
