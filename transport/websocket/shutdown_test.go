package websocket_test

import (
	"context"
	"net/http"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/pay-theory/streamer/v2"
	"github.com/pay-theory/streamer/v2/internal/wire"
	"github.com/pay-theory/streamer/v2/progress"
	"github.com/pay-theory/streamer/v2/transport"
	"github.com/pay-theory/streamer/v2/transport/internal/pipes"
)

func TestDrainingTellsClientsToMoveAndTakesNothingNew(t *testing.T) {
	t.Parallel()
	s := start(t, transport.WithDrainTime(4*time.Second))
	p, older := s.hello(), s.connect()
	p.send(`{"type":"request","id":"r1","action":"long"}`)
	p.expect("acknowledgment", "r1")
	require.NoError(t, s.mux.Shutdown(context.Background()))

	m := p.expect("goaway", "")
	require.LessOrEqual(t, m.ReconnectInMS, int64(1000))
	require.EqualValues(t, 4000, m.DeadlineMS)
	for _, q := range []*peer{p, older} {
		q.send(`{"type":"request","id":"r2","action":"echo"}`)
		require.Positive(t, q.fails(streamer.ErrCodeServiceUnavailable, "r2").Error.RetryAfter)
	}
	_, resp, err := s.tryConnect()
	require.Error(t, err)
	require.Equal(t, http.StatusServiceUnavailable, resp.StatusCode)
	require.NotEmpty(t, resp.Header.Get("Retry-After"))

	// What is there is shown on.
	s.worker("r1").Start().Complete(`1`)
	p.expect("status", "r1")
	p.expect("complete", "r1")
}

// gatedLog holds up reads of request a and watches of request b.
type gatedLog struct {
	progress.Log
	read, watch chan struct{} // nil: open
}

func (l *gatedLog) Read(ctx context.Context, key progress.Key, after uint64, limit int) (progress.Page, error) {
	if key.ID == "a" && l.read != nil {
		<-l.read
	}
	return l.Log.Read(ctx, key, after, limit)
}

func (l *gatedLog) Watch(ctx context.Context, key progress.Key, notify func(string)) (func(), error) {
	if key.ID == "b" && l.watch != nil {
		<-l.watch
	}
	return l.Log.Watch(ctx, key, notify)
}

func TestARequestThatIsAttachedWhileTheConnectionClosesIsNotShown(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		gate := &gatedLog{}
		s := setup{listener: pipes.Listen(), log: func(l progress.Log) progress.Log {
			gate.Log = l
			return gate
		}}.start(t)
		p := s.hello()
		for _, id := range []string{"a", "b"} {
			p.send(`{"type":"request","id":"` + id + `","action":"long"}`)
			p.expect("acknowledgment", id)
		}
		p = s.hello()
		p.send(`{"type":"attach","id":"a","after":1}`)
		p.expect("attached", "a")
		synctest.Wait()
		read, watch := make(chan struct{}), make(chan struct{})
		gate.read, gate.watch = read, watch
		s.worker("a").Start()
		p.send(`{"type":"attach","id":"b"}`)
		synctest.Wait()
		go s.handler.Shutdown(t.Context())
		synctest.Wait()
		time.Sleep(500 * time.Millisecond) // the connection closes, once a is shown
		close(watch)
		synctest.Wait()
		close(read)
		var told []string
		for message, err := p.read(); err == nil; message, err = p.read() {
			m, err := wire.DecodeOutbound([]byte(message))
			require.NoError(t, err)
			told = append(told, m.Type+" "+m.RequestID)
		}
		require.ElementsMatch(t, []string{"goaway ", "status a"}, told)
	})
}

func TestReconnectsAreSpread(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := setup{listener: pipes.Listen()}.start(t)
		var peers []*peer
		for range 60 {
			peers = append(peers, s.hello())
		}
		go s.mux.Shutdown(context.Background())
		var in []int64
		for _, p := range peers {
			in = append(in, p.expect("goaway", "").ReconnectInMS)
		}
		slices.Sort(in)
		require.Less(t, in[5], int64(1500))
		require.Greater(t, in[54], int64(3500))
		require.LessOrEqual(t, in[59], int64(5000))
	})
}

func TestShutdownClosesAllConnectionsOneAfterTheOther(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := setup{listener: pipes.Listen()}.start(t)
		began := time.Now()
		times := make(chan time.Duration, 100)
		for range cap(times) {
			p := s.hello()
			go func() {
				p.expect("goaway", "")
				p.expectClosed(1012)
				times <- time.Since(began)
			}()
		}
		synctest.Wait()
		began = time.Now()
		ctx, cancel := context.WithTimeout(context.Background(), 300*time.Millisecond)
		defer cancel()
		require.NoError(t, s.handler.Shutdown(ctx))
		require.Less(t, time.Since(began), 300*time.Millisecond)
		distinct := make(map[time.Duration]bool)
		for range cap(times) {
			distinct[(<-times).Round(time.Microsecond)] = true
		}
		require.Greater(t, len(distinct), 90)
		require.Zero(t, s.handler.Stats().Connections)
		_, resp, err := s.tryConnect()
		require.Error(t, err)
		require.Equal(t, http.StatusServiceUnavailable, resp.StatusCode)
		require.NoError(t, s.handler.Shutdown(context.Background()))
	})
}

func TestShutdownWithoutConnectionsIsImmediate(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := setup{listener: pipes.Listen()}.start(t)
		began := time.Now()
		require.NoError(t, s.handler.Shutdown(context.Background()))
		require.Zero(t, time.Since(began))
	})
}

func TestShutdownCutsWhatDoesNotCloseInTime(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		held := &holding{release: make(chan struct{})}
		s := setup{listener: pipes.Listen(), router: func(r transport.Router) transport.Router {
			held.Router = r
			return held
		}}.start(t)
		s.raw(nil) // never answers the close frame
		p := s.hello()
		p.send(`{"type":"request","id":"r1","action":"echo"}`)
		synctest.Wait()
		ctx, cancel := context.WithTimeout(context.Background(), 500*time.Millisecond)
		defer cancel()
		began := time.Now()
		require.ErrorIs(t, s.handler.Shutdown(ctx), context.DeadlineExceeded)
		require.Less(t, time.Since(began), 2*time.Second)
		close(held.release)
		synctest.Wait()
		require.Zero(t, s.handler.Stats().Connections)
	})
}

func TestConnectionsThatComeDuringShutdownAreClosedOrRefused(t *testing.T) {
	t.Parallel()
	s := start(t)
	stop := make(chan struct{})
	done := make(chan struct{})
	go func() {
		defer close(done)
		for {
			select {
			case <-stop:
				return
			default:
			}
			if p, _, err := s.tryConnect(); err == nil {
				p.conn.CloseNow()
			}
		}
	}()
	require.Eventually(t, func() bool { return s.handler.Stats().Accepted > 20 }, 10*time.Second, time.Millisecond)
	ctx, cancel := context.WithTimeout(context.Background(), 5*time.Second)
	defer cancel()
	require.NoError(t, s.handler.Shutdown(ctx))
	require.Zero(t, s.handler.Stats().Connections)
	close(stop)
	<-done
	require.Zero(t, s.handler.Stats().Connections)
}
