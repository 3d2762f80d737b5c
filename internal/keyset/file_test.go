package keyset

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// keyFile is a file whose time of change tests set, so that no change is lost
// to the file system's granularity.
type keyFile struct {
	path    string
	changes time.Duration
}

func (k *keyFile) write(t *testing.T, text string) {
	t.Helper()
	if err := os.WriteFile(k.path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	k.changes += time.Minute
	if err := os.Chtimes(k.path, epoch, epoch.Add(k.changes)); err != nil {
		t.Fatal(err)
	}
}

func newTestFile(t *testing.T, text string) (*File, *keyFile, *clock) {
	t.Helper()
	k := &keyFile{path: filepath.Join(t.TempDir(), "keys.json")}
	k.write(t, text)
	f, err := NewFile(k.path)
	if err != nil {
		t.Fatal(err)
	}
	clock := new(clock)
	f.now = clock.now
	f.looked = clock.now()
	return f, k, clock
}

func TestNewFileRefuses(t *testing.T) {
	dir := t.TempDir()
	if _, err := NewFile(filepath.Join(dir, "missing.json")); err == nil || !strings.Contains(err.Error(), "missing.json") {
		t.Errorf("missing: %v", err)
	}
	if _, err := NewFile(dir); err == nil {
		t.Error("took a directory")
	}
	for name, text := range map[string]string{
		"empty": "", "no set": `{}`, "HTML": "<html>", "a PEM": "-----BEGIN PUBLIC KEY-----",
		"too large": `{"keys":[],"pad":"` + strings.Repeat("a", 512<<10) + `"}`,
	} {
		path := filepath.Join(dir, "keys.json")
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		if f, err := NewFile(path); f != nil || err == nil || !strings.Contains(err.Error(), path) {
			t.Errorf("%s: got %v, %v", name, f, err)
		}
	}
}

func TestFileIsReadAgain(t *testing.T) {
	f, k, clock := newTestFile(t, kids("a"))
	expectFind(t, f, "a", 1)
	expectFind(t, f, "b", 0) // nowhere else to ask: not unavailable
	if s := f.Status(); s.Keys != 1 || s.Err != nil || s.FetchedAt.IsZero() {
		t.Errorf("status %+v", s)
	}

	k.write(t, kids("b", "c"))
	clock.advance(lookInterval)
	expectFind(t, f, "a", 0) // withdrawn
	expectFind(t, f, "b", 1)
	expectFind(t, f, "c", 1)
	if s := f.Status(); s.Keys != 2 || s.Err != nil {
		t.Errorf("status %+v", s)
	}

	// replaced by another file, as deployments do; of the same size
	next := &keyFile{path: k.path + ".next", changes: k.changes}
	next.write(t, kids("d", "e"))
	if err := os.Rename(next.path, k.path); err != nil {
		t.Fatal(err)
	}
	clock.advance(lookInterval)
	expectFind(t, f, "d", 1)
	expectFind(t, f, "b", 0)
}

// Between looks the file is left alone.
func TestFileIsNotReadForEachRequest(t *testing.T) {
	f, k, clock := newTestFile(t, kids("a"))
	k.write(t, kids("b"))
	clock.advance(lookInterval - 1)
	expectFind(t, f, "a", 1)
	clock.advance(1)
	expectFind(t, f, "a", 0)
}

func TestFileKeepsTheSetThatWasGood(t *testing.T) {
	f, k, clock := newTestFile(t, kids("a"))
	bad := func(name string) {
		t.Helper()
		for range 3 {
			clock.advance(lookInterval)
			expectFind(t, f, "a", 1)
		}
		if s := f.Status(); s.Err == nil || s.Keys != 1 {
			t.Errorf("%s: status %+v", name, s)
		}
	}
	for name, text := range map[string]string{"empty": "", "cut short": kids("b")[:100], "no set": `{"keys":5}`} {
		k.write(t, text)
		bad(name)
	}
	if err := os.Remove(k.path); err != nil {
		t.Fatal(err)
	}
	bad("removed")
	clock.advance(48 * time.Hour) // a file is the operator's own: no end to it
	expectFind(t, f, "a", 1)

	k.write(t, kids("b"))
	clock.advance(lookInterval)
	expectFind(t, f, "b", 1)
	if s := f.Status(); s.Err != nil {
		t.Errorf("recovered, but status %+v", s)
	}

	// bad, and then as it was before: nothing to read, and nothing wrong
	k.write(t, "bad")
	clock.advance(lookInterval)
	expectFind(t, f, "b", 1)
	k.changes -= 2 * time.Minute
	k.write(t, kids("b"))
	clock.advance(lookInterval)
	expectFind(t, f, "b", 1)
	if s := f.Status(); s.Err != nil || s.Keys != 1 {
		t.Errorf("as before, but status %+v", s)
	}
}

// A key that the set does not hold is looked for at once; a file that cannot be
// understood is not read again for each.
func TestFileIsReadForAnUnknownKey(t *testing.T) {
	f, k, _ := newTestFile(t, kids("a"))
	k.write(t, kids("b"))
	expectFind(t, f, "a", 1) // the last look was just now
	expectFind(t, f, "b", 1)
	k.write(t, "<html>")
	expectFind(t, f, "c", 0)
	expectFind(t, f, "b", 1)
	if f.Status().Err == nil {
		t.Error("no error in the status")
	}
}
