package dynamolog

import (
	"container/heap"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/pay-theory/streamer/v2/progress"
)

// feed is what watchers are notified by: what was last found of each watched log, and when it
// is to be looked at again.
type feed struct {
	fast, quiet time.Duration
	rare        time.Duration // instead of these while a stream is followed
	looks       atomic.Uint64
	turn        chan struct{} // held by the poller that waits
	sooner      chan struct{} // there may be something to look at earlier than it thinks
	first       chan struct{} // something is watched, and nothing was

	mu     sync.Mutex
	paths  map[string]*watch
	found  findings // just now, of logs that nobody watches: who reads or makes one may watch it next
	due    dueHeap  // those that nobody looks at now
	stream bool     // a stream tells what changes
	closed bool
}

// watch is a watched log.
type watch struct {
	path     string
	watchers []*watcher // replaced, never changed

	seen    bool      // whether anything is known
	head    *head     // the newest that is known, nil when there is no log
	since   time.Time // when that became known
	doubt   bool      // what an eventually consistent read found contradicts it, or may be too old
	changed bool      // it may have, since it was looked at last, and the next look must not be behind
	floor   time.Time // what was asked for earlier may be older than what this process has written
	behind  bool      // this process has written something newer than the head, which nobody has seen
	pause   time.Duration
	due     time.Time // when it is looked at again
	place   int       // in the heap, -1 while it is looked at
	removed bool
}

// watcher is one call of Watch; its function is nil when it was stopped.
type watcher struct {
	notify atomic.Pointer[func(record string)]
}

// sight says how a head was seen.
type sight struct {
	begun      time.Time // when it was asked for
	consistent bool
	own        bool      // by a write of this process
	date       time.Time // by the store's clock; zero where the head is known not to be gone
}

const (
	remembered = 16 << 10              // bytes of a head's events that are kept, so that many watched logs take little
	freshness  = 50 * time.Millisecond // how long what was found counts as the newest
	endedPause = time.Minute           // after which a log that has ended is looked at, at the latest
	slop       = 20 * time.Millisecond // by how much a look may be early, to share a call with others
)

func newFeed(fast, quiet time.Duration) *feed {
	return &feed{
		fast: fast, quiet: quiet, rare: min(10*quiet, endedPause),
		turn: make(chan struct{}, 1), sooner: make(chan struct{}, 1), first: make(chan struct{}, 1), paths: make(map[string]*watch),
	}
}

// join adds a watcher.
func (f *feed) join(path string, wr *watcher) (*watch, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.closed {
		return nil, errClosed
	}
	w := f.paths[path]
	if w == nil {
		now := time.Now()
		w = &watch{path: path, pause: f.fast, due: now.Add(f.fast / 2), floor: now, changed: true}
		f.paths[path] = w
		if k := f.found.take(path); k.head != nil && now.Before(k.until) {
			w.learn(k.head, sight{consistent: true, own: true})
			w.changed = f.stream
		}
		heap.Push(&f.due, w)
		if len(f.paths) == 1 {
			poke(f.first)
		}
	}
	w.watchers = append(slices.Clip(w.watchers), wr)
	return w, nil
}

// leave removes a watcher, and with the last one the watch.
func (f *feed) leave(w *watch, wr *watcher) {
	f.mu.Lock()
	defer f.mu.Unlock()
	var list []*watcher
	for _, x := range w.watchers {
		if x != wr {
			list = append(list, x)
		}
	}
	w.watchers = list
	if len(list) > 0 || w.removed {
		return
	}
	w.removed = true
	delete(f.paths, w.path)
	f.found.keep(w.path, nil, sight{begun: time.Now()}) // its readers may know what others have written
	if w.place >= 0 {
		heap.Remove(&f.due, w.place)
	}
}

// size returns how many logs are watched, and whether a stream tells what changes.
func (f *feed) size() (watched int, stream bool) {
	f.mu.Lock()
	defer f.mu.Unlock()
	return len(f.paths), f.stream
}

func (f *feed) close() {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.closed = true
	for _, w := range f.paths {
		w.removed = true
	}
	clear(f.paths)
	f.found = findings{}
	f.due = nil
}

// watched reports whether anybody watches a log.
func (f *feed) watched(path string) bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.paths[path] != nil
}

// known returns what was last found of a watched log, nil where nothing is known.
func (f *feed) known(path string) *head {
	f.mu.Lock()
	defer f.mu.Unlock()
	if w := f.paths[path]; w != nil {
		return w.head
	}
	return nil
}

// recall returns what was last found of a watched log, where a reader with that cursor can
// have it: it has events that the reader has not seen, or it was found just now. So does a log
// that nobody watches and this process has just written: who works on it or shows it watches it next.
func (f *feed) recall(path string, after uint64) *head {
	f.mu.Lock()
	defer f.mu.Unlock()
	w := f.paths[path]
	if w == nil {
		return f.found.recall(path, after)
	}
	if w.head == nil || w.behind || after > w.head.state.Last {
		return nil
	}
	if after == w.head.state.Last && time.Since(w.since) > freshness {
		return nil
	}
	return w.head
}

// learned takes note of what was found of a log, nil when there is none, and tells its
// watchers when that is news. It reports whether it was.
func (f *feed) learned(path string, h *head, s sight) bool {
	f.mu.Lock()
	w := f.paths[path]
	if w == nil || h == nil && s.own {
		if w != nil {
			f.passed(w)
		} else if !f.closed {
			f.found.keep(path, h, s)
		}
		f.mu.Unlock()
		return false
	}
	old := s.begun.Before(w.floor)
	if old && w.head == nil && !s.own {
		f.mu.Unlock()
		return false
	}
	w.behind = w.behind && (old || !s.consistent)
	news := w.learn(h, s)
	if news && !s.own {
		w.pause = f.fast
	}
	if !news && s.own && w.lacks(h) {
		f.passed(w)
	} else if s.own && w.place >= 0 {
		// Who writes sees what is there, and need not look.
		w.due = s.begun.Add(f.pause(w))
		heap.Fix(&f.due, w.place)
	}
	if news && !s.own && w.place >= 0 && !f.stream {
		w.due = time.Now().Add(w.pause)
		heap.Fix(&f.due, w.place)
		f.wake()
	}
	list, record := w.watchers, ""
	if w.head != nil {
		record = w.head.state.Record
	}
	f.mu.Unlock()
	if !news {
		return false
	}
	tell(list, record)
	return true
}

// passed takes note that this process has written a log and does not know its head now: it was not
// watched when the write began, or a progress came before. It is looked at soon. mu is locked.
func (f *feed) passed(w *watch) {
	w.floor, w.behind = time.Now(), true
	if w.place >= 0 {
		w.due = w.floor
		heap.Fix(&f.due, w.place)
		f.wake()
	}
}

// lacks reports whether the head that is known may be one before h, though it counts no fewer
// writes: a progress came before the record of which h was made.
func (w *watch) lacks(h *head) bool {
	return w.head != nil && w.head.epoch == h.epoch && w.head.state.Record != h.state.Record && w.head.state.Last <= h.state.Last
}

// learn takes note of what was found, and reports whether that is news.
func (w *watch) learn(h *head, s sight) bool {
	if h != nil && !s.date.IsZero() && h.gone(s.date) {
		if w.head != nil && w.head.epoch != h.epoch && !s.consistent {
			w.doubt = true
			return false
		}
		h = nil
		s.consistent = true // what is gone does not come back
	}
	same := w.head != nil && h != nil && w.head.epoch == h.epoch
	switch {
	case same && h.writes <= w.head.writes:
		w.doubt = w.doubt && !s.consistent
		return false
	case same:
	case w.head == nil && h == nil:
		news := !w.seen
		w.seen, w.doubt = true, w.doubt && !s.consistent
		return news
	case w.seen && !s.consistent:
		w.doubt = true
		return false
	case w.seen && !s.own && !s.begun.After(w.since):
		return false // what is known is newer
	}
	w.seen, w.doubt = true, false
	w.since = time.Now()
	lives := false // it just lives: viewers see no signs of life
	if same && h.state.Record == w.head.state.Record {
		lives = sameRev(h.newest(), w.head.newest())
	}
	w.head = h
	if h != nil && h.size > remembered {
		w.head = h.slim()
	}
	return !lives
}

// sameRev reports whether two progresses of an attempt, or none, are the same to viewers.
func sameRev(a, b *progress.Progress) bool {
	if a == nil || b == nil {
		return a == b
	}
	return a.Rev == b.Rev
}

// slim returns the head without its events.
func (h *head) slim() *head {
	s := *h
	s.chunks = nil
	s.first = s.state.Last + 1
	return &s
}

// appended tells a log's watchers of a record that this process has appended.
func (f *feed) appended(path, record string) {
	f.mu.Lock()
	var list []*watcher
	if w := f.paths[path]; w != nil {
		list = w.watchers
	}
	f.mu.Unlock()
	tell(list, record)
}

// tell calls watchers. No lock may be held.
func tell(list []*watcher, record string) {
	for _, w := range list {
		if f := w.notify.Load(); f != nil {
			(*f)(record)
		}
	}
}

// wake has the poller that waits look again how long it may.
func (f *feed) wake() { poke(f.sooner) }

// poke signals unless that was done already.
func poke(c chan struct{}) {
	select {
	case c <- struct{}{}:
	default:
	}
}

// take returns up to n logs that are to be looked at now, or how long to wait for the first.
// What needs a consistent look comes alone.
func (f *feed) take(n int) (list []*watch, consistent bool, wait time.Duration) {
	f.mu.Lock()
	defer f.mu.Unlock()
	now := time.Now()
	for len(f.due) > 0 && len(list) < n {
		w := f.due[0]
		if len(list) == 0 && now.Before(w.due) {
			return nil, false, w.due.Sub(now)
		}
		doubt := w.doubt || w.changed || w.behind
		if now.Add(slop).Before(w.due) || len(list) > 0 && doubt != consistent {
			break
		}
		consistent = doubt
		w.doubt, w.changed = doubt, false
		heap.Pop(&f.due)
		list = append(list, w)
	}
	if len(list) == 0 {
		return nil, false, endedPause
	}
	return list, consistent, 0
}

// put has a log looked at again after a look. missed says that it was not seen, and date when
// it was, by the store's clock.
func (f *feed) put(w *watch, missed bool, date time.Time) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if w.removed || f.closed {
		return
	}
	at := time.Now()
	switch h := w.head; {
	case missed:
		w.due = at.Add(w.pause)
	case w.doubt || w.changed || w.behind:
		w.due = at
	case h != nil && !h.expires.IsZero():
		w.due = at.Add(min(max(h.expires.Sub(date), f.fast), endedPause))
	default:
		w.due = at.Add(f.pause(w))
	}
	if missed || !w.doubt {
		w.pause = min(w.pause*3/2, f.quiet)
	}
	heap.Push(&f.due, w)
	f.wake()
}

// dueHeap is a heap of watches by when they are looked at.
type dueHeap []*watch

func (h dueHeap) Len() int           { return len(h) }
func (h dueHeap) Less(i, j int) bool { return h[i].due.Before(h[j].due) }
func (h dueHeap) Swap(i, j int) {
	h[i], h[j] = h[j], h[i]
	h[i].place, h[j].place = i, j
}

// Push implements heap.Interface.
func (h *dueHeap) Push(x any) {
	w := x.(*watch)
	w.place = len(*h)
	*h = append(*h, w)
}

// Pop implements heap.Interface.
func (h *dueHeap) Pop() any {
	old := *h
	n := len(old) - 1
	w := old[n]
	old[n] = nil
	*h = old[:n]
	w.place = -1
	return w
}
