package natslog_test

import (
	"context"
	"errors"
	"fmt"
	"runtime"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
	"github.com/stretchr/testify/require"

	"github.com/pay-theory/streamer/v2/internal/natstest"
	"github.com/pay-theory/streamer/v2/progress"
	"github.com/pay-theory/streamer/v2/progress/logtest"
)

// viewer follows a log as viewers do, and sends the numbers of events as they come.
type viewer struct {
	events chan uint64
	waits  chan uint64 // the number of the last event, whenever nothing more is there
	done   chan error
}

func (l *log) view(ctx context.Context, id string) *viewer {
	v := &viewer{events: make(chan uint64, 10_000), waits: make(chan uint64, 10_000), done: make(chan error, 1)}
	changed := make(chan struct{}, 1)
	signal := func() {
		select {
		case changed <- struct{}{}:
		default:
		}
	}
	signal()
	stop, err := l.Watch(ctx, key(id), func(string) { signal() })
	require.NoError(l.t, err)
	go func() {
		defer stop()
		v.done <- func() error {
			for after := uint64(0); ; {
				select {
				case <-changed:
				case <-ctx.Done():
					return fmt.Errorf("after event %d: %w", after, ctx.Err())
				}
				for {
					page, err := l.Read(ctx, key(id), after, 10)
					if errors.Is(err, progress.ErrUnavailable) {
						again := time.AfterFunc(20*time.Millisecond, signal)
						defer again.Stop()
						break
					}
					if err != nil {
						break // there is no log yet
					}
					for _, e := range page.Events {
						if e.Seq != after+1 {
							return fmt.Errorf("event %d came after event %d", e.Seq, after)
						}
						after++
						v.events <- after
						if e.Kind.Ends() {
							return nil
						}
					}
					if len(page.Events) == 0 {
						v.waits <- after
						break
					}
				}
			}
		}()
	}()
	return v
}

func TestLostNotificationsAreMadeUpFor(t *testing.T) {
	url := natstest.Start(t, nil).URL()
	for name, drop := range map[string]func(n int64) bool{
		"every other":   func(n int64) bool { return n%2 == 0 || n >= 29 },
		"all":           func(int64) bool { return true },
		"only the last": func(n int64) bool { return n > 29 },
	} {
		t.Run(name, func(t *testing.T) {
			writer, l := newLog(t, url), newLog(t, url)
			var n, lost atomic.Int64
			l.Lose(func(*nats.Msg) bool {
				if drop(n.Add(1)) {
					lost.Add(1)
					return true
				}
				return false
			})
			l.Looks(20*time.Millisecond, 50*time.Millisecond)
			last := make(chan string, 1000)
			stop, err := l.Watch(t.Context(), key(name), func(record string) { last <- record })
			require.NoError(t, err)
			defer stop()
			require.NoError(t, l.js.Conn().Flush(), "the server has the subscription")
			v := l.view(t.Context(), name)
			state := writer.start(name)
			for range 27 {
				state = writer.must(name, state, output(10))
			}
			for <-v.waits < state.Last {
			}
			state = writer.end(name, state, time.Hour)
			require.NoError(t, <-v.done)
			for <-last != state.Record {
			}
			require.Positive(t, lost.Load())
			require.Positive(t, l.Stats().Missed, "nobody told of the end")
		})
	}
}

func TestLostNotificationsOfProgressAreMadeUpFor(t *testing.T) {
	url := natstest.Start(t, nil).URL()
	writer, l := newLog(t, url), newLog(t, url)
	l.Lose(func(*nats.Msg) bool { return true })
	l.Looks(20*time.Millisecond, 50*time.Millisecond)
	writer.start("r")
	told := make(chan struct{}, 100)
	stop, err := l.Watch(t.Context(), key("r"), func(string) { told <- struct{}{} })
	require.NoError(t, err)
	defer stop()
	for rev := uint64(1); rev <= 3; rev++ {
		require.NoError(t, writer.SetProgress(t.Context(), key("r"), &progress.Progress{Attempt: 1, Rev: rev, Beat: rev}))
		eventually(t, func() bool {
			select {
			case <-told:
			default:
				return false
			}
			page, err := l.Read(t.Context(), key("r"), 0, 10)
			return err == nil && page.Progress != nil && page.Progress.Rev == rev
		}, "the progress is seen")
	}
}

func TestTheEndOfRetentionIsToldThoughNobodyReads(t *testing.T) {
	url := natstest.Start(t, nil).URL()
	writer, l := newLog(t, url), newLog(t, url)
	told := make(chan string, 100)
	stop, err := l.Watch(t.Context(), key("r"), func(record string) { told <- record })
	require.NoError(t, err)
	defer stop()
	state := writer.end("r", writer.start("r"), 200*time.Millisecond)
	begun := time.Now()
	for record := range told {
		if record == "" {
			break
		}
	}
	require.Greater(t, time.Since(begun), 150*time.Millisecond)
	require.Less(t, time.Since(begun), 5*time.Second)
	_, err = l.tail("r")
	require.ErrorIs(t, err, progress.ErrNotFound)
	require.NotEmpty(t, state.Record)
}

func TestViewersGoOnAfterARestartOfTheServer(t *testing.T) {
	srv := natstest.Start(t, nil)
	writer := newLog(t, srv.URL())
	// The viewer is back later than the writer, whose notification then nobody gets.
	js, err := jetstream.New(natstest.Dial(t, srv.URL(), nats.ReconnectWait(500*time.Millisecond)))
	require.NoError(t, err)
	l := &log{Log: open(t, js), t: t, js: js, url: srv.URL()}
	l.Looks(time.Hour, time.Hour)
	state := writer.start("r")
	v := l.view(t.Context(), "r")
	next := func() {
		t.Helper()
		select {
		case n := <-v.events:
			require.Equal(t, state.Last, n)
		case <-time.After(10 * time.Second):
			require.Fail(t, "the viewer is not told")
		}
	}
	<-v.events
	next()
	for range 2 {
		for <-v.waits < state.Last {
		}
		srv.Stop()
		srv.Restart(t)
		rec := logtest.Next(state, output(10))
		require.NoError(t, writer.persist("r", state.Record, rec))
		state = rec.State
		next()
	}
	state = writer.end("r", state, time.Hour)
	next()
	require.NoError(t, <-v.done)
}

func TestAHundredThousandWatchesLeaveNothing(t *testing.T) {
	srv := natstest.Start(t, nil)
	l := newLog(t, srv.URL())
	before := l.js.Conn().NumSubscriptions()
	server := srv.Server().NumSubscriptions()
	goroutines := runtime.NumGoroutine()
	var wg sync.WaitGroup
	for i := range 16 {
		wg.Go(func() {
			for j := range 100_000 / 16 {
				stop, err := l.Watch(t.Context(), key(fmt.Sprint(i%4, "-", j%50)), func(string) {})
				if err != nil {
					t.Error(err)
					return
				}
				stop()
				stop()
			}
		})
	}
	wg.Wait()
	require.Zero(t, l.Stats().Watched)
	require.Equal(t, before, l.js.Conn().NumSubscriptions())
	eventually(t, func() bool { return srv.Server().NumSubscriptions() == server }, "the server has no subscriptions left")
	const others = 10 // the server in this process has some that come and go
	eventually(t, func() bool { return runtime.NumGoroutine() <= goroutines+others }, "no goroutine is left")
}

func TestWatchesOfOneLogShareASubscription(t *testing.T) {
	l := newLog(t, natstest.Start(t, nil).URL())
	before := l.js.Conn().NumSubscriptions()
	var told atomic.Int64
	var stops []func()
	for range 100 {
		stop, err := l.Watch(t.Context(), key("r"), func(string) { told.Add(1) })
		require.NoError(t, err)
		stops = append(stops, stop)
	}
	require.Equal(t, before+1, l.js.Conn().NumSubscriptions())
	l.start("r")
	eventually(t, func() bool { return told.Load() >= 200 }, "all are told")
	for _, stop := range stops {
		stop()
	}
	require.Equal(t, before, l.js.Conn().NumSubscriptions())
}

func TestAWatchThatBeginsWithoutAServerIsToldWhenItIsBack(t *testing.T) {
	srv := natstest.Start(t, nil)
	l := newLog(t, srv.URL())
	srv.Stop()
	var told atomic.Int64
	stop, err := l.Watch(t.Context(), key("r"), func(string) { told.Add(1) })
	require.NoError(t, err)
	srv.Restart(t)
	other := newLog(t, srv.URL())
	other.start("r")
	eventually(t, func() bool { return told.Load() > 0 }, "the subscription is made again, or the log is looked at")
	stop()
	require.Zero(t, l.Stats().Watched)
}

func TestALogThatThisProcessBeganIsReadFromMemoryUntilNobodyCameToWatch(t *testing.T) {
	l := newLog(t, natstest.Start(t, nil).URL())
	before := l.js.Conn().NumSubscriptions()
	state := l.start("r")
	asked := l.js.Conn().Stats().OutMsgs
	page, err := l.Read(t.Context(), key("r"), 0, 10)
	require.NoError(t, err)
	require.Equal(t, state, page.State)
	stop, err := l.Watch(t.Context(), key("r"), func(string) {})
	require.NoError(t, err)
	page, err = l.Read(t.Context(), key("r"), 0, 10)
	require.NoError(t, err)
	require.Len(t, page.Events, 2)
	require.Equal(t, asked, l.js.Conn().Stats().OutMsgs, "no read has asked the server")
	require.Equal(t, 1, l.Stats().Watched)
	stop()
	require.Equal(t, before, l.js.Conn().NumSubscriptions())

	l.start("unwatched")
	require.Zero(t, l.Stats().Watched)
	require.Equal(t, before+1, l.js.Conn().NumSubscriptions())
	eventually(t, func() bool { return l.js.Conn().NumSubscriptions() == before }, "the subscription nobody needed is dropped")
}

func TestACloseEndsWatches(t *testing.T) {
	url := natstest.Start(t, nil).URL()
	l := newLog(t, url)
	stop, err := l.Watch(t.Context(), key("r"), func(string) {})
	require.NoError(t, err)
	require.NoError(t, l.Close())
	require.NoError(t, l.Close())
	stop()
	_, err = l.Watch(t.Context(), key("r"), func(string) {})
	require.ErrorIs(t, err, progress.ErrUnavailable)
	require.ErrorContains(t, err, "natslog: watch: log store unavailable: the log is closed")
	l.start("r")
	require.Equal(t, []uint64{1, 2}, l.all("r"), "the rest goes on")
}

func TestAWatchedLogIsReadFromMemory(t *testing.T) {
	srv := natstest.Start(t, nil)
	writer, l := newLog(t, srv.URL()), newLog(t, srv.URL())
	changed := make(chan string, 1000)
	stop, err := l.Watch(t.Context(), key("r"), func(record string) { changed <- record })
	require.NoError(t, err)
	defer stop()
	state := writer.start("r")
	for <-changed != state.Record {
	}
	sent := func() uint64 { return l.js.Conn().Stats().OutMsgs }
	before := sent()
	for i := range uint64(20) {
		state = writer.must("r", state, output(10))
		for <-changed != state.Record {
		}
		page, err := l.Read(t.Context(), key("r"), i+2, 10)
		require.NoError(t, err)
		require.Len(t, page.Events, 1)
		require.Equal(t, state.Record, page.State.Record)
		require.NoError(t, writer.SetProgress(t.Context(), key("r"), &progress.Progress{Attempt: 1, Rev: i + 1, Beat: i + 1}))
		<-changed
		page, err = l.Read(t.Context(), key("r"), i+3, 10)
		require.NoError(t, err)
		require.Equal(t, i+1, page.Beat)
	}
	require.LessOrEqual(t, sent(), before+2, "at most a look goes to the server")

	eventually(t, func() bool {
		before := sent()
		_, err := l.Read(t.Context(), key("r"), 0, 10)
		require.NoError(t, err)
		return sent() > before
	}, "what was not heard of for a while is asked for")
}

func TestWhoComesBackSeesNoOldProgress(t *testing.T) {
	srv := natstest.Start(t, nil)
	writer, l := newLog(t, srv.URL()), newLog(t, srv.URL())
	state := writer.start("r")
	report := func(rev uint64) {
		require.NoError(t, writer.SetProgress(t.Context(), key("r"), &progress.Progress{Attempt: 1, Rev: rev, Beat: rev}))
	}
	for round := range uint64(5) {
		changed := make(chan string, 100)
		stop, err := l.Watch(t.Context(), key("r"), func(record string) { changed <- record })
		require.NoError(t, err)
		state = writer.must("r", state, output(10))
		for <-changed != state.Record {
		}
		page, err := l.Read(t.Context(), key("r"), state.Last-1, 100)
		require.NoError(t, err)
		require.Equal(t, round*10, page.Beat)
		report(round*10 + 1)
		<-changed
		stop()
		report(round*10 + 10)
	}
}
