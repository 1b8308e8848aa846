package client_test

import (
	"context"
	"encoding/json"
	"errors"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"

	streamer "github.com/pay-theory/streamer/v2"
	"github.com/pay-theory/streamer/v2/client"
	"github.com/pay-theory/streamer/v2/internal/wire"
	"github.com/pay-theory/streamer/v2/progress"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// bubble runs a test in a bubble, with a server.
func bubble(t *testing.T, f func(t *testing.T, s *server)) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) { f(t, newServer(t)) })
}

// answer is what a call returned.
type answer struct {
	result *streamer.Result
	err    error
}

// goRequest calls Request in the background.
func goRequest(ctx context.Context, c *client.Client, action string, opts ...client.CallOption) <-chan answer {
	done := make(chan answer, 1)
	go func() {
		result, err := c.Request(ctx, action, nil, opts...)
		done <- answer{result, err}
	}()
	return done
}

func codeOf(err error) string {
	if e, ok := errors.AsType[*streamer.Error](err); ok {
		return e.Code
	}
	return ""
}

func TestShortWorkReturnsItsResult(t *testing.T) {
	bubble(t, func(t *testing.T, s *server) {
		c := s.client()
		result, err := c.Request(t.Context(), "echo", map[string]int{"a": 1}, client.WithID("r1"),
			client.WithMetadata(map[string]string{"trace": "x"}), client.WithTimeout(1500*time.Microsecond))
		require.NoError(t, err)
		require.True(t, result.Success)
		require.Equal(t, "r1", result.RequestID)
		require.Equal(t, json.RawMessage(`{"n":12345678901234567890}`), result.Data)

		m := s.got(wire.TypeRequest)[0]
		require.Equal(t, "r1", m.ID)
		require.Equal(t, `{"a":1}`, string(m.Payload))
		require.Equal(t, map[string]string{"trace": "x"}, m.Metadata)
		require.EqualValues(t, 2, m.TimeoutMS)
	})
}

func TestCallDecodesTheResult(t *testing.T) {
	bubble(t, func(t *testing.T, s *server) {
		c := s.client()
		out, err := client.Call[struct{ N json.Number }](t.Context(), c, "echo", nil)
		require.NoError(t, err)
		require.Equal(t, json.Number("12345678901234567890"), out.N)

		_, err = client.Call[[]string](t.Context(), c, "echo", nil)
		var wrong *json.UnmarshalTypeError
		require.ErrorAs(t, err, &wrong)
	})
}

func TestProgressIsShownUpToTheEnd(t *testing.T) {
	bubble(t, func(t *testing.T, s *server) {
		c := s.client()
		var seen []float64
		done := make(chan answer, 1)
		go func() {
			result, err := c.RequestWithProgress(t.Context(), "long", nil, func(p client.Progress) {
				seen = append(seen, p.Percentage)
			}, client.WithID("r1"))
			done <- answer{result, err}
		}()
		synctest.Wait()
		s.start("r1")
		for _, p := range []float64{0, 10, 10, 55, 100} {
			s.report("r1", p, "")
			synctest.Wait()
		}
		s.complete("r1", `{"ok":true}`)
		a := <-done
		require.NoError(t, a.err)
		require.Equal(t, json.RawMessage(`{"ok":true}`), a.result.Data)
		require.Equal(t, []float64{0, 10, 55, 100}, seen)
	})
}

func TestSlowProgressFunctionsMissAllButTheNewest(t *testing.T) {
	bubble(t, func(t *testing.T, s *server) {
		c := s.client()
		var seen []float64
		done := make(chan answer, 1)
		go func() {
			result, err := c.RequestWithProgress(t.Context(), "long", nil, func(p client.Progress) {
				seen = append(seen, p.Percentage)
				time.Sleep(time.Second)
			}, client.WithID("r1"))
			done <- answer{result, err}
		}()
		synctest.Wait()
		s.start("r1")
		for p := range 100 {
			s.report("r1", float64(p), "")
			time.Sleep(10 * time.Millisecond)
		}
		other, err := c.Request(t.Context(), "echo", nil)
		require.NoError(t, err)
		require.True(t, other.Success)
		s.report("r1", 100, "")
		s.complete("r1", `1`)
		require.NoError(t, (<-done).err)
		require.Equal(t, 0.0, seen[0])
		require.Equal(t, 100.0, seen[len(seen)-1])
		require.LessOrEqual(t, len(seen), 3)
	})
}

func TestFailedRequestsReturnTheirError(t *testing.T) {
	bubble(t, func(t *testing.T, s *server) {
		c := s.client()
		done := goRequest(t.Context(), c, "long", client.WithID("r1"))
		synctest.Wait()
		s.append("r1", &progress.Event{Kind: progress.Failed, Error: &progress.Failure{
			Code: "OUT_OF_PAPER", Message: "tray 2 is empty", Details: json.RawMessage(`{"tray":2}`), RetryAfter: time.Minute,
		}})
		e, ok := errors.AsType[*streamer.Error]((<-done).err)
		require.True(t, ok)
		require.Equal(t, "OUT_OF_PAPER", e.Code)
		require.Equal(t, "tray 2 is empty", e.Message)
		require.Equal(t, map[string]any{"tray": 2.0}, e.Details)
		require.Equal(t, time.Minute, e.RetryAfter)
	})
}

func TestRefusedRequestsReturnTheRefusal(t *testing.T) {
	bubble(t, func(t *testing.T, s *server) {
		s.intercept = func(x *session, m *wire.Inbound) bool {
			if m.Type != wire.TypeRequest {
				return false
			}
			s.mu.Lock()
			defer s.mu.Unlock()
			x.fail(m.ID, m.Ref, "INVALID_ACTION", 0)
			return true
		}
		c := s.client()
		_, err := c.Submit(t.Context(), "nonsense", nil)
		require.Equal(t, "INVALID_ACTION", codeOf(err))
	})
}

func TestRefusalsForNowAreRepeated(t *testing.T) {
	bubble(t, func(t *testing.T, s *server) {
		refusals := 0
		s.intercept = func(x *session, m *wire.Inbound) bool {
			if m.Type != wire.TypeRequest || refusals == 3 {
				return false
			}
			refusals++
			s.mu.Lock()
			defer s.mu.Unlock()
			x.fail(m.ID, m.Ref, []string{"RATE_LIMITED", "SERVICE_UNAVAILABLE"}[refusals%2], time.Second)
			return true
		}
		c := s.client()
		start := time.Now()
		_, err := c.Request(t.Context(), "echo", nil, client.WithID("r1"))
		require.NoError(t, err)
		require.Equal(t, 3, refusals)
		require.GreaterOrEqual(t, time.Since(start), 3*time.Second)
		for _, m := range s.got(wire.TypeRequest) {
			require.Equal(t, "r1", m.ID)
		}

		refusals = 0
		_, err = c.Request(t.Context(), "echo", nil, client.WithoutRetry())
		require.Equal(t, "SERVICE_UNAVAILABLE", codeOf(err))
		require.Equal(t, 1, refusals)
	})
}

func TestAnAttachOutlivesTheSubmitThatItJoined(t *testing.T) {
	bubble(t, func(t *testing.T, s *server) {
		answer := make(chan struct{})
		s.intercept = func(x *session, m *wire.Inbound) bool {
			if m.Type != wire.TypeRequest || m.Action == "long" {
				return false
			}
			<-answer
			s.mu.Lock()
			defer s.mu.Unlock()
			x.fail(m.ID, m.Ref, "INVALID_ACTION", 0)
			return true
		}
		c := s.client()
		_, err := c.Submit(t.Context(), "long", nil, client.WithID("there"))
		require.NoError(t, err)
		for id, code := range map[string]string{"r1": "NOT_FOUND", "there": ""} {
			other := s.client()
			refused := make(chan error, 1)
			go func() {
				_, err := other.Submit(t.Context(), "nonsense", nil, client.WithID(id))
				refused <- err
			}()
			synctest.Wait()
			attached := make(chan error, 1)
			go func() {
				_, err := other.Attach(t.Context(), id)
				attached <- err
			}()
			synctest.Wait()
			answer <- struct{}{}
			require.Equal(t, "INVALID_ACTION", codeOf(<-refused))
			require.Equal(t, code, codeOf(<-attached))
		}
	})
}

func TestTheEndOfAContextEndsTheWaitOnly(t *testing.T) {
	bubble(t, func(t *testing.T, s *server) {
		c := s.client()
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		_, err := c.Request(ctx, "long", nil, client.WithID("r1"))
		require.ErrorIs(t, err, context.DeadlineExceeded)
		require.ErrorContains(t, err, "r1")
		synctest.Wait()
		require.Empty(t, s.got(wire.TypeCancel))
		require.Len(t, s.got(wire.TypeDetach), 1)

		s.complete("r1", `7`)
		r, err := c.Attach(t.Context(), "r1")
		require.NoError(t, err)
		result, err := r.Wait(t.Context())
		require.NoError(t, err)
		require.Equal(t, json.RawMessage(`7`), result.Data)
	})
}

func TestTheEndOfAContextCancelsWhereThatIsAskedFor(t *testing.T) {
	bubble(t, func(t *testing.T, s *server) {
		c := s.client()
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		_, err := c.Request(ctx, "long", nil, client.WithID("r1"), client.WithCancelOnContextEnd())
		require.ErrorIs(t, err, context.DeadlineExceeded)
		synctest.Wait()
		require.Len(t, s.got(wire.TypeCancel), 1)
		require.Equal(t, "r1", s.got(wire.TypeCancel)[0].ID)
	})
}

func TestCancelIsRecordedAndEndsTheRequest(t *testing.T) {
	bubble(t, func(t *testing.T, s *server) {
		c := s.client()
		r, err := c.Submit(t.Context(), "long", nil)
		require.NoError(t, err)
		require.NoError(t, r.Cancel(t.Context(), "user pressed stop"))
		_, err = r.Wait(t.Context())
		require.Equal(t, "CANCELED", codeOf(err))
		require.ErrorContains(t, err, "user pressed stop")
		require.NoError(t, r.Cancel(t.Context(), "again"))
	})
}

func TestCloseEndsWhatWaits(t *testing.T) {
	bubble(t, func(t *testing.T, s *server) {
		c := s.client()
		r, err := c.Submit(t.Context(), "long", nil)
		require.NoError(t, err)
		done := goRequest(t.Context(), c, "long")
		waited := make(chan error, 2)
		go func() {
			_, err := r.Wait(t.Context())
			waited <- err
		}()
		go func() {
			var last error
			for _, err := range r.Events(t.Context()) {
				last = err
			}
			waited <- last
		}()
		synctest.Wait()
		require.NoError(t, c.Close())
		require.ErrorIs(t, (<-done).err, client.ErrClosed)
		require.ErrorIs(t, <-waited, client.ErrClosed)
		require.ErrorIs(t, <-waited, client.ErrClosed)
		_, err = c.Request(t.Context(), "echo", nil)
		require.ErrorIs(t, err, client.ErrClosed)
		require.ErrorIs(t, r.Cancel(t.Context(), ""), client.ErrClosed)
		require.Equal(t, client.Closed, c.State().Phase)
		require.NoError(t, c.Close())
	})
}

func TestDetachForgetsARequestButDoesNotCancelIt(t *testing.T) {
	bubble(t, func(t *testing.T, s *server) {
		c := s.client()
		r, err := c.Submit(t.Context(), "long", nil, client.WithID("r1"))
		require.NoError(t, err)
		waited := make(chan error, 1)
		go func() {
			_, err := r.Wait(t.Context())
			waited <- err
		}()
		synctest.Wait()
		r.Detach()
		r.Detach()
		require.ErrorIs(t, <-waited, client.ErrClosed)
		synctest.Wait()
		require.Len(t, s.got(wire.TypeDetach), 1)
		require.Empty(t, s.got(wire.TypeCancel))
	})
}

func TestAnIdThatIsNotThereIsNotFound(t *testing.T) {
	bubble(t, func(t *testing.T, s *server) {
		c := s.client()
		_, err := c.Attach(t.Context(), "nobody")
		require.Equal(t, "NOT_FOUND", codeOf(err))
		_, err = c.Attach(t.Context(), "not an id")
		require.Error(t, err)
	})
}

func TestSubmittingTheSameIdTwiceFollowsOneRequest(t *testing.T) {
	bubble(t, func(t *testing.T, s *server) {
		c := s.client()
		a, err := c.Submit(t.Context(), "long", nil, client.WithID("r1"))
		require.NoError(t, err)
		s.start("r1")
		s.outputs("r1", 0, 3)
		b, err := c.Submit(t.Context(), "long", nil, client.WithID("r1"))
		require.NoError(t, err)
		s.outputs("r1", 3, 5)
		s.complete("r1", `1`)
		for _, r := range []*client.Request{a, b} {
			require.Equal(t, []uint64{1, 2, 3, 4, 5, 6, 7, 8}, seqs(t, r))
		}
	})
}

// seqs reads a request to its end and returns the numbers of its events.
func seqs(t *testing.T, r *client.Request) []uint64 {
	var list []uint64
	for e, err := range r.Events(t.Context()) {
		require.NoError(t, err)
		if e.Seq > 0 {
			list = append(list, e.Seq)
		}
	}
	return list
}

func TestInvalidArgumentsAreRefusedWithoutIO(t *testing.T) {
	t.Parallel()
	for _, url := range []string{"ftp://host/ws", "host/ws", "http://host/?x=1", "https:///x", "ws:///ws", "ws://host/#x", "ws://%zz"} {
		_, err := client.New(url)
		require.Error(t, err, url)
	}
	_, err := client.New("ftp://host/ws?ticket=secret")
	require.ErrorContains(t, err, "must be ws, wss, http or https")
	require.NotContains(t, err.Error(), "secret")
	for _, o := range []client.Option{
		client.WithBackoff(0, time.Second), client.WithBackoff(2*time.Second, time.Second),
		client.WithConnectTimeout(0), client.WithHTTPClient(nil), client.WithLimits(client.Limits{Buffer: -1}),
	} {
		_, err := client.New("ws://host", o)
		require.Error(t, err)
	}
	c, err := client.New("ws://127.0.0.1:1/ws")
	require.NoError(t, err)
	_, err = c.Request(t.Context(), "echo", make(chan int))
	require.ErrorContains(t, err, "params of echo")
	_, err = c.Request(t.Context(), "echo", json.RawMessage(`{`))
	require.ErrorContains(t, err, "not valid JSON")
	_, err = c.Request(t.Context(), "echo", nil, client.WithID("a/b"))
	require.ErrorContains(t, err, "WithID")
	require.Equal(t, client.State{Phase: client.Idle}, c.State())
	require.NoError(t, c.Close())
}

// raw returns a result's data as JSON.
func raw(r *streamer.Result) json.RawMessage { return r.Data.(json.RawMessage) }
