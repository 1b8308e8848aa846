//go:build darwin || dragonfly || freebsd || linux || netbsd || openbsd

package natsembed

import (
	"errors"
	"os"
	"syscall"
)

// exclusive locks a file until it is closed.
func exclusive(f *os.File) error {
	for {
		err := syscall.Flock(int(f.Fd()), syscall.LOCK_EX|syscall.LOCK_NB)
		switch {
		case errors.Is(err, syscall.EINTR):
		case errors.Is(err, syscall.EWOULDBLOCK):
			return errLocked
		default:
			return err
		}
	}
}
