package dynamolog

import (
	"container/heap"
	"context"
	"time"
)

// wanted waits until something is watched, and returns false when the context ends before.
func (f *feed) wanted(ctx context.Context) bool {
	for ctx.Err() == nil {
		if watched, _ := f.size(); watched > 0 {
			return true
		}
		select {
		case <-f.first:
		case <-ctx.Done():
		}
	}
	return false
}

// follow says whether a stream tells what changes, from now on. All logs are looked at once
// then: what changed before the stream was read is found so, and what it did not tell before
// it broke.
func (f *feed) follow(stream bool) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.stream == stream {
		return
	}
	f.stream = stream
	now := time.Now()
	for _, w := range f.paths {
		w.changed, w.pause = true, f.fast
		if w.place >= 0 {
			w.due = now
		}
	}
	heap.Init(&f.due)
	f.wake()
}

// changed has the logs of these that are watched looked at now. That a log has changed is told
// before every replica knows, so the look is a consistent one.
func (f *feed) changed(paths []string) {
	f.mu.Lock()
	defer f.mu.Unlock()
	now, sooner := time.Now(), false
	for _, p := range paths {
		w := f.paths[p]
		if w == nil {
			continue
		}
		w.changed, w.pause = true, f.fast // where it is looked at now, put sees to it
		if w.place >= 0 && w.due.After(now) {
			w.due = now
			heap.Fix(&f.due, w.place)
			sooner = true
		}
	}
	if sooner {
		f.wake()
	}
}

// pause returns how long a log is not looked at, unless it is said to have changed.
func (f *feed) pause(w *watch) time.Duration {
	if f.stream {
		return f.rare
	}
	return w.pause
}
