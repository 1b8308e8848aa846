package sqsqueue_test

import (
	"context"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/pay-theory/streamer/v2/queue"
	"github.com/pay-theory/streamer/v2/queue/sqsqueue"
)

// held returns a ticket that has been leased for longer than SQS can lease it.
func held(t *testing.T, d *double, q *sqsqueue.Queue, want queue.Ticket) queue.Delivery {
	t.Helper()
	enqueue(t, q, want)
	held := receive(t, q, patience)
	for begin := time.Now(); time.Since(begin) < 20*time.Hour; {
		time.Sleep(10 * time.Minute)
		require.NoError(t, held.Extend(t.Context()))
	}
	require.Empty(t, d.bodies(doubledURL), "what SQS can't hide any more is removed")
	return held
}

func TestALeaseGoesOnBeyondTheTwelveHoursOfSQS(t *testing.T) {
	want := queue.Ticket{ID: "long", Nonce: "n", Group: "g"}
	for name, end := range map[string]func(t *testing.T, d *double, q *sqsqueue.Queue, held queue.Delivery){
		"ack": func(t *testing.T, d *double, q *sqsqueue.Queue, held queue.Delivery) {
			calls := d.count("DeleteMessageBatch")
			ack(t, held)
			require.Equal(t, calls, d.count("DeleteMessageBatch"))
			require.ErrorIs(t, held.Extend(t.Context()), queue.ErrLeaseLost)
		},
		"retry": func(t *testing.T, d *double, q *sqsqueue.Queue, held queue.Delivery) {
			begin := time.Now()
			require.NoError(t, held.Retry(t.Context(), time.Hour))
			require.ErrorIs(t, held.Extend(t.Context()), queue.ErrLeaseLost)
			again := receive(t, q, 2*time.Hour)
			require.Equal(t, want, again.Ticket())
			require.GreaterOrEqual(t, time.Since(begin), time.Hour)
			time.Sleep(20 * time.Minute)
			require.NoError(t, again.Extend(t.Context()), "the twelve hours begin anew")
			require.Len(t, d.bodies(doubledURL), 1)
			ack(t, again)
		},
		"the lease ends": func(t *testing.T, d *double, q *sqsqueue.Queue, held queue.Delivery) {
			time.Sleep(30 * time.Minute)
			require.ErrorIs(t, held.Extend(t.Context()), queue.ErrLeaseLost)
			require.NoError(t, held.Retry(t.Context(), 0))
			require.NoError(t, held.Ack(t.Context()))
		},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				d, q := doubledQueue(t, sqsqueue.WithLease(30*time.Minute))
				end(t, d, q, held(t, d, q, want))
				require.Empty(t, d.bodies(doubledURL))
			})
		})
	}
}

func TestARemovalAtTwelveHoursThatFailsIsTriedAgain(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d, q := doubledQueue(t, sqsqueue.WithLease(time.Hour))
		enqueue(t, q, queue.Ticket{ID: "long"})
		held := receive(t, q, patience)
		for range 11 {
			time.Sleep(59 * time.Minute)
			require.NoError(t, held.Extend(t.Context()))
		}
		d.before = func(operation string, _ any) error {
			if operation == "DeleteMessageBatch" {
				return context.DeadlineExceeded
			}
			return nil
		}
		time.Sleep(50 * time.Minute)
		require.ErrorIs(t, held.Extend(t.Context()), queue.ErrUnavailable)
		require.Len(t, d.bodies(doubledURL), 1)
		d.calm()
		require.NoError(t, held.Extend(t.Context()))
		require.Empty(t, d.bodies(doubledURL))
		time.Sleep(59 * time.Minute)
		require.NoError(t, held.Extend(t.Context()), "it lasts its full length")
	})
}

func TestDelaysAreKeptHoweverLong(t *testing.T) {
	for _, delay := range []time.Duration{14 * time.Minute, 16 * time.Minute, 11 * time.Hour, 13 * time.Hour, 50 * time.Hour} {
		t.Run(delay.String(), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				d, q := doubledQueue(t, sqsqueue.WithPoll(20*time.Second))
				enqueue(t, q, queue.Ticket{ID: "late"})
				held := receive(t, q, patience)
				begin := time.Now()
				require.NoError(t, held.Retry(t.Context(), delay))
				ack(t, receive(t, q, delay+time.Minute))
				require.GreaterOrEqual(t, time.Since(begin), delay)
				require.Less(t, time.Since(begin), delay+2*time.Second)
				require.Empty(t, d.bodies(doubledURL))
			})
		})
	}
}

func TestADelayIsKeptLateInTheTwelveHours(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		_, q := doubledQueue(t, sqsqueue.WithLease(time.Hour), sqsqueue.WithPoll(20*time.Second))
		enqueue(t, q, queue.Ticket{ID: "late"})
		held := receive(t, q, patience)
		for range 21 {
			time.Sleep(30 * time.Minute)
			require.NoError(t, held.Extend(t.Context()))
		}
		begin := time.Now()
		require.NoError(t, held.Retry(t.Context(), 5*time.Hour))
		receive(t, q, 6*time.Hour)
		require.GreaterOrEqual(t, time.Since(begin), 5*time.Hour)
		require.Less(t, time.Since(begin), 5*time.Hour+2*time.Second)
	})
}

func TestAnOldReceiptHandleIsALostLease(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d, q := doubledQueue(t)
		var held []queue.Delivery
		for range 3 {
			enqueue(t, q, queue.Ticket{})
			held = append(held, receive(t, q, patience))
		}
		d.mu.Lock()
		for _, m := range d.queues[doubledURL].messages {
			m.handle = "another's"
		}
		d.mu.Unlock()
		require.ErrorIs(t, held[0].Extend(t.Context()), queue.ErrLeaseLost)
		require.ErrorIs(t, held[0].Extend(t.Context()), queue.ErrLeaseLost)
		require.NoError(t, held[1].Retry(t.Context(), 0))
		ack(t, held[2])
		require.Len(t, d.bodies(doubledURL), 3)
	})
}

func TestADeleteThatSQSForgotIsADeliveryAgain(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d, q := doubledQueue(t)
		enqueue(t, q, queue.Ticket{ID: "undead"})
		body := d.bodies(doubledURL)[0]
		ack(t, receive(t, q, patience))
		d.put(doubledURL, body)
		again := receive(t, q, patience)
		require.Equal(t, "undead", again.Ticket().ID)
		require.NoError(t, again.Extend(t.Context()))
		ack(t, again)
		require.Empty(t, d.bodies(doubledURL))
	})
}
