package dynamolog

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"sync/atomic"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	awsmiddleware "github.com/aws/aws-sdk-go-v2/aws/middleware"
	awshttp "github.com/aws/aws-sdk-go-v2/aws/transport/http"
	"github.com/aws/aws-sdk-go-v2/service/dynamodb"
	"github.com/aws/aws-sdk-go-v2/service/dynamodb/types"
	"github.com/aws/smithy-go/middleware"

	"github.com/pay-theory/streamer/v2/internal/onepiece"
	"github.com/pay-theory/streamer/v2/progress"
)

// Client is what is needed of a *dynamodb.Client.
type Client interface {
	DescribeTable(context.Context, *dynamodb.DescribeTableInput, ...func(*dynamodb.Options)) (*dynamodb.DescribeTableOutput, error)
	DescribeTimeToLive(context.Context, *dynamodb.DescribeTimeToLiveInput, ...func(*dynamodb.Options)) (*dynamodb.DescribeTimeToLiveOutput, error)
	GetItem(context.Context, *dynamodb.GetItemInput, ...func(*dynamodb.Options)) (*dynamodb.GetItemOutput, error)
	BatchGetItem(context.Context, *dynamodb.BatchGetItemInput, ...func(*dynamodb.Options)) (*dynamodb.BatchGetItemOutput, error)
	Query(context.Context, *dynamodb.QueryInput, ...func(*dynamodb.Options)) (*dynamodb.QueryOutput, error)
	PutItem(context.Context, *dynamodb.PutItemInput, ...func(*dynamodb.Options)) (*dynamodb.PutItemOutput, error)
	UpdateItem(context.Context, *dynamodb.UpdateItemInput, ...func(*dynamodb.Options)) (*dynamodb.UpdateItemOutput, error)
	DeleteItem(context.Context, *dynamodb.DeleteItemInput, ...func(*dynamodb.Options)) (*dynamodb.DeleteItemOutput, error)
	BatchWriteItem(context.Context, *dynamodb.BatchWriteItemInput, ...func(*dynamodb.Options)) (*dynamodb.BatchWriteItemOutput, error)
}

// patience bounds a call of DynamoDB where the caller's context gives it longer.
const patience = 5 * time.Second

// store makes calls, each once and within its time, and hears what time it is.
type store struct {
	client  Client
	table   string
	clock   clock
	foreign atomic.Uint64 // items that were found and make no sense
}

// once: what the client's configuration says of retries does not apply, since that is the
// caller's, who knows what a call is worth.
func once(o *dynamodb.Options) {
	o.Retryer = aws.NopRetryer{}
	o.HTTPClient = onepiece.Client(o.HTTPClient)
}

// errNoDate says that an answer does not tell the time.
var errNoDate = errors.New("its answer has no Date header, by which expiry is judged: what is between this process and DynamoDB must leave it")

// do makes a call, whose answer's metadata call returns.
func (s *store) do(ctx context.Context, call func(context.Context) (middleware.Metadata, error)) (date time.Time, err error) {
	asked := time.Now()
	if at, ok := ctx.Deadline(); !ok || at.Sub(asked) > patience {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(ctx, patience)
		defer cancel()
	}
	meta, err := call(ctx)
	date, ok := awsmiddleware.GetServerTime(meta)
	if err != nil {
		date, ok = dateOf(err)
	}
	if ok {
		s.clock.heard(date, asked)
	} else if err == nil {
		err = fmt.Errorf("%w: %w", progress.ErrUnavailable, errNoDate)
	}
	return date, err
}

// dateOf returns the time at which the store refused a call.
func dateOf(err error) (time.Time, bool) {
	response, ok := errors.AsType[*awshttp.ResponseError](err)
	if !ok || response.Response == nil {
		return time.Time{}, false
	}
	date, err := http.ParseTime(response.Response.Header.Get("Date"))
	return date, err == nil
}

// get reads an item, nil where there is none, and when that was.
func (s *store) get(ctx context.Context, path, sort string) (it item, date time.Time, err error) {
	date, err = s.do(ctx, func(ctx context.Context) (middleware.Metadata, error) {
		out, err := s.client.GetItem(ctx, &dynamodb.GetItemInput{TableName: &s.table, Key: primary(path, sort), ConsistentRead: new(true)}, once)
		if err != nil {
			return middleware.Metadata{}, err
		}
		it = out.Item
		return out.ResultMetadata, nil
	})
	return it, date, err
}

// head reads the head of a log, and returns nil where there is none or its retention is over.
func (s *store) head(ctx context.Context, path string) (*head, error) {
	h, date, err := s.rest(ctx, path)
	if h != nil && h.gone(date) {
		h = nil
	}
	return h, err
}

// rest reads the head of a log, or what is left of it, and says when that was.
func (s *store) rest(ctx context.Context, path string) (*head, time.Time, error) {
	it, date, err := s.get(ctx, path, headSort)
	if err != nil || len(it) == 0 {
		return nil, date, err
	}
	h, err := s.decode(it)
	return h, date, err
}

// decode reads a head, and counts it where that makes no sense.
func (s *store) decode(it item) (*head, error) {
	h, err := decodeHead(it)
	if err != nil {
		return nil, s.senseless(it, err)
	}
	return h, nil
}

// senseless counts an item that is not a Log's and returns the error that says so.
func (s *store) senseless(it item, err error) error {
	s.foreign.Add(1)
	r := reader{item: it}
	return fmt.Errorf("%w: item %q, %q of table %s makes no sense: %w", progress.ErrUnavailable, r.text(attrPath), r.text(attrSort), s.table, err)
}

// put stores an item whatever is there.
func (s *store) put(ctx context.Context, it item) error {
	_, err := s.do(ctx, func(ctx context.Context) (middleware.Metadata, error) {
		out, err := s.client.PutItem(ctx, &dynamodb.PutItemInput{TableName: &s.table, Item: it}, once)
		if err != nil {
			return middleware.Metadata{}, err
		}
		return out.ResultMetadata, nil
	})
	return err
}

// putData stores an item that is not a head.
func (s *store) putData(ctx context.Context, path, sort string, data []byte) error {
	it := primary(path, sort)
	it[attrVersion], it[attrData] = number(version), blob(data)
	return s.put(ctx, it)
}

// remove removes an item.
func (s *store) remove(ctx context.Context, path, sort string) error {
	_, err := s.do(ctx, func(ctx context.Context) (middleware.Metadata, error) {
		out, err := s.client.DeleteItem(ctx, &dynamodb.DeleteItemInput{TableName: &s.table, Key: primary(path, sort)}, once)
		if err != nil {
			return middleware.Metadata{}, err
		}
		return out.ResultMetadata, nil
	})
	return err
}

// update changes a head, and returns the new one where answer is set.
func (s *store) update(ctx context.Context, path string, c *change, answer bool) (*head, error) {
	in := &dynamodb.UpdateItemInput{
		TableName: &s.table, Key: primary(path, headSort),
		UpdateExpression: new(c.expression()), ConditionExpression: new(c.condition()),
		ExpressionAttributeNames: c.names, ExpressionAttributeValues: c.values,
		ReturnValuesOnConditionCheckFailure: types.ReturnValuesOnConditionCheckFailureAllOld,
	}
	if answer {
		in.ReturnValues = types.ReturnValueAllNew
	}
	var it item
	_, err := s.do(ctx, func(ctx context.Context) (middleware.Metadata, error) {
		out, err := s.client.UpdateItem(ctx, in, once)
		if err != nil {
			return middleware.Metadata{}, err
		}
		it = out.Attributes
		return out.ResultMetadata, nil
	})
	if err != nil || !answer {
		return nil, err
	}
	return s.decode(it)
}

// found returns the head that a write was refused for, or what is left of an older log, and
// when that was. Emulators don't tell, and where there is nothing DynamoDB does not either:
// then it is read.
func (s *store) found(ctx context.Context, path string, refused *types.ConditionalCheckFailedException, err error) (*head, time.Time, error) {
	if date, ok := dateOf(err); ok && len(refused.Item) > 0 {
		h, err := s.decode(refused.Item)
		return h, date, err
	}
	return s.rest(ctx, path)
}

// query reads items page by page until take wants no more.
func (s *store) query(ctx context.Context, in *dynamodb.QueryInput, take func(items []item) (more bool, err error)) error {
	in.TableName = &s.table
	for {
		var out *dynamodb.QueryOutput
		_, err := s.do(ctx, func(ctx context.Context) (_ middleware.Metadata, err error) {
			if out, err = s.client.Query(ctx, in, once); err != nil {
				return middleware.Metadata{}, err
			}
			return out.ResultMetadata, nil
		})
		if err != nil {
			return err
		}
		more, err := take(out.Items)
		if err != nil || !more || len(out.LastEvaluatedKey) == 0 {
			return err
		}
		in.ExclusiveStartKey = out.LastEvaluatedKey
	}
}

const (
	readBatch  = 100 // items that DynamoDB reads in one call
	writeBatch = 25  // items that it writes
	maxAgain   = 6   // how often what a call left undone is asked for again
)

// heads reads heads, at most readBatch, and says when that was. What DynamoDB did not process
// is left over.
func (s *store) heads(ctx context.Context, paths []string, consistent bool) (found map[string]item, left []string, date time.Time, err error) {
	keys := make([]item, len(paths))
	for i, p := range paths {
		keys[i] = primary(p, headSort)
	}
	in := &dynamodb.BatchGetItemInput{RequestItems: map[string]types.KeysAndAttributes{s.table: {Keys: keys, ConsistentRead: &consistent}}}
	found = make(map[string]item, len(paths))
	date, err = s.do(ctx, func(ctx context.Context) (middleware.Metadata, error) {
		out, err := s.client.BatchGetItem(ctx, in, once)
		if err != nil {
			return middleware.Metadata{}, err
		}
		for _, it := range out.Responses[s.table] {
			found[(&reader{item: it}).text(attrPath)] = it
		}
		for _, key := range out.UnprocessedKeys[s.table].Keys {
			left = append(left, (&reader{item: key}).text(attrPath))
		}
		return out.ResultMetadata, nil
	})
	return found, left, date, err
}

// removeAll removes items, at most writeBatch.
func (s *store) removeAll(ctx context.Context, keys []item) error {
	requests := make([]types.WriteRequest, len(keys))
	for i, key := range keys {
		requests[i].DeleteRequest = &types.DeleteRequest{Key: key}
	}
	for try := range maxAgain {
		if err := pause(ctx, try); err != nil {
			return err
		}
		_, err := s.do(ctx, func(ctx context.Context) (middleware.Metadata, error) {
			out, err := s.client.BatchWriteItem(ctx, &dynamodb.BatchWriteItemInput{RequestItems: map[string][]types.WriteRequest{s.table: requests}}, once)
			if err != nil {
				return middleware.Metadata{}, err
			}
			requests = out.UnprocessedItems[s.table]
			return out.ResultMetadata, nil
		})
		if err != nil || len(requests) == 0 {
			return err
		}
	}
	return fmt.Errorf("%w: %w", progress.ErrUnavailable, errUnprocessed)
}

var errUnprocessed = errors.New("DynamoDB processes a part of each batch only: the table is throttled")

// pause waits before what was left undone is asked for again, the longer the more often it was.
func pause(ctx context.Context, try int) error {
	if try == 0 {
		return ctx.Err()
	}
	timer := time.NewTimer(10 * time.Millisecond << try)
	defer timer.Stop()
	select {
	case <-timer.C:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}
