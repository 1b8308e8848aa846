package queuetest

import (
	"context"
	"errors"
	"strconv"
	"sync"
	"testing"
	"time"

	"github.com/pay-theory/streamer/v2/queue"
)

const (
	// long is the lease where none should lapse.
	long = 10 * time.Minute

	// patience bounds what must happen but not at once.
	patience = time.Minute

	// moment is long enough for what would go wrong to do so most of the time. Nothing is
	// reported wrongly if it is too short.
	moment = 100 * time.Millisecond
)

// suite is what cases are written with.
type suite struct {
	testing.TB
	Harness
}

// answer is what a Receive returned.
type answer struct {
	deliveries []queue.Delivery
	err        error
}

// receiving starts a Receive and returns where its answer comes.
func receiving(ctx context.Context, q queue.Queue, max int) <-chan answer {
	c := make(chan answer, 1)
	go func() {
		deliveries, err := q.Receive(ctx, max)
		c <- answer{deliveries, err}
	}()
	return c
}

func (s *suite) ticket(nonce string) queue.Ticket {
	return queue.Ticket{Scope: "tenant:user", ID: "request-" + nonce, Action: "export", Group: "tenant", Nonce: nonce}
}

// numbered returns n tickets that differ.
func (s *suite) numbered(n int) []queue.Ticket {
	tickets := make([]queue.Ticket, n)
	for i := range tickets {
		tickets[i] = s.ticket(strconv.Itoa(i))
	}
	return tickets
}

func (s *suite) enqueue(q queue.Queue, tickets ...queue.Ticket) {
	s.Helper()
	for _, t := range tickets {
		ctx, cancel := context.WithTimeout(s.Context(), patience)
		err := q.Enqueue(ctx, t)
		cancel()
		if err != nil {
			s.Fatalf("Enqueue(%+v): %v", t, err)
		}
	}
}

// enqueueAll enqueues from several goroutines, for brokers with a long way. It may be called
// from any goroutine.
func (s *suite) enqueueAll(q queue.Queue, tickets []queue.Ticket) {
	const producers = 8
	var wg sync.WaitGroup
	for p := range producers {
		wg.Go(func() {
			for i := p; i < len(tickets); i += producers {
				if err := q.Enqueue(s.Context(), tickets[i]); err != nil {
					s.Errorf("Enqueue(%+v): %v", tickets[i], err)
					return
				}
			}
		})
	}
	wg.Wait()
}

// poll receives up to max tickets, none if there are none within that time.
func (s *suite) poll(q queue.Queue, max int, within time.Duration) []queue.Delivery {
	s.Helper()
	ctx, cancel := context.WithTimeout(s.Context(), within)
	defer cancel()
	deliveries, err := q.Receive(ctx, max)
	switch {
	case err != nil && len(deliveries) > 0:
		s.Fatalf("Receive returned %d tickets and an error: %v", len(deliveries), err)
	case errors.Is(err, context.DeadlineExceeded) && ctx.Err() != nil:
		return nil
	case err != nil:
		s.Fatalf("Receive: %v", err)
	case len(deliveries) < 1 || len(deliveries) > max:
		s.Fatalf("Receive(ctx, %d) returned %d tickets", max, len(deliveries))
	}
	return deliveries
}

// receive receives the one ticket that must be delivered within that time.
func (s *suite) receive(q queue.Queue, within time.Duration) queue.Delivery {
	s.Helper()
	deliveries := s.poll(q, 1, within)
	if len(deliveries) == 0 {
		s.Fatalf("no ticket was delivered within %v", within)
	}
	return deliveries[0]
}

// gets waits for the answer of a Receive, which must be that ticket.
func (s *suite) gets(waiting <-chan answer, within time.Duration, want queue.Ticket) {
	s.Helper()
	select {
	case a := <-waiting:
		if a.err != nil || len(a.deliveries) != 1 {
			s.Fatalf("Receive = %d tickets, %v", len(a.deliveries), a.err)
		}
		s.same(a.deliveries[0], want)
	case <-time.After(within):
		s.Fatalf("Receive still waits after %v", within)
	}
}

// soon receives a ticket that is ready now.
func (s *suite) soon(q queue.Queue) queue.Delivery {
	s.Helper()
	return s.receive(q, s.Tolerance)
}

// silent makes sure that nothing is delivered for that long.
func (s *suite) silent(q queue.Queue, d time.Duration) {
	s.Helper()
	for _, d := range s.poll(q, 1, d) {
		s.Fatalf("a ticket was delivered that should not have been: %+v", d.Ticket())
	}
}

// collect receives n different tickets that are ready now.
func (s *suite) collect(q queue.Queue, n, max int) map[queue.Ticket]queue.Delivery {
	s.Helper()
	held := make(map[queue.Ticket]queue.Delivery, n)
	for len(held) < n {
		deliveries := s.poll(q, min(max, n-len(held)), s.Tolerance)
		if len(deliveries) == 0 {
			s.Fatalf("%d of %d tickets were delivered, then none within %v", len(held), n, s.Tolerance)
		}
		for _, d := range deliveries {
			if held[d.Ticket()] != nil {
				s.Fatalf("delivered twice within its lease: %+v", d.Ticket())
			}
			held[d.Ticket()] = d
		}
	}
	return held
}

// work has receivers ack all they get and send the nonces to acked. stop ends them and
// returns what they acked after the last nonce that was read.
func (s *suite) work(q queue.Queue, receivers int) (acked <-chan string, stop func() []string) {
	ctx, cancel := context.WithCancel(s.Context())
	c := make(chan string)
	var wg sync.WaitGroup
	for range receivers {
		wg.Go(func() {
			for {
				deliveries, err := q.Receive(ctx, 1)
				if err != nil {
					if ctx.Err() == nil {
						s.Errorf("Receive: %v", err)
					}
					return
				}
				for _, d := range deliveries {
					if err := d.Ack(s.Context()); err != nil && ctx.Err() == nil {
						s.Errorf("Ack: %v", err)
					}
					select {
					case c <- d.Ticket().Nonce:
					case <-s.Context().Done():
						return
					}
				}
			}
		})
	}
	return c, func() (rest []string) {
		cancel()
		go func() { wg.Wait(); close(c) }()
		for nonce := range c {
			rest = append(rest, nonce)
		}
		return rest
	}
}

func (s *suite) ack(d queue.Delivery) {
	s.Helper()
	if err := d.Ack(s.Context()); err != nil {
		s.Fatalf("Ack: %v", err)
	}
}

func (s *suite) extend(d queue.Delivery) {
	s.Helper()
	if err := d.Extend(s.Context()); err != nil {
		s.Fatalf("Extend within the lease: %v", err)
	}
}

func (s *suite) retry(d queue.Delivery, delay time.Duration) {
	s.Helper()
	if err := d.Retry(s.Context(), delay); err != nil {
		s.Fatalf("Retry(ctx, %v): %v", delay, err)
	}
}

func (s *suite) same(d queue.Delivery, want queue.Ticket) {
	s.Helper()
	if got := d.Ticket(); got != want {
		s.Fatalf("another ticket was delivered\n got: %#v\nwant: %#v", got, want)
	}
}

// notBefore checks that no less than d has passed since start.
func (s *suite) notBefore(start time.Time, d time.Duration) {
	s.Helper()
	if passed := time.Since(start); passed < d-s.Early {
		s.Fatalf("delivered after %v, %v too early", passed, d-passed)
	}
}
