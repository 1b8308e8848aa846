package dynamolog

import (
	"encoding/binary"
	"encoding/json"
	"math"
	"slices"
	"time"

	"github.com/pay-theory/streamer/v2/progress"
)

// What is not looked at by the store is one binary value, since each byte is paid for with
// each write: numbers are varints, texts and raw JSON have their length before them. The
// version of the format is an attribute of each item.

// encoder appends values. The zero value is ready.
type encoder struct{ b []byte }

func (w *encoder) uint(n uint64)   { w.b = binary.AppendUvarint(w.b, n) }
func (w *encoder) int(n int64)     { w.b = binary.AppendVarint(w.b, n) }
func (w *encoder) text(s string)   { w.uint(uint64(len(s))); w.b = append(w.b, s...) }
func (w *encoder) float(f float64) { w.b = binary.LittleEndian.AppendUint64(w.b, math.Float64bits(f)) }

// raw keeps apart what is nil and what is empty.
func (w *encoder) raw(r json.RawMessage) {
	if r == nil {
		w.uint(0)
		return
	}
	w.uint(uint64(len(r)) + 1)
	w.b = append(w.b, r...)
}

func (w *encoder) bool(v bool) {
	if v {
		w.b = append(w.b, 1)
		return
	}
	w.b = append(w.b, 0)
}

// time keeps the instant, not its zone.
func (w *encoder) time(t time.Time) {
	w.bool(!t.IsZero())
	if !t.IsZero() {
		w.int(t.Unix())
		w.uint(uint64(t.Nanosecond()))
	}
}

// kinds have their place as code, from 1. The order must stay.
func kinds() [8]progress.Kind {
	return [...]progress.Kind{
		progress.Accepted, progress.Started, progress.Output, progress.Retrying,
		progress.Canceling, progress.Completed, progress.Failed, progress.Canceled,
	}
}

func (w *encoder) kind(k progress.Kind) {
	list := kinds()
	i := slices.Index(list[:], k)
	w.uint(uint64(i + 1))
	if i < 0 {
		w.text(string(k))
	}
}

func (w *encoder) failure(f *progress.Failure) {
	w.bool(f != nil)
	if f == nil {
		return
	}
	w.text(f.Code)
	w.text(f.Message)
	w.raw(f.Details)
	w.int(int64(f.RetryAfter))
}

func (w *encoder) request(r *progress.Request) {
	w.text(r.Action)
	w.raw(r.Payload)
	w.uint(uint64(len(r.Metadata)))
	for k, v := range r.Metadata {
		w.text(k)
		w.text(v)
	}
	w.int(int64(r.Timeout))
}

// Fields of an event that are there: most events have few.
const (
	hasAttempt = 1 << iota
	hasTime
	hasRequest
	hasIndex
	hasData
	isSuccess
	isShort
	hasError
	hasReason
	hasDelay
)

// event leaves out the number and the record, which the chunk has.
func (w *encoder) event(e *progress.Event) {
	var has uint64
	note := func(bit uint64, there bool) {
		if there {
			has |= bit
		}
	}
	note(hasAttempt, e.Attempt != 0)
	note(hasTime, !e.Time.IsZero())
	note(hasRequest, e.Request != nil)
	note(hasIndex, e.Index != 0)
	note(hasData, e.Data != nil)
	note(isSuccess, e.Success)
	note(isShort, e.Short)
	note(hasError, e.Error != nil)
	note(hasReason, e.Reason != "")
	note(hasDelay, e.Delay != 0)
	w.uint(has)
	w.kind(e.Kind)
	if has&hasAttempt != 0 {
		w.int(int64(e.Attempt))
	}
	if has&hasTime != 0 {
		w.time(e.Time)
	}
	if has&hasRequest != 0 {
		w.request(e.Request)
	}
	if has&hasIndex != 0 {
		w.int(int64(e.Index))
	}
	if has&hasData != 0 {
		w.raw(e.Data)
	}
	if has&hasError != 0 {
		w.failure(e.Error)
	}
	if has&hasReason != 0 {
		w.text(e.Reason)
	}
	if has&hasDelay != 0 {
		w.int(int64(e.Delay))
	}
}

// encodeEvents encodes the events of a record.
func encodeEvents(events []*progress.Event) []byte {
	room := 0
	for _, e := range events {
		if room += 48 + len(e.Data); e.Request != nil {
			room += 256 + len(e.Request.Payload)
		}
	}
	w := encoder{b: make([]byte, 0, room)}
	for _, e := range events {
		w.event(e)
	}
	return w.b
}

// encodeState leaves out what are attributes: epoch, record and last. The checkpoint goes with
// it unless it has an item of its own.
func encodeState(s *progress.State, checkpoint bool) []byte {
	w := encoder{b: make([]byte, 0, 256+len(s.Checkpoint))}
	w.text(s.Action)
	w.text(s.Digest)
	w.text(s.Group)
	w.time(s.Created)
	w.kind(s.Phase)
	w.int(int64(s.Attempt))
	w.int(int64(s.Used))
	w.text(s.Nonce)
	w.time(s.Started)
	w.int(int64(s.Outputs))
	w.text(s.Reason)
	w.failure(s.Error)
	w.int(int64(s.Delay))
	w.int(int64(s.Resume))
	if checkpoint {
		w.raw(s.Checkpoint)
	} else {
		w.raw(nil)
	}
	return w.b
}

func encodeProgress(p *progress.Progress) []byte {
	var w encoder
	w.int(int64(p.Attempt))
	w.uint(p.Rev)
	w.uint(p.Beat)
	w.float(p.Percentage)
	w.text(p.Message)
	w.raw(p.Metadata)
	w.time(p.Time)
	return w.b
}

// Where a chunk's events are.
const (
	inline  = 0 // in the chunk
	inTable = 1 // in items of their own
	inBlob  = 2 // in the blob store
)

// chunk is a record as the head and segments hold it: its events, or where they are.
type chunk struct {
	record string
	first  uint64 // number of its first event
	count  int    // of events, at least 1
	where  int
	events []*progress.Event // where they are inline
	size   int               // of the encoded events
	parts  int               // items that they take, where they are in the table
}

// last is the number of the chunk's last event.
func (c *chunk) last() uint64 { return c.first + uint64(c.count) - 1 }

// encode returns the chunk, with its events encoded where they are inline.
func (c *chunk) encode(events []byte) []byte {
	w := encoder{b: make([]byte, 0, 48+len(events))}
	w.uint(uint64(c.where))
	w.text(c.record)
	w.uint(c.first)
	w.uint(uint64(c.count))
	if c.where == inline {
		w.b = append(w.b, events...)
		return w.b
	}
	w.uint(uint64(c.size))
	w.uint(uint64(c.parts))
	return w.b
}

// encodeSegment joins chunks.
func encodeSegment(chunks []chunk) []byte {
	var w encoder
	for i := range chunks {
		c := chunks[i].encode(encodeEvents(chunks[i].events))
		w.uint(uint64(len(c)))
		w.b = append(w.b, c...)
	}
	return w.b
}
