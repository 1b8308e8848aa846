package dynamolog

import (
	"crypto/sha256"
	"encoding/base64"
	"fmt"
	"strconv"
	"time"

	"github.com/aws/aws-sdk-go-v2/service/dynamodb/types"

	"github.com/pay-theory/streamer/v2/progress"
)

// version is of all items. One with a higher version is not read.
const version = 1

// Attributes. Their names are short since each byte is paid for with each write.
const (
	attrPath    = "p"   // S, partition key
	attrSort    = "s"   // S, sort key
	attrVersion = "z"   // N
	attrTTL     = "ttl" // N, seconds: when DynamoDB may remove the item; only where the head is all of the log

	// Of the head.
	attrKey        = "key" // B, the key where the path is a hash
	attrEpoch      = "e"   // B
	attrRecord     = "r"   // B, ID of the newest record
	attrLast       = "n"   // N, number of the newest event
	attrWrites     = "v"   // N, counts the writes of the head
	attrChanged    = "c"   // N, milliseconds: time of the newest write, by the store's clock
	attrState      = "st"  // B
	attrCheckpoint = "cp"  // S, where the checkpoint is when it is not in the state
	attrAttempt    = "a"   // N, number of the newest attempt
	attrProgress   = "pg"  // B
	attrBeat       = "g"   // N, beat of the progress
	attrChunks     = "ev"  // L of B, the newest records
	attrFirst      = "q"   // N, number of the first event in them
	attrBytes      = "b"   // N, what they take
	attrParts      = "k"   // BOOL, there are other items
	attrExpires    = "x"   // N, seconds: when the log is gone, by the store's clock; only after the end
	attrList       = "o"   // S, partition key of the index: only while the request is open or there are items to remove
	attrSince      = "w"   // N, sort key of the index: when the request began, or when the log is to be removed

	// Of other items.
	attrData = "d" // B
	attrBlob = "u" // S, name in the blob store
)

type item = map[string]types.AttributeValue

func text(s string) types.AttributeValue  { return &types.AttributeValueMemberS{Value: s} }
func blob(b []byte) types.AttributeValue  { return &types.AttributeValueMemberB{Value: b} }
func boolean(b bool) types.AttributeValue { return &types.AttributeValueMemberBOOL{Value: b} }

// number is of what fits into an int64, as all that is counted here does.
func number[T int | int64 | uint64](n T) types.AttributeValue {
	return &types.AttributeValueMemberN{Value: strconv.FormatInt(int64(n), 10)}
}

func list(chunks ...[]byte) types.AttributeValue {
	l := &types.AttributeValueMemberL{Value: make([]types.AttributeValue, len(chunks))}
	for i, c := range chunks {
		l.Value[i] = blob(c)
	}
	return l
}

// primary returns the primary key of an item.
func primary(path, sort string) item { return item{attrPath: text(path), attrSort: text(sort)} }

// head is what the item of that name says: the newest of a log. It is immutable.
type head struct {
	path    string
	key     progress.Key
	epoch   string
	writes  uint64
	changed time.Time
	expires time.Time // zero while the request is open
	parts   bool      // there are other items
	first   uint64    // number of the first event in chunks, state.Last+1 when there are none
	size    int       // what chunks take

	state      progress.State // without a checkpoint where that has its own item
	checkpoint checkpoint
	progress   *progress.Progress
	chunks     []chunk
}

// checkpoint says where a large checkpoint is. The zero value: in the state.
type checkpoint struct {
	record string // that brought it
	hash   string // of its bytes
}

func (c checkpoint) encode() string { return c.hash + c.record }

// hashBytes is the length of a checkpoint's hash, in characters.
const hashBytes = 22

func hashOf(b []byte) string {
	sum := sha256.Sum256(b)
	return base64.RawURLEncoding.EncodeToString(sum[:16])
}

// gone reports whether the retention of the log is over at a time, by the store's clock.
func (h *head) gone(now time.Time) bool { return !h.expires.IsZero() && !now.Before(h.expires) }

// whole reports whether the head has the events that it had when it was read.
func (h *head) whole() bool { return len(h.chunks) > 0 || h.size == 0 }

// newest returns the progress to show, and nil when there is none of the newest attempt.
func (h *head) newest() *progress.Progress {
	if h.progress == nil || h.progress.Attempt != h.state.Attempt {
		return nil
	}
	return h.progress
}

// reader reads the attributes of an item. After the first that is not as it has to be, it
// returns zero values.
type reader struct {
	item
	err error
}

func (r *reader) fail(name, want string) {
	if r.err == nil {
		r.err = fmt.Errorf("its attribute %s is no %s", name, want)
	}
}

func (r *reader) text(name string) string {
	v, ok := r.item[name].(*types.AttributeValueMemberS)
	if !ok {
		r.fail(name, "string")
		return ""
	}
	return v.Value
}

func (r *reader) bytes(name string) []byte {
	v, ok := r.item[name].(*types.AttributeValueMemberB)
	if !ok {
		r.fail(name, "binary")
		return nil
	}
	return v.Value
}

func (r *reader) has(name string) bool { return r.item[name] != nil }

func (r *reader) number(name string) uint64 {
	if v, ok := r.item[name].(*types.AttributeValueMemberN); ok {
		if n, err := strconv.ParseUint(v.Value, 10, 63); err == nil {
			return n
		}
	}
	r.fail(name, "whole number")
	return 0
}

// format checks the version of an item.
func (r *reader) format() error {
	v := r.number(attrVersion)
	switch {
	case r.err != nil:
		return fmt.Errorf("it has no version: %w", r.err)
	case v > version:
		return fmt.Errorf("a newer version of this package wrote it: format %d, and this one reads up to %d", v, version)
	case v != version:
		return fmt.Errorf("its format is %d, and there is none before %d", v, version)
	}
	return nil
}

// decodeHead reads a head.
func decodeHead(it item) (*head, error) {
	r := &reader{item: it}
	if err := r.format(); err != nil {
		return nil, err
	}
	h := &head{
		path: r.text(attrPath), epoch: string(r.bytes(attrEpoch)), writes: r.number(attrWrites),
		changed: time.UnixMilli(int64(r.number(attrChanged))), parts: r.has(attrParts),
		first: r.number(attrFirst), size: int(r.number(attrBytes)),
	}
	record, last := string(r.bytes(attrRecord)), r.number(attrLast)
	state := r.bytes(attrState)
	if r.has(attrExpires) {
		h.expires = time.Unix(int64(r.number(attrExpires)), 0)
	}
	if r.has(attrCheckpoint) {
		cp := r.text(attrCheckpoint)
		if len(cp) < hashBytes {
			return nil, errMalformed
		}
		h.checkpoint = checkpoint{hash: cp[:hashBytes], record: cp[hashBytes:]}
	}
	chunks, ok := it[attrChunks].(*types.AttributeValueMemberL)
	if !ok {
		r.fail(attrChunks, "list")
	}
	if r.err != nil {
		return nil, r.err
	}
	var err error
	if h.state, err = decodeState(state); err != nil {
		return nil, err
	}
	h.state.Epoch, h.state.Record, h.state.Last = h.epoch, record, last
	if r.has(attrProgress) {
		if h.progress, err = decodeProgress(r.bytes(attrProgress)); err != nil {
			return nil, err
		}
	}
	next := h.first
	for _, v := range chunks.Value {
		b, ok := v.(*types.AttributeValueMemberB)
		if !ok {
			return nil, errMalformed
		}
		c, err := decodeChunk(b.Value)
		if err != nil || c.first != next {
			return nil, errMalformed
		}
		next = c.last() + 1
		h.chunks = append(h.chunks, c)
	}
	if next != last+1 || h.state.Ended() != !h.expires.IsZero() {
		return nil, errMalformed
	}
	return h, h.readKey(r)
}

func (h *head) readKey(r *reader) error {
	var ok bool
	if h.key, ok = keyOf(h.path); ok {
		return nil
	}
	d := &decoder{b: r.bytes(attrKey)}
	h.key = progress.Key{Scope: d.text(), ID: d.text()}
	if err := d.finish(); err != nil || path(h.key) != h.path {
		return errMalformed
	}
	return nil
}

// encodeKey returns what readKey reads.
func encodeKey(key progress.Key) []byte {
	var w encoder
	w.text(key.Scope)
	w.text(key.ID)
	return w.b
}

// decodeData reads an item that is not a head.
func decodeData(it item) ([]byte, error) {
	r := &reader{item: it}
	if err := r.format(); err != nil {
		return nil, err
	}
	return r.bytes(attrData), r.err
}
