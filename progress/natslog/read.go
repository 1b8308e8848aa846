package natslog

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/pay-theory/streamer/v2/progress"
)

const (
	pageBytes = 256 << 10 // about what a page has at most
	batchSize = 256       // messages that one replay request asks for
	maxLook   = 5         // how often a read looks again when the log changes or a server lags
	freshness = time.Second
)

// Read implements progress.Log. A page has about 256 KiB at most, unless its first event alone
// is larger. A watched log that has just been heard of is read from memory; what another
// process appended in that very moment may then be missing, and is notified.
func (l *Log) Read(ctx context.Context, key progress.Key, after uint64, limit int) (progress.Page, error) {
	if err := ctx.Err(); err != nil {
		return progress.Page{}, err
	}
	if limit < 1 {
		return progress.Page{}, fmt.Errorf("natslog: read: limit %d: at least 1 is needed", limit)
	}
	p := path(key)
	if page, ok := l.recall(p, after, limit); ok {
		return page, nil
	}
	page, err := l.read(ctx, p, after, limit)
	if err != nil {
		return progress.Page{}, fmt.Errorf("natslog: read: %w", translate(ctx, err))
	}
	return page, nil
}

// recall reads from memory, if that has what is asked for and is kept up to date.
func (l *Log) recall(p string, after uint64, limit int) (progress.Page, bool) {
	t, fresh := l.tails.get(p)
	if t == nil || time.Since(fresh) > freshness || !l.feed.since(p, fresh) {
		return progress.Page{}, false
	}
	now := l.clock.now()
	if after > t.state.Last || !t.has(after) || t.gone(now) || t.closing(now) {
		return progress.Page{}, false
	}
	if t.attempt > 0 && !(t.state.Ended() && t.progress != nil) && !l.feed.since(p, t.reported) {
		return progress.Page{}, false
	}
	return t.page(after, limit), true
}

// has reports whether t has all events after number after.
func (t *tail) has(after uint64) bool { return after >= t.state.Last || after+1 >= t.first() }

// page returns what t has after number after.
func (t *tail) page(after uint64, limit int) progress.Page {
	page := progress.Page{State: t.state, Oldest: 1}
	if after < t.state.Last {
		list := t.events[after+1-t.first():]
		page.Events = cut(list, limit)
	}
	setProgress(&page, t.newest())
	return page
}

// cut bounds what is returned at once.
func cut(list []*progress.Event, limit int) []*progress.Event {
	size := 0
	for i, e := range list {
		size += int(storedSize(e))
		if i >= limit || i > 0 && size > pageBytes {
			return list[:i:i]
		}
	}
	return list[:len(list):len(list)]
}

// read asks the server.
func (l *Log) read(ctx context.Context, p string, after uint64, limit int) (progress.Page, error) {
	select {
	case l.reads <- struct{}{}:
		defer func() { <-l.reads }()
	case <-ctx.Done():
		return progress.Page{}, ctx.Err()
	}
	for range maxLook {
		t, err := l.newest(ctx, p)
		if err != nil {
			return progress.Page{}, err
		}
		page := progress.Page{State: t.state, Oldest: 1}
		if t.has(after) {
			page = t.page(after, limit)
		} else {
			page.Events, page.Oldest, err = l.replay(ctx, p, t, after, limit, pageBytes)
			if errors.Is(err, errAgain) {
				continue
			}
			if err != nil {
				return progress.Page{}, err
			}
		}
		last := *t
		known := false
		if last.report, known, err = l.reportNow(ctx, p, t); err != nil {
			return progress.Page{}, err
		}
		if known || t.state.Ended() {
			setProgress(&page, last.newest())
		} else {
			setProgress(&page, nil) // what came with a record may be older than what was shown
		}
		return page, nil
	}
	return progress.Page{}, fmt.Errorf("%w: %w", progress.ErrUnavailable, errAgain)
}

// reportNow is report for a read of events, which do not depend on progress: while the progress
// stream alone has no leader, they are shown without it. known tells whether it has answered.
func (l *Log) reportNow(ctx context.Context, p string, t *tail) (r *progress.Progress, known bool, err error) {
	r, err = l.report(ctx, p, t)
	if errors.Is(err, errSilent) {
		return nil, false, nil
	}
	return r, err == nil, err
}

func setProgress(page *progress.Page, p *progress.Progress) {
	page.Progress, page.Beat = p, 0
	if p != nil {
		page.Beat = p.Beat
	}
}

// replay reads events after number after, up to limit or about size bytes, of the log whose
// newest message t is, and returns the number of the oldest that is left at or after those. It
// returns errAgain when the log has changed so that t is of no use.
func (l *Log) replay(ctx context.Context, p string, t *tail, after uint64, limit, size int) (list []*progress.Event, oldest uint64, err error) {
	r := &replaying{Log: l, path: p, subject: l.subjects.ofLog(p), tail: t, next: after + 1, oldest: 1, limit: limit, size: size}
	if after > t.state.Last {
		return nil, 1, nil
	}
	if err := r.seek(ctx); err != nil {
		return nil, 0, err
	}
	for lags := 0; !r.done; {
		from := r.seq
		pending, err := l.logs.many(ctx, query{Seq: r.seq, NextFor: r.subject, Batch: batchSize, MaxBytes: pageBytes}, batchSize, r.take)
		switch {
		case err != nil:
			return nil, 0, err
		case r.err != nil:
			return nil, 0, r.err
		case r.done || pending > 0 && r.seq > from:
			continue
		case r.seq > t.seq:
			if len(r.list) == 0 {
				r.oldest = t.state.Last + 1
			}
			r.done = true
			continue
		}
		// The newest message was not among them: a server that lags answered, or it is gone.
		if lags++; lags < maxLook {
			if err := pause(ctx, time.Duration(lags)*5*time.Millisecond); err != nil {
				return nil, 0, err
			}
			continue
		}
		m, err := l.logs.leader(ctx, query{Seq: r.seq, NextFor: r.subject})
		if err != nil {
			return nil, 0, err
		}
		if m == nil {
			return nil, 0, errAgain
		}
		r.take(m)
		if r.err != nil {
			return nil, 0, r.err
		}
	}
	if len(r.list) > 0 {
		// Who reads page by page goes on here.
		l.tails.put(p, false, func(now *tail) *tail {
			if now == nil || now.epoch != t.epoch || r.done && r.seq > t.seq {
				return now
			}
			return now.with(mark{event: r.marked.event, seq: r.marked.seq})
		})
	}
	return r.list, r.oldest, nil
}

// replaying is one call of replay.
type replaying struct {
	*Log
	path    string
	subject string
	tail    *tail

	next   uint64 // number of the next event
	oldest uint64
	limit  int
	size   int

	seq    uint64 // where to look for it
	marked mark   // a message, and where it begins
	list   []*progress.Event
	done   bool
	err    error
}

// take takes the events of a message and reports whether more are wanted.
func (r *replaying) take(m *message) bool {
	if m.seq > r.tail.seq && len(r.list) > 0 && r.next > r.tail.state.Last {
		r.done = true
		return false
	}
	h, err := parseHeader(m.header)
	if err != nil {
		return r.fail(r.senseless(m, err))
	}
	if h.epoch != r.tail.epoch {
		if m.seq > r.tail.seq {
			return r.fail(errAgain)
		}
		return r.fail(r.senseless(m, fmt.Errorf("it is of another log, with epoch %s", h.epoch)))
	}
	r.seq = m.seq + 1
	if h.last < r.next {
		return true
	}
	if h.first > r.next {
		if len(r.list) > 0 {
			r.done = true // a hole: the next read finds it
			return false
		}
		r.oldest, r.next = h.first, h.first
	}
	r.marked = mark{event: h.first, seq: m.seq}
	list, err := decodeEvents(&h, m.data)
	if err != nil {
		return r.fail(r.senseless(m, err))
	}
	for _, e := range list[r.next-h.first:] {
		r.size -= int(storedSize(e))
		if len(r.list) == r.limit || len(r.list) > 0 && r.size < 0 || e.Seq > r.tail.state.Last {
			r.done = true
			return false
		}
		r.list = append(r.list, e)
		r.next++
	}
	r.done = r.next > r.tail.state.Last
	return !r.done
}

func (r *replaying) fail(err error) bool {
	r.err = err
	return false
}

// seek finds where to begin: at a message from which there are not many to the next event.
// Between messages that it knows it halves what is left.
func (r *replaying) seek(ctx context.Context) error {
	const near = 256 // events
	if r.next >= r.tail.header.first {
		r.seq = r.tail.seq
		return nil
	}
	low, high := r.tail.mark(r.next), r.tail.seq
	if now, _ := r.tails.get(r.path); now != nil && now.epoch == r.tail.epoch {
		low = now.mark(r.next)
	}
	for r.next-low.event > near && low.seq < high && high-low.seq > 1 {
		middle := low.seq + (high-low.seq)/2
		m, err := r.logs.next(ctx, r.subject, middle)
		if err != nil {
			return err
		}
		if m == nil {
			return errAgain
		}
		h, err := parseHeader(m.header)
		if err != nil {
			return r.senseless(m, err)
		}
		switch {
		case h.epoch != r.tail.epoch:
			return errAgain
		case h.first <= r.next:
			low = mark{event: h.first, seq: m.seq}
		default:
			high = middle
		}
	}
	r.seq = low.seq
	return nil
}
