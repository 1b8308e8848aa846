// Package queuetest tests implementations of queue.Queue: each case holds one sentence of
// that contract, and quotes it when it fails.
//
//	func TestQueue(t *testing.T) {
//		queuetest.Run(t, queuetest.Harness{
//			New: func(tb testing.TB, lease time.Duration) queue.Queue {
//				q := myqueue.New(myqueue.WithLease(lease))
//				tb.Cleanup(q.Close)
//				return q
//			},
//		})
//	}
package queuetest

import (
	"testing"
	"time"

	"github.com/pay-theory/streamer/v2/queue"
)

// Harness says how to make the queues under test, and where they differ within the contract.
// Only New is required.
type Harness struct {
	// New returns an empty queue that nobody else uses, with that lease, or the shortest
	// longer one that it can have. It registers with tb what must be closed. Cases run in
	// parallel.
	New func(tb testing.TB, lease time.Duration) queue.Queue

	// Reopen ends the use of q abruptly, as a crash of its process would, and returns a queue
	// with the same tickets. Nil: tickets are gone with the process.
	Reopen func(tb testing.TB, q queue.Queue) queue.Queue

	// Scoped returns a queue as New does that takes at most max tickets of one scope. Nil: the
	// queue has no such bound.
	Scoped func(tb testing.TB, max int) queue.Queue

	// Around runs the body of a case, for example in a bubble of testing/synctest. Nil: it is
	// just called.
	Around func(t *testing.T, body func(t *testing.T))

	// Lease is the lease for cases in which one lapses. They take several times as long.
	// Default: 1 s.
	Lease time.Duration

	// Tolerance is how much later than due something may happen: what a slow broker or a busy
	// machine takes. Default: 2 s.
	Tolerance time.Duration

	// Early is how much earlier than due a ticket may be delivered by a broker with a coarse
	// clock. Default: 0.
	Early time.Duration

	// MaxDelay is the longest delay that Retry keeps to. 0: any.
	MaxDelay time.Duration

	// NoOldest: Depth can't tell how long the oldest ticket has been ready. Its Oldest is 0.
	NoOldest bool

	// Fair: groups with tickets take turns.
	Fair bool

	// FencesStaleHolders: Extend, Ack and Retry have no effect after the lease has ended, and
	// Extend returns ErrLeaseLost. Where it is false, the effect of a stale Ack is only logged.
	FencesStaleHolders bool
}

// Run runs all cases that apply to the queues of h, as subtests.
func Run(t *testing.T, h Harness) {
	h = h.withDefaults()
	for _, c := range cases() {
		if !c.appliesTo(h) {
			continue
		}
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			h.Around(t, func(t *testing.T) { c.check(t, h) })
		})
	}
}

func (h Harness) withDefaults() Harness {
	if h.Around == nil {
		h.Around = func(t *testing.T, body func(*testing.T)) { body(t) }
	}
	if h.Lease == 0 {
		h.Lease = time.Second
	}
	if h.Tolerance == 0 {
		h.Tolerance = 2 * time.Second
	}
	return h
}

// testCase is one case. It applies where needs is nil or true.
type testCase struct {
	name  string
	must  string // what the contract says
	run   func(s *suite)
	needs func(h Harness) bool
}

func (c testCase) appliesTo(h Harness) bool { return c.needs == nil || c.needs(h) }

func (c testCase) check(tb testing.TB, h Harness) {
	defer func() {
		if tb.Failed() {
			tb.Logf("what a queue.Queue must do: %s", c.must)
		}
	}()
	c.run(&suite{TB: tb, Harness: h})
}

func fences(h Harness) bool { return h.FencesStaleHolders }

func cases() []testCase {
	return []testCase{
		// delivery.go
		{"ticket arrives as it was sent", "all fields of a Ticket are arbitrary UTF-8, and arrive byte for byte.", asSent, nil},
		{"each ticket to one receiver", "a ticket goes to one worker at a time, and never again after Ack returned nil.", toOne, nil},
		{"enqueue twice", "equal tickets are delivered at least once: once or twice, but not never.", enqueueTwice, nil},
		{"too large", "a ticket that the queue can't take is refused with ErrTooLarge or ErrFull; what it takes arrives whole.", tooLarge, nil},
		{"ack is final", "Ack removes the ticket for good: it is not delivered again when its lease would have lapsed.", ackFinal, nil},
		{"ack twice", "Ack returns nil also when the ticket is gone already.", ackTwice, nil},
		{"extend after ack", "after Ack the ticket is gone, whatever the former holder calls.", extendAfterAck, nil},
		{"retry now", "Retry with delay 0 ends the lease: the ticket is delivered again at once.", retryNow, nil},
		{"retry with delay", "after Retry the ticket is delivered again, not before delay has passed, while other tickets flow.", retryDelay, nil},
		{"retry wakes a receiver", "a ticket that is handed back goes to somebody who waits already, as soon as its delay has passed.", retryWakes, nil},
		{"retry with long delay", "Retry takes any delay, or any up to Harness.MaxDelay.", retryLong, nil},
		{"retry ends the lease", "after Retry the former holder's calls change nothing: the delay is kept, not replaced by a late Extend.", retryThenExtend, fences},
		{"delivered however often", "a ticket is delivered again until it is acked. The queue neither drops it nor puts it aside after some number of times.", howeverOften, nil},
		{"tickets survive a crash", "Enqueue, Ack and Retry return nil when the change is as durable as the queue makes it.", survive, func(h Harness) bool { return h.Reopen != nil }},

		// lease.go
		{"lease is constant", "Lease is more than 0 and always the same.", leaseConstant, nil},
		{"lapse wakes a receiver", "when a lease ends before Ack or Retry, the same ticket is delivered again: not before, and soon after, to somebody who waits.", lapse, nil},
		{"lapse with nobody there", "a ticket whose lease ended while nobody waited is delivered to whoever comes.", lapseAlone, nil},
		{"extend keeps the lease", "a ticket whose lease is extended in time is not delivered again, however long it takes.", extendKeeps, nil},
		{"extend counts from now", "Extend makes the lease last its full length from now: no shorter, and no longer.", extendFromNow, nil},
		{"extend after loss", "Extend returns ErrLeaseLost, or nil from a queue that doesn't know, when the lease has ended. The new holder keeps the ticket.", extendLate, nil},
		{"extend before redelivery", "where stale holders are fenced, Extend returns ErrLeaseLost as soon as the lease has ended, and the ticket is delivered again.", extendLapsed, fences},
		{"stale ack", "Ack of a former holder returns nil. Where stale holders are fenced, the new holder's ticket stays.", staleAck, nil},
		{"stale retry", "where stale holders are fenced, Retry of a former holder returns nil and doesn't take the ticket from the new one.", staleRetry, fences},

		// wait.go
		{"returns what there is", "Receive waits until there is a ticket, not until there are max.", whatThereIs, nil},
		{"takes no more than it returns", "Receive leases at most max tickets, and only those that it returns: others get the rest at once.", noMore, nil},
		{"waits until there is a ticket", "Receive blocks while there is no ticket. It neither returns without one nor spins.", waits, nil},
		{"each waiting receiver is woken", "as many receivers as there are tickets stop waiting.", wakesEach, nil},
		{"one ticket is for one", "a ticket ends the wait of one receiver, not of others.", wakesOne, nil},
		{"ended context takes none", "Receive with a context that has ended returns its error and takes no ticket.", endedContext, nil},
		{"receive ends with its context", "when the context ends first, Receive returns its error and has taken none: later tickets go to others.", endsWithContext, nil},
		{"no ticket is lost to a leaver", "a ticket that comes as a receiver's context ends is either returned to it or delivered to another at once.", leaver, nil},
		{"calls end with their context", "all methods end soon after their context does, with its error, ErrUnavailable, or nil when they took effect.", callsEnd, nil},

		// depth.go
		{"depth tells what there is", "Depth returns what the queue holds: ready, leased and delayed tickets, and how long the oldest has been ready.", depth, nil},
		{"scope is bounded", "over the bound of a scope Enqueue returns ErrScopeFull and takes nothing, other scopes are not affected, and what Ack removes makes room.", scopeBounded, func(h Harness) bool { return h.Scoped != nil }},

		// load.go
		{"many in flight", "the number of leased tickets does not keep others from being delivered.", manyInFlight, nil},
		{"never stalls", "while there are tickets and receivers, tickets are delivered.", neverStalls, nil},
		{"groups take turns", "a group with many tickets does not delay the tickets of another group by their number.", fair, func(h Harness) bool { return h.Fair }},
	}
}
