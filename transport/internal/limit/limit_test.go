package limit

import (
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

func TestABucketLetsThroughItsBurstAndThenItsRate(t *testing.T) {
	var b Bucket
	now := time.Now()
	for range 5 {
		_, ok := b.Take(now, 10, 5)
		require.True(t, ok)
	}
	wait, ok := b.Take(now, 10, 5)
	require.False(t, ok)
	require.InDelta(t, 100*time.Millisecond, wait, float64(time.Millisecond))

	_, ok = b.Take(now.Add(wait/2), 10, 5)
	require.False(t, ok)
	_, ok = b.Take(now.Add(wait+time.Microsecond), 10, 5)
	require.True(t, ok)

	passed := 0
	for i := range 1000 { // ten seconds
		if _, ok := b.Take(now.Add(time.Second+time.Duration(i)*10*time.Millisecond), 10, 5); ok {
			passed++
		}
	}
	require.InDelta(t, 105, passed, 2)

	_, ok = b.Take(now.Add(time.Hour), 10, 5)
	require.True(t, ok)
}

func TestAGateCountsByKey(t *testing.T) {
	var g Gate[string]
	require.True(t, g.Enter("a", 2))
	require.True(t, g.Enter("a", 2))
	require.False(t, g.Enter("a", 2))
	require.True(t, g.Enter("b", 2))
	g.Leave("a")
	require.True(t, g.Enter("a", 2))
	g.Leave("a")
	g.Leave("a")
	g.Leave("b")
	require.Empty(t, g.inside)
}

func TestRatesAreKeptPerKeyAndForgottenAtRest(t *testing.T) {
	var r Rates[int]
	now := time.Now()
	for key := range 10 * fewBuckets {
		now = now.Add(time.Millisecond)
		_, ok := r.Take(key, now, 10, 1)
		require.True(t, ok)
		_, ok = r.Take(key, now, 10, 1)
		require.False(t, ok)
		require.LessOrEqual(t, len(r.buckets), fewBuckets)
	}
	_, ok := r.Take(10*fewBuckets-1, now, 10, 1)
	require.False(t, ok, "one that is not at rest was forgotten")
}
