package fault_test

import (
	"context"
	"errors"
	"strconv"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/pay-theory/streamer/v2/internal/fault"
	"github.com/pay-theory/streamer/v2/queue"
	"github.com/pay-theory/streamer/v2/queue/memqueue"
	"github.com/pay-theory/streamer/v2/queue/queuetest"
)

const longest = 10 * time.Second

func TestQueueWithoutFaultsConforms(t *testing.T) {
	queuetest.Run(t, queuetest.Harness{
		New: func(_ testing.TB, lease time.Duration) queue.Queue {
			return fault.NewQueue(memqueue.New(memqueue.WithLease(lease)), 1, longest)
		},
		Around:             synctest.Test,
		Tolerance:          time.Millisecond,
		Fair:               true,
		FencesStaleHolders: true,
	})
}

// onQueue runs a test in a bubble, on a queue with a lease of a minute.
func onQueue(t *testing.T, test func(t *testing.T, q *fault.Queue, inner *memqueue.Queue)) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		inner := memqueue.New(memqueue.WithLease(time.Minute))
		test(t, fault.NewQueue(inner, 1, longest), inner)
	})
}

func enqueue(t *testing.T, q queue.Queue, id string) {
	t.Helper()
	require.NoError(t, q.Enqueue(t.Context(), queue.Ticket{ID: id, Nonce: id}))
}

func receive(t *testing.T, q queue.Queue) queue.Delivery {
	t.Helper()
	deliveries, err := q.Receive(t.Context(), 1)
	require.NoError(t, err)
	require.Len(t, deliveries, 1)
	return deliveries[0]
}

// drain acks what comes until nothing comes for an hour.
func drain(t *testing.T, q queue.Queue) (ids []string) {
	t.Helper()
	for {
		ctx, cancel := context.WithTimeout(t.Context(), time.Hour)
		deliveries, err := q.Receive(ctx, 1)
		cancel()
		if err != nil {
			require.ErrorIs(t, err, context.DeadlineExceeded)
			return ids
		}
		for _, d := range deliveries {
			ids = append(ids, d.Ticket().ID)
			require.NoError(t, d.Ack(t.Context()))
		}
	}
}

func TestUnavailableDoesNothing(t *testing.T) {
	onQueue(t, func(t *testing.T, q *fault.Queue, inner *memqueue.Queue) {
		enqueue(t, q, "a")
		d := receive(t, q)
		before := inner.Stats()

		q.Unavailable.Set(1)
		require.ErrorIs(t, q.Enqueue(t.Context(), queue.Ticket{}), queue.ErrUnavailable)
		require.ErrorIs(t, d.Extend(t.Context()), queue.ErrUnavailable)
		require.ErrorIs(t, d.Retry(t.Context(), 0), queue.ErrUnavailable)
		require.ErrorIs(t, d.Ack(t.Context()), queue.ErrUnavailable)
		_, err := q.Receive(t.Context(), 1)
		require.ErrorIs(t, err, queue.ErrUnavailable)
		require.Equal(t, before, inner.Stats())
		require.EqualValues(t, 5, q.Unavailable.Count())

		q.Unavailable.Set(0)
		require.NoError(t, d.Ack(t.Context()))
	})
}

func TestALostAnswerIsOfACallThatWasDone(t *testing.T) {
	onQueue(t, func(t *testing.T, q *fault.Queue, inner *memqueue.Queue) {
		q.AnswerLost.Set(1)
		require.ErrorIs(t, q.Enqueue(t.Context(), queue.Ticket{ID: "a"}), queue.ErrUnavailable)
		require.Equal(t, 1, inner.Stats().Ready)
		_, err := q.Receive(t.Context(), 1)
		require.ErrorIs(t, err, queue.ErrUnavailable)
		require.Equal(t, 1, inner.Stats().Leased)

		q.AnswerLost.Set(0)
		d := receive(t, q)
		q.AnswerLost.Set(1)
		time.Sleep(30 * time.Second)
		require.ErrorIs(t, d.Extend(t.Context()), queue.ErrUnavailable)
		time.Sleep(40 * time.Second)
		require.ErrorIs(t, d.Ack(t.Context()), queue.ErrUnavailable)
		require.Zero(t, inner.Stats())
		require.EqualValues(t, 4, q.AnswerLost.Count())
	})
}

func TestDelayEndsWithTheContext(t *testing.T) {
	onQueue(t, func(t *testing.T, q *fault.Queue, inner *memqueue.Queue) {
		q.Delay.Set(1)
		start := time.Now()
		enqueue(t, q, "a")
		receive(t, q)
		took := time.Since(start)
		require.Greater(t, took, time.Second)
		require.Less(t, took, 4*longest)
		require.EqualValues(t, 4, q.Delay.Count(), "before and after each call")

		ctx, cancel := context.WithTimeout(t.Context(), time.Millisecond)
		defer cancel()
		require.ErrorIs(t, q.Enqueue(ctx, queue.Ticket{}), context.DeadlineExceeded)
		require.Equal(t, memqueue.Stats{Leased: 1, Bytes: inner.Stats().Bytes}, inner.Stats())
	})
}

func TestEnqueuedTwiceStoresEqualTickets(t *testing.T) {
	onQueue(t, func(t *testing.T, q *fault.Queue, _ *memqueue.Queue) {
		q.EnqueuedTwice.Set(1)
		enqueue(t, q, "a")
		require.Equal(t, []string{"a", "a"}, drain(t, q))
		require.EqualValues(t, 1, q.EnqueuedTwice.Count())
	})
}

func TestDeliveredTwiceIsOnceMoreForEach(t *testing.T) {
	onQueue(t, func(t *testing.T, q *fault.Queue, _ *memqueue.Queue) {
		q.DeliveredTwice.Set(0.2)
		times := make(map[string]int)
		const n = 1000
		for i := range n {
			enqueue(t, q, strconv.Itoa(i))
		}
		ids := drain(t, q)
		for _, id := range ids {
			times[id]++
		}
		require.Len(t, times, n)
		require.Greater(t, q.DeliveredTwice.Count(), int64(100))
		require.EqualValues(t, n+q.DeliveredTwice.Count(), len(ids))
	})
}

func TestReorderedTicketsComeLater(t *testing.T) {
	onQueue(t, func(t *testing.T, q *fault.Queue, _ *memqueue.Queue) {
		q.Reordered.Set(0.5)
		var sent []string
		for i := range 100 {
			sent = append(sent, strconv.Itoa(i))
			enqueue(t, q, sent[i])
		}
		got := drain(t, q)
		require.ElementsMatch(t, sent, got)
		require.NotEqual(t, sent, got)
		require.Greater(t, q.Reordered.Count(), int64(50))
	})
}

func TestALostExtendLosesTheLease(t *testing.T) {
	onQueue(t, func(t *testing.T, q *fault.Queue, _ *memqueue.Queue) {
		enqueue(t, q, "a")
		d := receive(t, q)
		q.ExtendLost.Set(1)
		time.Sleep(30 * time.Second)
		require.NoError(t, d.Extend(t.Context()))
		q.ExtendLost.Set(0)
		time.Sleep(20 * time.Second)
		require.NoError(t, d.Extend(t.Context()), "once lost, always lost")
		require.EqualValues(t, 1, q.ExtendLost.Count())

		start := time.Now()
		again := receive(t, q)
		require.Equal(t, 10*time.Second, time.Since(start))
		require.Equal(t, d.Ticket(), again.Ticket())
	})
}

func TestAStaleAckRemovesTheTicketOfTheNewHolder(t *testing.T) {
	onQueue(t, func(t *testing.T, q *fault.Queue, inner *memqueue.Queue) {
		enqueue(t, q, "a")
		stale := receive(t, q)
		holder := receive(t, q)
		require.NoError(t, stale.Ack(t.Context()))
		require.NoError(t, holder.Extend(t.Context()), "without the fault it is kept")

		q.StaleAck.Set(1)
		require.NoError(t, stale.Ack(t.Context()))
		require.ErrorIs(t, holder.Extend(t.Context()), queue.ErrLeaseLost)
		require.Zero(t, inner.Stats())
		require.NoError(t, holder.Ack(t.Context()))
		require.EqualValues(t, 1, q.StaleAck.Count(), "the holder's own Ack is not stale")
	})
}

func TestTheSeedDecides(t *testing.T) {
	t.Parallel()
	run := func(seed uint64) (outcome []bool) {
		q := fault.NewQueue(memqueue.New(), seed, longest)
		q.Unavailable.Set(0.5)
		for range 100 {
			outcome = append(outcome, q.Enqueue(t.Context(), queue.Ticket{}) == nil)
		}
		return outcome
	}
	require.Equal(t, run(1), run(1))
	require.NotEqual(t, run(1), run(2))
}

func TestRatesAreProbabilities(t *testing.T) {
	t.Parallel()
	var f fault.Fault
	require.PanicsWithValue(t, "fault: Set(1.1): a rate is from 0 to 1", func() { f.Set(1.1) })
	require.Panics(t, func() { f.Set(-0.1) })
}

func TestAllFaultsTogetherLoseNothing(t *testing.T) {
	onQueue(t, func(t *testing.T, q *fault.Queue, inner *memqueue.Queue) {
		faults := []*fault.Fault{
			&q.Unavailable, &q.AnswerLost, &q.Delay, &q.EnqueuedTwice,
			&q.DeliveredTwice, &q.Reordered, &q.ExtendLost, &q.StaleAck,
		}
		for _, f := range faults {
			f.Set(0.1)
		}
		const n = 500
		var mu sync.Mutex
		worked := make(map[string]bool)
		var workers sync.WaitGroup
		for range 8 {
			workers.Go(func() {
				for {
					ctx, cancel := context.WithTimeout(t.Context(), time.Hour)
					deliveries, err := q.Receive(ctx, 1)
					cancel()
					if errors.Is(err, context.DeadlineExceeded) {
						return
					}
					for _, d := range deliveries {
						for range 3 {
							time.Sleep(30 * time.Second)
							_ = d.Extend(t.Context())
						}
						mu.Lock()
						worked[d.Ticket().ID] = true
						mu.Unlock()
						_ = d.Ack(t.Context())
					}
				}
			})
		}
		for i := range n {
			for q.Enqueue(t.Context(), queue.Ticket{ID: strconv.Itoa(i)}) != nil {
			}
		}
		workers.Wait()
		require.Len(t, worked, n)
		require.Zero(t, inner.Stats())
		for i, f := range faults {
			require.NotZero(t, f.Count(), "fault %d", i)
		}
	})
}
