package queuetest

import (
	"errors"
	"time"

	"github.com/pay-theory/streamer/v2/queue"
)

func leaseConstant(s *suite) {
	q := s.New(s, s.Lease)
	lease := q.Lease()
	if lease < s.Lease {
		s.Errorf("Lease() = %v of a queue that was asked for %v", lease, s.Lease)
	}
	s.enqueue(q, s.ticket("a"))
	s.ack(s.soon(q))
	if again := q.Lease(); again != lease {
		s.Errorf("Lease() = %v, then %v", lease, again)
	}
}

func lapse(s *suite) {
	q := s.New(s, s.Lease)
	t := s.ticket("a")
	t.SeenLast, t.SeenBeat = 7, 8
	s.enqueue(q, t)
	for range 3 {
		start := time.Now()
		s.same(s.soon(q), t)
		again := s.receive(q, q.Lease()+s.Tolerance)
		s.notBefore(start, q.Lease())
		s.same(again, t)
		s.retry(again, 0)
	}
}

func lapseAlone(s *suite) {
	q := s.New(s, s.Lease)
	s.enqueue(q, s.numbered(3)...)
	s.collect(q, 3, 3)
	time.Sleep(q.Lease() + moment)
	for _, d := range s.collect(q, 3, 3) {
		s.ack(d)
	}
	s.silent(q, 2*q.Lease())
}

func extendKeeps(s *suite) {
	q := s.New(s, s.Lease)
	s.enqueue(q, s.ticket("a"))
	d := s.soon(q)
	for range 5 * 3 {
		s.silent(q, q.Lease()/3)
		s.extend(d)
	}
	s.ack(d)
	s.silent(q, 2*q.Lease())
}

func extendFromNow(s *suite) {
	q := s.New(s, s.Lease)
	s.enqueue(q, s.ticket("a"))
	d := s.soon(q)
	waiting := receiving(s.Context(), q, 1)
	s.extend(d)
	var start time.Time
	for range 3 {
		time.Sleep(q.Lease() / 2)
		start = time.Now()
		s.extend(d)
	}
	s.gets(waiting, q.Lease()+s.Tolerance, s.ticket("a"))
	s.notBefore(start, q.Lease())
}

// lose returns the deliveries of a ticket whose first holder lost the lease to a second.
func lose(s *suite, q queue.Queue) (stale, holder queue.Delivery) {
	s.Helper()
	s.enqueue(q, s.ticket("a"))
	stale = s.soon(q)
	holder = s.receive(q, q.Lease()+s.Tolerance)
	s.same(holder, s.ticket("a"))
	return stale, holder
}

func extendLate(s *suite) {
	q := s.New(s, s.Lease)
	stale, holder := lose(s, q)
	if err := stale.Extend(s.Context()); !errors.Is(err, queue.ErrLeaseLost) && (err != nil || s.FencesStaleHolders) {
		s.Errorf("Extend after another got the ticket: %v", err)
	}
	s.extend(holder)
	s.silent(q, q.Lease()/2)
	s.ack(holder)
	s.silent(q, 2*q.Lease())
}

func extendLapsed(s *suite) {
	q := s.New(s, s.Lease)
	s.enqueue(q, s.ticket("a"))
	d := s.soon(q)
	time.Sleep(q.Lease())
	if err := d.Extend(s.Context()); !errors.Is(err, queue.ErrLeaseLost) {
		s.Errorf("Extend after the lease: %v", err)
	}
	s.same(s.soon(q), s.ticket("a"))
}

func staleAck(s *suite) {
	q := s.New(s, s.Lease)
	stale, holder := lose(s, q)
	s.ack(stale)
	if s.FencesStaleHolders {
		s.extend(holder)
	}
	kept := len(s.poll(q, 1, q.Lease()+s.Tolerance)) > 0
	switch {
	case !s.FencesStaleHolders:
		s.Logf("the ticket is still there after a stale Ack: %t", kept)
	case !kept:
		s.Error("a stale Ack removed the ticket that another held")
	}
}

func staleRetry(s *suite) {
	q := s.New(s, s.Lease)
	stale, holder := lose(s, q)
	s.retry(stale, 0)
	s.silent(q, q.Lease()/2)
	s.extend(holder)
	s.ack(holder)
	s.silent(q, 2*q.Lease())
}
