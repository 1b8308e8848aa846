// Command bench measures the library against a floor that is written by hand in the same
// program, and against its budgets. Servers run in processes of their own. Without flags it
// prints a table; docs/performance.md tells how to read it.
package main

import (
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"os"
	"strings"
	"time"

	"github.com/pay-theory/streamer/v2/internal/awstest"
)

// plan says how much is measured.
type plan struct {
	rounds    int           // interleaved rounds of the round trip
	clients   []int         // of the round trip, one request in flight each
	fill      int           // requests with 100 outputs each, before the first round
	warm      time.Duration // in each round
	span      time.Duration
	idle      int // connections
	resumed   int // outputs of the request that is resumed
	resumes   int // repetitions
	long      int // outputs of the long request that is resumed; 0: none
	reports   int // repetitions
	reconnect int // clients

	streams    int           // quiet ones
	viewers    []int         // of one request
	deliveries int           // in each round, of outputs that come one at a time
	fans       int           // rounds of these
	bursts     int           // of these, how many have outputs without a pause too
	callers    []int         // clients that submit over HTTP, one request in flight each
	submits    int           // rounds of these
	calling    time.Duration // in each, after half as long to warm up

	natsRounds int  // interleaved rounds of the round trip on NATS
	natsTCP    bool // over TCP too, and with each write synced

	watched int           // requests on NATS, each with a viewer; 0: none
	quiet   time.Duration // how long they are, before memory is looked at
	ticks   int           // outputs on NATS whose way to a viewer is timed
	stored  int           // finished requests on NATS; 0: none

	awsTickets int  // requests whose calls of SQS are counted, as many as it takes
	awsSlow    int  // the same, 100 a second; 0: none
	awsUnits   int  // requests of each kind whose units of DynamoDB are counted
	awsRounds  int  // interleaved rounds of floor and product
	awsBursts  int  // in each
	awsAtOnce  int  // requests of a burst, and clients that don't wait for each other
	awsFlow    bool // such clients too

	limit    time.Duration // in all; where it gets short, less is measured. 0: none
	only     string        // name of the one step to measure; "" for all
	profiles string
}

// late reports whether the machine is too busy for all that was planned.
func (p *plan) late(begin time.Time) bool {
	return p.limit > 0 && time.Since(begin) > p.limit/2
}

func fullPlan() plan {
	return plan{
		rounds: 5, clients: []int{1, 64, 256}, fill: 10_000, warm: time.Second, span: 4 * time.Second,
		idle: 10_000, resumed: 1000, resumes: 21, long: 99_997, reports: 5, reconnect: 5000,
		streams: 10_000, viewers: []int{100, 500}, deliveries: 5000, fans: 30, bursts: 7, callers: []int{1, 64},
		submits: 5, calling: time.Second, natsRounds: 5, natsTCP: true,
		watched: 10_000, quiet: time.Minute, ticks: 2000, stored: 1_000_000,
		awsTickets: 10_000, awsSlow: 1000, awsUnits: 10, awsRounds: 9, awsBursts: 10, awsAtOnce: 40, awsFlow: true,
	}
}

func quickPlan() plan {
	p := fullPlan()
	p.rounds = 7
	p.warm, p.span = 100*time.Millisecond, 250*time.Millisecond
	p.resumes, p.long, p.reports = 5, 0, 1
	p.streams, p.viewers, p.fans, p.bursts, p.submits, p.calling = 2000, []int{500}, 15, 2, 1, 200*time.Millisecond
	p.natsRounds, p.natsTCP, p.watched, p.stored = 3, false, 0, 0
	p.awsTickets, p.awsSlow, p.awsUnits, p.awsRounds, p.awsBursts, p.awsFlow = 1500, 0, 2, 5, 4, false
	p.limit = 50 * time.Second
	return p
}

func main() {
	if role := os.Getenv(roleVariable); role != "" {
		exit(serve(role))
	}
	quick := flag.Bool("quick", false, "measure briefly: about a minute in all")
	asJSON := flag.Bool("json", false, "print one JSON object instead of the table")
	only := flag.String("only", "", "measure the `step` of this name alone: round trips, round trips on NATS, fan-out, …")
	profiles := flag.String("profiles", "", "write processor profiles of the servers to this `directory`")
	flag.Parse()
	if flag.NArg() > 0 {
		flag.Usage()
		os.Exit(2)
	}
	p := fullPlan()
	if *quick {
		p = quickPlan()
	}
	p.profiles, p.only = *profiles, *only
	exit(run(p, *asJSON))
}

func exit(err error) {
	if err != nil {
		fmt.Fprintln(os.Stderr, "bench:", err)
		os.Exit(1)
	}
	os.Exit(0)
}

func run(p plan, asJSON bool) error {
	if err := raiseFileLimit(); err != nil {
		return err
	}
	r, err := measure(p)
	if err != nil {
		return err
	}
	if asJSON {
		return json.NewEncoder(os.Stdout).Encode(r.summary())
	}
	return r.print(os.Stdout)
}

// results are what was measured.
type results struct {
	plan      plan
	measured  map[string]bool // steps, by name
	roundtrip []pair
	nats      natsRoundtrips
	fleet     natsFleet
	stored    natsStored
	idle      float64 // bytes
	resume    time.Duration
	long      longResume
	report    reportCost
	reconnect reconnection
	streams   idleStreams
	fanout    []spread
	submit    []pair
	aws       *awsCosts // nil: not measured
}

// Names of the steps.
const (
	stepRoundtrips = "round trips"
	stepNATS       = "round trips on NATS"
	stepFleet      = "viewers on NATS"
	stepStored     = "many requests on NATS"
	stepIdle       = "idle connections"
	stepResume     = "resume"
	stepLongResume = "long resume"
	stepReport     = "Report"
	stepReconnect  = "reconnect"
	stepStreams    = "idle streams"
	stepFanout     = "fan-out"
	stepAWS        = "requests on AWS"
)

func measure(p plan) (r results, err error) {
	r.plan, r.measured = p, make(map[string]bool)
	begin := time.Now()
	steps := []struct {
		name string
		do   func() error
	}{
		{stepRoundtrips, func() (err error) { r.roundtrip, r.submit, err = roundtrips(p); return }},
		{stepNATS, func() (err error) { r.nats, err = onNATS(p); return }},
		{stepFleet, func() (err error) {
			if p.watched > 0 {
				r.fleet, err = onFleet(p)
			}
			return
		}},
		{stepStored, func() (err error) {
			if p.stored > 0 {
				r.stored, err = onStored(p)
			}
			return
		}},
		{stepIdle, func() (err error) {
			if p.late(begin) {
				r.plan.idle /= 2
				fmt.Fprintf(os.Stderr, "bench: the machine is busy: %d idle connections, not %d\n", r.plan.idle, p.idle)
			}
			r.idle, err = idle(r.plan.idle)
			return
		}},
		{stepResume, func() (err error) { r.resume, err = resumes(p.resumed, p.resumes); return }},
		{stepLongResume, func() (err error) { r.long, err = resumeLong(p.long); return }},
		{stepReport, func() (err error) { r.report, err = reporting(p.reports); return }},
		{stepReconnect, func() (err error) { r.reconnect, err = reconnect(p.reconnect); return }},
		{stepStreams, func() (err error) { r.streams, err = quietStreams(p.streams); return }},
		{stepFanout, func() (err error) {
			p := p
			if p.limit > 0 && time.Since(begin) > p.limit*4/5 {
				p.fans, p.bursts = p.fans/3, 1
				fmt.Fprintf(os.Stderr, "bench: the machine is busy: %d rounds of fan-out\n", p.fans)
			}
			r.fanout, err = fanouts(p)
			return
		}},
		{stepAWS, func() (err error) {
			r.aws, err = onAWS(p)
			if errors.Is(err, awstest.ErrNotInstalled) && p.only == "" {
				fmt.Fprintf(os.Stderr, "bench: without %s: %v\n", stepAWS, err)
				return nil
			}
			return
		}},
	}
	for _, s := range steps {
		if p.only != "" && p.only != s.name {
			continue
		}
		r.measured[s.name] = true
		start := time.Now()
		if err := s.do(); err != nil {
			return r, fmt.Errorf("%s: %w", s.name, err)
		}
		fmt.Fprintf(os.Stderr, "bench: %s: %.1f s\n", s.name, time.Since(start).Seconds())
	}
	if len(r.measured) == 0 {
		var names []string
		for _, s := range steps {
			names = append(names, s.name)
		}
		return r, fmt.Errorf("there is no step %q to measure, only: %s", p.only, strings.Join(names, ", "))
	}
	return r, nil
}
