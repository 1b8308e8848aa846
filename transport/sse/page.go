package sse

import (
	"net/http"
	"strconv"

	"github.com/pay-theory/streamer/v2/internal/wire"
	"github.com/pay-theory/streamer/v2/progress"
	"github.com/pay-theory/streamer/v2/transport/internal/view"
)

// pageBytes is after how many bytes a page is full. One message may be larger.
const pageBytes = 256 << 10

// follow serves what shows the logs of requests: as a stream, or as a page of it.
func (c *call) follow(what resource) {
	at, err := cursors(what, c.id, c.r)
	if err != nil {
		c.invalid(err.Error())
		return
	}
	if accepts(c.r, "application/json") && !accepts(c.r, "text/event-stream") {
		c.page(what, at)
		return
	}
	if c.flushable() {
		c.stream(what, at)
	}
}

// page answers with what a stream would show now, or, if that is nothing, when there is
// something, as far as the client wants to wait.
func (c *call) page(what resource, at []wire.Cursor) {
	s := newSet(c)
	defer s.stop()
	p := &page{list: []byte(`{"events":[`)}
	told, err := s.attach(at)
	if err != nil {
		c.fail(err)
		return
	}
	for _, m := range told {
		p.news = p.news || m.Type != wire.TypeAttached
		p.put(m.Append(nil))
	}
	known := c.r.Header.Get("If-None-Match")
	prefs := prefer(c.r.Header)
	var etag string
	ready := func() bool {
		etag = p.fill(s)
		return p.news || known != "" && !matches(known, etag) || s.done()
	}
	if !ready() && prefs.wait > 0 {
		c.patient(prefs.wait)
		s.wait(prefs.wait, ready)
	}
	if prefs.waits {
		prefs.applied(c.w)
	}
	h := c.w.Header()
	h.Set("ETag", etag)
	if !p.news && !s.done() && matches(known, etag) {
		h.Set("Cache-Control", "no-store")
		c.w.WriteHeader(http.StatusNotModified)
		return
	}
	b := append(p.list, ']')
	if what == requestEvents {
		b = strconv.AppendUint(append(b, `,"last":`...), s.followed[0].cursor.After, 10)
	}
	b = strconv.AppendBool(append(b, `,"done":`...), s.done())
	c.answer(http.StatusOK, append(b, '}'))
}

// page gathers messages.
type page struct {
	list []byte
	n    int
	news bool      // there is more than progress
	of   *followed // whose log is shown
}

func (p *page) put(message []byte) {
	if p.n > 0 {
		p.list = append(p.list, ',')
	}
	p.list = append(p.list, message...)
	p.n++
}

// fill adds what the logs have after the cursors, which it moves, and returns the tag of all.
func (p *page) fill(s *set) string {
	t := newTag()
	for _, f := range s.followed {
		if f.viewer == nil {
			continue
		}
		page, err := f.viewer.Read(s.c.context(), f.cursor.After, pageSize)
		switch {
		case err != nil && !transient(err):
			f.over = true
			p.news = true
			p.put(refusal(f.id, err).Append(nil))
			continue
		case err != nil || len(p.list) >= pageBytes:
			continue // the next page shows it
		}
		t = t.add(f.id, &page)
		p.of = f
		if f.cursor.Show(&page, p) == view.None {
			f.over = true
		}
	}
	return t.String()
}

// Gap implements [view.Sink].
func (p *page) Gap(page *progress.Page, after uint64, reason string) {
	p.news = true
	p.of.set.c.h.stats.gaps.Add(1)
	p.put(view.Gap(p.of.id, page, after, reason).Append(nil))
}

// Event implements [view.Sink].
func (p *page) Event(_ *progress.Page, e *progress.Event) {
	p.news = true
	p.put(e.Encoded(p.of.id, wire.EncodeEvent))
}

// Progress implements [view.Sink].
func (p *page) Progress(pr *progress.Progress) { p.put(pr.Encoded(p.of.id, wire.EncodeProgress)) }
