// Package load drives a fleet as its clients would: it submits requests, some of them several
// times and with other bodies, follows them over all transports, cancels some, tries to see
// those of others, and writes down what it was shown.
package load

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"sync"
	"sync/atomic"
	"time"

	"github.com/pay-theory/streamer/v2/test/crash/history"
	"github.com/pay-theory/streamer/v2/test/crash/wire"
)

// Gateway is where clients connect.
type Gateway struct{ Name, Addr string }

// Driver is all clients of a fleet.
type Driver struct {
	Gateways []Gateway
	Journal  *Journal
	Seed     uint64
	Lethal   bool // some requests end the process of the worker that takes them
	Cuts     wire.Cuts
	Seen     Seen

	// Killed reports whether a process was killed between two times.
	Killed func(process string, from, to time.Time) bool
	// Broken is told what no server may do at all.
	Broken func(error)

	calm   atomic.Bool
	crowds map[string]chan *seat // by token
}

// Seen counts rare states that clients can tell.
type Seen struct {
	Resumed atomic.Int64 // viewers that went on where the kill of a gateway had cut them off
	Retried atomic.Int64 // submits that were acknowledged as repeated after one without an answer
}

// Calm has all connections left alone from now on.
func (d *Driver) Calm() { d.calm.Store(true) }

// identities is how many there are who submit.
const identities = 6

func identity(n int) (tenant, user string) {
	return []string{"acme", "globex", "initech"}[n%3], []string{"alice", "bob"}[n/3%2]
}

// Kind is what is settled of a request before its plan is drawn.
type Kind int

// The kinds of requests.
const (
	Any      Kind = iota
	Shared        // one of two requests with the same id and different tenants
	Hopeless      // it ends every worker that takes it, if the driver is Lethal
)

// Live submits the nth request and sees it through. It returns what was seen of it, once it has
// ended or ctx has.
func (d *Driver) Live(ctx context.Context, n int, kind Kind) *history.Request {
	rng := rand.New(rand.NewPCG(d.Seed, uint64(n)))
	tenant, user := identity(n)
	id := fmt.Sprintf("r-%d", n)
	if kind == Shared {
		id = fmt.Sprintf("s-%d", n/2)
	}
	p := draw(rng, id, tenant, user, d.Lethal && kind != Shared)
	switch {
	case kind == Shared:
		p.Shared, p.probes = true, nil
	case kind == Hopeless && d.Lethal:
		p.despair()
	}
	r := &request{
		client: client{Driver: d, token: tenant + ":" + user, rng: rng},
		plan:   p, acked: make(chan struct{}), ended: make(chan struct{}),
	}
	r.live(ctx)
	return &r.plan.Request
}

// client is one identity's way to the gateways.
type client struct {
	*Driver
	token string

	mu  sync.Mutex
	rng *rand.Rand
}

func (c *client) roll(n int) int {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.rng.IntN(n)
}

func (c *client) ms(n int) time.Duration { return time.Duration(c.roll(n)) * time.Millisecond }

func (c *client) gateway() Gateway { return c.Gateways[c.roll(len(c.Gateways))] }

// server is a connection to a gateway, with its fate.
func (c *client) server(g Gateway, fate wire.Fate) wire.Server {
	return wire.Server{Addr: g.Addr, Token: c.token, Fate: fate, Cuts: &c.Cuts}
}

// request is a request on its way.
type request struct {
	client
	plan *plan

	acked, ended       chan struct{}
	onceAcked, onceEnd sync.Once
}

// live does all that is planned, and waits until everybody has seen the end.
func (r *request) live(ctx context.Context) {
	p := r.plan
	var actors, replays sync.WaitGroup
	after := func(delay time.Duration, do func()) {
		actors.Go(func() {
			if pause(ctx, delay) {
				do()
			}
		})
	}
	after(0, func() { r.submitter(ctx, false, true) })
	for _, delay := range p.duplicates {
		after(delay, func() { r.submitter(ctx, false, false) })
	}
	for _, delay := range p.conflicts {
		after(delay, func() { r.submitter(ctx, true, false) })
	}
	for _, delay := range p.cancels {
		after(delay, func() { r.canceler(ctx) })
	}
	for _, delay := range p.probes {
		after(delay, func() { r.prober(ctx) })
	}
	for i, delay := range p.viewers {
		actors.Go(func() {
			if wait(ctx, r.acked) && pause(ctx, delay) {
				r.viewer(ctx, fmt.Sprintf("viewer %d", i+1), nil)
			}
		})
	}
	if p.crowded {
		actors.Go(func() {
			if wait(ctx, r.acked) {
				r.join(ctx)
			}
		})
	}
	for i := range p.replays {
		replays.Go(func() {
			if wait(ctx, r.ended) {
				r.viewer(ctx, fmt.Sprintf("late viewer %d", i+1), nil)
			}
		})
	}
	actors.Wait()
	if wait(ctx, r.acked) {
		r.audit(ctx)
	}
	replays.Wait()
	if ctx.Err() != nil && p.Audit == nil {
		p.GaveUp = time.Now()
	}
	if !p.Shared {
		p.Runs = r.Journal.Settle(ctx, p.ID, !p.Expect.Short)
	}
}

func (r *request) noteAcked() { r.onceAcked.Do(func() { close(r.acked) }) }
func (r *request) noteEnd()   { r.onceEnd.Do(func() { close(r.ended) }) }

func (r *request) over() bool {
	select {
	case <-r.ended:
		return true
	default:
		return false
	}
}

// report tells of what breaks the protocol, which a lost connection does not.
func (r *request) report(doing string, err error) {
	if err != nil {
		r.client.report(doing+" of "+r.plan.ID, err)
	}
}

func (c *client) report(doing string, err error) {
	if errors.Is(err, wire.ErrProtocol) {
		c.Broken(fmt.Errorf("%s, as %s: %w", doing, c.token, err))
	}
}

func wait(ctx context.Context, c <-chan struct{}) bool {
	select {
	case <-c:
		return true
	case <-ctx.Done():
		return false
	}
}

func pause(ctx context.Context, d time.Duration) bool {
	select {
	case <-time.After(d):
		return true
	case <-ctx.Done():
		return false
	}
}
