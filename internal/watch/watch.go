// Package watch keeps what a local file holds, and reads it again when the file
// changes: Caddy skips a reload whose text is the same, so a rotated key or
// certificate would otherwise wait for a restart.
package watch

import (
	"fmt"
	"io"
	"os"
	"sync"
	"time"
)

const (
	// interval is the least time between looks at the file that nobody asks for.
	interval = time.Second
	// maxSize bounds a file, in bytes.
	maxSize = 1 << 20
)

// File is a file that holds a T. While a changed file cannot be read or
// understood, what it held before goes on serving.
type File[T any] struct {
	path  string
	parse func([]byte) (T, error)
	now   func() time.Time

	mu      sync.Mutex
	value   T
	stamp   stamp
	changed time.Time // when the value was read
	looked  time.Time
	lookErr error // of the last look
	readErr error // of the state that the stamp tells
}

// stamp tells one state of a file from another.
type stamp struct {
	modified time.Time
	size     int64
}

// Open reads the file for the first time. Errors name the file.
func Open[T any](path string, parse func([]byte) (T, error)) (*File[T], error) {
	f := &File[T]{path: path, parse: parse, now: time.Now}
	f.look()
	if _, err := f.Status(); err != nil {
		return nil, err
	}
	return f, nil
}

// Get returns what the file holds, as of a second ago at most.
func (f *File[T]) Get() T {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.now().Sub(f.looked) >= interval {
		f.look()
	}
	return f.value
}

// Look returns what the file holds as of now.
func (f *File[T]) Look() T {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.look()
	return f.value
}

// Status returns when what the file holds was read, and why it could not be
// read again since, if so.
func (f *File[T]) Status() (changed time.Time, err error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.lookErr != nil {
		return f.changed, f.lookErr
	}
	return f.changed, f.readErr
}

// look reads the file if it has changed since it was last read, whether that
// could be understood or not.
func (f *File[T]) look() {
	f.looked = f.now()
	info, err := os.Stat(f.path)
	if f.lookErr = err; err != nil { // names the file
		return
	}
	current := stamp{info.ModTime(), info.Size()}
	if current == f.stamp {
		return
	}
	text, err := f.read()
	if err != nil { // maybe not for long, though the file stays as it is
		f.readErr = err
		return
	}
	f.stamp = current
	value, err := f.parse(text)
	if err != nil {
		f.readErr = fmt.Errorf("%s: %w", f.path, err)
		return
	}
	f.value, f.changed, f.readErr = value, f.looked, nil
}

func (f *File[T]) read() ([]byte, error) {
	file, err := os.Open(f.path)
	if err != nil {
		return nil, err
	}
	defer file.Close()
	text, err := io.ReadAll(io.LimitReader(file, maxSize+1))
	if err != nil {
		return nil, err
	}
	if len(text) > maxSize {
		return nil, fmt.Errorf("%s: larger than %d bytes", f.path, maxSize)
	}
	return text, nil
}
