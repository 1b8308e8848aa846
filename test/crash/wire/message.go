package wire

import (
	"encoding/json"
	"fmt"
	"time"
)

// Message is what a server sent.
type Message struct {
	Type        string          `json:"type"`
	RequestID   string          `json:"request_id,omitempty"`
	Epoch       string          `json:"epoch,omitempty"`
	Seq         uint64          `json:"seq,omitempty"`
	Status      string          `json:"status,omitempty"`
	Attempt     int             `json:"attempt,omitempty"`
	Index       int             `json:"index,omitempty"`
	OutputsFrom int             `json:"outputs_from,omitempty"`
	Reason      string          `json:"reason,omitempty"`
	Data        json.RawMessage `json:"data,omitempty"`
	Result      json.RawMessage `json:"result,omitempty"`
	Error       *Error          `json:"error,omitempty"`
	Percentage  float64         `json:"percentage,omitempty"`
	After       uint64          `json:"after,omitempty"`
	Oldest      uint64          `json:"oldest,omitempty"`
	Last        uint64          `json:"last,omitempty"`
	Duplicate   bool            `json:"duplicate,omitempty"`
	Ref         string          `json:"ref,omitempty"`
	ReconnectIn int             `json:"reconnect_in_ms,omitempty"`

	At  time.Time `json:"-"`
	Raw string    `json:"-"` // as it came
}

// Error is why something failed.
type Error struct {
	Code    string          `json:"code"`
	Message string          `json:"message"`
	Details json.RawMessage `json:"details,omitempty"`
}

// Parse reads one message.
func Parse(data []byte) (Message, error) {
	m := Message{At: time.Now(), Raw: string(data)}
	if err := json.Unmarshal(data, &m); err != nil {
		return m, fmt.Errorf("wire: message %.200q: %w", data, err)
	}
	return m, nil
}

// IsEvent reports whether the message shows an event of a log.
func (m *Message) IsEvent() bool {
	switch m.Type {
	case "status", "output", "complete", "response", "error":
		return m.Seq > 0
	}
	return false
}

// IsEnd reports whether the message is the end of its request.
func (m *Message) IsEnd() bool {
	return m.Seq > 0 && (m.Type == "complete" || m.Type == "response" || m.Type == "error")
}

// Code is the error's, "" without one.
func (m *Message) Code() string {
	if m.Error == nil {
		return ""
	}
	return m.Error.Code
}

// Cursor is where in the log of a request a client is.
type Cursor struct {
	ID    string `json:"id"`
	Epoch string `json:"epoch,omitempty"`
	After uint64 `json:"after"`
}

// Request is a message that submits one.
type Request struct {
	Type    string          `json:"type"`
	ID      string          `json:"id"`
	Action  string          `json:"action"`
	Payload json.RawMessage `json:"payload,omitempty"`
}
