package natslog

import (
	"container/heap"
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/nats-io/nats.go"

	"github.com/pay-theory/streamer/v2/progress"
)

const (
	channels     = 4
	channelRoom  = 4096
	firstLook    = 500 * time.Millisecond // after which a watch is looked at first: in a cluster, interest spreads while it begins
	quietLook    = 20 * time.Second       // after which it is looked at again
	expectation  = time.Second            // how long a log is subscribed to that this process has begun, and nobody watches yet
	maxExpected  = 1024                   // logs that are subscribed to so at most
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

	mu       sync.Mutex
	paths    map[string]*watch
	looks    lookHeap // the same, by when they are looked at
	expected int      // those of them that nobody has watched yet
	next     int      // channel
	closed   bool
	heard    time.Time // since when nothing is known to be lost
}

// watch is a watched log.
type watch struct {
	path    string
	channel int

	// The feed's lock guards what follows.
	sub      *nats.Subscription
	starting *starting  // nil: it is subscribed to
	watchers []*watcher // replaced, never changed
	expected bool       // nobody has watched it yet
	made     time.Time  // when it was subscribed to; zero before
	since    time.Time  // after that, what the server stores is heard of; zero where that is not known
	record   string     // newest record that watchers know, as a token; "" for none
	beat     beat       // newest progress that watchers know
	expiry   time.Time  // when the log is gone, by the store's clock; zero while that is open
	due      time.Time  // when it is looked at
	place    int        // in the heap
}

// starting is the subscribing to a log, which all wait for who watch it.
type starting struct {
	done chan struct{} // closed when it is subscribed to, or that failed
	err  error         // set before
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
	w, begun, first, err := l.feed.join(p, wr)
	if err != nil {
		return nil, fmt.Errorf("natslog: watch: %w", translate(ctx, err))
	}
	stop = func() {
		if wr.notify.Swap(nil) != nil {
			l.feed.leave(w, wr)
		}
	}
	if first {
		l.subscribe(w, begun)
	}
	if begun != nil {
		select {
		case <-begun.done:
			err = begun.err
		case <-ctx.Done():
			err = ctx.Err()
		}
	}
	if err != nil {
		stop()
		return nil, fmt.Errorf("natslog: watch: %w", translate(ctx, err))
	}
	return stop, nil
}

// expect subscribes to a log that this process is about to begin: most often somebody is about
// to watch it, and a worker to read it, and what is heard of from its first record on need not
// be asked for.
func (l *Log) expect(p string) {
	if w := l.feed.expect(p); w != nil {
		l.subscribe(w, w.starting)
	}
}

// subscribe makes a watch ready. The server is not waited for: what it stores before it has
// the subscription is found by the first look, and until it is known to have it, reads ask it.
func (l *Log) subscribe(w *watch, begun *starting) {
	defer close(begun.done)
	sub, err := l.nc.ChanSubscribe(l.subjects.ofLive(w.path), l.feed.channels[w.channel])
	if err != nil {
		begun.err = err
	} else if !l.feed.subscribed(w, sub) {
		begun.err = errors.Join(errors.New("the log is closed, or nobody watches any more"), sub.Unsubscribe())
	}
	if begun.err != nil {
		l.feed.fail(w)
		return
	}
	l.wake()
}

// join adds a watcher, and reports whether it is the first of its log. begun is nil where the
// log is subscribed to already.
func (f *feed) join(p string, wr *watcher) (w *watch, begun *starting, first bool, err error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.closed {
		return nil, nil, false, errors.New("the log is closed")
	}
	w = f.paths[p]
	if w == nil {
		w = f.add(p)
		first = true
	}
	w.watchers = append(slices.Clip(w.watchers), wr)
	if w.expected {
		w.expected = false
		f.expected--
		if w.place >= 0 {
			w.due = w.made.Add(f.first)
			heap.Fix(&f.looks, w.place)
		}
	}
	return w, w.starting, first, nil
}

// add makes a watch. The lock is held.
func (f *feed) add(p string) *watch {
	w := &watch{path: p, channel: f.next, starting: &starting{done: make(chan struct{})}, place: -1}
	f.next = (f.next + 1) % channels
	f.paths[p] = w
	return w
}

// expect makes a watch without a watcher, and returns nil where that is not needed, or there
// are too many.
func (f *feed) expect(p string) *watch {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.closed || f.paths[p] != nil || f.expected >= maxExpected {
		return nil
	}
	w := f.add(p)
	w.expected = true
	f.expected++
	return w
}

// subscribed takes note that a log is subscribed to. It returns false when nobody needs that.
func (f *feed) subscribed(w *watch, sub *nats.Subscription) bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.paths[w.path] != w || f.closed {
		return false
	}
	w.sub, w.made, w.starting = sub, time.Now(), nil
	w.due = w.made.Add(f.first)
	if w.expected {
		w.due = w.made.Add(expectation)
	}
	heap.Push(&f.looks, w)
	return true
}

// fail forgets a watch that could not begin: who comes next tries again.
func (f *feed) fail(w *watch) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.remove(w)
}

// remove forgets a watch, and returns its subscription, nil where it has none. The lock is
// held.
func (f *feed) remove(w *watch) *nats.Subscription {
	if f.paths[w.path] != w {
		return nil
	}
	delete(f.paths, w.path)
	if w.expected {
		w.expected = false
		f.expected--
	}
	if w.place >= 0 {
		heap.Remove(&f.looks, w.place)
	}
	sub := w.sub
	w.sub = nil
	return sub
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
	if len(list) == 0 {
		sub = f.remove(w)
	}
	f.mu.Unlock()
	drop(sub)
}

// drop ends subscriptions, of which those that are nil are none.
func drop(subs ...*nats.Subscription) {
	for _, s := range subs {
		if s != nil {
			// It fails when the connection is closed: then the server has dropped it already.
			_ = s.Unsubscribe()
		}
	}
}

func (f *feed) size() int {
	f.mu.Lock()
	defer f.mu.Unlock()
	return len(f.paths) - f.expected
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
	f.looks, f.expected = nil, 0
	f.mu.Unlock()
	var errs []error
	for _, s := range subs {
		if err := s.Unsubscribe(); err != nil && !errors.Is(err, nats.ErrConnectionClosed) && !errors.Is(err, nats.ErrBadSubscription) {
			errs = append(errs, fmt.Errorf("natslog: close: %w", err))
		}
	}
	return errors.Join(errs...)
}

// confirm takes note that the server did something for the log that it was asked for at a
// time. If that was after it was subscribed to, the server has the subscription, since it
// handles in order what comes over a connection.
func (f *feed) confirm(p string, asked time.Time) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if w := f.paths[p]; w != nil && w.since.IsZero() && !w.made.IsZero() && asked.After(w.made) {
		w.since = asked
	}
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
