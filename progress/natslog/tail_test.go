package natslog

import (
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/pay-theory/streamer/v2/progress"
)

func put(c *tails, p string, seq uint64) {
	c.put(p, true, func(*tail) *tail { return &tail{seq: seq, state: progress.State{Epoch: "e"}} })
}

func TestWhatNobodyReadsIsForgottenThoughThereIsNews(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := newTails(1 << 20)
		put(c, "read", 1)
		put(c, "heard of", 1)
		time.Sleep(20 * time.Second)
		got, _ := c.get("read")
		require.EqualValues(t, 1, got.seq)
		put(c, "heard of", 2)
		time.Sleep(20 * time.Second)
		c.trim(time.Now().Add(-unused))
		require.NotNil(t, c.peek("read"))
		require.Nil(t, c.peek("heard of"))
		time.Sleep(20 * time.Second)
		c.trim(time.Now().Add(-unused))
		n, bytes := c.size()
		require.Zero(t, n)
		require.Zero(t, bytes)
	})
}

func TestTheCacheIsBoundedAndKeepsWhatIsNew(t *testing.T) {
	const one = 2048 // more than what a tail without events takes
	c := newTails(10 * one)
	for i := range 100 {
		put(c, string(rune('a'+i)), 1)
		_, bytes := c.size()
		require.LessOrEqual(t, bytes, 10*one)
		require.NotNil(t, c.peek(string(rune('a'+i))), "what was put last is kept")
	}
	for p := range c.paths {
		put(c, p, 2) // also where it is the one used longest ago
		require.NotNil(t, c.peek(p))
	}
	large := newTails(1)
	put(large, "a", 1)
	put(large, "b", 1)
	require.NotNil(t, large.peek("b"), "one that is too large alone is kept until the next")
	require.Nil(t, large.peek("a"))
}
