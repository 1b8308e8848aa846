package awstest

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"maps"
	"net"
	"net/http"
	"strings"
	"sync"
	"testing"
	"time"
)

// Call is what a client asks of a service.
type Call struct {
	Operation string // SendMessageBatch, PutItem …
	Body      []byte // JSON
}

// Fault is what becomes of a call. The zero value passes it on, and its answer back.
type Fault struct {
	// Instead of being passed on, the call is answered with Code as an error of this HTTP status,
	// or with the body Answer where the status is 200.
	Status int
	Code   string
	Answer []byte

	// It is passed on, but …
	Ask   []byte                     // with this body
	Twice bool                       // twice
	Tell  func(answer []byte) []byte // its answer is changed
	Late  time.Duration              // its answer is held back so long
	Lost  bool                       // the connection is cut instead of the answer
}

// Proxy stands between clients of a service and its emulator.
type Proxy struct {
	target    string
	fault     func(Call) Fault
	listener  net.Listener
	server    *http.Server
	transport *http.Transport
	closing   chan struct{}
	running   sync.WaitGroup

	mu     sync.Mutex
	closed bool
	calls  map[string]int
}

// NewProxy starts a proxy to an endpoint, on a free port of loopback. It is stopped when the test
// ends. fault may be called concurrently.
func NewProxy(tb testing.TB, target string, fault func(Call) Fault) *Proxy {
	tb.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		tb.Fatalf("awstest: %v", err)
	}
	p := &Proxy{
		target: target, fault: fault, listener: l, transport: &http.Transport{MaxIdleConnsPerHost: 100},
		closing: make(chan struct{}), calls: make(map[string]int),
	}
	p.server = &http.Server{Handler: http.HandlerFunc(p.serve)}
	p.running.Go(func() { _ = p.server.Serve(l) }) // it ends with Close
	tb.Cleanup(p.close)
	return p
}

// Endpoint returns where the proxy listens.
func (p *Proxy) Endpoint() string { return "http://" + p.listener.Addr().String() }

// Calls returns how many calls there were of each operation.
func (p *Proxy) Calls() map[string]int {
	p.mu.Lock()
	defer p.mu.Unlock()
	return maps.Clone(p.calls)
}

func (p *Proxy) close() {
	p.mu.Lock()
	p.closed = true
	p.mu.Unlock()
	close(p.closing)
	_ = p.server.Close() // what it could say is not what the test is about
	p.running.Wait()
	p.transport.CloseIdleConnections()
}

// enter counts a call that close waits for. It returns false when the proxy is closed.
func (p *Proxy) enter() bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	if !p.closed {
		p.running.Add(1)
	}
	return !p.closed
}

func (p *Proxy) serve(w http.ResponseWriter, r *http.Request) {
	if !p.enter() {
		panic(http.ErrAbortHandler)
	}
	defer p.running.Done()
	body, err := io.ReadAll(r.Body)
	if err != nil {
		panic(http.ErrAbortHandler)
	}
	target := r.Header.Get("X-Amz-Target")
	call := Call{Operation: target[strings.LastIndexByte(target, '.')+1:], Body: body}
	p.mu.Lock()
	p.calls[call.Operation]++
	p.mu.Unlock()
	f := p.fault(call)
	if f.Status != 0 {
		answer := f.Answer
		if f.Status != http.StatusOK {
			answer = fmt.Appendf(nil, `{"__type":%q,"message":"the proxy says so"}`, f.Code)
		}
		w.Header().Set("Content-Type", r.Header.Get("Content-Type"))
		w.WriteHeader(f.Status)
		_, _ = w.Write(answer)
		return
	}
	if f.Ask != nil {
		body = f.Ask
	}
	if f.Twice {
		_, _, _ = p.pass(r, body)
	}
	response, answer, err := p.pass(r, body)
	p.hold(f.Late)
	if err != nil || f.Lost {
		panic(http.ErrAbortHandler)
	}
	if f.Tell != nil {
		answer = f.Tell(answer)
	}
	for _, h := range []string{"Content-Type", "X-Amzn-Requestid", "X-Amzn-Query-Error"} {
		if v := response.Header.Get(h); v != "" {
			w.Header().Set(h, v)
		}
	}
	w.WriteHeader(response.StatusCode)
	_, _ = w.Write(answer) // a client that has gone needs none
}

// pass makes a call of the emulator, also when the client does not wait for it any more.
func (p *Proxy) pass(r *http.Request, body []byte) (*http.Response, []byte, error) {
	request, err := http.NewRequestWithContext(context.WithoutCancel(r.Context()), r.Method, p.target+r.URL.Path, bytes.NewReader(body))
	if err != nil {
		return nil, nil, err
	}
	request.Header = r.Header.Clone()
	response, err := p.transport.RoundTrip(request)
	if err != nil {
		return nil, nil, err
	}
	defer response.Body.Close()
	answer, err := io.ReadAll(response.Body)
	return response, answer, err
}

// hold waits so long, or until the proxy ends.
func (p *Proxy) hold(d time.Duration) {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
	case <-p.closing:
	}
}
