package natsqueue_test

import (
	"context"
	"fmt"
	"log"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"github.com/pay-theory/streamer/v2/queue"
	"github.com/pay-theory/streamer/v2/queue/natsqueue"
)

func ExampleNew() {
	ctx := context.Background()
	nc, err := nats.Connect("nats://nats-1:4222,nats://nats-2:4222,nats://nats-3:4222", nats.MaxReconnects(-1))
	if err != nil {
		log.Fatal(err)
	}
	defer nc.Close()
	js, err := jetstream.New(nc)
	if err != nil {
		log.Fatal(err)
	}
	q, err := natsqueue.New(ctx, js, natsqueue.WithReplicas(3), natsqueue.WithLease(time.Minute))
	if err != nil {
		log.Fatal(err)
	}
	defer q.Close()

	if err := q.Enqueue(ctx, queue.Ticket{ID: "42", Action: "export", Group: "a tenant"}); err != nil {
		log.Fatal(err)
	}
	deliveries, err := q.Receive(ctx, 8)
	if err != nil {
		log.Fatal(err)
	}
	for _, d := range deliveries {
		fmt.Println(d.Ticket().Action, d.Ticket().ID)
		if err := d.Ack(ctx); err != nil {
			log.Print(err)
		}
	}
}
