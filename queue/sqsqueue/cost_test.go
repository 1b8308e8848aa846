package sqsqueue_test

import (
	"context"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/pay-theory/streamer/v2/queue"
	"github.com/pay-theory/streamer/v2/queue/sqsqueue"
)

// TestCallsPerThousandRequests holds what docs/adapters/sqs.md says that requests cost.
func TestCallsPerThousandRequests(t *testing.T) {
	for name, c := range map[string]struct {
		perSecond   int
		work        time.Duration
		least, most int
	}{
		"1,000 a second":                      {1000, time.Second, 300, 340},
		"100 a second":                        {100, time.Second, 2100, 2250},
		"one a second":                        {1, time.Second, 3000, 3010},
		"100 a second, of 40 s each":          {100, 40 * time.Second, 2500, 2800},
		"1,000 a second, of two minutes each": {1000, 2 * time.Minute, 1_400, 1_700},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				calls := load(t, c.perSecond, c.work)
				require.GreaterOrEqual(t, calls, c.least)
				require.LessOrEqual(t, calls, c.most)
			})
		})
	}
}

// load has one process enqueue so many tickets a second and another work on each for that long,
// both 10 ms away from SQS, the lease extended each third of it. It returns the calls of SQS for
// 1,000 tickets.
func load(t *testing.T, perSecond int, work time.Duration) int {
	const tickets = 1000
	d := newDouble()
	d.create(doubledURL, "", 0)
	away := func(string, any) error { time.Sleep(5 * time.Millisecond); return nil }
	d.before, d.after = away, away
	gateway, worker := open(t, d, doubledURL), open(t, d, doubledURL, sqsqueue.WithPoll(5*time.Second))
	clear(d.calls)

	ctx, stop := context.WithCancel(t.Context())
	var receiving, working, sending sync.WaitGroup
	receiving.Go(func() {
		for {
			ds, err := worker.Receive(ctx, 32)
			if err != nil {
				return
			}
			for _, d := range ds {
				working.Go(func() { serve(t, d, worker.Lease()/3, work) })
			}
		}
	})
	for range tickets {
		sending.Go(func() { enqueue(t, gateway, queue.Ticket{ID: "0192f0c4-6c1a-7c5e-8a3d-1c2b3a4d5e6f"}) })
		time.Sleep(time.Second / time.Duration(perSecond))
	}
	sending.Wait()
	time.Sleep(time.Second) // all are received
	stop()
	receiving.Wait()
	working.Wait()
	calls := 0
	for operation, n := range d.calls {
		calls += n
		t.Logf("%s: %d", operation, n)
	}
	return calls
}

// serve works on a ticket as a router does.
func serve(t *testing.T, d queue.Delivery, beat, work time.Duration) {
	end := time.After(work)
	tick := time.NewTicker(beat)
	defer tick.Stop()
	for {
		select {
		case <-tick.C:
			require.NoError(t, d.Extend(t.Context()))
		case <-end:
			ack(t, d)
			return
		}
	}
}
