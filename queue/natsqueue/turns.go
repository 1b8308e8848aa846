package natsqueue

import (
	"container/list"
	"sync"
	"time"
)

// turns knows which lanes seem to hold tickets and whose turn it is. What it knows may be
// wrong: other processes take tickets too, and announcements are lost. A pull tells.
type turns struct {
	mu      sync.Mutex
	lanes   []lane
	line    []int     // the lanes that seem to hold tickets, in the order they are served
	waiters list.List // of *waiter
	look    time.Time // when the stream is to be looked at
}

// lane is what is known of a lane.
type lane struct {
	seem  int       // tickets that seem to be ready; the lane is in line while it is more than 0
	waked int       // announcements ever
	woken time.Time // the last one, or when a ticket was due
	due   time.Time // when the first delay ends that was asked for here; zero: none
	shut  bool      // it is kept out of line until due
}

func newTurns(lanes int) *turns { return &turns{lanes: make([]lane, lanes)} }

// wake notes that a ticket of a lane was announced.
func (t *turns) wake(lane int, now time.Time) {
	t.mu.Lock()
	defer t.mu.Unlock()
	l := &t.lanes[lane]
	l.waked++
	l.woken = now
	t.set(lane, l.seem+1)
}

// found notes how many tickets the stream holds on each lane, leased ones included.
func (t *turns) found(counts map[int]int) {
	t.mu.Lock()
	defer t.mu.Unlock()
	for lane := range t.lanes {
		t.set(lane, max(t.lanes[lane].seem, counts[lane]))
	}
}

// delay notes that a ticket of a lane comes back then.
func (t *turns) delay(lane int, due time.Time) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if l := &t.lanes[lane]; l.due.IsZero() || due.Before(l.due) {
		l.due = due
	}
}

// turn is what a Receive may ask a lane for.
type turn struct {
	lane  int
	n     int       // tickets
	waked int       // announcements of the lane until now
	woken time.Time // the last of them, or when a ticket was due
}

// take returns whose turn it is, with a share of limit tickets, or false when no lane seems to
// hold any.
func (t *turns) take(limit int, now time.Time) (turn, bool) {
	t.mu.Lock()
	defer t.mu.Unlock()
	for i := range t.lanes {
		if l := &t.lanes[i]; !l.due.IsZero() && !now.Before(l.due) {
			l.due, l.shut, l.woken = time.Time{}, false, now
			t.set(i, l.seem+1)
		}
	}
	if len(t.line) == 0 {
		return turn{}, false
	}
	share := max(1, limit/len(t.line))
	first := t.line[0]
	l := &t.lanes[first]
	seem := l.seem - share
	t.set(first, 0)
	t.set(first, max(seem, 0))
	return turn{first, share, l.waked, l.woken}, true
}

// outcome is how a pull went.
type outcome struct {
	empty   bool // the lane had no more
	back    bool // the last ticket had been delivered before, so more of its kind may be there
	pending int  // tickets after the last one that were never delivered
}

// settle notes how a turn went. What was announced meanwhile is not known to the broker's answer.
func (t *turns) settle(u turn, o outcome) {
	t.mu.Lock()
	defer t.mu.Unlock()
	l := &t.lanes[u.lane]
	since := l.waked - u.waked
	switch {
	case o.empty:
		t.set(u.lane, since)
	case o.back:
		t.set(u.lane, max(l.seem, o.pending, 1))
	default:
		t.set(u.lane, max(o.pending, since))
	}
}

// shut keeps a lane out of line until then.
func (t *turns) shut(u turn, until time.Time) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.set(u.lane, 0)
	t.lanes[u.lane].due, t.lanes[u.lane].shut = until, true
}

// again puts a lane back whose turn came to nothing.
func (t *turns) again(u turn) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.set(u.lane, max(t.lanes[u.lane].seem, 1))
}

// set changes what is known of a lane, and its place in the line. mu is locked.
func (t *turns) set(lane, seem int) {
	l := &t.lanes[lane]
	if l.shut {
		seem = 0
	}
	was := l.seem
	l.seem = seem
	switch {
	case was == 0 && seem > 0:
		t.line = append(t.line, lane)
	case was > 0 && seem == 0:
		for i, other := range t.line {
			if other == lane {
				t.line = append(t.line[:i], t.line[i+1:]...)
				break
			}
		}
	}
	t.signal()
}

// waiter is a Receive that waits for a lane to come into line.
type waiter struct {
	place  *list.Element // nil: it was signaled
	signal chan struct{} // closed when it is worth while to call take again
}

// signal has one of those who wait take its turn, if there is one to take. mu is locked.
func (t *turns) signal() {
	if len(t.line) > 0 && t.waiters.Len() > 0 {
		w := t.waiters.Remove(t.waiters.Front()).(*waiter)
		w.place = nil
		close(w.signal)
	}
}

// wait begins a wait, which leave ends.
func (t *turns) wait() *waiter {
	t.mu.Lock()
	defer t.mu.Unlock()
	w := &waiter{signal: make(chan struct{})}
	w.place = t.waiters.PushBack(w)
	t.signal()
	return w
}

// leave ends a wait. It must be followed by take, or by pass.
func (t *turns) leave(w *waiter) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if w.place != nil {
		t.waiters.Remove(w.place)
		w.place = nil
	}
}

// pass leaves what there is to take to another who waits.
func (t *turns) pass() {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.signal()
}

// lookDue reports whether it is the caller's turn to look at the stream; it then counts as
// done until the interval has passed.
func (t *turns) lookDue(now time.Time, interval time.Duration) bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	if now.Before(t.look) {
		return false
	}
	t.look = now.Add(interval)
	return true
}

// lookNow makes a look due.
func (t *turns) lookNow() {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.look = time.Time{}
}

// next returns how long it is until there is something to do without being woken.
func (t *turns) next(now time.Time) time.Duration {
	t.mu.Lock()
	defer t.mu.Unlock()
	at := t.look
	for i := range t.lanes {
		if due := t.lanes[i].due; !due.IsZero() && due.Before(at) {
			at = due
		}
	}
	return at.Sub(now)
}
