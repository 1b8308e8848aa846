package natsqueue_test

import (
	"context"
	"strings"
	"testing"
	"time"

	"github.com/nats-io/nats-server/v2/server"
	"github.com/nats-io/nats.go/jetstream"
	"github.com/stretchr/testify/require"

	"github.com/pay-theory/streamer/v2/internal/natstest"
	"github.com/pay-theory/streamer/v2/queue"
	"github.com/pay-theory/streamer/v2/queue/natsqueue"
)

func TestAFullQueueCountsWhatIsLeasedAndDelayed(t *testing.T) {
	b := start(t)
	q := b.open(t, b.fresh(natsqueue.WithMaxTickets(3))...)
	for range 3 {
		enqueue(t, q, queue.Ticket{})
	}
	leased := receive(t, q, patience)
	require.NoError(t, receive(t, q, patience).Retry(t.Context(), time.Hour))
	require.ErrorIs(t, q.Enqueue(t.Context(), queue.Ticket{}), queue.ErrFull)
	require.NoError(t, leased.Ack(t.Context()))
	enqueue(t, q, queue.Ticket{})
	require.ErrorIs(t, q.Enqueue(t.Context(), queue.Ticket{}), queue.ErrFull)
}

func TestAFullStoreIsErrFull(t *testing.T) {
	t.Run("of the stream", func(t *testing.T) {
		b := start(t)
		q := b.open(t, b.fresh(natsqueue.WithMaxBytes(1000))...)
		require.ErrorIs(t, q.Enqueue(t.Context(), queue.Ticket{ID: strings.Repeat("x", 1000)}), queue.ErrFull)
		enqueue(t, q, queue.Ticket{})
	})
	t.Run("of the server", func(t *testing.T) {
		s := natstest.Start(t, func(o *server.Options) { o.JetStreamMaxStore = 64 << 10 })
		q := open(t, s.Connect(t))
		var err error
		for range 200 {
			if err = q.Enqueue(t.Context(), queue.Ticket{ID: strings.Repeat("x", 1000)}); err != nil {
				break
			}
		}
		require.ErrorIs(t, err, queue.ErrFull)
	})
}

func TestATicketThatIsTooLargeIsRefusedBeforeItIsSent(t *testing.T) {
	s := natstest.Start(t, nil)
	nc := s.Connect(t)
	q := open(t, nc)
	sent := nc.Stats().OutMsgs
	err := q.Enqueue(t.Context(), queue.Ticket{ID: strings.Repeat("x", int(nc.MaxPayload()))})
	require.ErrorIs(t, err, queue.ErrTooLarge)
	require.ErrorContains(t, err, "1048576")
	require.Equal(t, sent, nc.Stats().OutMsgs)
}

func TestWhatIsNoTicketIsRemovedAndCounted(t *testing.T) {
	b := start(t)
	nc := b.connect(t)
	q := open(t, nc, natsqueue.WithPrefix("foreign"), natsqueue.WithLanes(1))
	js, err := jetstream.New(nc)
	require.NoError(t, err)
	for _, data := range []string{"", "not json", "{}", `[1]`, `"v"`, `{"v":1,"scope":7}`, `{"v":"1"}`, "\x00\xff"} {
		_, err = js.Publish(t.Context(), "foreign.ticket.0.all", []byte(data))
		require.NoError(t, err)
	}
	for _, subject := range []string{"foreign.ticket.1.all", "foreign.ticket.-1.all", "foreign.ticket.00.all", "foreign.ticket.x.y"} {
		_, err = js.Publish(t.Context(), subject, []byte(`{"v":1}`))
		require.NoError(t, err)
	}
	want := queue.Ticket{ID: "a ticket"}
	enqueue(t, q, want)
	d := receive(t, q, patience)
	require.Equal(t, want, d.Ticket())
	require.NoError(t, d.Ack(t.Context()))
	require.EqualValues(t, 12, q.Foreign())
	depth, err := q.Depth(t.Context())
	require.NoError(t, err)
	require.Equal(t, queue.Depth{}, depth)
}

func TestATicketOfANewerVersionIsLeftToItsWorkers(t *testing.T) {
	b := start(t)
	nc := b.connect(t)
	q := open(t, nc, natsqueue.WithLanes(1))
	js, err := jetstream.New(nc)
	require.NoError(t, err)
	_, err = js.Publish(t.Context(), "streamer.ticket.0.all", []byte(`{"v":2,"id":"new"}`))
	require.NoError(t, err)
	enqueue(t, q, queue.Ticket{ID: "old"})
	require.Equal(t, "old", receive(t, q, patience).Ticket().ID)
	require.Zero(t, q.Foreign())
	depth, err := q.Depth(t.Context())
	require.NoError(t, err)
	require.Equal(t, 2, depth.Leased, "it waits to be offered again")
}

func TestDepthShowsWhereTicketsAre(t *testing.T) {
	b := start(t)
	q := b.open(t, b.fresh()...)
	for _, group := range []string{"a", "a", "b", "b", "c", "c", "c", "d"} {
		enqueue(t, q, queue.Ticket{Group: group})
	}
	before := time.Now()
	depth, err := q.Depth(t.Context())
	require.NoError(t, err)
	require.Equal(t, 8, depth.Ready)
	require.Less(t, depth.Oldest, patience)
	for range 2 {
		receive(t, q, patience)
	}
	require.NoError(t, receive(t, q, patience).Retry(t.Context(), time.Hour))
	require.Eventually(t, func() bool {
		depth, err = q.Depth(t.Context())
		return err == nil && depth.Oldest > 500*time.Millisecond
	}, patience, 50*time.Millisecond)
	require.Equal(t, queue.Depth{Ready: 5, Leased: 3, Oldest: depth.Oldest}, depth)
	require.Less(t, depth.Oldest, time.Since(before)+time.Second)
}

// late is JetStream on a server whose clock is an hour behind.
type late struct{ jetstream.JetStream }

func (l late) Stream(ctx context.Context, name string) (jetstream.Stream, error) {
	s, err := l.JetStream.Stream(ctx, name)
	return lateStream{s}, err
}

type lateStream struct{ jetstream.Stream }

func (s lateStream) Info(ctx context.Context, opts ...jetstream.StreamInfoOpt) (*jetstream.StreamInfo, error) {
	info, err := s.Stream.Info(ctx, opts...)
	if err == nil {
		info.TimeStamp = info.TimeStamp.Add(-time.Hour)
	}
	return info, err
}

func (s lateStream) GetMsg(ctx context.Context, seq uint64, opts ...jetstream.GetMsgOpt) (*jetstream.RawStreamMsg, error) {
	m, err := s.Stream.GetMsg(ctx, seq, opts...)
	if err == nil {
		m.Time = m.Time.Add(-time.Hour)
	}
	return m, err
}

func TestTheAgeOfATicketIsTakenByTheBrokersClock(t *testing.T) {
	b := start(t)
	opts := b.fresh()
	enqueue(t, b.open(t, opts...), queue.Ticket{ID: "old"})
	js, err := jetstream.New(b.connect(t))
	require.NoError(t, err)
	q, err := natsqueue.New(t.Context(), late{js}, opts...)
	require.NoError(t, err)
	defer q.Close()
	depth, err := q.Depth(t.Context())
	require.NoError(t, err)
	require.Equal(t, 1, depth.Ready)
	require.Positive(t, depth.Oldest)
	require.Less(t, depth.Oldest, time.Minute)
}
