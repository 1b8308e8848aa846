package cutproxy

import (
	"io"
	"net"
	"sync"
)

// Proxy passes TCP connections on to a server, and breaks them as planned.
type Proxy struct {
	listener net.Listener
	target   string
	plans    Plans
	wg       sync.WaitGroup

	mu     sync.Mutex
	n      int
	closed bool
	conns  map[net.Conn]struct{} // both ends of each
}

// Listen starts a proxy to target on a free port of the loopback interface.
func Listen(target string, plans Plans) (*Proxy, error) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return nil, err
	}
	p := &Proxy{listener: l, target: target, plans: plans, conns: make(map[net.Conn]struct{})}
	p.wg.Go(p.accept)
	return p, nil
}

// Addr returns where the proxy listens, as host:port.
func (p *Proxy) Addr() string { return p.listener.Addr().String() }

// Accepted returns how many connections there have been.
func (p *Proxy) Accepted() int {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.n
}

// Cut ends all connections that there are.
func (p *Proxy) Cut() {
	p.mu.Lock()
	defer p.mu.Unlock()
	for c := range p.conns {
		_ = c.Close()
	}
}

// Close stops listening, ends all connections and waits for what serves them.
func (p *Proxy) Close() error {
	p.mu.Lock()
	p.closed = true
	p.mu.Unlock()
	err := p.listener.Close()
	p.Cut()
	p.wg.Wait()
	return err
}

func (p *Proxy) accept() {
	for {
		client, err := p.listener.Accept()
		if err != nil {
			return
		}
		p.mu.Lock()
		plan := p.plans(p.n)
		p.n++
		p.mu.Unlock()
		p.wg.Go(func() { p.serve(client, plan) })
	}
}

func (p *Proxy) serve(client net.Conn, plan Plan) {
	defer client.Close()
	raw, err := net.Dial("tcp", p.target)
	if err != nil {
		return
	}
	server := Wrap(raw, plan)
	defer server.Close()
	p.mu.Lock()
	if p.closed {
		p.mu.Unlock()
		return
	}
	p.conns[client] = struct{}{}
	p.conns[server] = struct{}{}
	p.mu.Unlock()
	defer func() {
		p.mu.Lock()
		defer p.mu.Unlock()
		delete(p.conns, client)
		delete(p.conns, server)
	}()

	var both sync.WaitGroup
	pass := func(to, from net.Conn) {
		_, _ = io.Copy(to, from)
		if !plan.Silent {
			_ = to.Close()
			_ = from.Close()
		}
	}
	both.Go(func() { pass(server, client) })
	both.Go(func() { pass(client, server) })
	both.Wait()
}
