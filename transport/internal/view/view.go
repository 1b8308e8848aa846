// Package view decides what a client is shown next of a request's log: every event once and
// in order, the newest progress before the end, and gaps.
package view

import "github.com/pay-theory/streamer/v2/progress"

// Cursor is how far a client was shown a log. Epoch and After are where it starts.
type Cursor struct {
	Epoch  string // "": of whatever log there is
	After  uint64 // seq of the last event shown
	Silent bool   // no progress is shown

	attempt  int    // newest of which an event was shown
	reported int    // attempt and
	rev      uint64 // number of the last progress shown
}

// Sink takes what is shown.
type Sink interface {
	// Gap says that the log does not go on after the cursor: see [progress.Page.Gap].
	Gap(page *progress.Page, after uint64, reason string)
	Event(page *progress.Page, e *progress.Event)
	Progress(p *progress.Progress)
}

// Rest says what comes after a page.
type Rest int

// What can come after a page.
const (
	Later Rest = iota // nothing, until the log changes
	More              // the log has more now
	None              // nothing any more: the request has ended
)

// Show shows a page that was read after the cursor, and moves the cursor. After a gap it shows
// no event: those come with the next page.
func (c *Cursor) Show(page *progress.Page, to Sink) Rest {
	if reason, gap := page.Gap(c.Epoch, c.After); gap {
		to.Gap(page, c.After, reason)
		*c = Cursor{Epoch: page.State.Epoch, After: page.Oldest - 1, Silent: c.Silent}
		return More
	}
	c.Epoch = page.State.Epoch
	for _, e := range page.Events {
		if e.Kind.Ends() {
			c.report(page.Progress, to)
		}
		to.Event(page, e)
		c.After = e.Seq
		c.attempt = max(c.attempt, e.Attempt)
	}
	switch {
	case c.After < page.State.Last:
		if p := page.Progress; p != nil && p.Attempt == c.attempt {
			c.report(p, to)
		}
		return More
	case page.State.Ended():
		return None
	default:
		c.report(page.Progress, to)
		return Later
	}
}

// report shows p when it is newer than what was shown.
func (c *Cursor) report(p *progress.Progress, to Sink) {
	if p == nil || p.Rev == 0 || c.Silent || p.Attempt < c.reported || p.Attempt == c.reported && p.Rev <= c.rev {
		return
	}
	c.reported, c.rev = p.Attempt, p.Rev
	to.Progress(p)
}
