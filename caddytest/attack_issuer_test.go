package caddytest

import (
	"compress/gzip"
	"crypto/elliptic"
	"encoding/pem"
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/caddy-dpop/caddy-dpop/internal/devissuer"
)

// An issuer, or who sits between, that answers as it should not: for each of many
// issuers a document and a key set, and a token by a key of theirs.
func TestAttackIssuers(t *testing.T) {
	ec, rsaKey := forgers()["ES256"], forgers()["RS256"]
	listener, called := startListener(t)
	_, port, _ := strings.Cut(listener, ":") // which 0.0.0.0, no loopback address, leads to as well
	key := func(f *forger, more string) string { return `{"kid":"` + f.alg + `",` + more + f.jwk[1:] }
	set := func(keys ...string) string { return `{"keys":[` + strings.Join(keys, ",") + `]}` }
	weak, small := rsaForger("RS256", 1024), public("EdDSA", fmt.Sprintf(`{"crv":"Ed25519","kty":"OKP","x":%q}`, b64(make([]byte, 32))))
	secret := &forger{alg: "HS256"}
	x := valueOf(ec.jwk, "x")
	others := make([]string, 101)
	for n := range others {
		others[n] = key(ecForger("ES256", elliptic.P256()), "")
	}
	repeat := func(text string, n int) string { return strings.Repeat(text, n) }
	var calls, sent atomic.Int64 // to the issuer of a row, and octets of what has no end
	// write answers as a string says; the first word of some says how.
	write := func(w http.ResponseWriter, r *http.Request, text string) {
		calls.Add(1)
		switch how, rest, _ := strings.Cut(text, " "); how {
		case "status":
			w.WriteHeader(map[string]int{"204": 204, "404": 404, "500": 500}[rest])
		case "redirect":
			http.Redirect(w, r, rest, http.StatusFound)
		case "gzip":
			w.Header().Set("Content-Encoding", "gzip")
			z := gzip.NewWriter(w)
			for range 64 {
				_, _ = z.Write([]byte(strings.Repeat(rest, 1<<20)))
			}
			_ = z.Close()
		case "endless":
			for r.Context().Err() == nil {
				n, err := w.Write([]byte(strings.Repeat(rest, 1<<16)))
				if sent.Add(int64(n)); err != nil {
					return
				}
			}
		case "drip":
			for r.Context().Err() == nil {
				_, _ = w.Write([]byte(rest))
				_ = http.NewResponseController(w).Flush()
				time.Sleep(10 * time.Millisecond)
			}
		default:
			_, _ = w.Write([]byte(text))
		}
	}
	const unavailable = "keys_unavailable"

	type row struct {
		attack, source string
		metadata       string // {{I}} is the issuer, {{J}} its key set
		set            string
		by             *forger // of the token
		reason         string
	}
	const good = `{"issuer":"{{I}}","jwks_uri":"{{J}}"}`
	rows := []row{
		{"good", "RFC 8414 §3.2", good, set(key(ec, "")), ec, isAccepted},

		{"metadata of another issuer", "RFC 8414 §3.3", `{"issuer":"{{I}}x","jwks_uri":"{{J}}"}`, set(key(ec, "")), ec, unavailable},
		{"metadata with a slash more", "RFC 8414 §3.3", `{"issuer":"{{I}}/","jwks_uri":"{{J}}"}`, set(key(ec, "")), ec, unavailable},
		{"metadata without issuer", "RFC 8414 §3.3", `{"jwks_uri":"{{J}}"}`, set(key(ec, "")), ec, unavailable},
		{"metadata with two issuers", "RFC 8259 §4", `{"issuer":"x","issuer":"{{I}}","jwks_uri":"{{J}}"}`, set(key(ec, "")), ec, unavailable},
		{"metadata with ISSUER", "encoding/json takes any case", `{"ISSUER":"{{I}}","jwks_uri":"{{J}}"}`, set(key(ec, "")), ec, unavailable},
		{"metadata that is an array", "RFC 8414 §3.2", "[" + good + "]", set(key(ec, "")), ec, unavailable},
		{"metadata with data behind", "RFC 8259 §2", good + "{}", set(key(ec, "")), ec, unavailable},
		{"metadata 5,000 levels deep", "CVE-2022-42004 (jackson-databind)", `{"issuer":"{{I}}","jwks_uri":"{{J}}","x":` + repeat("[", 5000) + repeat("]", 5000) + "}", set(key(ec, "")), ec, unavailable},
		{"metadata that is HTML", "RFC 8414 §3.2", "<html>", set(key(ec, "")), ec, unavailable},
		{"metadata that is empty", "RFC 8414 §3.2", "status 204", set(key(ec, "")), ec, unavailable},
		{"metadata elsewhere", "whoever redirects would choose the keys", "redirect http://" + listener + "/", set(key(ec, "")), ec, unavailable},
		{"metadata without end", "unbounded reading", "endless  ", set(key(ec, "")), ec, unavailable},
		{"metadata that drips", "a timeout of the body", "drip  ", set(key(ec, "")), ec, unavailable},
		{"metadata that unpacks to 64 MiB", "CWE-409", "gzip  ", set(key(ec, "")), ec, unavailable},
		{"keys in a file", "CWE-918", `{"issuer":"{{I}}","jwks_uri":"file:///etc/passwd"}`, "", ec, unavailable},
		{"keys by ftp", "CWE-918", `{"issuer":"{{I}}","jwks_uri":"ftp://` + listener + `/"}`, "", ec, unavailable},
		{"keys by plain http elsewhere", "README, Settings", `{"issuer":"{{I}}","jwks_uri":"http://0.0.0.0:` + port + `/"}`, "", ec, unavailable},
		{"keys at a URL with user information", "RFC 9110 §4.2.4", `{"issuer":"{{I}}","jwks_uri":"http://a:b@` + listener + `/"}`, "", ec, unavailable},
		{"keys at no URL", "RFC 8414 §2", `{"issuer":"{{I}}","jwks_uri":"/jwks"}`, "", ec, unavailable},
		{"keys at a number", "RFC 8414 §2", `{"issuer":"{{I}}","jwks_uri":1}`, "", ec, unavailable},

		{"keys elsewhere", "whoever redirects would choose the keys", good, "redirect http://" + listener + "/", ec, unavailable},
		{"keys in a circle", "RFC 9110 §15.4", good, "redirect jwks", ec, unavailable},
		{"no keys", "RFC 7517 §5.1", good, `{}`, ec, unavailable},
		{"keys null", "RFC 7517 §5.1", good, `{"keys":null}`, ec, unavailable},
		{"keys an object", "RFC 7517 §5.1", good, `{"keys":{"a":` + key(ec, "") + `}}`, ec, unavailable},
		{"keys twice", "RFC 8259 §4: nobody knows which are meant", good, `{"keys":[` + key(rsaKey, "") + `],"keys":[` + key(ec, "") + "]}", ec, unavailable},
		{"one key, not in a set", "RFC 7517 §5", good, key(ec, ""), ec, unavailable},
		{"101 keys", "the cost of looking through them", good, set(others...), ec, unavailable},
		{"a set of more than 512 KiB", "unbounded reading", good, `{"keys":[` + key(ec, "") + `],"x":"` + repeat("x", 512<<10) + `"}`, ec, unavailable},
		{"a set without end", "unbounded reading", good, "endless  ", ec, unavailable},
		{"a set 20,000 levels deep", "CVE-2022-42004 (jackson-databind)", good, `{"keys":[` + key(ec, "") + `],"x":` + repeat("[", 20000) + repeat("]", 20000) + "}", ec, unavailable},
		{"a set that unpacks to 64 MiB", "CWE-409", good, "gzip  ", ec, unavailable},

		{"a private key", "whoever can read the set could sign", good, set(key(ec, `"d":"AQ",`)), ec, "token_key"},
		{"a private RSA key", "whoever can read the set could sign", good, set(key(rsaKey, `"p":"AQ","q":"AQ",`)), rsaKey, "token_key"},
		{"a symmetric key", "RFC 8725 §3.1", good, set(`{"kid":"HS256","kty":"oct","k":"c2VjcmV0"}`), secret, "token_algorithm"},
		{"an RSA key of 1024 bits", "RFC 7518 §3.3", good, set(key(weak, "")), weak, "token_key"},
		{"an RSA key with exponent 1", "RFC 8017 §3.1", good, set(key(oddRSA(2048, "AQ"), "")), rsaKey, "token_key"},
		{"an RSA key with an even modulus", "RFC 8017 §3.1", good, set(key(public("RS256", rsaJWK("AQAB", append(unb64(repeat("_", 340)), 0xfe))), "")), rsaKey, "token_key"},
		{"an RSA key of 16384 bits", "CVE-2023-6237", good, set(key(oddRSA(16384, "AQAB"), "")), rsaKey, "token_key"},
		{"an RSA key with an exponent of 16384 bits", "CVE-2023-6237", good, set(key(oddRSA(2048, b64(unb64(repeat("_", 2732)))), "")), rsaKey, "token_key"},
		{"a point off the curve", "CVE-2015-7940", good, set(key(public("ES256", strings.Replace(ec.jwk, valueOf(ec.jwk, "y"), x, 1)), "")), ec, "token_key"},
		{"a point of small order", "Chalkias et al. 2020", good, set(key(small, "")), small, "token_key"},
		{"a key for encryption", "RFC 7517 §4.2", good, set(key(ec, `"use":"enc",`)), ec, "token_key"},
		{"a key for signing alone", "RFC 7517 §4.3", good, set(key(ec, `"key_ops":["sign"],`)), ec, "token_key"},
		{"a key for another algorithm", "RFC 7517 §4.4", good, set(key(ec, `"alg":"ES384",`)), ec, "token_key"},
		{"a key with a member twice", "RFC 7517 §4", good, set(key(ec, `"x":"AA",`)), ec, "token_key"},
		{"a key on a curve nobody knows", "RFC 7517 §5: is skipped", good, set(`{"kid":"ES256","kty":"EC","crv":"x","x":"AA","y":"AA"}`), ec, "token_key"},
		{"the fifth key of one id", "the cost of trying all", good, set(others[0], others[1], others[2], others[3], key(ec, "")), ec, "token_signature"},
		{"a kind of key nobody knows, before a good one", "RFC 7517 §5", good, set(`{"kty":"AKP","kid":"x","alg":"ML-DSA-44","pub":"AA"}`, "1", "null", `"x"`, "[]", key(ec, "")), ec, isAccepted},
		{"a key with a remote certificate", "RFC 7517 §4.6", good, set(key(ec, `"x5u":"http://`+listener+`/",`)), ec, isAccepted},
	}

	mux := http.NewServeMux()
	server := httptest.NewServer(mux)
	t.Cleanup(server.Close)
	var site strings.Builder
	issuerOf := func(n int) string { return fmt.Sprintf("%s/i%d", server.URL, n) }
	for n, row := range rows {
		text := strings.NewReplacer("{{I}}", issuerOf(n), "{{J}}", issuerOf(n)+"/jwks").Replace(row.metadata)
		mux.HandleFunc(fmt.Sprintf("/i%d/.well-known/openid-configuration", n), func(w http.ResponseWriter, r *http.Request) { write(w, r, text) })
		mux.HandleFunc(fmt.Sprintf("/i%d/jwks", n), func(w http.ResponseWriter, r *http.Request) { write(w, r, row.set) })
		fmt.Fprintf(&site, "handle /%d {\ndpop {\nissuer %s {\ntimeout 1s\n}\naudience %s\n}\nreverse_proxy {{BACKEND}}\n}\n", n, issuerOf(n), audience)
	}
	g := serve(t, setup{site: site.String() + saysWhy})
	for n, row := range rows {
		t.Run(row.attack+" ("+row.source+")", func(t *testing.T) {
			options := []option{claim("iss", `"`+issuerOf(n)+`"`)}
			if row.by == secret {
				options = append(options, signed(hmacWith([]byte("secret"))))
			}
			token := tokenBy(row.by, options...)
			url := fmt.Sprintf("%s/%d", g.url, n)
			began := time.Now()
			calls.Store(0)
			sent.Store(0)
			a := call{url: url, header: credentials(token, dpop(t, "GET", url, token, nil))}.send(t)
			g.because(t, a.Response, row.reason)
			if took := time.Since(began); took > 2*time.Second {
				t.Errorf("it took %v", took)
			}
			if calls.Load() > 6 || sent.Load() > 20<<20 {
				t.Errorf("the issuer got %d calls, and %d octets of it were read or under way", calls.Load(), sent.Load())
			}
		})
	}
	if called() {
		t.Error("somebody else was called")
	}
}

// An issuer that is asked by https names services of this machine, by plain http:
// those that answer to whoever is here, such as Caddy's own admin API.
func TestAttackIssuerNamesLocalServices(t *testing.T) {
	listener, called := startListener(t)
	var metadata string
	server := httptest.NewTLSServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { fmt.Fprint(w, metadata) }))
	t.Cleanup(server.Close)
	roots := filepath.Join(t.TempDir(), "roots.pem")
	if err := os.WriteFile(roots, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: server.Certificate().Raw}), 0o600); err != nil {
		t.Fatal(err)
	}
	metadata = fmt.Sprintf(`{"issuer":%q,"jwks_uri":"http://%s/jwks","introspection_endpoint":"http://%s/stop"}`, server.URL, listener, listener)
	g := serve(t, setup{site: "dpop {\nissuer " + server.URL + " {\nca " + roots + "\nintrospection {\nauth none\n}\n}\naudience " + audience + "\n}\nreverse_proxy {{BACKEND}}" + saysWhy})
	jwt := tokenOf(t, &devissuer.Issuer{URL: server.URL, Key: issuer.Key, Audience: audience}, nil)
	for token, reason := range map[string]string{jwt: "keys_unavailable", "opaque": "introspection_unavailable"} {
		g.because(t, withToken(t, g, token).send(t).Response, reason)
	}
	if called() {
		t.Error("a local service was called by plain http because an issuer elsewhere has named it")
	}
}

// What an issuer says of an opaque token, in other shapes than it should.
func TestAttackIntrospectionAnswers(t *testing.T) {
	s := startServer(t)
	g := serve(t, setup{site: s.site("mode optional\nclaim_header X-User sub", "cache 0s") + saysWhy})
	good := fmt.Sprintf(`"active":true,"aud":%q,"exp":%d,"cnf":{"jkt":%q}`, audience, time.Now().Unix()+60, clientKey.Thumbprint)
	for _, row := range []struct {
		attack, source, answer string
		reason                 string // under DPoP
		bearer                 string // under Bearer
	}{
		{"good", "RFC 7662 §2.2", "{" + good + "}", isAccepted, "token_bound"},
		{"active a number", "RFC 7662 §2.2", `{"active":1}`, "introspection_unavailable", "introspection_unavailable"},
		{"active null", "RFC 7662 §2.2", `{"active":null}`, "introspection_unavailable", "introspection_unavailable"},
		{"active in another case", "encoding/json takes any case", `{"ACTIVE":true}`, "introspection_unavailable", "introspection_unavailable"},
		{"active twice", "RFC 8259 §4", `{"active":false,` + good + "}", "introspection_unavailable", "introspection_unavailable"},
		{"cnf twice", "RFC 8259 §4", `{"cnf":{"jkt":"x"},` + good + "}", "introspection_unavailable", "introspection_unavailable"},
		{"bad UTF-8", "RFC 8259 §8.1", "{\"sub\":\"\xff\"," + good + "}", "introspection_unavailable", "introspection_unavailable"},
		{"exp a string", "RFC 7662 §2.2", strings.Replace("{"+good+"}", `"exp":`, `"exp":"1","x":`, 1), "token_claims", "token_claims"},
		{"exp null", "RFC 7662 §2.2", strings.Replace("{"+good+"}", `"exp":`, `"exp":null,"x":`, 1), "token_claims", "token_claims"},
		{"aud of words", "RFC 7662 §2.2", strings.Replace("{"+good+"}", audience, "x "+audience, 1), "token_audience", "token_audience"},
		{"iss of another", "RFC 7662 §2.2", `{"iss":"https://other.example",` + good + "}", "token_issuer", "token_issuer"},
		{"iss a number", "RFC 7662 §2.2", `{"iss":1,` + good + "}", "token_issuer", "token_issuer"},
		{"cnf null", "RFC 7800 §3.1", fmt.Sprintf(`{"active":true,"aud":%q,"cnf":null}`, audience), "token_confirmation", "token_bound"},
		{"cnf a string", "RFC 7800 §3.1", fmt.Sprintf(`{"active":true,"aud":%q,"cnf":%q}`, audience, clientKey.Thumbprint), "token_confirmation", "token_bound"},
		{"no cnf, but a DPoP token", "RFC 9449 §6.2", fmt.Sprintf(`{"active":true,"aud":%q,"token_type":"dPOP"}`, audience), "token_unbound", "token_bound"},
		{"no cnf", "RFC 9449 §6.2", fmt.Sprintf(`{"active":true,"aud":%q}`, audience), "token_unbound", isAccepted},
	} {
		answer := http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { fmt.Fprint(w, row.answer) })
		s.answer.Store(&answer)
		t.Run(row.attack+" ("+row.source+")", func(t *testing.T) {
			g.because(t, withToken(t, g, "opaque").send(t).Response, row.reason)
			g.because(t, call{url: g.url, header: http.Header{"Authorization": {"Bearer opaque"}}}.send(t).Response, row.bearer)
		})
	}
}
