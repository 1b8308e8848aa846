package dynamolog

import (
	"fmt"
	"time"
)

// Option sets something of a Log. New returns an error for invalid values.
type Option func(*config)

type config struct {
	blobs       Blobs
	fast, quiet time.Duration
	withoutTTL  bool
}

// WithBlobs sets where the events of a record go that are more than 32 KiB, which DynamoDB
// stores at thirty times the price. All processes must have the same. Default: all events are
// in the table, and a record with more than 1 MiB of them is refused.
func WithBlobs(b Blobs) Option { return func(c *config) { c.blobs = b } }

// WithPoll sets how often a watched log is looked at: each fast while it changes, and as it
// stays quiet ever less often, down to each quiet. A cancel reaches a worker in another process
// within quiet at most. 10 ms to 1 min, quiet not less than fast; default: 200 ms and 1 s.
func WithPoll(fast, quiet time.Duration) Option {
	return func(c *config) { c.fast, c.quiet = fast, quiet }
}

// WithoutTTL has New take a table whose time to live is off. Logs are gone all the same when
// their retention is over, but take room until something else removes them. It is meant for
// emulators that have no time to live.
func WithoutTTL() Option { return func(c *config) { c.withoutTTL = true } }

// newConfig applies options and defaults, and returns an error for what makes no sense.
func newConfig(opts []Option) (config, error) {
	c := config{fast: 200 * time.Millisecond, quiet: time.Second}
	for _, o := range opts {
		o(&c)
	}
	const shortest, longest = 10 * time.Millisecond, time.Minute
	if c.fast < shortest || c.quiet < c.fast || c.quiet > longest {
		return c, fmt.Errorf("WithPoll(%v, %v): must be %v to %v, the second not less than the first", c.fast, c.quiet, shortest, longest)
	}
	return c, nil
}
