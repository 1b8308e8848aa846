package main

import "fmt"

// awsSummary is the part of summary for requests on SQS and DynamoDB.
type awsSummary struct {
	SQSCalls   float64 `json:"sqs_calls_per_1000"`
	WriteUnits float64 `json:"write_units"` // of a request with outputs and reports, with those of the index
	CPURatio   float64 `json:"cpu_ratio"`   // server CPU per request, product ÷ floor
}

func (r *awsCosts) summary() *awsSummary {
	if r == nil {
		return nil
	}
	u := r.units[0]
	return &awsSummary{round3(r.steady.perThousand("")), round3(u.writes + u.index), round3(r.bursts.cpuRatio)}
}

// trips returns what is printed with the other round trips.
func (r *awsCosts) trips() (bursts, flow []pair) {
	if r == nil {
		return nil, nil
	}
	if r.flow != nil {
		flow = []pair{*r.flow}
	}
	return []pair{r.bursts}, flow
}

// print writes what was counted.
func (r *awsCosts) print(line printer) {
	if r == nil {
		return
	}
	line("Calls of SQS for 1,000 requests.\n")
	line("| load\t| send\t| receive\t| delete\t| all\t|")
	line("|:--\t|--:\t|--:\t|--:\t|--:\t|")
	line("| floor: all batches full\t| 100\t| 100\t| 100\t| 300\t|")
	for _, l := range []struct {
		name string
		tickets
	}{
		{fmt.Sprintf("logs in memory, %.0f/s, %d in flight", r.steady.perSecond, awsLanes), r.steady},
		{fmt.Sprintf("logs in memory, %.0f/s", r.slow.perSecond), r.slow},
		{fmt.Sprintf("logs in DynamoDB, %d at once", r.bursts.clients), tickets{requests: r.requests, spent: r.calls.product}},
		{"floor of the processor time, likewise", tickets{requests: r.requests, spent: r.calls.floor}},
	} {
		if l.requests > 0 {
			line("| %s\t| %.0f\t| %.0f\t| %.0f\t| %.0f\t|", l.name, l.perThousand("SendMessageBatch"), l.perThousand("ReceiveMessage"),
				l.perThousand("DeleteMessageBatch"), l.perThousand(""))
		}
	}
	line("")
	line("What a request takes of DynamoDB.\n")
	line("| request\t| calls\t| write units\t| of the index\t| read units\t|")
	line("|:--\t|--:\t|--:\t|--:\t|--:\t|")
	for _, u := range r.units {
		line("| %s\t| %v\t| %v\t| %v\t| %v\t|", u.what, round3(u.calls), round3(u.writes), round3(u.index), round3(u.reads))
	}
	perRequest := func(s Spent) float64 { return round3(s.of(serviceDynamo) / float64(r.requests)) }
	line("| %d outputs at once, %d requests at once\t| %v\t| \t| \t| \t|", outputs, r.bursts.clients, perRequest(r.calls.product))
	line("| floor of the processor time, likewise\t| %v\t| \t| \t| \t|", perRequest(r.calls.floor))
	line("")
}
