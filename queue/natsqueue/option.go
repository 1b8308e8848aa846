package natsqueue

import (
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/nats-io/nats.go/jetstream"
)

// Option sets something of a Queue. New returns an error for invalid values.
//
// All processes that share a stream must agree on all options.
type Option func(*config)

type config struct {
	stream      string
	prefix      string
	lease       time.Duration
	lanes       int
	storage     *jetstream.StorageType // nil: what is there, else file
	replicas    int                    // 0: what is there, else 1
	maxTickets  int64                  // 0: what is there, else 1,000,000
	maxBytes    int64                  // 0: what is there, else unbounded
	maxPerScope int64                  // 0: what is there, else unbounded
}

// WithStream names the stream. 1 to 255 bytes without spaces and any of . * > / \;
// default: STREAMER_TICKETS.
func WithStream(name string) Option { return func(c *config) { c.stream = name } }

// WithPrefix sets what the subjects of the queue start with: tickets are stored on
// <prefix>.ticket.<lane>.<place> and announced on <prefix>.wake.<lane>. Two queues of one account
// differ in it and in WithStream. Tokens separated by dots; default: streamer.
func WithPrefix(p string) Option { return func(c *config) { c.prefix = p } }

// WithLease sets how long a delivered ticket is the receiver's alone unless extended. At
// least 100 ms; default: 30 s. The consumers that are there must have the same.
func WithLease(d time.Duration) Option { return func(c *config) { c.lease = d } }

// WithLanes sets over how many lanes groups are spread. 1 to 1024; default: 64. In use, a lane
// costs the server about 50 KB and 4 goroutines; with three replicas each server some 350 KB
// and 5 goroutines, and 70 ms once. It can't be changed while the stream exists.
func WithLanes(n int) Option { return func(c *config) { c.lanes = n } }

// WithStorage sets where the stream keeps tickets. Default: jetstream.FileStorage.
// With jetstream.MemoryStorage they are gone with the servers.
func WithStorage(s jetstream.StorageType) Option { return func(c *config) { c.storage = &s } }

// WithReplicas sets how many servers of a cluster keep each ticket. 1 to 5; default: 1.
func WithReplicas(n int) Option { return func(c *config) { c.replicas = n } }

// WithMaxTickets bounds how many tickets the queue holds, leased and delayed ones included.
// At least 1; default: 1,000,000.
func WithMaxTickets(n int) Option { return func(c *config) { c.maxTickets = bound(n) } }

// WithMaxBytes bounds what the stored tickets take. At least 1; default: what account and
// server allow.
func WithMaxBytes(n int64) Option { return func(c *config) { c.maxBytes = bound(n) } }

// WithMaxPerScope bounds how many tickets of one scope the queue holds, leased and delayed ones
// included: over it, Enqueue returns queue.ErrScopeFull. At least 1; default: no bound of its
// own.
func WithMaxPerScope(n int) Option { return func(c *config) { c.maxPerScope = bound(n) } }

// bound returns a bound that was asked for, -1 where it makes no sense: 0 stands for none.
func bound[N int | int64](n N) int64 {
	if n < 1 {
		return -1
	}
	return int64(n)
}

func newConfig(opts []Option) (config, error) {
	c := config{stream: "STREAMER_TICKETS", prefix: "streamer", lease: 30 * time.Second, lanes: 64}
	for _, o := range opts {
		o(&c)
	}
	switch {
	case c.stream == "" || len(c.stream) > 255 || strings.ContainsAny(c.stream, " \t\r\n\f.*>/\\"):
		return c, fmt.Errorf("WithStream(%q): a stream's name has 1 to 255 bytes without spaces and any of . * > / \\", c.stream)
	case !validPrefix(c.prefix):
		return c, fmt.Errorf("WithPrefix(%q): tokens separated by dots are needed, without spaces, * and >", c.prefix)
	case c.lease < 100*time.Millisecond:
		return c, fmt.Errorf("WithLease(%v): at least 100ms is needed", c.lease)
	case c.lanes < 1 || c.lanes > 1024:
		return c, fmt.Errorf("WithLanes(%d): must be 1 to 1024", c.lanes)
	case c.storage != nil && *c.storage != jetstream.FileStorage && *c.storage != jetstream.MemoryStorage:
		return c, fmt.Errorf("WithStorage(%d): must be jetstream.FileStorage or jetstream.MemoryStorage", *c.storage)
	case c.replicas < 0 || c.replicas > 5:
		return c, fmt.Errorf("WithReplicas(%d): must be 1 to 5", c.replicas)
	case c.maxTickets < 0:
		return c, errors.New("WithMaxTickets: at least 1 is needed")
	case c.maxBytes < 0:
		return c, errors.New("WithMaxBytes: at least 1 is needed")
	case c.maxPerScope < 0:
		return c, errors.New("WithMaxPerScope: at least 1 is needed")
	}
	return c, nil
}

func validPrefix(p string) bool {
	for token := range strings.SplitSeq(p, ".") {
		if token == "" || strings.ContainsAny(token, " \t\r\n\f*>") || strings.HasPrefix(token, "$") {
			return false
		}
	}
	return true
}
