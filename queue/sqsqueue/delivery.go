package sqsqueue

import (
	"context"
	"fmt"
	"sync/atomic"
	"time"

	"github.com/pay-theory/streamer/v2/queue"
)

// delivery is a queue.Delivery.
type delivery struct {
	queue    *Queue
	box      *box // where the message is
	ticket   queue.Ticket
	handle   string
	count    int           // how often the message was received
	received time.Duration // when it was, since the queue's epoch
	until    atomic.Int64  // when the lease ends, likewise; settled: it was ended here
	alone    atomic.Bool   // the message is removed, and the lease goes on without it
}

// settled is the lease of a ticket that was acked or handed back.
const settled = -1 << 63

// maxLeased is how long after it was received a message can be leased or hidden: SQS allows 12 h,
// and began to count before we did.
const maxLeased = 12*time.Hour - time.Minute

func (d *delivery) Ticket() queue.Ticket { return d.ticket }

// holds reports whether the lease has not ended.
func (d *delivery) holds() bool { return int64(time.Since(d.queue.epoch)) < d.until.Load() }

// Extend is confirmed by SQS, as long as SQS can.
func (d *delivery) Extend(ctx context.Context) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	until := d.until.Load()
	start := time.Since(d.queue.epoch)
	lease := d.queue.cfg.lease
	if int64(start) >= until {
		return fmt.Errorf("sqsqueue: extend: %w", queue.ErrLeaseLost)
	}
	if !d.alone.Load() {
		if err := d.hold(ctx, start+lease > d.received+maxLeased); err != nil {
			return err
		}
	}
	for !d.until.CompareAndSwap(until, max(until, int64(start+lease))) {
		if until = d.until.Load(); until == settled {
			return fmt.Errorf("sqsqueue: extend: %w", queue.ErrLeaseLost)
		}
	}
	return nil
}

// hold has SQS hide the message for another lease or, for the last time, removes it: what SQS
// can't hide any more it would deliver to somebody else.
func (d *delivery) hold(ctx context.Context, last bool) error {
	var err error
	if last {
		err = d.box.deletes.do(ctx, d.handle, false)
	} else {
		err = d.box.changes.do(ctx, change{d.handle, seconds(d.queue.cfg.lease)}, false)
	}
	switch {
	case stale(err):
		d.until.Store(settled)
		return fmt.Errorf("sqsqueue: extend: %w: %v", queue.ErrLeaseLost, err)
	case err != nil:
		return failed(ctx, "extend", err)
	}
	d.alone.Store(last)
	return nil
}

// Ack is confirmed by SQS once the ticket is removed.
func (d *delivery) Ack(ctx context.Context) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	if !d.holds() {
		return nil
	}
	return d.remove(ctx, "ack")
}

// remove removes the message.
func (d *delivery) remove(ctx context.Context, what string) error {
	if !d.alone.Load() {
		if err := d.box.deletes.do(ctx, d.handle, false); err != nil && !stale(err) {
			return failed(ctx, what, err)
		}
	}
	d.until.Store(settled)
	return nil
}

// Retry is confirmed by SQS. It rounds the delay up to whole seconds.
func (d *delivery) Retry(ctx context.Context, delay time.Duration) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	if !d.holds() {
		return nil
	}
	delay = min(delay, maxDelay)
	rest := d.received + maxLeased - time.Since(d.queue.epoch)
	if d.alone.Load() || d.box == d.queue.main && (delay > rest || d.worn()) {
		return d.renew(ctx, "retry", delay)
	}
	delay = min(delay, rest)
	if err := d.box.changes.do(ctx, change{d.handle, seconds(delay)}, delay <= 0); err != nil && !stale(err) {
		return failed(ctx, "retry", err)
	}
	d.until.Store(settled)
	return nil
}

// maxDelay is the longest delay whose end a message can name.
const maxDelay = 100 * 365 * 24 * time.Hour

// worn reports whether the queue's redrive policy would soon take the message for a dead letter,
// which a ticket that was handed back is not.
func (d *delivery) worn() bool {
	most := d.queue.main.maxReceives
	return most > 0 && d.count > most/2
}

// renew sends the ticket in a new message, and removes the old one. When it fails in between,
// the ticket is there twice.
func (d *delivery) renew(ctx context.Context, what string, delay time.Duration) error {
	if err := d.queue.send(ctx, what, d.ticket, delay); err != nil {
		return err
	}
	return d.remove(ctx, what)
}

// deadDelivery is a queue.Dead.
type deadDelivery struct{ *delivery }

var _ queue.Dead = deadDelivery{}

// Dead tells of the redrive policy.
func (d deadDelivery) Dead() string {
	return fmt.Sprintf("its ticket was received %d times without being removed, so the redrive policy of the queue moved it to its dead-letter queue", d.queue.main.maxReceives)
}
