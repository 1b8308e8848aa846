package websocket_test

import (
	"context"
	"encoding/json"
	"errors"
	"maps"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/pay-theory/streamer/v2"
	"github.com/pay-theory/streamer/v2/internal/wire"
	"github.com/pay-theory/streamer/v2/internal/wire/wiretest"
	"github.com/pay-theory/streamer/v2/progress"
	"github.com/pay-theory/streamer/v2/transport"
	"github.com/pay-theory/streamer/v2/transport/internal/pipes"
)

// TestConversationsAreServedAsWritten has all golden conversations with a server. What its
// handlers and workers do is taken from the conversation itself: before a line that shows an
// event, that event is appended to the log.
func TestConversationsAreServedAsWritten(t *testing.T) {
	all := wiretest.Load(t)
	for _, name := range slices.Sorted(maps.Keys(all)) {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) { converse(t, all[name]) })
		})
	}
}

func converse(t *testing.T, c wiretest.Conversation) {
	lines := c.Messages()
	u := setup{listener: pipes.Listen()}
	u.router = func(r transport.Router) transport.Router { return scripted{r, c.Name, lines} }
	if c.Name == "gap" {
		oldest := new(atomic.Uint64)
		oldest.Store(90)
		u.log = func(l progress.Log) progress.Log { return cutLog{l, "g2", oldest} }
	}
	if c.Name == "auth" {
		u.options = append(u.options, transport.WithAuthenticator(lettered))
	}
	s := u.start(t)
	values := wiretest.Values{}
	s.prepare(c.Name, values)
	p := s.connect()
	workers := make(map[string]*worker)
	for i := 0; i < len(lines); i++ {
		line := lines[i]
		if line.From == wiretest.Client {
			frame := line.Expand(values)
			for i+1 < len(lines) && lines[i+1].From == wiretest.Client && lines[i+1].Joined {
				i++
				frame += "\n" + lines[i].Expand(values)
			}
			p.send(frame)
			synctest.Wait()
			continue
		}
		s.happen(line.Text, workers)
		require.NoError(t, line.Match(p.about(requestID(line.Text)), values))
	}
	p.lives()
}

// about returns the next message about a request, or, for "", about none: what concerns
// different requests may come in any order.
func (p *peer) about(id string) string {
	p.t.Helper()
	for i, message := range p.aside {
		if requestID(message) == id {
			p.aside = slices.Delete(p.aside, i, i+1)
			return message
		}
	}
	for {
		message, err := p.read()
		require.NoError(p.t, err, "about %q", id)
		if got := requestID(message); got == id || id == "${id}" {
			return message
		}
		p.aside = append(p.aside, message)
	}
}

func requestID(message string) string {
	m := struct {
		ID string `json:"request_id"`
	}{}
	json.Unmarshal([]byte(strings.NewReplacer(`":${ms}`, `":0`).Replace(message)), &m)
	return m.ID
}

// prepare makes what a conversation finds there.
func (s *service) prepare(name string, values wiretest.Values) {
	submit := func(who streamer.Identity, id string) *worker {
		_, err := s.mux.Submit(context.Background(), who, &streamer.Request{ID: id, Action: "export_data"})
		require.NoError(s.t, err)
		return s.worker(id)
	}
	for _, action := range []string{"export_data", "sleep", "count"} {
		s.mux.Handle(action, streamer.HandlerFunc(echo))
	}
	switch name {
	case "resume":
		w := submit(streamer.Identity{}, "r1").start()
		for range 40 {
			w.output(`{"text":"Hel"}`)
		}
		w.appendWith(&progress.Progress{
			Attempt: 1, Rev: 1, Percentage: 45.5, Message: "Processed 4550/10000 records",
			Metadata: json.RawMessage(`{"records":4550}`), Time: time.Now(),
		})
		values["epoch"] = w.state.Epoch
		values["epoch2"] = submit(streamer.Identity{}, "r3").state.Epoch
	case "gap":
		values["epoch"] = submit(streamer.Identity{}, "g1").state.Epoch
		w := submit(streamer.Identity{}, "g2").start()
		for w.state.Last < 89 {
			w.output(`"x"`)
		}
		w.output(`"a"`).output(`"b"`)
		values["epoch2"] = w.state.Epoch
	}
}

// happen makes happen what a line of the server shows, where the server does not do that
// itself.
func (s *service) happen(line string, workers map[string]*worker) {
	line = strings.NewReplacer(`"${ms}"`, "0", "${ms}", "0", "${time}", "2026-01-02T03:04:05.678Z", "${epoch}", "e").Replace(line)
	m, err := wire.DecodeOutbound([]byte(line))
	require.NoError(s.t, err, line)
	e := &progress.Event{Data: m.Data, Attempt: m.Attempt, Error: m.Error, Reason: m.Reason}
	switch {
	case m.Type == wire.TypeGoaway:
		go s.mux.Shutdown(context.Background())
		synctest.Wait()
		return
	case m.Type == wire.TypeProgress:
		w := s.known(workers, m.RequestID)
		if w.state.Phase == progress.Accepted {
			w.start()
		}
		w.rev++
		require.NoError(s.t, w.log.SetProgress(context.Background(), w.key, &progress.Progress{
			Attempt: m.Attempt, Rev: w.rev, Percentage: m.Percentage, Message: m.Message, Metadata: m.Metadata, Time: time.Now(),
		}))
		return
	case m.Seq < 2:
		return
	case m.Type == wire.TypeStatus && m.Status == "running":
		e.Kind, e.Index = progress.Started, m.OutputsFrom
	case m.Type == wire.TypeStatus && m.Status == "retrying":
		e.Kind, e.Delay = progress.Retrying, time.Duration(m.RetryAfterMS)*time.Millisecond
	case m.Type == wire.TypeOutput:
		e.Kind, e.Index = progress.Output, m.Index
	case m.Type == wire.TypeComplete:
		e.Kind, e.Data, e.Success = progress.Completed, m.Result, m.Success
	case m.Type == wire.TypeError && m.Error.Code == streamer.ErrCodeCanceled:
		e.Kind = progress.Canceled
	case m.Type == wire.TypeError:
		e.Kind = progress.Failed
	default:
		return
	}
	w := s.known(workers, m.RequestID)
	if w.state.Last < m.Seq {
		w.append(e)
	}
}

func (s *service) known(workers map[string]*worker, id string) *worker {
	w := workers[id]
	if w == nil {
		w = s.worker(id)
		workers[id] = w
	}
	st, err := s.log.Tail(context.Background(), w.key)
	require.NoError(s.t, err)
	w.state = st
	return w
}

// lettered knows tokens that end with a number.
func lettered(_ context.Context, c transport.Credentials) (streamer.Identity, error) {
	switch c.Token {
	case "eyJhbGciOi.one":
		return streamer.Identity{User: "u", Expires: time.Now().Add(50 * time.Second)}, nil
	case "eyJhbGciOi.two":
		return streamer.Identity{User: "u", Expires: time.Now().Add(time.Hour)}, nil
	case "eyJhbGciOi.three":
		return streamer.Identity{User: "u"}, nil
	}
	return streamer.Identity{}, streamer.NewError(streamer.ErrCodeUnauthorized, "not shown")
}

// scripted is a router whose short work has the outcome that the conversation shows.
type scripted struct {
	transport.Router
	name  string
	lines []wiretest.Line
}

func (r scripted) Submit(ctx context.Context, who streamer.Identity, req *streamer.Request) (*streamer.Receipt, error) {
	for _, line := range r.lines {
		m, err := wire.DecodeOutbound([]byte(line.Text))
		if err != nil || line.From != wiretest.Server {
			continue
		}
		ours := m.RequestID == req.ID || m.RequestID == "${id}" && req.ID == ""
		switch {
		case !ours || m.Error != nil && m.Error.Code == streamer.ErrCodeConflict:
		case m.Type == wire.TypeResponse:
			id := req.ID
			if id == "" {
				id = "made"
			}
			return &streamer.Receipt{ID: id, End: &progress.Event{
				Seq: 1, Kind: progress.Completed, Short: true, Success: m.Success, Data: m.Data,
			}}, nil
		case m.Type == wire.TypeError && m.Seq == 1:
			return &streamer.Receipt{ID: req.ID, End: &progress.Event{Seq: 1, Kind: progress.Failed, Short: true, Error: m.Error}}, nil
		case m.Type == wire.TypeError && m.Seq == 0:
			return nil, streamer.NewError(m.Error.Code, m.Error.Message).WithRetry(m.Error.RetryAfter)
		}
	}
	receipt, err := r.Router.Submit(ctx, who, req)
	var public *streamer.Error
	if errors.As(err, &public) {
		for _, line := range r.lines { // the text is the router's affair
			if m, err := wire.DecodeOutbound([]byte(line.Text)); err == nil && m.Error != nil && m.Error.Code == public.Code {
				return nil, streamer.NewError(public.Code, m.Error.Message)
			}
		}
	}
	return receipt, err
}

// cutLog is a log that has lost the events of a request before oldest.
type cutLog struct {
	progress.Log
	id     string
	oldest *atomic.Uint64 // 0: nothing is lost
}

func (l cutLog) Read(ctx context.Context, key progress.Key, after uint64, limit int) (progress.Page, error) {
	oldest := l.oldest.Load()
	if key.ID != l.id || oldest == 0 {
		return l.Log.Read(ctx, key, after, limit)
	}
	page, err := l.Log.Read(ctx, key, max(after, oldest-1), limit)
	page.Oldest = oldest
	return page, err
}
