// Package logtest proves that a [progress.Log] keeps its contract. Adapters call [Run] from a
// test; each case is named after a "must" of the contract and explains itself when it fails.
package logtest

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"testing"
	"time"

	"github.com/pay-theory/streamer/v2/progress"
)

// Harness says how to get the logs to test.
type Harness struct {
	// New returns an empty log with room for at least 100 MB. What must be released afterwards
	// is left to t.Cleanup. It is called for each case.
	New func(t testing.TB) progress.Log

	// Peer returns a second log on the same store, as another process has it. Then what is
	// written through one is read and watched through the other. Nil: the same log serves for both.
	Peer func(t testing.TB, l progress.Log) progress.Log

	// Reopen is set for stores that survive their process: it ends l as a crash would and
	// returns a log on the same store.
	Reopen func(t testing.TB, l progress.Log) progress.Log

	// Around, if not nil, runs each case: synctest.Test makes cases fast and exact for logs
	// that live in this process and use no sockets.
	Around func(t *testing.T, run func(t *testing.T))

	// Wait is how long a case waits for what must happen. Default: 10 s.
	Wait time.Duration

	// Tick is the shortest retention and idle time that the store can keep. Default: 50 ms.
	Tick time.Duration

	// Count is how much the heavier cases do: about so many events, or followers. Default:
	// 1,000.
	Count int
}

// Run runs all cases, one after the other.
func Run(t *testing.T, h Harness) {
	t.Helper()
	if h.Wait == 0 {
		h.Wait = 10 * time.Second
	}
	if h.Tick == 0 {
		h.Tick = 50 * time.Millisecond
	}
	if h.Count == 0 {
		h.Count = 1000
	}
	if h.Around == nil {
		h.Around = func(t *testing.T, run func(*testing.T)) { run(t) }
	}
	var cases []contract
	cases = append(cases, appendCases()...)
	cases = append(cases, readCases()...)
	cases = append(cases, watchCases()...)
	cases = append(cases, progressCases()...)
	cases = append(cases, lifeCases()...)
	if h.Reopen != nil {
		cases = append(cases, durableCases()...)
	}
	for _, c := range cases {
		t.Run(c.name, func(t *testing.T) {
			h.Around(t, func(t *testing.T) {
				t.Cleanup(func() {
					if t.Failed() {
						t.Logf("the contract says: %s", c.says)
					}
				})
				s := &suite{T: t, Harness: h, log: h.New(t)}
				s.peer = s.log
				if h.Peer != nil {
					s.peer = h.Peer(t, s.log)
				}
				c.run(s)
			})
		})
	}
}

// contract is a case: one clause of the contract, and how it is tried.
type contract struct {
	name string
	says string
	run  func(*suite)
}

// suite is what a case works with.
type suite struct {
	*testing.T
	Harness
	log  progress.Log // writes go here
	peer progress.Log // reads come from here
}

// must ends the case when err is not nil.
func (s *suite) must(err error, doing string) {
	s.Helper()
	if err != nil {
		s.Fatalf("%s: %v", doing, err)
	}
}

// conflict ends the case when err is no *progress.ConflictError, and returns its state.
func (s *suite) conflict(err error, doing string) progress.State {
	s.Helper()
	var c *progress.ConflictError
	if !errors.As(err, &c) {
		s.Fatalf("%s: got %v, want a *progress.ConflictError", doing, err)
	}
	return c.State
}

// notFound fails the case when err is not progress.ErrNotFound.
func (s *suite) notFound(err error, doing string) {
	s.Helper()
	if !errors.Is(err, progress.ErrNotFound) {
		s.Errorf("%s: got %v, want progress.ErrNotFound", doing, err)
	}
}

// equal fails the case when the exported fields of got and want differ.
func (s *suite) equal(got, want any, what string) {
	s.Helper()
	for _, d := range diff(got, want) {
		s.Errorf("%s%s", what, d)
	}
}

// eventually polls until ok returns true, and ends the case when the wait is over.
func (s *suite) eventually(ok func() bool, what string) {
	s.Helper()
	deadline := time.NewTimer(s.Wait)
	defer deadline.Stop()
	poll := time.NewTicker(s.Tick / 5)
	defer poll.Stop()
	for !ok() {
		select {
		case <-poll.C:
		case <-deadline.C:
			s.Fatalf("%s: not within %v", what, s.Wait)
		}
	}
}

// within ends the case when f does not return in time.
func (s *suite) within(limit time.Duration, what string, f func()) {
	s.Helper()
	done := make(chan struct{})
	go func() {
		defer close(done)
		f()
	}()
	timer := time.NewTimer(limit)
	defer timer.Stop()
	select {
	case <-done:
	case <-timer.C:
		s.Fatalf("%s: not within %v", what, limit)
	}
}

// together runs f n times at once and returns the errors.
func together(n int, f func(i int) error) []error {
	errs := make([]error, n)
	start := make(chan struct{})
	var wg sync.WaitGroup
	for i := range n {
		wg.Go(func() {
			<-start
			errs[i] = f(i)
		})
	}
	close(start)
	wg.Wait()
	return errs
}

// read returns all events after number after, page by page, and the newest page. Events that
// are not the next ones are an error, so that it ends.
func read(ctx context.Context, l progress.Log, key progress.Key, after uint64, limit int) ([]*progress.Event, progress.Page, error) {
	var events []*progress.Event
	for {
		page, err := l.Read(ctx, key, after, limit)
		if err != nil {
			return nil, page, err
		}
		if len(page.Events) == 0 {
			return events, page, nil
		}
		for _, e := range page.Events {
			if e.Seq != after+1 {
				return nil, page, fmt.Errorf("event %d came after event %d", e.Seq, after)
			}
			after++
		}
		events = append(events, page.Events...)
	}
}

// all reads a whole log and fails the case when it has holes.
func (s *suite) all(l progress.Log, key progress.Key) ([]*progress.Event, progress.State) {
	s.Helper()
	events, page, err := read(s.Context(), l, key, 0, 1000)
	s.must(err, "Read")
	s.dense(events, 1, page.State.Last)
	return events, page.State
}

// dense fails the case when events are not exactly numbers first to last.
func (s *suite) dense(events []*progress.Event, first, last uint64) {
	s.Helper()
	want := first
	for _, e := range events {
		if e.Seq != want {
			s.Fatalf("event %d came where event %d was due", e.Seq, want)
		}
		want++
	}
	if want != last+1 {
		s.Fatalf("the events end with %d, want %d", want-1, last)
	}
}
