package main

import (
	"context"
	"errors"
	"net/http"
	"os"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"github.com/pay-theory/streamer/v2"
	"github.com/pay-theory/streamer/v2/natsembed"
	"github.com/pay-theory/streamer/v2/progress/natslog"
	"github.com/pay-theory/streamer/v2/queue/natsqueue"
)

// natsRoundtrips is the round trip with durable requests.
type natsRoundtrips struct {
	embedded, tcp []pair
	synced        []pair // embedded, each write synced to the disk
}

// onNATS measures requests under load whose logs and tickets are on JetStream: in the process,
// and in another one.
func onNATS(p plan) (r natsRoundtrips, err error) {
	if r.embedded, err = durable(p); err != nil || !p.natsTCP {
		return r, err
	}
	server, err := spawn(roleNATSServer)
	if err != nil {
		return r, err
	}
	defer server.close()
	if r.tcp, err = durable(p, natsVariable+"="+server.addr); err != nil {
		return r, err
	}
	p.clients, p.natsRounds, p.profiles = p.clients[:2], 1+p.natsRounds/2, ""
	p.span = max(p.span, time.Second) // a disk may take a tenth of it for one request
	r.synced, err = durable(p, syncVariable+"=always")
	return r, err
}

func durable(p plan, env ...string) ([]pair, error) {
	floor, err := spawn(roleNATSFloor, env...)
	if err != nil {
		return nil, err
	}
	defer floor.close()
	product, err := spawn(roleNATSProduct, env...)
	if err != nil {
		return nil, err
	}
	defer product.close()
	stop, err := profile(p.profiles, "", floor, product)
	if err != nil {
		return nil, err
	}
	open := func(server *child) (client, error) { return dial(server.addr, server.hello()) }
	var scenarios []scenario
	for _, clients := range p.clients {
		scenarios = append(scenarios, scenario{"requests on NATS", clients, open})
	}
	p.warm, p.span = p.warm*2, p.span*2 // a durable request takes longer
	pairs, err := compare(p, p.natsRounds, floor, product, scenarios)
	return pairs, first(err, stop())
}

// serveNATS sets the process up for one of the roles that need NATS.
func (c *Control) serveNATS(ctx context.Context, role string, mux *http.ServeMux) (stop func(), err error) {
	var closers []func() error
	stop = func() {
		for i := len(closers) - 1; i >= 0; i-- {
			err = errors.Join(err, closers[i]())
		}
	}
	js, err := c.connect(ctx, role, &closers)
	if err != nil || role == roleNATSServer {
		return stop, err
	}
	if role == roleNATSFloor {
		floor, err := newNATSFloor(ctx, js)
		mux.Handle("/ws", floor)
		return stop, err
	}
	log, err := natslog.New(ctx, js)
	if err != nil {
		return stop, err
	}
	closers = append(closers, log.Close)
	queue, err := natsqueue.New(ctx, js)
	if err != nil {
		return stop, err
	}
	closers = append(closers, queue.Close)
	opts := []streamer.Option{streamer.WithLog(log), streamer.WithQueue(queue)}
	if role == roleNATSWorker {
		opts = append(opts, streamer.WithConcurrency(1<<16))
	}
	c.product = newProductOn(opts...)
	mux.Handle("/ws", c.product.sockets)
	if role == roleNATSGateway {
		return stop, nil
	}
	ctx, cancel := context.WithCancel(ctx)
	done := make(chan struct{})
	go func() {
		defer close(done)
		c.product.run(ctx)
	}()
	closers = append(closers, func() error {
		cancel()
		<-done
		return nil
	})
	return stop, nil
}

func (c *Control) connect(ctx context.Context, role string, closers *[]func() error) (jetstream.JetStream, error) {
	if url := os.Getenv(natsVariable); url != "" {
		nc, err := nats.Connect(url)
		if err != nil {
			return nil, err
		}
		*closers = append(*closers, func() error { nc.Close(); return nil })
		return jetstream.New(nc)
	}
	dir := os.Getenv(dirVariable)
	if dir == "" {
		var err error
		if dir, err = os.MkdirTemp("", "streamer-bench-"); err != nil {
			return nil, err
		}
		*closers = append(*closers, func() error { return os.RemoveAll(dir) })
	}
	var opts []natsembed.Option
	if os.Getenv(syncVariable) != "" {
		opts = append(opts, natsembed.WithSyncAlways())
	}
	if role == roleNATSServer {
		opts = append(opts, natsembed.WithListen("127.0.0.1:0"))
	}
	server, err := natsembed.Open(ctx, dir, opts...)
	if err != nil {
		return nil, err
	}
	*closers = append(*closers, server.Close)
	if role == roleNATSServer {
		c.addr = server.URL()
	}
	return server.JetStream(), nil
}
