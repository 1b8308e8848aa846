package natsembed

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"time"
)

// Ready returns nil when the server can take writes: it runs and answers, no stream has failed
// to write its store, the disk takes a small file, and, of a cluster, there is a leader. When
// the error says that the store could not be written, make room and call Reopen.
func (s *Server) Ready(ctx context.Context) error {
	if err := s.ready(ctx); err != nil {
		return fmt.Errorf("natsembed: %s: %w", s.dir, err)
	}
	return nil
}

func (s *Server) ready(ctx context.Context) error {
	srv := s.running.Load()
	if srv == nil {
		return errors.New("the server is not running")
	}
	if damage := s.log.damage.Load(); damage != nil {
		return fmt.Errorf("the store could not be written, and will not be until there is room and Reopen is called: %s", *damage)
	}
	if !srv.JetStreamEnabled() {
		return errors.New("the server has switched JetStream off: its log says why; Reopen starts it again")
	}
	if err := s.probe(); err != nil {
		return fmt.Errorf("the disk can't be written: %w", err)
	}
	ctx, cancel := context.WithTimeout(ctx, answerTimeout)
	defer cancel()
	if _, err := s.js.AccountInfo(ctx); err != nil { // which, of a cluster, its leader answers
		return fmt.Errorf("JetStream does not answer: %w", err)
	}
	return nil
}

// answerTimeout is what Ready waits for the server when its context gives it longer.
const answerTimeout = 2 * time.Second

// probe writes a small file and removes it.
func (s *Server) probe() error {
	f, err := os.CreateTemp(s.dir, "probe-")
	if err != nil {
		return err
	}
	_, err = f.Write(make([]byte, probeBytes))
	return errors.Join(err, f.Close(), os.Remove(f.Name()))
}

// probeBytes is more than file systems keep beside the name of a file.
const probeBytes = 16 << 10

// defaultMaxStore returns what a store may take when no option says it.
func defaultMaxStore(dir string) (int64, error) {
	free, err := freeBytes(dir)
	if err != nil {
		return 0, fmt.Errorf("ask how much room the disk has: %w; say with WithMaxStore what the store may take", err)
	}
	return min(used(filepath.Join(dir, "jetstream"))+free/2, mostStore), nil
}

const mostStore = 64 << 30

// used returns what the files below a directory take. What vanishes meanwhile does not count.
func used(dir string) int64 {
	var sum int64
	_ = filepath.WalkDir(dir, func(_ string, d os.DirEntry, err error) error {
		if err == nil && d.Type().IsRegular() {
			if info, err := d.Info(); err == nil {
				sum += info.Size()
			}
		}
		return nil
	})
	return sum
}
