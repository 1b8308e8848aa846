package sqsqueue

import (
	"context"
	"fmt"
	"strconv"
	"sync"
	"time"

	"github.com/aws/aws-sdk-go-v2/service/sqs"
	"github.com/aws/aws-sdk-go-v2/service/sqs/types"

	"github.com/pay-theory/streamer/v2/queue"
)

const (
	leaveTimeout = time.Second      // what a Receive whose context has ended waits for SQS
	newerDelay   = 5 * time.Second  // until a ticket that a newer version wrote is offered again, then twice as long each time,
	newerMost    = 5 * time.Minute  // up to this
	parkedFor    = time.Hour        // until a message that is no ticket is looked at again
	deadInterval = time.Minute      // between looks at the dead letters
	firstPause   = time.Millisecond // before the next poll when one was empty too early, then twice as long each time,
	longestPause = time.Second      // up to this
)

// waiter is a Receive that waits.
type waiter struct {
	limit      int
	done       chan struct{} // closed when what it gets is set
	deliveries []*delivery
	err        error
}

// Receive serves callers that wait in the order they came. When ctx ends as tickets come, it
// waits up to a second for SQS to take them back.
func (q *Queue) Receive(ctx context.Context, limit int) ([]queue.Delivery, error) {
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	if !q.enter() {
		return nil, failed(ctx, "receive", errClosed)
	}
	defer q.users.Done()
	w := &waiter{limit: max(limit, 1), done: make(chan struct{})}
	q.wait(w)
	select {
	case <-w.done:
	case <-ctx.Done():
	}
	if err := ctx.Err(); err != nil {
		q.handBack(ctx, q.leave(w))
		return nil, err
	}
	if w.err != nil {
		return nil, failed(ctx, "receive", w.err)
	}
	deliveries := make([]queue.Delivery, len(w.deliveries))
	for i, d := range w.deliveries {
		deliveries[i] = d
		if d.box == q.dead {
			deliveries[i] = deadDelivery{d}
		}
	}
	return deliveries, nil
}

// wait has somebody ask SQS for the waiter.
func (q *Queue) wait(w *waiter) {
	q.mu.Lock()
	defer q.mu.Unlock()
	if q.closed {
		w.err = errClosed
		close(w.done)
		return
	}
	q.waiters.PushBack(w)
	if !q.polling {
		q.polling = true
		q.users.Go(q.poll)
	}
}

// leave ends the wait of a waiter. What it was served goes to others; what these do not want is
// returned.
func (q *Queue) leave(w *waiter) []*delivery {
	q.mu.Lock()
	defer q.mu.Unlock()
	for e := q.waiters.Front(); e != nil; e = e.Next() {
		if e.Value == w {
			q.waiters.Remove(e)
			return nil
		}
	}
	return q.hand(w.deliveries)
}

// hand gives deliveries to those who wait, and returns what is left of them. mu is locked.
func (q *Queue) hand(ds []*delivery) []*delivery {
	for len(ds) > 0 && q.waiters.Len() > 0 {
		w := q.waiters.Remove(q.waiters.Front()).(*waiter)
		n := min(w.limit, len(ds))
		w.deliveries, ds = ds[:n:n], ds[n:]
		close(w.done)
	}
	return ds
}

// serve gives what a poll has brought to those who wait, and returns what is left of it.
func (q *Queue) serve(ds []*delivery, err error) []*delivery {
	q.mu.Lock()
	defer q.mu.Unlock()
	ds = q.hand(ds)
	for err != nil && q.waiters.Len() > 0 {
		w := q.waiters.Remove(q.waiters.Front()).(*waiter)
		w.err = err
		close(w.done)
	}
	return ds
}

// wanted returns how many tickets those who wait can take, and whether the dead letters are to be
// looked at. When nobody waits, polling ends.
func (q *Queue) wanted() (n int, dead bool) {
	q.mu.Lock()
	defer q.mu.Unlock()
	for e := q.waiters.Front(); e != nil && n < maxBatch; e = e.Next() {
		n += min(e.Value.(*waiter).limit, maxBatch)
	}
	q.polling = n > 0
	if now := time.Now(); q.dead != nil && n > 0 && !now.Before(q.look) {
		q.look = now.Add(deadInterval)
		dead = true
	}
	return min(n, maxBatch), dead
}

// poll asks SQS for tickets as long as somebody waits for some.
func (q *Queue) poll() {
	pause := firstPause
	for {
		n, dead := q.wanted()
		if n == 0 {
			return
		}
		if dead {
			ds, found, err := q.ask(q.dead, n, q.dead.glance)
			if err != nil {
				err = fmt.Errorf("dead letters: %w", err)
			}
			q.handBack(q.life, q.serve(ds, err))
			if found == n { // there may be more
				q.lookAgain()
			}
			continue
		}
		began := time.Now()
		if q.main.fifo {
			n = 1 // several could be of one group, whose tickets go one by one
		}
		ds, found, err := q.ask(q.main, n, q.cfg.poll)
		q.handBack(q.life, q.serve(ds, err))
		if found > 0 || err != nil || time.Since(began) >= q.cfg.poll/2 {
			pause = firstPause
			continue
		}
		select {
		case <-time.After(pause):
			pause = min(2*pause, longestPause)
		case <-q.closing:
		}
	}
}

// lookAgain has the next poll look at the dead letters.
func (q *Queue) lookAgain() {
	q.mu.Lock()
	defer q.mu.Unlock()
	q.look = time.Time{}
}

// ask asks for up to n tickets, and waits for some. It returns those to be delivered, and how
// many messages there were.
func (q *Queue) ask(b *box, n int, wait time.Duration) (ds []*delivery, found int, err error) {
	ctx, cancel := context.WithTimeout(q.life, wait+callTimeout)
	defer cancel()
	out, err := q.client.ReceiveMessage(ctx, &sqs.ReceiveMessageInput{
		QueueUrl:                    &b.url,
		MaxNumberOfMessages:         int32(n),
		VisibilityTimeout:           seconds(q.cfg.lease),
		WaitTimeSeconds:             seconds(wait),
		MessageSystemAttributeNames: []types.MessageSystemAttributeName{types.MessageSystemAttributeNameApproximateReceiveCount},
	}, once)
	if err != nil {
		return nil, 0, err
	}
	now := time.Now()
	var hidden []change
	var foreign []string // their IDs
	for _, m := range out.Messages {
		e, isTicket := decode(text(m.Body))
		var hide time.Duration
		switch due := time.UnixMilli(e.Due).Sub(now); {
		case !isTicket:
			foreign = append(foreign, text(m.MessageId))
			hide = parkedFor
		case e.Version > version:
			// Workers of the newer version are there or will be. Each look counts for the redrive policy.
			hide = min(newerDelay<<min(receives(&m)-1, 10), newerMost)
		case due > 0:
			hide = min(due, maxLeased)
		default:
			ds = append(ds, q.delivered(b, &m, e.Ticket, now))
			continue
		}
		hidden = append(hidden, change{text(m.ReceiptHandle), seconds(hide)})
	}
	if len(foreign) > 0 {
		q.foreign.Add(int64(len(foreign)))
		q.cfg.logger.Warn("messages on the queue are no tickets: they are left there, and looked at again", "queue", b.url, "message_ids", foreign, "in", parkedFor)
	}
	if len(hidden) > 0 {
		ctx, cancel := context.WithTimeout(q.life, callTimeout)
		defer cancel()
		b.hide(ctx, hidden) // where that fails it is seen again when its lease ends
	}
	return ds, len(out.Messages), nil
}

// receives returns how often SQS says that it has delivered a message, this time included.
func receives(m *types.Message) int {
	n, err := strconv.Atoi(m.Attributes[string(types.MessageSystemAttributeNameApproximateReceiveCount)])
	if err != nil {
		return 1
	}
	return max(n, 1)
}

// delivered returns the delivery of a message.
func (q *Queue) delivered(b *box, m *types.Message, t queue.Ticket, now time.Time) *delivery {
	d := &delivery{queue: q, box: b, ticket: t, handle: text(m.ReceiptHandle), received: now.Sub(q.epoch), count: receives(m)}
	lease := q.cfg.lease
	d.until.Store(int64(d.received + lease - min(lease/10, time.Second)))
	return d
}

// handBack gives tickets back that nobody wants.
func (q *Queue) handBack(ctx context.Context, ds []*delivery) {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), leaveTimeout)
	defer cancel()
	var all sync.WaitGroup
	for _, d := range ds {
		all.Go(func() { _ = d.Retry(ctx, 0) }) // else it comes back when its lease ends
	}
	all.Wait()
}
