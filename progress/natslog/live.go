package natslog

import (
	"strings"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
)

// live handles a message that was republished: a record or a progress that is stored now.
func (l *Log) live(m *nats.Msg) {
	p, ok := strings.CutPrefix(m.Subject, l.feed.live)
	if !ok {
		return
	}
	l.feed.confirm(p, time.Now())
	var err error
	if from := m.Header[jetstream.SubjectHeader]; len(from) > 0 && strings.HasPrefix(from[0], l.subjects.progress) {
		err = l.liveProgress(p, m)
	} else {
		err = l.liveRecord(p, m)
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
	known := l.tails.peek(p)
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
	if t := l.tails.peek(p); t == nil || t.report == nil || t.report.Beat != head.beat || t.report.Rev != head.rev || t.attempt != head.attempt {
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

// same reports whether two are the same to viewers, who see no signs of life.
func (b *beat) same(o beat) bool {
	return b.epoch == o.epoch && b.attempt == o.attempt && b.rev == o.rev
}

// tell calls watchers. No lock may be held.
func tell(list []*watcher, record string) {
	for _, w := range list {
		if f := w.notify.Load(); f != nil {
			(*f)(record)
		}
	}
}
