// Package natslog is a [progress.Log] on NATS JetStream: durable on one server, replicated on
// a cluster, and shared by all processes that connect to it.
//
// Two streams hold what there is. In the log stream (STREAMER_LOG, in files) each request has
// a subject of its own, and each append is a message that the server takes only if the one
// before it is the one that the append expects. The append that ends a request rewrites its
// log as a single message, unless it is large ([WithMaxSealed]), and that message expires with
// the request's retention. The progress stream (STREAMER_PROGRESS, in memory) has the newest
// progress of each attempt, for an hour at most. Both are republished to core NATS, where a Log
// subscribes to the requests that are watched, and for a second to those that it begins, since
// these are about to be. [New] creates the streams where they are missing.
//
// What an append returned for is as durable as the server makes it: it survives the end of the
// server's process at once; a power failure may lose what the server had not synced yet (its
// sync_interval, two minutes by default), unless it syncs always or the streams are replicated
// ([WithReplicas]) and not all servers fail together. Progress is lost with the server, but for
// what came with a record.
//
// Requests on NATS are bounded to 5 s even where the context is not. Core NATS may lose
// notifications: each watched log that is quiet is looked at every 20 s, and all of them after
// a reconnect.
package natslog

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"github.com/pay-theory/streamer/v2/progress"
)

// maxReads bounds how many reads wait for the server at once, so that many viewers that come
// back at the same time don't hold up appends.
const maxReads = 16

// Log is a progress.Log on NATS JetStream. All methods may be called concurrently.
type Log struct {
	cfg      config
	nc       *nats.Conn
	js       jetstream.JetStream
	logs     client
	reports  client
	subjects subjects
	clock    clock
	tails    *tails
	feed     *feed
	scan     scan
	room     room

	reads          chan struct{}
	restore        chan struct{} // held while missing streams are made again
	foreign        atomic.Uint64
	reportPatience time.Duration             // how long events wait for the progress that is shown with them
	silent         atomic.Pointer[time.Time] // when progress could not be had last; nil: it could since

	link   link
	ctx    context.Context // of the goroutines
	cancel context.CancelFunc
	ends   sync.WaitGroup
}

var _ progress.Log = (*Log)(nil)

// New returns a log on the server that js is connected to. It creates the streams that are
// missing; those that are there must be as the options say. ctx bounds New alone. The
// connection stays the caller's: it should reconnect for ever (nats.MaxReconnects(-1)), and be
// closed after the log.
func New(ctx context.Context, js jetstream.JetStream, opts ...Option) (*Log, error) {
	c, err := newConfig(opts)
	if err != nil {
		return nil, fmt.Errorf("natslog: %w", err)
	}
	l := &Log{cfg: c, nc: js.Conn(), js: js, reportPatience: reportPatience, reads: make(chan struct{}, maxReads), restore: make(chan struct{}, 1)}
	if err := l.open(ctx); err != nil {
		return nil, fmt.Errorf("natslog: open: %w", err)
	}
	life := context.WithoutCancel(ctx)
	l.link.cut(life)
	l.ctx, l.cancel = context.WithCancel(life)
	l.feed.start(l)
	l.ends.Go(func() { l.mind(life) })
	l.ends.Go(l.keep)
	return l, nil
}

func (l *Log) open(ctx context.Context) error {
	ctx, cancel := bounded(ctx)
	defer cancel()
	api := apiPrefix(l.js.Options())
	l.logs.nc, l.logs.link, l.logs.api, l.logs.stream = l.nc, &l.link, api, l.cfg.logStream
	l.reports.nc, l.reports.link, l.reports.api, l.reports.stream = l.nc, &l.link, api, l.cfg.progStream
	l.subjects = newSubjects(l.cfg.prefix)
	l.tails = newTails(l.cfg.cacheBytes)
	l.feed = newFeed(l.subjects.live)
	l.scan.init()
	if !l.nc.IsConnected() {
		return fmt.Errorf("%w: the connection is %s", progress.ErrUnavailable, l.nc.Status())
	}
	if err := checkVersion(l.nc.ConnectedServerVersion()); err != nil {
		return err
	}
	if _, err := l.js.AccountInfo(ctx); err != nil {
		return unusable(ctx, "JetStream does not answer", err)
	}
	asked := time.Now()
	info, err := ensure(ctx, l.js, l.cfg.logConfig())
	if err != nil {
		return err
	}
	l.heard(info, asked)
	if err := l.ensureReports(ctx); err != nil {
		return err
	}
	if most := int(l.nc.MaxPayload()) / 2; l.cfg.sealBytes > most {
		l.cfg.sealBytes = most
	}
	return nil
}

func (l *Log) ensureReports(ctx context.Context) error {
	info, err := ensure(ctx, l.js, l.cfg.progressConfig())
	if err != nil {
		return err
	}
	l.reports.replicated.Store(info.Config.Replicas > 1)
	return nil
}

const (
	reportPatience = 500 * time.Millisecond // how long events wait for the progress that goes with them
	reportPause    = time.Second            // until the progress stream is tried again when it did not answer
)

// errSilent is wrapped by errors of the progress stream: events don't depend on it.
var errSilent = errors.New("there is no progress to be had or stored now")

// reporting calls f, which asks for progress or stores it. While the progress stream alone does
// not answer, one call at a time tries whether it does, and does not wait for long: what is shown
// with events, and written before them, must not hold them up.
func (l *Log) reporting(ctx context.Context, f func(ctx context.Context) error) error {
	if down := l.silent.Load(); down != nil && (time.Since(*down) < reportPause || !l.silent.CompareAndSwap(down, new(time.Now()))) {
		return errSilent
	}
	bounded, cancel := context.WithTimeout(ctx, l.reportPatience)
	defer cancel()
	err := f(bounded)
	if errors.Is(err, nats.ErrNoResponders) {
		err = l.restored(bounded, f)
	}
	switch {
	case err == nil:
		l.silent.Store(nil)
		return nil
	case ctx.Err() != nil:
		return ctx.Err()
	case refused(err):
		return err
	default:
		l.silent.Store(new(time.Now()))
		return fmt.Errorf("%w: %w", errSilent, err)
	}
}

// restored calls f when the progress stream is there. A single server that restarts forgets its
// streams in memory, not just what is in them: then the stream is made again.
func (l *Log) restored(ctx context.Context, f func(ctx context.Context) error) error {
	select {
	case l.restore <- struct{}{}:
		defer func() { <-l.restore }()
	case <-ctx.Done():
		return ctx.Err()
	}
	if err := l.ensureReports(ctx); err != nil {
		return err
	}
	return f(ctx)
}

// heard takes note of what the server says about the log stream.
func (l *Log) heard(info *jetstream.StreamInfo, asked time.Time) {
	l.clock.heard(info.TimeStamp, asked)
	l.logs.replicated.Store(info.Config.Replicas > 1)
	l.room.learn(info)
}

// inquire asks the server about the log stream.
func (l *Log) inquire(ctx context.Context) error {
	asked := time.Now()
	stream, err := l.js.Stream(ctx, l.cfg.logStream)
	if err != nil {
		return err
	}
	l.heard(stream.CachedInfo(), asked)
	return nil
}

// Close ends the log's goroutines and subscriptions and waits for them. Watchers are not
// notified any more. The connection stays open. It is safe to call Close twice.
func (l *Log) Close() error {
	l.cancel()
	l.ends.Wait()
	return l.feed.close()
}

// Stats says what a Log holds and has seen.
type Stats struct {
	Watched   int    // requests that are watched
	Tails     int    // requests of which the newest part is kept
	TailBytes int    // what they take
	Open      int    // requests that Open remembers
	Scanned   uint64 // messages whose headers Open has read
	Foreign   uint64 // messages that were found on the log's subjects and make no sense
	Missed    uint64 // changes that were found by looking, as no notification came
}

// Stats returns what the log holds now.
func (l *Log) Stats() Stats {
	s := Stats{Watched: l.feed.size(), Open: l.scan.size(), Scanned: l.scan.count.Load(), Foreign: l.foreign.Load(), Missed: l.feed.missed.Load()}
	s.Tails, s.TailBytes = l.tails.size()
	return s
}

// Tail implements progress.Log. It asks the server, a replicated stream's leader.
func (l *Log) Tail(ctx context.Context, key progress.Key) (progress.State, error) {
	if err := ctx.Err(); err != nil {
		return progress.State{}, err
	}
	t, err := l.newest(ctx, path(key))
	if err != nil {
		return progress.State{}, fmt.Errorf("natslog: tail: %w", translate(ctx, err))
	}
	return t.state, nil
}

// newest asks for the newest message of a log. It returns progress.ErrNotFound when there is
// none or its retention is over.
func (l *Log) newest(ctx context.Context, p string) (*tail, error) {
	t, err := l.ask(ctx, p)
	if err == nil && (t == nil || t.gone(l.clock.now())) {
		err = progress.ErrNotFound
	}
	return t, err
}

// ask asks for the newest message of a log, and returns nil when there is none.
func (l *Log) ask(ctx context.Context, p string) (*tail, error) {
	seen, _ := l.tails.get(p)
	m, err := l.logs.last(ctx, l.subjects.ofLog(p))
	if err != nil {
		return nil, err
	}
	if m == nil {
		l.tails.learned(p, seen, nil)
		return nil, nil
	}
	t, err := l.decode(m, seen)
	if err != nil {
		return nil, err
	}
	if t.closing(l.clock.now()) {
		// What is over for one process must be over for all.
		if err := l.inquire(ctx); err != nil {
			return nil, err
		}
	}
	l.expires(p, t)
	return l.tails.learned(p, seen, t), nil
}

// decode returns the tail that a message makes. known spares decoding what is known.
func (l *Log) decode(m *message, known *tail) (*tail, error) {
	h, err := parseHeader(m.header)
	if err != nil {
		return nil, l.senseless(m, err)
	}
	if known != nil && known.seq == m.seq && known.record == h.record && known.epoch == h.epoch {
		t := *known
		t.time = m.time
		return &t, nil
	}
	b, err := decode(&h, m.data)
	if err != nil {
		return nil, l.senseless(m, err)
	}
	t := &tail{
		header: h, seq: m.seq, time: m.time, whole: h.first == 1, size: b.Bytes, state: b.State,
		progress: b.Progress.progress(), events: decoded(b.Events),
	}
	if b.Key != nil {
		t.key = progress.Key{Scope: string(b.Key.Scope), ID: string(b.Key.ID)}
	}
	return t, nil
}

// senseless counts a message that is not a Log's and returns the error that says so.
func (l *Log) senseless(m *message, err error) error {
	l.foreign.Add(1)
	return senseless(m.subject, m.seq, err)
}

// SetProgress implements progress.Log.
func (l *Log) SetProgress(ctx context.Context, key progress.Key, p *progress.Progress) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	if err := l.setProgress(ctx, path(key), p); err != nil {
		return fmt.Errorf("natslog: set progress: %w", translate(ctx, err))
	}
	return nil
}

func (l *Log) setProgress(ctx context.Context, at string, p *progress.Progress) error {
	t, _ := l.tails.get(at)
	if t == nil || p.Attempt > t.attempt || t.state.Ended() {
		var err error
		if t, err = l.newest(ctx, at); err != nil {
			return err
		}
	}
	if t.state.Ended() || p.Attempt != t.attempt {
		return nil
	}
	data, err := encodeProgress(p)
	if err != nil {
		return err
	}
	head := beat{record: t.record, epoch: t.epoch, attempt: p.Attempt, beat: p.Beat, rev: p.Rev}
	msg := &nats.Msg{Subject: l.subjects.ofProgress(at, p.Attempt), Header: nats.Header{headerName: {head.encode()}}, Data: data}
	if err := l.reporting(ctx, func(ctx context.Context) error { _, err := l.reports.publish(ctx, msg); return err }); err != nil {
		return err
	}
	l.tails.reported(at, head, p, time.Now(), true)
	l.feed.notifyBeat(at, head)
	return nil
}

// report asks for the newest progress of an attempt that came alone. It returns nil when there
// is none of that log.
func (l *Log) report(ctx context.Context, p string, t *tail) (*progress.Progress, error) {
	if t.attempt == 0 || t.state.Ended() && t.progress != nil {
		return nil, nil
	}
	asked := time.Now()
	var m *message
	err := l.reporting(ctx, func(ctx context.Context) (err error) {
		m, err = l.reports.last(ctx, l.subjects.ofProgress(p, t.attempt))
		return err
	})
	if err != nil || m == nil {
		return nil, err
	}
	head, err := parseBeat(m.header)
	if err != nil {
		return nil, l.senseless(m, err)
	}
	if head.epoch != t.epoch || t.state.Ended() && m.time.After(t.time) {
		return nil, nil
	}
	r, err := decodeProgress(m.data)
	if err != nil {
		return nil, l.senseless(m, err)
	}
	l.tails.reported(p, head, r, asked, false)
	return r, nil
}

// errAgain says that what was found has changed meanwhile.
var errAgain = errors.New("it changes all the time")

// pause waits before another look at what is about to change.
func pause(ctx context.Context, d time.Duration) error {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}
