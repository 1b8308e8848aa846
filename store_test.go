package streamer_test

import (
	"bytes"
	"context"
	"fmt"
	"iter"
	"log/slog"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/pay-theory/streamer/v2"
	"github.com/pay-theory/streamer/v2/internal/fault"
	"github.com/pay-theory/streamer/v2/progress"
	"github.com/pay-theory/streamer/v2/progress/memlog"
	"github.com/pay-theory/streamer/v2/queue"
	"github.com/pay-theory/streamer/v2/queue/memqueue"
)

// tried is a router with a store that can fail, and counts what its handlers do.
type tried struct {
	*service
	log   *fault.Log
	queue *fault.Queue
	runs  atomic.Int32
}

func tryStore(t *testing.T) *tried {
	s := &tried{log: fault.NewLog(memlog.New(), 1, time.Second), queue: fault.NewQueue(memqueue.New(), 1, time.Second)}
	run := doing(func(ctx context.Context, p streamer.Reporter) (*streamer.Result, error) {
		s.runs.Add(1)
		return ok(1)
	})
	s.service = serve(t, func(m *streamer.Mux) {
		m.Handle("queued", run)
		m.Handle("short", run, streamer.WithEstimate(0))
	}, streamer.WithLog(s.log), streamer.WithQueue(s.queue))
	return s
}

// requireUnavailable checks that err tells a client to come back.
func requireUnavailable(t *testing.T, err error) {
	t.Helper()
	require.Equal(t, streamer.ErrCodeServiceUnavailable, code(t, err))
	var public *streamer.Error
	require.ErrorAs(t, err, &public)
	require.Positive(t, public.RetryAfter)
	require.NotContains(t, public.Message, "fault", "what the store said is for the log")
}

func TestNothingIsAcceptedWhileTheLogIsDown(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := tryStore(t)
		defer s.stop()
		require.NoError(t, s.Ready(t.Context()))
		s.submit("queued", "before", ``)
		s.end("before")

		s.log.Unavailable.Set(1)
		require.Error(t, s.Ready(t.Context()))
		for _, action := range []string{"queued", "short"} {
			began := time.Now()
			requireUnavailable(t, s.refused(alice, request(action, action, ``)))
			require.LessOrEqual(t, time.Since(began), 2*time.Second)
		}
		_, err := s.Attach(t.Context(), alice, "before")
		requireUnavailable(t, err)
		_, err = s.Cancel(t.Context(), alice, "before", "")
		requireUnavailable(t, err)

		s.log.Unavailable.Set(0)
		require.NoError(t, s.Ready(t.Context()))
		for _, action := range []string{"queued", "short"} {
			_, err := s.Attach(t.Context(), alice, action)
			require.Equal(t, streamer.ErrCodeNotFound, code(t, err), "nothing of it was stored")
			require.Equal(t, progress.Completed, s.ends(action, action, ``).Kind)
		}
		require.EqualValues(t, 3, s.runs.Load())
	})
}

func TestRequestThatCouldNotBeQueuedIsQueuedByTheNextTry(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := tryStore(t)
		defer s.stop()
		s.queue.Unavailable.Set(1)
		err := s.refused(alice, request("queued", "r1", ``))
		requireUnavailable(t, err)
		time.Sleep(err.RetryAfter)
		requireUnavailable(t, s.refused(alice, request("queued", "r1", ``)))

		s.queue.Unavailable.Set(0)
		time.Sleep(20 * time.Second) // for the worker to look again
		require.Zero(t, s.runs.Load())
		require.True(t, s.submit("queued", "r1", ``).Duplicate)
		require.Equal(t, "accepted started completed", kinds(s.events("r1")))
		require.EqualValues(t, 1, s.runs.Load())
	})
}

func TestSubmitWhoseAnswerWasLostIsFoundByTheNextTry(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := tryStore(t)
		defer s.stop()
		s.log.AnswerLost.Set(1)
		requireUnavailable(t, s.refused(alice, request("queued", "r1", ``)))
		s.log.AnswerLost.Set(0)
		time.Sleep(time.Second)
		require.True(t, s.submit("queued", "r1", ``).Duplicate)
		require.Equal(t, "accepted started completed", kinds(s.events("r1")))
		require.EqualValues(t, 1, s.runs.Load())
	})
}

// deaf is a store that never answers.
type deaf struct{}

func (deaf) wait(ctx context.Context) error {
	<-ctx.Done()
	return ctx.Err()
}

func (d deaf) Append(ctx context.Context, _ progress.Key, _ string, _ *progress.Record) error {
	return d.wait(ctx)
}

func (d deaf) SetProgress(ctx context.Context, _ progress.Key, _ *progress.Progress) error {
	return d.wait(ctx)
}

func (d deaf) Tail(ctx context.Context, _ progress.Key) (progress.State, error) {
	return progress.State{}, d.wait(ctx)
}

func (d deaf) Read(ctx context.Context, _ progress.Key, _ uint64, _ int) (progress.Page, error) {
	return progress.Page{}, d.wait(ctx)
}

func (d deaf) Watch(ctx context.Context, _ progress.Key, _ func(string)) (func(), error) {
	return nil, d.wait(ctx)
}

func (d deaf) Open(ctx context.Context, _ time.Duration) iter.Seq2[progress.Pending, error] {
	return func(yield func(progress.Pending, error) bool) { yield(progress.Pending{}, d.wait(ctx)) }
}

func (d deaf) Enqueue(ctx context.Context, _ queue.Ticket) error { return d.wait(ctx) }

func (d deaf) Receive(ctx context.Context, _ int) ([]queue.Delivery, error) { return nil, d.wait(ctx) }

func (deaf) Lease() time.Duration { return time.Minute }

func TestStoreThatNeverAnswersIsGivenTwoSeconds(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		setup := func(m *streamer.Mux) {
			m.Handle("queued", returns(1))
			m.Handle("short", returns(1), streamer.WithEstimate(0))
		}
		noLog := gateway(t, setup, streamer.WithLog(deaf{}))
		noQueue := gateway(t, setup, streamer.WithQueue(deaf{}))
		for name, call := range map[string]func() error{
			"submit queued work":     func() error { return noLog.refused(alice, request("queued", "r1", ``)) },
			"submit short work":      func() error { return noLog.refused(alice, request("short", "r1", ``)) },
			"submit to a deaf queue": func() error { return noQueue.refused(alice, request("queued", "r1", ``)) },
			"attach": func() error {
				_, err := noLog.Attach(t.Context(), alice, "r1")
				return err
			},
			"cancel": func() error {
				_, err := noLog.Cancel(t.Context(), alice, "r1", "")
				return err
			},
		} {
			began := time.Now()
			requireUnavailable(t, call())
			require.LessOrEqual(t, time.Since(began), 2*time.Second, name)
		}
		began := time.Now()
		require.Error(t, noLog.Ready(t.Context()))
		require.LessOrEqual(t, time.Since(began), 2*time.Second)
	})
}

func TestRunningRequestOutlivesAnOutageOfTheLog(t *testing.T) {
	for name, trouble := range map[string]func(l *fault.Log) *fault.Fault{
		"down":           func(l *fault.Log) *fault.Fault { return &l.Unavailable },
		"answers lost":   func(l *fault.Log) *fault.Fault { return &l.AnswerLost },
		"timed out":      func(l *fault.Log) *fault.Fault { return &l.TimedOut },
		"done, but late": func(l *fault.Log) *fault.Fault { return &l.DoneLate },
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				log := fault.NewLog(memlog.New(), 1, time.Second)
				s := serve(t, func(m *streamer.Mux) {
					m.Handle("x", doing(func(ctx context.Context, p streamer.Reporter) (*streamer.Result, error) {
						for i := range 30 {
							_ = p.Report(float64(i), "")
							if err := streamer.Output(ctx, i); err != nil {
								return nil, err
							}
							time.Sleep(time.Second)
						}
						return ok(streamer.Attempt(ctx))
					}))
				}, streamer.WithLog(log))
				defer s.stop()
				s.submit("x", "r1", ``)
				time.Sleep(5500 * time.Millisecond)
				trouble(log).Set(1)
				time.Sleep(20 * time.Second)
				trouble(log).Set(0)
				all := s.events("r1")
				require.Len(t, all, 33)
				for i, e := range all[2:32] {
					require.Equal(t, fmt.Sprint(i), string(e.Data))
				}
				require.Equal(t, `1`, string(all[32].Data), "in its first attempt")
			})
		})
	}
}

func TestWorkerWaitsForItsStore(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		log, q := fault.NewLog(memlog.New(), 1, time.Second), fault.NewQueue(memqueue.New(), 1, time.Second)
		setup := func(m *streamer.Mux) { m.Handle("x", returns(1)) }
		stores := []streamer.Option{streamer.WithLog(log), streamer.WithQueue(q)}
		front := gateway(t, setup, stores...)
		front.submit("x", "r1", ``)

		q.Unavailable.Set(1)
		log.Unavailable.Set(1)
		worker := serve(t, setup, stores...)
		defer worker.stop()
		time.Sleep(time.Minute)
		q.Unavailable.Set(0)
		time.Sleep(time.Minute)
		log.Unavailable.Set(0)
		began := time.Now()
		require.Equal(t, "accepted started completed", kinds(front.events("r1")))
		require.Less(t, time.Since(began), 15*time.Second)
	})
}

func TestEventsWaitWhileTheStoreDoesNotAnswerAndItIsSaidNowAndThen(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var text bytes.Buffer
		log := fault.NewLog(memlog.New(), 1, time.Second)
		s := serve(t, func(m *streamer.Mux) { m.Handle("x", seconds(90)) },
			streamer.WithLog(log), streamer.WithLogger(slog.New(slog.NewTextHandler(&text, &slog.HandlerOptions{Level: slog.LevelWarn}))))
		defer s.stop()
		s.submit("x", "r1", ``)
		synctest.Wait()
		v, err := s.Attach(t.Context(), alice, "r1")
		require.NoError(t, err)
		log.Unavailable.Set(1)
		shown := make(chan []*progress.Event)
		for range 20 {
			go func() {
				var all []*progress.Event
				for e, err := range v.Events(t.Context(), 0) {
					if err != nil {
						break
					}
					all = append(all, e)
				}
				shown <- all
			}()
		}
		time.Sleep(time.Minute)
		log.Unavailable.Set(0)
		for range 20 {
			require.Equal(t, "accepted started completed", kinds(<-shown))
		}
		said := strings.Count(text.String(), `msg="store unavailable"`)
		require.InDelta(t, 60, said, 5, "once a second, whoever asks")
	})
}

func TestTicketThatCouldNotBeRemovedDoesNoHarm(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		inner := memqueue.New()
		q := fault.NewQueue(inner, 1, time.Second)
		s := serve(t, func(m *streamer.Mux) {
			m.Handle("x", doing(func(context.Context, streamer.Reporter) (*streamer.Result, error) {
				q.Unavailable.Set(1)
				return ok(1)
			}))
		}, streamer.WithQueue(q), streamer.WithLocalLog())
		defer s.stop()
		s.ends("x", "r1", ``)
		synctest.Wait()
		require.Equal(t, 1, inner.Stats().Leased)
		q.Unavailable.Set(0)
		time.Sleep(time.Minute)
		require.Zero(t, inner.Stats().Leased+inner.Stats().Ready+inner.Stats().Delayed)
		require.EqualValues(t, 1, s.Stats().Started)
		require.EqualValues(t, 1, s.Stats().Dropped)
	})
}

func TestLeaseOutlivesAShortOutageOfTheQueue(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		q := fault.NewQueue(memqueue.New(memqueue.WithLease(30*time.Second)), 1, time.Second)
		s := serve(t, func(m *streamer.Mux) {
			m.Handle("x", doing(func(ctx context.Context, _ streamer.Reporter) (*streamer.Result, error) {
				time.Sleep(15 * time.Second) // behind the first extension
				q.Unavailable.Set(1)
				time.Sleep(14 * time.Second) // over the second
				q.Unavailable.Set(0)
				time.Sleep(time.Minute)
				return &streamer.Result{Success: true}, ctx.Err()
			}))
		}, streamer.WithQueue(q), streamer.WithLocalLog())
		defer s.stop()
		s.submit("x", "r1", ``)
		require.Equal(t, "accepted started completed", kinds(s.events("r1")))
	})
}

func TestFullLogRefusesSubmitsWhileWhatRunsStillEnds(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		log := memlog.New(memlog.WithMaxRequests(2))
		release := map[string]chan struct{}{"r1": make(chan struct{}), "r2": make(chan struct{}), "r3": make(chan struct{})}
		s := serve(t, func(m *streamer.Mux) {
			m.Handle("x", streamer.HandlerFunc(func(_ context.Context, req *streamer.Request, _ streamer.Reporter) (*streamer.Result, error) {
				<-release[req.ID]
				return ok(1)
			}))
			m.Handle("short", returns(1), streamer.WithEstimate(0))
		}, streamer.WithLog(log))
		defer s.stop()
		s.submit("x", "r1", ``)
		s.submit("x", "r2", ``)
		synctest.Wait()
		for _, action := range []string{"x", "short"} {
			requireUnavailable(t, s.refused(alice, request(action, "r3", ``)))
		}
		require.ErrorIs(t, s.Ready(t.Context()), progress.ErrFull)
		require.True(t, s.submit("x", "r1", ``).Duplicate, "what is there is still found")

		for _, id := range []string{"r1", "r2"} {
			close(release[id])
			require.Equal(t, progress.Completed, s.end(id).Kind)
		}
		close(release["r3"])
		require.Equal(t, progress.Completed, s.ends("x", "r3", ``).Kind, "the oldest finished made room")
		_, err := s.Attach(t.Context(), alice, "r1")
		require.Equal(t, streamer.ErrCodeNotFound, code(t, err))
	})
}

func TestOutputsOfARequestThatFindNoRoomEndIt(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		taken := 0
		s := serve(t, func(m *streamer.Mux) {
			m.Handle("x", doing(func(ctx context.Context, _ streamer.Reporter) (*streamer.Result, error) {
				for range 1000 {
					if err := streamer.Output(ctx, string(make([]byte, 1000))); err != nil {
						return nil, err
					}
					taken++
				}
				return ok(1)
			}))
		}, streamer.WithLog(memlog.New(memlog.WithMaxBytes(1<<20))))
		defer s.stop()
		began := time.Now()
		s.submit("x", "r1", ``)
		all := s.events("r1")
		end := all[len(all)-1]
		require.Equal(t, streamer.ErrCodeServiceUnavailable, end.Error.Code)
		require.Contains(t, end.Error.Message, "no room")
		require.Less(t, taken, 1000)
		require.Greater(t, len(all), 10, "outputs before it stay")
		require.Less(t, time.Since(began), time.Minute)
		require.NoError(t, s.Ready(t.Context()))
	})
}

func TestFullQueueRefusesSubmits(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := gateway(t, func(m *streamer.Mux) { m.Handle("x", returns(1)) }, streamer.WithQueue(memqueue.New(memqueue.WithMaxTickets(1))))
		s.submit("x", "r1", ``)
		requireUnavailable(t, s.refused(alice, request("x", "r2", ``)))
	})
}

func TestRequestLargerThanTheStoreTakesIsRefused(t *testing.T) {
	s := gateway(t, func(m *streamer.Mux) { m.Handle("x", returns(1)) }, streamer.WithLog(memlog.New(memlog.WithMaxBytes(4096))))
	err := s.refused(alice, request("x", "r1", `"`+strings.Repeat("x", 8192)+`"`))
	require.Equal(t, streamer.ErrCodePayloadTooLarge, err.Code)
}

func TestRequestIsNotAcknowledgedBeforeItIsQueuedHoweverSoonItIsSentAgain(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := tryStore(t)
		defer s.stop()
		s.queue.Unavailable.Set(1)
		requireUnavailable(t, s.refused(alice, request("queued", "r1", ``)))
		time.Sleep(100 * time.Millisecond)
		_, err := s.Submit(t.Context(), alice, request("queued", "r1", ``))
		require.Error(t, err, "nothing may be reported accepted while the queue is down")

		s.queue.Unavailable.Set(0)
		time.Sleep(100 * time.Millisecond)
		s.submit("queued", "r1", ``)
		time.Sleep(20 * time.Second)
		require.Equal(t, progress.Completed, s.state("r1").Phase, "it was acknowledged, so it runs")
	})
}

// readOnly takes no appends, and says so at once.
type readOnly struct {
	*memlog.Log
	on    atomic.Bool
	tries atomic.Int32
}

func (l *readOnly) Append(ctx context.Context, key progress.Key, prev string, rec *progress.Record) error {
	switch {
	case !l.on.Load():
		return l.Log.Append(ctx, key, prev, rec)
	case l.tries.Add(1) > 1000:
		return progress.ErrFull // so that the loop ends
	default:
		return progress.ErrUnavailable
	}
}

func TestCancelPausesBetweenItsTriesWhileTheLogTakesNoWrites(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		log := &readOnly{Log: memlog.New()}
		s := gateway(t, func(m *streamer.Mux) { m.Handle("x", returns(1)) }, streamer.WithLog(log))
		s.submit("x", "r1", ``)
		log.on.Store(true)
		_, err := s.Cancel(t.Context(), alice, "r1", "")
		requireUnavailable(t, err)
		require.LessOrEqual(t, log.tries.Load(), int32(100), "appends within 2 s")
	})
}
