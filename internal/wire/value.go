package wire

import (
	"bytes"
	"encoding/json"
	"fmt"
	"math"
	"strconv"
	"time"
)

// The methods of this file read the value of a member of that name. Where it has not the
// shape it should have, it is skipped and refused, and they return the zero value.

// absent reports whether the next value is a null that stands for no value, and reads it.
func (s *scanner) absent() bool {
	if !s.loose || s.peek() != 'n' {
		return false
	}
	s.literal("null")
	return true
}

// text reads the string named name, of at most limit bytes; 0: any number.
func (s *scanner) text(name string, limit int) string {
	if s.absent() {
		return ""
	}
	if s.peek() != '"' {
		s.refuse(name, "a string")
		s.skip()
		return ""
	}
	raw, escaped := s.quoted()
	if escaped {
		raw = unescape(raw)
	}
	if limit > 0 && len(raw) > limit {
		s.refuse(name, fmt.Sprintf("at most %d bytes long", limit))
		return ""
	}
	return intern(raw)
}

// uint reads the integer named name, which is from 0 to limit.
func (s *scanner) uint(name string, limit uint64) uint64 {
	if s.absent() {
		return 0
	}
	if c := s.peek(); c != '-' && (c < '0' || c > '9') {
		s.refuse(name, "an integer")
		s.skip()
		return 0
	}
	digits := s.number()
	if s.err != nil {
		return 0
	}
	n, err := strconv.ParseUint(string(digits), 10, 64)
	if err != nil || n > limit {
		s.refuse(name, fmt.Sprintf("an integer from 0 to %d", limit))
		return 0
	}
	return n
}

// raw reads any value and returns a copy of it as it is written.
func (s *scanner) raw() json.RawMessage {
	s.peek()
	start := s.pos
	s.skip()
	if s.err != nil {
		return nil
	}
	return bytes.Clone(s.data[start:s.pos])
}

// optional is raw, but nil for null.
func (s *scanner) optional() json.RawMessage {
	if s.absent() {
		return nil
	}
	return s.raw()
}

// begins reports whether the value named name starts with c, and opens it; what is something
// else is skipped.
func (s *scanner) begins(name string, c byte, what string) bool {
	if s.absent() {
		return false
	}
	if s.peek() != c {
		s.refuse(name, what)
		s.skip()
		return false
	}
	s.open()
	return true
}

// texts reads the array of strings named name.
func (s *scanner) texts(name string, count, limit int) []string {
	if !s.begins(name, '[', "an array of strings") {
		return nil
	}
	var list []string
	for s.more(']') {
		v := s.text(name, limit)
		if len(list) == count {
			s.refuse(name, fmt.Sprintf("at most %d strings", count))
			continue
		}
		list = append(list, v)
	}
	return list
}

func (s *scanner) int(name string) int { return int(s.uint(name, math.MaxInt32)) }

func (s *scanner) ms(name string) int64 { return int64(s.uint(name, uint64(maxMS))) }

func (s *scanner) bool(name string) bool {
	if s.absent() {
		return false
	}
	c := s.peek()
	if c != 't' && c != 'f' {
		s.refuse(name, "true or false")
	}
	s.skip()
	return c == 't'
}

func (s *scanner) float(name string) float64 {
	if s.absent() {
		return 0
	}
	if c := s.peek(); c != '-' && (c < '0' || c > '9') {
		s.refuse(name, "a number")
		s.skip()
		return 0
	}
	v, err := strconv.ParseFloat(string(s.number()), 64)
	if err != nil && s.err == nil {
		s.refuse(name, "a number that a float64 can hold")
		return 0
	}
	return v
}

func (s *scanner) time(name string) time.Time {
	text := s.text(name, 0)
	if text == "" {
		return time.Time{}
	}
	t, err := time.Parse(time.RFC3339, text)
	if y := t.UTC().Year(); err != nil || y < 0 || y > 9999 {
		s.refuse(name, "a time as of RFC 3339")
		return time.Time{}
	}
	return t
}

// intern returns b as a string, without allocating where it is one of the protocol's words.
func intern(b []byte) string {
	switch string(b) {
	case TypeOutput:
		return TypeOutput
	case TypeProgress:
		return TypeProgress
	case TypeStatus:
		return TypeStatus
	case TypeComplete:
		return TypeComplete
	case TypeAcknowledgment:
		return TypeAcknowledgment
	case TypeResponse:
		return TypeResponse
	case TypeRequest:
		return TypeRequest
	case "queued":
		return "queued"
	case "running":
		return "running"
	}
	return string(b)
}
