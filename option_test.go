package streamer_test

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"log/slog"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/pay-theory/streamer/v2"
	"github.com/pay-theory/streamer/v2/progress"
)

func TestOptionsThatMakeNoSensePanicAndSayWhy(t *testing.T) {
	t.Parallel()
	for says, o := range map[string]streamer.Option{
		"streamer: WithScope(nil)":                                      streamer.WithScope(nil),
		"streamer: NewRouter: WithConcurrency(0): at least 1 is needed": streamer.WithConcurrency(0),
		"streamer: WithThreshold(-1ns): must not be negative":           streamer.WithThreshold(-1),
		"streamer: WithCancelGrace(0s): must be more than 0":            streamer.WithCancelGrace(0),
		"Payload:-1":     streamer.WithLimits(streamer.Limits{Payload: -1}),
		"Result:-1":      streamer.WithLimits(streamer.Limits{Result: -1}),
		"Output:-1":      streamer.WithLimits(streamer.Limits{Output: -1}),
		"Outputs:-1":     streamer.WithLimits(streamer.Limits{Outputs: -1}),
		"OutputBytes:-1": streamer.WithLimits(streamer.Limits{OutputBytes: -1}),
		"streamer: NewRouter: WithAttempts(0): at least 1 is needed":       streamer.WithAttempts(0),
		"streamer: NewRouter: WithBackoff(nil)":                            streamer.WithBackoff(nil),
		"streamer: NewRouter: WithTimeout(-1ns): must not be negative":     streamer.WithTimeout(-1),
		"streamer: NewRouter: WithRetention(-1ns): must be more than 0":    streamer.WithRetention(-1),
		"streamer: WithFallback: the handler is nil":                       streamer.WithFallback(nil),
		"streamer: WithFallback: streamer_test.estimating has neither":     streamer.WithFallback(estimating(1)),
		"streamer: WithFallback: WithEstimate(-1ns): must not be negative": streamer.WithFallback(returns(1), streamer.WithEstimate(-1)),
	} {
		require.Contains(t, panicOf(func() { streamer.NewRouter(o) }), says)
	}
	for says, o := range map[string]streamer.HandleOption{
		`streamer: Handle("x"): WithConcurrency(0): at least 1 is needed`: streamer.WithConcurrency(0),
		`streamer: Handle("x"): WithAttempts(-1): at least 1 is needed`:   streamer.WithAttempts(-1),
		`streamer: Handle("x"): WithBackoff(nil)`:                         streamer.WithBackoff(nil),
		`streamer: Handle("x"): WithTimeout(-1ns): must not be negative`:  streamer.WithTimeout(-1),
		`streamer: Handle("x"): WithRetention(0s): must be more than 0`:   streamer.WithRetention(0),
		`streamer: Handle("x"): WithEstimate(-1ns): must not be negative`: streamer.WithEstimate(-1),
	} {
		require.Contains(t, panicOf(func() { streamer.NewRouter().Handle("x", returns(1), o) }), says)
	}
}

func TestEstimateAndThresholdDecideWhatIsShortWork(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		setup := func(m *streamer.Mux) {
			m.Handle("5s", plain{estimating(5 * time.Second)})
			m.Handle("6s", plain{estimating(6 * time.Second)})
			m.Handle("6s, said to be short", plain{estimating(6 * time.Second)}, streamer.WithEstimate(0))
			m.Handle("5s, said to be long", plain{estimating(5 * time.Second)}, streamer.WithEstimate(time.Minute))
		}
		short := func(s *service) (actions []string) {
			for _, a := range []string{"5s", "6s", "6s, said to be short", "5s, said to be long"} {
				if s.submit(a, "", ``).End != nil {
					actions = append(actions, a)
				}
			}
			return actions
		}
		require.Equal(t, []string{"5s", "6s, said to be short"}, short(gateway(t, setup)))
		require.Equal(t, []string{"5s", "6s", "6s, said to be short"}, short(gateway(t, setup, streamer.WithThreshold(6*time.Second))))
		require.Empty(t, short(gateway(t, setup, streamer.WithThreshold(0))), "0 queues everything")
	})
}

func TestAttemptsAndBackoffPerAction(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		again := fails(streamer.NewError("BUSY", "").WithRetry(0))
		s := serve(t, func(m *streamer.Mux) {
			m.Handle("default", again)
			m.Handle("once", again, streamer.WithAttempts(1))
			m.Handle("own", again, streamer.WithAttempts(4), streamer.WithBackoff(func(attempt int) time.Duration {
				return time.Duration(attempt) * time.Minute
			}))
			m.Handle("negative", again, streamer.WithBackoff(func(int) time.Duration { return -time.Hour }))
			m.Handle("patient", again, streamer.WithAttempts(10))
		})
		defer s.stop()
		for action, want := range map[string][]time.Duration{
			"once":     nil,
			"default":  {time.Second, 2 * time.Second},
			"own":      {time.Minute, 2 * time.Minute, 3 * time.Minute},
			"negative": {0, 0},
			"patient":  {1e9, 2e9, 4e9, 8e9, 16e9, 32e9, 60e9, 60e9, 60e9},
		} {
			began := time.Now()
			s.submit(action, action, ``)
			var delays []time.Duration
			var sum time.Duration
			for _, e := range s.events(action) {
				if e.Kind == progress.Retrying {
					delays = append(delays, e.Delay)
					sum += e.Delay
				}
			}
			require.Equal(t, want, delays, action)
			require.Equal(t, sum, time.Since(began), action)
		}

		m := serve(t, func(m *streamer.Mux) { m.Handle("x", again) }, streamer.WithAttempts(2))
		defer m.stop()
		m.submit("x", "r1", ``)
		require.Equal(t, "accepted started retrying started failed", kinds(m.events("r1")), "the router's default")
	})
}

func TestShorterOfTheTwoTimeoutsCounts(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := serve(t, func(m *streamer.Mux) {
			m.Handle("limited", waits(), streamer.WithTimeout(time.Minute))
			m.Handle("unlimited", waits())
			m.Handle("short", waits(), streamer.WithEstimate(0))
			m.Handle("short, limited", waits(), streamer.WithEstimate(0), streamer.WithTimeout(2*time.Minute))
		})
		defer s.stop()
		for _, c := range []struct {
			action       string
			client, want time.Duration
		}{
			{"limited", 0, time.Minute}, {"limited", time.Second, time.Second}, {"limited", time.Hour, time.Minute},
			{"unlimited", time.Hour, time.Hour},
			{"short", 0, 30 * time.Second}, {"short", time.Second, time.Second}, {"short", time.Hour, 30 * time.Second},
			{"short, limited", 0, 2 * time.Minute}, {"short, limited", time.Second, time.Second},
		} {
			began := time.Now()
			receipt, err := s.Submit(t.Context(), alice, &streamer.Request{Action: c.action, Timeout: c.client})
			require.NoError(t, err)
			end := receipt.End
			if end == nil {
				end = s.end(receipt.ID)
			}
			require.Equal(t, streamer.ErrCodeTimeout, end.Error.Code, "%+v", c)
			require.Equal(t, c.want, time.Since(began), "%+v", c)
		}
	})
}

func TestTimeLimitIsNoReasonToTryAgain(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := serve(t, func(m *streamer.Mux) {
			m.Handle("x", doing(func(ctx context.Context, _ streamer.Reporter) (*streamer.Result, error) {
				<-ctx.Done()
				return nil, streamer.NewError("BUSY", "").WithRetry(time.Second)
			}), streamer.WithTimeout(time.Second))
		})
		defer s.stop()
		s.submit("x", "r1", ``)
		require.Equal(t, "accepted started failed", kinds(s.events("r1")))
		require.Equal(t, streamer.ErrCodeTimeout, s.end("r1").Error.Code)
	})
}

func TestStubbornShortWorkIsAnsweredAfterTheGrace(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		free := make(chan struct{})
		s := serve(t, func(m *streamer.Mux) {
			m.Handle("x", doing(func(context.Context, streamer.Reporter) (*streamer.Result, error) {
				<-free
				return ok(1)
			}), streamer.WithEstimate(0), streamer.WithTimeout(time.Minute))
		}, streamer.WithCancelGrace(5*time.Second))
		defer s.stop()
		began := time.Now()
		require.Equal(t, streamer.ErrCodeTimeout, s.submit("x", "r1", ``).End.Error.Code)
		require.Equal(t, 65*time.Second, time.Since(began))
		require.Equal(t, 1, s.Stats().Stuck)
		require.Zero(t, s.Stats().Running)
		close(free)
		synctest.Wait()
		require.Zero(t, s.Stats().Stuck)
		require.Equal(t, streamer.ErrCodeTimeout, s.end("r1").Error.Code, "what it returned then is nobody's")
	})
}

func TestConcurrencyOfAnActionLeavesOthersTheirPlace(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var now, most atomic.Int32
		s := serve(t, func(m *streamer.Mux) {
			m.Handle("heavy", doing(func(context.Context, streamer.Reporter) (*streamer.Result, error) {
				most.Store(max(most.Load(), now.Add(1)))
				time.Sleep(10 * time.Second)
				now.Add(-1)
				return ok(1)
			}), streamer.WithConcurrency(2))
			m.Handle("light", returns(1))
		}, streamer.WithConcurrency(8))
		defer s.stop()
		for i := range 20 {
			s.submit("heavy", fmt.Sprint("heavy", i), ``)
		}
		synctest.Wait()
		began := time.Now()
		s.ends("light", "light", ``)
		require.Less(t, time.Since(began), time.Second, "it does not wait behind the heavy ones")
		for i := range 20 {
			require.Equal(t, "accepted started completed", kinds(s.events(fmt.Sprint("heavy", i))), "waiting uses no attempt")
		}
		require.EqualValues(t, 2, most.Load())
		require.Less(t, time.Since(began), 110*time.Second, "both places are kept busy")
	})
}

func TestConcurrencyOfTheRouterBoundsAllHandlers(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := serve(t, func(m *streamer.Mux) { m.Handle("x", waits()) }, streamer.WithConcurrency(3))
		defer s.stop()
		for range 10 {
			s.submit("x", "", ``)
		}
		synctest.Wait()
		require.Equal(t, 3, s.Stats().Running)
		require.Equal(t, 3, s.Stats().Slots)
	})
}

func TestRequestIsForgottenAfterTheRetentionOfItsAction(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := serve(t, func(m *streamer.Mux) {
			m.Handle("default", returns(1))
			m.Handle("minute", returns(1), streamer.WithRetention(time.Minute))
			m.Handle("short", returns(1), streamer.WithRetention(time.Minute), streamer.WithEstimate(0))
			m.Handle("failed", fails(streamer.NewError("NO", "")), streamer.WithRetention(time.Minute))
		}, streamer.WithRetention(time.Hour))
		defer s.stop()
		require.Equal(t, time.Hour, s.Retention())
		for _, action := range []string{"default", "minute", "short", "failed"} {
			s.ends(action, action, ``)
		}
		time.Sleep(time.Minute - time.Nanosecond)
		_, unknown := s.Attach(t.Context(), alice, "unknown")
		gone := func() (ids []string) {
			for _, id := range []string{"default", "minute", "short", "failed"} {
				_, err := s.Attach(t.Context(), alice, id)
				_, cancelErr := s.Cancel(t.Context(), alice, id, "")
				require.Equal(t, err, cancelErr)
				if err != nil {
					require.Equal(t, unknown, err, "as if it had never been")
					ids = append(ids, id)
				}
			}
			return ids
		}
		require.Empty(t, gone())
		time.Sleep(time.Nanosecond)
		require.Equal(t, []string{"minute", "short", "failed"}, gone())
		time.Sleep(time.Hour)
		require.Len(t, gone(), 4)
	})
}

func TestForgottenIDMayBeUsedAgainAndOldCursorsAreToldSo(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := serve(t, func(m *streamer.Mux) { m.Handle("x", returns(1)) }, streamer.WithRetention(time.Minute))
		defer s.stop()
		s.ends("x", "r1", `1`)
		first := s.state("r1")
		time.Sleep(time.Minute)
		receipt := s.submit("x", "r1", `2`)
		require.False(t, receipt.Duplicate)
		s.end("r1")
		page := s.page("r1")
		require.NotEqual(t, first.Epoch, page.State.Epoch)
		reason, gap := page.Gap(first.Epoch, first.Last)
		require.True(t, gap)
		require.Equal(t, "recreated", reason)
	})
}

func TestRetentionIsFifteenMinutesInMemory(t *testing.T) {
	t.Parallel()
	require.Equal(t, 15*time.Minute, streamer.NewRouter().Retention())
	require.Equal(t, 24*time.Hour, streamer.NewRouter(streamer.WithLog(deaf{})).Retention())
}

func TestScopeCanBeTheTenant(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := serve(t, func(m *streamer.Mux) { m.Handle("x", waits()) }, streamer.WithScope(func(id streamer.Identity) string { return id.Tenant }))
		defer s.stop()
		s.submit("x", "r1", `{}`)
		synctest.Wait()
		again, err := s.Submit(t.Context(), bob, request("x", "r1", `{}`))
		require.NoError(t, err)
		require.True(t, again.Duplicate)
		_, err = s.Attach(t.Context(), mallory, "r1")
		require.Equal(t, streamer.ErrCodeNotFound, code(t, err))
		st, err := s.Cancel(t.Context(), bob, "r1", "")
		require.NoError(t, err)
		require.Equal(t, progress.Canceling, st.Phase)
		require.Equal(t, progress.Canceled, s.end("r1").Kind)
	})
}

func TestLoggerGetsNoPayloadNoOutputAndNoResult(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var text bytes.Buffer
		logger := slog.New(slog.NewTextHandler(&text, &slog.HandlerOptions{Level: slog.LevelDebug}))
		h := streamer.HandlerFunc(func(ctx context.Context, req *streamer.Request, p streamer.Reporter) (*streamer.Result, error) {
			_ = p.Report(1, "classified")
			_ = streamer.Output(ctx, "classified")
			_ = streamer.Checkpoint(ctx, "classified")
			if streamer.Attempt(ctx) == 1 && p != progress.Discard {
				return nil, streamer.NewError("BUSY", "come back").WithRetry(time.Second)
			}
			if bytes.Contains(req.Payload, []byte("panic")) {
				panic("it broke")
			}
			return ok(json.RawMessage(req.Payload))
		})
		s := serve(t, func(m *streamer.Mux) {
			m.Use(streamer.Logging(logger), streamer.Recover())
			m.Handle("queued", h)
			m.Handle("short", h, streamer.WithEstimate(0))
		}, streamer.WithLogger(logger))
		for _, action := range []string{"queued", "short"} {
			for _, payload := range []string{`"classified"`, `"classified panic"`} {
				s.ends(action, "", payload)
			}
		}
		s.stop()
		require.NotContains(t, text.String(), "classified")
		for _, key := range []string{"request_id=", "action=", "attempt=", "error_id=", "stack="} {
			require.Contains(t, text.String(), key)
		}
	})
}

func TestStubbornShortWorkEndsAlsoWhenItsClientLeavesInTheGrace(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		free := make(chan struct{})
		s := gateway(t, func(m *streamer.Mux) {
			m.Handle("x", doing(func(context.Context, streamer.Reporter) (*streamer.Result, error) {
				<-free
				return ok(1)
			}), streamer.WithEstimate(0), streamer.WithTimeout(time.Minute))
		})
		defer close(free)
		ctx, cancel := context.WithTimeout(t.Context(), time.Minute+5*time.Second)
		defer cancel()
		_, err := s.Submit(ctx, alice, request("x", "r1", ``))
		requireUnavailable(t, err)
		time.Sleep(time.Minute)
		require.Equal(t, 1, s.Stats().Stuck)
		require.Equal(t, streamer.ErrCodeTimeout, s.end("r1").Error.Code)
	})
}
