package keyset

import (
	"context"
	"fmt"
	"io"
	"os"
	"sync"
	"time"

	"github.com/caddy-dpop/caddy-dpop/internal/jose"
)

// File keeps the set of a local file, and reads it again when it has changed.
type File struct {
	path string
	now  func() time.Time

	mu      sync.Mutex
	set     *Set
	stamp   fileStamp
	looked  time.Time
	lastErr error
}

// fileStamp tells one state of a file from another.
type fileStamp struct {
	modified time.Time
	size     int64
}

// lookInterval is the least time between looks at the file.
const lookInterval = time.Second

// NewFile reads the file for the first time.
func NewFile(path string) (*File, error) {
	f := &File{path: path, now: time.Now}
	f.reload()
	if f.lastErr != nil {
		return nil, f.lastErr
	}
	return f, nil
}

// Find implements Finder. While a changed file cannot be read or understood,
// the set that was good goes on serving.
func (f *File) Find(_ context.Context, kid string, algorithm *jose.Algorithm) ([]*jose.Key, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.now().Sub(f.looked) >= lookInterval {
		f.reload()
	}
	keys, known := f.set.find(kid, algorithm)
	if !known {
		f.reload()
		keys, _ = f.set.find(kid, algorithm)
	}
	return keys, nil
}

// reload reads the file if it has changed since it was last read.
func (f *File) reload() {
	f.looked = f.now()
	info, err := os.Stat(f.path)
	if err != nil {
		f.fail(err)
		return
	}
	stamp := fileStamp{info.ModTime(), info.Size()}
	if stamp == f.stamp {
		return
	}
	f.stamp = stamp
	set, err := f.read()
	if err != nil {
		f.fail(err)
		return
	}
	f.set, f.lastErr = set, nil
}

// fail notes why the file cannot be read.
func (f *File) fail(err error) { f.lastErr = fmt.Errorf("key set file %s: %w", f.path, err) }

func (f *File) read() (*Set, error) {
	file, err := os.Open(f.path)
	if err != nil {
		return nil, err
	}
	defer file.Close()
	text, err := io.ReadAll(io.LimitReader(file, maxSetSize+1))
	if err != nil {
		return nil, err
	}
	return Parse(text)
}

// Status returns the state of the set.
func (f *File) Status() Status {
	f.mu.Lock()
	defer f.mu.Unlock()
	return Status{Keys: f.set.Len(), FetchedAt: f.stamp.modified, Err: f.lastErr}
}
