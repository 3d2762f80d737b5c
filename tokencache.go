package caddydpop

import (
	"context"

	"github.com/caddy-dpop/caddy-dpop/internal/authserver"
	"github.com/caddy-dpop/caddy-dpop/internal/bounded"
	"github.com/caddy-dpop/caddy-dpop/internal/token"
)

// tokenCache remembers the tokens that one key set has verified: their
// signature's result and their claims. Every other check runs for each request.
type tokenCache struct {
	verified *bounded.Cache[bounded.Key, verified]
}

// verified is a token, and the set that has verified it.
type verified struct {
	token *token.Token
	set   *authserver.KeySet
}

func newTokenCache() *tokenCache { return &tokenCache{bounded.NewCache[bounded.Key, verified]()} }

// find returns a token that the set which serves now has verified, by an
// algorithm that the issuer's settings accept, or nil.
func (c *tokenCache) find(ctx context.Context, iss *issuer, key bounded.Key) *token.Token {
	known, ok := c.verified.Get(key)
	if !ok || iss.algorithms.Find(known.token.Algorithm) == nil {
		return nil
	}
	// What a set that is gone has verified must be verified again. Without a set
	// there is nothing to go by.
	if set, err := iss.keys.Serving(ctx); err != nil || set != known.set {
		c.verified.Remove(key)
		return nil
	}
	return known.token
}

// add remembers a token of so many bytes.
func (c *tokenCache) add(key bounded.Key, good *token.Token, set *authserver.KeySet, size int) {
	// Its claims take about as much again, taken apart.
	c.verified.Put(key, verified{good, set}, 2*size)
}
