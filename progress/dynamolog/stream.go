package dynamolog

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"time"

	"github.com/aws/aws-sdk-go-v2/service/dynamodbstreams/types"
)

// stream reads from the table's DynamoDB Stream which items change, while something is
// watched, and has what is watched of them looked at. While it can't, logs are polled as
// without it.
type stream struct {
	log    *Log
	client StreamsClient
	every  time.Duration // between two readings of a shard
	reads  atomic.Uint64 // calls of GetRecords

	// Of the goroutine that reads:

	arn    string
	shards map[string]*streamShard // by id, all that are listed; nil where reading has to begin
	listed time.Time               // when they were, the last time
	read   time.Time               // when all were read without an error, the last time
	fails  int                     // errors since reading was relied upon
	well   time.Time               // since when there are none; zero where the newest reading was one
}

// streamShard is a part of the stream. It is read when it has an iterator or is to have one.
type streamShard struct {
	id    string
	from  types.ShardIteratorType // where reading begins, empty when it has
	next  string                  // the iterator of the next reading, empty at the shard's end
	ended time.Time               // when reading came to its end; zero where that is not so, or the next shard is known
}

const (
	leastEvery = 250 * time.Millisecond // as often as Lambda reads a shard; DynamoDB allows two readers
	readers    = 8                      // shards that are read at once
	maxShards  = 1000                   // that are read: where a table has more, nobody should read them all
	relisted   = time.Minute            // after which shards are listed again in any case
	orphaned   = 30 * time.Second       // how long the next shard may take to be listed
	kept       = time.Minute            // after which a reading that was interrupted begins anew
	settled    = 10 * time.Second       // how long reading must go well after an error to be relied upon
	maxBackoff = time.Minute
)

func newStream(l *Log) *stream {
	return &stream{log: l, client: l.cfg.streams, every: max(l.cfg.fast, leastEvery)}
}

// run reads until the Log ends.
func (s *stream) run() {
	ctx := s.log.life
	for s.log.feed.wanted(ctx) {
		begun, wait := time.Now(), s.every
		err := s.round(ctx)
		switch {
		case ctx.Err() != nil:
			return
		case err != nil:
			wait = s.failed(err)
		default:
			s.succeeded()
		}
		timer := time.NewTimer(wait - time.Since(begun))
		select {
		case <-timer.C:
		case <-ctx.Done():
		}
		timer.Stop()
	}
}

// succeeded has polling get rare, unless reading has failed a short time ago.
func (s *stream) succeeded() {
	if s.fails > 0 {
		if s.well.IsZero() {
			s.well = time.Now()
		}
		if time.Since(s.well) < settled {
			return
		}
		s.fails = 0
		s.log.cfg.logger.Info("the table's stream is followed again", "table", s.log.table)
	}
	s.log.feed.follow(true)
}

// failed has logs polled, and returns how long to wait before the next try.
func (s *stream) failed(err error) time.Duration {
	if s.fails == 0 {
		s.log.cfg.logger.Warn("the table's stream can't be followed: watched logs are polled until it can", "table", s.log.table, "error", err)
	}
	s.log.feed.follow(false)
	if lost(err) {
		s.shards = nil
	}
	s.well = time.Time{}
	s.fails++
	return min(time.Second<<min(s.fails-1, 10), maxBackoff)
}

// round reads all shards once.
func (s *stream) round(ctx context.Context) error {
	if s.shards != nil && time.Since(s.read) > kept {
		s.shards = nil
		s.log.feed.follow(false)
	}
	if s.shards == nil {
		if err := s.begin(ctx); err != nil {
			return err
		}
	}
	if err := s.readAll(ctx); err != nil {
		return err
	}
	if err := s.grow(ctx); err != nil {
		return err
	}
	s.read = time.Now()
	return nil
}

// begin finds the stream and its shards. Those that are open are read from now on.
func (s *stream) begin(ctx context.Context) error {
	table, err := s.log.describe(ctx)
	if err != nil {
		return fmt.Errorf("DescribeTable: %w", err)
	}
	if s.arn, err = streamOf(table); err != nil {
		return err
	}
	list, err := s.list(ctx)
	if err != nil {
		return err
	}
	shards, open := make(map[string]*streamShard, len(list)), false
	for _, d := range list {
		sh := &streamShard{id: str(d.ShardId)}
		if r := d.SequenceNumberRange; r == nil || r.EndingSequenceNumber == nil {
			sh.from, open = types.ShardIteratorTypeLatest, true
		}
		shards[sh.id] = sh
	}
	if !open {
		return errNoShard
	}
	s.shards, s.read = shards, time.Now()
	return nil
}

// readAll reads the shards that may have more, a bounded number at a time. It returns one of
// the errors, and if there is one after which reading has to begin anew, that.
func (s *stream) readAll(ctx context.Context) (failed error) {
	var (
		mu    sync.Mutex
		group sync.WaitGroup
		turns = make(chan struct{}, readers)
	)
	for _, sh := range s.shards {
		if sh.from == "" && sh.next == "" {
			continue
		}
		turns <- struct{}{}
		group.Go(func() {
			defer func() { <-turns }()
			if err := s.readShard(ctx, sh); err != nil {
				mu.Lock()
				defer mu.Unlock()
				if failed == nil || lost(err) {
					failed = err
				}
			}
		})
	}
	group.Wait()
	return failed
}

var (
	errNoShard  = errors.New("no shard of it is open")
	errOrphaned = errors.New("a shard of it has ended, and the one after it is not listed") // though the stream goes on
)

// grow finds the shards that have come up since they were listed, if that may be so. They
// follow those that have ended, and are read from their start.
func (s *stream) grow(ctx context.Context) error {
	fresh := time.Since(s.listed)
	due := fresh > relisted
	for _, sh := range s.shards {
		due = due || !sh.ended.IsZero() && (fresh > time.Second || sh.ended.After(s.listed))
	}
	if !due {
		return nil
	}
	list, err := s.list(ctx)
	if err != nil {
		return err
	}
	listed := make(map[string]*streamShard, len(list))
	for _, d := range list {
		id := str(d.ShardId)
		if listed[id] = s.shards[id]; listed[id] == nil {
			listed[id] = &streamShard{id: id, from: types.ShardIteratorTypeTrimHorizon}
		}
		if parent := s.shards[str(d.ParentShardId)]; parent != nil {
			parent.ended = time.Time{}
		}
	}
	for id, sh := range s.shards {
		if sh.next != "" || !sh.ended.IsZero() {
			listed[id] = sh // whatever the list says
		}
		if !sh.ended.IsZero() && time.Since(sh.ended) > orphaned {
			return fmt.Errorf("%w: %s", errOrphaned, id)
		}
	}
	s.shards = listed
	return nil
}
