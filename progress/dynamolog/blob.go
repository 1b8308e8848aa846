package dynamolog

import (
	"context"
	"errors"
	"fmt"

	"github.com/pay-theory/streamer/v2/progress"
)

// Blobs stores what is too large for the table: package s3blob does so in S3. Names are of
// letters, digits, - and _, and at most 64 characters; what is put under a name again is the
// same. All methods may be called concurrently, end soon after their context does, and must not
// change data. It is as durable as the table has to be.
type Blobs interface {
	// Put returns nil when data is stored.
	Put(ctx context.Context, name string, data []byte) error

	// Get returns what was put. There is no error for a name that is not there other than one
	// that says so.
	Get(ctx context.Context, name string) ([]byte, error)

	// Delete returns nil when there is nothing under the name, also when there was nothing.
	Delete(ctx context.Context, name string) error
}

// Where events go, by the size of their record.
const (
	maxHead      = 3 << 10   // bytes of events that stay in the head of an open request
	maxInline    = 1536      // of a record, to be put there at all: each later write of the head pays for it
	maxEnd       = 32 << 10  // of the record with the end, which stays in the head: nothing is written later
	maxTable     = 32 << 10  // of a record that goes into the table where there is a blob store
	maxParts     = 1 << 20   // of a record that goes into the table where there is none
	maxBlob      = 64 << 20  // of a record that goes into the blob store
	partBytes    = 380 << 10 // of an item: DynamoDB takes 400 KiB with keys and all
	maxInState   = 1 << 10   // of a checkpoint that stays in the head
	maxItemBytes = 400 << 10
)

// room checks that the record can be stored, before anything is written.
func (a *appending) room() error {
	most := maxParts
	if a.cfg.blobs != nil {
		most = maxBlob
	}
	if n := len(a.events); n > most {
		return fmt.Errorf("%w: its events have %d bytes, at most %d are stored%s", progress.ErrTooLarge, n, most, withBlobs(a.cfg.blobs))
	}
	if n := len(a.rec.State.Checkpoint); n > partBytes {
		return fmt.Errorf("%w: its checkpoint has %d bytes, at most %d are stored", progress.ErrTooLarge, n, partBytes)
	}
	rest := len(a.stateBytes)
	if p := a.rec.Progress; p != nil {
		rest += len(encodeProgress(p))
	}
	if rest > maxItemBytes/2 {
		return fmt.Errorf("%w: its state and progress have %d bytes, at most %d are stored", progress.ErrTooLarge, rest, maxItemBytes/2)
	}
	return nil
}

func withBlobs(b Blobs) string {
	if b == nil {
		return " in the table: WithBlobs takes more"
	}
	return ""
}

// putAside stores the events of a record in items of their own, or in the blob store. Until
// the head speaks of them nobody reads them.
func (l *Log) putAside(ctx context.Context, path, epoch string, c *chunk, events []byte) error {
	if c.where == inTable {
		for part := range c.parts {
			from := part * partBytes
			data := events[from:min(from+partBytes, len(events))]
			if err := l.putData(ctx, path, asideSort(epoch, c.last(), c.record, part), data); err != nil {
				return err
			}
		}
		return nil
	}
	// The item names the blob, for whoever removes the log, and before there is one.
	name := blobName(path, epoch, c.record)
	it := primary(path, asideSort(epoch, c.last(), c.record, 0))
	it[attrVersion], it[attrBlob] = number(version), text(name)
	if err := l.put(ctx, it); err != nil {
		return err
	}
	return blobError(ctx, l.cfg.blobs.Put(ctx, name, events))
}

// blobError says that an error is the blob store's.
func blobError(ctx context.Context, err error) error {
	switch {
	case err == nil:
		return nil
	case ctx.Err() != nil:
		return ctx.Err()
	}
	return fmt.Errorf("%w: %w: %w", progress.ErrUnavailable, errBlobs, err)
}

var errBlobs = errors.New("blob store")

var errNoBlobs = errors.New("a process with another configuration wrote it: its events are in a blob store, and this one has none (see WithBlobs)")

// getBlob reads the events of a chunk that are in the blob store.
func (l *Log) getBlob(ctx context.Context, path, epoch string, c *chunk) ([]byte, error) {
	if l.cfg.blobs == nil {
		return nil, fmt.Errorf("%w: record %s: %w", progress.ErrUnavailable, c.record, errNoBlobs)
	}
	data, err := l.cfg.blobs.Get(ctx, blobName(path, epoch, c.record))
	return data, blobError(ctx, err)
}
