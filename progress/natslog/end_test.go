package natslog_test

import (
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/nats-io/nats-server/v2/server"
	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
	"github.com/stretchr/testify/require"

	"github.com/pay-theory/streamer/v2/internal/natstest"
	"github.com/pay-theory/streamer/v2/progress"
	"github.com/pay-theory/streamer/v2/progress/logtest"
	"github.com/pay-theory/streamer/v2/progress/natslog"
)

// messages returns how many messages a log has on the server.
func messages(t testing.TB, l *log, id string) uint64 {
	t.Helper()
	js := connect(t, l.url)
	s, err := js.Stream(t.Context(), "STREAMER_LOG")
	require.NoError(t, err)
	in, err := s.Info(t.Context(), jetstream.WithSubjectFilter("streamer.log.tenant/user."+natslog.Token(id)))
	require.NoError(t, err)
	for _, n := range in.State.Subjects {
		return n
	}
	return 0
}

func TestAnEndRewritesTheLogAsOneMessage(t *testing.T) {
	url := natstest.Start(t, nil).URL()
	l, other := newLog(t, url), newLog(t, url)
	for name, ender := range map[string]*log{"by-its-writer": l, "by-another": other} {
		state := l.start(name)
		for range 5 {
			state = l.must(name, state, output(50), output(50))
		}
		require.EqualValues(t, 7, messages(t, l, name))
		state = ender.end(name, state, time.Hour)
		require.EqualValues(t, 1, messages(t, l, name))
		for _, reader := range []*log{l, other, newLog(t, url)} {
			require.Len(t, reader.all(name), 13)
			tail, err := reader.tail(name)
			require.NoError(t, err)
			require.Equal(t, state.Record, tail.Record)
		}
	}
}

func TestALargeLogStaysAsItIsAndIsRemovedWhenItsTimeIsOver(t *testing.T) {
	url := natstest.Start(t, nil).URL()
	l := newLog(t, url, natslog.WithMaxSealed(10_000))
	large, small := l.start("large"), l.start("small")
	for range 4 {
		large = l.must("large", large, output(3000))
	}
	l.end("large", large, 300*time.Millisecond)
	l.end("small", small, time.Hour)
	require.EqualValues(t, 7, messages(t, l, "large"))
	require.EqualValues(t, 1, messages(t, l, "small"))
	require.Len(t, l.all("large"), 7)
	require.Empty(t, l.idle(0), "what has ended is not open")
	require.EqualValues(t, 7, messages(t, l, "large"))

	eventually(t, func() bool { _, err := l.tail("large"); return errors.Is(err, progress.ErrNotFound) }, "it is gone by time")
	require.EqualValues(t, 7, messages(t, l, "large"))
	require.Empty(t, newLog(t, url).idle(0))
	require.Zero(t, messages(t, l, "large"), "and removed by the next who looks for open requests")
	require.Empty(t, l.idle(0))
	require.Len(t, l.all("small"), 3)
}

func TestALogThatTookTheKeyIsNotRemovedWithTheOldOne(t *testing.T) {
	url := natstest.Start(t, nil).URL()
	l := newLog(t, url, natslog.WithMaxSealed(0))
	l.end("r", l.start("r"), 50*time.Millisecond)
	require.Empty(t, l.idle(0))
	eventually(t, func() bool { _, err := l.tail("r"); return errors.Is(err, progress.ErrNotFound) }, "it is gone by time")
	require.EqualValues(t, 3, messages(t, l, "r"))

	state := newLog(t, url).start("r")
	require.EqualValues(t, 2, messages(t, l, "r"), "the first record of the new log removes the old one")
	require.Equal(t, []string{"r"}, l.idle(0))
	require.Equal(t, []uint64{1, 2}, l.all("r"))
	tail, err := l.tail("r")
	require.NoError(t, err)
	require.Equal(t, state.Record, tail.Record)
}

func TestTheServerRemovesWhatIsOver(t *testing.T) {
	url := natstest.Start(t, nil).URL()
	l := newLog(t, url)
	l.end("r", l.start("r"), time.Second)
	require.Len(t, l.all("r"), 3)
	eventually(t, func() bool { return messages(t, l, "r") == 0 }, "the message expires")
	l.start("r")
}

func TestAnEndlessRetentionIsEndless(t *testing.T) {
	url := natstest.Start(t, nil).URL()
	l := newLog(t, url)
	l.end("r", l.start("r"), 1<<63-1)
	require.Len(t, newLog(t, url).all("r"), 3)
	require.Empty(t, l.idle(0))
}

func TestAnEndWhoseAnswerWasLostIsRecognised(t *testing.T) {
	url := natstest.Start(t, nil).URL()
	l := newLog(t, url)
	state := l.must("r", l.start("r"), output(10))
	rec := logtest.Next(state, event(progress.Completed))
	require.NoError(t, l.Append(t.Context(), key("r"), state.Record, rec))
	for _, again := range []*log{l, newLog(t, url)} {
		require.NoError(t, again.Append(t.Context(), key("r"), state.Record, rec))
	}
	require.Len(t, l.all("r"), 4)
}

func TestTheLastProgressStaysWithAnEndThatBringsNone(t *testing.T) {
	url := natstest.Start(t, nil).URL()
	l := newLog(t, url)
	state := l.start("r")
	require.NoError(t, l.SetProgress(t.Context(), key("r"), &progress.Progress{Attempt: 1, Rev: 3, Beat: 4, Percentage: 70}))
	l.end("r", state, time.Hour)
	reports, err := l.js.Stream(t.Context(), "STREAMER_PROGRESS")
	require.NoError(t, err)
	require.NoError(t, reports.Purge(t.Context()))
	page, err := newLog(t, url).Read(t.Context(), key("r"), 0, 10)
	require.NoError(t, err)
	require.EqualValues(t, 3, page.Progress.Rev, "it is in the end's message")

	state = l.start("by another")
	require.NoError(t, l.SetProgress(t.Context(), key("by another"), &progress.Progress{Attempt: 1, Rev: 5, Beat: 6, Percentage: 70}))
	newLog(t, url).end("by another", state, time.Hour)
	require.NoError(t, l.SetProgress(t.Context(), key("by another"), &progress.Progress{Attempt: 1, Rev: 6, Beat: 7, Percentage: 80}), "too late")
	page, err = newLog(t, url).Read(t.Context(), key("by another"), 0, 10)
	require.NoError(t, err)
	require.EqualValues(t, 5, page.Progress.Rev)
}

func TestAnEndThatCantAskForProgressBringsNoneThatIsOlder(t *testing.T) {
	srv := natstest.Start(t, func(o *server.Options) {
		o.NoAuthUser = "u"
		o.Users = []*server.User{{Username: "u", Password: "p"}, {Username: "deaf", Password: "p", Permissions: &server.Permissions{
			Publish: &server.SubjectPermission{Deny: []string{"$JS.API.DIRECT.GET.STREAMER_PROGRESS.>"}},
		}}}
	})
	l := newLog(t, srv.URL())
	state := l.start("r")
	rec := logtest.Next(state, output(10))
	rec.Progress = &progress.Progress{Attempt: 1, Rev: 1, Beat: 1, Percentage: 50}
	require.NoError(t, l.Append(t.Context(), key("r"), state.Record, rec))
	require.NoError(t, l.SetProgress(t.Context(), key("r"), &progress.Progress{Attempt: 1, Rev: 2, Beat: 2, Percentage: 75}))

	zombie := newLog(t, srv.URL())
	require.Len(t, zombie.all("r"), 3)
	js, err := jetstream.New(srv.Connect(t, nats.UserInfo("deaf", "p"), nats.ErrorHandler(func(*nats.Conn, *nats.Subscription, error) {})))
	require.NoError(t, err)
	deaf, err := natslog.New(t.Context(), js)
	require.NoError(t, err)
	(&log{Log: deaf, t: t}).end("r", rec.State, time.Hour)
	require.NoError(t, deaf.Close())
	for name, reader := range map[string]*log{"who saw it": l, "another": newLog(t, srv.URL())} {
		page, err := reader.Read(t.Context(), key("r"), 0, 10)
		require.NoError(t, err)
		require.NotNil(t, page.Progress, name)
		require.EqualValues(t, 75, page.Progress.Percentage, name)
	}

	require.NoError(t, zombie.SetProgress(t.Context(), key("r"), &progress.Progress{Attempt: 1, Rev: 3, Beat: 3, Percentage: 80}), "too late")
	page, err := newLog(t, srv.URL()).Read(t.Context(), key("r"), 0, 10)
	require.NoError(t, err)
	require.Nil(t, page.Progress, "what was there is not known any more")
}

func TestAnotherAttemptsLateProgressHidesNothing(t *testing.T) {
	url := natstest.Start(t, nil).URL()
	l, zombie := newLog(t, url), newLog(t, url)
	state := zombie.start("r")
	state = l.must("r", state, &progress.Event{Kind: progress.Retrying, Reason: progress.ReasonLost})
	l.must("r", state, event(progress.Started))
	require.NoError(t, l.SetProgress(t.Context(), key("r"), &progress.Progress{Attempt: 2, Rev: 1, Beat: 1, Percentage: 5}))
	require.NoError(t, zombie.SetProgress(t.Context(), key("r"), &progress.Progress{Attempt: 1, Rev: 9, Beat: 9, Percentage: 90}))
	page, err := newLog(t, url).Read(t.Context(), key("r"), 0, 10)
	require.NoError(t, err)
	require.Equal(t, 2, page.Progress.Attempt)
	require.EqualValues(t, 1, page.Beat)
}

func TestAFullStreamRefusesOutputsAndTakesEnds(t *testing.T) {
	url := natstest.Start(t, nil).URL()
	l := newLog(t, url, natslog.WithMaxBytes(1<<20))
	state := l.start("r")
	var err error
	for _, size := range []int{10_000, 10} {
		for err = nil; err == nil; {
			state, err = l.put("r", state, output(size))
		}
	}
	require.ErrorIs(t, err, progress.ErrFull)
	require.ErrorContains(t, err, "natslog: append: log store full: stream STREAMER_LOG has ")
	tail, err := l.tail("r")
	require.NoError(t, err)
	require.Equal(t, state.Record, tail.Record, "nothing of a refused record is stored")

	other := newLog(t, url, natslog.WithMaxBytes(1<<20))
	_, err = other.put("new", progress.State{}, accepted())
	require.ErrorIs(t, err, progress.ErrFull)
	_, err = other.put("r", progress.State{}, accepted())
	var conflict *progress.ConflictError
	require.ErrorAs(t, err, &conflict, "a log that is there is found")

	state = other.must("r", state, &progress.Event{Kind: progress.Retrying, Reason: progress.ReasonLost})
	state = other.must("r", state, event(progress.Started))
	other.end("r", state, time.Millisecond)
	eventually(t, func() bool {
		for range other.Open(t.Context(), 0) {
			t.Error("a request is open")
		}
		_, err := other.put("new", progress.State{}, accepted())
		return err == nil
	}, "there is room again when the log is gone")
}

func TestAFullServerIsFull(t *testing.T) {
	srv := natstest.Start(t, func(o *server.Options) { o.JetStreamMaxStore = 1 << 20 })
	l := newLog(t, srv.URL())
	state := l.start("r")
	var err error
	for err == nil {
		state, err = l.put("r", state, output(10_000))
	}
	require.ErrorIs(t, err, progress.ErrFull)
	_, err = newLog(t, srv.URL()).put("r", progress.State{}, accepted())
	var conflict *progress.ConflictError
	require.ErrorAs(t, err, &conflict, "a log that is there is found")
}

func TestWhatTheServerDoesNotTakeIsTooLarge(t *testing.T) {
	srv := natstest.Start(t, func(o *server.Options) { o.MaxPayload = 64 << 10 })
	l := newLog(t, srv.URL())
	state := l.start("r")
	_, err := l.put("r", state, output(64<<10))
	require.ErrorIs(t, err, progress.ErrTooLarge)
	require.ErrorContains(t, err, "and the server takes 65536")
	for range 10 {
		state = l.must("r", state, output(10_000))
	}
	l.end("r", state, time.Hour)
	require.Len(t, l.all("r"), 13, "a log over the server's limit is not rewritten")
	require.EqualValues(t, 13, messages(t, l, "r"))
	err = l.SetProgress(t.Context(), key("r"), &progress.Progress{Attempt: 1, Rev: 1})
	require.NoError(t, err, "ignored after the end")
	l.start("s")
	err = l.SetProgress(t.Context(), key("s"), &progress.Progress{Attempt: 1, Rev: 1, Metadata: json.RawMessage(`"` + strings.Repeat("x", 70_000) + `"`)})
	require.ErrorIs(t, err, progress.ErrTooLarge)
}

func TestRecordsThatBreakTheRulesAreRefused(t *testing.T) {
	url := natstest.Start(t, nil).URL()
	l := newLog(t, url)
	state := l.start("r")
	for want, spoil := range map[string]func(*progress.Record){
		"has no ID":                   func(r *progress.Record) { r.ID = "" },
		"has a state of record":       func(r *progress.Record) { r.State.Record = "other" },
		"event 1 of 2 is number 4":    func(r *progress.Record) { r.Events[0].Seq = 4 },
		"says it is of record":        func(r *progress.Record) { r.Events[1].Record = "other" },
		"is an end and not the last":  func(r *progress.Record) { r.Events[0].Kind = progress.Failed },
		"differ on whether":           func(r *progress.Record) { r.State.Phase = progress.Completed },
		"must be more than 0 exactly": func(r *progress.Record) { r.Retention = time.Second },
	} {
		rec := logtest.Next(state, output(10), output(10))
		spoil(rec)
		require.ErrorContains(t, l.Append(t.Context(), key("r"), state.Record, rec), want)
	}
	require.ErrorContains(t, l.Append(t.Context(), key("new"), "", logtest.Next(progress.State{})), "without an event")
	late := state
	late.Last = 7
	require.ErrorContains(t, l.Append(t.Context(), key("new"), "", logtest.Next(late, output(10))), "would start a log, has 1 events and a state of event 8")
	require.ErrorContains(t, l.Append(t.Context(), key("r"), state.Record, logtest.Next(late, output(10))), "before it ends with event 2")
	foreign := state
	foreign.Epoch = "other"
	err := l.Append(t.Context(), key("r"), state.Record, logtest.Next(foreign))
	require.ErrorContains(t, err, `is of epoch "other"`)
	require.NotErrorIs(t, err, progress.ErrUnavailable)
	require.ErrorContains(t, err, "natslog: append: ")
	require.Equal(t, []uint64{1, 2}, l.all("r"))
}

func TestHostileKeysStayInTheirTokens(t *testing.T) {
	seen := map[string]string{}
	for _, s := range []string{
		"", "a", "=", "==", "=41", "A", ".", "*", ">", " ", "\x00", "\r\nNats-Rollup: all", "a.b", "a.*", "é", "{{wildcard(1)}}", "$JS", "$1",
		strings.Repeat("x", 160), strings.Repeat("x", 161), strings.Repeat("x", 162), strings.Repeat(".", 54), strings.Repeat("ü", 1000), "=H" + strings.Repeat("a", 43),
	} {
		token := natslog.Token(s)
		require.Regexp(t, `^[A-Za-z0-9_~/:@+=-]+$`, token)
		require.LessOrEqual(t, len(token), 160)
		require.NotContains(t, seen, token, "%q and %q", s, seen[token])
		seen[token] = s
		back, ok := natslog.Untoken(token)
		if ok {
			require.Equal(t, s, back)
		} else {
			require.Greater(t, len(s), 53, "only long strings are hashed")
		}
	}
	for _, bad := range []string{"", "=4", "=G0", "a=", "=Habc"} {
		_, ok := natslog.Untoken(bad)
		require.False(t, ok, fmt.Sprintf("%q is no token", bad))
	}
}
