package streamer

import (
	"context"
	"errors"
	"sync"
	"sync/atomic"
	"time"
)

// life tracks what a router runs, so that Shutdown can wait for it.
type life struct {
	draining chan struct{} // closed when no more is taken on
	expel    chan struct{} // closed when what runs is to be handed back
	idle     chan struct{} // closed when draining and nothing runs any more
	over     chan struct{} // closed when a Shutdown has given up waiting

	mu       sync.Mutex
	n        int // what has entered and not left
	drained  bool
	expelled bool
	ended    bool
	running  bool // Run was called

	spare  chan func()  // to a goroutine that has nothing to do
	spares atomic.Int32 // how many there are
}

// maxSpare bounds the goroutines that are kept for the next task: their stacks have grown
// already, which saves a good part of what a short task costs.
const maxSpare = 256

func newLife() life {
	return life{
		draining: make(chan struct{}), expel: make(chan struct{}), idle: make(chan struct{}), over: make(chan struct{}),
		spare: make(chan func()),
	}
}

// begin counts Run.
func (l *life) begin() error {
	l.mu.Lock()
	defer l.mu.Unlock()
	switch {
	case l.drained:
		return errors.New("streamer: Run after Shutdown")
	case l.running:
		return errors.New("streamer: Run was called before")
	}
	l.running = true
	l.n++
	return nil
}

// enter counts something that begins. It returns false when nothing may.
func (l *life) enter() bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.drained {
		return false
	}
	l.n++
	return true
}

// hold counts something that belongs to what has entered.
func (l *life) hold() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.n++
}

func (l *life) leave() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.n--
	if l.drained && l.n == 0 {
		close(l.idle)
	}
}

// spawn runs f on a goroutine that is counted until it ends.
func (l *life) spawn(f func()) {
	select {
	case l.spare <- f:
	default:
		l.hold()
		go l.serve(f)
	}
}

// serve runs f and then, while Run works, what else there is.
func (l *life) serve(f func()) {
	defer l.leave()
	for f != nil {
		f()
		f = l.next()
	}
}

// next waits for a task. It returns nil when the goroutine is not needed any more.
func (l *life) next() func() {
	defer l.spares.Add(-1)
	if l.spares.Add(1) > maxSpare || !l.working() {
		return nil
	}
	select {
	case f := <-l.spare:
		return f
	case <-l.draining:
		return nil
	}
}

func (l *life) working() bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.running && !l.drained
}

// drain lets nothing more begin and waits until nothing runs or ctx ends. A while before
// that, what still runs is expelled: it is told to stop, and has the rest of the time to be
// handed back.
func (l *life) drain(ctx context.Context) {
	l.mu.Lock()
	if !l.drained {
		l.drained = true
		close(l.draining)
		if l.n == 0 {
			close(l.idle)
		}
	}
	l.mu.Unlock()
	var early <-chan time.Time
	if deadline, ok := ctx.Deadline(); ok {
		left := time.Until(deadline)
		timer := time.NewTimer(left - min(2*handBack, left/2))
		defer timer.Stop()
		early = timer.C
	}
	for {
		select {
		case <-l.idle:
			return
		case <-early:
			l.stop(&l.expelled, l.expel)
			early = nil
		case <-ctx.Done():
			l.stop(&l.expelled, l.expel)
			l.stop(&l.ended, l.over)
			return
		}
	}
}

// stop closes c, once.
func (l *life) stop(done *bool, c chan struct{}) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if !*done {
		*done = true
		close(c)
	}
}

// handBack is how long a handler has to return once it was expelled.
const handBack = time.Second
