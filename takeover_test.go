package streamer_test

import (
	"context"
	"fmt"
	"iter"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/pay-theory/streamer/v2"
	"github.com/pay-theory/streamer/v2/progress"
	"github.com/pay-theory/streamer/v2/progress/memlog"
	"github.com/pay-theory/streamer/v2/queue"
	"github.com/pay-theory/streamer/v2/queue/memqueue"
)

// leaky hides that a lease was extended from the queue.
type leaky struct {
	*memqueue.Queue
	deaf atomic.Bool
}

type leakyDelivery struct {
	queue.Delivery
	q *leaky
}

func (q *leaky) Receive(ctx context.Context, n int) ([]queue.Delivery, error) {
	ds, err := q.Queue.Receive(ctx, n)
	for i := range ds {
		ds[i] = leakyDelivery{ds[i], q}
	}
	return ds, err
}

func (d leakyDelivery) Extend(ctx context.Context) error {
	if d.q.deaf.Load() {
		return queue.ErrUnavailable
	}
	return d.Delivery.Extend(ctx)
}

func TestLostLeaseEndsTheAttemptAndAnotherTakesOver(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		q := &leaky{Queue: memqueue.New(memqueue.WithLease(9 * time.Second))}
		q.deaf.Store(true)
		causes := make(chan error, 1)
		s := serve(t, func(m *streamer.Mux) {
			m.Handle("wait", streamer.HandlerFunc(func(ctx context.Context, _ *streamer.Request, _ streamer.Reporter) (*streamer.Result, error) {
				var from int
				found, err := streamer.LastCheckpoint(ctx, &from)
				if err != nil {
					return nil, err
				}
				if streamer.Attempt(ctx) == 1 {
					for i := range 3 {
						_ = streamer.Output(ctx, i)
					}
					if err := streamer.Checkpoint(ctx, 3); err != nil {
						return nil, err
					}
					_ = streamer.Output(ctx, "not covered")
					<-ctx.Done()
					causes <- context.Cause(ctx)
					if err := streamer.Output(ctx, "zombie"); err == nil {
						t.Error("an output of a superseded attempt was taken")
					}
					return ok("zombie")
				}
				q.deaf.Store(false)
				if !found || from != 3 {
					t.Errorf("checkpoint: %v %v", found, from)
				}
				_ = streamer.Output(ctx, "second")
				return ok("second")
			}))
		}, streamer.WithQueue(q), streamer.WithLocalLog())
		defer s.stop()
		began := time.Now()
		s.submit("wait", "r1", ``)
		all := s.events("r1")
		require.Equal(t, "accepted started output output output output retrying started output completed", kinds(all))
		require.Equal(t, progress.ReasonLost, all[6].Reason)
		require.Equal(t, 3, all[7].Index, "outputs go on from the checkpoint")
		require.Equal(t, 3, all[8].Index)
		require.Equal(t, `"second"`, string(all[9].Data))
		require.LessOrEqual(t, time.Since(began), 11*time.Second, "another attempt starts within lease + 2 s")
		require.ErrorIs(t, <-causes, streamer.ErrLeaseLost)
		require.EqualValues(t, 1, s.Stats().Fenced)
	})
}

func TestShutdownHandsBackWithoutUsingAnAttempt(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		q := memqueue.New()
		s := serve(t, func(m *streamer.Mux) {
			m.Handle("wait", streamer.HandlerFunc(func(ctx context.Context, _ *streamer.Request, _ streamer.Reporter) (*streamer.Result, error) {
				<-ctx.Done()
				return nil, fmt.Errorf("stopped: %w", context.Cause(ctx))
			}))
			m.Handle("quick", streamer.HandlerFunc(func(ctx context.Context, _ *streamer.Request, _ streamer.Reporter) (*streamer.Result, error) {
				time.Sleep(5 * time.Second)
				return ok(1)
			}))
		}, streamer.WithQueue(q))
		s.submit("wait", "r1", ``)
		s.submit("quick", "r2", ``)
		synctest.Wait()
		ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
		defer cancel()
		began := time.Now()
		require.NoError(t, s.Shutdown(ctx))
		require.NoError(t, <-s.ran)
		require.Less(t, time.Since(began), 20*time.Second)
		require.Equal(t, progress.Completed, s.end("r2").Kind)
		v, err := s.Attach(t.Context(), alice, "r1")
		require.NoError(t, err)
		st := v.Page().State
		require.Equal(t, progress.Retrying, st.Phase)
		require.Equal(t, 0, st.Used)
		ds, err := q.Receive(t.Context(), 1)
		require.NoError(t, err)
		require.Equal(t, "r1", ds[0].Ticket().ID)
		_, err = s.Submit(t.Context(), alice, &streamer.Request{Action: "quick"})
		require.Equal(t, streamer.ErrCodeServiceUnavailable, code(t, err))
		require.Error(t, s.Ready(t.Context()))
	})
}

func TestSweepEnqueuesWhatLostItsTicket(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		q := memqueue.New(memqueue.WithLease(10 * time.Second))
		s := serve(t, func(m *streamer.Mux) {
			m.Handle("x", streamer.HandlerFunc(func(context.Context, *streamer.Request, streamer.Reporter) (*streamer.Result, error) { return ok(1) }))
		}, streamer.WithQueue(forgetfulOf{q, "x"}), streamer.WithLocalLog())
		defer s.stop()
		s.submit("x", "lost", ``)
		began := time.Now()
		require.Equal(t, progress.Completed, s.end("lost").Kind)
		require.Less(t, time.Since(began), 2*time.Minute)
		synctest.Wait() // the sweep counts behind the enqueue
		require.EqualValues(t, 1, s.Stats().Swept)
	})
}

func TestSweepTakesOverARunWithoutASignOfLife(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		log := memlog.New()
		defer log.Close()
		s := serve(t, func(m *streamer.Mux) {
			m.Handle("x", streamer.HandlerFunc(func(ctx context.Context, _ *streamer.Request, _ streamer.Reporter) (*streamer.Result, error) {
				return ok(streamer.Attempt(ctx))
			}))
		}, streamer.WithLog(log), streamer.WithQueue(memqueue.New(memqueue.WithLease(10*time.Second))))
		defer s.stop()
		// The worker of the first attempt is gone, and so is its ticket.
		key := progress.Key{Scope: "acme/alice", ID: "r1"}
		rec := &progress.Record{ID: "a", State: progress.State{Epoch: "e", Action: "x", Created: time.Now(), Nonce: "gone"}}
		for i, e := range []*progress.Event{
			{Kind: progress.Accepted, Request: &progress.Request{Action: "x"}},
			{Kind: progress.Started, Attempt: 1},
		} {
			e.Seq, e.Record, e.Time = uint64(i+1), rec.ID, time.Now()
			rec.Events = append(rec.Events, e)
			rec.State = rec.State.Apply(e)
		}
		require.NoError(t, log.Append(t.Context(), key, "", rec))
		all := s.events("r1")
		require.Equal(t, "accepted started retrying started completed", kinds(all))
		require.Equal(t, progress.ReasonLost, all[2].Reason)
	})
}

func TestALongHandlerShowsSignsOfLifeAndIsLeftAlone(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := serve(t, func(m *streamer.Mux) {
			m.Handle("silent", streamer.HandlerFunc(func(ctx context.Context, _ *streamer.Request, _ streamer.Reporter) (*streamer.Result, error) {
				time.Sleep(time.Hour)
				return ok(1)
			}))
		}, streamer.WithQueue(memqueue.New(memqueue.WithLease(10*time.Second))))
		defer s.stop()
		s.submit("silent", "r1", ``)
		require.Equal(t, "accepted started completed", kinds(s.events("r1")))
		require.Zero(t, s.Stats().Swept)
	})
}

// swept tells who passes over a log.
type swept struct {
	*memlog.Log
	name   int
	passes chan<- int
}

func (l swept) Open(ctx context.Context, idle time.Duration) iter.Seq2[progress.Pending, error] {
	l.passes <- l.name
	return l.Log.Open(ctx, idle)
}

func TestOneWorkerSweepsAtATimeAndAnotherTakesOver(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		log, q := memlog.New(), memqueue.New(memqueue.WithLease(10*time.Second)) // a pass each 30 s or so
		defer log.Close()
		sweeping := make(chan int, 1000)
		workers := make(map[int]*service)
		for i := range 4 {
			workers[i] = serve(t, func(m *streamer.Mux) { m.Handle("x", returns(1)) }, streamer.WithLog(swept{log, i, sweeping}), streamer.WithQueue(q))
		}
		for len(workers) > 0 {
			time.Sleep(30 * time.Minute)
			var passes []int
			for range len(sweeping) {
				passes = append(passes, <-sweeping)
			}
			require.InDelta(t, 58, len(passes), 4, "%d workers", len(workers))
			changes := 0
			for i := range passes[1:] {
				if passes[i] != passes[i+1] {
					changes++
				}
			}
			require.Less(t, changes, 25, "who swept mostly goes on")
			last := passes[len(passes)-1]
			workers[last].stop()
			delete(workers, last)
		}
	})
}

func TestSweepFindsALostTicketThoughAllWorkersAreBusy(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		q := memqueue.New(memqueue.WithLease(10 * time.Second))
		s := serve(t, func(m *streamer.Mux) {
			m.Handle("day", seconds(86400))
			m.Handle("x", returns(1))
		}, streamer.WithQueue(forgetfulOf{q, "x"}), streamer.WithLocalLog(), streamer.WithConcurrency(2))
		s.submit("day", "d1", ``)
		s.submit("x", "lost", ``)
		s.submit("day", "d2", ``)
		time.Sleep(2 * time.Minute)
		require.EqualValues(t, 1, s.Stats().Swept)
		require.Equal(t, 1, q.Stats().Ready)
		time.Sleep(10 * time.Minute)
		require.EqualValues(t, 1, s.Stats().Swept, "while it waits, it is not enqueued again")
		require.Equal(t, progress.Completed, s.end("lost").Kind)
		s.stop()
	})
}

// forgetfulOf loses the tickets of submits of an action.
type forgetfulOf struct {
	*memqueue.Queue
	action string
}

func (q forgetfulOf) Enqueue(ctx context.Context, t queue.Ticket) error {
	if t.Action == q.action && t.SeenLast == 0 {
		return nil
	}
	return q.Queue.Enqueue(ctx, t)
}
