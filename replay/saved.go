package replay

import "slices"

// maxEras bounds the eras that count at once.
const maxEras = 64

// savedRetention is what a file has of a Retention, so that the process that
// reads it goes on where the one that wrote it stopped.
type savedRetention struct {
	IssuedAt, Nonce uint32 // as in Retention
	NoncesFrom      int64
	Eras            uint32
	Era             [maxEras]savedEra // the present first
}

// savedEra is an era as a file has it.
type savedEra struct {
	IssuedAt, Nonce uint32 // lifetimes
	Last            uint32 // zero: it goes on
}

// save returns what a file is to have before there are records of these eras.
func (r *Retention) save(eras []*era) savedRetention {
	s := savedRetention{IssuedAt: r.issuedAt.Load(), Nonce: r.nonce.Load(), NoncesFrom: r.noncesFrom.Load()}
	for i, e := range eras {
		if i == 0 || e.admitted() {
			s.Era[s.Eras] = savedEra{e.issuedAt, e.nonce, e.last}
			s.Eras++
		}
	}
	return s
}

// announce tells who asks what is retained.
func (r *Retention) announce() {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.changed != nil {
		r.changed(r.save(r.all()))
	}
}

// adopt goes on where another process stopped, at the highest horizon and the
// last end of its records.
func (r *Retention) adopt(s savedRetention, horizon, last uint32) {
	r.mu.Lock()
	defer r.mu.Unlock()
	now := r.clock()
	raise(&r.horizon, horizon)
	raise(&r.newest, horizon)
	raise(&r.issuedAt, s.IssuedAt)
	raise(&r.nonce, s.Nonce)
	r.noncesFrom.Store(max(r.noncesFrom.Load(), s.NoncesFrom))
	eras := slices.Clone(r.all())
	if len(eras) == 0 {
		eras = []*era{new(era)}
	}
	last = max(last, horizon)
	longest := uint32(0)
	for _, from := range s.Era[:s.Eras] {
		if from.Last == 0 && from.Nonce == 0 {
			r.ignoreNonces(now)
		}
		if from.Last == 0 || from.Last > last {
			from.Last = last
		}
		longest = max(longest, from.IssuedAt, from.Nonce)
		eras = adopted(eras, endedEra(from))
	}
	raise(&r.newest, min(last, second(now)+longest)) // not far ahead
	r.publish(eras[0], eras[1:])
}

// adopted returns eras with one more, which may go with one of the same lifetimes:
// restarts alone add none.
func adopted(eras []*era, e *era) []*era {
	for i, same := range eras {
		if same.issuedAt == e.issuedAt && same.nonce == e.nonce {
			raise(&same.newestIssuedAt, e.newestIssuedAt.Load())
			raise(&same.newestNonce, e.newestNonce.Load())
			if i > 0 {
				same.last = max(same.last, e.last)
			}
			return eras
		}
	}
	return append(eras, e)
}

// endedEra returns an era of which only the lifetimes and the last end of a record
// are known.
func endedEra(s savedEra) *era {
	e := &era{issuedAt: s.IssuedAt, nonce: s.Nonce, last: s.Last}
	e.newestIssuedAt.Store(s.Last - min(s.Last, s.IssuedAt))
	if s.Nonce > 0 {
		e.newestNonce.Store(s.Last - min(s.Last, s.Nonce))
	}
	return e
}

// with returns an era that lets go of what either of two would, and not later.
func (e *era) with(other *era) *era {
	return endedEra(savedEra{min(e.issuedAt, other.issuedAt), min(e.nonce, other.nonce), max(e.last, other.last)})
}
