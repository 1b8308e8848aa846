package dynamolog_test

import (
	"encoding/json"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/pay-theory/streamer/v2/progress"
	"github.com/pay-theory/streamer/v2/progress/dynamolog"
	"github.com/pay-theory/streamer/v2/progress/logtest"
)

// log is a log of a test's own, with what tests do to one.
type log struct {
	*dynamolog.Log
	t     testing.TB
	again func(opts ...dynamolog.Option) *log // another one on the same table
}

// newLog returns a log on an emulator of its own, and a client that all of its calls go through.
func newLog(t testing.TB, opts ...dynamolog.Option) (*log, *client) {
	t.Helper()
	return start(t).log(t, opts...)
}

// log returns a log on a table of its own.
func (s service) log(t testing.TB, opts ...dynamolog.Option) (*log, *client) {
	t.Helper()
	c := newClient(s)
	table := s.create(t)
	c.table = table
	var again func(opts ...dynamolog.Option) *log
	again = func(opts ...dynamolog.Option) *log { return &log{s.open(t, c, table, opts...), t, again} }
	return again(opts...), c
}

func key(id string) progress.Key { return progress.Key{Scope: "tenant/user", ID: id} }

func event(kind progress.Kind) *progress.Event { return &progress.Event{Kind: kind} }

func output(size int) *progress.Event {
	return &progress.Event{Kind: progress.Output, Data: json.RawMessage(`"` + strings.Repeat("x", size-2) + `"`)}
}

func accepted() *progress.Event {
	return &progress.Event{Kind: progress.Accepted, Request: &progress.Request{
		Action: "export_data", Payload: json.RawMessage(`{"format":"csv","from":"2026-01-01"}`),
		Metadata: map[string]string{"user_id": "u1", "tenant_id": "t1"},
	}}
}

// initial returns the state that a router starts a log with.
func initial() progress.State {
	return progress.State{
		Epoch: "PZH3DDVRSTWK", Action: "export_data", Digest: strings.Repeat("d", 43), Group: "tenant/user", Created: time.Now(),
	}
}

// put appends events after state and returns the state then.
func (l *log) put(id string, state progress.State, events ...*progress.Event) (progress.State, error) {
	rec := logtest.Next(state, events...)
	if err := l.Append(l.t.Context(), key(id), state.Record, rec); err != nil {
		return state, err
	}
	return rec.State, nil
}

// must is put where it has to succeed.
func (l *log) must(id string, state progress.State, events ...*progress.Event) progress.State {
	l.t.Helper()
	state, err := l.put(id, state, events...)
	require.NoError(l.t, err)
	return state
}

// start begins a request whose attempt has started.
func (l *log) start(id string) progress.State {
	l.t.Helper()
	return l.must(id, l.must(id, initial(), accepted()), event(progress.Started))
}

// end ends a request, whose log then stays for a while.
func (l *log) end(id string, state progress.State, retention time.Duration) progress.State {
	l.t.Helper()
	rec := logtest.Next(state, &progress.Event{Kind: progress.Completed, Success: true, Data: json.RawMessage(`"done"`)})
	rec.Retention = retention
	require.NoError(l.t, l.Append(l.t.Context(), key(id), state.Record, rec))
	return rec.State
}

// all reads a log page by page, and returns the numbers of its events.
func (l *log) all(id string) (numbers []uint64) {
	l.t.Helper()
	for after := uint64(0); ; {
		page, err := l.Read(l.t.Context(), key(id), after, 100)
		require.NoError(l.t, err)
		if len(page.Events) == 0 {
			return numbers
		}
		for _, e := range page.Events {
			numbers = append(numbers, e.Seq)
			after = e.Seq
		}
	}
}

// tail returns a state, or an error.
func (l *log) tail(id string) (progress.State, error) { return l.Tail(l.t.Context(), key(id)) }

// common makes what most requests make: ten outputs in five records, and five reports.
func (l *log) common(id string) {
	l.t.Helper()
	state := l.start(id)
	for n := range 5 {
		p := &progress.Progress{Attempt: 1, Rev: uint64(n) + 1, Beat: uint64(n) + 1, Percentage: float64(20 * n), Message: "exporting rows", Time: time.Now()}
		require.NoError(l.t, l.SetProgress(l.t.Context(), key(id), p))
		state = l.must(id, state, output(100), output(100))
	}
	l.end(id, state, time.Hour)
}
