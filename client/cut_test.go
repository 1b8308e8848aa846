package client_test

import (
	"fmt"
	"math/rand/v2"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/pay-theory/streamer/v2/client"
	"github.com/pay-theory/streamer/v2/internal/cutproxy"
	"github.com/pay-theory/streamer/v2/progress"
)

// TestTheExactSequenceWhereverTheConnectionIsCut cuts at every byte in either direction.
func TestTheExactSequenceWhereverTheConnectionIsCut(t *testing.T) {
	cut := func(t *testing.T, plans cutproxy.Plans) (dials int) {
		t.Helper()
		synctest.Test(t, func(t *testing.T) {
			s := newServer(t)
			s.plans = func(n int) cutproxy.Plan {
				dials = n + 1
				return plans(n)
			}
			c := s.client()
			r, err := c.Submit(t.Context(), "long", map[string]string{"a": "b"}, client.WithID("r1"))
			require.NoError(t, err)
			driven := make(chan struct{})
			go func() {
				defer close(driven)
				s.start("r1")
				for i := range 6 {
					s.outputs("r1", i, i+1)
					s.report("r1", float64(i), "")
					time.Sleep(time.Duration(rand.N(300)) * time.Millisecond)
				}
				s.complete("r1", `{"n":6}`)
			}()
			var got []string
			percentage := -1.0
			for e, err := range r.Events(t.Context()) {
				require.NoError(t, err)
				switch e.Kind {
				case client.Progressed:
					require.Greater(t, e.Progress.Percentage, percentage)
					percentage = e.Progress.Percentage
				case progress.Output:
					got = append(got, fmt.Sprintf("%d:%d=%s", e.Seq, e.Index, e.Data))
				default:
					got = append(got, fmt.Sprintf("%d:%s%s", e.Seq, e.Kind, e.Data))
				}
			}
			require.Equal(t, []string{
				"1:accepted", "2:started", "3:0=0", "4:1=1", "5:2=2", "6:3=3", "7:4=4", "8:5=5", `9:completed{"n":6}`,
			}, got)
			require.Equal(t, 5.0, percentage)
			<-driven
		})
		return dials
	}
	for name, tc := range map[string]struct {
		step int
		plan func(n int) cutproxy.Plan
	}{
		"to client":        {1, func(n int) cutproxy.Plan { return cutproxy.Plan{ToClient: n} }},
		"to server":        {1, func(n int) cutproxy.Plan { return cutproxy.Plan{ToServer: n} }},
		"to client silent": {7, func(n int) cutproxy.Plan { return cutproxy.Plan{ToClient: n, Silent: true} }},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			cuts := 0
			for at := 1; ; at += tc.step {
				dials := cut(t, func(n int) cutproxy.Plan {
					if n > 0 {
						return cutproxy.Plan{}
					}
					return tc.plan(at)
				})
				if dials < 2 {
					break // behind the last byte
				}
				cuts++
			}
			require.Greater(t, cuts, 300)
			t.Logf("cut at %d bytes", cuts)
		})
	}
	t.Run("every connection", func(t *testing.T) {
		t.Parallel()
		cut(t, func(n int) cutproxy.Plan { return cutproxy.Plan{ToClient: 620 + 7*n} })
	})
}
