package main

import (
	"bufio"
	"bytes"
	"fmt"
	"io"
	"net"
	"net/http"
	"time"
)

// stream is the client's end of an event stream. Like a peer it does just what the measurements
// need. It is not safe for concurrent use.
type stream struct {
	conn    net.Conn
	lines   *bufio.Reader // nil while parked
	viewing viewing
}

// follow opens the stream of a request.
func follow(addr, id string) (*stream, error) {
	conn, err := net.Dial("tcp", addr)
	if err != nil {
		return nil, err
	}
	s := &stream{conn: conn}
	if err := s.open(addr, id); err != nil {
		s.close()
		return nil, err
	}
	return s, nil
}

func (s *stream) open(addr, id string) error {
	if err := s.patient(); err != nil {
		return err
	}
	_, err := fmt.Fprintf(s.conn, "GET /requests/%s/events HTTP/1.1\r\nHost: %s\r\nAccept: text/event-stream\r\n\r\n", id, addr)
	if err != nil {
		return err
	}
	res, err := http.ReadResponse(bufio.NewReader(s.conn), nil)
	if err != nil {
		return err
	}
	if res.StatusCode != http.StatusOK {
		return fmt.Errorf("stream of request %s refused: %s", id, res.Status)
	}
	s.lines = bufio.NewReader(res.Body)
	return nil
}

// patient bounds the next waits for the server.
func (s *stream) patient() error { return s.conn.SetDeadline(time.Now().Add(patience)) }

func (s *stream) close() { s.conn.Close() }

// park gives up the read buffers of a stream on which nothing is expected any more.
func (s *stream) park() { s.lines = nil }

// until reads until n outputs were seen, every event once and in order.
func (s *stream) until(n int) error {
	for s.viewing.outputs < n {
		line, err := s.lines.ReadSlice('\n')
		if err != nil {
			return err
		}
		data, ok := bytes.CutPrefix(line, []byte("data: "))
		if !ok {
			continue
		}
		if err := s.viewing.see(bytes.TrimSuffix(data, []byte("\n"))); err != nil {
			return err
		}
	}
	return nil
}

// audience opens n streams, each of the request that id names, and returns when each was shown
// its first outputs.
func audience(addr string, n, outputs int, id func(i int) string) ([]*stream, error) {
	streams := make([]*stream, n)
	err := limited(n, func(i int) error {
		s, err := follow(addr, id(i))
		if err != nil {
			return err
		}
		streams[i] = s
		return s.until(outputs)
	})
	return streams, err
}

func disperse(streams []*stream) {
	for _, s := range streams {
		if s != nil {
			s.close()
		}
	}
}

// caller submits requests over HTTP on one connection.
type caller struct {
	conn   net.Conn
	in     *bufio.Reader
	action string
	head   string // of an HTTP request, up to its length
	kind   string // of the message that ends a request
	out    []byte
}

const (
	actionShort = "short"
	actionLong  = "long"
)

// call connects a client that submits requests of an action and waits for their ends.
func call(addr, action string) (*caller, error) {
	conn, err := net.Dial("tcp", addr)
	if err != nil {
		return nil, err
	}
	if err := conn.SetDeadline(time.Now().Add(patience)); err != nil {
		conn.Close()
		return nil, err
	}
	c := &caller{conn: conn, in: bufio.NewReader(conn), action: action, kind: "response"}
	c.head = "POST /requests HTTP/1.1\r\nHost: " + addr + "\r\nContent-Type: application/json\r\n"
	if action == actionLong {
		c.kind = "complete"
		c.head += "Prefer: wait=20\r\n"
	}
	return c, nil
}

func (c *caller) close() { c.conn.Close() }

func (c *caller) request(id string) error {
	body := request(id, c.action, `{"format":"csv","month":"2026-03","columns":["row","name","status"]}`)
	c.out = fmt.Appendf(append(c.out[:0], c.head...), "Content-Length: %d\r\n\r\n", len(body))
	c.out = append(c.out, body...)
	if _, err := c.conn.Write(c.out); err != nil {
		return err
	}
	res, err := http.ReadResponse(c.in, nil)
	if err != nil {
		return err
	}
	message, err := io.ReadAll(res.Body)
	if err != nil {
		return err
	}
	return c.check(id, res.StatusCode, message)
}

// check looks at the answer to the request.
func (c *caller) check(id string, status int, message []byte) error {
	if status != http.StatusOK || string(field(message, `"type":"`)) != c.kind ||
		string(field(message, `"request_id":"`)) != id || string(field(message, `"rows":`)) != "3" {
		return fmt.Errorf("request %s of %s work: status %d: %.300s", id, c.action, status, message)
	}
	return nil
}
