//go:build linux

package main

import (
	"errors"
	"fmt"
	"time"
)

// attempt is a request that a server which verifies must refuse.
type attempt struct {
	what    string
	request []byte
}

// attempts are what can be wrong with a client's request, after a good one.
func attempts(address string, c, other *client, used []byte) ([]attempt, error) {
	var failures []error
	made := func(dpop string, err error) string {
		failures = append(failures, err)
		return dpop
	}
	good := made(c.proof(address, c.token))
	all := []attempt{
		{"a proof that was used", used},
		{"no proof", wire(address, c.token, "")},
		{"no token", wire(address, "", made(c.proof(address, c.token)))},
		{"a proof whose signature is wrong", wire(address, c.token, spoil(good))},
		{"a token whose signature is wrong", wire(address, spoil(c.token), made(c.proof(address, spoil(c.token))))},
		{"a proof by another key", wire(address, c.token, made(other.proof(address, c.token)))},
		{"a proof for another URL", wire(address, c.token, made(c.proof("127.0.0.1:1", c.token)))},
		{"a proof whose ath is of another token", wire(address, c.token, made(c.proof(address, other.token)))},
		{"a proof of an hour ago", wire(address, c.token, made(c.proofOf(address, c.token, time.Now().Add(-time.Hour))))},
	}
	return all, errors.Join(failures...)
}

// spoil changes a signature, so that it is still one of the same length.
func spoil(jws string) string {
	at := len(jws) - 20
	changed := byte('A')
	if jws[at] == changed {
		changed = 'B'
	}
	return jws[:at] + string(changed) + jws[at+1:]
}

// verifies shows that a server does what is measured. It returns which of the
// wrong requests it accepts.
func (s *server) verifies(iss *issuer) (wrongly []string, err error) {
	c, err := iss.newClient(time.Minute)
	if err != nil {
		return nil, err
	}
	other, err := iss.newClient(time.Minute)
	if err != nil {
		return nil, err
	}
	good, err := c.request(s.address)
	if err != nil {
		return nil, err
	}
	if err := accepted(s.address, good); err != nil {
		return nil, fmt.Errorf("%s: a good request: %w", s.name, err)
	}
	wrong, err := attempts(s.address, c, other, good)
	if err != nil {
		return nil, err
	}
	for _, a := range wrong {
		switch status, err := ask(s.address, a.request); {
		case err != nil:
			return nil, fmt.Errorf("%s: %s: %w", s.name, a.what, err)
		case status == 200:
			wrongly = append(wrongly, a.what)
		case status != 401:
			return nil, fmt.Errorf("%s: %s: status %d", s.name, a.what, status)
		}
	}
	return wrongly, nil
}
