package client

import (
	"bytes"

	"github.com/pay-theory/streamer/v2/progress"
)

// budget counts the bytes that all journals of a client hold.
type budget struct{ used, limit int }

// journal holds what is known of one log: the newest events, the newest progress, and who
// reads. It is guarded by the client's mutex.
//
// Readers are at positions. The position of an event is its seq plus shift, which changes at a
// gap, so that positions go on where seqs start over. A reader whose next event is no longer
// held lags: the log is read again from there, and what comes goes into the reader's own
// backlog, likewise bounded, until that touches what is held.
type journal struct {
	limit  int // bytes of events to hold; negative: none, since nobody can read them
	budget *budget

	events  []*Event // the newest, without a hole
	first   int64    // position of events[0]
	size    int      // of events, in bytes
	shift   int64
	last    uint64 // seq of the newest event
	attempt int
	end     *Event // of the request; nil before it

	gap   *Event // the newest
	gapAt int64  // its position

	progress   *Progress
	reports    int   // counts changes of progress
	progressAt int64 // position of the event that comes next after the newest progress

	readers map[*reader]struct{}
	waiters int // callers that need the end, however slow readers are

	changed  signal // an event, a gap or progress has come
	reported signal // progress has come
}

// reader is one iteration over a journal.
type reader struct {
	pos     int64    // of the next event
	seq     uint64   // of the newest event taken
	reports int      // reports seen
	backlog []*Event // its next events, which the journal does not hold
	missed  *Event   // a gap behind backlog
	own     int      // bytes in backlog
	lags    bool     // events are missing between backlog and what the journal holds
	size    int      // bytes that wait for it: own, and unless it lags what the journal holds behind that
}

func newJournal(limit int, b *budget, after uint64) journal {
	return journal{
		limit:   limit,
		budget:  b,
		first:   int64(after) + 1,
		last:    after,
		gapAt:   -1,
		readers: make(map[*reader]struct{}),
	}
}

// edge returns the position after the newest event.
func (j *journal) edge() int64 { return j.first + int64(len(j.events)) }

// add takes the event that follows the newest one.
func (j *journal) add(e *Event) {
	j.last = e.Seq
	switch {
	case e.Kind == progress.Started:
		j.attempt = e.Attempt
		if j.progress != nil && j.progress.Attempt < e.Attempt {
			j.progress = nil
		}
	case e.Kind.Ends():
		j.end = e
	}
	j.push(e)
}

func (j *journal) push(e *Event) {
	size := e.size()
	needed := j.edge() + 1
	for r := range j.readers {
		if r.lags || r.want() > j.edge() {
			continue
		}
		if j.room(r, j.limit) {
			needed = min(needed, r.want())
		}
		r.size += size
	}
	j.events = append(j.events, e)
	j.hold(size)
	if j.limit >= 0 {
		needed = min(needed, j.edge()-1) // an event that is larger than the limit is held alone
	}
	for j.first < needed && (j.size > j.limit || j.budget.used > j.budget.limit) {
		j.hold(-j.events[0].size())
		j.events[0] = nil
		j.events = j.events[1:]
		j.first++
	}
	for r := range j.readers {
		if !r.lags && r.want() < j.first {
			r.lags = true
			r.size = r.own
		}
	}
	j.changed.fire()
}

func (j *journal) hold(bytes int) {
	j.size += bytes
	j.budget.used += bytes
}

// skip goes on in another log, or behind events that are lost: the next event is number
// e.Gap.Oldest.
func (j *journal) skip(e *Event) {
	j.gap = e
	j.gapAt = j.edge()
	j.shift = j.gapAt + 1 - int64(e.Gap.Oldest)
	j.last = e.Gap.Oldest - 1
	j.attempt = e.Attempt
	j.progress = nil
	for r := range j.readers {
		r.missed = nil // e comes instead
	}
	j.push(e)
}

// lose says that events before e.Gap.Oldest can't be read again. Readers that need them get e.
func (j *journal) lose(e *Event) {
	oldest := int64(e.Gap.Oldest) + j.shift
	for r := range j.readers {
		if r.lags && r.want() > j.gapAt && r.want() < oldest {
			r.missed = e
		}
	}
	j.changed.fire()
}

// report takes progress, unless it is older than what is known.
func (j *journal) report(p *Progress) {
	if p.Attempt < j.attempt {
		return
	}
	if old := j.progress; old != nil && old.Attempt == p.Attempt {
		shown := p.Time.Equal(old.Time) && p.Percentage == old.Percentage && p.Message == old.Message && bytes.Equal(p.Metadata, old.Metadata)
		if shown || p.Percentage < old.Percentage || p.Time.Before(old.Time) {
			return
		}
	}
	j.progress = p
	j.reports++
	j.progressAt = j.edge()
	j.changed.fire()
	j.reported.fire()
}

// place returns the position of what comes after the event with that seq.
func (j *journal) place(after uint64) int64 { return int64(after) + 1 + j.shift }

// enter adds a reader, with its position set.
func (j *journal) enter(r *reader) {
	j.readers[r] = struct{}{}
	r.lags = true
	j.settle(r)
}

// leave removes a reader.
func (j *journal) leave(r *reader) {
	delete(j.readers, r)
	j.budget.used -= r.own
	*r = reader{}
}

// settle ends the lagging of a reader that has come to what is held.
func (j *journal) settle(r *reader) {
	if !r.lags || r.want() < j.first {
		return
	}
	r.lags = false
	for _, e := range j.events[min(r.want()-j.first, int64(len(j.events))):] {
		r.size += e.size()
	}
}

// refill gives an event that was read again to the readers that lag and come to it next.
func (j *journal) refill(e *Event) {
	pos := int64(e.Seq) + j.shift
	for r := range j.readers {
		if r.lags && r.want() == pos && pos > j.gapAt && j.room(r, j.limit) {
			r.backlog = append(r.backlog, e)
			r.carry(e.size(), j.budget)
			j.settle(r)
			j.changed.fire()
		}
	}
}

// carry counts bytes that the backlog gets, or loses.
func (r *reader) carry(bytes int, b *budget) {
	r.own += bytes
	r.size += bytes
	b.used += bytes
}

// want returns the position of the first event that is not in the backlog.
func (r *reader) want() int64 { return r.pos + int64(len(r.backlog)) }

// room reports whether more may wait for r: one event always, else up to limit bytes.
func (j *journal) room(r *reader, limit int) bool {
	return r.size == 0 || r.size < limit && j.budget.used < j.budget.limit
}

// behind returns after which event, by seq, the log must be read again for readers that lag
// and have room within limit bytes, and whether there are any.
func (j *journal) behind(limit int) (after uint64, yes bool) {
	for r := range j.readers {
		if !r.lags || r.missed != nil || r.want() <= j.gapAt || !j.room(r, limit) {
			continue
		}
		if a := uint64(r.want() - j.shift - 1); !yes || a < after {
			after, yes = a, true
		}
	}
	return after, yes
}

// wanted reports whether more events are of use: somebody waits for the end, nobody reads,
// or a reader has room for them within limit bytes.
func (j *journal) wanted(limit int) bool {
	if j.end == nil && (j.waiters > 0 || len(j.readers) == 0) {
		return true
	}
	for r := range j.readers {
		if (j.end == nil || r.lags) && j.room(r, limit) {
			return true
		}
	}
	return false
}

// take returns what r reads next; nil when it has to wait.
func (j *journal) take(r *reader) *Event {
	if e := r.missed; e != nil && len(r.backlog) == 0 {
		r.missed = nil
		r.pos = j.place(e.Gap.Oldest - 1)
		j.settle(r)
		return r.jump(e)
	}
	if p := j.progress; p != nil && r.reports < j.reports && r.pos >= j.progressAt {
		r.reports = j.reports
		return &Event{Kind: Progressed, Attempt: p.Attempt, Time: p.Time, Progress: p}
	}
	var e *Event
	switch {
	case len(r.backlog) > 0:
		e = r.backlog[0]
		r.backlog[0] = nil
		r.backlog = r.backlog[1:]
		r.carry(-e.size(), j.budget)
	case r.pos >= j.edge():
		return nil
	case r.pos >= j.first:
		e = j.events[r.pos-j.first]
		r.size -= e.size()
	case r.pos <= j.gapAt:
		e = j.gap
		r.pos = j.gapAt
	default:
		return nil
	}
	r.pos++
	j.settle(r)
	if e.Kind == Gap {
		return r.jump(e)
	}
	r.seq = e.Seq
	return e
}

// jump returns a gap as it is for r.
func (r *reader) jump(e *Event) *Event {
	c := *e
	info := *e.Gap
	info.After = r.seq
	c.Gap = &info
	r.seq = info.Oldest - 1
	return &c
}

// read reports whether r has read all there will be.
func (j *journal) read(r *reader) bool {
	return j.end != nil && r.missed == nil && r.pos >= j.edge()
}

// part takes the journal out of the client's budget: it takes no more events, and what it
// holds belongs to those who hold the request.
func (j *journal) part() {
	own := &budget{limit: j.limit}
	for r := range j.readers {
		own.used += r.own
	}
	own.used += j.size
	j.budget.used -= own.used
	j.budget = own
}

// signal wakes those who wait for something to change. It is guarded by the client's mutex.
type signal struct{ ch chan struct{} }

// wait returns a channel that is closed by the next fire.
func (s *signal) wait() <-chan struct{} {
	if s.ch == nil {
		s.ch = make(chan struct{})
	}
	return s.ch
}

func (s *signal) fire() {
	if s.ch != nil {
		close(s.ch)
		s.ch = nil
	}
}
