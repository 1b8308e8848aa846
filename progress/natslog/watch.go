package natslog

import (
	"container/heap"
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/nats-io/nats.go"

	"github.com/pay-theory/streamer/v2/progress"
)

const (
	channels     = 4
	channelRoom  = 1024
	firstLook    = 500 * time.Millisecond // after which a watch is looked at first: in a cluster, interest spreads while it begins
	quietLook    = 20 * time.Second       // after which it is looked at again
	reconnectMax = time.Second            // looks after a reconnect are spread over this
)

// feed is what watchers are notified by: a subscription for each watched log, on one of a few
// channels that all share, each drained by one goroutine.
type feed struct {
	live     string // prefix of the subjects
	channels [channels]chan *nats.Msg
	missed   atomic.Uint64
	first    time.Duration // firstLook
	quiet    time.Duration // quietLook
	sooner   chan struct{} // there may be something to do earlier than keep thinks

	mu     sync.Mutex
	paths  map[string]*watch
	looks  lookHeap // the same, by when they are looked at
	next   int      // channel
	closed bool
	heard  time.Time // since when nothing is known to be lost
}

// watch is a watched log.
type watch struct {
	path    string
	channel int
	ready   chan struct{} // closed when it is subscribed to, or that failed
	err     error         // set before ready is closed
	sub     *nats.Subscription

	// The feed's lock guards what follows.
	watchers []*watcher // replaced, never changed
	since    time.Time  // when it was subscribed to; zero before
	begun    time.Time  // the same by the store's clock
	record   string     // newest record that watchers know, as a token; "" for none
	beat     beat       // newest progress that watchers know
	expiry   time.Time  // when the log is gone, by the store's clock; zero while that is open
	due      time.Time  // when it is looked at
	place    int        // in the heap
}

// watcher is one call of Watch; its function is nil when it was stopped.
type watcher struct {
	notify atomic.Pointer[func(record string)]
}

func newFeed(live string) *feed {
	f := &feed{
		live: live, paths: make(map[string]*watch), heard: time.Now(), sooner: make(chan struct{}, 1),
		first: firstLook, quiet: quietLook,
	}
	for i := range f.channels {
		f.channels[i] = make(chan *nats.Msg, channelRoom)
	}
	return f
}

// start begins to drain the channels until l ends.
func (f *feed) start(l *Log) {
	for i, ch := range f.channels {
		l.ends.Go(func() {
			for {
				select {
				case m := <-ch:
					if len(ch) >= channelRoom-1 {
						f.lost(func(w *watch) bool { return w.channel == i })
						l.wake()
					}
					l.live(m)
				case <-l.ctx.Done():
					return
				}
			}
		})
	}
}

// Watch implements progress.Log. notify is called by goroutines of the Log, and by those that
// append through it.
func (l *Log) Watch(ctx context.Context, key progress.Key, notify func(record string)) (stop func(), err error) {
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	p := path(key)
	wr := &watcher{}
	wr.notify.Store(&notify)
	w, first, err := l.feed.join(p, wr)
	if err != nil {
		return nil, fmt.Errorf("natslog: watch: %w", translate(ctx, err))
	}
	stop = func() {
		if wr.notify.Swap(nil) != nil {
			l.feed.leave(w, wr)
		}
	}
	if first {
		l.subscribe(ctx, w)
	}
	select {
	case <-w.ready:
		err = w.err
	case <-ctx.Done():
		err = ctx.Err()
	}
	if err != nil {
		stop()
		return nil, fmt.Errorf("natslog: watch: %w", translate(ctx, err))
	}
	return stop, nil
}

// subscribe makes a watch ready: after it, no change is missed.
func (l *Log) subscribe(ctx context.Context, w *watch) {
	defer close(w.ready)
	ctx, cancel := bounded(ctx)
	defer cancel()
	sub, err := l.nc.ChanSubscribe(l.subjects.ofLive(w.path), l.feed.channels[w.channel])
	if err == nil {
		if err = l.nc.FlushWithContext(ctx); err != nil {
			err = errors.Join(err, sub.Unsubscribe())
			sub = nil
		}
	}
	if unused := l.feed.subscribed(w, sub, err, l.clock.now()); unused != nil {
		w.err = errors.Join(errors.New("the log is closed, or nobody watches any more"), unused.Unsubscribe())
		return
	}
	l.wake()
}

// join adds a watcher, and reports whether it is the first of its log.
func (f *feed) join(p string, wr *watcher) (w *watch, first bool, err error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.closed {
		return nil, false, errors.New("the log is closed")
	}
	w = f.paths[p]
	if w == nil {
		w = &watch{path: p, channel: f.next, ready: make(chan struct{}), place: -1}
		f.next = (f.next + 1) % channels
		f.paths[p] = w
		first = true
	}
	w.watchers = append(slices.Clip(w.watchers), wr)
	return w, first, nil
}

// subscribed ends the first watcher's subscribing. It returns a subscription that is not
// needed any more.
func (f *feed) subscribed(w *watch, sub *nats.Subscription, err error, now time.Time) *nats.Subscription {
	f.mu.Lock()
	defer f.mu.Unlock()
	if err != nil {
		w.err = err
		if f.paths[w.path] == w {
			delete(f.paths, w.path) // who comes next tries again
		}
		return nil
	}
	if f.paths[w.path] != w || f.closed {
		return sub
	}
	w.sub, w.since, w.begun = sub, time.Now(), now
	w.due = w.since.Add(f.first)
	heap.Push(&f.looks, w)
	return nil
}

// leave removes a watcher, and with the last one the subscription.
func (f *feed) leave(w *watch, wr *watcher) {
	f.mu.Lock()
	var list []*watcher
	for _, x := range w.watchers {
		if x != wr {
			list = append(list, x)
		}
	}
	w.watchers = list
	var sub *nats.Subscription
	if len(list) == 0 && f.paths[w.path] == w {
		delete(f.paths, w.path)
		if w.place >= 0 {
			heap.Remove(&f.looks, w.place)
		}
		sub, w.sub = w.sub, nil
	}
	f.mu.Unlock()
	if sub != nil {
		// It fails when the connection is closed: then the server has dropped it already.
		_ = sub.Unsubscribe()
	}
}

func (f *feed) size() int {
	f.mu.Lock()
	defer f.mu.Unlock()
	return len(f.paths)
}

// close ends all subscriptions.
func (f *feed) close() error {
	f.mu.Lock()
	f.closed = true
	var subs []*nats.Subscription
	for _, w := range f.paths {
		if w.sub != nil {
			subs = append(subs, w.sub)
		}
	}
	clear(f.paths)
	f.looks = nil
	f.mu.Unlock()
	var errs []error
	for _, s := range subs {
		if err := s.Unsubscribe(); err != nil && !errors.Is(err, nats.ErrConnectionClosed) && !errors.Is(err, nats.ErrBadSubscription) {
			errs = append(errs, fmt.Errorf("natslog: close: %w", err))
		}
	}
	return errors.Join(errs...)
}

// since reports whether all that was stored of a log after a time was heard of.
func (f *feed) since(p string, t time.Time) bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	w := f.paths[p]
	return w != nil && !w.since.IsZero() && t.After(w.since) && t.After(f.heard)
}

// lost takes note that notifications may have been lost: what it concerns is looked at soon.
func (f *feed) lost(concerns func(*watch) bool) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.heard = time.Now()
	for _, w := range f.looks {
		if concerns(w) {
			w.due = f.heard.Add(rand.N(reconnectMax))
		}
	}
	heap.Init(&f.looks)
}

// live handles a message that was republished: a record or a progress that is stored now.
func (l *Log) live(m *nats.Msg) {
	rest, ok := strings.CutPrefix(m.Subject, l.feed.live)
	if !ok || len(rest) < len(liveRecord) {
		return
	}
	p, kind := rest[:len(rest)-len(liveRecord)], rest[len(rest)-len(liveRecord):]
	var err error
	switch kind {
	case liveRecord:
		err = l.liveRecord(p, m)
	case liveProgress:
		err = l.liveProgress(p, m)
	}
	if err != nil {
		l.foreign.Add(1)
		l.feed.notify(p, "")
	}
}

func (l *Log) liveRecord(p string, nm *nats.Msg) error {
	m, err := stored(nm)
	if err != nil {
		return err
	}
	known, _ := l.tails.get(p)
	t := l.tails.announced(p, m)
	if t == nil {
		if t, err = l.decode(m, known); err != nil {
			return err
		}
	}
	l.tails.put(p, true, func(now *tail) *tail {
		switch {
		case now == nil:
		case now.seq == t.seq:
			return now
		case now.seq > t.seq:
			return nil // the store is not the one it was, or the network confused the order
		case now.seq == m.before:
			t.follow(now)
		}
		return t
	})
	l.expires(p, t)
	l.feed.notifyRecord(p, t.record)
	return nil
}

func (l *Log) liveProgress(p string, nm *nats.Msg) error {
	head, err := parseBeat(nm.Header)
	if err != nil {
		return err
	}
	if t, _ := l.tails.get(p); t == nil || t.report == nil || t.report.Beat != head.beat || t.report.Rev != head.rev || t.attempt != head.attempt {
		r, err := decodeProgress(nm.Data)
		if err != nil {
			return err
		}
		l.tails.reported(p, head, r, time.Now(), true)
	}
	l.feed.notifyBeat(p, head)
	return nil
}

// notify tells a log's watchers of a change.
func (f *feed) notify(p, record string) {
	f.mu.Lock()
	var list []*watcher
	if w := f.paths[p]; w != nil {
		list = w.watchers
	}
	f.mu.Unlock()
	tell(list, record)
}

// notifyRecord tells a log's watchers of a record, given as a token, unless they know.
func (f *feed) notifyRecord(p, record string) {
	f.mu.Lock()
	var list []*watcher
	if w := f.paths[p]; w != nil && w.record != record {
		w.record = record
		list = w.watchers
	}
	f.mu.Unlock()
	if len(list) > 0 {
		id, _ := untoken(record)
		tell(list, id)
	}
}

// notifyBeat tells a log's watchers of a progress, unless they know.
func (f *feed) notifyBeat(p string, head beat) {
	f.mu.Lock()
	var list []*watcher
	if w := f.paths[p]; w != nil && !w.beat.same(head) {
		w.beat = head
		list = w.watchers
	}
	f.mu.Unlock()
	if len(list) > 0 {
		id, _ := untoken(head.record)
		tell(list, id)
	}
}

func (b *beat) same(o beat) bool {
	return b.epoch == o.epoch && b.attempt == o.attempt && b.beat == o.beat && b.rev == o.rev
}

// tell calls watchers. No lock may be held.
func tell(list []*watcher, record string) {
	for _, w := range list {
		if f := w.notify.Load(); f != nil {
			(*f)(record)
		}
	}
}

// lookHeap is a heap of watches by when they are looked at.
type lookHeap []*watch

func (h lookHeap) Len() int           { return len(h) }
func (h lookHeap) Less(i, j int) bool { return h[i].due.Before(h[j].due) }
func (h lookHeap) Swap(i, j int) {
	h[i], h[j] = h[j], h[i]
	h[i].place, h[j].place = i, j
}

// Push implements heap.Interface.
func (h *lookHeap) Push(x any) {
	w := x.(*watch)
	w.place = len(*h)
	*h = append(*h, w)
}

// Pop implements heap.Interface.
func (h *lookHeap) Pop() any {
	old := *h
	n := len(old) - 1
	w := old[n]
	old[n] = nil
	*h = old[:n]
	w.place = -1
	return w
}
