package dynamolog

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/aws/aws-sdk-go-v2/service/dynamodb"
	"github.com/aws/aws-sdk-go-v2/service/dynamodb/types"
	"github.com/aws/smithy-go/middleware"

	"github.com/pay-theory/streamer/v2/progress"
)

// Append implements progress.Log. Beside the errors of the interface there is one that says
// what is wrong with a record that breaks the rules of progress.Record, or was not computed
// from the state of record prev.
func (l *Log) Append(ctx context.Context, key progress.Key, prev string, rec *progress.Record) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	if err := rec.Check(prev); err != nil {
		return fmt.Errorf("dynamolog: append: %w", err)
	}
	a := &appending{Log: l, key: key, path: path(key), prev: prev, rec: rec, ends: rec.State.Ended()}
	err := a.settle(ctx)
	var conflict *progress.ConflictError
	switch {
	case err == nil:
		return nil
	case errors.As(err, &conflict):
		return err
	case a.misfit:
		return fmt.Errorf("dynamolog: append: %w", err)
	default:
		return fmt.Errorf("dynamolog: append: %w", translate(ctx, err))
	}
}

// appending is one call of Append.
type appending struct {
	*Log
	key    progress.Key
	path   string
	prev   string
	rec    *progress.Record
	ends   bool
	misfit bool // the record was not computed from the state before it

	events     []byte     // encoded
	stateBytes []byte     // the state encoded, with a checkpoint that is small
	added      chunk      // what the head has of them
	chunk      []byte     // the same, encoded
	aside      bool       // they are not in the head
	checkpoint checkpoint // where it is when it is not in the state
	replaced   checkpoint // the one that nobody needs after this
}

// maxTries is how often one Append sends its record: again only when the head was not as it
// expected, which what is there then tells.
const maxTries = 8

// settle sends the record, and looks at what is there when the store refuses it.
func (a *appending) settle(ctx context.Context) error {
	a.events = encodeEvents(a.rec.Events)
	a.stateBytes = encodeState(&a.rec.State, len(a.rec.State.Checkpoint) <= maxInState)
	if err := a.room(); err != nil {
		return err
	}
	known := a.feed.known(a.path)
	if known != nil && (known.state.Record != a.prev || !known.expires.IsZero() || !known.whole()) {
		known = nil
	}
	switch {
	case known != nil:
		// The write asks for the record before it alone, so all else is judged here.
		if err := a.judge(ctx, known, time.Time{}); err != nil {
			return a.verdict(err)
		}
	case a.large():
		// What is stored beside the head must not be stored in vain.
		h, date, err := a.rest(ctx, a.path)
		if err != nil {
			return err
		}
		if err := a.judge(ctx, h, date); err != nil {
			return a.verdict(err)
		}
		known = h
	}
	if err := a.prepare(ctx, known); err != nil {
		return err
	}
	for try := range maxTries {
		if try > 1 {
			if err := pause(ctx, try-1); err != nil {
				return err
			}
		}
		begun := time.Now()
		err := a.send(ctx, known)
		refused, ok := errors.AsType[*types.ConditionalCheckFailedException](err)
		if !ok {
			return err
		}
		h, date, err := a.found(ctx, a.path, refused, err)
		if err != nil {
			return err
		}
		// Who is refused reads what is there next, and must not find what it went by.
		a.feed.learned(a.path, h, sight{begun: begun, consistent: true, date: date})
		if err := a.judge(ctx, h, date); err != nil {
			return a.verdict(err)
		}
		known = h
	}
	return fmt.Errorf("%w: %w", progress.ErrUnavailable, errAgain)
}

// large reports whether something of the record does not go into the head.
func (a *appending) large() bool {
	return len(a.events) > a.most() || len(a.rec.State.Checkpoint) > maxInState
}

// most is up to how many bytes the record's events go into the head.
func (a *appending) most() int {
	if a.ends {
		return maxEnd
	}
	return maxInline
}

// errStored says that the record is the newest already.
var errStored = errors.New("stored")

// judge says what h, the newest of the log or what is left of an older one, means for the
// record: nil when it may be sent.
func (a *appending) judge(ctx context.Context, h *head, date time.Time) error {
	rec := a.rec
	a.misfit = false
	switch {
	case h == nil || h.gone(date):
		if a.prev != "" {
			return progress.ErrNotFound
		}
		return nil
	case h.state.Record == rec.ID:
		return errStored
	case !h.expires.IsZero() || h.state.Record != a.prev:
		return a.conflict(ctx, h)
	case rec.State.Last != h.state.Last+uint64(len(rec.Events)):
		a.misfit = true
		return fmt.Errorf("record %s has %d events and a state of event %d, but record %s before it ends with event %d", rec.ID, len(rec.Events), rec.State.Last, a.prev, h.state.Last)
	case rec.State.Epoch != h.epoch:
		a.misfit = true
		return fmt.Errorf("record %s is of epoch %q, but record %s before it of %q", rec.ID, rec.State.Epoch, a.prev, h.epoch)
	}
	return nil
}

// conflict returns the error that tells what is there.
func (a *appending) conflict(ctx context.Context, h *head) error {
	state, err := a.state(ctx, h)
	if errors.Is(err, errAgain) {
		state, err = a.tail(ctx, a.path)
	}
	if err != nil {
		return err
	}
	return &progress.ConflictError{State: state}
}

// verdict turns what judge returned into Append's error.
func (a *appending) verdict(err error) error {
	if err != errStored {
		return err
	}
	a.feed.appended(a.path, a.rec.ID)
	return nil
}

// prepare decides what goes into the head, and stores what does not. known is the head that
// the record follows, where that is known.
func (a *appending) prepare(ctx context.Context, known *head) error {
	rec := a.rec
	if n := len(rec.Events); n > 0 {
		c := chunk{record: rec.ID, first: rec.Events[0].Seq, count: n, size: len(a.events)}
		if a.aside = len(a.events) > a.most(); a.aside {
			c.where, c.parts = inTable, (len(a.events)+partBytes-1)/partBytes
			if a.cfg.blobs != nil && len(a.events) > maxTable {
				c.where, c.parts = inBlob, 0
			}
			if err := a.putAside(ctx, a.path, rec.State.Epoch, &c, a.events); err != nil {
				return err
			}
		} else {
			c.events = rec.Events
		}
		a.added, a.chunk = c, c.encode(a.events)
	}
	if known != nil && a.prev != "" {
		a.replaced = known.checkpoint
	}
	cp := rec.State.Checkpoint
	if len(cp) <= maxInState {
		return nil
	}
	hash := hashOf(cp)
	if a.replaced.record != "" && a.replaced.hash == hash {
		a.checkpoint, a.replaced = a.replaced, checkpoint{}
		return nil
	}
	a.checkpoint = checkpoint{record: rec.ID, hash: hash}
	return a.putData(ctx, a.path, checkpointSort(rec.State.Epoch, rec.ID), cp)
}

// send writes the head after known, the one before or what is left of an older log, and nil
// where that is not known.
func (a *appending) send(ctx context.Context, known *head) error {
	begun := time.Now()
	var h *head
	var err error
	if a.prev == "" {
		h, err = a.create(ctx, known)
	} else {
		h, err = a.extend(ctx, known)
	}
	if err != nil {
		return err
	}
	if !a.feed.learned(a.path, h, sight{begun: begun, consistent: true, own: true}) {
		a.feed.appended(a.path, a.rec.ID)
	}
	if a.replaced.record != "" {
		// Where this fails, it goes with the log.
		_ = a.remove(ctx, a.path, checkpointSort(a.rec.State.Epoch, a.replaced.record))
	}
	return nil
}

// parts reports whether the log has other items than its head, after the record.
func (a *appending) parts(known *head) bool {
	return a.aside || a.checkpoint.record != "" || a.prev != "" && known != nil && known.parts
}

// create writes the first head of a log.
func (a *appending) create(ctx context.Context, old *head) (*head, error) {
	if old != nil && old.parts {
		if err := a.purge(ctx, old); err != nil {
			return nil, err
		}
		old = nil
	}
	rec, now := a.rec, a.clock.latest()
	it := primary(a.path, headSort)
	it[attrVersion], it[attrWrites] = number(version), number(1)
	it[attrEpoch], it[attrRecord], it[attrLast] = blob([]byte(rec.State.Epoch)), blob([]byte(rec.ID)), number(rec.State.Last)
	it[attrState], it[attrAttempt], it[attrChanged] = blob(a.stateBytes), number(rec.State.Attempt), number(now.UnixMilli())
	it[attrChunks], it[attrBytes], it[attrFirst] = list(a.chunk), number(len(a.chunk)), number(1)
	if _, readable := keyOf(a.path); !readable {
		it[attrKey] = blob(encodeKey(a.key))
	}
	if p := rec.Progress; p != nil {
		it[attrProgress], it[attrBeat] = blob(encodeProgress(p)), number(p.Beat)
	}
	if a.checkpoint.record != "" {
		it[attrCheckpoint] = text(a.checkpoint.encode())
	}
	if a.parts(nil) {
		it[attrParts] = boolean(true)
	}
	var expires time.Time
	if !a.ends {
		it[attrList], it[attrSince] = text(shard(openList, a.path)), number(now.Unix())
	} else {
		expires = a.clock.expiry(rec.Retention)
		gone := number(expires.Unix())
		it[attrExpires] = gone
		if a.parts(nil) {
			it[attrList], it[attrSince] = text(shard(endedList, a.path)), gone
		} else {
			it[attrTTL] = gone
		}
	}

	// There is no log, or only what is left of one that is gone and was all in its head.
	in := &dynamodb.PutItemInput{
		TableName: &a.table, Item: it, ReturnValuesOnConditionCheckFailure: types.ReturnValuesOnConditionCheckFailureAllOld,
	}
	var c change
	if old == nil {
		const none, small, ended = "attribute_not_exists(" + attrPath + ")", "attribute_not_exists(" + attrParts + ")", attrExpires + " <= "
		in.ConditionExpression = new(none + " OR " + small + " AND " + ended + c.value(number(a.clock.earliest().Unix())))
	} else {
		c.is(old)
		in.ConditionExpression = new(c.condition())
	}
	in.ExpressionAttributeValues = c.values
	_, err := a.do(ctx, func(ctx context.Context) (middleware.Metadata, error) {
		out, err := a.client.PutItem(ctx, in, once)
		if err != nil {
			return middleware.Metadata{}, err
		}
		return out.ResultMetadata, nil
	})
	if err != nil || a.ends && !a.feed.watched(a.path) {
		return nil, err
	}
	h := &head{path: a.path, key: a.key, epoch: rec.State.Epoch, writes: 1, expires: expires, parts: a.parts(nil), first: 1}
	a.grow(h, now)
	return h, nil
}

// extend writes the head after a record. Where it does not know the head before, it leaves it to
// the store to refuse what does not fit: events that the head has no room for, and an end of a log
// that has other items.
func (a *appending) extend(ctx context.Context, known *head) (*head, error) {
	rec, n := a.rec, len(a.rec.Events)
	before := rec.State.Last - uint64(n)
	parts := a.parts(known)
	moved := !a.ends && n > 0 && known != nil && len(known.chunks) > 0 && known.size+len(a.chunk) > maxHead
	var c change
	switch {
	case n == 0:
	case moved:
		if err := a.putData(ctx, a.path, segmentSort(known.epoch, known.state.Last), encodeSegment(known.chunks)); err != nil {
			return nil, err
		}
		parts = true
		c.set(attrChunks, list(a.chunk))
		c.set(attrBytes, number(len(a.chunk)))
		c.set(attrFirst, number(before+1))
	default:
		c.append(attrChunks, list(a.chunk))
		c.add(attrBytes, number(len(a.chunk)))
	}
	changed, expires := a.clock.latest(), time.Time{}
	c.set(attrRecord, blob([]byte(rec.ID)))
	c.set(attrLast, number(rec.State.Last))
	c.set(attrState, blob(a.stateBytes))
	c.set(attrChanged, number(changed.UnixMilli()))
	c.add(attrWrites, number(1))
	if known == nil || known.state.Attempt != rec.State.Attempt {
		c.set(attrAttempt, number(rec.State.Attempt))
	}
	switch {
	case a.checkpoint.record != "":
		c.set(attrCheckpoint, text(a.checkpoint.encode()))
	case known == nil || known.checkpoint.record != "":
		c.remove(attrCheckpoint)
	}
	a.report(&c)
	if parts && (known == nil || !known.parts) {
		c.set(attrParts, boolean(true))
	}
	if a.ends {
		expires = a.clock.expiry(rec.Retention)
		gone := number(expires.Unix())
		c.set(attrExpires, gone)
		if parts {
			c.set(attrList, text(shard(endedList, a.path)))
			c.set(attrSince, gone)
		} else {
			c.set(attrTTL, gone)
			c.remove(attrList, attrSince)
		}
	}
	if known == nil {
		a.follow(&c, before, parts)
		return a.update(ctx, a.path, &c, a.feed.watched(a.path))
	}
	// It is the known head that is changed or none, so nobody needs to tell what it is then.
	c.is(known)
	h := *known
	h.writes++
	h.expires, h.parts = expires, parts
	if moved {
		h.first, h.size, h.chunks = before+1, 0, nil
	}
	a.grow(&h, changed)
	_, err := a.update(ctx, a.path, &c, false)
	return &h, err
}

// follow makes conditions of all that has to be true of the head before the record.
func (a *appending) follow(c *change, before uint64, parts bool) {
	c.want(attrRecord, "=", blob([]byte(a.prev)))
	c.want(attrEpoch, "=", blob([]byte(a.rec.State.Epoch)))
	c.want(attrLast, "=", number(before))
	c.absent(attrExpires)
	if len(a.chunk) > 0 && !a.ends {
		c.want(attrBytes, "<=", number(maxHead-len(a.chunk)))
	}
	if a.ends && !parts {
		c.absent(attrParts)
	}
}

// grow has a copy of the head before the record be the one after it, which is written at a time.
func (a *appending) grow(h *head, changed time.Time) {
	rec := a.rec
	h.changed = time.UnixMilli(changed.UnixMilli())
	h.state, h.checkpoint = rec.State, a.checkpoint
	if a.checkpoint.record != "" {
		h.state.Checkpoint = nil
	}
	if p, replaced := a.progress(); replaced {
		h.progress = p
	}
	if len(a.chunk) > 0 {
		h.size += len(a.chunk)
		h.chunks = append(slices.Clip(h.chunks), a.added)
	}
}

// progress returns the progress that the head shows after the record, where the record has one or
// those before it are of an attempt that is over.
func (a *appending) progress() (p *progress.Progress, replaced bool) {
	if a.rec.Progress != nil {
		return a.rec.Progress, true
	}
	return nil, slices.ContainsFunc(a.rec.Events, func(e *progress.Event) bool { return e.Kind == progress.Started })
}

// report has the head show the progress.
func (a *appending) report(c *change) {
	switch p, replaced := a.progress(); {
	case p != nil:
		c.set(attrProgress, blob(encodeProgress(p)))
		c.set(attrBeat, number(p.Beat))
	case replaced:
		c.remove(attrProgress, attrBeat)
	}
}
