package natslog_test

import (
	"fmt"
	"testing"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
	"github.com/stretchr/testify/require"

	"github.com/pay-theory/streamer/v2/internal/natstest"
	"github.com/pay-theory/streamer/v2/progress"
)

// remove deletes messages of the log stream, as damage of its store would.
func remove(t testing.TB, js jetstream.JetStream, seqs ...uint64) {
	t.Helper()
	s, err := js.Stream(t.Context(), "STREAMER_LOG")
	require.NoError(t, err)
	for _, seq := range seqs {
		require.NoError(t, s.DeleteMsg(t.Context(), seq))
	}
}

func TestLostEventsAreNeverSkippedInSilence(t *testing.T) {
	url := natstest.Start(t, nil).URL()
	js := connect(t, url)
	for name, c := range map[string]struct {
		lost   []uint64 // messages; each has one event with its number
		before []uint64 // events that a reader from the start gets
		oldest uint64   // as it is told then
		rest   []uint64
	}{
		"the first":          {[]uint64{1}, nil, 2, []uint64{2, 3, 4, 5, 6, 7, 8}},
		"the first ones":     {[]uint64{1, 2, 3}, nil, 4, []uint64{4, 5, 6, 7, 8}},
		"one in the middle":  {[]uint64{4}, []uint64{1, 2, 3}, 5, []uint64{5, 6, 7, 8}},
		"all but the newest": {[]uint64{1, 2, 3, 4, 5, 6, 7}, nil, 8, []uint64{8}},
	} {
		t.Run(name, func(t *testing.T) {
			writer := newLog(t, url)
			state := writer.start("r")
			for range 6 {
				state = writer.must("r", state, output(10))
			}
			s, err := js.Stream(t.Context(), "STREAMER_LOG")
			require.NoError(t, err)
			first := s.CachedInfo().State.LastSeq - 7
			for i := range c.lost {
				c.lost[i] += first - 1
			}
			remove(t, js, c.lost...)

			l := newLog(t, url)
			read := func(after uint64) ([]uint64, progress.Page) {
				page, err := l.Read(t.Context(), key("r"), after, 100)
				require.NoError(t, err)
				require.EqualValues(t, 8, page.State.Last)
				var numbers []uint64
				for _, e := range page.Events {
					numbers = append(numbers, e.Seq)
				}
				return numbers, page
			}
			var after uint64
			got, page := read(after)
			if c.before != nil {
				require.Equal(t, c.before, got)
				_, gap := page.Gap("", 0)
				require.False(t, gap)
				after = c.before[len(c.before)-1]
				got, page = read(after)
			}
			reason, gap := page.Gap(state.Epoch, after)
			require.True(t, gap)
			require.Equal(t, "expired", reason)
			require.Equal(t, c.oldest, page.Oldest)
			require.Equal(t, c.rest, got)
			got, page = read(page.Oldest - 1)
			require.Equal(t, c.rest, got)
			_, gap = page.Gap(state.Epoch, c.oldest-1)
			require.False(t, gap, "who goes on from there is told no more")

			writer.end("r", state, time.Hour)
			_, err = writer.Read(t.Context(), key("r"), 0, 100)
			require.NoError(t, err)
			require.NoError(t, s.Purge(t.Context()))
		})
	}
}

func TestALogThatLostItsNewestEventsIsBehindItsViewers(t *testing.T) {
	url := natstest.Start(t, nil).URL()
	l := newLog(t, url)
	state := l.start("r")
	before := state
	state = l.must("r", state, output(10))
	remove(t, connect(t, url), 3)
	page, err := newLog(t, url).Read(t.Context(), key("r"), 3, 10) // the writer may know it still
	require.NoError(t, err)
	reason, gap := page.Gap(state.Epoch, 3)
	require.True(t, gap)
	require.Equal(t, "ahead", reason)

	_, err = l.put("r", state, output(10))
	var conflict *progress.ConflictError
	require.ErrorAs(t, err, &conflict)
	require.Equal(t, before.Record, conflict.State.Record)
	l.must("r", before, output(10))
	require.Equal(t, []uint64{1, 2, 3}, l.all("r"))
}

func TestAWipedStoreHasNoLogs(t *testing.T) {
	url := natstest.Start(t, nil).URL()
	js := connect(t, url)
	l := newLog(t, url)
	for i := range 10 {
		l.start(fmt.Sprint("other-", i))
	}
	state := l.must("r", l.start("r"), output(10))
	require.Len(t, l.idle(0), 11)
	told := make(chan string, 100)
	stop, err := l.Watch(t.Context(), key("r"), func(record string) { told <- record })
	require.NoError(t, err)
	defer stop()

	config := info(t, js, "STREAMER_LOG").Config
	stay(t, js)
	require.NoError(t, js.DeleteStream(t.Context(), config.Name))
	_, err = js.CreateStream(t.Context(), config)
	require.NoError(t, err)
	_, err = l.tail("r")
	require.ErrorIs(t, err, progress.ErrNotFound)
	_, err = l.put("r", state, output(10))
	require.ErrorIs(t, err, progress.ErrNotFound)
	require.ErrorIs(t, l.SetProgress(t.Context(), key("other-3"), &progress.Progress{Attempt: 2}), progress.ErrNotFound)

	fresh := l.start("r")
	require.Equal(t, []uint64{1, 2}, l.all("r"))
	eventually(t, func() bool {
		for {
			select {
			case record := <-told:
				if record == fresh.Record {
					return true
				}
			default:
				return false
			}
		}
	}, "its watchers are told of the new log")
	require.Equal(t, []string{"r"}, l.idle(0))

	other := newLog(t, url)
	other.must("other-1", progress.State{}, accepted())
	_, err = l.tail("other-1")
	require.NoError(t, err)
	require.Equal(t, []uint64{1}, l.all("other-1"))
}

func TestMessagesThatMakeNoSenseHarmNobodyElse(t *testing.T) {
	url := natstest.Start(t, nil).URL()
	js := connect(t, url)
	writer := newLog(t, url)
	state := writer.start("good")
	good, err := js.Stream(t.Context(), "STREAMER_LOG")
	require.NoError(t, err)
	sample, err := good.GetMsg(t.Context(), 1)
	require.NoError(t, err)
	header := sample.Header.Get("Streamer")

	messages := map[string]*nats.Msg{
		"no header":    {Data: []byte("hello")},
		"empty":        {},
		"bad header":   {Header: nats.Header{"Streamer": {"v1 a b"}}, Data: sample.Data},
		"bad numbers":  {Header: nats.Header{"Streamer": {"v1 r e accepted 0 0 5 0"}}, Data: sample.Data},
		"other body":   {Header: nats.Header{"Streamer": {header}}, Data: []byte("{}\n")},
		"no body":      {Header: nats.Header{"Streamer": {header}}},
		"cut body":     {Header: nats.Header{"Streamer": {header}}, Data: sample.Data[:len(sample.Data)-1]},
		"longer body":  {Header: nats.Header{"Streamer": {header}}, Data: append(append([]byte{}, sample.Data...), 'x')},
		"no JSON":      {Header: nats.Header{"Streamer": {header}}, Data: []byte("\x00\x01\n")},
		"null events":  {Header: nats.Header{"Streamer": {header}}, Data: []byte(`{"events":[null],"raws":[-1]}` + "\n")},
		"negative raw": {Header: nats.Header{"Streamer": {header}}, Data: []byte(`{"raws":[-5]}` + "\n")},
	}
	l := newLog(t, url)
	l.Looks(10*time.Millisecond, 50*time.Millisecond)
	told := make(chan string, 100)
	n := 0
	for what, m := range messages {
		id := fmt.Sprint("bad-", n)
		n++
		stop, err := l.Watch(t.Context(), key(id), func(record string) { told <- record })
		require.NoError(t, err)
		defer stop()
		m.Subject = "streamer.log.tenant/user." + id
		_, err = js.PublishMsg(t.Context(), m)
		require.NoError(t, err, what)
		<-told
		for name, err := range map[string]error{
			"Tail":        func() error { _, err := l.tail(id); return err }(),
			"Read":        func() error { _, err := l.Read(t.Context(), key(id), 0, 1); return err }(),
			"SetProgress": l.SetProgress(t.Context(), key(id), &progress.Progress{Attempt: 1}),
			"Append":      func() error { _, err := l.put(id, progress.State{}, accepted()); return err }(),
		} {
			require.ErrorIs(t, err, progress.ErrUnavailable, "%s: %s", what, name)
			require.ErrorContains(t, err, "of subject "+m.Subject+" makes no sense", "%s: %s", what, name)
		}
	}
	require.GreaterOrEqual(t, l.Stats().Foreign, uint64(4*n))

	var ids []string
	var failed error
	for p, err := range l.Open(t.Context(), 0) {
		if err != nil {
			failed = err
			continue
		}
		ids = append(ids, p.Key.ID)
	}
	require.ErrorIs(t, failed, progress.ErrUnavailable)
	require.ErrorContains(t, failed, "makes no sense")
	require.Equal(t, []string{"good"}, ids, "the others are found, and the error comes last")
	l.must("good", state, output(10))
	require.Equal(t, []uint64{1, 2, 3}, l.all("good"))
}

func TestWhatANewerVersionWroteIsNamed(t *testing.T) {
	url := natstest.Start(t, nil).URL()
	js := connect(t, url)
	l := newLog(t, url)
	state := l.start("r")
	_, err := js.PublishMsg(t.Context(), &nats.Msg{
		Subject: "streamer.log.tenant/user.r", Header: nats.Header{"Streamer": {"v2 something else"}}, Data: []byte("?"),
	})
	require.NoError(t, err)
	_, err = l.tail("r")
	require.ErrorIs(t, err, progress.ErrUnavailable)
	require.ErrorContains(t, err, "a newer version of this package wrote it: format 2, and this one reads up to 1")
	_, err = l.put("r", state, output(10))
	require.ErrorIs(t, err, progress.ErrUnavailable)
	require.ErrorContains(t, err, "a newer version")
}

func TestProgressThatMakesNoSenseIsNamed(t *testing.T) {
	url := natstest.Start(t, nil).URL()
	js := connect(t, url)
	l := newLog(t, url)
	l.start("r")
	_, err := js.Publish(t.Context(), "streamer.progress.tenant/user.r.1", []byte("hello"))
	require.NoError(t, err)
	_, err = newLog(t, url).Read(t.Context(), key("r"), 0, 10)
	require.ErrorIs(t, err, progress.ErrUnavailable)
	require.ErrorContains(t, err, "of subject streamer.progress.tenant/user.r.1 makes no sense")
	require.NoError(t, l.SetProgress(t.Context(), key("r"), &progress.Progress{Attempt: 1, Rev: 1}))
	_, err = l.Read(t.Context(), key("r"), 0, 10)
	require.NoError(t, err, "the next report replaces it")
}

func TestAStreamThatWasRemovedIsNamed(t *testing.T) {
	url := natstest.Start(t, nil).URL()
	l := newLog(t, url)
	state := l.start("r")
	require.NoError(t, connect(t, url).DeleteStream(t.Context(), "STREAMER_LOG"))
	_, err := l.put("r", state, output(10))
	require.ErrorIs(t, err, progress.ErrUnavailable)
	require.ErrorContains(t, err, "the stream was removed")
	_, err = l.tail("r")
	require.ErrorContains(t, err, "the stream was removed")
	for _, err := range l.Open(t.Context(), 0) {
		require.ErrorIs(t, err, progress.ErrUnavailable)
		return
	}
	require.Fail(t, "Open yields no error")
}
