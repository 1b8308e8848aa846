package wire

import (
	"bytes"
	"encoding/json"
	"fmt"
	"maps"
	"math"
	"slices"
	"time"
)

// Bounds of what clients send, beside that of the whole message, which is the transport's.
// Bounds of a request's metadata, in the protocol and wherever else requests come from.
const (
	MaxMetadata      = 32      // entries
	MaxMetadataBytes = 8 << 10 // of names and values
)

const (
	maxDepth   = 64   // objects and arrays in each other, the message itself included
	maxMembers = 64   // of a message, known and unknown
	maxName    = 128  // bytes of a member's name
	maxRef     = 64   // bytes
	maxAction  = 128  // bytes
	maxEpoch   = 128  // bytes
	maxReason  = 1024 // bytes; what is longer is cut
	maxClient  = 256  // bytes
	maxCaps    = 32
	maxCap     = 64 // bytes
	maxResume  = 1024
	maxSeq     = 1<<53 - 1                               // what every JSON reader keeps exact
	maxMS      = math.MaxInt64 / int64(time.Millisecond) // what fits a time.Duration
)

// Inbound is a message from client to server. Which fields it has depends on Type.
type Inbound struct {
	Type string
	ID   string // of the request; "" where the server is to make one
	Ref  string // echoed on direct replies

	// request
	Action    string
	Payload   json.RawMessage // byte for byte; nil when absent
	Metadata  map[string]string
	TimeoutMS int64 // fits a time.Duration; 0: the action's

	// attach
	Epoch string
	After uint64

	// cancel
	Reason string

	// hello
	V      int
	Caps   []string
	Client string
	Resume []Cursor

	// hello, auth
	Token string
}

// Cursor says how much of a request's log a client has seen.
type Cursor struct {
	ID    string
	Epoch string
	After uint64
}

// Error says why a message was refused. The reply to it has the code VALIDATION_ERROR.
type Error struct {
	Message string // for the client
	ID      string // the request that the message names, "" where that could not be read
	Ref     string // the message's, likewise
}

func (e *Error) Error() string { return e.Message }

// DecodeInbound reads a client's message. It refuses, with an *Error, what is not JSON in
// valid UTF-8, has a name twice or in two cases, is nested deeper than 64 levels, or has a
// known field of the wrong shape. Unknown fields are ignored. So are, apart from ID and Ref,
// the fields of an unknown type, which is no error: Type is as it was sent. A message
// without type that has an action is a request.
//
// The message shares no memory with data.
func DecodeInbound(data []byte) (*Inbound, error) {
	s := scanner{data: data, limit: maxDepth}
	m := new(Inbound)
	if s.peek() == '{' {
		s.inbound(m)
	} else if s.skip(); s.err == nil {
		s.wrong = "a message must be a JSON object"
	}
	s.end()
	if s.err != nil {
		return nil, &Error{s.err.Error(), m.ID, m.Ref}
	}
	if m.Type == "" && m.Action != "" {
		m.Type = TypeRequest
	}
	if fault := s.fault(m); fault != "" {
		return nil, &Error{fault, m.ID, m.Ref}
	}
	return m, nil
}

func (s *scanner) inbound(m *Inbound) {
	var room [16][]byte
	seen := room[:0]
	for s.open(); s.more('}'); {
		name := s.name()
		if seen = s.distinct(seen, name); s.err != nil {
			if bytes.EqualFold(name, []byte("id")) || bytes.EqualFold(name, []byte("request_id")) {
				m.ID = "" // which of the two is meant?
			}
			return
		}
		switch string(name) {
		case "type":
			m.Type = s.text("type", 0)
		case "id":
			s.id("id", &m.ID)
		case "request_id":
			s.id("request_id", &m.ID)
		case "ref":
			m.Ref = s.text("ref", maxRef)
		case "action":
			m.Action = s.text("action", maxAction)
		case "payload":
			m.Payload = s.raw()
		case "metadata":
			m.Metadata = s.metadata()
		case "timeout_ms":
			m.TimeoutMS = int64(s.uint("timeout_ms", uint64(maxMS)))
		case "epoch":
			m.Epoch = s.text("epoch", maxEpoch)
		case "after":
			m.After = s.uint("after", maxSeq)
		case "reason":
			m.Reason = cut(s.text("reason", 0), maxReason)
		case "v":
			m.V = int(s.uint("v", math.MaxInt32))
		case "token":
			m.Token = s.text("token", 0)
		case "caps":
			m.Caps = s.texts("caps", maxCaps, maxCap)
		case "client":
			m.Client = s.text("client", maxClient)
		case "resume":
			m.Resume = s.resume()
		default:
			s.unknown(name, "type", "id", "request_id", "ref", "action", "payload", "metadata", "timeout_ms",
				"epoch", "after", "reason", "v", "token", "caps", "client", "resume")
		}
	}
}

// distinct adds name to those seen in the same object, and stops where readers of JSON differ
// about which of two members counts. It compares with each, so there may not be many.
func (s *scanner) distinct(seen [][]byte, name []byte) [][]byte {
	switch {
	case s.err != nil:
		return seen
	case len(name) > maxName:
		s.stop(s.pos, "a name of more than %d bytes", maxName)
		return seen
	case len(seen) == maxMembers:
		s.stop(s.pos, "an object of more than %d members", maxMembers)
		return seen
	}
	for _, other := range seen {
		if bytes.EqualFold(other, name) {
			s.ambiguous(name, other)
			return seen
		}
	}
	return append(seen, name)
}

func (s *scanner) ambiguous(name, other []byte) {
	if bytes.Equal(name, other) {
		s.err = fmt.Errorf("%q occurs twice", name)
	} else {
		s.err = fmt.Errorf("%q and %q differ only in case", other, name)
	}
}

// unknown skips a member that is none of known.
func (s *scanner) unknown(name []byte, known ...string) {
	for _, k := range known {
		if s.err == nil && bytes.EqualFold(name, []byte(k)) {
			s.err = fmt.Errorf("%q must be written %q", name, k)
		}
	}
	s.skip()
}

// id reads a request's id, which may be given under two names.
func (s *scanner) id(name string, into *string) {
	v := s.text(name, 0)
	switch {
	case !ValidID(v):
		s.refuse(name, "1 to 128 of A-Z a-z 0-9 . _ ~ -")
	case *into != "" && *into != v:
		s.refuse("request_id", `the same as "id", or left out`)
		*into = ""
	default:
		*into = v
	}
}

func (s *scanner) metadata() map[string]string {
	const must = "an object of strings"
	if !s.begins("metadata", '{', must) {
		return nil
	}
	m := make(map[string]string)
	var seen [][]byte
	size := 0
	for s.more('}') {
		name := s.name()
		if seen = s.distinct(seen, name); s.err != nil {
			return nil
		}
		if s.peek() != '"' {
			s.refuse("metadata", must)
			s.skip()
			continue
		}
		value := s.text("metadata", 0)
		if size += len(name) + len(value); size > MaxMetadataBytes || len(seen) > MaxMetadata {
			s.refuse("metadata", fmt.Sprintf("at most %d entries of %d bytes in all", MaxMetadata, MaxMetadataBytes))
			continue
		}
		m[string(name)] = value
	}
	return m
}

func (s *scanner) resume() []Cursor {
	if !s.begins("resume", '[', "an array of objects") {
		return nil
	}
	var list []Cursor
	for s.more(']') {
		if !s.begins("resume", '{', "an array of objects") {
			continue
		}
		c := s.cursor()
		if len(list) == maxResume {
			s.refuse("resume", fmt.Sprintf("at most %d entries", maxResume))
			continue
		}
		list = append(list, c)
	}
	return list
}

func (s *scanner) cursor() Cursor {
	var c Cursor
	var room [4][]byte
	seen := room[:0]
	for s.more('}') {
		name := s.name()
		if seen = s.distinct(seen, name); s.err != nil {
			return c
		}
		switch string(name) {
		case "id":
			s.id("id", &c.ID)
		case "epoch":
			c.Epoch = s.text("epoch", maxEpoch)
		case "after":
			c.After = s.uint("after", maxSeq)
		default:
			s.unknown(name, "id", "epoch", "after")
		}
	}
	if c.ID == "" {
		s.refuse("id", "in every entry of resume")
	}
	return c
}

// fault returns what is wrong with a message that could be read.
func (s *scanner) fault(m *Inbound) string {
	switch m.Type {
	case "":
		if s.wrong == "" {
			return `"type" or "action" is missing`
		}
	case TypeRequest:
		if s.wrong == "" && m.Action == "" {
			return `"action" is missing or empty`
		}
	case TypeAttach, TypeDetach, TypeCancel:
		if s.wrong == "" && m.ID == "" {
			return `"id" is missing`
		}
	case TypeAuth:
		if s.wrong == "" && m.Token == "" {
			return `"token" is missing or empty`
		}
	case TypeHello, TypePing, TypePong:
	default:
		return ""
	}
	return s.wrong
}

// Append appends the message, as a client sends it, to dst.
func (m *Inbound) Append(dst []byte) []byte {
	dst = append(dst, `{"type":`...)
	switch m.Type {
	case "", TypeRequest:
		dst = appendQuoted(dst, TypeRequest)
		dst = appendStringOpt(dst, "id", m.ID)
		dst = appendString(dst, "action", m.Action)
		dst = appendRawOpt(dst, "payload", m.Payload)
		dst = appendMetadataOpt(dst, m.Metadata)
		dst = appendIntOpt(dst, "timeout_ms", m.TimeoutMS)
	case TypeHello:
		dst = appendQuoted(dst, TypeHello)
		dst = appendInt(dst, "v", m.V)
		dst = appendStringOpt(dst, "token", m.Token)
		if len(m.Caps) > 0 {
			dst = appendStrings(dst, "caps", m.Caps)
		}
		dst = appendStringOpt(dst, "client", m.Client)
		dst = appendResumeOpt(dst, m.Resume)
	default:
		dst = appendQuoted(dst, m.Type)
		dst = appendStringOpt(dst, "id", m.ID)
		if m.Type == TypeAttach {
			dst = appendStringOpt(dst, "epoch", m.Epoch)
			dst = appendUint(dst, "after", m.After)
		}
		dst = appendStringOpt(dst, "reason", m.Reason)
		dst = appendStringOpt(dst, "token", m.Token)
	}
	dst = appendStringOpt(dst, "ref", m.Ref)
	return append(dst, '}')
}

func appendMetadataOpt(dst []byte, metadata map[string]string) []byte {
	if len(metadata) == 0 {
		return dst
	}
	dst = appendName(dst, "metadata")
	sep := byte('{')
	for _, name := range slices.Sorted(maps.Keys(metadata)) {
		dst = append(dst, sep)
		dst = append(appendQuoted(dst, name), ':')
		dst = appendQuoted(dst, metadata[name])
		sep = ','
	}
	return append(dst, '}')
}

func appendResumeOpt(dst []byte, resume []Cursor) []byte {
	if len(resume) == 0 {
		return dst
	}
	dst = appendName(dst, "resume")
	sep := byte('[')
	for _, c := range resume {
		dst = append(dst, sep)
		dst = appendQuoted(append(dst, `{"id":`...), c.ID)
		dst = appendStringOpt(dst, "epoch", c.Epoch)
		dst = append(appendUint(dst, "after", c.After), '}')
		sep = ','
	}
	return append(dst, ']')
}
