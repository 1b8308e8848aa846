package natsqueue

import (
	"context"
	"errors"

	"github.com/nats-io/nats.go/jetstream"

	"github.com/pay-theory/streamer/v2/queue"
)

var _ queue.Measured = (*Queue)(nil)

// Depth returns how the queue stands: Ready is what was never delivered; Leased what was, be it
// that workers have it, that its lease has lapsed, or that it waits for the delay of a Retry:
// the broker does not tell these apart, so Delayed is 0. Oldest is the age of the ticket that
// has been ready longest, of those that were never delivered.
//
// It takes one request to the broker, and two more for each lane that holds tickets.
func (q *Queue) Depth(ctx context.Context) (queue.Depth, error) {
	var s queue.Depth
	if err := ctx.Err(); err != nil {
		return s, err
	}
	bounded, cancel := context.WithTimeout(ctx, callTimeout)
	defer cancel()
	counts, _, at, err := q.counts(bounded)
	if err != nil {
		return s, failed(ctx, "depth", err)
	}
	for lane, n := range counts {
		delivered := uint64(0)
		c, err := q.stream.Consumer(bounded, q.consumers[lane].name)
		switch {
		case errors.Is(err, jetstream.ErrConsumerNotFound):
			s.Ready += n
		case err != nil:
			return queue.Depth{}, failed(ctx, "depth", err)
		default:
			info := c.CachedInfo()
			s.Ready += int(info.NumPending)
			s.Leased += info.NumAckPending
			delivered = info.Delivered.Stream
			if info.NumPending == 0 {
				continue
			}
		}
		m, err := q.stream.GetMsg(bounded, delivered+1, jetstream.WithGetMsgSubject(q.cfg.subject(lane)))
		switch {
		case err == nil:
			s.Oldest = max(s.Oldest, at.Sub(m.Time))
		case !errors.Is(err, jetstream.ErrMsgNotFound): // else it was taken meanwhile
			return queue.Depth{}, failed(ctx, "depth", err)
		}
	}
	return s, nil
}
