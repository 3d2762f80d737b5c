package printable

import (
	"strings"
	"testing"
	"unicode"
	"unicode/utf8"
)

func TestText(t *testing.T) {
	for _, row := range []struct {
		text  string
		limit int
		want  string
	}{
		{"", 3, ""},
		{"abc", 3, "abc"},
		{"abcd", 3, "abc..."},
		{"äöü", 3, "äöü"},
		{"äöüß", 3, "äöü..."},
		{`"quoted" \ and 'so'`, 50, `"quoted" \ and 'so'`},
		{"\x1b[31mred\x1b[0m", 50, `\x1b[31mred\x1b[0m`},
		{"a\r\nb\tc\x00", 50, `a\r\nb\tc\x00`},
		{"\u202egnp.exe", 50, `\u202egnp.exe`}, // right-to-left override
		{"\u009b31m", 50, `\u009b31m`},         // CSI in one character
		{"\xff\xfe", 50, `\xff\xfe`},
		{"\x05\xc3", 50, `\x05\xc3`},
		{"a\u200bb", 50, `a\u200bb`}, // zero width
	} {
		if got := Text(row.text, row.limit); got != row.want {
			t.Errorf("%q: %q, want %q", row.text, got, row.want)
		}
	}
}

func FuzzText(f *testing.F) {
	f.Add("a\x1b[2J", 4)
	f.Fuzz(func(t *testing.T, text string, limit int) {
		got := Text(text, limit)
		if !utf8.ValidString(got) || strings.ContainsFunc(got, func(r rune) bool { return !unicode.IsPrint(r) }) {
			t.Errorf("%q is shown as %q", text, got)
		}
	})
}
