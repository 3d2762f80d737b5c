package nonce

import (
	"strings"
	"testing"
	"time"
)

var (
	now   = time.UnixMilli(1_700_000_000_123)
	first = Keys{KeyOf("a secret of the tests, long enough")}
	other = Keys{KeyOf("another secret of the tests, long")}
)

func TestIssued(t *testing.T) {
	text := first.Issue(now)
	if issued, ours := first.Issued(text); !ours || !issued.Equal(now) {
		t.Errorf("got %v %v, want %v", issued, ours, now)
	}
	if _, ours := other.Issued(text); ours {
		t.Error("another key accepts it")
	}
	if issued, ours := (Keys{other[0], first[0]}).Issued(text); !ours || !issued.Equal(now) {
		t.Error("a key after the first does not accept it")
	}
	if (Keys{other[0], first[0]}).Issue(now) != other.Issue(now) {
		t.Error("it is not the first key that issues")
	}
	if first.Issue(now) == first.Issue(now.Add(time.Millisecond)) {
		t.Error("nonces do not change with time")
	}
}

// Every other text is none of ours: each change of one character, each shorter
// and longer one, other alphabets.
func TestNotIssued(t *testing.T) {
	text := first.Issue(now)
	var others []string
	for i := range text {
		for _, c := range "ABCXYZabcxyz0189-_=+/ \n\x00\xff" {
			if changed := text[:i] + string(c) + text[i+1:]; changed != text {
				others = append(others, changed)
			}
		}
		others = append(others, text[:i], text[:i]+text[i+1:], text[:i]+"\n"+text[i:])
	}
	others = append(others, text+"A", text+"=", text+"\n", strings.ToUpper(text), strings.Repeat("A", len(text)), "\n"+text[:len(text)-1])
	for _, nonce := range others {
		if _, ours := first.Issued(nonce); ours {
			t.Errorf("%q is accepted", nonce)
		}
	}
}

func TestKeyOf(t *testing.T) {
	key := KeyOf("a")
	if len(key) != KeySize || string(key) != string(KeyOf("a")) || string(key) == string(KeyOf("b")) {
		t.Error("a key is not of its secret alone")
	}
}

// Whatever is sent, only what was issued is accepted.
func FuzzIssued(f *testing.F) {
	f.Add(first.Issue(now))
	f.Add("")
	f.Fuzz(func(t *testing.T, text string) {
		if issued, ours := first.Issued(text); ours && first.Issue(issued) != text {
			t.Errorf("%q is accepted as of %v", text, issued)
		}
	})
}

func BenchmarkIssued(b *testing.B) {
	text := first.Issue(now)
	b.ReportAllocs()
	for b.Loop() {
		if _, ours := first.Issued(text); !ours {
			b.Fatal("not ours")
		}
	}
}
