package client_test

import (
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/pay-theory/streamer/v2/client"
	"github.com/pay-theory/streamer/v2/internal/wire"
)

func TestRequestsWaitForThoseInFlight(t *testing.T) {
	bubble(t, func(t *testing.T, s *server) {
		s.welcome.Limits.MaxInflight = 4
		var held []*wire.Inbound
		most := 0
		s.intercept = func(x *session, m *wire.Inbound) bool {
			if m.Type != wire.TypeRequest {
				return false
			}
			s.mu.Lock()
			defer s.mu.Unlock()
			held = append(held, m)
			most = max(most, len(held))
			time.AfterFunc(time.Second, func() {
				s.mu.Lock()
				defer s.mu.Unlock()
				m := held[0]
				held = held[1:]
				x.serve(m)
			})
			return true
		}
		c := s.client()
		var all []<-chan answer
		for range 20 {
			all = append(all, goRequest(t.Context(), c, "echo"))
		}
		for _, done := range all {
			require.NoError(t, (<-done).err)
		}
		require.LessOrEqual(t, most, 4)
		require.Greater(t, most, 1)
	})
}

func TestRequestsWaitForASlotToFollowThem(t *testing.T) {
	bubble(t, func(t *testing.T, s *server) {
		s.welcome.Limits.MaxAttached = 2
		c := s.client()
		a := goRequest(t.Context(), c, "long", client.WithID("a"))
		b := goRequest(t.Context(), c, "long", client.WithID("b"))
		synctest.Wait()
		waits := goRequest(t.Context(), c, "echo")
		synctest.Wait()
		require.Len(t, s.got(wire.TypeRequest), 2)
		s.complete("a", `1`)
		require.NoError(t, (<-a).err)
		require.NoError(t, (<-waits).err)
		s.complete("b", `1`)
		require.NoError(t, (<-b).err)
	})
}

func TestPendingRequestsAreBounded(t *testing.T) {
	bubble(t, func(t *testing.T, s *server) {
		c := s.client(client.WithLimits(client.Limits{Pending: 2}))
		for range 2 {
			_, err := c.Submit(t.Context(), "long", nil)
			require.NoError(t, err)
		}
		_, err := c.Submit(t.Context(), "long", nil)
		require.Equal(t, "RATE_LIMITED", codeOf(err))
	})
}
