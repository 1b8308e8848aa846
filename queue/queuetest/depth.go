package queuetest

import (
	"errors"
	"time"

	"github.com/pay-theory/streamer/v2/queue"
)

func depth(s *suite) {
	q := s.New(s, long)
	measured, ok := q.(queue.Measured)
	if !ok {
		s.Logf("%T does not implement queue.Measured", q)
		return
	}
	s.depth(measured, "an empty queue", func(d queue.Depth) bool { return d == queue.Depth{} })
	s.enqueue(q, s.numbered(5)...)
	leased, delayed := s.soon(q), s.soon(q)
	s.retry(delayed, time.Hour)
	s.depth(measured, "3 ready tickets, 1 leased, 1 delayed", func(d queue.Depth) bool {
		return d.Ready == 3 && d.Leased+d.Delayed == 2 && d.Leased >= 1 && d.Oldest > 0 != s.NoOldest && d.Oldest < patience
	})
	s.ack(leased)
	for range 3 {
		s.ack(s.soon(q))
	}
	s.depth(measured, "1 delayed ticket", func(d queue.Depth) bool {
		return d.Ready == 0 && d.Leased+d.Delayed == 1 && d.Oldest == 0
	})
}

// depth waits until the queue tells what is so: a broker may take a moment.
func (s *suite) depth(q queue.Measured, what string, is func(queue.Depth) bool) {
	s.Helper()
	deadline := time.Now().Add(s.Tolerance)
	for ; ; <-time.After(20 * time.Millisecond) {
		d, err := q.Depth(s.Context())
		switch {
		case err != nil:
			s.Fatalf("Depth of %s: %v", what, err)
		case is(d):
			return
		case time.Now().After(deadline):
			s.Fatalf("Depth of %s = %+v", what, d)
		}
	}
}

func scopeBounded(s *suite) {
	q := s.Scoped(s, 3)
	s.enqueue(q, s.numbered(3)...)
	other := s.ticket("other")
	other.Scope = "another scope"
	refused := func() {
		s.Helper()
		if err := q.Enqueue(s.Context(), s.ticket("one more")); !errors.Is(err, queue.ErrScopeFull) {
			s.Fatalf("Enqueue over the bound of the scope: got %v, want ErrScopeFull", err)
		}
	}
	refused()
	s.enqueue(q, other)
	d := s.soon(q)
	for d.Ticket() == other {
		d = s.soon(q)
	}
	refused() // a leased ticket counts
	s.ack(d)
	deadline := time.Now().Add(s.Tolerance)
	for ; ; <-time.After(20 * time.Millisecond) { // a broker may take a moment to have counted the Ack
		err := q.Enqueue(s.Context(), s.ticket("room"))
		if err == nil {
			break
		}
		if !errors.Is(err, queue.ErrScopeFull) || time.Now().After(deadline) {
			s.Fatalf("Enqueue when Ack has made room: %v", err)
		}
	}
	refused()
}
