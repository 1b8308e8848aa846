package sqsqueue_test

import (
	"context"
	"strconv"
	"sync"
	"testing"

	"github.com/aws/aws-sdk-go-v2/service/sqs"
	"github.com/aws/aws-sdk-go-v2/service/sqs/types"
	"github.com/stretchr/testify/require"

	"github.com/pay-theory/streamer/v2/queue"
	"github.com/pay-theory/streamer/v2/queue/sqsqueue"
)

var benchTicket = queue.Ticket{Scope: "tenant:user", ID: "0192f0c4-6c1a-7c5e-8a3d-1c2b3a4d5e6f", Action: "export", Group: "tenant", Nonce: "n"}

// BenchmarkRoundTrip is a ticket's life without contention: Enqueue, Receive, Ack.
func BenchmarkRoundTrip(b *testing.B) {
	s := start(b)
	q := open(b, s, s.create(b, nil), sqsqueue.WithLinger(0))
	for b.Loop() {
		enqueue(b, q, benchTicket)
		require.NoError(b, receive(b, q, patience).Ack(b.Context()))
	}
}

// BenchmarkRoundTripFloor is the same with the SDK alone.
func BenchmarkRoundTripFloor(b *testing.B) {
	s := start(b)
	url := s.create(b, nil)
	body := benchTicket.ID + benchTicket.ID + benchTicket.ID + benchTicket.ID
	for b.Loop() {
		_, err := s.SendMessage(b.Context(), &sqs.SendMessageInput{QueueUrl: &url, MessageBody: &body})
		require.NoError(b, err)
		out, err := s.ReceiveMessage(b.Context(), &sqs.ReceiveMessageInput{QueueUrl: &url, WaitTimeSeconds: 5})
		require.NoError(b, err)
		_, err = s.DeleteMessage(b.Context(), &sqs.DeleteMessageInput{QueueUrl: &url, ReceiptHandle: out.Messages[0].ReceiptHandle})
		require.NoError(b, err)
	}
}

// BenchmarkPipeline has 32 goroutines enqueue what one process receives and acks.
func BenchmarkPipeline(b *testing.B) {
	s := start(b)
	url := s.create(b, nil)
	q, worker := open(b, s, url), open(b, s, url)
	ctx, stop := context.WithCancel(b.Context())
	var acked, running sync.WaitGroup
	running.Go(func() {
		for {
			ds, err := worker.Receive(ctx, 32)
			if err != nil {
				return
			}
			for _, d := range ds {
				running.Go(func() {
					require.NoError(b, d.Ack(b.Context()))
					acked.Done()
				})
			}
		}
	})
	b.SetParallelism(16)
	b.RunParallel(func(pb *testing.PB) {
		for i := 0; pb.Next(); i++ {
			acked.Add(1)
			t := benchTicket
			t.Group = strconv.Itoa(i % 8)
			enqueue(b, q, t)
		}
	})
	acked.Wait()
	b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "tickets/s")
	stop()
	running.Wait()
}

// BenchmarkPipelineFloor is the same with the SDK alone, in batches that are always full.
func BenchmarkPipelineFloor(b *testing.B) {
	s := start(b)
	url := s.create(b, nil)
	body := benchTicket.ID + benchTicket.ID + benchTicket.ID + benchTicket.ID
	for n := 0; n < b.N; {
		sent := make([]types.SendMessageBatchRequestEntry, min(10, b.N-n))
		for i := range sent {
			sent[i] = types.SendMessageBatchRequestEntry{Id: new(strconv.Itoa(i)), MessageBody: &body}
		}
		_, err := s.SendMessageBatch(b.Context(), &sqs.SendMessageBatchInput{QueueUrl: &url, Entries: sent})
		require.NoError(b, err)
		out, err := s.ReceiveMessage(b.Context(), &sqs.ReceiveMessageInput{QueueUrl: &url, MaxNumberOfMessages: 10, WaitTimeSeconds: 5})
		require.NoError(b, err)
		gone := make([]types.DeleteMessageBatchRequestEntry, len(out.Messages))
		for i, m := range out.Messages {
			gone[i] = types.DeleteMessageBatchRequestEntry{Id: new(strconv.Itoa(i)), ReceiptHandle: m.ReceiptHandle}
		}
		_, err = s.DeleteMessageBatch(b.Context(), &sqs.DeleteMessageBatchInput{QueueUrl: &url, Entries: gone})
		require.NoError(b, err)
		n += len(gone)
	}
	b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "tickets/s")
}
