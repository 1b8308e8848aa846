package client_test

import (
	"context"
	"net/http"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/coder/websocket"
	"github.com/stretchr/testify/require"

	"github.com/pay-theory/streamer/v2/client"
	"github.com/pay-theory/streamer/v2/internal/cutproxy"
	"github.com/pay-theory/streamer/v2/internal/wire"
)

func TestRequestsThatWereNotAcknowledgedAreSentAgainWithTheSameID(t *testing.T) {
	bubble(t, func(t *testing.T, s *server) {
		dropped := false
		s.intercept = func(x *session, m *wire.Inbound) bool {
			if m.Type != wire.TypeRequest || dropped {
				return false
			}
			dropped = true
			x.cancel()
			return true
		}
		c := s.client()
		_, err := c.Request(t.Context(), "echo", nil)
		require.NoError(t, err)
		sent := s.got(wire.TypeRequest)
		require.Len(t, sent, 2)
		require.Equal(t, sent[0].ID, sent[1].ID)
	})
}

func TestAcknowledgedRequestsAreResumedByCursor(t *testing.T) {
	bubble(t, func(t *testing.T, s *server) {
		c := s.client()
		r, err := c.Submit(t.Context(), "long", nil, client.WithID("r1"))
		require.NoError(t, err)
		s.start("r1")
		s.outputs("r1", 0, 10)
		synctest.Wait()
		s.drop()
		s.outputs("r1", 10, 20)
		s.complete("r1", `1`)
		require.Len(t, seqs(t, r), 23)
		hello := s.got(wire.TypeHello)
		require.Len(t, hello, 2)
		require.Equal(t, []wire.Cursor{{ID: "r1", Epoch: "e1", After: 12}}, hello[1].Resume)
		require.Len(t, s.got(wire.TypeRequest), 1)
	})
}

func TestReconnectGoesOnForAsLongAsSomethingIsPending(t *testing.T) {
	bubble(t, func(t *testing.T, s *server) {
		s.refuse(http.StatusBadGateway)
		var mu sync.Mutex
		var states []client.State
		c := s.client(client.WithStateFunc(func(s client.State) {
			mu.Lock()
			defer mu.Unlock()
			states = append(states, s)
		}))
		done := goRequest(t.Context(), c, "echo")
		time.Sleep(time.Hour)
		// After the first few, at most 20 s apart, and on average half of that.
		require.Greater(t, s.dialed(), 3600/20)
		require.Less(t, s.dialed(), 3600/5)
		require.Equal(t, client.Reconnecting, c.State().Phase)
		require.Equal(t, s.dialed(), c.State().Attempt)
		require.ErrorContains(t, c.State().Err, "502")
		s.refuse(0)
		require.NoError(t, (<-done).err)
		require.Equal(t, client.Open, c.State().Phase)
		synctest.Wait()
		mu.Lock()
		defer mu.Unlock()
		require.Equal(t, client.Connecting, states[0].Phase)
		require.Equal(t, client.Reconnecting, states[1].Phase)
		require.Equal(t, 1, states[1].Attempt)
		require.LessOrEqual(t, time.Until(states[1].Next), 500*time.Millisecond)
		require.Equal(t, client.Open, states[len(states)-1].Phase)
	})
}

func TestNothingPendingMeansNoReconnect(t *testing.T) {
	bubble(t, func(t *testing.T, s *server) {
		c := s.client()
		_, err := c.Request(t.Context(), "echo", nil)
		require.NoError(t, err)
		require.Equal(t, client.Open, c.State().Phase)
		s.drop()
		time.Sleep(time.Hour)
		require.Equal(t, 1, s.dialed())
		require.Equal(t, client.Idle, c.State().Phase)

		_, err = c.Request(t.Context(), "echo", nil)
		require.NoError(t, err)

		s.refuse(http.StatusServiceUnavailable)
		s.drop()
		synctest.Wait()
		ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
		defer cancel()
		_, err = c.Request(ctx, "echo", nil)
		require.ErrorIs(t, err, context.DeadlineExceeded)
		require.ErrorContains(t, err, "503")
		n := s.dialed()
		time.Sleep(time.Hour)
		require.Equal(t, n, s.dialed())
		require.Equal(t, client.Idle, c.State().Phase)
	})
}

func TestAServerThatAcceptsAndClosesIsNotHammered(t *testing.T) {
	bubble(t, func(t *testing.T, s *server) {
		s.intercept = func(x *session, m *wire.Inbound) bool {
			if m.Type == wire.TypeRequest {
				x.cancel()
			}
			return m.Type == wire.TypeRequest
		}
		c := s.client()
		ctx, cancel := context.WithTimeout(t.Context(), 10*time.Minute)
		defer cancel()
		_, err := c.Request(ctx, "echo", nil)
		require.ErrorIs(t, err, context.DeadlineExceeded)
		require.Less(t, s.dialed(), 120)
	})
}

func TestWhatTheServerAsksForIsTheLeastWait(t *testing.T) {
	for name, refuse := range map[string]func(w http.ResponseWriter){
		"Retry-After": func(w http.ResponseWriter) {
			w.Header().Set("Retry-After", "60")
			w.WriteHeader(http.StatusServiceUnavailable)
		},
		"problem": func(w http.ResponseWriter) {
			w.Header().Set("Content-Type", "application/problem+json")
			w.WriteHeader(http.StatusTooManyRequests)
			_, _ = w.Write([]byte(`{"detail":"slow down","retry_after_ms":60000}`))
		},
	} {
		t.Run(name, func(t *testing.T) {
			bubble(t, func(t *testing.T, s *server) {
				s.handshake = func(w http.ResponseWriter, r *http.Request) bool {
					if s.dialed() > 1 {
						return false
					}
					refuse(w)
					return true
				}
				c := s.client()
				start := time.Now()
				_, err := c.Request(t.Context(), "echo", nil)
				require.NoError(t, err)
				require.GreaterOrEqual(t, time.Since(start), time.Minute)
				require.Less(t, time.Since(start), time.Minute+time.Second)
			})
		})
	}
}

func TestHandshakesThatAreRefusedForGoodEndTheWait(t *testing.T) {
	for status, code := range map[int]string{
		200: "SERVICE_UNAVAILABLE", 400: "VALIDATION_ERROR", 401: "UNAUTHORIZED", 403: "FORBIDDEN", 404: "SERVICE_UNAVAILABLE",
	} {
		t.Run(http.StatusText(status), func(t *testing.T) {
			bubble(t, func(t *testing.T, s *server) {
				s.refuse(status)
				c := s.client(client.WithToken("t"))
				_, err := c.Request(t.Context(), "echo", nil)
				require.Equal(t, code, codeOf(err), "%v", err)
				require.Equal(t, client.Closed, c.State().Phase)
				require.Equal(t, code, codeOf(c.State().Err))
				n := s.dialed()
				if status == 401 {
					require.Equal(t, 2, n)
				} else {
					require.Equal(t, 1, n)
				}
				time.Sleep(time.Hour)
				require.Equal(t, n, s.dialed())

				s.refuse(0)
				_, err = c.Request(t.Context(), "echo", nil)
				require.NoError(t, err)
			})
		})
	}
}

func TestCloseCodes(t *testing.T) {
	const again = ""
	for _, tc := range []struct {
		code   websocket.StatusCode
		reason string
		want   string // again, or the code of the error
		least  time.Duration
		most   time.Duration
	}{
		{code: 1000, want: again, most: time.Second},
		{code: 1001, want: again, most: time.Second},
		{code: 1011, want: again, most: time.Second},
		{code: 1012, want: again, most: 5 * time.Second},
		{code: 1013, want: again, least: 5 * time.Second, most: 10 * time.Second},
		{code: 1014, want: again, most: time.Second},
		{code: 1002, want: "INTERNAL_ERROR"},
		{code: 1003, want: "INTERNAL_ERROR"},
		{code: 1007, want: "INTERNAL_ERROR"},
		{code: 1008, want: "FORBIDDEN"},
		{code: 1009, want: "PAYLOAD_TOO_LARGE"},
		{code: 1010, want: "INTERNAL_ERROR"},
		{code: 4400, want: "VALIDATION_ERROR"},
		{code: 4401, want: again, most: time.Second},
		{code: 4403, want: "FORBIDDEN"},
		{code: 4406, want: "SERVICE_UNAVAILABLE"},
		{code: 4408, want: again, most: time.Second},
		{code: 4429, reason: "retry_after_ms=30000", want: again, least: 30 * time.Second, most: 31 * time.Second},
		{code: 4500, want: again, most: time.Second},
		{code: 4503, want: again, most: time.Second},
	} {
		t.Run(tc.code.String(), func(t *testing.T) {
			bubble(t, func(t *testing.T, s *server) {
				c := s.client(client.WithToken("t"))
				r, err := c.Submit(t.Context(), "long", nil, client.WithID("r1"))
				require.NoError(t, err)
				time.Sleep(10 * time.Second)
				closed := time.Now()
				s.close(tc.code, tc.reason)
				synctest.Wait()
				if tc.want == again {
					for s.dialed() < 2 && time.Since(closed) < time.Minute {
						time.Sleep(10 * time.Millisecond)
					}
					require.GreaterOrEqual(t, time.Since(closed), tc.least)
					require.LessOrEqual(t, time.Since(closed), tc.most)
					s.complete("r1", `1`)
				}
				_, err = r.Wait(t.Context())
				require.Equal(t, tc.want, codeOf(err), "%v", err)
			})
		})
	}
}

func TestOnlyTheRequestThatIsTooBigFails(t *testing.T) {
	bubble(t, func(t *testing.T, s *server) {
		s.welcome.Limits.MaxMessageBytes = 0 // as if a proxy were stricter
		s.intercept = func(x *session, m *wire.Inbound) bool {
			if m.Type != wire.TypeRequest || len(m.Payload) < 1000 {
				return false
			}
			s.mu.Lock()
			defer s.mu.Unlock()
			x.bye = &websocket.CloseError{Code: websocket.StatusMessageTooBig}
			x.poke()
			return true
		}
		c := s.client()
		r, err := c.Submit(t.Context(), "long", nil, client.WithID("r1"))
		require.NoError(t, err)
		_, err = c.Request(t.Context(), "echo", strings.Repeat("x", 1000))
		require.Equal(t, "PAYLOAD_TOO_LARGE", codeOf(err))
		s.complete("r1", `1`)
		_, err = r.Wait(t.Context())
		require.NoError(t, err)
	})
}

func TestRequestsOverTheServersLimitAreNotSent(t *testing.T) {
	bubble(t, func(t *testing.T, s *server) {
		c := s.client()
		_, err := c.Request(t.Context(), "echo", strings.Repeat("x", 70_000))
		require.Equal(t, "PAYLOAD_TOO_LARGE", codeOf(err))
		require.Empty(t, s.got(wire.TypeRequest))
		_, err = c.Request(t.Context(), "echo", nil)
		require.NoError(t, err)
	})
}

func TestGoawayOpensTheNewConnectionFirst(t *testing.T) {
	bubble(t, func(t *testing.T, s *server) {
		c := s.client()
		r, err := c.Submit(t.Context(), "long", nil, client.WithID("r1"))
		require.NoError(t, err)
		var list []uint64
		done := make(chan struct{})
		go func() {
			defer close(done)
			for e := range r.Events(t.Context()) {
				if e.Seq > 0 {
					list = append(list, e.Seq)
				}
			}
		}()
		s.start("r1")
		s.broadcast(&wire.Outbound{Type: wire.TypeGoaway, Reason: "restart", ReconnectInMS: 3000, DeadlineMS: 20000})
		start := time.Now()
		other := goRequest(t.Context(), c, "echo") // is not sent on the old connection
		for range 50 {
			s.outputs("r1", 0, 1)
			time.Sleep(100 * time.Millisecond)
			require.Equal(t, client.Open, c.State().Phase)
		}
		require.Equal(t, 2, s.dialed())
		require.Equal(t, 3*time.Second, s.dials[1].Sub(start))
		require.NoError(t, (<-other).err)
		s.each(func(x *session) { require.Contains(t, x.cursors, "r1") })
		sessions := 0
		s.each(func(*session) { sessions++ })
		require.Equal(t, 1, sessions)
		s.complete("r1", `1`)
		<-done
		require.Len(t, list, 53)
		for i, seq := range list {
			require.EqualValues(t, i+1, seq)
		}
	})
}

func TestGoawayWithNothingPendingClosesTheConnection(t *testing.T) {
	bubble(t, func(t *testing.T, s *server) {
		c := s.client()
		_, err := c.Request(t.Context(), "echo", nil)
		require.NoError(t, err)
		s.broadcast(&wire.Outbound{Type: wire.TypeGoaway, ReconnectInMS: 3000})
		time.Sleep(time.Minute)
		require.Equal(t, client.Idle, c.State().Phase)
		require.Equal(t, 1, s.dialed())
	})
}

func TestASilentServerIsLeft(t *testing.T) {
	bubble(t, func(t *testing.T, s *server) {
		s.plans = func(n int) cutproxy.Plan {
			if n == 0 {
				return cutproxy.Plan{ToClient: 700, Silent: true}
			}
			return cutproxy.Plan{}
		}
		c := s.client()
		r, err := c.Submit(t.Context(), "long", nil, client.WithID("r1"))
		require.NoError(t, err)
		s.start("r1")
		s.outputs("r1", 0, 10)
		start := time.Now()
		s.complete("r1", `1`)
		_, err = r.Wait(t.Context())
		require.NoError(t, err)
		require.InDelta(t, 35, time.Since(start).Seconds(), 1)
	})
}

func TestPingsAreAnsweredAndKeepTheConnection(t *testing.T) {
	bubble(t, func(t *testing.T, s *server) {
		c := s.client()
		r, err := c.Submit(t.Context(), "long", nil, client.WithID("r1"))
		require.NoError(t, err)
		for range 100 {
			time.Sleep(25 * time.Second)
			s.broadcast(&wire.Outbound{Type: wire.TypePing})
		}
		synctest.Wait()
		require.Len(t, s.got(wire.TypePong), 100)
		require.Equal(t, 1, s.dialed())
		s.complete("r1", `1`)
		_, err = r.Wait(t.Context())
		require.NoError(t, err)
	})
}

func TestConnectsAreBoundedInTime(t *testing.T) {
	bubble(t, func(t *testing.T, s *server) {
		s.intercept = func(x *session, m *wire.Inbound) bool { return s.dialed() == 1 } // no welcome
		c := s.client(client.WithConnectTimeout(3 * time.Second))
		start := time.Now()
		_, err := c.Request(t.Context(), "echo", nil)
		require.NoError(t, err)
		require.InDelta(t, 3.25, time.Since(start).Seconds(), 0.3)
	})
}
