package natsembed_test

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"fmt"
	"io"
	"log/slog"
	"math/big"
	"net"
	"path/filepath"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/pay-theory/streamer/v2/natsembed"
)

// certificates returns what two ends need that trust the same authority.
func certificates(t *testing.T) (server, client *tls.Config) {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	require.NoError(t, err)
	c := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "test"},
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour),
		IsCA: true, BasicConstraintsValid: true,
		KeyUsage:    x509.KeyUsageDigitalSignature | x509.KeyUsageCertSign,
		ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth},
		IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)},
	}
	der, err := x509.CreateCertificate(rand.Reader, c, c, &key.PublicKey, key)
	require.NoError(t, err)
	parsed, err := x509.ParseCertificate(der)
	require.NoError(t, err)
	pool := x509.NewCertPool()
	pool.AddCert(parsed)
	pair := tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key}
	server = &tls.Config{Certificates: []tls.Certificate{pair}, RootCAs: pool, ClientCAs: pool, MinVersion: tls.VersionTLS12}
	return server, &tls.Config{RootCAs: pool, MinVersion: tls.VersionTLS12}
}

// freeAddr returns an address that was free a moment ago.
func freeAddr(t *testing.T) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	defer l.Close()
	return l.Addr().String()
}

func TestThreeServersKeepWhatOneOfThemLoses(t *testing.T) {
	config, _ := certificates(t)
	config.ClientAuth = tls.RequireAndVerifyClientCert
	peers := []string{freeAddr(t), freeAddr(t), freeAddr(t)}
	root := t.TempDir()
	quiet := natsembed.WithLogger(slog.New(slog.NewTextHandler(io.Discard, nil)))
	start := func(i int) *natsembed.Server {
		return open(t, filepath.Join(root, fmt.Sprint(i)), quiet, natsembed.WithCluster(natsembed.Cluster{
			Name: "three", Addr: peers[i], Peers: peers, User: "node", Password: "secret", TLS: config,
		}))
	}
	servers := make([]*natsembed.Server, 3)
	for i := range servers {
		servers[i] = start(i)
	}
	ready(t, servers...)
	_, err := stream(t.Context(), servers[0], 3)
	require.NoError(t, err)
	store(t, servers[0], "one")

	require.NoError(t, servers[0].Close())
	ready(t, servers[1:]...)
	store(t, servers[1], "two")
	servers[0] = start(0)
	require.NoError(t, servers[2].Close())
	ready(t, servers[:2]...)
	store(t, servers[0], "three")
	st, err := servers[0].JetStream().Stream(t.Context(), "S")
	require.NoError(t, err)
	for i, want := range []string{"one", "two", "three"} {
		m, err := st.GetMsg(t.Context(), uint64(i+1))
		require.NoError(t, err)
		require.Equal(t, want, string(m.Data))
	}

	require.NoError(t, servers[1].Close())
	require.Eventually(t, func() bool { return servers[0].Ready(t.Context()) != nil }, patience, 50*time.Millisecond, "one of three is no majority")
}

// ready waits until all servers are.
func ready(t *testing.T, servers ...*natsembed.Server) {
	t.Helper()
	for _, s := range servers {
		var err error
		require.Eventually(t, func() bool { err = s.Ready(t.Context()); return err == nil }, patience, 20*time.Millisecond, "%v", err)
	}
}

// store writes a message once the stream has a leader.
func store(t *testing.T, s *natsembed.Server, text string) {
	t.Helper()
	var err error
	require.Eventually(t, func() bool { _, err = publish(t.Context(), s, []byte(text)); return err == nil }, patience, 20*time.Millisecond, "%v", err)
}

func TestAStrangerCanNotJoinTheCluster(t *testing.T) {
	quiet := natsembed.WithLogger(slog.New(slog.NewTextHandler(io.Discard, nil)))
	a, b := freeAddr(t), freeAddr(t)
	join := func(addr, password string) *natsembed.Server {
		return open(t, t.TempDir(), quiet, natsembed.WithCluster(natsembed.Cluster{
			Name: "two", Addr: addr, Peers: []string{a, b}, User: "node", Password: password,
		}))
	}
	first := join(a, "secret")
	stranger := join(b, "guess")
	for deadline := time.After(2 * time.Second); ; {
		require.Error(t, first.Ready(t.Context()), "the cluster of two has no leader")
		require.Error(t, stranger.Ready(t.Context()))
		select {
		case <-deadline:
			return
		case <-time.After(100 * time.Millisecond):
		}
	}
}
