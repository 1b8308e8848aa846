// Package sqsqueue is a queue.Queue on Amazon SQS: tickets are as durable as a queue of SQS, and
// any number of processes share them.
//
// On a standard queue a ticket's group is its message group: SQS prefers the tickets of groups
// that have few in work to those of groups that have many (fair queues). On a FIFO queue the
// tickets of a group are delivered in order, one at a time. Standard queues are what most want:
// order and exactly one end are the log's.
package sqsqueue

import (
	"container/list"
	"context"
	"crypto/rand"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"strings"
	"sync"
	"sync/atomic"
	"time"
	"unicode/utf16"

	"github.com/aws/aws-sdk-go-v2/service/sqs"
	"github.com/aws/aws-sdk-go-v2/service/sqs/types"

	"github.com/pay-theory/streamer/v2/queue"
)

// Client is what is needed of an *sqs.Client.
type Client interface {
	SendMessageBatch(context.Context, *sqs.SendMessageBatchInput, ...func(*sqs.Options)) (*sqs.SendMessageBatchOutput, error)
	ReceiveMessage(context.Context, *sqs.ReceiveMessageInput, ...func(*sqs.Options)) (*sqs.ReceiveMessageOutput, error)
	DeleteMessageBatch(context.Context, *sqs.DeleteMessageBatchInput, ...func(*sqs.Options)) (*sqs.DeleteMessageBatchOutput, error)
	ChangeMessageVisibilityBatch(context.Context, *sqs.ChangeMessageVisibilityBatchInput, ...func(*sqs.Options)) (*sqs.ChangeMessageVisibilityBatchOutput, error)
	GetQueueAttributes(context.Context, *sqs.GetQueueAttributesInput, ...func(*sqs.Options)) (*sqs.GetQueueAttributesOutput, error)
}

// Queue is a queue.Queue on one queue of SQS. All methods are safe for concurrent use.
//
// One poll at a time waits at SQS, however many calls of Receive do, and asks for no more
// tickets than these return. It is not cut short when they end, since that can strand a ticket
// for a lease: what comes when nobody wants it any more is handed back at once.
//
// Calls that happen at the same time share a call of SQS, up to ten of them; Ack, Extend and Retry
// with a delay wait a moment for others (WithLinger). A call of SQS is made once: what the client's
// configuration says of retries does not apply. What SQS refuses of a batch that it takes, and not by
// the sender's fault, is tried once more, alone.
//
// SQS does not notice all calls of a stale holder, so a delivery keeps track of its lease
// itself, by the clock of its process: after the end Extend returns queue.ErrLeaseLost, Ack and
// Retry do nothing. A call that is on its way as the lease ends can still take effect. The last
// tenth of a lease, a second at most, counts as over until it is first extended: so long the
// ticket may have been on its way.
//
// SQS leases a message for 12 hours at most, however often it is extended. When these have no room
// for another lease, Extend removes the message, and the lease goes on without it: should the
// process die after that, it is the sweep of a router that finds the request without a sign of life
// and enqueues it again.
type Queue struct {
	cfg    config
	client Client
	main   *box
	dead   *box            // of the dead letters; nil: none is looked at
	epoch  time.Time       // leases are kept as time since then
	life   context.Context // of calls that are made for several or for nobody; nothing ends it

	foreign atomic.Int64 // messages that were found to be no tickets

	mu      sync.Mutex
	waiters list.List // of *waiter
	polling bool      // somebody asks for them
	look    time.Time // when the dead letters are to be looked at
	depth   queue.Depth
	taken   time.Time // when depth was; zero: never
	closed  bool
	closing chan struct{}  // closed by Close
	users   sync.WaitGroup // calls, and what is done for several or for nobody
}

var _ queue.Queue = (*Queue)(nil)

// New returns the queue at a URL of SQS, which must exist: New makes and changes nothing, and
// says what in its attributes does not fit. The context bounds New only.
func New(ctx context.Context, client Client, url string, opts ...Option) (*Queue, error) {
	c, err := newConfig(opts)
	if err != nil {
		return nil, fmt.Errorf("sqsqueue: %w", err)
	}
	bounded, cancel := context.WithTimeout(ctx, setupTimeout)
	defer cancel()
	q := &Queue{cfg: c, client: client, epoch: time.Now(), life: context.WithoutCancel(ctx), closing: make(chan struct{})}
	if err := q.open(bounded, url); err != nil {
		return nil, fmt.Errorf("sqsqueue: %w", err)
	}
	return q, nil
}

const (
	setupTimeout = 10 * time.Second // what New waits for SQS
	callTimeout  = 5 * time.Second  // what a call waits for it when its context gives it longer, and a poll beyond its wait
)

// Lease returns what WithLease set, else what the queue's visibility timeout was when New was
// called.
func (q *Queue) Lease() time.Duration { return q.cfg.lease }

// Foreign returns how often this Queue has found a message that is no ticket. Each time it is
// hidden for an hour, and told in the log (WithLogger).
func (q *Queue) Foreign() int64 { return q.foreign.Load() }

// envelope is how a ticket is stored.
type envelope struct {
	Version int   `json:"v"`
	Due     int64 `json:"due,omitempty"` // in Unix milliseconds: it is not to be delivered before
	queue.Ticket
}

// version is what this code writes and reads.
const version = 1

// encode returns the body of a message, in characters that SQS and those who stand in for it take.
func encode(e envelope) (string, error) {
	data, err := json.Marshal(e)
	if err != nil {
		return "", err
	}
	body := string(data)
	if !strings.ContainsFunc(body, func(r rune) bool { return r > '\ufffd' }) {
		return body, nil
	}
	var b strings.Builder
	for _, r := range body {
		if r <= '\ufffd' {
			b.WriteRune(r)
			continue
		}
		for _, unit := range utf16.AppendRune(nil, r) {
			fmt.Fprintf(&b, `\u%04x`, unit)
		}
	}
	return b.String(), nil
}

// decode returns what encode made a body of, and false for the body of a message that is somebody
// else's: a ticket of this version has a nonce, though it may be empty.
func decode(body string) (e envelope, ok bool) {
	var in struct {
		envelope
		Nonce *string `json:"nonce"`
	}
	err := json.Unmarshal([]byte(body), &in)
	if err != nil || in.Version < version || in.Version == version && in.Nonce == nil {
		return envelope{}, false
	}
	if in.Nonce != nil {
		in.envelope.Nonce = *in.Nonce
	}
	return in.envelope, true
}

// Enqueue returns nil when SQS has stored the ticket.
func (q *Queue) Enqueue(ctx context.Context, t queue.Ticket) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	return q.send(ctx, "enqueue", t, 0)
}

// maxSendDelay is the longest delay that SQS takes with a message.
const maxSendDelay = 15 * time.Minute

// send sends a ticket that is not to be delivered before the delay has passed.
func (q *Queue) send(ctx context.Context, what string, t queue.Ticket, delay time.Duration) error {
	e := envelope{Version: version, Ticket: t}
	if delay > 0 {
		e.Due = time.Now().Add(delay).UnixMilli()
	}
	body, err := encode(e)
	if err != nil {
		return fmt.Errorf("sqsqueue: %s: %w", what, err)
	}
	if len(body) > q.main.maxSize {
		return fmt.Errorf("sqsqueue: %s: %w: %d bytes, the queue takes %d (its MaximumMessageSize)", what, queue.ErrTooLarge, len(body), q.main.maxSize)
	}
	entry := types.SendMessageBatchRequestEntry{MessageBody: &body}
	if q.main.fifo {
		// SQS drops a message that has the id of one of the last five minutes, also when that one
		// has long been received and removed. A ticket too many does no harm, one too few does.
		id := rand.Text()
		entry.MessageDeduplicationId, entry.MessageGroupId = &id, new(groupID(t.Group, id))
	} else {
		entry.DelaySeconds = seconds(min(delay, maxSendDelay))
		if t.Group != "" {
			entry.MessageGroupId = new(groupID(t.Group, ""))
		}
	}
	if err := q.main.sends.do(ctx, entry, false); err != nil {
		return failed(ctx, what, err)
	}
	return nil
}

// seconds rounds up to what SQS counts in.
func seconds(d time.Duration) int32 {
	return int32((max(d, 0) + time.Second - 1) / time.Second)
}

// groupID returns the message group of a ticket's group: the same text behind a =, or its hash
// where SQS would not take that. A ticket without a group is alone in its own.
func groupID(group, own string) string {
	const most = 128 // characters
	refused := func(r rune) bool { return r <= ' ' || r > '~' }
	switch {
	case group == "":
		return "-" + own
	case len(group) < most && !strings.ContainsFunc(group, refused):
		return "=" + group
	}
	sum := sha256.Sum256([]byte(group))
	return "#" + hex.EncodeToString(sum[:])
}

// Close ends calls of Receive with queue.ErrUnavailable, waits for what is on its way to SQS, of
// a poll as long as WithPoll says, and hands back what that brings. Deliveries stay usable. The
// client is the caller's.
func (q *Queue) Close() error {
	q.mu.Lock()
	if !q.closed {
		q.closed = true
		close(q.closing)
	}
	q.mu.Unlock()
	q.serve(nil, errClosed)
	q.users.Wait()
	return nil
}

// enter counts a user of the queue, whom Close waits for. It returns false when the queue is closed.
func (q *Queue) enter() bool {
	q.mu.Lock()
	defer q.mu.Unlock()
	if q.closed {
		return false
	}
	q.users.Add(1)
	return true
}
