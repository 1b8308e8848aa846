package logtest

import (
	"encoding/json"
	"sync"
	"time"

	"github.com/pay-theory/streamer/v2/progress"
)

func progressCases() []contract {
	return []contract{
		{"progress-replaces-the-newest", "SetProgress replaces the newest progress, exactly as it is, and adds no event", (*suite).replacesTheNewest},
		{"progress-of-another-attempt-is-never-returned", "progress of an attempt that is not the newest is never returned by a Read that begins later", (*suite).ofAnotherAttempt},
		{"progress-after-the-end-is-ignored", "SetProgress must not disturb a log that has ended: the end's last progress stays", (*suite).afterTheEnd},
		{"progress-comes-with-its-record", "a record's progress replaces the newest in the same step: whoever sees the record's events or state sees it", (*suite).comesWithItsRecord},
		{"progress-does-not-disturb-the-log", "SetProgress adds no event and makes no append a conflict, however often it is called", (*suite).doesNotDisturb},
		{"progress-is-notified", "a new progress is a change that watchers are notified of", (*suite).isNotified},
	}
}

func (s *suite) running(id string) *writer {
	s.Helper()
	w := s.open(id)
	s.append(w, started())
	return w
}

func (s *suite) report(w *writer, p *progress.Progress) {
	s.Helper()
	s.must(s.log.SetProgress(s.Context(), w.key, p), "SetProgress")
}

// shows fails the case when a Read does not return this progress.
func (s *suite) shows(w *writer, want *progress.Progress, when string) {
	s.Helper()
	page, err := s.peer.Read(s.Context(), w.key, 0, 1000)
	s.must(err, "Read")
	s.equal(page.Progress, want, "the progress "+when)
	if want == nil {
		want = &progress.Progress{}
	}
	if page.Beat != want.Beat {
		s.Errorf("the page's beat %s is %d, want %d", when, page.Beat, want.Beat)
	}
}

func (s *suite) replacesTheNewest() {
	w := s.running("reporting")
	s.shows(w, nil, "before the first report")
	full := &progress.Progress{
		Attempt: 1, Rev: 1, Beat: 2, Percentage: 33.333333333333336, Message: "naïve <b>&\u2028\x00", Metadata: json.RawMessage(exactJSON), Time: time.Now(),
	}
	s.filled(full)
	s.report(w, full)
	s.shows(w, full, "with everything")
	bare := &progress.Progress{Attempt: 1, Rev: 2, Beat: 3, Percentage: 100, Time: time.Now()}
	s.report(w, bare)
	s.shows(w, bare, "with little")
	beat := &progress.Progress{Attempt: 1, Rev: 2, Beat: 4, Percentage: 100, Time: bare.Time}
	s.report(w, beat)
	s.shows(w, beat, "of a mere sign of life")
	if _, state := s.all(s.peer, w.key); state.Last != 2 {
		s.Errorf("the log has %d events after reports, want 2", state.Last)
	}
}

func (s *suite) ofAnotherAttempt() {
	w := s.running("retried")
	first := &progress.Progress{Attempt: 1, Rev: 9, Beat: 9, Percentage: 90, Time: time.Now()}
	s.report(w, first)
	s.append(w, retrying())
	s.shows(w, first, "between two attempts")
	s.append(w, started())
	s.shows(w, nil, "when a new attempt has begun")
	late := &progress.Progress{Attempt: 1, Rev: 10, Beat: 10, Percentage: 91, Time: time.Now()}
	s.report(w, late)
	s.shows(w, nil, "when the old attempt reported late")
	second := &progress.Progress{Attempt: 2, Rev: 1, Beat: 1, Percentage: 5, Time: time.Now()}
	s.report(w, second)
	s.report(w, late)
	s.shows(w, second, "when the old attempt reported later than the new one")
}

func (s *suite) afterTheEnd() {
	w := s.running("finished")
	s.report(w, &progress.Progress{Attempt: 1, Rev: 1, Beat: 1, Percentage: 50, Time: time.Now()})
	rec := Next(w.state, completed())
	rec.Progress = &progress.Progress{Attempt: 1, Rev: 2, Beat: 2, Percentage: 100, Message: "done", Time: time.Now()}
	s.must(w.put(s.Context(), rec), "Append of the end")
	s.shows(w, rec.Progress, "that came with the end")
	s.report(w, &progress.Progress{Attempt: 1, Rev: 3, Beat: 3, Percentage: 60, Time: time.Now()})
	s.shows(w, rec.Progress, "after a report that came after the end")
	_, state := s.all(s.peer, w.key)
	s.equal(state, w.state, "the state")
}

func (s *suite) comesWithItsRecord() {
	w := s.running("together")
	done := make(chan struct{})
	var wg sync.WaitGroup
	defer wg.Wait()
	for range 4 {
		wg.Go(func() {
			for {
				select {
				case <-done:
					return
				default:
				}
				page, err := s.peer.Read(s.Context(), w.key, 0, 1000)
				if err != nil {
					s.Errorf("Read: %v", err)
					return
				}
				seen := page.State.Last
				if n := len(page.Events); n > 0 {
					seen = max(seen, page.Events[n-1].Seq)
				}
				if seen > 2 && (page.Progress == nil || page.Progress.Rev < seen) {
					s.Errorf("a reader saw event %d without the progress of its record: %+v", seen, page.Progress)
					return
				}
			}
		})
	}
	for i := range 100 {
		rec := Next(w.state, output(i))
		if i == 99 {
			rec = Next(w.state, completed())
		}
		rec.Progress = &progress.Progress{Attempt: 1, Rev: rec.State.Last, Beat: rec.State.Last, Time: time.Now()}
		s.must(w.put(s.Context(), rec), "Append")
		s.shows(w, rec.Progress, "of the record")
	}
	close(done)
}

func (s *suite) doesNotDisturb() {
	w := s.running("busy")
	done := make(chan struct{})
	var wg sync.WaitGroup
	for range 2 {
		wg.Go(func() {
			for rev := uint64(1); ; rev++ {
				select {
				case <-done:
					return
				default:
				}
				p := &progress.Progress{Attempt: 1, Rev: rev, Beat: rev, Time: time.Now()}
				if err := s.log.SetProgress(s.Context(), w.key, p); err != nil {
					s.Errorf("SetProgress: %v", err)
					return
				}
			}
		})
	}
	for i := range s.Count / 4 {
		s.append(w, output(i))
	}
	close(done)
	wg.Wait()
	if events, _ := s.all(s.peer, w.key); len(events) != 2+s.Count/4 {
		s.Errorf("the log has %d events, want %d", len(events), 2+s.Count/4)
	}
}

func (s *suite) isNotified() {
	w := s.running("seen")
	f := s.newFollower(w.key)
	for rev := uint64(1); rev <= 20; rev++ {
		s.report(w, &progress.Progress{Attempt: 1, Rev: rev, Beat: rev, Time: time.Now()})
		s.reaches(f, "the progress", func(p progress.Page) bool { return p.Progress != nil && p.Progress.Rev == rev })
	}
}
