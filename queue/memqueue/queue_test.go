package memqueue_test

import (
	"context"
	"math/rand/v2"
	"runtime"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"
	"weak"

	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"

	"github.com/pay-theory/streamer/v2/queue"
	"github.com/pay-theory/streamer/v2/queue/memqueue"
	"github.com/pay-theory/streamer/v2/queue/queuetest"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func harness() queuetest.Harness {
	return queuetest.Harness{
		New: func(_ testing.TB, lease time.Duration) queue.Queue {
			return memqueue.New(memqueue.WithLease(lease))
		},
		Scoped: func(_ testing.TB, max int) queue.Queue {
			return memqueue.New(memqueue.WithMaxPerScope(max))
		},
		Fair:               true,
		FencesStaleHolders: true,
	}
}

func TestConformanceToTheMillisecond(t *testing.T) {
	h := harness()
	h.Around = synctest.Test
	h.Tolerance = time.Millisecond
	queuetest.Run(t, h)
}

func TestConformanceInRealTime(t *testing.T) {
	h := harness()
	h.Lease = 900 * time.Millisecond // machines that test stall for a while
	queuetest.Run(t, h)
}

func TestRedeliveryComesTheMomentTheLeaseEnds(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		q := memqueue.New(memqueue.WithLease(time.Minute))
		start := time.Now()
		enqueue(t, q, queue.Ticket{ID: "first"})
		receive(t, q)
		time.Sleep(time.Second)
		enqueue(t, q, queue.Ticket{ID: "second"})
		second := receive(t, q)

		time.Sleep(30 * time.Second)
		require.NoError(t, second.Extend(t.Context()))
		require.Equal(t, "first", receive(t, q).Ticket().ID)
		require.Equal(t, time.Minute, time.Since(start))
		require.Equal(t, "second", receive(t, q).Ticket().ID)
		require.Equal(t, 91*time.Second, time.Since(start), "the lease counts from the last Extend")
	})
}

func TestWaitersAreServedInTheOrderTheyCame(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		q := memqueue.New()
		const n = 5
		got := make([]string, n)
		for i := range n {
			go func() { got[i] = receive(t, q).Ticket().ID }()
			synctest.Wait()
		}
		require.Equal(t, n, q.Stats().Waiting)
		for i := range n {
			enqueue(t, q, queue.Ticket{ID: strconv.Itoa(i)})
		}
		synctest.Wait()
		require.Equal(t, []string{"0", "1", "2", "3", "4"}, got)
	})
}

func TestLapsedLeasesWakeAsManyAsAreNeeded(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		q := memqueue.New(memqueue.WithLease(time.Second))
		for range 3 {
			enqueue(t, q, queue.Ticket{})
			receive(t, q)
		}
		var woken atomic.Int64
		for range 10 {
			go func() {
				if _, err := q.Receive(t.Context(), 1); err == nil {
					woken.Add(1)
				}
			}()
		}
		time.Sleep(1500 * time.Millisecond)
		synctest.Wait()
		require.EqualValues(t, 3, woken.Load())
		require.Equal(t, memqueue.Stats{Leased: 3, Waiting: 7, Bytes: 3 * 256}, q.Stats())
	})
}

func TestGroupsTakeTurns(t *testing.T) {
	t.Parallel()
	q := memqueue.New()
	for _, id := range []string{"a1", "a2", "a3", "b1", "b2", "c1"} {
		enqueue(t, q, queue.Ticket{ID: id, Group: id[:1]})
	}
	require.Equal(t, []string{"a1", "b1", "c1", "a2"}, ids(t, q, 4))
	enqueue(t, q, queue.Ticket{ID: "d1", Group: "d"})
	enqueue(t, q, queue.Ticket{ID: "a4", Group: "a"})
	require.Equal(t, []string{"b2", "a3", "d1", "a4"}, ids(t, q, 4))
}

func TestAHugeGroupDoesNotDelayAnother(t *testing.T) {
	t.Parallel()
	q := memqueue.New()
	for range 100_000 {
		enqueue(t, q, queue.Ticket{ID: "huge", Group: "huge"})
	}
	enqueue(t, q, queue.Ticket{ID: "small", Group: "small"})
	require.Equal(t, []string{"huge", "small", "huge"}, ids(t, q, 3))
}

func TestReturningTicketsTakeTurnsWithNewOnes(t *testing.T) {
	t.Parallel()
	q := memqueue.New()
	for _, id := range []string{"back1", "back2", "new1", "new2", "new3", "new4"} {
		enqueue(t, q, queue.Ticket{ID: id})
	}
	for _, d := range []queue.Delivery{receive(t, q), receive(t, q)} {
		require.NoError(t, d.Retry(t.Context(), 0))
	}
	require.Equal(t, []string{"back1", "new1", "back2", "new2", "new3", "new4"}, ids(t, q, 6))
}

func TestFullCountsWhatIsLeasedAndDelayed(t *testing.T) {
	t.Parallel()
	q := memqueue.New(memqueue.WithMaxTickets(3))
	for range 3 {
		enqueue(t, q, queue.Ticket{})
	}
	leased := receive(t, q)
	require.NoError(t, receive(t, q).Retry(t.Context(), time.Hour))
	require.ErrorIs(t, q.Enqueue(t.Context(), queue.Ticket{}), queue.ErrFull)
	require.NoError(t, leased.Ack(t.Context()))
	require.NoError(t, leased.Ack(t.Context()), "makes room once")
	enqueue(t, q, queue.Ticket{})
	require.ErrorIs(t, q.Enqueue(t.Context(), queue.Ticket{}), queue.ErrFull)
}

func TestFullCountsBytes(t *testing.T) {
	t.Parallel()
	q := memqueue.New(memqueue.WithMaxBytes(1000))
	text := strings.Repeat("x", 100)
	ticket := queue.Ticket{Scope: text, ID: text, Action: text, Group: text, Nonce: text}
	enqueue(t, q, ticket)
	require.Equal(t, 756, q.Stats().Bytes)
	require.ErrorIs(t, q.Enqueue(t.Context(), queue.Ticket{}), queue.ErrFull)
	require.NoError(t, receive(t, q).Ack(t.Context()))
	require.Zero(t, q.Stats().Bytes)

	ticket.ID = strings.Repeat("x", 1000)
	require.ErrorIs(t, q.Enqueue(t.Context(), ticket), queue.ErrTooLarge)
	ticket.ID = strings.Repeat("x", 1000-256-400)
	enqueue(t, q, ticket)
}

func TestStatsShowWhereTicketsAre(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		q := memqueue.New(memqueue.WithLease(time.Minute))
		for _, group := range []string{"a", "b", "a", "b", "a", "a"} {
			enqueue(t, q, queue.Ticket{Group: group})
			time.Sleep(time.Second)
		}
		receive(t, q)
		receive(t, q)
		require.NoError(t, receive(t, q).Retry(t.Context(), time.Hour))
		bytes := 6 * (256 + 1)
		require.Equal(t, memqueue.Stats{Ready: 3, Leased: 2, Delayed: 1, Groups: 2, Bytes: bytes, Oldest: 3 * time.Second}, q.Stats())
		time.Sleep(time.Minute)
		require.Equal(t, memqueue.Stats{Ready: 5, Delayed: 1, Groups: 2, Bytes: bytes, Oldest: 63 * time.Second}, q.Stats())
	})
}

func TestAnEndedContextChangesNothing(t *testing.T) {
	t.Parallel()
	q := memqueue.New()
	enqueue(t, q, queue.Ticket{})
	d := receive(t, q)
	before := q.Stats()
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	require.ErrorIs(t, q.Enqueue(ctx, queue.Ticket{}), context.Canceled)
	require.ErrorIs(t, d.Extend(ctx), context.Canceled)
	require.ErrorIs(t, d.Retry(ctx, 0), context.Canceled)
	require.ErrorIs(t, d.Ack(ctx), context.Canceled)
	require.Equal(t, before, q.Stats())
}

func TestWakeUpsSurviveReceiversThatLeave(t *testing.T) {
	t.Parallel()
	q := memqueue.New()
	const n = 20_000
	var acked sync.WaitGroup
	acked.Add(n)
	ctx, stop := context.WithCancel(t.Context())
	var receivers sync.WaitGroup
	for i := range 16 {
		receivers.Go(func() {
			for ctx.Err() == nil {
				waiting, cancel := context.WithCancel(ctx)
				if i > 0 {
					time.AfterFunc(time.Duration(i)*time.Microsecond, cancel)
				}
				deliveries, _ := q.Receive(waiting, 2)
				cancel()
				for _, d := range deliveries {
					if d.Ack(t.Context()) == nil {
						acked.Done()
					}
				}
			}
		})
	}
	for range n {
		enqueue(t, q, queue.Ticket{})
		if q.Stats().Ready > 100 {
			runtime.Gosched()
		}
	}
	acked.Wait()
	stop()
	receivers.Wait()
	require.Equal(t, memqueue.Stats{}, q.Stats())
}

func TestAnAbandonedQueueIsFreed(t *testing.T) {
	t.Parallel()
	w := func() weak.Pointer[memqueue.Queue] {
		q := memqueue.New(memqueue.WithLease(time.Hour))
		enqueue(t, q, queue.Ticket{})
		receive(t, q)
		ctx, cancel := context.WithTimeout(t.Context(), time.Millisecond)
		defer cancel()
		_, err := q.Receive(ctx, 1)
		require.ErrorIs(t, err, context.DeadlineExceeded)
		return weak.Make(q)
	}()
	require.Eventually(t, func() bool { runtime.GC(); return w.Value() == nil }, 10*time.Second, time.Millisecond)
}

func TestNewPanicsOnOptionsThatMakeNoSense(t *testing.T) {
	t.Parallel()
	require.PanicsWithValue(t, "memqueue: WithLease(0s): must be more than 0", func() { memqueue.New(memqueue.WithLease(0)) })
	require.PanicsWithValue(t, "memqueue: WithMaxTickets(0): at least 1 is needed", func() { memqueue.New(memqueue.WithMaxTickets(0)) })
	require.PanicsWithValue(t, "memqueue: WithMaxPerScope(0): at least 1 is needed", func() { memqueue.New(memqueue.WithMaxPerScope(0)) })
	require.PanicsWithValue(t, "memqueue: WithMaxBytes(-1): at least 1 is needed", func() { memqueue.New(memqueue.WithMaxBytes(-1)) })
	require.Equal(t, 30*time.Second, memqueue.New().Lease())
}

// TestRandomCalls compares a queue with the simplest model of it, call by call.
func TestRandomCalls(t *testing.T) {
	seed := rand.Uint64()
	t.Logf("seed %d", seed)
	synctest.Test(t, func(t *testing.T) {
		rng := rand.New(rand.NewPCG(seed, 0))
		lease := time.Minute
		q := memqueue.New(memqueue.WithLease(lease))
		type state struct {
			holder queue.Delivery // nil: nobody
			until  time.Time      // ready from then
		}
		model := make(map[string]*state)
		var deliveries []queue.Delivery
		ready := func() (n int) {
			for _, s := range model {
				if !time.Now().Before(s.until) {
					s.holder = nil
					n++
				}
			}
			return n
		}
		for step := range 5_000 {
			wait := time.Duration(rng.Int64N(int64(10 * time.Second)))
			free := ready()
			switch op := rng.IntN(10); {
			case op < 2:
				id := strconv.Itoa(step)
				enqueue(t, q, queue.Ticket{ID: id, Group: strconv.Itoa(rng.IntN(5))})
				model[id] = &state{until: time.Now()}
			case op < 5:
				limit := 1 + rng.IntN(3)
				want := min(free, limit)
				ctx, cancel := context.WithTimeout(t.Context(), wait)
				got, err := q.Receive(ctx, limit)
				cancel()
				if want == 0 {
					want = min(ready(), limit)
				}
				require.Len(t, got, want)
				require.Equal(t, want == 0, err != nil)
				for _, d := range got {
					s := model[d.Ticket().ID]
					require.NotNil(t, s, "acked before")
					require.Nil(t, s.holder, "leased to another")
					require.False(t, time.Now().Before(s.until), "delayed")
					*s = state{holder: d, until: time.Now().Add(lease)}
					deliveries = append(deliveries, d)
				}
			case op < 6:
				time.Sleep(wait)
			case len(deliveries) > 0:
				i := rng.IntN(len(deliveries))
				d := deliveries[i]
				s := model[d.Ticket().ID]
				holds := s != nil && s.holder == d
				switch op {
				case 6:
					require.Equal(t, holds, d.Extend(t.Context()) == nil)
					if holds {
						s.until = time.Now().Add(lease)
					}
				case 7:
					require.NoError(t, d.Retry(t.Context(), wait))
					if holds {
						*s = state{until: time.Now().Add(wait)}
					}
				default:
					require.NoError(t, d.Ack(t.Context()))
					if holds {
						delete(model, d.Ticket().ID)
					}
				}
				if len(deliveries) > 50 {
					deliveries = append(deliveries[:i], deliveries[i+1:]...)
				}
			}
			stats := q.Stats()
			require.Equal(t, ready(), stats.Ready)
			require.Equal(t, len(model), stats.Ready+stats.Leased+stats.Delayed)
		}
	})
}

// ids receives n tickets, one by one.
func ids(t *testing.T, q queue.Queue, n int) []string {
	t.Helper()
	var got []string
	for range n {
		got = append(got, receive(t, q).Ticket().ID)
	}
	return got
}
