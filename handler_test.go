package streamer_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"runtime"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/pay-theory/streamer/v2"
	"github.com/pay-theory/streamer/v2/progress"
	"github.com/pay-theory/streamer/v2/queue/memqueue"
)

// estimating is all that streamer.Handler asks for, and no more.
type estimating time.Duration

func (d estimating) EstimatedDuration() time.Duration { return time.Duration(d) }

// plain has Process.
type plain struct{ estimating }

func (plain) Process(context.Context, *streamer.Request) (*streamer.Result, error) {
	return ok("Process")
}

// reporting has ProcessWithProgress.
type reporting struct{ estimating }

func (reporting) ProcessWithProgress(context.Context, *streamer.Request, streamer.Reporter) (*streamer.Result, error) {
	return ok("ProcessWithProgress")
}

// both has both.
type both struct {
	plain
	reporting
	estimating
}

func TestHandlePanicsOnMisuseAndSaysWhatIsWrong(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		do   func(m *streamer.Mux)
		says string
	}{
		"no action":   {func(m *streamer.Mux) { m.Handle("", returns(1)) }, `streamer: Handle: action "": want 1 to 128 bytes`},
		"long action": {func(m *streamer.Mux) { m.Handle(strings.Repeat("a", 129), returns(1)) }, `want 1 to 128 bytes`},
		"taken": {func(m *streamer.Mux) {
			m.Handle("x", returns(1))
			m.Handle("x", returns(2))
		}, `streamer: Handle: action "x" has a handler already`},
		"no handler": {func(m *streamer.Mux) { m.Handle("x", nil) }, `streamer: Handle("x"): the handler is nil`},
		"no work": {func(m *streamer.Mux) { m.Handle("x", estimating(1)) },
			`streamer: Handle("x"): streamer_test.estimating has neither Process nor ProcessWithProgress`},
		"bad option": {func(m *streamer.Mux) { m.Handle("x", returns(1), streamer.WithAttempts(0)) },
			`streamer: Handle("x"): WithAttempts(0): at least 1 is needed`},
	} {
		m := streamer.NewRouter()
		require.Contains(t, panicOf(func() { c.do(m) }), c.says, name)
	}
	m := streamer.NewRouter()
	m.Handle(strings.Repeat("a", 128), returns(1))
}

// panicOf returns the text that f panics with, "" when it does not.
func panicOf(f func()) (text string) {
	defer func() {
		if v := recover(); v != nil {
			text = fmt.Sprint(v)
		}
	}()
	f()
	return ""
}

func TestShortWorkPrefersProcessAndQueuedWorkProgress(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const short, long = estimating(5 * time.Second), estimating(5*time.Second + 1)
		s := serve(t, func(m *streamer.Mux) {
			m.Handle("plain/short", plain{short})
			m.Handle("plain/queued", plain{long})
			m.Handle("reporting/short", reporting{short})
			m.Handle("reporting/queued", reporting{long})
			m.Handle("both/short", both{estimating: short})
			m.Handle("both/queued", both{estimating: long})
		})
		defer s.stop()
		for action, want := range map[string]string{
			"plain/short": "Process", "plain/queued": "Process", "both/short": "Process",
			"reporting/short": "ProcessWithProgress", "reporting/queued": "ProcessWithProgress", "both/queued": "ProcessWithProgress",
		} {
			end := s.ends(action, "", ``)
			require.Equal(t, `"`+want+`"`, string(end.Data), action)
			require.Equal(t, strings.HasSuffix(action, "short"), end.Short, action)
		}
	})
}

func TestFunctionsOfAHandlersContextSayWhenTheyAreCalledElsewhere(t *testing.T) {
	t.Parallel()
	for _, err := range []error{
		streamer.Output(t.Context(), 1), streamer.Checkpoint(t.Context(), 1),
		func() error { _, err := streamer.LastCheckpoint(t.Context(), new(int)); return err }(),
	} {
		require.ErrorContains(t, err, "pass on the context that the handler was given")
	}
	require.Zero(t, streamer.Attempt(t.Context()))
}

func TestShortWorkHasNoOutputsAndSaysWhatToDo(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := serve(t, func(m *streamer.Mux) {
			m.Handle("x", doing(func(ctx context.Context, p streamer.Reporter) (*streamer.Result, error) {
				for _, err := range []error{streamer.Output(ctx, 1), streamer.Checkpoint(ctx, 1)} {
					if err == nil || !strings.Contains(err.Error(), "return ErrDefer") {
						t.Errorf("got %v", err)
					}
				}
				if found, err := streamer.LastCheckpoint(ctx, new(int)); found || err != nil {
					t.Errorf("LastCheckpoint: %v %v", found, err)
				}
				return ok(streamer.Attempt(ctx))
			}), streamer.WithEstimate(0))
		})
		defer s.stop()
		require.Equal(t, `1`, string(s.ends("x", "r1", ``).Data))
	})
}

// exploding panics when it is encoded.
type exploding struct{}

func (exploding) MarshalJSON() ([]byte, error) { panic("secret dsn") }

func TestResultsThatMakeNoSenseAreInternalErrors(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		cycle := map[string]any{}
		cycle["self"] = cycle
		handlers := map[string]streamer.HandlerFunc{
			"nothing":    doing(func(context.Context, streamer.Reporter) (*streamer.Result, error) { return nil, nil }),
			"a function": returns(func() {}),
			"NaN":        returns(math.NaN()),
			"a cycle":    returns(cycle),
			"explosive":  returns(exploding{}),
			"broken raw": returns(json.RawMessage(`{"a":}`)),
			"empty raw":  returns(json.RawMessage{}),
			"bad code": doing(func(context.Context, streamer.Reporter) (*streamer.Result, error) {
				return &streamer.Result{Error: streamer.NewError("secret code", "secret text")}, nil
			}),
			"long code": fails(streamer.NewError("A"+strings.Repeat("B", 64), "secret text")),
			"goexit": doing(func(context.Context, streamer.Reporter) (*streamer.Result, error) {
				runtime.Goexit()
				return nil, nil
			}),
		}
		s := serve(t, func(m *streamer.Mux) {
			for name, h := range handlers {
				m.Handle(name, h)
				m.Handle(name+", short", h, streamer.WithEstimate(0))
			}
		})
		defer s.stop()
		for name := range handlers {
			for _, action := range []string{name, name + ", short"} {
				end := s.ends(action, "", ``)
				require.Equal(t, progress.Failed, end.Kind, action)
				require.Equal(t, streamer.ErrCodeInternalError, end.Error.Code, action)
				require.Equal(t, "internal error", end.Error.Message, action)
				require.Regexp(t, `^\{"error_id":"[^"]+"\}$`, string(end.Error.Details), action)
			}
		}
		require.Zero(t, s.Stats().Running, "no slot is lost")
	})
}

func TestResultOverItsLimitFails(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := serve(t, func(m *streamer.Mux) {
			for size := 10; size <= 11; size++ {
				m.Handle(fmt.Sprint("queued", size), returns(strings.Repeat("a", size-2)))
				m.Handle(fmt.Sprint("short", size), returns(strings.Repeat("a", size-2)), streamer.WithEstimate(0))
			}
		}, streamer.WithLimits(streamer.Limits{Result: 10}))
		defer s.stop()
		for _, how := range []string{"queued", "short"} {
			require.Equal(t, progress.Completed, s.ends(how+"10", "", ``).Kind)
			end := s.ends(how+"11", "", ``)
			require.Equal(t, streamer.ErrCodePayloadTooLarge, end.Error.Code)
			require.Contains(t, end.Error.Message, "11 bytes, at most 10")
		}
	})
}

func TestResultThatIsNoSuccess(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := serve(t, func(m *streamer.Mux) {
			m.Handle("with error", doing(func(context.Context, streamer.Reporter) (*streamer.Result, error) {
				return &streamer.Result{Data: 1, Error: streamer.NewError("OUT_OF_PAPER", "refill")}, nil
			}))
			m.Handle("without", doing(func(context.Context, streamer.Reporter) (*streamer.Result, error) {
				return &streamer.Result{Data: 1}, nil
			}))
			m.Handle("again", doing(func(ctx context.Context, _ streamer.Reporter) (*streamer.Result, error) {
				if streamer.Attempt(ctx) == 2 {
					return ok(2)
				}
				return &streamer.Result{Error: streamer.NewError("BUSY", "").WithRetry(time.Second)}, nil
			}))
		})
		defer s.stop()
		end := s.ends("with error", "r1", ``)
		require.Equal(t, progress.Failed, end.Kind)
		require.Equal(t, "OUT_OF_PAPER", end.Error.Code)
		end = s.ends("without", "r2", ``)
		require.Equal(t, progress.Completed, end.Kind)
		require.False(t, end.Success)
		s.submit("again", "r3", ``)
		require.Equal(t, "accepted started retrying started completed", kinds(s.events("r3")))
	})
}

func TestJSONOfHandlersIsNotChanged(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const text = "{\"n\": 1e400,\n\t\"a\":12345678901234567890.10, \"n\":\"<&>\\u2028\"}"
		s := serve(t, func(m *streamer.Mux) {
			m.Handle("raw", streamer.HandlerFunc(func(ctx context.Context, req *streamer.Request, _ streamer.Reporter) (*streamer.Result, error) {
				return &streamer.Result{Success: true, Data: req.Payload}, streamer.Output(ctx, req.Payload)
			}))
			m.Handle("html", doing(func(ctx context.Context, _ streamer.Reporter) (*streamer.Result, error) {
				if err := streamer.Output(ctx, "<b>&</b>"); err != nil {
					return nil, err
				}
				return nil, streamer.NewError("HTML", "<b>").WithDetail("a", "<&>")
			}))
			m.Handle("nothing", returns(nil))
		})
		defer s.stop()
		s.submit("raw", "r1", text)
		all := s.events("r1")
		require.Equal(t, text, string(all[2].Data))
		require.Equal(t, text, string(all[3].Data))
		s.submit("html", "r2", ``)
		all = s.events("r2")
		require.Equal(t, `"<b>&</b>"`, string(all[2].Data))
		require.Equal(t, `{"a":"<&>"}`, string(all[3].Error.Details))
		require.Equal(t, `null`, string(s.ends("nothing", "r3", ``).Data))
	})
}

func TestErrorsOfHandlersAreKeptWithinBounds(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := serve(t, func(m *streamer.Mux) {
			m.Handle("long", fails(streamer.NewError("LONG", strings.Repeat("é", 5000))))
			m.Handle("details", fails(streamer.NewError("LONG", "x").WithDetail("k", strings.Repeat("v", 16<<10))))
			m.Handle("broken", fails(streamer.NewError("LONG", "x").WithDetail("k", make(chan int))))
			m.Handle("wrapped", fails(fmt.Errorf("secret: %w", streamer.NewError("A"+strings.Repeat("9", 63), "x"))))
			m.Handle("joined", fails(errors.Join(errors.New("secret"), streamer.NewError("JOINED", "x"))))
		})
		defer s.stop()
		require.Equal(t, strings.Repeat("é", 2048), s.ends("long", "", ``).Error.Message)
		for _, action := range []string{"details", "broken"} {
			end := s.ends(action, "", ``)
			require.Equal(t, "LONG", end.Error.Code, "the error stays")
			require.Nil(t, end.Error.Details, "its details don't")
		}
		require.Equal(t, progress.Failure{Code: "A" + strings.Repeat("9", 63), Message: "x"}, *s.ends("wrapped", "", ``).Error)
		require.Equal(t, progress.Failure{Code: "JOINED", Message: "x"}, *s.ends("joined", "", ``).Error)
	})
}

func TestErrorsAreBuiltByCopying(t *testing.T) {
	t.Parallel()
	base := streamer.NewError("BUSY", "later")
	one := base.WithDetail("a", 1)
	two := one.WithDetail("b", 2).WithRetry(1500 * time.Millisecond)
	require.Equal(t, &streamer.Error{Code: "BUSY", Message: "later"}, base)
	require.Equal(t, map[string]any{"a": 1}, one.Details)
	require.Zero(t, one.RetryAfter)
	require.Equal(t, "BUSY: later", two.Error())
	data, err := json.Marshal(two)
	require.NoError(t, err)
	require.JSONEq(t, `{"code":"BUSY","message":"later","details":{"a":1,"b":2},"retry_after_ms":1500}`, string(data))
	var back streamer.Error
	require.NoError(t, json.Unmarshal(data, &back))
	require.Equal(t, 1500*time.Millisecond, back.RetryAfter)
	require.Zero(t, base.WithRetry(-time.Second).RetryAfter)
}

func TestContextOfAHandlerSaysWhyItEnded(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		causes := make(chan error, 1)
		h := doing(func(ctx context.Context, _ streamer.Reporter) (*streamer.Result, error) {
			<-ctx.Done()
			causes <- context.Cause(ctx)
			return nil, ctx.Err()
		})
		q := &leaky{Queue: memqueue.New(memqueue.WithLease(9 * time.Second))}
		s := serve(t, func(m *streamer.Mux) {
			m.Handle("wait", h, streamer.WithAttempts(1))
			m.Handle("limited", h, streamer.WithTimeout(time.Second))
			m.Handle("short", h, streamer.WithTimeout(time.Second), streamer.WithEstimate(0))
		}, streamer.WithQueue(q))

		s.submit("wait", "canceled", ``)
		synctest.Wait()
		_, err := s.Cancel(t.Context(), alice, "canceled", "")
		require.NoError(t, err)
		require.ErrorIs(t, receive(t, causes), streamer.ErrCanceled)
		require.Equal(t, progress.Canceled, s.end("canceled").Kind)

		for _, action := range []string{"limited", "short"} {
			require.Equal(t, streamer.ErrCodeTimeout, s.ends(action, action, ``).Error.Code)
			require.ErrorIs(t, receive(t, causes), streamer.ErrTimeout)
		}

		q.deaf.Store(true)
		s.submit("wait", "lost", ``)
		require.ErrorIs(t, receive(t, causes), streamer.ErrLeaseLost)
		end := s.end("lost")
		require.Equal(t, streamer.ErrCodeProcessingFailed, end.Error.Code, "no attempt was left")
		require.JSONEq(t, `{"attempts":1}`, string(end.Error.Details))
		q.deaf.Store(false)

		s.submit("wait", "returned", ``)
		synctest.Wait()
		s.stop()
		require.ErrorIs(t, receive(t, causes), streamer.ErrShutdown)
		require.Equal(t, progress.Retrying, s.state("returned").Phase)
	})
}

func TestLastPublicErrorIsToldWhenAttemptsAreUsedUp(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		q := &leaky{Queue: memqueue.New(memqueue.WithLease(9 * time.Second))}
		s := serve(t, func(m *streamer.Mux) {
			m.Handle("x", doing(func(ctx context.Context, _ streamer.Reporter) (*streamer.Result, error) {
				if streamer.Attempt(ctx) == 1 {
					return nil, streamer.NewError("BUSY", "later").WithDetail("secret", "no").WithRetry(time.Second)
				}
				q.deaf.Store(true)
				<-ctx.Done()
				return nil, ctx.Err()
			}), streamer.WithAttempts(2))
		}, streamer.WithQueue(q))
		defer s.stop()
		end := s.ends("x", "r1", ``)
		require.Equal(t, streamer.ErrCodeProcessingFailed, end.Error.Code)
		require.JSONEq(t, `{"attempts":2,"last_error":{"code":"BUSY","message":"later"}}`, string(end.Error.Details))
	})
}

func TestErrorDetailThatPanicsIsLeftOut(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := gateway(t, func(m *streamer.Mux) {
			m.Handle("x", fails(streamer.NewError("BAD", "x").WithDetail("k", exploding{})), streamer.WithEstimate(0))
		})
		require.Equal(t, progress.Failure{Code: "BAD", Message: "x"}, *s.submit("x", "r1", ``).End.Error)
	})
}

func TestNilFunctionsAreRefusedAtRegistration(t *testing.T) {
	t.Parallel()
	m := streamer.NewRouter()
	require.Contains(t, panicOf(func() { m.Use(streamer.Recover(), nil) }), "streamer: Use: a middleware is nil")
	require.Contains(t, panicOf(func() { m.Handle("x", streamer.HandlerFunc(nil)) }), `streamer: Handle("x")`)
	require.NotEmpty(t, panicOf(func() { m.Handle("y", streamer.Typed[int, int](nil)) }))
}
