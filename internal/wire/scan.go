package wire

import (
	"bytes"
	"fmt"
	"strconv"
	"unicode/utf16"
	"unicode/utf8"
)

// scanner reads one JSON text in a single pass. What is no JSON, or nested too deep, stops
// it: err is set and from then on every method does nothing. What is JSON of a wrong shape is
// skipped, and the first of it is kept in wrong, so that a message can be read to its end to
// find out which request it is about.
type scanner struct {
	data  []byte
	pos   int
	depth int  // objects and arrays that are open
	limit int  // of depth
	loose bool // take null as absent, and lone surrogates as U+FFFD
	fresh bool // an object or array was opened and has no element yet
	err   error
	wrong string
}

// stop records that the text makes no sense at pos.
func (s *scanner) stop(pos int, format string, args ...any) {
	if s.err == nil {
		s.err = fmt.Errorf("invalid message at byte %d: %s", pos, fmt.Sprintf(format, args...))
	}
}

// refuse records that the value named name is not what it should be.
func (s *scanner) refuse(name, must string) {
	if s.wrong == "" {
		s.wrong = fmt.Sprintf("%q must be %s", name, must)
	}
}

// peek skips white space and returns the byte at which the next token starts, 0 at the end.
func (s *scanner) peek() byte {
	if s.err != nil {
		return 0
	}
	for ; s.pos < len(s.data); s.pos++ {
		switch c := s.data[s.pos]; c {
		case ' ', '\t', '\n', '\r':
		default:
			return c
		}
	}
	return 0
}

func (s *scanner) unexpected(want string) {
	if s.pos >= len(s.data) {
		s.stop(s.pos, "it ends where %s is expected", want)
		return
	}
	s.stop(s.pos, "%q where %s is expected", s.data[s.pos], want)
}

// end checks that nothing follows.
func (s *scanner) end() {
	if s.peek(); s.err == nil && s.pos < len(s.data) {
		s.stop(s.pos, "data after the message")
	}
}

// open reads the { or [ that peek returned.
func (s *scanner) open() {
	if s.depth == s.limit {
		s.stop(s.pos, "nested deeper than %d levels", s.limit)
		return
	}
	s.depth++
	s.pos++
	s.fresh = true
}

// more reports whether the innermost object or array, which ends with end, has another
// element, and reads the comma before it or the end.
func (s *scanner) more(end byte) bool {
	c := s.peek()
	switch {
	case s.err != nil:
		return false
	case c == end:
		s.depth--
		s.pos++
		s.fresh = false
		return false
	case s.fresh:
		s.fresh = false
	case c == ',':
		s.pos++
	default:
		s.unexpected("a comma or " + strconv.QuoteRune(rune(end)))
		return false
	}
	return true
}

// name reads the name of an object's next member and the colon after it.
func (s *scanner) name() []byte {
	name, escaped := s.quoted()
	if s.peek() != ':' {
		s.unexpected("a colon")
		return nil
	}
	s.pos++
	if escaped {
		name = unescape(name)
	}
	return name
}

// skip reads any value.
func (s *scanner) skip() {
	switch c := s.peek(); c {
	case '{':
		for s.open(); s.more('}'); {
			s.name()
			s.skip()
		}
	case '[':
		for s.open(); s.more(']'); {
			s.skip()
		}
	case '"':
		s.quoted()
	case 't':
		s.literal("true")
	case 'f':
		s.literal("false")
	case 'n':
		s.literal("null")
	default:
		s.number()
	}
}

func (s *scanner) literal(word string) {
	if !bytes.HasPrefix(s.data[s.pos:], []byte(word)) {
		s.unexpected("a value")
		return
	}
	s.pos += len(word)
}

// number reads a number and returns it as it is written.
func (s *scanner) number() []byte {
	s.peek()
	if s.err != nil {
		return nil
	}
	start := s.pos
	if s.at('-') {
		s.pos++
	}
	switch {
	case s.at('0'):
		s.pos++
	case !s.digits():
		if s.pos == start {
			s.unexpected("a value")
		} else {
			s.unexpected("a digit")
		}
		return nil
	}
	if s.at('.') {
		s.pos++
		if !s.digits() {
			s.unexpected("a digit")
			return nil
		}
	}
	if s.at('e') || s.at('E') {
		s.pos++
		if s.at('+') || s.at('-') {
			s.pos++
		}
		if !s.digits() {
			s.unexpected("a digit")
			return nil
		}
	}
	return s.data[start:s.pos]
}

func (s *scanner) at(c byte) bool { return s.pos < len(s.data) && s.data[s.pos] == c }

// digits reads digits and reports whether there was one.
func (s *scanner) digits() bool {
	start := s.pos
	for s.pos < len(s.data) && '0' <= s.data[s.pos] && s.data[s.pos] <= '9' {
		s.pos++
	}
	return s.pos > start
}

// quoted reads a string and returns what stands between its quotes, and whether that has
// escapes.
func (s *scanner) quoted() (raw []byte, escaped bool) {
	if s.peek() != '"' {
		s.unexpected("a string")
		return nil, false
	}
	start := s.pos + 1
	var bits byte
	for i := start; i < len(s.data); {
		c := s.data[i]
		switch {
		case c == '"':
			raw = s.data[start:i]
			if bits >= utf8.RuneSelf && !utf8.Valid(raw) {
				s.stop(start, "invalid UTF-8 in a string")
				return nil, false
			}
			s.pos = i + 1
			return raw, escaped
		case c == '\\':
			escaped = true
			if i = s.escape(i); s.err != nil {
				return nil, false
			}
		case c < ' ':
			s.stop(i, "control character in a string")
			return nil, false
		default:
			bits |= c
			i++
		}
	}
	s.stop(len(s.data), "it ends within a string")
	return nil, false
}

// escape checks the escape at i and returns where it ends.
func (s *scanner) escape(i int) int {
	if i+1 >= len(s.data) {
		return len(s.data)
	}
	switch s.data[i+1] {
	case '"', '\\', '/', 'b', 'f', 'n', 'r', 't':
		return i + 2
	case 'u':
	default:
		s.stop(i, "unknown escape in a string")
		return i
	}
	r, ok := hex4(s.data, i+2)
	if !ok {
		s.stop(i, `\u without four hexadecimal digits`)
		return i
	}
	if !utf16.IsSurrogate(r) || s.loose {
		return i + 6
	}
	if low, ok := lowSurrogate(s.data, i+6); !ok || utf16.DecodeRune(r, low) == utf8.RuneError {
		s.stop(i, "lone surrogate in a string")
		return i
	}
	return i + 12
}

// hex4 returns the rune that is written in four hexadecimal digits at i.
func hex4(b []byte, i int) (rune, bool) {
	if i+4 > len(b) {
		return 0, false
	}
	var r rune
	for _, c := range b[i : i+4] {
		switch {
		case '0' <= c && c <= '9':
			c -= '0'
		case 'a' <= c|0x20 && c|0x20 <= 'f':
			c = (c | 0x20) - 'a' + 10
		default:
			return 0, false
		}
		r = r<<4 | rune(c)
	}
	return r, true
}

// lowSurrogate returns the rune of the \u escape at i, if there is one.
func lowSurrogate(b []byte, i int) (rune, bool) {
	if i+2 > len(b) || b[i] != '\\' || b[i+1] != 'u' {
		return 0, false
	}
	return hex4(b, i+2)
}

// unescape resolves the escapes of a string that quoted has checked.
func unescape(raw []byte) []byte {
	out := make([]byte, 0, len(raw))
	for i := 0; i < len(raw); {
		if raw[i] != '\\' {
			out = append(out, raw[i])
			i++
			continue
		}
		i += 2
		switch c := raw[i-1]; c {
		case 'b':
			out = append(out, '\b')
		case 'f':
			out = append(out, '\f')
		case 'n':
			out = append(out, '\n')
		case 'r':
			out = append(out, '\r')
		case 't':
			out = append(out, '\t')
		case 'u':
			r, _ := hex4(raw, i)
			i += 4
			if utf16.IsSurrogate(r) {
				low, ok := lowSurrogate(raw, i)
				if r = utf16.DecodeRune(r, low); ok && r != utf8.RuneError {
					i += 6
				}
			}
			out = utf8.AppendRune(out, r)
		default:
			out = append(out, c)
		}
	}
	return out
}
