package replay

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"testing"
	"time"
)

// withNonce returns a use of a proof that its nonce alone shows to be fresh.
func withNonce(n int, iat, nonce int64) Use {
	u := use(n, iat)
	u.Nonce, u.By = time.Unix(nonce, 0), ByNonce
	return u
}

// newNonceMemory returns a store that started a second ago, for proofs of 70
// seconds or, by nonce, 300.
func newNonceMemory(t *testing.T) (*Memory, *clock) {
	m, c := newTestMemory(t, 1000)
	m.Retain(Lifetimes{IssuedAt: 70 * time.Second, Nonce: 300 * time.Second})
	c.advance(time.Second) // nonces begin to count
	return m, c
}

// A proof accepted by its nonce is refused for as long as that is good, and for
// as long as its iat could be.
func TestMemoryRefusesAtEverySecondOfTheNonce(t *testing.T) {
	for _, ahead := range []int64{-90, -60, 0, 200, 3600} { // how far iat is ahead of the clock
		m, c := newNonceMemory(t)
		c.advance(100 * time.Second)
		now := c.now().Unix()
		u := withNonce(1, now+ahead, now-30)
		record(t, m, u, nil)
		for c.now().Unix() <= now-30+300 {
			record(t, m, u, ErrReplayed)
			c.advance(time.Second)
		}
		record(t, m, u, ErrForgotten)
		for ; c.now().Unix() <= now+ahead+70; c.advance(time.Second) {
			if by := use(1, now+ahead); c.now().Unix() >= now+ahead-10 {
				record(t, m, by, ErrReplayed)
			}
		}
		record(t, m, use(1, now+ahead), ErrForgotten)
	}
}

// A handler that does not know a nonce accepts a proof by its iat. One that knows it
// does not accept the proof again, whatever their clocks say.
func TestMemoryNonceThatIsNotKnown(t *testing.T) {
	const lifetime, skew = 300, 10
	for _, row := range []struct {
		ahead   int64         // how far the nonce is ahead of the clock
		setBack time.Duration // of the clock, after it was issued
	}{{-100, 0}, {0, 0}, {skew, 0}, {0, 50 * time.Second}} {
		m, c := newTestMemory(t, 1000)
		m.Retain(Lifetimes{IssuedAt: 70 * time.Second})
		m.Retain(Lifetimes{IssuedAt: 70 * time.Second, Nonce: (lifetime + skew) * time.Second})
		c.advance(100 * time.Second)
		issued := c.now().Unix() + row.ahead
		record(t, m, use(1, c.now().Unix()), nil) // others are there, too
		c.advance(-row.setBack)
		u := use(2, c.now().Unix())
		u.OtherNonce = true
		record(t, m, u, nil)
		c.advance(row.setBack)
		for ; c.now().Unix() <= issued+lifetime; c.advance(time.Second) {
			if err := m.Record(t.Context(), withNonce(2, u.IssuedAt.Unix(), issued)); !errors.Is(err, ErrReplayed) && !errors.Is(err, ErrForgotten) {
				t.Fatalf("%+v: at %d s of the nonce: %v", row, c.now().Unix()-issued, err)
			}
		}
	}
}

// Proofs with nonces that came while none counted shut out none that is issued when
// they do.
func TestMemoryNonceAfterSomeThatDidNotCount(t *testing.T) {
	m, c := newTestMemory(t, 1000)
	now := c.now()
	m.now = func() time.Time { return now }
	u := use(1, now.Unix())
	u.OtherNonce = true
	record(t, m, u, nil)
	now = now.Add(5 * time.Millisecond)
	m.Retain(Lifetimes{IssuedAt: 70 * time.Second, Nonce: 300 * time.Second})
	now = now.Add(5 * time.Millisecond)
	fresh := withNonce(2, 0, 0)
	fresh.Nonce = now
	now = now.Add(2 * time.Second)
	record(t, m, fresh, nil)
}

// An iat that no handler will go by keeps nothing.
func TestMemoryKeepsNothingForAnIATThatDoesNotCount(t *testing.T) {
	m, c := newNonceMemory(t)
	u := withNonce(1, 0, c.now().Unix())
	u.IssuedAt = time.Time{}
	record(t, m, u, nil)
	c.advance(300 * time.Second)
	if live, _ := m.Entries(); live != 1 {
		t.Errorf("%d entries, want 1", live)
	}
	c.advance(time.Second)
	if live, _ := m.Entries(); live != 0 {
		t.Errorf("%d entries, want none", live)
	}
}

// A nonce tells to the millisecond whether it was issued before the start; with
// one of after it, the iat does not matter. One of before spoils a proof whose
// iat is good, because it may have been accepted by it.
func TestMemoryNonceOfBeforeTheStart(t *testing.T) {
	c := new(clock)
	c.unix.Store(epoch)
	m := newMemory(10, c.now)
	m.Retain(Lifetimes{IssuedAt: 70 * time.Second, Nonce: 300 * time.Second})
	m.Begin()
	for n, row := range []struct {
		after time.Duration
		by    Freshness
		want  error
	}{
		{-time.Hour, ByNonce, ErrBeforeStart},
		{0, ByNonce, ErrBeforeStart},
		{time.Millisecond, ByNonce, nil},
		{time.Millisecond, ByNonce | ByIssuedAt, nil},
		{time.Millisecond, ByIssuedAt, ErrBeforeStart},
		{0, ByNonce | ByIssuedAt, ErrBeforeStart},
	} {
		u := withNonce(n, epoch, 0)
		u.Nonce, u.By = time.Unix(epoch, 0).Add(row.after), row.by
		record(t, m, u, row.want)
	}
	c.advance(5 * time.Second)
	u := use(9, epoch+4)
	u.Nonce = time.Unix(epoch-10, 0)
	record(t, m, u, ErrBeforeStart)
}

// What was accepted while nonces did not count may have held one, which the
// record did not heed.
func TestMemoryNonceOfBeforeNoncesCounted(t *testing.T) {
	m, c := newTestMemory(t, 10)
	c.advance(100 * time.Second)
	u := use(1, c.now().Unix())
	record(t, m, u, nil)
	m.Retain(Lifetimes{IssuedAt: 70 * time.Second, Nonce: 300 * time.Second})
	c.advance(100 * time.Second)
	record(t, m, withNonce(1, u.IssuedAt.Unix(), u.IssuedAt.Unix()-10), ErrForgotten)
	record(t, m, withNonce(2, u.IssuedAt.Unix(), c.now().Unix()), nil)
}

// Whatever lifetimes and clocks do, no proof is accepted twice. And where they do
// nothing unusual, every fresh proof is accepted once. With a file, restarts are
// nothing unusual.
func TestMemoryNeverTwice(t *testing.T) {
	for seed := range uint64(20) {
		for _, unusual := range []bool{false, true} {
			for _, file := range []bool{false, true} {
				if file && seed >= 5 {
					continue // they take long
				}
				t.Run(fmt.Sprint(seed, unusual, file), func(t *testing.T) {
					n := &neverTwice{T: t, random: rand.New(rand.NewPCG(seed, 1)), unusual: unusual, clock: newClock()}
					if file {
						n.path = newPath(t)
					}
					n.run()
				})
			}
		}
	}
}

// neverTwice is a handler and its clients, which use proofs again and again.
type neverTwice struct {
	*testing.T
	*clock
	random  *rand.Rand
	unusual bool
	path    string // of the file; empty: there is none

	m             *Memory
	lifetimes     Lifetimes
	release, stop func()
	proofs        []*madeProof
	accepted      int
}

type madeProof struct {
	Use
	accepted bool
}

func (n *neverTwice) run() {
	n.lifetimes = n.someLifetimes()
	n.start()
	n.advance(2 * time.Second)
	for step := range 3000 {
		n.event(step)
		n.use(n.proof(step))
	}
	if n.accepted < 100 {
		n.Errorf("only %d proofs were accepted", n.accepted)
	}
}

func (n *neverTwice) someLifetimes() Lifetimes {
	l := Lifetimes{IssuedAt: n.seconds(10, 110), Nonce: n.seconds(10, 310)}
	if n.random.IntN(4) == 0 {
		l.Nonce = 0
	}
	return l
}

func (n *neverTwice) seconds(from, to int) time.Duration {
	return time.Duration(from+n.random.IntN(to-from)) * time.Second
}

// start is the start of a process.
func (n *neverTwice) start() {
	n.m = newMemory(1<<30, n.now)
	n.release = n.m.Retain(n.lifetimes)
	if n.path == "" {
		n.stop = n.m.Begin()
		return
	}
	restored, stop, err := n.m.Persist(n.path)
	if err != nil {
		n.Fatal(err)
	}
	n.stop = stop
	if restored.Lost != nil {
		if !n.unusual {
			n.Fatal(restored.Lost)
		}
		// A proof that was dated ahead can be used once more: see ErrBeforeStart.
		n.proofs = slices.DeleteFunc(n.proofs, func(p *madeProof) bool { return p.IssuedAt.After(n.now()) || p.Nonce.After(n.now()) })
	}
}

// event is what may come between two uses.
func (n *neverTwice) event(step int) {
	switch event := n.random.IntN(400); {
	case event < 100:
		n.advance(n.seconds(1, 6))
	case event < 110 && n.unusual:
		n.lifetimes = n.someLifetimes()
		next := n.m.Retain(n.lifetimes)
		n.release()
		n.release = next
	case event == 111 && n.unusual:
		n.advance(-n.seconds(0, 100))
	case event == 112 && n.unusual:
		ahead := n.seconds(0, 400)
		n.advance(ahead)
		_ = n.m.Record(n.Context(), use(-1-step, n.now().Unix()))
		n.advance(-ahead)
	case event == 113 && n.unusual:
		n.advance(n.seconds(0, 4*3600))
		n.m.Entries()
	case event < 120 && n.path != "":
		n.restart()
	case event < 123 && n.path != "" && n.unusual:
		n.reload(step)
	}
}

// restart kills the process, or stops it.
func (n *neverTwice) restart() {
	if n.random.IntN(2) == 0 {
		n.path = killed(n, n.path)
	} else {
		n.stop()
	}
	closed(n, n.m)
	switch event := n.random.IntN(8); {
	case event < 2:
		n.advance(n.seconds(0, 100))
	case event == 2 && n.unusual:
		n.advance(-n.seconds(0, 100))
	case event == 3 && n.unusual:
		n.lifetimes = n.someLifetimes()
	}
	n.start()
}

// reload changes to another file; or for a while, in which the process may end, to
// none.
func (n *neverTwice) reload(step int) {
	if n.random.IntN(2) == 0 {
		n.stop = reload(n, n.m, n.stop, "")
		if n.random.IntN(2) == 0 {
			n.use(n.proof(1<<20 + step))
			n.stop()
			closed(n, n.m)
			n.start()
			return
		}
	} else {
		n.path = newPath(n)
	}
	n.stop = reload(n, n.m, n.stop, n.path)
}

// proof returns a new proof, or one of late.
func (n *neverTwice) proof(step int) *madeProof {
	if len(n.proofs) > 0 && n.random.IntN(3) > 0 {
		return n.proofs[max(0, len(n.proofs)-1-n.random.IntN(600))]
	}
	now := n.now().Unix()
	p := &madeProof{Use: use(step, now-60+n.random.Int64N(120))}
	if n.random.IntN(10) == 0 {
		p.IssuedAt = time.Unix(now+n.random.Int64N(3600), 0)
	}
	if n.random.IntN(2) == 0 {
		p.Nonce = time.Unix(now, 0)
	}
	n.proofs = append(n.proofs, p)
	return p
}

// use does what a handler with these lifetimes would do.
func (n *neverTwice) use(p *madeProof) {
	const skew = 10
	now, iat, u := n.now().Unix(), p.IssuedAt.Unix(), p.Use
	u.By = 0
	if iat >= now-int64(n.lifetimes.IssuedAt/time.Second) && iat <= now+skew {
		u.By |= ByIssuedAt
	}
	if n.lifetimes.Nonce == 0 {
		u.Nonce = time.Time{}
	} else if nonce := p.Nonce.Unix(); !p.Nonce.IsZero() && nonce >= now-int64(n.lifetimes.Nonce/time.Second) && nonce <= now+skew {
		u.By |= ByNonce
	}
	if u.By == 0 || iat <= epoch {
		return
	}
	err := n.m.Record(n.Context(), u)
	switch {
	case err == nil && p.accepted:
		n.Fatalf("proof %+v was accepted twice, at %d", u, now)
	case err == nil:
		p.accepted = true
		n.accepted++
	case !p.accepted && !n.unusual:
		n.Fatalf("proof %+v, which is unused, was refused at %d: %v", u, now, err)
	case errors.Is(err, ErrReplayed) && !p.accepted:
		n.Fatalf("proof %+v is unused, but said to be a replay", u)
	}
}
