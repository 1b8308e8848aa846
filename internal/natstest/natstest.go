// Package natstest runs real nats-servers within a test: one, or a cluster on loopback.
package natstest

import (
	"fmt"
	"net"
	"strconv"
	"testing"
	"time"

	"github.com/nats-io/nats-server/v2/server"
	"github.com/nats-io/nats.go"
)

// patience bounds how long servers take to start, to stop and to find each other.
const patience = 30 * time.Second

// Server is a nats-server with JetStream and a file store. It is stopped when the test ends.
type Server struct {
	opts *server.Options
	srv  *server.Server
}

// Start starts a server that listens on loopback. change, if not nil, changes its options first.
func Start(t testing.TB, change func(*server.Options)) *Server {
	t.Helper()
	opts := options(t, "natstest")
	if change != nil {
		change(opts)
	}
	s := &Server{opts: opts}
	s.Restart(t)
	t.Cleanup(s.Stop)
	return s
}

func options(t testing.TB, name string) *server.Options {
	return &server.Options{
		ServerName: name, Host: "127.0.0.1", Port: server.RANDOM_PORT, NoSigs: true, NoLog: true,
		JetStream: true, StoreDir: t.TempDir(), JetStreamMaxMemory: 256 << 20, JetStreamMaxStore: 4 << 30,
	}
}

// Restart starts the server, again if it was stopped, on the same store and port.
func (s *Server) Restart(t testing.TB) {
	t.Helper()
	srv, err := server.NewServer(s.opts.Clone())
	if err != nil {
		t.Fatalf("natstest: %v", err)
	}
	srv.Start()
	s.srv = srv
	if !srv.ReadyForConnections(patience) {
		s.Stop()
		t.Fatalf("natstest: server %s is not ready within %v", s.opts.ServerName, patience)
	}
	if addr, ok := srv.Addr().(*net.TCPAddr); ok {
		s.opts.Port = addr.Port
	}
}

// Stop stops the server and waits for its end. It may be called again.
func (s *Server) Stop() {
	s.srv.Shutdown()
	s.srv.WaitForShutdown()
}

// Server returns the server that runs.
func (s *Server) Server() *server.Server { return s.srv }

// URL returns where the server listens; it stays the same when the server is restarted.
func (s *Server) URL() string { return s.srv.ClientURL() }

// Connect returns a connection that reconnects for ever. It is closed when the test ends.
func (s *Server) Connect(t testing.TB, opts ...nats.Option) *nats.Conn {
	t.Helper()
	return Dial(t, s.URL(), opts...)
}

// Dial connects to one or more comma-separated URLs, as Connect does.
func Dial(t testing.TB, url string, opts ...nats.Option) *nats.Conn {
	t.Helper()
	opts = append([]nats.Option{
		nats.MaxReconnects(-1), nats.ReconnectWait(50 * time.Millisecond), nats.ReconnectJitter(20*time.Millisecond, 20*time.Millisecond),
	}, opts...)
	nc, err := nats.Connect(url, opts...)
	if err != nil {
		t.Fatalf("natstest: connect to %s: %v", url, err)
	}
	t.Cleanup(nc.Close)
	return nc
}

// Cluster is several servers that form one cluster.
type Cluster []*Server

// StartCluster starts n servers and waits until they have a leader.
func StartCluster(t testing.TB, n int) Cluster {
	t.Helper()
	return StartTagged(t, make([][]string, n)...)
}

// StartTagged starts a server for each list of tags, by which streams can be placed, and waits
// until they have a leader.
func StartTagged(t testing.TB, tags ...[]string) Cluster {
	t.Helper()
	ports := make([]int, len(tags))
	for i := range ports {
		ports[i] = freePort(t)
	}
	var routes string
	for _, p := range ports {
		routes += ",nats://127.0.0.1:" + strconv.Itoa(p)
	}
	c := make(Cluster, len(tags))
	for i := range c {
		opts := options(t, fmt.Sprintf("natstest-%d", i))
		opts.Tags = append(opts.Tags, tags[i]...)
		opts.Cluster = server.ClusterOpts{Name: "natstest", Host: "127.0.0.1", Port: ports[i]}
		opts.Routes = server.RoutesFromStr(routes[1:])
		c[i] = &Server{opts: opts}
	}
	for _, s := range c {
		s.Restart(t)
		t.Cleanup(s.Stop)
	}
	c.WaitReady(t)
	return c
}

// freePort returns a port that was free a moment ago: servers of a cluster must know each
// other's before they start.
func freePort(t testing.TB) int {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatalf("natstest: %v", err)
	}
	defer l.Close()
	return l.Addr().(*net.TCPAddr).Port
}

// WaitReady waits until the cluster has a leader that knows all servers that run, and these are
// up to date.
func (c Cluster) WaitReady(t testing.TB) {
	t.Helper()
	c.wait(t, "the cluster has no leader", func() bool {
		running := 0
		for _, s := range c {
			if !s.srv.Running() {
				continue
			}
			if running++; !s.srv.JetStreamIsCurrent() {
				return false
			}
		}
		leader := c.Leader()
		return leader != nil && len(leader.srv.JetStreamClusterPeers()) >= running
	})
}

// Leader returns the server that leads the cluster, nil while there is none.
func (c Cluster) Leader() *Server {
	for _, s := range c {
		if s.srv.Running() && s.srv.JetStreamIsLeader() {
			return s
		}
	}
	return nil
}

// StreamLeader returns the server that leads a stream of the default account. It waits for one.
func (c Cluster) StreamLeader(t testing.TB, stream string) *Server {
	t.Helper()
	var leader *Server
	c.wait(t, "stream "+stream+" has no leader", func() bool {
		for _, s := range c {
			if s.srv.Running() && s.srv.JetStreamIsStreamLeader(server.DEFAULT_GLOBAL_ACCOUNT, stream) {
				leader = s
				return true
			}
		}
		return false
	})
	return leader
}

// URL returns the URLs of all servers, for Dial.
func (c Cluster) URL() string {
	var url string
	for _, s := range c {
		url += "," + s.URL()
	}
	return url[1:]
}

func (c Cluster) wait(t testing.TB, what string, ok func() bool) {
	t.Helper()
	deadline := time.NewTimer(patience)
	defer deadline.Stop()
	poll := time.NewTicker(20 * time.Millisecond)
	defer poll.Stop()
	for !ok() {
		select {
		case <-poll.C:
		case <-deadline.C:
			t.Fatalf("natstest: %s within %v", what, patience)
		}
	}
}
