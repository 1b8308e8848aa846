package load

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"sync"
	"time"

	"github.com/pay-theory/streamer/v2/test/crash/history"
)

// Journal follows the file in which labs note what their handlers do.
type Journal struct {
	alive func(pid int) bool

	mu    sync.Mutex
	runs  map[string][]history.Run
	done  map[string]time.Time // requests that were settled, and when
	late  []Late
	count int
}

// Late is the call of a handler for a request that had ended.
type Late struct {
	ID string
	history.Run
}

// remembered is how long a request that was settled is known: a handler of it that starts yet
// is one too many.
const remembered = 2 * time.Minute

// settleLimit bounds how long handlers are waited for that no longer matter.
const settleLimit = 30 * time.Second

// NewJournal returns a journal that nobody has read yet. alive reports whether a process is there.
func NewJournal(alive func(pid int) bool) *Journal {
	return &Journal{alive: alive, runs: make(map[string][]history.Run), done: make(map[string]time.Time)}
}

// Follow reads the file until ctx ends.
func (j *Journal) Follow(ctx context.Context, name string) error {
	f, err := os.OpenFile(name, os.O_CREATE|os.O_RDONLY, 0o644)
	if err != nil {
		return err
	}
	defer f.Close()
	lines := bufio.NewReader(f)
	var line []byte
	for {
		part, err := lines.ReadBytes('\n')
		line = append(line, part...)
		switch {
		case err == nil:
			if err := j.take(line); err != nil {
				return err
			}
			line = line[:0]
		case !errors.Is(err, io.EOF):
			return err
		case !pause(ctx, 50*time.Millisecond):
			return nil
		}
	}
}

func (j *Journal) take(line []byte) error {
	var e struct {
		Time    time.Time
		Event   string
		ID      string
		Attempt int
		PID     int
	}
	if err := json.Unmarshal(line, &e); err != nil {
		return fmt.Errorf("load: journal: line %q: %w", line, err)
	}
	j.mu.Lock()
	defer j.mu.Unlock()
	runs := j.runs[e.ID]
	if e.Event == "end" {
		for i := range runs {
			if runs[i].Attempt == e.Attempt && runs[i].PID == e.PID && runs[i].End.IsZero() {
				runs[i].End = e.Time
				return nil
			}
		}
		return nil
	}
	j.count++
	if settled, ok := j.done[e.ID]; ok && e.Time.After(settled) {
		j.late = append(j.late, Late{e.ID, history.Run{Attempt: e.Attempt, PID: e.PID, Start: e.Time}})
		return nil
	}
	j.runs[e.ID] = append(runs, history.Run{Attempt: e.Attempt, PID: e.PID, Start: e.Time})
	return nil
}

// Settle returns the runs of a request that has ended, when none of them goes on, and forgets
// them. final says that there may be none from now on.
func (j *Journal) Settle(ctx context.Context, id string, final bool) []history.Run {
	deadline := time.Now().Add(settleLimit)
	for {
		// What was written before now is read by then.
		more := pause(ctx, 150*time.Millisecond)
		j.mu.Lock()
		running := false
		for _, r := range j.runs[id] {
			running = running || r.End.IsZero() && j.alive(r.PID)
		}
		if !running || !more || time.Now().After(deadline) {
			runs := j.runs[id]
			delete(j.runs, id)
			if final {
				j.done[id] = time.Now()
			}
			j.mu.Unlock()
			return runs
		}
		j.mu.Unlock()
	}
}

// Calls returns how many calls of handlers there were, and those that should not have been.
func (j *Journal) Calls() (n int, late []Late) {
	j.mu.Lock()
	defer j.mu.Unlock()
	for id, at := range j.done {
		if time.Since(at) > remembered {
			delete(j.done, id)
		}
	}
	late, j.late = j.late, nil
	return j.count, late
}
