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
	"github.com/pay-theory/streamer/v2/queue"
	"github.com/pay-theory/streamer/v2/queue/memqueue"
)

// deadLetters is a queue that has given up what it delivers, from a time on.
type deadLetters struct {
	*memqueue.Queue
	dead atomic.Bool
	last atomic.Pointer[queue.Ticket]
}

type deadLetter struct{ queue.Delivery }

func (deadLetter) Dead() string { return "it was received 5 times" }

func (q *deadLetters) Receive(ctx context.Context, n int) ([]queue.Delivery, error) {
	ds, err := q.Queue.Receive(ctx, n)
	for i := range ds {
		t := ds[i].Ticket()
		q.last.Store(&t)
		if q.dead.Load() {
			ds[i] = deadLetter{ds[i]}
		}
	}
	return ds, err
}

func TestRequestWhoseTicketTheQueueGaveUpFails(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		q := &deadLetters{Queue: memqueue.New()}
		q.dead.Store(true)
		s := serve(t, func(m *streamer.Mux) {
			m.Handle("x", doing(func(context.Context, streamer.Reporter) (*streamer.Result, error) {
				t.Error("its handler has run")
				return ok(1)
			}))
		}, streamer.WithQueue(q), streamer.WithLocalLog())
		defer s.stop()
		s.submit("x", "r1", ``)
		all := s.events("r1")
		require.Equal(t, "accepted failed", kinds(all))
		require.Equal(t, streamer.ErrCodeProcessingFailed, all[1].Error.Code)
		require.NotContains(t, all[1].Error.Message, "received", "the broker's reason is for the log")
	})
}

func TestTicketThatTheQueueGaveUpHarmsNobodyWhoWorks(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		q := &deadLetters{Queue: memqueue.New(memqueue.WithLease(9 * time.Second))}
		s := serve(t, func(m *streamer.Mux) {
			m.Handle("x", doing(func(ctx context.Context, _ streamer.Reporter) (*streamer.Result, error) {
				q.dead.Store(true)
				if err := q.Enqueue(ctx, *q.last.Load()); err != nil {
					return nil, err
				}
				time.Sleep(3 * time.Second)
				return ok(1)
			}))
		}, streamer.WithQueue(q), streamer.WithLocalLog())
		defer s.stop()
		s.submit("x", "r1", ``)
		require.Equal(t, "accepted started completed", kinds(s.events("r1")))
		time.Sleep(time.Minute)
		require.EqualValues(t, 1, s.Stats().Dropped)
		require.Equal(t, progress.Completed, s.state("r1").Phase)
	})
}
