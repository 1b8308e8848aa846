package wire

import (
	"strconv"

	"github.com/pay-theory/streamer/v2/progress"
)

// AppendSnapshot appends how a request stands: page has its state and progress, end is the
// request's end, nil if it has none.
func AppendSnapshot(dst []byte, id string, page *progress.Page, end *progress.Event) []byte {
	st := &page.State
	dst = appendQuoted(append(dst, `{"type":`...), TypeSnapshot)
	dst = appendString(dst, "request_id", id)
	dst = appendString(dst, "epoch", st.Epoch)
	dst = appendUint(dst, "seq", st.Last)
	dst = appendString(dst, "action", st.Action)
	dst = appendString(dst, "status", st.Phase.Status())
	dst = appendInt(dst, "attempt", st.Attempt)
	if p := page.Progress; p != nil && p.Rev > 0 {
		dst = append(appendName(dst, "progress"), `{"attempt":`...)
		dst = strconv.AppendInt(dst, int64(p.Attempt), 10)
		dst = appendPercentage(dst, p.Percentage)
		dst = appendString(dst, "message", p.Message)
		dst = appendRawOpt(dst, "metadata", p.Metadata)
		dst = append(appendTimeOpt(dst, "timestamp", p.Time), '}')
	}
	if end != nil {
		if end.Kind == progress.Completed {
			dst = appendBool(dst, "success", end.Success)
			dst = appendRawOpt(dst, "result", end.Data)
		}
		dst = appendFailureOpt(dst, end.Error)
	}
	return append(appendTimeOpt(dst, "timestamp", st.Created), '}')
}

// AppendLinks appends message, an acknowledgment, with the references of the request's state
// and events, which must need no escapes.
func AppendLinks(dst, message []byte, self, events string) []byte {
	dst = append(dst, message[:len(message)-1]...)
	dst = append(dst, `,"links":{"self":"`...)
	dst = append(dst, self...)
	dst = append(dst, `","events":"`...)
	dst = append(dst, events...)
	return append(dst, `"}}`...)
}
