package replay

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
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

// Whatever lifetimes and clocks do, no proof is accepted twice. And where they do
// nothing unusual, every fresh proof is accepted once.
func TestMemoryNeverTwice(t *testing.T) {
	for seed := range uint64(30) {
		for _, unusual := range []bool{false, true} {
			t.Run(fmt.Sprint(seed, unusual), func(t *testing.T) { neverTwice(t, rand.New(rand.NewPCG(seed, 1)), unusual) })
		}
	}
}

func neverTwice(t *testing.T, random *rand.Rand, unusual bool) {
	c := new(clock)
	c.unix.Store(epoch)
	m := newMemory(1<<30, c.now)
	m.Begin()
	c.advance(2 * time.Second)
	const skew = 10
	var lifetimes Lifetimes
	release := func() {}
	reload := func() {
		lifetimes = Lifetimes{IssuedAt: time.Duration(10+random.IntN(100)) * time.Second, Nonce: time.Duration(10+random.IntN(300)) * time.Second}
		next := m.Retain(lifetimes)
		release()
		release = next
	}
	reload()
	type made struct {
		Use
		accepted bool
	}
	var proofs []*made
	accepted := 0
	for n := range 6000 {
		now := c.now().Unix()
		switch event := random.IntN(400); {
		case event < 100:
			c.advance(time.Duration(1+random.IntN(5)) * time.Second)
		case event < 110 && unusual:
			reload()
		case event == 111 && unusual:
			c.advance(-time.Duration(random.IntN(100)) * time.Second)
		case event == 112 && unusual:
			ahead := time.Duration(random.IntN(400)) * time.Second
			c.advance(ahead)
			_ = m.Record(context.Background(), use(-n, c.now().Unix()))
			c.advance(-ahead)
		}
		var p *made
		fresh := len(proofs) == 0 || random.IntN(3) == 0
		if fresh {
			p = &made{Use: use(n, now-60+random.Int64N(120))}
			if random.IntN(10) == 0 {
				p.IssuedAt = time.Unix(now+random.Int64N(3600), 0)
			}
			if random.IntN(2) == 0 {
				p.Nonce = time.Unix(now, 0)
			}
			proofs = append(proofs, p)
		} else {
			p = proofs[max(0, len(proofs)-1-random.IntN(600))]
		}
		// what a handler with these lifetimes would do
		now = c.now().Unix()
		iat, nonce := p.IssuedAt.Unix(), p.Nonce.Unix()
		p.By = 0
		if iat >= now-int64(lifetimes.IssuedAt/time.Second) && iat <= now+skew {
			p.By |= ByIssuedAt
		}
		if !p.Nonce.IsZero() && nonce >= now-int64(lifetimes.Nonce/time.Second) && nonce <= now+skew {
			p.By |= ByNonce
		}
		if p.By == 0 || iat <= epoch {
			continue
		}
		err := m.Record(context.Background(), p.Use)
		switch {
		case err == nil && p.accepted:
			t.Fatalf("proof %+v was accepted twice, at %d", p.Use, now)
		case err == nil:
			p.accepted = true
			accepted++
		case !p.accepted && !unusual:
			t.Fatalf("proof %+v, which is unused, was refused at %d: %v", p.Use, now, err)
		case errors.Is(err, ErrReplayed) && !p.accepted:
			t.Fatalf("proof %+v is unused, but said to be a replay", p.Use)
		}
	}
	if accepted < 200 {
		t.Errorf("only %d proofs were accepted", accepted)
	}
}
