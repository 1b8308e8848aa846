package wire

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"time"
)

// ErrProtocol is wrapped by errors about what no server may send.
var ErrProtocol = errors.New("the protocol is broken")

// Answer is what came of a call over HTTP.
type Answer struct {
	Status int
	Message
	Body   string
	Header http.Header
}

// problem is the body of an error.
type problem struct {
	Code      string          `json:"code"`
	Detail    string          `json:"detail"`
	RequestID string          `json:"request_id"`
	Seq       uint64          `json:"seq"`
	Details   json.RawMessage `json:"details"`
}

// Call makes a call, and reads the whole answer.
func Call(ctx context.Context, s Server, method, path string, header map[string]string, body any) (*Answer, error) {
	resp, done, err := open(ctx, s, method, path, header, body)
	if err != nil {
		return nil, err
	}
	defer done()
	data, err := io.ReadAll(resp.Body)
	if err != nil {
		return nil, err
	}
	return answer(resp, data)
}

func open(ctx context.Context, s Server, method, path string, header map[string]string, body any) (*http.Response, func(), error) {
	var content io.Reader
	if body != nil {
		data, err := json.Marshal(body)
		if err != nil {
			return nil, nil, err
		}
		content = bytes.NewReader(data)
	}
	req, err := http.NewRequestWithContext(ctx, method, "http://"+s.Addr+path, content)
	if err != nil {
		return nil, nil, err
	}
	if s.Token != "" {
		req.Header.Set("Authorization", "Bearer "+s.Token)
	}
	if body != nil {
		req.Header.Set("Content-Type", "application/json")
	}
	for name, value := range header {
		req.Header.Set(name, value)
	}
	resp, err := client(s.Addr, s.Fate, s.Cuts, false).Do(req)
	if err != nil {
		return nil, nil, err
	}
	return resp, func() { _ = resp.Body.Close() }, nil
}

func answer(resp *http.Response, data []byte) (*Answer, error) {
	a := &Answer{Status: resp.StatusCode, Body: string(data), Header: resp.Header}
	a.At, a.Raw = time.Now(), a.Body
	kind := resp.Header.Get("Content-Type")
	switch {
	case strings.HasPrefix(kind, "application/problem+json"):
		var p problem
		if err := json.Unmarshal(data, &p); err != nil {
			return nil, fmt.Errorf("%w: problem %.200q: %w", ErrProtocol, data, err)
		}
		a.Type, a.RequestID, a.Seq = "error", p.RequestID, p.Seq
		a.Error = &Error{Code: p.Code, Message: p.Detail, Details: p.Details}
	case strings.HasPrefix(kind, "application/json") && len(data) > 0:
		if err := json.Unmarshal(data, &a.Message); err != nil {
			return nil, fmt.Errorf("%w: body %.200q: %w", ErrProtocol, data, err)
		}
	}
	return a, nil
}

// Page asks for what there is after a cursor, and waits up to wait for news.
func Page(ctx context.Context, s Server, c Cursor, wait time.Duration) (messages []Message, done bool, a *Answer, err error) {
	header := map[string]string{"Accept": "application/json"}
	if wait > 0 {
		header["Prefer"] = "wait=" + strconv.Itoa(int(wait.Seconds()))
	}
	a, err = Call(ctx, s, http.MethodGet, eventsPath(c), header, nil)
	if err != nil || a.Status != http.StatusOK {
		return nil, false, a, err
	}
	var page struct {
		Events []json.RawMessage `json:"events"`
		Done   bool              `json:"done"`
	}
	if err := json.Unmarshal([]byte(a.Body), &page); err != nil {
		return nil, false, a, fmt.Errorf("%w: page %.200q: %w", ErrProtocol, a.Body, err)
	}
	for _, raw := range page.Events {
		m, err := Parse(raw)
		if err != nil {
			return nil, false, a, fmt.Errorf("%w: %w", ErrProtocol, err)
		}
		messages = append(messages, m)
	}
	return messages, page.Done, a, nil
}

func eventsPath(c Cursor) string {
	q := url.Values{}
	if c.After > 0 {
		q.Set("after", strconv.FormatUint(c.After, 10))
	}
	if c.Epoch != "" {
		q.Set("epoch", c.Epoch)
	}
	return "/requests/" + c.ID + "/events?" + q.Encode()
}

// Stream is an event stream.
type Stream struct {
	lines *bufio.Scanner
	done  func()
	idle  *time.Timer
	limit time.Duration
	stop  context.CancelFunc
}

// Follow opens the event stream of a request from a cursor on. The Stream is nil when the
// answer is not one. When nothing comes for patience, the stream is given up.
func Follow(ctx context.Context, s Server, c Cursor, patience time.Duration) (*Stream, *Answer, error) {
	header := map[string]string{"Accept": "text/event-stream"}
	path := eventsPath(c)
	if c.Epoch != "" && c.After%2 == 1 { // now and then as an EventSource does that reconnects
		header["Last-Event-ID"] = c.Epoch + ":" + strconv.FormatUint(c.After, 10)
		path = "/requests/" + c.ID + "/events"
	}
	return stream(ctx, s, http.MethodGet, path, header, nil, patience)
}

// FollowMany opens the event stream of several requests, each from its cursor on.
func FollowMany(ctx context.Context, s Server, cursors []Cursor, patience time.Duration) (*Stream, *Answer, error) {
	q := url.Values{}
	for _, c := range cursors {
		r := c.ID
		if c.Epoch != "" {
			r += ":" + c.Epoch + ":" + strconv.FormatUint(c.After, 10)
		}
		q.Add("r", r)
	}
	return stream(ctx, s, http.MethodGet, "/events?"+q.Encode(), map[string]string{"Accept": "text/event-stream"}, nil, patience)
}

// SubmitStream submits a request whose answer is its event stream.
func SubmitStream(ctx context.Context, s Server, r Request, patience time.Duration) (*Stream, *Answer, error) {
	return stream(ctx, s, http.MethodPost, "/requests", map[string]string{"Accept": "text/event-stream"}, r, patience)
}

func stream(ctx context.Context, s Server, method, path string, header map[string]string, body any, patience time.Duration) (*Stream, *Answer, error) {
	ctx, stop := context.WithCancel(ctx)
	idle := time.AfterFunc(patience, stop)
	fail := func() {
		idle.Stop()
		stop()
	}
	resp, done, err := open(ctx, s, method, path, header, body)
	if err != nil {
		fail()
		return nil, nil, err
	}
	if !strings.HasPrefix(resp.Header.Get("Content-Type"), "text/event-stream") {
		defer fail()
		defer done()
		data, err := io.ReadAll(resp.Body)
		if err != nil {
			return nil, nil, err
		}
		a, err := answer(resp, data)
		return nil, a, err
	}
	lines := bufio.NewScanner(resp.Body)
	lines.Buffer(nil, maxFrame)
	return &Stream{lines: lines, done: done, idle: idle, limit: patience, stop: stop}, &Answer{Status: resp.StatusCode, Header: resp.Header}, nil
}

// Next returns the next message, and the cursor that came with it, "" without one. The error is
// io.EOF when the server ended the stream, whether or not it said so.
func (s *Stream) Next() (Message, string, error) {
	var data, id, kind string
	for s.lines.Scan() {
		s.idle.Reset(s.limit)
		line := s.lines.Text()
		name, value, _ := strings.Cut(line, ":")
		value = strings.TrimPrefix(value, " ")
		switch {
		case line == "" && data != "":
			m, err := Parse([]byte(data))
			if err != nil || m.Type != kind {
				return m, id, fmt.Errorf("%w: event %q with data %.200q: %v", ErrProtocol, kind, data, err)
			}
			return m, id, nil
		case line == "":
			id, kind = "", ""
		case name == "data":
			data = value
		case name == "id":
			id = value
		case name == "event":
			kind = value
		}
	}
	if err := s.lines.Err(); err != nil {
		return Message{}, "", err
	}
	return Message{}, "", io.EOF
}

// Close ends the stream.
func (s *Stream) Close() {
	s.idle.Stop()
	s.stop()
	s.done()
}
