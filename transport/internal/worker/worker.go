// Package worker appends to logs as a worker would, for tests of transports: what happens to a
// request, and when, is the test's to say.
package worker

import (
	"crypto/rand"
	"encoding/json"
	"testing"
	"time"

	"github.com/pay-theory/streamer/v2/progress"
)

// Worker appends to the log of one request.
type Worker struct {
	t     testing.TB
	log   progress.Log
	Key   progress.Key
	State progress.State // after the newest record
	Rev   uint64         // of the newest progress
}

// New returns a worker for a request that was accepted.
func New(t testing.TB, log progress.Log, key progress.Key) *Worker {
	t.Helper()
	w := &Worker{t: t, log: log, Key: key}
	w.Look()
	return w
}

// Look reads what others have appended.
func (w *Worker) Look() {
	w.t.Helper()
	st, err := w.log.Tail(w.t.Context(), w.Key)
	w.check(err)
	w.State = st
}

// Append appends events in one record, with their numbers and times set.
func (w *Worker) Append(events ...*progress.Event) *Worker {
	w.t.Helper()
	return w.AppendWith(nil, events...)
}

// AppendWith is Append, with progress in the same step.
func (w *Worker) AppendWith(p *progress.Progress, events ...*progress.Event) *Worker {
	w.t.Helper()
	prev := w.State.Record
	rec := &progress.Record{ID: rand.Text(), State: w.State, Progress: p}
	rec.State.Record = rec.ID
	for _, e := range events {
		e.Seq, e.Record, e.Time = rec.State.Last+1, rec.ID, time.Now()
		if e.Attempt == 0 {
			e.Attempt = rec.State.Attempt
		}
		rec.State = rec.State.Apply(e)
		if e.Kind.Ends() {
			rec.Retention = time.Hour
		}
	}
	rec.Events = events
	w.check(w.log.Append(w.t.Context(), w.Key, prev, rec))
	w.State = rec.State
	return w
}

// Start begins the next attempt.
func (w *Worker) Start() *Worker {
	w.t.Helper()
	w.Rev = 0
	return w.Append(&progress.Event{Kind: progress.Started, Attempt: w.State.Attempt + 1, Index: w.State.Outputs})
}

// Output puts out JSON.
func (w *Worker) Output(data string) *Worker {
	w.t.Helper()
	return w.Append(&progress.Event{Kind: progress.Output, Index: w.State.Outputs, Data: json.RawMessage(data)})
}

// Progress reports a percentage.
func (w *Worker) Progress(percentage float64) *Worker {
	w.t.Helper()
	return w.Report(w.NewProgress(percentage))
}

// Report stores p.
func (w *Worker) Report(p *progress.Progress) *Worker {
	w.t.Helper()
	w.check(w.log.SetProgress(w.t.Context(), w.Key, p))
	return w
}

// NewProgress returns the next progress of the attempt.
func (w *Worker) NewProgress(percentage float64) *progress.Progress {
	w.Rev++
	return &progress.Progress{Attempt: w.State.Attempt, Rev: w.Rev, Beat: w.Rev, Percentage: percentage, Time: time.Now()}
}

// Complete ends the request well, with JSON.
func (w *Worker) Complete(data string) *Worker {
	w.t.Helper()
	return w.Append(&progress.Event{Kind: progress.Completed, Success: true, Data: json.RawMessage(data)})
}

func (w *Worker) check(err error) {
	w.t.Helper()
	if err != nil {
		w.t.Fatal(err)
	}
}
