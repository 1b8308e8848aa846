package streamer

import (
	"context"
	"math"
	"sync"
	"time"

	"github.com/pay-theory/streamer/v2/queue"
)

const (
	busyDelay  = 250 * time.Millisecond // before a ticket without a free place comes back
	crowdPause = 20 * time.Millisecond  // before more tickets are taken when one had no free place and none becomes free,
	maxCrowded = 2                      // doubled up to so many times while none has; and half as many are taken each time
)

// crowd counts who has a place to work in this process: of an action as many as
// WithConcurrency says, of a tenant as WithTenantConcurrency says.
type crowd struct {
	perTenant int
	left      chan struct{} // gets a value when a place that was wanted may be free

	mu      sync.Mutex
	routes  map[*route]int
	groups  map[string]int
	refused bool // since the last time that somebody left
}

func newCrowd(perTenant int) crowd {
	return crowd{perTenant: perTenant, left: make(chan struct{}, 1), routes: make(map[*route]int), groups: make(map[string]int)}
}

// enter takes a place for a ticket. r is nil for an unknown action. leave gives it back.
func (c *crowd) enter(r *route, group string) (leave func(), entered bool) {
	if c.perTenant == math.MaxInt && (r == nil || r.settings.concurrency == math.MaxInt) {
		return func() {}, true
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.groups[group] >= c.perTenant || r != nil && c.routes[r] >= r.settings.concurrency {
		c.refused = true
		return nil, false
	}
	c.groups[group]++
	if r != nil {
		c.routes[r]++
	}
	return func() { c.leave(r, group) }, true
}

func (c *crowd) leave(r *route, group string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.groups[group]--; c.groups[group] == 0 {
		delete(c.groups, group)
	}
	if r != nil {
		c.routes[r]--
	}
	if !c.refused {
		return
	}
	c.refused = false
	select {
	case c.left <- struct{}{}:
	default:
	}
}

// handBack hands a ticket back. When that fails it comes back when the lease ends.
func (m *Mux) handBack(ctx context.Context, d queue.Delivery, delay time.Duration) {
	ctx, cancel := m.queueContext(ctx, appendTimeout)
	defer cancel()
	if err := d.Retry(ctx, delay); err != nil {
		t := d.Ticket()
		m.log.Warn("ticket can't be handed back", "request_id", t.ID, "action", t.Action, "error", err)
	}
}

// measureEvery is how often the queue is asked what it holds.
const measureEvery = 5 * time.Second

// measure keeps Stats.Queue up to date, where the queue can tell.
func (m *Mux) measure(ctx context.Context) {
	q, ok := m.cfg.queue.(queue.Measured)
	if !ok {
		return
	}
	defer m.depth.Store(nil)
	for {
		bounded, cancel := m.queueContext(ctx, storeTimeout)
		d, err := q.Depth(bounded)
		cancel()
		if err == nil {
			m.depth.Store(&d)
		} else if ctx.Err() == nil {
			m.log.Debug("queue can't be measured", "error", err)
		}
		select {
		case <-time.After(jitter(measureEvery)):
		case <-ctx.Done():
			return
		}
	}
}
