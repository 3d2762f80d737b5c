package authserver

import (
	"context"

	"github.com/caddy-dpop/caddy-dpop/internal/jose"
	"github.com/caddy-dpop/caddy-dpop/internal/watch"
)

// KeyFile keeps the set of a local file, and reads it again when it has changed.
type KeyFile struct {
	file *watch.File[*KeySet]
}

// NewKeyFile reads the file for the first time.
func NewKeyFile(path string) (*KeyFile, error) {
	file, err := watch.Open(path, ParseKeySet)
	if err != nil {
		return nil, err
	}
	return &KeyFile{file}, nil
}

// Find implements KeyFinder. A key that the set does not hold is looked for in the
// file at once.
func (f *KeyFile) Find(_ context.Context, kid string, algorithm *jose.Algorithm) (Found, error) {
	set := f.file.Get()
	keys, known := set.find(kid, algorithm)
	if !known {
		set = f.file.Look()
		keys, _ = set.find(kid, algorithm)
	}
	return Found{keys, set}, nil
}

// Serving implements KeyFinder.
func (f *KeyFile) Serving(context.Context) (*KeySet, error) { return f.file.Get(), nil }

// Status implements KeyFinder.
func (f *KeyFile) Status() KeyStatus {
	changed, err := f.file.Status()
	return KeyStatus{Keys: f.file.Get().Len(), FetchedAt: changed, Err: err}
}
