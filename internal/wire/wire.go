// Package wire holds the messages of the wire protocol (docs/protocol.md) and their codec,
// shared by the transports and the Go client.
//
// Servers read [Inbound] with [DecodeInbound], which is strict: what two JSON readers could
// understand in two ways is refused. They write [Outbound], and for the entries of a log
// [EncodeEvent] and [EncodeProgress], whose bytes all viewers share. Clients do the reverse:
// [Inbound.Append] and [DecodeOutbound], which ignores what it does not know.
//
// Encoded messages are valid UTF-8 on a single line, whatever went into them: they can be
// joined with newlines into a frame, and be the data of a server-sent event.
package wire

import (
	"bytes"
	"iter"
	"strings"
	"unicode/utf8"
)

// Types of messages, client to server.
const (
	TypeHello   = "hello"
	TypeRequest = "request"
	TypeAttach  = "attach"
	TypeDetach  = "detach"
	TypeCancel  = "cancel"
	TypeAuth    = "auth"
)

// Types of messages, both ways.
const (
	TypePing = "ping"
	TypePong = "pong"
)

// Types of messages, server to client.
const (
	TypeWelcome        = "welcome"
	TypeAcknowledgment = "acknowledgment"
	TypeResponse       = "response"
	TypeAttached       = "attached"
	TypeStatus         = "status"
	TypeProgress       = "progress"
	TypeOutput         = "output"
	TypeComplete       = "complete"
	TypeError          = "error"
	TypeGap            = "gap"
	TypeAuthenticated  = "authenticated"
	TypeAuthExpiring   = "auth_expiring"
	TypeGoaway         = "goaway"
)

// Types of messages over HTTP alone, server to client.
const (
	TypeSnapshot = "snapshot"
	TypeEnd      = "end" // of a stream: nothing more is to come
)

// Version is the version of the protocol, as in hello and welcome.
const Version = 1

// CapBatch is the capability of reading frames that hold several messages.
const CapBatch = "batch"

// Close codes that the server chooses. A code above 4000 less 4000 is an HTTP status, and
// clients retry as that status says.
const (
	CloseTooBig       = 1009
	CloseRestart      = 1012
	CloseOverloaded   = 1013
	CloseBadMessage   = 4400
	CloseUnauthorized = 4401
	CloseForbidden    = 4403
	CloseUnsupported  = 4406
	CloseTimeout      = 4408
	CloseTooMany      = 4429
	CloseFault        = 4500
	CloseStoreDown    = 4503
)

// CloseReason returns s as the reason of a close frame: valid UTF-8 of at most 123 bytes, cut
// on a rune boundary.
func CloseReason(s string) string {
	return cut(strings.ToValidUTF8(s, "\uFFFD"), 123)
}

// cut returns the longest prefix of s, which is valid UTF-8, that has at most n bytes and
// ends on a rune boundary.
func cut(s string, n int) string {
	if len(s) <= n {
		return s
	}
	for !utf8.RuneStart(s[n]) {
		n--
	}
	return s[:n]
}

// ValidID reports whether id can name a request: [A-Za-z0-9._~-]{1,128}.
func ValidID(id string) bool {
	if len(id) == 0 || len(id) > 128 {
		return false
	}
	for i := range len(id) {
		switch c := id[i]; {
		case 'a' <= c && c <= 'z', 'A' <= c && c <= 'Z', '0' <= c && c <= '9':
		case c == '.', c == '_', c == '~', c == '-':
		default:
			return false
		}
	}
	return true
}

// SplitBatch yields the messages of a frame of a peer that has [CapBatch], which separates
// them by newlines. Empty lines are skipped. The slices share frame's memory.
//
// A frame of a peer without the capability is one message and must not be split: newlines
// are white space in it.
func SplitBatch(frame []byte) iter.Seq[[]byte] {
	return func(yield func([]byte) bool) {
		for len(frame) > 0 {
			var message []byte
			message, frame, _ = bytes.Cut(frame, []byte{'\n'})
			if len(message) > 0 && !yield(message) {
				return
			}
		}
	}
}
