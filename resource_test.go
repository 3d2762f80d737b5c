package caddydpop

import (
	"encoding/json"
	"testing"

	"github.com/caddy-dpop/caddy-dpop/internal/jose"
)

// Each key that an issuer may have to know is published, once, whatever it is called.
func TestPublishedKeySet(t *testing.T) {
	one, other := generate(t, "ES256"), generate(t, "ES256")
	one.ID, other.ID = "gateway", "gateway"
	get := func(key *jose.PrivateKey) func() *jose.PrivateKey { return func() *jose.PrivateKey { return key } }
	p := &published{keys: []func() *jose.PrivateKey{get(one), get(other), get(one)}}
	var set struct{ Keys []struct{ Kid, X, D string } }
	if err := json.Unmarshal(p.keySet(), &set); err != nil {
		t.Fatal(err)
	}
	if len(set.Keys) != 2 || set.Keys[0].X == set.Keys[1].X {
		t.Errorf("published are %+v", set.Keys)
	}
	for _, key := range set.Keys {
		if key.Kid != "gateway" || key.X == "" || key.D != "" {
			t.Errorf("published is %+v", key)
		}
	}
}
