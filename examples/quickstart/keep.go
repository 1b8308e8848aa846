package main

import (
	"context"
	"errors"
	"log/slog"
	"time"

	"github.com/pay-theory/streamer/v2"
	"github.com/pay-theory/streamer/v2/natsembed"
	"github.com/pay-theory/streamer/v2/progress/natslog"
	"github.com/pay-theory/streamer/v2/queue/natsqueue"
)

// keep returns the options of a router that keeps requests in a directory, and what closes it. An
// empty name is memory, where they end with the process.
func keep(ctx context.Context, dir string) (opts []streamer.Option, closeStore func() error, err error) {
	if dir == "" {
		return nil, func() error { return nil }, nil
	}
	server, err := natsembed.Open(ctx, dir, natsembed.WithLogger(slog.New(slog.DiscardHandler)))
	if err != nil {
		return nil, nil, err
	}
	log, err := natslog.New(ctx, server.JetStream())
	if err != nil {
		return nil, nil, errors.Join(err, server.Close())
	}
	// Five seconds after the process was killed, its requests go on in the next one.
	queue, err := natsqueue.New(ctx, server.JetStream(), natsqueue.WithLease(5*time.Second))
	if err != nil {
		return nil, nil, errors.Join(err, log.Close(), server.Close())
	}
	closeStore = func() error { return errors.Join(queue.Close(), log.Close(), server.Close()) }
	return []streamer.Option{streamer.WithLog(log), streamer.WithQueue(queue)}, closeStore, nil
}
