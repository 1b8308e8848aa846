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
