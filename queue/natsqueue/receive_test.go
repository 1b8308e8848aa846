package natsqueue_test

import (
	"context"
	"math/rand/v2"
	"strconv"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/stretchr/testify/require"

	"github.com/pay-theory/streamer/v2/internal/natstest"
	"github.com/pay-theory/streamer/v2/queue"
	"github.com/pay-theory/streamer/v2/queue/natsqueue"
)

func TestAHugeGroupDoesNotDelayAnother(t *testing.T) {
	const huge, most = 20_000, 10
	b := start(t)
	opts := b.fresh()
	q, worker := b.open(t, opts...), b.open(t, opts...)
	fill(t, q, huge)
	for i, group := range []string{"b", "c", "d"} {
		for range 500 + i {
			require.NoError(t, receive(t, worker, patience).Ack(t.Context()))
		}
		enqueue(t, q, queue.Ticket{Group: group})
		for n := 1; ; n++ {
			d := receive(t, worker, patience)
			require.NoError(t, d.Ack(t.Context()))
			if d.Ticket().Group == group {
				break
			}
			require.Less(t, n, most, "group %s waits for a group with %d tickets", group, huge)
		}
	}
}

// fill enqueues n tickets of one group.
func fill(t *testing.T, q queue.Queue, n int) {
	t.Helper()
	var all sync.WaitGroup
	var left atomic.Int64
	left.Store(int64(n))
	for range 32 {
		all.Go(func() {
			for left.Add(-1) >= 0 {
				if err := q.Enqueue(t.Context(), queue.Ticket{Group: "huge"}); err != nil {
					t.Error(err)
					return
				}
			}
		})
	}
	all.Wait()
}

func TestManyTicketsOfManyGroupsDoNotStall(t *testing.T) {
	const rounds, tickets, workers = 20, 500, 8
	b := start(t)
	opts := b.fresh()
	q := b.open(t, opts...)
	ctx, stop := context.WithCancel(t.Context())
	acked := make(chan struct{}, rounds*tickets)
	var running sync.WaitGroup
	for i := range workers {
		worker := q
		if i%4 == 0 { // four workers share a process
			worker = b.open(t, opts...)
		}
		running.Go(func() {
			for {
				ds, err := worker.Receive(ctx, 1+i%3)
				if err != nil {
					if ctx.Err() == nil {
						t.Error(err)
					}
					return
				}
				for _, d := range ds {
					if err := d.Ack(t.Context()); err != nil {
						t.Error(err)
					}
					acked <- struct{}{}
				}
			}
		})
	}
	var longest time.Duration
	for round := range rounds {
		for i := range tickets {
			enqueue(t, q, queue.Ticket{ID: strconv.Itoa(round), Group: strconv.Itoa(i % 100)})
		}
		for range tickets {
			idle := time.Now()
			select {
			case <-acked:
			case <-time.After(patience):
				require.Fail(t, "no ticket is delivered", "round %d", round)
			}
			longest = max(longest, time.Since(idle))
		}
	}
	stop()
	running.Wait()
	t.Logf("longest time without an ack: %v", longest)
	require.Less(t, longest, 900*time.Millisecond, "tickets were only found by a look at the stream")
}

func TestAReceiverThatLeavesInMidPullStrandsNothing(t *testing.T) {
	const rounds = 300
	b := start(t)
	opts := b.fresh()
	q, other := b.open(t, opts...), b.open(t, opts...)
	returned := 0
	for i := range rounds {
		ctx, leave := context.WithCancel(t.Context())
		want := queue.Ticket{ID: strconv.Itoa(i), Group: strconv.Itoa(i % 3)}
		var held []queue.Delivery
		var err error
		left := make(chan struct{})
		go func() {
			held, err = q.Receive(ctx, 4)
			close(left)
		}()
		enqueue(t, other, want)
		pause := time.NewTimer(time.Duration(rand.IntN(600)) * time.Microsecond)
		<-pause.C
		leave()
		<-left
		if err != nil {
			require.ErrorIs(t, err, context.Canceled)
			require.Empty(t, held)
			held = append(held, receive(t, other, 2*time.Second))
		} else {
			returned++
		}
		require.Len(t, held, 1)
		require.Equal(t, want, held[0].Ticket())
		require.NoError(t, held[0].Ack(t.Context()))
	}
	t.Logf("%d of %d were returned", returned, rounds)
	depth, err := other.Depth(t.Context())
	require.NoError(t, err)
	require.Equal(t, queue.Depth{}, depth)
}

// waiting has q receive, and returns once it has nothing left to do but wait.
func waiting(t *testing.T, q queue.Queue) <-chan queue.Delivery {
	t.Helper()
	got := make(chan queue.Delivery, 1)
	go func() {
		ds, err := q.Receive(t.Context(), 1)
		if err != nil {
			t.Error(err)
			return
		}
		got <- ds[0]
	}()
	<-time.After(30 * time.Millisecond) // longer than a Receive asks before it waits
	return got
}

// within returns what comes before a look at the stream could have found it.
func within(t *testing.T, got <-chan queue.Delivery, d time.Duration) queue.Delivery {
	t.Helper()
	select {
	case d := <-got:
		return d
	case <-time.After(d):
		require.Fail(t, "no ticket is delivered")
		return nil
	}
}

func TestATicketWakesAProcessThatWaits(t *testing.T) {
	s := natstest.Start(t, nil)
	q, worker := open(t, s.Connect(t, nats.InProcessServer(s.Server()))), open(t, s.Connect(t, nats.InProcessServer(s.Server())))
	late := 0
	for range 50 {
		got := waiting(t, worker)
		begin := time.Now()
		enqueue(t, q, queue.Ticket{})
		require.NoError(t, within(t, got, patience).Ack(t.Context()))
		if time.Since(begin) > 300*time.Millisecond {
			late++
		}
	}
	require.LessOrEqual(t, late, 1, "of 50 tickets that were only found by a look at the stream")
}

func TestATicketThatIsHandedBackWakesAProcessThatWaits(t *testing.T) {
	b := start(t)
	opts := b.fresh()
	q, worker := b.open(t, opts...), b.open(t, opts...)
	late := 0
	for range 20 {
		enqueue(t, q, queue.Ticket{})
		d := receive(t, q, patience)
		got := waiting(t, worker)
		begin := time.Now()
		require.NoError(t, d.Retry(t.Context(), 0))
		require.NoError(t, within(t, got, patience).Ack(t.Context()))
		if time.Since(begin) > 300*time.Millisecond {
			late++
		}
	}
	require.LessOrEqual(t, late, 1, "of 20 tickets that were only found by a look at the stream")
}

func TestADelayedTicketComesWhenItIsDue(t *testing.T) {
	b := start(t)
	q := b.open(t, b.fresh()...)
	late := 0
	for range 10 {
		enqueue(t, q, queue.Ticket{})
		d := receive(t, q, patience)
		begin := time.Now()
		require.NoError(t, d.Retry(t.Context(), 100*time.Millisecond))
		require.NoError(t, receive(t, q, patience).Ack(t.Context()))
		took := time.Since(begin)
		require.GreaterOrEqual(t, took, 100*time.Millisecond)
		if took > 300*time.Millisecond {
			late++
		}
	}
	require.LessOrEqual(t, late, 2, "of 10 tickets that were only found by a look at the stream")
}

func TestTicketsThatNobodyAnnouncedAreFound(t *testing.T) {
	b := start(t)
	opts := b.fresh(natsqueue.WithLease(500 * time.Millisecond))
	q := b.open(t, opts...)
	for i := range 100 {
		enqueue(t, q, queue.Ticket{ID: strconv.Itoa(i), Group: strconv.Itoa(i % 10)})
	}
	nc := b.connect(t)
	dead := open(t, nc, opts...)
	for n := 0; n < 100; {
		ds, err := dead.Receive(t.Context(), 32)
		require.NoError(t, err)
		n += len(ds)
	}
	nc.Close()
	start := time.Now()
	seen := map[string]bool{}
	for len(seen) < 100 {
		ds, err := q.Receive(t.Context(), 1)
		require.NoError(t, err)
		for _, d := range ds {
			seen[d.Ticket().ID] = true
			require.NoError(t, d.Ack(t.Context()))
		}
	}
	require.Less(t, time.Since(start), 4*time.Second)
}

func TestALeaseThatLapsedIsOverForItsHolder(t *testing.T) {
	b := start(t)
	opts := b.fresh(natsqueue.WithLease(300 * time.Millisecond))
	q, other := b.open(t, opts...), b.open(t, opts...)
	enqueue(t, q, queue.Ticket{})
	stale := receive(t, q, patience)
	holder := receive(t, other, patience)
	require.ErrorIs(t, stale.Extend(t.Context()), queue.ErrLeaseLost)
	require.NoError(t, stale.Ack(t.Context()))
	require.NoError(t, stale.Retry(t.Context(), time.Hour))
	require.NoError(t, holder.Extend(t.Context()))
	require.NoError(t, holder.Retry(t.Context(), 0))
	require.NoError(t, receive(t, q, patience).Ack(t.Context()))
}

func TestCloseEndsReceiveAndFreesWhatThereIs(t *testing.T) {
	b := start(t)
	nc := b.connect(t)
	subscriptions := nc.NumSubscriptions()
	q := open(t, nc, b.fresh()...)
	enqueue(t, q, queue.Ticket{})
	d := receive(t, q, patience)
	errs := make(chan error)
	for range 3 {
		go func() {
			_, err := q.Receive(t.Context(), 1)
			errs <- err
		}()
	}
	require.NoError(t, q.Close())
	require.NoError(t, q.Close())
	for range 3 {
		require.ErrorIs(t, <-errs, queue.ErrUnavailable)
	}
	_, err := q.Receive(t.Context(), 1)
	require.ErrorIs(t, err, queue.ErrUnavailable)
	require.ErrorContains(t, err, "closed")
	require.NoError(t, d.Ack(t.Context()))
	require.Equal(t, subscriptions+1, nc.NumSubscriptions(), "the client has one for all answers to requests")
}
