package crash_test

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"os"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/pay-theory/streamer/v2/test/crash/wire"
)

// view is what a viewer saw of a request.
type view struct {
	events  []wire.Message
	end     wire.Message
	outputs []json.RawMessage
	err     error
}

// watch follows a request to its end.
func (c *clocks) watch(t *testing.T, gateway int, id string) <-chan view {
	t.Helper()
	done := make(chan view, 1)
	go func() {
		var v view
		v.err = c.follow(t.Context(), gateway, id, &v)
		done <- v
	}()
	return done
}

func (c *clocks) follow(ctx context.Context, gateway int, id string, v *view) error {
	s, a, err := wire.Follow(ctx, c.server(gateway), wire.Cursor{ID: id}, patience)
	if err != nil {
		return err
	}
	if s == nil {
		return fmt.Errorf("%s is not shown: %d %s", id, a.Status, a.Body)
	}
	defer s.Close()
	attempt, percentage := 0, 0.0
	for {
		m, _, err := s.Next()
		switch {
		case err != nil:
			return fmt.Errorf("after %d events of %s: %w", len(v.events), id, err)
		case m.Type == "progress" && m.Attempt == attempt && m.Percentage < percentage:
			return fmt.Errorf("the progress of %s fell from %v to %v", id, percentage, m.Percentage)
		case m.Type == "progress":
			attempt, percentage = m.Attempt, m.Percentage
		case m.Type == "output":
			v.outputs = append(v.outputs, m.Data)
		case m.Type == "status" && m.Status == "running":
			v.outputs = v.outputs[:m.OutputsFrom]
		}
		if !m.IsEvent() {
			continue
		}
		if m.Seq != uint64(len(v.events)+1) {
			return fmt.Errorf("event %d of %s came after %d events", m.Seq, id, len(v.events))
		}
		v.events = append(v.events, m)
		if m.IsEnd() {
			v.end = m
			return nil
		}
	}
}

// ended returns what a viewer saw.
func ended(t *testing.T, done <-chan view) view {
	t.Helper()
	v := <-done
	require.NoError(t, v.err)
	return v
}

// run is a call of a handler, with times as an exact clock would tell them.
type run struct {
	attempt    int
	process    string
	start, end time.Time
}

// runs reads the journal.
func (c *clocks) runs(t *testing.T, id string) (list []run) {
	t.Helper()
	data, err := os.ReadFile(c.Journal)
	require.NoError(t, err)
	for lines := bufio.NewScanner(bytes.NewReader(data)); lines.Scan(); {
		var e struct {
			Time    time.Time
			Event   string
			ID      string
			Attempt int
			PID     int
		}
		if json.Unmarshal(lines.Bytes(), &e) != nil || e.ID != id {
			continue // the last line may be half there
		}
		c.mu.Lock()
		name, known := c.names[e.PID]
		c.mu.Unlock()
		if !known {
			continue // it has not been said to be ready yet
		}
		at := e.Time.Add(-apart[name])
		require.WithinRange(t, at, c.began, time.Now(), "the clock of %s is shifted", name)
		if e.Event == "start" {
			list = append(list, run{attempt: e.Attempt, process: name, start: at})
			continue
		}
		for i := range list {
			if list[i].attempt == e.Attempt && list[i].process == name {
				list[i].end = at
			}
		}
	}
	return list
}

// started waits for an attempt of a request.
func (c *clocks) started(t *testing.T, id string, attempt int) run {
	t.Helper()
	var found run
	require.Eventually(t, func() bool {
		for _, r := range c.runs(t, id) {
			if r.attempt == attempt {
				found = r
				return true
			}
		}
		return false
	}, patience, 20*time.Millisecond, "attempt %d of %s", attempt, id)
	return found
}
