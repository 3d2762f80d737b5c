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
	keys, _ := f.set.find(kid, algorithm)
	return keys, nil
}

func (f *File) reload() {
	f.looked = f.now()
	set, stamp, err := f.read()
	if err != nil {
		f.lastErr = fmt.Errorf("key set file %s: %w", f.path, err)
		return
	}
	if set != nil {
		f.set, f.stamp = set, stamp
	}
	f.lastErr = nil
}

// read returns the set in the file, or nil if the file is as it was.
func (f *File) read() (*Set, fileStamp, error) {
	info, err := os.Stat(f.path)
	if err != nil {
		return nil, fileStamp{}, err
	}
	stamp := fileStamp{info.ModTime(), info.Size()}
	if stamp == f.stamp {
		return nil, stamp, nil
	}
	file, err := os.Open(f.path)
	if err != nil {
		return nil, fileStamp{}, err
	}
	defer file.Close()
	text, err := io.ReadAll(io.LimitReader(file, maxSetSize+1))
	if err != nil {
		return nil, fileStamp{}, err
	}
	set, err := Parse(text)
	return set, stamp, err
}

// Status returns the state of the set.
func (f *File) Status() Status {
	f.mu.Lock()
	defer f.mu.Unlock()
	return Status{Keys: f.set.Len(), FetchedAt: f.stamp.modified, Err: f.lastErr}
}
