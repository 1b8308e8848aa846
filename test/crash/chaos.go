package crash

import (
	"context"
	"fmt"
	"math"
	"math/rand/v2"
	"sync"
	"time"

	"github.com/pay-theory/streamer/v2/test/crash/fleet"
	"github.com/pay-theory/streamer/v2/test/crash/history"
)

// kind is one kind of fault, as often as its weight says.
type kind struct {
	name   string
	role   string
	weight int
}

// logStream is the stream whose leader is killed.
const logStream = "STREAMER_LOG"

// kinds returns the faults that a shape is up to, and how long there is between two on average.
func kinds(shape fleet.Shape) ([]kind, time.Duration) {
	switch shape {
	case fleet.Memory:
		return []kind{{"stop", fleet.All, 1}}, 10 * time.Second
	case fleet.Embedded:
		return []kind{{"kill", fleet.All, 4}, {"stop", fleet.All, 3}, {"term", fleet.All, 2}}, 4 * time.Second
	case fleet.Amazon:
		return append(apart(), kind{"stop", fleet.AWS, 5}), 2 * time.Second
	default:
		return append(apart(),
			kind{"kill", fleet.NATS, 2}, kind{"leader", fleet.NATS, 3}, kind{"stop", fleet.NATS, 3}, kind{"term", fleet.NATS, 2},
		), 1200 * time.Millisecond
	}
}

// apart returns the faults of gateways and workers that are processes of their own.
func apart() []kind {
	return []kind{
		{"kill", fleet.Worker, 6}, {"stop", fleet.Worker, 7}, {"term", fleet.Worker, 3},
		{"kill", fleet.Gateway, 5}, {"stop", fleet.Gateway, 3}, {"term", fleet.Gateway, 2},
	}
}

// mostAtOnce is how many processes of a role are disturbed at once.
func mostAtOnce(role string, of int) int {
	if role == fleet.NATS || role == fleet.AWS {
		return 1
	}
	return max(1, of-1)
}

const (
	firstQuorum = 0.35            // of the time
	nextQuorum  = 3 * time.Minute // after the last
	hold        = 5 * time.Second // for how long submits are tried without a quorum
	rest        = 3 * time.Second // that stores have at least between two faults
)

// misbehave does one fault after the other, until ctx ends, and waits until all is over. What
// was begun is ended within life.
func (w *world) misbehave(ctx, life context.Context) {
	rng := rand.New(rand.NewPCG(w.Seed, 2))
	list, mean := kinds(w.Shape)
	deck := rng.Perm(len(list)) // each once, and then as often as they weigh
	for i, k := range list {
		for range k.weight {
			deck = append(deck, i)
		}
	}
	first := len(list)
	quorum := time.After(time.Duration(firstQuorum * float64(w.Time)))
	var under sync.WaitGroup
	defer under.Wait()
	for drawn := 0; ; {
		gap := time.Duration(-math.Log(1-rng.Float64()) * float64(mean))
		select {
		case <-time.After(gap):
		case <-quorum:
			if w.Shape == fleet.Cluster {
				under.Wait()
				w.loseQuorum(life, rng)
			}
			quorum = time.After(nextQuorum)
			continue
		case <-ctx.Done():
			return
		}
		card := first + rng.IntN(len(deck)-first)
		if drawn < first {
			card = drawn
		}
		drawn++
		k := list[deck[card]]
		index := rng.IntN(1 << 20)
		length := time.Duration(rng.IntN(1000)) // thousandths of what the kind allows
		under.Go(func() { w.fault(life, k, index, length) })
	}
}

// fault does something to a process of a role, if one is free, and waits until it is over.
func (w *world) fault(ctx context.Context, k kind, index int, length time.Duration) {
	p := w.take(ctx, k, index)
	if p == nil {
		return
	}
	defer w.release(p)
	f := w.begin(k.name, p)
	switch k.name {
	case "stop":
		longest := 3 * lease
		switch k.role {
		case fleet.NATS:
			longest = lease
		case fleet.AWS:
			longest = 2 * lease // the SDK's calls may take 5 s
		}
		w.setPID(f, p.Stop())
		pause(ctx, 100*time.Millisecond+longest*length/1000)
		p.Continue(f.PID)
	case "term":
		w.setPID(f, p.Terminate(100*time.Millisecond+length*time.Millisecond))
		w.gone(ctx, p, f.PID)
	default:
		w.setPID(f, p.Kill(100*time.Millisecond+2*length*time.Millisecond))
		w.gone(ctx, p, f.PID)
	}
	w.heal(ctx, p, f)
	if k.role == fleet.NATS {
		w.settle(ctx)
	}
	if k.role == fleet.NATS || k.role == fleet.AWS {
		pause(ctx, rest+2*rest*length/1000)
	}
}

// settle waits until the NATS servers are of use again. The next fault to them is for a cluster
// that has recovered from the last.
func (w *world) settle(ctx context.Context) {
	ctx, cancel := context.WithTimeout(ctx, time.Minute)
	defer cancel()
	if err := w.fleet.Settled(ctx, logStream); err != nil {
		fmt.Fprintf(w.Out, "%v: the NATS servers have not recovered within a minute: %v\n", time.Since(w.began).Round(time.Second), err)
	}
}

// gone waits for the end of a process that was asked for.
func (w *world) gone(ctx context.Context, p *fleet.Process, pid int) {
	if err := p.WaitGone(ctx, pid); err != nil && ctx.Err() == nil {
		w.violate("shutdown", err.Error(), nil)
	}
}

// heal waits until a process is itself again.
func (w *world) heal(ctx context.Context, p *fleet.Process, f *history.Fault) {
	if err := p.WaitReady(ctx); err != nil && ctx.Err() == nil {
		w.violate("recovery", fmt.Sprintf("%v after %s; see %s", err, f.Kind, p.Log), nil)
	}
	w.mu.Lock()
	f.To = time.Now()
	w.mu.Unlock()
}

// take picks a process to which nothing is being done.
func (w *world) take(ctx context.Context, k kind, index int) *fleet.Process {
	group := w.fleet.Workers
	switch k.role {
	case fleet.Gateway:
		group = w.fleet.Gateways
	case fleet.NATS:
		group = w.fleet.Nodes
	case fleet.AWS:
		group = w.fleet.Services
	}
	p := group[index%len(group)]
	if k.name == "leader" {
		if p = w.fleet.Leader(ctx, logStream); p == nil {
			return nil
		}
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	disturbed := 0
	for _, other := range group {
		if w.held[other] {
			disturbed++
		}
	}
	if w.held[p] || disturbed >= mostAtOnce(k.role, len(group)) || p.PID() == 0 {
		return nil
	}
	w.held[p] = true
	return p
}

func (w *world) release(p *fleet.Process) {
	w.mu.Lock()
	defer w.mu.Unlock()
	delete(w.held, p)
}

// begin notes a fault.
func (w *world) begin(name string, p *fleet.Process) *history.Fault {
	f := &history.Fault{Kind: name, Process: p.Name, Role: p.Role, PID: p.PID(), From: time.Now()}
	if name == "leader" {
		w.tally.leaders.Add(1)
		f.Kind = "kill"
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	w.faults = append(w.faults, f)
	return f
}

func (w *world) setPID(f *history.Fault, pid int) {
	w.mu.Lock()
	defer w.mu.Unlock()
	f.PID = pid
}

// exited is told of the ends of processes. Those that nobody asked for are the lab's crash
// action, or something is wrong.
func (w *world) exited(e fleet.Exit) {
	const crashed = 3 // the exit code of the lab's crash
	switch {
	case !e.Ready && e.Asked == "":
		w.tally.failedStarts.Add(1)
	case e.Asked == "" && e.Code == crashed:
		w.setPID(w.begin("crash", e.Process), e.PID)
	case e.Asked == "":
		w.violate("process", fmt.Sprintf("%s (process %d) ended by itself: %s; see %s", e.Name, e.PID, e.Cause, e.Log), nil)
	case e.Asked == "term" && e.Ready && e.Code != 0 && e.Code != crashed:
		w.violate("shutdown", fmt.Sprintf("%s (process %d) ended after SIGTERM with %s; see %s", e.Name, e.PID, e.Cause, e.Log), nil)
	}
}

// ready is told of processes that are themselves again.
func (w *world) ready(p *fleet.Process) {
	w.mu.Lock()
	defer w.mu.Unlock()
	for _, f := range w.faults {
		if f.Kind == "crash" && f.Process == p.Name && f.To.IsZero() {
			f.To = time.Now()
		}
	}
}

func pause(ctx context.Context, d time.Duration) {
	select {
	case <-time.After(d):
	case <-ctx.Done():
	}
}
