package jose

import (
	"bytes"
	"encoding/base64"
	"errors"
	"strings"
	"testing"
)

func encode(text string) string { return base64.RawURLEncoding.EncodeToString([]byte(text)) }

func TestDecodeBase64URL(t *testing.T) {
	tests := []struct {
		name, text string
		want       []byte // nil: refused
	}{
		{"nothing", "", []byte{}},
		{"one octet", "AQ", []byte{1}},
		{"two octets", "AQI", []byte{1, 2}},
		{"three octets", "AQID", []byte{1, 2, 3}},
		{"the two letters of the URL alphabet, RFC 4648 §5", "-_-_", []byte{0xfb, 0xff, 0xbf}},
		{"RFC 7515 appendix C", "A-z_4ME", []byte{3, 236, 255, 224, 193}},

		// RFC 7515 §2: without padding, line breaks, white space or other characters.
		{"padding of one", "AQI=", nil},
		{"padding of two", "AQ==", nil},
		{"padding where none is needed", "AQID====", nil},
		{"padding alone", "=", nil},
		{"line feed at the end", "AQID\n", nil},
		{"line feed within", "AQ\nID", nil},
		{"carriage return within", "AQ\rID", nil},
		{"line break alone", "\r\n", nil},
		{"space", "AQ ID", nil},
		{"tab", "AQID\t", nil},
		{"plus, of the other alphabet", "+_-_", nil},
		{"slash, of the other alphabet", "-/-_", nil},
		{"full stop", "AQ.D", nil},
		{"percent-encoding", "AQ%3D", nil},
		{"not ASCII", "AQIÐ", nil},
		{"NUL", "AQID\x00", nil},
		{"one character over", "A", nil},
		{"one character over, after four", "AQIDA", nil},

		// RFC 4648 §3.5: bits that encode nothing must be zero, or one octet string
		// has up to 16 spellings, and a signature with it.
		{"trailing bit of one octet", "AR", nil},
		{"all trailing bits of one octet", "Af", nil},
		{"trailing bit of two octets", "AQJ", nil},
		{"all trailing bits of two octets", "AQL", nil},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			got, err := DecodeBase64URL(test.text)
			if (err == nil) != (test.want != nil) || !bytes.Equal(got, test.want) {
				t.Errorf("%q: got %v, %v; want %v", test.text, got, err, test.want)
			}
		})
	}
}

// TestDecodeBase64URLBreaks puts up to four line breaks into texts of all lengths that
// base64 repeats itself in.
func TestDecodeBase64URLBreaks(t *testing.T) {
	for n := range 13 {
		for first := range n + 1 {
			for breaks := 1; breaks <= 4; breaks++ {
				for _, with := range []string{"\n", "\r"} {
					letters := strings.Repeat("A", n)
					text := letters[:first] + strings.Repeat(with, breaks) + letters[first:]
					if got, err := DecodeBase64URL(text); err == nil {
						t.Errorf("%q is decoded to %v", text, got)
					}
				}
			}
		}
	}
}

func TestParseJWS(t *testing.T) {
	const header, claims = `{"alg":"ES256"}`, `{"jti":"1"}`
	compact := encode(header) + "." + encode(claims) + "." + encode("signature")
	jws, err := ParseJWS(compact)
	if err != nil {
		t.Fatal(err)
	}
	if alg, _ := jws.Header.Get("alg"); string(alg) != `"ES256"` || jws.Header.Len() != 1 {
		t.Errorf("alg is %s among %d members of the header", alg, jws.Header.Len())
	}
	if jti, _ := jws.Claims.Get("jti"); string(jti) != `"1"` || jws.Claims.Len() != 1 {
		t.Errorf("jti is %s among %d claims", jti, jws.Claims.Len())
	}
	// RFC 7515 §5.2 step 8: signed is the text as it came.
	if want := encode(header) + "." + encode(claims); jws.Input != want {
		t.Errorf("signing input %q, not %q", jws.Input, want)
	}
	if string(jws.Signature) != "signature" {
		t.Errorf("signature %q", jws.Signature)
	}
}

func TestParseJWSRefuses(t *testing.T) {
	head, claims, signature := encode(`{"alg":"ES256"}`), encode(`{"jti":"1"}`), encode("signature")
	const whole = "" // the text as a whole, and no one part
	tests := []struct {
		name, compact, part string
	}{
		{"nothing", "", whole},
		{"one part", head, whole},
		{"two parts, RFC 7515 §7.1", head + "." + claims, whole},
		{"four parts", head + "." + claims + "." + signature + "." + signature, whole},
		{"an empty fourth part", head + "." + claims + "." + signature + ".", whole},
		{"five parts: encrypted, RFC 7516 §7.1", head + "." + claims + "." + signature + ".AA.AA", whole},
		{"JSON serialisation, flattened, RFC 7515 §7.2.2",
			`{"payload":"` + claims + `","protected":"` + head + `","signature":"` + signature + `"}`, whole},
		{"JSON serialisation, general, RFC 7515 §7.2.1",
			`{"payload":"` + claims + `","signatures":[{"protected":"` + head + `","signature":"` + signature + `"}]}`, whole},
		{"JSON around a compact one (CVE-2022-39227, python-jwt)",
			`{"  ` + head + `.":"","payload":"` + claims + `","protected":"` + head + `","signature":"` + signature + `","x":".` + claims + `"}`, "header"},
		{"empty header", "." + claims + "." + signature, "header"},
		{"empty claims: detached, RFC 7515 appendix F", head + ".." + signature, "claims"},
		{"nothing but dots", "..", "header"},
		{"header that is no JSON", encode("alg") + "." + claims + "." + signature, "header"},
		{"header that is an array", encode(`["ES256"]`) + "." + claims + "." + signature, "header"},
		{"header that repeats a member, RFC 7515 §4",
			encode(`{"alg":"ES256","alg":"none"}`) + "." + claims + "." + signature, "header"},
		{"header with data after it", encode(`{"alg":"ES256"}{}`) + "." + claims + "." + signature, "header"},
		{"claims that are no object, RFC 7519 §7.2 step 10", head + "." + encode(`"jti"`) + "." + signature, "claims"},
		{"claims that repeat a member, RFC 7519 §4", head + "." + encode(`{"jti":"1","jti":"2"}`) + "." + signature, "claims"},
		{"claims in bad UTF-8", head + "." + encode("{\"jti\":\"\xff\"}") + "." + signature, "claims"},
		{"header with padding", head + "=." + claims + "." + signature, "header"},
		{"claims with padding", head + "." + claims + "=." + signature, "claims"},
		{"signature with padding", head + "." + claims + "." + encode("s") + "==", "signature"},
		{"signature in the other alphabet", head + "." + claims + ".+/AA", "signature"},
		{"signature with trailing bits", head + "." + claims + ".AB", "signature"},
		{"line feed at the end", head + "." + claims + "." + signature + "\n", "signature"},
		{"space at the start", " " + head + "." + claims + "." + signature, "header"},
		{"line feed in the header", head[:4] + "\n" + head[4:] + "." + claims + "." + signature, "header"},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			_, err := ParseJWS(test.compact)
			if err == nil {
				t.Fatalf("%q was accepted", test.compact)
			}
			var part *PartError
			switch {
			case test.part == whole && !errors.Is(err, ErrNotCompact):
				t.Errorf("the error is %v", err)
			case test.part != whole && !errors.As(err, &part):
				t.Errorf("the error is %v", err)
			case test.part != whole && part.Part != test.part:
				t.Errorf("the error is in the %s: %v", part.Part, err)
			case test.part != whole && errors.Unwrap(err) == nil:
				t.Errorf("the error wraps no reason: %v", err)
			}
		})
	}
}

func TestMediaTypeIs(t *testing.T) {
	tests := []struct {
		typ, want string
		is        bool
	}{
		// RFC 7515 §4.1.9, RFC 9449 §4.2.
		{"dpop+jwt", "dpop+jwt", true},
		{"DPoP+JWT", "dpop+jwt", true},
		{"application/dpop+jwt", "dpop+jwt", true},
		{"APPLICATION/Dpop+Jwt", "dpop+jwt", true},
		{"at+jwt", "at+JWT", true},
		{"", "dpop+jwt", false},
		{"jwt", "dpop+jwt", false},
		{"dpop", "dpop+jwt", false},
		{"dpop+jwt ", "dpop+jwt", false},
		{" dpop+jwt", "dpop+jwt", false},
		{"dpop+jwt\x00", "dpop+jwt", false},
		{"dpop+jwt;a=b", "dpop+jwt", false},
		{"dpop jwt", "dpop+jwt", false},
		{"text/dpop+jwt", "dpop+jwt", false},
		{"applications/dpop+jwt", "dpop+jwt", false},
		{"/dpop+jwt", "dpop+jwt", false},
		{"application/", "dpop+jwt", false},
		{"application/", "", false},
		{"application/application/dpop+jwt", "dpop+jwt", false},
		{"xapplication/dpop+jwt", "dpop+jwt", false},
		{"application/at+jwt", "dpop+jwt", false},
		// Unicode's simple folding makes U+212A a k, and U+017F an s.
		{"\u212aey+jwt", "key+jwt", false},
		{"\u017fecevent+jwt", "secevent+jwt", false},
		{"application/to\u212aen-intro\u017fpection+jwt", "token-introspection+jwt", false},
		{"application/token-introspection+jwt", "token-introspection+jwt", true},
	}
	for _, test := range tests {
		if MediaTypeIs(test.typ, test.want) != test.is {
			t.Errorf("%q as %q: %t", test.typ, test.want, !test.is)
		}
	}
}

func TestPartErrorNamesThePart(t *testing.T) {
	_, err := ParseJWS(encode(`{}`) + "." + encode(`[]`) + ".AA")
	if err == nil || !strings.HasPrefix(err.Error(), "claims: ") {
		t.Errorf("the error is %v", err)
	}
}
