package memqueue_test

import (
	"context"
	"fmt"
	"time"

	"github.com/pay-theory/streamer/v2/queue"
	"github.com/pay-theory/streamer/v2/queue/memqueue"
)

func Example() {
	ctx := context.Background()
	q := memqueue.New(memqueue.WithLease(10 * time.Second))
	if err := q.Enqueue(ctx, queue.Ticket{ID: "42", Action: "export", Group: "a tenant"}); err != nil {
		fmt.Println(err)
		return
	}
	deliveries, err := q.Receive(ctx, 8)
	if err != nil {
		fmt.Println(err)
		return
	}
	for _, d := range deliveries {
		fmt.Println(d.Ticket().Action, d.Ticket().ID)
		if err := d.Ack(ctx); err != nil {
			fmt.Println(err)
		}
	}
	fmt.Printf("%+v\n", q.Stats())
	// Output:
	// export 42
	// {Ready:0 Leased:0 Delayed:0 Bytes:0 Groups:0 Waiting:0 Oldest:0s}
}
