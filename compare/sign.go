//go:build linux

package main

import (
	"bufio"
	"context"
	"encoding/gob"
	"fmt"
	"io"
	mathrand "math/rand/v2"
	"os"
	"os/exec"
	"strings"
	"time"
)

// signed is a request, and the status that it must be answered with.
type signed struct {
	Request []byte
	Want    int
}

// mix is what traffic is made of, in parts of a hundred. Requests that are sent
// again are not among these: they come from those that were accepted.
var mix = []struct {
	parts int
	want  int
	make  func(address string, c, other *client) (token, dpop string, err error)
}{
	{78, 200, func(a string, c, _ *client) (string, string, error) { return asIs(c.token)(c.proof(a, c.token)) }},
	{6, 401, func(a string, c, _ *client) (string, string, error) {
		dpop, err := c.proof(a, c.token)
		return c.token, spoil(dpop), err
	}},
	{6, 401, func(_ string, c, _ *client) (string, string, error) { return c.token, "garbage", nil }},
	{3, 401, func(string, *client, *client) (string, string, error) { return "", "", nil }},
	{3, 401, func(a string, c, other *client) (string, string, error) {
		return asIs(c.token)(other.proof(a, c.token))
	}},
	{2, 401, func(a string, c, _ *client) (string, string, error) {
		return asIs(spoil(c.token))(c.proof(a, spoil(c.token)))
	}},
	{2, 401, func(a string, c, _ *client) (string, string, error) {
		return asIs(c.token)(c.proofOf(a, c.token, time.Now().Add(-time.Hour)))
	}},
}

func asIs(token string) func(string, error) (string, string, error) {
	return func(dpop string, err error) (string, string, error) { return token, dpop, err }
}

// Clients come and go, so that tokens are new and expire too.
const (
	signClients  = 200
	signRenewals = 5 * time.Second // for one of them to be replaced
)

// sign is a process of its own, of low priority, that signs requests ahead for the
// soak: it writes the issuer's key, reads the server's address, and then writes
// requests for as long as somebody takes them.
func sign(context.Context, []string) error {
	iss, err := newIssuer()
	if err != nil {
		return err
	}
	buffered := bufio.NewWriter(os.Stdout)
	out := gob.NewEncoder(buffered)
	if err := out.Encode(iss.jwk()); err != nil {
		return err
	}
	if err := buffered.Flush(); err != nil {
		return err
	}
	address, err := bufio.NewReader(os.Stdin).ReadString('\n')
	if err != nil {
		return err
	}
	address = strings.TrimSpace(address)
	clients := make([]*client, signClients)
	for i := range clients {
		// Each lives until it is replaced, and a little longer.
		if clients[i], err = iss.newClient(signClients*signRenewals + time.Minute); err != nil {
			return err
		}
	}
	began, renewed := time.Now(), 0
	for n := 0; ; n++ {
		// By the clock: while nobody takes requests, clients grow old too.
		for ; renewed < int(time.Since(began)/signRenewals); renewed++ {
			if clients[renewed%signClients], err = iss.newClient(signClients*signRenewals + time.Minute); err != nil {
				return err
			}
		}
		next, err := mixed(address, clients[n%signClients], clients[(n+1)%signClients])
		if err != nil {
			return err
		}
		if out.Encode(next) != nil {
			return nil // nobody takes them any more
		}
	}
}

func mixed(address string, c, other *client) (signed, error) {
	at := mathrand.IntN(100)
	for _, kind := range mix {
		if at -= kind.parts; at < 0 {
			token, dpop, err := kind.make(address, c, other)
			return signed{wire(address, token, dpop), kind.want}, err
		}
	}
	panic("the parts of the mix are less than a hundred")
}

// signer is the process that signs.
type signer struct {
	jwk     string
	cmd     *exec.Cmd
	address io.WriteCloser
	in      *gob.Decoder
}

func startSigner() (*signer, error) {
	self, err := os.Executable()
	if err != nil {
		return nil, err
	}
	s := &signer{cmd: exec.Command("nice", "-n", "10", self, "sign")}
	s.cmd.Env = append(os.Environ(), "GOMAXPROCS=1")
	s.cmd.Stderr = os.Stderr
	if s.address, err = s.cmd.StdinPipe(); err != nil {
		return nil, err
	}
	out, err := s.cmd.StdoutPipe()
	if err != nil {
		return nil, err
	}
	if err := s.cmd.Start(); err != nil {
		return nil, err
	}
	s.in = gob.NewDecoder(out)
	if err := s.in.Decode(&s.jwk); err != nil {
		s.stop()
		return nil, fmt.Errorf("the signing process: %w", err)
	}
	return s, nil
}

// begin has it sign for a server.
func (s *signer) begin(address string) error {
	_, err := fmt.Fprintln(s.address, address)
	return err
}

func (s *signer) next() (signed, error) {
	var one signed
	err := s.in.Decode(&one)
	return one, err
}

func (s *signer) stop() {
	_ = s.cmd.Process.Kill()
	_ = s.cmd.Wait()
}
