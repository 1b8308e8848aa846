package sse_test

import (
	"net"
	"testing"

	"github.com/stretchr/testify/require"
)

// slowloris opens connections that send the half of a request's head.
func slowloris(t *testing.T, addr string, n int) []net.Conn {
	t.Helper()
	var conns []net.Conn
	t.Cleanup(func() {
		for _, c := range conns {
			c.Close()
		}
	})
	for range n {
		c, err := net.Dial("tcp", addr)
		require.NoError(t, err)
		conns = append(conns, c)
		_, err = c.Write([]byte("POST /requests HTTP/1.1\r\nHost: 127.0.0.1\r\nX-Padding: "))
		require.NoError(t, err)
	}
	return conns
}
