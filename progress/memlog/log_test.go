package memlog_test

import (
	"context"
	"encoding/json"
	"fmt"
	"runtime"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"

	"github.com/pay-theory/streamer/v2/progress"
	"github.com/pay-theory/streamer/v2/progress/logtest"
	"github.com/pay-theory/streamer/v2/progress/memlog"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func TestLogKeepsTheContract(t *testing.T) {
	t.Parallel()
	logtest.Run(t, logtest.Harness{
		New:    func(t testing.TB) progress.Log { return open(t) },
		Around: synctest.Test,
	})
}

// open returns a log that is closed when the test ends.
func open(t testing.TB, opts ...memlog.Option) *memlog.Log {
	l := memlog.New(opts...)
	t.Cleanup(func() { l.Close() })
	return l
}

func key(id string) progress.Key { return progress.Key{Scope: "scope", ID: id} }

func event(kind progress.Kind) *progress.Event { return &progress.Event{Kind: kind} }

func output(size int) *progress.Event {
	return &progress.Event{Kind: progress.Output, Data: json.RawMessage(`"` + strings.Repeat("x", size-2) + `"`)}
}

// put appends events after state and returns the state then.
func put(l *memlog.Log, id string, state progress.State, events ...*progress.Event) (progress.State, error) {
	rec := logtest.Next(state, events...)
	if err := l.Append(context.Background(), key(id), state.Record, rec); err != nil {
		return state, err
	}
	return rec.State, nil
}

// start begins a request whose attempt has started.
func start(t testing.TB, l *memlog.Log, id string) progress.State {
	t.Helper()
	state, err := put(l, id, progress.State{}, event(progress.Accepted), event(progress.Started))
	require.NoError(t, err)
	return state
}

// finish makes a request that has ended.
func finish(t testing.TB, l *memlog.Log, id string, retention time.Duration, events ...*progress.Event) {
	t.Helper()
	rec := logtest.Next(progress.State{}, append(events, event(progress.Completed))...)
	rec.Retention = retention
	require.NoError(t, l.Append(t.Context(), key(id), "", rec))
}

func has(l *memlog.Log, id string) bool {
	_, err := l.Tail(context.Background(), key(id))
	return err == nil
}

func TestInvalidOptionsPanic(t *testing.T) {
	t.Parallel()
	require.PanicsWithValue(t, "memlog: WithMaxBytes(0): must be more than 0", func() { memlog.New(memlog.WithMaxBytes(0)) })
	require.PanicsWithValue(t, "memlog: WithMaxRequests(0): at least 1 is needed", func() { memlog.New(memlog.WithMaxRequests(0)) })
}

func TestRecordsThatBreakTheRulesAreRefused(t *testing.T) {
	t.Parallel()
	l := open(t)
	state := start(t, l, "r")
	for want, spoil := range map[string]func(*progress.Record){
		"has no ID":                   func(r *progress.Record) { r.ID = "" },
		"has a state of record":       func(r *progress.Record) { r.State.Record = "other" },
		"event 1 of 2 is number 4":    func(r *progress.Record) { r.Events[0].Seq = 4 },
		"event 2 of 2 is number 3":    func(r *progress.Record) { r.Events[1].Seq = 3 },
		"says it is of record":        func(r *progress.Record) { r.Events[1].Record = "other" },
		"is an end and not the last":  func(r *progress.Record) { r.Events[0].Kind = progress.Failed },
		"has a state of event 7":      func(r *progress.Record) { r.State.Last = 7 },
		"differ on whether":           func(r *progress.Record) { r.State.Phase = progress.Completed },
		"must be more than 0 exactly": func(r *progress.Record) { r.Retention = time.Second },
		"has retention -1ns":          func(r *progress.Record) { r.Retention = -1 },
	} {
		rec := logtest.Next(state, output(10), output(10))
		spoil(rec)
		require.ErrorContains(t, l.Append(t.Context(), key("r"), state.Record, rec), want)
	}
	end := logtest.Next(state, event(progress.Completed))
	end.Retention = 0
	require.ErrorContains(t, l.Append(t.Context(), key("r"), state.Record, end), "has retention 0s")
	require.ErrorContains(t, l.Append(t.Context(), key("new"), "", logtest.Next(progress.State{})), "without an event")
	late := state
	late.Last = 7
	require.ErrorContains(t, l.Append(t.Context(), key("new"), "", logtest.Next(late, output(10))), "would start a log, has 1 events and a state of event 8")
	for _, events := range [][]*progress.Event{nil, {output(10)}} {
		require.ErrorContains(t, l.Append(t.Context(), key("r"), state.Record, logtest.Next(late, events...)), "before it ends with event 2")
	}
	foreign := state
	foreign.Epoch = "other"
	require.ErrorContains(t, l.Append(t.Context(), key("r"), state.Record, logtest.Next(foreign)), `is of epoch "other"`)
	now, err := l.Tail(t.Context(), key("r"))
	require.NoError(t, err)
	require.Equal(t, state, now)
}

func TestReadNeedsALimit(t *testing.T) {
	t.Parallel()
	l := open(t)
	start(t, l, "r")
	_, err := l.Read(t.Context(), key("r"), 0, 0)
	require.ErrorContains(t, err, "limit 0")
}

func TestAppendingToAPageLeavesTheLogAlone(t *testing.T) {
	t.Parallel()
	l := open(t)
	state := start(t, l, "r")
	for range 5 {
		state, _ = put(l, "r", state, output(10))
	}
	page, err := l.Read(t.Context(), key("r"), 0, 3)
	require.NoError(t, err)
	_ = append(page.Events, event(progress.Failed))
	all, err := l.Read(t.Context(), key("r"), 0, 10)
	require.NoError(t, err)
	for i, e := range all.Events {
		require.EqualValues(t, i+1, e.Seq)
	}
}

func TestNotifyIsCalledOutsideOfLocks(t *testing.T) {
	t.Parallel()
	l := open(t)
	for _, id := range []string{"ended", "evicted"} {
		called := make(chan struct{}, 10)
		stop, err := l.Watch(t.Context(), key(id), func(string) {
			has(l, id) // would block if the appender held the lock
			called <- struct{}{}
		})
		require.NoError(t, err)
		state := start(t, l, id)
		<-called
		require.NoError(t, l.SetProgress(t.Context(), key(id), &progress.Progress{Attempt: 1, Rev: 1}))
		<-called
		rec := logtest.Next(state, event(progress.Completed))
		rec.Retention = time.Millisecond
		require.NoError(t, l.Append(t.Context(), key(id), state.Record, rec))
		<-called
		<-called // its removal
		stop()
	}
}

func TestWatchersAreReleased(t *testing.T) {
	l := open(t)
	held := func(n int) uint64 {
		stops := make([]func(), n)
		for i := range stops {
			payload := make([]byte, 1<<16)
			stop, err := l.Watch(t.Context(), key("w"), func(string) { payload[0]++ })
			require.NoError(t, err)
			stops[i] = stop
		}
		for _, stop := range stops[1:] { // one stays, in front of them all
			stop()
		}
		stops = nil
		return heap()
	}
	before := held(1)
	after := held(500)
	require.Less(t, after, before+(8<<20), "500 watchers of 64 KiB were stopped")
}

// heap returns the bytes that live objects take.
func heap() uint64 {
	runtime.GC()
	runtime.GC()
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return m.HeapAlloc
}

func TestManyWatchersComeAndGo(t *testing.T) {
	t.Parallel()
	l := open(t)
	state := start(t, l, "w")
	var wg sync.WaitGroup
	for range 4 {
		wg.Go(func() {
			for range 500 {
				stop, err := l.Watch(t.Context(), key("w"), func(string) {})
				if err != nil {
					t.Error(err)
					return
				}
				defer stop()
				if again, err := l.Watch(t.Context(), key("w"), func(string) {}); err == nil {
					again()
				}
			}
		})
	}
	for range 500 {
		var err error
		state, err = put(l, "w", state, output(10))
		require.NoError(t, err)
	}
	wg.Wait()
}

func BenchmarkAppend(b *testing.B) {
	for _, parallel := range []bool{false, true} {
		b.Run(fmt.Sprintf("parallel=%v", parallel), func(b *testing.B) {
			l := open(b)
			b.ReportAllocs()
			if !parallel {
				a := newAppender(l, "0")
				for b.Loop() {
					a.append(b)
				}
				return
			}
			var n int
			var mu sync.Mutex
			b.RunParallel(func(pb *testing.PB) {
				mu.Lock()
				n++
				a := newAppender(l, fmt.Sprint(n))
				mu.Unlock()
				for pb.Next() {
					a.append(b)
				}
			})
		})
	}
}

// BenchmarkAppendWatched appends to a log that many watch.
func BenchmarkAppendWatched(b *testing.B) {
	for _, watchers := range []int{1, 100} {
		b.Run(fmt.Sprintf("watchers=%d", watchers), func(b *testing.B) {
			l := open(b)
			signal := make(chan struct{}, 1)
			for range watchers {
				stop, err := l.Watch(b.Context(), key("0"), func(string) {
					select {
					case signal <- struct{}{}:
					default:
					}
				})
				require.NoError(b, err)
				defer stop()
			}
			a := newAppender(l, "0")
			b.ReportAllocs()
			for b.Loop() {
				a.append(b)
			}
		})
	}
}

// BenchmarkRequest is a request's whole life: accepted, started, 10 outputs, its end.
func BenchmarkRequest(b *testing.B) {
	l := open(b, memlog.WithMaxRequests(10_000))
	b.ReportAllocs()
	for i := 0; b.Loop(); i++ {
		a := newAppender(l, fmt.Sprint(i))
		for range 12 {
			a.append(b)
		}
		a.end(b)
	}
}

func BenchmarkReadPage(b *testing.B) {
	l := open(b)
	a := newAppender(l, "0")
	for range 1000 {
		a.append(b)
	}
	for _, limit := range []int{1, 64, 1000} {
		b.Run(fmt.Sprintf("limit=%d", limit), func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				if page, err := l.Read(b.Context(), a.key, 0, limit); err != nil || len(page.Events) != limit {
					b.Fatal(len(page.Events), err)
				}
			}
		})
	}
}

// appender appends outputs to one log as fast as a worker could: it makes an event and a
// record each time, but no data. It begins a new log when the old one has become long.
type appender struct {
	log   *memlog.Log
	key   progress.Key
	data  json.RawMessage
	state progress.State
	n     int
}

func newAppender(l *memlog.Log, id string) *appender {
	return &appender{log: l, key: key(id), data: json.RawMessage(`{"text":"` + strings.Repeat("x", 100) + `"}`)}
}

func (a *appender) append(b *testing.B) {
	kind := progress.Output
	switch a.state.Last {
	case 0:
		kind = progress.Accepted
		a.state = progress.State{Epoch: "k3f9", Action: "bench", Digest: "digest"}
	case 1:
		kind = progress.Started
	case 10_000:
		a.end(b)
		a.append(b)
		return
	}
	e := &progress.Event{Seq: a.state.Last + 1, Kind: kind, Record: "0192f0c1-0000-7000-8000-000000000000", Attempt: 1, Index: a.state.Outputs}
	if kind == progress.Output {
		e.Data = a.data
	}
	a.store(b, e, 0)
}

func (a *appender) end(b *testing.B) {
	e := &progress.Event{Seq: a.state.Last + 1, Kind: progress.Completed, Record: "0192f0c1-0000-7000-8000-000000000001", Attempt: 1}
	a.store(b, e, time.Hour)
	a.n++
	a.key.ID = fmt.Sprint(a.key.ID[:1], "-", a.n)
	a.state = progress.State{}
}

func (a *appender) store(b *testing.B, e *progress.Event, retention time.Duration) {
	// The records share an ID, so that making IDs is not measured: every other one has it.
	id := e.Record
	if e.Seq%2 == 0 {
		id = "0192f0c1-0000-7000-8000-00000000ffff"
		e.Record = id
	}
	rec := &progress.Record{ID: id, Events: []*progress.Event{e}, State: a.state.Apply(e), Retention: retention}
	if err := a.log.Append(b.Context(), a.key, a.state.Record, rec); err != nil {
		b.Fatal(err)
	}
	a.state = rec.State
}
