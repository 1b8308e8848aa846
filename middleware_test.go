package streamer_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/pay-theory/streamer/v2"
	"github.com/pay-theory/streamer/v2/progress"
)

// tracing is middleware that notes when it is passed.
func tracing(trace *[]string, name string) streamer.Middleware {
	return func(next streamer.HandlerFunc) streamer.HandlerFunc {
		return func(ctx context.Context, req *streamer.Request, p streamer.Reporter) (*streamer.Result, error) {
			*trace = append(*trace, name)
			result, err := next(ctx, req, p)
			*trace = append(*trace, "/"+name)
			return result, err
		}
	}
}

func TestMiddlewareWrapsAllActionsTheFirstOutermost(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var trace []string
		run := doing(func(context.Context, streamer.Reporter) (*streamer.Result, error) {
			trace = append(trace, "run")
			return ok(1)
		})
		s := serve(t, func(m *streamer.Mux) {
			m.Handle("before", run)
			m.Use(tracing(&trace, "a"), tracing(&trace, "b"))
			m.Use(tracing(&trace, "c"))
			m.Handle("after", run)
			m.Handle("short", run, streamer.WithEstimate(0))
		}, streamer.WithFallback(run))
		defer s.stop()
		for _, action := range []string{"before", "after", "short", "fallback"} {
			trace = nil
			s.ends(action, "", ``)
			require.Equal(t, []string{"a", "b", "c", "run", "/c", "/b", "/a"}, trace, action)
		}
	})
}

func TestMiddlewareAddedLaterCountsForLaterRuns(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var trace []string
		s := serve(t, func(m *streamer.Mux) {
			m.Handle("x", doing(func(context.Context, streamer.Reporter) (*streamer.Result, error) {
				time.Sleep(time.Second)
				return ok(1)
			}))
		})
		defer s.stop()
		s.submit("x", "running", ``)
		synctest.Wait()
		s.Use(tracing(&trace, "late"))
		s.end("running")
		require.Empty(t, trace)
		s.ends("x", "next", ``)
		require.Equal(t, []string{"late", "/late"}, trace)
	})
}

func TestHandlerInAllMiddlewareKeepsItsProgress(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := serve(t, func(m *streamer.Mux) {
			m.Use(streamer.Logging(quiet()), streamer.Recover(), streamer.Timeout(time.Minute))
			m.Handle("x", picky{doing(func(ctx context.Context, p streamer.Reporter) (*streamer.Result, error) {
				return &streamer.Result{Success: true}, errors.Join(
					p.Report(42, "working"), p.SetMetadata("k", "v"), streamer.Output(ctx, 1), streamer.Checkpoint(ctx, 2))
			}), func(req *streamer.Request) error {
				if string(req.Payload) == `"bad"` {
					return streamer.NewError("BAD", "")
				}
				return nil
			}})
		})
		defer s.stop()
		s.submit("x", "r1", ``)
		require.Equal(t, "accepted started output completed", kinds(s.events("r1")))
		page := s.page("r1")
		require.Equal(t, 42.0, page.Progress.Percentage)
		require.JSONEq(t, `{"k":"v"}`, string(page.Progress.Metadata))
		require.Equal(t, `2`, string(page.State.Checkpoint))
		require.Equal(t, "BAD", s.refused(alice, request("x", "r2", `"bad"`)).Code, "and its Validate")
	})
}

func TestMiddlewareMayChangeWhatTheHandlerReturns(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := serve(t, func(m *streamer.Mux) {
			m.Use(func(next streamer.HandlerFunc) streamer.HandlerFunc {
				return func(ctx context.Context, req *streamer.Request, p streamer.Reporter) (*streamer.Result, error) {
					if req.Metadata["user_id"] != "alice" {
						return nil, streamer.NewError(streamer.ErrCodeForbidden, "not you")
					}
					if _, err := next(ctx, req, p); err != nil {
						return nil, streamer.NewError("WRAPPED", "x").WithRetry(time.Second)
					}
					return ok("changed")
				}
			})
			m.Handle("ok", returns("original"))
			m.Handle("fails once", doing(func(ctx context.Context, _ streamer.Reporter) (*streamer.Result, error) {
				if streamer.Attempt(ctx) == 1 {
					return nil, errors.New("no")
				}
				return ok(1)
			}))
		})
		defer s.stop()
		require.Equal(t, `"changed"`, string(s.ends("ok", "r1", ``).Data))
		s.submit("fails once", "r2", ``)
		require.Equal(t, "accepted started retrying started completed", kinds(s.events("r2")))
		_, err := s.Submit(t.Context(), bob, request("ok", "r1", ``))
		require.NoError(t, err)
		require.Equal(t, streamer.ErrCodeForbidden, s.endOf(bob, "r1").Error.Code)
	})
}

func TestRecoverTurnsAPanicIntoAnErrorForOuterMiddleware(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var log bytes.Buffer
		var seen []error
		s := serve(t, func(m *streamer.Mux) {
			m.Use(func(next streamer.HandlerFunc) streamer.HandlerFunc {
				return func(ctx context.Context, req *streamer.Request, p streamer.Reporter) (*streamer.Result, error) {
					result, err := next(ctx, req, p)
					seen = append(seen, err)
					if err != nil {
						err = fmt.Errorf("outer: %w", err)
					}
					return result, err
				}
			}, streamer.Recover())
			m.Handle("panics", doing(func(context.Context, streamer.Reporter) (*streamer.Result, error) { panic("secret dsn") }))
			m.Handle("fine", returns(1))
		}, streamer.WithLogger(slog.New(slog.NewTextHandler(&log, nil))))
		end := s.ends("panics", "r1", ``)
		require.Equal(t, streamer.ErrCodeInternalError, end.Error.Code)
		require.NotContains(t, end.Error.Message+string(end.Error.Details), "secret")
		s.ends("fine", "r2", ``)
		s.stop()
		require.Len(t, seen, 2)
		require.ErrorContains(t, seen[0], "secret dsn")
		require.NoError(t, seen[1])
		require.Contains(t, log.String(), "middleware_test.go", "the log has the stack")
	})
}

func TestLoggingSaysHowARunEnded(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var log bytes.Buffer
		s := serve(t, func(m *streamer.Mux) {
			m.Use(streamer.Logging(slog.New(slog.NewTextHandler(&log, nil))))
			m.Handle("fine", doing(func(context.Context, streamer.Reporter) (*streamer.Result, error) {
				time.Sleep(3 * time.Second)
				return ok("secret result")
			}))
			m.Handle("bad", fails(streamer.NewError("BUSY", "x").WithRetry(time.Second)), streamer.WithAttempts(2))
		})
		s.ends("fine", "r1", `"secret payload"`)
		s.ends("bad", "r2", ``)
		s.stop()
		require.NotContains(t, log.String(), "secret")
		require.Contains(t, log.String(), `level=INFO msg="handler done" request_id=r1 action=fine attempt=1 duration=3s`)
		require.Contains(t, log.String(), `level=WARN msg="handler failed" request_id=r2 action=bad attempt=2 duration=0s error="BUSY: x"`)
	})
}

func TestTimeoutMiddlewareEndsTheContextOfTheRun(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var cause error
		s := serve(t, func(m *streamer.Mux) {
			m.Use(streamer.Timeout(time.Minute))
			m.Handle("waits", doing(func(ctx context.Context, _ streamer.Reporter) (*streamer.Result, error) {
				<-ctx.Done()
				cause = context.Cause(ctx)
				return nil, ctx.Err()
			}))
			m.Handle("in time", fails(streamer.NewError("OWN", "x")))
			m.Handle("ignores it", doing(func(context.Context, streamer.Reporter) (*streamer.Result, error) {
				time.Sleep(time.Hour)
				return ok("late, and fine")
			}))
		})
		defer s.stop()
		began := time.Now()
		require.Equal(t, streamer.ErrCodeTimeout, s.ends("waits", "r1", ``).Error.Code)
		require.Equal(t, time.Minute, time.Since(began))
		require.ErrorIs(t, cause, streamer.ErrTimeout)
		require.Equal(t, "OWN", s.ends("in time", "r2", ``).Error.Code)
		require.Equal(t, progress.Completed, s.ends("ignores it", "r3", ``).Kind)

		s.submit("waits", "r4", ``)
		synctest.Wait()
		_, err := s.Cancel(t.Context(), alice, "r4", "")
		require.NoError(t, err)
		require.Equal(t, progress.Canceled, s.end("r4").Kind)
		require.ErrorIs(t, cause, streamer.ErrCanceled, "what ends the run's context first is the cause")
	})
}

func TestMiddlewareThatPanicsWhenItWrapsIsAnInternalError(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := serve(t, func(m *streamer.Mux) {
			m.Use(func(streamer.HandlerFunc) streamer.HandlerFunc { panic("on purpose") })
			m.Handle("queued", returns(1))
			m.Handle("short", returns(1), streamer.WithEstimate(0))
		})
		defer s.stop()
		for _, action := range []string{"queued", "short"} {
			require.Equal(t, streamer.ErrCodeInternalError, s.ends(action, action, ``).Error.Code)
		}
	})
}
