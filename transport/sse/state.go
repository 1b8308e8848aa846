package sse

import (
	"hash/fnv"
	"net/http"
	"strconv"
	"strings"

	"github.com/pay-theory/streamer/v2/internal/wire"
	"github.com/pay-theory/streamer/v2/progress"
	"github.com/pay-theory/streamer/v2/transport/internal/view"
)

// show serves GET /requests/{id}: how the request stands, when that is what the client waits
// for.
func (c *call) show() {
	viewer, err := c.h.router.Attach(c.context(), c.who, c.id)
	if err != nil {
		c.fail(err)
		return
	}
	page := viewer.Page()
	known := c.r.Header.Get("If-None-Match")
	prefs := prefer(c.r.Header)
	news := func() bool {
		if known != "" {
			return !matches(known, tag(c.id, &page))
		}
		return page.State.Ended()
	}
	if prefs.wait > 0 && !news() {
		c.patient(prefs.wait)
		s := newSet(c)
		defer s.stop()
		if _, err := s.add(c.id, viewer, view.Cursor{}); err != nil {
			c.fail(err)
			return
		}
		s.wait(prefs.wait, func() bool {
			page, err = viewer.Read(c.context(), 0, 1)
			return err != nil || news()
		})
		if err != nil {
			c.fail(err)
			return
		}
	}
	if prefs.waits {
		prefs.applied(c.w)
	}
	c.snapshot(http.StatusOK, &page)
}

// snapshot answers with how a request stands, or that the client knows.
func (c *call) snapshot(status int, page *progress.Page) {
	var end *progress.Event
	h := c.w.Header()
	if !page.State.Ended() {
		h.Set("Retry-After", pollAfter)
	}
	etag := tag(c.id, page)
	h.Set("ETag", etag)
	if status == http.StatusOK && matches(c.r.Header.Get("If-None-Match"), etag) {
		h.Set("Cache-Control", "no-store")
		c.w.WriteHeader(http.StatusNotModified)
		return
	}
	if page.State.Ended() {
		viewer, err := c.h.router.Attach(c.context(), c.who, c.id)
		if err == nil {
			f := followed{set: newSet(c), viewer: viewer}
			end, err = f.end(page)
		}
		if err != nil {
			h.Del("ETag")
			c.fail(err)
			return
		}
	}
	c.answer(status, wire.AppendSnapshot(nil, c.id, page, end))
}

// cancel serves DELETE /requests/{id}.
func (c *call) cancel() {
	reason := strings.ToValidUTF8(c.r.URL.Query().Get("reason"), "\uFFFD")
	st, err := c.h.router.Cancel(c.context(), c.who, c.id, reason)
	if err != nil {
		c.fail(err)
		return
	}
	status := http.StatusAccepted
	if st.Ended() {
		status = http.StatusOK
	}
	viewer, err := c.h.router.Attach(c.context(), c.who, c.id)
	if err != nil {
		c.fail(err)
		return
	}
	page := viewer.Page()
	c.snapshot(status, &page)
}

// tag is the ETag of what pages show: it changes with events and progress.
func tag(id string, page *progress.Page) string { return newTag().add(id, page).String() }

// tagger sums up the pages of several requests.
type tagger struct{ sum uint64 }

func newTag() tagger { return tagger{} }

func (t tagger) add(id string, page *progress.Page) tagger {
	h := fnv.New64a()
	st := &page.State
	b := append([]byte(id), ':')
	b = append(append(b, st.Epoch...), ':')
	b = append(strconv.AppendUint(b, st.Last, 10), ':')
	b = append(strconv.AppendInt(b, int64(st.Attempt), 10), ':')
	if p := page.Progress; p != nil && p.Rev > 0 && !st.Ended() {
		b = strconv.AppendUint(b, p.Rev, 10)
	}
	h.Write(b)
	t.sum = t.sum*31 + h.Sum64()
	return t
}

// String returns it as the header has it.
func (t tagger) String() string { return `"` + strconv.FormatUint(t.sum, 36) + `"` }

// matches reports whether a list of ETags has one, or is *.
func matches(list, etag string) bool {
	for field := range strings.SplitSeq(list, ",") {
		field = strings.TrimPrefix(strings.TrimSpace(field), "W/")
		if field == etag || field == "*" {
			return true
		}
	}
	return false
}
