package websocket_test

import (
	"fmt"
	"net"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/pay-theory/streamer/v2"
	"github.com/pay-theory/streamer/v2/transport"
	"github.com/pay-theory/streamer/v2/transport/internal/pipes"
)

func TestASilentClientIsPingedAndThenClosed(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := setup{listener: pipes.Listen()}.start(t)
		p := s.hello()
		began := time.Now()
		for range 10 {
			p.expect("ping", "")
			p.send(`{"type":"pong"}`)
		}
		require.Less(t, time.Since(began), 10*27*time.Second)
		p.lives()
		p.expect("ping", "")
		silent := time.Now()
		p.expectClosed(4408)
		require.Less(t, time.Since(silent), 13*time.Second)
		require.EqualValues(t, 1, s.handler.Stats().TimedOut)
	})
}

func TestAnyByteIsASignOfLife(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := setup{listener: pipes.Listen()}.start(t)
		p := s.hello()
		for range 10 {
			p.expect("ping", "")
			p.send(`nonsense`)
			p.fails(streamer.ErrCodeValidation, "")
		}
	})
}

func TestAClientThatIsOnlyShownEventsIsPingedToo(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := setup{listener: pipes.Listen()}.start(t)
		p := s.hello()
		p.send(`{"type":"request","id":"r1","action":"long"}`)
		p.expect("acknowledgment", "r1")
		w := s.worker("r1").Start()
		p.expect("status", "r1")
		for range 30 {
			time.Sleep(time.Second)
			w.Output("1")
			if m := p.next(); m.Type == "ping" {
				return
			}
		}
		t.Fatal("no ping")
	})
}

func TestAHalfOpenConnectionIsFoundDead(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := setup{listener: pipes.Listen()}.start(t)
		s.raw(nil) // neither reads nor writes from now on
		synctest.Wait()
		require.Equal(t, 1, s.handler.Stats().Connections)
		time.Sleep(37 * time.Second)
		synctest.Wait()
		require.Zero(t, s.handler.Stats().Connections)
	})
}

func TestAnOlderClientIsPingedByFrames(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := setup{listener: pipes.Listen()}.start(t)
		conn := s.raw(nil)
		for range 3 {
			require.NoError(t, conn.SetReadDeadline(time.Now().Add(30*time.Second)))
			buf := make([]byte, 16)
			n, err := conn.Read(buf)
			require.NoError(t, err)
			require.EqualValues(t, 0x89, buf[0], "a ping frame")
			conn.Write(frame(0x8a, string(buf[2:n])))
		}
		synctest.Wait()
		require.Equal(t, 1, s.handler.Stats().Connections)
	})
}

func TestAClientThatDoesNotSayHelloIsClosed(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := setup{listener: pipes.Listen(), options: []transport.Option{transport.WithAuthenticator(byToken)}}.start(t)
		for _, header := range [][]string{nil, {"Authorization", "Bearer alice", "Protocol", "streamer.v1"}} {
			began := time.Now()
			s.connect(header...).expectClosed(4408)
			require.InDelta(t, 5, time.Since(began).Seconds(), 1.1)
		}
		p := s.connect("Authorization", "Bearer alice")
		time.Sleep(10 * time.Second)
		p.send(`{"type":"request","id":"r1","action":"echo"}`)
		p.expect("response", "r1")
	})
}

func TestATokenThatExpiresClosesTheConnectionUnlessItIsRenewed(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := setup{listener: pipes.Listen(), options: []transport.Option{transport.WithAuthenticator(byToken), transport.WithPingInterval(time.Hour)}}.start(t)
		p := s.connect()
		p.send(`{"type":"hello","v":1,"token":"alice/2m"}`)
		require.WithinDuration(t, time.Now().Add(2*time.Minute), p.expect("welcome", "").AuthExpiresAt, time.Second)
		p.send(`{"type":"request","id":"r1","action":"long"}`)
		p.expect("acknowledgment", "r1")

		began := time.Now()
		require.LessOrEqual(t, p.expect("auth_expiring", "").ExpiresInMS, int64(60_000))
		require.InDelta(t, 60, time.Since(began).Seconds(), 2)
		p.send(`{"type":"auth","token":"alice/3m","ref":"a"}`)
		m := p.expect("authenticated", "")
		require.Equal(t, "a", m.Ref)
		require.WithinDuration(t, time.Now().Add(3*time.Minute), m.ExpiresAt, time.Second)

		p.send(`{"type":"auth","token":"wrong","ref":"b"}`)
		require.Equal(t, "b", p.fails(streamer.ErrCodeUnauthorized, "").Ref)

		p.expect("auth_expiring", "")
		renewed := time.Now()
		require.Equal(t, "token expired", p.expectClosed(4401))
		require.InDelta(t, 60, time.Since(renewed).Seconds(), 2)

		// The request went on.
		s.workerOf("/alice", "r1").Start().Complete(`1`)
		q := s.hello("Authorization", "Bearer alice")
		q.send(`{"type":"attach","id":"r1","after":1}`)
		q.expect("attached", "r1")
		q.expect("status", "r1")
		q.expect("complete", "r1")
	})
}

func TestAReaderThatStopsIsCutAndLosesNothing(t *testing.T) {
	t.Parallel()
	s := start(t, transport.WithWriteTimeout(2*time.Second))
	s.submit(streamer.Identity{}, "r1")
	w := s.worker("r1").Start()
	p, other := s.hello(), s.hello()
	for _, q := range []*peer{p, other} {
		q.send(`{"type":"attach","id":"r1","after":2}`)
		q.expect("attached", "r1")
	}
	const outputs = 300
	big := `"` + strings.Repeat("x", 64<<10) + `"`
	go func() {
		for range outputs {
			w.Output(big)
		}
		w.Complete(`1`)
	}()
	complete := make(chan error, 1)
	go func() { complete <- other.follows(3, outputs+3) }()
	seq := uint64(3)
	for ; seq < 50; seq++ {
		require.Equal(t, seq, p.expect("output", "r1").Seq)
	}
	require.NoError(t, <-complete)
	require.Eventually(t, func() bool { return s.handler.Stats().TimedOut == 1 }, 10*time.Second, 10*time.Millisecond)
	require.Eventually(t, func() bool { return s.handler.Stats().Connections == 1 }, 10*time.Second, 10*time.Millisecond)
	other.lives()

	again := s.hello()
	again.send(fmt.Sprintf(`{"type":"attach","id":"r1","after":%d}`, seq-1))
	again.expect("attached", "r1")
	require.NoError(t, again.follows(seq, outputs+3))
}

// follows reads the events of r1 from one number to another and returns an error unless just
// these come.
func (p *peer) follows(from, to uint64) error {
	for seq := from; seq <= to; seq++ {
		message, err := p.read()
		if err != nil {
			return err
		}
		if !strings.Contains(message, fmt.Sprintf(`"request_id":"r1","seq":%d,`, seq)) {
			return fmt.Errorf("event %d is missing: %.100s", seq, message)
		}
	}
	return nil
}

func TestRepliesThatAreNotReadAreBounded(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := setup{listener: pipes.Listen(), options: []transport.Option{
			transport.WithLimits(transport.Limits{QueuedBytes: 4 << 10}),
		}}.start(t)
		conn := s.raw(nil) // does not read from now on
		for range 200 {
			if _, err := conn.Write(frame(0x81, `{"type":"ping","ref":"0123456789"}`)); err != nil {
				break
			}
		}
		time.Sleep(3 * time.Second)
		synctest.Wait()
		require.Zero(t, s.handler.Stats().Connections)
		require.EqualValues(t, 1, s.handler.Stats().TimedOut)
	})
}

func TestShortWorkForASlowReaderWaitsInTheLog(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := setup{listener: pipes.Listen(), options: []transport.Option{
			transport.WithLimits(transport.Limits{QueuedBytes: 2 << 10}),
		}}.start(t)
		p := s.hello()
		for i := range 20 { // nothing is read meanwhile: a pipe has no buffer
			p.send(fmt.Sprintf(`{"type":"request","id":"r%d","action":"echo","payload":"%s","ref":"%d"}`, i, strings.Repeat("x", 1000), i))
		}
		synctest.Wait()
		seen := make(map[string]bool)
		for range 20 {
			m := p.next()
			require.Equal(t, "response", m.Type)
			require.Equal(t, m.RequestID, "r"+m.Ref)
			seen[m.RequestID] = true
		}
		require.Len(t, seen, 20)
		p.lives()
		require.Zero(t, s.handler.Stats().Attached)
	})
}

func TestAClosingHandshakeThatIsNotAnsweredIsCutShort(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := setup{listener: pipes.Listen()}.start(t)
		conn := s.raw(frame(0x81, `{"type":"hello","v":2}`))
		began := time.Now()
		conn.reads("\x0f\xa0\x11\x36"[2:]) // 4406
		_, err := conn.Read(make([]byte, 1))
		for err == nil {
			_, err = conn.Read(make([]byte, 100))
		}
		require.NotErrorIs(t, err, net.ErrClosed)
		require.Less(t, time.Since(began), 3*time.Second)
		synctest.Wait()
		require.Zero(t, s.handler.Stats().Connections)
	})
}

func TestTheHandlerHoldsNothingWhenItsConnectionsAreGone(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := setup{listener: pipes.Listen()}.start(t)
		s.submit(streamer.Identity{}, "r1")
		for range 50 {
			p := s.hello()
			p.send(`{"type":"attach","id":"r1"}`)
			p.expect("attached", "r1")
			p.conn.CloseNow()
		}
		time.Sleep(2 * time.Second)
		synctest.Wait()
		st := s.handler.Stats()
		require.Zero(t, st.Connections)
		require.Zero(t, st.Attached)
	})
}
