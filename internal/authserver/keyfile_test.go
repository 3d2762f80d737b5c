package authserver

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// A key that the set does not hold is looked for in the file at once, and what
// was good goes on serving while the file is not.
func TestFile(t *testing.T) {
	path := filepath.Join(t.TempDir(), "keys.json")
	write := func(text string, at time.Duration) {
		t.Helper()
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		if err := os.Chtimes(path, epoch.Add(at), epoch.Add(at)); err != nil {
			t.Fatal(err)
		}
	}
	write("<html>", 0)
	if _, err := NewKeyFile(path); err == nil || !strings.Contains(err.Error(), path) {
		t.Errorf("took HTML: %v", err)
	}

	write(kids("a"), time.Minute)
	f, err := NewKeyFile(path)
	if err != nil {
		t.Fatal(err)
	}
	expectFind(t, f, "a", 1)
	expectFind(t, f, "x", 0) // nowhere else to ask: not unavailable
	write(kids("b", "c"), 2*time.Minute)
	expectFind(t, f, "b", 1)
	expectFind(t, f, "a", 0) // withdrawn
	if s := f.Status(); s.Keys != 2 || s.Err != nil || s.FetchedAt.IsZero() {
		t.Errorf("status %+v", s)
	}
	write(`{"keys":5}`, 3*time.Minute)
	expectFind(t, f, "x", 0)
	expectFind(t, f, "b", 1)
	if s := f.Status(); s.Keys != 2 || s.Err == nil {
		t.Errorf("status %+v", s)
	}
}
