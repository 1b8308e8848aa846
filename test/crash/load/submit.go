package load

import (
	"context"
	"net/http"
	"time"

	"github.com/pay-theory/streamer/v2/test/crash/history"
	"github.com/pay-theory/streamer/v2/test/crash/wire"
)

// submitter submits until it is answered. The first one then follows the request, on the
// connection that it has where that is of such a kind.
func (r *request) submitter(ctx context.Context, other, first bool) {
	unknown := false
	for ctx.Err() == nil {
		s, at := r.submit(ctx, other, first)
		r.mu.Lock()
		r.plan.Submits = append(r.plan.Submits, s)
		r.mu.Unlock()
		switch {
		case s.Outcome == history.Acked:
			if unknown && s.Duplicate {
				r.Seen.Retried.Add(1)
			}
			r.noteAcked()
			if s.End != nil {
				r.noteEnd()
			}
			if first && !r.plan.Expect.Short {
				r.viewer(ctx, "submitter", at)
			} else if at != nil {
				at.close()
			}
			return
		case s.Outcome == history.Refused && s.Code != "SERVICE_UNAVAILABLE" && s.Code != "RATE_LIMITED":
			return
		}
		unknown = unknown || s.Outcome == history.Unknown
		pause(ctx, 50*time.Millisecond+r.ms(500))
	}
}

// submit tries once. It returns the connection if it shows the request from now on.
func (r *request) submit(ctx context.Context, other, follow bool) (s history.Submit, at *following) {
	g := r.gateway()
	s = history.Submit{Gateway: g.Name, Other: other, Outcome: history.Unknown, From: time.Now()}
	defer func() { s.To = time.Now() }()
	message := wire.Request{Type: "request", ID: r.plan.ID, Action: r.plan.Action, Payload: r.plan.Payload}
	if other {
		message.Payload = r.plan.other()
	}
	ctx, cancel := context.WithTimeout(ctx, callLimit)
	defer cancel()
	switch r.roll(3) {
	case 0:
		s.Transport = "websocket"
		at = r.submitSocket(ctx, &s, g, message)
	case 1:
		s.Transport = "sse"
		at = r.submitStream(ctx, &s, g, message)
	default:
		s.Transport = "http"
		header := map[string]string{}
		if r.roll(3) == 0 {
			header["Prefer"] = "wait=2"
		}
		a, err := wire.Call(ctx, r.server(g, r.callFate()), http.MethodPost, "/requests", header, message)
		if err != nil {
			r.report("submit", err)
			return s, nil
		}
		answered(&s, a)
	}
	if at != nil && !follow {
		at.close()
		at = nil
	}
	return s, at
}

// answered notes the answer to a submit.
func answered(s *history.Submit, a *wire.Answer) {
	s.Duplicate = a.Header.Get("Idempotency-Replayed") == "true"
	told(s, &a.Message)
}

// told notes a message that answers a submit.
func told(s *history.Submit, m *wire.Message) {
	switch {
	case m.Type == "acknowledgment":
		s.Outcome, s.Epoch, s.Duplicate = history.Acked, m.Epoch, m.Duplicate
	case m.IsEnd():
		end := *m
		s.Outcome, s.End = history.Acked, &end
	case m.Type == "error":
		s.Outcome, s.Code = history.Refused, m.Code()
	}
}

func (r *request) submitSocket(ctx context.Context, s *history.Submit, g Gateway, message wire.Request) *following {
	f, err := r.openSocket(ctx, g, nil)
	if err != nil {
		return nil
	}
	f.segment.Submitted = true
	if f.socket.Send(ctx, message) == nil {
		for s.Outcome == history.Unknown {
			messages, err := f.next(ctx)
			if err != nil {
				r.report("submit", err)
				break
			}
			for i := range messages {
				if s.Outcome == history.Unknown && messages[i].RequestID == r.plan.ID {
					told(s, &messages[i])
				}
			}
		}
	}
	if s.Outcome != history.Acked {
		f.close()
		return nil
	}
	return f
}

func (r *request) submitStream(ctx context.Context, s *history.Submit, g Gateway, message wire.Request) *following {
	// The stream outlives the call.
	stream, a, err := wire.SubmitStream(context.WithoutCancel(ctx), r.server(g, r.viewFate(1)), message, patience)
	switch {
	case err != nil:
		r.report("submit", err)
		return nil
	case stream == nil:
		answered(s, a)
		return nil
	}
	f := &following{stream: stream, segment: segment(g, "sse", wire.Cursor{ID: r.plan.ID}), id: r.plan.ID}
	f.segment.Submitted = true
	if messages, err := f.next(ctx); err == nil {
		told(s, &messages[0])
	} else {
		r.report("submit", err)
	}
	if s.Outcome != history.Acked {
		f.close()
		return nil
	}
	return f
}
