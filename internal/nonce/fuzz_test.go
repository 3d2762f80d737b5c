package nonce

import (
	"testing"
	"time"
)

// Every nonce of ours is known again, with its time, by whoever has the key alone.
func FuzzIssue(f *testing.F) {
	f.Add(int64(0), "a secret")
	f.Add(int64(1_700_000_000_123), "")
	f.Add(int64(1<<48-1), "\x00")
	f.Fuzz(func(t *testing.T, milliseconds int64, secret string) {
		at := time.UnixMilli(milliseconds & (1<<48 - 1))
		text := Keys{KeyOf(secret)}.Issue(at)
		if got, ours := (Keys{KeyOf("other"), KeyOf(secret)}).Issued(text); !ours || !got.Equal(at) {
			t.Fatalf("%q of %v is of %v, %t", text, at, got, ours)
		}
		if _, ours := (Keys{KeyOf(secret + "x")}).Issued(text); ours {
			t.Fatalf("%q is good for another secret", text)
		}
	})
}
