package natsqueue

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"sync/atomic"
	"time"

	"github.com/nats-io/nats.go/jetstream"
)

// consumer is what hands out the tickets of a lane: a durable consumer of the stream.
type consumer struct {
	name    string
	subject string        // that it is pulled by
	opening chan struct{} // holds an element while somebody makes it
	ready   atomic.Bool   // it was there
	dead    bool          // nobody answered the last who made it; guarded by opening
	mute    atomic.Int64  // since when nobody answers, since the queue's epoch; notMute: somebody does
}

func (q *Queue) newConsumers() []consumer {
	all := make([]consumer, q.cfg.lanes)
	for lane := range all {
		c := &all[lane]
		c.name = "lane-" + strconv.Itoa(lane)
		c.subject = apiPrefix(q.js.Options()) + "CONSUMER.MSG.NEXT." + q.cfg.stream + "." + c.name
		c.opening = make(chan struct{}, 1)
		c.mute.Store(notMute)
	}
	return all
}

// apiPrefix returns what the JetStream API of these options starts with.
func apiPrefix(o jetstream.JetStreamOptions) string {
	switch {
	case o.Domain != "":
		return "$JS." + o.Domain + ".API."
	case o.APIPrefix == "":
		return jetstream.DefaultAPIPrefix
	}
	return strings.TrimSuffix(o.APIPrefix, ".") + "."
}

// openConsumer makes the consumer of a lane, or checks the one that is there. It does nothing
// when that was done before.
func (q *Queue) openConsumer(ctx context.Context, lane int) error {
	c := &q.consumers[lane]
	if c.ready.Load() {
		return nil
	}
	ctx, cancel := context.WithTimeout(ctx, callTimeout)
	defer cancel()
	select {
	case c.opening <- struct{}{}:
		defer func() { <-c.opening }()
	case <-ctx.Done():
		return ctx.Err()
	}
	if c.ready.Load() {
		return nil
	}
	began := time.Now()
	want := jetstream.ConsumerConfig{
		Durable:       c.name,
		AckPolicy:     jetstream.AckExplicitPolicy,
		AckWait:       q.cfg.lease,
		MaxDeliver:    -1,
		MaxAckPending: -1,
		FilterSubject: q.cfg.subject(lane),
	}
	if c.dead {
		// A consumer that was made as a cluster lost its quorum can stay without a leader for ever.
		// Its tickets stay when it is removed; those that are leased come back, and are known.
		if err := q.stream.DeleteConsumer(ctx, c.name); err != nil && !errors.Is(err, jetstream.ErrConsumerNotFound) {
			return err
		}
		c.dead = false
	}
	_, err := q.stream.CreateConsumer(ctx, want)
	if errors.Is(err, jetstream.ErrConsumerExists) {
		var there jetstream.Consumer
		if there, err = q.stream.Consumer(ctx, c.name); err == nil {
			err = checkConsumer(there.CachedInfo().Config, want)
		}
	}
	if err != nil {
		c.dead = ctx.Err() != nil && time.Since(began) >= deadAfter
		return err
	}
	c.ready.Store(true)
	return nil
}

const (
	deadAfter = 4 * time.Second // without an answer a consumer that is made counts as dead

	notMute   = -1
	mutePause = 50 * time.Millisecond // until a consumer for which nobody answered is asked again
)

// muted notes that nobody answered for a consumer: it was removed, or it has no leader, when it
// is new or has lost one. It reports whether the time that this takes has not passed.
func (c *consumer) muted(now time.Duration) bool {
	c.ready.Store(false)
	c.mute.CompareAndSwap(notMute, int64(now))
	if since := c.mute.Load(); since == notMute || now-time.Duration(since) < answerTimeout {
		return true
	}
	c.mute.Store(notMute)
	return false
}

// checkConsumer returns where a consumer that is there does not fit.
func checkConsumer(there, want jetstream.ConsumerConfig) error {
	var wrong []string
	differs := func(field string, is, wanted any, remedy string) {
		if is != wanted {
			wrong = append(wrong, fmt.Sprintf("%s is %v, wanted is %v (%s)", field, is, wanted, remedy))
		}
	}
	const remake = "delete the consumer: tickets stay, those that are leased are delivered again"
	differs("ack_wait", there.AckWait, want.AckWait, "give the same to WithLease in all processes, or delete the stream's consumers")
	differs("max_deliver", there.MaxDeliver, want.MaxDeliver, remake)
	differs("max_ack_pending", there.MaxAckPending, want.MaxAckPending, remake)
	differs("filter_subject", there.FilterSubject, want.FilterSubject, remake)
	differs("ack_policy", there.AckPolicy, want.AckPolicy, remake)
	differs("deliver_subject", there.DeliverSubject, "", remake)
	differs("headers_only", there.HeadersOnly, false, remake)
	differs("backoff", len(there.BackOff), 0, remake)
	differs("priority_policy", there.PriorityPolicy, want.PriorityPolicy, remake)
	differs("paused", there.PauseUntil != nil && !there.PauseUntil.IsZero(), false, "resume it")
	if len(wrong) == 0 {
		return nil
	}
	return errors.New("it does not fit: " + strings.Join(wrong, "; "))
}
