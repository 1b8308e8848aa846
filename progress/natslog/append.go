package natslog

import (
	"context"
	"errors"
	"fmt"
	"math"
	"strconv"
	"time"

	"github.com/nats-io/nats.go"

	"github.com/pay-theory/streamer/v2/progress"
)

// Headers that the server obeys.
const (
	headerExpect = "Nats-Expected-Last-Subject-Sequence"
	headerRollup = "Nats-Rollup"
	headerTTL    = "Nats-TTL"
)

// Append implements progress.Log. Beside the errors of the interface there is one that says
// what is wrong with a record that breaks the rules of progress.Record, or was not computed
// from the state of record prev.
func (l *Log) Append(ctx context.Context, key progress.Key, prev string, rec *progress.Record) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	if err := rec.Check(prev); err != nil {
		return fmt.Errorf("natslog: append: %w", err)
	}
	a := &appending{Log: l, key: key, path: path(key), prev: prev, rec: rec}
	err := a.settle(ctx)
	var conflict *progress.ConflictError
	switch {
	case err == nil:
		l.feed.notifyRecord(a.path, token(rec.ID))
		return nil
	case errors.As(err, &conflict):
		return err
	case a.misfit:
		return fmt.Errorf("natslog: append: %w", err)
	default:
		return fmt.Errorf("natslog: append: %w", translate(ctx, err))
	}
}

// appending is one call of Append.
type appending struct {
	*Log
	key    progress.Key
	path   string
	prev   string
	rec    *progress.Record
	misfit bool // the record was not computed from the state before it
}

// maxTries is how often one Append sends its record: again only when the log was not where it
// expected it, which the newest message then tells.
const maxTries = 8

// settle sends the record, and looks at what is there when the server refuses it.
func (a *appending) settle(ctx context.Context) error {
	known, _ := a.tails.get(a.path)
	asked := false
	for try := range maxTries {
		verdict := a.judge(known)
		if verdict == errStored {
			return nil
		}
		if (verdict != nil || known == nil && a.prev != "") && !asked {
			// What is known may be old.
			var err error
			if known, err = a.ask(ctx, a.path); err != nil {
				return err
			}
			asked = true
			continue
		}
		if verdict != nil {
			return verdict
		}
		err := a.send(ctx, known)
		switch {
		case err == nil:
			return nil
		case full(err) && !asked:
			// A log that is there is found even if there is no room for another.
		case !conflicts(err):
			return err
		}
		before := known
		refused := err
		if known, err = a.ask(ctx, a.path); err != nil {
			return err
		}
		asked = true
		if full(refused) {
			continue
		}
		if same(before, known) {
			// Another message for the log is on its way through the cluster.
			if err := pause(ctx, time.Duration(1+try*try)*time.Millisecond); err != nil {
				return err
			}
		}
	}
	return fmt.Errorf("%w: %w", progress.ErrUnavailable, errAgain)
}

func same(a, b *tail) bool {
	if a == nil || b == nil {
		return a == b
	}
	return a.seq == b.seq
}

// errStored says that the record is the newest already.
var errStored = errors.New("stored")

// judge says what t, the newest that is known of the log, means for the record: nil when it
// may be sent.
func (a *appending) judge(t *tail) error {
	rec := a.rec
	a.misfit = false
	switch {
	case t == nil || t.gone(a.clock.now()):
		if a.prev != "" {
			return progress.ErrNotFound
		}
		return nil
	case t.state.Record == rec.ID:
		return errStored
	case t.state.Ended() || t.state.Record != a.prev:
		return &progress.ConflictError{State: t.state}
	case rec.State.Last != t.state.Last+uint64(len(rec.Events)):
		a.misfit = true
		return fmt.Errorf("record %s has %d events and a state of event %d, but record %s before it ends with event %d", rec.ID, len(rec.Events), rec.State.Last, a.prev, t.state.Last)
	case rec.State.Epoch != t.state.Epoch:
		a.misfit = true
		return fmt.Errorf("record %s is of epoch %q, but record %s before it of %q", rec.ID, rec.State.Epoch, a.prev, t.state.Epoch)
	}
	return nil
}

// send publishes the record after t, the newest of the log or what is left of an older log.
func (a *appending) send(ctx context.Context, t *tail) error {
	rec := a.rec
	next := &tail{header: headerOf(rec, rec.State.Last+1-uint64(len(rec.Events))), state: rec.State, progress: rec.Progress, events: rec.Events}
	var expect uint64
	if t != nil {
		expect = t.seq
	}
	if a.prev == "" {
		next.whole = true
	} else {
		next.size = t.size
		if next.progress == nil && t.progress != nil && t.progress.Attempt == next.attempt {
			next.progress = t.progress
		}
		if next.state.Ended() && rec.Progress == nil {
			next.progress = a.lastProgress(ctx, t)
		}
	}
	for _, e := range rec.Events {
		next.size += storedSize(e)
	}
	if next.state.Ended() && !next.whole && next.size <= int64(a.cfg.sealBytes) {
		older, err := a.older(ctx, t)
		if err != nil {
			return err
		}
		if older != nil {
			next.whole, next.header.first, next.events = true, 1, append(older[:len(older):len(older)], rec.Events...)
		}
	}
	data, err := encode(a.key, a.path, &next.state, next.progress, next.events, next.size)
	if err != nil {
		a.misfit = true
		return fmt.Errorf("record %s can't be encoded: %w", rec.ID, err)
	}
	msg := &nats.Msg{Subject: a.subjects.ofLog(a.path), Data: data, Header: nats.Header{
		headerName:   {next.encode()},
		headerExpect: {strconv.FormatUint(expect, 10)},
	}}
	if next.whole && expect != 0 {
		msg.Header[headerRollup] = []string{"sub"}
	}
	if ttl := seconds(next.retention); next.whole && ttl > 0 {
		msg.Header[headerTTL] = []string{strconv.FormatInt(ttl, 10) + "s"}
	}
	if n := msg.Size(); int64(n) > a.nc.MaxPayload() {
		return fmt.Errorf("%w: its message has %d bytes, and the server takes %d", progress.ErrTooLarge, n, a.nc.MaxPayload())
	}
	if rec.Optional(a.prev) {
		if err := a.admit(ctx, msg.Size()); err != nil {
			return err
		}
	}
	if a.prev == "" && !next.state.Ended() {
		a.expect(a.path)
	}
	withdraw := a.tails.announce(a.path, *next)
	asked := time.Now()
	seq, err := a.logs.publish(ctx, msg)
	withdraw()
	if err != nil {
		return err
	}
	a.feed.confirm(a.path, asked)
	a.room.used.Add(int64(msg.Size()))
	next.seq, next.time = seq, a.clock.now()
	a.stored(next)
	return nil
}

// lastProgress returns the newest progress before an end that brings none, so that it stays
// with the end. An end does not fail for it: where the progress stream does not answer, the end
// has none, since what came with a record may be older than what was shown, and who reads asks.
func (a *appending) lastProgress(ctx context.Context, t *tail) *progress.Progress {
	r, err := a.report(ctx, a.path, t)
	if err != nil {
		return nil
	}
	last := *t
	if r != nil {
		last.report = r
	}
	return last.newest()
}

// stored takes note that the server has taken a record.
func (a *appending) stored(next *tail) {
	a.expires(a.path, next)
	a.tails.put(a.path, true, func(now *tail) *tail {
		if now != nil && now.seq >= next.seq {
			return now // it has been heard of, or more than that
		}
		if now != nil && now.state.Record == a.prev {
			next.follow(now)
		}
		return next
	})
}

// older returns all events before the record, or nil when they are too large to be rewritten.
func (a *appending) older(ctx context.Context, t *tail) ([]*progress.Event, error) {
	if t.first() == 1 {
		return t.events, nil
	}
	list, oldest, err := a.replay(ctx, a.path, t, 0, math.MaxInt, math.MaxInt)
	switch {
	case err != nil:
		return nil, err
	case oldest > 1 || uint64(len(list)) != t.state.Last:
		return nil, nil
	}
	return list, nil
}

// seconds returns a retention in whole seconds, 0 for one that is as good as endless.
func seconds(d time.Duration) int64 {
	const longest = 100 * 365 * 24 * time.Hour
	if d <= 0 || d > longest {
		return 0
	}
	return int64((d + time.Second - 1) / time.Second)
}
