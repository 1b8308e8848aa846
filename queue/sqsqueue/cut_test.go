package sqsqueue_test

import (
	"context"
	"errors"
	"math/rand/v2"
	"strconv"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/pay-theory/streamer/v2/internal/awstest"
	"github.com/pay-theory/streamer/v2/queue"
	"github.com/pay-theory/streamer/v2/queue/sqsqueue"
)

func TestNoTicketIsLostToTheNetwork(t *testing.T) {
	t.Parallel()
	const tickets, producers, workers = 300, 4, 3
	e := awstest.SQS(t)
	s := at(t, e.Endpoint())
	url := s.create(t, nil)
	w := awstest.NewWeather(rand.Uint64(), 500*time.Millisecond)
	disturbed := func() *sqsqueue.Queue {
		return open(t, at(t, awstest.NewProxy(t, e.Endpoint(), w.SQS).Endpoint()), url, sqsqueue.WithLease(time.Second))
	}
	q := disturbed()
	var fleet []*sqsqueue.Queue
	for range workers {
		fleet = append(fleet, disturbed())
	}
	w.Set(1.0 / 3)
	ctx, stop := context.WithCancel(t.Context())
	var running sync.WaitGroup
	var delivered sync.Map
	for _, worker := range fleet {
		running.Go(func() { toil(ctx, t, worker, &delivered) })
	}
	var sending sync.WaitGroup
	for p := range producers {
		sending.Go(func() {
			for i := p; i < tickets; {
				err := q.Enqueue(t.Context(), queue.Ticket{ID: strconv.Itoa(i), Group: strconv.Itoa(i % 7)})
				switch {
				case err == nil:
					i += producers
				case !errors.Is(err, queue.ErrUnavailable):
					t.Error(err)
				}
			}
		})
	}
	sending.Wait()
	w.Set(0)
	calm := open(t, s, url)
	require.Eventually(t, func() bool {
		depth, err := calm.Depth(t.Context())
		return err == nil && depth == queue.Depth{}
	}, time.Minute, 100*time.Millisecond)
	stop()
	running.Wait()
	for i := range tickets {
		_, ok := delivered.Load(strconv.Itoa(i))
		require.True(t, ok, "ticket %d was not delivered", i)
	}
	t.Logf("%d calls were disturbed", w.Count())
	require.Greater(t, w.Count(), 50)
}

// toil works on tickets until ctx ends, some of which it hands back.
func toil(ctx context.Context, t *testing.T, q *sqsqueue.Queue, delivered *sync.Map) {
	var working sync.WaitGroup
	defer working.Wait()
	for ctx.Err() == nil {
		ds, err := q.Receive(ctx, 5)
		if err != nil && ctx.Err() == nil && !errors.Is(err, queue.ErrUnavailable) {
			t.Error(err)
		}
		for _, d := range ds {
			working.Go(func() {
				err := d.Extend(ctx)
				if err == nil && rand.IntN(4) == 0 {
					_ = d.Retry(ctx, time.Duration(rand.IntN(1500))*time.Millisecond) // when it fails the ticket comes all the same
					return
				}
				delivered.Store(d.Ticket().ID, true)
				_ = d.Ack(ctx) // when it fails the ticket comes again
			})
		}
	}
}
