package natslog_test

import (
	"context"
	"encoding/json"
	"fmt"
	"runtime"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
	"github.com/stretchr/testify/require"

	"github.com/pay-theory/streamer/v2/internal/natstest"
	"github.com/pay-theory/streamer/v2/progress"
	"github.com/pay-theory/streamer/v2/progress/logtest"
	"github.com/pay-theory/streamer/v2/progress/natslog"
)

func event(kind progress.Kind) *progress.Event { return &progress.Event{Kind: kind} }

func output(size int) *progress.Event {
	return &progress.Event{Kind: progress.Output, Data: json.RawMessage(`"` + strings.Repeat("x", size-2) + `"`)}
}

func accepted() *progress.Event {
	return &progress.Event{Kind: progress.Accepted, Request: &progress.Request{
		Action: "export_data", Payload: json.RawMessage(`{"format":"csv","from":"2026-01-01"}`),
		Metadata: map[string]string{"user_id": "u1", "tenant_id": "t1"},
	}}
}

// server returns a server for benchmarks, and JetStream on a connection to it.
func benchServer(b *testing.B) (*natstest.Server, jetstream.JetStream) {
	srv := natstest.Start(b, nil)
	return srv, connect(b, srv.URL())
}

// request appends what a request with ten outputs, of which every second one is merged with
// the one before it, appends: 8 records.
func request(ctx context.Context, l progress.Log, id string) (progress.State, error) {
	key := progress.Key{Scope: "tenant/user", ID: id}
	var state progress.State
	put := func(events ...*progress.Event) error {
		rec := logtest.Next(state, events...)
		err := l.Append(ctx, key, state.Record, rec)
		state = rec.State
		return err
	}
	if err := put(accepted()); err != nil {
		return state, err
	}
	if err := put(event(progress.Started)); err != nil {
		return state, err
	}
	for range 5 {
		if err := put(output(100), output(100)); err != nil {
			return state, err
		}
	}
	return state, put(&progress.Event{Kind: progress.Completed, Success: true, Data: json.RawMessage(`"done"`)})
}

// Requests are compared with as many plain publishes of as many bytes, and with publishes that
// also expect the last sequence of their subject.
func BenchmarkRequest(b *testing.B) {
	for _, workers := range []int{1, 16} {
		for _, raw := range []string{"plain", "expecting"} {
			b.Run(fmt.Sprintf("%s-%d", raw, workers), func(b *testing.B) {
				_, js := benchServer(b)
				_, err := js.CreateStream(b.Context(), jetstream.StreamConfig{Name: "RAW", Subjects: []string{"raw.*.*"}, AllowDirect: true})
				require.NoError(b, err)
				data := []byte(strings.Repeat("x", 800))
				spread(b, workers, func(n int) error {
					var last uint64
					for range 8 {
						var opts []jetstream.PublishOpt
						if raw == "expecting" {
							opts = append(opts, jetstream.WithExpectLastSequencePerSubject(last))
						}
						ack, err := js.PublishMsg(b.Context(), &nats.Msg{Subject: fmt.Sprintf("raw.s.%d", n), Data: data}, opts...)
						if err != nil {
							return err
						}
						last = ack.Sequence
					}
					return nil
				})
			})
		}
		for name, sealed := range map[string]int{"sealed": 256 << 10, "unsealed": 0} {
			b.Run(fmt.Sprintf("%s-%d", name, workers), func(b *testing.B) {
				_, js := benchServer(b)
				l := open(b, js, natslog.WithMaxSealed(sealed))
				spread(b, workers, func(n int) error {
					_, err := request(b.Context(), l, fmt.Sprint("r", n))
					return err
				})
				stream, err := js.Stream(b.Context(), "STREAMER_LOG")
				require.NoError(b, err)
				state := stream.CachedInfo().State
				b.ReportMetric(float64(state.Bytes)/float64(b.N), "stored-B/op")
			})
		}
		b.Run(fmt.Sprintf("watched-%d", workers), func(b *testing.B) {
			_, js := benchServer(b)
			l := open(b, js)
			spread(b, workers, func(n int) error {
				id := fmt.Sprint("r", n)
				stop, err := l.Watch(b.Context(), progress.Key{Scope: "tenant/user", ID: id}, func(string) {})
				if err != nil {
					return err
				}
				defer stop()
				_, err = request(b.Context(), l, id)
				return err
			})
		})
	}
}

// spread runs f b.N times on so many goroutines.
func spread(b *testing.B, workers int, f func(n int) error) {
	var next atomic.Int64
	var wg sync.WaitGroup
	b.ResetTimer()
	for range workers {
		wg.Go(func() {
			for {
				n := int(next.Add(1))
				if n > b.N {
					return
				}
				if err := f(n); err != nil {
					b.Error(err)
					return
				}
			}
		})
	}
	wg.Wait()
	b.StopTimer()
}

func BenchmarkRead(b *testing.B) {
	srv, js := benchServer(b)
	writer := open(b, js)
	for _, n := range []int{10, 1000, 100_000} {
		key := progress.Key{Scope: "scope", ID: fmt.Sprint("long-", n)}
		rec := logtest.Next(progress.State{}, accepted(), event(progress.Started))
		require.NoError(b, writer.Append(b.Context(), key, "", rec))
		for state := rec.State; state.Last < uint64(n); state = rec.State {
			events := []*progress.Event{output(100)}
			for n > 1000 && len(events) < 10 {
				events = append(events, output(100))
			}
			rec = logtest.Next(state, events...)
			require.NoError(b, writer.Append(b.Context(), key, state.Record, rec))
		}
	}
	read := func(b *testing.B, n, after, limit int, want int) {
		for range b.N {
			b.StopTimer()
			l := open(b, connect(b, srv.URL()))
			b.StartTimer()
			got := 0
			for at := uint64(after); got < want; {
				page, err := l.Read(b.Context(), progress.Key{Scope: "scope", ID: fmt.Sprint("long-", n)}, at, limit)
				require.NoError(b, err)
				got += len(page.Events)
				at += uint64(len(page.Events))
			}
		}
	}
	b.Run("10-of-10", func(b *testing.B) { read(b, 10, 0, 256, 10) })
	b.Run("1000-of-1000", func(b *testing.B) { read(b, 1000, 0, 256, 1000) })
	b.Run("20-of-100000", func(b *testing.B) { read(b, 100_000, 99_970, 256, 20) })
	b.Run("20-in-100000", func(b *testing.B) { read(b, 100_000, 50_000, 20, 20) })
	b.Run("nothing-new", func(b *testing.B) {
		l := open(b, connect(b, srv.URL()))
		for range b.N {
			_, err := l.Read(b.Context(), progress.Key{Scope: "scope", ID: "long-1000"}, 1000, 256)
			require.NoError(b, err)
		}
	})
}

// BenchmarkWatched measures what a watched request takes, and how long a notification does.
func BenchmarkWatched(b *testing.B) {
	const watched = 10_000
	srv, js := benchServer(b)
	writer := open(b, js)
	l := open(b, connect(b, srv.URL()))
	before := heap()
	var told atomic.Int64
	begun := time.Now()
	var wg sync.WaitGroup
	for i := range 32 {
		wg.Go(func() {
			for j := i; j < watched; j += 32 {
				stop, err := l.Watch(b.Context(), progress.Key{Scope: "tenant/user", ID: fmt.Sprint("0192f0c1-0000-7000-8000-", j)}, func(string) { told.Add(1) })
				if err != nil {
					b.Error(err)
					return
				}
				b.Cleanup(stop)
			}
		})
	}
	wg.Wait()
	took := time.Since(begun)
	each := float64(heap()-before) / watched
	b.ResetTimer()
	for n := range b.N {
		key := progress.Key{Scope: "tenant/user", ID: fmt.Sprint("0192f0c1-0000-7000-8000-", n%watched)}
		state, err := writer.Tail(b.Context(), key)
		if err != nil {
			state = progress.State{}
		}
		seen := told.Load()
		rec := logtest.Next(state, accepted())
		if state.Last > 0 {
			rec = logtest.Next(state, output(100))
		}
		require.NoError(b, writer.Append(b.Context(), key, state.Record, rec))
		for told.Load() == seen {
			runtime.Gosched()
		}
	}
	b.StopTimer()
	b.ReportMetric(float64(took.Milliseconds()), "ms-to-watch")
	b.ReportMetric(each, "B/watch")
}

func heap() int64 {
	runtime.GC()
	runtime.GC()
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return int64(m.HeapAlloc + m.StackInuse)
}

// BenchmarkCluster measures what it costs to ask the leader, and to append on three servers.
func BenchmarkCluster(b *testing.B) {
	cluster := startCluster(b)
	l := open(b, connect(b, cluster.URL()), natslog.WithReplicas(3))
	state, err := request(b.Context(), l, "r")
	require.NoError(b, err)
	for _, leader := range []bool{true, false} {
		b.Run(fmt.Sprint("tail-leader-", leader), func(b *testing.B) {
			l.ReadAsReplicated(leader)
			for range b.N {
				_, err := l.Tail(b.Context(), progress.Key{Scope: "tenant/user", ID: "r"})
				require.NoError(b, err)
			}
		})
	}
	l.ReadAsReplicated(true)
	require.NotEmpty(b, state.Record)
	b.Run("request", func(b *testing.B) {
		spread(b, 16, func(n int) error {
			_, err := request(b.Context(), l, fmt.Sprint("r-", n, "-", b.N))
			return err
		})
	})
}
