package client_test

import (
	"context"
	"errors"
	"log/slog"
	"net"
	"net/http"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/coder/websocket"
	"github.com/stretchr/testify/require"

	streamer "github.com/pay-theory/streamer/v2"
	"github.com/pay-theory/streamer/v2/client"
	"github.com/pay-theory/streamer/v2/internal/wire"
)

func TestATokenIsAskedForAtEachConnect(t *testing.T) {
	bubble(t, func(t *testing.T, s *server) {
		asked := 0
		c := s.client(client.WithTokenSource(func(context.Context) (string, error) {
			asked++
			return "token-" + string(rune('0'+asked)), nil
		}))
		done := goRequest(t.Context(), c, "long", client.WithID("r1"))
		synctest.Wait()
		s.close(4401, "token expired")
		time.Sleep(time.Second)
		s.complete("r1", `1`)
		require.NoError(t, (<-done).err)
		require.Equal(t, []string{"Bearer token-1", "Bearer token-2"}, s.tokens)
	})
}

func TestATokenThatIsRefusedTwiceInARowEndsTheWait(t *testing.T) {
	bubble(t, func(t *testing.T, s *server) {
		s.intercept = func(x *session, m *wire.Inbound) bool {
			s.mu.Lock()
			defer s.mu.Unlock()
			x.bye = &websocket.CloseError{Code: 4401, Reason: "bad token"}
			x.poke()
			return true
		}
		c := s.client(client.WithToken("t"))
		_, err := c.Request(t.Context(), "echo", nil)
		require.Equal(t, "UNAUTHORIZED", codeOf(err))
		require.ErrorContains(t, err, "bad token")
		require.Equal(t, 2, s.dialed())
	})
}

func TestATokenSourceThatFailsIsAskedAgainUnlessItSaysNo(t *testing.T) {
	bubble(t, func(t *testing.T, s *server) {
		asked := 0
		c := s.client(client.WithTokenSource(func(context.Context) (string, error) {
			if asked++; asked < 3 {
				return "", errors.New("identity provider is down")
			}
			return "t", nil
		}))
		_, err := c.Request(t.Context(), "echo", nil)
		require.NoError(t, err)
		require.Equal(t, 3, asked)

		c = s.client(client.WithTokenSource(func(context.Context) (string, error) {
			return "", streamer.NewError(streamer.ErrCodeUnauthorized, "logged out")
		}))
		_, err = c.Request(t.Context(), "echo", nil)
		require.Equal(t, "UNAUTHORIZED", codeOf(err))
		require.ErrorContains(t, err, "logged out")
	})
}

func TestATokenSourceThatHangsIsBounded(t *testing.T) {
	bubble(t, func(t *testing.T, s *server) {
		asked := 0
		c := s.client(client.WithTokenSource(func(ctx context.Context) (string, error) {
			if asked++; asked == 1 {
				<-ctx.Done()
				return "", ctx.Err()
			}
			return "t", nil
		}))
		start := time.Now()
		_, err := c.Request(t.Context(), "echo", nil)
		require.NoError(t, err)
		require.InDelta(t, 10.25, time.Since(start).Seconds(), 0.3)
	})
}

func TestATokenIsRefreshedInBand(t *testing.T) {
	bubble(t, func(t *testing.T, s *server) {
		tokens := []string{"one", "two"}
		c := s.client(client.WithTokenSource(func(context.Context) (string, error) {
			token := tokens[0]
			tokens = tokens[1:]
			return token, nil
		}))
		_, err := c.Request(t.Context(), "echo", nil)
		require.NoError(t, err)
		s.broadcast(&wire.Outbound{Type: wire.TypeAuthExpiring, ExpiresInMS: 60000})
		synctest.Wait()
		auth := s.got(wire.TypeAuth)
		require.Len(t, auth, 1)
		require.Equal(t, "two", auth[0].Token)
		require.Equal(t, 1, s.dialed())
	})
}

func TestTokensAndQueriesAreNotLogged(t *testing.T) {
	bubble(t, func(t *testing.T, s *server) {
		var log strings.Builder
		transport := &http.Transport{DialContext: func(context.Context, string, string) (net.Conn, error) {
			return nil, errors.New("no route")
		}}
		c, err := client.New("ws://server/ws?ticket=hunter2", client.WithToken("hunter3"),
			client.WithLogger(slog.New(slog.NewTextHandler(&log, &slog.HandlerOptions{Level: slog.LevelDebug}))),
			client.WithHTTPClient(&http.Client{Transport: transport}))
		require.NoError(t, err)
		ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
		defer cancel()
		_, err = c.Request(ctx, "echo", nil)
		require.ErrorContains(t, err, "no route")
		require.NotContains(t, err.Error(), "hunter")
		require.NoError(t, c.Close())
		require.Contains(t, log.String(), "no route")
		require.NotContains(t, log.String(), "hunter")
	})
}
