package dynamolog_test

import (
	"context"
	"sync"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/service/dynamodb"
	"github.com/stretchr/testify/require"

	"github.com/pay-theory/streamer/v2/progress"
	"github.com/pay-theory/streamer/v2/progress/logtest"
)

// first returns the first event, and the state.
func (l *log) first(id string) progress.Page {
	l.t.Helper()
	page, err := l.Read(l.t.Context(), key(id), 0, 1)
	require.NoError(l.t, err)
	return page
}

func TestWhatWasAppendedIsReadThoughTheLogCameToBeWatchedMeanwhile(t *testing.T) {
	t.Parallel()
	l, c := newLog(t, rarely())
	state := l.start("r")
	c.hook(func(_ context.Context, in any) error {
		if _, ok := in.(*dynamodb.UpdateItemInput); ok {
			c.hook(nil, nil)
			l.watch("r")
			require.Equal(t, uint64(2), l.first("r").State.Last)
		}
		return nil
	}, nil)
	l.must("r", state, event(progress.Canceling))
	require.Equal(t, progress.Canceling, l.first("r").State.Phase)
}

func TestWhatWasAppendedIsReadThoughAProgressCameBeforeIt(t *testing.T) {
	t.Parallel()
	l, c := newLog(t, rarely())
	state := l.start("r")
	l.watch("r")
	l.first("r") // from now on it is known
	for n := range uint64(2) {
		c.hook(func(_ context.Context, in any) error {
			if _, ok := in.(*dynamodb.UpdateItemInput); ok {
				c.hook(nil, nil)
				for beat := range n + 1 {
					p := &progress.Progress{Attempt: 1, Rev: n + 1, Beat: 10*n + beat + 1}
					require.NoError(t, l.SetProgress(t.Context(), key("r"), p))
				}
			}
			return nil
		}, nil)
		state = l.must("r", state, output(10))
		page := l.first("r")
		require.Equal(t, state.Last, page.State.Last)
		require.Equal(t, n+1, page.Progress.Rev)
	}
}

func TestALateAnswerDoesNotHideWhatOthersHaveAppended(t *testing.T) {
	t.Parallel()
	for what, meanwhile := range map[string]func(l *log){
		"read":    func(*log) {},
		"watched": func(l *log) { l.watch("r") },
		"left": func(l *log) {
			stop, err := l.Watch(t.Context(), key("r"), func(string) {})
			require.NoError(t, err)
			l.first("r")
			stop()
		},
	} {
		l, c := newLog(t, rarely())
		other := l.again()
		var newest progress.State
		rec := logtest.Next(initial(), accepted())
		c.hook(nil, func(in, _ any) error {
			if _, ok := in.(*dynamodb.PutItemInput); ok {
				c.hook(nil, nil)
				newest = other.must("r", rec.State, event(progress.Started))
				page, err := l.ReadFresh(t.Context(), key("r"), 0, 10)
				require.NoError(t, err)
				require.Equal(t, newest.Last, page.State.Last)
				meanwhile(l)
			}
			return nil
		})
		require.NoError(t, l.Append(t.Context(), key("r"), "", rec))
		require.Equal(t, newest.Last, l.first("r").State.Last, what)
	}
}

func TestWhatWasAppendedIsReadThoughAnEarlierLookComesLater(t *testing.T) {
	t.Parallel()
	l, c := newLog(t, rarely())
	state := l.start("r")
	c.hook(nil, func(in, _ any) error {
		if _, ok := in.(*dynamodb.GetItemInput); ok {
			c.hook(nil, nil)
			l.must("r", state, event(progress.Canceling))
			l.watch("r")
		}
		return nil
	})
	l.first("r")
	require.Equal(t, progress.Canceling, l.first("r").State.Phase)
}

func TestWhatWasAppendedIsReadThoughAnEarlierReadEndsBeforeTheLogIsWatched(t *testing.T) {
	t.Parallel()
	l, c := newLog(t, rarely())
	state := l.start("r")
	c.hook(nil, func(in, _ any) error {
		if _, ok := in.(*dynamodb.GetItemInput); ok {
			c.hook(nil, nil)
			l.must("r", state, event(progress.Canceling))
		}
		return nil
	})
	l.first("r")
	l.watch("r")
	require.Equal(t, progress.Canceling, l.first("r").State.Phase)
}

func TestWhatAnAppendWasRefusedForIsReadThoughTheLogCameToBeWatchedMeanwhile(t *testing.T) {
	t.Parallel()
	l, c := newLog(t, rarely())
	other := l.again(rarely())
	state := l.start("r")
	c.hook(func(_ context.Context, in any) error {
		if _, ok := in.(*dynamodb.UpdateItemInput); ok {
			c.hook(nil, nil)
			l.watch("r")
			require.Equal(t, progress.Started, l.first("r").State.Phase)
			other.must("r", state, event(progress.Canceling))
		}
		return nil
	}, nil)
	_, err := l.put("r", state, output(100))
	require.ErrorAs(t, err, new(*progress.ConflictError))
	require.Equal(t, progress.Canceling, l.first("r").State.Phase)
}

func TestWatchersAreToldOfWhatWasAppendedWhileTheyCame(t *testing.T) {
	t.Parallel()
	l, c := newLog(t, rarely())
	state := l.start("r")
	var once sync.Once
	told := make(chan string, 10)
	c.hook(func(_ context.Context, in any) error {
		if _, ok := in.(*dynamodb.UpdateItemInput); ok {
			once.Do(func() {
				stop, err := l.Watch(t.Context(), key("r"), func(record string) { told <- record })
				require.NoError(t, err)
				t.Cleanup(stop)
			})
		}
		return nil
	}, nil)
	state = l.must("r", state, event(progress.Canceling))
	require.Equal(t, state.Record, <-told)
	require.Eventually(t, func() bool { return l.Stats().Looks > 0 }, patience, 5*time.Millisecond, "what it is now is looked up at once")
	page, err := l.Read(t.Context(), key("r"), 2, 1)
	require.NoError(t, err)
	require.Len(t, page.Events, 1)
}

func TestWhoAttachesIsNotBehindAnotherProcess(t *testing.T) {
	t.Parallel()
	l, _ := newLog(t, rarely())
	other := l.again(rarely())
	state := l.start("r")
	l.watch("r")
	require.Equal(t, state.Last, l.first("r").State.Last, "it is known by memory")
	state = other.must("r", state, output(10))
	require.NoError(t, other.SetProgress(t.Context(), key("r"), &progress.Progress{Attempt: 1, Rev: 7, Percentage: 70}))

	page, err := l.ReadFresh(t.Context(), key("r"), 0, 1)
	require.NoError(t, err)
	require.Equal(t, state.Last, page.State.Last)
	require.Equal(t, uint64(7), page.Progress.Rev)
	page = l.first("r")
	require.Equal(t, state.Last, page.State.Last, "and what is read from memory later is not either")
	require.Equal(t, uint64(7), page.Progress.Rev)
	_, err = l.ReadFresh(t.Context(), key("r"), 0, 0)
	require.ErrorContains(t, err, "limit 0")
}
