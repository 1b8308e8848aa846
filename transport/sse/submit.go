package sse

import (
	"errors"
	"fmt"
	"io"
	"mime"
	"net/http"
	"os"
	"strings"
	"time"

	"github.com/google/uuid"

	"github.com/pay-theory/streamer/v2"
	"github.com/pay-theory/streamer/v2/internal/wire"
	"github.com/pay-theory/streamer/v2/progress"
	"github.com/pay-theory/streamer/v2/transport"
	"github.com/pay-theory/streamer/v2/transport/internal/view"
)

// pollAfter is when a client that asks for the state should ask again, in seconds.
const pollAfter = "1"

// submit serves POST /requests.
func (c *call) submit() {
	m := c.message()
	if m == nil {
		return
	}
	streaming := accepts(c.r, "text/event-stream")
	if streaming && !c.flushable() {
		return
	}
	prefs := prefer(c.r.Header)
	// Short work runs within the call, and so may the wait; each has its own limit.
	c.patient(shortWork + prefs.wait)
	receipt, err := c.h.router.Submit(c.r.Context(), c.who, &streamer.Request{
		ID: m.ID, Action: m.Action, Payload: m.Payload, Metadata: m.Metadata,
		Timeout: time.Duration(m.TimeoutMS) * time.Millisecond,
	})
	if err != nil {
		c.fail(err)
		return
	}
	if receipt.Duplicate {
		c.w.Header().Set("Idempotency-Replayed", "true")
	}
	switch {
	case streaming:
		c.w.Header().Set("Location", c.location())
		c.streamReceipt(receipt)
	case receipt.End != nil:
		c.end(receipt.End)
	default:
		c.await(receipt, prefs)
	}
}

// shortWork is how long short work may take that has no limit of its own: see streamer.WithTimeout.
const shortWork = 30 * time.Second

// await answers with the end of a request if that comes within the client's wait, or with the
// acknowledgment.
func (c *call) await(receipt *streamer.Receipt, prefs preferences) {
	if prefs.wait > 0 {
		s := newSet(c)
		defer s.stop()
		f, err := s.add(receipt.ID, receipt.Viewer, view.Cursor{})
		var page progress.Page
		if err == nil {
			s.wait(prefs.wait, func() bool {
				page, err = f.viewer.Read(c.context(), 0, 1)
				return err == nil && page.State.Ended()
			})
		}
		// What can't be read is accepted nevertheless.
		if err == nil && page.State.Ended() {
			if end, err := f.end(&page); err == nil {
				prefs.applied(c.w)
				c.end(end)
				return
			}
		}
	}
	prefs.applied(c.w)
	self := c.location()
	c.w.Header().Set("Location", self)
	c.w.Header().Set("Retry-After", pollAfter)
	c.answer(http.StatusAccepted, wire.AppendLinks(nil, view.Acknowledgment(receipt).Append(nil), self, self+"/events"))
}

// end answers with the end of the request.
func (c *call) end(e *progress.Event) {
	if e.Kind == progress.Completed {
		c.answer(http.StatusOK, e.Encoded(c.id, wire.EncodeEvent))
		return
	}
	transport.Problem{Failure: e.Error, RequestID: c.id, Seq: e.Seq}.Write(c.w)
}

// location is where the request is, relative to the URL that the client used, whatever that is:
// behind a prefix that was stripped or a proxy that rewrites it, the server can't know.
func (c *call) location() string {
	if strings.HasSuffix(c.r.URL.Path, "/") {
		return c.id
	}
	return "requests/" + c.id
}

// message reads the request that is to be submitted, or answers why not and returns nil.
func (c *call) message() *wire.Inbound {
	if t, _, err := mime.ParseMediaType(c.r.Header.Get("Content-Type")); err != nil || t != "application/json" {
		// A form of a foreign page can't say that it is JSON.
		c.refuse(http.StatusUnsupportedMediaType, "the body must be JSON: send the header Content-Type: application/json")
		return nil
	}
	body, ok := c.body()
	if !ok {
		return nil
	}
	m, err := wire.DecodeInbound(body)
	var malformed *wire.Error
	switch {
	case errors.As(err, &malformed):
		c.id = malformed.ID
		c.invalid(malformed.Message)
		return nil
	case m.Type != wire.TypeRequest:
		c.invalid(fmt.Sprintf("the body must be a request with an action, not of type %q", clip(m.Type)))
		return nil
	}
	key, ok := c.key(m.ID)
	if !ok {
		return nil
	}
	m.ID = key
	c.id = key
	return m
}

// body reads the body, or answers why not.
func (c *call) body() ([]byte, bool) {
	most := int64(c.h.cfg.Limits.MessageBytes)
	rc := c.control()
	// Not every middleware lets deadlines be set. Then the server's ReadTimeout has to do.
	// The server clears the deadline when the body has been read.
	_ = rc.SetReadDeadline(time.Now().Add(c.h.cfg.WriteTimeout))
	body, err := io.ReadAll(http.MaxBytesReader(c.w, c.r.Body, most))
	var large *http.MaxBytesError
	switch {
	case err == nil:
		return body, true
	case errors.As(err, &large):
		c.fail(streamer.NewError(streamer.ErrCodePayloadTooLarge, fmt.Sprintf("the body has more than %d bytes", most)))
	case errors.Is(err, os.ErrDeadlineExceeded):
		c.w.Header().Set("Connection", "close")
		c.refuse(http.StatusRequestTimeout, "the body did not arrive in time")
	default:
		c.invalid("the body ends too early")
	}
	return nil, false
}

// key returns the request's id: what the Idempotency-Key header or the body says, or a new one.
func (c *call) key(id string) (string, bool) {
	keys := c.r.Header.Values("Idempotency-Key")
	switch {
	case len(keys) > 1:
		c.invalid("there is more than one Idempotency-Key")
		return "", false
	case len(keys) == 1:
		key := keys[0]
		if s, ok := strings.CutPrefix(key, `"`); ok {
			key = strings.TrimSuffix(s, `"`)
		}
		if id != "" && id != key {
			c.invalid("the Idempotency-Key and the id of the request differ: send one of them")
			return "", false
		}
		id = key
		if !wire.ValidID(id) {
			c.invalid("the Idempotency-Key is the request's id: 1 to 128 of A-Z a-z 0-9 . _ ~ -")
			return "", false
		}
	}
	switch id {
	case ".", "..":
		c.invalid(`the ids "." and ".." are nothing that a URL can end with`)
		return "", false
	case "":
		made, err := uuid.NewV7()
		if err != nil {
			c.fail(err)
			return "", false
		}
		id = made.String()
	}
	return id, true
}

// accepts reports whether the client asks for a media type by its name.
func accepts(r *http.Request, media string) bool {
	for _, line := range r.Header.Values("Accept") {
		for field := range strings.SplitSeq(line, ",") {
			name, _, _ := strings.Cut(field, ";")
			if strings.EqualFold(strings.TrimSpace(name), media) {
				return true
			}
		}
	}
	return false
}
