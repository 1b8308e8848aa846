package load

import (
	"context"
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/pay-theory/streamer/v2/test/crash/history"
)

func TestTheSameSeedMakesTheSameRequests(t *testing.T) {
	make := func(seed uint64) (all []string) {
		for n := range 200 {
			p := draw(rand.New(rand.NewPCG(seed, uint64(n))), fmt.Sprint(n), "acme", "alice", true)
			all = append(all, fmt.Sprintf("%+v", p))
		}
		return all
	}
	require.Equal(t, make(1), make(1))
	require.NotEqual(t, make(1), make(2))
}

func TestWhatMayEndAProcessIsLeftOutWhereThatLosesAll(t *testing.T) {
	for n := range uint64(2000) {
		require.NotEqual(t, "crash", draw(rand.New(rand.NewPCG(n, 1)), "r", "acme", "alice", false).Action)
	}
}

func TestAnotherBodyMeansTheSame(t *testing.T) {
	for n := range uint64(500) {
		p := draw(rand.New(rand.NewPCG(n, 1)), "r", "acme", "alice", true)
		other := p.other()
		require.NotEqual(t, string(p.Payload), string(other))
		if len(p.Payload) > 0 {
			require.JSONEq(t, string(p.Payload), string(other))
		}
		kept, err := json.Marshal(other)
		require.NoError(t, err)
		require.Equal(t, string(other), string(kept), "encoding must not undo it")
	}
}

func TestTheJournalTellsWhatRanAndWhatRunsTooLate(t *testing.T) {
	name := filepath.Join(t.TempDir(), "journal")
	f, err := os.Create(name)
	require.NoError(t, err)
	defer f.Close()
	note := func(event, id string, attempt, pid int) {
		_, err := fmt.Fprintf(f, `{"time":%q,"event":%q,"id":%q,"attempt":%d,"pid":%d}`+"\n", time.Now().Format(time.RFC3339Nano), event, id, attempt, pid)
		require.NoError(t, err)
	}
	var alive atomic.Bool
	alive.Store(true)
	j := NewJournal(func(pid int) bool { return pid == 2 && alive.Load() })
	ctx, stop := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- j.Follow(ctx, name) }()

	note("start", "r", 1, 1) // a process that is gone
	note("start", "r", 2, 2)
	time.AfterFunc(400*time.Millisecond, func() { note("end", "r", 2, 2) })
	runs := j.Settle(ctx, "r", true)
	require.Len(t, runs, 2)
	require.Zero(t, runs[0].End)
	require.NotZero(t, runs[1].End, "a handler that still runs is waited for")

	note("start", "s", 1, 2)
	time.AfterFunc(200*time.Millisecond, func() { alive.Store(false) })
	require.Len(t, j.Settle(ctx, "s", true), 1, "unless its process has ended")

	note("start", "r", 3, 2)
	require.Eventually(t, func() bool {
		calls, late := j.Calls()
		return calls == 4 && len(late) == 1 && late[0].ID == "r" && late[0].Attempt == 3
	}, 5*time.Second, time.Millisecond)
	stop()
	require.NoError(t, <-done)
}

func TestAHopelessRequestIsLeftToItsFate(t *testing.T) {
	for n := range uint64(500) {
		p := draw(rand.New(rand.NewPCG(n, 1)), "r", "acme", "alice", true)
		p.despair()
		require.Equal(t, "crash", p.Action)
		require.Equal(t, history.Expect{Attempt: true}, p.Expect)
		require.Empty(t, p.cancels)
	}
}
