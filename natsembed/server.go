// Package natsembed runs a NATS server with JetStream inside the process: logs and tickets
// survive the process without any infrastructure.
//
//	store, err := natsembed.Open(ctx, "/var/lib/app/streamer")
//	…
//	defer store.Close()
//	log, err := natslog.New(ctx, store.JetStream())
//	queue, err := natsqueue.New(ctx, store.JetStream())
//
// Nothing listens on the network unless WithListen or WithCluster asks for it. The process can
// be killed at any moment without losing what was acknowledged; what a power cut may lose is up
// to WithSyncInterval and WithSyncAlways.
//
// Importing this package adds the server to the program, about 15 MB.
package natsembed

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"time"

	"github.com/nats-io/nats-server/v2/server"
	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
)

// Server is a NATS server in the process. All methods are safe for concurrent use.
type Server struct {
	cfg     config
	dir     string
	log     *logger
	lock    *lock
	conn    *nats.Conn
	js      jetstream.JetStream
	running atomic.Pointer[server.Server] // nil while there is none
	port    atomic.Int64                  // where it listens, the same after Reopen
	turn    chan struct{}                 // holds an element during Open, Reopen and Close
	closed  bool                          // guarded by turn
}

// Open starts a server whose store is in dir, which it makes when it is missing, and waits
// until it is ready: milliseconds, or a second for each few hundred thousand messages in the
// store. Of two processes that open the same directory, the second gets an error.
func Open(ctx context.Context, dir string, opts ...Option) (*Server, error) {
	s, err := open(ctx, dir, opts)
	if err != nil {
		return nil, fmt.Errorf("natsembed: open %s: %w", dir, err)
	}
	return s, nil
}

func open(ctx context.Context, dir string, opts []Option) (*Server, error) {
	c, err := newConfig(opts)
	if err != nil {
		return nil, err
	}
	if dir == "" {
		return nil, errors.New("a directory is needed")
	}
	if dir, err = filepath.Abs(dir); err != nil {
		return nil, err
	}
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, fmt.Errorf("the directory can't be made: %w", err)
	}
	s := &Server{cfg: c, dir: dir, log: newLogger(c), turn: make(chan struct{}, 1)}
	if s.lock, err = acquire(filepath.Join(dir, "lock")); err != nil {
		return nil, err
	}
	if err := s.begin(ctx); err != nil {
		s.stop()
		return nil, errors.Join(err, s.lock.release())
	}
	return s, nil
}

// begin does what is done once: it settles what the options leave open, starts the server and
// connects to it.
func (s *Server) begin(ctx context.Context) error {
	var err error
	if s.cfg.name == "" {
		if s.cfg.name, err = storedName(filepath.Join(s.dir, "name")); err != nil {
			return err
		}
	}
	if s.cfg.cluster != nil && s.cfg.addr == "" {
		// The server does not take part in a cluster without a port for clients.
		s.cfg.listen.host = "127.0.0.1"
		if s.cfg.user == "" {
			s.cfg.user, s.cfg.password = "embedded", rand.Text()
		}
	}
	if s.cfg.maxStore == 0 {
		if s.cfg.maxStore, err = defaultMaxStore(s.dir); err != nil {
			return err
		}
	}
	if err := s.start(ctx); err != nil {
		return err
	}
	s.conn, err = nats.Connect("", nats.InProcessServer(s), nats.Name("natsembed"), nats.UserInfo(s.cfg.user, s.cfg.password),
		nats.MaxReconnects(-1), nats.ReconnectWait(reconnectWait), nats.ReconnectJitter(reconnectWait, reconnectWait), nats.IgnoreDiscoveredServers(),
		nats.IgnoreAuthErrorAbort(), nats.ErrorHandler(s.log.connError))
	if err != nil {
		return fmt.Errorf("connect to the server: %w", err)
	}
	s.js, err = jetstream.New(s.conn)
	return err
}

const (
	readyTimeout  = 30 * time.Second // what Open and Reopen wait for the server when their context gives them longer
	reconnectWait = 20 * time.Millisecond
)

// start starts a server and waits until it is ready.
func (s *Server) start(ctx context.Context) error {
	s.log.reset()
	srv, err := server.NewServer(s.options())
	if err != nil {
		return fmt.Errorf("the server refuses its options: %w", err)
	}
	srv.SetLoggerV2(s.log, false, false, false)
	srv.Start()
	wait := readyTimeout
	if deadline, ok := ctx.Deadline(); ok {
		wait = min(wait, time.Until(deadline))
	}
	ready := s.log.fatal.Load() == nil && srv.ReadyForConnections(wait)
	if !ready || s.log.fatal.Load() != nil || !srv.JetStreamEnabled() {
		srv.Shutdown()
		srv.WaitForShutdown()
		if fatal := s.log.fatal.Load(); fatal != nil {
			return fmt.Errorf("the server can't start: %s", *fatal)
		}
		if err := ctx.Err(); err != nil {
			return err
		}
		return fmt.Errorf("the server is not ready within %v; its last words: %q", wait, s.log.lastWords())
	}
	if a, ok := srv.Addr().(*net.TCPAddr); ok {
		s.port.Store(int64(a.Port))
	}
	s.running.Store(srv)
	return nil
}

// stop stops the server and waits for its end.
func (s *Server) stop() {
	if srv := s.running.Swap(nil); srv != nil {
		srv.Shutdown()
		srv.WaitForShutdown()
	}
}

// InProcessConn returns the client's end of a new connection to the server, through memory. It
// makes a Server what nats.InProcessServer takes; such connections find the server again after
// Reopen.
func (s *Server) InProcessConn() (net.Conn, error) {
	srv := s.running.Load()
	if srv == nil {
		return nil, errors.New("natsembed: the server is not running")
	}
	return srv.InProcessConn()
}

// Conn returns the connection that the Server has to itself, to be shared and not to be
// closed. It survives Reopen.
func (s *Server) Conn() *nats.Conn { return s.conn }

// JetStream returns the JetStream of Conn.
func (s *Server) JetStream() jetstream.JetStream { return s.js }

// URL returns where clients connect, or "" when the server does not listen for them.
func (s *Server) URL() string {
	srv := s.running.Load()
	if srv == nil || s.cfg.addr == "" {
		return ""
	}
	return srv.ClientURL()
}

// Reopen stops the server and starts it again on the same store and the same port. It is for
// when the store could not be written, because the disk was full, and can be again: the
// server does not find out by itself. Nothing that was acknowledged is lost. Connections come
// back by themselves, calls on them fail or wait meanwhile.
//
// When Reopen fails the server is down; call it again.
func (s *Server) Reopen(ctx context.Context) error {
	select {
	case s.turn <- struct{}{}:
		defer func() { <-s.turn }()
	case <-ctx.Done():
		return ctx.Err()
	}
	if s.closed {
		return fmt.Errorf("natsembed: reopen %s: the server was closed", s.dir)
	}
	back := s.conn.StatusChanged(nats.CONNECTED)
	defer s.conn.RemoveStatusListener(back)
	s.stop()
	if err := s.start(ctx); err != nil {
		return fmt.Errorf("natsembed: reopen %s: %w", s.dir, err)
	}
	select {
	case <-back:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

// Close sends what Conn has not sent yet, closes it, stops the server, waits for its end and
// gives the directory free. Calls after the first return nil.
func (s *Server) Close() error {
	s.turn <- struct{}{}
	defer func() { <-s.turn }()
	if s.closed {
		return nil
	}
	s.closed = true
	if s.conn.IsConnected() {
		_ = s.conn.FlushTimeout(flushTimeout) // the server answers, or nothing can be sent any more
	}
	s.conn.Close()
	s.stop()
	if err := s.lock.release(); err != nil {
		return fmt.Errorf("natsembed: close %s: %w", s.dir, err)
	}
	return nil
}

const flushTimeout = 2 * time.Second

// options returns the options of the server.
func (s *Server) options() *server.Options {
	c := &s.cfg
	o := &server.Options{
		ServerName:         c.name,
		DontListen:         c.listen.host == "",
		NoSigs:             true,
		NoLog:              true,
		MaxPayload:         int32(c.maxPayload),
		JetStream:          true,
		StoreDir:           s.dir,
		JetStreamMaxStore:  c.maxStore,
		JetStreamMaxMemory: c.maxMemory,
		SyncAlways:         c.syncAlways,
		SyncInterval:       c.syncInterval,
		Username:           c.user,
		Password:           c.password,
	}
	if c.listen.host != "" {
		o.Host, o.Port, o.TLSConfig = c.listen.host, c.listen.port, c.tls
		if port := s.port.Load(); port != 0 {
			o.Port = int(port)
		} else if o.Port == 0 {
			o.Port = server.RANDOM_PORT
		}
	}
	if cl := c.cluster; cl != nil {
		o.Cluster = server.ClusterOpts{
			Name: cl.Name, Host: cl.at.host, Port: cl.at.port, TLSConfig: cl.TLS,
			Username: cl.User, Password: cl.Password,
		}
		o.Routes = cl.routes
	}
	return o
}

// storedName returns the name that is kept in a file, and keeps a new one when there is none:
// servers of a cluster know each other by name, and what each of them stores by that.
func storedName(path string) (string, error) {
	data, err := os.ReadFile(path)
	if name := strings.TrimSpace(string(data)); err == nil && validName(name) {
		return name, nil
	}
	if err == nil {
		return "", fmt.Errorf("%s holds %q, which is no server's name: correct it, or name the server with WithName", path, strings.TrimSpace(string(data)))
	}
	if !errors.Is(err, os.ErrNotExist) {
		return "", err
	}
	name := "streamer-" + strings.ToLower(rand.Text()[:12])
	if err := os.WriteFile(path+".new", []byte(name+"\n"), 0o600); err != nil {
		return "", err
	}
	return name, os.Rename(path+".new", path)
}
