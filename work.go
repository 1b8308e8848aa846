package streamer

import (
	"context"
	"errors"
	"fmt"
	"math"
	"math/rand/v2"
	"sync"
	"time"
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
	loops.Go(func() { m.measure(receiving) })
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
	crowded := 0 // times in a row that nothing had a free place but slots were free
	for {
		select {
		case slots <- struct{}{}:
		case <-ctx.Done():
			return
		}
		free := 1
	more:
		for free < maxReceive>>crowded {
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
		refused := 0
		for _, d := range deliveries {
			t := d.Ticket()
			leave, entered := m.crowd.enter(m.route(t.Action), t.Group)
			if entered {
				m.life.spawn(func() { m.work(base, d, func() { leave(); <-slots }) })
				continue
			}
			refused++
			m.life.spawn(func() { m.handBack(base, d, busyDelay); <-slots })
		}
		if refused < len(deliveries) || err != nil {
			crowded = 0
		}
		var pause <-chan time.Time
		var left <-chan struct{}
		switch {
		case err == nil && refused == 0:
			failures = 0
			continue
		case err == nil:
			failures = 0
			pause, left = time.After(crowdPause<<crowded), m.crowd.left
			crowded = min(crowded+1, maxCrowded)
		case ctx.Err() != nil:
			return
		default:
			failures++
			d := jitter(min(100*time.Millisecond<<min(failures, 5), 2*time.Second))
			m.log.Warn("queue can't be read", "error", err, "pause", d)
			pause = time.After(d)
		}
		select {
		case <-pause:
		case <-left:
		case <-ctx.Done():
			return
		}
	}
}

// maxReceive bounds what one Receive may lease.
const maxReceive = 32

// jitter returns d, give or take a quarter.
func jitter(d time.Duration) time.Duration {
	return d - d/4 + rand.N(d/2+1)
}
