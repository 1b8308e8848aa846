package sqsqueue_test

import (
	"context"
	"crypto/rand"
	"errors"
	"maps"
	"net/http"
	"os"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/config"
	"github.com/aws/aws-sdk-go-v2/service/sqs"
	"github.com/aws/aws-sdk-go-v2/service/sqs/types"
	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"

	"github.com/pay-theory/streamer/v2/internal/awstest"
	"github.com/pay-theory/streamer/v2/queue"
	"github.com/pay-theory/streamer/v2/queue/queuetest"
	"github.com/pay-theory/streamer/v2/queue/sqsqueue"
)

// patience bounds what must happen but not at once.
const patience = 20 * time.Second

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// service is an SQS to make queues on.
type service struct {
	*sqs.Client
	tolerance time.Duration
}

// start returns an emulator, or SQS itself where STREAMER_AWS_TEST says so: then region and
// credentials come from where the SDK looks for them.
func start(tb testing.TB) service {
	tb.Helper()
	if os.Getenv("STREAMER_AWS_TEST") == "1" {
		c, err := config.LoadDefaultConfig(tb.Context(), config.WithHTTPClient(httpClient(tb)))
		require.NoError(tb, err)
		return service{sqs.NewFromConfig(c), 90 * time.Second} // its counts are a minute old
	}
	return at(tb, awstest.SQS(tb).Endpoint())
}

// at returns the emulator at an endpoint.
func at(tb testing.TB, endpoint string) service {
	tb.Helper()
	c := sqs.New(sqs.Options{
		Region: awstest.Region, BaseEndpoint: &endpoint, HTTPClient: httpClient(tb),
		Credentials: aws.CredentialsProviderFunc(func(context.Context) (aws.Credentials, error) {
			return aws.Credentials{AccessKeyID: "id", SecretAccessKey: "secret"}, nil
		}),
	})
	return service{c, 5 * time.Second}
}

func httpClient(tb testing.TB) *http.Client {
	transport := &http.Transport{MaxIdleConnsPerHost: 100}
	tb.Cleanup(transport.CloseIdleConnections)
	return &http.Client{Transport: transport}
}

// create makes a queue that nobody else uses, which is deleted when the test ends.
func (s service) create(tb testing.TB, change map[string]string) (url string) {
	tb.Helper()
	name := "streamer-test-" + rand.Text()
	attributes := map[string]string{"VisibilityTimeout": "30"}
	maps.Copy(attributes, change)
	if attributes["FifoQueue"] == "true" {
		name += ".fifo"
	}
	out, err := s.CreateQueue(tb.Context(), &sqs.CreateQueueInput{QueueName: &name, Attributes: attributes})
	require.NoError(tb, err)
	tb.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.WithoutCancel(tb.Context()), patience)
		defer cancel()
		_, err := s.DeleteQueue(ctx, &sqs.DeleteQueueInput{QueueUrl: out.QueueUrl})
		if _, gone := errors.AsType[*types.QueueDoesNotExist](err); !gone {
			require.NoError(tb, err)
		}
	})
	return *out.QueueUrl
}

// open returns the queue at a URL, with polls that Close need not wait for long.
func open(tb testing.TB, c sqsqueue.Client, url string, opts ...sqsqueue.Option) *sqsqueue.Queue {
	tb.Helper()
	q, err := sqsqueue.New(tb.Context(), c, url, append([]sqsqueue.Option{sqsqueue.WithPoll(time.Second)}, opts...)...)
	require.NoError(tb, err)
	tb.Cleanup(func() { require.NoError(tb, q.Close()) })
	return q
}

// whole returns the shortest lease that SQS can have and is not shorter.
func whole(lease time.Duration) time.Duration {
	return (lease + time.Second - 1).Truncate(time.Second)
}

func (s service) harness() queuetest.Harness {
	var urls sync.Map // of queues
	return queuetest.Harness{
		New: func(tb testing.TB, lease time.Duration) queue.Queue {
			url := s.create(tb, nil)
			q := open(tb, s, url, sqsqueue.WithLease(whole(lease)), sqsqueue.WithLinger(10*time.Millisecond))
			urls.Store(q, url)
			return q
		},
		Reopen: func(tb testing.TB, q queue.Queue) queue.Queue {
			url, _ := urls.Load(q)
			return open(tb, s, url.(string), sqsqueue.WithLease(q.Lease()), sqsqueue.WithLinger(10*time.Millisecond))
		},
		Lease:              3 * time.Second, // a busy machine can take a second for a call
		Tolerance:          s.tolerance,
		FencesStaleHolders: true,
		NoOldest:           true,
	}
}

func TestConformance(t *testing.T) {
	queuetest.Run(t, start(t).harness())
}

func TestConformanceOfADouble(t *testing.T) {
	var doubles sync.Map // of queues
	queuetest.Run(t, queuetest.Harness{
		New: func(tb testing.TB, lease time.Duration) queue.Queue {
			d, q := doubledQueue(tb, sqsqueue.WithLease(whole(lease)))
			doubles.Store(q, d)
			return q
		},
		Reopen: func(tb testing.TB, q queue.Queue) queue.Queue {
			d, _ := doubles.Load(q)
			return open(tb, d.(*double), doubledURL, sqsqueue.WithLease(q.Lease()))
		},
		Around:             synctest.Test,
		Tolerance:          1100 * time.Millisecond, // Depth may be a second old
		FencesStaleHolders: true,
		NoOldest:           true,
	})
}

func enqueue(tb testing.TB, q queue.Queue, t queue.Ticket) {
	tb.Helper()
	require.NoError(tb, q.Enqueue(tb.Context(), t))
}

// receive receives the one ticket that must be delivered within that time.
func receive(tb testing.TB, q queue.Queue, within time.Duration) queue.Delivery {
	tb.Helper()
	ctx, cancel := context.WithTimeout(tb.Context(), within)
	defer cancel()
	ds, err := q.Receive(ctx, 1)
	require.NoError(tb, err)
	require.Len(tb, ds, 1)
	return ds[0]
}

// refused returns why New does not take a queue.
func refused(t *testing.T, c sqsqueue.Client, url string, opts ...sqsqueue.Option) string {
	t.Helper()
	q, err := sqsqueue.New(t.Context(), c, url, opts...)
	require.Error(t, err)
	require.Nil(t, q)
	require.True(t, strings.HasPrefix(err.Error(), "sqsqueue: "), err)
	return err.Error()
}
