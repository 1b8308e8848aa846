package natsembed

import (
	"errors"
	"fmt"
	"io"
	"os"
	"strconv"
	"strings"
)

// lock keeps other processes from a directory. It ends with the process, however that ends.
type lock struct{ file *os.File }

// errLocked is what exclusive returns when another has the lock.
var errLocked = errors.New("locked")

// acquire takes the lock that a file stands for, and notes in it who has it.
func acquire(path string) (*lock, error) {
	f, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return nil, fmt.Errorf("the directory can't be locked: %w", err)
	}
	if err := exclusive(f); err != nil {
		if errors.Is(err, errLocked) {
			err = fmt.Errorf("the directory is in use by %s: stop that process, or use another directory", holder(f))
		} else {
			err = fmt.Errorf("the directory can't be locked: %s: %w", path, err)
		}
		return nil, errors.Join(err, f.Close())
	}
	err = f.Truncate(0)
	if err == nil {
		_, err = f.WriteAt([]byte(strconv.Itoa(os.Getpid())+"\n"), 0)
	}
	if err != nil {
		return nil, errors.Join(fmt.Errorf("the directory can't be written: %w", err), f.Close())
	}
	return &lock{f}, nil
}

// holder returns who has the lock, as far as its file tells.
func holder(f *os.File) string {
	data, err := io.ReadAll(io.NewSectionReader(f, 0, 20))
	pid, notNumber := strconv.Atoi(strings.TrimSpace(string(data)))
	switch {
	case err != nil || notNumber != nil:
		return "another process"
	case pid == os.Getpid():
		return "this process already"
	}
	return fmt.Sprintf("process %d", pid)
}

// release gives the lock free. The file stays: another may have opened it by now.
func (l *lock) release() error { return l.file.Close() }
