package sqsqueue

import (
	"context"
	"time"

	"github.com/aws/aws-sdk-go-v2/service/sqs/types"

	"github.com/pay-theory/streamer/v2/queue"
)

var _ queue.Measured = (*Queue)(nil)

// depthLasts is how long what SQS said of itself is taken for true.
const depthLasts = time.Second

// Depth returns how the queue stands as SQS tells it: approximately, and after a change only
// within a minute exactly. Ready is what is visible; Leased what is not, be it that workers have
// it, or that it waits for the delay of a Retry: SQS does not tell these apart. Delayed is what
// waits in a message that was sent anew. Oldest is not known, and 0. Dead letters do not count.
//
// It takes one call of SQS, at most one each second.
func (q *Queue) Depth(ctx context.Context) (queue.Depth, error) {
	if err := ctx.Err(); err != nil {
		return queue.Depth{}, err
	}
	q.mu.Lock()
	d, taken := q.depth, q.taken
	q.mu.Unlock()
	now := time.Now()
	if !taken.IsZero() && now.Sub(taken) < depthLasts {
		return d, nil
	}
	bounded, cancel := context.WithTimeout(ctx, callTimeout)
	defer cancel()
	a, err := q.attributes(bounded, q.main.url)
	if err != nil {
		return queue.Depth{}, failed(ctx, "depth", err)
	}
	d = queue.Depth{
		Ready:   a.number(types.QueueAttributeNameApproximateNumberOfMessages),
		Leased:  a.number(types.QueueAttributeNameApproximateNumberOfMessagesNotVisible),
		Delayed: a.number(types.QueueAttributeNameApproximateNumberOfMessagesDelayed),
	}
	q.mu.Lock()
	defer q.mu.Unlock()
	q.depth, q.taken = d, now
	return d, nil
}
