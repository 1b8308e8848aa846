package logtest

import (
	"fmt"
	"time"

	"github.com/pay-theory/streamer/v2/progress"
)

func durableCases() []contract {
	return []contract{
		{"durable-keeps-what-append-returned", "Append returns only when rec is as durable as the store makes it: after a crash all of it is there, and goes on", (*suite).keepsWhatAppendReturned},
		{"durable-recognises-a-record-after-a-crash", "a record whose answer was lost in a crash is recognised when it is appended again", (*suite).recognisesAfterACrash},
		{"durable-keeps-retention", "retention counts on while the store is down", (*suite).keepsRetention},
	}
}

func (s *suite) keepsWhatAppendReturned() {
	writers := make([]*writer, 10)
	for i := range writers {
		w := s.running(fmt.Sprint("kept-", i))
		for j := range i * 10 {
			s.append(w, output(j))
		}
		if i%2 == 0 {
			rec := Next(w.state, completed())
			rec.Progress = &progress.Progress{Attempt: 1, Rev: 1, Beat: 1, Percentage: 100, Time: time.Now()}
			s.must(w.put(s.Context(), rec), "Append of the end")
		}
		writers[i] = w
	}
	s.reopen()
	for i, w := range writers {
		events, state := s.all(s.log, w.key)
		s.equal(state, w.state, "the state after a crash")
		s.dense(events, 1, w.state.Last)
		if i%2 == 0 {
			page, err := s.log.Read(s.Context(), w.key, w.state.Last, 1)
			s.must(err, "Read")
			if page.Progress == nil || page.Progress.Rev != 1 {
				s.Errorf("the end's progress after a crash is %+v", page.Progress)
			}
			continue
		}
		w.log = s.log
		s.append(w, retrying())
		s.append(w, started())
	}
}

func (s *suite) reopen() {
	s.Helper()
	s.log = s.Reopen(s.T, s.log)
	s.peer = s.log
}

func (s *suite) recognisesAfterACrash() {
	w := s.running("repeated")
	prev := w.state.Record
	rec := s.append(w, output(0))
	s.reopen()
	s.must(s.log.Append(s.Context(), w.key, prev, rec), "Append of the newest record again, after a crash")
	if events, _ := s.all(s.log, w.key); len(events) != 3 {
		s.Errorf("the log has %d events, want 3", len(events))
	}
}

func (s *suite) keepsRetention() {
	short, long := s.running("short"), s.running("long")
	s.end(short, s.Tick)
	s.end(long, time.Hour)
	s.reopen()
	s.gone(short, time.Time{})
	_, state := s.all(s.log, long.key)
	s.equal(state, long.state, "the state of what is kept")
}
