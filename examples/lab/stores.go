package main

import (
	"context"
	"fmt"
	"log/slog"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"github.com/pay-theory/streamer/v2"
	"github.com/pay-theory/streamer/v2/natsembed"
	"github.com/pay-theory/streamer/v2/progress/natslog"
	"github.com/pay-theory/streamer/v2/queue/memqueue"
	"github.com/pay-theory/streamer/v2/queue/natsqueue"
)

// stores are where requests and tickets are kept.
type stores struct {
	options []streamer.Option
	closers []func() error // called in reverse order
}

// openStores opens what the flags ask for: memory, a directory, or NATS.
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

func (s *stores) close(logger *slog.Logger) {
	for i := len(s.closers) - 1; i >= 0; i-- {
		if err := s.closers[i](); err != nil {
			logger.Warn("a store did not close", "error", err)
		}
	}
}
