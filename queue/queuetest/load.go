package queuetest

import "time"

func manyInFlight(s *suite) {
	q := s.New(s, long)
	const n = 2000
	s.enqueueAll(q, s.numbered(n))
	s.collect(q, n, 100)
	last := s.ticket("one more")
	s.enqueue(q, last)
	s.same(s.soon(q), last)
}

func neverStalls(s *suite) {
	q := s.New(s, long)
	const (
		rounds    = 60
		tickets   = 50
		receivers = 8
	)
	idle := max(time.Second, s.Tolerance)
	acked, stop := s.work(q, receivers)
	for round := range rounds {
		s.enqueueAll(q, s.numbered(tickets))
		for n := range tickets {
			select {
			case <-acked:
			case <-time.After(idle):
				s.Fatalf("round %d: nothing was delivered for %v, with %d tickets and %d receivers there", round, idle, tickets-n, receivers)
			}
		}
	}
	stop()
}

func fair(s *suite) {
	q := s.New(s, long)
	const n = 2000
	s.enqueueAll(q, s.numbered(n))
	other := s.ticket("other")
	other.Group = "another tenant"
	s.enqueue(q, other)
	for before := range n + 1 {
		d := s.soon(q)
		s.ack(d)
		if d.Ticket() == other {
			if before > n/2 {
				s.Errorf("the first ticket of a group waited for %d of the %d tickets of another", before, n)
			}
			return
		}
	}
	s.Error("the ticket of the small group was not delivered")
}
