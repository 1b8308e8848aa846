package dynamolog_test

import (
	"context"
	"fmt"
	"hash/fnv"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/service/dynamodb"
	tables "github.com/aws/aws-sdk-go-v2/service/dynamodb/types"
	"github.com/aws/aws-sdk-go-v2/service/dynamodbstreams"
	"github.com/aws/aws-sdk-go-v2/service/dynamodbstreams/types"
	"github.com/stretchr/testify/require"

	"github.com/pay-theory/streamer/v2/progress/dynamolog"
)

// double stands in for the DynamoDB Stream of a table, which the emulator has not. It does as
// the documentation says, and tells what it sees of the calls of a client.
type double struct {
	mu         sync.Mutex
	number     int // of the stream: each time it is turned on, it is another one
	off        bool
	shards     []*doubledShard
	serial     int // of shards
	generation int // of iterators: those of an older one have expired
	calls      map[string]int

	// before, where it is set, sees each call, and may refuse it.
	before func(ctx context.Context, operation string) error
}

// doubledShard is a shard of a double.
type doubledShard struct {
	id, parent string
	records    []types.Record
	trimmed    int // as many are gone
	ended      bool
}

// pageOfShards is how many shards a double lists in a call.
const pageOfShards = 3

func newDouble(shards int) *double {
	d := &double{calls: make(map[string]int)}
	for range shards {
		d.grow("")
	}
	return d
}

// grow adds a shard. mu is locked, or nobody else knows d yet.
func (d *double) grow(parent string) {
	d.shards = append(d.shards, &doubledShard{id: fmt.Sprintf("shard-%04d", d.serial), parent: parent})
	d.serial++
}

// split ends all open shards, each of which gets so many children.
func (d *double) split(children int) {
	d.mu.Lock()
	defer d.mu.Unlock()
	for _, sh := range append([]*doubledShard(nil), d.shards...) {
		if !sh.ended {
			sh.ended = true
			for range children {
				d.grow(sh.id)
			}
		}
	}
}

// expire has all iterators expire.
func (d *double) expire() {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.generation++
}

// trim removes all records, so that iterators from before the newest point at what is gone.
func (d *double) trim() {
	d.mu.Lock()
	defer d.mu.Unlock()
	for _, sh := range d.shards {
		sh.trimmed = len(sh.records)
	}
}

// replace puts shards that nothing is known of in the place of all.
func (d *double) replace() {
	d.mu.Lock()
	defer d.mu.Unlock()
	n := len(d.shards)
	d.shards = nil
	for range n {
		d.grow("")
	}
}

// turn turns the stream off or on. What has been turned off stays readable.
func (d *double) turn(on bool) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.off = !on
	for _, sh := range d.shards {
		sh.ended = true
	}
	if on {
		d.number++
		d.shards = nil
		d.grow("")
	}
}

// hook replaces what sees each call.
func (d *double) hook(before func(ctx context.Context, operation string) error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.before = before
}

// refuse has each call fail.
func (d *double) refuse(err error) {
	d.hook(func(context.Context, string) error { return err })
}

// spent returns how often each operation was called since spent was called last.
func (d *double) spent() map[string]int {
	d.mu.Lock()
	defer d.mu.Unlock()
	calls := d.calls
	d.calls = make(map[string]int)
	return calls
}

// write tells of a write.
func (d *double) write(path, sort string) {
	d.mu.Lock()
	defer d.mu.Unlock()
	var open []*doubledShard
	for _, sh := range d.shards {
		if !sh.ended {
			open = append(open, sh)
		}
	}
	if len(open) == 0 {
		return
	}
	h := fnv.New32a()
	_, _ = h.Write([]byte(path))
	sh := open[int(h.Sum32())%len(open)]
	sh.records = append(sh.records, types.Record{Dynamodb: &types.StreamRecord{Keys: map[string]types.AttributeValue{
		"p": &types.AttributeValueMemberS{Value: path}, "s": &types.AttributeValueMemberS{Value: sort},
	}}})
}

// change tells of a change of a request's head.
func (d *double) change(id string) { d.write("11:tenant/user/"+id, "head") }

// see has the stream tell of a write, and the table tell of the stream. It is a client's hook.
func (d *double) see(in, out any) error {
	wrote := func(key map[string]tables.AttributeValue) {
		d.write(key["p"].(*tables.AttributeValueMemberS).Value, key["s"].(*tables.AttributeValueMemberS).Value)
	}
	switch in := in.(type) {
	case *dynamodb.DescribeTableInput:
		d.mu.Lock()
		defer d.mu.Unlock()
		t := out.(*dynamodb.DescribeTableOutput).Table
		t.LatestStreamArn = new(d.arn())
		t.StreamSpecification = &tables.StreamSpecification{StreamEnabled: new(!d.off), StreamViewType: tables.StreamViewTypeKeysOnly}
	case *dynamodb.PutItemInput:
		wrote(in.Item)
	case *dynamodb.UpdateItemInput:
		wrote(in.Key)
	case *dynamodb.DeleteItemInput:
		wrote(in.Key)
	case *dynamodb.BatchWriteItemInput:
		for _, list := range in.RequestItems {
			for _, r := range list {
				wrote(r.DeleteRequest.Key)
			}
		}
	}
	return nil
}

func (d *double) arn() string { return "arn:stream/" + strconv.Itoa(d.number) }

// call begins a call, with mu locked when it returns without an error.
func (d *double) call(ctx context.Context, operation string) error {
	d.mu.Lock()
	d.calls[operation]++
	before := d.before
	d.mu.Unlock()
	if before != nil {
		if err := before(ctx, operation); err != nil {
			return err
		}
	}
	if err := ctx.Err(); err != nil {
		return err
	}
	d.mu.Lock()
	return nil
}

func (d *double) find(id string) (int, *doubledShard) {
	for i, sh := range d.shards {
		if sh.id == id {
			return i, sh
		}
	}
	return -1, nil
}

func (d *double) DescribeStream(ctx context.Context, in *dynamodbstreams.DescribeStreamInput, _ ...func(*dynamodbstreams.Options)) (*dynamodbstreams.DescribeStreamOutput, error) {
	if err := d.call(ctx, "DescribeStream"); err != nil {
		return nil, err
	}
	defer d.mu.Unlock()
	status := types.StreamStatusEnabled
	if d.off || *in.StreamArn != d.arn() {
		status = types.StreamStatusDisabled
	}
	description := &types.StreamDescription{StreamArn: in.StreamArn, StreamStatus: status}
	first := 0
	if in.ExclusiveStartShardId != nil {
		i, _ := d.find(*in.ExclusiveStartShardId)
		first = i + 1
	}
	for i, sh := range d.shards[first:] {
		if i == pageOfShards {
			description.LastEvaluatedShardId = new(d.shards[first+i-1].id)
			break
		}
		span := &types.SequenceNumberRange{StartingSequenceNumber: new("0")}
		if sh.ended {
			span.EndingSequenceNumber = new(strconv.Itoa(len(sh.records)))
		}
		listed := types.Shard{ShardId: new(sh.id), SequenceNumberRange: span}
		if sh.parent != "" {
			listed.ParentShardId = new(sh.parent)
		}
		description.Shards = append(description.Shards, listed)
	}
	return &dynamodbstreams.DescribeStreamOutput{StreamDescription: description}, nil
}

// iterator returns where a reading goes on.
func (d *double) iterator(sh *doubledShard, at int) *string {
	return new(fmt.Sprintf("%s/%d/%d", sh.id, at, d.generation))
}

func (d *double) GetShardIterator(ctx context.Context, in *dynamodbstreams.GetShardIteratorInput, _ ...func(*dynamodbstreams.Options)) (*dynamodbstreams.GetShardIteratorOutput, error) {
	if err := d.call(ctx, "GetShardIterator"); err != nil {
		return nil, err
	}
	defer d.mu.Unlock()
	_, sh := d.find(*in.ShardId)
	if sh == nil {
		return nil, &types.ResourceNotFoundException{Message: new("no such shard")}
	}
	at := sh.trimmed
	if in.ShardIteratorType == types.ShardIteratorTypeLatest {
		at = len(sh.records)
	}
	return &dynamodbstreams.GetShardIteratorOutput{ShardIterator: d.iterator(sh, at)}, nil
}

func (d *double) GetRecords(ctx context.Context, in *dynamodbstreams.GetRecordsInput, _ ...func(*dynamodbstreams.Options)) (*dynamodbstreams.GetRecordsOutput, error) {
	if err := d.call(ctx, "GetRecords"); err != nil {
		return nil, err
	}
	defer d.mu.Unlock()
	parts := strings.Split(*in.ShardIterator, "/")
	at, _ := strconv.Atoi(parts[1])
	_, sh := d.find(parts[0])
	switch {
	case sh == nil:
		return nil, &types.ResourceNotFoundException{Message: new("no such shard")}
	case parts[2] != strconv.Itoa(d.generation):
		return nil, &types.ExpiredIteratorException{Message: new("iterator has expired")}
	case at < sh.trimmed:
		return nil, &types.TrimmedDataAccessException{Message: new("records are gone")}
	}
	const most = 1000
	out := &dynamodbstreams.GetRecordsOutput{Records: sh.records[at:min(at+most, len(sh.records))]}
	if at += len(out.Records); at < len(sh.records) || !sh.ended {
		out.NextShardIterator = d.iterator(sh, at)
	}
	return out, nil
}

// streamed returns a table's client for logs, and what they read its stream by: a double where
// the server is the emulator, which has no streams.
func (s service) streamed(t testing.TB, table string) (dynamolog.Client, dynamolog.StreamsClient) {
	t.Helper()
	if s.streams == nil {
		c, d := newClient(s), newDouble(2)
		c.table = table
		c.hook(nil, d.see)
		return c, d
	}
	_, err := s.UpdateTable(t.Context(), &dynamodb.UpdateTableInput{TableName: &table, StreamSpecification: &tables.StreamSpecification{
		StreamEnabled: new(true), StreamViewType: tables.StreamViewTypeKeysOnly,
	}})
	require.NoError(t, err)
	active := dynamodb.NewTableExistsWaiter(s.Client, func(o *dynamodb.TableExistsWaiterOptions) { o.MinDelay, o.MaxDelay = 20*time.Millisecond, time.Second })
	require.NoError(t, active.Wait(t.Context(), &dynamodb.DescribeTableInput{TableName: &table}, time.Minute))
	return s, s.streams
}
