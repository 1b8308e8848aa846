package main

import (
	"errors"
	"fmt"
	"time"
)

// delivery is what one server used for showing an output to one viewer.
type delivery struct {
	perSecond float64
	cpu       time.Duration
}

// spread is floor and product with a number of viewers. Ratios are product ÷ floor, the medians
// of the rounds' own.
type spread struct {
	viewers, rounds int
	single, burst   fan // of outputs that come one at a time; that come without a pause
}

type fan struct {
	floor, product  delivery // medians
	ratio, cpuRatio float64
}

// burst is how many outputs come without a pause.
const burst = 50

// fanouts measures floor and product by turns with each number of viewers.
func fanouts(p plan) ([]spread, error) {
	var all []spread
	for _, viewers := range p.viewers {
		s, err := fanout(p, viewers)
		if err != nil {
			return nil, fmt.Errorf("%d viewers: %w", viewers, err)
		}
		all = append(all, s)
	}
	return all, nil
}

func fanout(p plan, viewers int) (s spread, err error) {
	stages := make([]*stage, 2)
	defer func() {
		for _, st := range stages {
			st.close()
		}
	}()
	for i, role := range []string{roleFloor, roleProduct} {
		if stages[i], err = newStage(role, viewers); err != nil {
			return s, err
		}
	}
	stop, err := profile(p.profiles, fmt.Sprint("fanout-", viewers, "-"), stages[0].server, stages[1].server)
	if err != nil {
		return s, err
	}
	steps := max(1, p.deliveries/viewers)
	var single, many [2][]delivery
	for n := range 1 + p.fans { // the first warms up
		for turn := range stages {
			i := (n + turn) % 2
			d, err := stages[i].show(steps, 1)
			if err != nil {
				return s, fmt.Errorf("%s: %w", stages[i].server.role, err)
			}
			if n == 0 {
				continue
			}
			single[i] = append(single[i], d)
			if n > p.bursts {
				continue
			}
			if d, err = stages[i].show(1, burst); err != nil {
				return s, fmt.Errorf("%s: %w", stages[i].server.role, err)
			}
			many[i] = append(many[i], d)
		}
	}
	return spread{viewers, p.fans, newFan(single), newFan(many)}, stop()
}

func newFan(of [2][]delivery) fan {
	var ratios, cpuRatios []float64
	for n, floor := range of[0] {
		product := of[1][n]
		ratios = append(ratios, product.perSecond/floor.perSecond)
		cpuRatios = append(cpuRatios, float64(product.cpu)/float64(floor.cpu))
	}
	return fan{medianDelivery(of[0]), medianDelivery(of[1]), median(ratios), median(cpuRatios)}
}

func medianDelivery(all []delivery) delivery {
	var rates []float64
	var cpu []time.Duration
	for _, d := range all {
		rates, cpu = append(rates, d.perSecond), append(cpu, d.cpu)
	}
	return delivery{median(rates), median(cpu)}
}

// stage is a server with one request and its viewers.
type stage struct {
	server  *child
	streams []*stream
	shown   int // outputs
}

func newStage(role string, viewers int) (*stage, error) {
	server, err := spawn(role)
	if err != nil {
		return nil, err
	}
	s := &stage{server: server}
	if err := server.fan(); err != nil {
		return nil, errors.Join(err, s.close())
	}
	s.streams, err = audience(server.addr, viewers, 0, func(int) string { return "fan" })
	if err != nil {
		return nil, errors.Join(err, s.close())
	}
	return s, nil
}

// close ends the server. The stage may be nil.
func (s *stage) close() error {
	if s == nil {
		return nil
	}
	disperse(s.streams)
	return s.server.close()
}

// show has n outputs made as many times as there are steps, the next when all viewers have the
// last.
func (s *stage) show(steps, n int) (d delivery, err error) {
	for _, stream := range s.streams {
		if err := stream.patient(); err != nil {
			return d, err
		}
	}
	var used usage
	if err := used.begin(s.server); err != nil {
		return d, err
	}
	for range steps {
		if err := s.server.emit(n); err != nil {
			return d, err
		}
		s.shown += n
		if err := each(len(s.streams), func(i int) error { return s.streams[i].until(s.shown) }); err != nil {
			return d, err
		}
	}
	if err := used.end(s.server); err != nil {
		return d, err
	}
	deliveries := steps * n * len(s.streams)
	return delivery{float64(deliveries) / used.wall.Seconds(), used.server / time.Duration(deliveries)}, nil
}
