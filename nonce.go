package caddydpop

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io/fs"
	"slices"
	"sync"
	"time"

	"github.com/caddyserver/caddy/v2"
	"github.com/caddyserver/certmagic"

	"github.com/caddy-dpop/caddy-dpop/internal/failure"
	"github.com/caddy-dpop/caddy-dpop/internal/nonce"
	"github.com/caddy-dpop/caddy-dpop/internal/proof"
	"github.com/caddy-dpop/caddy-dpop/replay"
)

// Nonce is whether proofs must hold a nonce that this server has issued
// (RFC 9449 §9), which shows that they were made of late whatever the client's
// clock says. Nonces need no memory.
type Nonce struct {
	// When a nonce is asked for:
	//
	// - `off` (default): never; the `iat` of a proof counts alone.
	// - `on_skew`: of clients whose clock is wrong: when `iat` is too old or in the future.
	// - `required`: always, and `iat` does not count.
	Mode NonceMode `json:"mode,omitempty"`

	// For how long a nonce is good. Clients get the next one with an accepted answer
	// when it is half over. Default: `5m`.
	Lifetime *caddy.Duration `json:"lifetime,omitempty"`

	// Secrets of 32 characters or more that make nonces authentic. The first one
	// issues, all are accepted: to change the secret, put the new one first, and
	// remove the old one after the lifetime. Servers with the same secret accept each
	// other's nonces. Default: a key that is made once and kept in Caddy's storage,
	// so that servers which share that need no setting.
	Secrets []string `json:"secrets,omitempty"`

	// Whether the key is this process's own instead, which survives reloads. With
	// `required`, a proof can then be accepted by one process only, and its memory is
	// all that is needed against replay, where the balancer keeps a client on one of
	// many.
	PerProcess bool `json:"per_process,omitempty"`
}

// NonceMode is when a nonce is asked for.
type NonceMode string

// The values of Nonce.Mode.
const (
	NonceOff      NonceMode = "off"
	NonceOnSkew   NonceMode = "on_skew"
	NonceRequired NonceMode = "required"
)

const (
	defaultNonceLifetime = 5 * time.Minute
	leastNonceSecret     = 32 // characters
)

func (n *Nonce) mode() NonceMode { return orDefault(n.Mode, NonceOff) }

func (n *Nonce) lifetime() time.Duration { return durationOr(n.Lifetime, defaultNonceLifetime) }

// nonces is what a handler has of nonces.
type nonces struct {
	mode     NonceMode
	lifetime time.Duration
	skew     time.Duration
	own      bool // the key is this process's alone

	keys func(context.Context) nonce.Keys // nil: there is none yet
}

// provisionNonces finds the keys. The one in Caddy's storage is there once the
// configuration has started.
func (h *Handler) provisionNonces(ctx caddy.Context, settings *Nonce) error {
	h.nonces = nonces{mode: settings.mode(), lifetime: settings.lifetime(), skew: h.window.ClockSkew, own: settings.PerProcess}
	if h.nonces.mode == NonceOff {
		return nil
	}
	if !settings.PerProcess && len(settings.Secrets) == 0 {
		companion, err := companionOf(ctx)
		if err != nil {
			return err
		}
		companion.needNonceKey(ctx)
		h.nonces.keys = companion.nonceKeys.await
		return nil
	}
	var keys nonce.Keys
	for _, secret := range settings.Secrets {
		keys = append(keys, nonce.KeyOf(secret))
	}
	if settings.PerProcess {
		keys = nonce.Keys{processNonceKey()}
	}
	h.nonces.keys = func(context.Context) nonce.Keys { return keys }
	return nil
}

// lifetimes are for how long after its times this handler may accept a proof. Its
// iat is retained for also where nonces are required: a reload may change that.
func (h *Handler) lifetimes() replay.Lifetimes {
	lifetimes := replay.Lifetimes{IssuedAt: h.window.MaxAge + h.window.ClockSkew}
	if h.nonces.mode != NonceOff {
		// Another server's nonce may be issued so far ahead of a handler's clock.
		lifetimes.Nonce = h.nonces.lifetime + h.window.ClockSkew
	}
	return lifetimes
}

// processNonceKey is the key of this process alone.
var processNonceKey = sync.OnceValue(newNonceKey)

func newNonceKey() []byte {
	key := make([]byte, nonce.KeySize)
	_, _ = rand.Read(key) // never fails
	return key
}

// checkFresh checks that a proof was made of late: by its iat, by its nonce, or by
// either (RFC 9449 §4.3, checks 10 and 11). It returns what the replay store is
// to know of it.
func (h *Handler) checkFresh(ctx context.Context, req *request, p *proof.Proof, now time.Time) (replay.Use, *failure.Failure) {
	use := replay.Use{Key: replay.KeyOf(p.Thumbprint, p.ID), IssuedAt: p.Time()}
	early := h.window.CheckTime(p, now)
	if early == nil {
		use.By = replay.ByIssuedAt
	}
	_, use.OtherNonce, _ = p.Nonce()
	if h.nonces.mode == NonceOff {
		return use, early
	}
	found, f := h.nonces.find(ctx, p, now)
	if f != nil {
		return use, f
	}
	use.Nonce = found.issued
	use.OtherNonce = use.OtherNonce && found.issued.IsZero()
	if found.failure == nil {
		use.By |= replay.ByNonce
		req.renew = now.Sub(found.issued) > h.nonces.lifetime/2
	} else {
		req.renew = !found.issued.IsZero()
	}
	farAhead := found.issued.Add(replay.FarAhead)
	switch {
	case h.nonces.mode == NonceRequired:
		use.By &^= replay.ByIssuedAt
	case !found.issued.IsZero() && use.IssuedAt.After(farAhead):
		// Its nonce may have been what it was accepted by, so long ago that the store
		// need not know: see replay.FarAhead.
		use.By &^= replay.ByIssuedAt
	case found.foreign && h.nonces.own:
		// The nonce may be of this server, before its start, and the proof have been
		// accepted by it then.
		use.By &^= replay.ByIssuedAt
	}
	if use.By&replay.ByIssuedAt == 0 && use.IssuedAt.After(farAhead) {
		use.IssuedAt = time.Time{}
	}
	if use.By == 0 {
		if early != nil {
			found.failure.Details = append(found.failure.Details, early.Details...)
		}
		return use, found.failure
	}
	return use, nil
}

// foundNonce is what a proof's nonce is.
type foundNonce struct {
	issued  time.Time        // zero: it is none of ours
	foreign bool             // there is one, and it is none of ours
	failure *failure.Failure // why it is not good; nil if it is
}

// find looks at the nonce of a proof. It fails if that cannot be judged at all.
func (n *nonces) find(ctx context.Context, p *proof.Proof, now time.Time) (foundNonce, *failure.Failure) {
	keys := n.keys(ctx)
	if keys == nil {
		return foundNonce{}, failure.New(failure.NonceUnavailable, "nonces cannot be judged at the moment: this server is starting")
	}
	text, given, f := p.Nonce()
	if f != nil {
		return foundNonce{}, f
	}
	if !given {
		return foundNonce{failure: failure.New(failure.NonceMissing, "the DPoP proof must have the nonce that comes with this answer")}, nil
	}
	issued, ours := keys.Issued(text)
	switch age := now.Sub(issued); {
	case !ours:
		return foundNonce{foreign: true, failure: failure.New(failure.NonceWrong, "the nonce of the DPoP proof is not one of this server: use the one that comes with this answer")}, nil
	case age < -n.skew:
		return foundNonce{issued: issued, failure: failure.New(failure.NonceWrong, "the nonce of the DPoP proof is of the future by this server's clock: use the one that comes with this answer")}, nil
	case age > n.lifetime:
		return foundNonce{issued: issued, failure: expiredNonce()}, nil
	}
	return foundNonce{issued: issued}, nil
}

func expiredNonce() *failure.Failure {
	return failure.New(failure.NonceExpired, "the nonce of the DPoP proof is too old: use the one that comes with this answer")
}

// issue returns a nonce for a client whose own was looked at.
func (n *nonces) issue(now time.Time) string {
	return n.keys(context.Background()).Issue(now)
}

// storedNonceKey is where in Caddy's storage the key is.
const storedNonceKey = "dpop/nonce.key"

// nonceKeys are the keys of a configuration, once it has started.
type nonceKeys struct {
	ready chan struct{} // nil: no handler needs them
	keys  nonce.Keys    // to be read once that is closed
}

// await returns the keys. Caddy may serve by a configuration before all of it has
// started: a moment later they are there.
func (n *nonceKeys) await(ctx context.Context) nonce.Keys {
	select {
	case <-n.ready:
		return n.keys
	default:
	}
	const longest = 2 * time.Second
	ctx, cancel := context.WithTimeout(ctx, longest)
	defer cancel()
	select {
	case <-n.ready:
		return n.keys
	case <-ctx.Done():
		return nil
	}
}

// needNonceKey has the key in Caddy's storage read, or made, when the
// configuration starts.
func (a *App) needNonceKey(ctx caddy.Context) {
	if a.nonceKeys.ready != nil {
		return
	}
	a.nonceKeys.ready = make(chan struct{})
	storage := ctx.Storage()
	a.atStart(func() (func(), error) {
		const enough = 30 * time.Second
		limited, cancel := context.WithTimeout(ctx, enough)
		defer cancel()
		key, err := loadNonceKey(limited, storage)
		if err != nil {
			return nil, fmt.Errorf("the key of nonces, %s in Caddy's storage: %w", storedNonceKey, err)
		}
		a.nonceKeys.keys = nonce.Keys{key}
		close(a.nonceKeys.ready)
		return func() {}, nil
	})
}

// loadNonceKey reads the key, and makes it first where there is none. Of servers
// that do so at once, one does.
func loadNonceKey(ctx context.Context, storage certmagic.Storage) ([]byte, error) {
	key, err := readNonceKey(ctx, storage)
	if !errors.Is(err, fs.ErrNotExist) {
		return key, err
	}
	if err := storage.Lock(ctx, storedNonceKey); err != nil {
		return nil, err
	}
	defer func() { _ = storage.Unlock(context.WithoutCancel(ctx), storedNonceKey) }()
	key, err = readNonceKey(ctx, storage)
	if !errors.Is(err, fs.ErrNotExist) {
		return key, err
	}
	key = newNonceKey()
	return key, storage.Store(ctx, storedNonceKey, slices.Clone(key))
}

func readNonceKey(ctx context.Context, storage certmagic.Storage) ([]byte, error) {
	key, err := storage.Load(ctx, storedNonceKey)
	if err != nil {
		return nil, err
	}
	if len(key) != nonce.KeySize {
		return nil, fmt.Errorf("it has %d bytes, not %d, and is damaged: remove it, and a new one is made", len(key), nonce.KeySize)
	}
	return key, nil
}
