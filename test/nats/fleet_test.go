// Package nats holds what several processes with routers on one NATS promise together: here
// they are routers with connections of their own. Test/crash does the same with real processes.
package nats

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"testing"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"

	"github.com/pay-theory/streamer/v2"
	"github.com/pay-theory/streamer/v2/internal/natstest"
	"github.com/pay-theory/streamer/v2/progress"
	"github.com/pay-theory/streamer/v2/progress/natslog"
	"github.com/pay-theory/streamer/v2/queue/natsqueue"
)

// TestMain looks for goroutines that nobody waits for. A server that is stopped while its cluster
// has no quorum leaves two of its own behind.
func TestMain(m *testing.M) {
	goleak.VerifyTestMain(m,
		goleak.IgnoreAnyFunction("github.com/nats-io/nats-server/v2/server.(*fileStore).flushStreamStateLoop"),
		goleak.IgnoreAnyFunction("github.com/nats-io/nats-server/v2/server/ats.Register.func1"))
}

const (
	lease    = time.Second
	patience = 30 * time.Second
)

var alice = streamer.Identity{Tenant: "acme", User: "alice"}

// setup registers the handlers of a node.
type setup func(m *streamer.Mux)

// node is a router as a process of its own has it: with a connection, a log and a queue.
type node struct {
	*streamer.Mux
	t    testing.TB
	nc   *nats.Conn
	log  *natslog.Log
	ran  chan error
	stop func()
}

// gateway returns a node that accepts and shows.
func gateway(t testing.TB, url string, replicas int, handle setup, opts ...streamer.Option) *node {
	t.Helper()
	nc := natstest.Dial(t, url)
	js, err := jetstream.New(nc)
	require.NoError(t, err)
	log, err := natslog.New(t.Context(), js, natslog.WithReplicas(replicas))
	require.NoError(t, err)
	queue, err := natsqueue.New(t.Context(), js, natsqueue.WithReplicas(replicas), natsqueue.WithLease(lease))
	require.NoError(t, err)
	opts = append([]streamer.Option{
		streamer.WithLog(log), streamer.WithQueue(queue), streamer.WithLogger(slog.New(slog.DiscardHandler)),
	}, opts...)
	n := &node{Mux: streamer.NewRouter(opts...), t: t, nc: nc, log: log}
	handle(n.Mux)
	n.stop = func() {
		ctx, cancel := context.WithTimeout(context.WithoutCancel(t.Context()), patience)
		defer cancel()
		require.NoError(t, n.Shutdown(ctx))
		if n.ran != nil {
			require.NoError(t, <-n.ran)
		}
		require.NoError(t, errors.Join(queue.Close(), log.Close()))
		nc.Close()
	}
	return n
}

// worker returns a node that works too.
func worker(t testing.TB, url string, replicas int, handle setup, opts ...streamer.Option) *node {
	t.Helper()
	n := gateway(t, url, replicas, handle, opts...)
	n.ran = make(chan error, 1)
	go func() { n.ran <- n.Run(context.WithoutCancel(t.Context())) }()
	return n
}

// doing is a handler without the arguments that a test doesn't need.
func doing(f func(ctx context.Context) (any, error)) streamer.HandlerFunc {
	return func(ctx context.Context, _ *streamer.Request, _ streamer.Reporter) (*streamer.Result, error) {
		data, err := f(ctx)
		if err != nil {
			return nil, err
		}
		return &streamer.Result{Success: true, Data: data}, nil
	}
}

// counting makes an output each pause, n in all.
func counting(n int, pause time.Duration) streamer.HandlerFunc {
	return doing(func(ctx context.Context) (any, error) {
		tick := time.NewTicker(pause)
		defer tick.Stop()
		for i := range n {
			select {
			case <-tick.C:
			case <-ctx.Done():
				return nil, context.Cause(ctx)
			}
			if err := streamer.Output(ctx, i); err != nil {
				return nil, err
			}
		}
		return n, nil
	})
}

func (n *node) submit(action, id string) *streamer.Receipt {
	n.t.Helper()
	r, err := n.Submit(n.t.Context(), alice, &streamer.Request{ID: id, Action: action})
	require.NoError(n.t, err)
	return r
}

// followed is what a viewer saw of a request.
type followed struct {
	events []*progress.Event
	late   time.Duration // the longest from the making of an output until it was shown
	err    error
}

// follow follows a request of alice to its end, and finds out when an event is missing.
func (n *node) follow(id string) <-chan followed {
	n.t.Helper()
	v, err := n.Attach(n.t.Context(), alice, id)
	require.NoError(n.t, err)
	done := make(chan followed, 1)
	go func() {
		ctx, cancel := context.WithTimeout(n.t.Context(), 2*patience)
		defer cancel()
		var f followed
		for e, err := range v.Events(ctx, 0) {
			if err == nil && e.Seq != uint64(len(f.events)+1) {
				err = fmt.Errorf("event %d came after %d events", e.Seq, len(f.events))
			}
			if f.err = err; err != nil {
				break
			}
			f.events = append(f.events, e)
			if e.Kind == progress.Output {
				f.late = max(f.late, time.Since(e.Time))
			}
		}
		done <- f
	}()
	return done
}

// shown returns what a viewer saw, which must be all.
func shown(t testing.TB, done <-chan followed) []*progress.Event {
	t.Helper()
	f := <-done
	require.NoError(t, f.err, "after %s", kinds(f.events))
	return f.events
}

// events returns all events of a request of alice.
func (n *node) events(id string) []*progress.Event {
	n.t.Helper()
	return shown(n.t, n.follow(id))
}

func kinds(events []*progress.Event) string {
	var b strings.Builder
	for _, e := range events {
		b.WriteByte(' ')
		b.WriteString(string(e.Kind))
	}
	return strings.TrimPrefix(b.String(), " ")
}

// outputs returns the data of the outputs of the last attempt.
func outputs(t testing.TB, events []*progress.Event) (all []int) {
	t.Helper()
	for _, e := range events {
		switch e.Kind {
		case progress.Started:
			all = all[:e.Index]
		case progress.Output:
			var i int
			require.NoError(t, json.Unmarshal(e.Data, &i))
			all = append(all, i)
		}
	}
	return all
}

func code(t testing.TB, err error) string {
	t.Helper()
	var public *streamer.Error
	require.ErrorAs(t, err, &public)
	return public.Code
}

// soon waits until ok.
func soon(t testing.TB, what string, ok func() bool) {
	t.Helper()
	require.Eventually(t, ok, patience, 5*time.Millisecond, what)
}
