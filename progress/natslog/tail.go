package natslog

import (
	"container/list"
	"slices"
	"sync"
	"time"

	"github.com/pay-theory/streamer/v2/progress"
)

// tail is what a Log knows of the newest part of one request's log. It is immutable: what is
// newer is another tail.
type tail struct {
	header
	seq   uint64    // of the newest message
	time  time.Time // when that was stored, by the store's clock, or a moment later
	whole bool      // that message is all of the log
	size  int64     // of all events of the log, encoded
	state progress.State
	key   progress.Key // where the path does not tell it

	progress *progress.Progress // the newest that came with a record
	report   *progress.Progress // the newest that came alone, of the newest attempt
	reported time.Time          // since when report is what there is, if the log is watched

	events []*progress.Event // the newest, without a hole; later tails share and extend it
	marks  []mark            // where older events are, in order
	held   int               // what the events take, in bytes
	memory int               // what all of it takes
}

// mark says that event and all after it are in messages from seq on.
type mark struct{ event, seq uint64 }

const maxMarks = 32

// first returns the number of the oldest of t.events, state.Last+1 when there are none.
func (t *tail) first() uint64 { return t.state.Last + 1 - uint64(len(t.events)) }

// gone reports whether the retention of the log is over.
func (t *tail) gone(now time.Time) bool {
	return t.state.Ended() && now.Sub(t.time) >= t.retention
}

// closing reports whether the retention of the log is nearly over, or over by a clock that is
// a little ahead.
func (t *tail) closing(now time.Time) bool {
	const doubt = 2 * time.Second
	return t.state.Ended() && !t.gone(now) && t.gone(now.Add(doubt))
}

// newest returns the progress to show.
func (t *tail) newest() *progress.Progress {
	p := t.report
	if c := t.progress; c != nil && (p == nil || t.state.Ended() || c.Beat > p.Beat || c.Beat == p.Beat && c.Rev > p.Rev) {
		p = c
	}
	if p == nil || p.Attempt != t.state.Attempt {
		return nil
	}
	return p
}

// mark returns where to begin to look for an event.
func (t *tail) mark(event uint64) mark {
	i, found := slices.BinarySearchFunc(t.marks, event, func(m mark, event uint64) int {
		if m.event < event {
			return -1
		}
		return int(min(m.event-event, 1))
	})
	switch {
	case found:
		return t.marks[i]
	case i > 0:
		return t.marks[i-1]
	}
	return mark{event: 1, seq: 1}
}

// with returns a tail that has another mark too.
func (t *tail) with(m mark) *tail {
	i, found := slices.BinarySearchFunc(t.marks, m, func(a, b mark) int {
		return int(min(max(int64(a.event)-int64(b.event), -1), 1))
	})
	if found {
		return t
	}
	next := *t
	next.marks = slices.Insert(slices.Clone(t.marks), i, m)
	if len(next.marks) > maxMarks {
		next.marks = next.marks[1:]
	}
	return &next
}

// follow makes t go on from old, the tail before it, as far as they fit.
func (t *tail) follow(old *tail) {
	if old == nil || old.epoch != t.epoch {
		return
	}
	next := t.whole || old.state.Last+1 == t.first()
	switch {
	case !next:
	case t.attempt == old.attempt:
		t.report, t.reported = old.report, old.reported
	default:
		t.reported = time.Now() // of an attempt that has just begun, there is none
	}
	if t.whole {
		return
	}
	t.marks = old.marks
	if next {
		for _, e := range t.events {
			t.held += eventSize(e)
		}
		t.held += old.held
		t.events = append(old.events, t.events...)
	}
}

// measure counts what the tail holds, and gives up its oldest events where that is over limit.
func (t *tail) measure(limit int) {
	const overhead = 1024
	fixed := overhead + len(t.state.Checkpoint) + progressSize(t.progress) + progressSize(t.report) + len(t.marks)*16
	if t.held == 0 {
		for _, e := range t.events {
			t.held += eventSize(e)
		}
	}
	if fixed+t.held > limit {
		// Half of the limit is left, so that this is seldom needed.
		keep := len(t.events)
		t.held = 0
		for keep > 0 && fixed+t.held+eventSize(t.events[keep-1]) <= limit/2 {
			keep--
			t.held += eventSize(t.events[keep])
		}
		t.events = slices.Clone(t.events[keep:])
	}
	t.memory = fixed + t.held
}

// eventSize is what an event takes in memory, with the encoding that viewers add.
func eventSize(e *progress.Event) int {
	n := 256 + 2*len(e.Data) + len(e.Reason)
	if e.Request != nil {
		n += len(e.Request.Payload) + 96*len(e.Request.Metadata)
	}
	if e.Error != nil {
		n += len(e.Error.Message) + len(e.Error.Details)
	}
	return n
}

func progressSize(p *progress.Progress) int {
	if p == nil {
		return 0
	}
	return 256 + 2*(len(p.Message)+len(p.Metadata))
}

// tails holds the tails of logs that were used last, bounded in bytes.
type tails struct {
	limit int

	mu    sync.Mutex
	paths map[string]*list.Element // of *entry
	used  list.List                // the same; the first was used last
	bytes int

	coming map[string]*tail // what this process is about to append
}

// entry is a path's tail. tail is replaced, and never nil.
type entry struct {
	path  string
	tail  *tail
	fresh time.Time // when it was last heard from as it was stored
	used  time.Time // when it was last asked for
}

// entryBytes is what an entry takes beside its tail.
const entryBytes = 256

func newTails(limit int) *tails {
	return &tails{limit: limit, paths: make(map[string]*list.Element), coming: make(map[string]*tail)}
}

// get returns the tail of a path, nil when it is not known, and when it was fresh.
func (c *tails) get(p string) (*tail, time.Time) {
	c.mu.Lock()
	defer c.mu.Unlock()
	el := c.paths[p]
	if el == nil {
		return nil, time.Time{}
	}
	c.used.MoveToFront(el)
	e := el.Value.(*entry)
	e.used = time.Now()
	return e.tail, e.fresh
}

// peek is get for who brings news. It does not count as use: a request may be heard of as long
// as it runs though nobody reads it.
func (c *tails) peek(p string) *tail {
	c.mu.Lock()
	defer c.mu.Unlock()
	if el := c.paths[p]; el != nil {
		return el.Value.(*entry).tail
	}
	return nil
}

// trim forgets what was not used since a time.
func (c *tails) trim(since time.Time) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for el := c.used.Back(); el != nil && el.Value.(*entry).used.Before(since); el = c.used.Back() {
		c.remove(el)
	}
}

// size returns how many tails there are, and how many bytes they hold.
func (c *tails) size() (int, int) {
	c.mu.Lock()
	defer c.mu.Unlock()
	return len(c.paths), c.bytes
}

// put replaces the tail of a path by what change makes of it, or forgets it where that is
// nil. change is called with the lock held.
func (c *tails) put(p string, fresh bool, change func(old *tail) *tail) *tail {
	c.mu.Lock()
	defer c.mu.Unlock()
	var old *tail
	el := c.paths[p]
	if el != nil {
		old = el.Value.(*entry).tail
	}
	t := change(old)
	switch {
	case t == nil && el != nil:
		c.remove(el)
		return nil
	case t == nil:
		return nil
	case el == nil:
		el = c.used.PushFront(&entry{path: p, used: time.Now()})
		c.paths[p] = el
		c.bytes += entryBytes + 2*len(p)
	default:
		c.bytes -= old.memory
	}
	e := el.Value.(*entry)
	if t != old {
		t.measure(c.limit / 8)
	}
	c.bytes += t.memory
	e.tail = t
	if fresh {
		e.fresh = time.Now()
	}
	for c.bytes > c.limit && c.used.Len() > 1 {
		oldest := c.used.Back()
		if oldest == el {
			oldest = el.Prev()
		}
		c.remove(oldest)
	}
	return t
}

// remove forgets an entry. The lock is held.
func (c *tails) remove(el *list.Element) {
	e := el.Value.(*entry)
	c.used.Remove(el)
	delete(c.paths, e.path)
	c.bytes -= entryBytes + 2*len(e.path) + e.tail.memory
}

// announce tells of a record that is about to be appended, so that it need not be decoded when
// it comes back as a notification, which may be faster than the answer. withdraw ends that.
func (c *tails) announce(p string, t tail) (withdraw func()) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.coming[p] = &t
	return func() {
		c.mu.Lock()
		defer c.mu.Unlock()
		if c.coming[p] == &t {
			delete(c.coming, p)
		}
	}
}

// announced returns the tail that a record makes which was announced, or nil.
func (c *tails) announced(p string, m *message) *tail {
	c.mu.Lock()
	defer c.mu.Unlock()
	t := c.coming[p]
	if t == nil {
		return nil
	}
	if h, err := parseHeader(m.header); err != nil || h != t.header {
		return nil
	}
	stored := *t
	stored.seq, stored.time = m.seq, m.time
	return &stored
}

// learned takes note of what a read of the newest message found, nil when it found none. seen
// is the tail that was known before the read, so that what came in meanwhile is not undone.
func (c *tails) learned(p string, seen, t *tail) *tail {
	return c.put(p, false, func(now *tail) *tail {
		switch {
		case t == nil && now != seen:
			return now
		case t == nil:
			return nil
		case now == nil:
			return t
		case now.seq == t.seq && now.record == t.record:
			if now.time.After(t.time) {
				exact := *now
				exact.time = t.time
				return &exact
			}
			return now
		case now.seq > t.seq && now != seen:
			return now
		}
		t.follow(now)
		return t
	})
}

// reported takes note of a progress that came alone, and was the newest at a time. fresh tells
// that it has just been stored.
func (c *tails) reported(p string, head beat, r *progress.Progress, at time.Time, fresh bool) {
	c.put(p, fresh, func(now *tail) *tail {
		if now == nil || now.epoch != head.epoch || now.attempt != head.attempt || now.state.Ended() {
			return now
		}
		if o := now.report; o != nil && (o.Beat > r.Beat || o.Beat == r.Beat && o.Rev > r.Rev) {
			return now
		}
		next := *now
		next.report, next.reported = r, at
		return &next
	})
}
