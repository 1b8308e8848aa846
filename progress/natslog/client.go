package natslog

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"github.com/pay-theory/streamer/v2/progress"
)

// patience bounds every request to the server. Callers usually have shorter bounds.
const patience = 5 * time.Second

// client speaks to a server about one stream. Of JetStream's protocol it speaks itself what
// nats.go has no calls for, or only calls that try several times.
type client struct {
	nc     *nats.Conn
	link   *link
	api    string // prefix of the API's subjects, with its dot
	stream string

	// replicated says that a direct get may be answered by a server that lags.
	replicated atomic.Bool
}

// message is a stored message.
type message struct {
	subject string
	seq     uint64
	time    time.Time // when it was stored, by the server's clock
	before  uint64    // seq of the message of that subject before it, for republished ones
	header  nats.Header
	data    []byte
}

func apiPrefix(o jetstream.JetStreamOptions) string {
	switch {
	case o.Domain != "":
		return "$JS." + o.Domain + ".API."
	case o.APIPrefix != "":
		return strings.TrimSuffix(o.APIPrefix, ".") + "."
	}
	return jetstream.DefaultAPIPrefix
}

// bounded bounds a call.
func bounded(ctx context.Context) (context.Context, context.CancelFunc) {
	return context.WithTimeout(ctx, patience)
}

// link ends requests when the connection that they went out on is lost, as nobody will answer.
type link struct {
	mu  sync.Mutex
	ctx context.Context // ends with the connection
	end context.CancelFunc
}

// cut ends the requests that are under way.
func (k *link) cut(parent context.Context) {
	k.mu.Lock()
	end := k.end
	k.ctx, k.end = context.WithCancel(parent)
	k.mu.Unlock()
	if end != nil {
		end()
	}
}

// bounded bounds a request.
func (k *link) bounded(ctx context.Context) (context.Context, context.CancelFunc) {
	k.mu.Lock()
	link := k.ctx
	k.mu.Unlock()
	ctx, cancel := bounded(ctx)
	stop := context.AfterFunc(link, cancel)
	return ctx, func() {
		stop()
		cancel()
	}
}

// publish stores a message and returns its sequence, or a *jetstream.APIError.
func (c *client) publish(ctx context.Context, msg *nats.Msg) (uint64, error) {
	ctx, cancel := c.link.bounded(ctx)
	defer cancel()
	reply, err := c.nc.RequestMsgWithContext(ctx, msg)
	if err != nil {
		return 0, err
	}
	var ack struct {
		Stream string              `json:"stream"`
		Seq    uint64              `json:"seq"`
		Error  *jetstream.APIError `json:"error"`
	}
	switch err := json.Unmarshal(reply.Data, &ack); {
	case err != nil:
		return 0, fmt.Errorf("the acknowledgement is malformed: %w", err)
	case ack.Error != nil:
		return 0, ack.Error
	case ack.Stream != c.stream:
		return 0, fmt.Errorf("subject %s is stored by stream %s, not by %s", msg.Subject, ack.Stream, c.stream)
	}
	return ack.Seq, nil
}

// last returns the newest message of a subject, or nil when there is none. All that was
// acknowledged before the call is seen.
func (c *client) last(ctx context.Context, subject string) (*message, error) {
	if c.replicated.Load() {
		return c.leader(ctx, query{LastFor: subject})
	}
	ctx, cancel := c.link.bounded(ctx)
	defer cancel()
	reply, err := c.nc.RequestWithContext(ctx, c.api+"DIRECT.GET."+c.stream+"."+subject, nil)
	if err != nil {
		return nil, err
	}
	return direct(reply)
}

// query says which messages to get, as JetStream's API has it.
type query struct {
	Seq      uint64   `json:"seq,omitempty"`
	LastFor  string   `json:"last_by_subj,omitempty"`
	NextFor  string   `json:"next_by_subj,omitempty"`
	Batch    int      `json:"batch,omitempty"`
	MaxBytes int      `json:"max_bytes,omitempty"`
	LastOf   []string `json:"multi_last,omitempty"`
}

// next returns the first message of a subject from sequence seq on, or nil.
func (c *client) next(ctx context.Context, subject string, seq uint64) (*message, error) {
	q := query{Seq: seq, NextFor: subject}
	if c.replicated.Load() {
		return c.leader(ctx, q)
	}
	request, err := json.Marshal(q)
	if err != nil {
		return nil, err
	}
	ctx, cancel := c.link.bounded(ctx)
	defer cancel()
	reply, err := c.nc.RequestWithContext(ctx, c.api+"DIRECT.GET."+c.stream, request)
	if err != nil {
		return nil, err
	}
	return direct(reply)
}

// leader asks the stream's leader for one message.
func (c *client) leader(ctx context.Context, q query) (*message, error) {
	request, err := json.Marshal(q)
	if err != nil {
		return nil, err
	}
	ctx, cancel := c.link.bounded(ctx)
	defer cancel()
	reply, err := c.nc.RequestWithContext(ctx, c.api+"STREAM.MSG.GET."+c.stream, request)
	if err != nil {
		return nil, err
	}
	var answer struct {
		Error   *jetstream.APIError `json:"error"`
		Message *struct {
			Subject string    `json:"subject"`
			Seq     uint64    `json:"seq"`
			Header  []byte    `json:"hdrs"`
			Data    []byte    `json:"data"`
			Time    time.Time `json:"time"`
		} `json:"message"`
	}
	switch err := json.Unmarshal(reply.Data, &answer); {
	case err != nil:
		return nil, fmt.Errorf("the answer is malformed: %w", err)
	case answer.Error != nil && answer.Error.ErrorCode == jetstream.JSErrCodeMessageNotFound:
		return nil, nil
	case answer.Error != nil:
		return nil, answer.Error
	case answer.Message == nil:
		return nil, errors.New("the answer has no message")
	}
	m := &message{subject: answer.Message.Subject, seq: answer.Message.Seq, time: answer.Message.Time, data: answer.Message.Data}
	if h := answer.Message.Header; len(h) > 0 {
		if m.header, err = nats.DecodeHeadersMsg(h); err != nil {
			return nil, senseless(m.subject, m.seq, err)
		}
	}
	return m, nil
}

// many sends a query with several answers, of which there are at most limit, and calls each
// with them until it returns false. pending says how many more there would have been.
func (c *client) many(ctx context.Context, q query, limit int, each func(*message) bool) (pending uint64, err error) {
	for waits := newWaits(c); ; {
		if pending, err = c.manyNow(ctx, q, limit, each); !waits.after(ctx, err) {
			return pending, err
		}
	}
}

// waits are the pauses between tries to reach who serves a replicated stream or its consumer:
// it takes a moment until all servers of a cluster know that, when it was created and when its
// leader has changed.
type waits struct{ next time.Duration }

func newWaits(c *client) *waits {
	if !c.replicated.Load() {
		return &waits{}
	}
	return &waits{next: 10 * time.Millisecond}
}

// after waits and returns true if a request that failed so is worth another try.
func (w *waits) after(ctx context.Context, err error) bool {
	if !errors.Is(err, nats.ErrNoResponders) || w.next == 0 || pause(ctx, w.next) != nil {
		return false
	}
	if w.next *= 2; w.next > 400*time.Millisecond {
		w.next = 0
	}
	return true
}

func (c *client) manyNow(ctx context.Context, q query, limit int, each func(*message) bool) (pending uint64, err error) {
	request, err := json.Marshal(q)
	if err != nil {
		return 0, err
	}
	ctx, cancel := c.link.bounded(ctx)
	defer cancel()
	inbox := c.nc.NewInbox()
	answers := make(chan *nats.Msg, limit+1)
	sub, err := c.nc.ChanSubscribe(inbox, answers)
	if err != nil {
		return 0, err
	}
	defer sub.Unsubscribe() //nolint:errcheck // it fails when the connection is closed, and then there is nothing to undo
	if err := c.nc.PublishRequest(c.api+"DIRECT.GET."+c.stream, inbox, request); err != nil {
		return 0, err
	}
	for {
		select {
		case reply := <-answers:
			switch status := reply.Header.Get("Status"); status {
			case "":
				m, err := direct(reply)
				if err != nil {
					return 0, err
				}
				if !each(m) {
					return 0, nil
				}
			case "204":
				pending, err := strconv.ParseUint(reply.Header.Get("Nats-Num-Pending"), 10, 64)
				if err != nil {
					return 0, fmt.Errorf("the end of the answers is malformed: %w", err)
				}
				return pending, nil
			default:
				_, err := direct(reply)
				return 0, err
			}
		case <-ctx.Done():
			return 0, ctx.Err()
		}
	}
}

// direct returns the message that a direct get was answered with, or nil.
func direct(reply *nats.Msg) (*message, error) {
	switch status := reply.Header.Get("Status"); status {
	case "":
		return stored(reply)
	case "404":
		return nil, nil
	case "503":
		return nil, nats.ErrNoResponders
	default:
		return nil, fmt.Errorf("the server says %s %s", status, reply.Header.Get("Description"))
	}
}

// stored reads the headers that the server gives direct gets and republished messages.
func stored(reply *nats.Msg) (*message, error) {
	m := &message{subject: reply.Header.Get("Nats-Subject"), header: reply.Header, data: reply.Data}
	var err1, err2, err3 error
	m.seq, err1 = strconv.ParseUint(reply.Header.Get("Nats-Sequence"), 10, 64)
	m.time, err2 = time.Parse(time.RFC3339Nano, reply.Header.Get("Nats-Time-Stamp"))
	if last := reply.Header.Get("Nats-Last-Sequence"); last != "" {
		m.before, err3 = strconv.ParseUint(last, 10, 64)
	}
	if err := errors.Join(err1, err2, err3); err != nil || m.subject == "" {
		return nil, fmt.Errorf("%w: an answer about %q is malformed: %w", progress.ErrUnavailable, m.subject, err)
	}
	return m, nil
}

// purge removes what a subject has below sequence seq.
func (c *client) purge(ctx context.Context, subject string, seq uint64) error {
	request, err := json.Marshal(struct {
		Filter string `json:"filter"`
		Seq    uint64 `json:"seq"`
	}{subject, seq})
	if err != nil {
		return err
	}
	ctx, cancel := c.link.bounded(ctx)
	defer cancel()
	reply, err := c.nc.RequestWithContext(ctx, c.api+"STREAM.PURGE."+c.stream, request)
	if err != nil {
		return err
	}
	var answer struct {
		Error *jetstream.APIError `json:"error"`
	}
	if err := json.Unmarshal(reply.Data, &answer); err != nil {
		return fmt.Errorf("the answer is malformed: %w", err)
	}
	if answer.Error != nil {
		return answer.Error
	}
	return nil
}
