package cutproxy_test

import (
	"io"
	"net"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"

	"github.com/pay-theory/streamer/v2/internal/cutproxy"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// echo starts a server that returns what it gets.
func echo(t *testing.T) string {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	t.Cleanup(func() { l.Close() })
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			go func() {
				defer c.Close()
				_, _ = io.Copy(c, c)
			}()
		}
	}()
	return l.Addr().String()
}

func through(t *testing.T, plan cutproxy.Plan) net.Conn {
	p, err := cutproxy.Listen(echo(t), func(int) cutproxy.Plan { return plan })
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, p.Close()) })
	c, err := net.Dial("tcp", p.Addr())
	require.NoError(t, err)
	t.Cleanup(func() { c.Close() })
	return c
}

func TestConnectionsAreCutAfterTheGivenByte(t *testing.T) {
	for name, plan := range map[string]cutproxy.Plan{
		"to server": {ToServer: 7},
		"to client": {ToClient: 7},
	} {
		t.Run(name, func(t *testing.T) {
			c := through(t, plan)
			_, err := c.Write([]byte("0123456789"))
			require.NoError(t, err)
			got, _ := io.ReadAll(c)
			if plan.ToServer > 0 {
				require.LessOrEqual(t, len(got), 7)
			} else {
				require.Equal(t, "0123456", string(got))
			}
		})
	}
}

func TestSilentConnectionsStayOpenAndPassNothing(t *testing.T) {
	c := through(t, cutproxy.Plan{ToClient: 3, Silent: true})
	_, err := c.Write([]byte("abcdef"))
	require.NoError(t, err)
	got := make([]byte, 3)
	_, err = io.ReadFull(c, got)
	require.NoError(t, err)
	require.Equal(t, "abc", string(got))
	require.NoError(t, c.SetReadDeadline(time.Now().Add(50*time.Millisecond)))
	_, err = c.Read(got)
	var timeout net.Error
	require.ErrorAs(t, err, &timeout)
	require.True(t, timeout.Timeout())
	_, err = c.Write([]byte("more"))
	require.NoError(t, err)
}

func TestTheZeroPlanPassesEverything(t *testing.T) {
	c := through(t, cutproxy.Plan{})
	message := make([]byte, 1<<20)
	go func() { _, _ = c.Write(message) }()
	got := make([]byte, len(message))
	_, err := io.ReadFull(c, got)
	require.NoError(t, err)
}
