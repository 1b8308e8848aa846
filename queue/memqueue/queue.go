// Package memqueue is a queue.Queue in the memory of the process. Its semantics are complete:
// tickets are leased, come back when a lease lapses, and are fair between groups. They are
// gone with the process.
package memqueue

import (
	"container/heap"
	"container/list"
	"context"
	"fmt"
	"math"
	"sync"
	"time"

	"github.com/pay-theory/streamer/v2/queue"
)

// Queue is a bounded queue.Queue in memory. All methods are safe for concurrent use, and do
// nothing but return the context's error when the context has ended before the call.
//
// Groups with ready tickets take turns, a ticket each, however many tickets one of them has.
// Within a group, tickets are delivered in the order of Enqueue; those that come back from a
// worker take turns with those that were never delivered, so neither wait for all of the others.
//
// A holder whose lease has ended changes nothing: Extend returns queue.ErrLeaseLost, Ack and
// Retry return nil.
//
// The Queue has no goroutines and needs no closing.
type Queue struct {
	lease       time.Duration
	maxTickets  int
	maxPerScope int
	maxBytes    int
	epoch       time.Time // times below are since then

	mu      sync.Mutex
	tickets int               // all there are; those not in timed are ready
	scopes  map[string]int    // how many of them a scope has
	bytes   int               // what they count for
	groups  map[string]*group // those with ready tickets
	turns   list.List         // the same, in the order they are served
	timed   schedule          // leased and delayed tickets
	leased  int               // how many of them are leased
	waiters list.List         // of *waiter: none while a ticket is ready
	served  []*waiter         // to be woken by unlock

	timer *time.Timer // nil until it is needed
	armed bool        // timer is set: only while somebody waits
	alarm time.Duration
}

var _ queue.Queue = (*Queue)(nil)

// waiter is a Receive that waits.
type waiter struct {
	limit      int
	done       chan struct{} // closed when deliveries is set
	deliveries []queue.Delivery
}

// New returns an empty queue.
func New(opts ...Option) *Queue {
	c := newConfig(opts)
	return &Queue{
		lease:       c.lease,
		maxTickets:  c.maxTickets,
		maxPerScope: c.maxPerScope,
		maxBytes:    c.maxBytes,
		epoch:       time.Now(),
		scopes:      make(map[string]int),
		groups:      make(map[string]*group),
	}
}

// ProcessLocal marks a queue that no other process can share.
func (q *Queue) ProcessLocal() {}

// Lease returns what WithLease set.
func (q *Queue) Lease() time.Duration { return q.lease }

// Enqueue returns queue.ErrFull when the queue is at one of its bounds, queue.ErrScopeFull
// when the ticket's scope is, and queue.ErrTooLarge when the ticket alone is over WithMaxBytes.
func (q *Queue) Enqueue(ctx context.Context, t queue.Ticket) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	e := &entry{ticket: t}
	size := e.size()
	if size > q.maxBytes {
		return fmt.Errorf("memqueue: enqueue: %d bytes: %w", size, queue.ErrTooLarge)
	}
	q.mu.Lock()
	defer q.unlock()
	if q.tickets == q.maxTickets || size > q.maxBytes-q.bytes {
		return fmt.Errorf("memqueue: enqueue: %w: %d tickets, %d bytes", queue.ErrFull, q.tickets, q.bytes)
	}
	if n := q.scopes[t.Scope]; n >= q.maxPerScope {
		return fmt.Errorf("memqueue: enqueue: %w: %d tickets", queue.ErrScopeFull, n)
	}
	q.tickets++
	q.scopes[t.Scope]++
	q.bytes += size
	now := q.now()
	q.line(e, now)
	q.settle(now)
	return nil
}

// Receive serves callers that wait in the order they came.
func (q *Queue) Receive(ctx context.Context, limit int) ([]queue.Delivery, error) {
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	q.mu.Lock()
	now := q.now()
	q.settle(now)
	if q.ready() > 0 {
		deliveries := q.take(limit, now)
		q.unlock()
		return deliveries, nil
	}
	w := &waiter{limit: limit, done: make(chan struct{})}
	place := q.waiters.PushBack(w)
	q.arm(now)
	q.unlock()

	select {
	case <-w.done:
	case <-ctx.Done():
	}
	if err := ctx.Err(); err != nil {
		q.leave(place)
		return nil, err
	}
	return w.deliveries, nil
}

// leave ends the wait of a waiter without result: what it was served is passed on.
func (q *Queue) leave(place *list.Element) {
	q.mu.Lock()
	defer q.unlock()
	now := q.now()
	q.waiters.Remove(place)
	for _, d := range place.Value.(*waiter).deliveries {
		if d := d.(*delivery); d.holds(now) {
			q.release(d.entry)
			q.line(d.entry, now)
		}
	}
	q.settle(now)
}

// unlock unlocks mu, then wakes those who were served meanwhile.
func (q *Queue) unlock() {
	served := q.served
	q.served = nil
	q.mu.Unlock()
	for _, w := range served {
		close(w.done)
	}
}

// The methods below are called with mu locked.

func (q *Queue) now() time.Duration { return time.Since(q.epoch) }

// ready returns how many tickets wait for a worker.
func (q *Queue) ready() int { return q.tickets - len(q.timed) }

// settle brings the queue up to date: tickets that are due become ready, ready tickets go to
// those who wait.
func (q *Queue) settle(now time.Duration) {
	for len(q.timed) > 0 && q.timed[0].at <= now {
		e := q.timed[0]
		q.release(e)
		q.line(e, now)
	}
	for q.waiters.Len() > 0 && q.ready() > 0 {
		w := q.waiters.Remove(q.waiters.Front()).(*waiter)
		w.deliveries = q.take(w.limit, now)
		q.served = append(q.served, w)
	}
	q.arm(now)
}

// arm has the timer call settle when the next ticket is due, as long as somebody waits. It
// may do so early: to set it once is cheaper than to move it each time a lease is extended.
func (q *Queue) arm(now time.Duration) {
	if q.waiters.Len() == 0 || len(q.timed) == 0 {
		if q.armed {
			q.timer.Stop()
			q.armed = false
		}
		return
	}
	at := q.timed[0].at
	if q.armed && q.alarm <= at {
		return
	}
	q.armed, q.alarm = true, at
	if q.timer == nil {
		q.timer = time.AfterFunc(at-now, q.tick)
	} else {
		q.timer.Reset(at - now)
	}
}

// tick is what the timer calls, without mu.
func (q *Queue) tick() {
	q.mu.Lock()
	defer q.unlock()
	q.armed = false
	q.settle(q.now())
}

// line makes a ticket ready.
func (q *Queue) line(e *entry, now time.Duration) {
	e.at = now
	g := q.groups[e.ticket.Group]
	if g == nil {
		g = new(group)
		g.turn = q.turns.PushBack(g)
		q.groups[e.ticket.Group] = g
	}
	g.push(e)
}

// take leases up to limit of the ready tickets.
func (q *Queue) take(limit int, now time.Duration) []queue.Delivery {
	n := min(max(limit, 1), q.ready())
	held := make([]delivery, n)
	out := make([]queue.Delivery, n)
	for i := range out {
		g := q.turns.Front().Value.(*group)
		e := g.pop()
		if g.empty() {
			q.turns.Remove(g.turn)
			delete(q.groups, e.ticket.Group)
		} else {
			q.turns.MoveToBack(g.turn)
		}
		held[i] = delivery{queue: q, entry: e}
		e.holder = &held[i]
		e.delivered = true
		q.leased++
		q.hold(e, now+q.lease)
		out[i] = e.holder
	}
	return out
}

// hold keeps a ticket from being ready for some time.
func (q *Queue) hold(e *entry, until time.Duration) {
	e.at = until
	heap.Push(&q.timed, e)
}

// release ends a ticket's lease or delay.
func (q *Queue) release(e *entry) {
	heap.Remove(&q.timed, e.index)
	if e.holder != nil {
		e.holder = nil
		q.leased--
	}
}

// remove forgets a ticket that is neither ready nor timed.
func (q *Queue) remove(e *entry) {
	q.tickets--
	q.bytes -= e.size()
	scope := e.ticket.Scope
	if q.scopes[scope]--; q.scopes[scope] == 0 {
		delete(q.scopes, scope)
	}
}

// delivery is a queue.Delivery. It is stale when its entry has another holder, or none.
type delivery struct {
	queue *Queue
	entry *entry
}

func (d *delivery) Ticket() queue.Ticket { return d.entry.ticket }

// holds reports whether the lease has not ended. The queue's mu is locked.
func (d *delivery) holds(now time.Duration) bool {
	return d.entry.holder == d && now < d.entry.at
}

func (d *delivery) Extend(ctx context.Context) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	q := d.queue
	q.mu.Lock()
	defer q.unlock()
	now := q.now()
	if !d.holds(now) {
		return fmt.Errorf("memqueue: extend: %w", queue.ErrLeaseLost)
	}
	d.entry.at = now + q.lease
	heap.Fix(&q.timed, d.entry.index)
	return nil
}

func (d *delivery) Ack(ctx context.Context) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	q := d.queue
	q.mu.Lock()
	defer q.unlock()
	if d.holds(q.now()) {
		q.release(d.entry)
		q.remove(d.entry)
	}
	return nil
}

func (d *delivery) Retry(ctx context.Context, delay time.Duration) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	q := d.queue
	q.mu.Lock()
	defer q.unlock()
	now := q.now()
	if !d.holds(now) {
		return nil
	}
	q.release(d.entry)
	if delay > 0 {
		q.hold(d.entry, now+min(delay, math.MaxInt64-now))
	} else {
		q.line(d.entry, now)
	}
	q.settle(now)
	return nil
}
