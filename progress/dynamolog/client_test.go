package dynamolog_test

import (
	"context"
	"errors"
	"maps"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/aws/aws-sdk-go-v2/service/dynamodb"
	"github.com/aws/aws-sdk-go-v2/service/dynamodb/types"

	"github.com/pay-theory/streamer/v2/progress/dynamolog"
)

// client stands between a Log and DynamoDB: it counts what calls cost, and does what an
// emulator can't.
type client struct {
	dynamolog.Client
	table string
	tells atomic.Bool // refusals tell what is there

	mu     sync.Mutex
	calls  map[string]int
	reads  float64 // units
	writes float64
	before func(ctx context.Context, in any) error // where it returns an error the call is not made
	after  func(in, out any) error                 // may change the answer, and where it returns an error, that is lost
}

func newClient(c dynamolog.Client) *client { return &client{Client: c, calls: make(map[string]int)} }

// hook replaces what is done before and after each call.
func (c *client) hook(before func(ctx context.Context, in any) error, after func(in, out any) error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.before, c.after = before, after
}

// cost is what calls cost.
type cost struct {
	calls         map[string]int
	reads, writes float64
}

// spent returns what calls have cost since spent was called last.
func (c *client) spent() cost {
	c.mu.Lock()
	defer c.mu.Unlock()
	s := cost{maps.Clone(c.calls), c.reads, c.writes}
	clear(c.calls)
	c.reads, c.writes = 0, 0
	return s
}

// during returns what calls cost that f makes.
func (c *client) during(tb testing.TB, f func()) cost {
	tb.Helper()
	c.spent()
	f()
	return c.spent()
}

func around[I, O any](ctx context.Context, c *client, name string, in *I, call func() (*O, error)) (*O, error) {
	c.mu.Lock()
	c.calls[name]++
	before, after := c.before, c.after
	c.mu.Unlock()
	if before != nil {
		if err := before(ctx, in); err != nil {
			return nil, err
		}
	}
	out, err := call()
	if err == nil {
		c.count(out)
	}
	if after != nil && err == nil {
		err = after(in, out)
	}
	if err != nil {
		return nil, err
	}
	return out, nil
}

func (c *client) count(out any) {
	c.mu.Lock()
	defer c.mu.Unlock()
	read := func(list ...types.ConsumedCapacity) {
		for _, u := range list {
			c.reads += *u.CapacityUnits
		}
	}
	write := func(u *types.ConsumedCapacity) { c.writes += *u.Table.CapacityUnits }
	switch out := out.(type) {
	case *dynamodb.GetItemOutput:
		read(*out.ConsumedCapacity)
	case *dynamodb.QueryOutput:
		read(*out.ConsumedCapacity)
	case *dynamodb.BatchGetItemOutput:
		read(out.ConsumedCapacity...)
	case *dynamodb.PutItemOutput:
		write(out.ConsumedCapacity)
	case *dynamodb.UpdateItemOutput:
		write(out.ConsumedCapacity)
	case *dynamodb.DeleteItemOutput:
		write(out.ConsumedCapacity)
	case *dynamodb.BatchWriteItemOutput:
		for _, u := range out.ConsumedCapacity {
			write(&u)
		}
	}
}

// indexes has servers tell the units of the table and of its index apart: emulators count the
// index differently.
const indexes = types.ReturnConsumedCapacityIndexes

func (c *client) DescribeTable(ctx context.Context, in *dynamodb.DescribeTableInput, o ...func(*dynamodb.Options)) (*dynamodb.DescribeTableOutput, error) {
	return around(ctx, c, "DescribeTable", in, func() (*dynamodb.DescribeTableOutput, error) { return c.Client.DescribeTable(ctx, in, o...) })
}

func (c *client) DescribeTimeToLive(ctx context.Context, in *dynamodb.DescribeTimeToLiveInput, o ...func(*dynamodb.Options)) (*dynamodb.DescribeTimeToLiveOutput, error) {
	return around(ctx, c, "DescribeTimeToLive", in, func() (*dynamodb.DescribeTimeToLiveOutput, error) { return c.Client.DescribeTimeToLive(ctx, in, o...) })
}

func (c *client) GetItem(ctx context.Context, in *dynamodb.GetItemInput, o ...func(*dynamodb.Options)) (*dynamodb.GetItemOutput, error) {
	in.ReturnConsumedCapacity = indexes
	return around(ctx, c, "GetItem", in, func() (*dynamodb.GetItemOutput, error) { return c.Client.GetItem(ctx, in, o...) })
}

func (c *client) BatchGetItem(ctx context.Context, in *dynamodb.BatchGetItemInput, o ...func(*dynamodb.Options)) (*dynamodb.BatchGetItemOutput, error) {
	in.ReturnConsumedCapacity = indexes
	return around(ctx, c, "BatchGetItem", in, func() (*dynamodb.BatchGetItemOutput, error) { return c.Client.BatchGetItem(ctx, in, o...) })
}

func (c *client) Query(ctx context.Context, in *dynamodb.QueryInput, o ...func(*dynamodb.Options)) (*dynamodb.QueryOutput, error) {
	in.ReturnConsumedCapacity = indexes
	return around(ctx, c, "Query", in, func() (*dynamodb.QueryOutput, error) { return c.Client.Query(ctx, in, o...) })
}

func (c *client) PutItem(ctx context.Context, in *dynamodb.PutItemInput, o ...func(*dynamodb.Options)) (*dynamodb.PutItemOutput, error) {
	in.ReturnConsumedCapacity = indexes
	return around(ctx, c, "PutItem", in, func() (*dynamodb.PutItemOutput, error) {
		out, err := c.Client.PutItem(ctx, in, o...)
		key := map[string]types.AttributeValue{"p": in.Item["p"], "s": in.Item["s"]}
		return out, c.tell(ctx, key, in.ReturnValuesOnConditionCheckFailure, err)
	})
}

func (c *client) UpdateItem(ctx context.Context, in *dynamodb.UpdateItemInput, o ...func(*dynamodb.Options)) (*dynamodb.UpdateItemOutput, error) {
	in.ReturnConsumedCapacity = indexes
	return around(ctx, c, "UpdateItem", in, func() (*dynamodb.UpdateItemOutput, error) {
		out, err := c.Client.UpdateItem(ctx, in, o...)
		return out, c.tell(ctx, in.Key, in.ReturnValuesOnConditionCheckFailure, err)
	})
}

func (c *client) DeleteItem(ctx context.Context, in *dynamodb.DeleteItemInput, o ...func(*dynamodb.Options)) (*dynamodb.DeleteItemOutput, error) {
	in.ReturnConsumedCapacity = indexes
	return around(ctx, c, "DeleteItem", in, func() (*dynamodb.DeleteItemOutput, error) { return c.Client.DeleteItem(ctx, in, o...) })
}

func (c *client) BatchWriteItem(ctx context.Context, in *dynamodb.BatchWriteItemInput, o ...func(*dynamodb.Options)) (*dynamodb.BatchWriteItemOutput, error) {
	in.ReturnConsumedCapacity = indexes
	return around(ctx, c, "BatchWriteItem", in, func() (*dynamodb.BatchWriteItemOutput, error) { return c.Client.BatchWriteItem(ctx, in, o...) })
}

// tell has a refusal tell what is there.
func (c *client) tell(ctx context.Context, key map[string]types.AttributeValue, what types.ReturnValuesOnConditionCheckFailure, err error) error {
	refused, ok := errors.AsType[*types.ConditionalCheckFailedException](err)
	if !ok || !c.tells.Load() || what != types.ReturnValuesOnConditionCheckFailureAllOld {
		return err
	}
	out, failed := c.Client.GetItem(ctx, &dynamodb.GetItemInput{TableName: &c.table, Key: key, ConsistentRead: new(true)})
	if failed != nil {
		return failed
	}
	refused.Item = out.Item
	return err
}
