package streamer_test

import (
	"context"
	"fmt"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/pay-theory/streamer/v2"
	"github.com/pay-theory/streamer/v2/progress"
	"github.com/pay-theory/streamer/v2/progress/memlog"
	"github.com/pay-theory/streamer/v2/queue/memqueue"
)

// counts is a handler that makes an output a second, n of them.
func counts(n int) streamer.HandlerFunc {
	return doing(func(ctx context.Context, _ streamer.Reporter) (*streamer.Result, error) {
		for i := range n {
			if err := streamer.Output(ctx, i); err != nil {
				return nil, err
			}
			time.Sleep(time.Second)
		}
		return ok(n)
	})
}

func TestViewersThatComeAtAnyTimeSeeTheSameEvents(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := serve(t, func(m *streamer.Mux) { m.Handle("x", counts(20)) })
		defer s.stop()
		s.submit("x", "r1", ``)
		seen := make([][]*progress.Event, 25)
		var all sync.WaitGroup
		for i := range seen {
			all.Go(func() { seen[i] = s.events("r1") })
			time.Sleep(time.Second)
		}
		all.Wait()
		require.Len(t, seen[0], 23)
		for _, events := range seen[1:] {
			require.Len(t, events, 23)
			for i, e := range events {
				require.Same(t, seen[0][i], e, "viewers share the event, so that it is encoded once")
			}
		}
	})
}

func TestEventsGoOnAfterAnyNumber(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := serve(t, func(m *streamer.Mux) { m.Handle("x", counts(600)) })
		defer s.stop()
		s.submit("x", "r1", ``)
		v, err := s.Attach(t.Context(), alice, "r1")
		require.NoError(t, err)
		require.Equal(t, "r1", v.ID())
		after := uint64(0)
		for range 100 { // leaves after every seventh event, and comes back
			n := 0
			for e, err := range v.Events(t.Context(), after) {
				require.NoError(t, err)
				require.Equal(t, after+1, e.Seq)
				after = e.Seq
				if n++; n == 7 {
					break
				}
			}
		}
		require.EqualValues(t, 603, after)
		for range v.Events(t.Context(), after) {
			t.Fatal("there is nothing after the end")
		}
	})
}

func TestEventsEndWithTheirContext(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := serve(t, func(m *streamer.Mux) { m.Handle("x", waits()) })
		defer s.stop()
		s.submit("x", "r1", ``)
		synctest.Wait()
		v, err := s.Attach(t.Context(), alice, "r1")
		require.NoError(t, err)
		ctx, cancel := context.WithTimeout(t.Context(), time.Hour)
		defer cancel()
		began := time.Now()
		var events int
		var last error
		for e, err := range v.Events(ctx, 0) {
			if last = err; err == nil {
				events++
			} else {
				require.Nil(t, e)
			}
		}
		require.Equal(t, 2, events)
		require.ErrorIs(t, last, context.DeadlineExceeded)
		require.Equal(t, time.Hour, time.Since(began))
		for _, err := range v.Events(ctx, 0) {
			require.Error(t, err, "no event for whoever has gone already")
		}
	})
}

func TestEventsThatCanNotGoOnSaySo(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := serve(t, func(m *streamer.Mux) { m.Handle("x", returns(1)) }, streamer.WithRetention(time.Minute))
		defer s.stop()
		s.ends("x", "r1", `1`)
		v, err := s.Attach(t.Context(), alice, "r1")
		require.NoError(t, err)
		require.ErrorContains(t, only(t, v, 4), "ahead")
		require.Equal(t, streamer.ErrCodeConflict, code(t, only(t, v, 4)))

		time.Sleep(time.Minute)
		require.Equal(t, streamer.ErrCodeNotFound, code(t, only(t, v, 1)))
		_, err = v.Read(t.Context(), 1, 1)
		require.Equal(t, streamer.ErrCodeNotFound, code(t, err))

		s.ends("x", "r1", `2`)
		for _, after := range []uint64{0, 1, 3} {
			err := only(t, v, after)
			require.Equal(t, streamer.ErrCodeConflict, code(t, err))
			require.ErrorContains(t, err, "recreated", "another log under the same id is never shown as the old one")
		}
	})
}

// only returns the error that is all that Events yields.
func only(t *testing.T, v *streamer.Viewer, after uint64) (last error) {
	t.Helper()
	for e, err := range v.Events(t.Context(), after) {
		require.Nil(t, e)
		require.NoError(t, last)
		last = err
	}
	return last
}

// cut is a log that has lost its oldest events.
type cut struct{ *memlog.Log }

func (l cut) Read(ctx context.Context, key progress.Key, after uint64, limit int) (progress.Page, error) {
	page, err := l.Log.Read(ctx, key, max(after, 2), limit)
	page.Oldest = 3
	return page, err
}

func TestEventsThatAreGoneAreNotSkippedInSilence(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		log := memlog.New()
		stores := []streamer.Option{streamer.WithLog(log)}
		s := serve(t, func(m *streamer.Mux) { m.Handle("x", counts(3)) }, stores...)
		defer s.stop()
		s.ends("x", "r1", ``)
		late := gateway(t, func(m *streamer.Mux) { m.Handle("x", counts(3)) }, streamer.WithLog(cut{log}))
		v, err := late.Attach(t.Context(), alice, "r1")
		require.NoError(t, err)
		for _, after := range []uint64{0, 1} {
			require.ErrorContains(t, only(t, v, after), "expired")
		}
		next := uint64(3)
		for e, err := range v.Events(t.Context(), 2) {
			require.NoError(t, err)
			require.Equal(t, next, e.Seq)
			next++
		}
		require.EqualValues(t, 7, next)
	})
}

func TestWatchTellsOfEveryChange(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := serve(t, func(m *streamer.Mux) {
			m.Handle("x", doing(func(ctx context.Context, p streamer.Reporter) (*streamer.Result, error) {
				time.Sleep(time.Second)
				_ = p.Report(1, "")
				time.Sleep(time.Second)
				_ = streamer.Output(ctx, 1)
				time.Sleep(time.Second)
				return ok(1)
			}))
		}, streamer.WithRetention(time.Minute))
		defer s.stop()
		s.submit("x", "r1", ``)
		synctest.Wait()
		v, err := s.Attach(t.Context(), alice, "r1")
		require.NoError(t, err)
		changes := make(chan struct{}, 100)
		stop, err := v.Watch(t.Context(), func() { changes <- struct{}{} })
		require.NoError(t, err)
		for range 3 { // progress, output, end
			<-changes
		}
		began := time.Now()
		<-changes
		require.Equal(t, time.Minute, time.Since(began), "its removal")
		stop()
		stop()
		s.submit("x", "r1", ``)
		s.end("r1")
		require.Empty(t, changes)
	})
}

func TestDisconnectingCancelsNothing(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := serve(t, func(m *streamer.Mux) { m.Handle("x", counts(10)) })
		defer s.stop()
		ctx, cancel := context.WithCancel(t.Context())
		_, err := s.Submit(ctx, alice, request("x", "r1", ``))
		require.NoError(t, err)
		v, err := s.Attach(ctx, alice, "r1")
		require.NoError(t, err)
		for range v.Events(ctx, 0) {
			break
		}
		cancel()
		require.Equal(t, progress.Completed, s.end("r1").Kind)
	})
}

// holed has lost the only event of short work.
type holed struct{ *memlog.Log }

func (l holed) Read(ctx context.Context, key progress.Key, after uint64, limit int) (progress.Page, error) {
	page, err := l.Log.Read(ctx, key, after, limit)
	page.Events, page.Oldest = nil, page.State.Last+1
	return page, err
}

func TestShortWorkWhoseEventWasLostIsNotMadeUp(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := gateway(t, func(m *streamer.Mux) { m.Handle("x", returns(1), streamer.WithEstimate(0)) }, streamer.WithLog(holed{memlog.New()}))
		s.submit("x", "r1", ``)
		requireUnavailable(t, s.refused(alice, request("x", "r1", ``)))
	})
}

func TestEventsCanBeRangedOverAgain(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := serve(t, func(m *streamer.Mux) { m.Handle("x", returns(1)) })
		defer s.stop()
		s.ends("x", "r1", ``)
		v, err := s.Attach(t.Context(), alice, "r1")
		require.NoError(t, err)
		all := v.Events(t.Context(), 0)
		var seen []string
		for range 2 {
			text := ""
			for e, err := range all {
				require.NoError(t, err)
				text += fmt.Sprint(e.Seq)
			}
			seen = append(seen, text)
		}
		require.Equal(t, seen[0], seen[1])
	})
}

// remembering is a log whose Read knows what it was told first.
type remembering struct {
	progress.Log
	first progress.Page
}

func (l *remembering) Read(context.Context, progress.Key, uint64, int) (progress.Page, error) {
	return l.first, nil
}

func (l *remembering) ReadFresh(ctx context.Context, key progress.Key, after uint64, limit int) (progress.Page, error) {
	return l.Log.Read(ctx, key, after, limit)
}

func TestWhoAttachesIsToldWhatOtherProcessesKnow(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		log := memlog.New()
		defer log.Close()
		q := memqueue.New()
		s := serve(t, func(m *streamer.Mux) { m.Handle("x", returns(1)) }, streamer.WithLog(log), streamer.WithQueue(q))
		defer s.stop()
		s.submit("x", "r1", ``)
		s.events("r1")
		other := streamer.NewRouter(streamer.WithLogger(quiet()), streamer.WithQueue(q), streamer.WithLocalLog(),
			streamer.WithLog(&remembering{Log: log, first: progress.Page{State: progress.State{Phase: progress.Accepted, Last: 1}}}))
		v, err := other.Attach(t.Context(), alice, "r1")
		require.NoError(t, err)
		require.Equal(t, progress.Completed, v.Page().State.Phase)
	})
}
