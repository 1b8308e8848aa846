package natsqueue_test

import (
	"context"
	"slices"
	"strconv"
	"sync"
	"testing"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
	"github.com/stretchr/testify/require"

	"github.com/pay-theory/streamer/v2/internal/natstest"
	"github.com/pay-theory/streamer/v2/queue"
)

// links are the ways to a server that are measured.
func links(b *testing.B, body func(b *testing.B, connect func() *nats.Conn)) {
	b.Run("tcp", func(b *testing.B) {
		s := natstest.Start(b, nil)
		body(b, func() *nats.Conn { return s.Connect(b) })
	})
	b.Run("in process", func(b *testing.B) {
		s := natstest.Start(b, nil)
		body(b, func() *nats.Conn { return s.Connect(b, nats.InProcessServer(s.Server())) })
	})
}

var benchTicket = queue.Ticket{Scope: "tenant:user", ID: "0192f0c4-6c1a-7c5e-8a3d-1c2b3a4d5e6f", Action: "export", Group: "tenant", Nonce: "n"}

// BenchmarkRoundTrip is a ticket's life without contention: Enqueue, Receive, Ack.
func BenchmarkRoundTrip(b *testing.B) {
	links(b, func(b *testing.B, connect func() *nats.Conn) {
		q := open(b, connect())
		for b.Loop() {
			require.NoError(b, q.Enqueue(b.Context(), benchTicket))
			ds, err := q.Receive(b.Context(), 1)
			require.NoError(b, err)
			require.NoError(b, ds[0].Ack(b.Context()))
		}
	})
}

// BenchmarkRoundTripFloor is the same with the broker's own client and one consumer.
func BenchmarkRoundTripFloor(b *testing.B) {
	links(b, func(b *testing.B, connect func() *nats.Conn) {
		js, c := raw(b, connect())
		for b.Loop() {
			_, err := js.Publish(b.Context(), "floor", make([]byte, 128))
			require.NoError(b, err)
			fetchOne(b, c)
		}
	})
}

// BenchmarkWake has a ticket go to a worker that waits, in another process: reported is the
// time from the call of Enqueue to the delivery.
func BenchmarkWake(b *testing.B) {
	links(b, func(b *testing.B, connect func() *nats.Conn) {
		q, worker := open(b, connect()), open(b, connect())
		wake(b, func() {
			ds, err := worker.Receive(b.Context(), 1)
			require.NoError(b, err)
			require.NoError(b, ds[0].Ack(b.Context()))
		}, func() { require.NoError(b, q.Enqueue(b.Context(), benchTicket)) })
	})
}

// BenchmarkWakeFloor is the same with a pull that waits at the broker.
func BenchmarkWakeFloor(b *testing.B) {
	links(b, func(b *testing.B, connect func() *nats.Conn) {
		js, _ := raw(b, connect())
		_, c := raw(b, connect())
		wake(b, func() { fetchOne(b, c) }, func() {
			_, err := js.Publish(b.Context(), "floor", make([]byte, 128))
			require.NoError(b, err)
		})
	})
}

func wake(b *testing.B, receive, send func()) {
	var took []time.Duration
	for b.Loop() {
		done := make(chan time.Time)
		go func() {
			receive()
			done <- time.Now()
		}()
		b.StopTimer()
		<-time.After(2 * time.Millisecond) // so that it waits
		b.StartTimer()
		start := time.Now()
		send()
		took = append(took, (<-done).Sub(start))
	}
	slices.Sort(took)
	b.ReportMetric(float64(took[len(took)/2].Microseconds()), "p50-us")
	b.ReportMetric(float64(took[len(took)*99/100].Microseconds()), "p99-us")
}

// BenchmarkPipeline has 8 goroutines enqueue what 8 workers receive and ack.
func BenchmarkPipeline(b *testing.B) {
	links(b, func(b *testing.B, connect func() *nats.Conn) {
		q := open(b, connect())
		worker := open(b, connect())
		pipeline(b, func(i int) {
			t := benchTicket
			t.Group = strconv.Itoa(i)
			require.NoError(b, q.Enqueue(b.Context(), t))
		}, func(ctx context.Context) bool {
			ds, err := worker.Receive(ctx, 1)
			if err == nil {
				require.NoError(b, ds[0].Ack(b.Context()))
			}
			return err == nil
		})
	})
}

// BenchmarkPipelineFloor is the same with the broker's own client and one consumer.
func BenchmarkPipelineFloor(b *testing.B) {
	links(b, func(b *testing.B, connect func() *nats.Conn) {
		js, _ := raw(b, connect())
		_, c := raw(b, connect())
		pipeline(b, func(int) {
			_, err := js.Publish(b.Context(), "floor", make([]byte, 128))
			require.NoError(b, err)
		}, func(ctx context.Context) bool {
			m, err := c.Next(jetstream.FetchContext(ctx))
			if err == nil {
				require.NoError(b, m.DoubleAck(b.Context()))
			}
			return err == nil
		})
	})
}

func pipeline(b *testing.B, send func(i int), receive func(ctx context.Context) bool) {
	const workers = 8
	ctx, stop := context.WithCancel(b.Context())
	var acked, running sync.WaitGroup
	for range workers {
		running.Go(func() {
			for receive(ctx) {
				acked.Done()
			}
		})
	}
	b.SetParallelism(workers / 2)
	b.RunParallel(func(pb *testing.PB) {
		for i := 0; pb.Next(); i++ {
			acked.Add(1)
			send(i % 8)
		}
	})
	acked.Wait()
	b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "tickets/s")
	stop()
	running.Wait()
}

func raw(b *testing.B, nc *nats.Conn) (jetstream.JetStream, jetstream.Consumer) {
	js, err := jetstream.New(nc)
	require.NoError(b, err)
	s, err := js.CreateStream(b.Context(), jetstream.StreamConfig{Name: "FLOOR", Subjects: []string{"floor"}, Retention: jetstream.WorkQueuePolicy})
	require.NoError(b, err)
	c, err := s.CreateConsumer(b.Context(), jetstream.ConsumerConfig{Durable: "floor", AckPolicy: jetstream.AckExplicitPolicy, MaxAckPending: -1})
	require.NoError(b, err)
	return js, c
}

func fetchOne(b *testing.B, c jetstream.Consumer) {
	batch, err := c.Fetch(1)
	require.NoError(b, err)
	for m := range batch.Messages() {
		require.NoError(b, m.DoubleAck(b.Context()))
	}
	require.NoError(b, batch.Error())
}
