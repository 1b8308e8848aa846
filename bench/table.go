package main

import (
	"fmt"
	"io"
	"math"
	"text/tabwriter"
	"time"
)

// summary is the JSON that -json prints.
type summary struct {
	Roundtrip      map[string]ratios `json:"roundtrip"` // by "c" and the number of clients
	NATSRoundtrip  map[string]ratios `json:"nats_roundtrip"`
	IdleWSKB       float64           `json:"idle_ws_kb"`
	Resume1000MS   float64           `json:"resume_1000_ms"`
	ReportNS       float64           `json:"report_ns"`
	Reconnect5000S float64           `json:"reconnect_5000_s"`
	SSEIdleKB      float64           `json:"sse_idle_kb"`
	SSEFanoutRatio float64           `json:"sse_fanout_ratio"` // server CPU per delivery with most viewers, product ÷ floor
	Submit         map[string]ratios `json:"submit"`           // by kind of work, "_c" and the number of clients
	AWS            *awsSummary       `json:"aws,omitempty"`
}

// ratios are product ÷ floor: of requests per second, and of server CPU per request.
type ratios struct {
	Ratio    float64 `json:"ratio"`
	CPURatio float64 `json:"cpu_ratio"`
}

func (r *results) summary() summary {
	s := summary{
		Roundtrip:      make(map[string]ratios),
		NATSRoundtrip:  make(map[string]ratios),
		IdleWSKB:       round3(r.idle / 1000),
		Resume1000MS:   round3(milliseconds(r.resume)),
		ReportNS:       round3(r.report.NS),
		Reconnect5000S: round3(r.reconnect.took.Seconds()),
		SSEIdleKB:      round3(r.streams.product / 1000),
		Submit:         make(map[string]ratios),
		AWS:            r.aws.summary(),
	}
	if n := len(r.fanout); n > 0 {
		s.SSEFanoutRatio = round3(r.fanout[n-1].single.cpuRatio)
	}
	for _, p := range r.roundtrip {
		s.Roundtrip[fmt.Sprint("c", p.clients)] = ratios{round3(p.ratio), round3(p.cpuRatio)}
	}
	for _, p := range r.nats.embedded {
		s.NATSRoundtrip[fmt.Sprint("c", p.clients)] = ratios{round3(p.ratio), round3(p.cpuRatio)}
	}
	for _, p := range r.submit {
		s.Submit[fmt.Sprint(p.name, "_c", p.clients)] = ratios{round3(p.ratio), round3(p.cpuRatio)}
	}
	return s
}

// round3 rounds to three significant digits.
func round3(v float64) float64 {
	if v == 0 {
		return 0
	}
	scale := math.Pow(10, 2-math.Floor(math.Log10(math.Abs(v))))
	return math.Round(v*scale) / scale
}

func milliseconds(d time.Duration) float64 { return float64(d) / float64(time.Millisecond) }
func microseconds(d time.Duration) float64 { return float64(d) / float64(time.Microsecond) }

// printer writes a line.
type printer func(format string, args ...any)

// print writes the tables, in Markdown.
func (r *results) print(out io.Writer) error {
	w := tabwriter.NewWriter(out, 0, 0, 1, ' ', 0)
	var line printer = func(format string, args ...any) { fmt.Fprintf(w, format+"\n", args...) }

	trips := func(store string, pairs []pair) {
		if len(pairs) == 0 {
			return
		}
		line("%s: submit, %d outputs, result. Medians of %d interleaved rounds.\n", store, outputs, pairs[0].rounds)
		line("| clients\t| server\t| requests/s\t| p50 ms\t| p99 ms\t| server CPU µs\t| client CPU µs\t|")
		line("|--:\t|:--\t|--:\t|--:\t|--:\t|--:\t|--:\t|")
		for _, p := range pairs {
			for _, s := range []struct {
				name string
				round
			}{{"floor", p.floor}, {"product", p.product}} {
				line("| %d\t| %s\t| %.0f\t| %.2f\t| %.2f\t| %.0f\t| %.0f\t|", p.clients, s.name, s.perSecond,
					milliseconds(s.p50), milliseconds(s.p99), microseconds(s.serverCPU), microseconds(s.clientCPU))
			}
		}
		line("")
	}
	trips("Round trip", r.roundtrip)
	trips("Round trip on NATS, embedded", r.nats.embedded)
	trips("Round trip on NATS, over TCP", r.nats.tcp)
	trips("Round trip on NATS, embedded, each write synced", r.nats.synced)
	trips(fmt.Sprintf("The same with %d finished requests in the store of the product; the floor is the product without them", r.plan.stored), r.stored.trips)
	bursts, flow := r.aws.trips()
	trips("Requests on SQS and DynamoDB, all clients at once, and again when all have ended", bursts)
	trips("Requests on SQS and DynamoDB, each client for itself", flow)
	r.aws.print(line)
	r.printFanout(line)
	r.printSubmit(line)
	r.printBudgets(line)
	return w.Flush()
}

func (r *results) printFanout(line printer) {
	if len(r.fanout) == 0 {
		return
	}
	line("Fan-out over event streams: one request, outputs one at a time, and %d without a pause. Medians of up to %d interleaved rounds.\n", burst, r.fanout[0].rounds)
	line("| viewers\t| outputs\t| server\t| deliveries/s\t| server CPU µs\t| deliveries/s ÷ floor\t| CPU ÷ floor\t|")
	line("|--:\t|:--\t|:--\t|--:\t|--:\t|--:\t|--:\t|")
	for _, s := range r.fanout {
		for _, f := range []struct {
			name string
			fan
		}{{"single", s.single}, {"burst", s.burst}} {
			line("| %d\t| %s\t| floor\t| %.0f\t| %.2f\t| \t| \t|", s.viewers, f.name, f.floor.perSecond, microseconds(f.floor.cpu))
			line("| %d\t| %s\t| product\t| %.0f\t| %.2f\t| %v\t| %v\t|", s.viewers, f.name, f.product.perSecond,
				microseconds(f.product.cpu), round3(f.ratio), round3(f.cpuRatio))
		}
	}
	line("")
}

func (r *results) printSubmit(line printer) {
	if len(r.submit) == 0 {
		return
	}
	line("HTTP: submit to result, short work and long work that is waited for. Medians of %d interleaved rounds.\n", r.submit[0].rounds)
	line("| work\t| clients\t| server\t| requests/s\t| p50 ms\t| p99 ms\t| server CPU µs\t| requests/s ÷ floor\t| CPU ÷ floor\t|")
	line("|:--\t|--:\t|:--\t|--:\t|--:\t|--:\t|--:\t|--:\t|--:\t|")
	for _, p := range r.submit {
		cells := func(name string, r round) string {
			return fmt.Sprintf("| %s\t| %d\t| %s\t| %.0f\t| %.2f\t| %.2f\t| %.0f\t", p.name, p.clients, name, r.perSecond,
				milliseconds(r.p50), milliseconds(r.p99), microseconds(r.serverCPU))
		}
		line("%s| \t| \t|", cells("floor", p.floor))
		line("%s| %v\t| %v\t|", cells("product", p.product), round3(p.ratio), round3(p.cpuRatio))
	}
	line("")
}

// printBudgets writes what there is a budget for and was measured.
func (r *results) printBudgets(line printer) {
	line("| what\t| measured\t| budget\t| \t|")
	line("|:--\t|--:\t|--:\t|:--\t|")
	row := func(what, unit string, value float64, sign string, budget float64) {
		met := value <= budget
		if sign == "≥" {
			met = value >= budget
		}
		verdict := "met"
		if !met {
			verdict = "MISSED"
		}
		line("| %s\t| %v%s\t| %s %v%s\t| %s\t|", what, round3(value), unit, sign, budget, unit, verdict)
	}
	free := func(what, unit string, value float64) { line("| %s\t| %v%s\t| \t| \t|", what, round3(value), unit) }
	for _, p := range r.roundtrip {
		least := 1.0
		if p.clients == 1 {
			least = 0.8
		}
		row(fmt.Sprintf("requests per second ÷ floor, clients: %d", p.clients), "", p.ratio, "≥", least)
		row(fmt.Sprintf("server CPU per request ÷ floor, clients: %d", p.clients), "", p.cpuRatio, "≤", 1.3)
	}
	for _, p := range r.nats.embedded {
		row(fmt.Sprintf("requests per second on NATS ÷ floor, clients: %d", p.clients), "", p.ratio, "≥", 0.7)
	}
	if r.fleet.perViewer > 0 {
		free("an output on NATS from handler to client, median", " ms", milliseconds(r.fleet.p50))
		free("the same, 99 of 100", " ms", milliseconds(r.fleet.p99))
		row(fmt.Sprintf("live for each of %d viewers of as many requests on NATS, above the connection", r.plan.watched), " KB", r.fleet.perViewer/1000, "≤", 2)
	}
	for _, p := range r.stored.trips {
		row(fmt.Sprintf("p99 of a request beside %d finished ones ÷ without them, clients: %d", r.plan.stored, p.clients), "", float64(p.product.p99)/float64(p.floor.p99), "≤", 1.5)
	}
	if r.stored.back > 0 {
		free(fmt.Sprintf("memory that they take (all of the process: %v MB)", round3(float64(r.stored.resident)/1e6)), " MB", float64(r.stored.extra)/1e6)
		row("first answer of the process that starts with them after kill -9", " s", r.stored.back.Seconds(), "≤", 10)
	}
	if r.measured[stepIdle] {
		row(fmt.Sprintf("resident per idle WebSocket connection, of %d", r.plan.idle), " KB", r.idle/1000, "≤", 12)
	}
	if r.measured[stepResume] {
		row(fmt.Sprintf("connect and resume %d outputs", r.plan.resumed), " ms", milliseconds(r.resume), "≤", 100)
	}
	if r.measured[stepLongResume] && r.plan.long > 0 {
		row(fmt.Sprintf("the same with %d outputs (%.0f ms): extra memory of the server", r.plan.long, milliseconds(r.long.took)),
			" MB", float64(r.long.extra)/1e6, "≤", 8)
	}
	if r.measured[stepReport] {
		row("Report in a tight loop", " ns", r.report.NS, "≤", 200)
		row("allocations of a Report", "", float64(r.report.Allocs), "≤", 0)
	}
	if r.measured[stepReconnect] {
		row(fmt.Sprintf("%d clients cut at once: all have the %d events they missed (server away for %.1f s)", r.plan.reconnect, missed, r.reconnect.away.Seconds()), " s", r.reconnect.took.Seconds(), "≤", 15)
		row("peak memory of the server meanwhile, new events left out, ÷ before", "", r.reconnect.growth, "≤", 1.5)
	}
	if r.measured[stepStreams] {
		row(fmt.Sprintf("resident per idle event stream, of %d (floor: %v KB)", r.plan.streams, round3(r.streams.floor/1000)), " KB", r.streams.product/1000, "≤", 30)
	}
	for _, s := range r.fanout {
		row(fmt.Sprintf("server CPU per delivery ÷ floor, outputs one at a time, viewers: %d", s.viewers), "", s.single.cpuRatio, "≤", 1.2)
	}
	if a := r.aws; a != nil {
		row(fmt.Sprintf("calls of SQS for 1,000 requests, at %.0f/s (floor: 300)", a.steady.perSecond), "", a.steady.perThousand(""), "≤", 400)
		row(fmt.Sprintf("server CPU per request on SQS and DynamoDB ÷ floor, %d at once", a.bursts.clients), "", a.bursts.cpuRatio, "≤", 1.3)
		if a.flow != nil {
			free("the same, each client for itself", "", a.flow.cpuRatio)
		}
	}
}
