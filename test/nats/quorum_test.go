package nats

import (
	"context"
	"fmt"
	"sync/atomic"
	"testing"
	"time"

	"github.com/nats-io/nats.go/jetstream"
	"github.com/stretchr/testify/require"

	"github.com/pay-theory/streamer/v2"
	"github.com/pay-theory/streamer/v2/internal/natstest"
	"github.com/pay-theory/streamer/v2/progress"
	"github.com/pay-theory/streamer/v2/queue/natsqueue"
)

const (
	logStream, progressStream, ticketStream, otherStream = "STREAMER_LOG", "STREAMER_PROGRESS", "STREAMER_TICKETS", "STREAMER_OTHER"

	refusal = 2500 * time.Millisecond // within which a submit is answered, one way or the other
)

// split is a cluster of five servers, where one stream is on the first three and all others are
// on the last three. Without the first two it has lost its quorum, and nothing else has.
type split struct {
	natstest.Cluster
	url string // of those that go on
	t   testing.TB
	js  jetstream.JetStream
}

// startSplit starts the servers and makes the streams, of which one stands alone.
func startSplit(t testing.TB, alone string) *split {
	t.Helper()
	const frail, firm = "frail", "firm"
	s := &split{t: t, Cluster: natstest.StartTagged(t, []string{frail}, []string{frail}, []string{frail, firm}, []string{firm}, []string{firm})}
	s.url = s.Cluster[2:].URL()
	var err error
	s.js, err = jetstream.New(natstest.Dial(t, s.url))
	require.NoError(t, err)
	gateway(t, s.url, 3, func(*streamer.Mux) {}).stop()
	require.NoError(t, s.other().Close())
	for _, name := range []string{logStream, progressStream, ticketStream, otherStream} {
		if name == alone {
			s.place(name, frail)
		} else {
			s.place(name, firm)
		}
	}
	return s
}

// other returns a queue beside the one that nodes have if not told otherwise.
func (s *split) other() *natsqueue.Queue {
	s.t.Helper()
	return s.queue(natsqueue.WithStream(otherStream), natsqueue.WithPrefix("other"), natsqueue.WithLease(lease))
}

// slack returns a queue whose leases survive that the machine has much else to do.
func (s *split) slack() *natsqueue.Queue {
	s.t.Helper()
	return s.queue(natsqueue.WithLease(5 * lease))
}

func (s *split) queue(opts ...natsqueue.Option) *natsqueue.Queue {
	s.t.Helper()
	q, err := natsqueue.New(s.t.Context(), s.js, append(opts, natsqueue.WithReplicas(3))...)
	require.NoError(s.t, err)
	return q
}

// place makes a stream anew, as it was, on the servers with a tag.
func (s *split) place(name, tag string) {
	s.t.Helper()
	stream, err := s.js.Stream(s.t.Context(), name)
	require.NoError(s.t, err)
	config := stream.CachedInfo().Config
	config.Placement = &jetstream.Placement{Tags: []string{tag}}
	require.NoError(s.t, s.js.DeleteStream(s.t.Context(), name))
	_, err = s.js.CreateStream(s.t.Context(), config)
	require.NoError(s.t, err)
}

// lose takes the quorum from the stream that stands alone. Where its leader stays, the servers
// take 10 s to notice, and nobody answers for it meanwhile.
func (s *split) lose(alone string, leader int) {
	s.t.Helper()
	for s.StreamLeader(s.t, alone) != s.Cluster[leader] {
		request := fmt.Appendf(nil, `{"placement":{"preferred":"natstest-%d"}}`, leader)
		_, err := s.js.Conn().Request("$JS.API.STREAM.LEADER.STEPDOWN."+alone, request, patience)
		require.NoError(s.t, err)
	}
	s.Cluster[0].Stop()
	s.Cluster[1].Stop()
}

// heal brings one of the two servers back, which is enough for a quorum.
func (s *split) heal() { s.Cluster[0].Restart(s.t) }

// whole brings the other one back too.
func (s *split) whole() {
	s.Cluster[1].Restart(s.t)
	s.WaitReady(s.t)
}

// refused submits what can't be accepted now.
func (n *node) refused(action, id string) {
	n.t.Helper()
	began := time.Now()
	_, err := n.Submit(n.t.Context(), alice, &streamer.Request{ID: id, Action: action})
	require.Equal(n.t, streamer.ErrCodeServiceUnavailable, code(n.t, err))
	require.Less(n.t, time.Since(began), refusal)
}

// taken submits what is accepted though something is down, if the machine is not too busy for it.
func (n *node) taken(action, id string) {
	n.t.Helper()
	soon(n.t, "it is accepted", func() bool {
		began := time.Now()
		_, err := n.Submit(n.t.Context(), alice, &streamer.Request{ID: id, Action: action})
		require.Less(n.t, time.Since(began), refusal)
		return err == nil
	})
}

// completed returns the events of a request that was completed.
func (n *node) completed(id string) []*progress.Event {
	n.t.Helper()
	all := n.events(id)
	require.Equal(n.t, progress.Completed, last(all).Kind, kinds(all))
	return all
}

func last(events []*progress.Event) *progress.Event { return events[len(events)-1] }

// reporting is counting that reports its progress too.
func reporting(n int, pause time.Duration) streamer.HandlerFunc {
	return func(ctx context.Context, _ *streamer.Request, p streamer.Reporter) (*streamer.Result, error) {
		tick := time.NewTicker(pause)
		defer tick.Stop()
		for i := range n {
			select {
			case <-tick.C:
			case <-ctx.Done():
				return nil, context.Cause(ctx)
			}
			p.Report(float64(100*(i+1))/float64(n), "going on")
			if err := streamer.Output(ctx, i); err != nil {
				return nil, err
			}
		}
		return &streamer.Result{Success: true, Data: n}, nil
	}
}

func now(context.Context) (any, error) { return "now", nil }

func TestProgressAloneWithoutItsQuorumHoldsNothingUp(t *testing.T) {
	s := startSplit(t, progressStream)
	handle := func(m *streamer.Mux) {
		m.Handle("report", reporting(50, 100*time.Millisecond))
		m.Handle("endless", reporting(100_000, 100*time.Millisecond))
		m.Handle("silent", counting(10, 100*time.Millisecond))
		m.Handle("now", doing(now), streamer.WithEstimate(0))
	}
	queue := s.slack()
	defer queue.Close()
	w := worker(t, s.url, 3, handle, streamer.WithQueue(queue))
	defer w.stop()
	g := gateway(t, s.url, 3, handle, streamer.WithQueue(queue))
	defer g.stop()
	shown := func(id string) float64 {
		began := time.Now()
		v, err := g.Attach(t.Context(), alice, id)
		require.NoError(t, err)
		require.Less(t, time.Since(began), refusal)
		if p := v.Page().Progress; p != nil {
			return p.Percentage
		}
		return 0
	}
	g.submit("report", "before")
	g.submit("endless", "endless")
	before := g.follow("before")
	soon(t, "progress is shown", func() bool { return shown("before") > 0 && shown("endless") > 0 })
	s.lose(progressStream, 2)
	for id, action := range map[string]string{"reports": "report", "is-silent": "silent", "is-short": "now", "is-canceled": "endless"} {
		g.taken(action, id)
	}
	require.NoError(t, g.Ready(t.Context()))
	soon(t, "what is to be canceled runs", func() bool { return w.Stats().Running >= 2 })
	_, err := g.Cancel(t.Context(), alice, "is-canceled", "")
	require.NoError(t, err)
	require.Equal(t, progress.Canceled, last(g.events("is-canceled")).Kind)
	for _, viewer := range []<-chan followed{before, g.follow("reports"), g.follow("is-silent")} {
		f := <-viewer
		require.NoError(t, f.err, kinds(f.events))
		require.Equal(t, progress.Completed, last(f.events).Kind, kinds(f.events))
		require.Equal(t, 1, last(f.events).Attempt)
		require.Less(t, f.late, refusal, "outputs don't wait for progress")
	}
	kept := shown("endless")
	s.heal()
	s.whole() // what is in memory alone has a leader again when all of its servers are back
	soon(t, "progress is shown again", func() bool { return shown("endless") > kept })
	_, err = g.Cancel(t.Context(), alice, "endless", "")
	require.NoError(t, err)
	require.Equal(t, 1, last(g.events("endless")).Attempt)
}

func TestTicketsAloneWithoutTheirQuorumStopOnlyWhatNeedsThem(t *testing.T) {
	s := startSplit(t, ticketStream)
	handle := func(m *streamer.Mux) {
		m.Handle("count", counting(20, 100*time.Millisecond))
		m.Handle("now", doing(now), streamer.WithEstimate(0))
	}
	w := worker(t, s.url, 3, handle, streamer.WithConcurrency(1))
	defer w.stop()
	g := gateway(t, s.url, 3, handle)
	defer g.stop()
	queue := s.other()
	defer queue.Close()
	elsewhere := worker(t, s.url, 3, handle, streamer.WithQueue(queue))
	defer elsewhere.stop()
	g.submit("count", "runs")
	soon(t, "it runs", func() bool { return w.Stats().Running == 1 })
	g.submit("count", "waits")
	s.lose(ticketStream, 0)
	for i := range 2 {
		g.refused("count", fmt.Sprint("refused-", i))
		g.taken("now", fmt.Sprint("now-", i))
	}
	elsewhere.taken("count", "elsewhere")
	elsewhere.completed("elsewhere")
	s.heal()
	// What was refused was in the log before, so it runs too.
	for _, id := range []string{"runs", "waits", "refused-0", "refused-1"} {
		require.Len(t, outputs(t, g.completed(id)), 20)
	}
	soon(t, "tickets are taken again", func() bool {
		_, err := g.Submit(t.Context(), alice, &streamer.Request{ID: "after", Action: "count"})
		return err == nil
	})
	g.completed("after")
	s.whole()
}

func TestTheLogAloneWithoutItsQuorumShowsAsWaiting(t *testing.T) {
	s := startSplit(t, logStream)
	var calls atomic.Int32
	count := counting(60, 100*time.Millisecond)
	handle := func(m *streamer.Mux) {
		m.Handle("count", streamer.HandlerFunc(func(ctx context.Context, req *streamer.Request, p streamer.Reporter) (*streamer.Result, error) {
			calls.Add(1)
			return count(ctx, req, p)
		}))
		m.Handle("now", doing(now), streamer.WithEstimate(0))
	}
	queue := s.slack()
	defer queue.Close()
	w := worker(t, s.url, 3, handle, streamer.WithQueue(queue))
	defer w.stop()
	g := gateway(t, s.url, 3, handle, streamer.WithQueue(queue))
	defer g.stop()
	g.submit("count", "runs")
	viewer := g.follow("runs")
	soon(t, "it runs", func() bool { return calls.Load() == 1 })
	s.lose(logStream, 0)
	g.refused("count", "refused")
	g.refused("now", "now")
	g.refused("count", "refused")
	require.Error(t, g.Ready(t.Context()))
	s.heal()
	all := shown(t, viewer)
	require.Equal(t, progress.Completed, last(all).Kind, kinds(all))
	require.Equal(t, 1, last(all).Attempt, "its worker has not lost it")
	require.Len(t, outputs(t, all), 60)
	soon(t, "it is ready again", func() bool { return g.Ready(t.Context()) == nil })
	g.submit("count", "refused")
	require.Len(t, outputs(t, g.completed("refused")), 60)
	require.EqualValues(t, 2, calls.Load())
	s.whole()
}
