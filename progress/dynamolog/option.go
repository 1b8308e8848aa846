package dynamolog

import (
	"fmt"
	"log/slog"
	"time"
)

// Option sets something of a Log. New returns an error for invalid values.
type Option func(*config)

type config struct {
	blobs       Blobs
	fast, quiet time.Duration
	withoutTTL  bool
	streams     StreamsClient
	logger      *slog.Logger
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

// WithStreams has watched logs looked at when the table's DynamoDB Stream says that they have
// changed, and else only every 10 × quiet of WithPoll, up to a minute. The stream is read each
// fast, 250 ms at least, while something is watched. While it can't be read, logs are looked at
// as without it. The table must have a stream, of any view type; the client is for the table's
// account and region. DynamoDB allows two processes to read a stream, and each reads all of it:
// the docs say when that is worth it. Default: the stream, if there is one, is not read.
func WithStreams(client StreamsClient) Option { return func(c *config) { c.streams = client } }

// WithLogger sets where it is said that the table's stream can't be followed, and that it is
// again. Default: slog.Default().
func WithLogger(l *slog.Logger) Option { return func(c *config) { c.logger = l } }

// newConfig applies options and defaults, and returns an error for what makes no sense.
func newConfig(opts []Option) (config, error) {
	c := config{fast: 200 * time.Millisecond, quiet: time.Second}
	for _, o := range opts {
		o(&c)
	}
	if c.logger == nil {
		c.logger = slog.Default()
	}
	const shortest, longest = 10 * time.Millisecond, time.Minute
	if c.fast < shortest || c.quiet < c.fast || c.quiet > longest {
		return c, fmt.Errorf("WithPoll(%v, %v): must be %v to %v, the second not less than the first", c.fast, c.quiet, shortest, longest)
	}
	return c, nil
}
