package streamer

import (
	"context"
	"errors"
	"math/rand/v2"
	"time"

	"github.com/pay-theory/streamer/v2/progress"
	"github.com/pay-theory/streamer/v2/queue"
)

const (
	sweepLeases = 3    // without a sign of life before a request is looked after
	maxSweep    = 1000 // requests enqueued in one pass
)

// sweepTurn is the key of the log whose existence says that somebody has swept lately.
var sweepTurn = progress.Key{Scope: "streamer.sweep", ID: "turn"}

// sweep enqueues again what has not ended and shows no sign of life for several leases: its
// ticket may be lost. A request whose worker lives shows one every third of a lease. One that
// waits shows none, so it is enqueued again only while nothing else waits: while the queue says
// so, or a worker here waits for work. A ticket too many does no harm.
//
// Of all workers on a log one sweeps at a time: mostly the one that swept last, as long as it
// can tell what waits, since a log may remember where it stopped.
func (m *Mux) sweep(ctx context.Context) {
	idle := sweepLeases * m.cfg.queue.Lease()
	stay := false
	for {
		pause := idle + rand.N(idle/4+1)
		if stay {
			pause = idle + idle/50 // its turn is just over, and that of the others comes later
		}
		select {
		case <-time.After(pause):
		case <-ctx.Done():
			return
		}
		err := m.note(ctx, sweepTurn, nil, idle)
		if _, taken := errors.AsType[*progress.ConflictError](err); taken {
			stay = false
			continue
		}
		// Where the turn can't be stored (the log may be full), several sweep, which does no harm.
		if stay, err = m.pass(ctx, idle); err != nil && ctx.Err() == nil {
			m.log.Warn("sweep is cut short", "error", err)
		}
	}
}

// pass looks after all open requests that are quiet for idle. It reports whether it could
// tell what became of those that wait.
func (m *Mux) pass(ctx context.Context, idle time.Duration) (sure bool, err error) {
	sure = m.drained(ctx)
	n := 0
	for p, err := range m.cfg.log.Open(ctx, idle) {
		if err != nil {
			return sure, err
		}
		if !lost(p, idle, sure) {
			continue
		}
		t := queue.Ticket{
			Scope: p.Key.Scope, ID: p.Key.ID, Action: p.State.Action, Group: p.State.Group, Nonce: m.ids.next(),
			SeenLast: p.State.Last, SeenBeat: p.Beat,
		}
		bounded, cancel := m.queueContext(ctx, storeTimeout)
		err := m.cfg.queue.Enqueue(bounded, t)
		cancel()
		if errors.Is(err, queue.ErrScopeFull) {
			continue
		}
		if err != nil {
			return sure, err
		}
		m.stats.swept.Add(1)
		m.log.Info("request without a sign of life enqueued again", "request_id", p.Key.ID, "action", p.State.Action, "phase", p.State.Phase)
		if n++; n == maxSweep {
			break
		}
	}
	return sure, nil
}

// drained reports whether no ticket waits for a worker, as far as can be told: the queue says
// so or, where it can't tell, a worker here has waited for one for a lease.
func (m *Mux) drained(ctx context.Context) bool {
	q, ok := m.cfg.queue.(queue.Measured)
	if !ok {
		return time.Duration(time.Now().UnixNano()-m.waiting.Load()) >= m.cfg.queue.Lease()
	}
	ctx, cancel := m.queueContext(ctx, storeTimeout)
	defer cancel()
	d, err := q.Depth(ctx)
	return err == nil && d.Ready == 0 && d.Delayed == 0
}

// lost reports whether the ticket of p, quiet for at least idle, may be lost. drained says
// that no ticket waits.
func lost(p progress.Pending, idle time.Duration, drained bool) bool {
	switch p.State.Phase {
	case progress.Accepted, progress.Retrying:
		return drained && p.Idle >= p.State.Delay+idle
	default:
		return true
	}
}
