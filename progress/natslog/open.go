package natslog

import (
	"context"
	"errors"
	"fmt"
	"iter"
	"maps"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/nats-io/nats.go/jetstream"

	"github.com/pay-theory/streamer/v2/progress"
)

const (
	scanBatch = 500
	scanIdle  = time.Minute // how long the server keeps a scan that nobody goes on with
	maxOpen   = 200_000     // logs that a scan remembers
)

// scan is what a Log knows of open requests: it goes through the log stream once, and later
// only through what is new. What it has seen begin it remembers until it sees the end.
type scan struct {
	turn  chan struct{} // held by the call of Open that scans
	count atomic.Uint64 // messages that were scanned

	mu   sync.Mutex
	next uint64                // sequence from which on the stream was not scanned
	open map[string]*candidate // by path
	ends map[string]*candidate // logs that have ended and are to be removed
}

// candidate is a log that may be open.
type candidate struct {
	seq     uint64    // of the newest message that is known
	changed time.Time // when something last changed, as far as that is known; or when it is to be removed
}

func (s *scan) init() {
	s.turn = make(chan struct{}, 1)
	s.next = 1
	s.open = make(map[string]*candidate)
	s.ends = make(map[string]*candidate)
}

func (s *scan) size() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return len(s.open)
}

// Open implements progress.Log. The first call of a Log reads the headers of all messages of
// the log stream, later ones those that are new. It also removes logs that have ended and were
// too large to be rewritten. Calls wait for each other.
func (l *Log) Open(ctx context.Context, idle time.Duration) iter.Seq2[progress.Pending, error] {
	return func(yield func(progress.Pending, error) bool) {
		select {
		case l.scan.turn <- struct{}{}:
			defer func() { <-l.scan.turn }()
		case <-ctx.Done():
			yield(progress.Pending{}, ctx.Err())
			return
		}
		if err := l.openRequests(ctx, idle, yield); err != nil && !errors.Is(err, errLeft) {
			yield(progress.Pending{}, fmt.Errorf("natslog: open requests: %w", translate(ctx, err)))
		}
	}
}

// errLeft says that the caller wants no more.
var errLeft = errors.New("left")

func (l *Log) openRequests(ctx context.Context, idle time.Duration, yield func(progress.Pending, error) bool) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	asked := time.Now()
	stream, err := l.js.Stream(ctx, l.cfg.logStream)
	if err != nil {
		return err
	}
	info := stream.CachedInfo()
	l.heard(info, asked)
	l.scan.restart(info.State.LastSeq)
	foreign := l.scanTo(ctx, info, info.TimeStamp.Add(-idle))
	if foreign != nil && !errors.Is(foreign, errForeign) {
		return foreign
	}
	if err := l.removeEnded(ctx); err != nil {
		return err
	}
	old := l.scan.idle(l.clock.now().Add(-idle))
	for batch := range slices.Chunk(old, lookBatch) {
		found, err := l.check(ctx, batch, idle)
		if errors.Is(err, errForeign) {
			foreign = err
		} else if err != nil {
			return err
		}
		for _, p := range found {
			if !yield(p, nil) {
				return errLeft
			}
		}
	}
	return foreign
}

// restart forgets all when the stream is not the one that was scanned.
func (s *scan) restart(last uint64) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.next > last+1 {
		s.next = 1
		clear(s.open)
		clear(s.ends)
	}
}

var errForeign = errors.New("messages that make no sense")

// scanTo reads the headers of what is new in the stream and was stored by a time. It returns
// errForeign, with the last of them, when there were messages that make no sense.
func (l *Log) scanTo(ctx context.Context, info *jetstream.StreamInfo, until time.Time) (foreign error) {
	last := info.State.LastSeq
	next := max(l.scan.next, info.State.FirstSeq)
	if next > last {
		return nil
	}
	consumer, err := l.js.CreateConsumer(ctx, l.cfg.logStream, jetstream.ConsumerConfig{
		AckPolicy: jetstream.AckNonePolicy, DeliverPolicy: jetstream.DeliverByStartSequencePolicy, OptStartSeq: next,
		HeadersOnly: true, MemoryStorage: true, Replicas: 1, InactiveThreshold: scanIdle,
	})
	if err != nil {
		return err
	}
	defer func() {
		bounded, cancel := bounded(context.WithoutCancel(ctx))
		defer cancel()
		// If it can't be deleted now, the server does so when nobody has used it for a while.
		_ = l.js.DeleteConsumer(bounded, l.cfg.logStream, consumer.CachedInfo().Name)
	}()
	waits := newWaits(&l.logs)
	for count := uint64(1); ; {
		batch, err := consumer.FetchNoWait(scanBatch)
		if err != nil {
			return err
		}
		n, done := 0, false
		for msg := range batch.Messages() {
			n++
			if done {
				continue // so that the batch leaves nothing behind
			}
			meta, err := msg.Metadata()
			if err != nil {
				return fmt.Errorf("%w: %w", progress.ErrUnavailable, err)
			}
			if meta.Sequence.Consumer != count {
				return fmt.Errorf("%w: messages of a scan were lost", progress.ErrUnavailable)
			}
			count++
			if done = meta.Timestamp.After(until) || !l.scan.room(); done {
				continue
			}
			if err := l.scanned(msg, meta); err != nil {
				foreign = err
			}
			done = meta.NumPending == 0 || meta.Sequence.Stream >= last
		}
		if err := batch.Error(); n == 0 && waits.after(ctx, err) {
			continue
		}
		if err := errors.Join(batch.Error(), ctx.Err()); err != nil {
			return err
		}
		if n == 0 || done {
			return foreign
		}
	}
}

// room reports whether the scan may remember more.
func (s *scan) room() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return len(s.open)+len(s.ends) < maxOpen
}

// scanned takes note of a message.
func (l *Log) scanned(msg jetstream.Msg, meta *jetstream.MsgMetadata) error {
	seq := meta.Sequence.Stream
	p, ok := l.subjects.pathOf(msg.Subject())
	h, err := parseHeader(msg.Headers())
	s := &l.scan
	s.count.Add(1)
	s.mu.Lock()
	defer s.mu.Unlock()
	s.next = seq + 1
	if !ok || err != nil {
		l.foreign.Add(1)
		return fmt.Errorf("%w: %w", errForeign, senseless(msg.Subject(), seq, err))
	}
	delete(s.open, p)
	delete(s.ends, p)
	switch {
	case !h.phase.Ends():
		s.open[p] = &candidate{seq: seq, changed: meta.Timestamp}
	case h.first > 1 && seconds(h.retention) > 0:
		s.ends[p] = &candidate{seq: seq, changed: meta.Timestamp.Add(h.retention)}
	}
	return nil
}

// idle returns the paths of logs of which no change after a time is known.
func (s *scan) idle(until time.Time) []string {
	s.mu.Lock()
	defer s.mu.Unlock()
	var list []string
	for p, c := range s.open {
		if !c.changed.After(until) {
			list = append(list, p)
		}
	}
	slices.Sort(list)
	return list
}

// removeEnded removes logs whose retention is over and that do not expire by themselves.
func (l *Log) removeEnded(ctx context.Context) error {
	now := l.clock.now()
	l.scan.mu.Lock()
	over := make(map[string]uint64)
	for p, c := range l.scan.ends {
		if !c.changed.After(now) {
			over[p] = c.seq
		}
	}
	l.scan.mu.Unlock()
	for _, p := range slices.Sorted(maps.Keys(over)) {
		// A log that has taken its place begins later in the stream, and stays.
		if err := l.logs.purge(ctx, l.subjects.ofLog(p), over[p]+1); err != nil {
			return err
		}
		l.scan.forget(p, over[p])
	}
	return nil
}

// forget drops what is known of a log, unless more has become known.
func (s *scan) forget(p string, seq uint64) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if c := s.open[p]; c != nil && c.seq <= seq {
		delete(s.open, p)
	}
	if c := s.ends[p]; c != nil && c.seq <= seq {
		delete(s.ends, p)
	}
}

// touch takes note of when something last changed.
func (s *scan) touch(p string, seq uint64, changed time.Time) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if c := s.open[p]; c != nil {
		c.seq, c.changed = max(c.seq, seq), changed
	}
}

// check looks at logs and returns those that are open and idle. When the newest message of
// one makes no sense, it returns the others and errForeign.
func (l *Log) check(ctx context.Context, paths []string, idle time.Duration) (found []progress.Pending, foreign error) {
	subjects := make([]string, len(paths))
	for i, p := range paths {
		subjects[i] = l.subjects.ofLog(p)
	}
	logs, err := l.lastOf(ctx, &l.logs, subjects)
	if err != nil {
		return nil, err
	}
	open := make(map[string]*tail, len(paths))
	var attempts []string
	for i, p := range paths {
		m := logs[subjects[i]]
		if m == nil {
			// The answer may have come from a server that lags, or lack a message that was about
			// to be replaced. What is forgotten here is not found again.
			if m, err = l.logs.last(ctx, subjects[i]); err != nil {
				return nil, err
			}
		}
		t, err := l.stillOpen(p, m)
		if err != nil {
			foreign = fmt.Errorf("%w: %w", errForeign, err)
		}
		if t == nil {
			continue
		}
		open[p] = t
		if t.attempt > 0 {
			attempts = append(attempts, l.subjects.ofProgress(p, t.attempt))
		}
	}
	var beats map[string]*message
	if len(attempts) > 0 {
		if beats, err = l.beats(ctx, attempts); err != nil {
			return nil, err
		}
	}
	now := l.clock.now()
	for _, p := range paths {
		t := open[p]
		if t == nil {
			continue
		}
		pending := progress.Pending{State: t.state}
		if n := t.newest(); n != nil {
			pending.Beat = n.Beat
		}
		changed := t.time
		if m := beats[l.subjects.ofProgress(p, t.attempt)]; m != nil {
			if b, err := parseBeat(m.header); err == nil && b.epoch == t.epoch {
				pending.Beat = max(pending.Beat, b.beat)
				if m.time.After(changed) {
					changed = m.time
				}
			}
		}
		l.scan.touch(p, t.seq, changed)
		if pending.Idle = max(0, now.Sub(changed)); pending.Idle < idle {
			continue
		}
		var known bool
		if pending.Key, known = keyOf(p); !known {
			pending.Key = t.key
		}
		found = append(found, pending)
	}
	return found, foreign
}

// stillOpen returns the tail that the newest message of a log makes, or nil when there is none
// or the request has ended.
func (l *Log) stillOpen(p string, m *message) (*tail, error) {
	if m == nil {
		l.scan.forget(p, ^uint64(0))
		return nil, nil
	}
	t, err := l.decode(m, nil)
	if err != nil {
		return nil, err
	}
	if !t.state.Ended() {
		return t, nil
	}
	// The scan has not come to the end yet; when it does, it knows what is to be done.
	l.scan.forget(p, m.seq)
	return nil, nil
}
