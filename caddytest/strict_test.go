package caddytest

import (
	"crypto/rand"
	"net/http"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/caddy-dpop/caddy-dpop/internal/devissuer"
	"github.com/caddy-dpop/caddy-dpop/internal/jose"
)

// Each row is a request that strict mode refuses, with the status and the
// challenges of the contract, and the reason that the operator reads.
func TestStrictRefuses(t *testing.T) {
	g := serve(t, setup{})
	const path = "/orders"
	target := g.url + path
	token := accessToken(t, nil)
	otherKey, err := jose.Generate(algorithm("ES256"))
	if err != nil {
		t.Fatal(err)
	}
	with := func(authorization string, proofs ...string) http.Header {
		header := http.Header{}
		if authorization != "" {
			header["Authorization"] = []string{authorization}
		}
		if len(proofs) > 0 {
			header["Dpop"] = proofs
		}
		return header
	}
	// proofFor makes a proof that is right but for the changes.
	proofFor := func(token string, changes map[string]any) string { return dpop(t, "GET", target, token, changes) }
	// bound makes a request that is right but for the changed claims of its token.
	bound := func(changes map[string]any) http.Header {
		token := accessToken(t, changes)
		return with("DPoP "+token, proofFor(token, nil))
	}
	strangers := tokenOf(t, stranger, nil)
	otherKeys := tokenOf(t, stranger, map[string]any{"iss": issuer.URL})
	claims := issuer.Claims("client-1")
	claims["cnf"] = map[string]any{"jkt": clientKey.Thumbprint}
	forged, err := stranger.Key.Sign(map[string]any{"typ": "at+jwt", "kid": issuer.Key.ID}, claims)
	if err != nil {
		t.Fatal(err)
	}
	now := time.Now().Unix()

	for _, row := range []struct {
		name      string
		header    http.Header
		status    int
		challenge string
		reason    string
	}{
		{"no credentials", with(""), 401, "DPoP", "no_credentials"},
		{"a proof alone", with("", proofFor(token, nil)), 401, "DPoP", "no_credentials"},
		{"Basic", with("Basic dXNlcjpwYXNz"), 401, "DPoP", "scheme_unsupported"},
		{"Digest", with(`Digest username="a", realm="b"`), 401, "DPoP", "scheme_unsupported"},
		{"empty Authorization", http.Header{"Authorization": {""}}, 400, "DPoP invalid_request", "authorization_malformed"},
		{"a scheme alone", with("DPoP", proofFor(token, nil)), 400, "DPoP invalid_request", "authorization_malformed"},
		{"two tokens", with("DPoP "+token+" "+token, proofFor(token, nil)), 400, "DPoP invalid_request", "authorization_malformed"},
		{"joined credentials", with("DPoP "+token+", Bearer "+token, proofFor(token, nil)), 400, "DPoP invalid_request", "authorization_malformed"},
		{"a tab for a space", with("DPoP\t"+token, proofFor(token, nil)), 400, "DPoP invalid_request", "authorization_malformed"},
		{"a token of more than 16 KiB", with("DPoP "+strings.Repeat("a", 16<<10+1), proofFor(token, nil)), 400, "DPoP invalid_request", "authorization_malformed"},
		{"two Authorization fields", http.Header{"Authorization": {"DPoP " + token, "DPoP " + token}, "Dpop": {proofFor(token, nil)}},
			400, "DPoP invalid_request", "authorization_repeated"},
		{"Bearer with a bound token", with("Bearer " + token), 401, "DPoP invalid_token", "bearer_refused"},
		{"Bearer with an unbound token", with("Bearer " + accessToken(t, map[string]any{"cnf": nil})), 401, "DPoP invalid_token", "bearer_refused"},
		{"Bearer with a proof", with("bearer "+token, proofFor(token, nil)), 401, "DPoP invalid_token", "bearer_refused"},

		{"no proof", with("DPoP " + token), 401, "DPoP invalid_dpop_proof", "proof_missing"},
		{"two proofs", with("DPoP "+token, proofFor(token, nil), proofFor(token, nil)), 401, "DPoP invalid_dpop_proof", "proof_repeated"},
		{"two proofs in one field", with("DPoP "+token, proofFor(token, nil)+", "+proofFor(token, nil)), 401, "DPoP invalid_dpop_proof", "proof_malformed"},
		{"an empty proof", with("DPoP "+token, ""), 401, "DPoP invalid_dpop_proof", "proof_malformed"},
		{"a proof of more than 8 KiB", with("DPoP "+token, proofFor(token, map[string]any{"x": strings.Repeat("a", 8<<10)})), 401, "DPoP invalid_dpop_proof", "proof_too_large"},
		{"the token for a proof", with("DPoP "+token, token), 401, "DPoP invalid_dpop_proof", "proof_type"},
		{"another method", with("DPoP "+token, dpop(t, "POST", target, token, nil)), 401, "DPoP invalid_dpop_proof", "proof_method"},
		{"the method in lower case", with("DPoP "+token, dpop(t, "get", target, token, nil)), 401, "DPoP invalid_dpop_proof", "proof_method"},
		{"another path", with("DPoP "+token, dpop(t, "GET", target+"/1", token, nil)), 401, "DPoP invalid_dpop_proof", "proof_url"},
		{"the path in another case", with("DPoP "+token, dpop(t, "GET", g.url+"/Orders", token, nil)), 401, "DPoP invalid_dpop_proof", "proof_url"},
		{"a trailing slash", with("DPoP "+token, dpop(t, "GET", target+"/", token, nil)), 401, "DPoP invalid_dpop_proof", "proof_url"},
		{"another host", with("DPoP "+token, dpop(t, "GET", "http://localhost:"+g.port+path, token, nil)), 401, "DPoP invalid_dpop_proof", "proof_url"},
		{"another scheme", with("DPoP "+token, dpop(t, "GET", "https"+target[4:], token, nil)), 401, "DPoP invalid_dpop_proof", "proof_url"},
		{"another port", with("DPoP "+token, dpop(t, "GET", "http://127.0.0.1:1"+path, token, nil)), 401, "DPoP invalid_dpop_proof", "proof_url"},
		{"no port", with("DPoP "+token, dpop(t, "GET", "http://127.0.0.1"+path, token, nil)), 401, "DPoP invalid_dpop_proof", "proof_url"},
		{"a relative URL", with("DPoP "+token, dpop(t, "GET", path, token, nil)), 401, "DPoP invalid_dpop_proof", "proof_url"},
		{"a proof for another token", with("DPoP "+token, proofFor("other", nil)), 401, "DPoP invalid_dpop_proof", "proof_token"},
		{"no ath", with("DPoP "+token, proofFor(token, map[string]any{"ath": nil})), 401, "DPoP invalid_dpop_proof", "proof_token"},
		{"no jti", with("DPoP "+token, proofFor(token, map[string]any{"jti": nil})), 401, "DPoP invalid_dpop_proof", "proof_claims"},
		{"an iat that is no number", with("DPoP "+token, proofFor(token, map[string]any{"iat": "now"})), 401, "DPoP invalid_dpop_proof", "proof_claims"},
		{"an old proof", with("DPoP "+token, proofFor(token, map[string]any{"iat": now - 75})), 401, "DPoP invalid_dpop_proof", "proof_expired"},
		{"a proof of the future", with("DPoP "+token, proofFor(token, map[string]any{"iat": now + 20})), 401, "DPoP invalid_dpop_proof", "proof_early"},
		{"a proof with a past exp", with("DPoP "+token, proofFor(token, map[string]any{"exp": now - 20})), 401, "DPoP invalid_dpop_proof", "proof_expired"},

		{"no JWT", with("DPoP opaque", proofFor("opaque", nil)), 401, "DPoP invalid_token", "token_malformed"},
		{"an expired token", bound(map[string]any{"exp": now - 11}), 401, "DPoP invalid_token", "token_expired"},
		{"a token without exp", bound(map[string]any{"exp": nil}), 401, "DPoP invalid_token", "token_claims"},
		{"a token for later", bound(map[string]any{"nbf": now + 60}), 401, "DPoP invalid_token", "token_early"},
		{"another issuer's token", with("DPoP "+strangers, proofFor(strangers, nil)), 401, "DPoP invalid_token", "token_issuer"},
		{"a token by a key that the issuer does not have", with("DPoP "+otherKeys, proofFor(otherKeys, nil)), 401, "DPoP invalid_token", "token_key"},
		{"a token signed by another issuer", with("DPoP "+forged, proofFor(forged, nil)), 401, "DPoP invalid_token", "token_signature"},
		{"a token for another audience", bound(map[string]any{"aud": "https://other.example"}), 401, "DPoP invalid_token", "token_audience"},
		{"a token for no audience", bound(map[string]any{"aud": nil}), 401, "DPoP invalid_token", "token_audience"},
		{"an unbound token", bound(map[string]any{"cnf": nil}), 401, "DPoP invalid_token", "token_unbound"},
		{"a token bound to a certificate", bound(map[string]any{"cnf": map[string]any{"x5t#S256": "x"}}), 401, "DPoP invalid_token", "token_confirmation"},
		{"a token bound twice", bound(map[string]any{"cnf": map[string]any{"x5t#S256": "x", "jkt": clientKey.Thumbprint}}), 401, "DPoP invalid_token", "token_confirmation"},
		{"another key's proof", with("DPoP "+token, dpopBy(t, otherKey, "GET", target, token, nil)), 401, "DPoP invalid_token", "token_other_key"},
	} {
		t.Run(row.name, func(t *testing.T) {
			uri := path + "?row=" + rand.Text() // tells the lines of the log apart
			a := call{url: g.url + uri, header: row.header}.send(t)
			a.expect(t, row.status, row.challenge)
			g.backend.none(t)
			line := await(t, g.accessLog, func(e entry) bool { return e.field("request", "uri") == uri })
			if line.field("dpop", "reason") != row.reason || line.field("dpop", "outcome") != "refused" {
				t.Errorf("the access log says %v, want reason %s", line["dpop"], row.reason)
			}
			await(t, g.logs, func(e entry) bool { return e["msg"] == "refused request" && e["reason"] == row.reason })
		})
	}
}

func TestSecondTokenInQuery(t *testing.T) {
	g := serve(t, setup{})
	for _, query := range []string{"access_token=x", "a=b&access_token=", "access%5Ftoken=x", "%61ccess_token", "a;access_token=x"} {
		c := good(t, g.url+"/orders")
		c.url += "?" + query
		c.send(t).expect(t, 400, "DPoP invalid_request")
	}
	// alone it is no credentials
	call{url: g.url + "/?access_token=" + accessToken(t, nil)}.send(t).expect(t, 401, "DPoP")
	g.backend.none(t)
	c := good(t, g.url+"/orders")
	c.url += "?access_tokens=x&b=access_token"
	c.send(t).expect(t, 200)
}

func TestStrictAccepts(t *testing.T) {
	g := serve(t, setup{})
	target := g.url + "/a%2Fb/%7Euser;v=1//x?q=1&r=%20"
	token := accessToken(t, nil)
	for _, row := range []struct {
		name string
		htu  string
		auth string
	}{
		{"the URL without query", g.url + "/a%2Fb/%7Euser;v=1//x", "DPoP " + token},
		{"with query and fragment, which do not count", target + "#f", "DPoP " + token},
		{"unreserved characters as they are", g.url + "/a%2fb/~user;v=1//x", "DPoP " + token},
		{"dot segments", g.url + "/./x/../a%2Fb/~user;v=1//x", "DPoP " + token},
		{"the scheme in capitals", "HTTP" + g.url[4:] + "/a%2Fb/~user;v=1//x", "DPoP " + token},
		{"the scheme's name in lower case", g.url + "/a%2Fb/~user;v=1//x", "dpop   " + token},
	} {
		t.Run(row.name, func(t *testing.T) {
			c := call{method: "POST", url: target, body: "body", header: http.Header{
				"Authorization": {row.auth},
				"Dpop":          {dpop(t, "POST", row.htu, token, nil)},
				"Dpop-Nonce":    {"x"},
				"X-Other":       {"a", "b"},
				"Cookie":        {"c=1"},
			}}
			c.send(t).expect(t, 200)
			got := g.backend.one(t)
			if got.method != "POST" || got.uri != strings.TrimPrefix(target, g.url) || got.body != "body" {
				t.Errorf("the backend got %+v", got)
			}
			if auth := got.header["Authorization"]; len(auth) != 1 || auth[0] != "Bearer "+token {
				t.Errorf("the backend got Authorization %q", auth)
			}
			for _, name := range []string{"Dpop", "Dpop-Nonce"} {
				if got.header[name] != nil {
					t.Errorf("the backend got %s", name)
				}
			}
			if other := got.header["X-Other"]; len(other) != 2 || got.header.Get("Cookie") != "c=1" {
				t.Errorf("other headers were changed: %v", got.header)
			}
		})
	}
}

func TestEveryProofAlgorithm(t *testing.T) {
	all := strings.Join(jose.AllAlgorithms().Names(), " ")
	named := setup{site: "{{DPOP}} proof {; algorithms " + all + ";}\nreverse_proxy {{BACKEND}}"}
	g := serve(t, setup{})
	for _, alg := range jose.AllAlgorithms() {
		key, err := jose.Generate(alg)
		if err != nil {
			t.Fatal(err)
		}
		token := accessToken(t, map[string]any{"cnf": map[string]any{"jkt": key.Thumbprint}})
		check := func(what string, s setup, want int) {
			g.load(t, s)
			a := call{url: g.url + "/", header: http.Header{
				"Authorization": {"DPoP " + token}, "Dpop": {dpopBy(t, key, "GET", g.url+"/", token, nil)},
			}}.send(t)
			if a.StatusCode != want {
				t.Errorf("%s, %s: answered %d, want %d %q", alg.Name, what, a.StatusCode, want, a.Header.Values("WWW-Authenticate"))
			}
		}
		check("allowed by name", named, 200)
		want := 401
		if strings.Contains(algs, alg.Name) {
			want = 200
		}
		check("by default", setup{}, want)
	}
}

func TestReplay(t *testing.T) {
	g := serve(t, setup{})
	c := good(t, g.url+"/")
	c.send(t).expect(t, 200)
	g.backend.one(t)
	for range 3 {
		c.send(t).expect(t, 401, "DPoP invalid_dpop_proof")
	}
	g.backend.none(t)
	await(t, g.logs, func(e entry) bool { return e["reason"] == "proof_replayed" })

	// what fails before the record does not spend the proof
	c = good(t, g.url+"/")
	broken := c
	broken.header = http.Header{"Authorization": {"DPoP " + accessToken(t, nil)}, "Dpop": c.header["Dpop"]}
	broken.send(t).expect(t, 401, "DPoP invalid_dpop_proof")
	c.send(t).expect(t, 200)

	// the jti is the client's: another client may use the same
	other, err := jose.Generate(algorithm("Ed25519"))
	if err != nil {
		t.Fatal(err)
	}
	token := accessToken(t, nil)
	otherToken := accessToken(t, map[string]any{"cnf": map[string]any{"jkt": other.Thumbprint}})
	jti := map[string]any{"jti": "the same"}
	call{url: g.url, header: http.Header{"Authorization": {"DPoP " + token}, "Dpop": {dpop(t, "GET", g.url, token, jti)}}}.send(t).expect(t, 200)
	call{url: g.url, header: http.Header{"Authorization": {"DPoP " + otherToken}, "Dpop": {dpopBy(t, other, "GET", g.url, otherToken, jti)}}}.send(t).expect(t, 200)
}

func TestReplayAtOnce(t *testing.T) {
	g := serve(t, setup{})
	for range 5 {
		c := good(t, g.url+"/")
		var passed, refused atomic.Int32
		var wait sync.WaitGroup
		for range 100 {
			wait.Go(func() {
				switch a := c.send(t); a.StatusCode {
				case 200:
					passed.Add(1)
				case 401:
					refused.Add(1)
				}
			})
		}
		wait.Wait()
		if passed.Load() != 1 || refused.Load() != 99 {
			t.Fatalf("%d passed and %d were refused", passed.Load(), refused.Load())
		}
		g.backend.one(t)
	}
}

// The line of the log alone tells a refused token from what is expected.
func TestLogOfRefusedTokens(t *testing.T) {
	own, err := devissuer.Start(algorithm("ES256"), audience) // whom nobody has asked for a key yet
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(own.Stop)
	g := serve(t, setup{site: "dpop {\nissuer " + own.URL + " {\nalgorithms ES256\n}\naudience " + audience + "\n}\nreverse_proxy {{BACKEND}}"})
	stranger, err := jose.Generate(algorithm("ES256"))
	if err != nil {
		t.Fatal(err)
	}
	sign := func(header map[string]any) string {
		text, err := stranger.Sign(header, own.Claims("client-1"))
		if err != nil {
			t.Fatal(err)
		}
		return text
	}
	rsa, err := jose.Generate(algorithm("PS256"))
	if err != nil {
		t.Fatal(err)
	}
	other, err := rsa.Sign(map[string]any{"typ": "at+jwt"}, own.Claims("client-1"))
	if err != nil {
		t.Fatal(err)
	}
	for _, row := range []struct{ token, reason, expected, found string }{
		{tokenOf(t, own, map[string]any{"iss": own.URL + "/"}), "token_issuer", own.URL, own.URL + "/"},
		{tokenOf(t, own, map[string]any{"iss": nil}), "token_issuer", own.URL, ""},
		{tokenOf(t, own, map[string]any{"aud": []string{"a", "b"}}), "token_audience", audience, "a b"},
		{other, "token_algorithm", "ES256", "PS256"},
		{sign(map[string]any{"typ": "at+jwt", "kid": "a key of nobody"}), "token_key", "", "a key of nobody"},
	} {
		call{url: g.url + "/", header: http.Header{"Authorization": {"DPoP " + row.token}, "Dpop": {dpop(t, "GET", g.url+"/", row.token, nil)}}}.send(t)
		await(t, g.logs, func(e entry) bool {
			expected, _ := e["expected"].(string)
			return e["msg"] == "refused request" && e["reason"] == row.reason && expected == row.expected && e["found"] == row.found
		})
	}
	g.backend.none(t)
}
