package wire_test

import (
	"bytes"
	"encoding/json"
	"slices"
	"strings"
	"testing"
	"time"
	"unicode/utf8"

	"github.com/stretchr/testify/require"

	"github.com/pay-theory/streamer/v2/internal/wire"
	"github.com/pay-theory/streamer/v2/internal/wire/wiretest"
	"github.com/pay-theory/streamer/v2/progress"
)

// request and cursor are how encoding/json understands what clients send.
type request struct {
	Type      *string           `json:"type"`
	ID        string            `json:"id"`
	RequestID string            `json:"request_id"`
	Ref       string            `json:"ref"`
	Action    string            `json:"action"`
	Payload   json.RawMessage   `json:"payload"`
	Metadata  map[string]string `json:"metadata"`
	TimeoutMS int64             `json:"timeout_ms"`
	Epoch     string            `json:"epoch"`
	After     uint64            `json:"after"`
	Reason    string            `json:"reason"`
	V         int               `json:"v"`
	Token     string            `json:"token"`
	Caps      []string          `json:"caps"`
	Client    string            `json:"client"`
	Resume    []cursor          `json:"resume"`
}

type cursor struct {
	ID    string `json:"id"`
	Epoch string `json:"epoch"`
	After uint64 `json:"after"`
}

func seed(f *testing.F, from wiretest.Side) {
	for _, c := range wiretest.Load(f) {
		for _, line := range c.Messages() {
			if line.From == from {
				f.Add([]byte(line.Expand(wiretest.Samples())))
			}
		}
	}
}

// requireLine fails unless message can be one line of a text frame.
func requireLine(t *testing.T, message []byte) {
	require.True(t, json.Valid(message), "invalid JSON: %q", message)
	require.True(t, utf8.Valid(message), "invalid UTF-8: %q", message)
	require.False(t, bytes.ContainsAny(message, "\r\n"), "more than a line: %q", message)
}

// FuzzDecodeInbound: what is accepted is valid for encoding/json too, and means the same; what
// is refused as no JSON is none.
func FuzzDecodeInbound(f *testing.F) {
	seed(f, wiretest.Client)
	f.Fuzz(func(t *testing.T, data []byte) {
		m, err := wire.DecodeInbound(data)
		if err != nil {
			var e *wire.Error
			require.ErrorAs(t, err, &e)
			require.True(t, utf8.ValidString(e.Message))
			require.True(t, e.ID == "" || wire.ValidID(e.ID))
			if strings.HasPrefix(e.Message, "invalid message") && !stricter(e.Message) {
				require.False(t, json.Valid(data), e.Message)
			}
			return
		}
		require.True(t, json.Valid(data))
		require.True(t, utf8.Valid(data))
		if known(m.Type) {
			requireSame(t, m, data)
		}

		encoded := m.Append(nil)
		requireLine(t, encoded)
		again, err := wire.DecodeInbound(encoded)
		require.NoError(t, err)
		require.Equal(t, string(encoded), string(again.Append(nil)))
	})
}

// stricter reports whether a message is refused for what encoding/json allows.
func stricter(refusal string) bool {
	return slices.ContainsFunc([]string{"nested deeper", "lone surrogate", "invalid UTF-8", "more than 64 members", "more than 128 bytes"},
		func(s string) bool { return strings.Contains(refusal, s) })
}

func requireSame(t *testing.T, m *wire.Inbound, data []byte) {
	var r request
	require.NoError(t, json.Unmarshal(data, &r))
	want := wire.Inbound{
		ID: r.ID, Ref: r.Ref, Action: r.Action, Payload: r.Payload, Metadata: r.Metadata, TimeoutMS: r.TimeoutMS,
		Epoch: r.Epoch, After: r.After, Reason: r.Reason, V: r.V, Token: r.Token, Client: r.Client,
		Caps: slices.Clip(r.Caps), Type: wire.TypeRequest,
	}
	if r.Type != nil && *r.Type != "" {
		want.Type = *r.Type
	}
	if want.ID == "" {
		want.ID = r.RequestID
	}
	if len(r.Reason) > len(m.Reason) && len(m.Reason) > 1000 {
		want.Reason = r.Reason[:len(m.Reason)]
	}
	for _, c := range r.Resume {
		want.Resume = append(want.Resume, wire.Cursor(c))
	}
	if len(r.Caps) == 0 {
		want.Caps = m.Caps
	}
	require.Equal(t, &want, m)
}

// FuzzDecodeOutbound: what is accepted is valid for encoding/json too, and can be encoded.
func FuzzDecodeOutbound(f *testing.F) {
	seed(f, wiretest.Server)
	f.Fuzz(func(t *testing.T, data []byte) {
		m, err := wire.DecodeOutbound(data)
		if err != nil {
			return
		}
		require.True(t, json.Valid(data))
		require.True(t, utf8.Valid(data))

		encoded := m.Append(nil)
		requireLine(t, encoded)
		again, err := wire.DecodeOutbound(encoded)
		require.NoError(t, err)
		require.Equal(t, string(encoded), string(again.Append(nil)))
	})
}

// FuzzEncodeEvent: whatever is in an event or progress, every client can read its message.
func FuzzEncodeEvent(f *testing.F) {
	kinds := []progress.Kind{progress.Accepted, progress.Started, progress.Output, progress.Retrying, progress.Canceling,
		progress.Completed, progress.Failed, progress.Canceled}
	for i := range kinds {
		f.Add(uint8(i), "r1", uint32(i), 45.5, []byte(`{"text":"Hel"}`), "BUSY", "try later", int64(1e9), i%2 == 0)
	}
	f.Add(uint8(2), "r1", uint32(3), 0.0, []byte("{\r\n\"a\": \"\xff\xe2\x80\xa8\"}"), "\xff", "\u2028\n\x00\"\\", int64(-1), false)
	f.Fuzz(func(t *testing.T, kind uint8, id string, n uint32, percentage float64, data []byte, code, text string, at int64, short bool) {
		if !json.Valid(data) {
			data, _ = json.Marshal(string(data))
		}
		e := &progress.Event{
			Seq: uint64(n), Kind: kinds[int(kind)%len(kinds)], Attempt: int(n >> 1), Index: int(n >> 1), Data: data, Success: short,
			Short: short, Reason: text, Delay: time.Duration(at), Time: time.Unix(at%1e11, at&0xFFFFF),
			Error: &progress.Failure{Code: code, Message: text, Details: data, RetryAfter: time.Duration(at)},
		}
		p := &progress.Progress{Attempt: e.Attempt, Percentage: percentage, Message: text, Metadata: data, Time: e.Time}
		for _, message := range [][]byte{wire.EncodeEvent(id, e), wire.EncodeProgress(id, p)} {
			requireLine(t, message)
			m, err := wire.DecodeOutbound(message)
			require.NoError(t, err)
			require.Equal(t, string([]rune(id)), m.RequestID)
		}
	})
}

// FuzzSplitBatch: the messages are the frame's lines that are not empty.
func FuzzSplitBatch(f *testing.F) {
	f.Add([]byte("{\"type\":\"ping\"}\n\n{\"type\":\"pong\"}\n"))
	f.Fuzz(func(t *testing.T, frame []byte) {
		var want [][]byte
		for _, line := range bytes.Split(frame, []byte("\n")) {
			if len(line) > 0 {
				want = append(want, line)
			}
		}
		require.Equal(t, want, slices.Collect(wire.SplitBatch(frame)))
	})
}
