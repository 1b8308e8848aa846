package fault_test

import (
	"context"
	"fmt"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/pay-theory/streamer/v2/internal/fault"
	"github.com/pay-theory/streamer/v2/progress"
	"github.com/pay-theory/streamer/v2/progress/logtest"
	"github.com/pay-theory/streamer/v2/progress/memlog"
)

func TestLogWithoutFaultsConforms(t *testing.T) {
	t.Parallel()
	logtest.Run(t, logtest.Harness{
		New:    func(t testing.TB) progress.Log { return fault.NewLog(openLog(t), 1, longest) },
		Around: synctest.Test,
	})
}

func TestLogConformsWhateverIsLateShortOrTwice(t *testing.T) {
	t.Parallel()
	logtest.Run(t, logtest.Harness{
		New: func(t testing.TB) progress.Log {
			l := fault.NewLog(openLog(t), 1, time.Millisecond)
			l.Delay.Set(0.01)
			l.ShortPage.Set(0.3)
			l.NotifiedTwice.Set(0.3)
			l.NotifiedLate.Set(0.3)
			return l
		},
		Around: synctest.Test,
		Tick:   10 * time.Second, // beside which delays are nothing
		Wait:   time.Hour,
	})
}

func openLog(t testing.TB) *memlog.Log {
	l := memlog.New()
	t.Cleanup(func() { l.Close() })
	return l
}

// onLog runs a test in a bubble, on the log of a request that was accepted.
func onLog(t *testing.T, test func(t *testing.T, l *fault.Log, r *request)) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		inner := openLog(t)
		l := fault.NewLog(inner, 1, longest)
		r := &request{inner: inner, log: l}
		require.NoError(t, r.append(t.Context(), progress.Accepted))
		test(t, l, r)
	})
}

// request appends through a log with faults, and knows what is behind it.
type request struct {
	inner *memlog.Log
	log   *fault.Log
	state progress.State
}

func (r *request) append(ctx context.Context, kind progress.Kind) error {
	rec := logtest.Next(r.state, &progress.Event{Kind: kind})
	err := r.log.Append(ctx, progress.Key{ID: "r"}, r.state.Record, rec)
	if err == nil {
		r.state = rec.State
	}
	return err
}

// last is the number of the newest event that is really there.
func (r *request) last(t *testing.T) uint64 {
	t.Helper()
	state, err := r.inner.Tail(t.Context(), progress.Key{ID: "r"})
	require.NoError(t, err)
	return state.Last
}

func TestLogIsUnavailable(t *testing.T) {
	onLog(t, func(t *testing.T, l *fault.Log, r *request) {
		l.Unavailable.Set(1)
		require.ErrorIs(t, r.append(t.Context(), progress.Started), progress.ErrUnavailable)
		require.EqualValues(t, 1, r.last(t))
		require.ErrorIs(t, l.SetProgress(t.Context(), progress.Key{ID: "r"}, &progress.Progress{}), progress.ErrUnavailable)
		_, err := l.Tail(t.Context(), progress.Key{ID: "r"})
		require.ErrorIs(t, err, progress.ErrUnavailable)
		_, err = l.Read(t.Context(), progress.Key{ID: "r"}, 0, 1)
		require.ErrorIs(t, err, progress.ErrUnavailable)
		_, err = l.Watch(t.Context(), progress.Key{ID: "r"}, func(string) {})
		require.ErrorIs(t, err, progress.ErrUnavailable)
		for _, err := range l.Open(t.Context(), 0) {
			require.ErrorIs(t, err, progress.ErrUnavailable)
		}
		require.EqualValues(t, 6, l.Unavailable.Count())

		l.Unavailable.Set(0)
		require.NoError(t, r.append(t.Context(), progress.Started))
		require.EqualValues(t, 6, l.Unavailable.Count())
	})
}

func TestLogDoesAndSaysItFailed(t *testing.T) {
	onLog(t, func(t *testing.T, l *fault.Log, r *request) {
		l.AnswerLost.Set(1)
		require.ErrorIs(t, r.append(t.Context(), progress.Started), progress.ErrUnavailable)
		require.EqualValues(t, 2, r.last(t))
		require.EqualValues(t, 1, l.AnswerLost.Count())
	})
}

func TestLogTimesOutWithOrWithoutEffect(t *testing.T) {
	onLog(t, func(t *testing.T, l *fault.Log, r *request) {
		done := map[bool]int{}
		for range 100 {
			before := r.last(t)
			l.TimedOut.Set(1)
			require.ErrorIs(t, r.append(t.Context(), progress.Output), context.DeadlineExceeded)
			l.TimedOut.Set(0)
			done[r.last(t) > before]++
			var err error
			r.state, err = l.Tail(t.Context(), progress.Key{ID: "r"})
			require.NoError(t, err)
		}
		require.Greater(t, done[true], 20)
		require.Greater(t, done[false], 20)
	})
}

func TestLogAppendsAfterItSaidItFailed(t *testing.T) {
	onLog(t, func(t *testing.T, l *fault.Log, r *request) {
		l.DoneLate.Set(1)
		ctx, cancel := context.WithCancel(t.Context())
		require.ErrorIs(t, r.append(ctx, progress.Started), progress.ErrUnavailable)
		cancel()
		require.EqualValues(t, 1, r.last(t))
		time.Sleep(longest)
		synctest.Wait()
		require.EqualValues(t, 2, r.last(t))
	})
}

func TestLogIsSlow(t *testing.T) {
	onLog(t, func(t *testing.T, l *fault.Log, r *request) {
		l.Delay.Set(1)
		begun := time.Now()
		for range 100 {
			require.NoError(t, r.append(t.Context(), progress.Output))
		}
		took := time.Since(begun)
		require.Greater(t, took, 100*longest/2)
		require.Less(t, took, 2*100*longest)
		require.EqualValues(t, 200, l.Delay.Count())

		ctx, cancel := context.WithTimeout(t.Context(), time.Millisecond)
		defer cancel()
		begun = time.Now()
		require.ErrorIs(t, r.append(ctx, progress.Output), context.DeadlineExceeded)
		require.Equal(t, time.Millisecond, time.Since(begun))
	})
}

func TestLogPagesAreShort(t *testing.T) {
	onLog(t, func(t *testing.T, l *fault.Log, r *request) {
		for range 50 {
			require.NoError(t, r.append(t.Context(), progress.Output))
		}
		l.ShortPage.Set(1)
		lengths := map[int]bool{}
		for range 100 {
			page, err := l.Read(t.Context(), progress.Key{ID: "r"}, 0, 40)
			require.NoError(t, err)
			require.NotEmpty(t, page.Events)
			require.Less(t, len(page.Events), 40)
			lengths[len(page.Events)] = true
		}
		require.Greater(t, len(lengths), 10)
		page, err := l.Read(t.Context(), progress.Key{ID: "r"}, 0, 1)
		require.NoError(t, err)
		require.Len(t, page.Events, 1)
	})
}

func TestLogNotifiesLateOrTwice(t *testing.T) {
	onLog(t, func(t *testing.T, l *fault.Log, r *request) {
		var calls atomic.Int64
		stop, err := l.Watch(t.Context(), progress.Key{ID: "r"}, func(string) { calls.Add(1) })
		require.NoError(t, err)
		after := func(rates func()) string {
			calls.Store(0)
			rates()
			require.NoError(t, r.append(t.Context(), progress.Output))
			now := calls.Load()
			time.Sleep(longest)
			synctest.Wait()
			return fmt.Sprint(now, " now, ", calls.Load(), " in all")
		}
		require.Equal(t, "1 now, 1 in all", after(func() {}))
		require.Equal(t, "1 now, 2 in all", after(func() { l.NotifiedTwice.Set(1) }))
		require.Equal(t, "0 now, 1 in all", after(func() { l.NotifiedLate.Set(1) }))

		calls.Store(0)
		require.NoError(t, r.append(t.Context(), progress.Output))
		stop()
		time.Sleep(longest)
		synctest.Wait()
		require.Zero(t, calls.Load(), "not after stop")
	})
}

func TestOpenBreaksOffAnywhere(t *testing.T) {
	onLog(t, func(t *testing.T, l *fault.Log, r *request) {
		for i := range 50 {
			rec := logtest.Next(progress.State{}, &progress.Event{Kind: progress.Accepted})
			require.NoError(t, r.inner.Append(t.Context(), progress.Key{ID: fmt.Sprint(i)}, "", rec))
		}
		l.Unavailable.Set(0.05)
		lengths := map[int]bool{}
		for range 50 {
			n := 0
			for _, err := range l.Open(t.Context(), 0) {
				if err != nil {
					require.ErrorIs(t, err, progress.ErrUnavailable)
					break
				}
				n++
			}
			lengths[n] = true
		}
		require.Greater(t, len(lengths), 5)
	})
}
