package logtest_test

import (
	"context"
	"encoding/json"
	"errors"
	"iter"
	"os"
	"os/exec"
	"runtime"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/pay-theory/streamer/v2/progress"
	"github.com/pay-theory/streamer/v2/progress/logtest"
	"github.com/pay-theory/streamer/v2/progress/memlog"
)

// mutant is a log with methods that may break the contract. Nil: not this one.
type mutant struct {
	*memlog.Log
	append      func(l *memlog.Log, ctx context.Context, key progress.Key, prev string, rec *progress.Record) error
	setProgress func(l *memlog.Log, ctx context.Context, key progress.Key, p *progress.Progress) error
	read        func(l *memlog.Log, ctx context.Context, key progress.Key, after uint64, limit int) (progress.Page, error)
	watch       func(l *memlog.Log, ctx context.Context, key progress.Key, notify func(string)) (func(), error)
	open        func(l *memlog.Log, ctx context.Context, idle time.Duration) iter.Seq2[progress.Pending, error]
	key         func(progress.Key) progress.Key
}

func (m *mutant) Append(ctx context.Context, key progress.Key, prev string, rec *progress.Record) error {
	if m.key != nil {
		key = m.key(key)
	}
	if m.append != nil {
		return m.append(m.Log, ctx, key, prev, rec)
	}
	return m.Log.Append(ctx, key, prev, rec)
}

func (m *mutant) SetProgress(ctx context.Context, key progress.Key, p *progress.Progress) error {
	if m.setProgress != nil {
		return m.setProgress(m.Log, ctx, key, p)
	}
	return m.Log.SetProgress(ctx, key, p)
}

func (m *mutant) Read(ctx context.Context, key progress.Key, after uint64, limit int) (progress.Page, error) {
	if m.read != nil {
		return m.read(m.Log, ctx, key, after, limit)
	}
	return m.Log.Read(ctx, key, after, limit)
}

func (m *mutant) Watch(ctx context.Context, key progress.Key, notify func(string)) (func(), error) {
	if m.watch != nil {
		return m.watch(m.Log, ctx, key, notify)
	}
	return m.Log.Watch(ctx, key, notify)
}

func (m *mutant) Open(ctx context.Context, idle time.Duration) iter.Seq2[progress.Pending, error] {
	if m.open != nil {
		return m.open(m.Log, ctx, idle)
	}
	return m.Log.Open(ctx, idle)
}

// mutants are ways to break the contract, each with the case that must find it.
func mutants() map[string]*mutant {
	var dropped atomic.Int64
	var newest sync.Map // of a mutant that keeps progress apart from its log
	return map[string]*mutant{
		"append-creates-once": {append: func(l *memlog.Log, ctx context.Context, key progress.Key, prev string, rec *progress.Record) error {
			var c *progress.ConflictError
			if err := l.Append(ctx, key, prev, rec); !errors.As(err, &c) {
				return err
			}
			return nil
		}},
		"append-recognises-a-repeated-record": {append: func(l *memlog.Log, ctx context.Context, key progress.Key, prev string, rec *progress.Record) error {
			if state, err := l.Tail(ctx, key); err == nil && state.Record == rec.ID {
				return &progress.ConflictError{State: state}
			}
			return l.Append(ctx, key, prev, rec)
		}},
		"append-is-atomic": {append: func(l *memlog.Log, ctx context.Context, key progress.Key, prev string, rec *progress.Record) error {
			for i, e := range rec.Events {
				one := *rec
				one.Events = rec.Events[i : i+1]
				if i < len(rec.Events)-1 {
					one.ID += string(rune('a' + i))
				}
				e.Record, one.State.Record, one.State.Last = one.ID, one.ID, e.Seq
				if err := l.Append(ctx, key, prev, &one); err != nil {
					return err
				}
				prev = one.ID
				runtime.Gosched()
			}
			return nil
		}},
		"append-refuses-another-prev":  {append: comparesNumbers},
		"append-protects-a-checkpoint": {append: comparesNumbers},
		"read-starts-after-the-cursor": {read: func(l *memlog.Log, ctx context.Context, key progress.Key, after uint64, limit int) (progress.Page, error) {
			return l.Read(ctx, key, max(after, 1)-1, limit)
		}},
		"read-pages-join": {read: func(l *memlog.Log, ctx context.Context, key progress.Key, after uint64, limit int) (progress.Page, error) {
			return l.Read(ctx, key, after, min(limit, 1<<40)+1)
		}},
		"events-come-back-exactly": {read: func(l *memlog.Log, ctx context.Context, key progress.Key, after uint64, limit int) (progress.Page, error) {
			page, err := l.Read(ctx, key, after, limit)
			data, _ := json.Marshal(page.Events)
			page.Events = nil
			return page, errors.Join(err, json.Unmarshal(data, &page.Events))
		}},
		"keys-are-isolated": {key: func(key progress.Key) progress.Key {
			return progress.Key{Scope: strings.ToLower(key.Scope), ID: key.ID}
		}},
		"watch-races-with-appends": {watch: func(l *memlog.Log, ctx context.Context, key progress.Key, notify func(string)) (func(), error) {
			timer := time.AfterFunc(100*time.Microsecond, func() { l.Watch(ctx, key, notify) })
			return func() { timer.Stop() }, nil
		}},
		"watch-notifies-of-each-change": {watch: func(l *memlog.Log, ctx context.Context, key progress.Key, notify func(string)) (func(), error) {
			return l.Watch(ctx, key, func(record string) {
				if dropped.Add(1)%7 != 0 {
					notify(record)
				}
			})
		}},
		"watch-stops": {watch: func(l *memlog.Log, ctx context.Context, key progress.Key, notify func(string)) (func(), error) {
			_, err := l.Watch(ctx, key, notify)
			return func() {}, err
		}},
		"progress-of-another-attempt-is-never-returned": {
			setProgress: func(l *memlog.Log, ctx context.Context, key progress.Key, p *progress.Progress) error {
				newest.Store(key, p)
				return l.SetProgress(ctx, key, p)
			},
			read: func(l *memlog.Log, ctx context.Context, key progress.Key, after uint64, limit int) (progress.Page, error) {
				page, err := l.Read(ctx, key, after, limit)
				if p, ok := newest.Load(key); ok {
					page.Progress = p.(*progress.Progress)
				}
				return page, err
			}},
		"progress-comes-with-its-record": {append: func(l *memlog.Log, ctx context.Context, key progress.Key, prev string, rec *progress.Record) error {
			bare := *rec
			bare.Progress = nil
			if err := l.Append(ctx, key, prev, &bare); err != nil || rec.Progress == nil {
				return err
			}
			runtime.Gosched()
			return l.SetProgress(ctx, key, rec.Progress)
		}},
		"retention-ends-a-log": {append: func(l *memlog.Log, ctx context.Context, key progress.Key, prev string, rec *progress.Record) error {
			longer := *rec
			longer.Retention *= 1000
			return l.Append(ctx, key, prev, &longer)
		}},
		"retention-frees-the-key": {watch: func(l *memlog.Log, ctx context.Context, key progress.Key, notify func(string)) (func(), error) {
			if _, err := l.Tail(ctx, key); err != nil {
				return func() {}, nil
			}
			return l.Watch(ctx, key, func(record string) {
				if record == "" {
					notify(record)
				}
			})
		}},
		"open-yields-what-has-not-ended": {open: func(l *memlog.Log, ctx context.Context, _ time.Duration) iter.Seq2[progress.Pending, error] {
			return l.Open(ctx, 0)
		}},
	}
}

// comparesNumbers appends to a log whose newest event is the one before rec's, whatever record
// that event came with.
func comparesNumbers(l *memlog.Log, ctx context.Context, key progress.Key, prev string, rec *progress.Record) error {
	state, err := l.Tail(ctx, key)
	if err == nil && state.Epoch == rec.State.Epoch && state.Last+uint64(len(rec.Events)) == rec.State.Last {
		prev = state.Record
	}
	return l.Append(ctx, key, prev, rec)
}

const mutantVariable = "LOGTEST_MUTANT"

// TestCasesFindWhatTheyAreNamedAfter runs this test binary again for each mutant, since a
// case that fails here would fail this test.
func TestCasesFindWhatTheyAreNamedAfter(t *testing.T) {
	t.Parallel()
	self, err := os.Executable()
	require.NoError(t, err)
	for name := range mutants() {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			cmd := exec.CommandContext(t.Context(), self, "-test.run=^TestLog$/^"+name+"$", "-test.count=1")
			cmd.Env = append(os.Environ(), mutantVariable+"="+name)
			out, err := cmd.CombinedOutput()
			require.Error(t, err, "the case passes a log that breaks what it is named after")
			require.Contains(t, string(out), "--- FAIL: TestLog/"+name)
			require.Contains(t, string(out), "the contract says: ")
		})
	}
}

// TestLog runs the suite on a log that keeps the contract, or on a mutant of it.
func TestLog(t *testing.T) {
	t.Parallel()
	var m mutant
	h := logtest.Harness{Tick: 20 * time.Millisecond, Count: 400}
	if name := os.Getenv(mutantVariable); name != "" {
		m = *mutants()[name]
		h.Wait = time.Second
	}
	h.New = func(t testing.TB) progress.Log {
		m := m
		m.Log = memlog.New()
		t.Cleanup(func() { m.Close() })
		return &m
	}
	// The memory that both logs share stands for the store that a durable log comes back to.
	same := func(_ testing.TB, l progress.Log) progress.Log {
		again := *l.(*mutant)
		return &again
	}
	h.Peer, h.Reopen = same, same
	logtest.Run(t, h)
}
