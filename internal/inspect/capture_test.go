package inspect

import (
	"slices"
	"strings"
	"testing"
)

// What a client has sent, as curl -v prints it.
const head = `* Connected to api.example.com
> GET /orders HTTP/1.1
> Host: api.example.com
> Authorization: DPoP abc.def.ghi
> DPoP: jkl.mno.pqr
>
< HTTP/1.1 401 Unauthorized
`

func TestParseAuthorization(t *testing.T) {
	for text, want := range map[string][]string{
		"":                                {},
		" \n":                             {},
		"abc":                             {"DPoP abc"},
		"abc\n":                           {"DPoP abc"},
		"DPoP abc":                        {"DPoP abc"},
		"dpop  abc":                       {"dpop  abc"},
		"Bearer abc":                      {"Bearer abc"},
		"Authorization: DPoP abc":         {"DPoP abc"},
		"authorization:Bearer abc\r\n":    {"Bearer abc"},
		"Authorization: abc":              {"DPoP abc"},
		"> Authorization: DPoP abc":       {"DPoP abc"},
		"abc\ndef":                        {"DPoP abc", "DPoP def"},
		"Authorization: DPoP a\nDPoP: b":  {"DPoP a"},
		"Authorization: a\nAuthorization": {"DPoP a"},
		"Authorization: a b\nauthorization: c\nHost: d": {"a b", "DPoP c"},
		head: {"DPoP abc.def.ghi"},
		"> GET / HTTP/1.1\n> Host: a\n> DPoP: b\n": {},
	} {
		if got := ParseAuthorization(text); got == nil || !slices.Equal(got, want) {
			t.Errorf("%q: %q, want %q", text, got, want)
		}
	}
}

func TestParseProof(t *testing.T) {
	for text, want := range map[string][]string{
		"":                         {},
		"abc":                      {"abc"},
		"DPoP: abc":                {"abc"},
		"dpop:abc\r\n":             {"abc"},
		"DPoP: abc\nDPoP: def":     {"abc", "def"},
		"abc\ndef\n\n":             {"abc", "def"},
		"abc def":                  {"abc def"},
		head:                       {"jkl.mno.pqr"},
		"DPoP:":                    {""},
		"Authorization: DPoP abc ": {},
		strings.Replace(head, "> DPoP", "> Dop", 1): {},
		"* Connected to a":                          {"* Connected to a"},
	} {
		if got := ParseProof(text); got == nil || !slices.Equal(got, want) {
			t.Errorf("%q: %q, want %q", text, got, want)
		}
	}
}

func TestParseTarget(t *testing.T) {
	for text, want := range map[string]struct{ uri, query string }{
		"https://API.example.com:443":    {"https://api.example.com/", ""},
		"http://a/b?c=d&e#f?g":           {"http://a/b", "c=d&e"},
		"http://a?access_token=x":        {"http://a/", "access_token=x"},
		"http://a#b?c":                   {"http://a/", ""},
		"https://a/%7Eb/../c?%61=1?&b=2": {"https://a/c", "%61=1?&b=2"},
	} {
		target, err := ParseTarget(text)
		if err != nil || target.URI.String() != want.uri || target.Query != want.query {
			t.Errorf("%s: %+v, %v", text, target, err)
		}
	}
	for _, text := range []string{"", "/a", "ftp://a", "https://", "https://a b/"} {
		if target, err := ParseTarget(text); err == nil {
			t.Errorf("%s: %+v", text, target)
		}
	}
}

// Each value is a line's, and holds all of it that is not space, name or mark.
func FuzzParseFields(f *testing.F) {
	f.Add(head)
	f.Add("Authorization:DPoP a\r\nauthorization : b")
	f.Fuzz(func(t *testing.T, text string) {
		for _, values := range [][]string{ParseAuthorization(text), ParseProof(text)} {
			if values == nil {
				t.Fatal("captured is not told from not captured")
			}
			for _, value := range values {
				value = strings.TrimPrefix(value, "DPoP ")
				if !strings.Contains(text, value) || strings.Contains(value, "\n") {
					t.Errorf("%q of %q", value, text)
				}
			}
		}
	})
}
