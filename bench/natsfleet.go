package main

import (
	"bufio"
	"bytes"
	"fmt"
	"slices"
	"strconv"
	"time"
)

// natsFleet is what was measured of a gateway and a worker in processes of their own, on a NATS
// server in a third.
type natsFleet struct {
	perViewer float64       // live bytes of the gateway, for each viewer of a request of its own, above its connection
	p50, p99  time.Duration // from an output in the worker until the gateway's client has it
}

func onFleet(p plan) (r natsFleet, err error) {
	server, err := spawn(roleNATSServer)
	if err != nil {
		return r, err
	}
	defer server.close()
	at := natsVariable + "=" + server.addr
	gateway, err := spawn(roleNATSGateway, at)
	if err != nil {
		return r, err
	}
	defer gateway.close()
	worker, err := spawn(roleNATSWorker, at)
	if err != nil {
		return r, err
	}
	defer worker.close()
	if r.p50, r.p99, err = latency(gateway, p.ticks); err != nil {
		return r, err
	}
	r.perViewer, err = perViewer(gateway, worker, p.watched, p.quiet)
	return r, err
}

// latency returns how long n outputs took from the handler to the client.
func latency(gateway *child, n int) (p50, p99 time.Duration, err error) {
	c, err := dial(gateway.addr, gateway.hello())
	if err != nil {
		return 0, 0, err
	}
	defer c.close()
	if err := c.send(request(fmt.Sprint("tick-", time.Now().UnixNano()), "tick", strconv.Itoa(n))); err != nil {
		return 0, 0, err
	}
	var took []time.Duration
	for v := (viewing{}); v.end == nil; {
		message, err := c.read()
		if err != nil {
			return 0, 0, err
		}
		now := time.Now()
		if err := v.see(message); err != nil {
			return 0, 0, err
		}
		for line := range bytes.SplitSeq(message, []byte{'\n'}) {
			if string(field(line, `"type":"`)) != "output" {
				continue
			}
			at, err := strconv.ParseInt(string(field(line, `"at":`)), 10, 64)
			if err != nil {
				return 0, 0, fmt.Errorf("an output without its time: %s", line)
			}
			took = append(took, now.Sub(time.Unix(0, at)))
		}
	}
	if len(took) != n {
		return 0, 0, fmt.Errorf("%d outputs were shown of %d", len(took), n)
	}
	slices.Sort(took)
	return took[n/2], took[n*99/100], nil
}

// perViewer returns the live bytes of a gateway for each viewer of one of n requests, which run
// elsewhere and have been quiet but for their signs of life. What its connection takes is not
// counted.
func perViewer(gateway, worker *child, n int, quiet time.Duration) (float64, error) {
	if err := worker.hold(n); err != nil {
		return 0, err
	}
	warm, err := crowd(gateway, min(n, dialers))
	if err == nil {
		err = attach(warm)
	}
	hangUp(warm)
	if err != nil {
		return 0, err
	}
	peers, err := crowd(gateway, n)
	defer hangUp(peers)
	if err != nil {
		return 0, err
	}
	before, err := gateway.live()
	if err != nil {
		return 0, err
	}
	if err := attach(peers); err != nil {
		return 0, err
	}
	time.Sleep(quiet)
	after, err := gateway.live()
	return float64(after-before) / float64(n), err
}

// attach has each of the clients view a held request of its own, and returns when all have its
// first output.
func attach(peers []*peer) error {
	return limited(len(peers), func(i int) error {
		p := peers[i]
		p.in = bufio.NewReader(p.conn)
		defer p.park()
		if err := p.conn.SetDeadline(time.Now().Add(patience)); err != nil {
			return err
		}
		if err := p.send(fmt.Appendf(nil, `{"type":"attach","id":"held-%d"}`, i)); err != nil {
			return err
		}
		for v := (viewing{}); v.outputs == 0; {
			message, err := p.read()
			if err != nil {
				return err
			}
			if err := v.see(message); err != nil {
				return err
			}
		}
		return nil
	})
}
