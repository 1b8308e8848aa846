package natslog_test

import (
	"context"
	"fmt"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"github.com/pay-theory/streamer/v2/progress"
	"github.com/pay-theory/streamer/v2/progress/natslog"
)

// Applications connect to NATS themselves, and pass the log to streamer.WithLog. The
// connection reconnects for ever and outlives the log.
func Example() {
	nc, err := nats.Connect("nats://n1:4222,nats://n2:4222,nats://n3:4222", nats.MaxReconnects(-1))
	if err != nil {
		fmt.Println(err)
		return
	}
	defer nc.Close()
	js, err := jetstream.New(nc)
	if err != nil {
		fmt.Println(err)
		return
	}
	ctx := context.Background()
	log, err := natslog.New(ctx, js, natslog.WithReplicas(3), natslog.WithMaxBytes(50<<30))
	if err != nil {
		fmt.Println(err)
		return
	}
	defer log.Close()

	state, err := log.Tail(ctx, progress.Key{Scope: "tenant/user", ID: "r1"})
	fmt.Println(state.Phase, err)
}
