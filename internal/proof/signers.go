package proof

import (
	"strings"

	"github.com/caddy-dpop/caddy-dpop/internal/bounded"
	"github.com/caddy-dpop/caddy-dpop/internal/failure"
	"github.com/caddy-dpop/caddy-dpop/internal/jose"
)

// signedBy is what the JOSE header of a proof says: who signed it, and how.
type signedBy struct {
	algorithm *jose.Algorithm
	key       *jose.Key
}

// Signers remembers what the headers of proofs say. A client sends the same one
// again and again, and to decode its key, and prepare it, costs about a tenth of
// verifying a signature by it. It goes by the whole text of a header: whoever sends
// the same text has named the same key.
type Signers struct {
	known *bounded.Cache[string, signedBy]
}

// NewSigners returns one that remembers nothing yet.
func NewSigners() *Signers { return &Signers{bounded.NewCache[string, signedBy]()} }

// Remember remembers the header of a proof. It is for proofs that came with a good
// token: before, nothing of a client is worth keeping.
func (s *Signers) Remember(p *Proof) {
	if p.header == "" {
		return
	}
	const about = 1500 // bytes of a key, decoded and prepared
	header := strings.Clone(p.header)
	s.known.Put(header, p.signedBy, len(header)+about)
	p.header = ""
}

// find returns what a header says, if that is known.
func (s *Signers) find(header string) (signedBy, bool) {
	if s == nil || len(header) > MaxSize { // no proof that long is good
		return signedBy{}, false
	}
	return s.known.Get(header)
}

// allowedBy is check 5 for a header that is known.
func (s signedBy) allowedBy(allowed jose.Algorithms) *failure.Failure {
	if allowed.Find(s.algorithm.Name) == nil {
		return algorithmNotAllowed(allowed, s.algorithm.Name)
	}
	return nil
}
