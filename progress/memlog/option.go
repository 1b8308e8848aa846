package memlog

import "fmt"

// Option sets something of a Log. Invalid values make New panic.
type Option func(*config)

type config struct {
	maxBytes    int64
	maxRequests int64
}

// WithMaxBytes bounds the memory that all logs may hold together, in bytes. More than 0;
// default: 256 MiB.
func WithMaxBytes(n int64) Option { return func(c *config) { c.maxBytes = n } }

// WithMaxRequests bounds how many logs there may be, of open and of ended requests together.
// At least 1; default: 100,000.
func WithMaxRequests(n int) Option { return func(c *config) { c.maxRequests = int64(n) } }

// newConfig applies options and defaults, and panics on what makes no sense.
func newConfig(opts []Option) config {
	c := config{maxBytes: 256 << 20, maxRequests: 100_000}
	for _, o := range opts {
		o(&c)
	}
	switch {
	case c.maxBytes < 1:
		panic(fmt.Sprintf("memlog: WithMaxBytes(%d): must be more than 0", c.maxBytes))
	case c.maxRequests < 1:
		panic(fmt.Sprintf("memlog: WithMaxRequests(%d): at least 1 is needed", c.maxRequests))
	}
	return c
}
