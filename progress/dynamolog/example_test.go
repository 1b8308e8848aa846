package dynamolog_test

import (
	"context"
	"fmt"

	"github.com/aws/aws-sdk-go-v2/config"
	"github.com/aws/aws-sdk-go-v2/service/dynamodb"
	"github.com/aws/aws-sdk-go-v2/service/dynamodbstreams"
	"github.com/aws/aws-sdk-go-v2/service/s3"

	"github.com/pay-theory/streamer/v2/progress"
	"github.com/pay-theory/streamer/v2/progress/dynamolog"
	"github.com/pay-theory/streamer/v2/progress/s3blob"
)

// Applications make the clients themselves, and pass the log to streamer.WithLog.
func Example() {
	ctx := context.Background()
	aws, err := config.LoadDefaultConfig(ctx)
	if err != nil {
		fmt.Println(err)
		return
	}
	large := s3blob.New(s3.NewFromConfig(aws), "my-bucket", "streamer/")
	log, err := dynamolog.New(ctx, dynamodb.NewFromConfig(aws), "streamer", dynamolog.WithBlobs(large))
	if err != nil {
		fmt.Println(err)
		return
	}
	defer log.Close()

	state, err := log.Tail(ctx, progress.Key{Scope: "tenant/user", ID: "r1"})
	fmt.Println(state.Phase, err)
}

// A gateway that watches many requests which mostly wait follows the table's stream.
func ExampleWithStreams() {
	ctx := context.Background()
	aws, err := config.LoadDefaultConfig(ctx)
	if err != nil {
		fmt.Println(err)
		return
	}
	follow := dynamolog.WithStreams(dynamodbstreams.NewFromConfig(aws))
	log, err := dynamolog.New(ctx, dynamodb.NewFromConfig(aws), "streamer", follow)
	if err != nil {
		fmt.Println(err) // where the table has no stream, it says how to turn it on
		return
	}
	defer log.Close()
}
