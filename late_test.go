package streamer_test

import (
	"context"
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

// slowExtend is a queue whose leases take half a second to extend, and can't be from a time on.
type slowExtend struct {
	*memqueue.Queue
	lost *atomic.Bool
}

type slowDelivery struct {
	queue.Delivery
	lost *atomic.Bool
}

func (q slowExtend) Receive(ctx context.Context, n int) ([]queue.Delivery, error) {
	ds, err := q.Queue.Receive(ctx, n)
	for i := range ds {
		ds[i] = slowDelivery{ds[i], q.lost}
	}
	return ds, err
}

func (d slowDelivery) Extend(ctx context.Context) error {
	time.Sleep(500 * time.Millisecond)
	if d.lost.Load() {
		return queue.ErrLeaseLost
	}
	return d.Delivery.Extend(ctx)
}

func TestOutputAfterTheHandlerReturnedIsRefusedThoughTheQueueIsSlow(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		q := slowExtend{memqueue.New(memqueue.WithLease(9 * time.Second)), new(atomic.Bool)}
		s := serve(t, func(m *streamer.Mux) {
			m.Handle("late", doing(func(ctx context.Context, _ streamer.Reporter) (*streamer.Result, error) {
				time.Sleep(3*time.Second + 100*time.Millisecond) // the lease is being extended
				time.AfterFunc(20*time.Millisecond, func() { _ = streamer.Output(ctx, "too late") })
				return ok(1)
			}))
		}, streamer.WithQueue(q))
		defer s.stop()
		s.ends("late", "r1", ``)
		require.Equal(t, "accepted started completed", kinds(s.events("r1")))
	})
}

// heldEnd is a log that answers to the append of an end when it is told to.
type heldEnd struct {
	*memlog.Log
	answer chan struct{}
}

func (l heldEnd) Append(ctx context.Context, key progress.Key, prev string, rec *progress.Record) error {
	err := l.Log.Append(ctx, key, prev, rec)
	if rec.Retention > 0 && key.ID == "r1" {
		<-l.answer
	}
	return err
}

func TestLeaseThatIsLostWhileTheEndIsBeingStoredEndsNothingElse(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		log := heldEnd{memlog.New(), make(chan struct{})}
		defer log.Close()
		q := slowExtend{memqueue.New(memqueue.WithLease(9 * time.Second)), new(atomic.Bool)}
		s := serve(t, func(m *streamer.Mux) { m.Handle("x", returns(1)) }, streamer.WithLog(log), streamer.WithQueue(q))
		s.submit("x", "r1", ``)
		q.lost.Store(true)
		time.Sleep(5 * time.Second) // the lease is lost, the end has no answer yet
		close(log.answer)
		require.Equal(t, "accepted started completed", kinds(s.events("r1")))
		require.Equal(t, "accepted started completed", kinds(func() []*progress.Event { s.ends("x", "r2", ``); return s.events("r2") }()))
		time.Sleep(time.Minute)
		require.EqualValues(t, 2, s.Stats().Started)
		s.stop()
	})
}

func TestAnActionThatNoWorkerHereKnowsFailsWhenItHasWaitedForOneLong(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		log, q := memlog.New(), memqueue.New()
		defer log.Close()
		shared := []streamer.Option{streamer.WithLog(log), streamer.WithQueue(q), streamer.WithLogger(quiet())}
		gateway := streamer.NewRouter(shared...)
		gateway.Handle("new", returns(1))
		for _, id := range []string{"r1", "r2"} {
			_, err := gateway.Submit(t.Context(), alice, request("new", id, ``))
			require.NoError(t, err)
		}
		// For all that workers know, the gateway's clock may have been behind.
		time.Sleep(time.Hour)
		old := serve(t, func(*streamer.Mux) {}, shared...)
		defer old.stop()
		time.Sleep(9 * time.Minute)
		for _, id := range []string{"r1", "r2"} {
			v, err := gateway.Attach(t.Context(), alice, id)
			require.NoError(t, err)
			require.Equal(t, progress.Accepted, v.Page().State.Phase, "a worker that knows it may come yet")
		}
		time.Sleep(2 * time.Minute)
		for _, id := range []string{"r1", "r2"} {
			all := old.events(id)
			require.Equal(t, "accepted failed", kinds(all))
			require.Equal(t, streamer.ErrCodeInvalidAction, all[1].Error.Code)
		}
	})
}

// mute is a log that does not answer how requests stand.
type mute struct{ progress.Log }

func (mute) Tail(ctx context.Context, _ progress.Key) (progress.State, error) {
	return progress.State{}, deaf{}.wait(ctx)
}

func TestALogThatDoesNotAnswerCostsNoLease(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		log := memlog.New()
		defer log.Close()
		s := serve(t, func(m *streamer.Mux) {
			m.Handle("x", doing(func(ctx context.Context, _ streamer.Reporter) (*streamer.Result, error) {
				time.Sleep(10 * time.Second)
				return ok(1)
			}))
		}, streamer.WithLog(mute{log}), streamer.WithQueue(memqueue.New(memqueue.WithLease(time.Second))))
		defer s.stop()
		s.submit("x", "r1", ``)
		require.Equal(t, "accepted started completed", kinds(s.events("r1")))
	})
}
