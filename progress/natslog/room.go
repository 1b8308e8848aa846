package natslog

import (
	"context"
	"fmt"
	"sync/atomic"
	"time"

	"github.com/nats-io/nats.go/jetstream"

	"github.com/pay-theory/streamer/v2/progress"
)

// room keeps what starts a request or adds outputs from filling the log stream to the last
// byte: what moves open requests towards their end needs some.
type room struct {
	max   atomic.Int64              // of the stream, in bytes; not more than 0 when it has no bound
	used  atomic.Int64              // as the server said last, and what was appended since
	heard atomic.Pointer[time.Time] // when it said so
}

const (
	reserve   = 16 // the part of the stream that is kept free: one of so many
	roomStale = time.Second
)

func (r *room) learn(info *jetstream.StreamInfo) {
	r.heard.Store(new(time.Now()))
	r.used.Store(int64(info.State.Bytes))
	r.max.Store(info.Config.MaxBytes)
}

func (r *room) full(more int) bool {
	limit := r.max.Load()
	return limit > 0 && r.used.Load()+int64(more) > limit-limit/reserve
}

// admit returns progress.ErrFull for a message of so many bytes that would take what is kept
// free. Before it does, it asks the server, though not all the time.
func (l *Log) admit(ctx context.Context, bytes int) error {
	if !l.room.full(bytes) {
		return nil
	}
	if heard := l.room.heard.Load(); time.Since(*heard) > roomStale && l.room.heard.CompareAndSwap(heard, new(time.Now())) {
		if err := l.inquire(ctx); err != nil {
			return err
		}
		if !l.room.full(bytes) {
			return nil
		}
	}
	return fmt.Errorf("%w: stream %s has %d of %d bytes, and the rest is kept for ends", progress.ErrFull, l.cfg.logStream, l.room.used.Load(), l.room.max.Load())
}
