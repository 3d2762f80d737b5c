// Package devissuer is an authorization server for development and tests: it
// gives DPoP-bound access tokens to whoever asks (RFC 6749 §4.4, RFC 9449 §5).
// It authenticates no one, and must never face a network.
package devissuer

import (
	"crypto/rand"
	"encoding/json"
	"net"
	"net/http"
	"sync/atomic"
	"time"

	"github.com/caddy-dpop/caddy-dpop/internal/failure"
	"github.com/caddy-dpop/caddy-dpop/internal/jose"
	"github.com/caddy-dpop/caddy-dpop/internal/nonce"
	"github.com/caddy-dpop/caddy-dpop/internal/proof"
)

// Issuer is a development issuer that listens on the loopback interface.
type Issuer struct {
	// URL is the issuer's identifier, and where it is.
	URL string
	// Key signs the tokens.
	Key *jose.PrivateKey
	// Audience is the aud of the tokens that the token endpoint gives.
	Audience string

	server *http.Server
	nonces atomic.Pointer[nonce.Keys] // nil: no nonces are demanded
}

const lifetime = 5 * time.Minute

// Start makes a key for the algorithm, and serves on a free port.
func Start(algorithm *jose.Algorithm, audience string) (*Issuer, error) {
	key, err := jose.Generate(algorithm)
	if err != nil {
		return nil, err
	}
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return nil, err
	}
	i := &Issuer{URL: "http://" + listener.Addr().String(), Key: key, Audience: audience}
	mux := http.NewServeMux()
	mux.HandleFunc("GET /.well-known/oauth-authorization-server", i.metadata)
	mux.HandleFunc("GET /jwks", i.jwks)
	mux.HandleFunc("POST /token", i.token)
	i.server = &http.Server{Handler: mux, ReadHeaderTimeout: 5 * time.Second}
	go func() { _ = i.server.Serve(listener) }()
	return i, nil
}

// DemandNonces has the token endpoint ask for proofs with one of its nonces
// (RFC 9449 §8).
func (i *Issuer) DemandNonces() { i.nonces.Store(&nonce.Keys{nonce.KeyOf(rand.Text())}) }

// Stop ends the server.
func (i *Issuer) Stop() { _ = i.server.Close() }

// metadata is RFC 8414 §3, with the DPoP part of RFC 9449 §5.1.
func (i *Issuer) metadata(w http.ResponseWriter, _ *http.Request) {
	answer(w, http.StatusOK, map[string]any{
		"issuer":                                i.URL,
		"jwks_uri":                              i.URL + "/jwks",
		"token_endpoint":                        i.URL + "/token",
		"response_types_supported":              []string{},
		"grant_types_supported":                 []string{"client_credentials"},
		"token_endpoint_auth_methods_supported": []string{"none", "client_secret_basic", "client_secret_post"},
		"dpop_signing_alg_values_supported":     jose.AllAlgorithms().Names(),
	})
}

func (i *Issuer) jwks(w http.ResponseWriter, _ *http.Request) {
	answer(w, http.StatusOK, map[string]any{"keys": []any{i.Key.PublicJWK()}})
}

// token gives a token bound to the key of the request's proof; without a proof,
// an unbound one. Whatever scope and resource are asked for are given.
func (i *Issuer) token(w http.ResponseWriter, r *http.Request) {
	client := r.PostFormValue("client_id")
	if user, _, ok := r.BasicAuth(); ok {
		client = user
	}
	if r.PostFormValue("grant_type") != "client_credentials" || client == "" {
		answer(w, http.StatusBadRequest, map[string]any{"error": "invalid_request"})
		return
	}
	claims := i.Claims(client)
	if scope := r.PostFormValue("scope"); scope != "" {
		claims["scope"] = scope
	}
	if resource := r.PostFormValue("resource"); resource != "" {
		claims["aud"] = resource // RFC 8707 §2.2
	}
	tokenType := failure.Bearer
	if field := r.Header.Get("DPoP"); field != "" {
		jkt, f := i.thumbprint(field, r.Method)
		if f != nil {
			i.refuse(w, f)
			return
		}
		claims["cnf"] = map[string]any{"jkt": jkt}
		tokenType = failure.DPoP
	}
	token, err := i.Sign(claims)
	if err != nil {
		answer(w, http.StatusInternalServerError, map[string]any{"error": "server_error"})
		return
	}
	answer(w, http.StatusOK, map[string]any{
		"access_token": token, "token_type": tokenType, "expires_in": int(lifetime.Seconds()),
	})
}

// refuse answers that a proof is not good, or must have a nonce (RFC 9449 §5 and §8).
func (i *Issuer) refuse(w http.ResponseWriter, f *failure.Failure) {
	code := "invalid_dpop_proof"
	if f.WantsNonce() {
		code = "use_dpop_nonce"
		w.Header().Set("DPoP-Nonce", i.nonces.Load().Issue(time.Now()))
	}
	answer(w, http.StatusBadRequest, map[string]any{"error": code, "error_description": f.Description})
}

func (i *Issuer) thumbprint(field, method string) (string, *failure.Failure) {
	p, f := proof.Verify(field, jose.AllAlgorithms())
	if f != nil {
		return "", f
	}
	endpoint, err := proof.ParseURI(i.URL + "/token")
	if err != nil {
		return "", failure.New(failure.RequestMalformed, "the issuer has no URL")
	}
	if f := p.CheckTarget(method, []proof.URI{endpoint}); f != nil {
		return "", f
	}
	if keys := i.nonces.Load(); keys != nil {
		text, _, f := p.Nonce()
		if _, ours := keys.Issued(text); f == nil && !ours {
			f = failure.New(failure.NonceMissing, "the DPoP proof must have the nonce that comes with this answer")
		}
		return p.Thumbprint, f
	}
	window := proof.Window{MaxAge: time.Minute, ClockSkew: 10 * time.Second}
	return p.Thumbprint, window.CheckTime(p, time.Now())
}

// Claims returns the claims of a good token for a client (RFC 9068 §2.2), as yet
// without cnf.
func (i *Issuer) Claims(client string) map[string]any {
	now := time.Now()
	return map[string]any{
		"iss":       i.URL,
		"aud":       i.Audience,
		"sub":       client,
		"client_id": client,
		"iat":       now.Unix(),
		"exp":       now.Add(lifetime).Unix(),
		"jti":       rand.Text(),
	}
}

// Sign makes a token of claims, with the type of RFC 9068.
func (i *Issuer) Sign(claims map[string]any) (string, error) {
	return i.Key.Sign(map[string]any{"typ": "at+jwt", "kid": i.Key.ID}, claims)
}

func answer(w http.ResponseWriter, status int, body any) {
	w.Header().Set("Content-Type", "application/json")
	w.Header().Set("Cache-Control", "no-store")
	w.WriteHeader(status)
	_ = json.NewEncoder(w).Encode(body) // a client that has gone needs no answer
}
