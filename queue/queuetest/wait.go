package queuetest

import (
	"context"
	"errors"
	"sync/atomic"
	"time"

	"github.com/pay-theory/streamer/v2/queue"
)

func whatThereIs(s *suite) {
	q := s.New(s, long)
	waiting := receiving(s.Context(), q, 10)
	time.Sleep(moment)
	s.enqueue(q, s.ticket("a"))
	s.gets(waiting, s.Tolerance, s.ticket("a"))
	s.enqueue(q, s.ticket("b"))
	s.collect(q, 1, 10)
}

func noMore(s *suite) {
	q := s.New(s, long)
	tickets := s.numbered(10)
	s.enqueue(q, tickets...)
	first := s.poll(q, 3, s.Tolerance)
	if len(first) == 0 {
		s.Fatal("no ticket was delivered")
	}
	rest := s.collect(q, len(tickets)-len(first), 3)
	for _, d := range first {
		if rest[d.Ticket()] != nil {
			s.Errorf("delivered twice within its lease: %+v", d.Ticket())
		}
	}
}

// watched is a context that counts how often it is looked at.
type watched struct {
	context.Context
	looks atomic.Int64
}

func (w *watched) Done() <-chan struct{} { w.looks.Add(1); return w.Context.Done() }
func (w *watched) Err() error            { w.looks.Add(1); return w.Context.Err() }

func waits(s *suite) {
	q := s.New(s, s.Lease)
	ctx := &watched{Context: s.Context()}
	waiting := receiving(ctx, q, 1)
	select {
	case a := <-waiting:
		s.Fatalf("Receive of an empty queue = %d tickets, %v", len(a.deliveries), a.err)
	case <-time.After(2 * q.Lease()):
	}
	if looks, most := ctx.looks.Load(), int64(20+2*q.Lease()/(10*time.Millisecond)); looks > most {
		s.Errorf("Receive looked at its context %d times while there was nothing to do: it spins", looks)
	}
	s.enqueue(q, s.ticket("a"))
	s.gets(waiting, s.Tolerance, s.ticket("a"))
}

func wakesEach(s *suite) {
	q := s.New(s, long)
	const n = 16
	ctx, cancel := context.WithTimeout(s.Context(), moment+patience)
	defer cancel()
	var waiting []<-chan answer
	for range n {
		waiting = append(waiting, receiving(ctx, q, 1))
	}
	time.Sleep(moment)
	start := time.Now()
	s.enqueue(q, s.numbered(n)...)
	seen := make(map[queue.Ticket]bool)
	for _, c := range waiting {
		a := <-c
		if a.err != nil || len(a.deliveries) != 1 {
			s.Fatalf("Receive = %d tickets, %v, of %d receivers for as many tickets", len(a.deliveries), a.err, n)
		}
		seen[a.deliveries[0].Ticket()] = true
	}
	if len(seen) != n {
		s.Errorf("%d receivers got only %d different tickets", n, len(seen))
	}
	if took := time.Since(start); took > s.Tolerance {
		s.Errorf("it took %v until all %d receivers had a ticket", took, n)
	}
}

func wakesOne(s *suite) {
	q := s.New(s, long)
	const n = 8
	ctx, cancel := context.WithCancel(s.Context())
	defer cancel()
	answers := make(chan answer, n)
	for range n {
		go func() { answers <- <-receiving(ctx, q, 1) }()
	}
	time.Sleep(moment)
	s.enqueue(q, s.ticket("a"))
	select {
	case a := <-answers:
		if a.err != nil || len(a.deliveries) != 1 {
			s.Fatalf("Receive = %d tickets, %v", len(a.deliveries), a.err)
		}
	case <-time.After(s.Tolerance):
		s.Fatalf("none of %d receivers got the ticket within %v", n, s.Tolerance)
	}
	select {
	case a := <-answers:
		s.Fatalf("a second Receive returned after one ticket: %d tickets, %v", len(a.deliveries), a.err)
	case <-time.After(moment):
	}
	cancel()
	for range n - 1 {
		if a := <-answers; !errors.Is(a.err, context.Canceled) || len(a.deliveries) > 0 {
			s.Errorf("Receive after its context ended = %d tickets, %v", len(a.deliveries), a.err)
		}
	}
	s.enqueue(q, s.ticket("b"))
	s.same(s.soon(q), s.ticket("b"))
}

func endedContext(s *suite) {
	q := s.New(s, long)
	s.enqueue(q, s.numbered(3)...)
	ctx, cancel := context.WithCancel(s.Context())
	cancel()
	for range 10 {
		if deliveries, err := q.Receive(ctx, 1); !errors.Is(err, context.Canceled) || len(deliveries) > 0 {
			s.Fatalf("Receive = %d tickets, %v", len(deliveries), err)
		}
	}
	s.collect(q, 3, 3)
}

func endsWithContext(s *suite) {
	q := s.New(s, long)
	ctx, cancel := context.WithCancel(s.Context())
	waiting := receiving(ctx, q, 1)
	time.Sleep(moment)
	cancel()
	select {
	case a := <-waiting:
		if !errors.Is(a.err, context.Canceled) || len(a.deliveries) > 0 {
			s.Fatalf("Receive = %d tickets, %v", len(a.deliveries), a.err)
		}
	case <-time.After(s.Tolerance):
		s.Fatalf("Receive still waits %v after its context ended", s.Tolerance)
	}
	late, cancel := context.WithTimeout(s.Context(), moment)
	defer cancel()
	if deliveries, err := q.Receive(late, 1); !errors.Is(err, context.DeadlineExceeded) || len(deliveries) > 0 {
		s.Fatalf("Receive = %d tickets, %v", len(deliveries), err)
	}
	s.enqueue(q, s.ticket("a"))
	s.same(s.soon(q), s.ticket("a"))
}

func leaver(s *suite) {
	q := s.New(s, long)
	for i, t := range s.numbered(200) {
		leaving, leave := context.WithCancel(s.Context())
		staying, stop := context.WithTimeout(s.Context(), moment+s.Tolerance)
		first := receiving(leaving, q, 1)
		second := receiving(staying, q, 1)
		if i%3 > 0 {
			time.Sleep(time.Millisecond)
		}
		before := i%2 == 0
		left := make(chan struct{})
		go func() { leave(); close(left) }()
		if before {
			<-left
		}
		s.enqueue(q, t)
		<-left
		a := <-first
		if a.err == nil {
			stop()
		}
		b := <-second
		stop()
		if before && a.err == nil {
			s.Fatalf("round %d: Receive returned a ticket that came after its context had ended", i)
		}
		got := append(a.deliveries, b.deliveries...)
		if len(got) != 1 {
			s.Fatalf("round %d: %d tickets were delivered instead of one (leaver: %v, other receiver: %v)", i, len(got), a.err, b.err)
		}
		s.same(got[0], t)
		s.ack(got[0])
	}
}

func callsEnd(s *suite) {
	q := s.New(s, long)
	s.enqueue(q, s.numbered(3)...)
	var held []queue.Delivery
	for _, d := range s.collect(q, 3, 3) {
		held = append(held, d)
	}
	ctx, cancel := context.WithCancel(s.Context())
	cancel()
	calls := map[string]func() error{
		"Enqueue": func() error { return q.Enqueue(ctx, s.ticket("late")) },
		"Extend":  func() error { return held[0].Extend(ctx) },
		"Ack":     func() error { return held[1].Ack(ctx) },
		"Retry":   func() error { return held[2].Retry(ctx, 0) },
	}
	for name, call := range calls {
		start := time.Now()
		if err := call(); err != nil && !errors.Is(err, context.Canceled) && !errors.Is(err, queue.ErrUnavailable) {
			s.Errorf("%s with a context that has ended: %v", name, err)
		}
		if took := time.Since(start); took > s.Tolerance {
			s.Errorf("%s with a context that has ended took %v", name, took)
		}
	}
}
