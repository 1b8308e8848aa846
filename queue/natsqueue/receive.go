package natsqueue

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"github.com/pay-theory/streamer/v2/queue"
)

// lookInterval is how often a Queue that receives looks at the stream.
const lookInterval = time.Second

// Receive waits for a ticket of any lane. When ctx ends while the broker is asked, it waits up
// to a second for the answer, and hands back what that has.
func (q *Queue) Receive(ctx context.Context, limit int) ([]queue.Delivery, error) {
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	if !q.enter() {
		return nil, fmt.Errorf("natsqueue: receive: %w: %w", queue.ErrUnavailable, errClosed)
	}
	defer q.users.Done()
	if err := q.announced(); err != nil {
		return nil, failed(ctx, "receive: listen for tickets", err)
	}
	for {
		now := time.Now()
		if q.turns.lookDue(now, lookInterval) {
			if err := q.look(ctx); err != nil {
				q.turns.lookNow()
				return nil, err
			}
		}
		turn, ok := q.turns.take(min(max(limit, 1), maxPull), now)
		if !ok {
			if err := q.wait(ctx); err != nil {
				return nil, err
			}
			continue
		}
		deliveries, err := q.serve(ctx, turn)
		if len(deliveries) > 0 || err != nil {
			return deliveries, err
		}
	}
}

// wait waits until it may be worth while to take a turn.
func (q *Queue) wait(ctx context.Context) error {
	w := q.turns.wait()
	timer := time.NewTimer(q.turns.next(time.Now()))
	defer timer.Stop()
	select {
	case <-w.signal:
	case <-timer.C:
	case <-ctx.Done():
	case <-q.life.Done():
	}
	q.turns.leave(w)
	if err := q.over(ctx); err != nil {
		q.turns.pass()
		return err
	}
	return nil
}

// over returns why a Receive must end.
func (q *Queue) over(ctx context.Context) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	if q.life.Err() != nil {
		return fmt.Errorf("natsqueue: receive: %w: %w", queue.ErrUnavailable, errClosed)
	}
	return nil
}

// serve asks a lane for tickets. It returns none when there were none, or an error.
func (q *Queue) serve(ctx context.Context, u turn) ([]queue.Delivery, error) {
	c := &q.consumers[u.lane]
	if err := q.openConsumer(ctx, u.lane); err != nil {
		q.turns.again(u)
		return nil, failed(ctx, "receive: consumer "+c.name+" of stream "+q.cfg.stream, err)
	}
	held, o, err := q.pull(ctx, u)
	switch {
	case err == nil:
		c.mute.Store(notMute)
		q.turns.settle(u, o)
	case errors.Is(err, nats.ErrNoResponders) && c.muted(time.Since(q.epoch)):
		err = nil
		q.turns.shut(u, time.Now().Add(mutePause))
	default:
		q.turns.again(u)
		err = failed(ctx, "receive: consumer "+c.name+" of stream "+q.cfg.stream, err)
	}
	if ended := q.over(ctx); ended != nil {
		q.handBack(ctx, held)
		q.turns.pass()
		return nil, ended
	}
	if len(held) == 0 {
		return nil, err
	}
	deliveries := make([]queue.Delivery, len(held))
	for i, d := range held {
		deliveries[i] = d
	}
	return deliveries, nil
}

// listen subscribes to the announcements of tickets, which the stream makes by republishing.
func (q *Queue) listen() error {
	sub, err := q.nc.Subscribe(q.cfg.prefix+".wake.*", func(m *nats.Msg) {
		if lane, ok := q.cfg.lane(m.Subject[strings.LastIndexByte(m.Subject, '.')+1:]); ok {
			q.turns.wake(lane, time.Now())
		}
	})
	if err != nil {
		return err
	}
	ended := make(chan struct{})
	sub.SetClosedHandler(func(string) { close(ended) })
	q.users.Go(func() {
		<-q.life.Done()
		if sub.Unsubscribe() == nil {
			<-ended
		}
	})
	return nil
}

// look asks the stream which lanes hold tickets, and removes what is on no lane.
func (q *Queue) look(ctx context.Context) error {
	if !q.nc.IsConnected() {
		return fmt.Errorf("natsqueue: receive: %w: the connection is %s", queue.ErrUnavailable, strings.ToLower(q.nc.Status().String()))
	}
	bounded, cancel := context.WithTimeout(ctx, answerTimeout)
	defer cancel()
	counts, strange, _, err := q.counts(bounded)
	for subject, n := range strange {
		if err != nil {
			break
		}
		if err = q.stream.Purge(bounded, jetstream.WithPurgeSubject(subject)); err == nil {
			q.foreign.Add(int64(n))
		}
	}
	if err != nil {
		return failed(ctx, "receive: look at stream "+q.cfg.stream, err)
	}
	q.turns.found(counts)
	return nil
}

// counts returns how many messages the stream holds, by lane, and by subject for those that
// belong to none, and when that was, by the broker's clock.
func (q *Queue) counts(ctx context.Context) (lanes map[int]int, strange map[string]uint64, at time.Time, err error) {
	info, err := q.stream.Info(ctx, jetstream.WithSubjectFilter(q.cfg.subjects()))
	if err != nil {
		return nil, nil, time.Time{}, err
	}
	lanes = make(map[int]int)
	strange = make(map[string]uint64)
	for subject, n := range info.State.Subjects {
		token, _, _ := strings.Cut(subject[len(q.cfg.prefix)+len(".ticket."):], ".")
		if lane, ok := q.cfg.lane(token); ok {
			lanes[lane] += int(n)
		} else {
			strange[subject] = n
		}
	}
	return lanes, strange, info.TimeStamp, nil
}
