package dynamolog

import (
	"context"
	"fmt"
	"time"

	"github.com/pay-theory/streamer/v2/progress"
)

// pollers is how many goroutines look at what is watched: with 100 logs in a call of 10 ms,
// about 40,000 logs a second.
const pollers = 4

// Watch implements progress.Log. notify is called by goroutines of the Log, and by those that
// write or read through it. What another process changes is found by looking: see WithPoll and
// WithStreams.
func (l *Log) Watch(ctx context.Context, key progress.Key, notify func(record string)) (stop func(), err error) {
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	wr := &watcher{}
	wr.notify.Store(&notify)
	w, err := l.feed.join(path(key), wr)
	if err != nil {
		return nil, fmt.Errorf("dynamolog: watch: %w: %w", progress.ErrUnavailable, err)
	}
	l.feed.wake()
	return func() {
		if wr.notify.Swap(nil) != nil {
			l.feed.leave(w, wr)
		}
	}, nil
}

// poll looks at watched logs until the Log ends.
func (l *Log) poll() {
	for {
		select {
		case l.feed.turn <- struct{}{}:
		case <-l.life.Done():
			return
		}
		list, consistent := l.await()
		<-l.feed.turn
		if list == nil {
			return
		}
		l.lookAt(list, consistent)
	}
}

// await returns the next logs to look at, and none when the Log ends.
func (l *Log) await() (list []*watch, consistent bool) {
	for l.life.Err() == nil {
		list, consistent, wait := l.feed.take(readBatch)
		if len(list) > 0 {
			return list, consistent
		}
		timer := time.NewTimer(wait)
		select {
		case <-timer.C:
		case <-l.feed.sooner:
		case <-l.life.Done():
		}
		timer.Stop()
	}
	return nil, false
}

// lookAt looks at logs, and has them looked at again later.
func (l *Log) lookAt(list []*watch, consistent bool) {
	paths := make([]string, len(list))
	for i, w := range list {
		paths[i] = w.path
	}
	begun := time.Now()
	found, left, date, err := l.heads(l.life, paths, consistent)
	missed := make(map[string]bool, len(left))
	for _, p := range left {
		missed[p] = true
	}
	looks := len(found)
	if consistent {
		looks *= 2
	}
	l.feed.looks.Add(uint64(looks))
	for _, w := range list {
		if err != nil || missed[w.path] {
			l.feed.put(w, true, date)
			continue
		}
		h, sense := l.feed.known(w.path), true
		if it := found[w.path]; len(it) == 0 {
			h = nil
		} else if !h.is(it) {
			var err error
			h, err = decodeHead(it)
			sense = err == nil // where it makes none, who reads is told
		}
		if sense {
			l.feed.learned(w.path, h, sight{begun: begun, consistent: consistent, date: date})
		}
		l.feed.put(w, !sense, date)
	}
}

// is reports whether an item is this head.
func (h *head) is(it item) bool {
	if h == nil {
		return false
	}
	r := reader{item: it}
	return r.number(attrWrites) == h.writes && string(r.bytes(attrEpoch)) == h.epoch && r.err == nil
}
