package fault

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"time"

	"github.com/pay-theory/streamer/v2/queue"
)

// Queue is a queue.Queue that passes calls on to another, with faults. What the other can do
// beyond queue.Queue is hidden.
type Queue struct {
	// Of all calls.
	Unavailable Fault // nothing is done; queue.ErrUnavailable
	AnswerLost  Fault // all is done; queue.ErrUnavailable nevertheless. Received tickets are leased to nobody
	Delay       Fault // the call begins late, or its answer comes late

	// Of Enqueue.
	EnqueuedTwice Fault // two equal tickets are stored

	// Of each ticket in Receive, which goes on until it has one without these: rates must be
	// less than 1.
	DeliveredTwice Fault // now, and once more after a while, with a lease of its own
	Reordered      Fault // not now, but after a while

	// Of deliveries.
	ExtendLost Fault // this and all further Extends of the delivery do nothing, and return nil
	StaleAck   Fault // an Ack after the lease was lost removes the ticket, whoever has it now

	inner   queue.Queue
	longest time.Duration
	dice    *dice

	mu      sync.Mutex
	holders map[queue.Ticket]*delivery // the newest delivery of each ticket that is not acked
}

var _ queue.Queue = (*Queue)(nil)

// NewQueue returns a queue without faults until their rates are set. What happens "late" or
// "after a while" does so within longest. StaleAck needs an inner queue that fences stale
// holders.
func NewQueue(inner queue.Queue, seed uint64, longest time.Duration) *Queue {
	return &Queue{
		inner:   inner,
		longest: longest,
		dice:    newDice(seed),
		holders: make(map[queue.Ticket]*delivery),
	}
}

// Lease returns the inner queue's.
func (q *Queue) Lease() time.Duration { return q.inner.Lease() }

// Enqueue enqueues t, or not, or twice.
func (q *Queue) Enqueue(ctx context.Context, t queue.Ticket) error {
	return q.call(ctx, func() error {
		if q.dice.hit(&q.EnqueuedTwice) {
			if err := q.inner.Enqueue(ctx, t); err != nil {
				return err
			}
		}
		return q.inner.Enqueue(ctx, t)
	})
}

// Receive receives tickets, some of them twice, some later than others.
func (q *Queue) Receive(ctx context.Context, max int) ([]queue.Delivery, error) {
	if err := q.before(ctx); err != nil {
		return nil, err
	}
	for {
		received, err := q.inner.Receive(ctx, max)
		if err != nil {
			return nil, err
		}
		var deliveries []queue.Delivery
		for _, d := range received {
			if !q.postpone(ctx, d) {
				deliveries = append(deliveries, q.hold(d))
			}
		}
		if len(deliveries) == 0 {
			continue
		}
		if q.dice.hit(&q.AnswerLost) {
			return nil, answerLost()
		}
		// A context that ends now is too late: the tickets are taken.
		_ = q.dice.pause(ctx, &q.Delay, q.longest)
		return deliveries, nil
	}
}

// postpone gives a ticket back to be delivered after a while, if chance wants it. For a
// second delivery it enqueues a copy, which takes the place of the first.
func (q *Queue) postpone(ctx context.Context, d queue.Delivery) bool {
	twice := q.dice.hit(&q.DeliveredTwice)
	if twice && q.inner.Enqueue(ctx, d.Ticket()) != nil {
		return false
	}
	return (twice || q.dice.hit(&q.Reordered)) && d.Retry(ctx, q.dice.upTo(q.longest)) == nil
}

// call does a call with the faults that any call can have.
func (q *Queue) call(ctx context.Context, do func() error) error {
	if err := q.before(ctx); err != nil {
		return err
	}
	if err := do(); err != nil {
		return err
	}
	if q.dice.hit(&q.AnswerLost) {
		return answerLost()
	}
	return q.dice.pause(ctx, &q.Delay, q.longest)
}

func (q *Queue) before(ctx context.Context) error {
	if err := q.dice.pause(ctx, &q.Delay, q.longest); err != nil {
		return err
	}
	if q.dice.hit(&q.Unavailable) {
		return fmt.Errorf("fault: nothing was done: %w", queue.ErrUnavailable)
	}
	return nil
}

func answerLost() error {
	return fmt.Errorf("fault: the answer was lost: %w", queue.ErrUnavailable)
}

// hold wraps a delivery and remembers it as the newest of its ticket.
func (q *Queue) hold(inner queue.Delivery) *delivery {
	d := &delivery{Delivery: inner, queue: q}
	q.mu.Lock()
	defer q.mu.Unlock()
	q.holders[d.Ticket()] = d
	return d
}

// holder returns the newest delivery of d's ticket, d itself when none is newer.
func (q *Queue) holder(d *delivery) *delivery {
	q.mu.Lock()
	defer q.mu.Unlock()
	if h := q.holders[d.Ticket()]; h != nil {
		return h
	}
	return d
}

func (q *Queue) forget(d *delivery) {
	q.mu.Lock()
	defer q.mu.Unlock()
	if q.holders[d.Ticket()] == d {
		delete(q.holders, d.Ticket())
	}
}

type delivery struct {
	queue.Delivery
	queue *Queue
	deaf  atomic.Bool // Extends are lost
}

func (d *delivery) Extend(ctx context.Context) error {
	return d.queue.call(ctx, func() error {
		if d.deaf.Load() || d.queue.dice.hit(&d.queue.ExtendLost) {
			d.deaf.Store(true)
			return nil
		}
		return d.Delivery.Extend(ctx)
	})
}

func (d *delivery) Ack(ctx context.Context) error {
	q := d.queue
	return q.call(ctx, func() error {
		removes := d
		if h := q.holder(d); h != d && d.lost(ctx) && q.dice.hit(&q.StaleAck) {
			removes = h
		}
		err := removes.Delivery.Ack(ctx)
		if err == nil {
			q.forget(removes)
		}
		return err
	})
}

// lost reports whether the inner queue knows that the lease has ended.
func (d *delivery) lost(ctx context.Context) bool {
	return errors.Is(d.Delivery.Extend(ctx), queue.ErrLeaseLost)
}

func (d *delivery) Retry(ctx context.Context, delay time.Duration) error {
	return d.queue.call(ctx, func() error { return d.Delivery.Retry(ctx, delay) })
}
