package websocket

import (
	"net"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/pay-theory/streamer/v2"
)

// recorder is a net.Conn that keeps each write.
type recorder struct {
	net.Conn
	writes []string
}

func (r *recorder) Write(p []byte) (int, error) {
	r.writes = append(r.writes, string(p))
	return len(p), nil
}

func TestHeldPiecesAreOneWrite(t *testing.T) {
	big := strings.Repeat("x", bufferMax+1)
	for _, row := range []struct {
		name   string
		hold   int
		pieces []string
		writes []string
	}{
		{"nothing held", 0, []string{"a", "b"}, []string{"a", "b"}},
		{"in pieces", 6, []string{"ab", "c", "def"}, []string{"abcdef"}},
		{"in one piece", 3, []string{"abc"}, []string{"abc"}},
		{"what comes after", 2, []string{"a", "b", "c"}, []string{"ab", "c"}},
		{"with a control frame between", 4, []string{"ab", "PONG", "cd"}, []string{"abPONG", "cd"}},
		{"with a small control frame between", 4, []string{"ab", "P", "cd"}, []string{"abPcd"}},
		{"with a control frame before", 3, []string{"PONG", "ab", "c"}, []string{"PONG", "ab", "c"}},
		{"too much", len(big), []string{"x", big[1:]}, []string{"x", big[1:]}},
	} {
		t.Run(row.name, func(t *testing.T) {
			conn := new(recorder)
			l := &link{Conn: conn, h: NewHandler(new(streamer.Mux))}
			l.hold(row.hold)
			for _, p := range row.pieces {
				n, err := l.Write([]byte(p))
				require.NoError(t, err)
				require.Equal(t, len(p), n)
			}
			require.Equal(t, row.writes, conn.writes)
			require.Zero(t, l.held.Load())
			require.Nil(t, l.out)
		})
	}
}
