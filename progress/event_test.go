package progress_test

import (
	"encoding/json"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/pay-theory/streamer/v2/progress"
)

func TestKindsHaveAStatusAndThreeOfThemEnd(t *testing.T) {
	t.Parallel()
	for kind, want := range map[progress.Kind]struct {
		status string
		ends   bool
	}{
		progress.Accepted:  {"queued", false},
		progress.Started:   {"running", false},
		progress.Output:    {"running", false},
		progress.Retrying:  {"retrying", false},
		progress.Canceling: {"canceling", false},
		progress.Completed: {"completed", true},
		progress.Failed:    {"failed", true},
		progress.Canceled:  {"canceled", true},
	} {
		require.Equal(t, want.status, kind.Status())
		require.Equal(t, want.ends, kind.Ends(), kind)
	}
}

// apply returns the state after events, numbered on.
func apply(s progress.State, events ...*progress.Event) progress.State {
	for _, e := range events {
		e.Seq = s.Last + 1
		s = s.Apply(e)
	}
	return s
}

func TestStateFollowsALifeWithARetry(t *testing.T) {
	t.Parallel()
	created := time.Now()
	s := progress.State{Epoch: "k3f9", Action: "export", Digest: "d", Group: "g", Created: created, Nonce: "n"}

	s = apply(s, &progress.Event{Kind: progress.Accepted, Record: "a"})
	require.Equal(t, progress.State{
		Epoch: "k3f9", Action: "export", Digest: "d", Group: "g", Created: created, Nonce: "n",
		Last: 1, Record: "a", Phase: progress.Accepted,
	}, s)

	begun := created.Add(time.Second)
	s = apply(s, &progress.Event{Kind: progress.Started, Attempt: 1, Time: begun, Record: "b"})
	require.Equal(t, 1, s.Attempt)
	require.Equal(t, 1, s.Used)
	require.Equal(t, begun, s.Started)

	s = apply(s, &progress.Event{Kind: progress.Output, Index: 0}, &progress.Event{Kind: progress.Output, Index: 1, Record: "c"})
	require.Equal(t, 2, s.Outputs)
	require.Equal(t, progress.Started, s.Phase, "an output is no phase")
	require.EqualValues(t, 4, s.Last)
	require.Equal(t, "c", s.Record)

	failure := &progress.Failure{Code: "X"}
	s = apply(s, &progress.Event{Kind: progress.Retrying, Reason: progress.ReasonError, Error: failure, Delay: time.Minute})
	require.Equal(t, progress.Retrying, s.Phase)
	require.Equal(t, failure, s.Error)
	require.Equal(t, time.Minute, s.Delay)
	require.Empty(t, s.Reason, "which is a cancel's")

	s = apply(s, &progress.Event{Kind: progress.Started, Attempt: 2, Index: 1})
	require.Equal(t, 2, s.Attempt)
	require.Equal(t, 2, s.Used)
	require.Equal(t, 1, s.Outputs, "the attempt goes on from a checkpoint")
	require.Equal(t, failure, s.Error, "it is kept for when attempts are used up")

	s = apply(s, &progress.Event{Kind: progress.Canceling, Reason: "user pressed stop"})
	require.Equal(t, progress.Canceling, s.Phase)
	require.Equal(t, "user pressed stop", s.Reason)
	require.False(t, s.Ended())

	s = apply(s, &progress.Event{Kind: progress.Canceled})
	require.True(t, s.Ended())
	require.Equal(t, 2, s.Attempt)
}

func TestAShutdownDoesNotUseAnAttempt(t *testing.T) {
	t.Parallel()
	started := &progress.Event{Kind: progress.Started, Attempt: 1}
	for reason, used := range map[string]int{
		progress.ReasonShutdown: 0,
		progress.ReasonLost:     1,
		progress.ReasonError:    1,
	} {
		s := apply(progress.State{}, &progress.Event{Kind: progress.Accepted}, started, &progress.Event{Kind: progress.Retrying, Reason: reason})
		require.Equal(t, used, s.Used, reason)
		require.Equal(t, 1, s.Attempt, "but it was one")
	}
}

func TestARetryWithoutErrorKeepsTheLastOne(t *testing.T) {
	t.Parallel()
	failure := &progress.Failure{Code: "X"}
	s := apply(progress.State{},
		&progress.Event{Kind: progress.Retrying, Error: failure, Delay: time.Minute},
		&progress.Event{Kind: progress.Retrying, Reason: progress.ReasonLost},
	)
	require.Equal(t, failure, s.Error)
	require.Zero(t, s.Delay)
}

func TestApplyLeavesItsReceiverAlone(t *testing.T) {
	t.Parallel()
	before := progress.State{Last: 4, Phase: progress.Started, Attempt: 1}
	require.NotEqual(t, before, before.Apply(&progress.Event{Seq: 5, Kind: progress.Completed}))
	require.Equal(t, progress.State{Last: 4, Phase: progress.Started, Attempt: 1}, before)
}

func TestAnEncodingIsMadeOnceAndShared(t *testing.T) {
	t.Parallel()
	calls := 0
	event, report := &progress.Event{Seq: 7}, &progress.Progress{Rev: 9}
	encodeEvent := func(id string, e *progress.Event) []byte {
		calls++
		require.Same(t, event, e)
		return []byte(id + " event")
	}
	encodeProgress := func(id string, p *progress.Progress) []byte {
		calls++
		require.Same(t, report, p)
		return []byte(id + " progress")
	}
	first := event.Encoded("r1", encodeEvent)
	second := event.Encoded("r1", encodeEvent)
	require.Equal(t, "r1 event", string(first))
	require.Same(t, &first[0], &second[0])
	require.Equal(t, "r1 progress", string(report.Encoded("r1", encodeProgress)))
	require.Equal(t, "r1 progress", string(report.Encoded("r1", encodeProgress)))
	require.Equal(t, 2, calls)
}

func TestEncodedIsSafeForManyViewers(t *testing.T) {
	t.Parallel()
	event := &progress.Event{Seq: 7}
	var wg sync.WaitGroup
	for range 8 {
		wg.Go(func() {
			for range 100 {
				got := event.Encoded("r1", func(id string, e *progress.Event) []byte { return []byte(id) })
				if string(got) != "r1" {
					t.Errorf("got %q", got)
				}
			}
		})
	}
	wg.Wait()
}

func TestEncodingIsNoPartOfAnEvent(t *testing.T) {
	t.Parallel()
	event := &progress.Event{Seq: 1, Kind: progress.Accepted}
	before, err := json.Marshal(event)
	require.NoError(t, err)
	event.Encoded("r1", func(string, *progress.Event) []byte { return []byte("x") })
	after, err := json.Marshal(event)
	require.NoError(t, err)
	require.JSONEq(t, string(before), string(after))
}
