// Package printable makes text that others have chosen fit to be shown on a
// terminal.
package printable

import (
	"fmt"
	"strconv"
	"strings"
	"unicode"
	"unicode/utf8"
)

// Text returns the text with all that could move a cursor, change a colour or the
// direction of writing, or pass for a line of its own, written as Go writes it in
// a string. Of a text that is longer than the limit, in characters, it is the
// beginning.
func Text(text string, limit int) string {
	var b strings.Builder
	n := 0
	for i := 0; i < len(text); n++ {
		if n == limit {
			return b.String() + "..."
		}
		r, size := utf8.DecodeRuneInString(text[i:])
		switch {
		case r == utf8.RuneError && size == 1:
			fmt.Fprintf(&b, `\x%02x`, text[i])
		case unicode.IsPrint(r):
			b.WriteRune(r)
		default:
			quoted := strconv.QuoteRune(r)
			b.WriteString(quoted[1 : len(quoted)-1])
		}
		i += size
	}
	return b.String()
}
