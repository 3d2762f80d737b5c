package jose

import (
	"bytes"
	"crypto/sha256"
	"encoding/base64"
	"encoding/json"
	"strings"
	"testing"
	"unicode/utf8"
)

// strict says by encoding/json's tokens what ParseObject must say: whether text
// is a JSON object without repeated members, at most maxDepth deep. sure is
// false where encoding/json has made U+FFFD of something, and cannot tell.
func strict(text []byte) (ok, sure bool) {
	if !utf8.Valid(text) || !json.Valid(text) || !strings.HasPrefix(strings.TrimLeft(string(text), " \t\r\n"), "{") {
		return false, true
	}
	sure = true
	decoder := json.NewDecoder(bytes.NewReader(text))
	decoder.UseNumber()
	type level struct {
		names map[string]bool // nil: an array
		name  bool            // the next token is a member's name
	}
	var levels []level
	for {
		token, err := decoder.Token()
		if err != nil {
			return true, sure
		}
		var top *level
		if len(levels) > 0 {
			top = &levels[len(levels)-1]
		}
		if s, ok := token.(string); ok && strings.ContainsRune(s, utf8.RuneError) {
			sure = false
		}
		switch {
		case token == json.Delim('}') || token == json.Delim(']'):
			levels = levels[:len(levels)-1]
			continue
		case top != nil && top.names != nil && top.name:
			if top.names[token.(string)] {
				return false, sure
			}
			top.names[token.(string)], top.name = true, false
			continue
		case top != nil && top.names != nil:
			top.name = true
		}
		switch token {
		case json.Delim('{'):
			levels = append(levels, level{map[string]bool{}, true})
		case json.Delim('['):
			levels = append(levels, level{})
		}
		if len(levels) > maxDepth {
			return false, sure
		}
	}
}

// FuzzDecodeBase64URL checks that what is decoded has one spelling, and that nothing
// with that spelling is refused.
func FuzzDecodeBase64URL(f *testing.F) {
	for _, seed := range []string{"", "AQ", "AQI", "AQID", "AR", "A", "AQIDA", "AQI=", "AQ\nID", "AAAA\n", "AAA\nA", "\r\nAA", "AAAA\r\n\r\nA"} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, text string) {
		got, err := DecodeBase64URL(text)
		loose, looseErr := base64.RawURLEncoding.DecodeString(text)
		canonical := looseErr == nil && base64.RawURLEncoding.EncodeToString(loose) == text
		if canonical != (err == nil) || canonical && !bytes.Equal(got, loose) {
			t.Fatalf("%q: got %v, %v; encoding/base64 %v, %v", text, got, err, loose, looseErr)
		}
	})
}

func FuzzParseObject(f *testing.F) {
	for _, seed := range []string{
		`{}`, ` { "a" : 1 } `, `{"a":1,"a":2}`, `{"a":1,"\u0061":2}`, `{"a":1,"A":2}`, `{"a":[1,{"b":[]},"c",null,true,-1.5e+3]}`,
		`{"s":"\ud83d\ude00"}`, `{"s":"\ud83d"}`, `{"s":"\"\\\/\b\f\n\r\t"}`, `{"n":1e300,"m":1e999,"o":-0}`, `{"a":01}`, `{}{}`, `{} `, "{\"\xff\":1}",
		members(17, `"m3":1`), nested(16), nested(17), `{"a":"�"}`, `{"o":{"a":{"a":1}},"a":[[{"a":2}]]}`,
		`{"typ":"dpop+jwt","alg":"ES256","jwk":` + rfc7515EC + `}`,
	} {
		f.Add([]byte(seed))
	}
	f.Fuzz(func(t *testing.T, text []byte) {
		o, err := ParseObject(text)
		if ok, sure := strict(text); sure && ok != (err == nil) {
			t.Fatalf("%q: got %v, and encoding/json makes it %t", text, err, ok)
		}
		if err != nil {
			return
		}
		var want map[string]json.RawMessage
		if err := json.Unmarshal(text, &want); err != nil {
			t.Fatalf("%q: encoding/json refuses it: %v", text, err)
		}
		if o.Len() != len(want) {
			t.Fatalf("%q has %d members, to encoding/json %d", text, o.Len(), len(want))
		}
		for name, raw := range want {
			value, ok := o.Get(name)
			if !ok || string(value) != string(raw) {
				t.Fatalf("%q: member %q is %q, to encoding/json %q", text, name, value, raw)
			}
			agree(t, value)
		}
	})
}

// agree holds all that a value says of itself against encoding/json.
func agree(t *testing.T, value Value) {
	raw := []byte(value)
	var wantText *string
	isText := json.Unmarshal(raw, &wantText) == nil && wantText != nil
	if got, ok := value.Text(); ok != isText || ok && got != *wantText {
		t.Fatalf("%q: the text is %q, %t", value, got, ok)
	}
	var wantNumber *float64
	isNumber := json.Unmarshal(raw, &wantNumber) == nil && wantNumber != nil
	if got, ok := value.Number(); ok != isNumber || ok && got != *wantNumber {
		t.Fatalf("%q: the number is %v, %t", value, got, ok)
	}
	var wantElements []json.RawMessage
	isArray := json.Unmarshal(raw, &wantElements) == nil && wantElements != nil
	elements, ok := value.Array()
	if ok != isArray || len(elements) != len(wantElements) {
		t.Fatalf("%q: the array is %q, %t", value, elements, ok)
	}
	for i := range elements {
		if string(elements[i]) != string(wantElements[i]) {
			t.Fatalf("%q: element %d is %q", value, i, elements[i])
		}
	}
	if o, ok := value.Object(); ok != (value[0] == '{') || ok && o.Len() < 0 {
		t.Fatalf("%q: is an object: %t", value, ok)
	}
	var compact bytes.Buffer
	if err := json.Compact(&compact, raw); err != nil || value.Compact() != compact.String() {
		t.Fatalf("%q: compact it is %q", value, value.Compact())
	}
	if scalar, ok := value.Scalar(); ok != (!value.IsNull() && value[0] != '{' && value[0] != '[') || value.IsString() && scalar != *wantText {
		t.Fatalf("%q: the scalar is %q, %t", value, scalar, ok)
	}
}

func FuzzParseJWS(f *testing.F) {
	for _, seed := range []string{
		encode(`{"alg":"ES256"}`) + "." + encode(`{"jti":"1"}`) + "." + encode("signature"),
		encode(`{"alg":"none"}`) + "." + encode(`{}`) + ".",
		"e30.e30.AA", "e30.e30.AB", "e30=.e30.AA", "e30.e30.A\nA", "e30.e30", "e30.e30.AA.AA", "..", ".e30.AA", "e30..AA",
		`{"payload":"e30","protected":"e30","signature":"AA"}`,
	} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, compact string) {
		jws, err := ParseJWS(compact)
		if err != nil {
			return
		}
		// There is one spelling of what was accepted: encode it again.
		if again := jws.Input + "." + base64.RawURLEncoding.EncodeToString(jws.Signature); again != compact {
			t.Fatalf("%q is also %q", compact, again)
		}
		parts := strings.Split(compact, ".")
		if len(parts) != 3 {
			t.Fatalf("%q has %d parts", compact, len(parts))
		}
		for i, o := range []Object{jws.Header, jws.Claims} {
			text, err := base64.RawURLEncoding.DecodeString(parts[i])
			if err != nil || base64.RawURLEncoding.EncodeToString(text) != parts[i] {
				t.Fatalf("part %d of %q is not canonical", i, compact)
			}
			var want map[string]json.RawMessage
			if err := json.Unmarshal(text, &want); err != nil || len(want) != o.Len() {
				t.Fatalf("part %d of %q: %v, %d members", i, compact, err, len(want))
			}
		}
	})
}

func FuzzParseKey(f *testing.F) {
	for _, seed := range []string{
		rfc7638RSA, rfc8037Ed, rfc7515EC, `{"kty":"oct","k":"AQ"}`, `{"d":"AQ",` + rfc8037Ed[1:], strings.Replace(rfc7638RSA, "AQAB", "AQ", 1),
		strings.Replace(rfc7638RSA, "AQAB", "Aw", 1), `{"kty":"OKP","crv":"Ed25519","x":"AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA"}`,
		`{"kty":"EC","crv":"P-521","x":"AA","y":"AA"}`, strings.Replace(rfc7515EC, "P-256", "P-384", 1), `{"kty":"RSA","n":"AQ","e":"AQAB"}`,
		`{"ext":true,"key_ops":["verify"],` + rfc7515EC[1:], strings.Replace(rfc7515EC, "x_FE", `x\u005fFE`, 1),
	} {
		f.Add([]byte(seed))
	}
	required := map[string][]string{"EC": {"crv", "kty", "x", "y"}, "OKP": {"crv", "kty", "x"}, "RSA": {"e", "kty", "n"}} // RFC 7638 §3.2
	f.Fuzz(func(t *testing.T, text []byte) {
		jwk, err := ParseObject(text)
		if err != nil {
			return
		}
		key, err := ParseKey(jwk)
		if err != nil {
			return
		}
		// The thumbprint by encoding/json, which writes members in order.
		var all map[string]any
		if err := json.Unmarshal(text, &all); err != nil {
			t.Fatal(err)
		}
		some := make(map[string]any)
		for _, name := range required[all["kty"].(string)] {
			some[name] = all[name]
		}
		canonical, err := json.Marshal(some)
		if err != nil {
			t.Fatal(err)
		}
		sum := sha256.Sum256(canonical)
		if want := base64.RawURLEncoding.EncodeToString(sum[:]); key.Thumbprint != want {
			t.Fatalf("%s: thumbprint %s, not %s", text, key.Thumbprint, want)
		}
		for _, name := range []string{"d", "p", "q", "dp", "dq", "qi", "oth", "k"} {
			if _, ok := all[name]; ok {
				t.Fatalf("%s: accepted with %s", text, name)
			}
		}
		fits := 0
		for _, alg := range AllAlgorithms() {
			if alg.Fits(key) {
				fits++
			}
			for _, size := range []int{0, 64, 96, 132, 256, 512} {
				if alg.Verify(key, "input", make([]byte, size)) == nil {
					t.Fatalf("%s: %s takes %d zeros for a signature", text, alg.Name, size)
				}
			}
		}
		if fits == 0 {
			t.Fatalf("%s: no algorithm for it", text)
		}
	})
}
