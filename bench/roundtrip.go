package main

import (
	"fmt"
	"path/filepath"
	"time"
)

// scenario is what clients do at one concurrency.
type scenario struct {
	name    string
	clients int
	open    func(*child) (client, error)
}

// pair is floor and product in a scenario.
type pair struct {
	scenario
	rounds          int
	floor, product  round   // medians
	ratio, cpuRatio float64 // medians of the rounds' own ratios, product ÷ floor
}

// roundtrips measures requests under load, over WebSocket and over HTTP.
func roundtrips(p plan) (sockets, http []pair, err error) {
	floor, err := spawn(roleFloor)
	if err != nil {
		return nil, nil, err
	}
	defer floor.close()
	product, err := spawn(roleProduct)
	if err != nil {
		return nil, nil, err
	}
	defer product.close()
	// A service that has been up for a minute holds as many ended requests as its log may, and
	// memory that the system gave it long ago. It is that which is measured.
	if err := fill(product, p.fill); err != nil {
		return nil, nil, err
	}
	if sockets, err = overSockets(p, floor, product); err != nil {
		return nil, nil, err
	}
	http, err = submits(p, floor, product)
	return sockets, http, err
}

func overSockets(p plan, floor, product *child) ([]pair, error) {
	stop, err := profile(p.profiles, "", floor, product)
	if err != nil {
		return nil, err
	}
	open := func(server *child) (client, error) { return dial(server.addr, server.hello()) }
	var scenarios []scenario
	for _, clients := range p.clients {
		scenarios = append(scenarios, scenario{"requests", clients, open})
	}
	pairs, err := compare(p, p.rounds, floor, product, scenarios)
	return pairs, first(err, stop())
}

// compare measures floor and product under load.
func compare(p plan, rounds int, floor, product *child, scenarios []scenario) ([]pair, error) {
	return compareBy(p, rounds, floor, product, scenarios, func(server *child, sc scenario) (round, error) {
		return load(server, sc.clients, sc.open, p.warm, p.span)
	})
}

// compareBy measures floor and product by turns, in an order that turns too, so that what else
// the machine does meets both.
func compareBy(p plan, rounds int, floor, product *child, scenarios []scenario, measure func(*child, scenario) (round, error)) ([]pair, error) {
	type sample struct{ floor, product round }
	samples := make([][]sample, len(scenarios))
	begin := time.Now()
	for n := range rounds {
		if n >= 3 && p.late(begin) {
			break
		}
		for i, sc := range scenarios {
			var s sample
			turns := []func() error{
				func() (err error) { s.floor, err = measure(floor, sc); return },
				func() (err error) { s.product, err = measure(product, sc); return },
			}
			for turn := range turns {
				if err := turns[(n+turn)%2](); err != nil {
					return nil, fmt.Errorf("%s, %d clients: %w", sc.name, sc.clients, err)
				}
			}
			samples[i] = append(samples[i], s)
		}
	}
	pairs := make([]pair, len(scenarios))
	for i, sc := range scenarios {
		var floors, products []round
		var ratios, cpuRatios []float64
		for _, s := range samples[i] {
			floors, products = append(floors, s.floor), append(products, s.product)
			ratios = append(ratios, s.product.perSecond/s.floor.perSecond)
			cpuRatios = append(cpuRatios, float64(s.product.serverCPU)/float64(s.floor.serverCPU))
		}
		pairs[i] = pair{sc, len(floors), medianRound(floors), medianRound(products), median(ratios), median(cpuRatios)}
	}
	return pairs, nil
}

func medianRound(rounds []round) round {
	var rates []float64
	var p50, p99, server, client []time.Duration
	for _, r := range rounds {
		rates = append(rates, r.perSecond)
		p50, p99 = append(p50, r.p50), append(p99, r.p99)
		server, client = append(server, r.serverCPU), append(client, r.clientCPU)
	}
	return round{median(rates), median(p50), median(p99), median(server), median(client)}
}

// profile profiles the servers until stop, into files named after what is measured and their
// roles.
func profile(dir, what string, servers ...*child) (stop func() error, err error) {
	if dir == "" {
		return func() error { return nil }, nil
	}
	if dir, err = filepath.Abs(dir); err != nil {
		return nil, err
	}
	for _, s := range servers {
		if err := s.startProfile(filepath.Join(dir, what+s.role+".pprof")); err != nil {
			return nil, err
		}
	}
	return func() error {
		var err error
		for _, s := range servers {
			err = first(err, s.stopProfile())
		}
		return err
	}, nil
}
