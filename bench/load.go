package main

import (
	"errors"
	"fmt"
	"slices"
	"sync/atomic"
	"time"
)

// round is what one server did under load for a while. CPU is per request.
type round struct {
	perSecond            float64
	p50, p99             time.Duration
	serverCPU, clientCPU time.Duration
}

const (
	warming = iota
	measuring
	stopping
)

// client is one connection to a server.
type client interface {
	// request sends one and checks all that comes until its end.
	request(id string) error
	close()
}

// lane is one connection with one request in flight at a time.
type lane struct {
	client client
	name   string
	took   []time.Duration // of the requests that were measured
}

// load has clients send requests to a server, and measures for span after warm.
func load(server *child, clients int, open func(*child) (client, error), warm, span time.Duration) (r round, err error) {
	run := time.Now().UnixNano() // an id that was used before would only be shown again
	lanes := make([]*lane, clients)
	for i := range lanes {
		c, err := open(server)
		if err != nil {
			return round{}, err
		}
		defer c.close()
		lanes[i] = &lane{client: c, name: fmt.Sprint(run, "-", i)}
	}
	var phase atomic.Int32
	var used usage
	timer := make(chan error, 1)
	go func() {
		time.Sleep(warm)
		err := used.begin(server)
		phase.Store(measuring)
		time.Sleep(span)
		phase.Store(stopping)
		timer <- errors.Join(err, used.end(server))
	}()
	err = each(clients, func(i int) error { return lanes[i].run(&phase) })
	if err := errors.Join(err, <-timer); err != nil {
		return round{}, err
	}
	var took []time.Duration
	for _, l := range lanes {
		took = append(took, l.took...)
	}
	if len(took) == 0 {
		return round{}, errors.New("no request ended in time")
	}
	return newRound(took, used), nil
}

// newRound returns what was used for requests that took so long.
func newRound(took []time.Duration, used usage) round {
	slices.Sort(took)
	n := time.Duration(len(took))
	return round{
		perSecond: float64(n) / used.wall.Seconds(),
		p50:       took[n/2],
		p99:       took[n*99/100],
		serverCPU: used.server / n,
		clientCPU: used.client / n,
	}
}

// open connects n clients. It returns those that it has connected also with an error.
func open(server *child, n int, dial func(*child) (client, error)) ([]client, error) {
	clients := make([]client, 0, n)
	for range n {
		c, err := dial(server)
		if err != nil {
			return clients, err
		}
		clients = append(clients, c)
	}
	return clients, nil
}

func leave(clients []client) {
	for _, c := range clients {
		c.close()
	}
}

// send has clients send n requests, one after another so often, or as soon as a client is free
// when it is not, and returns how long each took.
func send(clients []client, n int, every time.Duration) ([]time.Duration, error) {
	took := make([]time.Duration, n)
	start := time.Now()
	var next atomic.Int64
	err := each(len(clients), func(lane int) error {
		for {
			i := int(next.Add(1)) - 1
			if i >= n {
				return nil
			}
			time.Sleep(time.Until(start.Add(time.Duration(i) * every)))
			begin := time.Now()
			if err := clients[lane].request(fmt.Sprint(start.UnixNano(), "-", i)); err != nil {
				next.Store(int64(n))
				return err
			}
			took[i] = time.Since(begin)
		}
	})
	return took, err
}

func (l *lane) run(phase *atomic.Int32) error {
	for n := 0; phase.Load() != stopping; n++ {
		start := time.Now()
		if err := l.client.request(fmt.Sprint(l.name, "-", n)); err != nil {
			return err
		}
		if phase.Load() == measuring {
			l.took = append(l.took, time.Since(start))
		}
	}
	return nil
}

// workPayload is the payload of most requests.
const workPayload = `{"format":"csv","month":"2026-03","columns":["row","name","status"]}`

func (p *peer) request(id string) error {
	return p.exchange(request(id, "work", workPayload), outputs)
}

// exchange sends a request and checks that it comes to its end with n outputs.
func (p *peer) exchange(message []byte, n int) error {
	if err := p.send(message); err != nil {
		return err
	}
	var v viewing
	if err := p.follow(&v); err != nil {
		return err
	}
	if v.outputs != n {
		return fmt.Errorf("a request with %d outputs ended after %d: %s", n, v.outputs, message)
	}
	return nil
}

// fill has the product end n requests of 100 outputs each, so that its log is as full as it
// may get.
func fill(product *child, n int) error {
	var next atomic.Int64
	return each(workers, func(int) error {
		p, err := dial(product.addr, product.hello())
		if err != nil {
			return err
		}
		defer p.close()
		for {
			i := next.Add(1)
			if i > int64(n) {
				return nil
			}
			if err := p.conn.SetDeadline(time.Now().Add(patience)); err != nil {
				return err
			}
			if err := p.exchange(request(fmt.Sprint("fill-", i), "count", "100"), 100); err != nil {
				return err
			}
		}
	})
}

func request(id, action, payload string) []byte {
	return []byte(`{"type":"request","id":"` + id + `","action":"` + action + `","payload":` + payload + `}`)
}

// usage is what was used between begin and end.
type usage struct {
	wall, server, client time.Duration
	start                time.Time
}

func (u *usage) begin(server *child) error {
	used, err := server.cpu()
	own, err2 := cpuTime()
	u.server, u.client, u.start = -used, -own, time.Now()
	return errors.Join(err, err2)
}

func (u *usage) end(server *child) error {
	u.wall = time.Since(u.start)
	used, err := server.cpu()
	own, err2 := cpuTime()
	u.server += used
	u.client += own
	return errors.Join(err, err2)
}
