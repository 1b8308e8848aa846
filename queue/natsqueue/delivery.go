package natsqueue

import (
	"context"
	"fmt"
	"sync/atomic"
	"time"

	"github.com/nats-io/nats.go"

	"github.com/pay-theory/streamer/v2/queue"
)

// delivery is a queue.Delivery.
type delivery struct {
	queue  *Queue
	ticket queue.Ticket
	lane   int
	reply  string       // where the broker takes what is to become of the ticket
	until  atomic.Int64 // when the lease ends, since the queue's epoch; settled: it was ended here
}

// settled is the lease of a ticket that was acked or handed back.
const settled = -1 << 63

func (d *delivery) Ticket() queue.Ticket { return d.ticket }

// holds reports whether the lease has not ended.
func (d *delivery) holds() bool { return int64(time.Since(d.queue.epoch)) < d.until.Load() }

// Extend is confirmed by the broker.
func (d *delivery) Extend(ctx context.Context) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	until := d.until.Load()
	start := time.Since(d.queue.epoch)
	if int64(start) >= until {
		return fmt.Errorf("natsqueue: extend: %w", queue.ErrLeaseLost)
	}
	if err := d.call(ctx, "extend", []byte("+WPI")); err != nil {
		return err
	}
	for !d.until.CompareAndSwap(until, max(until, int64(start+d.queue.cfg.lease))) {
		if until = d.until.Load(); until == settled {
			return fmt.Errorf("natsqueue: extend: %w", queue.ErrLeaseLost)
		}
	}
	return nil
}

// Ack is confirmed by the broker once the ticket is removed.
func (d *delivery) Ack(ctx context.Context) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	if !d.holds() {
		return nil
	}
	if err := d.call(ctx, "ack", []byte("+ACK")); err != nil {
		return err
	}
	d.until.Store(settled)
	return nil
}

// Retry is confirmed by the broker. A delay of more than a hundred years is one of a hundred.
func (d *delivery) Retry(ctx context.Context, delay time.Duration) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	if !d.holds() {
		return nil
	}
	q := d.queue
	delay = min(delay, maxDelay)
	payload := nakFor(delay)
	if delay <= 0 {
		// Only the end of a lease that was moved is stored, so that it survives a restart, but it
		// takes effect some 10 ms later; the other call, which is confirmed for both, does so now.
		if err := q.nc.Publish(d.reply, payload); err != nil {
			return failed(ctx, "retry", err)
		}
		payload = []byte("-NAK")
	}
	if err := d.call(ctx, "retry", payload); err != nil {
		return err
	}
	d.until.Store(settled)
	if delay > 0 {
		q.turns.delay(d.lane, time.Now().Add(delay))
	} else if err := q.nc.Publish(q.cfg.wakeSubject(d.lane), nil); err != nil {
		q.turns.wake(d.lane, time.Now()) // others find it at their next look
	}
	return nil
}

// maxDelay is the longest delay whose end the broker can represent.
const maxDelay = 100 * 365 * 24 * time.Hour

// nakFor returns what has a ticket delivered again after a delay.
func nakFor(delay time.Duration) []byte {
	return fmt.Appendf(nil, `-NAK {"delay":%d}`, max(delay, 0))
}

// call tells the broker what is to become of the ticket, and waits until it has done it.
func (d *delivery) call(ctx context.Context, what string, payload []byte) error {
	bounded, cancel := context.WithTimeout(ctx, callTimeout)
	defer cancel()
	_, err := d.queue.nc.RequestMsgWithContext(bounded, &nats.Msg{Subject: d.reply, Data: payload})
	if err != nil {
		return failed(ctx, what, err)
	}
	return nil
}
