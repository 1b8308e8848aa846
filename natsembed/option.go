package natsembed

import (
	"crypto/tls"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/url"
	"strconv"
	"strings"
	"time"
)

// Option sets something of a Server. Open returns an error for invalid values.
type Option func(*config)

type config struct {
	name         string
	syncAlways   bool
	syncInterval time.Duration
	maxStore     int64 // 0: by what the disk has
	maxMemory    int64
	maxPayload   int
	addr         string
	listen       address // of addr
	tls          *tls.Config
	user         string
	password     string
	cluster      *cluster
	logger       *slog.Logger // nil: warnings and errors to slog.Default
	wrong        error        // an option that makes no sense whatever the others say
}

type address struct {
	host string // "": none
	port int
}

type cluster struct {
	Cluster
	at     address
	routes []*url.URL
}

// WithSyncInterval sets how often what was written is synced to the disk. Whatever it is, the
// death of the process loses nothing that was acknowledged; a power cut or a crash of the
// operating system may lose what was acknowledged within the interval before it. At least
// 100 ms; default: 1 s, which costs next to nothing.
func WithSyncInterval(d time.Duration) Option {
	return func(c *config) {
		c.syncAlways, c.syncInterval = false, d
		if d < 100*time.Millisecond {
			c.wrong = fmt.Errorf("WithSyncInterval(%v): at least 100ms is needed; WithSyncAlways syncs each write", d)
		}
	}
}

// WithSyncAlways has each write synced to the disk before it is acknowledged: a power cut loses
// nothing that was acknowledged either, as far as the disk keeps what it says it has. Writes
// take 6 to 30 times as long, depending on the disk.
func WithSyncAlways() Option { return func(c *config) { c.syncAlways = true } }

// WithMaxStore bounds what the store takes on the disk, in bytes. At the bound writes fail at
// once with a clear error; on a full disk they fail until Reopen, so keep it below what the
// disk has. At least 1 MiB; default: what the store has, and half of what is free on the disk
// as it is opened, at most 64 GiB.
func WithMaxStore(bytes int64) Option {
	return func(c *config) {
		c.maxStore = bytes
		if bytes < 1<<20 {
			c.wrong = fmt.Errorf("WithMaxStore(%d): at least 1 MiB (1048576) is needed", bytes)
		}
	}
}

// WithMaxMemory bounds what streams in memory take, in bytes. At least 0; default: 64 MiB.
func WithMaxMemory(bytes int64) Option {
	return func(c *config) {
		c.maxMemory = bytes
		if bytes < 0 {
			c.wrong = fmt.Errorf("WithMaxMemory(%d): must not be negative", bytes)
		}
	}
}

// WithMaxPayload sets the size of the largest message, in bytes. 1 KiB to 64 MiB; default:
// 8 MiB, which is the most that the makers of the server advise.
func WithMaxPayload(bytes int) Option {
	return func(c *config) {
		c.maxPayload = bytes
		if bytes < 1<<10 || bytes > 64<<20 {
			c.wrong = fmt.Errorf("WithMaxPayload(%d): must be 1 KiB (1024) to 64 MiB (67108864)", bytes)
		}
	}
}

// WithName names the server, in its log and among the servers of a cluster. It must stay the
// same for a directory, and differ within a cluster. Without spaces and any of . * > / \;
// default: a name made at the first Open and kept in the directory.
func WithName(name string) Option {
	return func(c *config) {
		c.name = name
		if !validName(name) {
			c.wrong = fmt.Errorf("WithName(%q): a name without spaces and any of . * > / \\ is needed", name)
		}
	}
}

// WithListen has the server listen for clients of other processes on host:port; port 0 is any
// that is free. Beyond loopback it needs WithUser. Default: nobody can connect but through
// memory.
func WithListen(addr string) Option { return func(c *config) { c.addr = addr } }

// WithUser has clients show a name and a password. Conn does so by itself; others that connect
// through InProcessConn must too. Default: clients need none.
func WithUser(name, password string) Option {
	return func(c *config) {
		c.user, c.password = name, password
		if name == "" || password == "" {
			c.wrong = errors.New("WithUser: a name and a password are needed")
		}
	}
}

// WithTLS has clients that connect to WithListen's address use TLS. Default: none.
func WithTLS(t *tls.Config) Option { return func(c *config) { c.tls = t } }

// Cluster is a server's part in a cluster. All servers have the same Name, Peers, User and
// Password.
type Cluster struct {
	Name     string
	Addr     string      // host:port where this server listens for the others
	Peers    []string    // host:port of all servers, or of some; this server's own may be among them
	User     string      // what servers show each other; needed beyond loopback
	Password string      //
	TLS      *tls.Config // used on both ends of a connection, so with Certificates, RootCAs and ClientCAs; nil: none
}

// WithCluster makes the server one of a cluster, which keeps what has several replicas while
// most of its servers run. Open does not wait for the others: Ready tells when there is a
// leader. Without WithListen the server, which has to listen for clients then, does so on a
// free port of loopback, with a password that only it knows unless WithUser says one. Default:
// the server is alone.
func WithCluster(c Cluster) Option { return func(cfg *config) { cfg.cluster = &cluster{Cluster: c} } }

// WithLogger has the server's log, from Info up, go to l. Default: warnings and errors go to
// slog.Default().
func WithLogger(l *slog.Logger) Option { return func(c *config) { c.logger = l } }

func newConfig(opts []Option) (config, error) {
	c := config{syncInterval: time.Second, maxMemory: 64 << 20, maxPayload: 8 << 20}
	for _, o := range opts {
		o(&c)
	}
	if c.wrong != nil {
		return c, c.wrong
	}
	var err error
	if c.addr != "" {
		if c.listen, err = parse(c.addr); err != nil {
			return c, fmt.Errorf("WithListen(%q): %w", c.addr, err)
		}
		if c.user == "" && !c.listen.loopback() {
			return c, fmt.Errorf("WithListen(%q): beyond loopback everybody could read and write: WithUser is needed", c.addr)
		}
	}
	if c.tls != nil && c.addr == "" {
		return c, errors.New("WithTLS: is for clients of other processes, who need WithListen")
	}
	if c.cluster != nil {
		if err := c.cluster.resolve(); err != nil {
			return c, fmt.Errorf("WithCluster: %w", err)
		}
	}
	return c, nil
}

// resolve checks a cluster and makes of it what the server wants.
func (c *cluster) resolve() error {
	var err error
	if !validName(c.Name) {
		return fmt.Errorf("the name %q: a name without spaces and any of . * > / \\ is needed", c.Name)
	}
	if c.at, err = parse(c.Addr); err != nil {
		return fmt.Errorf("the address %q: %w", c.Addr, err)
	}
	if c.at.port == 0 {
		return fmt.Errorf("the address %q: a port is needed, for the others to know", c.Addr)
	}
	if (c.User == "") != (c.Password == "") {
		return errors.New("the fields User and Password belong together")
	}
	if c.User == "" && !c.at.loopback() {
		return fmt.Errorf("the address %q: beyond loopback anybody could join: User and Password are needed", c.Addr)
	}
	if len(c.Peers) == 0 {
		return errors.New("the field Peers is needed: the addresses of the other servers")
	}
	for _, peer := range c.Peers {
		at, err := parse(peer)
		if err != nil {
			return fmt.Errorf("the peer %q: %w", peer, err)
		}
		if at.port == 0 || at.host == everywhere {
			return fmt.Errorf("the peer %q: a host and a port are needed", peer)
		}
		route := &url.URL{Scheme: "nats-route", Host: peer}
		if c.User != "" {
			route.User = url.UserPassword(c.User, c.Password)
		}
		c.routes = append(c.routes, route)
	}
	return nil
}

// everywhere is the host of an address that names none.
const everywhere = "0.0.0.0"

func parse(addr string) (address, error) {
	host, text, err := net.SplitHostPort(addr)
	if err != nil {
		return address{}, errors.New("must be host:port")
	}
	port, err := strconv.Atoi(text)
	if err != nil || port < 0 || port > 65535 {
		return address{}, fmt.Errorf("the port %q must be 0 to 65535", text)
	}
	if host == "" {
		host = everywhere
	}
	return address{host, port}, nil
}

func (a address) loopback() bool {
	return a.host == "localhost" || net.ParseIP(a.host).IsLoopback()
}

func validName(name string) bool {
	return name != "" && !strings.ContainsAny(name, " \t\r\n\f.*>/\\")
}
