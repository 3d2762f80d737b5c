package proof

import (
	"strings"
	"testing"

	"github.com/caddy-dpop/caddy-dpop/internal/bounded"
	"github.com/caddy-dpop/caddy-dpop/internal/failure"
	"github.com/caddy-dpop/caddy-dpop/internal/jose"
)

// remembering verifies a proof and remembers its header.
func remembering(t *testing.T, s *Signers, compact string) *Proof {
	t.Helper()
	p, f := s.Verify(compact, defaults(t))
	if f != nil {
		t.Fatal(f)
	}
	s.Remember(p)
	return p
}

// What is remembered of a header is its key, and no more is made of it.
func TestSignersRemember(t *testing.T) {
	for name, client := range signers() {
		if name == "ES384" {
			continue // not allowed by default
		}
		t.Run(name, func(t *testing.T) {
			s := NewSigners()
			first := remembering(t, s, client.sign(t, client.header(), claims))
			again := remembering(t, s, client.sign(t, client.header(), edit(t, claims, "id-1", "id-2")))
			if first.Thumbprint == "" || again.Thumbprint != first.Thumbprint || again.Algorithm != client.alg || again.ID != "id-2" {
				t.Errorf("%+v, then %+v", first, again)
			}
			if first.signedBy.key != again.signedBy.key || s.known.Len() != 1 {
				t.Errorf("the key was decoded again; %d are known", s.known.Len())
			}
			// another spelling of the same header is another text
			remembering(t, s, client.sign(t, strings.Replace(client.header(), ",", " ,", 1), claims))
			if s.known.Len() != 2 {
				t.Errorf("%d are known", s.known.Len())
			}
		})
	}
}

// Whatever is known already, each proof is judged as if nothing was.
func TestSignersChangeNoJudgement(t *testing.T) {
	s, client := NewSigners(), signers()["ES256"]
	other := signers()["EdDSA"]
	good := client.sign(t, client.header(), claims)
	remembering(t, s, good)
	remembering(t, s, other.sign(t, other.header(), claims))
	input, signature := good[:strings.LastIndexByte(good, '.')+1], good[strings.LastIndexByte(good, '.')+1:]
	header, rest, _ := strings.Cut(good, ".")
	for what, compact := range map[string]string{
		"good":                             good,
		"signed by another":                b64([]byte(client.header())) + "." + b64([]byte(claims)) + "." + b64(other.signature(t, "x")),
		"another's header before it":       b64([]byte(other.header())) + "." + rest,
		"without a signature":              input,
		"with no dot":                      header,
		"with three dots":                  good + ".",
		"with an extended header":          client.sign(t, edit(t, client.header(), `"typ"`, `"crit":["b64"],"b64":false,"typ"`), claims),
		"with claims that are none":        client.sign(t, client.header(), `[]`),
		"with a claim twice":               client.sign(t, client.header(), edit(t, claims, `"jti"`, `"jti":"a","jti"`)),
		"with another algorithm":           client.sign(t, edit(t, client.header(), "ES256", "ES384"), claims),
		"with a header in other bits":      header[:len(header)-1] + "~." + rest,
		"with a line break in the header":  header[:10] + "\n" + header[10:] + "." + rest,
		"with a signature in a line":       input + signature[:10] + "\n" + signature[10:],
		"with nothing for a header":        "." + rest,
		"with the start of a known header": header[:len(header)-1] + "." + rest,
		"with more than a known header":    header + "AA." + rest,
		"too large":                        header + "." + strings.Repeat("A", MaxSize) + "." + signature,
	} {
		p, f := Verify(compact, defaults(t))
		remembered, failed := s.Verify(compact, defaults(t))
		if (f == nil) != (failed == nil) || f != nil && (f.Reason != failed.Reason || f.Description != failed.Description) {
			t.Errorf("%s: %v, where nothing is known %v", what, failed, f)
		}
		if f == nil && (remembered.Thumbprint != p.Thumbprint || what != "good") {
			t.Errorf("%s: accepted, by %s", what, remembered.Thumbprint)
		}
	}
}

// One handler may not allow what another has accepted.
func TestSignersAllowNothing(t *testing.T) {
	s, client := NewSigners(), signers()["EdDSA"]
	good := client.sign(t, client.header(), claims)
	remembering(t, s, good)
	for _, allowed := range []jose.Algorithms{nil, {jose.AllAlgorithms().Find("ES256")}, {jose.AllAlgorithms().Find("Ed25519")}} {
		_, f := s.Verify(good, allowed)
		refused(t, f, failure.ProofAlgorithm)
	}
}

// Who only sends proofs, without a good token, leaves nothing behind.
func TestSignersAreNotToldOfStrangers(t *testing.T) {
	s, client := NewSigners(), signers()["ES256"]
	for range 3 {
		if _, f := s.Verify(client.sign(t, client.header(), claims), defaults(t)); f != nil {
			t.Fatal(f)
		}
	}
	if s.known.Len() != 0 {
		t.Errorf("%d are known", s.known.Len())
	}
}

// Their number is bounded.
func TestSignersAreBounded(t *testing.T) {
	s, client := NewSigners(), signers()["EdDSA"]
	p, f := s.Verify(client.sign(t, client.header(), claims), defaults(t))
	if f != nil {
		t.Fatal(f)
	}
	for n := range bounded.MaxEntries {
		p.header = strings.Repeat("x", 300) + string(rune(n))
		s.Remember(p)
	}
	if n := s.known.Len(); n < 1000 || n >= bounded.MaxEntries {
		t.Errorf("%d are known", n)
	}
}
