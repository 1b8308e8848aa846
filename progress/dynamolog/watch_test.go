package dynamolog_test

import (
	"context"
	"fmt"
	"io"
	"net/http"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/dynamodb"
	"github.com/stretchr/testify/require"

	"github.com/pay-theory/streamer/v2/progress"
	"github.com/pay-theory/streamer/v2/progress/dynamolog"
)

// hollow is a DynamoDB with a table that is empty and stays so. It needs no network, so that
// time can be a bubble's.
type hollow struct{}

func (hollow) RoundTrip(r *http.Request) (*http.Response, error) {
	answer := `{"Responses": {"table": []}, "ConsumedCapacity": []}`
	if strings.HasSuffix(r.Header.Get("X-Amz-Target"), ".DescribeTable") {
		answer = `{"Table": {
			"TableStatus": "ACTIVE",
			"AttributeDefinitions": [{"AttributeName": "p", "AttributeType": "S"}, {"AttributeName": "s", "AttributeType": "S"},
				{"AttributeName": "o", "AttributeType": "S"}, {"AttributeName": "w", "AttributeType": "N"}],
			"KeySchema": [{"AttributeName": "p", "KeyType": "HASH"}, {"AttributeName": "s", "KeyType": "RANGE"}],
			"GlobalSecondaryIndexes": [{"IndexName": "open", "IndexStatus": "ACTIVE", "Projection": {"ProjectionType": "KEYS_ONLY"},
				"KeySchema": [{"AttributeName": "o", "KeyType": "HASH"}, {"AttributeName": "w", "KeyType": "RANGE"}]}]
		}}`
	}
	return &http.Response{
		StatusCode: http.StatusOK, Request: r, Body: io.NopCloser(strings.NewReader(answer)),
		Header: http.Header{"Content-Type": {"application/x-amz-json-1.0"}, "Date": {time.Now().UTC().Format(http.TimeFormat)}},
	}, nil
}

func TestWatchersShareLooksWhichGetRarer(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		const watched = 250
		c := newClient(at(t, "http://127.0.0.1", hollow{}))
		l, err := dynamolog.New(t.Context(), c, "table", dynamolog.WithoutTTL(), dynamolog.WithPoll(100*time.Millisecond, time.Second))
		require.NoError(t, err)
		defer func() { require.NoError(t, l.Close()) }()
		for n := range watched {
			for range 3 {
				stop, err := l.Watch(t.Context(), key(fmt.Sprint("r", n)), func(string) {})
				require.NoError(t, err)
				defer stop()
			}
		}
		require.Equal(t, watched, l.Stats().Watched)
		c.spent()
		looks := func(d time.Duration) int {
			time.Sleep(d)
			synctest.Wait()
			calls := c.spent().calls
			require.Len(t, calls, 1, "%v", calls)
			return calls["BatchGetItem"]
		}
		const calls = 3 // for 250, 100 in each
		require.Equal(t, 5*calls, looks(time.Second), "after 50, 150, 300, 525 and 863 ms")
		require.Equal(t, calls, looks(time.Second), "after 1.4 s")
		require.Equal(t, 10*calls, looks(10*time.Second), "then each second")
	})
}

func TestWhatAnotherProcessWritesIsNotified(t *testing.T) {
	t.Parallel()
	l, _ := newLog(t, dynamolog.WithPoll(10*time.Millisecond, 20*time.Millisecond))
	other := l.again()
	told := make(chan string, 100)
	stop, err := l.Watch(t.Context(), key("r"), func(record string) { told <- record })
	require.NoError(t, err)
	defer stop()
	wait := func(record string) {
		t.Helper()
		deadline := time.NewTimer(patience)
		defer deadline.Stop()
		for {
			select {
			case got := <-told:
				if got == record {
					return
				}
			case <-deadline.C:
				t.Fatalf("not notified of record %q", record)
			}
		}
	}
	state := other.must("r", initial(), accepted())
	wait(state.Record)
	state = other.must("r", state, event(progress.Started))
	wait(state.Record)
	for n := range 3 {
		require.NoError(t, other.SetProgress(t.Context(), key("r"), &progress.Progress{Attempt: 1, Rev: uint64(n), Beat: uint64(n)}))
		wait(state.Record)
		state = other.must("r", state, output(10))
		wait(state.Record)
	}
	other.end("r", state, time.Second)
	wait("") // it is gone
}

func TestSignsOfLifeWakeNoViewers(t *testing.T) {
	t.Parallel()
	l, _ := newLog(t, dynamolog.WithPoll(10*time.Millisecond, 20*time.Millisecond))
	other := l.again()
	state := other.start("r")
	report := func(rev, beat uint64) {
		require.NoError(t, other.SetProgress(t.Context(), key("r"), &progress.Progress{Attempt: 1, Rev: rev, Beat: beat}))
	}
	report(1, 1)
	told := make(chan string, 100)
	stop, err := l.Watch(t.Context(), key("r"), func(record string) { told <- record })
	require.NoError(t, err)
	defer stop()
	<-told // of what is there
	for beat := range uint64(5) {
		report(1, 2+beat)
		looks := l.Stats().Looks
		require.Eventually(t, func() bool { return l.Stats().Looks >= looks+2 }, patience, time.Millisecond, "it is looked at")
	}
	require.Empty(t, told)
	page, err := l.Read(t.Context(), key("r"), state.Last, 1)
	require.NoError(t, err)
	require.EqualValues(t, 6, page.Beat)
	report(2, 7)
	require.Equal(t, state.Record, <-told)
}

func TestWhoIsRefusedReadsWhatIsThere(t *testing.T) {
	t.Parallel()
	l, _ := newLog(t, dynamolog.WithPoll(30*time.Second, time.Minute)) // it is not looked at meanwhile
	other := l.again()
	stop, err := l.Watch(t.Context(), key("r"), func(string) {})
	require.NoError(t, err)
	defer stop()
	state := l.start("r")
	newest := other.must("r", state, output(10))
	_, err = l.put("r", state, output(10))
	var conflict *progress.ConflictError
	require.ErrorAs(t, err, &conflict)
	page, err := l.Read(t.Context(), key("r"), 0, 10)
	require.NoError(t, err)
	require.Equal(t, newest.Record, page.State.Record)
}

func TestTheFirstLookAtALogIsNotBehindAndOthersMayBe(t *testing.T) {
	t.Parallel()
	l, c := newLog(t, dynamolog.WithPoll(10*time.Millisecond, 20*time.Millisecond))
	l.again().must("r", initial(), accepted())
	looks := make(chan bool, 1000)
	c.hook(func(_ context.Context, in any) error {
		if in, ok := in.(*dynamodb.BatchGetItemInput); ok {
			looks <- aws.ToBool(in.RequestItems[c.table].ConsistentRead)
		}
		return nil
	}, nil)
	l.watch("r")
	require.True(t, <-looks)
	require.False(t, <-looks)
}
