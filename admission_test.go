package streamer_test

import (
	"context"
	"fmt"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/pay-theory/streamer/v2"
	"github.com/pay-theory/streamer/v2/progress"
	"github.com/pay-theory/streamer/v2/progress/memlog"
	"github.com/pay-theory/streamer/v2/queue"
	"github.com/pay-theory/streamer/v2/queue/memqueue"
)

// seconds is a handler that takes so many.
func seconds(n int) streamer.HandlerFunc {
	return doing(func(context.Context, streamer.Reporter) (*streamer.Result, error) {
		time.Sleep(time.Duration(n) * time.Second)
		return ok(n)
	})
}

func TestRequestWithoutRoomInTheQueueIsRefusedAndLeavesNothing(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		log := memlog.New()
		defer log.Close()
		s := serve(t, func(m *streamer.Mux) { m.Handle("x", seconds(10)) },
			streamer.WithLog(log), streamer.WithQueue(memqueue.New(memqueue.WithMaxTickets(2))), streamer.WithConcurrency(1))
		defer s.stop()
		s.submit("x", "r1", ``)
		s.submit("x", "r2", ``)
		err := s.refused(alice, request("x", "r3", ``))
		requireUnavailable(t, err)
		require.Positive(t, err.RetryAfter)
		require.True(t, s.submit("x", "r2", ``).Duplicate, "what is there is attached to")

		time.Sleep(time.Second)
		_, gone := s.Attach(t.Context(), alice, "r3")
		require.Equal(t, streamer.ErrCodeNotFound, code(t, gone))
		s.end("r2")
		synctest.Wait()
		require.False(t, s.submit("x", "r3", ``).Duplicate, "the id is free again")
		require.Equal(t, "accepted started completed", kinds(s.events("r3")))
		require.EqualValues(t, 3, s.Stats().Started)
	})
}

func TestScopeWithTooManyRequestsIsRefusedAloneAndToldSo(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := serve(t, func(m *streamer.Mux) { m.Handle("x", seconds(10)) },
			streamer.WithQueue(memqueue.New(memqueue.WithMaxPerScope(2))), streamer.WithConcurrency(1))
		defer s.stop()
		s.submit("x", "r1", ``)
		s.submit("x", "r2", ``)
		err := s.refused(alice, request("x", "r3", ``))
		require.Equal(t, streamer.ErrCodeRateLimited, err.Code)
		require.Positive(t, err.RetryAfter)
		_, other := s.Submit(t.Context(), bob, request("x", "r3", ``))
		require.NoError(t, other)
		s.end("r1")
		synctest.Wait()
		s.submit("x", "r3", ``)
	})
}

func TestRequestWhoseTicketIsTooLargeShutsNobodyElseOut(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := serve(t, func(m *streamer.Mux) { m.Handle("x", returns(1)) }, streamer.WithQueue(memqueue.New(memqueue.WithMaxBytes(400))))
		defer s.stop()
		err := s.refused(alice, request("x", strings.Repeat("r", 128), ``))
		require.Equal(t, streamer.ErrCodePayloadTooLarge, err.Code)
		require.Equal(t, progress.Completed, s.ends("x", "r1", ``).Kind)
	})
}

// writes counts the appends to a log.
type writes struct {
	*memlog.Log
	n atomic.Int64
}

func (l *writes) Append(ctx context.Context, key progress.Key, prev string, rec *progress.Record) error {
	l.n.Add(1)
	return l.Log.Append(ctx, key, prev, rec)
}

func TestRefusalsCostTheLogNextToNothing(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		log := &writes{Log: memlog.New()}
		defer log.Close()
		s := gateway(t, func(m *streamer.Mux) { m.Handle("x", seconds(1)) },
			streamer.WithLog(log), streamer.WithQueue(memqueue.New(memqueue.WithMaxTickets(10), memqueue.WithMaxPerScope(2))))
		for i := range 1000 {
			who := streamer.Identity{Tenant: "acme", User: fmt.Sprint(i % 3)}
			_, err := s.Submit(t.Context(), who, request("x", "", ``))
			require.Equal(t, i < 6, err == nil)
		}
		require.EqualValues(t, 6+3*2, log.n.Load(), "each scope is refused by the queue once")
		time.Sleep(time.Second)
		_, err := s.Submit(t.Context(), bob, request("x", "", ``))
		require.NoError(t, err, "a gate opens again")
	})
}

// busy counts what is received and handed back.
type busy struct {
	*memqueue.Queue
	received atomic.Int64
}

func (q *busy) Receive(ctx context.Context, limit int) ([]queue.Delivery, error) {
	ds, err := q.Queue.Receive(ctx, limit)
	q.received.Add(int64(len(ds)))
	return ds, err
}

func TestTenantHasNoMoreThanItsShareOfTheWorkers(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		q := &busy{Queue: memqueue.New()}
		s := serve(t, func(m *streamer.Mux) { m.Handle("x", seconds(10)) },
			streamer.WithQueue(q), streamer.WithLocalLog(), streamer.WithConcurrency(64), streamer.WithTenantConcurrency(2))
		defer s.stop()
		evil := streamer.Identity{Tenant: "evil"}
		for i := range 1000 {
			_, err := s.Submit(t.Context(), evil, request("x", fmt.Sprint(i), ``))
			require.NoError(t, err)
		}
		synctest.Wait()
		require.Equal(t, 2, s.Stats().Running)
		began := time.Now()
		for i := range 2 {
			s.submit("x", fmt.Sprint(i), ``)
		}
		for i := range 2 {
			s.end(fmt.Sprint(i))
		}
		require.Less(t, time.Since(began), 11*time.Second, "its tickets hold up nobody else's")
		before := q.received.Load()
		time.Sleep(20 * time.Second)
		require.EqualValues(t, 6+2, s.Stats().Completed, "both its places are kept busy")
		require.Less(t, q.received.Load()-before, int64(20*110), "its tickets do not go round in a hot loop: 8 each 80 ms")
	})
}

func TestFirstRequestOfATenantWaitsForWhatRunsAndNothingElse(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := serve(t, func(m *streamer.Mux) { m.Handle("x", seconds(1)) }, streamer.WithConcurrency(1))
		defer s.stop()
		evil := streamer.Identity{Tenant: "evil"}
		for range 10_000 {
			_, err := s.Submit(t.Context(), evil, request("x", "", ``))
			require.NoError(t, err)
		}
		time.Sleep(500 * time.Millisecond)
		began := time.Now()
		s.ends("x", "r1", ``)
		require.LessOrEqual(t, time.Since(began), 2500*time.Millisecond, "what runs, the one that is next, and its own second")
	})
}

func TestStatsTellHowTheQueueStands(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := serve(t, func(m *streamer.Mux) { m.Handle("x", seconds(60)) }, streamer.WithConcurrency(2))
		for range 10 {
			s.submit("x", "", ``)
		}
		time.Sleep(30 * time.Second)
		d := s.Stats().Queue
		require.Equal(t, queue.Depth{Ready: 8, Leased: 2, Oldest: d.Oldest}, d)
		require.InDelta(t, 30, d.Oldest.Seconds(), 7)
		s.stop()
		require.Zero(t, s.Stats().Queue, "who does not work does not know")
	})
}
