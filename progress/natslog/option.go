package natslog

import (
	"fmt"
	"regexp"

	"github.com/nats-io/nats.go/jetstream"
)

// Option sets something of a Log. New returns an error for invalid values.
type Option func(*config)

type config struct {
	prefix        string
	logStream     string
	progStream    string
	replicas      int
	storage       jetstream.StorageType
	maxBytes      int64
	progressBytes int64
	sealBytes     int
	cacheBytes    int
}

// WithPrefix sets the first tokens of all subjects. Logs that share an account and are not to
// share their requests need different prefixes and streams. Letters, digits, - and _, in tokens
// separated by dots; default: "streamer".
func WithPrefix(prefix string) Option { return func(c *config) { c.prefix = prefix } }

// WithStreams sets the names of the streams for logs and for progress. Letters, digits, - and
// _; default: "STREAMER_LOG" and "STREAMER_PROGRESS".
func WithStreams(log, progress string) Option {
	return func(c *config) { c.logStream, c.progStream = log, progress }
}

// WithReplicas sets on how many servers of a cluster the streams are kept. 1 to 5, and 3 for
// logs that survive the loss of a server; default: 1.
func WithReplicas(n int) Option { return func(c *config) { c.replicas = n } }

// WithStorage sets where logs are kept; progress is always in memory. Default:
// jetstream.FileStorage.
func WithStorage(s jetstream.StorageType) Option { return func(c *config) { c.storage = s } }

// WithMaxBytes bounds the log stream, in bytes. When it is full, appends return
// progress.ErrFull. More than 0, and below what the server may store in all; default: -1, no
// bound but the server's.
func WithMaxBytes(n int64) Option { return func(c *config) { c.maxBytes = n } }

// WithMaxProgressBytes bounds the progress stream, in bytes. When it is full, the oldest
// progress goes. More than 0; default: 64 MiB.
func WithMaxProgressBytes(n int64) Option { return func(c *config) { c.progressBytes = n } }

// WithMaxSealed bounds, in bytes, up to where the log of a request is rewritten as one message
// when the request ends. A larger log stays as it is. 0 rewrites none; default: 256 KiB, and
// never more than half of what the server takes as one message.
func WithMaxSealed(n int) Option { return func(c *config) { c.sealBytes = n } }

// WithCache bounds, in bytes, what is kept of logs that were used in the last half minute. At
// least 64 KiB; default: 32 MiB.
func WithCache(n int) Option { return func(c *config) { c.cacheBytes = n } }

// newConfig applies options and defaults, and returns an error for what makes no sense.
func newConfig(opts []Option) (config, error) {
	c := config{
		prefix: "streamer", logStream: "STREAMER_LOG", progStream: "STREAMER_PROGRESS", replicas: 1,
		storage: jetstream.FileStorage, maxBytes: -1, progressBytes: 64 << 20, sealBytes: 256 << 10, cacheBytes: 32 << 20,
	}
	for _, o := range opts {
		o(&c)
	}
	prefix := regexp.MustCompile(`^[A-Za-z0-9_-]+(\.[A-Za-z0-9_-]+)*$`)
	name := regexp.MustCompile(`^[A-Za-z0-9_-]{1,200}$`)
	switch {
	case !prefix.MatchString(c.prefix) || len(c.prefix) > 100:
		return c, fmt.Errorf("WithPrefix(%q): letters, digits, - and _ are needed, in tokens separated by dots", c.prefix)
	case !name.MatchString(c.logStream) || !name.MatchString(c.progStream) || c.logStream == c.progStream:
		return c, fmt.Errorf("WithStreams(%q, %q): two names of letters, digits, - and _ are needed", c.logStream, c.progStream)
	case c.replicas < 1 || c.replicas > 5:
		return c, fmt.Errorf("WithReplicas(%d): 1 to 5 are possible", c.replicas)
	case c.storage != jetstream.FileStorage && c.storage != jetstream.MemoryStorage:
		return c, fmt.Errorf("WithStorage(%d): there is no such storage", c.storage)
	case c.maxBytes < 1 && c.maxBytes != -1:
		return c, fmt.Errorf("WithMaxBytes(%d): more than 0 is needed, or -1", c.maxBytes)
	case c.progressBytes < 1:
		return c, fmt.Errorf("WithMaxProgressBytes(%d): more than 0 is needed", c.progressBytes)
	case c.sealBytes < 0:
		return c, fmt.Errorf("WithMaxSealed(%d): at least 0 is needed", c.sealBytes)
	case c.cacheBytes < 64<<10:
		return c, fmt.Errorf("WithCache(%d): at least %d is needed", c.cacheBytes, 64<<10)
	}
	return c, nil
}
