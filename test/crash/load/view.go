package load

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/pay-theory/streamer/v2/test/crash/history"
	"github.com/pay-theory/streamer/v2/test/crash/wire"
)

// following is a connection that shows a request, or several.
type following struct {
	id      string
	socket  *wire.Socket
	stream  *wire.Stream
	segment *history.Segment // nil where there are several requests
	leave   time.Time        // the server asked to be left by then; zero: it did not
	stop    context.CancelFunc
	pings   sync.WaitGroup
}

func segment(g Gateway, transport string, at wire.Cursor) *history.Segment {
	return &history.Segment{Gateway: g.Name, Transport: transport, Cursor: at, From: time.Now()}
}

// openSocket opens a WebSocket that follows the request from a cursor on, if there is one.
func (r *request) openSocket(ctx context.Context, g Gateway, at *wire.Cursor) (*following, error) {
	f := &following{id: r.plan.ID, segment: segment(g, "websocket", wire.Cursor{ID: r.plan.ID})}
	greeting := wire.Greeting{TokenInHello: r.roll(2) == 0, Batch: r.roll(3) > 0}
	resume := r.roll(3) > 0
	if at != nil {
		f.segment.Cursor = *at
		if resume {
			greeting.Resume = []wire.Cursor{*at}
		}
	}
	dialing, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	socket, err := wire.DialSocket(dialing, r.server(g, r.viewFate(1)), greeting)
	if err != nil {
		return nil, err
	}
	if at != nil && !resume {
		err = socket.Send(dialing, struct {
			Type string `json:"type"`
			wire.Cursor
		}{"attach", *at})
		if err != nil {
			socket.Close()
			return nil, err
		}
	}
	f.begin(ctx, socket)
	return f, nil
}

func (f *following) begin(ctx context.Context, socket *wire.Socket) {
	f.socket = socket
	var pinging context.Context
	pinging, f.stop = context.WithCancel(context.WithoutCancel(ctx))
	f.pings.Go(func() { f.ping(pinging) })
}

// ping has the server say something now and then, so that one that does not is noticed.
func (f *following) ping(ctx context.Context) {
	for pause(ctx, patience/3) {
		if f.socket.Send(ctx, map[string]string{"type": "ping"}) != nil {
			return
		}
	}
}

// next returns what comes next of the request, and has it in the segment.
func (f *following) next(ctx context.Context) ([]wire.Message, error) {
	var messages []wire.Message
	var err error
	if f.socket != nil {
		messages, err = f.socket.Read(ctx, patience)
	} else {
		var m wire.Message
		var cursor string
		m, cursor, err = f.stream.Next()
		messages = []wire.Message{m}
		if err == nil && m.IsEvent() && !slices.ContainsFunc(strings.Split(cursor, ","), func(c string) bool {
			return strings.HasSuffix(c, ":"+strconv.FormatUint(m.Seq, 10)) && (f.id != "" || strings.HasPrefix(c, m.RequestID+":"))
		}) {
			err = fmt.Errorf("%w: an event has the id %q: %s", wire.ErrProtocol, cursor, m.Raw)
		}
	}
	if err != nil {
		return nil, err
	}
	for _, m := range messages {
		if m.Type == "goaway" && f.leave.IsZero() {
			f.leave = time.Now().Add(time.Duration(m.ReconnectIn) * time.Millisecond)
		}
		if f.segment != nil && m.RequestID == f.id {
			f.segment.Messages = append(f.segment.Messages, m)
		}
	}
	return messages, nil
}

func (f *following) close() {
	if f.socket != nil {
		f.stop()
		f.socket.Close()
		f.pings.Wait()
	} else {
		f.stream.Close()
	}
	if f.segment != nil {
		f.segment.To = time.Now()
	}
}

// viewer follows the request, over one connection after the other, until it has seen the end.
// It begins with the connection at, if there is one.
func (r *request) viewer(ctx context.Context, name string, at *following) {
	v := &history.View{Viewer: name}
	defer func() {
		r.mu.Lock()
		defer r.mu.Unlock()
		r.plan.Views = append(r.plan.Views, v)
	}()
	w := &watch{request: r, cursor: wire.Cursor{ID: r.plan.ID}}
	kind := r.roll(5)
	for ctx.Err() == nil {
		var s *history.Segment
		switch {
		case at != nil:
			s = w.follow(ctx, at)
			at = nil
		case kind < 2:
			s = w.socket(ctx)
		case kind < 4:
			s = w.events(ctx)
		default:
			s = w.page(ctx)
		}
		w.add(v, s)
		if w.done {
			r.noteEnd()
			return
		}
		pause(ctx, r.ms(150))
		if len(s.Messages) == 0 {
			pause(ctx, r.ms(200))
		}
	}
}

// watch is how far a viewer is.
type watch struct {
	*request
	cursor wire.Cursor
	done   bool
	bereft bool // the gateway that it was shown something by last was killed meanwhile
}

// add adds what was shown on a connection that is over.
func (w *watch) add(v *history.View, s *history.Segment) {
	if len(s.Messages) == 0 {
		return
	}
	v.Segments = append(v.Segments, s)
	if w.bereft && s.Cursor.After > 0 {
		w.Seen.Resumed.Add(1)
	}
	w.bereft = !w.done && w.Killed(s.Gateway, s.From, s.To)
}

// take moves the cursor as docs/protocol.md says. What is wrong with the numbers is for the
// checks to find.
func (w *watch) take(messages []wire.Message) {
	for i := range messages {
		m := &messages[i]
		if m.RequestID != w.plan.ID {
			continue
		}
		switch {
		case m.Type == "attached":
			w.cursor.Epoch = m.Epoch
		case m.Type == "acknowledgment":
			w.cursor.Epoch, w.cursor.After = m.Epoch, 1
		case m.Type == "gap":
			w.cursor.Epoch, w.cursor.After = m.Epoch, max(m.Oldest, 1)-1
		case m.IsEvent():
			w.cursor.After = m.Seq
			w.done = w.done || m.IsEnd()
		case m.Code() == "NOT_FOUND":
			w.done = true // the checks will see
		}
	}
}

// follow sees a connection through.
func (w *watch) follow(ctx context.Context, f *following) *history.Segment {
	defer f.close()
	stay := w.roll(2) == 0 // until a server that asks to be left closes
	w.take(f.segment.Messages)
	for !w.done {
		messages, err := f.next(ctx)
		if err != nil {
			if !errors.Is(err, io.EOF) {
				w.report("view", err)
			}
			break
		}
		w.take(messages)
		if !stay && !f.leave.IsZero() && time.Now().After(f.leave) {
			break
		}
	}
	return f.segment
}

func (w *watch) socket(ctx context.Context) *history.Segment {
	g, from := w.gateway(), time.Now()
	f, err := w.openSocket(ctx, g, &w.cursor)
	if err != nil {
		s := segment(g, "websocket", w.cursor)
		s.From, s.To = from, time.Now()
		return s
	}
	return w.follow(ctx, f)
}

func (w *watch) events(ctx context.Context) *history.Segment {
	g := w.gateway()
	s := segment(g, "sse", w.cursor)
	stream, a, err := wire.Follow(ctx, w.server(g, w.viewFate(1)), w.cursor, patience)
	if err == nil && stream != nil {
		return w.follow(ctx, &following{id: w.plan.ID, stream: stream, segment: s})
	}
	w.refused(s, a, err)
	return s
}

func (w *watch) page(ctx context.Context) *history.Segment {
	g := w.gateway()
	s := segment(g, "page", w.cursor)
	var fate wire.Fate
	if !w.calm.Load() {
		fate = w.callFate()
	}
	ctx, cancel := context.WithTimeout(ctx, callLimit)
	defer cancel()
	messages, _, a, err := wire.Page(ctx, w.server(g, fate), w.cursor, time.Duration(w.roll(3))*time.Second)
	if err != nil || a.Status != http.StatusOK {
		w.refused(s, a, err)
		return s
	}
	s.Messages = messages
	w.take(messages)
	s.To = time.Now()
	return s
}

// refused notes an answer that shows no log.
func (w *watch) refused(s *history.Segment, a *wire.Answer, err error) {
	s.To = time.Now()
	switch {
	case err != nil:
		w.report("view", err)
	case a.Error != nil:
		m := a.Message
		m.RequestID = w.plan.ID
		s.Messages = append(s.Messages, m)
		w.take(s.Messages)
	case a.Status == http.StatusNoContent:
		w.done = w.done || w.over()
	}
}
