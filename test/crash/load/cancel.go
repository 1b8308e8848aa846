package load

import (
	"context"
	"net/http"
	"time"

	"github.com/pay-theory/streamer/v2/test/crash/history"
	"github.com/pay-theory/streamer/v2/test/crash/wire"
)

// canceler cancels until it is answered.
func (r *request) canceler(ctx context.Context) {
	for ctx.Err() == nil {
		c := r.cancel(ctx)
		r.mu.Lock()
		r.plan.Cancels = append(r.plan.Cancels, c)
		r.mu.Unlock()
		if c.Outcome == history.Acked {
			return
		}
		pause(ctx, 50*time.Millisecond+r.ms(300))
	}
}

func (r *request) cancel(ctx context.Context) (c history.Cancel) {
	g := r.gateway()
	c = history.Cancel{Gateway: g.Name, Outcome: history.Unknown, From: time.Now()}
	defer func() { c.To = time.Now() }()
	ctx, stop := context.WithTimeout(ctx, callLimit)
	defer stop()
	if r.roll(2) == 0 {
		c.Transport = "websocket"
		r.cancelSocket(ctx, &c, g)
		return c
	}
	c.Transport = "http"
	a, err := wire.Call(ctx, r.server(g, r.callFate()), http.MethodDelete, "/requests/"+r.plan.ID+"?reason=enough", nil, nil)
	switch {
	case err != nil:
		r.report("cancel", err)
	case a.Type == "snapshot":
		c.Outcome, c.Status = history.Acked, a.Message.Status
	case a.Error != nil:
		c.Outcome, c.Code = history.Refused, a.Code()
	}
	return c
}

// cancelSocket cancels over a WebSocket, which follows the request or does not.
func (r *request) cancelSocket(ctx context.Context, c *history.Cancel, g Gateway) {
	var at *wire.Cursor
	if r.roll(3) == 0 {
		at = &wire.Cursor{ID: r.plan.ID}
	}
	f, err := r.openSocket(ctx, g, at)
	if err != nil {
		return
	}
	defer f.close()
	err = f.socket.Send(ctx, map[string]string{"type": "cancel", "id": r.plan.ID, "reason": "enough", "ref": "cancel"})
	for err == nil && c.Outcome == history.Unknown {
		var messages []wire.Message
		messages, err = f.next(ctx)
		for _, m := range messages {
			if m.Ref != "cancel" {
				continue
			}
			c.Outcome = history.Acked
			switch {
			case m.Type == "status":
				c.Status = m.Status
			case m.IsEnd() && m.Type != "error":
				c.Status = "completed"
			case m.IsEnd() && m.Code() == "CANCELED":
				c.Status = "canceled"
			case m.IsEnd():
				c.Status = "failed"
			default:
				c.Outcome, c.Code = history.Refused, m.Code()
			}
		}
	}
	r.report("cancel", err)
}

// prober tries once, as somebody else, to see the request or to cancel it.
func (r *request) prober(ctx context.Context) {
	tenant, user := "mallory-inc", r.plan.User
	if r.roll(2) == 0 {
		tenant, user = r.plan.Tenant, "mallory"
	}
	p := history.Probe{As: tenant + ":" + user, Outcome: history.Unknown, From: time.Now()}
	g := r.gateway()
	s := wire.Server{Addr: g.Addr, Token: p.As, Cuts: &r.Cuts}
	ctx, stop := context.WithTimeout(ctx, callLimit)
	defer stop()
	var a *wire.Answer
	var err error
	switch r.roll(4) {
	case 0:
		p.How = "ask for"
		a, err = wire.Call(ctx, s, http.MethodGet, "/requests/"+r.plan.ID, nil, nil)
	case 1:
		p.How = "read"
		_, _, a, err = wire.Page(ctx, s, wire.Cursor{ID: r.plan.ID}, 0)
	case 2:
		p.How = "cancel"
		a, err = wire.Call(ctx, s, http.MethodDelete, "/requests/"+r.plan.ID, nil, nil)
	default:
		p.How = "attach to"
		a, err = attach(ctx, s, r.plan.ID)
	}
	switch {
	case err != nil:
		r.report("probe", err)
	case a.Error != nil:
		p.Outcome, p.Code = history.Refused, a.Code()
	default:
		p.Outcome, p.Code = history.Acked, a.Raw
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	r.plan.Probes = append(r.plan.Probes, p)
}

// attach asks to be shown a request over a WebSocket, and returns the first that is said of it.
func attach(ctx context.Context, s wire.Server, id string) (*wire.Answer, error) {
	socket, err := wire.DialSocket(ctx, s, wire.Greeting{Resume: []wire.Cursor{{ID: id}}})
	if err != nil {
		return nil, err
	}
	defer socket.Close()
	for {
		messages, err := socket.Read(ctx, patience)
		if err != nil {
			return nil, err
		}
		for _, m := range messages {
			if m.RequestID == id {
				return &wire.Answer{Message: m}, nil
			}
		}
	}
}
