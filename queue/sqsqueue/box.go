package sqsqueue

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/url"
	"strconv"
	"strings"
	"time"

	"github.com/aws/aws-sdk-go-v2/service/sqs"
	"github.com/aws/aws-sdk-go-v2/service/sqs/types"
)

// box is a queue of SQS: that of the tickets, or that of the dead letters.
type box struct {
	client Client
	url    string
	fifo   bool
	glance time.Duration // the shortest wait of a poll: 0, but where the queue has a longer one by default

	maxSize     int    // bytes of a message
	maxReceives int    // then its redrive policy moves a message; 0: it has none
	deadARN     string // where it moves it

	sends   *batches[types.SendMessageBatchRequestEntry]
	deletes *batches[string]
	changes *batches[change]
}

// minReceives is the least that a redrive policy may allow: a message is also received when a
// worker dies, or an answer of SQS is lost.
const minReceives = 10

// minRetention is how long a queue must keep messages: they are leased for up to 12 hours.
const minRetention = 24 * time.Hour

// open looks at the queues.
func (q *Queue) open(ctx context.Context, url string) error {
	main, a, err := q.box(ctx, url)
	if err != nil {
		return fmt.Errorf("queue %s: %w", url, err)
	}
	q.main = main
	if q.cfg.lease == 0 {
		q.cfg.lease = time.Duration(a.number(types.QueueAttributeNameVisibilityTimeout)) * time.Second
		if !validLease(q.cfg.lease) {
			return fmt.Errorf("queue %s: its VisibilityTimeout is %v, 1s to 6h is needed (change it, or say WithLease)", url, q.cfg.lease)
		}
	}
	linger := min(q.cfg.linger, q.cfg.lease/10)
	main.changes.linger = linger
	if !main.fifo { // else the next of the group waits for it
		main.deletes.linger = linger
	}
	if q.cfg.dead == "" {
		return nil
	}
	dead, a, err := q.box(ctx, q.cfg.dead)
	if err != nil {
		return fmt.Errorf("WithDeadLetters: queue %s: %w", q.cfg.dead, err)
	}
	if arn := a[string(types.QueueAttributeNameQueueArn)]; arn != main.deadARN {
		return fmt.Errorf("WithDeadLetters: queue %s is %s, but the redrive policy of queue %s moves messages to %q", q.cfg.dead, arn, url, main.deadARN)
	}
	q.dead = dead
	return nil
}

// box looks at a queue, and returns where it does not fit.
func (q *Queue) box(ctx context.Context, at string) (*box, attributes, error) {
	if err := checkURL(q.client, at); err != nil {
		return nil, nil, err
	}
	a, err := q.attributes(ctx, at)
	if err != nil {
		return nil, nil, fmt.Errorf("%w%s", err, advice(err))
	}
	b := &box{client: q.client, url: at, fifo: a[string(types.QueueAttributeNameFifoQueue)] == "true"}
	if a.number(types.QueueAttributeNameReceiveMessageWaitTimeSeconds) > 0 {
		b.glance = time.Second
	}
	b.maxSize = a.number(types.QueueAttributeNameMaximumMessageSize)
	b.maxReceives, b.deadARN, err = a.redrive()
	if err != nil {
		return nil, nil, err
	}
	b.sends = &batches[types.SendMessageBatchRequestEntry]{
		queue: q, call: b.send, most: b.maxSize,
		size: func(e types.SendMessageBatchRequestEntry) int { return len(text(e.MessageBody)) },
	}
	b.deletes = &batches[string]{queue: q, call: b.remove}
	b.changes = &batches[change]{queue: q, call: b.hide}
	return b, a, a.check()
}

// attributes are those of a queue, by name.
type attributes map[string]string

func (q *Queue) attributes(ctx context.Context, url string) (attributes, error) {
	out, err := q.client.GetQueueAttributes(ctx, &sqs.GetQueueAttributesInput{
		QueueUrl: &url, AttributeNames: []types.QueueAttributeName{types.QueueAttributeNameAll},
	}, once)
	if errors.Is(err, context.DeadlineExceeded) {
		err = errNoAnswer
	}
	if err != nil {
		return nil, err
	}
	return out.Attributes, nil
}

// number returns a number that a queue always has.
func (a attributes) number(name types.QueueAttributeName) int {
	n, _ := strconv.Atoi(a[string(name)])
	return n
}

// redrive returns after how many receives a message is moved where; 0 for never.
func (a attributes) redrive() (receives int, arn string, err error) {
	policy := a[string(types.QueueAttributeNameRedrivePolicy)]
	if policy == "" {
		return 0, "", nil
	}
	var p struct {
		Target   string      `json:"deadLetterTargetArn"`
		Receives json.Number `json:"maxReceiveCount"` // SQS takes a string too, and returns it
	}
	if err := json.Unmarshal([]byte(policy), &p); err != nil {
		return 0, "", fmt.Errorf("its RedrivePolicy %q: %w", policy, err)
	}
	n, err := strconv.Atoi(p.Receives.String())
	if err != nil {
		return 0, "", fmt.Errorf("its RedrivePolicy %q: maxReceiveCount: %w", policy, err)
	}
	return n, p.Target, nil
}

// check returns where the attributes of a queue do not fit.
func (a attributes) check() error {
	var wrong []string
	if n, _, _ := a.redrive(); n > 0 && n < minReceives {
		wrong = append(wrong, fmt.Sprintf("the maxReceiveCount of its RedrivePolicy is %d: a request whose workers die so often loses its ticket; at least %d is needed, 100 is good", n, minReceives))
	}
	if n := a.number(types.QueueAttributeNameDelaySeconds); n > 0 {
		wrong = append(wrong, fmt.Sprintf("its DelaySeconds is %d: each request would wait for so long; 0 is needed", n))
	}
	if kept := time.Duration(a.number(types.QueueAttributeNameMessageRetentionPeriod)) * time.Second; kept < minRetention {
		wrong = append(wrong, fmt.Sprintf("its MessageRetentionPeriod is %v: then tickets vanish, also leased ones; at least %v is needed", kept, minRetention))
	}
	if len(wrong) == 0 {
		return nil
	}
	return errors.New("it does not fit: " + strings.Join(wrong, "; "))
}

// checkURL returns what can be seen to be wrong with the URL of a queue. A client asks SQS of its
// own region, where another queue may have the name.
func checkURL(client Client, at string) error {
	u, err := url.Parse(at)
	if err != nil || u.Host == "" || strings.Trim(u.Path, "/") == "" {
		return errors.New("this is no URL of a queue: it looks like https://sqs.us-east-1.amazonaws.com/123456789012/name")
	}
	c, ok := client.(interface{ Options() sqs.Options })
	if !ok {
		return nil
	}
	region, ok := strings.CutPrefix(u.Hostname(), "sqs.")
	if !ok {
		return nil
	}
	region, _, ok = strings.Cut(region, ".amazonaws.com")
	if o := c.Options(); ok && o.BaseEndpoint == nil && o.Region != region {
		return fmt.Errorf("it is in region %s, the client is for region %q", region, o.Region)
	}
	return nil
}
