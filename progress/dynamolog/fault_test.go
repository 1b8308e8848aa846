package dynamolog_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net/http"
	"sync/atomic"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/dynamodb"
	"github.com/aws/aws-sdk-go-v2/service/dynamodb/types"
	"github.com/aws/smithy-go"
	"github.com/stretchr/testify/require"

	"github.com/pay-theory/streamer/v2/progress"
	"github.com/pay-theory/streamer/v2/progress/dynamolog"
	"github.com/pay-theory/streamer/v2/progress/logtest"
)

func TestErrorsOfDynamoDBAreUnavailableAndSayWhatToDo(t *testing.T) {
	t.Parallel()
	l, c := newLog(t)
	state := l.start("r")
	for _, row := range []struct {
		err  error
		says string
	}{
		{&types.ProvisionedThroughputExceededException{}, "capacity"},
		{&types.ThrottlingException{}, "scaled"},
		{&types.RequestLimitExceeded{}, "capacity"},
		{&types.InternalServerError{}, "InternalServerError"},
		{&types.ResourceNotFoundException{}, "region"},
		{&smithy.GenericAPIError{Code: "AccessDeniedException"}, "policy"},
		{&smithy.GenericAPIError{Code: "ExpiredTokenException"}, "credentials"},
		{context.DeadlineExceeded, "did not answer within 5s"},
		{errors.New("connection reset"), "connection reset"},
	} {
		c.hook(func(context.Context, any) error { return row.err }, nil)
		for name, err := range l.everything(state) {
			require.ErrorIs(t, err, progress.ErrUnavailable, "%s: %v", name, row.err)
			require.ErrorContains(t, err, row.says, name)
			require.ErrorContains(t, err, "dynamolog: ", name)
		}
	}
	c.hook(nil, nil)
	require.Len(t, l.all("r"), 2)
}

// everything calls all methods that call DynamoDB, with a log in that state.
func (l *log) everything(state progress.State) map[string]error {
	ctx := l.t.Context()
	errs := map[string]error{}
	_, errs["append"] = l.put("r", state, output(100))
	_, errs["large append"] = l.put("r", state, output(10_000))
	_, errs["tail"] = l.tail("r")
	_, errs["read"] = l.Read(ctx, key("r"), 0, 10)
	errs["set progress"] = l.SetProgress(ctx, key("r"), &progress.Progress{Attempt: 1, Rev: 1, Beat: 1})
	for _, err := range l.Open(ctx, 0) {
		errs["open"] = err
	}
	return errs
}

func TestAnAppendWhoseAnswerWasLostIsStoredOnce(t *testing.T) {
	t.Parallel()
	s := start(t)
	for name, events := range map[string][]*progress.Event{"small": {output(100)}, "large": {output(10_000)}, "end": {event(progress.Completed)}} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			l, c := s.log(t)
			state := l.start("r")
			rec := logtest.Next(state, events...)
			c.hook(nil, func(in, _ any) error {
				if _, ok := in.(*dynamodb.UpdateItemInput); ok {
					return errors.New("connection reset")
				}
				return nil
			})
			require.ErrorIs(t, l.Append(t.Context(), key("r"), state.Record, rec), progress.ErrUnavailable)
			c.hook(nil, nil)
			require.NoError(t, l.Append(t.Context(), key("r"), state.Record, rec))
			require.Len(t, l.all("r"), 3)
		})
	}
}

func TestAWriterThatDiesBetweenTwoWritesLeavesTheLogAsItWas(t *testing.T) {
	t.Parallel()
	l, c := newLog(t)
	state := l.start("r")
	for range 7 {
		state = l.must("r", state, output(300))
	}
	c.hook(nil, func(in, _ any) error {
		if _, ok := in.(*dynamodb.PutItemInput); ok {
			return errors.New("the process has died")
		}
		return nil
	})
	_, err := l.put("r", state, output(1000)) // the head must make room
	require.ErrorIs(t, err, progress.ErrUnavailable)
	_, err = l.put("r", state, output(10_000)) // goes into an item of its own
	require.ErrorIs(t, err, progress.ErrUnavailable)
	c.hook(nil, nil)
	require.Len(t, l.all("r"), 9)

	other := l.again()
	state = other.must("r", state, output(1000), output(200))
	other.must("r", state, output(10_000), output(20_000))
	require.Len(t, l.all("r"), 13)
	page, err := l.Read(t.Context(), key("r"), 5, 3)
	require.NoError(t, err)
	require.Len(t, page.Events, 3)
	require.Equal(t, uint64(6), page.Events[0].Seq)
}

func TestPartsOfBatchesAreAskedForAgain(t *testing.T) {
	t.Parallel()
	l, c := newLog(t, dynamolog.WithPoll(10*time.Millisecond, 50*time.Millisecond))
	for n := range 10 {
		l.start(fmt.Sprint("r", n))
	}
	one := func(in, out any) error {
		switch out := out.(type) {
		case *dynamodb.BatchGetItemOutput:
			table := c.table
			list := out.Responses[table]
			rand.Shuffle(len(list), func(i, j int) { list[i], list[j] = list[j], list[i] })
			for _, it := range list[min(1, len(list)):] {
				left := out.UnprocessedKeys[table]
				left.Keys = append(left.Keys, map[string]types.AttributeValue{"p": it["p"], "s": it["s"]})
				out.UnprocessedKeys = map[string]types.KeysAndAttributes{table: left}
			}
			out.Responses[table] = list[:min(1, len(list))]
		}
		return nil
	}
	told := make(chan string, 100)
	for n := range 10 {
		stop, err := l.Watch(t.Context(), key(fmt.Sprint("r", n)), func(string) { told <- fmt.Sprint("r", n) })
		require.NoError(t, err)
		defer stop()
	}
	c.hook(nil, one)
	seen := map[string]bool{}
	for len(seen) < 10 {
		select {
		case id := <-told:
			seen[id] = true
		case <-time.After(patience):
			t.Fatalf("only %v were seen", seen)
		}
	}
	var n atomic.Int64
	c.hook(nil, func(in, out any) error {
		if n.Add(1)%2 == 0 {
			return nil
		}
		return one(in, out)
	})
	var ids []string
	for p, err := range l.Open(t.Context(), 0) {
		if err != nil {
			require.ErrorIs(t, err, progress.ErrUnavailable)
			require.ErrorContains(t, err, "throttled")
			continue
		}
		ids = append(ids, p.Key.ID)
	}
	require.Len(t, ids, 10)
}

func TestACallEndsWithItsContext(t *testing.T) {
	t.Parallel()
	l, c := newLog(t)
	state := l.start("r")
	c.hook(func(ctx context.Context, _ any) error {
		<-ctx.Done()
		return ctx.Err()
	}, nil)
	ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	err := l.Append(ctx, key("r"), state.Record, logtest.Next(state, output(10)))
	require.ErrorIs(t, err, context.DeadlineExceeded)
	require.NotErrorIs(t, err, progress.ErrUnavailable)
}

func TestWithoutADateNothingIsJudged(t *testing.T) {
	t.Parallel()
	s := start(t)
	table := s.create(t)
	c := newClient(s)
	c.hook(nil, func(_, out any) error {
		if out, ok := out.(*dynamodb.DescribeTableOutput); ok {
			*out = dynamodb.DescribeTableOutput{Table: out.Table}
		}
		return nil
	})
	_, err := dynamolog.New(t.Context(), c, table, s.opts...)
	require.ErrorContains(t, err, "Date header")
}

func TestAReadThatLagsDoesNotUndoWhatIsKnown(t *testing.T) {
	t.Parallel()
	s := start(t)
	for _, from := range []string{"before the newest append", "before the log"} {
		t.Run(from, func(t *testing.T) {
			t.Parallel()
			l, c := s.log(t, dynamolog.WithPoll(10*time.Millisecond, 20*time.Millisecond))
			state := l.start("r")
			var old []map[string]types.AttributeValue
			if from != "before the log" {
				old = append(old, c.items(t)["11:tenant/user/r head"])
			}
			state = l.must("r", state, output(10))

			var told atomic.Int64
			first := make(chan struct{}, 1)
			stop, err := l.Watch(t.Context(), key("r"), func(record string) {
				if record != state.Record {
					t.Errorf("notified of %q", record)
				}
				told.Add(1)
				select {
				case first <- struct{}{}:
				default:
				}
			})
			require.NoError(t, err)
			defer stop()
			<-first
			looks := make(chan struct{}, 1000)
			c.hook(nil, func(in, out any) error {
				got, ok := out.(*dynamodb.BatchGetItemOutput)
				if ok && !aws.ToBool(in.(*dynamodb.BatchGetItemInput).RequestItems[c.table].ConsistentRead) {
					got.Responses[c.table] = old
					looks <- struct{}{}
				}
				return nil
			})
			for range 5 {
				<-looks
				page, err := l.Read(t.Context(), key("r"), 0, 10)
				require.NoError(t, err)
				require.Equal(t, state.Last, page.State.Last)
			}
			require.EqualValues(t, 1, told.Load())
		})
	}
}

// sent is a way to DynamoDB that keeps the body of the newest request.
type sent struct {
	http.RoundTripper
	body io.Reader
}

func (s *sent) RoundTrip(r *http.Request) (*http.Response, error) {
	s.body = r.Body
	return s.RoundTripper.RoundTrip(r)
}

// net/http may still ask a body whether it has ended when the answer has been read. A body
// that fails then costs the connection, and the answer if it was not read yet.
func TestARequestsBodyStaysReadableAfterTheAnswer(t *testing.T) {
	t.Parallel()
	way := &sent{RoundTripper: hollow{}}
	l, err := dynamolog.New(t.Context(), at(t, "http://127.0.0.1", way), "table", dynamolog.WithoutTTL())
	require.NoError(t, err)
	require.NoError(t, l.Close())
	_, err = io.Copy(io.Discard, way.body)
	require.NoError(t, err)
}

// DynamoDB tells with a refusal what is there, which the emulator does not.
func TestAConflictNeedsNoReadWhereDynamoDBTellsWhatIsThere(t *testing.T) {
	t.Parallel()
	l, c := newLog(t)
	c.tells.Store(true)
	state := l.start("r")
	newest := l.must("r", state, output(10))
	spent := c.during(t, func() {
		for _, stale := range []progress.State{{}, state} {
			_, err := l.put("r", stale, event(progress.Canceling))
			var conflict *progress.ConflictError
			require.ErrorAs(t, err, &conflict)
			require.Equal(t, newest.Record, conflict.State.Record)
		}
		require.NoError(t, l.SetProgress(t.Context(), key("r"), &progress.Progress{Attempt: 7}))
	})
	require.Zero(t, spent.calls["GetItem"])
	require.Len(t, l.all("r"), 3)

	l.end("r", newest, time.Second)
	l.gone("r")
	spent = c.during(t, func() {
		_, err := l.put("r", newest, output(10))
		require.ErrorIs(t, err, progress.ErrNotFound)
		require.ErrorIs(t, l.SetProgress(t.Context(), key("r"), &progress.Progress{Attempt: 1}), progress.ErrNotFound)
		l.must("r", initial(), accepted())
	})
	require.Zero(t, spent.calls["GetItem"])
}
