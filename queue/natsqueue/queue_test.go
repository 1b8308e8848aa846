package natsqueue_test

import (
	"context"
	"fmt"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"

	"github.com/pay-theory/streamer/v2/internal/natstest"
	"github.com/pay-theory/streamer/v2/queue"
	"github.com/pay-theory/streamer/v2/queue/natsqueue"
	"github.com/pay-theory/streamer/v2/queue/queuetest"
)

// patience bounds what must happen but not at once.
const patience = 10 * time.Second

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// broker makes queues on one server, each on a stream of its own.
type broker struct {
	connect func(tb testing.TB) *nats.Conn
	streams *atomic.Int64
}

func start(tb testing.TB) broker {
	tb.Helper()
	s := natstest.Start(tb, nil)
	return broker{func(tb testing.TB) *nats.Conn { return s.Connect(tb) }, new(atomic.Int64)}
}

// fresh returns options for a stream that nobody else uses.
func (b broker) fresh(opts ...natsqueue.Option) []natsqueue.Option {
	n := b.streams.Add(1)
	return append([]natsqueue.Option{natsqueue.WithStream(fmt.Sprintf("TICKETS_%d", n)), natsqueue.WithPrefix(fmt.Sprintf("test.%d", n))}, opts...)
}

// open returns a queue with a connection of its own.
func (b broker) open(tb testing.TB, opts ...natsqueue.Option) *natsqueue.Queue {
	tb.Helper()
	return open(tb, b.connect(tb), opts...)
}

func open(tb testing.TB, nc *nats.Conn, opts ...natsqueue.Option) *natsqueue.Queue {
	tb.Helper()
	js, err := jetstream.New(nc)
	require.NoError(tb, err)
	q, err := natsqueue.New(tb.Context(), js, opts...)
	require.NoError(tb, err)
	tb.Cleanup(func() { require.NoError(tb, q.Close()) })
	return q
}

func (b broker) harness(opts ...natsqueue.Option) queuetest.Harness {
	type opened struct {
		nc   *nats.Conn
		opts []natsqueue.Option
	}
	var made sync.Map // from queues to opened
	return queuetest.Harness{
		New: func(tb testing.TB, lease time.Duration) queue.Queue {
			own := b.fresh(append(opts, natsqueue.WithLease(lease))...)
			nc := b.connect(tb)
			q := open(tb, nc, own...)
			made.Store(q, opened{nc, own})
			return q
		},
		Scoped: func(tb testing.TB, max int) queue.Queue {
			return b.open(tb, b.fresh(append(opts, natsqueue.WithMaxPerScope(max))...)...)
		},
		Reopen: func(tb testing.TB, q queue.Queue) queue.Queue {
			before, _ := made.Load(q)
			before.(opened).nc.Close()
			return b.open(tb, before.(opened).opts...)
		},
		Fair:               true,
		FencesStaleHolders: true,
	}
}

func TestConformance(t *testing.T) {
	queuetest.Run(t, start(t).harness())
}

func TestConformanceInACluster(t *testing.T) {
	c := natstest.StartCluster(t, 3)
	b := broker{func(tb testing.TB) *nats.Conn { return natstest.Dial(tb, c.URL()) }, new(atomic.Int64)}
	queuetest.Run(t, b.harness(natsqueue.WithReplicas(3), natsqueue.WithLanes(4)))
}

func enqueue(tb testing.TB, q queue.Queue, t queue.Ticket) {
	tb.Helper()
	require.NoError(tb, q.Enqueue(tb.Context(), t))
}

// receive receives the one ticket that must be delivered within that time.
func receive(tb testing.TB, q queue.Queue, within time.Duration) queue.Delivery {
	tb.Helper()
	ctx, cancel := context.WithTimeout(tb.Context(), within)
	defer cancel()
	ds, err := q.Receive(ctx, 1)
	require.NoError(tb, err)
	require.Len(tb, ds, 1)
	return ds[0]
}
