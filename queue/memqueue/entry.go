package memqueue

import (
	"container/list"
	"time"

	"github.com/pay-theory/streamer/v2/queue"
)

// overhead is what a ticket takes beside its strings: its entry, its place in the line or
// among the leased, its share of a group.
const overhead = 256

// entry is a ticket in the queue.
type entry struct {
	ticket    queue.Ticket
	holder    *delivery     // whose lease it is, nil when nobody's
	at        time.Duration // while in timed: when it is due. While ready: since when it is
	index     int           // in timed
	next      *entry        // in line
	delivered bool          // at least once
}

// size returns the bytes that the ticket counts for.
func (e *entry) size() int {
	t := &e.ticket
	return overhead + len(t.Scope) + len(t.ID) + len(t.Action) + len(t.Group) + len(t.Nonce)
}

// group has the ready tickets of one Ticket.Group.
type group struct {
	fresh    line // never delivered
	back     line // came back
	backNext bool // whose turn it is
	turn     *list.Element
}

func (g *group) empty() bool { return g.fresh.first == nil && g.back.first == nil }

func (g *group) push(e *entry) {
	if e.delivered {
		g.back.push(e)
	} else {
		g.fresh.push(e)
	}
}

func (g *group) pop() *entry {
	from := &g.fresh
	if g.fresh.first == nil || g.backNext && g.back.first != nil {
		from = &g.back
	}
	g.backNext = from == &g.fresh
	return from.pop()
}

// line is a first in, first out list of entries.
type line struct{ first, last *entry }

func (l *line) push(e *entry) {
	if l.first == nil {
		l.first = e
	} else {
		l.last.next = e
	}
	l.last = e
}

func (l *line) pop() *entry {
	e := l.first
	l.first, e.next = e.next, nil
	return e
}

// schedule is a heap of entries, the first due on top.
type schedule []*entry

func (s schedule) Len() int           { return len(s) }
func (s schedule) Less(i, j int) bool { return s[i].at < s[j].at }

func (s schedule) Swap(i, j int) {
	s[i], s[j] = s[j], s[i]
	s[i].index, s[j].index = i, j
}

func (s *schedule) Push(x any) {
	e := x.(*entry)
	e.index = len(*s)
	*s = append(*s, e)
}

func (s *schedule) Pop() any {
	last := len(*s) - 1
	e := (*s)[last]
	(*s)[last] = nil
	*s = (*s)[:last]
	return e
}
