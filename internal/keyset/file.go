package keyset

import (
	"context"

	"github.com/caddy-dpop/caddy-dpop/internal/jose"
	"github.com/caddy-dpop/caddy-dpop/internal/watch"
)

// File keeps the set of a local file, and reads it again when it has changed.
type File struct {
	file *watch.File[*Set]
}

// NewFile reads the file for the first time.
func NewFile(path string) (*File, error) {
	file, err := watch.Open(path, Parse)
	if err != nil {
		return nil, err
	}
	return &File{file}, nil
}

// Find implements Finder. A key that the set does not hold is looked for in the
// file at once.
func (f *File) Find(_ context.Context, kid string, algorithm *jose.Algorithm) ([]*jose.Key, error) {
	keys, known := f.file.Get().find(kid, algorithm)
	if !known {
		keys, _ = f.file.Look().find(kid, algorithm)
	}
	return keys, nil
}

// Status returns the state of the set.
func (f *File) Status() Status {
	changed, err := f.file.Status()
	return Status{Keys: f.file.Get().Len(), FetchedAt: changed, Err: err}
}
