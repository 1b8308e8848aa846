// Package memlog is a [progress.Log] in the process's memory: complete, fast and bounded. It
// is what a router uses by default, and what tests run on.
//
// Logs live as long as the process and, after their request's end, for the retention that
// the end came with. What all of them hold is counted in bytes and bounded by [WithMaxBytes]
// and [WithMaxRequests]. Over a bound, ended requests are forgotten, the longest finished
// first. Where that is not enough, what would start a request or add an output is refused
// with [progress.ErrFull]; what moves an open request towards its end (started, retrying,
// canceling, checkpoints, progress, the end itself) is always taken. So a full log holds above
// its bound, for each open request, at most one end, one checkpoint, one progress and one
// reason to cancel, and about 1 KB and an error for each attempt.
//
// Watchers are not counted: who lets strangers watch bounds their number.
package memlog

import (
	"context"
	"fmt"
	"hash/maphash"
	"iter"
	"math"
	"sync"
	"sync/atomic"
	"time"

	"github.com/pay-theory/streamer/v2/progress"
)

// shardCount spreads keys over locks: enough that appends to different requests seldom meet.
const shardCount = 128

// Log is a progress.Log in memory.
type Log struct {
	cfg    config
	start  time.Time // all times in a Log are monotonic, as durations since then
	seed   maphash.Seed
	shards [shardCount]shard
	ended  retained

	bytes    atomic.Int64
	requests atomic.Int64
	evicted  atomic.Uint64
}

// shard holds the keys with one hash. It fills a cache line, so that shards don't slow each
// other down.
type shard struct {
	mu    sync.Mutex
	slots map[progress.Key]*slot
	_     [48]byte
}

// slot is what there is about a key: a log, or watchers, or both.
type slot struct {
	log      *entry
	watchers watchers
}

// entry is one log. Its shard's lock guards it; after the end it does not change any more.
type entry struct {
	key      progress.Key
	state    progress.State
	events   []*progress.Event // event n is at n-1; only ever appended to, so that pages share it
	progress *progress.Progress
	changed  time.Duration // when, last
	bytes    int64
	expires  time.Duration // when, after the end
	place    place         // among the retained, after the end
}

// New returns an empty log. Close it when it is no longer used.
func New(opts ...Option) *Log {
	l := &Log{cfg: newConfig(opts), start: time.Now(), seed: maphash.MakeSeed()}
	for i := range l.shards {
		l.shards[i].slots = make(map[progress.Key]*slot)
	}
	return l
}

// ProcessLocal marks a store that lives and dies with its process, so that routers can refuse
// to combine it with a queue that other processes share.
func (l *Log) ProcessLocal() {}

// Close stops the timer that forgets ended requests, and waits for it. It is safe to call
// Close twice. Logs stay readable, but are no longer removed by time.
func (l *Log) Close() error {
	l.ended.close()
	return nil
}

// Stats says what a Log holds.
type Stats struct {
	Requests int    // logs, of open and ended requests
	Open     int    // requests that have not ended
	Bytes    int64  // memory of all logs, estimated
	Evicted  uint64 // ended requests that were forgotten before their retention was over
}

// Stats returns what the log holds now.
func (l *Log) Stats() Stats {
	s := Stats{Requests: int(l.requests.Load()), Bytes: l.bytes.Load(), Evicted: l.evicted.Load()}
	s.Open = max(0, s.Requests-l.ended.count())
	return s
}

// Append implements progress.Log. Beside the errors of the interface there is one that says
// what is wrong with a record that breaks the rules of progress.Record, or was not computed
// from the state of record prev.
func (l *Log) Append(ctx context.Context, key progress.Key, prev string, rec *progress.Record) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	if err := rec.Check(prev); err != nil {
		return fmt.Errorf("memlog: append: %w", err)
	}
	need := recordSize(key, rec)
	if rec.Optional(prev) && need > l.cfg.maxBytes {
		return fmt.Errorf("memlog: append: %w", progress.ErrTooLarge)
	}
	for {
		c, err := l.append(key, prev, rec, need)
		if err != nil {
			return err
		}
		if c.short {
			if !l.makeRoom(c.bytes, c.requests, false) {
				return fmt.Errorf("memlog: append: %w", progress.ErrFull)
			}
			continue
		}
		if l.bytes.Load() > l.cfg.maxBytes {
			l.makeRoom(0, 0, true)
		}
		if c.ended != nil {
			l.retain(c.ended)
		}
		notify(c.watchers, rec.ID)
		return nil
	}
}

// change is what append did, or what it lacks the room for.
type change struct {
	short    bool // of room: nothing was done
	bytes    int64
	requests int64

	ended    *entry // the log, when it has ended by this
	watchers []*watcher
}

// append does Append's work under the shard's lock. need is the size of the record.
func (l *Log) append(key progress.Key, prev string, rec *progress.Record, need int64) (change, error) {
	now := l.now()
	s := l.shard(key)
	s.mu.Lock()
	defer s.mu.Unlock()
	sl := s.slots[key]
	e := sl.live(now)
	c := change{bytes: need}
	switch {
	case e == nil && prev != "":
		return c, fmt.Errorf("memlog: append: %w", progress.ErrNotFound)
	case e == nil:
		c.requests = 1
		c.bytes += logSize(key)
	case e.state.Record == rec.ID:
		return change{}, nil
	case e.state.Ended() || e.state.Record != prev:
		return c, &progress.ConflictError{State: e.state}
	case rec.State.Last != e.state.Last+uint64(len(rec.Events)):
		return c, fmt.Errorf("memlog: append: record %s has %d events and a state of event %d, but record %s before it ends with event %d", rec.ID, len(rec.Events), rec.State.Last, prev, e.state.Last)
	case rec.State.Epoch != e.state.Epoch:
		return c, fmt.Errorf("memlog: append: record %s is of epoch %q, but record %s before it of %q", rec.ID, rec.State.Epoch, prev, e.state.Epoch)
	default:
		c.bytes -= stateSize(&e.state)
		if rec.Progress != nil {
			c.bytes -= progressSize(key, e.progress)
		}
	}
	if !l.take(c.bytes, c.requests) && rec.Optional(prev) {
		l.give(c.bytes, c.requests)
		c.short = true
		return c, nil
	}

	if sl == nil {
		sl = &slot{}
		s.slots[key] = sl
	}
	if e == nil {
		e = &entry{key: key}
		sl.log = e
	}
	e.state = rec.State
	e.events = append(e.events, rec.Events...)
	if rec.Progress != nil {
		e.progress = rec.Progress
	}
	e.bytes += c.bytes
	e.changed = now
	if e.state.Ended() {
		e.expires = now + min(rec.Retention, math.MaxInt64-now)
		c.ended = e
	}
	c.watchers = sl.watchers.list
	return c, nil
}

// SetProgress implements progress.Log.
func (l *Log) SetProgress(ctx context.Context, key progress.Key, p *progress.Progress) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	watching, record, err := l.setProgress(key, p)
	notify(watching, record)
	return err
}

func (l *Log) setProgress(key progress.Key, p *progress.Progress) ([]*watcher, string, error) {
	now := l.now()
	s := l.shard(key)
	s.mu.Lock()
	defer s.mu.Unlock()
	sl := s.slots[key]
	e := sl.live(now)
	if e == nil {
		return nil, "", fmt.Errorf("memlog: set progress: %w", progress.ErrNotFound)
	}
	if e.state.Ended() || p.Attempt != e.state.Attempt {
		return nil, "", nil
	}
	more := progressSize(key, p) - progressSize(key, e.progress)
	l.take(more, 0)
	e.bytes += more
	e.progress = p
	e.changed = now
	return sl.watchers.list, e.state.Record, nil
}

// Tail implements progress.Log.
func (l *Log) Tail(ctx context.Context, key progress.Key) (progress.State, error) {
	if err := ctx.Err(); err != nil {
		return progress.State{}, err
	}
	now := l.now()
	s := l.shard(key)
	s.mu.Lock()
	defer s.mu.Unlock()
	e := s.slots[key].live(now)
	if e == nil {
		return progress.State{}, fmt.Errorf("memlog: tail: %w", progress.ErrNotFound)
	}
	return e.state, nil
}

// Read implements progress.Log. The page shares the events with the log: reading copies none,
// whatever the limit.
func (l *Log) Read(ctx context.Context, key progress.Key, after uint64, limit int) (progress.Page, error) {
	if err := ctx.Err(); err != nil {
		return progress.Page{}, err
	}
	if limit < 1 {
		return progress.Page{}, fmt.Errorf("memlog: read: limit %d: at least 1 is needed", limit)
	}
	now := l.now()
	s := l.shard(key)
	s.mu.Lock()
	defer s.mu.Unlock()
	e := s.slots[key].live(now)
	if e == nil {
		return progress.Page{}, fmt.Errorf("memlog: read: %w", progress.ErrNotFound)
	}
	page := progress.Page{State: e.state, Oldest: 1}
	if last := e.state.Last; after < last {
		end := after + min(uint64(limit), last-after)
		page.Events = e.events[after:end:end]
	}
	if p := e.current(); p != nil {
		page.Progress, page.Beat = p, p.Beat
	}
	return page, nil
}

// Open implements progress.Log.
func (l *Log) Open(ctx context.Context, idle time.Duration) iter.Seq2[progress.Pending, error] {
	return func(yield func(progress.Pending, error) bool) {
		for i := range l.shards {
			if err := ctx.Err(); err != nil {
				yield(progress.Pending{}, err)
				return
			}
			for _, p := range l.shards[i].open(l.now(), idle) {
				if !yield(p, nil) {
					return
				}
			}
		}
	}
}

func (s *shard) open(now, idle time.Duration) []progress.Pending {
	s.mu.Lock()
	defer s.mu.Unlock()
	var found []progress.Pending
	for key, sl := range s.slots {
		e := sl.log
		if e == nil || e.state.Ended() || now-e.changed < idle {
			continue
		}
		p := progress.Pending{Key: key, State: e.state, Idle: now - e.changed}
		if c := e.current(); c != nil {
			p.Beat = c.Beat
		}
		found = append(found, p)
	}
	return found
}

// live returns the log of a slot, or nil when there is none or its retention is over.
func (sl *slot) live(now time.Duration) *entry {
	if sl == nil || sl.log == nil || sl.log.state.Ended() && now >= sl.log.expires {
		return nil
	}
	return sl.log
}

// current returns the progress of the newest attempt, or nil.
func (e *entry) current() *progress.Progress {
	if e.progress == nil || e.progress.Attempt != e.state.Attempt {
		return nil
	}
	return e.progress
}

func (l *Log) now() time.Duration { return time.Since(l.start) }

func (l *Log) shard(key progress.Key) *shard {
	return &l.shards[maphash.Comparable(l.seed, key)%shardCount]
}

// take counts what an append adds and reports whether it is within the bounds.
func (l *Log) take(bytes, requests int64) bool {
	b, r := l.bytes.Add(bytes), l.requests.Add(requests)
	return b <= l.cfg.maxBytes && r <= l.cfg.maxRequests
}

// give takes back what take counted.
func (l *Log) give(bytes, requests int64) {
	l.bytes.Add(-bytes)
	l.requests.Add(-requests)
}
