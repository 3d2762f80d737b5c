package caddytest

import (
	"net/http"
	"testing"
)

const app = "https://app.example.com"

// from returns a call as a script of an origin makes it.
func (c call) from(origin string) call {
	header := c.header.Clone()
	if header == nil {
		header = http.Header{}
	}
	header.Set("Origin", origin)
	c.header = header
	return c
}

// says fails unless the answer has exactly these headers about origins; an empty
// value is none.
func (a answer) says(t *testing.T, headers map[string]string) {
	t.Helper()
	for _, name := range []string{"Allow-Origin", "Expose-Headers", "Allow-Methods", "Allow-Headers", "Allow-Credentials"} {
		values := a.Header.Values("Access-Control-" + name)
		if want := headers[name]; want == "" && len(values) > 0 || want != "" && (len(values) != 1 || values[0] != want) {
			t.Errorf("answered %d with Access-Control-%s %q, want %q", a.StatusCode, name, values, want)
		}
	}
	varies := 0
	for _, value := range a.Header.Values("Vary") {
		if value == "Origin" {
			varies++
		}
	}
	if varies != 1 {
		t.Errorf("answered %d with Vary %q", a.StatusCode, a.Header.Values("Vary"))
	}
}

// readable are the headers of an answer that a script may read.
func readable(origin string) map[string]string {
	return map[string]string{"Allow-Origin": origin, "Expose-Headers": "DPoP-Nonce, WWW-Authenticate"}
}

// A script of a listed origin can read every answer, whoever it comes from; one of
// another origin none, whatever the upstream says.
func TestCORS(t *testing.T) {
	g := serve(t, setup{site: "{{DPOP}} cors " + app + " http://localhost:3000; nonce required\nreverse_proxy /dead 127.0.0.1:1\nreverse_proxy {{BACKEND}}\n" +
		"handle_errors {\nrespond \"sorry\"\n}"})
	g.backend.answer = func(w http.ResponseWriter, _ *http.Request) {
		w.Header()["Access-Control-Allow-Origin"] = []string{"*", "https://evil.example"}
		w.Header().Set("Access-Control-Allow-Credentials", "true")
		w.Header().Set("Access-Control-Expose-Headers", "X-Total, dpop-nonce")
		w.Header().Set("Vary", "Accept")
	}
	nonce := g.newNonce(t)
	accepted := func(path string) call { return proven(t, g.url+path, map[string]any{"nonce": nonce}) }
	upstream := map[string]string{"Allow-Origin": app, "Expose-Headers": "DPoP-Nonce, WWW-Authenticate, X-Total"}

	a := accepted("/").from(app).send(t)
	a.expect(t, 200)
	a.says(t, upstream)
	accepted("/").from("http://localhost:3000").send(t).says(t, map[string]string{"Allow-Origin": "http://localhost:3000", "Expose-Headers": upstream["Expose-Headers"]})
	accepted("/dead").from(app).send(t).says(t, readable(app))
	refused := call{url: g.url}.from(app).send(t)
	refused.says(t, readable(app))
	if refused.text != "sorry" {
		t.Errorf("answered %q, not by the error route", refused.text)
	}
	good(t, g.url+"/").from(app).send(t).says(t, readable(app)) // asked for a nonce
	for _, other := range []string{"https://evil.example", "https://app.example.com.evil.example", "http://app.example.com", "https://app.example.com:8443", "null", "HTTPS://APP.EXAMPLE.COM"} {
		a := accepted("/").from(other).send(t)
		a.expect(t, 200)
		a.says(t, nil)
		call{url: g.url}.from(other).send(t).says(t, nil)
	}
	accepted("/").send(t).says(t, nil)
	two := accepted("/").from(app)
	two.header.Add("Origin", "https://evil.example")
	two.send(t).says(t, nil)

	g.load(t, setup{site: "{{DPOP}} mode report; cors *\nreverse_proxy {{BACKEND}}"})
	upstream["Allow-Origin"] = "*"
	call{url: g.url}.from("https://any.example").send(t).says(t, upstream)
}

// A preflight is answered here, and allows by name what is asked for. Any other
// OPTIONS needs credentials.
func TestPreflight(t *testing.T) {
	g := serve(t, setup{site: "{{DPOP}} cors " + app + "\nreverse_proxy {{BACKEND}}"})
	preflight := func(origin, method, headers string) call {
		c := call{method: "OPTIONS", url: g.url + "/x"}.from(origin)
		c.header.Set("Access-Control-Request-Method", method)
		if headers != "" {
			c.header.Set("Access-Control-Request-Headers", headers)
		}
		return c
	}
	a := preflight(app, "PATCH", "authorization,dpop,x-\"odd, content-type").send(t)
	if a.StatusCode != 204 || a.text != "" {
		t.Errorf("answered %d %q", a.StatusCode, a.text)
	}
	a.says(t, map[string]string{"Allow-Origin": app, "Allow-Methods": "PATCH", "Allow-Headers": "authorization, dpop, content-type"})
	a = preflight("https://evil.example", "GET", "authorization").send(t)
	if a.StatusCode != 204 {
		t.Errorf("another origin: answered %d", a.StatusCode)
	}
	a.says(t, nil)
	g.backend.none(t)
	for _, c := range []call{
		{method: "OPTIONS", url: g.url},
		call{method: "OPTIONS", url: g.url}.from(app),
		preflight(app, "G T", ""),
		{method: "OPTIONS", url: g.url, header: http.Header{"Access-Control-Request-Method": {"GET"}}},
	} {
		c.send(t).expect(t, 401, "DPoP")
	}
	g.backend.none(t)
	// without the setting it is like any other request
	g.load(t, setup{})
	preflight(app, "GET", "").send(t).expect(t, 401, "DPoP")
}

// An upstream that dresses refusals does not speak for this resource, where its headers
// are taken away as the README says.
func TestCORSBesideAnUpstreamOfErrors(t *testing.T) {
	g := serve(t, setup{site: "{{DPOP}} cors " + app + "; nonce required\nrespond \"unreachable\"\nhandle_errors {\nreverse_proxy {{BACKEND}} {\n" +
		"header_down -WWW-Authenticate\nheader_down -DPoP-Nonce\nheader_down -Cache-Control\nheader_down -Access-Control-*\n}\n}"})
	g.backend.answer = func(w http.ResponseWriter, _ *http.Request) {
		for name, value := range map[string]string{
			"Access-Control-Allow-Origin": "*", "Access-Control-Allow-Credentials": "true", "DPoP-Nonce": "upstream", "WWW-Authenticate": "Bearer", "Cache-Control": "public",
		} {
			w.Header().Set(name, value)
		}
		_, _ = w.Write([]byte("sorry"))
	}
	a := good(t, g.url+"/").from(app).send(t)
	a.says(t, readable(app))
	if nonce := a.nonceOf(t); a.text != "sorry" || nonce == "upstream" || len(a.Header.Values("WWW-Authenticate")) != 1 || a.Header.Get("Cache-Control") != "no-store" {
		t.Errorf("answered %q %v", a.text, a.Header)
	}
}
