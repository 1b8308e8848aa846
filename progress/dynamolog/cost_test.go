package dynamolog_test

import (
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/pay-theory/streamer/v2/progress"
	"github.com/pay-theory/streamer/v2/progress/dynamolog"
	"github.com/pay-theory/streamer/v2/progress/logtest"
)

// The documentation does this arithmetic.
func TestACommonRequestCosts13CallsAnd19WriteUnits(t *testing.T) {
	t.Parallel()
	l, c := newLog(t)
	spent := c.during(t, func() { l.common("r") })
	require.Equal(t, map[string]int{"PutItem": 1, "UpdateItem": 12}, spent.calls)
	require.Zero(t, spent.reads)
	require.InDelta(t, 19, spent.writes, 0, "the table's; the index takes 2 more")

	spent = c.during(t, func() { require.Len(t, l.all("r"), 13) })
	require.Equal(t, map[string]int{"GetItem": 2}, spent.calls, "a page, and the one that is empty")
	require.InDelta(t, 2, spent.reads, 0)
}

func TestShortWorkCostsOneWrite(t *testing.T) {
	t.Parallel()
	l, c := newLog(t)
	spent := c.during(t, func() { l.end("r", initial(), time.Hour) })
	require.Equal(t, map[string]int{"PutItem": 1}, spent.calls)
	require.InDelta(t, 1, spent.writes, 0)
}

func TestAnAppendIsOneCallWhereTheHeadHasRoom(t *testing.T) {
	t.Parallel()
	l, c := newLog(t)
	c.tells.Store(true)
	state := l.start("r")
	for range 5 {
		spent := c.during(t, func() { state = l.must("r", state, output(200), output(200)) })
		require.Equal(t, map[string]int{"UpdateItem": 1}, spent.calls)
	}
	spent := c.during(t, func() { state = l.must("r", state, output(1400)) })
	require.Equal(t, map[string]int{"UpdateItem": 2, "PutItem": 1}, spent.calls, "the head is full, which the first try tells")
	require.Len(t, l.all("r"), 13)
}

func TestAWriterWhoWatchesNeedsNoSecondTry(t *testing.T) {
	t.Parallel()
	l, c := newLog(t, dynamolog.WithPoll(time.Minute, time.Minute))
	stop, err := l.Watch(t.Context(), key("r"), func(string) {})
	require.NoError(t, err)
	defer stop()
	spent := c.during(t, func() {
		state := l.start("r")
		for range 20 {
			state = l.must("r", state, output(300))
		}
	})
	require.Equal(t, map[string]int{"PutItem": 3, "UpdateItem": 21}, spent.calls, "the log's first item, two for what the head had no more room for, and one for each append")
	require.Zero(t, spent.reads)
}

func TestWhatThisProcessWritesIsNotifiedAndReadWithoutACall(t *testing.T) {
	t.Parallel()
	l, c := newLog(t, dynamolog.WithPoll(time.Minute, time.Minute))
	var told atomic.Pointer[string]
	stop, err := l.Watch(t.Context(), key("r"), func(record string) { told.Store(&record) })
	require.NoError(t, err)
	defer stop()
	state := l.start("r")
	for n := range 5 {
		rec := logtest.Next(state, output(100))
		require.NoError(t, l.Append(t.Context(), key("r"), state.Record, rec))
		state = rec.State
		require.Equal(t, rec.ID, *told.Load())
		spent := c.during(t, func() {
			page, err := l.Read(t.Context(), key("r"), state.Last-1, 10)
			require.NoError(t, err)
			require.Equal(t, rec.Events[0].Data, page.Events[0].Data)
			require.Equal(t, state.Last, page.State.Last)
		})
		require.Empty(t, spent.calls)
		spent = c.during(t, func() {
			p := &progress.Progress{Attempt: 1, Rev: uint64(n) + 1, Beat: uint64(n) + 1}
			require.NoError(t, l.SetProgress(t.Context(), key("r"), p))
		})
		require.Equal(t, map[string]int{"UpdateItem": 1}, spent.calls)
	}
}
