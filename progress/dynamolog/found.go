package dynamolog

import "time"

const (
	ownTime  = time.Second // how long what this process has written counts as known, while its ticket is sent
	maxFound = 256         // logs that are remembered as having been found lately, and as many before
)

// found is what was found of a log that nobody watches.
type found struct {
	head  *head     // nil: nothing is known
	own   bool      // this process has written it
	until time.Time // so long it counts as known
	seen  time.Time // until then, readers were told what others have written
	floor time.Time // what was asked for earlier may be older than what this process has written
}

// findings is what was found lately of logs that nobody watches. The zero value is ready.
type findings struct {
	young, old map[string]found // what is not found again in young goes with old
	turned     time.Time        // when young was begun
	forgotten  time.Time        // what was found before may be forgotten
}

func (f *findings) of(path string) found {
	if k, ok := f.young[path]; ok {
		return k
	}
	return f.old[path]
}

// take returns what was found of a log, and forgets it.
func (f *findings) take(path string) found {
	k := f.of(path)
	delete(f.young, path)
	delete(f.old, path)
	return k
}

// recall returns what this process has just written, where it has events that a reader with that
// cursor has not seen.
func (f *findings) recall(path string, after uint64) *head {
	if k := f.of(path); k.own && k.head != nil && after < k.head.state.Last && time.Now().Before(k.until) {
		return k.head
	}
	return nil
}

// keep takes note of what was found. What the order of two findings can't be told of is not known.
func (f *findings) keep(path string, h *head, s sight) {
	k, now := f.of(path), time.Now()
	lost := s.begun.Before(f.forgotten)
	if !s.own && (lost || s.begun.Before(k.floor)) {
		return
	}
	if s.own && (lost || s.begun.Before(k.seen)) {
		h = nil
	}
	k.head, k.own, k.until = h, s.own, now.Add(freshness)
	switch {
	case h != nil && !h.expires.IsZero():
		k.head = nil
	case s.own && h != nil:
		k.until = now.Add(ownTime)
	}
	if s.own {
		k.floor = now
	} else {
		k.seen = now
	}
	if len(f.young) >= maxFound {
		f.young, f.old, f.turned, f.forgotten = nil, f.young, now, f.turned
	}
	if f.young == nil {
		f.young = make(map[string]found)
	}
	f.young[path] = k
}
