package memlog

import (
	"context"
	"sync/atomic"

	"github.com/pay-theory/streamer/v2/progress"
)

// watchers are the watchers of a key. Who notifies them takes the list under the shard's lock
// and reads it without: it is appended to, or replaced, but no element of it ever changes.
type watchers struct {
	list    []*watcher
	stopped int // how many of the list
}

// watcher is one call of Watch; its function is nil when it was stopped.
type watcher struct {
	notify atomic.Pointer[func(record string)]
}

// Watch implements progress.Log. notify is called by the goroutine that makes the change,
// outside of all locks; at a removal, last is 0.
func (l *Log) Watch(ctx context.Context, key progress.Key, notify func(record string)) (stop func(), err error) {
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	w := &watcher{}
	w.notify.Store(&notify)
	s := l.shard(key)
	s.mu.Lock()
	defer s.mu.Unlock()
	sl := s.slots[key]
	if sl == nil {
		sl = &slot{}
		s.slots[key] = sl
	}
	sl.watchers.list = append(sl.watchers.list, w)
	return func() {
		s.mu.Lock()
		defer s.mu.Unlock()
		if w.notify.Swap(nil) == nil {
			return
		}
		sl.watchers.drop()
		s.sweep(key, sl)
	}, nil
}

// drop counts one more stopped watcher, and makes a new list when half of them are: so
// stopping costs little however many there are.
func (w *watchers) drop() {
	w.stopped++
	if w.stopped*2 < len(w.list) {
		return
	}
	var list []*watcher
	for _, x := range w.list {
		if x.notify.Load() != nil {
			list = append(list, x)
		}
	}
	w.list, w.stopped = list, 0
}

// sweep removes the slot of a key when nothing is in it.
func (s *shard) sweep(key progress.Key, sl *slot) {
	if sl.log == nil && len(sl.watchers.list) == 0 {
		delete(s.slots, key)
	}
}

// notify tells watchers of a change. No lock may be held.
func notify(list []*watcher, record string) {
	for _, w := range list {
		if f := w.notify.Load(); f != nil {
			(*f)(record)
		}
	}
}
