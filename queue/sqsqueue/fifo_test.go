package sqsqueue_test

import (
	"context"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/pay-theory/streamer/v2/queue"
	"github.com/pay-theory/streamer/v2/queue/sqsqueue"
)

const fifoURL = "https://double.test/1/queue.fifo"

// onFIFO runs a test on a FIFO queue of a double, in a bubble, and on one of an emulator.
func onFIFO(t *testing.T, test func(t *testing.T, q *sqsqueue.Queue)) {
	t.Run("double", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			d := newDouble()
			d.create(fifoURL, "", 0)
			test(t, open(t, d, fifoURL))
		})
	})
	t.Run("emulator", func(t *testing.T) {
		t.Parallel()
		s := start(t)
		test(t, open(t, s, s.create(t, map[string]string{"FifoQueue": "true"})))
	})
}

func TestAGroupOfAFIFOQueueGoesOneByOneInOrder(t *testing.T) {
	onFIFO(t, func(t *testing.T, q *sqsqueue.Queue) {
		for _, id := range []string{"a1", "a2", "a3", "b1", "b2"} {
			enqueue(t, q, queue.Ticket{ID: id, Group: id[:1]})
		}
		a, b := receive(t, q, patience), receive(t, q, patience)
		require.Equal(t, []string{"a1", "b1"}, []string{a.Ticket().ID, b.Ticket().ID})
		ctx, cancel := context.WithTimeout(t.Context(), 1500*time.Millisecond)
		defer cancel()
		_, err := q.Receive(ctx, 10)
		require.ErrorIs(t, err, context.DeadlineExceeded)

		require.NoError(t, a.Retry(t.Context(), time.Second))
		ack(t, b)
		require.Equal(t, "b2", receive(t, q, patience).Ticket().ID)
		for _, id := range []string{"a1", "a2", "a3"} {
			ds, err := q.Receive(t.Context(), 10)
			require.NoError(t, err)
			require.Len(t, ds, 1)
			require.Equal(t, id, ds[0].Ticket().ID)
			ack(t, ds[0])
		}
	})
}

func TestATicketThatIsEnqueuedAgainIsNotSwallowedByAFIFOQueue(t *testing.T) {
	onFIFO(t, func(t *testing.T, q *sqsqueue.Queue) {
		same := queue.Ticket{ID: "twin", Nonce: "n", Group: "g"}
		for range 3 {
			enqueue(t, q, same)
			dl := receive(t, q, patience)
			require.Equal(t, same, dl.Ticket())
			ack(t, dl)
		}
	})
}

func TestTicketsWithoutAGroupDoNotWaitForEachOtherInAFIFOQueue(t *testing.T) {
	onFIFO(t, func(t *testing.T, q *sqsqueue.Queue) {
		for range 3 {
			enqueue(t, q, queue.Ticket{})
		}
		for range 3 {
			receive(t, q, patience)
		}
	})
}

func TestGroupsMayHaveAnyName(t *testing.T) {
	onFIFO(t, func(t *testing.T, q *sqsqueue.Queue) {
		names := []string{"日本語", "日本誤", "a b", "a\tb", "\x00", strings.Repeat("x", 127), strings.Repeat("x", 128), strings.Repeat("x", 1000), "-", "=", "#", "=-"}
		for _, name := range names {
			enqueue(t, q, queue.Ticket{Group: name})
			enqueue(t, q, queue.Ticket{Group: name})
		}
		seen := map[string]bool{}
		for range names {
			dl := receive(t, q, patience)
			require.False(t, seen[dl.Ticket().Group], "the second of group %q came before the first was acked", dl.Ticket().Group)
			seen[dl.Ticket().Group] = true
		}
	})
}

func TestADelayOfManyHoursIsKeptByAFIFOQueue(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d := newDouble()
		d.create(fifoURL, "", 0)
		q := open(t, d, fifoURL, sqsqueue.WithPoll(20*time.Second))
		enqueue(t, q, queue.Ticket{Group: "g"})
		begin := time.Now()
		require.NoError(t, receive(t, q, patience).Retry(t.Context(), 13*time.Hour))
		ack(t, receive(t, q, 14*time.Hour))
		require.GreaterOrEqual(t, time.Since(begin), 13*time.Hour)
		require.Less(t, time.Since(begin), 13*time.Hour+2*time.Second)
		require.Empty(t, d.bodies(fifoURL))
	})
}

func TestAnAckDoesNotHoldUpTheNextOfItsGroup(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d := newDouble()
		d.create(fifoURL, "", 0)
		q := open(t, d, fifoURL, sqsqueue.WithLinger(time.Second))
		begin := time.Now()
		for range 3 {
			enqueue(t, q, queue.Ticket{Group: "g"})
		}
		for range 3 {
			ack(t, receive(t, q, patience))
		}
		require.Zero(t, time.Since(begin))
	})
}
