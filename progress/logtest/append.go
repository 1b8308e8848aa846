package logtest

import (
	"encoding/json"
	"errors"
	"fmt"
	"reflect"
	"sync"
	"time"

	"github.com/pay-theory/streamer/v2/progress"
)

func appendCases() []contract {
	return []contract{
		{"append-creates-once", "with prev == \"\" the log must not exist: of many that create it at once, one succeeds and the others get a *ConflictError with the winner's state", (*suite).createsOnce},
		{"append-refuses-another-prev", "Append stores rec only if prev is the ID of the newest record of the log, even where the numbers fit; else it stores nothing", (*suite).refusesAnotherPrev},
		{"append-stores-one-end", "of many that append an end at once, one succeeds; all others get a *ConflictError whose state has ended", (*suite).storesOneEnd},
		{"append-stores-nothing-after-an-end", "Append stores rec if the newest record has not ended the log, whatever prev says", (*suite).storesNothingAfterAnEnd},
		{"append-recognises-a-repeated-record", "when rec is the newest record already, Append returns nil and stores nothing: that is how a lost answer is repaired", (*suite).recognisesARepeatedRecord},
		{"append-recognises-only-the-newest-record", "a record that is not the newest any more is a conflict, not a success", (*suite).recognisesOnlyTheNewestRecord},
		{"append-is-atomic", "a record is stored whole or not at all: readers see all of its events and its state, or none", (*suite).isAtomic},
		{"append-keeps-numbers-dense", "competing writers leave events 1, 2, 3 … without a hole, and no append that succeeded is lost", (*suite).keepsNumbersDense},
		{"append-without-events-changes-the-state", "a record without events replaces the state and keeps the number of the newest event", (*suite).appendsACheckpoint},
		{"append-protects-a-checkpoint", "a record without events is the newest record too: a writer whose state is from before it can't undo it", (*suite).protectsACheckpoint},
		{"append-needs-a-log", "with prev and no such log the error is ErrNotFound, and no log comes into being", (*suite).needsALog},
		{"append-takes-large-records", "a record of 900 KB is stored whole, or refused with ErrTooLarge and not stored", (*suite).takesLargeRecords},
	}
}

func (s *suite) createsOnce() {
	key := progress.Key{Scope: "scope", ID: "raced"}
	recs := make([]*progress.Record, 32)
	for i := range recs {
		recs[i] = Next(progress.State{}, accepted())
	}
	errs := together(len(recs), func(i int) error { return s.log.Append(s.Context(), key, "", recs[i]) })
	winner := s.oneSucceeded(errs)
	for i, err := range errs {
		if i != winner {
			s.equal(s.conflict(err, "Append of a loser"), recs[winner].State, "the conflict's state")
		}
	}
	events, state := s.all(s.peer, key)
	s.equal(state, recs[winner].State, "the state")
	s.equal(events[0], recs[winner].Events[0], "the event")
}

// oneSucceeded returns which.
func (s *suite) oneSucceeded(errs []error) int {
	s.Helper()
	winner, n := -1, 0
	for i, err := range errs {
		if err == nil {
			winner = i
			n++
		}
	}
	if n != 1 {
		s.Fatalf("%d of %d appends succeeded, want 1: %v", n, len(errs), errors.Join(errs...))
	}
	return winner
}

func (s *suite) refusesAnotherPrev() {
	w := s.open("chain")
	first := w.state
	s.append(w, started())
	second := w.state
	s.append(w, output(0), output(1))
	unknown, foreign := w.state, w.state
	unknown.Record = "unknown"
	foreign.Record, foreign.Epoch = "foreign", "other"
	for what, stale := range map[string]progress.State{
		"no record":                     {},
		"record 1 of 3":                 first,
		"record 2 of 3":                 second,
		"a record that never was":       unknown,
		"a record of the key's old log": foreign,
	} {
		err := s.log.Append(s.Context(), w.key, stale.Record, Next(stale, output(2)))
		s.equal(s.conflict(err, "Append after "+what), w.state, "the conflict's state")
	}
	_, state := s.all(s.peer, w.key)
	s.equal(state, w.state, "the state after refused appends")
	s.append(w, output(2))
}

func (s *suite) storesOneEnd() {
	w := s.open("ending")
	s.append(w, started())
	recs := make([]*progress.Record, 32)
	for i := range recs {
		kind := []progress.Kind{progress.Completed, progress.Failed, progress.Canceled}[i%3]
		recs[i] = Next(w.state, &progress.Event{Kind: kind})
	}
	errs := together(len(recs), func(i int) error { return s.log.Append(s.Context(), w.key, w.state.Record, recs[i]) })
	winner := s.oneSucceeded(errs)
	for i, err := range errs {
		if i != winner {
			s.equal(s.conflict(err, "Append of a loser"), recs[winner].State, "the conflict's state")
		}
	}
	events, _ := s.all(s.peer, w.key)
	if len(events) != 3 {
		s.Errorf("the log has %d events, want 3", len(events))
	}
}

func (s *suite) storesNothingAfterAnEnd() {
	w := s.open("ended")
	states := []progress.State{{}, w.state}
	s.append(w, started())
	states = append(states, w.state)
	s.append(w, completed())
	for i, stale := range append(states, w.state) {
		stale.Phase = progress.Started
		for _, e := range []*progress.Event{output(0), completed(), {Kind: progress.Canceling}} {
			err := s.log.Append(s.Context(), w.key, stale.Record, Next(stale, e))
			s.equal(s.conflict(err, fmt.Sprintf("Append of %s after record %d, the end being 3", e.Kind, i)), w.state, "the conflict's state")
		}
	}
	_, state := s.all(s.peer, w.key)
	s.equal(state, w.state, "the state")
}

func (s *suite) recognisesARepeatedRecord() {
	w := &writer{log: s.log, key: progress.Key{Scope: "scope", ID: "repeated"}}
	for _, events := range [][]*progress.Event{{accepted()}, {started(), output(0)}, {output(1)}, nil, {completed()}} {
		prev, rec := w.state.Record, Next(w.state, events...)
		s.must(w.put(s.Context(), rec), "Append")
		s.must(s.log.Append(s.Context(), w.key, prev, rec), "Append of the newest record again")
		_, state := s.all(s.peer, w.key)
		s.equal(state, rec.State, "the state after a repeated append")
	}

	w = s.open("repeated-at-once")
	for range 20 {
		prev, rec := w.state.Record, Next(w.state, output(0))
		for _, err := range together(4, func(int) error { return s.log.Append(s.Context(), w.key, prev, rec) }) {
			s.must(err, "Append of one record by several at once")
		}
		w.state = rec.State
	}
	if events, _ := s.all(s.peer, w.key); len(events) != 21 {
		s.Errorf("the log has %d events, want 21", len(events))
	}
}

func (s *suite) recognisesOnlyTheNewestRecord() {
	w := s.open("overtaken")
	prev := w.state.Record
	old := s.append(w, started())
	s.append(w, output(0))
	err := s.log.Append(s.Context(), w.key, prev, old)
	s.equal(s.conflict(err, "Append of an older record again"), w.state, "the conflict's state")
	s.all(s.peer, w.key)
}

func (s *suite) isAtomic() {
	w := s.open("atomic")
	s.append(w, started())
	done := make(chan struct{})
	var wg sync.WaitGroup
	defer wg.Wait()
	for range 4 {
		wg.Go(func() {
			for after := uint64(2); ; {
				select {
				case <-done:
					return
				default:
				}
				events, page, err := read(s.Context(), s.peer, w.key, after, 3000)
				if err != nil {
					s.Errorf("Read: %v", err)
					return
				}
				after += uint64(len(events))
				if after%3 != 2 || page.State.Last < after || page.State.Last%3 != 2 {
					s.Errorf("a reader saw events up to %d and the state of event %d, where records end with events 2, 5, 8 …", after, page.State.Last)
					return
				}
			}
		})
	}
	for i := range s.Count {
		s.append(w, output(3*i), output(3*i+1), output(3*i+2))
	}
	close(done)
}

func (s *suite) keepsNumbersDense() {
	w := s.open("contended")
	s.append(w, started())
	each := s.Count / 4
	won := make([][]string, 2)
	errs := together(2, func(i int) error {
		state := w.state
		for len(won[i]) < each {
			rec := Next(state, output(i))
			err := s.log.Append(s.Context(), w.key, state.Record, rec)
			var c *progress.ConflictError
			switch {
			case err == nil:
				state = rec.State
				won[i] = append(won[i], rec.ID)
			case errors.As(err, &c):
				state = c.State
			default:
				return err
			}
		}
		return nil
	})
	s.must(errors.Join(errs...), "Append of competing writers")
	events, _ := s.all(s.peer, w.key)
	if len(events) != 2+2*each {
		s.Errorf("%d events are stored, want %d", len(events), 2+2*each)
	}
	stored := map[string]bool{}
	for _, e := range events {
		stored[e.Record] = true
	}
	for _, id := range append(won[0], won[1]...) {
		if !stored[id] {
			s.Errorf("record %s was appended and is not there", id)
		}
	}
}

func (s *suite) appendsACheckpoint() {
	w := s.open("checkpoint")
	s.append(w, started())
	s.append(w, output(0))
	rec := Next(w.state)
	rec.State.Checkpoint, rec.State.Resume = []byte(`{"row":1}`), 1
	s.must(w.put(s.Context(), rec), "Append of a record without events")
	state, err := s.peer.Tail(s.Context(), w.key)
	s.must(err, "Tail")
	s.equal(state, rec.State, "Tail's state")
	s.append(w, output(1))
	events, state := s.all(s.peer, w.key)
	s.equal(state, w.state, "the state")
	if len(events) != 4 {
		s.Errorf("the log has %d events, want 4", len(events))
	}
}

func (s *suite) protectsACheckpoint() {
	w := s.open("protected")
	s.append(w, started())
	stale, err := s.peer.Tail(s.Context(), w.key)
	s.must(err, "Tail")
	recs := make([]*progress.Record, 8)
	for i := range recs {
		recs[i] = Next(w.state)
		recs[i].State.Checkpoint = fmt.Appendf(nil, `{"row":%d}`, i)
	}
	errs := together(len(recs), func(i int) error { return s.log.Append(s.Context(), w.key, w.state.Record, recs[i]) })
	w.state = recs[s.oneSucceeded(errs)].State
	for _, events := range [][]*progress.Event{nil, {output(0)}, {retrying()}, {completed()}} {
		err := s.log.Append(s.Context(), w.key, stale.Record, Next(stale, events...))
		s.equal(s.conflict(err, fmt.Sprintf("Append of %d events by a writer from before the checkpoint", len(events))), w.state, "the conflict's state")
	}
	_, state := s.all(s.peer, w.key)
	s.equal(state, w.state, "the state after refused appends")
	s.append(w, output(0))
}

func (s *suite) needsALog() {
	key := progress.Key{Scope: "scope", ID: "absent"}
	rec := Next(progress.State{Epoch: "e", Last: 3, Phase: progress.Started, Attempt: 1}, output(0))
	s.notFound(s.log.Append(s.Context(), key, "gone", rec), "Append after a record of no log")
	_, err := s.peer.Tail(s.Context(), key)
	s.notFound(err, "Tail after a refused Append")
	s.must(s.log.Append(s.Context(), key, "", Next(progress.State{}, accepted())), "Append that creates it then")
}

func (s *suite) takesLargeRecords() {
	w := s.open("large")
	data := make([]byte, 900_000)
	for i := range data {
		data[i] = byte('a' + i%23)
	}
	data[0], data[len(data)-1] = '"', '"'
	e := &progress.Event{Kind: progress.Output, Data: data}
	err := w.put(s.Context(), Next(w.state, e))
	if err != nil && !errors.Is(err, progress.ErrTooLarge) {
		s.Fatalf("Append: got %v, want nil or progress.ErrTooLarge", err)
	}
	events, state := s.all(s.peer, w.key)
	s.equal(state, w.state, "the state")
	if err == nil {
		s.equal(events[1], e, "the event")
	}
	s.append(w, output(1))
}

// filledState returns a state whose every field is set, for a log's first record.
func filledState() progress.State {
	return progress.State{
		Epoch: "k3f9", Action: "export_data", Digest: "sha256:00ff", Group: "tenant é", Created: time.Now(),
		Phase: progress.Accepted, Attempt: 7, Used: 5, Nonce: "nonce", Started: time.Now(), Outputs: 12,
		Reason: "user pressed \"stop\"\u2028", Error: filledFailure(), Delay: 1500*time.Millisecond + 1,
		Resume: 9, Checkpoint: json.RawMessage(exactJSON),
	}
}

func filledFailure() *progress.Failure {
	return &progress.Failure{Code: "RATE_LIMITED", Message: "naïve <b>&\x00 \u2029 text", Details: json.RawMessage(exactJSON), RetryAfter: time.Nanosecond}
}

// filled fails the case when a sample lacks fields, so that it grows with the types.
func (s *suite) filled(samples ...any) {
	s.Helper()
	for _, v := range samples {
		if names := empty(reflect.ValueOf(v).Elem()); len(names) > 0 {
			s.Fatalf("logtest: the sample leaves %v empty", names)
		}
	}
}
