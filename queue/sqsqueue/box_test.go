package sqsqueue_test

import (
	"net/http"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/service/sqs"
	"github.com/stretchr/testify/require"

	"github.com/pay-theory/streamer/v2/internal/awstest"
	"github.com/pay-theory/streamer/v2/queue"
	"github.com/pay-theory/streamer/v2/queue/sqsqueue"
)

func TestNewSaysWhatIsWrongWithAQueue(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		attributes map[string]string
		opts       []sqsqueue.Option
		want       []string
	}{
		"visibility timeout": {map[string]string{"VisibilityTimeout": "0"}, nil, []string{"VisibilityTimeout is 0s, 1s to 6h is needed", "WithLease"}},
		"too long":           {map[string]string{"VisibilityTimeout": "43200"}, nil, []string{"VisibilityTimeout is 12h0m0s"}},
		"redrive": {
			map[string]string{"RedrivePolicy": `{"deadLetterTargetArn":"arn","maxReceiveCount":1}`}, nil,
			[]string{"maxReceiveCount of its RedrivePolicy is 1", "at least 10", "100 is good"},
		},
		"redrive as text": {map[string]string{"RedrivePolicy": `{"deadLetterTargetArn":"arn","maxReceiveCount":"9"}`}, nil, []string{"is 9"}},
		"no redrive":      {map[string]string{"RedrivePolicy": `{}`}, nil, []string{"RedrivePolicy", "maxReceiveCount"}},
		"strange redrive": {map[string]string{"RedrivePolicy": `what`}, nil, []string{`RedrivePolicy "what"`}},
		"delay and retention": {
			map[string]string{"DelaySeconds": "5", "MessageRetentionPeriod": "60"}, nil,
			[]string{"DelaySeconds is 5", "MessageRetentionPeriod is 1m0s"},
		},
		"other dead letters": {
			map[string]string{"RedrivePolicy": `{"deadLetterTargetArn":"arn:of:other","maxReceiveCount":10}`},
			[]sqsqueue.Option{sqsqueue.WithDeadLetters(deadURL)}, []string{"WithDeadLetters", deadURL, `"arn:of:other"`},
		},
		"no dead letters": {nil, []sqsqueue.Option{sqsqueue.WithDeadLetters(deadURL)}, []string{"WithDeadLetters", `moves messages to ""`}},
		"missing dead letters": {
			map[string]string{"RedrivePolicy": `{"deadLetterTargetArn":"arn","maxReceiveCount":10}`},
			[]sqsqueue.Option{sqsqueue.WithDeadLetters(doubledURL + "-missing")}, []string{"WithDeadLetters", "-missing", "QueueDoesNotExist"},
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			d := redriven(0)
			for name, value := range c.attributes {
				d.queues[doubledURL].attributes[name] = value
			}
			got := refused(t, d, doubledURL, c.opts...)
			for _, want := range append(c.want, "queue https://double.test/1/") {
				require.Contains(t, got, want)
			}
		})
	}
}

func TestTheLeaseIsTheQueuesUnlessAnOptionSaysOtherwise(t *testing.T) {
	t.Parallel()
	d := redriven(0)
	d.queues[doubledURL].attributes["VisibilityTimeout"] = "77"
	require.Equal(t, 77*time.Second, open(t, d, doubledURL).Lease())
	require.Equal(t, time.Minute, open(t, d, doubledURL, sqsqueue.WithLease(time.Minute)).Lease())
}

func TestNewRefusesOptionsThatMakeNoSense(t *testing.T) {
	t.Parallel()
	d := redriven(0)
	for want, o := range map[string]sqsqueue.Option{
		"sqsqueue: WithLease(999ms): must be 1s to 6h":  sqsqueue.WithLease(999 * time.Millisecond),
		"sqsqueue: WithLease(1.5s): ":                   sqsqueue.WithLease(1500 * time.Millisecond),
		"sqsqueue: WithLease(6h0m1s): ":                 sqsqueue.WithLease(6*time.Hour + time.Second),
		"sqsqueue: WithLease(-1s): ":                    sqsqueue.WithLease(-time.Second),
		"sqsqueue: WithPoll(0s): must be 1s to 20s":     sqsqueue.WithPoll(0),
		"sqsqueue: WithPoll(21s): ":                     sqsqueue.WithPoll(21 * time.Second),
		"sqsqueue: WithPoll(1.1s): ":                    sqsqueue.WithPoll(1100 * time.Millisecond),
		"sqsqueue: WithLinger(-1ns): must be 0 to 1s":   sqsqueue.WithLinger(-1),
		"sqsqueue: WithLinger(1.001s): must be 0 to 1s": sqsqueue.WithLinger(1001 * time.Millisecond),
		`WithDeadLetters: queue dead: this is no URL`:   sqsqueue.WithDeadLetters("dead"),
	} {
		require.Contains(t, refused(t, d, doubledURL, o), want)
	}
	require.Zero(t, d.count("SendMessageBatch"))
}

func TestNewSaysWhatIsWrongWithTheURL(t *testing.T) {
	t.Parallel()
	client := func(region string) *sqs.Client { return sqs.New(sqs.Options{Region: region}) }
	for _, url := range []string{"", "name", "https://sqs.us-east-1.amazonaws.com", "https://sqs.us-east-1.amazonaws.com/", "\x7f"} {
		require.Contains(t, refused(t, client("us-east-1"), url), "this is no URL of a queue: it looks like https://")
	}
	for _, url := range []string{"https://sqs.eu-west-1.amazonaws.com/1/q", "https://sqs.eu-west-1.amazonaws.com.cn/1/q"} {
		require.Contains(t, refused(t, client("us-east-1"), url), `it is in region eu-west-1, the client is for region "us-east-1"`)
		require.Contains(t, refused(t, client(""), url), `the client is for region ""`)
	}
}

func TestNewSaysWhatTheServiceSays(t *testing.T) {
	t.Parallel()
	e := awstest.SQS(t)
	require.Contains(t, refused(t, at(t, e.Endpoint()), "http://127.0.0.1/000000000000/missing"), "see to the URL, and that the client is for the queue's account and region")
	for code, want := range map[string]string{
		"AccessDenied":                "the role needs a policy that allows it on this queue",
		"AccessDeniedException":       "the role needs a policy that allows it on this queue",
		"InvalidClientTokenId":        "see to the client's credentials",
		"UnrecognizedClientException": "see to the client's credentials",
		"KmsDisabled":                 "kms:Decrypt",
		"KmsAccessDenied":             "kms:Decrypt",
		"KMS.AccessDeniedException":   "kms:Decrypt",
	} {
		s := at(t, awstest.NewProxy(t, e.Endpoint(), func(awstest.Call) awstest.Fault {
			return awstest.Fault{Status: http.StatusForbidden, Code: code}
		}).Endpoint())
		got := refused(t, s, "http://127.0.0.1/000000000000/q")
		require.Contains(t, got, want, code)
		require.Contains(t, got, code)
		require.NotContains(t, got, "attempts", "that there are no retries is not the reader's concern")
	}
}

func TestErrorsOfTheServiceAreUnavailable(t *testing.T) {
	t.Parallel()
	e := awstest.SQS(t)
	url := at(t, e.Endpoint()).create(t, nil)
	var fault func(awstest.Call) awstest.Fault
	p := awstest.NewProxy(t, e.Endpoint(), func(c awstest.Call) awstest.Fault {
		if fault == nil {
			return awstest.Fault{}
		}
		return fault(c)
	})
	q := open(t, at(t, p.Endpoint()), url)
	enqueue(t, q, queue.Ticket{})
	held := receive(t, q, patience)
	for name, f := range map[string]awstest.Fault{
		"throttled":      {Status: http.StatusBadRequest, Code: "ThrottlingException"},
		"request":        {Status: http.StatusForbidden, Code: "RequestThrottled"},
		"internal":       {Status: http.StatusInternalServerError, Code: "InternalFailure"},
		"unavailable":    {Status: http.StatusServiceUnavailable, Code: "ServiceUnavailable"},
		"cut":            {Lost: true, Status: 0},
		"makes no sense": {Status: http.StatusOK, Answer: []byte("<html>")},
		"empty":          {Status: http.StatusOK, Answer: []byte("{}")},
	} {
		fault = func(awstest.Call) awstest.Fault { return f }
		before := p.Calls()
		require.ErrorIs(t, q.Enqueue(t.Context(), queue.Ticket{}), queue.ErrUnavailable, name)
		require.ErrorIs(t, held.Extend(t.Context()), queue.ErrUnavailable, name)
		require.ErrorIs(t, held.Ack(t.Context()), queue.ErrUnavailable, name)
		after := p.Calls()
		for _, operation := range []string{"SendMessageBatch", "ChangeMessageVisibilityBatch", "DeleteMessageBatch"} {
			require.Equal(t, 1, after[operation]-before[operation], "%s: %s: a call is made once", name, operation)
		}
		if name != "empty" { // which is how no message is told
			_, err := q.Receive(t.Context(), 1)
			require.ErrorIs(t, err, queue.ErrUnavailable, name)
		}
	}
	fault = nil
	require.ErrorIs(t, held.Extend(t.Context()), queue.ErrLeaseLost, "the Ack whose answer was cut off took effect")
	ack(t, held)
}

func TestAQueueThatWasRemovedIsAnError(t *testing.T) {
	t.Parallel()
	s := start(t)
	url := s.create(t, nil)
	q := open(t, s, url)
	_, err := s.DeleteQueue(t.Context(), &sqs.DeleteQueueInput{QueueUrl: &url})
	require.NoError(t, err)
	for _, err := range []error{
		q.Enqueue(t.Context(), queue.Ticket{}),
		func() error { _, err := q.Receive(t.Context(), 1); return err }(),
		func() error { _, err := q.Depth(t.Context()); return err }(),
	} {
		require.ErrorIs(t, err, queue.ErrUnavailable)
		require.ErrorContains(t, err, "see to the URL")
	}
}
