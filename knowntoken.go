package caddydpop

import (
	"github.com/caddy-dpop/caddy-dpop/internal/bounded"
	"github.com/caddy-dpop/caddy-dpop/internal/failure"
	"github.com/caddy-dpop/caddy-dpop/internal/proof"
)

// knownTokens are the texts of tokens that were accepted of late, bound to a key, by
// all handlers. To hash a text takes longer than all that is checked of a proof but
// its signature. What is known says nothing of whether a token is good, and is of no
// use to who might read it, without the key. The texts of other tokens are not kept.
var knownTokens = newKnownTokens()

func newKnownTokens() *bounded.Cache[string, tokenForms] {
	return bounded.NewCache[string, tokenForms]()
}

// tokenForms are what a request needs to have of a token's text.
type tokenForms struct {
	hash   bounded.Key
	ath    string
	bearer string // asBearer, if the token is known
}

// asBearer is the Authorization of a Bearer token (RFC 6750 §2.1).
func asBearer(token string) string { return string(failure.Bearer) + " " + token }

// recall reports whether the token is known.
func (c *credentials) recall() bool {
	known, ok := knownTokens.Get(c.token)
	c.tokenForms = known
	return ok
}

// read hashes the token, unless it is known.
func (c *credentials) read() {
	if c.bearer == "" {
		c.hash = bounded.KeyOf(c.token)
		c.ath = proof.EncodedHash(c.hash)
	}
}

// remember has the token known, which was accepted and is bound to a key.
func (c *credentials) remember() {
	if c.bearer != "" {
		return
	}
	c.bearer = asBearer(c.token)
	const about = 250 // bytes of an entry beside its text
	// The text is kept once: what the entry goes by is part of what it holds.
	text := c.bearer[len(c.bearer)-len(c.token):]
	knownTokens.Put(text, c.tokenForms, len(c.bearer)+about)
}
