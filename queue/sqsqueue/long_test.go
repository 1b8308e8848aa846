package sqsqueue_test

import (
	"context"
	"encoding/json"
	"log/slog"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/pay-theory/streamer/v2"
	"github.com/pay-theory/streamer/v2/progress"
	"github.com/pay-theory/streamer/v2/progress/memlog"
	"github.com/pay-theory/streamer/v2/queue"
	"github.com/pay-theory/streamer/v2/queue/sqsqueue"
)

// mortal is a queue whose process can die: what it has delivered is extended no more, and it
// delivers nothing. The process dies with the context.
type mortal struct {
	queue.Queue
	life context.Context
}

type mortalDelivery struct {
	queue.Delivery
	queue *mortal
}

func (m *mortal) Receive(ctx context.Context, most int) ([]queue.Delivery, error) {
	alive, cancel := context.WithCancel(ctx)
	defer cancel()
	defer context.AfterFunc(m.life, cancel)()
	ds, err := m.Queue.Receive(alive, most)
	if m.life.Err() != nil {
		<-ctx.Done()
		return nil, ctx.Err()
	}
	for i := range ds {
		ds[i] = mortalDelivery{ds[i], m}
	}
	return ds, err
}

func (d mortalDelivery) Extend(ctx context.Context) error {
	if d.queue.life.Err() != nil {
		return queue.ErrLeaseLost
	}
	return d.Delivery.Extend(ctx)
}

// worker is a router that runs on a queue, with an action that takes so many hours.
func worker(t *testing.T, q queue.Queue, log progress.Log, ran *atomic.Int64) *streamer.Mux {
	t.Helper()
	router := streamer.NewRouter(streamer.WithQueue(q), streamer.WithLog(log), streamer.WithLocalLog(), streamer.WithLogger(slog.New(slog.DiscardHandler)))
	router.Handle("long", streamer.HandlerFunc(func(ctx context.Context, req *streamer.Request, _ streamer.Reporter) (*streamer.Result, error) {
		ran.Add(1)
		var hours time.Duration
		if err := json.Unmarshal(req.Payload, &hours); err != nil {
			return nil, err
		}
		select {
		case <-time.After(hours * time.Hour):
			return &streamer.Result{Success: true}, nil
		case <-ctx.Done():
			return nil, context.Cause(ctx)
		}
	}))
	done := make(chan error, 1)
	go func() { done <- router.Run(t.Context()) }()
	t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.WithoutCancel(t.Context()), time.Minute)
		defer cancel()
		require.NoError(t, router.Shutdown(ctx))
		require.NoError(t, <-done)
	})
	return router
}

// submit asks for work of so many hours and returns its viewer.
func submit(t *testing.T, router *streamer.Mux, hours int) *streamer.Viewer {
	t.Helper()
	who := streamer.Identity{Tenant: "acme"}
	payload, err := json.Marshal(hours)
	require.NoError(t, err)
	_, err = router.Submit(t.Context(), who, &streamer.Request{ID: "r", Action: "long", Payload: payload})
	require.NoError(t, err)
	v, err := router.Attach(t.Context(), who, "r")
	require.NoError(t, err)
	return v
}

// end waits for the request's end, and returns it.
func end(t *testing.T, v *streamer.Viewer) *progress.Event {
	t.Helper()
	var last *progress.Event
	for e, err := range v.Events(t.Context(), 0) {
		require.NoError(t, err)
		last = e
	}
	require.NotNil(t, last)
	return last
}

func TestWorkOfTwentyHoursIsOneAttemptThoughSQSLeasesForTwelve(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d, q := doubledQueue(t)
		log := memlog.New()
		t.Cleanup(func() { require.NoError(t, log.Close()) })
		var ran atomic.Int64
		router := worker(t, q, log, &ran)
		worker(t, open(t, d, doubledURL), log, &ran)
		begin := time.Now()
		last := end(t, submit(t, router, 20))
		require.Equal(t, progress.Completed, last.Kind)
		require.Equal(t, 1, last.Attempt)
		require.Equal(t, int64(1), ran.Load())
		require.Less(t, time.Since(begin), 20*time.Hour+time.Minute)
		require.Empty(t, d.bodies(doubledURL))
	})
}

func TestAWorkerThatDiesBeyondTheTwelveHoursIsReplacedBySweep(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const lease = 30 * time.Second
		d, q := doubledQueue(t, sqsqueue.WithLease(lease))
		log := memlog.New()
		t.Cleanup(func() { require.NoError(t, log.Close()) })
		var first, second atomic.Int64
		life, die := context.WithCancel(t.Context())
		defer die()
		v := submit(t, worker(t, &mortal{Queue: q, life: life}, log, &first), 15)
		time.Sleep(14 * time.Hour)
		require.Equal(t, int64(1), first.Load())
		require.Empty(t, d.bodies(doubledURL))

		died := time.Now()
		die()
		worker(t, open(t, d, doubledURL), log, &second)
		for e, err := range v.Events(t.Context(), 0) {
			require.NoError(t, err)
			if e.Kind == progress.Started && e.Attempt == 2 {
				break
			}
		}
		require.Less(t, time.Since(died), 10*lease)
		last := end(t, v)
		require.Equal(t, progress.Completed, last.Kind)
		require.Equal(t, 2, last.Attempt)
		require.Equal(t, int64(1), second.Load())
	})
}
