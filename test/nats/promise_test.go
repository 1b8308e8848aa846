package nats

import (
	"context"
	"encoding/json"
	"fmt"
	"sync/atomic"
	"testing"
	"time"

	"github.com/nats-io/nats.go/jetstream"
	"github.com/stretchr/testify/require"

	"github.com/pay-theory/streamer/v2"
	"github.com/pay-theory/streamer/v2/internal/natstest"
	"github.com/pay-theory/streamer/v2/progress"
)

func TestCancelThroughAnyGatewayReachesTheHandlerSoon(t *testing.T) {
	t.Parallel()
	s := natstest.Start(t, nil)
	ended := make(chan time.Time, 1)
	handle := func(m *streamer.Mux) {
		m.Handle("wait", doing(func(ctx context.Context) (any, error) {
			<-ctx.Done()
			ended <- time.Now()
			return nil, context.Cause(ctx)
		}))
	}
	w := worker(t, s.URL(), 1, handle)
	defer w.stop()
	one, other := gateway(t, s.URL(), 1, handle), gateway(t, s.URL(), 1, handle)
	defer one.stop()
	defer other.stop()
	var took []time.Duration
	for i := range 20 {
		id := fmt.Sprint("r", i)
		one.submit("wait", id)
		soon(t, "the handler runs", func() bool { return w.Stats().Running == 1 })
		began := time.Now()
		_, err := other.Cancel(t.Context(), alice, id, "enough")
		require.NoError(t, err)
		took = append(took, (<-ended).Sub(began))
		require.Equal(t, "accepted started canceling canceled", kinds(one.events(id)))
	}
	late := 0
	for _, d := range took {
		if d > 250*time.Millisecond {
			late++
		}
	}
	require.LessOrEqual(t, late, 1, "%v", took)
}

func TestRestartOfNATSShowsAsWaiting(t *testing.T) {
	t.Parallel()
	s := natstest.Start(t, nil)
	handle := func(m *streamer.Mux) { m.Handle("count", counting(40, 100*time.Millisecond)) }
	w := worker(t, s.URL(), 1, handle)
	defer w.stop()
	g := gateway(t, s.URL(), 1, handle)
	defer g.stop()
	g.submit("count", "r1")
	soon(t, "it has outputs", func() bool {
		v, err := g.Attach(t.Context(), alice, "r1")
		return err == nil && v.Page().State.Outputs > 3
	})
	viewer := g.follow("r1")
	s.Stop()
	for range 3 {
		began := time.Now()
		_, err := g.Submit(t.Context(), alice, &streamer.Request{ID: "r2", Action: "count"})
		require.Equal(t, streamer.ErrCodeServiceUnavailable, code(t, err))
		require.Less(t, time.Since(began), 2500*time.Millisecond)
	}
	require.Error(t, g.Ready(t.Context()))
	s.Restart(t)
	all := shown(t, viewer)
	require.Equal(t, progress.Completed, all[len(all)-1].Kind)
	require.Len(t, outputs(t, all), 40)
	soon(t, "it is ready again", func() bool { return g.Ready(t.Context()) == nil })
	g.submit("count", "r2")
	require.Len(t, outputs(t, g.events("r2")), 40)
}

func TestLossOfQuorumShowsAsWaitingAndNothingIsAccepted(t *testing.T) {
	t.Parallel()
	c := natstest.StartCluster(t, 3)
	handle := func(m *streamer.Mux) { m.Handle("count", counting(60, 100*time.Millisecond)) }
	w := worker(t, c.URL(), 3, handle)
	defer w.stop()
	g := gateway(t, c.URL(), 3, handle)
	defer g.stop()
	g.submit("count", "r1")
	viewer := g.follow("r1")
	c[0].Stop()
	c[1].Stop()
	for range 3 {
		began := time.Now()
		_, err := g.Submit(t.Context(), alice, &streamer.Request{Action: "count"})
		require.Equal(t, streamer.ErrCodeServiceUnavailable, code(t, err))
		require.Less(t, time.Since(began), 2500*time.Millisecond)
	}
	require.Error(t, g.Ready(t.Context()))
	c[0].Restart(t)
	all := shown(t, viewer)
	require.Equal(t, progress.Completed, all[len(all)-1].Kind)
	require.Len(t, outputs(t, all), 60)
	require.NoError(t, g.Ready(t.Context()))
	c[1].Restart(t)
	c.WaitReady(t)
}

func TestPurgedTicketsAreMadeUpForByTheSweep(t *testing.T) {
	t.Parallel()
	s := natstest.Start(t, nil)
	var hold atomic.Bool
	hold.Store(true)
	handle := func(m *streamer.Mux) {
		m.Handle("x", doing(func(ctx context.Context) (any, error) { return streamer.Attempt(ctx), nil }))
		m.Handle("block", doing(func(ctx context.Context) (any, error) {
			for hold.Load() {
				select {
				case <-time.After(10 * time.Millisecond):
				case <-ctx.Done():
					return nil, context.Cause(ctx)
				}
			}
			return nil, nil
		}))
	}
	w := worker(t, s.URL(), 1, handle, streamer.WithConcurrency(1))
	defer w.stop()
	w.submit("block", "first")
	soon(t, "it blocks the worker", func() bool { return w.Stats().Running == 1 })
	for i := range 20 {
		w.submit("x", fmt.Sprint("r", i))
	}
	js, err := jetstream.New(s.Connect(t))
	require.NoError(t, err)
	tickets, err := js.Stream(t.Context(), "STREAMER_TICKETS")
	require.NoError(t, err)
	require.NoError(t, tickets.Purge(t.Context()))
	hold.Store(false)
	w.events("first")
	for i := range 20 {
		require.Equal(t, "accepted started completed", kinds(w.events(fmt.Sprint("r", i))))
	}
	soon(t, "the sweep has counted them", func() bool { return w.Stats().Swept == 20 })
}

func TestTicketWithoutALogIsDropped(t *testing.T) {
	t.Parallel()
	s := natstest.Start(t, nil)
	handle := func(m *streamer.Mux) { m.Handle("x", doing(func(context.Context) (any, error) { return 1, nil })) }
	g := gateway(t, s.URL(), 1, handle)
	defer g.stop()
	for i := range 5 {
		g.submit("x", fmt.Sprint("r", i))
	}
	js, err := jetstream.New(s.Connect(t))
	require.NoError(t, err)
	logs, err := js.Stream(t.Context(), "STREAMER_LOG")
	require.NoError(t, err)
	require.NoError(t, logs.Purge(t.Context()))
	w := worker(t, s.URL(), 1, handle)
	defer w.stop()
	soon(t, "all are dropped", func() bool { return w.Stats().Dropped == 5 })
	_, err = w.Attach(t.Context(), alice, "r0") // the gateway may know it for another second
	require.Equal(t, streamer.ErrCodeNotFound, code(t, err))
	w.submit("x", "r0")
	require.Equal(t, "accepted started completed", kinds(w.events("r0")))
}

func TestActionThatOnlyNewWorkersKnowGoesToOne(t *testing.T) {
	t.Parallel()
	s := natstest.Start(t, nil)
	old := func(m *streamer.Mux) { m.Handle("x", doing(func(context.Context) (any, error) { return 1, nil })) }
	fresh := func(m *streamer.Mux) {
		old(m)
		m.Handle("y", doing(func(context.Context) (any, error) { return 2, nil }))
	}
	first := worker(t, s.URL(), 1, old)
	defer first.stop()
	g := gateway(t, s.URL(), 1, fresh)
	defer g.stop()
	for i := range 3 {
		g.submit("y", fmt.Sprint("r", i))
	}
	g.submit("x", "x")
	require.Equal(t, "accepted started completed", kinds(g.events("x")), "what it does not know holds up nothing")
	second := worker(t, s.URL(), 1, fresh)
	defer second.stop()
	for i := range 3 {
		require.Equal(t, "accepted started completed", kinds(g.events(fmt.Sprint("r", i))))
	}
	soon(t, "the new worker has done them all", func() bool { return second.Stats().Completed == 3 }) // it counts an end after it was stored
}

func TestHostileIDsAndTenantsDoNotMeet(t *testing.T) {
	t.Parallel()
	s := natstest.Start(t, nil)
	handle := func(m *streamer.Mux) {
		m.Handle("who", streamer.HandlerFunc(func(_ context.Context, req *streamer.Request, _ streamer.Reporter) (*streamer.Result, error) {
			return &streamer.Result{Success: true, Data: req.Metadata["tenant_id"] + "|" + req.Metadata["user_id"] + "|" + req.ID}, nil
		}))
	}
	w := worker(t, s.URL(), 1, handle)
	defer w.stop()
	tenants := []string{"", "a", "a.b", "a.*", "*", ">", "a b", "a/b", "a%2Fb", "ä", "\x00", "\r\n", "..", "A", fmt.Sprint(make([]byte, 300))}
	ids := []string{"r", "R", "r.r", "r-r", "r_r", "r~", "a.b.c", "-", "_", "~"}
	for _, tenant := range tenants {
		who := streamer.Identity{Tenant: tenant, User: "u"}
		for _, id := range ids {
			_, err := w.Submit(t.Context(), who, &streamer.Request{ID: id, Action: "who"})
			require.NoError(t, err, "%q %q", tenant, id)
		}
	}
	for _, tenant := range tenants {
		who := streamer.Identity{Tenant: tenant, User: "u"}
		for _, id := range ids {
			v, err := w.Attach(t.Context(), who, id)
			require.NoError(t, err)
			var last *progress.Event
			for e, err := range v.Events(t.Context(), 0) {
				require.NoError(t, err)
				last = e
			}
			var said string
			require.NoError(t, json.Unmarshal(last.Data, &said))
			require.Equal(t, tenant+"|u|"+id, said)
		}
	}
}

func TestQueueStatsAreTold(t *testing.T) {
	t.Parallel()
	s := natstest.Start(t, nil)
	handle := func(m *streamer.Mux) {
		m.Handle("wait", doing(func(ctx context.Context) (any, error) {
			<-ctx.Done()
			return nil, context.Cause(ctx)
		}))
	}
	w := worker(t, s.URL(), 1, handle, streamer.WithConcurrency(2))
	for i := range 10 {
		w.submit("wait", fmt.Sprint("r", i))
	}
	soon(t, "the queue is measured", func() bool {
		d := w.Stats().Queue
		return d.Ready == 8 && d.Leased == 2 && d.Oldest > 0
	})
	for i := range 10 {
		_, err := w.Cancel(t.Context(), alice, fmt.Sprint("r", i), "")
		require.NoError(t, err)
	}
	w.stop()
}
