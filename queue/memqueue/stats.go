package memqueue

import (
	"context"
	"time"

	"github.com/pay-theory/streamer/v2/queue"
)

var _ queue.Measured = (*Queue)(nil)

// Depth returns the part of Stats that all queues have.
func (q *Queue) Depth(ctx context.Context) (queue.Depth, error) {
	if err := ctx.Err(); err != nil {
		return queue.Depth{}, err
	}
	s := q.Stats()
	return queue.Depth{Ready: s.Ready, Leased: s.Leased, Delayed: s.Delayed, Oldest: s.Oldest}, nil
}

// Stats is how a Queue stands.
type Stats struct {
	Ready   int           // tickets that could be delivered now
	Leased  int           // tickets that workers have
	Delayed int           // tickets that wait for the delay of a Retry to pass
	Bytes   int           // what all of them count for; see WithMaxBytes
	Groups  int           // groups with ready tickets
	Waiting int           // calls of Receive that wait
	Oldest  time.Duration // how long the longest of the ready tickets has been ready
}

// Stats returns how the queue stands, in time proportional to the number of groups.
func (q *Queue) Stats() Stats {
	q.mu.Lock()
	defer q.unlock()
	now := q.now()
	q.settle(now)
	s := Stats{
		Ready:   q.ready(),
		Leased:  q.leased,
		Delayed: len(q.timed) - q.leased,
		Bytes:   q.bytes,
		Groups:  len(q.groups),
		Waiting: q.waiters.Len(),
	}
	for _, g := range q.groups {
		for _, e := range []*entry{g.fresh.first, g.back.first} {
			if e != nil {
				s.Oldest = max(s.Oldest, now-e.at)
			}
		}
	}
	return s
}
