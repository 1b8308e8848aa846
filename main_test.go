package streamer_test

import (
	"context"
	"encoding/json"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"

	"github.com/pay-theory/streamer/v2"
	"github.com/pay-theory/streamer/v2/progress"
	"github.com/pay-theory/streamer/v2/progress/memlog"
	"github.com/pay-theory/streamer/v2/queue/memqueue"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

var (
	bob     = streamer.Identity{Tenant: "acme", User: "bob"}
	mallory = streamer.Identity{Tenant: "evil", User: "alice"}
)

// gateway returns a router that accepts and shows, and runs no queued work.
func gateway(t *testing.T, setup func(m *streamer.Mux), opts ...streamer.Option) *service {
	s := &service{Mux: streamer.NewRouter(append([]streamer.Option{streamer.WithLogger(quiet())}, opts...)...), t: t}
	setup(s.Mux)
	return s
}

// doing is a handler without the arguments that a test doesn't need.
func doing(f func(ctx context.Context, p streamer.Reporter) (*streamer.Result, error)) streamer.HandlerFunc {
	return func(ctx context.Context, _ *streamer.Request, p streamer.Reporter) (*streamer.Result, error) {
		return f(ctx, p)
	}
}

// returns is a handler that succeeds.
func returns(data any) streamer.HandlerFunc {
	return doing(func(context.Context, streamer.Reporter) (*streamer.Result, error) { return ok(data) })
}

// fails is a handler that doesn't.
func fails(err error) streamer.HandlerFunc {
	return doing(func(context.Context, streamer.Reporter) (*streamer.Result, error) { return nil, err })
}

// waits is a handler that waits for the end of its context, and returns why it came.
func waits() streamer.HandlerFunc {
	return doing(func(ctx context.Context, _ streamer.Reporter) (*streamer.Result, error) {
		<-ctx.Done()
		return nil, context.Cause(ctx)
	})
}

// refused submits what must be refused, and returns why it was.
func (s *service) refused(who streamer.Identity, req *streamer.Request) *streamer.Error {
	s.t.Helper()
	receipt, err := s.Submit(s.t.Context(), who, req)
	require.Nil(s.t, receipt)
	var public *streamer.Error
	require.ErrorAs(s.t, err, &public)
	return public
}

// state returns how a request of alice stands.
func (s *service) state(id string) progress.State {
	s.t.Helper()
	return s.page(id).State
}

// page returns state and progress of a request of alice.
func (s *service) page(id string) progress.Page {
	s.t.Helper()
	v, err := s.Attach(s.t.Context(), alice, id)
	require.NoError(s.t, err)
	return v.Page()
}

// endOf returns the end of a request of who.
func (s *service) endOf(who streamer.Identity, id string) (end *progress.Event) {
	s.t.Helper()
	v, err := s.Attach(s.t.Context(), who, id)
	require.NoError(s.t, err)
	for e, err := range v.Events(s.t.Context(), 0) {
		require.NoError(s.t, err)
		end = e
	}
	return end
}

// ends submits a request and returns its end.
func (s *service) ends(action, id, payload string) *progress.Event {
	s.t.Helper()
	r := s.submit(action, id, payload)
	if r.End != nil {
		return r.End
	}
	return s.end(r.ID)
}

func request(action, id, payload string) *streamer.Request {
	r := &streamer.Request{ID: id, Action: action}
	if payload != "" {
		r.Payload = json.RawMessage(payload)
	}
	return r
}

// sharedStores are options for several routers that work together, as processes with the
// same stores do.
func sharedStores() []streamer.Option {
	return []streamer.Option{streamer.WithLog(memlog.New()), streamer.WithQueue(memqueue.New())}
}

// receive returns what comes from c within an hour.
func receive[T any](t *testing.T, c <-chan T) (v T) {
	t.Helper()
	select {
	case v = <-c:
	case <-time.After(time.Hour):
		t.Fatal("nothing came")
	}
	return v
}
