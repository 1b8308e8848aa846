package natsqueue_test

import (
	"context"
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

// refused returns the error of New.
func refused(t *testing.T, nc *nats.Conn, opts ...natsqueue.Option) string {
	t.Helper()
	js, err := jetstream.New(nc)
	require.NoError(t, err)
	ctx, cancel := context.WithTimeout(t.Context(), 5*time.Second)
	defer cancel()
	_, err = natsqueue.New(ctx, js, opts...)
	require.Error(t, err)
	return err.Error()
}

func TestAStreamOfAnotherShapeIsRefusedAndNotChanged(t *testing.T) {
	b := start(t)
	nc := b.connect(t)
	js, err := jetstream.New(nc)
	require.NoError(t, err)
	// While it deletes its last stream, a server may fail to make another.
	_, err = js.CreateStream(t.Context(), jetstream.StreamConfig{Name: "STAYS"})
	require.NoError(t, err)
	for name, c := range map[string]struct {
		change func(s *jetstream.StreamConfig)
		opts   []natsqueue.Option
		want   []string
	}{
		"retention": {change: func(s *jetstream.StreamConfig) { s.Retention = jetstream.LimitsPolicy }, want: []string{"retention is Limits, wanted is WorkQueue", "WithStream"}},
		"subjects":  {change: func(s *jetstream.StreamConfig) { s.Subjects = append(s.Subjects, "more."+s.Name) }, want: []string{"subjects is [", "WithPrefix"}},
		"lanes":     {opts: []natsqueue.Option{natsqueue.WithLanes(8)}, want: []string{`streamer-lanes is "64", wanted is "8"`, "WithLanes"}},
		"republish": {change: func(s *jetstream.StreamConfig) { s.RePublish = nil }, want: []string{"republish is off, wanted is test."}},
		"discard":   {change: func(s *jetstream.StreamConfig) { s.Discard = jetstream.DiscardOld }, want: []string{"discard is DiscardOld, wanted is DiscardNew"}},
		"age":       {change: func(s *jetstream.StreamConfig) { s.MaxAge = time.Hour }, want: []string{"max_age is 1h0m0s, wanted is 0s"}},
		"consumers": {change: func(s *jetstream.StreamConfig) { s.MaxConsumers = 5 }, want: []string{"max_consumers is 5, wanted is 64"}},
		"bounds": {
			opts: []natsqueue.Option{natsqueue.WithMaxTickets(5), natsqueue.WithMaxBytes(6), natsqueue.WithMaxPerScope(7)},
			want: []string{"max_msgs is 1000000, wanted is 5", "max_bytes is -1, wanted is 6", "max_msgs_per_subject is -1, wanted is 7"},
		},
		"storage":  {opts: []natsqueue.Option{natsqueue.WithStorage(jetstream.MemoryStorage)}, want: []string{"storage is File, wanted is Memory"}},
		"replicas": {opts: []natsqueue.Option{natsqueue.WithReplicas(3)}, want: []string{"num_replicas is 1, wanted is 3"}},
	} {
		t.Run(name, func(t *testing.T) {
			opts := b.fresh()
			require.NoError(t, b.open(t, opts...).Close())
			last := lastStream(t, js)
			if c.change != nil {
				require.NoError(t, js.DeleteStream(t.Context(), last.Name))
				c.change(&last)
				_, err := js.CreateStream(t.Context(), last)
				require.NoError(t, err)
			}
			before := lastStream(t, js)
			got := refused(t, nc, append(opts, c.opts...)...)
			require.Contains(t, got, "natsqueue: stream TICKETS_")
			for _, want := range c.want {
				require.Contains(t, got, want)
			}
			require.Equal(t, before, lastStream(t, js))
			require.NoError(t, js.DeleteStream(t.Context(), last.Name))
		})
	}
}

// lastStream returns the only stream there is for tickets.
func lastStream(t *testing.T, js jetstream.JetStream) jetstream.StreamConfig {
	t.Helper()
	var last jetstream.StreamConfig
	for info := range js.ListStreams(t.Context()).Info() {
		if info.Config.Name != "STAYS" {
			last = info.Config
		}
	}
	return last
}

func TestBoundsThatAnOperatorSetAreKeptWhereNoOptionSaysOtherwise(t *testing.T) {
	b := start(t)
	opts := b.fresh()
	require.NoError(t, b.open(t, opts...).Close())
	js, err := jetstream.New(b.connect(t))
	require.NoError(t, err)
	c := lastStream(t, js)
	c.MaxMsgs, c.MaxBytes, c.MaxMsgsPerSubject, c.DiscardNewPerSubject = 1, 10_000, 1, true
	_, err = js.UpdateStream(t.Context(), c)
	require.NoError(t, err)
	q := b.open(t, opts...)
	enqueue(t, q, queue.Ticket{})
	require.ErrorIs(t, q.Enqueue(t.Context(), queue.Ticket{}), queue.ErrScopeFull)
	require.ErrorIs(t, q.Enqueue(t.Context(), queue.Ticket{Scope: "other"}), queue.ErrFull)
}

func TestSubjectsOfAnotherStreamAreRefused(t *testing.T) {
	b := start(t)
	opts := b.fresh()
	b.open(t, opts...)
	require.Contains(t, refused(t, b.connect(t), append(opts, natsqueue.WithStream("OTHER"))...), "WithPrefix")
}

func TestAConsumerOfAnotherShapeIsAnError(t *testing.T) {
	b := start(t)
	opts := b.fresh()
	q := b.open(t, opts...)
	enqueue(t, q, queue.Ticket{})
	receive(t, q, patience)
	other := b.open(t, append(opts, natsqueue.WithLease(time.Minute))...)
	enqueue(t, other, queue.Ticket{})
	_, err := other.Receive(t.Context(), 1)
	require.ErrorIs(t, err, queue.ErrUnavailable)
	require.ErrorContains(t, err, "ack_wait is 30s, wanted is 1m0s")
	require.ErrorContains(t, err, "WithLease")
	receive(t, q, patience)
}

func TestNewSaysWhatIsWrongWithTheServer(t *testing.T) {
	t.Run("not connected", func(t *testing.T) {
		nc, err := nats.Connect("nats://127.0.0.1:1", nats.RetryOnFailedConnect(true), nats.MaxReconnects(-1))
		require.NoError(t, err)
		defer nc.Close()
		require.Contains(t, refused(t, nc), "not connected")
	})
	t.Run("jetstream is off", func(t *testing.T) {
		s := natstest.Start(t, func(o *server.Options) { o.JetStream = false })
		require.Contains(t, refused(t, s.Connect(t)), "enable JetStream on the server")
	})
	t.Run("jetstream is off for the account", func(t *testing.T) {
		s := natstest.Start(t, func(o *server.Options) {
			other := server.NewAccount("other")
			o.Accounts = []*server.Account{other, server.NewAccount("jets")}
			o.Users = []*server.User{{Username: "u", Password: "p", Account: other}}
		})
		require.Contains(t, refused(t, s.Connect(t, nats.UserInfo("u", "p"))), "enable JetStream for the account")
	})
	t.Run("the account is at its limit", func(t *testing.T) {
		s := natstest.Start(t, nil)
		limits := map[string]server.JetStreamAccountLimits{"": {MaxMemory: 0, MaxStore: 1 << 20, MaxStreams: 1, MaxConsumers: -1}}
		require.NoError(t, s.Server().GlobalAccount().UpdateJetStreamLimits(limits))
		got := refused(t, s.Connect(t), natsqueue.WithMaxBytes(2<<20))
		require.Contains(t, got, "limits of the account")
	})
	t.Run("no permission", func(t *testing.T) {
		s := natstest.Start(t, func(o *server.Options) {
			o.Users = []*server.User{{Username: "u", Password: "p", Permissions: &server.Permissions{
				Publish: &server.SubjectPermission{Allow: []string{"nothing"}},
			}}}
		})
		require.Contains(t, refused(t, s.Connect(t, nats.UserInfo("u", "p"), nats.ErrorHandler(func(*nats.Conn, *nats.Subscription, error) {}))), "no permission to publish on $JS.API.>")
	})
	t.Run("more replicas than servers", func(t *testing.T) {
		s := natstest.Start(t, nil)
		require.Contains(t, refused(t, s.Connect(t), natsqueue.WithReplicas(3)), "replicas")
	})
}

func TestNewRefusesOptionsThatMakeNoSense(t *testing.T) {
	nc := start(t).connect(t)
	for want, o := range map[string]natsqueue.Option{
		`natsqueue: WithStream("a.b")`:                   natsqueue.WithStream("a.b"),
		`natsqueue: WithStream("")`:                      natsqueue.WithStream(""),
		`natsqueue: WithPrefix("a..b")`:                  natsqueue.WithPrefix("a..b"),
		`natsqueue: WithPrefix("a.*")`:                   natsqueue.WithPrefix("a.*"),
		`natsqueue: WithPrefix("$JS")`:                   natsqueue.WithPrefix("$JS"),
		`natsqueue: WithLease(99ms)`:                     natsqueue.WithLease(99 * time.Millisecond),
		`natsqueue: WithLanes(0)`:                        natsqueue.WithLanes(0),
		`natsqueue: WithLanes(1025)`:                     natsqueue.WithLanes(1025),
		`natsqueue: WithStorage(7)`:                      natsqueue.WithStorage(7),
		`natsqueue: WithReplicas(6)`:                     natsqueue.WithReplicas(6),
		`natsqueue: WithMaxTickets: at least 1 is`:       natsqueue.WithMaxTickets(0),
		`natsqueue: WithMaxBytes: at least 1 is`:         natsqueue.WithMaxBytes(-1),
		`natsqueue: WithMaxPerScope: at least 1 is need`: natsqueue.WithMaxPerScope(0),
	} {
		require.Contains(t, refused(t, nc, o), want)
	}
}
