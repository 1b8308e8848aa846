package wire

import (
	"bytes"
	"encoding/json"
	"strconv"
	"time"
	"unicode/utf8"

	"github.com/pay-theory/streamer/v2/progress"
)

// The functions of this file append one member with its leading comma, so an object starts
// with a member that is written by hand. Those named Opt leave the member out when it is empty.

func appendString(dst []byte, name, v string) []byte {
	return appendQuoted(appendName(dst, name), v)
}

func appendStringOpt(dst []byte, name, v string) []byte {
	if v == "" {
		return dst
	}
	return appendString(dst, name, v)
}

func appendUint(dst []byte, name string, v uint64) []byte {
	return strconv.AppendUint(appendName(dst, name), v, 10)
}

func appendInt[T int | int64](dst []byte, name string, v T) []byte {
	return strconv.AppendInt(appendName(dst, name), int64(v), 10)
}

func appendIntOpt[T int | int64](dst []byte, name string, v T) []byte {
	if v == 0 {
		return dst
	}
	return appendInt(dst, name, v)
}

func appendBool(dst []byte, name string, v bool) []byte {
	return strconv.AppendBool(appendName(dst, name), v)
}

func appendTimeOpt(dst []byte, name string, t time.Time) []byte {
	if t.IsZero() {
		return dst
	}
	dst = append(appendName(dst, name), '"')
	dst = t.UTC().AppendFormat(dst, time.RFC3339) // the layout that package time is fast at
	ms := t.Nanosecond() / int(time.Millisecond)
	return append(dst[:len(dst)-1], '.', byte('0'+ms/100), byte('0'+ms/10%10), byte('0'+ms%10), 'Z', '"')
}

func appendStrings(dst []byte, name string, list []string) []byte {
	dst = append(appendName(dst, name), '[')
	for i, s := range list {
		if i > 0 {
			dst = append(dst, ',')
		}
		dst = appendQuoted(dst, s)
	}
	return append(dst, ']')
}

// appendRawOpt appends JSON that comes from elsewhere, a handler or a user of the client. It
// is valid JSON or the message isn't, but encoding/json lets pass two things that would harm
// others: invalid UTF-8, for which browsers close the connection, and line breaks, which
// separate messages. Outside of strings, where they may stand, breaks mean the same as spaces.
func appendRawOpt(dst []byte, name string, raw json.RawMessage) []byte {
	if len(raw) == 0 {
		return dst
	}
	dst = appendName(dst, name)
	if !utf8.Valid(raw) {
		raw = bytes.ToValidUTF8(raw, []byte("\uFFFD"))
	}
	start := len(dst)
	dst = append(dst, raw...)
	if bytes.IndexByte(raw, '\n') >= 0 || bytes.IndexByte(raw, '\r') >= 0 {
		for i, c := range dst[start:] {
			if c == '\n' || c == '\r' {
				dst[start+i] = ' '
			}
		}
	}
	return dst
}

func appendFailure(dst []byte, name string, f *progress.Failure) []byte {
	dst = append(appendName(dst, name), `{"code":`...)
	dst = appendQuoted(dst, f.Code)
	dst = appendString(dst, "message", f.Message)
	dst = appendRawOpt(dst, "details", f.Details)
	dst = appendIntOpt(dst, "retry_after_ms", milliseconds(f.RetryAfter))
	return append(dst, '}')
}

// milliseconds rounds up: nobody is told to come back before it makes sense.
func milliseconds(d time.Duration) int64 {
	if d <= 0 {
		return 0
	}
	return min(int64((d-1)/time.Millisecond)+1, maxMS)
}

func appendName(dst []byte, name string) []byte {
	dst = append(dst, ',', '"')
	dst = append(dst, name...)
	return append(dst, '"', ':')
}

// appendQuoted appends s as a JSON string. Invalid UTF-8 becomes U+FFFD; the line separators
// U+2028 and U+2029, which JavaScript once did not allow in strings, are escaped.
func appendQuoted(dst []byte, s string) []byte {
	const hex = "0123456789abcdef"
	dst = append(dst, '"')
	start := 0
	for i := 0; i < len(s); {
		if c := s[i]; c < utf8.RuneSelf {
			if c >= ' ' && c != '"' && c != '\\' {
				i++
				continue
			}
			dst = append(dst, s[start:i]...)
			switch c {
			case '"', '\\':
				dst = append(dst, '\\', c)
			case '\n':
				dst = append(dst, '\\', 'n')
			case '\r':
				dst = append(dst, '\\', 'r')
			case '\t':
				dst = append(dst, '\\', 't')
			default:
				dst = append(dst, '\\', 'u', '0', '0', hex[c>>4], hex[c&0xF])
			}
			i++
			start = i
			continue
		}
		r, size := utf8.DecodeRuneInString(s[i:])
		switch {
		case r == utf8.RuneError && size == 1:
			dst = append(dst, s[start:i]...)
			dst = append(dst, "\uFFFD"...)
			start = i + size
		case r == '\u2028', r == '\u2029':
			dst = append(dst, s[start:i]...)
			dst = append(dst, '\\', 'u', '2', '0', '2', hex[r&0xF])
			start = i + size
		}
		i += size
	}
	dst = append(dst, s[start:]...)
	return append(dst, '"')
}
