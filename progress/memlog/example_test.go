package memlog_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"time"

	"github.com/pay-theory/streamer/v2/progress"
	"github.com/pay-theory/streamer/v2/progress/memlog"
)

// A log is started by an append that expects none, and goes on by appends that expect the
// newest record. Routers do this; applications pass the log to streamer.WithLog.
func Example() {
	log := memlog.New(memlog.WithMaxBytes(64<<20), memlog.WithMaxRequests(10_000))
	defer log.Close()
	ctx, key := context.Background(), progress.Key{Scope: "tenant/user", ID: "r1"}

	stop, _ := log.Watch(ctx, key, func(record string) { fmt.Println("changed: record", record) })
	defer stop()

	accepted := &progress.Event{Seq: 1, Kind: progress.Accepted, Record: "a"}
	state := progress.State{Epoch: "k3f9"}.Apply(accepted)
	_ = log.Append(ctx, key, "", &progress.Record{ID: "a", Events: []*progress.Event{accepted}, State: state})

	done := &progress.Event{Seq: 2, Kind: progress.Completed, Record: "b", Success: true, Data: json.RawMessage(`"done"`)}
	end := &progress.Record{ID: "b", Events: []*progress.Event{done}, State: state.Apply(done), Retention: time.Hour}
	_ = log.Append(ctx, key, "a", end)

	var conflict *progress.ConflictError
	late := &progress.Event{Seq: 2, Kind: progress.Canceled, Record: "c"}
	err := log.Append(ctx, key, "a", &progress.Record{ID: "c", Events: []*progress.Event{late}, State: state.Apply(late), Retention: time.Hour})
	fmt.Println(errors.As(err, &conflict), err)

	page, _ := log.Read(ctx, key, 0, 100)
	for _, e := range page.Events {
		fmt.Println(e.Seq, e.Kind)
	}
	// Output:
	// changed: record a
	// changed: record b
	// true log has moved on: last event is 2 (completed, attempt 0)
	// 1 accepted
	// 2 completed
}
