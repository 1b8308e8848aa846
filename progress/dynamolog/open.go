package dynamolog

import (
	"context"
	"errors"
	"fmt"
	"iter"
	"slices"
	"sync"
	"time"

	"github.com/aws/aws-sdk-go-v2/service/dynamodb"
	"github.com/aws/aws-sdk-go-v2/service/dynamodb/types"
	"github.com/aws/smithy-go/middleware"

	"github.com/pay-theory/streamer/v2/progress"
)

// maxRemembered bounds how many open requests a Log remembers.
const maxRemembered = 100_000

// scan is what a Log remembers of open requests between calls of Open, so that each is read
// once in a while, and not with each call.
type scan struct {
	mu      sync.Mutex
	changed map[string]time.Time // when each had last changed, by the store's clock
}

func (s *scan) init() { s.changed = make(map[string]time.Time) }

// old returns the paths of which no change after that time is known.
func (s *scan) old(paths []string, after time.Time) []string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return slices.DeleteFunc(paths, func(p string) bool { return s.changed[p].After(after) })
}

// note takes note of a head that was read.
func (s *scan) note(h *head) {
	s.mu.Lock()
	defer s.mu.Unlock()
	switch {
	case !h.expires.IsZero():
		delete(s.changed, h.path)
		return
	case len(s.changed) >= maxRemembered:
		clear(s.changed)
	}
	s.changed[h.path] = h.changed
}

// Open implements progress.Log. It reads the index of open requests, and the heads of those
// that may be idle, consistently. It also removes logs that are gone and are more than their
// head, which the table's time to live does not see to.
func (l *Log) Open(ctx context.Context, idle time.Duration) iter.Seq2[progress.Pending, error] {
	return func(yield func(progress.Pending, error) bool) {
		if err := l.open(ctx, idle, yield); err != nil && !errors.Is(err, errLeft) {
			yield(progress.Pending{}, fmt.Errorf("dynamolog: open requests: %w", translate(ctx, err)))
		}
	}
}

// errLeft says that the caller wants no more.
var errLeft = errors.New("left")

func (l *Log) open(ctx context.Context, idle time.Duration, yield func(progress.Pending, error) bool) (foreign error) {
	if err := ctx.Err(); err != nil {
		return err
	}
	for n := range shards {
		err := l.index(ctx, shardName(openList, n), nil, func(paths []string) error {
			old := l.scan.old(paths, l.clock.earliest().Add(-idle))
			for batch := range slices.Chunk(old, readBatch) {
				found, err := l.check(ctx, batch, idle)
				if errors.Is(err, errForeign) {
					foreign = err
				} else if err != nil {
					return err
				}
				for _, p := range found {
					if !yield(p, nil) {
						return errLeft
					}
				}
			}
			return nil
		})
		if err != nil {
			return err
		}
	}
	if err := l.removeGone(ctx); err != nil {
		return err
	}
	return foreign
}

// errForeign says that items were found that make no sense.
var errForeign = errors.New("some are left out")

// index reads a list of the index, up to a time where one is given.
func (l *Log) index(ctx context.Context, list string, until *time.Time, take func(paths []string) error) error {
	var c change
	in := &dynamodb.QueryInput{IndexName: new(indexName)}
	c.want(attrList, "=", text(list))
	if until != nil {
		c.want(attrSince, "<=", number(until.Unix()))
	}
	in.KeyConditionExpression, in.ExpressionAttributeValues = new(c.condition()), c.values
	return l.query(ctx, in, func(items []item) (bool, error) {
		var paths []string
		for _, it := range items {
			paths = append(paths, (&reader{item: it}).text(attrPath))
		}
		return true, take(paths)
	})
}

// check looks at logs and returns those that are open and idle. Where items make no sense, it
// returns the others and errForeign.
func (l *Log) check(ctx context.Context, paths []string, idle time.Duration) (found []progress.Pending, foreign error) {
	for try := range maxAgain {
		if err := pause(ctx, try); err != nil {
			return nil, err
		}
		items, left, date, err := l.heads(ctx, paths, true)
		if err != nil {
			return nil, err
		}
		for _, it := range items {
			h, err := l.decode(it)
			if err != nil {
				foreign = fmt.Errorf("%w: %w", errForeign, err)
				continue
			}
			l.scan.note(h)
			pending := progress.Pending{Key: h.key, Idle: max(0, date.Sub(h.changed))}
			if !h.expires.IsZero() || pending.Idle < idle {
				continue
			}
			pending.State, err = l.state(ctx, h)
			switch {
			case errors.Is(err, errAgain):
				continue // it has just changed
			case err != nil:
				return nil, err
			}
			if p := h.newest(); p != nil {
				pending.Beat = p.Beat
			}
			found = append(found, pending)
		}
		if len(left) == 0 {
			return found, foreign
		}
		paths = left
	}
	return nil, fmt.Errorf("%w: %w", progress.ErrUnavailable, errUnprocessed)
}

// removeGone removes logs whose retention is over and that have more items than their head. One
// whose blobs can't be removed holds up no others.
func (l *Log) removeGone(ctx context.Context) error {
	now := l.clock.earliest()
	var kept error
	for n := range shards {
		err := l.index(ctx, shardName(endedList, n), &now, func(paths []string) error {
			for _, p := range paths {
				h, date, err := l.rest(ctx, p)
				if errors.Is(err, progress.ErrUnavailable) {
					continue // it makes no sense, and was counted
				}
				if err != nil {
					return err
				}
				if h == nil || !h.parts || !h.gone(date) {
					continue
				}
				switch err := l.purge(ctx, h); {
				case errors.Is(err, errBlobs), errors.Is(err, errNoBlobs):
					kept = err
				case err != nil:
					return err
				}
			}
			return nil
		})
		if err != nil {
			return err
		}
	}
	return kept
}

// purge removes all of a log that is gone, its head at last.
func (l *Log) purge(ctx context.Context, h *head) error {
	var c change
	c.want(attrPath, "=", text(h.path))
	c.begins(attrSort, text(partsOf(h.epoch)))
	in := &dynamodb.QueryInput{
		ProjectionExpression:   new(attrPath + ", " + attrSort + ", " + attrBlob),
		KeyConditionExpression: new(c.condition()), ExpressionAttributeValues: c.values,
	}
	err := l.query(ctx, in, func(items []item) (bool, error) {
		for batch := range slices.Chunk(items, writeBatch) {
			if err := l.discard(ctx, batch); err != nil {
				return false, err
			}
		}
		return true, nil
	})
	if err != nil {
		return err
	}
	_, err = l.do(ctx, func(ctx context.Context) (middleware.Metadata, error) {
		var c change
		c.is(h)
		out, err := l.client.DeleteItem(ctx, &dynamodb.DeleteItemInput{
			TableName: &l.table, Key: primary(h.path, headSort),
			ConditionExpression: new(c.condition()), ExpressionAttributeValues: c.values,
		}, once)
		if err != nil {
			return middleware.Metadata{}, err
		}
		return out.ResultMetadata, nil
	})
	if _, taken := errors.AsType[*types.ConditionalCheckFailedException](err); taken {
		return nil // somebody else was faster
	}
	return err
}

// discard removes items and the blobs that they name.
func (l *Log) discard(ctx context.Context, items []item) error {
	keys := make([]item, len(items))
	for i, it := range items {
		keys[i] = item{attrPath: it[attrPath], attrSort: it[attrSort]}
		if it[attrBlob] == nil {
			continue
		}
		if l.cfg.blobs == nil {
			return fmt.Errorf("%w: %w", progress.ErrUnavailable, errNoBlobs)
		}
		if err := blobError(ctx, l.cfg.blobs.Delete(ctx, (&reader{item: it}).text(attrBlob))); err != nil {
			return err
		}
	}
	return l.removeAll(ctx, keys)
}
