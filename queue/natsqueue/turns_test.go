package natsqueue

import (
	"math/rand/v2"
	"strconv"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

func TestLanesTakeTurns(t *testing.T) {
	t.Parallel()
	turns := newTurns(8)
	now := time.Now()
	for range 100 {
		turns.wake(3, now)
	}
	for range 5 {
		turns.wake(5, now)
	}
	for _, want := range []int{3, 5, 3, 5, 3} {
		u, ok := turns.take(1, now)
		require.True(t, ok)
		require.Equal(t, want, u.lane)
		require.Equal(t, 1, u.n)
	}
	u, _ := turns.take(32, now)
	require.Equal(t, 16, u.n, "two lanes share what is free")
}

func TestALaneLeavesTheLineWhenItSeemsEmpty(t *testing.T) {
	t.Parallel()
	now := time.Now()
	for _, c := range []struct {
		name    string
		wakes   int // while the pull is on its way
		outcome outcome
		seem    int
	}{
		{"there was none", 0, outcome{empty: true}, 0},
		{"there was none, then one came", 1, outcome{empty: true}, 1},
		{"it was the last", 0, outcome{}, 0},
		{"it was not the last", 0, outcome{pending: 7}, 7},
		{"it was the last, then one came", 1, outcome{}, 1},
		{"it came back, so others may have", 0, outcome{back: true}, 1},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			turns := newTurns(1)
			turns.wake(0, now)
			u, ok := turns.take(1, now)
			require.True(t, ok)
			for range c.wakes {
				turns.wake(0, now)
			}
			turns.settle(u, c.outcome)
			require.Equal(t, c.seem, turns.lanes[0].seem)
			_, ok = turns.take(1, now)
			require.Equal(t, c.seem > 0, ok)
		})
	}
}

func TestOneWaiterIsSignaledForOneTicket(t *testing.T) {
	t.Parallel()
	turns := newTurns(4)
	first, second := turns.wait(), turns.wait()
	turns.wake(2, time.Now())
	<-first.signal
	select {
	case <-second.signal:
		require.Fail(t, "both were signaled")
	default:
	}
	turns.leave(first)
	turns.pass()
	<-second.signal
}

func TestAShutLaneComesBackWhenItIsDue(t *testing.T) {
	t.Parallel()
	turns := newTurns(4)
	now := time.Now()
	turns.look = now.Add(time.Hour)
	turns.wake(2, now)
	u, _ := turns.take(1, now)
	turns.shut(u, now.Add(time.Second))
	turns.wake(2, now)
	_, ok := turns.take(1, now)
	require.False(t, ok)
	require.Equal(t, time.Second, turns.next(now))
	u, ok = turns.take(1, now.Add(time.Second))
	require.True(t, ok)
	require.Equal(t, 2, u.lane)
}

func TestTheLineHasEachLaneThatSeemsToHoldTicketsOnce(t *testing.T) {
	t.Parallel()
	turns := newTurns(5)
	now := time.Now()
	var open []turn
	for range 20_000 {
		switch rand.IntN(4) {
		case 0:
			turns.wake(rand.IntN(5), now)
		case 1:
			if u, ok := turns.take(1+rand.IntN(3), now); ok {
				open = append(open, u)
			}
		case 2:
			if len(open) > 0 {
				turns.settle(open[0], outcome{empty: rand.IntN(2) == 0, back: rand.IntN(2) == 0, pending: rand.IntN(3)})
				open = open[1:]
			}
		default:
			turns.found(map[int]int{rand.IntN(5): rand.IntN(4)})
		}
		places := map[int]int{}
		for _, lane := range turns.line {
			places[lane]++
		}
		for lane, l := range turns.lanes {
			want := 0
			if l.seem > 0 {
				want = 1
			}
			require.Equal(t, want, places[lane])
		}
	}
}

func TestVersionsAreComparedAsNumbers(t *testing.T) {
	t.Parallel()
	for v, want := range map[string]bool{
		"2.12.2": true, "2.9.30": true, "1.99.99": true, "2.12": true, "": true,
		"2.12.3": false, "2.12.3-RC.1": false, "2.12.10": false, "2.13.0": false, "3.0.0-beta": false,
	} {
		require.Equal(t, want, older(v, oldest), "version %q", v)
	}
}

func TestAGroupStaysOnItsLane(t *testing.T) {
	t.Parallel()
	require.Equal(t, []int{5, 37, 39}, []int{laneOf("", 64), laneOf("tenant", 64), laneOf("日本語", 64)})
	used := map[int]bool{}
	for i := range 1000 {
		used[laneOf("tenant-"+strconv.Itoa(i), 64)] = true
	}
	require.Len(t, used, 64)
}
