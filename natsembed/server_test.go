package natsembed_test

import (
	"bytes"
	"crypto/tls"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
	"github.com/stretchr/testify/require"

	"github.com/pay-theory/streamer/v2/natsembed"
)

func TestNothingListensUnlessAskedTo(t *testing.T) {
	before := sockets(t)
	s := open(t, t.TempDir())
	require.NoError(t, s.Ready(t.Context()))
	require.Empty(t, s.URL())
	require.Equal(t, before, sockets(t))
}

// sockets counts the network sockets of this process, 0 where the system does not tell.
func sockets(t *testing.T) int {
	t.Helper()
	files, err := os.ReadDir("/proc/self/fd")
	if os.IsNotExist(err) {
		return 0
	}
	require.NoError(t, err)
	n := 0
	for _, f := range files {
		if to, err := os.Readlink(filepath.Join("/proc/self/fd", f.Name())); err == nil && strings.HasPrefix(to, "socket:") {
			n++
		}
	}
	return n
}

func TestListenTakesThoseWhoShowTheirCredentials(t *testing.T) {
	before := sockets(t)
	server, client := certificates(t)
	s := open(t, t.TempDir(), natsembed.WithListen("127.0.0.1:0"), natsembed.WithUser("app", "secret"), natsembed.WithTLS(server))
	require.NoError(t, s.Ready(t.Context()))

	nc, err := nats.Connect(s.URL(), nats.UserInfo("app", "secret"), nats.Secure(client))
	require.NoError(t, err)
	require.NoError(t, nc.Flush())
	nc.Close()
	_, err = nats.Connect(s.URL(), nats.UserInfo("app", "wrong"), nats.Secure(client))
	require.ErrorIs(t, err, nats.ErrAuthorization)
	_, err = nats.Connect(s.URL(), nats.Secure(client))
	require.ErrorIs(t, err, nats.ErrAuthorization)
	_, err = nats.Connect(s.URL(), nats.UserInfo("app", "secret"), nats.Secure(&tls.Config{MinVersion: tls.VersionTLS13}))
	require.Error(t, err, "the certificate is of no known authority")
	require.NoError(t, s.Close())
	require.Eventually(t, func() bool { return sockets(t) == before }, patience, 10*time.Millisecond)
}

func TestConnectionsComeBackAfterReopen(t *testing.T) {
	dir := t.TempDir()
	s := open(t, dir, natsembed.WithListen("127.0.0.1:0"))
	url := s.URL()
	forever := []nats.Option{nats.MaxReconnects(-1), nats.ReconnectWait(20 * time.Millisecond), nats.ReconnectJitter(0, 0)}
	remote, err := nats.Connect(url, forever...)
	require.NoError(t, err)
	defer remote.Close()
	local, err := nats.Connect("", append(forever, nats.InProcessServer(s))...)
	require.NoError(t, err)
	defer local.Close()
	var subs []*nats.Subscription
	for _, nc := range []*nats.Conn{remote, local} {
		sub, err := nc.SubscribeSync("hello")
		require.NoError(t, err)
		subs = append(subs, sub)
	}
	st, err := stream(t.Context(), s, 1)
	require.NoError(t, err)
	for round := range 3 {
		_, err = publish(t.Context(), s, nil)
		require.NoError(t, err)
		require.NoError(t, s.Reopen(t.Context()))
		require.NoError(t, s.Ready(t.Context()))
		require.Equal(t, url, s.URL())
		for _, sub := range subs {
			require.Eventually(t, func() bool {
				require.NoError(t, s.Conn().Publish("hello", nil))
				_, err := sub.NextMsg(50 * time.Millisecond)
				return err == nil
			}, patience, time.Millisecond)
		}
		info, err := st.Info(t.Context())
		require.NoError(t, err)
		require.EqualValues(t, round+1, info.State.Msgs)
	}
}

func TestAtTheStoresCapWritesFailAtOnceAndGoOnOnceThereIsRoom(t *testing.T) {
	s := open(t, t.TempDir(), natsembed.WithMaxStore(1<<20))
	st, err := stream(t.Context(), s, 1)
	require.NoError(t, err)
	data := make([]byte, 50<<10)
	for range 100 {
		begin := time.Now()
		_, err = publish(t.Context(), s, data)
		require.Less(t, time.Since(begin), 500*time.Millisecond)
		if err != nil {
			break
		}
	}
	var api *jetstream.APIError
	require.ErrorAs(t, err, &api)
	require.NoError(t, s.Ready(t.Context()), "reading and deleting works")
	require.NoError(t, st.Purge(t.Context()))
	_, err = publish(t.Context(), s, data)
	require.NoError(t, err)
}

func TestSyncAlwaysKeepsWhatItAcknowledged(t *testing.T) {
	dir := t.TempDir()
	s := open(t, dir, natsembed.WithSyncAlways())
	_, err := stream(t.Context(), s, 1)
	require.NoError(t, err)
	for range 20 {
		_, err = publish(t.Context(), s, []byte("x"))
		require.NoError(t, err)
	}
	require.NoError(t, s.Close())
	s = open(t, dir, natsembed.WithSyncInterval(100*time.Millisecond))
	st, err := s.JetStream().Stream(t.Context(), "S")
	require.NoError(t, err)
	require.EqualValues(t, 20, st.CachedInfo().State.Msgs)
}

func TestTheNameStaysWithTheDirectory(t *testing.T) {
	dir := t.TempDir()
	s := open(t, dir)
	name := s.Conn().ConnectedServerName()
	require.Regexp(t, "^streamer-[0-9a-z]+$", name)
	require.NoError(t, s.Close())
	s = open(t, dir)
	require.Equal(t, name, s.Conn().ConnectedServerName())
	require.NoError(t, s.Close())
	s = open(t, dir, natsembed.WithName("mine"))
	require.Equal(t, "mine", s.Conn().ConnectedServerName())
	require.NoError(t, s.Close())
	require.NoError(t, os.WriteFile(filepath.Join(dir, "name"), []byte("two words"), 0o600))
	_, err := natsembed.Open(t.Context(), dir)
	require.ErrorContains(t, err, `holds "two words"`)
}

func TestCloseIsFinal(t *testing.T) {
	s := open(t, t.TempDir())
	require.NoError(t, s.Close())
	require.NoError(t, s.Close())
	require.ErrorContains(t, s.Ready(t.Context()), "not running")
	require.ErrorContains(t, s.Reopen(t.Context()), "closed")
	require.True(t, s.Conn().IsClosed())
	_, err := s.InProcessConn()
	require.ErrorContains(t, err, "not running")
}

func TestOpenSaysWhatIsWrong(t *testing.T) {
	file := filepath.Join(t.TempDir(), "file")
	require.NoError(t, os.WriteFile(file, nil, 0o600))
	blocked := t.TempDir()
	require.NoError(t, os.Mkdir(filepath.Join(blocked, "lock"), 0o700))
	spoiled := t.TempDir()
	require.NoError(t, os.WriteFile(filepath.Join(spoiled, "jetstream"), nil, 0o600))
	busy := open(t, t.TempDir(), natsembed.WithListen("127.0.0.1:0"))
	taken := strings.TrimPrefix(busy.URL(), "nats://")
	cluster := func(change func(c *natsembed.Cluster)) natsembed.Option {
		c := natsembed.Cluster{Name: "c", Addr: "127.0.0.1:7001", Peers: []string{"127.0.0.1:7002"}}
		change(&c)
		return natsembed.WithCluster(c)
	}
	for _, c := range []struct {
		dir  string
		opt  natsembed.Option
		want string
	}{
		{dir: "", want: "a directory is needed"},
		{dir: file, want: "the directory can't be made"},
		{dir: filepath.Join(file, "below"), want: "the directory can't be made"},
		{dir: blocked, want: "the directory can't be locked"},
		{dir: spoiled, want: "the server can't start: Can't start JetStream: "},
		{opt: natsembed.WithListen(taken), want: "address already in use"},
		{opt: natsembed.WithListen("nonsense"), want: `WithListen("nonsense"): must be host:port`},
		{opt: natsembed.WithListen("127.0.0.1:70000"), want: `the port "70000"`},
		{opt: natsembed.WithListen(":4222"), want: "beyond loopback everybody could read and write: WithUser is needed"},
		{opt: natsembed.WithListen("192.0.2.1:4222"), want: "WithUser is needed"},
		{opt: natsembed.WithTLS(&tls.Config{MinVersion: tls.VersionTLS13}), want: "need WithListen"},
		{opt: natsembed.WithUser("u", ""), want: "WithUser: a name and a password are needed"},
		{opt: natsembed.WithName("two words"), want: `WithName("two words")`},
		{opt: natsembed.WithSyncInterval(time.Millisecond), want: "WithSyncInterval(1ms): at least 100ms"},
		{opt: natsembed.WithMaxStore(5), want: "WithMaxStore(5)"},
		{opt: natsembed.WithMaxMemory(-5), want: "WithMaxMemory(-5)"},
		{opt: natsembed.WithMaxPayload(5), want: "WithMaxPayload(5)"},
		{opt: cluster(func(c *natsembed.Cluster) { c.Name = "" }), want: `the name ""`},
		{opt: cluster(func(c *natsembed.Cluster) { c.Addr = "127.0.0.1:0" }), want: "a port is needed"},
		{opt: cluster(func(c *natsembed.Cluster) { c.Addr = ":7001" }), want: "beyond loopback anybody could join"},
		{opt: cluster(func(c *natsembed.Cluster) { c.Peers = nil }), want: "the field Peers is needed"},
		{opt: cluster(func(c *natsembed.Cluster) { c.Peers = []string{":7002"} }), want: `the peer ":7002"`},
		{opt: cluster(func(c *natsembed.Cluster) { c.User = "u" }), want: "belong together"},
	} {
		t.Run(c.want, func(t *testing.T) {
			dir := c.dir
			var opts []natsembed.Option
			if c.opt != nil {
				dir, opts = t.TempDir(), append(opts, c.opt)
			}
			_, err := natsembed.Open(t.Context(), dir, opts...)
			require.ErrorContains(t, err, "natsembed: open "+dir)
			require.ErrorContains(t, err, c.want)
			if c.opt != nil { // what failed left nothing behind
				require.NoError(t, open(t, dir).Close())
			}
		})
	}
}

// lines is a writer that can be read while it is written.
type lines struct {
	mu  sync.Mutex
	buf bytes.Buffer
}

func (l *lines) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.buf.Write(p)
}

func (l *lines) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.buf.String()
}

func TestTheServersLogGoesToTheLogger(t *testing.T) {
	var out lines
	s := open(t, t.TempDir(), natsembed.WithLogger(slog.New(slog.NewTextHandler(&out, nil))))
	require.NoError(t, s.Close())
	require.Contains(t, out.String(), `level=INFO msg="nats server says" text="Server is ready"`)
}

func TestManyServersLiveInOneProcess(t *testing.T) {
	for i := range 5 {
		s := open(t, t.TempDir())
		_, err := stream(t.Context(), s, 1)
		require.NoError(t, err, fmt.Sprint(i))
	}
}
