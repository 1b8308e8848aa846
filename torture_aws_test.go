package streamer_test

import (
	"context"
	"math/rand/v2"
	"net/http"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/dynamodb"
	"github.com/aws/aws-sdk-go-v2/service/sqs"
	"github.com/stretchr/testify/require"

	"github.com/pay-theory/streamer/v2/internal/awstest"
	"github.com/pay-theory/streamer/v2/progress"
	"github.com/pay-theory/streamer/v2/progress/dynamolog"
	"github.com/pay-theory/streamer/v2/queue"
	"github.com/pay-theory/streamer/v2/queue/sqsqueue"
)

// awsFaults is DynamoDB and SQS behind proxies. Each process has clients of its own.
type awsFaults struct {
	t                 *testing.T
	lease             time.Duration
	weather           *awstest.Weather
	sqs, dynamodb     string // endpoints of the proxies
	queueURL, tableID string
}

// TestGuaranteesHoldOnAWS is TestGuaranteesHoldUnderFaults with the network for the faults, in real
// time: one world, on emulators.
func TestGuaranteesHoldOnAWS(t *testing.T) {
	t.Parallel()
	seed := rand.Uint64N(1 << 40)
	const table = "streamer"
	terms := terms{lease: 4 * time.Second, slow: 10 * time.Second, patience: 5 * time.Minute, ids: 20, actors: 10, steps: 20, restarts: 3}
	f := &awsFaults{t: t, lease: terms.lease, weather: awstest.NewWeather(seed, longest), tableID: table}
	queues, items := awstest.SQS(t).Endpoint(), awstest.DynamoDB(t).Endpoint()
	f.sqs = awstest.NewProxy(t, queues, f.weather.SQS).Endpoint()
	f.dynamodb = awstest.NewProxy(t, items, f.weather.DynamoDB).Endpoint()
	created, err := sqsAt(t, queues).CreateQueue(t.Context(), &sqs.CreateQueueInput{QueueName: new("tickets")})
	require.NoError(t, err)
	f.queueURL = *created.QueueUrl
	calm := dynamoDBAt(t, items)
	require.NoError(t, dynamolog.CreateTable(t.Context(), calm, table))
	store, err := dynamolog.New(t.Context(), calm, table, dynamolog.WithoutTTL())
	require.NoError(t, err)

	var total tally
	newWorld(t, seed, &total, terms, store, f).run()
	require.NoError(t, store.Close())
	t.Logf("seed %d: %s", seed, total.String())
	if t.Failed() {
		return
	}
	require.Greater(t, total.acked.Load()*10, total.submits.Load()*5, "most submits succeed")
	require.Greater(t, total.faultsSeen.Load(), int64(50))
	for name, n := range map[string]int64{
		"canceled": total.canceled.Load(), "outputs": total.outputs.Load(), "viewed": total.viewed.Load(),
		"duplicates": total.duplicates.Load(), "attempts that did not end": total.fenced.Load() + total.takeovers.Load() + total.handedBack.Load(),
	} {
		require.Positive(t, n, "%s: a state that this test is for never came about", name)
	}
}

func (f *awsFaults) open() (progress.Log, queue.Queue, func()) {
	// What the routers are told at the start is true.
	f.set(false)
	log, err := dynamolog.New(f.t.Context(), dynamoDBAt(f.t, f.dynamodb), f.tableID, dynamolog.WithoutTTL())
	require.NoError(f.t, err)
	tickets, err := sqsqueue.New(f.t.Context(), sqsAt(f.t, f.sqs), f.queueURL, sqsqueue.WithLease(f.lease), sqsqueue.WithPoll(time.Second))
	require.NoError(f.t, err)
	f.set(true)
	return log, tickets, func() {
		require.NoError(f.t, tickets.Close())
		require.NoError(f.t, log.Close())
	}
}

func (f *awsFaults) set(yes bool) {
	if yes {
		f.weather.Set(0.1)
	} else {
		f.weather.Set(0)
	}
}

func (f *awsFaults) duplicates() int64 { return int64(f.weather.Count("twice", "forgotten", "stale")) }

func (f *awsFaults) seen() int64 { return int64(f.weather.Count()) }

// sqsAt returns a client of the SQS at an endpoint.
func sqsAt(t *testing.T, endpoint string) *sqs.Client {
	return sqs.New(sqs.Options{Region: awstest.Region, BaseEndpoint: &endpoint, HTTPClient: way(t), Credentials: anybody()})
}

// dynamoDBAt returns a client of the DynamoDB at an endpoint.
func dynamoDBAt(t *testing.T, endpoint string) *dynamodb.Client {
	return dynamodb.New(dynamodb.Options{Region: awstest.Region, BaseEndpoint: &endpoint, HTTPClient: way(t), Credentials: anybody()})
}

func way(t *testing.T) *http.Client {
	transport := &http.Transport{MaxIdleConnsPerHost: 100}
	t.Cleanup(transport.CloseIdleConnections)
	return &http.Client{Transport: transport}
}

func anybody() aws.CredentialsProvider {
	return aws.CredentialsProviderFunc(func(context.Context) (aws.Credentials, error) {
		return aws.Credentials{AccessKeyID: "id", SecretAccessKey: "secret"}, nil
	})
}
