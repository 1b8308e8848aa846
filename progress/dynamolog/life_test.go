package dynamolog_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net/http"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/service/dynamodb"
	"github.com/aws/aws-sdk-go-v2/service/dynamodb/types"
	"github.com/stretchr/testify/require"

	"github.com/pay-theory/streamer/v2/internal/awstest"
	"github.com/pay-theory/streamer/v2/progress"
	"github.com/pay-theory/streamer/v2/progress/dynamolog"
	"github.com/pay-theory/streamer/v2/progress/logtest"
)

// items returns what the table holds, by sort key.
func (c *client) items(t testing.TB) map[string]map[string]types.AttributeValue {
	t.Helper()
	out, err := c.Client.(service).Scan(t.Context(), &dynamodb.ScanInput{TableName: &c.table, ConsistentRead: new(true)})
	require.NoError(t, err)
	items := make(map[string]map[string]types.AttributeValue)
	for _, it := range out.Items {
		p, s := it["p"].(*types.AttributeValueMemberS).Value, it["s"].(*types.AttributeValueMemberS).Value
		items[p+" "+s] = it
	}
	return items
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

// gone waits until a log is.
func (l *log) gone(id string) {
	l.t.Helper()
	require.Eventually(l.t, func() bool {
		_, err := l.tail(id)
		return errors.Is(err, progress.ErrNotFound)
	}, patience, 20*time.Millisecond)
}

// long makes a log that has all kinds of items, and returns its state.
func (l *log) long(id string) progress.State {
	l.t.Helper()
	state := l.start(id)
	for n := range 20 {
		state = l.must(id, state, output(300), output(300))
		if n%5 == 4 {
			rec := logtest.Next(state, output(20_000))
			rec.State.Checkpoint = fmt.Appendf(nil, "[%d%s]", n, bytes.Repeat([]byte(" "), 2000))
			require.NoError(l.t, l.Append(l.t.Context(), key(id), state.Record, rec))
			state = rec.State
		}
	}
	return state
}

func TestALongLogIsReadFromAnywhere(t *testing.T) {
	t.Parallel()
	l, _ := newLog(t)
	state := l.long("r")
	state = l.must("r", state, output(700_000)) // two items
	for after := range state.Last {
		page, err := l.Read(t.Context(), key("r"), after, 7)
		require.NoError(t, err)
		require.Equal(t, uint64(1), page.Oldest)
		require.Equal(t, after+1, page.Events[0].Seq)
		require.Equal(t, state.Checkpoint, page.State.Checkpoint)
	}
	page, err := l.Read(t.Context(), key("r"), state.Last-1, 1)
	require.NoError(t, err)
	require.Len(t, page.Events[0].Data, 700_000)
}

func TestAnUnchangedCheckpointIsNotWrittenAgain(t *testing.T) {
	t.Parallel()
	l, c := newLog(t)
	stop, err := l.Watch(t.Context(), key("r"), func(string) {})
	require.NoError(t, err)
	defer stop()
	state := l.start("r")
	rec := logtest.Next(state)
	rec.State.Checkpoint = bytes.Repeat([]byte("1"), 50_000)
	require.NoError(t, l.Append(t.Context(), key("r"), state.Record, rec))
	spent := c.during(t, func() { state = l.must("r", rec.State, output(100)) })
	require.InDelta(t, 1, spent.writes, 0)
	require.Equal(t, rec.State.Checkpoint, state.Checkpoint)

	before := len(c.items(t))
	rec = logtest.Next(state)
	rec.State.Checkpoint = bytes.Repeat([]byte("2"), 50_000)
	require.NoError(t, l.Append(t.Context(), key("r"), state.Record, rec))
	require.Len(t, c.items(t), before, "the checkpoint before is removed")
	tail, err := l.tail("r")
	require.NoError(t, err)
	require.Equal(t, rec.State.Checkpoint, tail.Checkpoint)
}

func TestOpenRemovesLongLogsThatAreGone(t *testing.T) {
	t.Parallel()
	l, c := newLog(t)
	l.end("kept", l.long("kept"), time.Hour)
	kept := len(c.items(t))
	l.end("r", l.long("r"), time.Second)
	state := l.start("segments")
	for range 10 {
		state = l.must("segments", state, output(1000))
	}
	l.end("segments", state, time.Second) // by a writer who does not know of them
	require.Empty(t, l.idle(0))
	all := len(c.items(t))
	l.gone("r")
	l.gone("segments")
	require.Len(t, c.items(t), all)
	require.Eventually(t, func() bool {
		require.Empty(t, l.idle(0))
		return len(c.items(t)) == kept
	}, patience, 50*time.Millisecond)
	require.NotEmpty(t, l.all("kept"))
	require.Empty(t, l.idle(0))
}

func TestALogThatTakesALongLogsPlaceRemovesIt(t *testing.T) {
	t.Parallel()
	l, c := newLog(t)
	l.end("r", l.long("r"), time.Second)
	l.gone("r")
	state := initial()
	state.Epoch = "another"
	state = l.must("r", state, accepted())
	require.Len(t, c.items(t), 1)
	l.must("r", state, event(progress.Started))
	require.Equal(t, []uint64{1, 2}, l.all("r"))
}

func TestAShortLogIsRemovedByTimeToLive(t *testing.T) {
	t.Parallel()
	l, c := newLog(t)
	begun := time.Now()
	l.end("r", l.start("r"), time.Hour)
	for _, it := range c.items(t) {
		ttl, err := strconv.ParseInt(it["ttl"].(*types.AttributeValueMemberN).Value, 10, 64)
		require.NoError(t, err)
		require.False(t, time.Unix(ttl, 0).Before(begun.Add(time.Hour)))
		require.True(t, time.Unix(ttl, 0).Before(time.Now().Add(time.Hour+3*time.Second)))
		require.NotContains(t, it, "o", "it has left the index")
	}
}

// shifted is a way to a DynamoDB whose clock is wrong.
type shifted struct {
	http.RoundTripper
	by time.Duration
}

func (s shifted) RoundTrip(r *http.Request) (*http.Response, error) {
	response, err := s.RoundTripper.RoundTrip(r)
	if err == nil {
		date, err := http.ParseTime(response.Header.Get("Date"))
		if err != nil {
			return nil, err
		}
		response.Header.Set("Date", date.Add(s.by).Format(http.TimeFormat))
	}
	return response, err
}

// Where a machine's clock is an hour behind or ahead of the store's, nothing depends on it.
func TestTheClocksOfMachinesDontMatter(t *testing.T) {
	t.Parallel()
	for _, by := range []time.Duration{-time.Hour, time.Hour} {
		t.Run(by.String(), func(t *testing.T) {
			t.Parallel()
			c := newClient(nil)
			transport := &http.Transport{MaxIdleConnsPerHost: 10}
			t.Cleanup(transport.CloseIdleConnections)
			s := service{Client: at(t, awstest.DynamoDB(t).Endpoint(), shifted{transport, by}), opts: []dynamolog.Option{dynamolog.WithoutTTL()}}
			c.Client, c.table = s, s.create(t)
			l := &log{s.open(t, c, c.table), t, nil}

			l.start("open")
			ended := time.Now()
			l.end("r", l.start("r"), 2*time.Second)
			require.Empty(t, l.idle(time.Minute))
			for time.Since(ended) < 2*time.Second {
				if _, err := l.tail("r"); err != nil && time.Since(ended) < 2*time.Second {
					t.Fatalf("gone after %v: %v", time.Since(ended), err)
				}
			}
			l.gone("r")
			require.Less(t, time.Since(ended), 6*time.Second)
			require.Eventually(t, func() bool { return len(l.idle(2*time.Second)) == 1 }, patience, 20*time.Millisecond)
			require.Empty(t, l.idle(time.Minute))
			l.start("r")
		})
	}
}

// blobs is a blob store in memory.
type blobs struct {
	mu   sync.Mutex
	data map[string][]byte
	err  error
}

func (b *blobs) Put(_ context.Context, name string, data []byte) error {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.err == nil {
		b.data[name] = data
	}
	return b.err
}

func (b *blobs) Get(_ context.Context, name string) ([]byte, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if data, ok := b.data[name]; ok {
		return data, b.err
	}
	return nil, errors.New("no such blob")
}

func (b *blobs) Delete(_ context.Context, name string) error {
	b.mu.Lock()
	defer b.mu.Unlock()
	delete(b.data, name)
	return b.err
}

func (b *blobs) fail(err error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.err = err
}

func TestLargeRecordsGoToTheBlobStoreAndWithTheLog(t *testing.T) {
	t.Parallel()
	b := &blobs{data: make(map[string][]byte)}
	l, c := newLog(t, dynamolog.WithBlobs(b))
	state := l.start("r")
	state = l.must("r", state, output(3_000_000), output(10))
	state = l.must("r", state, output(40_000))
	require.Len(t, b.data, 2)
	require.Equal(t, []uint64{1, 2, 3, 4, 5}, l.all("r"))
	page, err := l.Read(t.Context(), key("r"), 2, 1)
	require.NoError(t, err)
	require.Equal(t, output(3_000_000).Data, page.Events[0].Data)

	b.fail(errors.New("bucket is away"))
	_, err = l.put("r", state, output(40_000))
	require.ErrorIs(t, err, progress.ErrUnavailable)
	require.ErrorContains(t, err, "bucket is away")
	_, err = l.Read(t.Context(), key("r"), 2, 1)
	require.ErrorIs(t, err, progress.ErrUnavailable)
	b.fail(nil)
	require.Len(t, l.all("r"), 5)

	without := l.again()
	_, err = without.Read(t.Context(), key("r"), 2, 1)
	require.ErrorContains(t, err, "WithBlobs")

	l.end("r", state, time.Second)
	l.gone("r")
	require.Eventually(t, func() bool {
		require.Empty(t, l.idle(0))
		return len(c.items(t)) == 0
	}, patience, 50*time.Millisecond)
	require.Empty(t, b.data)
}

func TestWhatIsTooLargeIsRefusedBeforeAnythingIsWritten(t *testing.T) {
	t.Parallel()
	l, c := newLog(t)
	state := l.start("r")
	c.spent()
	_, err := l.put("r", state, output(1<<20))
	require.ErrorIs(t, err, progress.ErrTooLarge)
	require.ErrorContains(t, err, "WithBlobs")
	rec := logtest.Next(state)
	rec.State.Checkpoint = bytes.Repeat([]byte("1"), 400_000)
	require.ErrorIs(t, l.Append(t.Context(), key("r"), state.Record, rec), progress.ErrTooLarge)
	rec = logtest.Next(state)
	rec.Progress = &progress.Progress{Attempt: 1, Message: string(bytes.Repeat([]byte("1"), 300_000))}
	require.ErrorIs(t, l.Append(t.Context(), key("r"), state.Record, rec), progress.ErrTooLarge)
	require.Empty(t, c.spent().calls)
	l.must("r", state, output(1<<19))
}

func TestALogWhoseBlobsStayHoldsUpNoOthers(t *testing.T) {
	t.Parallel()
	b := &blobs{data: make(map[string][]byte)}
	l, c := newLog(t, dynamolog.WithBlobs(b))
	for n := range 16 {
		id := fmt.Sprint("r", n)
		state := l.start(id)
		if n < 3 {
			state = l.must(id, state, output(40_000)) // a blob
		} else {
			state = l.must(id, state, output(20_000)) // in the table
		}
		l.end(id, state, time.Second)
	}
	b.fail(errors.New("no permission"))
	require.Eventually(t, func() bool {
		var told error
		for _, err := range l.Open(t.Context(), time.Hour) {
			told = err
		}
		items := c.items(t)
		return len(items) == 2*3 && errors.Is(told, progress.ErrUnavailable) && strings.Contains(told.Error(), "no permission")
	}, patience, 50*time.Millisecond, "a head and what names the blob stay of three")
	b.fail(nil)
	require.Empty(t, l.idle(time.Hour))
	require.Empty(t, c.items(t))
}
