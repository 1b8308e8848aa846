package main

import (
	"bufio"
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"strconv"
	"time"
)

// peer is the client's end of a WebSocket. It does just what the measurements need, so that
// it takes little of the machine from the server: no extensions, no check of what a server
// can't get wrong by accident, a masking key of zero. It is not safe for concurrent use.
type peer struct {
	conn  net.Conn
	in    *bufio.Reader // nil while parked
	frame []byte        // the message that was read last
	out   []byte
}

// patience bounds every wait for the server.
const patience = 30 * time.Second

// dial opens a WebSocket to the server at addr. A server with the library's protocol is
// greeted with hello, a full client's first message, unless that is "".
func dial(addr, hello string) (*peer, error) {
	conn, err := net.Dial("tcp", addr)
	if err != nil {
		return nil, err
	}
	p := &peer{conn: conn, in: bufio.NewReader(conn)}
	if err := p.open(addr, hello); err != nil {
		p.close()
		return nil, err
	}
	return p, nil
}

func (p *peer) open(addr, hello string) error {
	if err := p.conn.SetDeadline(time.Now().Add(patience)); err != nil {
		return err
	}
	_, err := fmt.Fprintf(p.conn, "GET /ws HTTP/1.1\r\nHost: %s\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n"+
		"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: c3RyZWFtZXIgYmVuY2ggIQ==\r\nSec-WebSocket-Protocol: streamer.v1\r\n\r\n", addr)
	if err != nil {
		return err
	}
	res, err := http.ReadResponse(p.in, nil)
	if err != nil {
		return err
	}
	if res.StatusCode != http.StatusSwitchingProtocols {
		return fmt.Errorf("upgrade refused: %s", res.Status)
	}
	if hello == "" {
		return nil
	}
	return p.send([]byte(hello))
}

func (p *peer) close() { p.conn.Close() }

// park gives up the read buffer of a connection on which nothing is expected any more.
func (p *peer) park() { p.in, p.frame, p.out = nil, nil, nil }

// send writes one text message.
func (p *peer) send(message []byte) error { return p.write(opText, message) }

const (
	opText  = 1
	opClose = 8
	opPing  = 9
	opPong  = 10
	masked  = 0x80
	final   = 0x80
)

func (p *peer) write(op byte, message []byte) error {
	p.out = append(p.out[:0], final|op)
	if n := len(message); n < 126 {
		p.out = append(p.out, masked|byte(n))
	} else {
		p.out = binary.BigEndian.AppendUint16(append(p.out, masked|126), uint16(n))
	}
	p.out = append(p.out, 0, 0, 0, 0)
	p.out = append(p.out, message...)
	_, err := p.conn.Write(p.out)
	return err
}

// read returns the next text message, which is valid until the next read.
func (p *peer) read() ([]byte, error) {
	p.frame = p.frame[:0]
	for {
		op, fin, err := p.readFrame()
		if err != nil {
			return nil, err
		}
		switch op {
		case opClose:
			return nil, closed(p.frame)
		case opPing:
			if err := p.write(opPong, p.frame); err != nil {
				return nil, err
			}
			p.frame = p.frame[:0]
		case opPong:
			p.frame = p.frame[:0]
		default:
			if fin {
				return p.frame, nil
			}
		}
	}
}

func (p *peer) readFrame() (op byte, fin bool, err error) {
	var head [10]byte
	if _, err := io.ReadFull(p.in, head[:2]); err != nil {
		return 0, false, err
	}
	size := uint64(head[1])
	switch size {
	case 126:
		_, err = io.ReadFull(p.in, head[2:4])
		size = uint64(binary.BigEndian.Uint16(head[2:]))
	case 127:
		_, err = io.ReadFull(p.in, head[2:10])
		size = binary.BigEndian.Uint64(head[2:])
	}
	if err != nil {
		return 0, false, err
	}
	if size > 64<<20 {
		return 0, false, fmt.Errorf("frame of %d bytes", size)
	}
	start := len(p.frame)
	p.frame = append(p.frame, make([]byte, size)...)
	_, err = io.ReadFull(p.in, p.frame[start:])
	return head[0] & 0x0f, head[0]&final != 0, err
}

// follow reads until the request has ended.
func (p *peer) follow(v *viewing) error {
	for v.end == nil {
		message, err := p.read()
		if err != nil {
			return err
		}
		if err := v.see(message); err != nil {
			return err
		}
	}
	return nil
}

func closed(payload []byte) error {
	if len(payload) < 2 {
		return errors.New("closed by the server")
	}
	return fmt.Errorf("closed by the server: %d %s", binary.BigEndian.Uint16(payload), payload[2:])
}

// viewing checks what a client is shown of one request: every event once and in order.
type viewing struct {
	seq     uint64 // of the last event
	outputs int
	end     []byte // the message, nil before it came
}

// see takes a text message, which may be a batch.
func (v *viewing) see(batch []byte) error {
	for line := range bytes.SplitSeq(batch, []byte{'\n'}) {
		if err := v.one(line); err != nil {
			return err
		}
	}
	return nil
}

// errUnavailable says that the server could not take a request, which may be sent again.
var errUnavailable = errors.New("the server does not take the request")

// head is how much of a message can precede the fields that one looks for.
const head = 512

func (v *viewing) one(message []byte) error {
	h := message[:min(len(message), head)]
	kind := field(h, `"type":"`)
	switch string(kind) {
	case "welcome", "attached", "progress", "ping", "pong":
		return nil
	case "acknowledgment", "status", "output", "complete":
	case "error":
		if bytes.Contains(h, []byte(`"code":"SERVICE_UNAVAILABLE"`)) {
			return fmt.Errorf("%w: %s", errUnavailable, h)
		}
		return fmt.Errorf("unexpected message: %s", h)
	default:
		return fmt.Errorf("unexpected message: %s", h)
	}
	seq, err := strconv.ParseUint(string(field(h, `"seq":`)), 10, 64)
	if err != nil || seq != v.seq+1 {
		return fmt.Errorf("after event %d of the request comes %s", v.seq, h)
	}
	v.seq = seq
	switch string(kind) {
	case "acknowledgment":
		if string(field(h, `"duplicate":`)) == "true" {
			return fmt.Errorf("the request existed before: %s", h)
		}
	case "output":
		if index, err := strconv.Atoi(string(field(h, `"index":`))); err != nil || index != v.outputs {
			return fmt.Errorf("after %d outputs comes %s", v.outputs, h)
		}
		v.outputs++
	case "complete":
		v.end = bytes.Clone(message)
	}
	return nil
}

// field returns the number or text without escapes that follows key.
func field(message []byte, key string) []byte {
	_, rest, ok := bytes.Cut(message, []byte(key))
	if !ok {
		return nil
	}
	if end := bytes.IndexAny(rest, `",}`); end >= 0 {
		rest = rest[:end]
	}
	return rest
}
