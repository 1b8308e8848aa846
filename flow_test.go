package streamer_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/pay-theory/streamer/v2"
	"github.com/pay-theory/streamer/v2/progress"
)

var alice = streamer.Identity{Tenant: "acme", User: "alice"}

// quiet is a logger for tests that make errors on purpose.
func quiet() *slog.Logger { return slog.New(slog.NewTextHandler(io.Discard, nil)) }

// service is a router that runs, in a bubble.
type service struct {
	*streamer.Mux
	t   *testing.T
	ran chan error
}

// serve starts a router. What runs at the end of the test is shut down.
func serve(t *testing.T, setup func(m *streamer.Mux), opts ...streamer.Option) *service {
	s := &service{Mux: streamer.NewRouter(append([]streamer.Option{streamer.WithLogger(quiet())}, opts...)...), t: t, ran: make(chan error, 1)}
	setup(s.Mux)
	go func() { s.ran <- s.Run(t.Context()) }()
	synctest.Wait()
	return s
}

func (s *service) stop() {
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	require.NoError(s.t, s.Shutdown(ctx))
	require.NoError(s.t, <-s.ran)
}

func (s *service) submit(action, id, payload string) *streamer.Receipt {
	s.t.Helper()
	r, err := s.Submit(s.t.Context(), alice, &streamer.Request{ID: id, Action: action, Payload: json.RawMessage(payload)})
	require.NoError(s.t, err)
	return r
}

// events follows a request of alice to its end.
func (s *service) events(id string) []*progress.Event {
	s.t.Helper()
	v, err := s.Attach(s.t.Context(), alice, id)
	require.NoError(s.t, err)
	ctx, cancel := context.WithTimeout(s.t.Context(), 24*time.Hour)
	defer cancel()
	var all []*progress.Event
	for e, err := range v.Events(ctx, 0) {
		require.NoError(s.t, err)
		all = append(all, e)
	}
	for i, e := range all {
		require.EqualValues(s.t, i+1, e.Seq, "events are numbered without a hole")
	}
	return all
}

func (s *service) end(id string) *progress.Event {
	s.t.Helper()
	all := s.events(id)
	end := all[len(all)-1]
	require.True(s.t, end.Kind.Ends())
	return end
}

func kinds(events []*progress.Event) string {
	text := ""
	for _, e := range events {
		text += " " + string(e.Kind)
	}
	return text[1:]
}

func code(t *testing.T, err error) string {
	t.Helper()
	var e *streamer.Error
	require.ErrorAs(t, err, &e)
	return e.Code
}

func ok(data any) (*streamer.Result, error) { return &streamer.Result{Success: true, Data: data}, nil }

func TestQueuedWorkIsAcceptedStartedAndCompleted(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := serve(t, func(m *streamer.Mux) {
			m.Handle("count", streamer.HandlerFunc(func(ctx context.Context, req *streamer.Request, p streamer.Reporter) (*streamer.Result, error) {
				for i := range 3 {
					if err := streamer.Output(ctx, map[string]int{"i": i}); err != nil {
						return nil, err
					}
				}
				return ok(json.RawMessage(req.Payload))
			}))
		})
		defer s.stop()
		r := s.submit("count", "r1", `{"n": 12345678901234567890}`)
		require.False(t, r.Duplicate)
		require.Equal(t, "queued", r.State.Phase.Status())
		all := s.events("r1")
		require.Equal(t, "accepted started output output output completed", kinds(all))
		require.JSONEq(t, `{"i":1}`, string(all[3].Data))
		require.Equal(t, `{"n": 12345678901234567890}`, string(all[5].Data))
	})
}

func TestShortWorkIsAnsweredAtOnceAndRepeatable(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var runs atomic.Int32
		s := serve(t, func(m *streamer.Mux) {
			m.Handle("echo", streamer.HandlerFunc(func(_ context.Context, req *streamer.Request, _ streamer.Reporter) (*streamer.Result, error) {
				runs.Add(1)
				return ok(req.Payload)
			}), streamer.WithEstimate(time.Millisecond))
		})
		defer s.stop()
		first := s.submit("echo", "r1", `"hi"`)
		require.Equal(t, `"hi"`, string(first.End.Data))
		require.True(t, first.End.Short)
		again := s.submit("echo", "r1", `"hi"`)
		require.True(t, again.Duplicate)
		require.Same(t, first.End, again.End)
		require.EqualValues(t, 1, runs.Load())
		_, err := s.Submit(t.Context(), alice, &streamer.Request{ID: "r1", Action: "echo", Payload: json.RawMessage(`"ho"`)})
		require.Equal(t, streamer.ErrCodeConflict, code(t, err))
	})
}

func TestShortWorkThatDefersIsQueued(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := serve(t, func(m *streamer.Mux) {
			m.Handle("maybe", streamer.HandlerFunc(func(ctx context.Context, req *streamer.Request, p streamer.Reporter) (*streamer.Result, error) {
				if p == progress.Discard {
					return nil, fmt.Errorf("too much: %w", streamer.ErrDefer)
				}
				return ok(1)
			}), streamer.WithEstimate(time.Millisecond))
		})
		defer s.stop()
		r := s.submit("maybe", "r1", ``)
		require.Nil(t, r.End)
		require.Equal(t, "accepted started completed", kinds(s.events("r1")))
	})
}

func TestErrorWithRetryIsTriedAgainUntilAttemptsAreUsedUp(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := serve(t, func(m *streamer.Mux) {
			m.Handle("fail", streamer.HandlerFunc(func(context.Context, *streamer.Request, streamer.Reporter) (*streamer.Result, error) {
				return nil, streamer.NewError("PRINTER_ON_FIRE", "call someone").WithDetail("floor", 3).WithRetry(7 * time.Second)
			}), streamer.WithAttempts(2))
		})
		defer s.stop()
		began := time.Now()
		s.submit("fail", "r1", ``)
		all := s.events("r1")
		require.Equal(t, "accepted started retrying started failed", kinds(all))
		require.Equal(t, 7*time.Second, time.Since(began).Round(time.Second))
		require.Equal(t, "error", all[2].Reason)
		require.Equal(t, 2, all[3].Attempt)
		end := all[4]
		require.Equal(t, "PRINTER_ON_FIRE", end.Error.Code)
		require.JSONEq(t, `{"floor":3}`, string(end.Error.Details))
		require.Equal(t, 7*time.Second, end.Error.RetryAfter)
	})
}

func TestOtherErrorsEndAtOnceWithoutTheirText(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		handlers := map[string]streamer.HandlerFunc{
			"plain": func(context.Context, *streamer.Request, streamer.Reporter) (*streamer.Result, error) {
				return nil, errors.New("secret dsn")
			},
			"nil": func(context.Context, *streamer.Request, streamer.Reporter) (*streamer.Result, error) { return nil, nil },
			"panic": func(context.Context, *streamer.Request, streamer.Reporter) (*streamer.Result, error) {
				panic("secret dsn")
			},
			"chan": func(context.Context, *streamer.Request, streamer.Reporter) (*streamer.Result, error) {
				return ok(make(chan int))
			},
			"code": func(context.Context, *streamer.Request, streamer.Reporter) (*streamer.Result, error) {
				return nil, streamer.NewError("secret dsn", "")
			},
			"typed": func(context.Context, *streamer.Request, streamer.Reporter) (*streamer.Result, error) {
				var e *streamer.Error
				return nil, e
			},
			"badraw": func(context.Context, *streamer.Request, streamer.Reporter) (*streamer.Result, error) {
				return ok(json.RawMessage(`{`))
			},
		}
		s := serve(t, func(m *streamer.Mux) {
			for name, h := range handlers {
				m.Handle(name, h)
			}
		})
		defer s.stop()
		for name := range handlers {
			s.submit(name, name, ``)
			end := s.end(name)
			require.Equal(t, streamer.ErrCodeInternalError, end.Error.Code, name)
			require.NotContains(t, end.Error.Message+string(end.Error.Details), "secret", name)
			require.Contains(t, string(end.Error.Details), "error_id", name)
		}
	})
}

func TestCancelOfARunningRequestEndsItsContextAndThenIt(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		causes := make(chan error, 1)
		s := serve(t, func(m *streamer.Mux) {
			m.Handle("wait", streamer.HandlerFunc(func(ctx context.Context, _ *streamer.Request, _ streamer.Reporter) (*streamer.Result, error) {
				<-ctx.Done()
				causes <- context.Cause(ctx)
				return ok("done anyway")
			}))
		})
		defer s.stop()
		s.submit("wait", "r1", ``)
		synctest.Wait()
		began := time.Now()
		st, err := s.Cancel(t.Context(), alice, "r1", "user pressed stop")
		require.NoError(t, err)
		require.Equal(t, progress.Canceling, st.Phase)
		all := s.events("r1")
		require.Equal(t, "accepted started canceling canceled", kinds(all))
		require.Equal(t, "user pressed stop", all[3].Error.Message)
		require.Equal(t, streamer.ErrCodeCanceled, all[3].Error.Code)
		require.ErrorIs(t, <-causes, streamer.ErrCanceled)
		require.Less(t, time.Since(began), time.Second)
		st, err = s.Cancel(t.Context(), alice, "r1", "again")
		require.NoError(t, err)
		require.Equal(t, progress.Canceled, st.Phase)
	})
}

func TestCancelOfAQueuedRequestEndsItWithoutAWorker(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := streamer.NewRouter()
		m.Handle("x", streamer.HandlerFunc(func(context.Context, *streamer.Request, streamer.Reporter) (*streamer.Result, error) { return ok(1) }))
		_, err := m.Submit(t.Context(), alice, &streamer.Request{ID: "r1", Action: "x"})
		require.NoError(t, err)
		st, err := m.Cancel(t.Context(), alice, "r1", "")
		require.NoError(t, err)
		require.Equal(t, progress.Canceled, st.Phase)
		_, err = m.Cancel(t.Context(), streamer.Identity{Tenant: "acme", User: "bob"}, "r1", "")
		require.Equal(t, streamer.ErrCodeNotFound, code(t, err))
		_, unknown := m.Cancel(t.Context(), alice, "r2", "")
		require.Equal(t, unknown, err)
	})
}

func TestStubbornHandlerIsLeftBehindAfterTheGrace(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		free := make(chan struct{})
		s := serve(t, func(m *streamer.Mux) {
			m.Handle("stubborn", streamer.HandlerFunc(func(ctx context.Context, req *streamer.Request, p streamer.Reporter) (*streamer.Result, error) {
				<-free
				_ = p.Report(100, "late")
				if err := streamer.Output(ctx, 1); err == nil && req.ID == "r1" {
					t.Error("a late output was taken")
				}
				return ok(1)
			}), streamer.WithTimeout(time.Minute))
		}, streamer.WithConcurrency(1), streamer.WithCancelGrace(10*time.Second))
		defer s.stop()
		began := time.Now()
		s.submit("stubborn", "r1", ``)
		require.Equal(t, streamer.ErrCodeTimeout, s.end("r1").Error.Code)
		require.Equal(t, 70*time.Second, time.Since(began))
		synctest.Wait()
		require.Equal(t, 1, s.Stats().Stuck)
		s.submit("stubborn", "r2", ``)
		synctest.Wait()
		require.Equal(t, 0, s.Stats().Running, "the slot is still taken")
		close(free)
		require.Equal(t, progress.Completed, s.end("r2").Kind)
		require.Equal(t, 0, s.Stats().Stuck)
		require.Equal(t, "accepted started failed", kinds(s.events("r1")))
	})
}

func TestProgressIsMergedMonotonicAndTheLastComesBeforeTheEnd(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := serve(t, func(m *streamer.Mux) {
			m.Handle("flood", streamer.HandlerFunc(func(_ context.Context, _ *streamer.Request, p streamer.Reporter) (*streamer.Result, error) {
				for i := range 100_000 {
					_ = p.Report(float64(i)/1000, "going up")
				}
				_ = p.Report(5, "falling")
				_ = p.Report(1e9, "the last")
				return ok(1)
			}))
		})
		defer s.stop()
		s.submit("flood", "r1", ``)
		s.end("r1")
		v, err := s.Attach(t.Context(), alice, "r1")
		require.NoError(t, err)
		p := v.Page().Progress
		require.Equal(t, 100.0, p.Percentage)
		require.Equal(t, "the last", p.Message)
		require.LessOrEqual(t, p.Beat, uint64(3))
	})
}
