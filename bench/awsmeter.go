package main

import (
	"context"
	"maps"
	"strings"
	"sync"

	"github.com/aws/aws-sdk-go-v2/service/dynamodb"
	"github.com/aws/aws-sdk-go-v2/service/dynamodb/types"
	"github.com/aws/smithy-go/middleware"
)

// meter counts what a process asks of AWS.
type meter struct {
	units bool // DynamoDB is asked for the units too, which costs some processor time

	mu    sync.Mutex
	spent Spent
}

// Spent is what calls of AWS have cost.
type Spent struct {
	Calls  map[string]int // by service and operation: "SQS ReceiveMessage"
	Reads  float64        // units of DynamoDB
	Writes float64        // of its table
	Index  float64        // of its index, which emulators don't count: by what is written
}

func newMeter(units bool) *meter {
	return &meter{units: units, spent: Spent{Calls: make(map[string]int)}}
}

// join has the meter see the calls of a client.
func (m *meter) join(stack *middleware.Stack) error {
	return stack.Initialize.Add(middleware.InitializeMiddlewareFunc("meter", m.handle), middleware.After)
}

func (m *meter) handle(ctx context.Context, in middleware.InitializeInput, next middleware.InitializeHandler) (middleware.InitializeOutput, middleware.Metadata, error) {
	if m.units {
		askUnits(in.Parameters)
	}
	out, metadata, err := next.HandleInitialize(ctx, in)
	m.mu.Lock()
	defer m.mu.Unlock()
	m.spent.Calls[middleware.GetServiceID(ctx)+" "+middleware.GetOperationName(ctx)]++
	if m.units && err == nil {
		m.spent.reads(out.Result)
		m.spent.writes(in.Parameters, out.Result)
	}
	return out, metadata, err
}

// read returns what was spent so far.
func (m *meter) read() Spent {
	m.mu.Lock()
	defer m.mu.Unlock()
	s := m.spent
	s.Calls = maps.Clone(s.Calls)
	return s
}

// stored returns how many writes of DynamoDB there were.
func (m *meter) stored() int {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.spent.Calls[serviceDynamo+" PutItem"] + m.spent.Calls[serviceDynamo+" UpdateItem"]
}

// askUnits has the answer tell the units of table and index apart.
func askUnits(parameters any) {
	const indexes = types.ReturnConsumedCapacityIndexes
	switch in := parameters.(type) {
	case *dynamodb.GetItemInput:
		in.ReturnConsumedCapacity = indexes
	case *dynamodb.BatchGetItemInput:
		in.ReturnConsumedCapacity = indexes
	case *dynamodb.QueryInput:
		in.ReturnConsumedCapacity = indexes
	case *dynamodb.PutItemInput:
		in.ReturnConsumedCapacity = indexes
	case *dynamodb.UpdateItemInput:
		in.ReturnConsumedCapacity = indexes
	case *dynamodb.DeleteItemInput:
		in.ReturnConsumedCapacity = indexes
	}
}

func (s *Spent) reads(result any) {
	switch out := result.(type) {
	case *dynamodb.GetItemOutput:
		s.Reads += units(out.ConsumedCapacity)
	case *dynamodb.QueryOutput:
		s.Reads += units(out.ConsumedCapacity)
	case *dynamodb.BatchGetItemOutput:
		for _, c := range out.ConsumedCapacity {
			s.Reads += units(&c)
		}
	}
}

func (s *Spent) writes(parameters, result any) {
	switch out := result.(type) {
	case *dynamodb.PutItemOutput:
		s.Writes += tableUnits(out.ConsumedCapacity)
		if parameters.(*dynamodb.PutItemInput).Item["o"] != nil {
			s.Index++
		}
	case *dynamodb.UpdateItemOutput:
		s.Writes += tableUnits(out.ConsumedCapacity)
		switch change := *parameters.(*dynamodb.UpdateItemInput).UpdateExpression; {
		case strings.Contains(change, " o = "):
			s.Index += 2 // an entry is removed, and another made
		case strings.Contains(change, " o, w"):
			s.Index++ // removed
		}
	case *dynamodb.DeleteItemOutput:
		s.Writes += tableUnits(out.ConsumedCapacity)
	}
}

func units(c *types.ConsumedCapacity) float64 {
	if c == nil || c.CapacityUnits == nil {
		return 0
	}
	return *c.CapacityUnits
}

func tableUnits(c *types.ConsumedCapacity) float64 {
	if c == nil || c.Table == nil || c.Table.CapacityUnits == nil {
		return 0
	}
	return *c.Table.CapacityUnits
}

// Services whose calls are counted.
const (
	serviceSQS    = "SQS"
	serviceDynamo = "DynamoDB"
)

// of returns the calls of a service.
func (s Spent) of(service string) float64 {
	n := 0
	for call, calls := range s.Calls {
		if strings.HasPrefix(call, service+" ") {
			n += calls
		}
	}
	return float64(n)
}

// minus returns what was spent since another reading.
func (s Spent) minus(before Spent) Spent {
	d := Spent{Calls: make(map[string]int), Reads: s.Reads - before.Reads, Writes: s.Writes - before.Writes, Index: s.Index - before.Index}
	for operation, n := range s.Calls {
		if n -= before.Calls[operation]; n > 0 {
			d.Calls[operation] = n
		}
	}
	return d
}
