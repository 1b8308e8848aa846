package streamer_test

import (
	"context"
	"fmt"
	"sync"
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

func TestActionWithoutAHandlerHereIsHandedToAWorkerThatHasOne(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		stores := sharedStores()
		front := gateway(t, func(m *streamer.Mux) { m.Handle("new", returns(1)) }, stores...)
		old := serve(t, func(m *streamer.Mux) { m.Handle("old", returns(1)) }, stores...)
		front.submit("new", "r1", ``)
		time.Sleep(time.Minute)
		require.Equal(t, progress.Accepted, front.state("r1").Phase)
		require.Zero(t, old.Stats().Running)
		worker := serve(t, func(m *streamer.Mux) { m.Handle("new", returns(1)) }, stores...)
		require.Equal(t, "accepted started completed", kinds(front.events("r1")))
		worker.stop()
		old.stop()
	})
}

func TestActionThatNoWorkerHasAHandlerForFailsAfterTenMinutes(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		stores := sharedStores()
		front := gateway(t, func(m *streamer.Mux) { m.Handle("new", returns(1)) }, stores...)
		old := serve(t, func(m *streamer.Mux) { m.Handle("old", returns(1)) }, stores...)
		defer old.stop()
		front.submit("new", "r1", ``)
		began := time.Now()
		all := front.events("r1")
		require.Equal(t, "accepted failed", kinds(all))
		require.Equal(t, streamer.ErrCodeInvalidAction, all[1].Error.Code)
		require.Contains(t, all[1].Error.Message, `"new"`)
		require.InDelta(t, 10*time.Minute, time.Since(began), float64(10*time.Second))
		synctest.Wait()
		require.EqualValues(t, 1, old.Stats().Failed)
	})
}

func TestDuplicatedTicketsRunARequestOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		inner := memqueue.New()
		q := fault.NewQueue(inner, 1, time.Second)
		q.EnqueuedTwice.Set(1)
		q.DeliveredTwice.Set(0.2)
		var runs atomic.Int32
		s := serve(t, func(m *streamer.Mux) {
			m.Handle("x", doing(func(context.Context, streamer.Reporter) (*streamer.Result, error) {
				runs.Add(1)
				time.Sleep(3 * time.Second)
				return ok(1)
			}))
		}, streamer.WithQueue(q), streamer.WithLocalLog())
		defer s.stop()
		for range 20 {
			id := s.submit("x", "", ``).ID
			synctest.Wait()
			require.NoError(t, inner.Enqueue(t.Context(), queue.Ticket{Scope: "acme/alice", ID: id, Action: "x", Nonce: "another submit's"}))
			require.Equal(t, "accepted started completed", kinds(s.events(id)))
		}
		time.Sleep(time.Minute)
		require.EqualValues(t, 20, runs.Load())
		require.Greater(t, s.Stats().Dropped, uint64(40))
		require.Positive(t, q.DeliveredTwice.Count())
	})
}

func TestTicketOfARequestThatIsGoneIsDropped(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		q := memqueue.New()
		s := serve(t, func(m *streamer.Mux) { m.Handle("x", returns(1)) }, streamer.WithQueue(q))
		defer s.stop()
		require.NoError(t, q.Enqueue(t.Context(), queue.Ticket{Scope: "acme/alice", ID: "r1", Action: "x", Nonce: "n"}))
		synctest.Wait()
		require.EqualValues(t, 1, s.Stats().Dropped)
		require.Zero(t, q.Stats().Ready+q.Stats().Leased+q.Stats().Delayed)
		_, err := s.Attach(t.Context(), alice, "r1")
		require.Equal(t, streamer.ErrCodeNotFound, code(t, err))
	})
}

func TestProgressAndOutputsOfASupersededAttemptAreNeverShown(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		q := &leaky{Queue: memqueue.New(memqueue.WithLease(9 * time.Second))}
		q.deaf.Store(true)
		watched := &shown{Log: memlog.New()}
		s := serve(t, func(m *streamer.Mux) {
			m.Handle("x", doing(func(ctx context.Context, p streamer.Reporter) (*streamer.Result, error) {
				if streamer.Attempt(ctx) == 1 {
					for range 30 { // it ignores its context
						_ = p.Report(90, "zombie")
						_ = streamer.Output(ctx, "zombie")
						time.Sleep(time.Second)
					}
					return ok("zombie")
				}
				q.deaf.Store(false)
				for i := range 40 {
					_ = p.Report(float64(i), "second")
					time.Sleep(time.Second)
				}
				return &streamer.Result{Success: true, Data: "second"}, streamer.Output(ctx, "second")
			}))
		}, streamer.WithQueue(q), streamer.WithLog(watched))
		defer s.stop()
		s.submit("x", "r1", ``)
		v, err := s.Attach(t.Context(), alice, "r1")
		require.NoError(t, err)
		for attempt := 0; attempt < 2; time.Sleep(100 * time.Millisecond) {
			page, err := v.Read(t.Context(), 0, 1)
			require.NoError(t, err)
			attempt = page.State.Attempt
		}
		for {
			page, err := v.Read(t.Context(), 0, 1000)
			require.NoError(t, err)
			if p := page.Progress; p != nil {
				require.Equal(t, 2, p.Attempt)
				require.Equal(t, "second", p.Message)
				require.Less(t, p.Percentage, 90.0)
			}
			if page.State.Ended() {
				break
			}
			time.Sleep(100 * time.Millisecond)
		}
		attempt := 0
		for _, e := range s.events("r1") {
			if e.Kind == progress.Started {
				attempt = e.Attempt
			}
			require.Equal(t, attempt, e.Attempt, "event %d", e.Seq)
		}
		require.Equal(t, `"second"`, string(s.end("r1").Data))
		require.Zero(t, watched.bounced.Load(), "the superseded attempt does not even try")
		require.EqualValues(t, 1, s.Stats().Fenced)
	})
}

// shown counts what was refused because it came too late.
type shown struct {
	*memlog.Log
	bounced atomic.Int32
}

func (l *shown) Append(ctx context.Context, key progress.Key, prev string, rec *progress.Record) error {
	err := l.Log.Append(ctx, key, prev, rec)
	if err != nil {
		l.bounced.Add(1)
	}
	return err
}

func TestLeaseThatCanNotBeExtendedIsGivenUpBeforeItEnds(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		q := fault.NewQueue(memqueue.New(memqueue.WithLease(30*time.Second)), 1, time.Second)
		causes := make(chan error, 1)
		s := serve(t, func(m *streamer.Mux) {
			m.Handle("x", doing(func(ctx context.Context, _ streamer.Reporter) (*streamer.Result, error) {
				if streamer.Attempt(ctx) == 2 {
					return ok("second")
				}
				<-ctx.Done()
				causes <- context.Cause(ctx)
				return ok("zombie")
			}))
		}, streamer.WithQueue(q), streamer.WithLocalLog(), streamer.WithConcurrency(1))
		defer s.stop()
		began := time.Now()
		s.submit("x", "r1", ``)
		synctest.Wait()
		q.Unavailable.Set(1) // so that nobody takes over
		require.ErrorIs(t, receive(t, causes), streamer.ErrLeaseLost)
		require.LessOrEqual(t, time.Since(began), 30*time.Second)
		time.Sleep(time.Minute)
		require.Equal(t, progress.Started, s.state("r1").Phase, "what it returned is not its to store")
		q.Unavailable.Set(0)
		require.Equal(t, `"second"`, string(s.end("r1").Data))
	})
}

func TestAttemptThatIsFencedByTheLogStops(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		log := memlog.New()
		causes := make(chan error, 1)
		s := serve(t, func(m *streamer.Mux) {
			m.Handle("x", doing(func(ctx context.Context, _ streamer.Reporter) (*streamer.Result, error) {
				<-ctx.Done()
				causes <- context.Cause(ctx)
				return ok("zombie")
			}))
		}, streamer.WithLog(log))
		defer s.stop()
		s.submit("x", "r1", ``)
		synctest.Wait()

		// Another worker believes that this one is dead.
		other := &worker{t: t, log: log, key: progress.Key{Scope: "acme/alice", ID: "r1"}}
		began := time.Now()
		other.append(
			&progress.Event{Kind: progress.Retrying, Attempt: 1, Reason: progress.ReasonLost},
			&progress.Event{Kind: progress.Started, Attempt: 2},
		)
		require.ErrorIs(t, receive(t, causes), streamer.ErrLeaseLost)
		require.Less(t, time.Since(began), time.Second)
		time.Sleep(20 * time.Second)
		other.append(&progress.Event{Kind: progress.Completed, Attempt: 2, Data: []byte(`"other"`)})
		require.Equal(t, "accepted started retrying started completed", kinds(s.events("r1")))
		require.Equal(t, `"other"`, string(s.end("r1").Data))

		s.submit("x", "r2", ``)
		synctest.Wait()
		other.key.ID = "r2"
		began = time.Now()
		other.append(&progress.Event{Kind: progress.Failed, Attempt: 1, Error: &progress.Failure{Code: "GIVEN_UP"}})
		require.ErrorIs(t, receive(t, causes), streamer.ErrLeaseLost)
		require.Less(t, time.Since(began), time.Second)
		require.Equal(t, "accepted started failed", kinds(s.events("r2")))
	})
}

// worker appends to logs as another process does.
type worker struct {
	t       *testing.T
	log     *memlog.Log
	key     progress.Key
	records int
}

func (w *worker) append(events ...*progress.Event) {
	w.t.Helper()
	st, err := w.log.Tail(w.t.Context(), w.key)
	require.NoError(w.t, err)
	w.records++
	prev, rec := st.Record, &progress.Record{ID: fmt.Sprint("another worker's ", w.records), Events: events}
	for _, e := range events {
		e.Seq, e.Record, e.Time = st.Last+1, rec.ID, time.Now()
		st = st.Apply(e)
	}
	if rec.State = st; st.Ended() {
		rec.Retention = time.Hour
	}
	require.NoError(w.t, w.log.Append(w.t.Context(), w.key, prev, rec))
}

func TestStatsCountWhatHappened(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		q := &leaky{Queue: memqueue.New(memqueue.WithLease(9 * time.Second))}
		s := serve(t, func(m *streamer.Mux) {
			m.Handle("ok", returns(1))
			m.Handle("short", returns(1), streamer.WithEstimate(0))
			m.Handle("fails", fails(streamer.NewError("NO", "").WithRetry(time.Second)), streamer.WithAttempts(2))
			m.Handle("waits", waits(), streamer.WithAttempts(1))
		}, streamer.WithQueue(q), streamer.WithConcurrency(7))
		require.Equal(t, streamer.Stats{Slots: 7}, s.Stats())

		s.ends("ok", "ok", ``)
		s.submit("ok", "ok", ``)
		s.ends("short", "short", ``)
		s.submit("short", "short", ``)
		s.refused(alice, request("unknown", "", ``))
		s.ends("fails", "fails", ``)
		s.submit("waits", "canceled", ``)
		synctest.Wait()
		require.Equal(t, 1, s.Stats().Running)
		_, err := s.Cancel(t.Context(), alice, "canceled", "")
		require.NoError(t, err)
		s.end("canceled")
		q.deaf.Store(true)
		s.submit("waits", "lost", ``)
		s.end("lost")
		q.deaf.Store(false)
		s.submit("waits", "returned", ``)
		synctest.Wait()
		s.stop()
		require.Equal(t, streamer.Stats{
			Accepted: 5, Answered: 1, Repeated: 2, Refused: 1, Started: 6, Completed: 1, Failed: 2, Canceled: 1, Retried: 1, Returned: 1, Fenced: 1,
			Slots: 7,
		}, s.Stats())
	})
}

// tickets notes what was enqueued.
type tickets struct {
	*memqueue.Queue
	mu  sync.Mutex
	all []queue.Ticket
}

func (q *tickets) Enqueue(ctx context.Context, t queue.Ticket) error {
	q.mu.Lock()
	q.all = append(q.all, t)
	q.mu.Unlock()
	return q.Queue.Enqueue(ctx, t)
}

func TestSecondDeliveryLeavesTheLastAttemptAlone(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		q := &tickets{Queue: memqueue.New()}
		s := serve(t, func(m *streamer.Mux) {
			m.Handle("x", doing(func(context.Context, streamer.Reporter) (*streamer.Result, error) {
				time.Sleep(5 * time.Second)
				return ok(1)
			}), streamer.WithAttempts(1))
		}, streamer.WithQueue(q))
		defer s.stop()
		s.submit("x", "r1", ``)
		synctest.Wait()
		require.NoError(t, q.Queue.Enqueue(t.Context(), q.all[0]))
		require.Equal(t, "accepted started completed", kinds(s.events("r1")))
	})
}

func TestCancelEndsTheContextWhileAnAppendIsInFlight(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		log := &gated{Log: memlog.New(), gate: make(chan struct{})}
		ended := make(chan time.Time, 1)
		s := serve(t, func(m *streamer.Mux) {
			m.Handle("x", doing(func(ctx context.Context, _ streamer.Reporter) (*streamer.Result, error) {
				_ = streamer.Output(ctx, 1)
				<-ctx.Done()
				ended <- time.Now()
				return nil, ctx.Err()
			}))
		}, streamer.WithLog(log))
		defer s.stop()
		defer close(log.gate)
		s.submit("x", "r1", ``)
		synctest.Wait()
		began := time.Now()
		_, err := s.Cancel(t.Context(), alice, "r1", "")
		require.NoError(t, err)
		took := receive(t, ended).Sub(began)
		require.LessOrEqual(t, took, time.Second, "the handler's context ends within 1 s")
	})
}
