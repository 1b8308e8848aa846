package sqsqueue_test

import (
	"context"
	"testing"
	"testing/synctest"
	"time"

	"github.com/aws/aws-sdk-go-v2/service/sqs"
	"github.com/aws/aws-sdk-go-v2/service/sqs/types"
	"github.com/stretchr/testify/require"

	"github.com/pay-theory/streamer/v2/internal/awstest"
	"github.com/pay-theory/streamer/v2/queue"
	"github.com/pay-theory/streamer/v2/queue/sqsqueue"
)

const deadURL = "https://double.test/1/dead"

// redriven returns a double whose queue moves messages after so many receives.
func redriven(receives int) *double {
	d := newDouble()
	d.create(deadURL, "", 0)
	d.create(doubledURL, deadURL, receives)
	return d
}

// lapse has the lease of a ticket lapse so often, as when its workers die.
func lapse(t *testing.T, q queue.Queue, times int) {
	t.Helper()
	for range times {
		receive(t, q, time.Minute)
	}
	time.Sleep(q.Lease())
}

func TestADeadLetterIsDeliveredAsDead(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d := redriven(10)
		q := open(t, d, doubledURL, sqsqueue.WithLease(10*time.Second), sqsqueue.WithDeadLetters(deadURL))
		want := queue.Ticket{ID: "deadly", Nonce: "n"}
		enqueue(t, q, want)
		lapse(t, q, 10)
		begin := time.Now()
		dl := receive(t, q, 2*time.Minute)
		require.LessOrEqual(t, time.Since(begin), 61*time.Second)
		dead, ok := dl.(queue.Dead)
		require.True(t, ok)
		require.Equal(t, want, dead.Ticket())
		require.Contains(t, dead.Dead(), "received 10 times")

		time.Sleep(5 * time.Second)
		require.NoError(t, dead.Extend(t.Context()))
		require.NoError(t, dead.Retry(t.Context(), 30*time.Second))
		again := receive(t, q, 3*time.Minute)
		require.Implements(t, (*queue.Dead)(nil), again)
		ack(t, again)
		require.Empty(t, d.bodies(deadURL))
		require.Empty(t, d.bodies(doubledURL))
	})
}

func TestADeadLetterOfTheEmulatorIsDeliveredAsDead(t *testing.T) {
	t.Parallel()
	s := at(t, awstest.SQS(t).Endpoint())
	dead := s.create(t, nil)
	out, err := s.GetQueueAttributes(t.Context(), &sqs.GetQueueAttributesInput{QueueUrl: &dead, AttributeNames: []types.QueueAttributeName{"QueueArn"}})
	require.NoError(t, err)
	url := s.create(t, map[string]string{"RedrivePolicy": `{"deadLetterTargetArn":"` + out.Attributes["QueueArn"] + `","maxReceiveCount":"10"}`})
	want := queue.Ticket{ID: "deadly"}
	enqueue(t, open(t, s, url), want)
	for range 11 {
		in := &sqs.ReceiveMessageInput{QueueUrl: &url, VisibilityTimeout: 30}
		out, err := s.ReceiveMessage(t.Context(), in)
		require.NoError(t, err)
		for _, m := range out.Messages {
			_, err := s.ChangeMessageVisibility(t.Context(), &sqs.ChangeMessageVisibilityInput{QueueUrl: &url, ReceiptHandle: m.ReceiptHandle})
			require.NoError(t, err)
		}
	}
	q := open(t, s, url, sqsqueue.WithDeadLetters(dead))
	dl := receive(t, q, patience)
	require.Implements(t, (*queue.Dead)(nil), dl)
	require.Equal(t, want, dl.Ticket())
	require.NoError(t, dl.Extend(t.Context()))
	ack(t, dl)
	left, err := open(t, s, dead).Depth(t.Context())
	require.NoError(t, err)
	require.Equal(t, queue.Depth{}, left)
}

func TestManyDeadLettersAreNotDeliveredOneAMinute(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d := redriven(10)
		q := open(t, d, doubledURL, sqsqueue.WithDeadLetters(deadURL))
		for range 35 {
			d.put(deadURL, `{"v":1,"nonce":""}`)
		}
		d.put(deadURL, "no ticket")
		begin := time.Now()
		for n := 0; n < 35; {
			ds, err := q.Receive(t.Context(), 10)
			require.NoError(t, err)
			n += len(ds)
		}
		require.Less(t, time.Since(begin), time.Second)
		ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
		defer cancel()
		_, err := q.Receive(ctx, 10)
		require.ErrorIs(t, err, context.DeadlineExceeded)
		require.EqualValues(t, 1, q.Foreign())
	})
}

func TestLooksAtDeadLettersDoNotHoldTicketsUp(t *testing.T) {
	for wait, most := range map[string]time.Duration{"0": 0, "20": time.Second} { // of the dead-letter queue
		synctest.Test(t, func(t *testing.T) {
			d := redriven(10)
			d.queues[deadURL].attributes["ReceiveMessageWaitTimeSeconds"] = wait
			q := open(t, d, doubledURL, sqsqueue.WithDeadLetters(deadURL))
			for range 100 {
				got := make(chan queue.Delivery)
				go func() { got <- receive(t, q, patience) }()
				time.Sleep(2500 * time.Millisecond)
				begin := time.Now()
				enqueue(t, q, queue.Ticket{})
				dl := <-got
				require.LessOrEqual(t, time.Since(begin), most)
				_, dead := dl.(queue.Dead)
				require.False(t, dead)
				ack(t, dl)
			}
		})
	}
}

func TestWithoutTheOptionDeadLettersStay(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d := redriven(10)
		q := open(t, d, doubledURL, sqsqueue.WithLease(10*time.Second))
		enqueue(t, q, queue.Ticket{})
		lapse(t, q, 10)
		ctx, cancel := context.WithTimeout(t.Context(), 10*time.Minute)
		defer cancel()
		_, err := q.Receive(ctx, 1)
		require.ErrorIs(t, err, context.DeadlineExceeded)
		require.Len(t, d.bodies(deadURL), 1)
	})
}

func TestATicketThatIsHandedBackIsNoDeadLetter(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d := redriven(10)
		q := open(t, d, doubledURL, sqsqueue.WithLease(10*time.Second), sqsqueue.WithPoll(20*time.Second))
		want := queue.Ticket{ID: "busy", Group: "g", Nonce: "n"}
		enqueue(t, q, want)
		for i := range 100 {
			delay := time.Duration(i%3) * 10 * time.Minute
			begin := time.Now()
			dl := receive(t, q, time.Hour)
			require.Equal(t, want, dl.Ticket())
			require.NoError(t, dl.Retry(t.Context(), delay))
			dl = receive(t, q, time.Hour)
			require.GreaterOrEqual(t, time.Since(begin), delay)
			require.NoError(t, dl.Retry(t.Context(), 0))
		}
		require.Empty(t, d.bodies(deadURL))
		require.Len(t, d.bodies(doubledURL), 1)
	})
}
