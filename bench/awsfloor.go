package main

import (
	"bytes"
	"context"
	"fmt"
	"net/http"
	"os"
	"strconv"
	"sync"
	"time"

	"github.com/aws/aws-sdk-go-v2/service/dynamodb"
	"github.com/aws/aws-sdk-go-v2/service/dynamodb/types"
	"github.com/aws/aws-sdk-go-v2/service/sqs"
	sqstypes "github.com/aws/aws-sdk-go-v2/service/sqs/types"
	"github.com/coder/websocket"
)

// awsFloor is what one would write by hand with the SDK: it makes the same conditional writes as
// the product (the request, the start, the first output, the others with the end), each before
// the client hears of it, and sends, receives and deletes tickets ten at a time. It keeps who
// asked in memory, so it can show nothing to anybody else, and reads nothing.
type awsFloor struct {
	*awsService
	sent, done chan ticket

	mu   sync.Mutex
	jobs map[string]awsJob // by id, until a worker has them
}

// awsJob is a request that is stored.
type awsJob struct {
	job
	told chan struct{} // closed when the client knows that it is accepted
}

// ticket is a message to be sent, or the handle of one to be deleted.
type ticket struct {
	text string
	over chan error // gets what became of it
}

const (
	awsBatch   = 10 // entries of a call of SQS
	sendLinger = 10 * time.Millisecond
	doneLinger = 100 * time.Millisecond
)

func newAWSFloor(ctx context.Context, s *awsService) *awsFloor {
	f := &awsFloor{awsService: s, sent: make(chan ticket), done: make(chan ticket), jobs: make(map[string]awsJob)}
	go gather(ctx, f.sent, sendLinger, f.send)
	go gather(ctx, f.done, doneLinger, f.remove)
	go f.receive(ctx)
	return f
}

func (f *awsFloor) ServeHTTP(w http.ResponseWriter, r *http.Request) { serveFloor(w, r, f.accept) }

func (f *awsFloor) accept(j job, request []byte) error {
	now := strconv.FormatInt(time.Now().Unix(), 10)
	item := floorKey(j.id)
	item["q"], item["ev"] = &types.AttributeValueMemberB{Value: request}, &types.AttributeValueMemberL{}
	item["rev"], item["at"] = &types.AttributeValueMemberN{Value: "1"}, &types.AttributeValueMemberN{Value: now}
	item["o"], item["w"] = &types.AttributeValueMemberS{Value: "open"}, &types.AttributeValueMemberN{Value: now}
	_, err := f.db.PutItem(j.ctx, &dynamodb.PutItemInput{
		TableName: &f.table, Item: item, ConditionExpression: new("attribute_not_exists(p)"),
	})
	if err != nil {
		return err
	}
	told := make(chan struct{})
	defer close(told)
	f.mu.Lock()
	f.jobs[j.id] = awsJob{j, told}
	f.mu.Unlock()
	if err := put(j.ctx, f.sent, j.id); err != nil {
		return err
	}
	return j.acknowledge()
}

// receive takes as many tickets as there are free workers, ten at most.
func (f *awsFloor) receive(ctx context.Context) {
	slots := make(chan struct{}, workers)
	for ctx.Err() == nil {
		slots <- struct{}{}
		free := 1
		for free < awsBatch && len(slots) < workers {
			slots <- struct{}{}
			free++
		}
		out, err := f.queue.ReceiveMessage(ctx, &sqs.ReceiveMessageInput{
			QueueUrl: &f.url, MaxNumberOfMessages: int32(free), WaitTimeSeconds: 5,
		})
		if err != nil {
			complain(ctx, err)
			out = &sqs.ReceiveMessageOutput{}
		}
		for range free - len(out.Messages) {
			<-slots
		}
		for _, m := range out.Messages {
			go func() {
				err := f.work(*m.Body)
				<-slots
				if err == nil { // else the client has gone, which it reports itself
					complain(ctx, put(ctx, f.done, *m.ReceiptHandle))
				}
			}()
		}
	}
}

func (f *awsFloor) work(id string) error {
	f.mu.Lock()
	j, ok := f.jobs[id]
	delete(f.jobs, id)
	f.mu.Unlock()
	if !ok {
		return nil // it came twice
	}
	<-j.told
	messages, err := frames(j.id)
	if err != nil {
		return err
	}
	for rev, step := range storedSteps(messages) {
		if err := f.append(j, rev+1, bytes.Join(step, []byte{'\n'}), rev == 2); err != nil {
			return err
		}
		for _, m := range step {
			if err := j.conn.Write(j.ctx, websocket.MessageText, m); err != nil {
				return err
			}
		}
	}
	return nil
}

// append adds events to a request that has seen so many writes.
func (f *awsFloor) append(j awsJob, rev int, events []byte, ends bool) error {
	now := time.Now()
	number := func(n int64) types.AttributeValue {
		return &types.AttributeValueMemberN{Value: strconv.FormatInt(n, 10)}
	}
	in := &dynamodb.UpdateItemInput{
		TableName: &f.table, Key: floorKey(j.id),
		UpdateExpression:    new("SET ev = list_append(ev, :ev), rev = :rev, #at = :at"),
		ConditionExpression: new("rev = :was"),
		ExpressionAttributeNames: map[string]string{
			"#at": "at",
		},
		ExpressionAttributeValues: map[string]types.AttributeValue{
			":ev":  &types.AttributeValueMemberL{Value: []types.AttributeValue{&types.AttributeValueMemberB{Value: events}}},
			":rev": number(int64(rev) + 1), ":was": number(int64(rev)), ":at": number(now.Unix()),
		},
	}
	if ends {
		in.UpdateExpression = new(*in.UpdateExpression + ", #ttl = :ttl REMOVE o, w")
		in.ExpressionAttributeNames["#ttl"] = "ttl"
		in.ExpressionAttributeValues[":ttl"] = number(now.Add(24 * time.Hour).Unix())
	}
	_, err := f.db.UpdateItem(j.ctx, in)
	return err
}

func floorKey(id string) map[string]types.AttributeValue {
	return map[string]types.AttributeValue{"p": &types.AttributeValueMemberS{Value: id}, "s": &types.AttributeValueMemberS{Value: "head"}}
}

func (f *awsFloor) send(ctx context.Context, batch []ticket) error {
	entries := make([]sqstypes.SendMessageBatchRequestEntry, len(batch))
	for i, t := range batch {
		entries[i] = sqstypes.SendMessageBatchRequestEntry{Id: new(strconv.Itoa(i)), MessageBody: &t.text}
	}
	out, err := f.queue.SendMessageBatch(ctx, &sqs.SendMessageBatchInput{QueueUrl: &f.url, Entries: entries})
	if err == nil && len(out.Failed) > 0 {
		err = fmt.Errorf("%d of %d tickets were not sent", len(out.Failed), len(batch))
	}
	return err
}

func (f *awsFloor) remove(ctx context.Context, batch []ticket) error {
	entries := make([]sqstypes.DeleteMessageBatchRequestEntry, len(batch))
	for i, t := range batch {
		entries[i] = sqstypes.DeleteMessageBatchRequestEntry{Id: new(strconv.Itoa(i)), ReceiptHandle: &t.text}
	}
	out, err := f.queue.DeleteMessageBatch(ctx, &sqs.DeleteMessageBatchInput{QueueUrl: &f.url, Entries: entries})
	if err == nil && len(out.Failed) > 0 {
		err = fmt.Errorf("%d of %d tickets were not deleted", len(out.Failed), len(batch))
	}
	return err
}

// put hands a ticket to gather and waits for what becomes of it.
func put(ctx context.Context, in chan<- ticket, text string) error {
	t := ticket{text, make(chan error, 1)}
	select {
	case in <- t:
	case <-ctx.Done():
		return ctx.Err()
	}
	select {
	case err := <-t.over:
		return err
	case <-ctx.Done():
		return ctx.Err()
	}
}

// gather makes a call for ten tickets, or for those that come within linger after the first.
func gather(ctx context.Context, in <-chan ticket, linger time.Duration, call func(context.Context, []ticket) error) {
	for ctx.Err() == nil {
		var batch []ticket
		var late <-chan time.Time
		for over := false; !over && len(batch) < awsBatch; {
			select {
			case t := <-in:
				if batch = append(batch, t); len(batch) == 1 {
					late = time.After(linger)
				}
			case <-late:
				over = true
			case <-ctx.Done():
				return
			}
		}
		go func() {
			err := call(ctx, batch)
			for _, t := range batch {
				t.over <- err
			}
		}()
	}
}

// complain says what the floor could not do.
func complain(ctx context.Context, err error) {
	if err != nil && ctx.Err() == nil {
		fmt.Fprintln(os.Stderr, "bench: floor:", err)
	}
}
