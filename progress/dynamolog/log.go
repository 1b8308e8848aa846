// Package dynamolog is a [progress.Log] on one table of Amazon DynamoDB: as durable as the
// table, and shared by all processes that use it.
//
// Each request has one item, the head: its state, its newest progress and its newest events.
// An append is one conditional write of the head, and so is a progress. Events that the head
// has no more room for go into items beside it, large ones at once, and very large ones to a
// blob store if there is one ([WithBlobs]). A request that ends with all of its events in the
// head is removed by the table's time to live; what has more items is removed by whoever calls
// Open, when the retention is over. An index of what is open serves Open alone.
//
// Expiry and idleness are judged by DynamoDB's own clock, as the Date header of each answer
// tells it, in whole seconds: a log can stay up to two seconds longer than its retention. The
// clocks of the machines don't matter.
//
// Watched logs are looked at ([WithPoll]), 100 in a call, by goroutines that all watchers of a
// Log share; where the table's stream is read ([WithStreams]), mostly those that have changed.
// What this process writes is notified at once. Calls of DynamoDB are bounded to 5 s even where
// the context is not, and made once.
package dynamolog

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/aws/aws-sdk-go-v2/service/dynamodb/types"

	"github.com/pay-theory/streamer/v2/progress"
)

// Log is a progress.Log on a table of DynamoDB. All methods may be called concurrently.
type Log struct {
	store
	cfg    config
	feed   *feed
	stream *stream // nil where none is read
	scan   scan

	life   context.Context // of the goroutines
	cancel context.CancelFunc
	ends   sync.WaitGroup
}

var _ progress.Fresh = (*Log)(nil)

// New returns the log on a table, which must exist: New makes and changes nothing, and says
// what of the table does not fit. The docs have its definition, and CreateTable makes one for
// development. ctx bounds New alone. Close the log when it is no longer used; the client is the
// caller's.
func New(ctx context.Context, client Client, table string, opts ...Option) (*Log, error) {
	c, err := newConfig(opts)
	if err != nil {
		return nil, fmt.Errorf("dynamolog: %w", err)
	}
	l := &Log{cfg: c, store: store{client: client, table: table}}
	if c.streams != nil {
		l.stream = newStream(l)
	}
	if err := l.inspect(ctx); err != nil {
		return nil, fmt.Errorf("dynamolog: table %q: %w", table, err)
	}
	l.feed = newFeed(c.fast, c.quiet)
	l.scan.init()
	l.life, l.cancel = context.WithCancel(context.WithoutCancel(ctx))
	for range pollers {
		l.ends.Go(l.poll)
	}
	if l.stream != nil {
		l.ends.Go(l.stream.run)
	}
	return l, nil
}

// Close ends the log's goroutines and waits for them. Watchers are not notified any more. It
// is safe to call Close twice.
func (l *Log) Close() error {
	l.cancel()
	l.ends.Wait()
	l.feed.close()
	return nil
}

// Stats says what a Log holds and has seen.
type Stats struct {
	Watched int    // requests that are watched
	Looks   uint64 // items that were read for watchers, as what they cost: half a read unit each up to 4 KiB
	Foreign uint64 // items that were found in the table and make no sense

	Streaming   bool   // the table's stream says what changes, and looks are rare
	StreamReads uint64 // calls of GetRecords, each a streams read request unit
}

// Stats returns what the log holds now.
func (l *Log) Stats() Stats {
	s := Stats{Looks: l.feed.looks.Load(), Foreign: l.foreign.Load()}
	s.Watched, s.Streaming = l.feed.size()
	if l.stream != nil {
		s.StreamReads = l.stream.reads.Load()
	}
	return s
}

// Tail implements progress.Log. It is a consistent read.
func (l *Log) Tail(ctx context.Context, key progress.Key) (progress.State, error) {
	if err := ctx.Err(); err != nil {
		return progress.State{}, err
	}
	state, err := l.tail(ctx, path(key))
	if err != nil {
		return progress.State{}, fmt.Errorf("dynamolog: tail: %w", translate(ctx, err))
	}
	return state, nil
}

func (l *Log) tail(ctx context.Context, path string) (progress.State, error) {
	for range maxLook {
		h, err := l.look(ctx, path)
		if err != nil {
			return progress.State{}, err
		}
		state, err := l.state(ctx, h)
		if !errors.Is(err, errAgain) {
			return state, err
		}
	}
	return progress.State{}, fmt.Errorf("%w: %w", progress.ErrUnavailable, errAgain)
}

// look reads the head of a log, and tells watchers of what it finds. It returns
// progress.ErrNotFound when there is no log.
func (l *Log) look(ctx context.Context, path string) (*head, error) {
	begun := time.Now()
	h, err := l.head(ctx, path)
	if err != nil {
		return nil, err
	}
	l.feed.learned(path, h, sight{begun: begun, consistent: true})
	if h == nil {
		return nil, progress.ErrNotFound
	}
	return h, nil
}

const maxLook = 5 // how often what changes is looked at again

// errAgain says that what was found has changed meanwhile.
var errAgain = errors.New("it changes all the time")

// state returns the state of a head, with its checkpoint. It returns errAgain when that has
// been replaced.
func (l *Log) state(ctx context.Context, h *head) (progress.State, error) {
	s := h.state
	if h.checkpoint.record == "" {
		return s, nil
	}
	it, _, err := l.get(ctx, h.path, checkpointSort(h.epoch, h.checkpoint.record))
	if err != nil {
		return s, err
	}
	if len(it) == 0 {
		return s, errAgain
	}
	data, err := decodeData(it)
	if err != nil {
		return s, l.senseless(it, err)
	}
	s.Checkpoint = data
	return s, nil
}

// SetProgress implements progress.Log. It is one conditional write.
func (l *Log) SetProgress(ctx context.Context, key progress.Key, p *progress.Progress) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	if err := l.setProgress(ctx, path(key), p); err != nil {
		return fmt.Errorf("dynamolog: set progress: %w", translate(ctx, err))
	}
	return nil
}

func (l *Log) setProgress(ctx context.Context, path string, p *progress.Progress) error {
	var c change
	c.set(attrProgress, blob(encodeProgress(p)))
	c.set(attrBeat, number(p.Beat))
	c.set(attrChanged, number(l.clock.latest().UnixMilli()))
	c.add(attrWrites, number(1))
	c.want(attrAttempt, "=", number(p.Attempt))
	c.absent(attrExpires)
	c.most(attrBeat, number(p.Beat))
	begun := time.Now()
	h, err := l.update(ctx, path, &c, l.feed.watched(path))
	refused, ok := errors.AsType[*types.ConditionalCheckFailedException](err)
	switch {
	case ok:
		h, date, err := l.found(ctx, path, refused, err)
		if err == nil && (h == nil || h.gone(date)) {
			err = progress.ErrNotFound
		}
		return err
	case err != nil:
		return err
	}
	l.feed.learned(path, h, sight{begun: begun, consistent: true, own: true})
	return nil
}
