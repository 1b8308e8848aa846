package natslog_test

import (
	"context"
	"errors"
	"fmt"
	"testing"
	"time"

	"github.com/nats-io/nats.go/jetstream"
	"github.com/stretchr/testify/require"

	"github.com/pay-theory/streamer/v2/internal/natstest"
	"github.com/pay-theory/streamer/v2/progress"
	"github.com/pay-theory/streamer/v2/progress/logtest"
	"github.com/pay-theory/streamer/v2/progress/natslog"
)

// startCluster starts three servers and waits until they take streams on all of them: they have
// a leader a moment before.
func startCluster(t testing.TB) natstest.Cluster {
	t.Helper()
	cluster := natstest.StartCluster(t, 3)
	js := connect(t, cluster.URL())
	eventually(t, func() bool {
		_, err := js.CreateStream(t.Context(), jetstream.StreamConfig{Name: "FIRST", Subjects: []string{"first"}, Replicas: 3})
		return err == nil
	}, "the cluster takes streams")
	return cluster
}

func TestClusterKeepsTheContract(t *testing.T) {
	cluster := startCluster(t)
	s := newStores(t, cluster.URL(), natslog.WithReplicas(3))
	logtest.Run(t, logtest.Harness{
		New:   s.fresh,
		Peer:  s.another,
		Count: 60,
		Wait:  60 * time.Second,
	})
}

// persist appends a record as the core does: the same one, until it knows what became of it.
func (l *log) persist(id string, prev string, rec *progress.Record) error {
	for {
		ctx, cancel := context.WithTimeout(l.t.Context(), 2*time.Second)
		err := l.Append(ctx, key(id), prev, rec)
		cancel()
		if !errors.Is(err, progress.ErrUnavailable) && !errors.Is(err, context.DeadlineExceeded) {
			return err
		}
		pause := time.NewTimer(20 * time.Millisecond)
		select {
		case <-pause.C:
		case <-l.t.Context().Done():
			return l.t.Context().Err()
		}
	}
}

func TestNothingIsLostWhenTheLeaderStops(t *testing.T) {
	cluster := startCluster(t)
	writer, l := newLog(t, cluster.URL(), natslog.WithReplicas(3)), newLog(t, cluster.URL(), natslog.WithReplicas(3))
	const requests, outputs = 4, 300
	halfway := make(chan struct{}, requests)
	errs := make(chan error, requests)
	viewers := make([]*viewer, requests)
	for i := range requests {
		id := fmt.Sprint("r-", i)
		viewers[i] = l.view(t.Context(), id)
		go func() {
			var state progress.State
			errs <- func() error {
				for n := range outputs {
					e := output(20)
					switch n {
					case 0:
						e = accepted()
					case 1:
						e = event(progress.Started)
					case outputs / 3, 2 * outputs / 3:
						halfway <- struct{}{}
					case outputs - 1:
						e = event(progress.Completed)
					}
					rec := logtest.Next(state, e)
					if err := writer.persist(id, state.Record, rec); err != nil {
						return fmt.Errorf("event %d of %s: %w", n+1, id, err)
					}
					state = rec.State
				}
				return nil
			}()
		}()
	}
	for range 2 {
		for range requests {
			<-halfway
		}
		leader := cluster.StreamLeader(t, "STREAMER_LOG")
		leader.Stop()
		cluster.StreamLeader(t, "STREAMER_LOG")
		leader.Restart(t)
	}
	for range requests {
		require.NoError(t, <-errs)
	}
	for i, v := range viewers {
		require.NoError(t, <-v.done)
		require.Len(t, l.all(fmt.Sprint("r-", i)), outputs)
	}
}

func TestAnyServerShowsWhatWasAcknowledged(t *testing.T) {
	cluster := startCluster(t)
	writer := newLog(t, cluster.URL(), natslog.WithReplicas(3))
	leader := cluster.StreamLeader(t, "STREAMER_LOG")
	for i, s := range cluster {
		if s == leader {
			continue
		}
		l := newLog(t, s.URL(), natslog.WithReplicas(3))
		id := fmt.Sprint("r-", i)
		state := writer.start(id)
		for n := range uint64(200) {
			state = writer.must(id, state, output(10))
			tail, err := l.tail(id)
			require.NoError(t, err)
			require.Equal(t, state.Record, tail.Record)
			require.NoError(t, writer.SetProgress(t.Context(), key(id), &progress.Progress{Attempt: 1, Rev: n + 1, Beat: n + 1}))
			page, err := l.Read(t.Context(), key(id), n+2, 10)
			require.NoError(t, err)
			require.Len(t, page.Events, 1)
			require.Equal(t, n+1, page.Beat)
			page, err = l.Read(t.Context(), key(id), n, 10)
			require.NoError(t, err)
			require.Len(t, page.Events, 3, "a replay has all of them too")
		}
	}
}
