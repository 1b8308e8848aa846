package memqueue

import (
	"fmt"
	"math"
	"time"
)

// Option sets something of a Queue. Invalid values make New panic.
type Option func(*config)

type config struct {
	lease       time.Duration
	maxTickets  int
	maxPerScope int
	maxBytes    int
}

// WithLease sets how long a delivered ticket is the receiver's alone unless extended. More
// than 0; default: 30 s.
func WithLease(d time.Duration) Option { return func(c *config) { c.lease = d } }

// WithMaxTickets bounds how many tickets the queue holds, leased and delayed ones included.
// At least 1; default: 1,000,000.
func WithMaxTickets(n int) Option { return func(c *config) { c.maxTickets = n } }

// WithMaxPerScope bounds how many tickets of one scope the queue holds, leased and delayed ones
// included: over it, Enqueue returns queue.ErrScopeFull. At least 1; default: no bound of its own.
func WithMaxPerScope(n int) Option { return func(c *config) { c.maxPerScope = n } }

// WithMaxBytes bounds what the tickets take. Each counts for its strings and 256 bytes. At
// least 1; default: 256 MiB.
func WithMaxBytes(n int) Option { return func(c *config) { c.maxBytes = n } }

func newConfig(opts []Option) config {
	c := config{lease: 30 * time.Second, maxTickets: 1_000_000, maxPerScope: math.MaxInt, maxBytes: 256 << 20}
	for _, o := range opts {
		o(&c)
	}
	switch {
	case c.lease <= 0:
		panic(fmt.Sprintf("memqueue: WithLease(%v): must be more than 0", c.lease))
	case c.maxTickets < 1:
		panic(fmt.Sprintf("memqueue: WithMaxTickets(%d): at least 1 is needed", c.maxTickets))
	case c.maxPerScope < 1:
		panic(fmt.Sprintf("memqueue: WithMaxPerScope(%d): at least 1 is needed", c.maxPerScope))
	case c.maxBytes < 1:
		panic(fmt.Sprintf("memqueue: WithMaxBytes(%d): at least 1 is needed", c.maxBytes))
	}
	return c
}
