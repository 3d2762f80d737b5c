package demo

import (
	"context"
	"net/http"
	"time"

	"github.com/caddy-dpop/caddy-dpop/internal/jose"
	"github.com/caddy-dpop/caddy-dpop/internal/proof"
)

// scene is one request, and what it must get.
type scene struct {
	title string
	want  int
	reach bool // whether it must reach the backend
	send  func(ctx context.Context) (*http.Response, error)
}

// actor is a client with a token that is bound to its key.
type actor struct {
	key   *jose.PrivateKey
	token string
}

// act is a request, and what its proof says.
type act struct {
	target string
	scheme string           // empty: without a token
	key    *jose.PrivateKey // nil: without a proof
	token  string
	claims proof.Claims
}

func scenes(client *actor, thief *jose.PrivateKey, site string) []scene {
	const ok, no = http.StatusOK, http.StatusUnauthorized
	target := site + "/orders"
	good := func() act {
		return act{target, "DPoP", client.key, client.token, proof.Claims{
			Method: http.MethodGet, URL: target, Token: client.token, IssuedAt: time.Now(),
		}}
	}
	with := func(change func(*act)) func(context.Context) (*http.Response, error) {
		return func(ctx context.Context) (*http.Response, error) {
			a := good()
			change(&a)
			return send(a.request(ctx))
		}
	}
	var captured *http.Request // by whoever watches: token and proof
	var nonce string           // that the site has asked for
	return []scene{
		{"the client's request", ok, true, func(ctx context.Context) (*http.Response, error) {
			return patiently(ctx, func() (r *http.Request, err error) {
				captured, err = good().request(ctx)
				return captured, err
			})
		}},
		{"the same request again, captured and replayed", no, false, func(ctx context.Context) (*http.Response, error) {
			return send(captured.Clone(ctx), nil)
		}},
		{"the token, stolen, with a proof by another key", no, false, with(func(a *act) { a.key = thief })},
		{"the token, stolen, as a Bearer token", no, false, with(func(a *act) { a.scheme, a.key = "Bearer", nil })},
		{"the token without a proof", no, false, with(func(a *act) { a.key = nil })},
		{"a proof for another path", no, false, with(func(a *act) { a.claims.URL = site + "/admin" })},
		{"a proof for another method", no, false, with(func(a *act) { a.claims.Method = http.MethodDelete })},
		{"no credentials", no, false, with(func(a *act) { a.scheme, a.key = "", nil })},
		{"the client, whose clock is now an hour slow", no, false, func(ctx context.Context) (*http.Response, error) {
			response, err := with(func(a *act) { a.claims.IssuedAt = time.Now().Add(-time.Hour) })(ctx)
			if err == nil {
				nonce = response.Header.Get("DPoP-Nonce")
			}
			return response, err
		}},
		{"the same, with the nonce of that answer", ok, true, with(func(a *act) {
			a.claims.IssuedAt, a.claims.Nonce = time.Now().Add(-time.Hour), nonce
		})},
	}
}

// request makes the request that the act is.
func (a act) request(ctx context.Context) (*http.Request, error) {
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, a.target, nil)
	if err != nil {
		return nil, err
	}
	if a.scheme != "" {
		request.Header.Set("Authorization", a.scheme+" "+a.token)
	}
	if a.key != nil {
		dpop, err := proof.Sign(a.key, a.claims)
		if err != nil {
			return nil, err
		}
		request.Header.Set("DPoP", dpop)
	}
	return request, nil
}

func send(request *http.Request, err error) (*http.Response, error) {
	if err != nil {
		return nil, err
	}
	return http.DefaultClient.Do(request)
}

// patiently sends a request, and a fresh one a second later if the answer is
// 503, as it is for proofs that are no younger than the server.
func patiently(ctx context.Context, request func() (*http.Request, error)) (*http.Response, error) {
	for try := 0; ; try++ {
		response, err := send(request())
		if err != nil || response.StatusCode != http.StatusServiceUnavailable || try == 3 {
			return response, err
		}
		_ = response.Body.Close()
		select {
		case <-time.After(time.Second):
		case <-ctx.Done():
			return nil, ctx.Err()
		}
	}
}
