package memqueue_test

import (
	"context"
	"fmt"
	"runtime"
	"sync"
	"testing"

	"github.com/pay-theory/streamer/v2/queue"
	"github.com/pay-theory/streamer/v2/queue/memqueue"
)

// BenchmarkRoundTrip is a ticket's life without contention: Enqueue, Receive, Ack.
func BenchmarkRoundTrip(b *testing.B) {
	for _, leased := range []int{0, 64, 10_000} {
		b.Run(fmt.Sprintf("leased=%d", leased), func(b *testing.B) {
			q := memqueue.New()
			ctx := b.Context()
			for range leased {
				enqueue(b, q, queue.Ticket{Group: "other"})
				receive(b, q)
			}
			t := queue.Ticket{Scope: "tenant:user", ID: "0192f0c4-6c1a-7c5e-8a3d-1c2b3a4d5e6f", Action: "export", Group: "tenant", Nonce: "n"}
			b.ReportAllocs()
			for b.Loop() {
				if q.Enqueue(ctx, t) != nil {
					b.Fatal()
				}
				d, err := q.Receive(ctx, 1)
				if err != nil || d[0].Ack(ctx) != nil {
					b.Fatal()
				}
			}
		})
	}
}

// BenchmarkBacklog is the same with many groups and tickets waiting.
func BenchmarkBacklog(b *testing.B) {
	q := memqueue.New()
	ctx := b.Context()
	groups := make([]string, 1_000)
	for i := range groups {
		groups[i] = fmt.Sprintf("tenant-%d", i)
	}
	for i := range 100_000 {
		enqueue(b, q, queue.Ticket{Group: groups[i%len(groups)]})
	}
	b.ReportAllocs()
	i := 0
	for b.Loop() {
		i++
		if q.Enqueue(ctx, queue.Ticket{Group: groups[i*7919%len(groups)]}) != nil {
			b.Fatal()
		}
		d, err := q.Receive(ctx, 1)
		if err != nil || d[0].Ack(ctx) != nil {
			b.Fatal()
		}
	}
}

// BenchmarkExtend keeps one lease among 1,000.
func BenchmarkExtend(b *testing.B) {
	q := memqueue.New()
	ctx := b.Context()
	var d queue.Delivery
	for range 1_000 {
		enqueue(b, q, queue.Ticket{})
		d = receive(b, q)
	}
	b.ReportAllocs()
	for b.Loop() {
		if d.Extend(ctx) != nil {
			b.Fatal()
		}
	}
}

// BenchmarkWake hands each ticket to a worker that waits, and waits for its answer.
func BenchmarkWake(b *testing.B) {
	for _, workers := range []int{1, 64, 1_000} {
		b.Run(fmt.Sprintf("workers=%d", workers), func(b *testing.B) {
			q := memqueue.New()
			ctx, stop := context.WithCancel(b.Context())
			acked := make(chan struct{})
			var wg sync.WaitGroup
			for range workers {
				wg.Go(func() {
					for {
						d, err := q.Receive(ctx, 1)
						if err != nil {
							return
						}
						if d[0].Ack(ctx) == nil {
							acked <- struct{}{}
						}
					}
				})
			}
			for q.Stats().Waiting < workers {
				runtime.Gosched()
			}
			b.ReportAllocs()
			for b.Loop() {
				if q.Enqueue(ctx, queue.Ticket{Group: "g"}) != nil {
					b.Fatal()
				}
				<-acked
			}
			b.StopTimer()
			stop()
			wg.Wait()
		})
	}
}

// BenchmarkPipeline has GOMAXPROCS goroutines enqueue what 64 workers receive.
func BenchmarkPipeline(b *testing.B) {
	for _, limit := range []int{1, 16} {
		b.Run(fmt.Sprintf("max=%d", limit), func(b *testing.B) {
			q := memqueue.New(memqueue.WithMaxTickets(1_000))
			ctx, stop := context.WithCancel(b.Context())
			var acked sync.WaitGroup
			var wg sync.WaitGroup
			for range 64 {
				wg.Go(func() {
					for {
						ds, err := q.Receive(ctx, limit)
						if err != nil {
							return
						}
						for _, d := range ds {
							if d.Ack(ctx) == nil {
								acked.Done()
							}
						}
					}
				})
			}
			b.ReportAllocs()
			b.RunParallel(func(pb *testing.PB) {
				for pb.Next() {
					acked.Add(1)
					for q.Enqueue(ctx, queue.Ticket{Group: "g"}) != nil {
						runtime.Gosched()
					}
				}
			})
			acked.Wait()
			b.StopTimer()
			stop()
			wg.Wait()
		})
	}
}

func enqueue(tb testing.TB, q queue.Queue, t queue.Ticket) {
	tb.Helper()
	if err := q.Enqueue(tb.Context(), t); err != nil {
		tb.Fatal(err)
	}
}

func receive(tb testing.TB, q queue.Queue) queue.Delivery {
	tb.Helper()
	d, err := q.Receive(tb.Context(), 1)
	if err != nil {
		tb.Fatal(err)
	}
	return d[0]
}
