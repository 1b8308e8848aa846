// Package sse reads event streams, as "Server-sent events" in the HTML standard has them.
package sse

import (
	"bufio"
	"bytes"
	"errors"
	"io"
	"strconv"
	"time"
)

// ErrTooLarge is what Next returns for an event or comment over the reader's limit.
var ErrTooLarge = errors.New("sse: event too large")

// Event is something that a stream brings: an event, or a sign of life.
type Event struct {
	Name  string        // "" is the default, "message"
	ID    string        // the last event id as of this event
	Data  []byte        // its lines, joined with line feeds; nil: there is no event
	Retry time.Duration // how long to wait before connecting again; 0: not said
}

// Reader reads one stream. It is not safe for concurrent use.
type Reader struct {
	r     *bufio.Reader
	limit int
	began bool
	cr    bool   // the last line ended with a carriage return
	id    string // last event id
	line  []byte
}

// NewReader returns a reader of r. limit bounds the bytes of an event.
func NewReader(r io.Reader, limit int) *Reader {
	return &Reader{r: bufio.NewReader(r), limit: limit}
}

// Next returns what comes next: an event, or one without Data for a comment or retry field that
// stands apart. After the last complete one it returns io.EOF: what a stream ends within is no
// event.
func (r *Reader) Next() (Event, error) {
	e := Event{ID: r.id}
	var data []byte
	size, has := 0, false
	for {
		line, err := r.next()
		if err != nil {
			return Event{}, err
		}
		if size += len(line); size > r.limit {
			return Event{}, ErrTooLarge
		}
		if len(line) == 0 {
			if has {
				e.Data = data[:len(data)-1]
				return e, nil
			}
			e = Event{ID: r.id}
			size = 0
			continue
		}
		field, value, _ := bytes.Cut(line, []byte{':'})
		value = bytes.TrimPrefix(value, []byte{' '})
		switch string(field) {
		case "":
			if size == len(line) { // not within an event
				return Event{}, nil
			}
		case "data":
			has = true
			data = append(append(data, value...), '\n')
		case "event":
			e.Name = string(value)
		case "id":
			if bytes.IndexByte(value, 0) < 0 {
				r.id = string(value)
				e.ID = r.id
			}
		case "retry":
			if ms, err := strconv.ParseUint(string(value), 10, 32); err == nil {
				e.Retry = time.Duration(ms) * time.Millisecond
				if size == len(line) {
					return Event{Retry: e.Retry}, nil
				}
			}
		}
	}
}

// next returns a line without its end, which is a carriage return, a line feed, or both.
func (r *Reader) next() ([]byte, error) {
	r.line = r.line[:0]
	for {
		c, err := r.r.ReadByte()
		if err != nil {
			return nil, err
		}
		after := r.cr
		r.cr = c == '\r'
		switch {
		case c == '\n' && after:
			continue // the second half of a line end
		case c == '\n' || c == '\r':
			if !r.began {
				r.began = true
				r.line = bytes.TrimPrefix(r.line, []byte("\xEF\xBB\xBF"))
			}
			return r.line, nil
		}
		if len(r.line) >= r.limit {
			return nil, ErrTooLarge
		}
		r.line = append(r.line, c)
	}
}
