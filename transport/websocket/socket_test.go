package websocket_test

import (
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/pay-theory/streamer/v2/transport"
)

// The same as in the bubbles of the other files, over sockets of the machine and with times
// that are worth waiting for.

func TestOverASocketAClientThatDoesNotSayHelloIsClosed(t *testing.T) {
	t.Parallel()
	s := start(t, transport.WithAuthenticator(byToken), transport.WithHelloTimeout(100*time.Millisecond))
	s.connect().expectClosed(4408)
	s.hello("Authorization", "Bearer alice").lives()
}

func TestOverASocketASilentClientIsClosed(t *testing.T) {
	t.Parallel()
	s := start(t, transport.WithPingInterval(100*time.Millisecond), transport.WithPongTimeout(100*time.Millisecond))
	p := s.hello()
	p.expect("ping", "")
	require.Equal(t, "no sign of life", p.expectClosed(4408))
}

func TestOverASocketAHalfOpenConnectionIsFoundDead(t *testing.T) {
	t.Parallel()
	s := start(t, transport.WithPingInterval(100*time.Millisecond), transport.WithPongTimeout(100*time.Millisecond))
	s.raw(nil) // neither reads nor writes from now on, and does not close
	require.Eventually(t, func() bool { return s.handler.Stats().TimedOut == 1 && s.handler.Stats().Connections == 0 },
		20*time.Second, 10*time.Millisecond)
}

func TestOverASocketATokenThatExpiresClosesTheConnectionAndNotTheRequest(t *testing.T) {
	t.Parallel()
	s := start(t, transport.WithAuthenticator(byToken))
	p := s.connect()
	p.send(`{"type":"hello","v":1,"token":"alice/1s"}`)
	p.expect("welcome", "")
	p.send(`{"type":"request","id":"r1","action":"long"}`)
	p.expect("acknowledgment", "r1")
	require.Equal(t, "token expired", p.closed(4401))

	s.workerOf("/alice", "r1").Start().Complete(`1`)
	q := s.hello("Authorization", "Bearer alice")
	q.send(`{"type":"attach","id":"r1","after":1}`)
	q.expect("attached", "r1")
	q.expect("status", "r1")
	q.expect("complete", "r1")
}
