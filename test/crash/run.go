package crash

import (
	"context"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/pay-theory/streamer/v2/test/crash/fleet"
	"github.com/pay-theory/streamer/v2/test/crash/history"
	"github.com/pay-theory/streamer/v2/test/crash/load"
)

// world is one run.
type world struct {
	Config
	fleet   *fleet.Fleet
	driver  *load.Driver
	journal *load.Journal
	tally   tally
	began   time.Time

	open   atomic.Int64 // requests under way
	busy   sync.WaitGroup
	mu     sync.Mutex
	faults []*history.Fault
	held   map[*fleet.Process]bool // a fault is being done to it
}

// Run runs a fleet under chaos, and returns what came of it. The error is for what kept it from
// running; violations are in the report.
func Run(ctx context.Context, c Config) (*Report, error) {
	if err := c.applyDefaults(); err != nil {
		return nil, err
	}
	w := &world{Config: c, held: make(map[*fleet.Process]bool)}
	bin := filepath.Join(c.Dir, "bin")
	if err := fleet.Build(ctx, bin); err != nil {
		return nil, err
	}
	defer os.RemoveAll(bin)
	spec := c.spec()
	spec.OnExit, spec.OnReady = w.exited, w.ready
	f, err := fleet.Start(ctx, bin, spec)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	w.fleet = f
	w.journal = load.NewJournal(w.alive)
	w.driver = &load.Driver{Journal: w.journal, Seed: c.Seed, Lethal: c.Shape != fleet.Memory, Killed: w.killed, Broken: func(err error) {
		w.violate("protocol", err.Error(), nil)
	}}
	for _, g := range f.Gateways {
		w.driver.Gateways = append(w.driver.Gateways, load.Gateway{Name: g.Name, Addr: g.Addr})
	}
	if err := w.run(ctx); err != nil {
		return nil, err
	}
	f.Close()
	return w.report(), nil
}

func (w *world) run(ctx context.Context) error {
	reading, stop := context.WithCancel(ctx)
	var reader sync.WaitGroup
	var broken error
	reader.Go(func() { broken = w.journal.Follow(reading, w.fleet.Journal) })
	defer reader.Wait()
	defer stop()

	w.began = time.Now()
	fmt.Fprintf(w.Out, "%s for %v, seed %d, in %s\n", w.Shape, w.Time, w.Seed, w.Dir)
	chaotic, end := context.WithTimeout(ctx, 2*w.Time)
	defer end()
	living, giveUp := context.WithCancel(ctx)
	defer giveUp()
	crowds := w.driver.Crowds(living)
	var actors sync.WaitGroup
	actors.Go(func() { w.submit(chaotic, living) })
	actors.Go(func() { w.misbehave(chaotic, ctx) })
	actors.Go(func() { w.tell(chaotic) })
	actors.Go(func() {
		defer end()
		w.last(chaotic)
	})
	actors.Wait()

	w.driver.Calm()
	if err := w.fleet.WaitReady(ctx); err != nil {
		w.violate("recovery", err.Error(), nil)
	}
	limit := time.AfterFunc(recovery, giveUp)
	defer limit.Stop()
	w.busy.Wait()
	giveUp()
	crowds()
	w.lateCalls()
	stop()
	reader.Wait()
	if ctx.Err() != nil {
		return context.Cause(ctx)
	}
	return broken
}

// last waits for the end of the chaos: until its time is over, and longer where what the run is
// for has not come about yet.
func (w *world) last(ctx context.Context) {
	pause(ctx, w.Time)
	for ctx.Err() == nil && len(w.missing()) > 0 {
		pause(ctx, time.Second)
	}
}

// Which requests use up their attempts, whatever else is drawn: even numbers, since two that share
// an id begin with one. Those that are drawn are too few to have one in every run of minutes.
const firstHopeless, nextHopeless = 60, 1000

// submit begins requests, until loading ends. They go on for as long as living does.
func (w *world) submit(loading, living context.Context) {
	rng := rand.New(rand.NewPCG(w.Seed, 1))
	slots := make(chan struct{}, w.InFlight)
	tick := time.NewTicker(time.Duration(float64(time.Second) / w.Rate))
	defer tick.Stop()
	begin := func(n int, kind load.Kind) {
		select {
		case slots <- struct{}{}:
		case <-loading.Done():
			return
		}
		w.open.Add(1)
		w.busy.Go(func() {
			w.judge(w.driver.Live(living, n, kind))
			w.open.Add(-1)
			<-slots
		})
	}
	for n := 0; ; n++ {
		select {
		case <-tick.C:
		case <-loading.Done():
			return
		}
		switch {
		case n%nextHopeless == firstHopeless:
			begin(n, load.Hopeless)
		case n%2 == 0 && rng.IntN(30) == 0:
			begin(n, load.Shared)
			n++
			begin(n, load.Shared)
		default:
			begin(n, load.Any)
		}
	}
}

// judge checks the history of a request, and forgets it.
func (w *world) judge(r *history.Request) {
	faults := w.faultsSince(r)
	w.tally.add(r, faults)
	for _, v := range history.Check(w.rules(), r, faults) {
		w.violate(v.Guarantee, v.What, r)
	}
	w.lateCalls()
}

// lateCalls objects to handlers that were called for requests that had ended, unless their
// processes had been stopped just before.
func (w *world) lateCalls() {
	calls, late := w.journal.Calls()
	w.tally.calls.Store(int64(calls))
	for _, l := range late {
		if !w.stopped(l.PID, l.Start.Add(-3*lease), l.Start) {
			w.violate("G10", fmt.Sprintf("the handler of %s was called for attempt %d at %v (process %d), after the request's end", l.ID, l.Attempt, l.Start, l.PID), nil)
		}
	}
}

// faultsSince returns the faults that there were while there was the request.
func (w *world) faultsSince(r *history.Request) []history.Fault {
	var from time.Time
	if len(r.Submits) > 0 {
		from = slices.MinFunc(r.Submits, func(a, b history.Submit) int { return a.From.Compare(b.From) }).From
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	var list []history.Fault
	for _, f := range w.faults {
		if f.Touches(from, time.Now(), 3*lease) {
			list = append(list, *f)
		}
	}
	return list
}

// alive reports whether a process of the fleet has that id.
func (w *world) alive(pid int) bool {
	return slices.ContainsFunc(w.fleet.Processes(), func(p *fleet.Process) bool { return p.PID() == pid })
}

// killed reports whether a process was killed between two times.
func (w *world) killed(process string, from, to time.Time) bool {
	return w.had(func(f *history.Fault) bool {
		return f.Kind == "kill" && f.Process == process && !f.From.Before(from) && !f.From.After(to)
	})
}

// stopped reports whether a process stood still at a time between two.
func (w *world) stopped(pid int, from, to time.Time) bool {
	return w.had(func(f *history.Fault) bool { return f.PID == pid && f.Touches(from, to, 0) })
}

func (w *world) had(fault func(*history.Fault) bool) bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	return slices.ContainsFunc(w.faults, fault)
}

// tell says how it goes, until ctx ends.
func (w *world) tell(ctx context.Context) {
	tick := time.NewTicker(10 * time.Second)
	defer tick.Stop()
	for {
		select {
		case <-tick.C:
			w.mu.Lock()
			faults := len(w.faults)
			w.mu.Unlock()
			fmt.Fprintf(w.Out, "%v: requests %d, under way %d, cuts %d, faults %d, violations %d\n", time.Since(w.began).Round(time.Second),
				w.tally.requests.Load(), w.open.Load(), w.driver.Cuts.Total(), faults, w.tally.violations.Load())
		case <-ctx.Done():
			return
		}
	}
}
