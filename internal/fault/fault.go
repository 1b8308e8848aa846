// Package fault wraps a queue or a log so that it misbehaves as real ones do, within their
// contracts, at rates that a test sets. It is what randomised tests run on.
package fault

import (
	"context"
	"fmt"
	"math"
	"math/rand/v2"
	"sync"
	"sync/atomic"
	"time"
)

// Fault is one way to misbehave. The zero value never does. Its methods may be called
// concurrently, also while the wrapper is in use.
type Fault struct {
	rate  atomic.Uint64 // the bits of a float64
	count atomic.Int64
}

// Set makes the fault happen with probability rate, 0 to 1, from now on.
func (f *Fault) Set(rate float64) {
	if !(rate >= 0 && rate <= 1) {
		panic(fmt.Sprintf("fault: Set(%v): a rate is from 0 to 1", rate))
	}
	f.rate.Store(math.Float64bits(rate))
}

// Count returns how often the fault has happened.
func (f *Fault) Count() int64 { return f.count.Load() }

// dice is a source of chance that goroutines can share.
type dice struct {
	mu  sync.Mutex
	rng *rand.Rand
}

func newDice(seed uint64) *dice { return &dice{rng: rand.New(rand.NewPCG(seed, 0))} }

// hit decides whether f happens now, and counts it.
func (d *dice) hit(f *Fault) bool {
	rate := math.Float64frombits(f.rate.Load())
	if rate == 0 {
		return false
	}
	d.mu.Lock()
	hit := d.rng.Float64() < rate
	d.mu.Unlock()
	if hit {
		f.count.Add(1)
	}
	return hit
}

// upTo returns a duration from 0 to longest.
func (d *dice) upTo(longest time.Duration) time.Duration {
	d.mu.Lock()
	defer d.mu.Unlock()
	return time.Duration(d.rng.Int64N(int64(longest) + 1))
}

// pause waits for up to longest if f happens now. The error is that of a ctx that ended
// meanwhile.
func (d *dice) pause(ctx context.Context, f *Fault, longest time.Duration) error {
	if !d.hit(f) {
		return nil
	}
	timer := time.NewTimer(d.upTo(longest))
	defer timer.Stop()
	select {
	case <-timer.C:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}
