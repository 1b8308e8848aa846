package sqsqueue

import (
	"fmt"
	"log/slog"
	"time"
)

// Option sets something of a Queue. New returns an error for invalid values.
type Option func(*config)

type config struct {
	lease  time.Duration // 0: the queue's visibility timeout
	poll   time.Duration
	linger time.Duration
	dead   string // the URL of the queue with the dead letters
	logger *slog.Logger
}

// WithLease sets how long a delivered ticket is the receiver's alone unless extended. 1 s to 6 h in
// whole seconds; default: the visibility timeout that the queue has as New is called.
func WithLease(d time.Duration) Option { return func(c *config) { c.lease = d } }

// WithPoll sets how long a poll waits at SQS for a ticket before the next one does. Close waits
// for a poll's end, and an idle process makes one call of SQS in this time. 1 s to 20 s in whole
// seconds; default: 5 s. A timeout of the client's HTTP client must be longer by some seconds.
func WithPoll(d time.Duration) Option { return func(c *config) { c.poll = d } }

// WithLinger sets how long Ack, Extend, and Retry with a delay wait for others to share a call of
// SQS with; a tenth of the lease at most. Nobody waits for these but the bill. 0 to 1 s; default:
// 100 ms.
func WithLinger(d time.Duration) Option { return func(c *config) { c.linger = d } }

// WithDeadLetters has Receive also deliver what the queue's redrive policy has moved to the
// dead-letter queue at this URL: such a delivery is a queue.Dead. It is looked for once a minute
// while somebody waits in Receive. Default: dead letters stay where they are.
func WithDeadLetters(url string) Option { return func(c *config) { c.dead = url } }

// WithLogger sets where it is said that messages on the queue are no tickets. Default:
// slog.Default().
func WithLogger(l *slog.Logger) Option { return func(c *config) { c.logger = l } }

const (
	minLease = time.Second
	maxLease = 6 * time.Hour // so that a lease can be extended at least once before it is over
)

func newConfig(opts []Option) (config, error) {
	c := config{poll: 5 * time.Second, linger: 100 * time.Millisecond}
	for _, o := range opts {
		o(&c)
	}
	if c.logger == nil {
		c.logger = slog.Default()
	}
	switch {
	case c.lease != 0 && !validLease(c.lease):
		return c, fmt.Errorf("WithLease(%v): must be 1s to 6h, in whole seconds", c.lease)
	case c.poll < time.Second || c.poll > 20*time.Second || c.poll%time.Second != 0:
		return c, fmt.Errorf("WithPoll(%v): must be 1s to 20s, in whole seconds", c.poll)
	case c.linger < 0 || c.linger > time.Second:
		return c, fmt.Errorf("WithLinger(%v): must be 0 to 1s", c.linger)
	}
	return c, nil
}

func validLease(d time.Duration) bool {
	return d >= minLease && d <= maxLease && d%time.Second == 0
}
