package memlog

import "github.com/pay-theory/streamer/v2/progress"

// What things hold beside their texts, in bytes. Tests compare the sum with what the
// allocator says.
const (
	logBytes      = 768 // slot, entry with its state, map, list and heap
	eventBytes    = 192 // Event and its place in the log, which grows by doubling
	requestBytes  = 64
	failureBytes  = 64
	metadataBytes = 96  // an entry of a map
	progressBytes = 112 // Progress
	encodedBytes  = 160 // an encoding beside the data in it, with its slice header
)

// logSize is what an empty log holds.
func logSize(key progress.Key) int64 {
	return logBytes + int64(len(key.Scope)+len(key.ID))
}

// recordSize is what a record adds to an empty log.
func recordSize(key progress.Key, rec *progress.Record) int64 {
	n := stateSize(&rec.State) + progressSize(key, rec.Progress)
	for _, e := range rec.Events {
		n += eventSize(key, e)
	}
	return n
}

// eventSize includes the encoding that viewers will add.
func eventSize(key progress.Key, e *progress.Event) int64 {
	n := eventBytes + encodedBytes + int64(len(key.ID)+len(e.Record)) + 2*int64(len(e.Data)+len(e.Reason)) + 2*failureSize(e.Error)
	if q := e.Request; q != nil {
		n += requestBytes + int64(len(q.Action)+len(q.Payload))
		for k, v := range q.Metadata {
			n += metadataBytes + int64(len(k)+len(v))
		}
	}
	return n
}

// progressSize includes the encoding that viewers will add.
func progressSize(key progress.Key, p *progress.Progress) int64 {
	if p == nil {
		return 0
	}
	return progressBytes + encodedBytes + int64(len(key.ID)) + 2*int64(len(p.Message)+len(p.Metadata))
}

// stateSize is what a state refers to that its log's events don't.
func stateSize(s *progress.State) int64 {
	return int64(len(s.Epoch) + len(s.Action) + len(s.Digest) + len(s.Group) + len(s.Nonce) + len(s.Reason) + len(s.Checkpoint))
}

func failureSize(f *progress.Failure) int64 {
	if f == nil {
		return 0
	}
	return failureBytes + int64(len(f.Code)+len(f.Message)+len(f.Details))
}
