package queuetest

import (
	"context"
	"errors"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/pay-theory/streamer/v2/queue"
	"github.com/pay-theory/streamer/v2/queue/memqueue"
)

// broken is a queue with faults: the functions that are set take the place of its methods.
type broken struct {
	queue.Queue
	enqueue func(ctx context.Context, t queue.Ticket) error
	receive func(ctx context.Context, max int) ([]queue.Delivery, error)
	lease   func() time.Duration
	depth   func(d queue.Depth) queue.Depth
	extend  func(ctx context.Context, d queue.Delivery) error
	ack     func(ctx context.Context, d queue.Delivery) error
	retry   func(ctx context.Context, d queue.Delivery, delay time.Duration) error
}

func (b *broken) Enqueue(ctx context.Context, t queue.Ticket) error {
	if b.enqueue != nil {
		return b.enqueue(ctx, t)
	}
	return b.Queue.Enqueue(ctx, t)
}

func (b *broken) Receive(ctx context.Context, max int) ([]queue.Delivery, error) {
	receive := b.Queue.Receive
	if b.receive != nil {
		receive = b.receive
	}
	deliveries, err := receive(ctx, max)
	for i, d := range deliveries {
		deliveries[i] = &brokenDelivery{d, b}
	}
	return deliveries, err
}

func (b *broken) Lease() time.Duration {
	if b.lease != nil {
		return b.lease()
	}
	return b.Queue.Lease()
}

func (b *broken) Depth(ctx context.Context) (queue.Depth, error) {
	d, err := b.Queue.(queue.Measured).Depth(ctx)
	if b.depth != nil {
		d = b.depth(d)
	}
	return d, err
}

type brokenDelivery struct {
	queue.Delivery
	broken *broken
}

func (d *brokenDelivery) Extend(ctx context.Context) error {
	if d.broken.extend != nil {
		return d.broken.extend(ctx, d.Delivery)
	}
	return d.Delivery.Extend(ctx)
}

func (d *brokenDelivery) Ack(ctx context.Context) error {
	if d.broken.ack != nil {
		return d.broken.ack(ctx, d.Delivery)
	}
	return d.Delivery.Ack(ctx)
}

func (d *brokenDelivery) Retry(ctx context.Context, delay time.Duration) error {
	if d.broken.retry != nil {
		return d.broken.retry(ctx, d.Delivery, delay)
	}
	return d.Delivery.Retry(ctx, delay)
}

// latest finds the holder of a ticket, so that a stale call can hit it.
type latest struct {
	mu      sync.Mutex
	holders map[queue.Ticket]queue.Delivery
}

func (l *latest) watch(q queue.Queue) func(ctx context.Context, max int) ([]queue.Delivery, error) {
	l.holders = make(map[queue.Ticket]queue.Delivery)
	return func(ctx context.Context, max int) ([]queue.Delivery, error) {
		deliveries, err := q.Receive(ctx, max)
		l.mu.Lock()
		defer l.mu.Unlock()
		for _, d := range deliveries {
			l.holders[d.Ticket()] = d
		}
		return deliveries, err
	}
}

func (l *latest) of(d queue.Delivery) queue.Delivery {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.holders[d.Ticket()]
}

type breaker func(tb testing.TB, q queue.Queue) queue.Queue

// breakers returns, for each case, what breaks a queue so that the case must notice.
func breakers() map[string]breaker {
	return map[string]breaker{
		"ticket arrives as it was sent": func(_ testing.TB, q queue.Queue) queue.Queue {
			return &broken{Queue: q, enqueue: func(ctx context.Context, t queue.Ticket) error {
				t.Action = strings.ToValidUTF8(strings.ReplaceAll(t.Action, "\x00", ""), "")
				return q.Enqueue(ctx, t)
			}}
		},
		"each ticket to one receiver": func(_ testing.TB, q queue.Queue) queue.Queue {
			var n atomic.Int64
			return &broken{Queue: q, enqueue: func(ctx context.Context, t queue.Ticket) error {
				if n.Add(1) == 500 {
					return errors.Join(q.Enqueue(ctx, t), q.Enqueue(ctx, t))
				}
				return q.Enqueue(ctx, t)
			}}
		},
		"enqueue twice": func(_ testing.TB, q queue.Queue) queue.Queue {
			var seen sync.Map
			return &broken{Queue: q, enqueue: func(ctx context.Context, t queue.Ticket) error {
				if _, twice := seen.LoadOrStore(t, true); twice {
					return queue.ErrUnavailable
				}
				return q.Enqueue(ctx, t)
			}}
		},
		"too large": func(_ testing.TB, q queue.Queue) queue.Queue {
			return &broken{Queue: q, enqueue: func(ctx context.Context, t queue.Ticket) error {
				t.Action = t.Action[:min(len(t.Action), 1<<20)]
				return q.Enqueue(ctx, t)
			}}
		},
		"ack is final": func(_ testing.TB, q queue.Queue) queue.Queue {
			return &broken{Queue: q, ack: func(context.Context, queue.Delivery) error { return nil }}
		},
		"ack twice": func(_ testing.TB, q queue.Queue) queue.Queue {
			var acked atomic.Bool
			return &broken{Queue: q, ack: func(ctx context.Context, d queue.Delivery) error {
				if acked.Swap(true) {
					return queue.ErrUnavailable
				}
				return d.Ack(ctx)
			}}
		},
		"extend after ack": func(_ testing.TB, q queue.Queue) queue.Queue {
			return &broken{Queue: q, retry: func(ctx context.Context, d queue.Delivery, _ time.Duration) error {
				return q.Enqueue(ctx, d.Ticket())
			}}
		},
		"retry now": func(_ testing.TB, q queue.Queue) queue.Queue {
			return &broken{Queue: q, retry: func(context.Context, queue.Delivery, time.Duration) error { return nil }}
		},
		"retry with delay": func(_ testing.TB, q queue.Queue) queue.Queue {
			return &broken{Queue: q, retry: func(ctx context.Context, d queue.Delivery, delay time.Duration) error {
				return d.Retry(ctx, delay/2)
			}}
		},
		"retry wakes a receiver": func(_ testing.TB, q queue.Queue) queue.Queue {
			return &broken{Queue: q, retry: func(ctx context.Context, d queue.Delivery, delay time.Duration) error {
				return d.Retry(ctx, delay+time.Second)
			}}
		},
		"retry with long delay": func(_ testing.TB, q queue.Queue) queue.Queue {
			return &broken{Queue: q, retry: func(ctx context.Context, d queue.Delivery, delay time.Duration) error {
				return d.Retry(ctx, delay+time.Hour) // overflows
			}}
		},
		"retry ends the lease": func(_ testing.TB, q queue.Queue) queue.Queue {
			return &broken{Queue: q, extend: func(ctx context.Context, d queue.Delivery) error {
				return q.Enqueue(ctx, d.Ticket())
			}}
		},
		"delivered however often": func(_ testing.TB, q queue.Queue) queue.Queue {
			var times atomic.Int64
			return &broken{Queue: q, retry: func(ctx context.Context, d queue.Delivery, delay time.Duration) error {
				if times.Add(1) == 20 {
					return d.Ack(ctx)
				}
				return d.Retry(ctx, delay)
			}}
		},
		"lease is constant": func(_ testing.TB, q queue.Queue) queue.Queue {
			var calls atomic.Int64
			return &broken{Queue: q, lease: func() time.Duration { return q.Lease() + time.Duration(calls.Add(1)) }}
		},
		"lapse wakes a receiver": func(tb testing.TB, _ queue.Queue) queue.Queue {
			late := memqueue.New(memqueue.WithLease(3 * time.Second))
			return &broken{Queue: late, lease: func() time.Duration { return time.Second }}
		},
		"lapse with nobody there": func(_ testing.TB, q queue.Queue) queue.Queue {
			return &broken{Queue: q, receive: func(ctx context.Context, max int) ([]queue.Delivery, error) {
				deliveries, err := q.Receive(ctx, max)
				for _, d := range deliveries {
					if err := d.Ack(ctx); err != nil {
						return nil, err
					}
				}
				return deliveries, err
			}}
		},
		"extend keeps the lease": func(_ testing.TB, q queue.Queue) queue.Queue {
			return &broken{Queue: q, extend: func(context.Context, queue.Delivery) error { return nil }}
		},
		"extend counts from now": func(_ testing.TB, q queue.Queue) queue.Queue {
			var calls atomic.Int64
			return &broken{Queue: q, extend: func(ctx context.Context, d queue.Delivery) error {
				if calls.Add(1) > 1 {
					return nil
				}
				return d.Extend(ctx)
			}}
		},
		"extend after loss": func(_ testing.TB, q queue.Queue) queue.Queue {
			return &broken{Queue: q, extend: func(ctx context.Context, d queue.Delivery) error {
				_ = d.Extend(ctx)
				return nil
			}}
		},
		"extend before redelivery": func(_ testing.TB, q queue.Queue) queue.Queue {
			return &broken{Queue: q, extend: func(ctx context.Context, d queue.Delivery) error {
				_ = d.Extend(ctx)
				return nil
			}}
		},
		"stale ack": func(_ testing.TB, q queue.Queue) queue.Queue {
			var latest latest
			return &broken{Queue: q, receive: latest.watch(q), ack: func(ctx context.Context, d queue.Delivery) error {
				return latest.of(d).Ack(ctx)
			}}
		},
		"stale retry": func(_ testing.TB, q queue.Queue) queue.Queue {
			var latest latest
			return &broken{Queue: q, receive: latest.watch(q), retry: func(ctx context.Context, d queue.Delivery, delay time.Duration) error {
				return latest.of(d).Retry(ctx, delay)
			}}
		},
		"returns what there is": func(_ testing.TB, q queue.Queue) queue.Queue {
			return &broken{Queue: q, receive: func(ctx context.Context, max int) (all []queue.Delivery, err error) {
				for len(all) < max {
					deliveries, err := q.Receive(ctx, max-len(all))
					if err != nil {
						return nil, err
					}
					all = append(all, deliveries...)
				}
				return all, nil
			}}
		},
		"takes no more than it returns": func(_ testing.TB, q queue.Queue) queue.Queue {
			return &broken{Queue: q, receive: func(ctx context.Context, max int) ([]queue.Delivery, error) {
				deliveries, err := q.Receive(ctx, 2*max)
				return deliveries[:min(len(deliveries), max)], err
			}}
		},
		"waits until there is a ticket": func(_ testing.TB, q queue.Queue) queue.Queue {
			return &broken{Queue: q, receive: func(ctx context.Context, max int) ([]queue.Delivery, error) {
				for {
					short, cancel := context.WithTimeout(ctx, time.Millisecond)
					deliveries, err := q.Receive(short, max)
					cancel()
					if err == nil || ctx.Err() != nil {
						return deliveries, err
					}
				}
			}}
		},
		"each waiting receiver is woken": func(_ testing.TB, q queue.Queue) queue.Queue {
			var mu sync.Mutex
			return &broken{Queue: q, receive: func(ctx context.Context, max int) ([]queue.Delivery, error) {
				deliveries, err := q.Receive(ctx, max)
				if mu.TryLock() {
					return deliveries, err
				}
				<-ctx.Done()
				return nil, ctx.Err()
			}}
		},
		"one ticket is for one": func(_ testing.TB, q queue.Queue) queue.Queue {
			woken := make(chan struct{})
			return &broken{Queue: q, receive: func(ctx context.Context, max int) ([]queue.Delivery, error) {
				ctx, cancel := context.WithCancel(ctx)
				defer cancel()
				go func() {
					select {
					case <-woken:
						cancel()
					case <-ctx.Done():
					}
				}()
				deliveries, err := q.Receive(ctx, max)
				if err == nil {
					close(woken)
				}
				return deliveries, err
			}}
		},
		"ended context takes none": func(tb testing.TB, q queue.Queue) queue.Queue {
			return &broken{Queue: q, receive: func(_ context.Context, max int) ([]queue.Delivery, error) {
				return q.Receive(tb.Context(), max)
			}}
		},
		"receive ends with its context": stranding,
		"no ticket is lost to a leaver": stranding,
		"calls end with their context": func(_ testing.TB, q queue.Queue) queue.Queue {
			return &broken{Queue: q, ack: func(ctx context.Context, d queue.Delivery) error {
				time.Sleep(time.Minute)
				return d.Ack(ctx)
			}}
		},
		"many in flight": func(_ testing.TB, q queue.Queue) queue.Queue {
			var leased atomic.Int64
			return &broken{Queue: q, receive: func(ctx context.Context, max int) ([]queue.Delivery, error) {
				if leased.Load() >= 1000 {
					<-ctx.Done()
				}
				deliveries, err := q.Receive(ctx, max)
				leased.Add(int64(len(deliveries)))
				return deliveries, err
			}}
		},
		"never stalls": func(_ testing.TB, q queue.Queue) queue.Queue {
			var calls atomic.Int64
			return &broken{Queue: q, receive: func(ctx context.Context, max int) ([]queue.Delivery, error) {
				if n := calls.Add(1); n > 1000 && n < 1010 {
					time.Sleep(5 * time.Second)
				}
				return q.Receive(ctx, max)
			}}
		},
		"depth tells what there is": func(_ testing.TB, q queue.Queue) queue.Queue {
			return &broken{Queue: q, depth: func(d queue.Depth) queue.Depth {
				d.Ready += d.Leased
				d.Leased = 0
				return d
			}}
		},
		"scope is bounded": func(_ testing.TB, q queue.Queue) queue.Queue {
			return &broken{Queue: q, enqueue: func(ctx context.Context, t queue.Ticket) error {
				t.Scope = "all"
				return q.Enqueue(ctx, t)
			}}
		},
		"groups take turns": func(_ testing.TB, q queue.Queue) queue.Queue {
			return &broken{Queue: q, enqueue: func(ctx context.Context, t queue.Ticket) error {
				t.Group = "all"
				return q.Enqueue(ctx, t)
			}}
		},
	}
}

// stranding abandons Receives whose context ends: they go on and take a ticket.
func stranding(tb testing.TB, q queue.Queue) queue.Queue {
	return &broken{Queue: q, receive: func(ctx context.Context, max int) ([]queue.Delivery, error) {
		a := receiving(tb.Context(), q, max)
		select {
		case got := <-a:
			return got.deliveries, got.err
		case <-ctx.Done():
			return nil, ctx.Err()
		}
	}}
}
