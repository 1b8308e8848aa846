package natslog

import (
	"bytes"
	"encoding/json"
	"fmt"
	"strconv"
	"strings"
	"time"

	"github.com/nats-io/nats.go"

	"github.com/pay-theory/streamer/v2/progress"
)

// A message holds one record, or, when it ends the request and is not too large, all records:
// then it has all events and is the only message of its log. Its header says what those need
// to know that look at many messages. Its body is a line of JSON and, after that, the bytes
// that must come back exactly: raw JSON values of users, in the order in which raws visits them.

// version is of header and body. A message with a higher one is not read.
const version = 1

// headerName is the header of messages in both streams. For a record it has the fields of
// header, for a progress those of beat, separated by spaces.
const headerName = "Streamer"

// header is what the header of a record's message says.
type header struct {
	record    string // as a token
	epoch     string // as a token
	phase     progress.Kind
	attempt   int
	first     uint64 // number of the first event in the message; last+1 when it has none
	last      uint64 // number of the log's newest event
	retention time.Duration
}

func headerOf(rec *progress.Record, first uint64) header {
	return header{
		record: token(rec.ID), epoch: token(rec.State.Epoch), phase: rec.State.Phase, attempt: rec.State.Attempt,
		first: first, last: rec.State.Last, retention: rec.Retention,
	}
}

func (h *header) encode() string {
	b := make([]byte, 0, 128)
	b = append(b, 'v')
	b = strconv.AppendInt(b, version, 10)
	b = append(append(b, ' '), h.record...)
	b = append(append(b, ' '), h.epoch...)
	b = append(append(b, ' '), token(string(h.phase))...)
	b = strconv.AppendInt(append(b, ' '), int64(h.attempt), 10)
	b = strconv.AppendUint(append(b, ' '), h.first, 10)
	b = strconv.AppendUint(append(b, ' '), h.last, 10)
	b = strconv.AppendInt(append(b, ' '), int64(h.retention), 10)
	return string(b)
}

// fields splits a header after checking its version.
func fields(h nats.Header, n int) ([]string, error) {
	value := ""
	if v := h[headerName]; len(v) > 0 {
		value = strings.Clone(v[0]) // it stays, and is part of a copy of the whole message's headers
	}
	f := strings.Fields(value)
	if len(f) == 0 || f[0][0] != 'v' {
		return nil, fmt.Errorf("it has no header %s", headerName)
	}
	v, err := strconv.Atoi(f[0][1:])
	switch {
	case err == nil && v > version:
		return nil, fmt.Errorf("a newer version of this package wrote it: format %d, and this one reads up to %d", v, version)
	case err != nil || v != version || len(f) != n:
		return nil, fmt.Errorf("its header %s is malformed: %.100q", headerName, value)
	}
	return f, nil
}

func parseHeader(nh nats.Header) (header, error) {
	f, err := fields(nh, 8)
	if err != nil {
		return header{}, err
	}
	attempt, err1 := strconv.Atoi(f[4])
	first, err2 := strconv.ParseUint(f[5], 10, 64)
	last, err3 := strconv.ParseUint(f[6], 10, 64)
	retention, err4 := strconv.ParseInt(f[7], 10, 64)
	phase, ok := untoken(f[3])
	if err1 != nil || err2 != nil || err3 != nil || err4 != nil || !ok || first == 0 || first > last+1 {
		return header{}, fmt.Errorf("its header %s is malformed: %.100q", headerName, nh.Get(headerName))
	}
	return header{
		record: f[1], epoch: f[2], phase: progress.Kind(phase), attempt: attempt, first: first, last: last,
		retention: time.Duration(retention),
	}, nil
}

// body is a record's message decoded.
type body struct {
	Key      *wireKey       `json:"key,omitempty"` // where the subject has only a hash
	Bytes    int64          `json:"bytes"`         // of all events of the log, encoded
	State    progress.State `json:"state"`
	Progress *wireProgress  `json:"progress,omitempty"`
	Events   []wireEvent    `json:"events,omitempty"`
	Raws     []int          `json:"raws,omitempty"` // their lengths, -1 for nil
}

// events is the part of a body that a replay needs: decoding the rest takes as long again.
type events struct {
	Events   []wireEvent `json:"events"`
	Raws     []int       `json:"raws"`
	Progress *struct{}   `json:"progress"`
	State    struct {
		Error *struct{} `json:"error"`
	} `json:"state"`
}

type wireKey struct {
	Scope []byte `json:"scope"`
	ID    []byte `json:"id"`
}

// wireEvent is a progress.Event without what is shared and what is raw.
type wireEvent struct {
	Seq     uint64            `json:"seq"`
	Kind    progress.Kind     `json:"kind"`
	Record  string            `json:"record,omitempty"`
	Attempt int               `json:"attempt,omitempty"`
	Time    time.Time         `json:"time,omitzero"`
	Request *progress.Request `json:"request,omitempty"`
	Index   int               `json:"index,omitempty"`
	Success bool              `json:"success,omitempty"`
	Short   bool              `json:"short,omitempty"`
	Error   *progress.Failure `json:"error,omitempty"`
	Reason  string            `json:"reason,omitempty"`
	Delay   time.Duration     `json:"delay,omitempty"`

	data json.RawMessage
}

// wireProgress is a progress.Progress without what is shared and what is raw.
type wireProgress struct {
	Attempt    int       `json:"attempt"`
	Rev        uint64    `json:"rev"`
	Beat       uint64    `json:"beat"`
	Percentage float64   `json:"percentage"`
	Message    string    `json:"message,omitempty"`
	Time       time.Time `json:"time,omitzero"`

	metadata json.RawMessage
}

func (w *wireEvent) event() *progress.Event {
	return &progress.Event{
		Seq: w.Seq, Kind: w.Kind, Record: w.Record, Attempt: w.Attempt, Time: w.Time, Request: w.Request, Index: w.Index,
		Data: w.data, Success: w.Success, Short: w.Short, Error: w.Error, Reason: w.Reason, Delay: w.Delay,
	}
}

func (w *wireProgress) progress() *progress.Progress {
	if w == nil {
		return nil
	}
	return &progress.Progress{Attempt: w.Attempt, Rev: w.Rev, Beat: w.Beat, Percentage: w.Percentage, Message: w.Message, Metadata: w.metadata, Time: w.Time}
}

// raws visits what is stored byte for byte.
func (b *body) raws(visit func(*json.RawMessage)) {
	visit(&b.State.Checkpoint)
	if b.State.Error != nil {
		visit(&b.State.Error.Details)
	}
	if b.Progress != nil {
		visit(&b.Progress.metadata)
	}
	eventRaws(b.Events, visit)
}

func eventRaws(list []wireEvent, visit func(*json.RawMessage)) {
	for i := range list {
		e := &list[i]
		visit(&e.data)
		if e.Request != nil {
			visit(&e.Request.Payload)
		}
		if e.Error != nil {
			visit(&e.Error.Details)
		}
	}
}

// rawReader puts raw values back.
type rawReader struct {
	lengths []int
	bytes   []byte
	bad     bool
}

func (r *rawReader) put(into *json.RawMessage) {
	if len(r.lengths) == 0 || r.lengths[0] < -1 || r.lengths[0] > len(r.bytes) {
		r.bad = true
		return
	}
	n := r.lengths[0]
	r.lengths = r.lengths[1:]
	if n < 0 {
		return
	}
	*into = r.bytes[:n:n]
	r.bytes = r.bytes[n:]
}

func (r *rawReader) check() error {
	if r.bad || len(r.lengths) > 0 || len(r.bytes) > 0 {
		return fmt.Errorf("its body is malformed: the lengths of its raw values don't fit")
	}
	return nil
}

// line decodes the JSON of a body and returns what follows it.
func line(data []byte, into any) ([]byte, error) {
	i := bytes.IndexByte(data, '\n')
	if i < 0 {
		return nil, fmt.Errorf("its body is malformed: there is no line of JSON")
	}
	if err := json.Unmarshal(data[:i], into); err != nil {
		return nil, fmt.Errorf("its body is malformed: %w", err)
	}
	return data[i+1:], nil
}

// decode reads a body that the header h came with.
func decode(h *header, data []byte) (*body, error) {
	b := &body{}
	rest, err := line(data, b)
	if err != nil {
		return nil, err
	}
	r := rawReader{lengths: b.Raws, bytes: rest}
	b.raws(r.put)
	if err := r.check(); err != nil {
		return nil, err
	}
	if b.State.Last != h.last || token(b.State.Epoch) != h.epoch || token(b.State.Record) != h.record {
		return nil, fmt.Errorf("its header and body contradict each other")
	}
	return b, numbered(h, b.Events)
}

// decodeEvents reads the events of a body alone.
func decodeEvents(h *header, data []byte) ([]*progress.Event, error) {
	b := &events{}
	rest, err := line(data, b)
	if err != nil {
		return nil, err
	}
	r := rawReader{lengths: b.Raws, bytes: rest}
	var skip json.RawMessage
	r.put(&skip)
	if b.State.Error != nil {
		r.put(&skip)
	}
	if b.Progress != nil {
		r.put(&skip)
	}
	eventRaws(b.Events, r.put)
	if err := r.check(); err != nil {
		return nil, err
	}
	return decoded(b.Events), numbered(h, b.Events)
}

func decoded(list []wireEvent) []*progress.Event {
	all := make([]*progress.Event, len(list))
	for i := range list {
		all[i] = list[i].event()
	}
	return all
}

// numbered checks that events are those that the header speaks of.
func numbered(h *header, list []wireEvent) error {
	if h.first+uint64(len(list)) != h.last+1 {
		return fmt.Errorf("it has %d events, and its header says %d to %d", len(list), h.first, h.last)
	}
	for i := range list {
		if list[i].Seq != h.first+uint64(i) {
			return fmt.Errorf("its events are not numbered %d to %d", h.first, h.last)
		}
	}
	return nil
}

// beat is what the header of a progress message says.
type beat struct {
	record  string // newest record that the writer knew, as a token
	epoch   string // as a token
	attempt int
	beat    uint64
	rev     uint64
}

func (b *beat) encode() string {
	return fmt.Sprintf("v%d %s %s %d %d %d", version, b.record, b.epoch, b.attempt, b.beat, b.rev)
}

func parseBeat(nh nats.Header) (beat, error) {
	f, err := fields(nh, 6)
	if err != nil {
		return beat{}, err
	}
	attempt, err1 := strconv.Atoi(f[3])
	n, err2 := strconv.ParseUint(f[4], 10, 64)
	rev, err3 := strconv.ParseUint(f[5], 10, 64)
	if err1 != nil || err2 != nil || err3 != nil {
		return beat{}, fmt.Errorf("its header %s is malformed: %.100q", headerName, nh.Get(headerName))
	}
	return beat{record: f[1], epoch: f[2], attempt: attempt, beat: n, rev: rev}, nil
}

func decodeProgress(data []byte) (*progress.Progress, error) {
	var w struct {
		wireProgress
		Raws []int `json:"raws"`
	}
	rest, err := line(data, &w)
	if err != nil {
		return nil, err
	}
	r := rawReader{lengths: w.Raws, bytes: rest}
	r.put(&w.metadata)
	if err := r.check(); err != nil {
		return nil, err
	}
	return w.progress(), nil
}

// storedSize is about what an event takes in a message.
func storedSize(e *progress.Event) int64 {
	n := 160 + len(e.Record) + len(e.Data) + len(e.Reason)
	if e.Request != nil {
		n += len(e.Request.Action) + len(e.Request.Payload)
		for k, v := range e.Request.Metadata {
			n += 6 + len(k) + len(v)
		}
	}
	if e.Error != nil {
		n += 80 + len(e.Error.Code) + len(e.Error.Message) + len(e.Error.Details)
	}
	return int64(n)
}
