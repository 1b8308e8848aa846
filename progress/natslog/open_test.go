package natslog_test

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/pay-theory/streamer/v2/internal/natstest"
	"github.com/pay-theory/streamer/v2/progress"
	"github.com/pay-theory/streamer/v2/progress/logtest"
)

func TestOpenReadsTheStreamOnce(t *testing.T) {
	url := natstest.Start(t, nil).URL()
	writer, l := newLog(t, url), newLog(t, url)
	for i := range 1500 {
		rec := logtest.Next(progress.State{}, accepted(), event(progress.Started), output(10), event(progress.Completed))
		require.NoError(t, writer.Append(t.Context(), key(fmt.Sprint("ended-", i)), "", rec))
	}
	writer.start("a")
	b := writer.start("b")
	require.Equal(t, []string{"a", "b"}, l.idle(0))
	scanned := l.Stats().Scanned
	require.EqualValues(t, 1504, scanned)
	for range 5 {
		require.Equal(t, []string{"a", "b"}, l.idle(0))
	}
	require.Equal(t, scanned, l.Stats().Scanned, "nothing is new")
	writer.end("b", b, time.Hour)
	writer.start("c")
	require.Equal(t, []string{"a", "c"}, l.idle(0))
	require.Equal(t, scanned+3, l.Stats().Scanned)
	require.Equal(t, 2, l.Stats().Open)
}

func TestOpenDoesNotReadWhatIsTooYoung(t *testing.T) {
	url := natstest.Start(t, nil).URL()
	l := newLog(t, url)
	for i := range 100 {
		l.start(fmt.Sprint("r-", i))
	}
	require.Empty(t, l.idle(time.Hour))
	require.LessOrEqual(t, l.Stats().Scanned, uint64(1))
	eventually(t, func() bool { return len(l.idle(100*time.Millisecond)) == 100 }, "they are found when they are idle")
}

func TestOpenTellsHowLongByTheStore(t *testing.T) {
	url := natstest.Start(t, nil).URL()
	writer, l := newLog(t, url), newLog(t, url)
	begun := time.Now()
	writer.start("queued")
	writer.start("working")
	eventually(t, func() bool { return len(l.idle(300*time.Millisecond)) == 2 }, "both are idle")
	require.NoError(t, writer.SetProgress(t.Context(), key("working"), &progress.Progress{Attempt: 1, Rev: 1, Beat: 7}))
	found := map[string]progress.Pending{}
	for p, err := range l.Open(t.Context(), 0) {
		require.NoError(t, err)
		found[p.Key.ID] = p
	}
	require.EqualValues(t, 7, found["working"].Beat)
	require.Less(t, found["working"].Idle, 200*time.Millisecond, "a sign of life is a change")
	require.GreaterOrEqual(t, found["queued"].Idle, 300*time.Millisecond)
	require.LessOrEqual(t, found["queued"].Idle, time.Since(begun))
	require.Equal(t, []string{"queued"}, l.idle(300*time.Millisecond))
}

func TestOpenYieldsLongKeys(t *testing.T) {
	url := natstest.Start(t, nil).URL()
	writer, l := newLog(t, url), newLog(t, url)
	var keys []progress.Key
	for i := range 70 {
		keys = append(keys, progress.Key{Scope: strings.Repeat("s.", 500), ID: fmt.Sprint(strings.Repeat("é", 200), i+100)})
		require.NoError(t, writer.Append(t.Context(), keys[i], "", logtest.Next(progress.State{}, accepted())))
	}
	var got []progress.Key
	for p, err := range l.Open(t.Context(), 0) {
		require.NoError(t, err)
		got = append(got, p.Key)
	}
	require.ElementsMatch(t, keys, got)
}

func TestOpenForgetsLogsThatAreGone(t *testing.T) {
	url := natstest.Start(t, nil).URL()
	l := newLog(t, url)
	l.start("purged")
	l.start("kept")
	require.Len(t, l.idle(0), 2)
	remove(t, l.js, 1, 2)
	require.Equal(t, []string{"kept"}, l.idle(0))
	require.Equal(t, 1, l.Stats().Open)
	l.start("purged")
	ids := l.idle(0)
	slices.Sort(ids)
	require.Equal(t, []string{"kept", "purged"}, ids)
}
