package logtest

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"math/rand/v2"
	"strings"
	"sync"
	"time"

	"github.com/pay-theory/streamer/v2/progress"
)

func lifeCases() []contract {
	return []contract{
		{"retention-ends-a-log", "a log is gone when the retention of its end has passed, and not before: then all methods say ErrNotFound, and watchers are notified", (*suite).retentionEndsALog},
		{"retention-frees-the-key", "a key whose log is gone can have a new log, which shows nothing of the old one", (*suite).retentionFreesTheKey},
		{"open-yields-what-has-not-ended", "Open yields exactly the requests that have not ended and whose log and progress have not changed for idle", (*suite).openYields},
		{"open-can-be-left", "the iterator of Open can be left early, and used again", (*suite).openCanBeLeft},
		{"contexts-end-calls", "all methods end soon after their context does", (*suite).contextsEndCalls},
		{"everything-at-once", "all methods may be called concurrently", (*suite).everythingAtOnce},
	}
}

// end appends an end after which the log stays for d.
func (s *suite) end(w *writer, d time.Duration) {
	s.Helper()
	rec := Next(w.state, completed())
	rec.Retention = d
	s.must(w.put(s.Context(), rec), "Append of the end")
}

// gone waits until the log of a key is, and fails the case when that is before its time.
func (s *suite) gone(w *writer, notBefore time.Time) {
	s.Helper()
	s.eventually(func() bool {
		_, err := s.peer.Tail(s.Context(), w.key)
		if err != nil && time.Now().Before(notBefore) {
			s.Fatalf("Tail before the retention is over: %v", err)
		}
		return errors.Is(err, progress.ErrNotFound)
	}, "the log is gone")
}

func (s *suite) retentionEndsALog() {
	w := s.running("kept")
	until := time.Now().Add(s.Tick)
	s.end(w, s.Tick)
	if events, _, err := read(s.Context(), s.peer, w.key, 0, 1000); err == nil {
		s.dense(events, 1, 3)
	} else if time.Now().Before(until) {
		s.Fatalf("Read before the retention is over: %v", err)
	}
	f := s.newFollower(w.key) // not before: what is watched may be read from memory
	s.reaches(f, "the log is gone", func(p progress.Page) bool { return p.State.Last == 0 })
	s.gone(w, until)

	_, err := s.peer.Read(s.Context(), w.key, 0, 10)
	s.notFound(err, "Read")
	s.notFound(s.log.SetProgress(s.Context(), w.key, &progress.Progress{Attempt: 1, Rev: 1}), "SetProgress")
	stale := w.state
	stale.Phase = progress.Started
	s.notFound(s.log.Append(s.Context(), w.key, stale.Record, Next(stale, output(0))), "Append after the end")
}

func (s *suite) retentionFreesTheKey() {
	s.freesTheKey("reused", accepted())
	large := accepted()
	large.Request.Payload = json.RawMessage(`"` + strings.Repeat("x", 4000) + `"`)
	s.freesTheKey("reused-by-more", large)
}

func (s *suite) freesTheKey(id string, request *progress.Event) {
	old := s.running(id)
	s.report(old, &progress.Progress{Attempt: 1, Rev: 5, Beat: 5, Time: time.Now()})
	f := s.newFollower(old.key)
	stale := old.state
	s.end(old, s.Tick)
	s.reaches(f, "the old log is gone", func(p progress.Page) bool { return p.State.Last == 0 })
	f.after = 0

	w := s.open(id, request)
	s.append(w, started())
	s.reaches(f, "the new log", func(p progress.Page) bool {
		return p.State.Epoch == w.state.Epoch && p.State.Last == 2
	})
	events, state := s.all(s.peer, w.key)
	s.equal(state, w.state, "the new log's state")
	if len(events) != 2 {
		s.Errorf("the new log has %d events, want 2", len(events))
	}
	s.shows(w, nil, "of the new log")
	page, err := s.peer.Read(s.Context(), w.key, 1, 10)
	s.must(err, "Read")
	if reason, gap := page.Gap(old.state.Epoch, 1); !gap || reason != "recreated" {
		s.Errorf("Gap for a viewer of the old log: %q, %v, want recreated", reason, gap)
	}
	err = s.log.Append(s.Context(), w.key, stale.Record, Next(stale, output(0)))
	s.equal(s.conflict(err, "Append by a writer of the old log"), w.state, "the conflict's state")
}

// idle returns what Open yields.
func (s *suite) idle(idle time.Duration) (map[progress.Key]progress.Pending, error) {
	found := map[progress.Key]progress.Pending{}
	for p, err := range s.peer.Open(s.Context(), idle) {
		if err != nil {
			return nil, err
		}
		if _, twice := found[p.Key]; twice {
			return nil, fmt.Errorf("%q was yielded twice", p.Key)
		}
		found[p.Key] = p
	}
	return found, nil
}

func (s *suite) openYields() {
	begun := time.Now()
	queued := s.open("queued")
	running := s.running("running")
	beat := &progress.Progress{Attempt: 1, Rev: 1, Beat: 41, Time: time.Now()}
	s.report(running, beat)
	done := s.running("done")
	s.end(done, time.Hour)
	found, err := s.idle(time.Hour)
	s.must(err, "Open")
	if len(found) != 0 {
		s.Errorf("Open of what is idle for an hour yields %v", found)
	}

	idle := 4 * s.Tick
	s.eventually(func() bool {
		found, err = s.idle(idle)
		s.must(err, "Open")
		if _, ok := found[done.key]; ok {
			s.Fatalf("Open yields a request that has ended")
		}
		if len(found) > 0 && time.Since(begun) < idle {
			s.Fatalf("Open yields %v before they were idle for %v", found, idle)
		}
		return len(found) == 2
	}, "Open yields the two open requests")
	s.equal(found[queued.key].State, queued.state, "the queued request's state")
	s.equal(found[running.key].State, running.state, "the running request's state")
	if b := found[running.key].Beat; b != beat.Beat {
		s.Errorf("the running request's beat is %d, want %d", b, beat.Beat)
	}
	for key, p := range found {
		if p.Idle < idle || p.Idle > time.Since(begun)+s.Wait {
			s.Errorf("%q is said to be idle for %v: it was asked for %v", key.ID, p.Idle, idle)
		}
	}

	touched := time.Now()
	s.report(running, &progress.Progress{Attempt: 1, Rev: 1, Beat: 42, Time: beat.Time})
	s.append(queued, started())
	found, err = s.idle(idle)
	s.must(err, "Open")
	if len(found) != 0 && time.Since(touched) < idle {
		s.Errorf("Open yields %v though they have just changed", found)
	}
}

func (s *suite) openCanBeLeft() {
	for i := range 20 {
		s.open(fmt.Sprint("open-", i))
	}
	seq := s.peer.Open(s.Context(), 0)
	s.eventually(func() bool {
		n := 0
		for _, err := range seq {
			s.must(err, "Open")
			n++
			if n == 3 {
				break
			}
		}
		return n == 3
	}, "Open yields three")
	s.eventually(func() bool {
		found, err := s.idle(0)
		s.must(err, "Open")
		return len(found) == 20
	}, "Open yields all after it was left")
}

func (s *suite) contextsEndCalls() {
	w := s.running("waiting")
	over, cancel := context.WithCancel(s.Context())
	cancel()
	for name, call := range map[string]func() error{
		"Append":      func() error { return s.log.Append(over, w.key, w.state.Record, Next(w.state, output(0))) },
		"SetProgress": func() error { return s.log.SetProgress(over, w.key, &progress.Progress{Attempt: 1, Rev: 1}) },
		"Tail":        func() error { _, err := s.peer.Tail(over, w.key); return err },
		"Read":        func() error { _, err := s.peer.Read(over, w.key, 0, 1); return err },
		"Watch": func() error {
			stop, err := s.peer.Watch(over, w.key, func(string) {})
			if err == nil {
				stop()
			}
			return err
		},
		"Open": func() error {
			for _, err := range s.peer.Open(over, 0) {
				if err != nil {
					return err
				}
			}
			return nil
		},
	} {
		s.within(s.Wait/2, name+" with a context that has ended returns", func() {
			if err := call(); err != nil && !errors.Is(err, context.Canceled) && !errors.Is(err, progress.ErrUnavailable) {
				s.Errorf("%s with a context that has ended: got %v, want nil, the context's error or ErrUnavailable", name, err)
			}
		})
	}
	events, _ := s.all(s.peer, w.key)
	if n := len(events); n != 2 && n != 3 {
		s.Errorf("the log has %d events, want 2 or 3", n)
	}
}

func (s *suite) everythingAtOnce() {
	keys := make([]progress.Key, 5)
	for i := range keys {
		keys[i] = progress.Key{Scope: "scope", ID: fmt.Sprint("busy-", i)}
	}
	var wg sync.WaitGroup
	for n := range 8 {
		rng := rand.New(rand.NewPCG(7, uint64(n)))
		wg.Go(func() {
			for range s.Count / 4 {
				if err := s.anything(rng, keys[rng.IntN(len(keys))]); err != nil {
					s.Errorf("%v", err)
					return
				}
			}
		})
	}
	wg.Wait()
	for _, key := range keys {
		events, page, err := read(s.Context(), s.peer, key, 0, 1000)
		if errors.Is(err, progress.ErrNotFound) {
			continue // its retention is over by now
		}
		s.must(err, "Read")
		s.dense(events, 1, page.State.Last)
	}
}

// anything calls one of the methods. Conflicts and missing logs are to be expected.
func (s *suite) anything(rng *rand.Rand, key progress.Key) error {
	ctx := s.Context()
	state, err := s.log.Tail(ctx, key)
	if err == nil && !state.Ended() {
		switch rng.IntN(12) {
		case 0:
			err = s.log.Append(ctx, key, state.Record, Next(state, started()))
		case 1:
			rec := Next(state, completed())
			rec.Retention = time.Duration(1 + rng.Int64N(int64(s.Tick)))
			err = s.log.Append(ctx, key, state.Record, rec)
		case 2, 3, 4, 5:
			err = s.log.Append(ctx, key, state.Record, Next(state, output(0), output(1)))
		case 6, 7:
			err = s.log.SetProgress(ctx, key, &progress.Progress{Attempt: state.Attempt, Rev: 1, Time: time.Now()})
		case 8:
			for _, e := range s.peer.Open(ctx, 0) {
				err = errors.Join(err, e)
			}
		case 9:
			var stop func()
			if stop, err = s.peer.Watch(ctx, key, func(string) {}); err == nil {
				defer stop()
			}
			err = errors.Join(err, s.log.SetProgress(ctx, key, &progress.Progress{Attempt: state.Attempt, Rev: 2, Time: time.Now()}))
		default:
			_, _, err = read(ctx, s.peer, key, 0, 1+rng.IntN(50))
		}
	} else {
		err = s.log.Append(ctx, key, "", Next(progress.State{}, accepted()))
	}
	var c *progress.ConflictError
	if errors.As(err, &c) || errors.Is(err, progress.ErrNotFound) {
		return nil
	}
	return err
}
