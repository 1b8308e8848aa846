package main

import (
	"context"
	"fmt"
	"net/http"
	"os"
	"strings"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	awshttp "github.com/aws/aws-sdk-go-v2/aws/transport/http"
	"github.com/aws/aws-sdk-go-v2/service/dynamodb"
	"github.com/aws/aws-sdk-go-v2/service/sqs"
	"github.com/aws/smithy-go/middleware"

	"github.com/pay-theory/streamer/v2"
	"github.com/pay-theory/streamer/v2/internal/awstest"
	"github.com/pay-theory/streamer/v2/progress/dynamolog"
	"github.com/pay-theory/streamer/v2/progress/memlog"
	"github.com/pay-theory/streamer/v2/queue/sqsqueue"
)

// awsService is a queue and a table of a server's own on the emulators.
type awsService struct {
	queue *sqs.Client
	url   string
	db    *dynamodb.Client // nil: there is none
	table string
}

// serveAWS sets the process up for one of the roles that need AWS. What it starts ends with the
// process: a poll that waits at SQS is not waited for.
func (c *Control) serveAWS(ctx context.Context, role string, mux *http.ServeMux) error {
	c.meter = newMeter(os.Getenv(unitsVariable) != "")
	s, err := openAWS(ctx, role, c.meter)
	if err != nil {
		return err
	}
	if role == roleAWSFloor {
		mux.Handle("/ws", newAWSFloor(ctx, s))
		return nil
	}
	tickets, err := sqsqueue.New(ctx, s.queue, s.url)
	if err != nil {
		return err
	}
	opts := []streamer.Option{streamer.WithQueue(tickets)}
	if role == roleAWSQueue {
		opts = append(opts, streamer.WithLog(memlog.New()), streamer.WithLocalLog())
	} else {
		log, err := dynamolog.New(ctx, s.db, s.table, dynamolog.WithoutTTL())
		if err != nil {
			return err
		}
		opts = append(opts, streamer.WithLog(log))
	}
	c.product = newProductOn(opts...)
	c.product.router.Handle(actionPaced, streamer.HandlerFunc(paced))
	c.product.router.Handle("export", streamer.HandlerFunc(c.meter.export))
	mux.Handle("/ws", c.product.sockets)
	mux.Handle("/", c.product.http)
	go c.product.run(ctx)
	return nil
}

// openAWS makes clients as floor and product alike use them, and a queue and a table for one of
// the roles.
func openAWS(ctx context.Context, role string, m *meter) (*awsService, error) {
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	name := fmt.Sprint(role, "-", os.Getpid())
	config := aws.Config{
		Region: awstest.Region,
		Credentials: aws.NewCredentialsCache(aws.CredentialsProviderFunc(func(context.Context) (aws.Credentials, error) {
			return aws.Credentials{AccessKeyID: "bench", SecretAccessKey: "bench"}, nil
		})),
		HTTPClient: awshttp.NewBuildableClient().WithTransportOptions(func(t *http.Transport) {
			t.MaxIdleConns, t.MaxIdleConnsPerHost = 0, 2*workers // else connections come and go
		}),
		APIOptions: []func(*middleware.Stack) error{m.join},
	}
	s := &awsService{queue: sqs.NewFromConfig(config, func(o *sqs.Options) { o.BaseEndpoint = new(os.Getenv(sqsVariable)) })}
	out, err := s.queue.CreateQueue(ctx, &sqs.CreateQueueInput{
		QueueName: &name, Attributes: map[string]string{"VisibilityTimeout": "60", "MessageRetentionPeriod": "1209600"},
	})
	if err != nil {
		return nil, fmt.Errorf("create a queue: %w", err)
	}
	s.url = *out.QueueUrl
	if role == roleAWSQueue {
		return s, nil
	}
	s.db = dynamodb.NewFromConfig(config, func(o *dynamodb.Options) { o.BaseEndpoint = new(os.Getenv(dynamoVariable)) })
	s.table = name
	return s, dynamolog.CreateTable(ctx, s.db, s.table)
}

// actionPaced is work whose first output is stored alone, as the floor does it in any case.
const actionPaced = "paced"

func paced(ctx context.Context, _ *streamer.Request, _ streamer.Reporter) (*streamer.Result, error) {
	for i := range outputs {
		if err := streamer.Output(ctx, newRow(i)); err != nil {
			return nil, err
		}
		if i > 0 {
			continue
		}
		select {
		case <-time.After(5 * time.Millisecond):
		case <-ctx.Done():
			return nil, ctx.Err()
		}
	}
	return &streamer.Result{Success: true, Data: total{outputs}}, nil
}

const (
	exportSteps = 5
	exportBytes = 220 // of each output

	// Payloads of an export that reports, and of one that does not.
	withReports    = `{"format":"csv","from":"2026-01-01","to":"2026-03-31","reports":true}`
	withoutReports = `{"format":"csv","from":"2026-01-01","to":"2026-03-31","reports":false}`
)

// export is the work of which docs/adapters/dynamodb.md tells the costs, but that an output is as
// large as two there with all that belongs to them: five steps, each with an output and, where the
// payload says so, a report. Each of these is stored by itself, if there is one request at a time.
func (m *meter) export(ctx context.Context, req *streamer.Request, p streamer.Reporter) (*streamer.Result, error) {
	for i := range exportSteps {
		if string(req.Payload) == withReports {
			n := m.stored()
			if err := p.Report(float64(100*i/exportSteps), "exporting rows"); err != nil {
				return nil, err
			}
			if err := m.await(ctx, n+1); err != nil {
				return nil, err
			}
		}
		n := m.stored()
		if err := streamer.Output(ctx, strings.Repeat("x", exportBytes-2)); err != nil {
			return nil, err
		}
		if err := m.await(ctx, n+1); err != nil {
			return nil, err
		}
	}
	return &streamer.Result{Success: true, Data: total{exportSteps}}, nil
}

// await waits until so many writes have been made.
func (m *meter) await(ctx context.Context, writes int) error {
	tick := time.NewTicker(time.Millisecond)
	defer tick.Stop()
	for m.stored() < writes {
		select {
		case <-tick.C:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
	return nil
}
