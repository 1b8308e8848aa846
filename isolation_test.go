package streamer_test

import (
	"context"
	"fmt"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/pay-theory/streamer/v2"
	"github.com/pay-theory/streamer/v2/progress"
)

func TestSameIDInAnotherScopeIsAnotherRequest(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := serve(t, func(m *streamer.Mux) {
			see := streamer.HandlerFunc(func(_ context.Context, req *streamer.Request, _ streamer.Reporter) (*streamer.Result, error) {
				return ok(req.Metadata["tenant_id"] + "/" + req.Metadata["user_id"] + " sent " + string(req.Payload))
			})
			m.Handle("queued", see)
			m.Handle("short", see, streamer.WithEstimate(0))
		})
		defer s.stop()
		for _, action := range []string{"queued", "short"} {
			epochs := map[string]bool{}
			for i, who := range []streamer.Identity{alice, bob, mallory, {}, {User: "alice"}, {Tenant: "acme"}} {
				receipt, err := s.Submit(t.Context(), who, request(action, action, fmt.Sprint(i)))
				require.NoError(t, err)
				require.False(t, receipt.Duplicate)
				epochs[receipt.State.Epoch] = true
				require.Equal(t, fmt.Sprintf(`"%s/%s sent %d"`, who.Tenant, who.User, i), string(s.endOf(who, action).Data))
			}
			require.Len(t, epochs, 6)
		}
	})
}

func TestScopesOfDifferentIdentitiesNeverMeet(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := gateway(t, func(m *streamer.Mux) { m.Handle("x", returns(1)) })
		for _, who := range []streamer.Identity{
			{Tenant: "a/b", User: "c"}, {Tenant: "a", User: "b/c"}, {Tenant: "a%2Fb", User: "c"}, {Tenant: "a", User: "b%2Fc"},
			{Tenant: "", User: "a/b/c"}, {Tenant: "a/b/c", User: ""}, {Tenant: "/", User: ""}, {Tenant: "", User: "/"}, {Tenant: "A/b", User: "c"},
		} {
			receipt, err := s.Submit(t.Context(), who, request("x", "r1", ``))
			require.NoError(t, err)
			require.False(t, receipt.Duplicate, "%+v", who)
		}
	})
}

func TestForeignUnknownAndExpiredRequestsCanNotBeToldApart(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := serve(t, func(m *streamer.Mux) {
			m.Handle("x", returns(1), streamer.WithRetention(time.Minute))
			m.Handle("wait", waits())
		})
		defer s.stop()
		s.ends("x", "expired", ``)
		time.Sleep(time.Minute)
		s.submit("wait", "foreign", ``)
		synctest.Wait()
		var answers []error
		for _, c := range []struct {
			who streamer.Identity
			id  string
		}{
			{alice, "unknown"}, {alice, "expired"}, {bob, "foreign"}, {mallory, "foreign"}, {streamer.Identity{}, "foreign"},
			{alice, ""}, {alice, "no id/*>"},
		} {
			_, err := s.Attach(t.Context(), c.who, c.id)
			answers = append(answers, err)
			_, err = s.Cancel(t.Context(), c.who, c.id, "mine")
			answers = append(answers, err)
		}
		for _, err := range answers {
			require.Equal(t, streamer.ErrCodeNotFound, code(t, err))
			require.Equal(t, answers[0], err)
		}
		require.Equal(t, progress.Started, s.state("foreign").Phase, "nothing was canceled")
	})
}

func TestTwoRoutersInOneProcessNeverMeet(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		one := serve(t, func(m *streamer.Mux) {
			m.Use(func(next streamer.HandlerFunc) streamer.HandlerFunc {
				return func(ctx context.Context, req *streamer.Request, p streamer.Reporter) (*streamer.Result, error) {
					time.Sleep(time.Second)
					return next(ctx, req, p)
				}
			})
			m.Handle("x", returns("one"))
		})
		two := serve(t, func(m *streamer.Mux) {
			m.Handle("x", returns("two"))
			m.Handle("y", returns("two"))
		})
		defer two.stop()
		first, second := one.submit("x", "r1", ``), two.submit("x", "r1", `{"other":"body"}`)
		require.NotEqual(t, first.State.Epoch, second.State.Epoch)
		require.Equal(t, `"one"`, string(one.end("r1").Data))
		require.Equal(t, `"two"`, string(two.end("r1").Data))
		require.Equal(t, streamer.ErrCodeInvalidAction, one.refused(alice, request("y", "", ``)).Code)
		two.submit("y", "r2", ``)
		_, err := one.Attach(t.Context(), alice, "r2")
		require.Equal(t, streamer.ErrCodeNotFound, code(t, err))
		require.EqualValues(t, 1, one.Stats().Accepted)
		require.EqualValues(t, 2, two.Stats().Accepted)
		one.stop()
		require.NoError(t, two.Ready(t.Context()))
		require.Equal(t, progress.Completed, two.ends("x", "r3", ``).Kind)
	})
}

func TestLoadOfOneTenantDoesNotHoldUpAnother(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := serve(t, func(m *streamer.Mux) {
			m.Handle("x", doing(func(context.Context, streamer.Reporter) (*streamer.Result, error) {
				time.Sleep(time.Second)
				return ok(1)
			}))
		}, streamer.WithConcurrency(2))
		defer s.stop()
		for i := range 200 {
			_, err := s.Submit(t.Context(), streamer.Identity{Tenant: "evil", User: fmt.Sprint(i)}, request("x", "", ``))
			require.NoError(t, err)
		}
		began := time.Now()
		s.ends("x", "r1", ``)
		require.LessOrEqual(t, time.Since(began), 3*time.Second)
	})
}

func TestSeveralRoutersShareTheWorkOfOneQueue(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		stores := sharedStores()
		setup := func(m *streamer.Mux) {
			m.Handle("x", doing(func(ctx context.Context, p streamer.Reporter) (*streamer.Result, error) {
				time.Sleep(time.Second)
				return ok(streamer.Attempt(ctx))
			}))
		}
		front := gateway(t, setup, stores...)
		var workers []*service
		for range 4 {
			workers = append(workers, serve(t, setup, append(stores, streamer.WithConcurrency(2))...))
		}
		for i := range 40 {
			front.submit("x", fmt.Sprint(i), ``)
		}
		began := time.Now()
		for i := range 40 {
			require.Equal(t, "accepted started completed", kinds(front.events(fmt.Sprint(i))))
		}
		require.Equal(t, 5*time.Second, time.Since(began).Round(time.Second))
		synctest.Wait() // a worker counts an end after it was stored
		for _, w := range workers {
			require.EqualValues(t, 10, w.Stats().Completed)
			w.stop()
		}
		require.EqualValues(t, 40, front.Stats().Accepted)
		require.Zero(t, front.Stats().Started)
	})
}
