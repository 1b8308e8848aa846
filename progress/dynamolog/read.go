package dynamolog

import (
	"context"
	"errors"
	"fmt"
	"math"

	"github.com/aws/aws-sdk-go-v2/service/dynamodb"

	"github.com/pay-theory/streamer/v2/progress"
)

// pageBytes is about what a page has at most.
const pageBytes = 256 << 10

// Read implements progress.Log. It is a consistent read of the head, and of the items beside
// it where the page needs them. A page has about 256 KiB at most, unless the record of its first
// event is larger. What a watched log was found to have is read from memory: events that the
// caller has not seen, or for 50 ms that there are no others. What another process has appended
// since the last look at it (WithPoll) is missing then, and notified by the next. Of a log
// that nobody watches, events that the caller has not seen are read from memory for a second after
// this Log has appended them.
func (l *Log) Read(ctx context.Context, key progress.Key, after uint64, limit int) (progress.Page, error) {
	if err := ctx.Err(); err != nil {
		return progress.Page{}, err
	}
	if limit > 0 {
		if page, ok := l.recall(path(key), after, limit); ok {
			return page, nil
		}
	}
	return l.ReadFresh(ctx, key, after, limit)
}

// ReadFresh implements progress.Fresh. It is Read without memory.
func (l *Log) ReadFresh(ctx context.Context, key progress.Key, after uint64, limit int) (progress.Page, error) {
	if err := ctx.Err(); err != nil {
		return progress.Page{}, err
	}
	if limit < 1 {
		return progress.Page{}, fmt.Errorf("dynamolog: read: limit %d: at least 1 is needed", limit)
	}
	page, err := l.read(ctx, path(key), after, limit)
	if err != nil {
		return progress.Page{}, fmt.Errorf("dynamolog: read: %w", translate(ctx, err))
	}
	return page, nil
}

// recall reads from memory, if that has what is asked for.
func (l *Log) recall(path string, after uint64, limit int) (progress.Page, bool) {
	h := l.feed.recall(path, after)
	if h == nil || after+1 < h.first || h.checkpoint.record != "" || !h.expires.IsZero() && h.gone(l.clock.latest()) {
		return progress.Page{}, false
	}
	r := reading{next: after + 1, limit: limit, oldest: 1}
	for _, c := range h.chunks {
		if c.where != inline && c.last() > after {
			return progress.Page{}, false
		}
		r.choose(c)
	}
	page := progress.Page{State: h.state, Oldest: 1, Events: r.events()}
	setProgress(&page, h.newest())
	return page, true
}

func (l *Log) read(ctx context.Context, path string, after uint64, limit int) (progress.Page, error) {
	damaged := false // the events have a hole
	for range maxLook {
		h, err := l.look(ctx, path)
		if err != nil {
			return progress.Page{}, err
		}
		page := progress.Page{}
		if page.State, err = l.state(ctx, h); err == nil {
			r := &reading{next: after + 1, limit: limit, oldest: 1}
			if after < h.state.Last {
				err = l.replay(ctx, h, r)
			}
			if err == nil {
				if r.oldest > 1 && !damaged {
					damaged = true
					continue // the log may just have been replaced by another
				}
				page.Events, page.Oldest = r.events(), r.oldest
				setProgress(&page, h.newest())
				return page, nil
			}
		}
		if !errors.Is(err, errAgain) {
			return progress.Page{}, err
		}
	}
	return progress.Page{}, fmt.Errorf("%w: %w", progress.ErrUnavailable, errAgain)
}

func setProgress(page *progress.Page, p *progress.Progress) {
	page.Progress = p
	if p != nil {
		page.Beat = p.Beat
	}
}

// reading is what a page is made of: the records that it has events of.
type reading struct {
	next   uint64 // number of the next event
	oldest uint64 // number of the oldest event that is left, where those before it are lost
	limit  int
	size   int
	full   bool // it needs no more
	chosen []chunk
	cut    uint64 // number of the first event that is not wanted of the first chosen
}

// choose takes a chunk, if it is the next, and there is room.
func (r *reading) choose(c chunk) {
	switch {
	case r.full || c.last() < r.next:
		return
	case len(r.chosen) > 0 && (r.limit < 1 || r.size+c.size > pageBytes || c.first > r.next):
		r.full = true // with a hole after this, the next read finds it
		return
	case c.first > r.next:
		r.oldest, r.next = c.first, c.first
	}
	if len(r.chosen) == 0 {
		r.cut = r.next
	}
	r.chosen = append(r.chosen, c)
	n := c.last() + 1 - r.next
	r.next = c.last() + 1
	r.size += c.size
	r.limit -= int(min(n, math.MaxInt32))
	r.full = r.limit < 1
}

// events returns the chosen events, all of which are there.
func (r *reading) events() []*progress.Event {
	var list []*progress.Event
	for _, c := range r.chosen {
		from := max(r.cut, c.first)
		list = append(list, c.events[from-c.first:]...)
	}
	if r.limit < 0 {
		n := len(list) + r.limit
		list = list[:n:n]
	}
	return list
}

// replay chooses the events after a cursor from what a log has, whose head h is, and reads
// those that are elsewhere.
func (l *Log) replay(ctx context.Context, h *head, r *reading) error {
	if r.next < h.first {
		if err := l.segments(ctx, h, r); err != nil {
			return err
		}
	}
	for _, c := range h.chunks {
		r.choose(c)
	}
	if len(r.chosen) == 0 {
		r.oldest = h.state.Last + 1
		return nil
	}
	return l.fetch(ctx, h, r)
}

// segments chooses from the items that have what was in the head before.
func (l *Log) segments(ctx context.Context, h *head, r *reading) error {
	var c change
	in := &dynamodb.QueryInput{
		ConsistentRead: new(true),
		Limit:          new(int32(min(r.limit, 100))), // each has an event at least
	}
	c.want(attrPath, "=", text(h.path))
	c.between(attrSort, text(segmentSort(h.epoch, r.next)), text(segmentsEnd(h.epoch)))
	in.KeyConditionExpression, in.ExpressionAttributeValues = new(c.condition()), c.values
	return l.query(ctx, in, func(items []item) (bool, error) {
		for _, it := range items {
			data, err := decodeData(it)
			if err != nil {
				return false, l.senseless(it, err)
			}
			chunks, err := decodeSegment(data)
			if err != nil {
				return false, l.senseless(it, err)
			}
			for _, c := range chunks {
				if c.first >= h.first {
					return false, nil // a writer stored it that died before it had the head say so
				}
				r.choose(c)
			}
		}
		return !r.full && r.next < h.first, nil
	})
}

// fetch reads the chosen events that are not in their chunks.
func (l *Log) fetch(ctx context.Context, h *head, r *reading) error {
	var first, last uint64
	for i := range r.chosen {
		c := &r.chosen[i]
		switch c.where {
		case inTable:
			if first == 0 {
				first = c.last()
			}
			last = c.last()
		case inBlob:
			data, err := l.getBlob(ctx, h.path, h.epoch, c)
			if err != nil {
				return err
			}
			if err := l.fill(h, c, data); err != nil {
				return err
			}
		}
	}
	if first == 0 {
		return nil
	}
	found, err := l.asides(ctx, h, first, last)
	if err != nil {
		return err
	}
	for i := range r.chosen {
		c := &r.chosen[i]
		if c.where != inTable {
			continue
		}
		var data []byte
		for part := range c.parts {
			b, ok := found[asideSort(h.epoch, c.last(), c.record, part)]
			if !ok {
				return fmt.Errorf("%w: it lacks part %d of %d of record %s", errAgain, part+1, c.parts, c.record)
			}
			data = append(data, b...)
		}
		if err := l.fill(h, c, data); err != nil {
			return err
		}
	}
	return nil
}

// asides reads the items with the records whose newest events are those, by sort key. There
// may be records among them that were never part of the log.
func (l *Log) asides(ctx context.Context, h *head, first, last uint64) (map[string][]byte, error) {
	var c change
	in := &dynamodb.QueryInput{ConsistentRead: new(true)}
	c.want(attrPath, "=", text(h.path))
	c.between(attrSort, text(asidesFrom(h.epoch, first)), text(asidesFrom(h.epoch, last+1)))
	in.KeyConditionExpression, in.ExpressionAttributeValues = new(c.condition()), c.values
	found := make(map[string][]byte)
	err := l.query(ctx, in, func(items []item) (bool, error) {
		for _, it := range items {
			if it[attrBlob] != nil {
				continue
			}
			data, err := decodeData(it)
			if err != nil {
				return false, l.senseless(it, err)
			}
			found[(&reader{item: it}).text(attrSort)] = data
		}
		return true, nil
	})
	return found, err
}

// fill puts events into their chunk.
func (l *Log) fill(h *head, c *chunk, data []byte) error {
	events, err := decodeEvents(c, data)
	if err != nil || len(data) != c.size {
		return fmt.Errorf("%w: events %d to %d of log %q of table %s: %w", progress.ErrUnavailable, c.first, c.last(), h.path, l.table, errMalformed)
	}
	c.events = events
	return nil
}
