package fleet

import "syscall"

// attributes puts a process into a group of its own, so that a Ctrl-C is not for it, and has
// the system kill it when this process dies.
func attributes() *syscall.SysProcAttr {
	return &syscall.SysProcAttr{Setpgid: true, Pdeathsig: syscall.SIGKILL}
}
