package view

import (
	"context"

	"github.com/pay-theory/streamer/v2"
	"github.com/pay-theory/streamer/v2/internal/wire"
	"github.com/pay-theory/streamer/v2/progress"
)

// Acknowledgment is what a client is told of a request that it has submitted.
func Acknowledgment(receipt *streamer.Receipt) *wire.Outbound {
	message := "Request queued for async processing"
	if receipt.Duplicate {
		message = "Request exists already"
	}
	return &wire.Outbound{
		Type: wire.TypeAcknowledgment, RequestID: receipt.ID, Epoch: receipt.State.Epoch, Seq: 1,
		Status: receipt.State.Phase.Status(), Message: message, Duplicate: receipt.Duplicate, Timestamp: receipt.State.Created,
	}
}

// Page returns what a viewer has attached to. A client may have seen more than that: a log may
// be known by memory, and that be a moment behind what another gateway has shown. Then it is
// read from where the client is.
func Page(ctx context.Context, v *streamer.Viewer, at wire.Cursor) (progress.Page, error) {
	page := v.Page()
	if at.After <= page.State.Last {
		return page, nil
	}
	now, err := v.Read(ctx, at.After, 1)
	now.Oldest = max(now.Oldest, page.Oldest)
	return now, err
}

// Attach returns what a client is told first of a request that it follows, and from where it
// is shown; gap says that this is not where the client wanted.
func Attach(page *progress.Page, at wire.Cursor) (m *wire.Outbound, from Cursor, gap bool) {
	st := &page.State
	from = Cursor{Epoch: st.Epoch, After: at.After}
	if reason, gap := page.Gap(at.Epoch, at.After); gap {
		from.After = page.Oldest - 1
		return Gap(at.ID, page, at.After, reason), from, true
	}
	return &wire.Outbound{
		Type: wire.TypeAttached, RequestID: at.ID, Epoch: st.Epoch, Action: st.Action, Status: st.Phase.Status(),
		Attempt: st.Attempt, Oldest: page.Oldest, Last: st.Last, After: at.After,
	}, from, false
}

// Gap is what a client is told when a log does not go on after its cursor.
func Gap(id string, page *progress.Page, after uint64, reason string) *wire.Outbound {
	st := &page.State
	return &wire.Outbound{
		Type: wire.TypeGap, RequestID: id, Epoch: st.Epoch, After: after, Oldest: page.Oldest, Last: st.Last,
		Reason: reason, Status: st.Phase.Status(), Attempt: st.Attempt,
	}
}
