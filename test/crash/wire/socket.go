package wire

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"time"

	"github.com/coder/websocket"
)

// Server is where to connect, as whom, and what becomes of the connection.
type Server struct {
	Addr  string // host:port
	Token string // tenant:user
	Fate  Fate
	Cuts  *Cuts
}

// maxFrame bounds what is taken from a server at once.
const maxFrame = 16 << 20

// Socket is a WebSocket that has been greeted.
type Socket struct {
	conn *websocket.Conn
}

// Greeting is how a client opens a Socket.
type Greeting struct {
	TokenInHello bool // instead of the header
	Batch        bool // several messages in a frame are welcome
	Resume       []Cursor
}

type hello struct {
	Type   string   `json:"type"`
	V      int      `json:"v"`
	Token  string   `json:"token,omitempty"`
	Caps   []string `json:"caps,omitempty"`
	Client string   `json:"client"`
	Resume []Cursor `json:"resume,omitempty"`
}

// DialSocket connects and says hello. It does not wait for the welcome.
func DialSocket(ctx context.Context, s Server, g Greeting) (*Socket, error) {
	header := http.Header{}
	h := hello{Type: "hello", V: 1, Client: "crash/1", Resume: g.Resume}
	if g.TokenInHello {
		h.Token = s.Token
	} else {
		header.Set("Authorization", "Bearer "+s.Token)
	}
	if g.Batch {
		h.Caps = []string{"batch"}
	}
	conn, _, err := websocket.Dial(ctx, "ws://"+s.Addr+"/ws", &websocket.DialOptions{
		HTTPClient: client(s.Addr, s.Fate, s.Cuts, true), HTTPHeader: header, Subprotocols: []string{"streamer.v1"},
	})
	if err != nil {
		return nil, err
	}
	conn.SetReadLimit(maxFrame)
	socket := &Socket{conn}
	if err := socket.Send(ctx, h); err != nil {
		socket.Close()
		return nil, err
	}
	return socket, nil
}

// Send sends a message.
func (s *Socket) Send(ctx context.Context, message any) error {
	data, err := json.Marshal(message)
	if err != nil {
		return err
	}
	return s.conn.Write(ctx, websocket.MessageText, data)
}

// Read returns the messages of the next frame. When nothing comes for patience, the connection
// is given up.
func (s *Socket) Read(ctx context.Context, patience time.Duration) ([]Message, error) {
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	kind, frame, err := s.conn.Read(ctx)
	if err != nil {
		return nil, err
	}
	if kind != websocket.MessageText {
		return nil, fmt.Errorf("%w: a frame that is not text", ErrProtocol)
	}
	var messages []Message
	for line := range bytes.SplitSeq(frame, []byte{'\n'}) {
		m, err := Parse(line)
		if err != nil {
			return messages, fmt.Errorf("%w: %w", ErrProtocol, err)
		}
		messages = append(messages, m)
	}
	return messages, nil
}

// Close ends the connection at once.
func (s *Socket) Close() { _ = s.conn.CloseNow() }

// CloseCode returns the code with which a server closed, or -1.
func CloseCode(err error) int { return int(websocket.CloseStatus(err)) }
