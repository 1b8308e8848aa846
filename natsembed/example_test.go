package natsembed_test

import (
	"context"
	"fmt"
	"log"
	"os"

	"github.com/pay-theory/streamer/v2/natsembed"
)

func Example() {
	ctx := context.Background()
	dir, err := os.MkdirTemp("", "natsembed")
	if err != nil {
		log.Fatal(err)
	}
	defer os.RemoveAll(dir)

	store, err := natsembed.Open(ctx, dir)
	if err != nil {
		log.Fatal(err)
	}
	defer store.Close()
	fmt.Println(store.Ready(ctx), store.URL() == "")
	// Output: <nil> true
}
