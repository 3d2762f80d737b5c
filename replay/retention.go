package replay

import (
	"math"
	"sync"
	"sync/atomic"
	"time"
)

// Lifetimes are for how long a handler may accept a proof. A proof that has a
// good nonce may be accepted for as long as either of them says.
type Lifetimes struct {
	IssuedAt time.Duration // after its iat
	Nonce    time.Duration // after its nonce was issued; zero if nonces do not count
}

// Retention is what a store that lets entries go must know of time: the
// lifetimes that handlers retain, until when a record must be kept by them, and
// which proofs can still be judged, because no record of theirs may be gone. The
// zero value is ready for use; stores embed it for their Retain.
//
// What was let go of stays refused: also when a reload lengthens the lifetimes,
// or the clock is set back.
type Retention struct {
	mu      sync.Mutex
	holders map[*Lifetimes]struct{}

	// What was retained, the present first. Entries of an earlier era, which
	// retained something for a shorter time, are let go of by what it said.
	eras atomic.Pointer[[]*era]

	// Times below which records may be gone, in seconds. None of them goes back.
	horizon  atomic.Uint32 // of the end of a record
	issuedAt atomic.Uint32 // of the iat of a proof
	nonce    atomic.Uint32 // of its nonce

	newest atomic.Uint32 // the highest end of a record, but not far ahead

	// Nonces up to this millisecond may be in proofs that were accepted while nonces
	// did not count, and of which the records did not heed them.
	noncesFrom atomic.Int64

	now     func() time.Time     // nil: time.Now
	changed func(savedRetention) // called before an era begins; nil: nobody asks
}

// era is a time in which the same was retained.
type era struct {
	issuedAt, nonce             uint32 // lifetimes, in seconds
	newestIssuedAt, newestNonce atomic.Uint32
	last                        uint32 // its records' last end, once another has begun
}

// Retain is the method of Store.
func (r *Retention) Retain(lifetimes Lifetimes) (release func()) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.holders == nil {
		r.holders = make(map[*Lifetimes]struct{})
	}
	holder := &lifetimes
	r.holders[holder] = struct{}{}
	r.measure()
	return func() {
		r.mu.Lock()
		defer r.mu.Unlock()
		delete(r.holders, holder)
		r.measure()
	}
}

// measure begins an era if something else is retained now. When the last
// holder goes, what was retained stays as it is: nobody asked for less.
func (r *Retention) measure() {
	if len(r.holders) == 0 {
		return
	}
	next := new(era)
	for holder := range r.holders {
		next.issuedAt = max(next.issuedAt, secondsOf(holder.IssuedAt))
		next.nonce = max(next.nonce, secondsOf(holder.Nonce))
	}
	eras := r.all()
	if len(eras) == 0 {
		r.eras.Store(&[]*era{next})
		return
	}
	last := eras[0]
	if last.issuedAt == next.issuedAt && last.nonce == next.nonce {
		return
	}
	now := r.clock()
	if last.nonce == 0 && last.admitted() {
		r.ignoreNonces(now)
	}
	// No iat is further ahead, and no request that began in it takes longer.
	const ahead = uint32(FarAhead / time.Second)
	last.last = max(r.horizon.Load(), second(now)) + max(ahead, last.issuedAt) + max(last.issuedAt, last.nonce)
	r.publish(next, eras)
}

// publish begins an era. Those before that are over are forgotten, but not what
// they let go of; and of too many the oldest are taken for one.
func (r *Retention) publish(next *era, before []*era) {
	horizon := r.horizon.Load()
	kept := []*era{next}
	for _, e := range before {
		if horizon > e.last {
			r.letGo(e, horizon)
		} else {
			kept = append(kept, e)
		}
	}
	for len(kept) > maxEras {
		last := len(kept) - 1
		kept = append(kept[:last-1], kept[last-1].with(kept[last]))
	}
	if r.changed != nil {
		r.changed(r.save(kept))
	}
	r.eras.Store(&kept)
}

// admitted reports whether anything was admitted in an era. At the start of a
// server, one begins with each handler that is set up.
func (e *era) admitted() bool { return e.newestIssuedAt.Load() > 0 || e.newestNonce.Load() > 0 }

// letGo raises what the store no longer knows to what an era has let go of.
func (r *Retention) letGo(e *era, horizon uint32) {
	raise(&r.issuedAt, floor(horizon, e.issuedAt, &e.newestIssuedAt))
	raise(&r.nonce, floor(horizon, e.nonce, &e.newestNonce))
}

// ignoreNonces has all nonces up to now not count; or, if the clock was set back,
// up to the horizon, which is where it was when the last proof was accepted.
func (r *Retention) ignoreNonces(now time.Time) {
	from := now.UnixMilli()
	if horizon := r.horizon.Load(); horizon > second(now) {
		from = int64(horizon)*1000 + 999
	}
	r.noncesFrom.Store(max(r.noncesFrom.Load(), from))
}

func (r *Retention) clock() time.Time {
	if r.now != nil {
		return r.now()
	}
	return time.Now()
}

func (r *Retention) all() []*era {
	if eras := r.eras.Load(); eras != nil {
		return *eras
	}
	return nil
}

// Admission is what Admit says of a proof that can be judged.
type Admission struct {
	// Until is the last second, since 1970, in which a handler could accept the
	// proof: as long the record of it must be kept.
	Until uint32
	// Horizon is the second below which a record's Until means that it is gone.
	Horizon uint32
}

// Admit says until when the record of a use must be kept, or ErrForgotten if one
// of the same proof may be gone.
func (r *Retention) Admit(use Use, now time.Time) (Admission, error) {
	eras := r.all()
	if len(eras) == 0 {
		eras = []*era{new(era)}
	}
	current := eras[0]
	var issuedAt, nonce uint32 // zero: there is none
	until := uint32(1)
	// The newest of an era is raised before anything is recorded by its lifetimes,
	// so that whoever finds the record gone finds the floor above it.
	if !use.IssuedAt.IsZero() {
		issuedAt = second(use.IssuedAt)
		raise(&current.newestIssuedAt, issuedAt)
		until = issuedAt + current.issuedAt
	}
	switch {
	case !use.Nonce.IsZero():
		nonce = second(use.Nonce)
	case use.OtherNonce && current.nonce > 0: // while none counts, see noncesFrom
		nonce = max(second(now), r.horizon.Load()) // at the latest, but for clocks' differences
	}
	if nonce > 0 {
		raise(&current.newestNonce, nonce)
		until = max(until, nonce+current.nonce)
	}
	horizon := r.advance(now)
	for _, e := range eras {
		r.letGo(e, horizon)
	}
	switch {
	case use.By&ByIssuedAt != 0 && issuedAt >= r.issuedAt.Load():
	case use.By&ByNonce != 0 && nonce >= r.nonce.Load() && use.Nonce.UnixMilli() > r.noncesFrom.Load():
	default:
		return Admission{}, ErrForgotten
	}
	raise(&r.newest, min(until, second(now)+max(current.issuedAt, current.nonce)))
	r.advance(now) // as far as this proof lets it
	return Admission{until, horizon}, nil
}

// floor returns the time below which a proof of an era may have been let go of.
func floor(horizon, lifetime uint32, newest *atomic.Uint32) uint32 {
	return min(horizon-min(horizon, lifetime), newest.Load()+1)
}

// advance moves the horizon to what the clock says, but not past the newest
// record: beyond it nothing was let go of, and a clock that runs ahead for a
// moment must not shut out what comes after.
func (r *Retention) advance(now time.Time) uint32 {
	return raise(&r.horizon, min(second(now), r.newest.Load()+1))
}

// begin says that there are no records of before.
func (r *Retention) begin(now time.Time) {
	raise(&r.newest, second(now))
	raise(&r.horizon, second(now))
}

// second returns the second that a time lies in, as entries hold it: up to the year
// 2088. Zero stands for none. Lifetimes can be added to it.
func second(t time.Time) uint32 {
	return uint32(min(max(t.Unix(), 1), math.MaxUint32-4*maxLifetime))
}

// raise sets v to at least value, and returns what it is then.
func raise(v *atomic.Uint32, value uint32) uint32 {
	for {
		old := v.Load()
		if old >= value {
			return old
		}
		if v.CompareAndSwap(old, value) {
			return value
		}
	}
}

// secondsOf rounds up: a record is kept too long rather than not long enough.
func secondsOf(d time.Duration) uint32 {
	return uint32(min((max(d, 0)+time.Second-1)/time.Second, maxLifetime))
}

// maxLifetime bounds lifetimes, in seconds: more than four years.
const maxLifetime = 1 << 27
