package main

import (
	"fmt"
	"os"
	"time"
)

// natsStored is what was measured of a process with an embedded NATS whose store holds many
// finished requests. In trips, the floor is the product with an empty store.
type natsStored struct {
	trips    []pair
	took     time.Duration // to store them
	resident int64         // bytes
	extra    int64         // of these, what the same process with an empty store has not
	back     time.Duration // from a start after kill -9 until a request is answered
}

func onStored(p plan) (r natsStored, err error) {
	dir, err := os.MkdirTemp("", "streamer-bench-")
	if err != nil {
		return r, err
	}
	defer os.RemoveAll(dir)
	empty, err := spawn(roleNATSProduct)
	if err != nil {
		return r, err
	}
	defer empty.close()
	full, err := spawn(roleNATSProduct, dirVariable+"="+dir)
	if err != nil {
		return r, err
	}
	defer func() { full.close() }()
	begin := time.Now()
	if err := full.stuff(p.stored); err != nil {
		return r, err
	}
	r.took = time.Since(begin)
	if r.resident, err = full.settle(); err != nil {
		return r, err
	}
	without, err := empty.settle()
	if err != nil {
		return r, err
	}
	r.extra = r.resident - without

	open := func(server *child) (client, error) { return dial(server.addr, server.hello()) }
	var scenarios []scenario
	for _, clients := range p.clients[:2] {
		scenarios = append(scenarios, scenario{"requests beside many that are stored", clients, open})
	}
	if r.trips, err = compare(p, 1+p.natsRounds, empty, full, scenarios); err != nil {
		return r, err
	}

	if err := full.kill(); err != nil {
		return r, err
	}
	begin = time.Now()
	if full, err = spawn(roleNATSProduct, dirVariable+"="+dir); err != nil {
		return r, err
	}
	c, err := dial(full.addr, full.hello())
	if err != nil {
		return r, err
	}
	defer c.close()
	if err := c.request(fmt.Sprint("back-", begin.UnixNano())); err != nil {
		return r, err
	}
	r.back = time.Since(begin)
	return r, nil
}
