package main

import (
	"encoding/json"
	"fmt"
	"time"
)

// reporting returns what one Report in a tight loop costs: the median of several runs, and
// the most allocations of any.
func reporting(times int) (cost reportCost, err error) {
	server, err := spawn(roleProduct)
	if err != nil {
		return cost, err
	}
	defer server.close()
	p, err := dial(server.addr, server.hello())
	if err != nil {
		return cost, err
	}
	defer p.close()
	var ns []float64
	for i := range times {
		once, err := reportOnce(p, fmt.Sprint("report-", i))
		if err != nil {
			return cost, err
		}
		ns = append(ns, once.NS)
		cost.Allocs = max(cost.Allocs, once.Allocs)
	}
	cost.NS = median(ns)
	return cost, nil
}

func reportOnce(p *peer, id string) (reportCost, error) {
	if err := p.conn.SetDeadline(time.Now().Add(patience)); err != nil {
		return reportCost{}, err
	}
	if err := p.send(request(id, "report", "null")); err != nil {
		return reportCost{}, err
	}
	var v viewing
	if err := p.follow(&v); err != nil {
		return reportCost{}, err
	}
	var end struct {
		Result reportCost `json:"result"`
	}
	err := json.Unmarshal(v.end, &end)
	return end.Result, err
}
