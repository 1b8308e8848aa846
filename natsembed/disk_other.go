//go:build !(darwin || freebsd || linux || windows)

package natsembed

import "errors"

func freeBytes(string) (int64, error) {
	return 0, errors.New("not known on this operating system")
}
