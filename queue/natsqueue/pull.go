package natsqueue

import (
	"context"
	"encoding/json"
	"fmt"
	"strings"
	"sync"
	"time"

	"github.com/nats-io/nats.go"
)

const (
	maxPull       = 256                    // tickets that one pull asks for
	leaveTimeout  = time.Second            // what a Receive whose context has ended waits for the broker
	checkInterval = 100 * time.Millisecond // how often a pull looks whether an answer can still come
	strayTimeout  = 30 * time.Second       // how long answers are waited for that nobody waits for any more
	maxStrays     = 64                     // pulls without an answer that are looked after
)

// port is where the answers to one pull at a time arrive. It is used again for the next when
// the broker has answered in full.
type port struct {
	inbox   string
	sub     *nats.Subscription
	answers chan *nats.Msg
}

// ports are those that are free, and what is known of the others.
type ports struct {
	mu     sync.Mutex
	free   []*port
	strays int
}

// port returns a port to pull with.
func (q *Queue) port() (*port, error) {
	q.ports.mu.Lock()
	if n := len(q.ports.free); n > 0 {
		p := q.ports.free[n-1]
		q.ports.free = q.ports.free[:n-1]
		q.ports.mu.Unlock()
		return p, nil
	}
	q.ports.mu.Unlock()
	// A pull is answered by as many tickets as it asks for, or fewer and a status.
	p := &port{inbox: q.nc.NewInbox(), answers: make(chan *nats.Msg, maxPull+1)}
	sub, err := q.nc.ChanSubscribe(p.inbox, p.answers)
	p.sub = sub
	return p, err
}

// release makes a port free again.
func (q *Queue) release(p *port) {
	q.ports.mu.Lock()
	defer q.ports.mu.Unlock()
	q.ports.free = append(q.ports.free, p)
}

// pull is what a lane's consumer is asked: for what there is, or, when there is nothing, for
// what comes first until it expires.
type pull struct {
	Batch   int           `json:"batch"`
	NoWait  bool          `json:"no_wait"`
	Expires time.Duration `json:"expires,omitempty"`
}

// settling is how long after its announcement a ticket may not be there for a pull: a consumer
// hears of it after the announcement, on another server than the one that stored it after that
// server has it too.
const settling = 20 * time.Millisecond

// pull asks a lane for tickets. It returns those that came also when it returns an error.
func (q *Queue) pull(ctx context.Context, u turn) ([]*delivery, outcome, error) {
	request, err := json.Marshal(pull{u.n, true, max(0, settling-time.Since(u.woken))})
	if err != nil {
		return nil, outcome{}, err
	}
	p, err := q.port()
	if err != nil {
		return nil, outcome{}, err
	}
	start := time.Since(q.epoch) // the lease begins later, when the broker sends the ticket
	if err := q.nc.PublishRequest(q.consumers[u.lane].subject, p.inbox, request); err != nil {
		q.drop(p)
		return nil, outcome{}, err
	}

	var held []*delivery
	var o outcome
	connections := q.nc.Stats().Reconnects
	patience := answerTimeout
	check := time.NewTicker(checkInterval)
	defer check.Stop()
	ended := ctx.Done()
	for left := u.n; left > 0; {
		select {
		case m := <-p.answers:
			more, err := status(m)
			if err != nil || !more {
				q.release(p)
				o.empty = true
				return held, o, err
			}
			left--
			if d := q.delivered(ctx, m, u.lane, start, &o); d != nil {
				held = append(held, d)
			}
		case <-ended:
			ended = nil
			patience = time.Since(q.epoch) - start + leaveTimeout
		case <-check.C:
			lost := !q.nc.IsConnected() || q.nc.Stats().Reconnects != connections
			if lost || time.Since(q.epoch)-start > patience {
				q.stray(p, u.lane, left)
				return held, o, errNoAnswer
			}
		}
	}
	q.release(p)
	return held, o, nil
}

// status reports whether an answer to a pull is a ticket and not the end of the tickets, or
// why there are none.
func status(m *nats.Msg) (ticket bool, err error) {
	code := m.Header.Get("Status")
	switch {
	case m.Reply != "":
		return true, nil
	case code == "404", code == "408", code == "409" && strings.Contains(m.Header.Get("Description"), "MaxWaiting"):
		return false, nil // there are none, or as many as the broker lets wait do so already
	case code == "503":
		return false, nats.ErrNoResponders
	default:
		return false, fmt.Errorf("the broker answered %q", code+" "+m.Header.Get("Description"))
	}
}

// delivered returns the delivery of a pulled message, nil when it has none for us.
func (q *Queue) delivered(ctx context.Context, m *nats.Msg, lane int, start time.Duration, o *outcome) *delivery {
	if meta, err := m.Metadata(); err == nil {
		o.back, o.pending = meta.NumDelivered > 1, int(meta.NumPending)
	}
	d := &delivery{queue: q, lane: lane, reply: m.Reply}
	d.until.Store(int64(start + q.cfg.lease))
	var e envelope
	switch err := json.Unmarshal(m.Data, &e); {
	case err == nil && e.Version == version:
		d.ticket = e.Ticket
		return d
	case err == nil && e.Version > version:
		// Workers of the newer version are there or will be.
		_ = d.call(ctx, "hand back", nakFor(newerDelay))
	default:
		if d.call(ctx, "remove", []byte("+TERM not a ticket")) == nil {
			q.foreign.Add(1)
		}
	}
	return nil
}

// newerDelay is when a ticket that a newer version wrote is offered again.
const newerDelay = 5 * time.Second

// handBack gives tickets back that nobody wants.
func (q *Queue) handBack(ctx context.Context, held []*delivery) {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), leaveTimeout)
	defer cancel()
	var all sync.WaitGroup
	for _, d := range held {
		all.Go(func() { _ = d.Retry(ctx, 0) }) // else it comes back when its lease lapses
	}
	all.Wait()
}

// stray looks after a port whose pull was not answered in full: tickets that still come are
// handed back.
func (q *Queue) stray(p *port, lane, left int) {
	q.ports.mu.Lock()
	many := q.ports.strays >= maxStrays
	if !many {
		q.ports.strays++
	}
	q.ports.mu.Unlock()
	if many {
		q.drop(p)
		return
	}
	q.users.Go(func() {
		if q.drain(p, lane, left) {
			q.release(p)
		} else {
			q.drop(p)
		}
		q.ports.mu.Lock()
		q.ports.strays--
		q.ports.mu.Unlock()
	})
}

// drain hands back the tickets that come, and reports whether the pull was answered in full.
func (q *Queue) drain(p *port, lane, left int) bool {
	timeout := time.NewTimer(strayTimeout)
	defer timeout.Stop()
	for left > 0 {
		select {
		case m := <-p.answers:
			if more, err := status(m); err != nil || !more {
				return true
			}
			left--
			var o outcome
			if d := q.delivered(q.life, m, lane, time.Since(q.epoch), &o); d != nil {
				q.handBack(q.life, []*delivery{d})
			}
		case <-timeout.C:
			return false
		case <-q.life.Done():
			return false
		}
	}
	return true
}

// drop ends a port.
func (q *Queue) drop(p *port) {
	_ = p.sub.Unsubscribe() // fails when the connection is closed, which ends it too
}

// dropAll ends the ports that are free.
func (q *Queue) dropAll() {
	q.ports.mu.Lock()
	free := q.ports.free
	q.ports.free = nil
	q.ports.mu.Unlock()
	for _, p := range free {
		q.drop(p)
	}
}
