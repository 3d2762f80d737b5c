//go:build darwin || dragonfly || freebsd || illumos || linux || netbsd || openbsd

package replay

import (
	"errors"
	"os"
	"syscall"
)

// lockFile keeps other processes from opening a journal. The lock ends with the
// process, however that ends.
func lockFile(file *os.File) error {
	err := syscall.Flock(int(file.Fd()), syscall.LOCK_EX|syscall.LOCK_NB)
	if errors.Is(err, syscall.EWOULDBLOCK) {
		return errInUse
	}
	return err
}
