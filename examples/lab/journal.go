package main

import (
	"context"
	"encoding/json"
	"fmt"
	"os"
	"time"

	"github.com/pay-theory/streamer/v2"
)

// journal is a file with a line for each start and end of a handler. Several processes may
// write the same file: a line is one append, which the system does not tear.
type journal struct{ *os.File }

func openJournal(name string) (journal, error) {
	f, err := os.OpenFile(name, os.O_APPEND|os.O_CREATE|os.O_WRONLY, 0o644)
	return journal{f}, err
}

// middleware notes when a handler starts and when it is over, by a panic too.
func (j journal) middleware(next streamer.HandlerFunc) streamer.HandlerFunc {
	return func(ctx context.Context, req *streamer.Request, p streamer.Reporter) (*streamer.Result, error) {
		j.note(ctx, "start", req)
		defer j.note(ctx, "end", req)
		return next(ctx, req, p)
	}
}

func (j journal) note(ctx context.Context, event string, req *streamer.Request) {
	line, err := json.Marshal(struct {
		Time    time.Time `json:"time"`
		Event   string    `json:"event"`
		ID      string    `json:"id"`
		Action  string    `json:"action"`
		Attempt int       `json:"attempt"`
		PID     int       `json:"pid"`
	}{time.Now().UTC(), event, req.ID, req.Action, streamer.Attempt(ctx), os.Getpid()})
	if err == nil {
		_, err = j.Write(append(line, '\n'))
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "lab: journal:", err)
	}
}
