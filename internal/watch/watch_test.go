package watch

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

var epoch = time.Unix(1_700_000_000, 0)

// fixture is a watched file whose times of change, and whose clock, tests set.
type fixture struct {
	*File[string]
	path    string
	clock   time.Time
	changes int
}

func parse(text []byte) (string, error) {
	if strings.HasPrefix(string(text), "bad") {
		return "", errors.New("is bad")
	}
	return string(text), nil
}

func open(t *testing.T, text string) *fixture {
	t.Helper()
	f := &fixture{path: filepath.Join(t.TempDir(), "file"), clock: epoch}
	f.write(t, text)
	var err error
	if f.File, err = Open(f.path, parse); err != nil {
		t.Fatal(err)
	}
	f.now = func() time.Time { return f.clock }
	f.looked = f.clock
	return f
}

func (f *fixture) write(t *testing.T, text string) {
	t.Helper()
	if err := os.WriteFile(f.path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	f.changes++
	at := epoch.Add(time.Duration(f.changes) * time.Minute)
	if err := os.Chtimes(f.path, at, at); err != nil {
		t.Fatal(err)
	}
}

func (f *fixture) expect(t *testing.T, value string, good bool) {
	t.Helper()
	if got := f.Get(); got != value {
		t.Errorf("got %q, want %q", got, value)
	}
	if _, err := f.Status(); (err == nil) != good {
		t.Errorf("status %v", err)
	}
}

func TestOpenRefuses(t *testing.T) {
	dir := t.TempDir()
	for name, text := range map[string]string{"bad": "bad", "too large": strings.Repeat("a", maxSize+1)} {
		path := filepath.Join(dir, "file")
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		if _, err := Open(path, parse); err == nil || !strings.Contains(err.Error(), path) {
			t.Errorf("%s: %v", name, err)
		}
	}
	for _, path := range []string{dir, filepath.Join(dir, "missing")} {
		if _, err := Open(path, parse); err == nil || !strings.Contains(err.Error(), path) {
			t.Errorf("%s: %v", path, err)
		}
	}
}

func TestFileIsReadAgain(t *testing.T) {
	f := open(t, "a")
	f.expect(t, "a", true)
	f.write(t, "b")
	f.expect(t, "a", true) // not for each who asks
	f.clock = f.clock.Add(interval - 1)
	f.expect(t, "a", true)
	f.clock = f.clock.Add(1)
	f.expect(t, "b", true)

	f.write(t, "c") // of the same size
	if got := f.Look(); got != "c" {
		t.Errorf("looked, got %q", got)
	}

	// replaced by another file, as deployments do
	next := &fixture{path: f.path + ".next", changes: f.changes}
	next.write(t, "d")
	if err := os.Rename(next.path, f.path); err != nil {
		t.Fatal(err)
	}
	f.clock = f.clock.Add(interval)
	f.expect(t, "d", true)
	if changed, _ := f.Status(); !changed.Equal(f.clock) {
		t.Errorf("changed at %v, want %v", changed, f.clock)
	}
}

func TestWhatWasGoodGoesOnServing(t *testing.T) {
	f := open(t, "a")
	for _, text := range []string{"bad", "bad too"} {
		f.write(t, text)
		for range 3 {
			f.clock = f.clock.Add(interval)
			f.expect(t, "a", false)
		}
	}
	f.write(t, "b")
	f.clock = f.clock.Add(interval)
	f.expect(t, "b", true)

	// gone, and back as it was
	aside := f.path + ".aside"
	for _, move := range [][2]string{{f.path, aside}, {aside, f.path}} {
		if err := os.Rename(move[0], move[1]); err != nil {
			t.Fatal(err)
		}
		f.clock = f.clock.Add(48 * time.Hour)
		f.expect(t, "b", move[1] == f.path)
	}
}

// A file that cannot be understood is not read again until it changes.
func TestBadFileIsReadOnce(t *testing.T) {
	f := open(t, "a")
	reads := 0
	f.parse = func(text []byte) (string, error) {
		reads++
		return parse(text)
	}
	f.write(t, "bad")
	for range 10 {
		_ = f.Look()
	}
	if reads != 1 {
		t.Errorf("read %d times", reads)
	}
}

// A file that could not be opened is tried again, though it has not changed.
func TestUnreadableFileIsTriedAgain(t *testing.T) {
	f := open(t, "a")
	f.write(t, "b")
	path := f.File.path
	f.File.path = filepath.Dir(path) // which can be looked at, but not read
	if got := f.Look(); got != "a" {
		t.Errorf("got %q", got)
	}
	if _, err := f.Status(); err == nil {
		t.Error("no error in the status")
	}
	f.File.path = path
	f.clock = f.clock.Add(interval)
	f.expect(t, "b", true)
}
