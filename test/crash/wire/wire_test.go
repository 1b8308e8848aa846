package wire

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"testing"
	"time"

	"github.com/coder/websocket"
	"github.com/stretchr/testify/require"

	"github.com/pay-theory/streamer/v2/internal/cutproxy"
)

func TestBytesOfAFrameAreTold(t *testing.T) {
	head := "HTTP/1.1 101 Switching Protocols\r\n\r\r\n\r\n"
	long := string([]byte{0x81, 126, 1, 2}) + string(make([]byte, 258))
	for name, row := range map[string]struct {
		bytes         string
		begun, within bool
	}{
		"nothing":         {"", false, false},
		"in the head":     {head[:len(head)-1], false, false},
		"after the head":  {head, true, false},
		"in a header":     {head + "\x81", true, true},
		"in a payload":    {head + "\x81\x03ab", true, true},
		"after a frame":   {head + "\x81\x03abc", true, false},
		"in a long one":   {head + "\x81\x03abc" + long[:261], true, true},
		"after a long":    {head + "\x81\x03abc" + long, true, false},
		"after an empty":  {head + "\x89\x00", true, false},
		"in a long head":  {head + long[:3], true, true},
		"in the next one": {head + "\x89\x00\x81\x01", true, true},
	} {
		var f frames
		for i := range len(row.bytes) {
			f.pass([]byte{row.bytes[i]})
		}
		require.Equal(t, row.begun, f.begun, name)
		require.Equal(t, row.within, f.within(), name)
	}
}

// greeter is a server that says hello over a WebSocket, and then something.
func greeter(t *testing.T, say string) (addr string) {
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		conn, err := websocket.Accept(w, r, &websocket.AcceptOptions{Subprotocols: []string{"streamer.v1"}})
		if err != nil {
			return
		}
		defer conn.CloseNow()
		if _, _, err := conn.Read(r.Context()); err != nil {
			return
		}
		if err := conn.Write(r.Context(), websocket.MessageText, []byte(say)); err != nil {
			return
		}
		_, _, _ = conn.Read(r.Context())
	}))
	t.Cleanup(s.Close)
	return s.Listener.Addr().String()
}

func TestAFrameMayHaveSeveralMessages(t *testing.T) {
	addr := greeter(t, `{"type":"welcome"}`+"\n"+`{"type":"output","request_id":"r","seq":3}`)
	s, err := DialSocket(t.Context(), Server{Addr: addr, Token: "acme:alice", Cuts: &Cuts{}}, Greeting{Batch: true})
	require.NoError(t, err)
	defer s.Close()
	messages, err := s.Read(t.Context(), time.Second)
	require.NoError(t, err)
	require.Len(t, messages, 2)
	require.True(t, messages[1].IsEvent())
	require.Equal(t, `{"type":"output","request_id":"r","seq":3}`, messages[1].Raw)
}

func TestWhatIsNoMessageBreaksTheProtocol(t *testing.T) {
	addr := greeter(t, `{"type":`)
	s, err := DialSocket(t.Context(), Server{Addr: addr, Cuts: &Cuts{}}, Greeting{TokenInHello: true})
	require.NoError(t, err)
	defer s.Close()
	_, err = s.Read(t.Context(), time.Second)
	require.ErrorIs(t, err, ErrProtocol)
}

func TestCutsAreMetAndCounted(t *testing.T) {
	addr := greeter(t, `{"type":"welcome"}`)
	read := func(fate Fate) (*Cuts, error) {
		cuts := &Cuts{}
		ctx, cancel := context.WithTimeout(t.Context(), 500*time.Millisecond)
		defer cancel()
		s, err := DialSocket(ctx, Server{Addr: addr, Fate: fate, Cuts: cuts}, Greeting{})
		if err != nil {
			return cuts, err
		}
		defer s.Close()
		for err == nil {
			_, err = s.Read(t.Context(), 300*time.Millisecond)
		}
		return cuts, err
	}
	cuts, _ := read(Fate{})
	require.Zero(t, cuts.Total(), "a connection that its client closes is not cut")

	cuts, err := read(Fate{Plan: cutproxy.Plan{ToClient: 20}})
	require.Error(t, err)
	require.EqualValues(t, 1, cuts.Total())
	require.EqualValues(t, 1, cuts.InHead.Load())

	whole := 0
	for n := 100; whole == 0; n++ { // until one ends within the frame
		cuts, _ = read(Fate{Plan: cutproxy.Plan{ToClient: n}})
		require.EqualValues(t, 1, cuts.AtByte.Load())
		whole += int(cuts.InFrame.Load())
	}

	cuts, err = read(Fate{Plan: cutproxy.Plan{ToServer: 50}})
	require.Error(t, err)
	require.EqualValues(t, 1, cuts.ToServer.Load())

	cuts, err = read(Fate{After: 50 * time.Millisecond})
	require.Error(t, err)
	require.EqualValues(t, 1, cuts.AtTime.Load())

	cuts, err = read(Fate{Plan: cutproxy.Plan{ToClient: 200, Silent: true}})
	require.ErrorIs(t, err, context.DeadlineExceeded)
	require.EqualValues(t, 1, cuts.WentQuiet.Load())
}

func TestAnEventThatIsCutIsNoMessage(t *testing.T) {
	whole := "event: output\ndata: {\"type\":\"output\",\"request_id\":\"r\",\"seq\":3}\nid: e:3\n\n"
	for n := range len(whole) + 1 {
		s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Content-Type", "text/event-stream")
			fmt.Fprint(w, ": hello\n\n"+whole[:n])
		}))
		stream, _, err := Follow(t.Context(), Server{Addr: s.Listener.Addr().String(), Cuts: &Cuts{}}, Cursor{ID: "r"}, time.Second)
		require.NoError(t, err)
		m, id, err := stream.Next()
		if n == len(whole) {
			require.NoError(t, err)
			require.EqualValues(t, 3, m.Seq)
			require.Equal(t, "e:3", id)
			_, _, err = stream.Next()
		}
		require.ErrorIs(t, err, io.EOF)
		require.False(t, errors.Is(err, ErrProtocol))
		stream.Close()
		s.Close()
	}
}

func TestAProblemIsAnError(t *testing.T) {
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "application/problem+json")
		w.WriteHeader(http.StatusNotFound)
		fmt.Fprint(w, `{"title":"Not Found","status":404,"code":"NOT_FOUND","detail":"no such request"}`)
	}))
	defer s.Close()
	_, _, a, err := Page(t.Context(), Server{Addr: s.Listener.Addr().String(), Cuts: &Cuts{}}, Cursor{ID: "r"}, 0)
	require.NoError(t, err)
	require.Equal(t, "NOT_FOUND", a.Code())
	require.False(t, a.IsEnd())
}
