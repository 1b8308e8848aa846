package dynamolog_test

import (
	"encoding/json"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/service/dynamodb"
	"github.com/aws/aws-sdk-go-v2/service/dynamodb/types"
	"github.com/stretchr/testify/require"

	"github.com/pay-theory/streamer/v2/progress"
	"github.com/pay-theory/streamer/v2/progress/dynamolog"
	"github.com/pay-theory/streamer/v2/progress/logtest"
)

// watch watches a log until the test ends.
func (l *log) watch(id string) {
	l.t.Helper()
	stop, err := l.Watch(l.t.Context(), key(id), func(string) {})
	require.NoError(l.t, err)
	l.t.Cleanup(stop)
}

// rarely has nothing looked at while a test lasts.
func rarely() dynamolog.Option { return dynamolog.WithPoll(time.Minute, time.Minute) }

// sometime tries something with logs of its own until it succeeds: machines stall, and what was
// found counts as known for 50 ms.
func sometime(t *testing.T, try func(id string) bool) {
	t.Helper()
	n := 0
	require.Eventually(t, func() bool { n++; return try(fmt.Sprint("r", n)) }, patience, time.Millisecond)
}

func TestAGatewayShowsWhatItHasJustMadeWithoutACall(t *testing.T) {
	t.Parallel()
	l, c := newLog(t, rarely())
	sometime(t, func(id string) bool {
		state := l.must(id, initial(), accepted())
		l.watch(id)
		spent := c.during(t, func() {
			for _, after := range []uint64{0, state.Last} {
				page, err := l.Read(t.Context(), key(id), after, 10)
				require.NoError(t, err)
				require.Len(t, page.Events, 1-int(after))
				require.Equal(t, state.Record, page.State.Record)
			}
		})
		return len(spent.calls) == 0
	})
}

func TestAWorkerOfTheProcessThatMadeARequestNeedNotReadIt(t *testing.T) {
	t.Parallel()
	l, c := newLog(t, rarely())
	sometime(t, func(id string) bool {
		state := l.must(id, initial(), accepted())
		spent := c.during(t, func() {
			page, err := l.Read(t.Context(), key(id), 0, 1)
			require.NoError(t, err)
			require.Len(t, page.Events, 1)
			require.Equal(t, state.Record, page.State.Record)
		})
		return len(spent.calls) == 0
	})
}

func TestWhatAProcessHasMadeIsReadFromMemoryForASecondOnly(t *testing.T) {
	t.Parallel()
	l, _ := newLog(t, rarely())
	newest := l.again().must("r", l.must("r", initial(), accepted()), event(progress.Started)).Record
	require.Eventually(t, func() bool {
		page, err := l.Read(t.Context(), key("r"), 0, 10)
		require.NoError(t, err)
		return page.State.Record == newest
	}, patience, 50*time.Millisecond)
}

func TestWhatNobodyWatchesIsReadAnewOnceItHasGoneOn(t *testing.T) {
	t.Parallel()
	l, _ := newLog(t, rarely())
	state := l.must("r", initial(), accepted())
	state = l.must("r", state, event(progress.Started))
	page, err := l.Read(t.Context(), key("r"), 0, 10)
	require.NoError(t, err)
	require.Equal(t, state.Record, page.State.Record)
	other := l.again()
	state = other.must("r", state, output(10)) // at once: what was found counts for a moment to who watches
	page, err = l.Read(t.Context(), key("r"), 0, 10)
	require.NoError(t, err)
	require.Equal(t, state.Record, page.State.Record)
}

func TestAWorkerReadsARequestOnce(t *testing.T) {
	t.Parallel()
	gateway, c := newLog(t, rarely())
	worker := gateway.again(rarely())
	sometime(t, func(id string) bool {
		gateway.must(id, initial(), accepted())
		answers := 0
		c.hook(nil, func(in, _ any) error {
			if in, ok := in.(*dynamodb.UpdateItemInput); ok && in.ReturnValues != "" {
				answers++
			}
			return nil
		})
		spent := c.during(t, func() {
			page, err := worker.Read(t.Context(), key(id), 0, 1)
			require.NoError(t, err)
			worker.watch(id)
			state := worker.must(id, page.State, event(progress.Started))
			state = worker.must(id, state, output(100), output(100))
			worker.end(id, state, time.Hour)
		})
		require.Equal(t, map[string]int{"GetItem": 1, "UpdateItem": 3}, spent.calls)
		return answers == 0
	})
}

func TestWhatAProcessHasMadeCountsAsNewestForAMomentOnly(t *testing.T) {
	t.Parallel()
	l, _ := newLog(t, rarely())
	other := l.again()
	const logs = 50 // each is asked for once
	var newest [logs]string
	for n := range logs {
		id := fmt.Sprint("r", n)
		newest[n] = other.must(id, l.must(id, initial(), accepted()), event(progress.Started)).Record
	}
	n := 0
	require.Eventually(t, func() bool {
		id := fmt.Sprint("r", n)
		l.watch(id)
		page, err := l.Read(t.Context(), key(id), 0, 10)
		require.NoError(t, err)
		n++
		return page.State.Record == newest[n-1]
	}, logs*100*time.Millisecond, 100*time.Millisecond)
}

func TestWhatAWriterKnowsIsWhatOthersRead(t *testing.T) {
	t.Parallel()
	l, c := newLog(t, rarely())
	other := l.again()
	answers := 0
	c.hook(nil, func(in, _ any) error {
		if in, ok := in.(*dynamodb.UpdateItemInput); ok && in.ReturnValues == types.ReturnValueAllNew {
			answers++
		}
		return nil
	})
	now := time.Unix(1_800_000_000, 5).UTC() // as it is when it was stored
	first, request := initial(), accepted()
	first.Created, request.Time = now, now
	state := l.must("r", first, request)
	l.watch("r")
	put := func(change func(rec *progress.Record), events ...*progress.Event) {
		t.Helper()
		for _, e := range events {
			e.Time = now
		}
		rec := logtest.Next(state, events...)
		change(rec)
		require.NoError(t, l.Append(t.Context(), key("r"), state.Record, rec))
		state = rec.State
		after := state.Last - uint64(len(events))
		for _, after := range []uint64{after, after - 1} {
			known, err := l.Read(t.Context(), key("r"), after, 10)
			require.NoError(t, err)
			read, err := other.Read(t.Context(), key("r"), after, 10)
			require.NoError(t, err)
			require.Equal(t, read, known)
		}
	}
	same := func(*progress.Record) {}
	reports := func(rec *progress.Record) {
		rec.Progress = &progress.Progress{Attempt: 1, Rev: 3, Beat: 4, Percentage: 50, Message: "half", Time: now}
	}
	put(same, event(progress.Started))
	answers = 0 // what was there at first may have been made too long ago
	put(reports, output(100), output(50))
	put(same, output(100))
	put(func(rec *progress.Record) { rec.State.Checkpoint = json.RawMessage(`{"row":3}`) })
	put(same, output(10))
	for range 4 {
		put(same, output(1200)) // the head makes room twice
	}
	put(same, output(10_000)) // in an item of its own
	put(func(rec *progress.Record) {
		rec.State.Checkpoint = json.RawMessage(`"` + strings.Repeat("c", 2000) + `"`)
	}, output(10))
	put(func(rec *progress.Record) { rec.State.Checkpoint = nil }, output(10))
	put(same, &progress.Event{Kind: progress.Retrying, Attempt: 1, Reason: progress.ReasonLost}, event(progress.Started))
	require.Zero(t, answers, "nothing was asked for that the writer knew")
	require.NoError(t, l.SetProgress(t.Context(), key("r"), &progress.Progress{Attempt: 2, Rev: 1, Beat: 1}))
	put(same, output(20))
	put(func(rec *progress.Record) { rec.Retention = time.Hour }, &progress.Event{Kind: progress.Completed, Success: true, Data: json.RawMessage(`"done"`)})
	require.Equal(t, 1, answers, "a progress may come after what others have changed")
}

func TestARecordThatWasNotMadeFromTheStateBeforeItIsNotStored(t *testing.T) {
	t.Parallel()
	l, _ := newLog(t, rarely())
	state := l.must("r", initial(), accepted())
	foreign, hole := state, state
	foreign.Epoch = "another"
	hole.Last += 3
	for what, wrong := range map[string]progress.State{"of epoch \"another\"": foreign, "but record": hole} {
		for range 2 { // by what is stored, then by what the writer knows
			err := l.Append(t.Context(), key("r"), state.Record, logtest.Next(wrong, event(progress.Started)))
			require.ErrorContains(t, err, what)
			l.watch("r")
		}
	}
	require.Equal(t, []uint64{1}, l.all("r"))
}
