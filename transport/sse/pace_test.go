package sse_test

import (
	"net/http"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"
)

// deadlines watches how the writes of a stream are bounded in time.
type deadlines struct {
	http.ResponseWriter

	mu    sync.Mutex
	until time.Time
	sets  int
	least time.Duration // that was left when a write began
}

func (d *deadlines) Unwrap() http.ResponseWriter { return d.ResponseWriter }

func (d *deadlines) SetWriteDeadline(t time.Time) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.until = t
	d.sets++
	return http.NewResponseController(d.ResponseWriter).SetWriteDeadline(t)
}

func (d *deadlines) Write(b []byte) (int, error) {
	d.mu.Lock()
	d.least = min(d.least, time.Until(d.until))
	d.mu.Unlock()
	return d.ResponseWriter.Write(b)
}

func TestEachWriteHasItsTimeThoughDeadlinesAreSetSeldom(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		seen := &deadlines{least: time.Hour}
		s := setup{wrap: func(h http.Handler) http.Handler {
			return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				seen.ResponseWriter = w
				h.ServeHTTP(seen, r)
			})
		}}.start(t)
		s.submits("r1")
		st := s.stream("/requests/r1/events")
		st.expect("attached", "r1")
		st.expect("status", "r1")
		st.expect("status", "r1")
		for i := range 1000 { // 20 s: twice the time that a write may take
			s.puts("r1", i)
			st.expect("output", "r1")
			time.Sleep(20 * time.Millisecond)
		}
		time.Sleep(12 * time.Second) // the deadline passes while nothing is written
		s.puts("r1", "late")
		st.expect("output", "r1")
		s.finishes("r1")
		st.expect("complete", "r1")
		st.ends()
		seen.mu.Lock()
		defer seen.mu.Unlock()
		require.LessOrEqual(t, seen.sets, 30)
		require.GreaterOrEqual(t, seen.least, 8*time.Second, "of 10 s")
	})
}

func TestASignOfLifeComesWhenNothingElseHasCome(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := start(t)
		s.submits("r1")
		st := s.stream("/requests/r1/events")
		st.expect("attached", "r1")
		st.expect("status", "r1")
		st.expect("status", "r1")
		for range 3 {
			time.Sleep(10 * time.Second)
			s.puts("r1", 1)
			st.expect("output", "r1")
		}
		for range 3 {
			last := time.Now()
			st.expect("ping", "")
			require.Equal(t, 15*time.Second, time.Since(last))
		}
		s.finishes("r1")
		st.expect("complete", "r1")
		st.ends()
	})
}
