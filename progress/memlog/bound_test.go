package memlog_test

import (
	"fmt"
	"runtime"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/pay-theory/streamer/v2/progress"
	"github.com/pay-theory/streamer/v2/progress/logtest"
	"github.com/pay-theory/streamer/v2/progress/memlog"
)

func TestOverTheRequestBoundTheLongestFinishedIsForgotten(t *testing.T) {
	t.Parallel()
	l := open(t, memlog.WithMaxRequests(4))
	running := start(t, l, "running")
	finish(t, l, "first", 2*time.Hour)
	finish(t, l, "second", time.Hour)
	finish(t, l, "third", time.Hour)
	start(t, l, "new")
	require.False(t, has(l, "first"), "the longest finished, though it would stay the longest")
	require.True(t, has(l, "second"))
	start(t, l, "newer")
	require.False(t, has(l, "second"))
	start(t, l, "newest")
	require.Equal(t, memlog.Stats{Requests: 4, Open: 4, Evicted: 3, Bytes: l.Stats().Bytes}, l.Stats())

	_, err := put(l, "one-more", progress.State{}, event(progress.Accepted))
	require.ErrorIs(t, err, progress.ErrFull)
	require.False(t, has(l, "one-more"))
	running, err = put(l, "running", running, output(100))
	require.NoError(t, err, "an open request goes on")
	_, err = put(l, "running", running, event(progress.Completed))
	require.NoError(t, err)
	start(t, l, "one-more")
	require.False(t, has(l, "running"))
}

func TestAnExistingLogIsFoundWhenThereIsNoRoom(t *testing.T) {
	t.Parallel()
	l := open(t, memlog.WithMaxRequests(1))
	state := start(t, l, "there")
	_, err := put(l, "there", progress.State{}, event(progress.Accepted))
	var conflict *progress.ConflictError
	require.ErrorAs(t, err, &conflict)
	require.Equal(t, state, conflict.State)
}

func TestOverTheByteBoundOutputsAreRefusedAndEndsAreNot(t *testing.T) {
	t.Parallel()
	const bound = 1 << 20
	l := open(t, memlog.WithMaxBytes(bound))
	state := start(t, l, "big")
	var err error
	for err == nil {
		state, err = put(l, "big", state, output(10_000))
	}
	require.ErrorIs(t, err, progress.ErrFull)
	require.Greater(t, l.Stats().Bytes, int64(bound-50_000))
	require.LessOrEqual(t, l.Stats().Bytes, int64(bound))

	tail, err := l.Tail(t.Context(), key("big"))
	require.NoError(t, err)
	require.Equal(t, state, tail, "nothing of a refused record is stored")
	_, err = put(l, "new", progress.State{}, &progress.Event{Kind: progress.Accepted, Request: &progress.Request{Payload: make([]byte, 20_000)}})
	require.ErrorIs(t, err, progress.ErrFull)
	_, err = put(l, "big", state, output(10_000), event(progress.Completed))
	require.ErrorIs(t, err, progress.ErrFull, "outputs that come with an end are outputs")

	checkpoint := logtest.Next(state)
	checkpoint.State.Checkpoint = make([]byte, 64<<10)
	require.NoError(t, l.Append(t.Context(), key("big"), state.Record, checkpoint))
	require.NoError(t, l.SetProgress(t.Context(), key("big"), &progress.Progress{Attempt: 1, Rev: 1, Message: "still here"}))
	state = checkpoint.State
	for _, e := range []*progress.Event{event(progress.Retrying), event(progress.Started), event(progress.Canceling), {Kind: progress.Completed, Data: output(10_000).Data}} {
		state, err = put(l, "big", state, e)
		require.NoError(t, err, e.Kind)
	}
	require.True(t, has(l, "big"), "an end is not forgotten for its own sake")
	require.Zero(t, l.Stats().Evicted)
	start(t, l, "new")
	require.False(t, has(l, "big"), "but for what comes next")
}

func TestAnEndOverTheBoundForgetsOlderEnds(t *testing.T) {
	t.Parallel()
	l := open(t, memlog.WithMaxBytes(1<<20))
	finish(t, l, "old", time.Hour, output(300_000))
	state := start(t, l, "new")
	_, err := put(l, "new", state, &progress.Event{Kind: progress.Completed, Data: output(400_000).Data})
	require.NoError(t, err)
	require.False(t, has(l, "old"))
	require.True(t, has(l, "new"))
}

func TestNothingIsForgottenInVain(t *testing.T) {
	t.Parallel()
	l := open(t, memlog.WithMaxBytes(1<<20))
	state := start(t, l, "open")
	state, err := put(l, "open", state, output(300_000))
	require.NoError(t, err)
	finish(t, l, "ended", time.Hour, output(50_000))
	_, err = put(l, "open", state, output(400_000))
	require.ErrorIs(t, err, progress.ErrFull)
	require.True(t, has(l, "ended"))
	_, err = put(l, "open", state, output(2<<20))
	require.ErrorIs(t, err, progress.ErrTooLarge)
	require.True(t, has(l, "ended"))
}

func TestForgettingFreesAsMuchAsIsNeeded(t *testing.T) {
	t.Parallel()
	l := open(t, memlog.WithMaxBytes(1<<20))
	for i := range 40 {
		finish(t, l, fmt.Sprint(i), time.Hour, output(10_000))
	}
	finish(t, l, "large", time.Hour, output(200_000))
	require.False(t, has(l, "0"))
	require.True(t, has(l, "39"))
	require.LessOrEqual(t, l.Stats().Bytes, int64(1<<20))
	require.Greater(t, l.Stats().Bytes, int64(1<<20-50_000), "no more than needed")
}

func TestEverythingThatWasCountedIsGivenBack(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := open(t)
		for i := range 10 {
			state := start(t, l, fmt.Sprint(i))
			for j := range 5 {
				p := &progress.Progress{Attempt: 1, Rev: uint64(j), Message: strings.Repeat("m", 100-10*j)}
				require.NoError(t, l.SetProgress(t.Context(), key(fmt.Sprint(i)), p))
				rec := logtest.Next(state, output(100))
				rec.State.Checkpoint = make([]byte, 1000-100*j)
				rec.Progress = p
				require.NoError(t, l.Append(t.Context(), key(fmt.Sprint(i)), state.Record, rec))
				state = rec.State
			}
			_, err := put(l, fmt.Sprint(i), state, event(progress.Failed))
			require.NoError(t, err)
		}
		require.Positive(t, l.Stats().Bytes)
		time.Sleep(time.Hour)
		synctest.Wait()
		require.Equal(t, memlog.Stats{}, l.Stats())
	})
}

func TestRetentionIsExactWithoutFurtherCalls(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := open(t)
		finish(t, l, "long", time.Hour)
		finish(t, l, "short", time.Minute)
		finish(t, l, "endless", 1<<63-1)
		start(t, l, "open")
		var removed atomic.Int64
		for _, id := range []string{"long", "short"} {
			stop, err := l.Watch(t.Context(), key(id), func(string) { removed.Add(1) })
			require.NoError(t, err)
			defer stop()
		}
		time.Sleep(time.Minute - 1)
		require.True(t, has(l, "short"))
		time.Sleep(time.Nanosecond)
		require.False(t, has(l, "short"), "at that moment, even if the timer has not run")
		synctest.Wait()
		require.Equal(t, 3, l.Stats().Requests)
		require.EqualValues(t, 1, removed.Load())
		time.Sleep(59 * time.Minute)
		synctest.Wait()
		require.Equal(t, 2, l.Stats().Requests)
		require.EqualValues(t, 2, removed.Load())
		time.Sleep(1000 * time.Hour)
		require.True(t, has(l, "endless"))
		require.True(t, has(l, "open"))
	})
}

func TestAKeyIsFreeTheMomentItsRetentionIsOver(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		for range 50 {
			l := open(t)
			finish(t, l, "r", time.Minute)
			time.Sleep(time.Minute) // the timer may run before or after
			start(t, l, "r")
			synctest.Wait()
			require.True(t, has(l, "r"), "the timer removes the old log, not the new one")
			require.Equal(t, 1, l.Stats().Requests)
		}
	})
}

func TestCloseEndsTheTimer(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := memlog.New()
		finish(t, l, "r", time.Minute)
		require.NoError(t, l.Close())
		require.NoError(t, l.Close())
		finish(t, l, "s", time.Minute)
		time.Sleep(time.Hour)
		synctest.Wait()
		require.False(t, has(l, "r"))
		require.Equal(t, 2, l.Stats().Requests, "nothing removes it any more")
	})
}

func TestOpenCountsTimeFromTheLastChange(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := open(t)
		idle := func(d time.Duration) map[string]time.Duration {
			found := map[string]time.Duration{}
			for p, err := range l.Open(t.Context(), d) {
				require.NoError(t, err)
				found[p.Key.ID] = p.Idle
			}
			return found
		}
		state := start(t, l, "appended")
		start(t, l, "reported")
		start(t, l, "quiet")
		finish(t, l, "ended", time.Hour)
		time.Sleep(time.Minute)
		_, err := put(l, "appended", state, output(10))
		require.NoError(t, err)
		require.NoError(t, l.SetProgress(t.Context(), key("reported"), &progress.Progress{Attempt: 1, Rev: 1}))
		require.NoError(t, l.SetProgress(t.Context(), key("quiet"), &progress.Progress{Attempt: 7, Rev: 1}), "of no attempt: ignored")
		time.Sleep(time.Second)
		require.Equal(t, map[string]time.Duration{"quiet": 61 * time.Second}, idle(time.Minute))
		require.Len(t, idle(time.Second), 3)
		require.Empty(t, idle(2*time.Minute))
	})
}

func TestBytesAreCountedHonestly(t *testing.T) {
	encode := func(id string, e *progress.Event) []byte {
		return fmt.Appendf(nil, `{"type":"output","request_id":%q,"seq":%d,"attempt":%d,"index":%d,"data":%s}`, id, e.Seq, e.Attempt, e.Index, e.Data)
	}
	for name, shape := range map[string]struct{ requests, outputs, size int }{
		"many small requests": {5_000, 1, 20},
		"long logs":           {10, 2_000, 100},
		"large outputs":       {50, 20, 20_000},
	} {
		t.Run(name, func(t *testing.T) {
			l := open(t, memlog.WithMaxBytes(1<<30))
			before := heap()
			for i := range shape.requests {
				id := fmt.Sprintf("0192f0c1-0000-7000-8000-%012d", i)
				state, err := put(l, id, progress.State{}, &progress.Event{Kind: progress.Accepted, Request: &progress.Request{
					Action: "export", Payload: []byte(`{"format":"csv"}`), Metadata: map[string]string{"user_id": "u1", "tenant_id": "t1"},
				}}, event(progress.Started))
				require.NoError(t, err)
				for range shape.outputs {
					state, err = put(l, id, state, output(shape.size))
					require.NoError(t, err)
				}
				_, err = put(l, id, state, event(progress.Completed))
				require.NoError(t, err)
				page, err := l.Read(t.Context(), key(id), 0, 1<<20)
				require.NoError(t, err)
				for _, e := range page.Events {
					e.Encoded(id, encode)
				}
			}
			used, counted := float64(heap()-before), float64(l.Stats().Bytes)
			t.Logf("counted %.1f MB, used %.1f MB", counted/1e6, used/1e6)
			require.InDelta(t, 1, counted/used, 0.25)
			runtime.KeepAlive(l)
		})
	}
}
