// Package queue holds the contract of what brings requests to workers. A queue moves
// [Ticket]s, not work: what a request is and how it stands is in its log (package progress), so
// a queue may deliver a ticket twice, late or out of order without harm.
//
// Adapters implement [Queue] and prove it with package queuetest.
package queue

import (
	"context"
	"errors"
	"time"
)

// Ticket says that a request wants a worker. All fields are arbitrary UTF-8 to a Queue.
type Ticket struct {
	Scope  string `json:"scope"` // with ID, the key of the request's log
	ID     string `json:"id"`
	Action string `json:"action"`
	Group  string `json:"group,omitempty"` // whom it counts for: queues that can are fair between groups
	Nonce  string `json:"nonce"`           // tells tickets for the same request apart; a redelivery has the same

	// SeenLast and SeenBeat are set on a ticket that takes the place of one that may be lost:
	// the request's state when it was found without a sign of life. 0 on others.
	SeenLast uint64 `json:"seen_last,omitempty"`
	SeenBeat uint64 `json:"seen_beat,omitempty"`
}

// Queue moves tickets to workers, each to one at a time, at least once.
//
// All methods may be called concurrently, end soon after their context does, and must not
// retry, log, or start goroutines that outlive them. (Goroutines that belong to the Queue as a
// whole are ended by its own Close.)
//
// Errors wrap ErrUnavailable, ErrFull, ErrScopeFull or ErrTooLarge, or are the context's error. After
// ErrUnavailable or the context's error, the call may have taken effect.
type Queue interface {
	// Enqueue returns nil when the ticket is as durable as the queue makes it.
	Enqueue(ctx context.Context, t Ticket) error

	// Receive waits until there is a ticket and returns up to max (at least 1) of them, each
	// leased to the caller for Lease from now. It takes no more tickets from others than it
	// returns. When ctx ends first it returns the context's error and has taken none.
	Receive(ctx context.Context, max int) ([]Delivery, error)

	// Lease returns how long a delivered ticket is the receiver's alone unless extended. It
	// is more than 0 and always the same.
	Lease() time.Duration
}

// Delivery is a leased ticket. When the lease ends before Ack or Retry, the ticket is
// delivered again. Brokers differ in whether they notice calls of a stale holder, so nothing
// may depend on it.
//
// Where a broker can't lease a ticket for as long as it is extended, Extend may remove it there
// and go on without. When the holder dies after that, nothing is delivered again: the router's
// sweep finds the request, as it finds those whose tickets are lost.
type Delivery interface {
	// Ticket returns the ticket.
	Ticket() Ticket

	// Extend makes the lease last its full length from now. It returns ErrLeaseLost when the
	// queue knows that the lease has ended.
	Extend(ctx context.Context) error

	// Ack removes the ticket for good. It returns nil when that is as durable as the queue
	// makes it, also when the ticket is gone already.
	Ack(ctx context.Context) error

	// Retry ends the lease and has the ticket delivered again, not before delay (0 or more)
	// has passed.
	Retry(ctx context.Context, delay time.Duration) error
}

// Errors of a Queue. Adapters wrap them with what they know.
var (
	// ErrUnavailable: the broker did not answer, or its answer made no sense. Whether it did
	// what was asked is unknown.
	ErrUnavailable = errors.New("queue unavailable")

	// ErrFull: the queue has no room. The ticket was not taken.
	ErrFull = errors.New("queue full")

	// ErrScopeFull: the queue has as many tickets of the scope, leased ones included, as it
	// takes. The ticket was not taken; those of other scopes may be.
	ErrScopeFull = errors.New("queue full for this scope")

	// ErrTooLarge: the ticket is larger than the broker takes.
	ErrTooLarge = errors.New("ticket too large")

	// ErrLeaseLost: the lease has ended; the ticket is or will be another's.
	ErrLeaseLost = errors.New("lease lost")
)
