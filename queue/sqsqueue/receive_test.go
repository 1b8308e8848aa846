package sqsqueue_test

import (
	"bytes"
	"context"
	"log/slog"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/aws/aws-sdk-go-v2/service/sqs"
	"github.com/stretchr/testify/require"

	"github.com/pay-theory/streamer/v2/queue"
	"github.com/pay-theory/streamer/v2/queue/sqsqueue"
)

func TestOnePollWaitsForAllWhoDo(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d, q := doubledQueue(t)
		var asked []int32
		d.before = func(_ string, in any) error {
			if r, ok := in.(*sqs.ReceiveMessageInput); ok {
				asked = append(asked, r.MaxNumberOfMessages)
			}
			return nil
		}
		const n = 15
		var received sync.WaitGroup
		for range n {
			received.Go(func() { receive(t, q, patience) })
			synctest.Wait()
		}
		require.Equal(t, []int32{1}, asked, "the first who waits has the poll made")
		d.put(doubledURL, slices.Repeat([]string{`{"v":1,"nonce":""}`}, n)...)
		received.Wait()
		require.Equal(t, []int32{1, 10, 4}, asked)
	})
}

func TestATicketIsDeliveredTheMomentItIsThere(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d, q := doubledQueue(t)
		worker := open(t, d, doubledURL)
		for range 3 {
			got := make(chan time.Time)
			go func() {
				receive(t, worker, patience)
				got <- time.Now()
			}()
			time.Sleep(3300 * time.Millisecond) // three polls end, the fourth waits
			begin := time.Now()
			enqueue(t, q, queue.Ticket{})
			require.Zero(t, (<-got).Sub(begin))
		}
	})
}

func TestATicketThatComesToALeaverIsAnothersAtOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d, q := doubledQueue(t)
		ctx, leave := context.WithCancel(t.Context())
		left := make(chan error)
		go func() {
			_, err := q.Receive(ctx, 1)
			left <- err
		}()
		synctest.Wait()
		leave()
		require.ErrorIs(t, <-left, context.Canceled)

		worker := open(t, d, doubledURL)
		got := make(chan queue.Delivery)
		go func() { got <- receive(t, worker, patience) }()
		synctest.Wait()
		begin := time.Now()
		enqueue(t, q, queue.Ticket{ID: "late"})
		require.Equal(t, "late", (<-got).Ticket().ID)
		require.Less(t, time.Since(begin), time.Millisecond)
		calls := d.count("ReceiveMessage")
		time.Sleep(time.Minute)
		require.Equal(t, calls, d.count("ReceiveMessage"), "nobody waits, so nobody asks")
	})
}

func TestWhatALeaverWasServedIsDeliveredAgainAtOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d, q := doubledQueue(t)
		ctx, leave := context.WithCancel(t.Context())
		d.after = func(operation string, _ any) error {
			if operation == "ReceiveMessage" {
				leave() // as the answer comes
			}
			return nil
		}
		d.put(doubledURL, `{"v":1,"id":"one","nonce":""}`)
		_, err := q.Receive(ctx, 1)
		require.ErrorIs(t, err, context.Canceled)
		d.calm()
		begin := time.Now()
		require.Equal(t, "one", receive(t, q, patience).Ticket().ID)
		require.Less(t, time.Since(begin), time.Millisecond)
	})
}

func TestWhatALeaverWasServedGoesToWhoWaits(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d, q := doubledQueue(t)
		for range 500 {
			ctx, leave := context.WithCancel(t.Context())
			var waiting sync.WaitGroup
			waiting.Go(func() {
				if ds, err := q.Receive(ctx, 1); err == nil {
					ack(t, ds[0])
				}
			})
			synctest.Wait()
			staying, stay := context.WithCancel(t.Context())
			waiting.Go(func() {
				if ds, err := q.Receive(staying, 1); err == nil {
					ack(t, ds[0])
				}
			})
			synctest.Wait()
			go leave()
			d.put(doubledURL, `{"v":1,"nonce":""}`)
			synctest.Wait()
			time.Sleep(time.Second)
			stay()
			waiting.Wait()
		}
		require.Zero(t, d.count("ChangeMessageVisibilityBatch"), "tickets went to SQS and back")
		require.Empty(t, d.bodies(doubledURL))
	})
}

func TestReceiversAreServedInTheOrderTheyCame(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d, q := doubledQueue(t)
		var order []int
		for i := range 5 {
			go func() {
				receive(t, q, patience)
				order = append(order, i)
			}()
			synctest.Wait()
		}
		for range 5 {
			d.put(doubledURL, `{"v":1,"nonce":""}`)
			synctest.Wait()
		}
		require.Equal(t, []int{0, 1, 2, 3, 4}, order)
	})
}

func TestPollsThatEndEarlyDoNotSpin(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d, q := doubledQueue(t, sqsqueue.WithPoll(20*time.Second))
		var hasty atomic.Bool
		hasty.Store(true)
		d.before = func(_ string, in any) error {
			if r, ok := in.(*sqs.ReceiveMessageInput); ok && hasty.Load() {
				r.WaitTimeSeconds = 0
			}
			return nil
		}
		got := make(chan queue.Delivery)
		go func() { got <- receive(t, q, time.Hour) }()
		time.Sleep(10 * time.Second)
		require.Less(t, d.count("ReceiveMessage"), 22)
		hasty.Store(false)
		enqueue(t, q, queue.Ticket{})
		begin := time.Now()
		<-got
		require.LessOrEqual(t, time.Since(begin), time.Second)
	})
}

func TestAFailedPollIsToldToAllWhoWait(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d, q := doubledQueue(t)
		d.before = func(string, any) error { time.Sleep(time.Second); return context.DeadlineExceeded }
		errs := make(chan error)
		for range 3 {
			go func() {
				_, err := q.Receive(t.Context(), 1)
				errs <- err
			}()
		}
		for range 3 {
			err := <-errs
			require.ErrorIs(t, err, queue.ErrUnavailable)
			require.ErrorContains(t, err, "SQS does not answer")
		}
		d.calm()
		enqueue(t, q, queue.Ticket{})
		receive(t, q, patience)
		require.Equal(t, 2, d.count("ReceiveMessage"), "nothing is asked again without being called for")
	})
}

func TestCloseEndsReceiveAndHandsBackWhatComes(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d, q := doubledQueue(t, sqsqueue.WithPoll(5*time.Second))
		worker := open(t, d, doubledURL)
		enqueue(t, q, queue.Ticket{ID: "held"})
		held := receive(t, q, patience)
		errs := make(chan error)
		for range 3 {
			go func() {
				_, err := q.Receive(t.Context(), 1)
				errs <- err
			}()
		}
		synctest.Wait()
		begin := time.Now()
		closed := make(chan time.Duration)
		go func() {
			require.NoError(t, q.Close())
			closed <- time.Since(begin)
		}()
		for range 3 {
			err := <-errs
			require.ErrorIs(t, err, queue.ErrUnavailable)
			require.ErrorContains(t, err, "closed")
		}
		time.Sleep(3 * time.Second)
		enqueue(t, worker, queue.Ticket{ID: "late"})
		require.Equal(t, 3*time.Second, <-closed, "a poll is not cut short")
		d2 := receive(t, worker, patience)
		require.Equal(t, "late", d2.Ticket().ID)
		require.Less(t, time.Since(begin), 3001*time.Millisecond)

		_, err := q.Receive(t.Context(), 1)
		require.ErrorContains(t, err, "closed")
		require.NoError(t, held.Extend(t.Context()))
		require.NoError(t, held.Ack(t.Context()))
		require.NoError(t, d2.Ack(t.Context()))
		require.Empty(t, d.bodies(doubledURL))
	})
}

func TestWhatIsNoTicketIsParkedAndCounted(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var log bytes.Buffer
		d, q := doubledQueue(t, sqsqueue.WithLogger(slog.New(slog.NewTextHandler(&log, nil))))
		strange := []string{"x", "{}", "[1]", `"v"`, `{"v":1,"scope":7}`, `{"v":"1"}`, `{"v":0}`, "\x00\xff", `{"v":1,"event":"somebody's"}`}
		d.put(doubledURL, strange...)
		want := queue.Ticket{ID: "a ticket"}
		enqueue(t, q, want)
		dl := receive(t, q, patience)
		require.Equal(t, want, dl.Ticket())
		ack(t, dl)
		require.EqualValues(t, len(strange), q.Foreign())

		ctx, cancel := context.WithTimeout(t.Context(), 59*time.Minute)
		defer cancel()
		_, err := q.Receive(ctx, 1)
		require.ErrorIs(t, err, context.DeadlineExceeded)
		require.EqualValues(t, len(strange), q.Foreign(), "it is not looked at again and again")
		require.Len(t, d.bodies(doubledURL), len(strange), "it is somebody's, so it is not removed")
		require.Equal(t, len(strange), strings.Count(log.String(), "are no tickets"), "a line each time: %s", &log)
	})
}

func TestATicketOfANewerVersionIsLeftToItsWorkers(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d, q := doubledQueue(t)
		d.put(doubledURL, `{"v":2,"id":"new"}`)
		enqueue(t, q, queue.Ticket{ID: "old"})
		old := receive(t, q, patience)
		require.Equal(t, "old", old.Ticket().ID)
		ack(t, old)
		ctx, cancel := context.WithTimeout(t.Context(), 19*time.Minute)
		defer cancel()
		_, err := q.Receive(ctx, 1)
		require.ErrorIs(t, err, context.DeadlineExceeded)
		require.Equal(t, 9, d.count("ChangeMessageVisibilityBatch"), "it is offered again after 5, 10, 20 … s, and then each 5 min")
		require.Zero(t, q.Foreign())
	})
}

func TestDepthIsAskedForOnceASecond(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d, q := doubledQueue(t)
		before := d.count("GetQueueAttributes")
		for range 5 {
			enqueue(t, q, queue.Ticket{})
			_, err := q.Depth(t.Context())
			require.NoError(t, err)
		}
		require.Equal(t, 1, d.count("GetQueueAttributes")-before)
		time.Sleep(time.Second)
		depth, err := q.Depth(t.Context())
		require.NoError(t, err)
		require.Equal(t, queue.Depth{Ready: 5}, depth)
		require.Equal(t, 2, d.count("GetQueueAttributes")-before)
	})
}

func ack(t *testing.T, d queue.Delivery) {
	t.Helper()
	require.NoError(t, d.Ack(t.Context()))
}
