package progress

import (
	"context"
	"errors"
	"fmt"
	"iter"
	"time"
)

// Key names a log: the request's id within the scope it was submitted in. Both are arbitrary
// UTF-8 to a Log, which must encode them where its store gives characters a meaning.
type Key struct {
	Scope string `json:"scope"`
	ID    string `json:"id"`
}

// Record is what one append stores, whole or not at all.
type Record struct {
	// ID is unique among all records, so that an append whose answer was lost is recognised.
	// Each of Events has it as its Record, and State too.
	ID string

	// Events are numbered on from the last event of the log. There are none when the record
	// just changes State.Checkpoint.
	Events []*Event

	// State is the request's state after the record, computed from that after the one before.
	State State

	// Progress, if not nil, replaces the newest progress in the same step.
	Progress *Progress

	// Retention says how long the log stays after this record. It is set, and more than 0,
	// exactly when the record's last event is an end.
	Retention time.Duration
}

// Page is an answer to Read.
type Page struct {
	State    State
	Oldest   uint64    // seq of the oldest event still stored; more than 1 where a log was cut
	Events   []*Event  // in order, without a hole
	Progress *Progress // the newest of State.Attempt, nil when there is none
	Beat     uint64    // Beat of the newest progress of State.Attempt, 0 when there is none
}

// Gap reports whether a viewer that has seen the events up to number after of the log with
// this epoch ("" where it does not know) can't go on from there, and why: "recreated" (this
// is another log), "ahead" (the log is shorter than what it saw), or "expired" (events after
// it are gone). Such a viewer is told, and goes on from Oldest.
func (p *Page) Gap(epoch string, after uint64) (reason string, gap bool) {
	switch {
	case epoch != "" && epoch != p.State.Epoch:
		return "recreated", true
	case after > p.State.Last:
		return "ahead", true
	case after+1 < p.Oldest:
		return "expired", true
	default:
		return "", false
	}
}

// Pending is an open request, as Open yields it.
type Pending struct {
	Key   Key
	State State
	Beat  uint64        // as in Page
	Idle  time.Duration // how long nothing has changed, by the store's clock
}

// Log stores the events and the newest progress of requests. It is the truth about them:
// all that the library promises rests on Append. A request's log comes into being with the
// first append and is gone when the retention of its end has passed.
//
// All methods may be called concurrently, end soon after their context does, and must not
// retry, log, or start goroutines that outlive them. (Goroutines that belong to the Log as a
// whole are ended by its own Close.) What is passed in and out (records, events, progress,
// byte slices) is shared and must not be changed by either side.
//
// Errors wrap ErrNotFound, ErrUnavailable, ErrFull or ErrTooLarge, are a *ConflictError, or
// the context's error. After ErrUnavailable or the context's error, Append may have happened.
type Log interface {
	// Append stores rec if prev is the ID of the newest record of the log, and that has not
	// ended it. With prev == "" the log must not exist. Else it stores nothing and returns a
	// *ConflictError with the state that is there, or ErrNotFound when prev is not "" and there
	// is no such log. When rec is the newest record already, it returns nil and stores nothing.
	// It returns only when rec is as durable as the store makes it, and readable. A record that
	// breaks the rules (see Record.Check) is not stored either.
	Append(ctx context.Context, key Key, prev string, rec *Record) error

	// SetProgress replaces the newest progress without adding an event. It must not disturb
	// the log: progress of an attempt that is not the newest, or of a request that has ended,
	// is never returned by a Read that begins later. It need not be durable.
	SetProgress(ctx context.Context, key Key, p *Progress) error

	// Tail returns the state after the newest record.
	Tail(ctx context.Context, key Key) (State, error)

	// Read returns up to limit (at least 1) events after number after, and the state and
	// progress of the same moment or later. It returns fewer only where the log has no more, or
	// to bound the answer's size, and at least one if there is one. It finds holes: events
	// that were lost are never skipped in silence. They are before Page.Oldest, or the error is
	// ErrUnavailable.
	Read(ctx context.Context, key Key, after uint64, limit int) (Page, error)

	// Watch calls notify after every change of the log: an append, a new progress (not one that
	// differs in its Beat alone), its removal. record is the ID of the newest record then, ""
	// where that is not known. Changes may share a call, and calls may come late, without a
	// change, or from several goroutines at once; but after the last change that Watch's return
	// precedes there is a call. notify must return at once and must not call the Log. The log
	// need not exist. stop ends the calls, though one that is under way may still come; it may
	// be called twice.
	Watch(ctx context.Context, key Key, notify func(record string)) (stop func(), err error)

	// Open yields the requests that have not ended and whose log and progress have not
	// changed for idle, by the store's clock. A request that changes meanwhile may be missing
	// or be yielded in its older state. The last pair may carry an error.
	Open(ctx context.Context, idle time.Duration) iter.Seq2[Pending, error]
}

// Errors of a Log. Adapters wrap them with what they know.
var (
	// ErrNotFound: there is no such log: it never was, or its retention is over.
	ErrNotFound = errors.New("no such log")

	// ErrUnavailable: the store did not answer, or its answer made no sense. Whether it did
	// what was asked is unknown.
	ErrUnavailable = errors.New("log store unavailable")

	// ErrFull: the store has no room. Nothing was stored.
	ErrFull = errors.New("log store full")

	// ErrTooLarge: the record is larger than the store takes. Nothing was stored.
	ErrTooLarge = errors.New("record too large")
)

// ConflictError says that an append was refused because the log has moved on.
type ConflictError struct {
	State State // what is there
}

func (e *ConflictError) Error() string {
	return fmt.Sprintf("log has moved on: last event is %d (%s, attempt %d)", e.State.Last, e.State.Phase, e.State.Attempt)
}
