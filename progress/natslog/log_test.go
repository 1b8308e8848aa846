package natslog_test

import (
	"context"
	"sync"
	"testing"
	"time"

	"github.com/nats-io/nats.go/jetstream"
	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"

	"github.com/pay-theory/streamer/v2/internal/natstest"
	"github.com/pay-theory/streamer/v2/progress"
	"github.com/pay-theory/streamer/v2/progress/logtest"
	"github.com/pay-theory/streamer/v2/progress/natslog"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// connect returns JetStream on a connection of its own.
func connect(t testing.TB, url string) jetstream.JetStream {
	t.Helper()
	js, err := jetstream.New(natstest.Dial(t, url))
	require.NoError(t, err)
	return js
}

// open returns a log that is closed when the test ends.
func open(t testing.TB, js jetstream.JetStream, opts ...natslog.Option) *natslog.Log {
	t.Helper()
	l, err := natslog.New(t.Context(), js, opts...)
	require.NoError(t, err)
	l.Patient()
	t.Cleanup(func() { require.NoError(t, l.Close()) })
	return l
}

// stores remembers which server and which streams a suite's logs are on.
type stores struct {
	url  string
	opts []natslog.Option

	mu     sync.Mutex
	number int
	of     map[progress.Log][]natslog.Option
}

// stay makes a stream that stays: a server that deletes its last stream may fail to create
// another at that moment, as it removes the directory of both.
func stay(t testing.TB, js jetstream.JetStream) {
	t.Helper()
	_, err := js.CreateStream(t.Context(), jetstream.StreamConfig{Name: "STAYS", Subjects: []string{"stays"}})
	require.NoError(t, err)
}

func newStores(t testing.TB, url string, opts ...natslog.Option) *stores {
	t.Helper()
	stay(t, connect(t, url))
	return &stores{url: url, opts: opts, of: make(map[progress.Log][]natslog.Option)}
}

// fresh returns an empty log: its streams are new, and removed when the test ends.
func (s *stores) fresh(t testing.TB) progress.Log {
	t.Helper()
	s.mu.Lock()
	s.number++
	n := "N" + string(rune('A'+s.number/26)) + string(rune('A'+s.number%26))
	s.mu.Unlock()
	opts := append([]natslog.Option{natslog.WithPrefix(n), natslog.WithStreams(n+"_LOG", n+"_PROGRESS")}, s.opts...)
	js := connect(t, s.url)
	ctx := context.WithoutCancel(t.Context())
	t.Cleanup(func() {
		require.NoError(t, js.DeleteStream(ctx, n+"_LOG"))
		require.NoError(t, js.DeleteStream(ctx, n+"_PROGRESS"))
	})
	return s.add(t, js, opts)
}

func (s *stores) add(t testing.TB, js jetstream.JetStream, opts []natslog.Option) progress.Log {
	t.Helper()
	l := open(t, js, opts...)
	s.mu.Lock()
	defer s.mu.Unlock()
	s.of[l] = opts
	return l
}

// another returns a log on the same streams, over another connection.
func (s *stores) another(t testing.TB, l progress.Log) progress.Log {
	t.Helper()
	s.mu.Lock()
	opts := s.of[l]
	s.mu.Unlock()
	return s.add(t, connect(t, s.url), opts)
}

func TestLogKeepsTheContract(t *testing.T) {
	srv := natstest.Start(t, nil)
	s := newStores(t, srv.URL())
	logtest.Run(t, logtest.Harness{
		New:  s.fresh,
		Peer: s.another,
		Reopen: func(t testing.TB, l progress.Log) progress.Log {
			srv.Stop()
			srv.Restart(t)
			return s.another(t, l)
		},
	})
}

// log is a log of a test's own, with what tests do to one.
type log struct {
	*natslog.Log
	t   testing.TB
	js  jetstream.JetStream
	url string
}

func newLog(t testing.TB, url string, opts ...natslog.Option) *log {
	t.Helper()
	js := connect(t, url)
	return &log{Log: open(t, js, opts...), t: t, js: js, url: url}
}

func key(id string) progress.Key { return progress.Key{Scope: "tenant/user", ID: id} }

// put appends events after state and returns the state then.
func (l *log) put(id string, state progress.State, events ...*progress.Event) (progress.State, error) {
	rec := logtest.Next(state, events...)
	if err := l.Append(l.t.Context(), key(id), state.Record, rec); err != nil {
		return state, err
	}
	return rec.State, nil
}

// must is put where it has to succeed.
func (l *log) must(id string, state progress.State, events ...*progress.Event) progress.State {
	l.t.Helper()
	state, err := l.put(id, state, events...)
	require.NoError(l.t, err)
	return state
}

// start begins a request whose attempt has started.
func (l *log) start(id string) progress.State {
	l.t.Helper()
	return l.must(id, l.must(id, progress.State{}, accepted()), event(progress.Started))
}

// end ends a request, whose log then stays for a while.
func (l *log) end(id string, state progress.State, retention time.Duration) progress.State {
	l.t.Helper()
	rec := logtest.Next(state, event(progress.Completed))
	rec.Retention = retention
	require.NoError(l.t, l.Append(l.t.Context(), key(id), state.Record, rec))
	return rec.State
}

// tail returns a state, or an error.
func (l *log) tail(id string) (progress.State, error) { return l.Tail(l.t.Context(), key(id)) }

// all reads a log page by page, and returns the numbers of its events.
func (l *log) all(id string) (numbers []uint64) {
	l.t.Helper()
	for after := uint64(0); ; {
		page, err := l.Read(l.t.Context(), key(id), after, 100)
		require.NoError(l.t, err)
		if len(page.Events) == 0 {
			return numbers
		}
		for _, e := range page.Events {
			numbers = append(numbers, e.Seq)
			after = e.Seq
		}
	}
}

// idle returns the ids that Open yields.
func (l *log) idle(d time.Duration) (ids []string) {
	l.t.Helper()
	for p, err := range l.Open(l.t.Context(), d) {
		require.NoError(l.t, err)
		ids = append(ids, p.Key.ID)
	}
	return ids
}

// info returns what the server says of a stream.
func info(t testing.TB, js jetstream.JetStream, stream string) *jetstream.StreamInfo {
	t.Helper()
	s, err := js.Stream(t.Context(), stream)
	require.NoError(t, err)
	return s.CachedInfo()
}

// eventually waits until ok returns true.
func eventually(t testing.TB, ok func() bool, what string) {
	t.Helper()
	require.Eventually(t, ok, 10*time.Second, 5*time.Millisecond, what)
}
