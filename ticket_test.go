package streamer_test

import (
	"context"
	"crypto/sha256"
	"encoding/base64"
	"encoding/json"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/pay-theory/streamer/v2"
	"github.com/pay-theory/streamer/v2/progress/memlog"
)

func TestATicketStandsForItsIdentityOnceWhicheverRouterIsAsked(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		log := memlog.New()
		defer log.Close()
		nothing := func(*streamer.Mux) {}
		here := gateway(t, nothing, streamer.WithLog(log))
		there := gateway(t, nothing, streamer.WithLog(log))
		who := streamer.Identity{Tenant: "acme", User: "alice", Permissions: []string{"reports"}, Expires: time.Now().Add(time.Hour).UTC()}

		ticket, lifetime, err := here.IssueTicket(t.Context(), who)
		require.NoError(t, err)
		require.Equal(t, 30*time.Second, lifetime)
		got, err := there.RedeemTicket(t.Context(), ticket)
		require.NoError(t, err)
		require.Equal(t, who, got)
		for _, s := range []*service{here, there} {
			_, err = s.RedeemTicket(t.Context(), ticket)
			require.Equal(t, streamer.ErrCodeUnauthorized, code(t, err))
		}
	})
}

func TestOfManyWhoUseATicketAtOnceOneSucceeds(t *testing.T) {
	s := gateway(t, func(*streamer.Mux) {})
	ticket, _, err := s.IssueTicket(t.Context(), alice)
	require.NoError(t, err)
	var admitted atomic.Int64
	var wg sync.WaitGroup
	for range 50 {
		wg.Go(func() {
			if _, err := s.RedeemTicket(context.Background(), ticket); err == nil {
				admitted.Add(1)
			}
		})
	}
	wg.Wait()
	require.EqualValues(t, 1, admitted.Load())
}

func TestATicketLivesNoLongerThanHalfAMinuteNorThanItsIdentity(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		log := memlog.New()
		defer log.Close()
		s := gateway(t, func(*streamer.Mux) {}, streamer.WithLog(log))
		old, _, err := s.IssueTicket(t.Context(), alice)
		require.NoError(t, err)
		brief, lifetime, err := s.IssueTicket(t.Context(), streamer.Identity{User: "alice", Expires: time.Now().Add(time.Second)})
		require.NoError(t, err)
		require.Equal(t, time.Second, lifetime)

		time.Sleep(lifetime + time.Millisecond)
		_, err = s.RedeemTicket(t.Context(), brief)
		require.Equal(t, streamer.ErrCodeUnauthorized, code(t, err))
		time.Sleep(30 * time.Second)
		_, err = s.RedeemTicket(t.Context(), old)
		require.Equal(t, streamer.ErrCodeUnauthorized, code(t, err))
	})
}

func TestNoRequestCanPassForATicket(t *testing.T) {
	s := gateway(t, func(m *streamer.Mux) {
		m.Handle("echo", streamer.HandlerFunc(func(_ context.Context, req *streamer.Request, _ streamer.Reporter) (*streamer.Result, error) {
			return ok(req.Payload)
		}), streamer.WithEstimate(0))
	}, streamer.WithScope(func(streamer.Identity) string { return "streamer.tickets" }))
	sum := sha256.Sum256([]byte("forged"))
	identity, err := json.Marshal(streamer.Identity{Tenant: "acme", User: "alice"})
	require.NoError(t, err)
	_, err = s.Submit(t.Context(), mallory, request("echo", base64.RawURLEncoding.EncodeToString(sum[:]), string(identity)))
	require.NoError(t, err)
	_, err = s.RedeemTicket(t.Context(), "forged")
	require.Equal(t, streamer.ErrCodeUnauthorized, code(t, err))
}
