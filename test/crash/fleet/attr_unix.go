//go:build unix && !linux

package fleet

import "syscall"

// attributes puts a process into a group of its own, so that a Ctrl-C is not for it.
func attributes() *syscall.SysProcAttr { return &syscall.SysProcAttr{Setpgid: true} }
