package streamer

import (
	"context"
	"errors"
	"fmt"
	"math"
	"math/rand/v2"
	"sync"
	"time"

	"github.com/pay-theory/streamer/v2/progress"
	"github.com/pay-theory/streamer/v2/queue"
)

// Run works on queued requests until ctx ends or Shutdown is called, and returns when its
// handlers have returned or were handed back, or the time for that is over. When ctx ends,
// handlers have 10 s to finish, and an error says which have not; call Shutdown first to choose,
// whose error that is then. Run also returns an error when it can't begin: it was called before,
// the router was shut down, or queue and log don't fit together.
func (m *Mux) Run(ctx context.Context) error {
	if m.localLog && !m.localQueue && !m.cfg.mixed {
		return errors.New("streamer: Run: other processes share the queue but not the log, so their workers could not find the requests: " +
			"use a log that is shared too (WithLog), or WithLocalLog when this process is the queue's only user")
	}
	if err := m.life.begin(); err != nil {
		return err
	}

	receiving, stop := context.WithCancel(ctx)
	defer stop()
	var loops sync.WaitGroup
	loops.Go(func() { m.sweep(receiving) })
	loops.Go(func() { m.receive(receiving, context.WithoutCancel(ctx)) })
	select {
	case <-ctx.Done():
	case <-m.life.draining:
	}
	stop()
	loops.Wait()
	m.life.leave()

	select {
	case <-m.life.draining: // the context of Shutdown says how long
		select {
		case <-m.life.idle:
		case <-m.life.over:
		}
		return nil
	default:
		ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), drainGrace)
		defer cancel()
		return m.Shutdown(ctx)
	}
}

// Shutdown takes on nothing more, lets what runs finish, and hands back what has not finished
// shortly before ctx ends: queued requests go on elsewhere, without having used an attempt.
// It returns nil when nothing runs any more, else an error that says what does. Viewers can
// go on reading; transports have a Shutdown of their own, to be called afterwards.
func (m *Mux) Shutdown(ctx context.Context) error {
	m.life.drain(ctx)
	select {
	case <-m.life.idle:
		if m.cfg.own != nil {
			return m.cfg.own.Close()
		}
		return nil
	default:
	}
	s := m.Stats()
	if n := s.Running + s.Stuck; n > 0 {
		return fmt.Errorf("streamer: Shutdown: %d handlers have not returned: %w", n, context.Cause(ctx))
	}
	return fmt.Errorf("streamer: Shutdown: the log could not be told what became of the last attempts: %w", context.Cause(ctx))
}

// Draining returns a channel that is closed when Shutdown begins: transports tell their
// clients to move then.
func (m *Mux) Draining() <-chan struct{} { return m.life.draining }

// drainGrace is how long handlers have when the context of Run ends.
const drainGrace = 10 * time.Second

// receive takes tickets from the queue, as many as there are free slots, and works on each.
func (m *Mux) receive(ctx, base context.Context) {
	slots := make(chan struct{}, m.cfg.concurrency)
	failures := 0
	for {
		select {
		case slots <- struct{}{}:
		case <-ctx.Done():
			return
		}
		free := 1
	more:
		for free < maxReceive {
			select {
			case slots <- struct{}{}:
				free++
			default:
				break more
			}
		}
		m.waiting.Store(time.Now().UnixNano())
		deliveries, err := m.cfg.queue.Receive(ctx, free)
		m.waiting.Store(math.MaxInt64)
		for range free - len(deliveries) {
			<-slots
		}
		for _, d := range deliveries {
			m.life.spawn(func() { m.work(base, d, func() { <-slots }) })
		}
		if err == nil {
			failures = 0
			continue
		}
		if ctx.Err() != nil {
			return
		}
		failures++
		pause := jitter(min(100*time.Millisecond<<min(failures, 10), 10*time.Second))
		m.log.Warn("queue can't be read", "error", err, "pause", pause)
		select {
		case <-time.After(pause):
		case <-ctx.Done():
			return
		}
	}
}

// maxReceive bounds what one Receive may lease.
const maxReceive = 32

// sweep enqueues again what has not ended and shows no sign of life for several leases: its
// ticket may be lost. A request whose worker lives shows one every third of a lease. One that
// waits shows none, so it is enqueued again only while a worker here waits for work: then
// the queue holds nothing. A ticket too many does no harm.
func (m *Mux) sweep(ctx context.Context) {
	lease := m.cfg.queue.Lease()
	idle := sweepLeases * lease
	for {
		select {
		case <-time.After(jitter(idle)):
		case <-ctx.Done():
			return
		}
		n := 0
		for p, err := range m.cfg.log.Open(ctx, idle) {
			if err != nil {
				if ctx.Err() == nil {
					m.log.Warn("sweep can't list open requests", "error", err)
				}
				break
			}
			if !m.lost(p, idle) {
				continue
			}
			t := queue.Ticket{
				Scope: p.Key.Scope, ID: p.Key.ID, Action: p.State.Action, Group: p.State.Group, Nonce: m.ids.next(),
				SeenLast: p.State.Last, SeenBeat: p.Beat,
			}
			bounded, cancel := m.queueContext(ctx, storeTimeout)
			err := m.cfg.queue.Enqueue(bounded, t)
			cancel()
			if err != nil {
				m.log.Warn("sweep can't enqueue", "request_id", p.Key.ID, "action", p.State.Action, "error", err)
				break
			}
			m.stats.swept.Add(1)
			m.log.Info("request without a sign of life enqueued again", "request_id", p.Key.ID, "action", p.State.Action, "phase", p.State.Phase)
			if n++; n == maxSweep {
				break
			}
		}
	}
}

const (
	sweepLeases = 3
	maxSweep    = 1000 // requests enqueued in one pass
)

// lost reports whether the ticket of p, quiet for at least idle, may be lost.
func (m *Mux) lost(p progress.Pending, idle time.Duration) bool {
	switch p.State.Phase {
	case progress.Accepted, progress.Retrying:
		waited := time.Duration(time.Now().UnixNano() - m.waiting.Load())
		return waited >= m.cfg.queue.Lease() && p.Idle >= p.State.Delay+idle
	default:
		return true
	}
}

// jitter returns d, give or take a quarter.
func jitter(d time.Duration) time.Duration {
	return d - d/4 + rand.N(d/2+1)
}
