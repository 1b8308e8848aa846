package logtest

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"runtime"
	"sync"
	"sync/atomic"
	"time"

	"github.com/pay-theory/streamer/v2/progress"
)

func watchCases() []contract {
	return []contract{
		{"watch-then-read-misses-nothing", "who watches, reads after its cursor and reads again when notified sees every event once, whether it came before, during or after the appends", (*suite).missesNothing},
		{"watch-races-with-appends", "after the last change that Watch's return precedes there is a call, however the two race", (*suite).racesWithAppends},
		{"watch-notifies-of-each-change", "calls may be shared by changes, but after each change there is one: a viewer that has read everything is told of the next event", (*suite).notifiesOfEach},
		{"watch-needs-no-log", "the log need not exist: the append that creates it is notified", (*suite).needsNoLog},
		{"watch-sees-records-without-events", "a record that only changes the state is a change", (*suite).seesCheckpoints},
		{"watch-stops", "stop ends the calls of its own Watch, and may be called twice", (*suite).stops},
		{"watch-does-not-slow-appends", "a viewer that does not read holds nobody up, and finds all events when it reads", (*suite).doesNotSlowAppends},
		{"watch-serves-many", "many viewers of one log and viewers of many logs are all notified", (*suite).servesMany},
	}
}

// follower reads a log as viewers do.
type follower struct {
	log    progress.Log
	key    progress.Key
	after  uint64
	limit  int
	signal chan struct{}
	stop   func()
}

func newFollower(ctx context.Context, l progress.Log, key progress.Key, after uint64, limit int) (*follower, error) {
	f := &follower{log: l, key: key, after: after, limit: limit, signal: make(chan struct{}, 1)}
	f.signal <- struct{}{} // the first read needs no notification
	stop, err := l.Watch(ctx, key, func(string) {
		select {
		case f.signal <- struct{}{}:
		default:
		}
	})
	f.stop = stop
	return f, err
}

// until reads, at first and whenever it was notified since it last read, until done says so of
// the newest page.
func (f *follower) until(ctx context.Context, done func(progress.Page) bool) error {
	for {
		select {
		case <-f.signal:
		case <-ctx.Done():
			return fmt.Errorf("no notification after event %d was read: %w", f.after, ctx.Err())
		}
		for more := true; more; {
			page, err := f.log.Read(ctx, f.key, f.after, f.limit)
			if err != nil && !errors.Is(err, progress.ErrNotFound) {
				return err
			}
			for _, e := range page.Events {
				if e.Seq != f.after+1 {
					return fmt.Errorf("event %d came after event %d", e.Seq, f.after)
				}
				f.after++
			}
			if done(page) {
				return nil
			}
			more = len(page.Events) > 0
		}
	}
}

// ended is a follower's goal: it has read the end.
func ended(p progress.Page) bool {
	n := len(p.Events)
	return n > 0 && p.Events[n-1].Kind.Ends()
}

// follow follows a log from its start to its end and returns how many events there were.
func (s *suite) follow(key progress.Key, limit int) (uint64, error) {
	ctx, cancel := context.WithTimeout(s.Context(), s.Wait)
	defer cancel()
	f, err := newFollower(ctx, s.peer, key, 0, limit)
	if err != nil {
		return 0, err
	}
	defer f.stop()
	err = f.until(ctx, ended)
	return f.after, err
}

func (s *suite) missesNothing() {
	key := progress.Key{Scope: "scope", ID: "followed"}
	begun, halfway := make(chan struct{}), make(chan struct{})
	var wg sync.WaitGroup
	follow := func(limit int) {
		wg.Go(func() {
			if n, err := s.follow(key, limit); err != nil || n != 303 {
				s.Errorf("a follower saw %d of 303 events: %v", n, err)
			}
		})
	}
	for i := range 4 {
		follow(1 + i*50)
	}
	wg.Go(func() {
		defer close(halfway)
		w := &writer{log: s.log, key: key}
		for i := range 302 {
			e := output(i)
			switch i {
			case 0:
				e = accepted()
			case 1:
				e = started()
			}
			if err := w.put(s.Context(), Next(w.state, e)); err != nil {
				s.Errorf("Append: %v", err)
				return
			}
			if i == 100 {
				close(begun)
			}
		}
		if err := w.put(s.Context(), Next(w.state, completed())); err != nil {
			s.Errorf("Append: %v", err)
		}
	})
	select {
	case <-begun:
	case <-halfway:
	}
	for i := range 4 {
		follow(1 + i*50)
	}
	<-halfway
	follow(100)
	wg.Wait()
}

func (s *suite) racesWithAppends() {
	rounds := s.Count * 3 / 10
	rng := rand.New(rand.NewPCG(1, 2))
	for round := range rounds {
		key := progress.Key{Scope: "scope", ID: fmt.Sprint("race-", round)}
		begin, yields := rng.IntN(60), rng.IntN(4)
		reached, written := make(chan struct{}), make(chan struct{})
		go func() {
			defer close(written)
			w := &writer{log: s.log, key: key}
			for i := range 60 {
				e := output(i)
				switch i {
				case 0:
					e = accepted()
				case 1:
					e = started()
				case 59:
					e = completed()
				}
				if i == begin {
					close(reached)
					for range yields {
						runtime.Gosched()
					}
				}
				if err := w.put(s.Context(), Next(w.state, e)); err != nil {
					s.Errorf("Append: %v", err)
					return
				}
			}
		}()
		select {
		case <-reached:
		case <-written:
		}
		n, err := s.follow(key, 7)
		<-written
		if err != nil || n != 60 {
			s.Fatalf("round %d: a follower that began around event %d saw %d of 60 events: %v", round, begin+1, n, err)
		}
	}
}

// newFollower ends the case when the log can't be watched.
func (s *suite) newFollower(key progress.Key) *follower {
	s.Helper()
	f, err := newFollower(s.Context(), s.peer, key, 0, 1000)
	s.must(err, "Watch")
	s.Cleanup(f.stop)
	return f
}

// reaches ends the case when the follower is not notified of what it waits for.
func (s *suite) reaches(f *follower, what string, done func(progress.Page) bool) {
	s.Helper()
	ctx, cancel := context.WithTimeout(s.Context(), s.Wait)
	defer cancel()
	s.must(f.until(ctx, done), "following until "+what)
}

func (s *suite) notifiesOfEach() {
	w := s.open("quiet")
	f := s.newFollower(w.key)
	for i := range s.Count / 4 {
		s.append(w, output(i))
		s.reaches(f, "the newest event", func(progress.Page) bool { return f.after == w.state.Last })
	}
}

func (s *suite) needsNoLog() {
	key := progress.Key{Scope: "scope", ID: "later"}
	f := s.newFollower(key)
	w := s.open(key.ID)
	s.reaches(f, "the log is there", func(p progress.Page) bool { return p.State.Last == 1 })
	s.append(w, started())
	s.reaches(f, "the next event", func(p progress.Page) bool { return p.State.Last == 2 })
}

func (s *suite) seesCheckpoints() {
	w := s.open("checkpointed")
	s.append(w, started())
	f := s.newFollower(w.key)
	s.reaches(f, "the attempt has started", func(p progress.Page) bool { return p.State.Last == 2 })
	rec := Next(w.state)
	rec.State.Checkpoint = []byte(`1`)
	s.must(w.put(s.Context(), rec), "Append of a record without events")
	s.reaches(f, "the checkpoint", func(p progress.Page) bool { return p.State.Record == rec.ID })
}

func (s *suite) stops() {
	w := s.open("stopped")
	var calls atomic.Int64
	stop, err := s.peer.Watch(s.Context(), w.key, func(string) { calls.Add(1) })
	s.must(err, "Watch")
	other := s.newFollower(w.key)
	s.append(w, started())
	s.eventually(func() bool { return calls.Load() > 0 }, "the watcher is notified")
	stop()
	stop()
	s.reaches(other, "the attempt has started", func(p progress.Page) bool { return p.State.Last == 2 })

	// A call that was under way may still come: wait until there were none for a while.
	before := calls.Load()
	quiet := time.Now()
	s.eventually(func() bool {
		if n := calls.Load(); n != before {
			before, quiet = n, time.Now()
		}
		return time.Since(quiet) > s.Tick
	}, "the calls end")
	for i := range 20 {
		s.append(w, output(i))
	}
	s.reaches(other, "the outputs", func(p progress.Page) bool { return p.State.Last == 22 })
	if n := calls.Load(); n != before {
		s.Errorf("a stopped watcher was notified %d times", n-before)
	}
	stop()
}

func (s *suite) doesNotSlowAppends() {
	w := s.open("unread")
	s.append(w, started())
	f := s.newFollower(w.key)
	f.limit = 3
	for i := range s.Count {
		s.append(w, output(i))
	}
	s.append(w, completed())
	s.reaches(f, "the end", ended)
	if want := uint64(s.Count) + 3; f.after != want {
		s.Errorf("the follower saw %d events, want %d", f.after, want)
	}
}

func (s *suite) servesMany() {
	shared := s.open("shared")
	n := s.Count
	told := make([]atomic.Bool, n)
	for i := range n {
		stop, err := s.peer.Watch(s.Context(), shared.key, func(string) { told[i].Store(true) })
		s.must(err, "Watch")
		s.Cleanup(stop)
	}
	followers := make([]*follower, n)
	writers := make([]*writer, n)
	for i := range n {
		writers[i] = s.open(fmt.Sprint("one-of-many-", i))
		followers[i] = s.newFollower(writers[i].key)
	}
	s.append(shared, started())
	for _, w := range writers {
		s.append(w, started(), output(0))
		s.append(w, completed())
	}
	for _, f := range followers {
		s.reaches(f, "the end", ended)
	}
	s.eventually(func() bool {
		for i := range told {
			if !told[i].Load() {
				return false
			}
		}
		return true
	}, "every watcher of the shared log is notified")
}
