package main

import (
	"context"
	"fmt"
	"log/slog"
	"net/http"
	"net/url"
	"strings"
	"time"

	awshttp "github.com/aws/aws-sdk-go-v2/aws/transport/http"
	awsconfig "github.com/aws/aws-sdk-go-v2/config"
	"github.com/aws/aws-sdk-go-v2/service/dynamodb"
	"github.com/aws/aws-sdk-go-v2/service/sqs"
	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"github.com/pay-theory/streamer/v2"
	"github.com/pay-theory/streamer/v2/natsembed"
	"github.com/pay-theory/streamer/v2/progress/dynamolog"
	"github.com/pay-theory/streamer/v2/progress/natslog"
	"github.com/pay-theory/streamer/v2/queue/memqueue"
	"github.com/pay-theory/streamer/v2/queue/natsqueue"
	"github.com/pay-theory/streamer/v2/queue/sqsqueue"
)

// stores are where requests and tickets are kept.
type stores struct {
	options []streamer.Option
	closers []func() error // called in reverse order
}

// openStores opens what the flags ask for: memory, a directory, NATS, or AWS.
func openStores(ctx context.Context, c config, logger *slog.Logger) (*stores, error) {
	s := &stores{}
	switch {
	case c.data != "":
		server, err := natsembed.Open(ctx, c.data, natsembed.WithLogger(logger))
		if err != nil {
			return nil, err
		}
		s.closers = append(s.closers, server.Close)
		return s, s.use(ctx, server.JetStream(), c)
	case c.nats != "":
		nc, err := nats.Connect(c.nats, nats.Name("lab"), nats.MaxReconnects(-1), nats.ReconnectWait(250*time.Millisecond),
			nats.DisconnectErrHandler(func(_ *nats.Conn, err error) { logger.Warn("NATS disconnected", "error", err) }),
			nats.ReconnectHandler(func(nc *nats.Conn) { logger.Info("NATS connected", "server", nc.ConnectedServerName()) }))
		if err != nil {
			return nil, fmt.Errorf("-nats %s: %w", c.nats, err)
		}
		s.closers = append(s.closers, func() error { nc.Close(); return nil })
		js, err := jetstream.New(nc)
		if err != nil {
			return nil, err
		}
		return s, s.use(ctx, js, c)
	case c.sqs != "":
		return s, s.useAWS(ctx, c)
	default:
		s.options = append(s.options, streamer.WithQueue(memqueue.New(memqueue.WithLease(c.lease))))
		return s, nil
	}
}

// use keeps requests and tickets on JetStream.
func (s *stores) use(ctx context.Context, js jetstream.JetStream, c config) error {
	log, err := natslog.New(ctx, js, natslog.WithReplicas(c.replicas))
	if err != nil {
		return err
	}
	s.closers = append(s.closers, log.Close)
	queue, err := natsqueue.New(ctx, js, natsqueue.WithReplicas(c.replicas), natsqueue.WithLease(c.lease))
	if err != nil {
		return err
	}
	s.closers = append(s.closers, queue.Close)
	s.options = append(s.options, streamer.WithLog(log), streamer.WithQueue(queue))
	return nil
}

// useAWS keeps tickets on SQS and requests in DynamoDB.
func (s *stores) useAWS(ctx context.Context, c config) error {
	connections := awshttp.NewBuildableClient().WithTransportOptions(func(t *http.Transport) {
		t.MaxIdleConnsPerHost = 100 // there are as many calls at once
	})
	aws, err := awsconfig.LoadDefaultConfig(ctx, awsconfig.WithHTTPClient(connections))
	if err != nil {
		return err
	}
	var logOptions []dynamolog.Option
	if c.dynamo != "" {
		logOptions = append(logOptions, dynamolog.WithoutTTL())
	}
	log, err := dynamolog.New(ctx, dynamodb.NewFromConfig(aws, func(o *dynamodb.Options) {
		if c.dynamo != "" {
			o.BaseEndpoint = endpoint(c.dynamo)
		}
	}), c.table, logOptions...)
	if err != nil {
		return err
	}
	s.closers = append(s.closers, log.Close)
	queue, err := sqsqueue.New(ctx, sqs.NewFromConfig(aws, func(o *sqs.Options) {
		if at := endpoint(c.sqs); at != nil {
			o.BaseEndpoint = at
		}
	}), c.sqs, sqsqueue.WithLease(c.lease), sqsqueue.WithPoll(poll(c.lease)))
	if err != nil {
		return err
	}
	s.closers = append(s.closers, queue.Close)
	s.options = append(s.options, streamer.WithLog(log), streamer.WithQueue(queue))
	return nil
}

// endpoint returns where the service at a URL is, nil where the SDK knows that itself: at AWS.
func endpoint(at string) *string {
	u, err := url.Parse(at)
	if err != nil || u.Host == "" {
		return nil
	}
	for _, domain := range []string{".amazonaws.com", ".amazonaws.com.cn", ".api.aws"} {
		if strings.HasSuffix(u.Hostname(), domain) {
			return nil
		}
	}
	return new(u.Scheme + "://" + u.Host)
}

// poll returns how long a poll waits at SQS. What goes to the poll of a process that has just been
// killed is nobody's for a lease, so no poll waits for longer than that.
func poll(lease time.Duration) time.Duration {
	return min(max(lease.Truncate(time.Second), time.Second), 5*time.Second)
}

func (s *stores) close(logger *slog.Logger) {
	for i := len(s.closers) - 1; i >= 0; i-- {
		if err := s.closers[i](); err != nil {
			logger.Warn("a store did not close", "error", err)
		}
	}
}
