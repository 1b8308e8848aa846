package client_test

import (
	"context"
	"encoding/json"
	"fmt"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/pay-theory/streamer/v2/client"
	"github.com/pay-theory/streamer/v2/internal/wire"
	"github.com/pay-theory/streamer/v2/progress"
)

func TestEventsComeInOrderWithProgressInBetween(t *testing.T) {
	bubble(t, func(t *testing.T, s *server) {
		c := s.client()
		r, err := c.Submit(t.Context(), "long", nil, client.WithID("r1"))
		require.NoError(t, err)
		var got []string
		done := make(chan struct{})
		go func() {
			defer close(done)
			for e, err := range r.Events(t.Context()) {
				require.NoError(t, err)
				switch e.Kind {
				case client.Progressed:
					got = append(got, fmt.Sprintf("%v%%", e.Progress.Percentage))
				case progress.Output:
					got = append(got, fmt.Sprintf("%d %s=%s", e.Seq, e.Kind, e.Data))
				default:
					got = append(got, fmt.Sprintf("%d %s", e.Seq, e.Kind))
				}
			}
		}()
		step := func(f func()) {
			f()
			synctest.Wait()
		}
		step(func() { s.start("r1") })
		step(func() { s.report("r1", 10, "") })
		step(func() { s.outputs("r1", 0, 2) })
		step(func() { s.report("r1", 90, "") })
		s.mu.Lock()
		s.requests["r1"].progress = &progress.Progress{Attempt: 1, Percentage: 100, Time: time.Now()}
		s.mu.Unlock()
		step(func() { s.complete("r1", `1`) })
		<-done
		require.Equal(t, []string{
			"1 accepted", "2 started", "10%", "3 output=0", "4 output=1", "90%", "100%", "5 completed",
		}, got)
	})
}

func TestANewAttemptSaysWhichOutputsAreVoid(t *testing.T) {
	bubble(t, func(t *testing.T, s *server) {
		c := s.client()
		r, err := c.Submit(t.Context(), "long", nil, client.WithID("r1"))
		require.NoError(t, err)
		s.start("r1")
		s.outputs("r1", 0, 3)
		s.report("r1", 60, "")
		synctest.Wait()
		s.append("r1",
			&progress.Event{Kind: progress.Retrying, Attempt: 1, Reason: progress.ReasonLost, Delay: time.Second},
			&progress.Event{Kind: progress.Started, Index: 1})
		s.outputs("r1", 1, 3)
		s.report("r1", 20, "")
		// A viewer that was slow shows progress of the attempt before.
		s.broadcast(&wire.Outbound{Type: wire.TypeProgress, RequestID: "r1", Attempt: 1, Percentage: 70})
		synctest.Wait()
		s.complete("r1", `1`)

		var outputs []string
		var percentages []float64
		for e, err := range r.Events(t.Context()) {
			require.NoError(t, err)
			switch e.Kind {
			case progress.Started:
				if e.Attempt > 1 {
					outputs = outputs[:e.OutputsFrom]
				}
			case progress.Retrying:
				require.Equal(t, progress.ReasonLost, e.Reason)
				require.Equal(t, time.Second, e.Delay)
			case progress.Output:
				require.Equal(t, len(outputs), e.Index)
				outputs = append(outputs, string(e.Data))
			case client.Progressed:
				percentages = append(percentages, e.Progress.Percentage)
			}
		}
		require.Equal(t, []string{"0", "1", "2"}, outputs)
		require.Equal(t, []float64{20}, percentages)
	})
}

func TestAFailureIsTheLastPairWithItsEvent(t *testing.T) {
	bubble(t, func(t *testing.T, s *server) {
		c := s.client()
		r, err := c.Submit(t.Context(), "long", nil, client.WithID("r1"))
		require.NoError(t, err)
		s.append("r1", &progress.Event{Kind: progress.Failed, Error: &progress.Failure{Code: "BROKEN", Message: "m"}})
		var last client.Event
		var failure error
		for e, err := range r.Events(t.Context()) {
			require.NoError(t, failure)
			last, failure = e, err
		}
		require.Equal(t, progress.Failed, last.Kind)
		require.EqualValues(t, 2, last.Seq)
		require.Equal(t, "BROKEN", codeOf(failure))
	})
}

func TestIterationsAreIndependentAndBreakingOffCancelsNothing(t *testing.T) {
	bubble(t, func(t *testing.T, s *server) {
		c := s.client()
		r, err := c.Submit(t.Context(), "long", nil, client.WithID("r1"))
		require.NoError(t, err)
		s.start("r1")
		s.outputs("r1", 0, 5)
		synctest.Wait()
		for e := range r.Events(t.Context()) {
			if e.Seq == 3 {
				break
			}
		}
		s.complete("r1", `1`)
		first, second := seqs(t, r), seqs(t, r)
		require.Equal(t, []uint64{1, 2, 3, 4, 5, 6, 7, 8}, first)
		require.Equal(t, first, second)
		require.Empty(t, s.got(wire.TypeCancel))
	})
}

func TestTheEndOfAContextEndsAnIteration(t *testing.T) {
	bubble(t, func(t *testing.T, s *server) {
		c := s.client()
		r, err := c.Submit(t.Context(), "long", nil, client.WithID("r1"))
		require.NoError(t, err)
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		var last error
		for _, err := range r.Events(ctx) {
			last = err
		}
		require.ErrorIs(t, last, context.DeadlineExceeded)
		require.Empty(t, s.got(wire.TypeCancel))
	})
}

func TestAttachGoesOnAfterTheCursor(t *testing.T) {
	bubble(t, func(t *testing.T, s *server) {
		s.create("r1", "long")
		s.start("r1")
		s.outputs("r1", 0, 5)
		c := s.client()
		r, err := c.Attach(t.Context(), "r1", client.After("e1", 4))
		require.NoError(t, err)
		s.complete("r1", `1`)
		require.Equal(t, []uint64{5, 6, 7, 8}, seqs(t, r))

		// Of one that has ended at the cursor there is nothing to see but the result.
		r, err = c.Attach(t.Context(), "r1", client.After("e1", 8))
		require.NoError(t, err)
		result, err := r.Wait(t.Context())
		require.NoError(t, err)
		require.Equal(t, json.RawMessage(`1`), result.Data)
		require.Empty(t, seqs(t, r))
	})
}

func TestASecondHandleOfARequestStartsWhereItIsAsked(t *testing.T) {
	bubble(t, func(t *testing.T, s *server) {
		s.create("r1", "long")
		s.start("r1")
		s.outputs("r1", 0, 5)
		c := s.client()
		late, err := c.Attach(t.Context(), "r1", client.After("e1", 6))
		require.NoError(t, err)
		all, err := c.Attach(t.Context(), "r1")
		require.NoError(t, err)
		foreign, err := c.Attach(t.Context(), "r1", client.After("e0", 6))
		require.NoError(t, err)
		var gaps []client.GapInfo
		for e, err := range foreign.Events(t.Context()) {
			require.NoError(t, err)
			if e.Kind != client.Gap {
				require.EqualValues(t, 1, e.Seq)
				break
			}
			gaps = append(gaps, *e.Gap)
		}
		require.Equal(t, []client.GapInfo{{Reason: "recreated", After: 6, Oldest: 1}}, gaps)
		s.complete("r1", `1`)
		require.Equal(t, []uint64{7, 8}, seqs(t, late))
		require.Equal(t, []uint64{1, 2, 3, 4, 5, 6, 7, 8}, seqs(t, all))
	})
}

func TestGapsAreShownAndTheRequestGoesOn(t *testing.T) {
	for _, tc := range []struct {
		reason string
		lose   func(s *server)
		want   []string
	}{
		{"expired", func(s *server) {
			s.outputs("r1", 3, 10)
			s.mu.Lock()
			defer s.mu.Unlock()
			s.requests["r1"].oldest = 10
		}, []string{"1", "2", "3", "4", "5", "gap 5→10", "10", "11", "12", "13"}},
		{"recreated", func(s *server) {
			s.mu.Lock()
			delete(s.requests, "r1")
			s.create("r1", "long").epoch = "other"
			s.mu.Unlock()
			s.start("r1")
			s.outputs("r1", 0, 7)
		}, []string{"1", "2", "3", "4", "5", "gap 5→1", "1", "2", "3", "4", "5", "6", "7", "8", "9", "10"}},
		{"ahead", func(s *server) {
			s.mu.Lock()
			defer s.mu.Unlock()
			r := s.requests["r1"]
			r.events = r.events[:2]
		}, []string{"1", "2", "3", "4", "5", "gap 5→1", "1", "2", "3"}},
	} {
		t.Run(tc.reason, func(t *testing.T) {
			bubble(t, func(t *testing.T, s *server) {
				c := s.client()
				r, err := c.Submit(t.Context(), "long", nil, client.WithID("r1"))
				require.NoError(t, err)
				s.start("r1")
				s.outputs("r1", 0, 3)
				synctest.Wait()
				s.drop()
				tc.lose(s)
				time.Sleep(time.Second)
				s.complete("r1", `1`)
				synctest.Wait()
				for range 2 {
					var got []string
					for e, err := range r.Events(t.Context()) {
						require.NoError(t, err)
						switch {
						case e.Kind == client.Gap:
							require.Equal(t, tc.reason, e.Gap.Reason)
							got = append(got, fmt.Sprintf("gap %d→%d", e.Gap.After, e.Gap.Oldest))
						case e.Seq > 0:
							got = append(got, fmt.Sprint(e.Seq))
						}
					}
					require.Equal(t, tc.want, got)
				}
				_, err = r.Wait(t.Context())
				require.NoError(t, err)
			})
		})
	}
}

func TestMissingEventsAreAskedForAgain(t *testing.T) {
	bubble(t, func(t *testing.T, s *server) {
		c := s.client()
		r, err := c.Submit(t.Context(), "long", nil, client.WithID("r1"))
		require.NoError(t, err)
		s.start("r1")
		synctest.Wait()
		s.each(func(x *session) { x.cursors["r1"] = 4 }) // as if two had been sent
		s.mu.Lock()
		req := s.requests["r1"]
		for i := range 2 {
			req.events = append(req.events, &progress.Event{Seq: uint64(3 + i), Kind: progress.Output, Attempt: 1, Index: i})
		}
		s.mu.Unlock()
		s.outputs("r1", 2, 4)
		s.complete("r1", `1`)
		require.Equal(t, []uint64{1, 2, 3, 4, 5, 6, 7}, seqs(t, r))
		require.Len(t, s.got(wire.TypeAttach), 1)
	})
}

func TestAServerThatLeavesOutEventsForGoodIsGivenUp(t *testing.T) {
	bubble(t, func(t *testing.T, s *server) {
		c := s.client()
		r, err := c.Submit(t.Context(), "long", nil, client.WithID("r1"))
		require.NoError(t, err)
		s.mu.Lock()
		s.requests["r1"].events = append(s.requests["r1"].events, &progress.Event{Seq: 3, Kind: progress.Started})
		s.mu.Unlock()
		s.start("r1")
		_, err = r.Wait(t.Context())
		require.Equal(t, "INTERNAL_ERROR", codeOf(err))
		require.Len(t, s.got(wire.TypeAttach), 3)
	})
}

func TestEventsOfUnknownTypesCount(t *testing.T) {
	bubble(t, func(t *testing.T, s *server) {
		c := s.client()
		r, err := c.Submit(t.Context(), "long", nil, client.WithID("r1"))
		require.NoError(t, err)
		s.each(func(x *session) {
			x.raw([]byte(`{"type":"artifact","request_id":"r1","seq":2,"name":5}`))
			x.raw([]byte(`{"type":"weather","forecast":[{}]}`))
			x.raw([]byte(`{"type":"complete","request_id":"r1","seq":3,"success":true,"result":1,"new":null}`))
		})
		require.Equal(t, []uint64{1, 2, 3}, seqs(t, r))
	})
}

func TestSlowIterationsHoldLittleAndMissNothing(t *testing.T) {
	bubble(t, func(t *testing.T, s *server) {
		c := s.client(client.WithLimits(client.Limits{Buffer: 16 << 10}))
		r, err := c.Submit(t.Context(), "long", nil, client.WithID("r1"))
		require.NoError(t, err)
		s.start("r1")
		payload := json.RawMessage(`"` + strings.Repeat("x", 1000) + `"`)
		const n = 500
		var list []uint64
		done := make(chan struct{})
		go func() {
			defer close(done)
			for e, err := range r.Events(t.Context()) {
				require.NoError(t, err)
				if e.Seq > 0 {
					list = append(list, e.Seq)
				}
				time.Sleep(10 * time.Millisecond)
			}
		}()
		for i := range n {
			s.append("r1", &progress.Event{Kind: progress.Output, Index: i, Data: payload})
		}
		s.complete("r1", `1`)
		other, err := c.Request(t.Context(), "echo", nil)
		require.NoError(t, err)
		require.True(t, other.Success)
		<-done
		require.Len(t, list, n+3)
		for i, seq := range list {
			require.EqualValues(t, i+1, seq)
		}
		// It went on at the server, a buffer at a time.
		attaches := len(s.got(wire.TypeAttach))
		require.Greater(t, attaches, 10)
		require.Less(t, attaches, 100)
	})
}

func TestWhoWaitsGetsTheEndHoweverSlowAnIterationIs(t *testing.T) {
	bubble(t, func(t *testing.T, s *server) {
		c := s.client(client.WithLimits(client.Limits{Buffer: 16 << 10}))
		r, err := c.Submit(t.Context(), "long", nil, client.WithID("r1"))
		require.NoError(t, err)
		s.start("r1")
		payload := json.RawMessage(`"` + strings.Repeat("x", 1000) + `"`)
		next := uint64(1)
		for e, err := range r.Events(t.Context()) {
			require.NoError(t, err)
			if e.Seq == 0 {
				continue
			}
			require.Equal(t, next, e.Seq)
			next++
			if e.Seq == 2 {
				for i := range 200 {
					s.append("r1", &progress.Event{Kind: progress.Output, Index: i, Data: payload})
				}
				synctest.Wait()
				s.complete("r1", `1`)
				_, err := r.Wait(t.Context()) // inside of the loop
				require.NoError(t, err)
			}
		}
		require.EqualValues(t, 204, next)
	})
}

func TestLateIterationsReadFromTheServerWhatIsNotHeld(t *testing.T) {
	bubble(t, func(t *testing.T, s *server) {
		c := s.client(client.WithLimits(client.Limits{Buffer: 4 << 10}))
		r, err := c.Submit(t.Context(), "long", nil, client.WithID("r1"))
		require.NoError(t, err)
		s.start("r1")
		s.outputs("r1", 0, 300)
		synctest.Wait()
		running := make(chan []uint64, 2)
		for range 2 {
			go func() { running <- seqs(t, r) }()
		}
		synctest.Wait()
		s.complete("r1", `1`)
		require.Len(t, <-running, 303)
		require.Len(t, <-running, 303)
		// And again after the end, without a connection.
		s.drop()
		synctest.Wait()
		require.Equal(t, client.Idle, c.State().Phase)
		require.Len(t, seqs(t, r), 303)
	})
}
