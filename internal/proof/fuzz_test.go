package proof

import (
	"encoding/base64"
	"encoding/json"
	"fmt"
	"math"
	"net/netip"
	"net/url"
	"regexp"
	"strconv"
	"strings"
	"testing"
	"time"
)

// FuzzVerify makes proofs of any header, claims and signature; an empty
// signature stands for one that is good by the test's Ed25519 key.
func FuzzVerify(f *testing.F) {
	s := signers()["EdDSA"]
	f.Add(s.header(), claims, []byte(nil))
	f.Add(s.header(), claims, []byte{0})
	f.Add(strings.Replace(s.header(), "dpop+jwt", "application/DPOP+jwt", 1), strings.Replace(claims, "1700000000", "1.7e9", 1), []byte(nil))
	f.Add(strings.Replace(s.header(), `{"kty"`, `{"d":"AQ","kty"`, 1), claims, []byte(nil))
	f.Add(strings.Replace(s.header(), `"typ"`, `"crit":[],"typ"`, 1), claims, []byte(nil))
	f.Add(s.header(), `{"jti":"id-1","jti":"id-2"}`, []byte(nil))
	f.Add(s.header(), strings.Replace(claims, "1700000000", `1e300,"exp":-1e300,"nbf":0`, 1), []byte(nil))
	f.Add(s.header(), strings.Replace(claims, "/things", `/a/%2e%2e/\u0062?c#d`, 1), []byte(nil))
	f.Add(`{"typ":"dpop+jwt","alg":"EdDSA","jwk":{"kty":"OKP","crv":"Ed25519","x":"AQAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA"}}`, claims, append([]byte{1}, make([]byte, 63)...))
	for _, v := range publishedProofs(f) {
		parts := strings.Split(v.Proof, ".")
		var decoded [3][]byte
		for i := range parts {
			var err error
			if decoded[i], err = base64.RawURLEncoding.DecodeString(parts[i]); err != nil {
				f.Fatal(err)
			}
		}
		f.Add(string(decoded[0]), string(decoded[1]), decoded[2])
	}
	remembered := NewSigners()
	f.Fuzz(func(t *testing.T, header, body string, signature []byte) {
		input := b64([]byte(header)) + "." + b64([]byte(body))
		signed := len(signature) == 0
		if signed {
			signature = s.signature(t, input)
		}
		for _, text := range []string{header, body} { // as if it were the whole field
			if p, f := Verify(text, defaults(t)); (p == nil) == (f == nil) {
				t.Fatalf("%q: %v and %v", text, p, f)
			}
		}
		compact := input + "." + b64(signature)
		p, failed := Verify(compact, defaults(t))
		if (p == nil) == (failed == nil) {
			t.Fatalf("%q: %v and %v", compact, p, failed)
		}
		// a header that is known already changes nothing
		if known, f := remembered.Verify(compact, defaults(t)); f != nil && failed != nil && f.Error() != failed.Error() || (f == nil) != (failed == nil) ||
			f == nil && (known.Thumbprint != p.Thumbprint || known.ID != p.ID) {
			t.Fatalf("%q: %v and %v, but %v and %v where its header is known", compact, p, failed, known, f)
		}
		if p != nil {
			remembered.Remember(p)
		}
		if failed != nil {
			if failed.Status() != 401 {
				t.Fatalf("%q: status %d for %s", compact, failed.Status(), failed.Reason)
			}
			return
		}
		var wantHeader, wantClaims map[string]any
		if err := json.Unmarshal([]byte(header), &wantHeader); err != nil {
			t.Fatalf("%q: encoding/json refuses the header: %v", header, err)
		}
		if err := json.Unmarshal([]byte(body), &wantClaims); err != nil {
			t.Fatalf("%q: encoding/json refuses the claims: %v", body, err)
		}
		typ, _ := wantHeader["typ"].(string)
		if typ = strings.ToLower(typ); typ != "dpop+jwt" && typ != "application/dpop+jwt" {
			t.Fatalf("%q: accepted with typ %q", header, typ)
		}
		if p.Algorithm != wantHeader["alg"] || defaults(t).Find(p.Algorithm) == nil {
			t.Fatalf("%q: algorithm %q", header, p.Algorithm)
		}
		jwk, _ := wantHeader["jwk"].(map[string]any)
		if signed && (jwk["kty"] != "OKP" || !strings.Contains(s.jwk, fmt.Sprint(jwk["x"]))) {
			t.Fatalf("%q: another key signed it", header)
		}
		for _, name := range []string{"d", "p", "q", "k"} {
			if _, ok := jwk[name]; ok {
				t.Fatalf("%q: accepted with %s", header, name)
			}
		}
		if len(compact) > MaxSize || p.ID == "" || len(p.ID) > 512 || p.ID != wantClaims["jti"] {
			t.Fatalf("%q: jti %q, %d bytes in all", body, p.ID, len(compact))
		}
		if p.IssuedAt != wantClaims["iat"] || math.IsInf(p.IssuedAt, 0) || math.IsNaN(p.IssuedAt) {
			t.Fatalf("%q: iat %v", body, p.IssuedAt)
		}
		window := Window{MaxAge: time.Minute, ClockSkew: 10 * time.Second}
		inTime := p.IssuedAt >= 1700000000-70 && p.IssuedAt <= 1700000000+10
		if failed := window.CheckTime(p, now); (failed == nil) != inTime {
			t.Fatalf("%q: iat %v: %v", body, p.IssuedAt, failed)
		}
		exp, hasExp := wantClaims["exp"].(float64)
		nbf, hasNbf := wantClaims["nbf"].(float64)
		valid := (!hasExp || 1700000000-10 < exp) && (!hasNbf || 1700000000+10 >= nbf)
		if failed := window.CheckValidity(p, now); (failed == nil) != valid {
			t.Fatalf("%q: exp %v, nbf %v: %v", body, exp, nbf, failed)
		}
		htu, _ := wantClaims["htu"].(string)
		target, err := ParseURI("https://api.example.com/things")
		if err != nil {
			t.Fatal(err)
		}
		found, err := ParseURI(htu)
		good := wantClaims["htm"] == "GET" && err == nil && found == target && wantClaims["ath"] == TokenHash("token")
		if failed := p.CheckRequest("GET", []URI{target}, TokenHash("token")); (failed == nil) != good {
			t.Fatalf("%q: %v", body, failed)
		}
	})
}

var escapes = regexp.MustCompile(`%[0-9A-Fa-f]{2}`)

// normal is ParseURI once more, by net/url and the words of RFC 3986. It is
// false where net/url understands something else, or nothing.
func normal(text string) (string, bool) {
	u, err := url.Parse(text)
	if err != nil || u.User != nil || u.Opaque != "" || (u.Scheme != "http" && u.Scheme != "https") {
		return "", false
	}
	host := u.Hostname()
	if addr, err := netip.ParseAddr(host); err == nil && addr.Is6() {
		host = "[" + host + "]"
	}
	var b strings.Builder // net/url decodes the per cent sign, and what is not ASCII
	for _, c := range []byte(host) {
		if c >= 0x80 || c == '%' {
			fmt.Fprintf(&b, "%%%02x", c)
		} else {
			b.WriteByte(c)
		}
	}
	host = strings.ToLower(b.String())
	if port := u.Port(); port != "" && port != map[string]string{"http": "80", "https": "443"}[u.Scheme] {
		host += ":" + port
	}
	path := u.EscapedPath()
	if !strings.Contains(text, path) {
		return "", false // net/url has escaped more than there was to escape
	}
	path = escapes.ReplaceAllStringFunc(path, func(escape string) string { // §6.2.2.1 and §6.2.2.2
		c, _ := strconv.ParseUint(escape[1:], 16, 8)
		if c < 0x80 && regexp.MustCompile(`[A-Za-z0-9._~-]`).MatchString(string(rune(c))) {
			return string(rune(c))
		}
		return strings.ToUpper(escape)
	})
	path = regexp.MustCompile(`[\[\]|^"<>{}`+"`]").ReplaceAllStringFunc(path, func(c string) string {
		return fmt.Sprintf("%%%02X", c[0])
	})
	if path = removed(path); path == "" {
		path = "/"
	}
	return u.Scheme + "://" + host + path, true
}

// removed is RFC 3986 §5.2.4, word by word.
func removed(input string) string {
	output := ""
	up := func() { output = output[:max(0, strings.LastIndex(output, "/"))] }
	for input != "" {
		switch {
		case strings.HasPrefix(input, "../"): // A
			input = input[3:]
		case strings.HasPrefix(input, "./"):
			input = input[2:]
		case strings.HasPrefix(input, "/./"): // B
			input = input[2:]
		case input == "/.":
			input = "/"
		case strings.HasPrefix(input, "/../"): // C
			input = input[3:]
			up()
		case input == "/..":
			input = "/"
			up()
		case input == "." || input == "..": // D
			input = ""
		default: // E
			end := len(input)
			if slash := strings.Index(input[1:], "/"); slash >= 0 {
				end = slash + 1
			}
			output, input = output+input[:end], input[end:]
		}
	}
	return output
}

func FuzzParseURI(f *testing.F) {
	for _, seed := range []string{
		"https://example.com/a/b", "httpx://example.com/a/b", "https###example.com/a/b", "https://exbmple.com/a/b", "https://example.com/a/c", "HTTP://a/./b/../b/%63/%7bfoo%7d", "https://EXAMPLE.com:443", "http://example.com:?a#b", "https://[2001:DB8::1]:8443/a",
		"https://user:pass@example.com/", "https://example.com/%zz", "https://example.com/a//../b/.", "https://example.com/%2e%2E/%2f%41", "http\u017f://example.com/",
		"https://example.com/[|]^\"<>`{}", "https://%65xample%2ecom%c3%a9/", "https://example.com//", "https://example.com/a?b/../c", `https://example.com\a`,
		"https://[::ffff:192.0.2.1]", "https://[fe80::1%25eth0]/", "https://example.com:00443/", "https://a,b;c=d/!$&'()*+,;=:@",
	} {
		f.Add(seed)
	}
	here := URI{"https", "example.com", "/a/b"}
	f.Fuzz(func(t *testing.T, text string) {
		if here.isWritten(text) != (text == here.String()) {
			t.Fatalf("%q is taken to be %s as it is written: %t", text, here, here.isWritten(text))
		}
		got, err := ParseURI(text)
		if err != nil {
			if got != (URI{}) {
				t.Fatalf("%q: %+v beside an error", text, got)
			}
			return
		}
		again, err := ParseURI(got.String())
		if err != nil || again != got {
			t.Fatalf("%q is %s, and that is %s, %v", text, got, again, err)
		}
		if got.isWritten(text) != (text == got.String()) || !got.isWritten(got.String()) {
			t.Fatalf("%q is %s, and is taken to be written so: %t", text, got, got.isWritten(text))
		}
		if strings.ContainsAny(got.String(), "?#\\ \"<>^`{|}") || strings.Contains(got.Authority, "@") {
			t.Fatalf("%q is %s", text, got)
		}
		if strings.Contains(got.Path+"/", "/../") || strings.Contains(got.Path+"/", "/./") || got.Path[0] != '/' {
			t.Fatalf("%q has the path %s", text, got.Path)
		}
		if want, ok := normal(text); ok && got.String() != want {
			t.Fatalf("%q is %s, by net/url %s", text, got, want)
		}
	})
}
