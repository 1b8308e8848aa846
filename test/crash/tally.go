package crash

import (
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/pay-theory/streamer/v2/test/crash/history"
)

// tally counts what happened.
type tally struct {
	requests, acked, completed, failed, canceled atomic.Int64
	submits, cancels, probes, messages, segments atomic.Int64
	calls                                        atomic.Int64
	violations                                   atomic.Int64
	failedStarts                                 atomic.Int64
	leaders, quorums, refusals                   atomic.Int64

	lost, returned, fenced, exhausted, raced, twins, conflicts atomic.Int64

	mu        sync.Mutex
	takeovers []time.Duration
	refusal   time.Duration // the slowest
	kept      []history.Violation
}

// add counts a request that is over.
func (t *tally) add(r *history.Request, faults []history.Fault) {
	t.requests.Add(1)
	t.submits.Add(int64(len(r.Submits)))
	t.cancels.Add(int64(len(r.Cancels)))
	t.probes.Add(int64(len(r.Probes)))
	if slices.ContainsFunc(r.Submits, func(s history.Submit) bool { return s.Outcome == history.Acked }) {
		t.acked.Add(1)
	}
	for _, v := range r.Views {
		t.segments.Add(int64(len(v.Segments)))
		for _, s := range v.Segments {
			t.messages.Add(int64(len(s.Messages)))
		}
	}
	if r.Audit != nil && len(r.Audit.Messages) > 0 {
		switch end := r.Audit.Messages[len(r.Audit.Messages)-1]; {
		case end.Type != "error":
			t.completed.Add(1)
		case end.Code() == "CANCELED":
			t.canceled.Add(1)
		default:
			t.failed.Add(1)
		}
	}
	x := history.RareOf(r, faults)
	t.lost.Add(int64(x.Lost))
	t.returned.Add(int64(x.Returned))
	t.fenced.Add(int64(x.Fenced))
	for is, n := range map[*atomic.Int64]bool{&t.exhausted: x.Exhausted, &t.raced: x.Raced, &t.twins: x.Twins, &t.conflicts: x.Conflict} {
		if n {
			is.Add(1)
		}
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	t.takeovers = append(t.takeovers, x.Takeovers...)
}

func (t *tally) slowest(d time.Duration) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.refusal = max(t.refusal, d)
}
