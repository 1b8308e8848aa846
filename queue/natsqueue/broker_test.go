package natsqueue_test

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/nats-io/nats-server/v2/server"
	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
	"github.com/stretchr/testify/require"

	"github.com/pay-theory/streamer/v2/internal/natstest"
	"github.com/pay-theory/streamer/v2/queue"
	"github.com/pay-theory/streamer/v2/queue/natsqueue"
)

func TestAConsumerThatWasRemovedIsMadeAgain(t *testing.T) {
	b := start(t)
	nc := b.connect(t)
	q := open(t, nc, natsqueue.WithLanes(1))
	enqueue(t, q, queue.Ticket{ID: "first"})
	receive(t, q, patience)
	js, err := jetstream.New(nc)
	require.NoError(t, err)
	require.NoError(t, js.DeleteConsumer(t.Context(), "STREAMER_TICKETS", "lane-0"))
	enqueue(t, q, queue.Ticket{ID: "second"})
	require.Equal(t, "first", receive(t, q, patience).Ticket().ID, "its lease is gone with the consumer")
	require.Equal(t, "second", receive(t, q, patience).Ticket().ID)
}

func TestAStreamThatWasRemovedIsAnError(t *testing.T) {
	b := start(t)
	nc := b.connect(t)
	q := open(t, nc)
	js, err := jetstream.New(nc)
	require.NoError(t, err)
	require.NoError(t, js.DeleteStream(t.Context(), "STREAMER_TICKETS"))
	require.ErrorIs(t, q.Enqueue(t.Context(), queue.Ticket{}), queue.ErrUnavailable)
	_, err = q.Receive(t.Context(), 1)
	require.ErrorIs(t, err, queue.ErrUnavailable)
	_, err = q.Depth(t.Context())
	require.ErrorIs(t, err, queue.ErrUnavailable)
}

func TestARestartOfTheServerKeepsTicketsLeasesAndDelays(t *testing.T) {
	s := natstest.Start(t, nil)
	q := open(t, s.Connect(t), natsqueue.WithLease(time.Minute))
	for _, id := range []string{"delayed", "leased", "ready"} {
		enqueue(t, q, queue.Ticket{ID: id})
	}
	begin := time.Now()
	require.NoError(t, receive(t, q, patience).Retry(t.Context(), 3*time.Second))
	leased := receive(t, q, patience)
	waiting := make(chan error, 1)
	go func() {
		enqueueing, cancel := context.WithTimeout(t.Context(), patience)
		defer cancel()
		waiting <- q.Enqueue(enqueueing, queue.Ticket{ID: "later"})
	}()
	s.Stop()
	ctx, cancel := context.WithTimeout(t.Context(), 100*time.Millisecond)
	require.ErrorIs(t, q.Enqueue(ctx, queue.Ticket{}), context.DeadlineExceeded)
	cancel()
	called := time.Now()
	_, err := q.Receive(t.Context(), 1)
	require.ErrorIs(t, err, queue.ErrUnavailable)
	require.Less(t, time.Since(called), 3*time.Second)
	s.Restart(t)
	if err := <-waiting; err != nil {
		require.ErrorIs(t, err, queue.ErrUnavailable)
	}
	for seen := map[string]bool{}; !seen["ready"] || !seen["delayed"]; {
		ds, err := q.Receive(t.Context(), 1)
		if err != nil {
			require.ErrorIs(t, err, queue.ErrUnavailable)
			continue
		}
		id := ds[0].Ticket().ID
		seen[id] = true
		require.NoError(t, ds[0].Ack(t.Context()))
		require.NotEqual(t, "leased", id)
		if id == "delayed" {
			require.Greater(t, time.Since(begin), 2*time.Second)
		}
	}
	require.NoError(t, leased.Extend(t.Context()))
	require.NoError(t, leased.Ack(t.Context()))
}

func TestATicketThatWasHandedBackIsReadyAfterARestart(t *testing.T) {
	s := natstest.Start(t, nil)
	q := open(t, s.Connect(t), natsqueue.WithLease(time.Hour))
	enqueue(t, q, queue.Ticket{})
	for range 3 {
		require.NoError(t, receive(t, q, patience).Retry(t.Context(), 0))
		s.Stop()
		s.Restart(t)
		require.Eventually(t, func() bool {
			depth, err := q.Depth(t.Context())
			return err == nil && depth.Leased == 1
		}, patience, 10*time.Millisecond)
	}
	require.NoError(t, receive(t, q, patience).Ack(t.Context()))
}

func TestTicketsSurviveTheLossOfTheLeader(t *testing.T) {
	const tickets, workers = 400, 3
	c := natstest.StartCluster(t, 3)
	opts := []natsqueue.Option{natsqueue.WithReplicas(3), natsqueue.WithLanes(4), natsqueue.WithLease(2 * time.Second)}
	ctx, stop := context.WithCancel(t.Context())
	var done sync.Map
	var left atomic.Int64
	left.Store(tickets)
	finished := make(chan struct{})
	var running sync.WaitGroup
	for range workers {
		q := open(t, natstest.Dial(t, c.URL()), opts...)
		running.Go(func() {
			for ctx.Err() == nil {
				ds, err := q.Receive(ctx, 4)
				if err != nil && ctx.Err() == nil && !errors.Is(err, queue.ErrUnavailable) {
					t.Error(err)
				}
				for _, d := range ds {
					if _, twice := done.LoadOrStore(d.Ticket().ID, true); !twice && left.Add(-1) == 0 {
						close(finished)
					}
					_ = d.Ack(ctx) // where that fails it may have taken effect nevertheless
				}
			}
		})
	}
	q := open(t, natstest.Dial(t, c.URL()), opts...)
	for i := range tickets {
		switch i {
		case tickets / 3:
			old := c.StreamLeader(t, "STREAMER_TICKETS")
			old.Stop()
			defer old.Restart(t)
		case 2 * tickets / 3:
			c.StreamLeader(t, "STREAMER_TICKETS")
		}
		for {
			bounded, cancel := context.WithTimeout(ctx, 2*time.Second)
			err := q.Enqueue(bounded, queue.Ticket{ID: strconv.Itoa(i), Group: strconv.Itoa(i % 9)})
			cancel()
			if err == nil {
				break
			}
			if !errors.Is(err, queue.ErrUnavailable) && !errors.Is(err, context.DeadlineExceeded) {
				require.NoError(t, err)
			}
		}
	}
	select {
	case <-finished:
	case <-time.After(30 * time.Second):
		t.Errorf("%d of %d tickets were not delivered", left.Load(), tickets)
	}
	stop()
	running.Wait()
}

func TestQueuesWorkInADomainAndWithinPermissions(t *testing.T) {
	s := natstest.Start(t, func(o *server.Options) {
		o.JetStreamDomain = "hub"
		o.Users = []*server.User{{Username: "u", Password: "p", Permissions: &server.Permissions{
			Publish:   &server.SubjectPermission{Allow: []string{"$JS.API.>", "$JS.hub.API.>", "$JS.ACK.>", "streamer.ticket.*.*", "streamer.wake.*"}},
			Subscribe: &server.SubjectPermission{Allow: []string{"_INBOX_u.>", "streamer.wake.*"}},
		}}}
	})
	nc := s.Connect(t, nats.UserInfo("u", "p"), nats.CustomInboxPrefix("_INBOX_u"), nats.ErrorHandler(func(_ *nats.Conn, _ *nats.Subscription, err error) {
		t.Error(err)
	}))
	js, err := jetstream.NewWithDomain(nc, "hub")
	require.NoError(t, err)
	q, err := natsqueue.New(t.Context(), js)
	require.NoError(t, err)
	defer q.Close()
	for i := range 10 {
		enqueue(t, q, queue.Ticket{Group: fmt.Sprint(i)})
		d := receive(t, q, patience)
		require.NoError(t, d.Extend(t.Context()))
		require.NoError(t, d.Retry(t.Context(), 0))
		require.NoError(t, receive(t, q, patience).Ack(t.Context()))
	}
}
