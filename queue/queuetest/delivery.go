package queuetest

import (
	"errors"
	"math"
	"strings"
	"time"

	"github.com/pay-theory/streamer/v2/queue"
)

func asSent(s *suite) {
	q := s.New(s, long)
	hostile := []string{
		"", " ", "plain", "a.b.c", "*", ">", "../..", `"quoted" \n \u0000`, "\x00", "\r\n\t\x7f", "tenant=a&b;c,d%2F",
		"日本語", "e\u0301", "\u202eright to left", "\u2028\u2029", "\ufeff\ufffd\ufffe\uffff", "😀\U0010ffff", strings.Repeat("x", 128),
	}
	sent := make(map[queue.Ticket]bool)
	for i, text := range hostile {
		next := hostile[(i+1)%len(hostile)]
		t := queue.Ticket{Scope: text, ID: next, Action: text + next, Group: next, Nonce: text, SeenLast: uint64(i)}
		sent[t] = true
		s.enqueue(q, t)
	}
	most := queue.Ticket{Scope: "s", ID: "i", Action: "a", Nonce: "n", SeenLast: math.MaxUint64, SeenBeat: math.MaxUint64 - 1}
	sent[most] = true
	s.enqueue(q, most)
	for t, d := range s.collect(q, len(sent), 10) {
		if !sent[t] {
			s.Errorf("this ticket was not sent: %#v", t)
		}
		s.ack(d)
	}
}

func toOne(s *suite) {
	q := s.New(s, long)
	const n = 1000
	done := make(chan struct{})
	go func() {
		defer close(done)
		s.enqueueAll(q, s.numbered(n))
	}()
	acked, stop := s.work(q, 8)
	seen := make(map[string]bool)
	for range n {
		select {
		case nonce := <-acked:
			if seen[nonce] {
				s.Errorf("ticket %s was delivered twice", nonce)
			}
			seen[nonce] = true
		case <-time.After(s.Tolerance):
			s.Fatalf("%d of %d tickets were delivered, then none for %v", len(seen), n, s.Tolerance)
		}
	}
	<-done
	time.Sleep(moment)
	if rest := stop(); len(rest) > 0 {
		s.Errorf("%d more deliveries than tickets", len(rest))
	}
}

func enqueueTwice(s *suite) {
	q := s.New(s, long)
	t := s.ticket("twin")
	s.enqueue(q, t, t)
	d := s.soon(q)
	s.same(d, t)
	s.ack(d)
	for _, d := range s.poll(q, 1, s.Tolerance) { // the other may come later
		s.same(d, t)
		s.ack(d)
	}
	s.silent(q, moment)
}

func tooLarge(s *suite) {
	q := s.New(s, long)
	t := s.ticket("large")
	t.Action = strings.Repeat("0123456789abcdef", 4<<20/16)
	err := q.Enqueue(s.Context(), t)
	switch {
	case err == nil:
		if d := s.soon(q); d.Ticket() != t {
			s.Fatal("a ticket of 4 MiB was changed on its way")
		}
	case errors.Is(err, queue.ErrTooLarge) || errors.Is(err, queue.ErrFull):
		s.silent(q, moment)
	default:
		s.Fatalf("Enqueue of 4 MiB: %v", err)
	}
	s.enqueue(q, s.ticket("small"))
	s.same(s.soon(q), s.ticket("small"))
}

func ackFinal(s *suite) {
	q := s.New(s, s.Lease)
	s.enqueue(q, s.ticket("a"))
	s.ack(s.soon(q))
	s.silent(q, 3*q.Lease())
}

func ackTwice(s *suite) {
	q := s.New(s, s.Lease)
	s.enqueue(q, s.ticket("a"))
	d := s.soon(q)
	s.ack(d)
	s.ack(d)
	time.Sleep(2 * q.Lease())
	s.ack(d)
}

func extendAfterAck(s *suite) {
	q := s.New(s, s.Lease)
	s.enqueue(q, s.ticket("a"))
	d := s.soon(q)
	s.ack(d)
	err := d.Extend(s.Context())
	if !errors.Is(err, queue.ErrLeaseLost) && (err != nil || s.FencesStaleHolders) {
		s.Errorf("Extend after Ack: %v", err)
	}
	if err := d.Retry(s.Context(), 0); err != nil && s.FencesStaleHolders {
		s.Errorf("Retry after Ack: %v", err)
	}
	s.silent(q, 2*q.Lease())
}

func retryNow(s *suite) {
	q := s.New(s, long)
	s.enqueue(q, s.ticket("a"))
	s.retry(s.soon(q), 0)
	d := s.soon(q)
	s.same(d, s.ticket("a"))
	s.ack(d)
	s.silent(q, moment)
}

func retryDelay(s *suite) {
	q := s.New(s, long)
	delay := 3 * s.Lease
	late, others := s.ticket("late"), s.numbered(20)
	s.enqueue(q, late)
	d := s.soon(q)
	start := time.Now()
	s.retry(d, delay)
	s.enqueue(q, others...)
	for range others {
		d := s.soon(q)
		if d.Ticket() == late {
			s.notBefore(start, delay)
			s.Fatalf("other tickets did not flow during the delay of %v", delay)
		}
		s.ack(d)
	}
	d = s.receive(q, delay+s.Tolerance)
	s.notBefore(start, delay)
	s.same(d, late)
	s.ack(d)
}

func retryWakes(s *suite) {
	q := s.New(s, long)
	a, b := s.ticket("a"), s.ticket("b")
	s.enqueue(q, a, b)
	held := s.collect(q, 2, 2)
	waiting := receiving(s.Context(), q, 1)
	time.Sleep(moment)
	start := time.Now()
	s.retry(held[a], s.Lease)
	s.gets(waiting, s.Lease+s.Tolerance, a)
	s.notBefore(start, s.Lease)

	waiting = receiving(s.Context(), q, 1)
	time.Sleep(moment)
	s.retry(held[b], 0)
	s.gets(waiting, s.Tolerance, b)
}

func retryLong(s *suite) {
	q := s.New(s, s.Lease)
	delay := s.MaxDelay
	if delay == 0 {
		delay = math.MaxInt64
	}
	s.enqueue(q, s.ticket("a"))
	s.retry(s.soon(q), delay)
	s.silent(q, min(2*q.Lease(), delay/2))
}

func retryThenExtend(s *suite) {
	q := s.New(s, long)
	delay := 2 * s.Lease
	s.enqueue(q, s.ticket("a"))
	d := s.soon(q)
	start := time.Now()
	s.retry(d, delay)
	if err := d.Extend(s.Context()); !errors.Is(err, queue.ErrLeaseLost) {
		s.Errorf("Extend after Retry: %v", err)
	}
	s.retry(d, 0)
	s.ack(d)
	again := s.receive(q, delay+s.Tolerance)
	s.notBefore(start, delay)
	s.same(again, s.ticket("a"))
}

func howeverOften(s *suite) {
	q := s.New(s, s.Lease)
	s.enqueue(q, s.ticket("a"))
	for range 30 {
		d := s.receive(q, q.Lease()+s.Tolerance)
		s.same(d, s.ticket("a"))
		s.retry(d, 0)
	}
	for range 3 {
		s.same(s.receive(q, q.Lease()+s.Tolerance), s.ticket("a"))
	}
}

func survive(s *suite) {
	q := s.New(s, s.Lease)
	ready, leased, delayed, gone := s.ticket("ready"), s.ticket("leased"), s.ticket("delayed"), s.ticket("gone")
	s.enqueue(q, gone)
	s.ack(s.soon(q))
	s.enqueue(q, delayed)
	s.retry(s.soon(q), s.Lease)
	s.enqueue(q, leased)
	s.same(s.soon(q), leased)
	s.enqueue(q, ready)

	q = s.Reopen(s, q)
	missing := map[queue.Ticket]bool{ready: true, leased: true, delayed: true}
	for len(missing) > 0 {
		d := s.receive(q, q.Lease()+s.Lease+s.Tolerance)
		if d.Ticket() == gone {
			s.Fatal("an acked ticket came back")
		}
		delete(missing, d.Ticket())
		s.ack(d)
	}
	s.silent(q, 2*q.Lease())
}
