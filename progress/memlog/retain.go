package memlog

import (
	"container/heap"
	"container/list"
	"sync"
	"time"
)

// retained are the logs of ended requests: in the order they ended, which is the order they
// are evicted in, and by when their retention is over. What they hold is given back when they
// leave. Its lock is never held together with a shard's.
type retained struct {
	mu       sync.Mutex
	byEnd    list.List // of *entry
	byExpiry expiryHeap
	bytes    int64
	timer    *time.Timer // for the first of byExpiry
	closed   bool
	firing   sync.WaitGroup
}

// place is where an entry is among the retained.
type place struct {
	byEnd    *list.Element
	byExpiry int
}

// retain keeps a log that has ended until its retention is over.
func (l *Log) retain(e *entry) {
	r := &l.ended
	r.mu.Lock()
	defer r.mu.Unlock()
	r.bytes += e.bytes
	e.place.byEnd = r.byEnd.PushBack(e)
	heap.Push(&r.byExpiry, e)
	if e.place.byExpiry == 0 {
		l.arm()
	}
}

// arm sets the timer for the first log whose retention will be over. r.mu is held.
func (l *Log) arm() {
	r := &l.ended
	if r.closed || len(r.byExpiry) == 0 {
		return
	}
	wait := r.byExpiry[0].expires - l.now()
	if r.timer == nil {
		r.timer = time.AfterFunc(wait, l.expire)
		return
	}
	r.timer.Reset(wait)
}

// expire forgets the logs whose retention is over.
func (l *Log) expire() {
	r := &l.ended
	r.mu.Lock()
	if r.closed {
		r.mu.Unlock()
		return
	}
	r.firing.Add(1)
	defer r.firing.Done()
	now := l.now()
	var over []*entry
	for len(r.byExpiry) > 0 && r.byExpiry[0].expires <= now {
		over = append(over, l.release(r.byExpiry[0]))
	}
	l.arm()
	r.mu.Unlock()
	l.forget(over)
}

// makeRoom forgets ended requests, the longest finished first, until so much more fits. When
// that can't be reached it forgets none and returns false, or, with anyway, all.
func (l *Log) makeRoom(bytes, requests int64, anyway bool) bool {
	r := &l.ended
	r.mu.Lock()
	bytes += l.bytes.Load() - l.cfg.maxBytes
	requests += l.requests.Load() - l.cfg.maxRequests
	if !anyway && (bytes > r.bytes || requests > int64(r.byEnd.Len())) {
		r.mu.Unlock()
		return false
	}
	var victims []*entry
	for (bytes > 0 || requests > 0) && r.byEnd.Len() > 0 {
		e := l.release(r.byEnd.Front().Value.(*entry))
		victims = append(victims, e)
		bytes -= e.bytes
		requests--
	}
	r.mu.Unlock()
	l.evicted.Add(uint64(len(victims)))
	l.forget(victims)
	return true
}

// release takes a log out of the retained and gives back what it holds. r.mu is held.
func (l *Log) release(e *entry) *entry {
	r := &l.ended
	r.byEnd.Remove(e.place.byEnd)
	heap.Remove(&r.byExpiry, e.place.byExpiry)
	r.bytes -= e.bytes
	l.give(e.bytes, 1)
	return e
}

// forget removes released logs from their slots, unless another has taken the place already.
func (l *Log) forget(released []*entry) {
	for _, e := range released {
		s := l.shard(e.key)
		s.mu.Lock()
		var watching []*watcher
		if sl := s.slots[e.key]; sl != nil && sl.log == e {
			sl.log = nil
			watching = sl.watchers.list
			s.sweep(e.key, sl)
		}
		s.mu.Unlock()
		notify(watching, "")
	}
}

func (r *retained) count() int {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.byEnd.Len()
}

func (r *retained) close() {
	r.mu.Lock()
	r.closed = true
	if r.timer != nil {
		r.timer.Stop()
	}
	r.mu.Unlock()
	r.firing.Wait()
}

// expiryHeap is a heap of logs by when their retention is over.
type expiryHeap []*entry

func (h expiryHeap) Len() int           { return len(h) }
func (h expiryHeap) Less(i, j int) bool { return h[i].expires < h[j].expires }
func (h expiryHeap) Swap(i, j int) {
	h[i], h[j] = h[j], h[i]
	h[i].place.byExpiry, h[j].place.byExpiry = i, j
}

// Push implements heap.Interface.
func (h *expiryHeap) Push(x any) {
	e := x.(*entry)
	e.place.byExpiry = len(*h)
	*h = append(*h, e)
}

// Pop implements heap.Interface.
func (h *expiryHeap) Pop() any {
	old := *h
	n := len(old) - 1
	e := old[n]
	old[n] = nil
	*h = old[:n]
	return e
}
