//go:build !(darwin || dragonfly || freebsd || illumos || linux || netbsd || openbsd)

package replay

import (
	"errors"
	"os"
)

// lockFile refuses: without a lock that ends with the process, two could write
// one journal.
func lockFile(*os.File) error {
	return errors.New("cannot keep accepted proofs: this system has no lock that ends with a process")
}
