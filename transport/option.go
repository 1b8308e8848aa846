package transport

import (
	"fmt"
	"log/slog"
	"net/http"
	"time"
)

// Option sets something of a transport. Invalid values make its NewHandler panic.
type Option func(*Config)

// Limits bound what clients may hold and do. 0 means the default; none can be switched off,
// but any can be large.
type Limits struct {
	MessageBytes int     // bytes of one message, or of a body; default 64 KiB. Before a client is known: 4 KiB
	MessageRate  float64 // messages a connection may send per second in the long run, or calls over HTTP that an identity may make; default 1,000. The anonymous identity has no such limit over HTTP
	MessageBurst int     // messages or calls at once; default 2,000
	InFlight     int     // messages of a WebSocket that are being answered; default 32
	Attached     int     // requests that a WebSocket follows; default 256. An event stream: 64
	QueuedBytes  int     // bytes of replies that wait for a slow WebSocket; default 1 MiB

	Connections            int // in all: WebSockets, or calls over HTTP that are being answered, streams too; default 100,000
	ConnectionsPerIdentity int // of one user and tenant; default 1,000; the anonymous identity has no such limit
	ConnectionsPerAddress  int // of one IPv4 address or IPv6 /64 network; default 20,000: a proxy is one address

	Unauthenticated           int // connections that have not said who they are, in all; default 4,096
	UnauthenticatedPerAddress int // the same of one address; default 1,024
}

// Config is what options set. Transports read it; applications use options.
type Config struct {
	Authenticator Authenticator // nil: every client is anonymous
	QueryToken    bool
	ProtocolToken bool
	Origins       []string // nil: the request's own
	Hosts         []string // nil: any
	Limits        Limits
	PingInterval  time.Duration
	PongTimeout   time.Duration
	HelloTimeout  time.Duration
	WriteTimeout  time.Duration
	DrainTime     time.Duration
	Logger        *slog.Logger

	protection *http.CrossOriginProtection
}

// NewConfig applies options and defaults. It panics on what makes no sense.
func NewConfig(opts ...Option) *Config {
	c := &Config{
		PingInterval: 25 * time.Second,
		PongTimeout:  10 * time.Second,
		HelloTimeout: 5 * time.Second,
		WriteTimeout: 10 * time.Second,
		DrainTime:    20 * time.Second,
	}
	for _, o := range opts {
		o(c)
	}
	if c.Logger == nil {
		c.Logger = slog.Default()
	}
	c.Limits.setDefaults()
	for _, d := range []struct {
		name  string
		value time.Duration
	}{
		{"WithPingInterval", c.PingInterval},
		{"WithPongTimeout", c.PongTimeout},
		{"WithHelloTimeout", c.HelloTimeout},
		{"WithWriteTimeout", c.WriteTimeout},
		{"WithDrainTime", c.DrainTime},
	} {
		if d.value <= 0 {
			panic(fmt.Sprintf("transport: %s(%v): must be more than 0", d.name, d.value))
		}
	}
	for _, o := range c.Origins {
		if _, ok := canonicalOrigin(o); !ok {
			panic(fmt.Sprintf("transport: WithOrigins(%q): not of the form scheme://host[:port]", o))
		}
	}
	c.protection = http.NewCrossOriginProtection()
	for _, o := range c.Origins {
		if err := c.protection.AddTrustedOrigin(o); err != nil {
			panic(fmt.Sprintf("transport: WithOrigins(%q): %v", o, err))
		}
	}
	for _, h := range c.Hosts {
		if !validHost(h) || !ascii(h) {
			panic(fmt.Sprintf("transport: WithHosts(%q): not of the form host[:port] in ASCII (Punycode)", h))
		}
	}
	return c
}

func (l *Limits) setDefaults() {
	for _, d := range []struct {
		value *int
		def   int
	}{
		{&l.MessageBytes, 64 << 10},
		{&l.MessageBurst, 2000},
		{&l.InFlight, 32},
		{&l.Attached, 256},
		{&l.QueuedBytes, 1 << 20},
		{&l.Connections, 100_000},
		{&l.ConnectionsPerIdentity, 1000},
		{&l.ConnectionsPerAddress, 20_000},
		{&l.Unauthenticated, 4096},
		{&l.UnauthenticatedPerAddress, 1024},
	} {
		if *d.value < 0 {
			panic(fmt.Sprintf("transport: WithLimits(%+v): must not be negative", *l))
		}
		if *d.value == 0 {
			*d.value = d.def
		}
	}
	if !(l.MessageRate >= 0) {
		panic(fmt.Sprintf("transport: WithLimits: MessageRate %v: must not be negative", l.MessageRate))
	}
	if l.MessageRate == 0 {
		l.MessageRate = 1000
	}
}

// WithAuthenticator sets who says who clients are. Without it all clients are one anonymous
// identity, and browsers may connect only to a loopback name or an IP address: see
// WithOrigins. It is asked for each connection, and for each call over HTTP. A token is taken from the header "Authorization: Bearer …", and from the first
// message of a connection that came without credentials.
func WithAuthenticator(a Authenticator) Option { return func(c *Config) { c.Authenticator = a } }

// WithQueryToken also takes a token from the query: ?Authorization=Bearer%20… Proxies and
// servers log queries, so this is for clients that can't do better.
func WithQueryToken() Option { return func(c *Config) { c.QueryToken = true } }

// WithProtocolToken also takes a token from a WebSocket subprotocol that the client offers
// beside streamer.v1: streamer.token.<base64url of the token>, which is never answered.
func WithProtocolToken() Option { return func(c *Config) { c.ProtocolToken = true } }

// WithOrigins sets the origins, scheme://host[:port], that browsers may connect from. They
// are compared exactly. By default that is just the origin that the request was sent to
// (scheme, host and port), and, without an authenticator, only if its host is a loopback name
// or an IP address, since any other name can be made to point here. A server behind a proxy
// that ends TLS or changes the host needs this option. Over HTTP, pages of these origins may
// read what is answered (CORS), with their users' cookies too.
func WithOrigins(origins ...string) Option {
	return func(c *Config) { c.Origins = append(c.Origins, origins...) }
}

// WithHosts sets the values of the Host header, host[:port], that are served; others are
// refused. By default all are.
func WithHosts(hosts ...string) Option {
	return func(c *Config) { c.Hosts = append(c.Hosts, hosts...) }
}

// WithLimits bounds what clients may hold and do.
func WithLimits(l Limits) Option { return func(c *Config) { c.Limits = l } }

// WithPingInterval sets after how long without a message of ours a connection is pinged. More
// than 0; default: 25 s. An event stream has a ping at least every 15 s.
func WithPingInterval(d time.Duration) Option { return func(c *Config) { c.PingInterval = d } }

// WithPongTimeout sets how long a client may be silent after a ping before its connection is
// closed. More than 0; default: 10 s.
func WithPongTimeout(d time.Duration) Option { return func(c *Config) { c.PongTimeout = d } }

// WithHelloTimeout sets how long a client that came without credentials has to send its first
// message, and how long the authenticator has for an answer. More than 0; default: 5 s.
func WithHelloTimeout(d time.Duration) Option { return func(c *Config) { c.HelloTimeout = d } }

// WithWriteTimeout sets how long one write may take before the connection is cut, to be
// resumed by the client; over HTTP also how long a body may take to arrive. More than 0;
// default: 10 s.
func WithWriteTimeout(d time.Duration) Option { return func(c *Config) { c.WriteTimeout = d } }

// WithDrainTime sets how long clients have to move to another server when this one drains.
// They are asked to reconnect at random times in the first quarter of it. More than 0;
// default: 20 s.
func WithDrainTime(d time.Duration) Option { return func(c *Config) { c.DrainTime = d } }

// WithLogger sets the logger. Payloads and tokens are never logged. Default: slog.Default().
func WithLogger(l *slog.Logger) Option { return func(c *Config) { c.Logger = l } }
