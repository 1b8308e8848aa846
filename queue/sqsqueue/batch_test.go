package sqsqueue_test

import (
	"context"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/pay-theory/streamer/v2/queue"
	"github.com/pay-theory/streamer/v2/queue/sqsqueue"
)

// slow has each call of a double take so long.
func (d *double) slow(took time.Duration) {
	half := func(string, any) error { time.Sleep(took / 2); return nil }
	d.before, d.after = half, half
}

func TestCallsAtTheSameTimeShareOneOfSQS(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d, q := doubledQueue(t)
		d.slow(10 * time.Millisecond)
		begin := time.Now()
		var sending sync.WaitGroup
		for range 25 {
			sending.Go(func() { enqueue(t, q, queue.Ticket{}) })
		}
		sending.Wait()
		require.Len(t, d.bodies(doubledURL), 25)
		require.Equal(t, 4, d.count("SendMessageBatch"), "one at once, two full ones, and what is left when one has returned")
		require.Equal(t, 20*time.Millisecond, time.Since(begin))
	})
}

func TestAckExtendAndRetryWaitAMomentForOthers(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d, q := doubledQueue(t, sqsqueue.WithLinger(50*time.Millisecond))
		held := hold(t, q, 12)
		begin := time.Now()
		var calling sync.WaitGroup
		for i, dl := range held[:9] {
			calling.Go(func() {
				time.Sleep(time.Duration(i) * time.Millisecond)
				switch i % 3 {
				case 0:
					require.NoError(t, dl.Extend(t.Context()))
				case 1:
					require.NoError(t, dl.Retry(t.Context(), time.Minute))
				default:
					ack(t, dl)
				}
			})
		}
		calling.Wait()
		require.Equal(t, 1, d.count("ChangeMessageVisibilityBatch"))
		require.Equal(t, 1, d.count("DeleteMessageBatch"))
		require.Equal(t, 52*time.Millisecond, time.Since(begin), "of the first Ack")

		begin = time.Now()
		require.NoError(t, held[9].Retry(t.Context(), 0))
		require.Zero(t, time.Since(begin), "what is to be delivered again at once does not wait")

		calling.Go(func() { require.NoError(t, held[10].Extend(t.Context())) })
		synctest.Wait()
		require.NoError(t, held[11].Retry(t.Context(), 0))
		calling.Wait()
		require.Zero(t, time.Since(begin), "it takes those along that do")
		require.Equal(t, 3, d.count("ChangeMessageVisibilityBatch"))
	})
}

// hold returns the deliveries of n tickets.
func hold(t *testing.T, q *sqsqueue.Queue, n int) []queue.Delivery {
	t.Helper()
	var held []queue.Delivery
	for i := range n {
		enqueue(t, q, queue.Ticket{ID: strconv.Itoa(i)})
	}
	for len(held) < n {
		ds, err := q.Receive(t.Context(), n-len(held))
		require.NoError(t, err)
		held = append(held, ds...)
	}
	return held
}

func TestWhatFailsInABatchFailsForItsCallerAlone(t *testing.T) {
	for _, code := range []string{"InternalError", silent} {
		synctest.Test(t, func(t *testing.T) {
			d, q := doubledQueue(t)
			held := hold(t, q, 9)
			d.refuse = func(_, of string) string {
				if strings.HasSuffix(of, "-3") || strings.Contains(of, `"id":"3"`) || strings.HasSuffix(of, "-6") {
					return code
				}
				return ""
			}
			errs := make(map[string][]error)
			var mu sync.Mutex
			var calling sync.WaitGroup
			note := func(what string, err error) {
				mu.Lock()
				defer mu.Unlock()
				if err != nil {
					errs[what] = append(errs[what], err)
				}
			}
			for i, dl := range held[:5] {
				calling.Go(func() { note("enqueue", q.Enqueue(t.Context(), queue.Ticket{ID: strconv.Itoa(i)})) })
				calling.Go(func() { note("extend", dl.Extend(t.Context())) })
			}
			for _, dl := range held[5:] {
				calling.Go(func() { note("ack", dl.Ack(t.Context())) })
			}
			calling.Wait()
			require.Len(t, errs, 3)
			for what, es := range errs {
				require.Len(t, es, 1, what)
				require.ErrorIs(t, es[0], queue.ErrUnavailable)
				require.ErrorContains(t, es[0], "sqsqueue: "+what)
			}
			d.calm()
			for _, dl := range held {
				ack(t, dl)
			}
			require.Len(t, d.bodies(doubledURL), 4)
		})
	}
}

func TestWhatIsRefusedInABatchIsTriedOnceMoreAlone(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d, q := doubledQueue(t)
		held := hold(t, q, 10)
		d.slow(10 * time.Millisecond)
		failed := make(map[string]bool)
		d.refuse = func(_, of string) string {
			if failed[of] || !strings.HasSuffix(of, "-3") && !strings.HasSuffix(of, "-6") {
				return ""
			}
			failed[of] = true
			return "InternalError"
		}
		begin := time.Now()
		var took []time.Duration
		var mu sync.Mutex
		var calling sync.WaitGroup
		for _, dl := range held {
			calling.Go(func() {
				ack(t, dl)
				mu.Lock()
				defer mu.Unlock()
				took = append(took, time.Since(begin))
			})
		}
		calling.Wait()
		slices.Sort(took)
		require.Equal(t, 10*time.Millisecond, took[7], "others don't wait for what is tried again")
		require.GreaterOrEqual(t, took[8], 70*time.Millisecond)
		require.Equal(t, took[8]+10*time.Millisecond, took[9])
		require.Less(t, took[9], 130*time.Millisecond)
		require.Equal(t, 3, d.count("DeleteMessageBatch"))
		require.Empty(t, d.bodies(doubledURL))
	})
}

func TestACallerThatLeavesTakesItsEntryAlong(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d, q := doubledQueue(t)
		d.slow(time.Second)
		ctx, leave := context.WithCancel(t.Context())
		errs := make(chan error)
		go func() { errs <- q.Enqueue(t.Context(), queue.Ticket{ID: "first"}) }()
		synctest.Wait()
		go func() { errs <- q.Enqueue(ctx, queue.Ticket{ID: "leaver"}) }()
		go func() { errs <- q.Enqueue(t.Context(), queue.Ticket{ID: "second"}) }()
		synctest.Wait()
		leave()
		require.ErrorIs(t, <-errs, context.Canceled)
		require.NoError(t, <-errs)
		require.NoError(t, <-errs)
		require.NotContains(t, strings.Join(d.bodies(doubledURL), " "), "leaver")
		require.Len(t, d.bodies(doubledURL), 2)
	})
}

func TestOneWhoLeavesDoesNotEndTheCallOfOthers(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d, q := doubledQueue(t)
		d.slow(time.Second)
		var calling sync.WaitGroup
		for range 10 {
			calling.Go(func() { enqueue(t, q, queue.Ticket{}) })
		}
		synctest.Wait()
		ctx, cancel := context.WithTimeout(t.Context(), 100*time.Millisecond)
		defer cancel()
		begin := time.Now()
		require.ErrorIs(t, q.Enqueue(ctx, queue.Ticket{}), context.DeadlineExceeded)
		require.Equal(t, 100*time.Millisecond, time.Since(begin))
		calling.Wait()
	})
}

func TestSQSIsNotWaitedForForEver(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d, q := doubledQueue(t)
		held := hold(t, q, 2)
		d.deaf.Store(true)
		for what, call := range map[string]func() error{
			"enqueue": func() error { return q.Enqueue(t.Context(), queue.Ticket{}) },
			"extend":  func() error { return held[0].Extend(t.Context()) },
			"ack":     func() error { return held[0].Ack(t.Context()) },
			"retry":   func() error { return held[1].Retry(t.Context(), time.Minute) },
			"depth":   func() error { _, err := q.Depth(t.Context()); return err },
			"receive": func() error { _, err := q.Receive(t.Context(), 1); return err },
		} {
			begin := time.Now()
			err := call()
			require.ErrorIs(t, err, queue.ErrUnavailable, what)
			require.ErrorContains(t, err, "sqsqueue: "+what+": ")
			require.ErrorContains(t, err, "SQS does not answer")
			require.LessOrEqual(t, time.Since(begin), 6*time.Second, what) // the longest has a poll of 1 s
		}
		start := time.Now()
		_, err := sqsqueue.New(t.Context(), d, doubledURL)
		require.ErrorContains(t, err, "SQS does not answer")
		require.Equal(t, 10*time.Second, time.Since(start))
	})
}

func TestABatchIsNeverLargerThanSQSTakes(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d, q := doubledQueue(t)
		d.slow(time.Millisecond)
		var sending sync.WaitGroup
		for i := range 40 {
			sending.Go(func() { enqueue(t, q, queue.Ticket{ID: strings.Repeat("x", 100_000*(1+i%10))}) })
		}
		sending.Wait()
		require.Len(t, d.bodies(doubledURL), 40)
		require.Less(t, d.count("SendMessageBatch"), 40)
	})
}

func TestATicketThatIsTooLargeIsRefusedBeforeItIsSent(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d := newDouble()
		d.create(doubledURL, "", 0)
		d.queues[doubledURL].attributes["MaximumMessageSize"] = "2000"
		q := open(t, d, doubledURL)
		err := q.Enqueue(t.Context(), queue.Ticket{ID: strings.Repeat("x", 2000)})
		require.ErrorIs(t, err, queue.ErrTooLarge)
		require.ErrorContains(t, err, "the queue takes 2000 (its MaximumMessageSize)")
		require.Zero(t, d.count("SendMessageBatch"))
		enqueue(t, q, queue.Ticket{ID: strings.Repeat("x", 1900)})
	})
}
