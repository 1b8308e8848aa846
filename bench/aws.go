package main

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/pay-theory/streamer/v2/internal/awstest"
)

// awsCosts is what requests cost on SQS and DynamoDB.
type awsCosts struct {
	steady, slow tickets
	units        []unitCost
	bursts       pair                           // as many requests as there are workers at once, again and again
	calls        struct{ floor, product Spent } // in bursts
	requests     int                            // of each of the two, then
	flow         *pair                          // as many clients, each for itself; nil: not measured
}

// tickets are the calls of SQS that requests took.
type tickets struct {
	requests  int
	perSecond float64
	spent     Spent
}

// perThousand returns the calls for 1,000 requests, of all operations or of one.
func (t tickets) perThousand(operation string) float64 {
	n := t.spent.of(serviceSQS)
	if operation != "" {
		n = float64(t.spent.Calls[serviceSQS+" "+operation])
	}
	return 1000 * n / float64(t.requests)
}

// unitCost is what a request of a kind takes of DynamoDB.
type unitCost struct {
	what                        string
	calls, writes, index, reads float64
}

// awsLanes is how many requests are in flight where the queue is to be busy: several times what
// workers take.
const awsLanes = 4 * workers

// onAWS measures requests on the emulators of SQS and DynamoDB.
func onAWS(p plan) (_ *awsCosts, err error) {
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	sqs, err := awstest.StartSQS(ctx)
	if err != nil {
		return nil, err
	}
	defer sqs.Close()
	dynamo, err := awstest.StartDynamoDB(ctx)
	if err != nil {
		return nil, err
	}
	defer dynamo.Close()
	env := []string{sqsVariable + "=" + sqs.Endpoint(), dynamoVariable + "=" + dynamo.Endpoint()}
	r := &awsCosts{}
	if err := r.queueing(p, env); err != nil {
		return nil, fmt.Errorf("calls of SQS: %w", err)
	}
	if err := r.storage(p, env); err != nil {
		return nil, fmt.Errorf("units of DynamoDB: %w", err)
	}
	if err := r.processor(p, env); err != nil {
		return nil, fmt.Errorf("processor time: %w", err)
	}
	return r, nil
}

// queueing counts the calls of SQS for requests that come as fast as it takes them, and for some
// that come slowly. Their logs are in memory, since an emulated DynamoDB takes too few.
func (r *awsCosts) queueing(p plan, env []string) error {
	server, err := spawn(roleAWSQueue, env...)
	if err != nil {
		return err
	}
	defer server.close()
	clients, err := open(server, awsLanes, asking("work", workPayload, outputs))
	defer leave(clients)
	if err != nil {
		return err
	}
	if _, err := send(clients, p.awsTickets/4, 0); err != nil {
		return err
	}
	if r.steady, err = callsOf(server, clients, p.awsTickets, 0); err != nil || p.awsSlow == 0 {
		return err
	}
	r.slow, err = callsOf(server, clients, p.awsSlow, 10*time.Millisecond)
	return err
}

func callsOf(server *child, clients []client, n int, every time.Duration) (t tickets, err error) {
	before, err := server.spent()
	if err != nil {
		return t, err
	}
	start := time.Now()
	if _, err := send(clients, n, every); err != nil {
		return t, err
	}
	took := time.Since(start)
	after, err := server.spent()
	return tickets{n, float64(n) / took.Seconds(), after.minus(before)}, err
}

// storage counts what requests of several kinds take of DynamoDB.
func (r *awsCosts) storage(p plan, env []string) error {
	server, err := spawn(roleAWSProduct, append(env, unitsVariable+"=all")...)
	if err != nil {
		return err
	}
	defer server.close()
	for _, kind := range []struct {
		what string
		open func(*child) (client, error)
	}{
		{fmt.Sprintf("%d outputs, %d reports", exportSteps, exportSteps), asking("export", withReports, exportSteps)},
		{fmt.Sprintf("%d outputs", exportSteps), asking("export", withoutReports, exportSteps)},
		{"short work", func(server *child) (client, error) { return call(server.addr, actionShort) }},
	} {
		cost, err := unitsOf(server, p.awsUnits, kind.open)
		if err != nil {
			return fmt.Errorf("%s: %w", kind.what, err)
		}
		cost.what = kind.what
		r.units = append(r.units, cost)
	}
	return nil
}

// unitsOf measures n requests, one after the other.
func unitsOf(server *child, n int, dial func(*child) (client, error)) (u unitCost, err error) {
	clients, err := open(server, 1, dial)
	defer leave(clients)
	if err != nil {
		return u, err
	}
	before, err := server.spent()
	if err != nil {
		return u, err
	}
	if _, err := send(clients, n, 0); err != nil {
		return u, err
	}
	after, err := server.spent()
	d := after.minus(before)
	each := float64(n)
	return unitCost{calls: d.of(serviceDynamo) / each, writes: d.Writes / each, index: d.Index / each, reads: d.Reads / each}, err
}

// asker is a client that asks for an action. It may take its time, and asks again where the
// emulators keep the server waiting for so long that it gives up.
type asker struct {
	*peer
	action, payload string
	outputs         int
}

func asking(action, payload string, outputs int) func(*child) (client, error) {
	return func(server *child) (client, error) {
		p, err := dial(server.addr, server.hello())
		return asker{p, action, payload, outputs}, err
	}
}

func (a asker) request(id string) (err error) {
	for try := range 10 {
		if err = a.conn.SetDeadline(time.Now().Add(patience)); err != nil {
			return err
		}
		if err = a.exchange(request(fmt.Sprint(id, "-", try), a.action, a.payload), a.outputs); !errors.Is(err, errUnavailable) {
			return err
		}
		time.Sleep(time.Second) // as the server says
	}
	return err
}

// processor compares the processor time of floor and product.
func (r *awsCosts) processor(p plan, env []string) error {
	floor, err := spawn(roleAWSFloor, env...)
	if err != nil {
		return err
	}
	defer floor.close()
	product, err := spawn(roleAWSProduct, env...)
	if err != nil {
		return err
	}
	defer product.close()
	stop, err := profile(p.profiles, "", floor, product)
	if err != nil {
		return err
	}
	err = r.compare(p, floor, product)
	return first(err, stop())
}

func (r *awsCosts) compare(p plan, floor, product *child) error {
	work := asking(actionPaced, workPayload, outputs)
	both := []*child{floor, product}
	for _, server := range both { // what is allocated and connected once
		if _, err := volleys(server, p.awsAtOnce, p.awsAtOnce, 1, work); err != nil {
			return err
		}
	}
	spent := func() (s [2]Spent, err error) {
		for i, server := range both {
			if s[i], err = server.spent(); err != nil {
				return s, err
			}
		}
		return s, nil
	}
	before, err := spent()
	if err != nil {
		return err
	}
	pairs, err := compareBy(p, p.awsRounds, floor, product, []scenario{{"bursts of requests on AWS", p.awsAtOnce, work}}, func(server *child, sc scenario) (round, error) {
		return volleys(server, sc.clients, sc.clients, p.awsBursts, sc.open)
	})
	if err != nil {
		return err
	}
	after, err := spent()
	if err != nil {
		return err
	}
	r.bursts = pairs[0]
	r.calls.floor, r.calls.product = after[0].minus(before[0]), after[1].minus(before[1])
	r.requests = r.bursts.rounds * p.awsBursts * p.awsAtOnce
	if !p.awsFlow {
		return nil
	}
	pairs, err = compareBy(p, p.awsRounds, floor, product, []scenario{{"requests on AWS", p.awsAtOnce, work}}, func(server *child, sc scenario) (round, error) {
		return volleys(server, sc.clients, sc.clients*p.awsBursts, 1, sc.open)
	})
	if err == nil {
		r.flow = &pairs[0]
	}
	return err
}

// volleys has clients send so many requests, each the next when its last has ended, and as many
// again when all have.
func volleys(server *child, clients, requests, times int, dial func(*child) (client, error)) (r round, err error) {
	list, err := open(server, clients, dial)
	defer leave(list)
	if err != nil {
		return r, err
	}
	var used usage
	if err := used.begin(server); err != nil {
		return r, err
	}
	var all []time.Duration
	for range times {
		took, err := send(list, requests, 0)
		if err != nil {
			return r, err
		}
		all = append(all, took...)
	}
	if err := used.end(server); err != nil {
		return r, err
	}
	return newRound(all, used), nil
}
