package load

import (
	"context"
	"net/http"
	"time"

	"github.com/pay-theory/streamer/v2/test/crash/history"
	"github.com/pay-theory/streamer/v2/test/crash/wire"
)

// audit reads the whole log on connections that are left alone, from one gateway or several,
// until it has the end.
func (r *request) audit(ctx context.Context) {
	for ctx.Err() == nil {
		g := r.gateway()
		s := segment(g, "page", wire.Cursor{ID: r.plan.ID})
		if r.readAll(ctx, g, s) {
			r.plan.Audit = s
			r.noteEnd()
			return
		}
		pause(ctx, 200*time.Millisecond+r.ms(300))
	}
}

// readAll reads page after page into s. It returns false when that failed, or the request has
// not ended.
func (r *request) readAll(ctx context.Context, g Gateway, s *history.Segment) bool {
	at := s.Cursor
	for {
		bounded, cancel := context.WithTimeout(ctx, callLimit)
		messages, done, a, err := wire.Page(bounded, r.server(g, wire.Fate{}), at, 2*time.Second)
		cancel()
		if err != nil || a.Status != http.StatusOK {
			r.report("audit", err)
			if err == nil && a.Code() == "NOT_FOUND" {
				s.Messages, s.To = []wire.Message{a.Message}, time.Now()
				return true
			}
			return false
		}
		for _, m := range messages {
			if m.Epoch != "" {
				at.Epoch = m.Epoch
			}
			if m.IsEvent() {
				at.After = m.Seq
			}
			if m.Type != "attached" || len(s.Messages) == 0 {
				s.Messages = append(s.Messages, m)
			}
		}
		switch {
		case done:
			s.To = time.Now()
			return true
		case len(messages) <= 1: // attached alone: nothing came within the wait
			return false
		}
	}
}
