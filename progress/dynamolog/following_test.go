package dynamolog_test

import (
	"bytes"
	"context"
	"log/slog"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/dynamodb"
	tables "github.com/aws/aws-sdk-go-v2/service/dynamodb/types"
	"github.com/stretchr/testify/require"

	"github.com/pay-theory/streamer/v2/progress/dynamolog"
)

// following is a log that follows a double's stream, on a table that nothing is in: what it
// looks at is what the stream or the clock says.
type following struct {
	*dynamolog.Log
	*double
	t      *testing.T
	client *client
	said   said

	mu    sync.Mutex
	looks []look
}

// look is a call that looks at watched logs.
type look struct {
	ids        string // in order, with spaces between them
	consistent bool
}

// said is what a log writes to its logger.
type said struct {
	mu   sync.Mutex
	text bytes.Buffer
}

func (s *said) Write(p []byte) (int, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.text.Write(p)
}

// lines returns what was written since lines was called last.
func (s *said) lines() []string {
	s.mu.Lock()
	defer s.mu.Unlock()
	defer s.text.Reset()
	return slices.Collect(strings.Lines(s.text.String()))
}

// follow runs f in a bubble, whose time it passes, with a log that watches nothing yet. It is
// polled each 100 ms to 1 s, and each 10 s while it follows the stream.
func follow(t *testing.T, shards int, f func(t *testing.T, l *following)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		l := &following{t: t, double: newDouble(shards), client: newClient(at(t, "http://127.0.0.1", hollow{}))}
		l.client.hook(l.note, l.see)
		log, err := dynamolog.New(t.Context(), l.client, "table", dynamolog.WithoutTTL(), dynamolog.WithPoll(100*time.Millisecond, time.Second),
			dynamolog.WithStreams(l.double), dynamolog.WithLogger(slog.New(slog.NewTextHandler(&l.said, nil))))
		require.NoError(t, err)
		l.Log = log
		defer func() { require.NoError(t, log.Close()) }()
		f(t, l)
	})
}

// note takes note of a look.
func (l *following) note(_ context.Context, in any) error {
	batch, ok := in.(*dynamodb.BatchGetItemInput)
	if !ok {
		return nil
	}
	asked := batch.RequestItems["table"]
	var ids []string
	for _, k := range asked.Keys {
		ids = append(ids, strings.TrimPrefix(k["p"].(*tables.AttributeValueMemberS).Value, "11:tenant/user/"))
	}
	slices.Sort(ids)
	l.mu.Lock()
	defer l.mu.Unlock()
	l.looks = append(l.looks, look{strings.Join(ids, " "), aws.ToBool(asked.ConsistentRead)})
	return nil
}

// looked returns the looks since looked was called last.
func (l *following) looked() []look {
	l.mu.Lock()
	defer l.mu.Unlock()
	looks := l.looks
	l.looks = nil
	return looks
}

// pass lets time pass.
func (l *following) pass(d time.Duration) {
	time.Sleep(d)
	synctest.Wait()
}

// slow has each call of the stream take a while, and returns how many were made at once at most.
func (l *following) slow(d time.Duration) (most *atomic.Int64) {
	var now atomic.Int64
	most = new(atomic.Int64)
	l.hook(func(context.Context, string) error {
		n := now.Add(1)
		defer now.Add(-1)
		for m := most.Load(); n > m && !most.CompareAndSwap(m, n); m = most.Load() {
		}
		time.Sleep(d)
		return nil
	})
	return most
}

// watch watches requests until stop is called, or the test ends.
func (l *following) watch(ids ...string) (stop func()) {
	l.t.Helper()
	var stops []func()
	for _, id := range ids {
		stop, err := l.Watch(l.t.Context(), key(id), func(string) {})
		require.NoError(l.t, err)
		stops = append(stops, stop)
	}
	return func() {
		for _, stop := range stops {
			stop()
		}
	}
}

// settle watches requests and lets the log follow the stream.
func (l *following) settle(ids ...string) {
	l.t.Helper()
	l.watch(ids...)
	l.pass(time.Second)
	require.True(l.t, l.Stats().Streaming)
	l.looked()
	l.spent()
	require.Empty(l.t, l.said.lines())
}
