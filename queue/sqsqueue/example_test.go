package sqsqueue_test

import (
	"context"
	"fmt"
	"log"
	"time"

	"github.com/aws/aws-sdk-go-v2/config"
	"github.com/aws/aws-sdk-go-v2/service/sqs"

	"github.com/pay-theory/streamer/v2/queue"
	"github.com/pay-theory/streamer/v2/queue/sqsqueue"
)

func ExampleNew() {
	ctx := context.Background()
	c, err := config.LoadDefaultConfig(ctx)
	if err != nil {
		log.Fatal(err)
	}
	const url = "https://sqs.us-east-1.amazonaws.com/123456789012/tickets"
	q, err := sqsqueue.New(ctx, sqs.NewFromConfig(c), url, sqsqueue.WithLease(time.Minute))
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
