package sqsqueue_test

import (
	"context"
	"fmt"
	"maps"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/service/sqs"
	"github.com/aws/aws-sdk-go-v2/service/sqs/types"

	"github.com/pay-theory/streamer/v2/queue/sqsqueue"
)

// double stands in for SQS where an emulator can't: it does as the documentation says, to the
// millisecond, in the time of a testing/synctest bubble. Its queues are made by naming them.
type double struct {
	mu      sync.Mutex
	queues  map[string]*doubled
	calls   map[string]int // of each operation
	changed chan struct{}  // closed and replaced when a message may have become visible
	serial  int

	// before, where it is set, sees each call before it takes effect, and may refuse it; after sees
	// it when it has taken effect.
	before, after func(operation string, in any) error

	deaf atomic.Bool // no call is answered

	// refuse, where it is set, returns the code with which an entry of a batch fails, by its body or
	// handle; empty: it does not.
	refuse func(operation, of string) string
}

// doubled is a queue of a double.
type doubled struct {
	attributes map[string]string
	fifo       bool
	redrive    int    // 0: never
	dead       string // URL
	messages   []*doubledMessage
	seen       map[string]time.Time // ids of messages by which copies are dropped
}

type doubledMessage struct {
	body, group, handle string
	visible             time.Time
	received            time.Time
	count               int // receives since it came to this queue
}

func newDouble() *double {
	return &double{queues: map[string]*doubled{}, calls: map[string]int{}, changed: make(chan struct{})}
}

// create makes a queue, with a redrive policy where dead is a URL.
func (d *double) create(url, dead string, redrive int) {
	d.mu.Lock()
	defer d.mu.Unlock()
	q := &doubled{fifo: strings.HasSuffix(url, ".fifo"), redrive: redrive, dead: dead, seen: map[string]time.Time{}}
	q.attributes = map[string]string{
		"QueueArn": arn(url), "VisibilityTimeout": "30", "MaximumMessageSize": "1048576", "MessageRetentionPeriod": "345600",
		"ReceiveMessageWaitTimeSeconds": "0", "DelaySeconds": "0", "FifoQueue": strconv.FormatBool(q.fifo),
	}
	if redrive > 0 {
		q.attributes["RedrivePolicy"] = fmt.Sprintf(`{"deadLetterTargetArn":%q,"maxReceiveCount":"%d"}`, arn(dead), redrive)
	}
	d.queues[url] = q
}

func arn(url string) string { return "arn:of:" + url }

// call begins a call, with mu locked when it returns without error.
func (d *double) call(ctx context.Context, operation, url string, in any) (*doubled, error) {
	d.mu.Lock()
	d.calls[operation]++
	before := d.before
	d.mu.Unlock()
	if before != nil {
		if err := before(operation, in); err != nil {
			return nil, err
		}
	}
	if d.deaf.Load() {
		<-ctx.Done()
	}
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	d.mu.Lock()
	q := d.queues[url]
	if q == nil {
		d.mu.Unlock()
		return nil, &types.QueueDoesNotExist{Message: new("The specified queue does not exist.")}
	}
	return q, nil
}

// done ends a call.
func (d *double) done(operation string, in any) error {
	after := d.after
	d.mu.Unlock()
	if after != nil {
		return after(operation, in)
	}
	return nil
}

// calm has nothing done before or after calls, or refused, any more, though some may be under way.
func (d *double) calm() {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.before, d.after, d.refuse = nil, nil, nil
}

// notify has polls look again. mu is locked.
func (d *double) notify() {
	close(d.changed)
	d.changed = make(chan struct{})
}

// doubledURL is of the queue that most tests on a double have.
const doubledURL = "https://double.test/1/queue"

// doubledQueue returns a double with one queue, and that queue.
func doubledQueue(tb testing.TB, opts ...sqsqueue.Option) (*double, *sqsqueue.Queue) {
	tb.Helper()
	d := newDouble()
	d.create(doubledURL, "", 0)
	return d, open(tb, d, doubledURL, opts...)
}

// count returns how many calls of an operation there were.
func (d *double) count(operation string) int {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.calls[operation]
}

// bodies returns what a queue holds.
func (d *double) bodies(url string) []string {
	d.mu.Lock()
	defer d.mu.Unlock()
	var all []string
	for _, m := range d.queues[url].messages {
		all = append(all, m.body)
	}
	return all
}

// put puts messages into a queue, at once.
func (d *double) put(url string, bodies ...string) {
	d.mu.Lock()
	defer d.mu.Unlock()
	for _, body := range bodies {
		d.queues[url].messages = append(d.queues[url].messages, &doubledMessage{body: body, visible: time.Now()})
	}
	d.notify()
}

// refused notes that an entry fails where refuse says so. mu is locked.
func (d *double) refused(operation, of string, id *string, failed *[]types.BatchResultErrorEntry) bool {
	if d.refuse == nil {
		return false
	}
	code := d.refuse(operation, of)
	if code != "" && code != silent {
		*failed = append(*failed, types.BatchResultErrorEntry{Id: id, Code: &code, Message: new("the test says so")})
	}
	return code != ""
}

// silent is a code with which the answer does not speak of the entry.
const silent = "silent"

func (d *double) SendMessageBatch(ctx context.Context, in *sqs.SendMessageBatchInput, _ ...func(*sqs.Options)) (*sqs.SendMessageBatchOutput, error) {
	q, err := d.call(ctx, "SendMessageBatch", *in.QueueUrl, in)
	if err != nil {
		return nil, err
	}
	out, size := new(sqs.SendMessageBatchOutput), 0
	for _, e := range in.Entries {
		size += len(*e.MessageBody)
		if d.refused("SendMessageBatch", *e.MessageBody, e.Id, &out.Failed) {
			continue
		}
		if code := q.refuses(e); code != "" {
			out.Failed = append(out.Failed, types.BatchResultErrorEntry{Id: e.Id, Code: &code, SenderFault: true})
			continue
		}
		out.Successful = append(out.Successful, types.SendMessageBatchResultEntry{Id: e.Id})
		now := time.Now()
		if id := text(e.MessageDeduplicationId); q.fifo {
			if now.Sub(q.seen[id]) < 5*time.Minute {
				continue
			}
			q.seen[id] = now
		}
		q.messages = append(q.messages, &doubledMessage{
			body: *e.MessageBody, group: text(e.MessageGroupId), visible: now.Add(time.Duration(e.DelaySeconds) * time.Second),
		})
	}
	if len(in.Entries) > 10 || size > 1<<20 {
		panic("the batch is too large: SQS would refuse it")
	}
	d.notify()
	return out, d.done("SendMessageBatch", in)
}

// refuses returns the code of why a message is not taken, or nothing.
func (q *doubled) refuses(e types.SendMessageBatchRequestEntry) string {
	strange := func(r rune) bool {
		return r < ' ' && r != '\t' && r != '\n' && r != '\r' || r == '\ufffe' || r == '\uffff'
	}
	group := text(e.MessageGroupId)
	switch {
	case len(*e.MessageBody) > 1<<20:
		return "InvalidParameterValue"
	case strings.ContainsFunc(*e.MessageBody, strange):
		return "InvalidMessageContents"
	case e.DelaySeconds > 900, q.fifo && e.DelaySeconds != 0:
		return "InvalidParameterValue"
	case len(group) > 128 || strings.ContainsFunc(group, func(r rune) bool { return r <= ' ' || r > '~' }):
		return "InvalidParameterValue"
	case q.fifo && (group == "" || text(e.MessageDeduplicationId) == ""):
		return "MissingParameter"
	}
	return ""
}

func (d *double) ReceiveMessage(ctx context.Context, in *sqs.ReceiveMessageInput, _ ...func(*sqs.Options)) (*sqs.ReceiveMessageOutput, error) {
	q, err := d.call(ctx, "ReceiveMessage", *in.QueueUrl, in)
	if err != nil {
		return nil, err
	}
	seconds, _ := strconv.Atoi(q.attributes["ReceiveMessageWaitTimeSeconds"])
	if in.WaitTimeSeconds > 0 {
		seconds = int(in.WaitTimeSeconds)
	}
	wait := time.NewTimer(time.Duration(seconds) * time.Second)
	defer wait.Stop()
	ended := ctx.Done()
	for {
		taken, next := d.take(q, in)
		if len(taken) > 0 {
			if ended == nil { // nobody is there to have them
				d.mu.Unlock()
				return nil, ctx.Err()
			}
			return &sqs.ReceiveMessageOutput{Messages: taken}, d.done("ReceiveMessage", in)
		}
		changed := d.changed
		d.mu.Unlock()
		visible := time.NewTimer(next)
		select {
		case <-changed:
		case <-visible.C:
		case <-wait.C:
			d.mu.Lock()
			return new(sqs.ReceiveMessageOutput), d.done("ReceiveMessage", in)
		case <-ended:
			ended = nil // the poll goes on: what it takes is stranded
		}
		visible.Stop()
		d.mu.Lock()
	}
}

// take leases messages, and returns when the next becomes visible where there are none. mu is locked.
func (d *double) take(q *doubled, in *sqs.ReceiveMessageInput) (taken []types.Message, next time.Duration) {
	now := time.Now()
	next = time.Hour
	locked := map[string]bool{}
	for _, m := range q.messages {
		if m.count > 0 && m.visible.After(now) {
			locked[m.group] = true
		}
	}
	for _, m := range append([]*doubledMessage(nil), q.messages...) {
		switch {
		case m.visible.After(now):
			next = min(next, m.visible.Sub(now))
			continue
		case len(taken) == int(in.MaxNumberOfMessages), q.fifo && locked[m.group]:
			continue
		case q.redrive > 0 && m.count == q.redrive:
			q.remove(m)
			m.count = 0
			d.queues[q.dead].messages = append(d.queues[q.dead].messages, m)
			continue
		}
		d.serial++
		m.handle = "handle-" + strconv.Itoa(d.serial)
		m.received, m.visible = now, now.Add(time.Duration(in.VisibilityTimeout)*time.Second)
		m.count++
		taken = append(taken, types.Message{
			Body: new(m.body), ReceiptHandle: new(m.handle), Attributes: map[string]string{"ApproximateReceiveCount": strconv.Itoa(m.count)},
		})
	}
	return taken, next
}

func (q *doubled) remove(m *doubledMessage) {
	for i, other := range q.messages {
		if other == m {
			q.messages = append(q.messages[:i:i], q.messages[i+1:]...)
			return
		}
	}
}

// find returns the message that was last received with a handle.
func (q *doubled) find(handle string) *doubledMessage {
	for _, m := range q.messages {
		if m.handle == handle {
			return m
		}
	}
	return nil
}

func (d *double) DeleteMessageBatch(ctx context.Context, in *sqs.DeleteMessageBatchInput, _ ...func(*sqs.Options)) (*sqs.DeleteMessageBatchOutput, error) {
	q, err := d.call(ctx, "DeleteMessageBatch", *in.QueueUrl, in)
	if err != nil {
		return nil, err
	}
	out := new(sqs.DeleteMessageBatchOutput)
	for _, e := range in.Entries {
		if d.refused("DeleteMessageBatch", *e.ReceiptHandle, e.Id, &out.Failed) {
			continue
		}
		if m := q.find(*e.ReceiptHandle); m != nil {
			q.remove(m)
		}
		out.Successful = append(out.Successful, types.DeleteMessageBatchResultEntry{Id: e.Id})
	}
	d.notify()
	return out, d.done("DeleteMessageBatch", in)
}

func (d *double) ChangeMessageVisibilityBatch(ctx context.Context, in *sqs.ChangeMessageVisibilityBatchInput, _ ...func(*sqs.Options)) (*sqs.ChangeMessageVisibilityBatchOutput, error) {
	q, err := d.call(ctx, "ChangeMessageVisibilityBatch", *in.QueueUrl, in)
	if err != nil {
		return nil, err
	}
	out := new(sqs.ChangeMessageVisibilityBatchOutput)
	now := time.Now()
	for _, e := range in.Entries {
		if d.refused("ChangeMessageVisibilityBatch", *e.ReceiptHandle, e.Id, &out.Failed) {
			continue
		}
		m, until := q.find(*e.ReceiptHandle), now.Add(time.Duration(e.VisibilityTimeout)*time.Second)
		code := ""
		switch {
		case m == nil || !m.visible.After(now):
			code = "MessageNotInflight"
		case e.VisibilityTimeout < 0 || until.After(m.received.Add(12*time.Hour)):
			code = "InvalidParameterValue"
		default:
			m.visible = until
			out.Successful = append(out.Successful, types.ChangeMessageVisibilityBatchResultEntry{Id: e.Id})
			continue
		}
		out.Failed = append(out.Failed, types.BatchResultErrorEntry{Id: e.Id, Code: &code, SenderFault: true})
	}
	d.notify()
	return out, d.done("ChangeMessageVisibilityBatch", in)
}

func (d *double) GetQueueAttributes(ctx context.Context, in *sqs.GetQueueAttributesInput, _ ...func(*sqs.Options)) (*sqs.GetQueueAttributesOutput, error) {
	q, err := d.call(ctx, "GetQueueAttributes", *in.QueueUrl, in)
	if err != nil {
		return nil, err
	}
	now := time.Now()
	var visible, leased, delayed int
	for _, m := range q.messages {
		switch {
		case !m.visible.After(now):
			visible++
		case m.count > 0:
			leased++
		default:
			delayed++
		}
	}
	a := maps.Clone(q.attributes)
	a["ApproximateNumberOfMessages"] = strconv.Itoa(visible)
	a["ApproximateNumberOfMessagesNotVisible"] = strconv.Itoa(leased)
	a["ApproximateNumberOfMessagesDelayed"] = strconv.Itoa(delayed)
	return &sqs.GetQueueAttributesOutput{Attributes: a}, d.done("GetQueueAttributes", in)
}

func text(s *string) string {
	if s == nil {
		return ""
	}
	return *s
}
