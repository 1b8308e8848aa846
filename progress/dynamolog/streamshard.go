package dynamolog

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	tables "github.com/aws/aws-sdk-go-v2/service/dynamodb/types"
	"github.com/aws/aws-sdk-go-v2/service/dynamodbstreams"
	"github.com/aws/aws-sdk-go-v2/service/dynamodbstreams/types"

	"github.com/pay-theory/streamer/v2/internal/onepiece"
	"github.com/pay-theory/streamer/v2/progress"
)

// StreamsClient is what WithStreams needs of a *dynamodbstreams.Client.
type StreamsClient interface {
	DescribeStream(context.Context, *dynamodbstreams.DescribeStreamInput, ...func(*dynamodbstreams.Options)) (*dynamodbstreams.DescribeStreamOutput, error)
	GetShardIterator(context.Context, *dynamodbstreams.GetShardIteratorInput, ...func(*dynamodbstreams.Options)) (*dynamodbstreams.GetShardIteratorOutput, error)
	GetRecords(context.Context, *dynamodbstreams.GetRecordsInput, ...func(*dynamodbstreams.Options)) (*dynamodbstreams.GetRecordsOutput, error)
}

// whole: retries are as the client's configuration says, since nobody waits for these calls.
func whole(o *dynamodbstreams.Options) { o.HTTPClient = onepiece.Client(o.HTTPClient) }

// streamCall makes a call of the stream within its time.
func streamCall[I, O any](ctx context.Context, operation string, f func(context.Context, *I, ...func(*dynamodbstreams.Options)) (*O, error), in *I) (*O, error) {
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	out, err := f(ctx, in, whole)
	if err != nil {
		return nil, fmt.Errorf("%s: %w%s", operation, err, streamAdvice(operation, err))
	}
	return out, nil
}

// streamAdvice returns what to do about an error of the stream, where it does not say so itself.
func streamAdvice(operation string, err error) string {
	switch code(err) {
	case "AccessDeniedException":
		return ": the role needs dynamodb:" + operation + " on the table's stream"
	case "LimitExceededException", "ProvisionedThroughputExceededException", "ThrottlingException":
		return ": DynamoDB allows two readers of a stream: let other processes do without WithStreams"
	}
	return ""
}

var (
	errStreamOff     = errors.New("its DynamoDB Stream was turned off")
	errTooManyShards = fmt.Errorf("its DynamoDB Stream has more than %d shards: polling costs less, do without WithStreams", maxShards)
)

// inspect returns what of a table's stream does not fit.
func (s *stream) inspect(ctx context.Context, t *tables.TableDescription) (err error) {
	if s.arn, err = streamOf(t); err != nil {
		return err
	}
	_, err = s.list(ctx)
	switch {
	case err == nil, errors.Is(err, errStreamOff), errors.Is(err, errTooManyShards):
		return err
	case ctx.Err() != nil:
		return ctx.Err()
	}
	return fmt.Errorf("%w: %w", progress.ErrUnavailable, err)
}

// streamOf returns the name of a table's stream.
func streamOf(t *tables.TableDescription) (arn string, err error) {
	if spec := t.StreamSpecification; spec == nil || !aws.ToBool(spec.StreamEnabled) || t.LatestStreamArn == nil {
		return "", fmt.Errorf("it has no DynamoDB Stream, which WithStreams reads: turn it on (aws dynamodb update-table --table-name %s "+
			"--stream-specification StreamEnabled=true,StreamViewType=KEYS_ONLY), or do without WithStreams", str(t.TableName))
	}
	return *t.LatestStreamArn, nil
}

// list returns all shards that the stream has, with those that have ended.
func (s *stream) list(ctx context.Context) (list []types.Shard, err error) {
	in := &dynamodbstreams.DescribeStreamInput{StreamArn: &s.arn}
	begun := time.Now()
	for {
		out, err := streamCall(ctx, "DescribeStream", s.client.DescribeStream, in)
		if err != nil {
			return nil, err
		}
		d := out.StreamDescription
		if d == nil || d.StreamStatus == types.StreamStatusDisabled || d.StreamStatus == types.StreamStatusDisabling {
			return nil, errStreamOff
		}
		list = append(list, d.Shards...)
		if len(list) > maxShards {
			return nil, errTooManyShards
		}
		if d.LastEvaluatedShardId == nil {
			s.listed = begun
			return list, nil
		}
		in.ExclusiveStartShardId = d.LastEvaluatedShardId
	}
}

// readShard reads the next records of a shard, and has the watched logs that they are of
// looked at.
func (s *stream) readShard(ctx context.Context, sh *streamShard) error {
	if sh.from != "" {
		out, err := streamCall(ctx, "GetShardIterator", s.client.GetShardIterator, &dynamodbstreams.GetShardIteratorInput{
			StreamArn: &s.arn, ShardId: &sh.id, ShardIteratorType: sh.from,
		})
		if err != nil {
			return err
		}
		sh.from, sh.next = "", str(out.ShardIterator)
	}
	s.reads.Add(1)
	out, err := streamCall(ctx, "GetRecords", s.client.GetRecords, &dynamodbstreams.GetRecordsInput{ShardIterator: &sh.next})
	if err != nil {
		return err
	}
	var paths []string
	for _, r := range out.Records {
		if r.Dynamodb != nil && keyText(r.Dynamodb, attrSort) == headSort {
			paths = append(paths, keyText(r.Dynamodb, attrPath))
		}
	}
	s.log.feed.changed(paths)
	if sh.next = str(out.NextShardIterator); sh.next == "" {
		sh.ended = time.Now()
	}
	return nil
}

// keyText returns a part of the key that a record is of.
func keyText(r *types.StreamRecord, attribute string) string {
	if v, ok := r.Keys[attribute].(*types.AttributeValueMemberS); ok {
		return v.Value
	}
	return ""
}

// lost reports whether a position in the stream is, so that reading has to begin anew.
func lost(err error) bool {
	switch code(err) {
	case "ExpiredIteratorException", "TrimmedDataAccessException", "ResourceNotFoundException":
		return true
	}
	return errors.Is(err, errOrphaned) || errors.Is(err, errStreamOff)
}
