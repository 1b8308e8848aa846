package client

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"io"
	"maps"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/pay-theory/streamer/v2/internal/sse"
	"github.com/pay-theory/streamer/v2/internal/wire"
	"github.com/pay-theory/streamer/v2/progress"
)

// view shows what happens to requests, by an event stream or by polling. When what is followed
// changes, another one takes over as soon as it has its first bytes; numbers show what both
// brought.
type view struct {
	s     *calls
	ctx   context.Context
	stop  context.CancelCauseFunc
	shows map[string]*following // what it was opened for
	began time.Time             // when it took over
}

var (
	errTakenOver = errors.New("another stream has taken over")
	errHeldUp    = errors.New("the stream is held up on its way")
	errStreamEnd = errors.New("the stream ended early")
)

// follow shows a request, from a cursor on.
func (s *calls) follow(c wire.Cursor, ref string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.follows[c.ID] = &following{cursor: c, ref: ref}
	s.reopen()
}

// unfollow shows a request no more.
func (s *calls) unfollow(id string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.follows[id] != nil {
		delete(s.follows, id)
		s.reopen()
	}
}

// reopen opens a view of what is followed now. s.mu is held.
func (s *calls) reopen() {
	if s.opening {
		s.stale = true
		return
	}
	s.opening = true
	s.c.wg.Go(s.open)
}

// open runs a view until it ends.
func (s *calls) open() {
	if pause(s.work, gatherTime) != nil {
		return
	}
	s.mu.Lock()
	s.stale = false
	if len(s.follows) == 0 {
		s.opening = false
		s.replace(nil)
		s.mu.Unlock()
		s.welcome()
		return
	}
	v := s.newView(maps.Clone(s.follows))
	s.mu.Unlock()

	err := errHeldUp
	if time.Now().UnixNano() >= s.c.polls.Load() {
		err = v.stream()
		v.stop(nil)
	}
	if errors.Is(err, errHeldUp) {
		v = s.newView(v.shows)
		err = v.poll()
		v.stop(nil)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	switch {
	case errors.Is(err, errTakenOver):
	case err != nil:
		s.fail(err)
	case s.current == v:
		s.current = nil
		if len(s.follows) > 0 {
			s.reopen()
		}
	}
}

func (s *calls) newView(shows map[string]*following) *view {
	v := &view{s: s, shows: shows}
	v.ctx, v.stop = context.WithCancelCause(s.work)
	return v
}

// replace makes v the view whose messages are taken. s.mu is held.
func (s *calls) replace(v *view) {
	if old := s.current; old != nil && old != v {
		old.stop(errTakenOver)
	}
	s.current = v
}

// begin takes over: the view has its first bytes.
func (v *view) begin() {
	if !v.began.IsZero() {
		return
	}
	v.began = time.Now()
	s := v.s
	s.welcome()
	s.mu.Lock()
	defer s.mu.Unlock()
	s.replace(v)
	s.opening = false
	if s.stale {
		s.reopen()
	}
}

// ids are the requests that the view shows, in order.
func (v *view) ids() []string { return slices.Sorted(maps.Keys(v.shows)) }

// path names what the view shows.
func (v *view) path() string {
	var b strings.Builder
	b.WriteString("/events")
	v.s.mu.Lock()
	defer v.s.mu.Unlock()
	sep := byte('?')
	for _, id := range v.ids() {
		at := v.shows[id].cursor
		b.WriteByte(sep)
		b.WriteString("r=" + url.QueryEscape(id+":"+at.Epoch+":"+strconv.FormatUint(at.After, 10)))
		sep = '&'
	}
	return b.String()
}

// stream shows by server-sent events. It returns nil when another view is to follow.
func (v *view) stream() error {
	s := v.s
	held := time.AfterFunc(s.c.cfg.connectTimeout, func() { v.stop(errHeldUp) })
	defer held.Stop()
	resp, err := s.do(v.ctx, http.MethodGet, v.path(), nil, http.Header{
		"Accept":          {"text/event-stream"},
		"Accept-Encoding": {"identity"}, // what compresses a stream may hold it back
	})
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	if ended, err := v.check(resp, "text/event-stream"); ended || err != nil {
		return err
	}
	r := sse.NewReader(resp.Body, s.c.cfg.limits.Message)
	for {
		e, err := r.Next()
		if err != nil {
			return v.broken(err)
		}
		if v.began.IsZero() {
			if !held.Stop() {
				return errHeldUp
			}
			v.begin()
			held = time.AfterFunc(streamSilence, func() { v.stop(errSilent) })
		}
		held.Reset(streamSilence)
		if e.Data == nil {
			continue
		}
		m, err := wire.DecodeOutbound(e.Data)
		switch {
		case err != nil:
			return &protocolError{"the server sent a message that makes no sense: " + err.Error()}
		case e.Name == wire.TypeEnd:
			return nil
		default:
			v.take(m, e.Data)
		}
	}
}

// broken says what the end of a stream means that did not say that it ends.
func (v *view) broken(err error) error {
	if cause := context.Cause(v.ctx); cause != nil {
		return cause
	}
	healthy := !v.began.IsZero() && time.Since(v.began) >= healthyAfter
	switch {
	case errors.Is(err, sse.ErrTooLarge):
		return errTooLarge
	case errors.Is(err, io.EOF) && healthy:
		return nil // streams have their time
	case errors.Is(err, io.EOF):
		return errStreamEnd
	default:
		return err
	}
}

// check looks at an answer. It returns true when there is nothing more to be shown.
func (v *view) check(resp *http.Response, media string) (ended bool, err error) {
	switch {
	case resp.StatusCode == http.StatusNoContent:
		v.begin()
		v.finish(nil)
		return true, nil
	case resp.StatusCode == http.StatusOK && strings.HasPrefix(resp.Header.Get("Content-Type"), media):
		return false, nil
	case resp.StatusCode == http.StatusOK:
		return false, &protocolError{"the server answered with something else than " + media}
	}
	text, err := v.s.read(resp.Body)
	if err != nil {
		return false, v.broken(err)
	}
	if p, ok := readProblem(resp, text); ok && resp.StatusCode != http.StatusUnauthorized && !unavailable(p.Code) {
		v.begin()
		v.finish(p.failure())
		return true, nil
	}
	return false, refusal(resp, text)
}

// finish says that nothing more comes: all that the view shows has been shown up to its end, or
// is refused, each for a reason of its own, of which the answer has that of the first.
func (v *view) finish(refused *progress.Failure) {
	s := v.s
	ids := v.ids()
	if refused != nil {
		ids = ids[:1]
	}
	for _, id := range ids {
		f := v.shows[id]
		s.mu.Lock()
		at := f.cursor
		s.mu.Unlock()
		m := &wire.Outbound{Type: wire.TypeError, RequestID: id, Error: refused}
		if refused == nil {
			m = &wire.Outbound{
				Type: wire.TypeAttached, RequestID: id, Epoch: at.Epoch, Status: progress.Completed.Status(),
				Last: at.After, After: at.After,
			}
		}
		v.take(m, m.Append(nil))
		s.mu.Lock()
		if s.current == v && s.follows[id] == f {
			delete(s.follows, id)
		}
		s.mu.Unlock()
	}
}

// take hands over a message, in turn, so that what a view shows that has taken over comes after
// all that the one before has shown.
func (v *view) take(m *wire.Outbound, text []byte) {
	s := v.s
	select {
	case s.turn <- struct{}{}:
	case <-s.ctx.Done():
		return
	}
	defer func() { <-s.turn }()
	if ref, ok := v.note(m); ok {
		s.put(wire.AppendRef(nil, bytes.TrimSpace(text), ref))
	}
}

// note moves the cursor for a message. It returns the ref that it answers, and false for one
// that was shown before or is out of date.
func (v *view) note(m *wire.Outbound) (ref string, ok bool) {
	s := v.s
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.current != v || m.RequestID == "" {
		return "", s.current == v
	}
	f := s.follows[m.RequestID]
	if f == nil || v.shows[m.RequestID] != f {
		return "", false
	}
	switch {
	case m.Type == wire.TypeAttached, m.Type == wire.TypeGap, m.Type == wire.TypeError && m.Seq == 0:
		ref, f.ref = f.ref, ""
		if m.Epoch != "" {
			f.cursor.Epoch = m.Epoch
		}
		if m.Type == wire.TypeGap {
			f.cursor.After = max(m.Oldest, 1) - 1
		}
	case m.Seq > 0 && m.Seq <= f.cursor.After:
		return "", false
	case m.Seq > 0:
		f.cursor.After = m.Seq
	}
	if m.Type == wire.TypeComplete || m.Type == wire.TypeResponse || m.Type == wire.TypeError {
		delete(s.follows, m.RequestID)
	}
	return ref, true
}

// poll shows by asking again and again. It returns nil when another view is to follow.
func (v *view) poll() error {
	until := v.s.c.polls.Load()
	if now := time.Now(); now.UnixNano() >= until {
		until = now.Add(pollFor).UnixNano()
	}
	header := http.Header{"Accept": {"application/json"}}
	for {
		began := time.Now()
		news, done, err := v.page(header)
		if err == nil {
			v.s.c.polls.Store(until) // since polls are answered where streams are not
		}
		switch {
		case err != nil:
			return err
		case done || time.Now().UnixNano() >= until:
			return nil
		case !news:
			if err := pause(v.ctx, pollPause-time.Since(began)); err != nil {
				return context.Cause(v.ctx)
			}
		}
	}
}

// page asks once. It returns whether there was more than progress, and whether nothing more is
// to come.
func (v *view) page(header http.Header) (news, done bool, err error) {
	timeout := pollTimeout
	if v.began.IsZero() {
		timeout = v.s.c.cfg.connectTimeout
	}
	ctx, cancel := context.WithTimeoutCause(v.ctx, timeout, errors.New("the server did not answer in time"))
	defer cancel()
	resp, err := v.s.do(ctx, http.MethodGet, v.path(), nil, header)
	if err != nil {
		return false, false, err
	}
	defer resp.Body.Close()
	// The first answer comes at once, so that this view can take over.
	header.Set("Prefer", pollWait)
	if resp.StatusCode == http.StatusNotModified {
		v.begin()
		return false, false, nil
	}
	if ended, err := v.check(resp, "application/json"); ended || err != nil {
		return false, true, err
	}
	text, err := v.s.read(resp.Body)
	if err != nil {
		return false, false, v.broken(err)
	}
	var page struct {
		Events []json.RawMessage `json:"events"`
		Done   bool              `json:"done"`
	}
	if err := json.Unmarshal(text, &page); err != nil {
		return false, false, &protocolError{"the server's answer makes no sense: " + err.Error()}
	}
	header.Set("If-None-Match", resp.Header.Get("ETag"))
	v.begin()
	for _, raw := range page.Events {
		m, err := wire.DecodeOutbound(raw)
		if err != nil {
			return false, false, &protocolError{"the server sent a message that makes no sense: " + err.Error()}
		}
		news = news || m.Type != wire.TypeProgress && (m.Type != wire.TypeAttached || m.Last > m.After)
		v.take(m, raw)
	}
	if page.Done && !news {
		v.finish(nil)
		return false, true, nil
	}
	return news, false, nil
}
