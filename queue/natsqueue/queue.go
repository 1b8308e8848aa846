// Package natsqueue is a queue.Queue on NATS JetStream: tickets are as durable as the stream
// that holds them, and any number of processes share them.
//
// Tickets are spread over lanes by the hash of their group. Workers take turns over the lanes
// that hold tickets, so a group with many tickets does not delay the others, but for those
// that share its lane: with 64 lanes one group in 64.
package natsqueue

import (
	"context"
	"encoding/json"
	"fmt"
	"hash/fnv"
	"strconv"
	"sync"
	"sync/atomic"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"github.com/pay-theory/streamer/v2/queue"
)

// Queue is a queue.Queue on one work-queue stream. All methods are safe for concurrent use.
//
// Each lane has its subjects in the stream and a durable consumer, made when a ticket is first
// found on it. Receive asks for exactly the tickets that it may return, so none waits leased
// for its turn; a lane is served in order, tickets that came back first. A stored ticket wakes
// each waiting process; what is announced by nobody (a lapsed lease, a delay that has passed,
// an announcement that was lost) is found by a look at the stream, about once a second for
// each process that receives.
//
// The broker does not notice calls of a stale holder, so a delivery keeps track of its lease
// itself, by the clock of its process: after the end Extend returns queue.ErrLeaseLost, Ack
// and Retry do nothing. A call that is on its way as the lease ends can still take effect.
//
// A Retry's delay can end up to a second early when the broker restarts meanwhile, since it
// stores times in seconds.
//
// When the broker does not answer, Receive returns queue.ErrUnavailable within two seconds
// rather than when it is back: call it again.
type Queue struct {
	cfg       config
	nc        *nats.Conn
	js        jetstream.JetStream
	stream    jetstream.Stream
	scoped    bool                    // the stream bounds what a scope has
	consumers []consumer              // by lane
	epoch     time.Time               // leases are kept as time since then
	foreign   atomic.Int64            // what was removed since it was no ticket
	turns     *turns                  // whose turn it is
	ports     ports                   // where pulled tickets arrive
	announced func() error            // begins to listen for new tickets, once
	life      context.Context         // of what is done for nobody; ended by Close
	end       context.CancelCauseFunc // ends life
	mu        sync.Mutex
	closed    bool
	users     sync.WaitGroup // calls of Receive, strays, the subscription
}

var _ queue.Queue = (*Queue)(nil)

// New returns the queue on the connection of js, whose stream it makes when it is missing. A
// stream that is there is never changed: when it does not fit, the error says where. The
// context bounds New only.
//
// It needs NATS server 2.12.3 or later, with JetStream.
func New(ctx context.Context, js jetstream.JetStream, opts ...Option) (*Queue, error) {
	c, err := newConfig(opts)
	if err != nil {
		return nil, fmt.Errorf("natsqueue: %w", err)
	}
	nc := js.Conn()
	ctx, cancel := context.WithTimeout(ctx, setupTimeout)
	defer cancel()
	if err := checkServer(nc); err != nil {
		return nil, fmt.Errorf("natsqueue: %w", err)
	}
	stream, err := openStream(ctx, js, c)
	if err != nil {
		return nil, fmt.Errorf("natsqueue: %w", err)
	}
	life, end := context.WithCancelCause(context.WithoutCancel(ctx))
	q := &Queue{
		cfg: c, nc: nc, js: js, stream: stream,
		scoped: stream.CachedInfo().Config.MaxMsgsPerSubject > 0, epoch: time.Now(), turns: newTurns(c.lanes), life: life, end: end,
	}
	q.consumers = q.newConsumers()
	q.announced = sync.OnceValue(q.listen)
	return q, nil
}

const (
	setupTimeout  = 10 * time.Second // what New waits for the broker
	callTimeout   = 5 * time.Second  // what a call waits for the broker when its context gives it longer
	answerTimeout = 2 * time.Second  // the same for Receive, which the broker answers at once

	leaderWait     = 100 * time.Millisecond // until Enqueue asks again whether there is a leader
	leaderAttempts = 10
)

// Lease returns what WithLease set.
func (q *Queue) Lease() time.Duration { return q.cfg.lease }

// Foreign returns how many messages this Queue has found on its subjects and removed because
// they were no tickets.
func (q *Queue) Foreign() int64 { return q.foreign.Load() }

// envelope is how a ticket is stored.
type envelope struct {
	Version int `json:"v"`
	queue.Ticket
}

// version is what this code writes and reads.
const version = 1

// Enqueue returns nil when the stream has stored the ticket. It returns queue.ErrFull when
// the stream is at one of its bounds, or the account or the server at theirs. While the stream
// has no leader it waits for one, up to a second.
func (q *Queue) Enqueue(ctx context.Context, t queue.Ticket) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	data, err := json.Marshal(envelope{version, t})
	if err != nil {
		return fmt.Errorf("natsqueue: enqueue: %w", err)
	}
	if most := q.nc.MaxPayload(); most > 0 && int64(len(data)) > most {
		return fmt.Errorf("natsqueue: enqueue: %w: %d bytes, the server takes %d (its max_payload)", queue.ErrTooLarge, len(data), most)
	}
	bounded, cancel := context.WithTimeout(ctx, callTimeout)
	defer cancel()
	subject := q.cfg.laneSubject(laneOf(t.Group, q.cfg.lanes)) + q.place(t.Scope)
	// When nobody answers, nothing was stored: the stream has no leader for a moment.
	ack, err := q.js.Publish(bounded, subject, data, jetstream.WithRetryAttempts(leaderAttempts), jetstream.WithRetryWait(leaderWait))
	if err != nil {
		return failed(ctx, "enqueue", err)
	}
	if ack.Stream != q.cfg.stream {
		return fmt.Errorf("natsqueue: enqueue: %w: subject %s belongs to stream %s, not to %s", queue.ErrUnavailable, subject, ack.Stream, q.cfg.stream)
	}
	return nil
}

// laneOf returns the lane of a group. It must be the same in all processes and versions.
func laneOf(group string, lanes int) int {
	h := fnv.New32a()
	_, _ = h.Write([]byte(group))
	return int(h.Sum32() % uint32(lanes))
}

// place returns the last token of the subject of a scope's tickets: the broker bounds how many
// messages a subject has. Where it does not, all have one, which is quicker to look at.
func (q *Queue) place(scope string) string {
	if !q.scoped {
		return "all"
	}
	h := fnv.New64a()
	_, _ = h.Write([]byte(scope))
	return strconv.FormatUint(h.Sum64(), 36)
}

// laneSubject returns what the subjects of a lane's tickets start with.
func (c *config) laneSubject(lane int) string {
	return c.prefix + ".ticket." + strconv.Itoa(lane) + "."
}

// subject returns where the tickets of a lane are stored.
func (c *config) subject(lane int) string { return c.laneSubject(lane) + "*" }

// subjects returns where all tickets are stored.
func (c *config) subjects() string { return c.prefix + ".ticket.*.*" }

// wakeSubject returns where the tickets of a lane are announced.
func (c *config) wakeSubject(lane int) string { return c.prefix + ".wake." + strconv.Itoa(lane) }

// lane returns the lane that the last token of a subject names.
func (c *config) lane(token string) (lane int, ok bool) {
	lane, err := strconv.Atoi(token)
	return lane, err == nil && lane >= 0 && lane < c.lanes && strconv.Itoa(lane) == token
}

// Close ends calls of Receive with queue.ErrUnavailable, waits for them, and frees what the
// Queue has. Deliveries stay usable. The connection is the caller's.
func (q *Queue) Close() error {
	q.mu.Lock()
	first := !q.closed
	q.closed = true
	q.mu.Unlock()
	if first {
		q.end(errClosed)
	}
	q.users.Wait()
	q.dropAll()
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
