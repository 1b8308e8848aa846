package client_test

import (
	"context"
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"runtime"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/coder/websocket"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/pay-theory/streamer/v2/client"
	"github.com/pay-theory/streamer/v2/internal/cutproxy"
	"github.com/pay-theory/streamer/v2/internal/wire"
	"github.com/pay-theory/streamer/v2/progress"
)

// TestEveryIterationIsExactWhateverHappens has many iterations over a few requests, fast and
// slow, early and late, some broken off, with little memory, while connections are cut, closed
// and moved at random, and holds each to every event once and in order.
func TestEveryIterationIsExactWhateverHappens(t *testing.T) {
	t.Parallel()
	var cuts, rereads, moves atomic.Int64
	seed := rand.Uint64()
	t.Logf("seed %d", seed)
	for round := range 40 {
		synctest.Test(t, func(t *testing.T) {
			random := rand.New(rand.NewPCG(seed, uint64(round)))
			var mu sync.Mutex
			chance := func(n int) int {
				mu.Lock()
				defer mu.Unlock()
				return random.IntN(n)
			}
			s := newServer(t)
			s.plans = func(int) cutproxy.Plan {
				if chance(2) == 0 {
					return cutproxy.Plan{}
				}
				return cutproxy.Plan{ToClient: 500 + chance(20_000)}
			}
			c := s.client(client.WithLimits(client.Limits{Buffer: 1 + chance(8<<10)}))
			ctx, cancel := context.WithTimeout(t.Context(), time.Hour)
			defer cancel()

			const requests = 3
			counts := make([]int, requests)
			var wg sync.WaitGroup
			for i := range requests {
				id := fmt.Sprint("r", i)
				counts[i] = chance(80)
				r, err := c.Submit(ctx, "long", nil, client.WithID(id))
				require.NoError(t, err)
				want := uint64(counts[i] + 3)
				wg.Go(func() { // the handler
					s.start(id)
					for k := range counts[i] {
						data := `"` + strings.Repeat("x", chance(1000)) + `"`
						s.append(id, &progress.Event{Kind: progress.Output, Index: k, Data: json.RawMessage(data)})
						time.Sleep(time.Duration(chance(100)) * time.Millisecond)
					}
					s.complete(id, `1`)
				})
				for range 4 {
					wg.Go(func() {
						time.Sleep(time.Duration(chance(5000)) * time.Millisecond)
						slow := time.Duration(chance(3)*chance(200)) * time.Millisecond
						handle, next := r, uint64(1)
						if chance(3) == 0 {
							next = 1 + uint64(chance(3))
							h, err := c.Attach(ctx, id, client.After("", next-1))
							if !assert.NoError(t, err) {
								return
							}
							defer h.Detach()
							handle = h
						}
						stop := uint64(0)
						if chance(4) == 0 {
							stop = next + uint64(chance(50))
						}
						for e, err := range handle.Events(ctx) {
							if !assert.NoError(t, err) {
								return
							}
							if e.Kind == client.Progressed {
								continue
							}
							if !assert.Equal(t, next, e.Seq, "%s", e.Kind) {
								return
							}
							if next++; next == stop {
								return
							}
							time.Sleep(slow)
						}
						assert.Equal(t, want+1, next)
					})
				}
				wg.Go(func() {
					time.Sleep(time.Duration(chance(5000)) * time.Millisecond)
					_, err := r.Wait(ctx)
					assert.NoError(t, err)
				})
			}
			done := make(chan struct{})
			go func() {
				defer close(done)
				wg.Wait()
			}()
			for ended := false; !ended; {
				select {
				case <-done:
					ended = true
				case <-time.After(time.Duration(chance(2000)) * time.Millisecond):
					switch chance(4) {
					case 0:
						s.drop()
						cuts.Add(1)
					case 1:
						s.close(websocket.StatusCode([]int{1000, 1001, 1011, 4408}[chance(4)]), "")
					case 2:
						s.broadcast(&wire.Outbound{Type: wire.TypeGoaway, ReconnectInMS: int64(chance(1000))})
						moves.Add(1)
					}
				}
			}
			rereads.Add(int64(len(s.got(wire.TypeAttach))))
			if t.Failed() {
				t.Logf("round %d", round)
			}
		})
	}
	require.Greater(t, cuts.Load(), int64(10))
	require.Greater(t, moves.Load(), int64(10))
	require.Greater(t, rereads.Load(), int64(100))
}

func TestAClientHasNoGoroutinesItDoesNotNeed(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		goroutines := func() int {
			synctest.Wait()
			stacks := make([]byte, 1<<20)
			stacks = stacks[:runtime.Stack(stacks, true)]
			n := 0
			for stack := range strings.SplitSeq(string(stacks), "\n\n") {
				if strings.Contains(stack, "streamer/v2/client.(") {
					n++
				}
			}
			return n
		}
		s := newServer(t)
		c := s.client()
		require.Zero(t, goroutines())
		_, err := c.Request(t.Context(), "echo", nil)
		require.NoError(t, err)
		require.Equal(t, 1, goroutines(), "reads the open connection")
		r, err := c.Submit(t.Context(), "long", nil, client.WithID("r1"))
		require.NoError(t, err)
		require.Equal(t, 1, goroutines())
		s.complete("r1", `1`)
		_, err = r.Wait(t.Context())
		require.NoError(t, err)
		s.drop()
		require.Zero(t, goroutines())
	})
}
