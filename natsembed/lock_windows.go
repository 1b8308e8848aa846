package natsembed

import (
	"errors"
	"os"
	"syscall"
	"unsafe"
)

// exclusive locks a file until it is closed: one byte far behind its content, which others can
// still read.
func exclusive(f *os.File) error {
	const (
		exclusively, atOnce               = 2, 1
		sharingViolation    syscall.Errno = 32
		lockViolation       syscall.Errno = 33
	)
	at := syscall.Overlapped{OffsetHigh: 1}
	ok, _, err := syscall.NewLazyDLL("kernel32.dll").NewProc("LockFileEx").
		Call(f.Fd(), exclusively|atOnce, 0, 1, 0, uintptr(unsafe.Pointer(&at)))
	switch {
	case ok != 0:
		return nil
	case errors.Is(err, lockViolation), errors.Is(err, sharingViolation), errors.Is(err, syscall.ERROR_IO_PENDING):
		return errLocked
	}
	return err
}
