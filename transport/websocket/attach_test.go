package websocket_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/pay-theory/streamer/v2"
	"github.com/pay-theory/streamer/v2/progress"
	"github.com/pay-theory/streamer/v2/transport"
	"github.com/pay-theory/streamer/v2/transport/internal/pipes"
	"github.com/pay-theory/streamer/v2/transport/internal/worker"
)

// submit has a request accepted, without any connection.
func (s *service) submit(who streamer.Identity, id string) *streamer.Receipt {
	s.t.Helper()
	r, err := s.mux.Submit(context.Background(), who, &streamer.Request{ID: id, Action: "long"})
	require.NoError(s.t, err)
	return r
}

func TestEventsComeInOrderFromTheCursorOn(t *testing.T) {
	t.Parallel()
	s := start(t)
	s.submit(streamer.Identity{}, "r1")
	w := s.worker("r1").Start()
	for i := range 500 {
		w.Output(fmt.Sprint(i))
	}
	p := s.hello()
	p.send(`{"type":"attach","id":"r1","after":200}`)
	m := p.expect("attached", "r1")
	require.EqualValues(t, 502, m.Last)
	require.EqualValues(t, 200, m.After)
	go func() {
		for i := range 500 {
			w.Output(fmt.Sprint(500 + i))
		}
		w.Complete(`true`)
	}()
	for seq := uint64(201); seq <= 1002; seq++ {
		m := p.expect("output", "r1")
		require.Equal(t, seq, m.Seq)
		require.Equal(t, fmt.Sprint(seq-3), string(m.Data))
	}
	require.EqualValues(t, 1003, p.expect("complete", "r1").Seq)
	p.lives()
	require.Zero(t, s.handler.Stats().Attached)
}

func TestViewersOfOneRequestSeeTheSame(t *testing.T) {
	t.Parallel()
	s := start(t)
	var peers []*peer
	s.submit(streamer.Identity{}, "r1")
	for range 20 {
		p := s.hello()
		p.send(`{"type":"attach","id":"r1","after":1}`)
		p.expect("attached", "r1")
		peers = append(peers, p)
	}
	w := s.worker("r1").Start()
	for i := range 100 {
		w.Output(fmt.Sprint(i))
	}
	w.Complete(`1`)
	for _, p := range peers {
		for seq := uint64(2); seq <= 103; seq++ {
			require.Equal(t, seq, p.next().Seq)
		}
	}
	page, err := s.log.Read(context.Background(), w.Key, 1, 200)
	require.NoError(t, err)
	for _, e := range page.Events {
		e.Encoded("r1", func(string, *progress.Event) []byte {
			t.Error("an event that all have seen was not kept encoded")
			return nil
		})
	}
}

func TestWhatIsQueuedGoesOutInFewFrames(t *testing.T) {
	t.Parallel()
	s := start(t)
	s.submit(streamer.Identity{}, "r1")
	w := s.worker("r1").Start()
	for i := range 318 {
		w.Output(fmt.Sprint(i))
	}
	p := s.hello()
	p.send(`{"type":"attach","id":"r1"}`)
	p.expect("attached", "r1")
	require.NoError(t, p.follows(1, 320))
	// What was written is counted just after that.
	require.Eventually(t, func() bool { return s.handler.Stats().Sent == 1+321 }, 5*time.Second, time.Millisecond)
	require.LessOrEqual(t, s.handler.Stats().Frames, uint64(1+22))
}

func TestAttachAgainMovesTheCursor(t *testing.T) {
	t.Parallel()
	s := start(t)
	s.submit(streamer.Identity{}, "r1")
	w := s.worker("r1").Start().Output(`1`)
	p := s.hello()
	for range 3 {
		p.send(`{"type":"attach","id":"r1","after":1}`)
		p.expect("attached", "r1")
		p.expect("status", "r1")
		p.expect("output", "r1")
	}
	require.Equal(t, 1, s.handler.Stats().Attached)
	w.Complete(`1`)
	p.expect("complete", "r1")
	p.lives()
}

func TestDetachedRequestsAreNotShown(t *testing.T) {
	t.Parallel()
	s := start(t)
	s.submit(streamer.Identity{}, "r1")
	p := s.hello()
	p.send(`{"type":"attach","id":"r1","after":1}`)
	p.expect("attached", "r1")
	p.send(`{"type":"detach","id":"r1"}`)
	p.lives()
	s.worker("r1").Start().Complete(`1`)
	p.lives()
	require.Zero(t, s.handler.Stats().Attached)
	p.send(`{"type":"detach","id":"r1"}`)
	p.lives()
}

func TestWhatIsUnknownForeignOrExpiredIsNotFoundAlike(t *testing.T) {
	t.Parallel()
	s := start(t, transport.WithAuthenticator(byToken))
	s.submit(streamer.Identity{User: "alice"}, "alices")
	var answers []string
	p := s.hello("Authorization", "Bearer bob")
	for _, id := range []string{"alices", "nobody"} {
		for _, typ := range []string{"attach", "cancel"} {
			p.send(`{"type":"` + typ + `","id":"` + id + `"}`)
			m, err := p.read()
			require.NoError(t, err)
			require.Contains(t, m, `"NOT_FOUND"`)
			answers = append(answers, strings.ReplaceAll(m, id, "ID"))
		}
	}
	for _, a := range answers {
		require.Equal(t, answers[0], a)
	}
}

func TestTheSameIDOfAnotherUserIsAnotherRequest(t *testing.T) {
	t.Parallel()
	s := start(t, transport.WithAuthenticator(byToken))
	for _, user := range []string{"alice", "bob"} {
		p := s.hello("Authorization", "Bearer "+user)
		p.send(`{"type":"request","id":"r1","action":"echo","payload":"` + user + `"}`)
		require.Equal(t, `"`+user+`"`, string(p.expect("response", "r1").Data))
	}
}

func TestASubmitThatIsRepeatedAttaches(t *testing.T) {
	t.Parallel()
	s := start(t)
	s.hello().send(`{"type":"request","id":"r1","action":"long","payload":1}`)
	p := s.hello()
	require.Eventually(t, func() bool { return s.mux.Stats().Accepted == 1 }, 5*time.Second, time.Millisecond)
	s.worker("r1").Start().Output(`1`)
	p.send(`{"type":"request","id":"r1","action":"long","payload":1}`)
	m := p.expect("acknowledgment", "r1")
	require.True(t, m.Duplicate)
	require.Equal(t, "running", m.Status)
	require.EqualValues(t, 2, p.expect("status", "r1").Seq)
	require.EqualValues(t, 3, p.expect("output", "r1").Seq)
	p.send(`{"type":"request","id":"r1","action":"long","payload":2}`)
	p.fails(streamer.ErrCodeConflict, "r1")
	s.worker("r1").Complete(`1`)
	p.expect("complete", "r1")
}

func TestShortWorkThatIsRepeatedIsAnsweredAgain(t *testing.T) {
	t.Parallel()
	s := start(t)
	for range 2 {
		p := s.hello()
		p.send(`{"type":"request","id":"r1","action":"echo","payload":1}`)
		require.EqualValues(t, 1, p.expect("response", "r1").Seq)
		p.lives()
	}
}

func TestAttachAtTheEndShowsNothingMore(t *testing.T) {
	t.Parallel()
	s := start(t)
	s.submit(streamer.Identity{}, "r1")
	w := s.worker("r1").Start()
	w.AppendWith(w.NewProgress(100), &progress.Event{Kind: progress.Completed})
	p := s.hello()
	p.send(`{"type":"attach","id":"r1","after":3}`)
	require.Equal(t, "completed", p.expect("attached", "r1").Status)
	p.lives()
	require.Zero(t, s.handler.Stats().Attached)
}

func TestProgressIsMergedAndItsLastValueComesBeforeTheEnd(t *testing.T) {
	t.Parallel()
	s := start(t)
	p := s.hello()
	p.send(`{"type":"request","id":"r1","action":"long"}`)
	p.expect("acknowledgment", "r1")
	w := s.worker("r1").Start()
	p.expect("status", "r1")
	for i := range 1000 {
		w.Progress(float64(i) / 10)
	}
	w.AppendWith(w.NewProgress(100), &progress.Event{Kind: progress.Completed})
	last := -1.0
	for {
		m := p.next()
		if m.Type == "complete" {
			break
		}
		require.Equal(t, "progress", m.Type)
		require.Greater(t, m.Percentage, last)
		last = m.Percentage
	}
	require.EqualValues(t, 100, last)
}

func TestProgressOfANewAttemptIsShownAfterItsStart(t *testing.T) {
	t.Parallel()
	s := start(t)
	p := s.hello()
	p.send(`{"type":"request","id":"r1","action":"long"}`)
	p.expect("acknowledgment", "r1")
	w := s.worker("r1").Start().Progress(80)
	p.expect("status", "r1")
	require.EqualValues(t, 80, p.expect("progress", "r1").Percentage)
	w.Append(&progress.Event{Kind: progress.Retrying, Reason: progress.ReasonLost}).Start().Progress(10)
	require.Equal(t, "retrying", p.expect("status", "r1").Status)
	require.Equal(t, 2, p.expect("status", "r1").Attempt)
	m := p.expect("progress", "r1")
	require.Equal(t, 2, m.Attempt)
	require.EqualValues(t, 10, m.Percentage)
}

func TestTooManyAttachedAreRefused(t *testing.T) {
	t.Parallel()
	s := start(t, transport.WithLimits(transport.Limits{Attached: 2}))
	resume := ""
	for i := range 4 {
		s.submit(streamer.Identity{}, fmt.Sprintf("r%d", i))
		resume += fmt.Sprintf(`{"id":"r%d","after":1},`, i)
	}
	p := s.connect()
	p.send(`{"type":"hello","v":1,"resume":[` + strings.TrimSuffix(resume, ",") + `]}`)
	p.expect("welcome", "")
	p.expect("attached", "r0")
	p.expect("attached", "r1")
	p.fails(streamer.ErrCodeRateLimited, "r2")
	p.fails(streamer.ErrCodeRateLimited, "r3")
	p.send(`{"type":"attach","id":"r2"}`)
	p.fails(streamer.ErrCodeRateLimited, "r2")
	p.send(`{"type":"request","id":"r5","action":"long"}`)
	p.fails(streamer.ErrCodeRateLimited, "r5")
	p.send(`{"type":"attach","id":"r0","after":1}`)
	p.expect("attached", "r0")
	s.worker("r0").Complete(`1`)
	p.expect("complete", "r0")
	p.send(`{"type":"attach","id":"r2","after":1}`)
	p.expect("attached", "r2")
}

func TestALogThatIsCutWhileFollowedIsOneGap(t *testing.T) {
	t.Parallel()
	oldest := new(atomic.Uint64)
	s := setup{log: func(l progress.Log) progress.Log { return worker.CutLog{Log: l, ID: "r1", Oldest: oldest} }}.start(t)
	p, older := s.hello(), s.connect()
	for _, q := range []*peer{p, older} {
		q.send(`{"type":"request","id":"r1","action":"long"}`)
		q.expect("acknowledgment", "r1")
	}
	w := s.worker("r1").Start()
	p.expect("status", "r1")
	older.lives()
	oldest.Store(50)
	var events []*progress.Event
	for i := range 60 {
		events = append(events, &progress.Event{Kind: progress.Output, Index: i, Data: json.RawMessage("1")})
	}
	w.Append(append(events, &progress.Event{Kind: progress.Completed})...)
	m := p.expect("gap", "r1")
	require.Equal(t, "expired", m.Reason)
	require.EqualValues(t, 2, m.After)
	require.EqualValues(t, 50, m.Oldest)
	require.EqualValues(t, 63, m.Last)
	require.NoError(t, p.follows(50, 63))
	p.lives()
	older.expect("complete", "r1")
	require.NotZero(t, s.handler.Stats().Gaps)
}

func TestARequestForgottenWhileFollowedIsNotFound(t *testing.T) {
	t.Parallel()
	var gone atomic.Bool
	s := setup{log: func(l progress.Log) progress.Log {
		return failingLog{l, func() error {
			if gone.Load() {
				return progress.ErrNotFound
			}
			return nil
		}}
	}}.start(t)
	s.submit(streamer.Identity{}, "r1")
	p := s.hello()
	p.send(`{"type":"attach","id":"r1","after":1}`)
	p.expect("attached", "r1")
	p.lives()
	gone.Store(true)
	s.worker("r1").Start()
	p.fails(streamer.ErrCodeNotFound, "r1")
	p.lives()
	require.Zero(t, s.handler.Stats().Attached)
}

// failingLog is a log whose reads may fail.
type failingLog struct {
	progress.Log
	err func() error
}

func (l failingLog) Read(ctx context.Context, key progress.Key, after uint64, limit int) (progress.Page, error) {
	if err := l.err(); err != nil {
		return progress.Page{}, fmt.Errorf("failing: %w", err)
	}
	return l.Log.Read(ctx, key, after, limit)
}

// behindLog reads from the beginning of logs as they once were.
type behindLog struct {
	progress.Log
	then *atomic.Pointer[progress.Page]
}

func (l behindLog) Read(ctx context.Context, key progress.Key, after uint64, limit int) (progress.Page, error) {
	if page := l.then.Load(); page != nil && after == 0 {
		return *page, nil
	}
	return l.Log.Read(ctx, key, after, limit)
}

func TestACursorThatAnotherGatewayGaveIsNotCalledAheadByOneThatIsBehind(t *testing.T) {
	t.Parallel()
	var then atomic.Pointer[progress.Page]
	s := setup{log: func(l progress.Log) progress.Log { return behindLog{l, &then} }}.start(t)
	p := s.hello()
	p.send(`{"type":"request","id":"r1","action":"long"}`)
	p.expect("acknowledgment", "r1")
	w := s.worker("r1").Start().Output(`1`)
	page, err := s.log.Read(t.Context(), progress.Key{Scope: "/", ID: "r1"}, 0, 1)
	require.NoError(t, err)
	then.Store(&page)
	w.Output(`2`)
	p = s.hello()
	p.send(`{"type":"attach","id":"r1","after":4}`)
	require.EqualValues(t, 4, p.expect("attached", "r1").Last)
	w.Output(`3`)
	require.EqualValues(t, 5, p.expect("output", "r1").Seq)
	require.Zero(t, s.handler.Stats().Gaps)
}

func TestViewersGoOnAfterAStoreThatWasDownForAWhile(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var down atomic.Bool
		s := setup{listener: pipes.Listen(), log: func(l progress.Log) progress.Log {
			return failingLog{l, func() error {
				if down.Load() {
					return progress.ErrUnavailable
				}
				return nil
			}}
		}}.start(t)
		p := s.hello()
		p.send(`{"type":"request","id":"r1","action":"long"}`)
		p.expect("acknowledgment", "r1")
		p.lives()
		down.Store(true)
		w := s.worker("r1").Start().Output(`1`)
		p.lives()
		time.Sleep(10 * time.Second)
		down.Store(false)
		require.EqualValues(t, 2, p.expect("status", "r1").Seq)
		require.EqualValues(t, 3, p.expect("output", "r1").Seq)

		down.Store(true)
		w.Output(`2`)
		p.closed(4503)
	})
}

func TestARefusedWatchIsAnError(t *testing.T) {
	t.Parallel()
	s := setup{log: func(l progress.Log) progress.Log { return blindLog{l} }}.start(t)
	s.submit(streamer.Identity{}, "r1")
	p := s.hello()
	p.send(`{"type":"attach","id":"r1"}`)
	p.fails(streamer.ErrCodeServiceUnavailable, "r1")
	p.lives()
}

type blindLog struct{ progress.Log }

func (blindLog) Watch(context.Context, progress.Key, func(string)) (func(), error) {
	return nil, errors.Join(progress.ErrUnavailable, errors.New("can't see"))
}
