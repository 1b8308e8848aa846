package dynamolog

import (
	"crypto/sha256"
	"encoding/base64"
	"fmt"
	"hash/fnv"
	"strconv"
	"strings"
	"unicode/utf8"

	"github.com/pay-theory/streamer/v2/progress"
)

// maxPath bounds the part of a primary key that names a log, in bytes. DynamoDB takes 2,048,
// and each byte is paid for with each write.
const maxPath = 256

// path names a log within the table: its items share this partition. It is the key's scope
// with its length before it and its id, so that operators can read it; a hash where that would
// be long, or no text without control characters.
func path(key progress.Key) string {
	p := strconv.Itoa(len(key.Scope)) + ":" + key.Scope + "/" + key.ID
	if len(p) > maxPath || !utf8.ValidString(p) || strings.ContainsFunc(p, control) {
		return hashed(p)
	}
	return p
}

func control(r rune) bool { return r < ' ' || r == 0x7f }

func hashed(s string) string {
	sum := sha256.Sum256([]byte(s))
	return "#" + base64.RawURLEncoding.EncodeToString(sum[:])
}

// keyOf returns the key that a path was made from, and false when it is a hash.
func keyOf(p string) (progress.Key, bool) {
	digits, rest, ok := strings.Cut(p, ":")
	n, err := strconv.Atoi(digits)
	if !ok || err != nil || n < 0 || n >= len(rest) || rest[n] != '/' {
		return progress.Key{}, false
	}
	return progress.Key{Scope: rest[:n], ID: rest[n+1:]}, true
}

// Within its partition a log has one item with the newest of it, and items with what does not
// fit there, whose sort keys begin with the log's epoch: what is left of an older log of the
// same key can't be mistaken for its own.
const headSort = "head"

// partsOf begins the sort keys of all items but the head.
func partsOf(epoch string) string { return tag(epoch) + "/" }

// segmentSort is the sort key of events up to number last, which were in the head before.
func segmentSort(epoch string, last uint64) string {
	return fmt.Sprintf("%se/%020d", partsOf(epoch), last)
}

// segmentsEnd is beyond all segments of a log.
func segmentsEnd(epoch string) string { return partsOf(epoch) + "e/~" }

// asideSort is the sort key of a part of a record that was too large for the head, and whose
// newest event is number last.
func asideSort(epoch string, last uint64, record string, part int) string {
	return fmt.Sprintf("%s/%s/%03d", asidesFrom(epoch, last), tag(record), part)
}

// asidesFrom begins the sort keys of records whose newest event is number last.
func asidesFrom(epoch string, last uint64) string {
	return fmt.Sprintf("%sr/%020d", partsOf(epoch), last)
}

// checkpointSort is the sort key of the checkpoint that a record brought.
func checkpointSort(epoch, record string) string { return partsOf(epoch) + "c/" + tag(record) }

// blobName names what a record has in the blob store.
func blobName(path, epoch, record string) string {
	sum := sha256.Sum256(fmt.Appendf(nil, "%d:%s/%d:%s/%s", len(path), path, len(epoch), epoch, record))
	return base64.RawURLEncoding.EncodeToString(sum[:])
}

// tag makes an id a part of a sort key, different ids different parts.
func tag(id string) string {
	const most = 64
	if id == "" || len(id) > most || strings.ContainsFunc(id, odd) {
		return hashed(id)
	}
	return id
}

func odd(r rune) bool {
	return (r < 'a' || r > 'z') && (r < 'A' || r > 'Z') && (r < '0' || r > '9') && r != '-' && r != '_'
}

// shards is over how many partitions the index of open requests is spread: each takes 1,000
// writes a second, and a request makes two.
const shards = 8

// shard returns the part of the index that a log is in, of those that are open or those that
// have ended and are to be removed.
func shard(list byte, path string) string {
	h := fnv.New32a()
	_, _ = h.Write([]byte(path)) // it never fails
	return shardName(list, int(h.Sum32()%shards))
}

const (
	openList  = 'o' // requests that have not ended
	endedList = 'e' // logs that have ended and are more than their head
)

func shardName(list byte, n int) string { return string(list) + strconv.Itoa(n) }
