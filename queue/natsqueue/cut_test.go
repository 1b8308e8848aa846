package natsqueue_test

import (
	"context"
	"errors"
	"math/rand/v2"
	"net"
	"strconv"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/stretchr/testify/require"

	"github.com/pay-theory/streamer/v2/internal/cutproxy"
	"github.com/pay-theory/streamer/v2/internal/natstest"
	"github.com/pay-theory/streamer/v2/queue"
	"github.com/pay-theory/streamer/v2/queue/natsqueue"
)

// cutting is a dialer whose connections are cut after some bytes, as long as it is on.
type cutting struct {
	dial cutproxy.DialFunc
	ctx  context.Context
	cuts *atomic.Int64
}

func (c cutting) Dial(network, address string) (net.Conn, error) {
	return c.dial(c.ctx, network, address)
}

func newCutting(t *testing.T, on *atomic.Bool) cutting {
	t.Helper()
	cuts := new(atomic.Int64)
	plans := func(int) cutproxy.Plan {
		if !on.Load() {
			return cutproxy.Plan{}
		}
		cuts.Add(1)
		if rand.IntN(2) == 0 {
			return cutproxy.Plan{ToServer: 1_000 + rand.IntN(4_000)}
		}
		return cutproxy.Plan{ToClient: 2_000 + rand.IntN(8_000)}
	}
	return cutting{cutproxy.Dial(new(net.Dialer).DialContext, plans), t.Context(), cuts}
}

func TestNoTicketIsLostToCutConnections(t *testing.T) {
	const tickets, workers = 400, 3
	s := natstest.Start(t, nil)
	var on atomic.Bool
	lease := natsqueue.WithLease(time.Second)
	calm := open(t, s.Connect(t), lease)
	producer := newCutting(t, &on)
	quiet := nats.ErrorHandler(func(*nats.Conn, *nats.Subscription, error) {})
	conns := []*nats.Conn{s.Connect(t, nats.SetCustomDialer(producer), quiet)}
	q := open(t, conns[0], lease)
	ctx, stop := context.WithCancel(t.Context())
	var running sync.WaitGroup
	var delivered sync.Map
	dialers := []cutting{producer}
	for range workers {
		d := newCutting(t, &on)
		dialers = append(dialers, d)
		conns = append(conns, s.Connect(t, nats.SetCustomDialer(d), quiet))
		worker := open(t, conns[len(conns)-1], lease)
		running.Go(func() {
			for ctx.Err() == nil {
				ds, err := worker.Receive(ctx, 3)
				if err != nil && ctx.Err() == nil && !errors.Is(err, queue.ErrUnavailable) {
					t.Error(err)
				}
				for _, d := range ds {
					delivered.Store(d.Ticket().ID, true)
					bounded, cancel := context.WithTimeout(ctx, 300*time.Millisecond)
					_ = d.Ack(bounded) // when it fails the ticket comes again
					cancel()
				}
			}
		})
	}
	on.Store(true)
	for _, nc := range conns {
		require.NoError(t, nc.ForceReconnect())
	}
	for i := range tickets {
		for {
			bounded, cancel := context.WithTimeout(t.Context(), 300*time.Millisecond)
			err := q.Enqueue(bounded, queue.Ticket{ID: strconv.Itoa(i), Group: strconv.Itoa(i % 7)})
			cancel()
			if err == nil {
				break
			}
			if !errors.Is(err, queue.ErrUnavailable) && !errors.Is(err, context.DeadlineExceeded) {
				require.NoError(t, err)
			}
		}
	}
	on.Store(false)
	require.Eventually(t, func() bool {
		depth, err := calm.Depth(t.Context())
		return err == nil && depth == queue.Depth{}
	}, 30*time.Second, 50*time.Millisecond)
	stop()
	running.Wait()
	var cuts int64
	for _, d := range dialers {
		cuts += d.cuts.Load()
	}
	for i := range tickets {
		_, ok := delivered.Load(strconv.Itoa(i))
		require.True(t, ok, "ticket %d was not delivered", i)
	}
	t.Logf("%d connections were cut", cuts)
	require.Greater(t, cuts, int64(10))
}
