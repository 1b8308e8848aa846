package crash

import (
	"context"
	"fmt"
	"math/rand/v2"
	"net/http"
	"sync"
	"time"

	"github.com/pay-theory/streamer/v2/test/crash/history"
	"github.com/pay-theory/streamer/v2/test/crash/wire"
)

const (
	refusal = 2 * time.Second        // within which a submit is refused
	settled = 500 * time.Millisecond // after the loss, what was stored before is no longer answered
)

// loseQuorum takes all NATS servers but one away for a while, and checks G15: submits are
// refused in time, nothing is accepted, and the gateways say that they are not ready.
func (w *world) loseQuorum(ctx context.Context, rng *rand.Rand) {
	if w.fleet.WaitReady(ctx) != nil {
		return
	}
	stop := rng.IntN(2) == 0
	victims := rng.Perm(len(w.fleet.Nodes))[1:]
	var faults []*history.Fault
	for _, i := range victims {
		p := w.fleet.Nodes[i]
		f := w.begin("quorum", p)
		if stop {
			w.setPID(f, p.Stop())
		} else {
			w.setPID(f, p.Kill(time.Minute))
			w.gone(ctx, p, f.PID)
		}
		faults = append(faults, f)
	}
	pause(ctx, settled)
	probing, cancel := context.WithTimeout(ctx, hold)
	var probes sync.WaitGroup
	for _, g := range w.fleet.Gateways {
		probes.Go(func() { w.probeRefusal(probing, g.Name, g.Addr) })
	}
	probes.Wait()
	cancel()
	w.probeReadiness(ctx)
	for n, i := range victims {
		if p := w.fleet.Nodes[i]; stop {
			p.Continue(faults[n].PID)
		} else {
			p.Raise()
		}
	}
	for n, i := range victims {
		w.heal(ctx, w.fleet.Nodes[i], faults[n])
	}
	w.settle(ctx)
	w.tally.quorums.Add(1)
}

// probeRefusal submits to a gateway one request after the other, all of which are to be refused.
func (w *world) probeRefusal(ctx context.Context, name, addr string) {
	for n := 0; ctx.Err() == nil; n++ {
		action := []string{"sleep", "echo"}[n%2]
		r := wire.Request{Type: "request", ID: fmt.Sprintf("q-%s-%d-%d", name, time.Since(w.began).Milliseconds(), n), Action: action, Payload: []byte(`{"ms":1}`)}
		call, cancel := context.WithTimeout(context.WithoutCancel(ctx), refusal+slack)
		began := time.Now()
		a, err := wire.Call(call, w.server(addr), http.MethodPost, "/requests", nil, r)
		took := time.Since(began)
		cancel()
		switch {
		case err != nil:
			w.violate("G15", fmt.Sprintf("without a quorum, a submit of %s to %s was not answered within %v: %v", action, name, took, err), nil)
		case a.Code() != "SERVICE_UNAVAILABLE" || a.Seq > 0:
			w.violate("G15", fmt.Sprintf("without a quorum, a submit of %s to %s was answered after %v with %d %s", action, name, took, a.Status, a.Body), nil)
		default:
			w.tally.refusals.Add(1)
			w.tally.slowest(took)
		}
		pause(ctx, 200*time.Millisecond)
	}
}

// probeReadiness asks the gateways whether they are ready, which they are not.
func (w *world) probeReadiness(ctx context.Context) {
	for _, g := range w.fleet.Gateways {
		call, cancel := context.WithTimeout(ctx, refusal+slack)
		a, err := wire.Call(call, w.server(g.Addr), http.MethodGet, "/readyz", nil, nil)
		cancel()
		if ctx.Err() == nil && (err != nil || a.Status != http.StatusServiceUnavailable) {
			status := 0
			if a != nil {
				status = a.Status
			}
			w.violate("G15", fmt.Sprintf("without a quorum, %s says of its readiness: %d, %v", g.Name, status, err), nil)
		}
	}
}

func (w *world) server(addr string) wire.Server {
	return wire.Server{Addr: addr, Token: "probes:quorum", Cuts: &w.driver.Cuts}
}
