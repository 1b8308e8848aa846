package natslog_test

import (
	"context"
	"sync/atomic"
	"testing"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/stretchr/testify/require"

	"github.com/pay-theory/streamer/v2/internal/natstest"
	"github.com/pay-theory/streamer/v2/progress"
)

func TestACursorBeyondWhatMemoryKnowsIsLookedUpAtTheServer(t *testing.T) {
	srv := natstest.Start(t, nil)
	writer, l := newLog(t, srv.URL()), newLog(t, srv.URL())
	var deaf atomic.Bool
	l.Lose(func(*nats.Msg) bool { return deaf.Load() })
	changed := make(chan string, 100)
	stop, err := l.Watch(t.Context(), key("r"), func(record string) { changed <- record })
	require.NoError(t, err)
	defer stop()
	state := writer.start("r")
	for <-changed != state.Record {
	}
	deaf.Store(true) // as when the server it is connected to hangs
	state = writer.must("r", state, output(10), output(10))
	page, err := l.Read(t.Context(), key("r"), state.Last, 10)
	require.NoError(t, err)
	require.Equal(t, state.Last, page.State.Last, "a viewer that has seen more elsewhere is not ahead")
}

func TestEventsAreShownWhileProgressCanNotBeRead(t *testing.T) {
	srv := natstest.Start(t, nil)
	writer, l := newLog(t, srv.URL()), newLog(t, srv.URL())
	state := writer.start("r")
	require.NoError(t, writer.SetProgress(t.Context(), key("r"), &progress.Progress{Attempt: 1, Rev: 1, Beat: 1}))
	require.NoError(t, connect(t, srv.URL()).DeleteStream(t.Context(), "STREAMER_PROGRESS"))
	for range 3 {
		ctx, cancel := context.WithTimeout(t.Context(), 2*time.Second)
		page, err := l.Read(ctx, key("r"), 0, 10)
		cancel()
		require.NoError(t, err)
		require.Len(t, page.Events, int(state.Last))
	}
}
