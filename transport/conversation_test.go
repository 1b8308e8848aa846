package transport_test

import (
	"context"
	"encoding/json"
	"errors"
	"log/slog"
	"maps"
	"net/http"
	"regexp"
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
	"github.com/pay-theory/streamer/v2/progress/memlog"
	"github.com/pay-theory/streamer/v2/transport"
	"github.com/pay-theory/streamer/v2/transport/internal/pipes"
	"github.com/pay-theory/streamer/v2/transport/internal/worker"
	"github.com/pay-theory/streamer/v2/transport/sse"
	"github.com/pay-theory/streamer/v2/transport/websocket"
)

// TestConversationsAreServedAsWritten has all golden conversations with a server, over every
// transport. What its handlers and workers do is taken from the conversation itself: before a
// line that shows an event, that event is appended to the log.
func TestConversationsAreServedAsWritten(t *testing.T) {
	all := wiretest.Load(t)
	for _, transport := range []struct {
		name    string
		connect func(*service) peer
		without []string // conversations about what the transport does not have
	}{
		{"websocket", connectSocket, nil},
		{"sse", connectStream, []string{"ancestor", "auth", "batch", "ping"}},
		{"poll", connectPoll, []string{"ancestor", "auth", "batch", "goaway", "ping"}},
	} {
		for _, name := range slices.Sorted(maps.Keys(all)) {
			if slices.Contains(transport.without, name) {
				continue
			}
			t.Run(transport.name+"/"+name, func(t *testing.T) {
				synctest.Test(t, func(t *testing.T) { converse(t, all[name], transport.connect) })
			})
		}
	}
}

// peer is a client by hand.
type peer interface {
	// send sends a frame of one or more messages, or what says the same.
	send(frame string)

	// about returns the next message about a request, or, for "", about none: what concerns
	// different requests may come in any order.
	about(id string) string

	// expects returns a line as it is on this transport, and whether it is there at all.
	expects(line wiretest.Line) (wiretest.Line, bool)

	// lives asserts that nothing else was sent, as far as that can be known.
	lives()
}

// service is a server with everything behind it. Nobody works on its queue.
type service struct {
	t      *testing.T
	log    *memlog.Log
	mux    *streamer.Mux
	listen *pipes.Listener
}

func converse(t *testing.T, c wiretest.Conversation, connect func(*service) peer) {
	lines := c.Messages()
	s := serve(t, c.Name, lines)
	values := wiretest.Values{}
	s.prepare(c.Name, values)
	p := connect(s)
	workers := make(map[string]*worker.Worker)
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
		if expected, there := p.expects(line); there {
			require.NoError(t, expected.Match(p.about(requestID(line.Text)), values))
		}
	}
	p.lives()
}

func serve(t *testing.T, name string, lines []wiretest.Line) *service {
	t.Helper()
	s := &service{t: t, log: memlog.New(), listen: pipes.Listen()}
	var log progress.Log = s.log
	if name == "gap" {
		oldest := new(atomic.Uint64)
		oldest.Store(90)
		log = worker.CutLog{Log: log, ID: "g2", Oldest: oldest}
	}
	quiet := slog.New(slog.DiscardHandler)
	s.mux = streamer.NewRouter(streamer.WithLog(log), streamer.WithLogger(quiet), streamer.WithRetention(24*time.Hour))
	options := []transport.Option{transport.WithLogger(quiet)}
	if name == "auth" {
		options = append(options, transport.WithAuthenticator(lettered))
	}
	router := scripted{s.mux, name, lines}
	ws := websocket.NewHandler(router, options...)
	api := sse.NewHandler(router, options...)
	mux := http.NewServeMux()
	mux.Handle("/ws", ws)
	mux.Handle("/", api)
	server := &http.Server{Handler: mux, ErrorLog: slog.NewLogLogger(quiet.Handler(), slog.LevelError)}
	served := make(chan struct{})
	go func() {
		defer close(served)
		server.Serve(s.listen)
	}()
	t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.Background(), 5*time.Second)
		defer cancel()
		require.NoError(t, s.mux.Shutdown(ctx))
		require.NoError(t, ws.Shutdown(ctx))
		require.NoError(t, api.Shutdown(ctx))
		server.Close()
		<-served
		s.log.Close()
	})
	return s
}

func requestID(message string) string {
	m := struct {
		ID string `json:"request_id"`
	}{}
	json.Unmarshal([]byte(strings.NewReplacer(`":${ms}`, `":0`).Replace(message)), &m)
	return m.ID
}

var refs = regexp.MustCompile(`,"ref":"[^"]*"`)

// prepare makes what a conversation finds there.
func (s *service) prepare(name string, values wiretest.Values) {
	submit := func(id string) *worker.Worker {
		_, err := s.mux.Submit(context.Background(), streamer.Identity{}, &streamer.Request{ID: id, Action: "export_data"})
		require.NoError(s.t, err)
		return worker.New(s.t, s.log, progress.Key{Scope: "/", ID: id})
	}
	for _, action := range []string{"export_data", "sleep", "count"} {
		s.mux.Handle(action, streamer.HandlerFunc(nothing))
	}
	switch name {
	case "resume":
		w := submit("r1").Start()
		for range 40 {
			w.Output(`{"text":"Hel"}`)
		}
		w.AppendWith(&progress.Progress{
			Attempt: 1, Rev: 1, Percentage: 45.5, Message: "Processed 4550/10000 records",
			Metadata: json.RawMessage(`{"records":4550}`), Time: time.Now(),
		})
		values["epoch"] = w.State.Epoch
		values["epoch2"] = submit("r3").State.Epoch
	case "gap":
		values["epoch"] = submit("g1").State.Epoch
		w := submit("g2").Start()
		for w.State.Last < 89 {
			w.Output(`"x"`)
		}
		w.Output(`"a"`).Output(`"b"`)
		values["epoch2"] = w.State.Epoch
	}
}

func nothing(context.Context, *streamer.Request, streamer.Reporter) (*streamer.Result, error) {
	return nil, errors.New("nobody works here")
}

// happen makes happen what a line of the server shows, where the server does not do that
// itself.
func (s *service) happen(line string, workers map[string]*worker.Worker) {
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
		if w.State.Phase == progress.Accepted {
			w.Start()
		}
		w.Rev++
		w.Report(&progress.Progress{
			Attempt: m.Attempt, Rev: w.Rev, Percentage: m.Percentage, Message: m.Message, Metadata: m.Metadata, Time: time.Now(),
		})
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
	if w.State.Last < m.Seq {
		w.Append(e)
	}
}

func (s *service) known(workers map[string]*worker.Worker, id string) *worker.Worker {
	w := workers[id]
	if w == nil {
		w = worker.New(s.t, s.log, progress.Key{Scope: "/", ID: id})
		workers[id] = w
	}
	w.Look()
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
			m, err := wire.DecodeOutbound([]byte(strings.ReplaceAll(line.Text, "${ms}", "1")))
			if err == nil && m.Error != nil && m.Error.Code == public.Code {
				return nil, streamer.NewError(public.Code, m.Error.Message).WithRetry(public.RetryAfter)
			}
		}
	}
	return receipt, err
}
