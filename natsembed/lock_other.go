//go:build !(darwin || dragonfly || freebsd || linux || netbsd || openbsd || windows)

package natsembed

import (
	"errors"
	"os"
)

func exclusive(*os.File) error {
	return errors.New("natsembed does not know how to lock a file on this operating system")
}
