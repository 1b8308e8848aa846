//go:build darwin || freebsd || linux

package natsembed

import "syscall"

// freeBytes returns what is free for us on the disk that has a directory.
func freeBytes(dir string) (int64, error) {
	var s syscall.Statfs_t
	if err := syscall.Statfs(dir, &s); err != nil {
		return 0, err
	}
	return int64(s.Bavail) * int64(s.Bsize), nil
}
