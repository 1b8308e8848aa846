package natslog

import (
	"container/heap"
	"context"
	"errors"
	"maps"
	"math/rand/v2"
	"slices"
	"time"

	"github.com/nats-io/nats.go"
)

const (
	lookBatch   = 64      // watched logs that are looked at with one request
	lookBytes   = 1 << 20 // about what one such request is answered with
	infoRefresh = 15 * time.Second
	reading     = time.Second      // how old a record is that a reader has surely seen
	unused      = 30 * time.Second // after which what is kept of a log in memory is given up
)

// mind follows what becomes of the connection, until the Log is closed.
func (l *Log) mind(life context.Context) {
	status := l.nc.StatusChanged(nats.CONNECTED, nats.RECONNECTING)
	defer l.nc.RemoveStatusListener(status)
	for {
		select {
		case s := <-status:
			if s == nats.RECONNECTING {
				l.link.cut(life)
			}
			l.feed.lost(func(*watch) bool { return true })
			l.wake()
		case <-l.ctx.Done():
			return
		}
	}
}

// keep looks at watched logs when it is time, and notifies of what nobody told: notifications
// may get lost, and a retention's end comes without one. It runs until the Log is closed.
func (l *Log) keep() {
	refresh := time.NewTicker(infoRefresh)
	defer refresh.Stop()
	timer := time.NewTimer(time.Hour)
	defer timer.Stop()
	for {
		timer.Reset(l.feed.wait())
		select {
		case <-timer.C:
			list, unwatched := l.feed.due(lookBatch, l.clock.now())
			drop(unwatched...)
			l.lookAt(list)
		case <-l.feed.sooner:
		case <-refresh.C:
			l.refresh()
			l.tails.trim(time.Now().Add(-unused))
		case <-l.ctx.Done():
			return
		}
	}
}

// wake has keep see that there is something to do earlier than it thinks.
func (l *Log) wake() {
	select {
	case l.feed.sooner <- struct{}{}:
	default:
	}
}

// refresh asks for the server's time and how full the stream is. When it fails, what is known
// stays good for a while.
func (l *Log) refresh() {
	ctx, cancel := l.link.bounded(l.ctx)
	defer cancel()
	_ = l.inquire(ctx)
}

// wait returns how long there is nothing to look at.
func (f *feed) wait() time.Duration {
	f.mu.Lock()
	defer f.mu.Unlock()
	if len(f.looks) == 0 {
		return time.Hour
	}
	return max(0, time.Until(f.looks[0].due))
}

// due returns logs that are to be looked at now, and says when they are next. It forgets what
// nobody came to watch, and returns the subscriptions of that.
func (f *feed) due(limit int, store time.Time) (list []string, unwatched []*nats.Subscription) {
	f.mu.Lock()
	defer f.mu.Unlock()
	now := time.Now()
	for len(list) < limit && len(f.looks) > 0 && !f.looks[0].due.After(now) {
		w := f.looks[0]
		if w.expected {
			unwatched = append(unwatched, f.remove(w))
			continue
		}
		list = append(list, w.path)
		f.plan(w, now, store)
	}
	return list, unwatched
}

// plan sets when a watch is looked at next. The lock is held.
func (f *feed) plan(w *watch, now, store time.Time) {
	w.due = now.Add(f.quiet - rand.N(f.quiet/5))
	if left := w.expiry.Sub(store); !w.expiry.IsZero() && left > 0 && left < w.due.Sub(now) {
		w.due = now.Add(left + time.Millisecond)
	}
	heap.Fix(&f.looks, w.place)
}

// expires takes note of the newest message of a log, if that is watched: when it is gone, its
// watchers are told.
func (l *Log) expires(p string, t *tail) {
	f := l.feed
	store := l.clock.now()
	f.mu.Lock()
	w := f.paths[p]
	sooner := false
	if w != nil && w.place >= 0 {
		expiry := time.Time{}
		if t.retention > 0 {
			expiry = t.time.Add(t.retention)
		}
		if !expiry.Equal(w.expiry) {
			w.expiry = expiry
			if left := expiry.Sub(store); !expiry.IsZero() && left < time.Until(w.due) {
				w.due = time.Now().Add(max(left, 0) + time.Millisecond)
				heap.Fix(&f.looks, w.place)
				sooner = w.place == 0
			}
		}
	}
	f.mu.Unlock()
	if sooner {
		l.wake()
	}
}

// lookAt asks for the newest message of logs, and for the newest progress, and notifies of
// what watchers don't know.
func (l *Log) lookAt(list []string) {
	if len(list) == 0 {
		return
	}
	select {
	case l.reads <- struct{}{}:
		defer func() { <-l.reads }()
	case <-l.ctx.Done():
		return
	}
	subjects := make([]string, len(list))
	for i, p := range list {
		subjects[i] = l.subjects.ofLog(p)
	}
	asked := time.Now()
	found, err := l.lastOf(l.ctx, &l.logs, subjects)
	if err != nil {
		l.feed.again(list)
		return
	}
	for _, p := range list {
		l.feed.confirm(p, asked)
	}
	attempts := make(map[string]string) // paths by the subject of their newest attempt
	for i, p := range list {
		if attempt := l.looked(p, found[subjects[i]]); attempt > 0 {
			attempts[l.subjects.ofProgress(p, attempt)] = p
		}
	}
	if len(attempts) == 0 {
		return
	}
	store := l.clock.now()
	beats, err := l.beats(l.ctx, slices.Collect(maps.Keys(attempts)))
	if errors.Is(err, errSilent) {
		return // newer progress is heard of when it is stored
	}
	if err != nil {
		l.feed.again(list)
		return
	}
	for subject, m := range beats {
		if head, err := parseBeat(m.header); err == nil && l.feed.news(attempts[subject], head, store.Sub(m.time)) {
			l.feed.notifyBeat(attempts[subject], head)
		}
	}
}

// again has logs looked at soon, as that could not be done now.
func (f *feed) again(list []string) {
	f.mu.Lock()
	defer f.mu.Unlock()
	for _, p := range list {
		if w := f.paths[p]; w != nil && w.place >= 0 {
			w.due = time.Now().Add(reconnectMax + rand.N(reconnectMax))
			heap.Fix(&f.looks, w.place)
		}
	}
}

// looked notifies a log's watchers if its newest message, nil when there is none, is news to
// them. It returns the number of the attempt that may report progress, 0 when there is none.
func (l *Log) looked(p string, m *message) (attempt int) {
	store := l.clock.now()
	if m == nil {
		l.feed.gone(p)
		return 0
	}
	h, err := parseHeader(m.header)
	if err != nil {
		l.foreign.Add(1)
		l.feed.notify(p, "") // who reads it is told why it can't be
		return 0
	}
	if h.retention > 0 && store.Sub(m.time) >= h.retention {
		l.feed.gone(p)
		return 0
	}
	if t := l.tails.peek(p); t != nil && t.seq > m.seq && l.logs.replicated.Load() {
		return 0 // a server that lags has answered
	}
	l.expires(p, &tail{header: h, time: m.time})
	if l.feed.newer(p, h.record, store.Sub(m.time)) {
		l.feed.notifyRecord(p, h.record)
	}
	if h.phase.Ends() {
		return 0
	}
	return h.attempt
}

// gone tells watchers that there is no log any more, if there was one.
func (f *feed) gone(p string) {
	f.mu.Lock()
	var list []*watcher
	if w := f.paths[p]; w != nil && (w.record != "" || !w.expiry.IsZero()) {
		w.record, w.expiry = "", time.Time{}
		list = w.watchers
	}
	f.mu.Unlock()
	tell(list, "")
}

// newer reports whether a record of some age is one that watchers have not heard of. What was
// there long before they came they have read.
func (f *feed) newer(p, record string, age time.Duration) bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	w := f.paths[p]
	if w == nil || w.record == record {
		return false
	}
	if w.record == "" && age > time.Since(w.made)+reading {
		w.record = record
		return false
	}
	f.miss()
	return true
}

// news does for a progress what newer does for a record.
func (f *feed) news(p string, head beat, age time.Duration) bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	w := f.paths[p]
	if w == nil || w.beat.same(head) {
		return false
	}
	if w.beat.record == "" && age > time.Since(w.made)+reading {
		w.beat = head
		return false
	}
	f.miss()
	return true
}

// miss takes note that a notification was lost. The lock is held.
func (f *feed) miss() {
	f.missed.Add(1)
	f.heard = time.Now()
}

// beats returns the newest progress messages of subjects, by subject.
func (l *Log) beats(ctx context.Context, subjects []string) (found map[string]*message, err error) {
	err = l.reporting(ctx, func(ctx context.Context) (err error) {
		found, err = l.lastOf(ctx, &l.reports, subjects)
		return err
	})
	return found, err
}

// lastOf returns the newest messages of subjects, at most lookBatch, by subject.
func (l *Log) lastOf(ctx context.Context, c *client, subjects []string) (map[string]*message, error) {
	found := make(map[string]*message, len(subjects))
	for len(subjects) > 0 {
		pending, err := c.many(ctx, query{LastOf: subjects, MaxBytes: lookBytes}, len(subjects), func(m *message) bool {
			found[m.subject] = m
			return true
		})
		if err != nil {
			return nil, err
		}
		if pending == 0 {
			break
		}
		var rest []string
		for _, s := range subjects {
			if found[s] == nil {
				rest = append(rest, s)
			}
		}
		if len(rest) == len(subjects) {
			break
		}
		subjects = rest
	}
	return found, nil
}
