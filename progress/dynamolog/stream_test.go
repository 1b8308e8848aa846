package dynamolog_test

import (
	"context"
	"errors"
	"fmt"
	"sync/atomic"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/service/dynamodb"
	tables "github.com/aws/aws-sdk-go-v2/service/dynamodb/types"
	"github.com/aws/aws-sdk-go-v2/service/dynamodbstreams/types"
	"github.com/aws/smithy-go"
	"github.com/stretchr/testify/require"

	"github.com/pay-theory/streamer/v2/progress"
	"github.com/pay-theory/streamer/v2/progress/dynamolog"
)

func TestWhatAnotherProcessWritesReachesWatchersByTheStream(t *testing.T) {
	t.Parallel()
	s := start(t)
	table := s.create(t)
	client, streams := s.streamed(t, table)
	l := &log{s.open(t, client, table, dynamolog.WithStreams(streams), dynamolog.WithPoll(10*time.Millisecond, time.Minute)), t, nil}
	other := &log{s.open(t, client, table), t, nil}
	told := make(chan string, 100)
	stop, err := l.Watch(t.Context(), key("r"), func(record string) { told <- record })
	require.NoError(t, err)
	defer stop()
	require.Eventually(t, func() bool { return l.Stats().Streaming }, patience, time.Millisecond)
	wait := func(record string) { // far less than a minute, after which it is polled
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
	state := other.start("r")
	wait(state.Record)
	for n := range uint64(3) {
		require.NoError(t, other.SetProgress(t.Context(), key("r"), &progress.Progress{Attempt: 1, Rev: n + 1, Beat: n + 1}))
		wait(state.Record)
		state = other.must("r", state, output(10))
		wait(state.Record)
	}
	state = other.end("r", state, time.Second)
	wait(state.Record)
	wait("") // it is gone
	require.NotZero(t, l.Stats().StreamReads)
}

func TestWhatTheStreamTellsIsLookedAtOnce(t *testing.T) {
	t.Parallel()
	follow(t, 2, func(t *testing.T, l *following) {
		l.settle("a", "b")
		looks := l.Stats().Looks
		for range 3 {
			l.change("a")
			l.change("unwatched")
		}
		l.write("11:tenant/user/b", "epoch/e/1") // what is beside a head tells nothing
		l.pass(250 * time.Millisecond)
		require.Equal(t, []look{{"a", true}}, l.looked())
		require.Equal(t, looks, l.Stats().Looks, "nothing was found")
		l.pass(5 * time.Second)
		require.Empty(t, l.looked())
		l.change("a")
		l.change("b")
		l.pass(250 * time.Millisecond)
		ids := ""
		for _, x := range l.looked() {
			require.True(t, x.consistent)
			ids += x.ids
		}
		require.Contains(t, []string{"a b", "ab", "ba"}, ids, "the shards are read at once")
	})
}

func TestPollingIsRareWhileTheStreamIsFollowed(t *testing.T) {
	t.Parallel()
	follow(t, 1, func(t *testing.T, l *following) {
		l.settle("a")
		l.pass(time.Minute)
		rare := look{"a", false}
		require.Equal(t, []look{rare, rare, rare, rare, rare, rare}, l.looked())
		require.Equal(t, map[string]int{"GetRecords": 240, "DescribeStream": 1}, l.spent())
	})
}

// What was told before it was watched is not told again.
func TestTheFirstLookIsConsistentWhileTheStreamIsFollowed(t *testing.T) {
	t.Parallel()
	follow(t, 1, func(t *testing.T, l *following) {
		l.settle("a")
		l.change("b")
		l.pass(time.Second)
		require.Empty(t, l.looked())
		l.watch("b")
		l.pass(time.Second)
		require.Equal(t, []look{{"b", true}}, l.looked())
	})
}

func TestNothingIsReadOfTheStreamWhileNothingIsWatched(t *testing.T) {
	t.Parallel()
	follow(t, 2, func(t *testing.T, l *following) {
		require.Equal(t, map[string]int{"DescribeStream": 1}, l.spent(), "by New")
		l.pass(time.Hour)
		require.Empty(t, l.spent())

		stop := l.watch("a")
		l.pass(time.Second)
		require.Equal(t, map[string]int{"DescribeStream": 1, "GetShardIterator": 2, "GetRecords": 10}, l.spent())
		stop()
		l.change("a")
		l.pass(30 * time.Second)
		require.Empty(t, l.spent())

		l.looked()
		stop = l.watch("a")
		l.pass(10 * time.Millisecond)
		require.Equal(t, map[string]int{"GetRecords": 2}, l.spent(), "it goes on where it was")
		require.Equal(t, []look{{"a", true}}, l.looked())
		stop()
		l.pass(time.Hour)
		require.Empty(t, l.spent())

		l.looked()
		l.watch("a")
		l.pass(10 * time.Millisecond)
		require.Equal(t, map[string]int{"DescribeStream": 1, "GetShardIterator": 2, "GetRecords": 2}, l.spent(), "it begins anew")
		require.Contains(t, l.looked(), look{"a", true})
		require.True(t, l.Stats().Streaming)
		require.Empty(t, l.said.lines())
	})
}

func TestShardsThatEndAreFollowedByWhatComesAfterThem(t *testing.T) {
	t.Parallel()
	follow(t, 2, func(t *testing.T, l *following) {
		l.settle("a", "b", "c", "d", "e", "f")
		for range 3 {
			l.change("a")
			l.change("b")
			l.split(2)
			l.change("c")
			l.change("d")
			l.split(1)
			l.change("e")
			l.change("f")
			l.pass(2 * time.Second)
			told := map[string]bool{}
			for _, x := range l.looked() {
				for _, id := range x.ids {
					told[string(id)] = told[string(id)] || x.consistent
				}
			}
			for _, id := range []string{"a", "b", "c", "d", "e", "f"} {
				require.True(t, told[id], id)
			}
		}
		require.True(t, l.Stats().Streaming)
		l.spent()
		l.pass(time.Minute)
		calls := l.spent()
		require.Equal(t, 16*240, calls["GetRecords"], "of the shards that are open")
		require.LessOrEqual(t, calls["DescribeStream"], 20, "they are listed once a minute: 58 in 20 calls")
		require.Empty(t, l.said.lines())
	})
}

func TestAPositionThatIsLostIsFoundAgain(t *testing.T) {
	t.Parallel()
	for name, lose := range map[string]func(d *double){
		"ExpiredIterator":  (*double).expire,
		"TrimmedData":      (*double).trim,
		"ResourceNotFound": (*double).replace,
		"no such shard":    func(d *double) { d.turn(false); d.turn(true) },
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			follow(t, 2, func(t *testing.T, l *following) {
				l.settle("a", "b")
				l.change("a")
				l.change("b")
				lose(l.double)
				l.pass(250 * time.Millisecond)
				require.Contains(t, l.looked(), look{"a b", true}, "what was not told is looked for")
				require.False(t, l.Stats().Streaming)
				l.pass(5 * time.Second)
				require.Greater(t, len(l.looked()), 5, "it is polled")
				lines := l.said.lines()
				require.Len(t, lines, 1)
				require.Contains(t, lines[0], "level=WARN")
				require.Contains(t, lines[0], name)

				l.pass(10 * time.Second)
				require.True(t, l.Stats().Streaming)
				lines = l.said.lines()
				require.Len(t, lines, 1)
				require.Contains(t, lines[0], "level=INFO")
				require.Contains(t, l.looked(), look{"a b", true}, "nothing is missed between polling and the stream")
				l.change("a")
				l.pass(250 * time.Millisecond)
				require.Equal(t, []look{{"a", true}}, l.looked())
			})
		})
	}
}

func TestLogsArePolledWhileTheStreamCantBeRead(t *testing.T) {
	t.Parallel()
	for name, err := range map[string]error{
		"two readers":       &types.LimitExceededException{Message: new("rate exceeded")},
		"let other":         &smithy.GenericAPIError{Code: "ProvisionedThroughputExceededException"},
		"do without":        &smithy.GenericAPIError{Code: "ThrottlingException"},
		"the role needs":    &smithy.GenericAPIError{Code: "AccessDeniedException"},
		"InternalServer":    &types.InternalServerError{},
		"connection reset":  errors.New("connection reset"),
		"deadline exceeded": context.DeadlineExceeded,
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			follow(t, 2, func(t *testing.T, l *following) {
				l.settle("a")
				l.refuse(err)
				l.pass(10 * time.Minute)
				require.False(t, l.Stats().Streaming)
				lines := l.said.lines()
				require.Len(t, lines, 1, "it is said once")
				require.Contains(t, lines[0], name)
				calls := 0
				for _, n := range l.spent() {
					calls += n
				}
				require.Less(t, calls, 25, "it is tried each minute at last")
				l.looked()
				l.pass(time.Minute)
				require.Len(t, l.looked(), 60)

				l.hook(nil)
				l.pass(2 * time.Minute)
				require.True(t, l.Stats().Streaming)
				require.Len(t, l.said.lines(), 1)
				l.looked()
				l.change("a")
				l.pass(250 * time.Millisecond)
				require.Equal(t, []look{{"a", true}}, l.looked())
			})
		})
	}
}

// Where there are too many readers, calls fail now and then.
func TestAStreamThatFailsNowAndThenIsNotReliedUpon(t *testing.T) {
	t.Parallel()
	follow(t, 1, func(t *testing.T, l *following) {
		l.settle("a")
		var n atomic.Int64
		l.hook(func(context.Context, string) error {
			if n.Add(1)%20 == 0 { // each 5 s
				return &types.LimitExceededException{}
			}
			return nil
		})
		l.pass(5 * time.Minute)
		l.looked()
		l.pass(time.Minute)
		require.False(t, l.Stats().Streaming)
		require.GreaterOrEqual(t, len(l.looked()), 59)
		require.Len(t, l.said.lines(), 1)
	})
}

func TestAStreamThatIsTurnedOffIsFoundWhenItIsOnAgain(t *testing.T) {
	t.Parallel()
	follow(t, 2, func(t *testing.T, l *following) {
		l.settle("a")
		l.turn(false)
		l.pass(5 * time.Minute)
		require.False(t, l.Stats().Streaming)
		lines := l.said.lines()
		require.Len(t, lines, 1)
		require.Contains(t, lines[0], "turned off")
		l.turn(true)
		l.pass(2 * time.Minute)
		require.True(t, l.Stats().Streaming)
		require.Len(t, l.said.lines(), 1)
		l.looked()
		l.change("a")
		l.pass(250 * time.Millisecond)
		require.Equal(t, []look{{"a", true}}, l.looked())
	})
}

func TestAShardThatNothingFollowsEndsTheReading(t *testing.T) {
	t.Parallel()
	follow(t, 2, func(t *testing.T, l *following) {
		l.settle("a")
		l.split(0)
		l.pass(20 * time.Second)
		require.LessOrEqual(t, l.spent()["DescribeStream"], 20, "once a second")
		l.pass(15 * time.Second)
		require.False(t, l.Stats().Streaming)
		require.Len(t, l.said.lines(), 1)
		l.pass(5 * time.Minute)
		require.False(t, l.Stats().Streaming, "no shard is open")
		l.turn(true)
		l.pass(2 * time.Minute)
		require.True(t, l.Stats().Streaming)
	})
}

func TestWhatChangesDuringALookIsLookedAtAgain(t *testing.T) {
	t.Parallel()
	follow(t, 1, func(t *testing.T, l *following) {
		l.settle("a")
		gate := make(chan struct{})
		l.client.hook(func(ctx context.Context, in any) error {
			err := l.note(ctx, in)
			<-gate
			return err
		}, l.see)
		l.change("a")
		l.pass(250 * time.Millisecond)
		require.Len(t, l.looked(), 1, "it is under way")
		l.change("a")
		l.change("a")
		l.pass(250 * time.Millisecond)
		require.Empty(t, l.looked())
		close(gate)
		l.pass(0)
		require.Equal(t, []look{{"a", true}}, l.looked())
		l.pass(5 * time.Second)
		require.Empty(t, l.looked())
	})
}

func TestALookThatFailsIsMadeAgain(t *testing.T) {
	t.Parallel()
	follow(t, 1, func(t *testing.T, l *following) {
		l.settle("a")
		var fails atomic.Int64
		l.client.hook(func(ctx context.Context, in any) error {
			_ = l.note(ctx, in)
			if fails.Add(1) < 3 {
				return &tables.ProvisionedThroughputExceededException{}
			}
			return nil
		}, l.see)
		l.change("a")
		l.pass(time.Second)
		require.Equal(t, []look{{"a", true}, {"a", true}, {"a", true}}, l.looked())
	})
}

func TestManyShardsAreReadAFewAtATime(t *testing.T) {
	t.Parallel()
	follow(t, 100, func(t *testing.T, l *following) {
		l.settle("a")
		most := l.slow(10 * time.Millisecond)
		l.pass(time.Second)
		require.EqualValues(t, 8, most.Load())
		require.Greater(t, l.spent()["GetRecords"], 300, "each shard, some times")
	})
}

func TestACallOfTheStreamThatHangsHoldsNothingUp(t *testing.T) {
	t.Parallel()
	follow(t, 2, func(t *testing.T, l *following) {
		l.settle("a")
		l.hook(func(ctx context.Context, _ string) error {
			<-ctx.Done()
			return ctx.Err()
		})
		l.pass(6 * time.Second)
		require.False(t, l.Stats().Streaming)
		require.Len(t, l.said.lines(), 1)
		l.pass(time.Second) // it hangs again
		begun := time.Now()
		require.NoError(t, l.Close())
		require.Zero(t, time.Since(begun))
		require.Empty(t, l.said.lines())
	})
}

func TestNewSaysWhatOfTheStreamDoesNotFit(t *testing.T) {
	t.Parallel()
	denied := &smithy.GenericAPIError{Code: "AccessDeniedException", Message: "User is not authorized"}
	for name, row := range map[string]struct {
		shards  int
		prepare func(d *double)
		after   func(d *double, out *dynamodb.DescribeTableOutput)
		says    string
		not     bool // the store's fault
	}{
		"no stream":      {prepare: func(d *double) { d.turn(false) }, says: "aws dynamodb update-table --table-name t --stream-specification StreamEnabled=true,StreamViewType=KEYS_ONLY", not: true},
		"no description": {after: func(_ *double, out *dynamodb.DescribeTableOutput) { out.Table.StreamSpecification = nil }, says: "has no DynamoDB Stream", not: true},
		"turned off":     {after: func(d *double, _ *dynamodb.DescribeTableOutput) { d.turn(false) }, says: "was turned off", not: true},
		"no permission":  {prepare: func(d *double) { d.refuse(denied) }, says: "the role needs dynamodb:DescribeStream on the table's stream"},
		"no answer":      {prepare: func(d *double) { d.refuse(&types.InternalServerError{}) }, says: "DescribeStream: InternalServerError"},
		"many shards":    {shards: 1001, says: "more than 1000 shards", not: true},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			c, d := newClient(at(t, "http://127.0.0.1", hollow{})), newDouble(max(1, row.shards))
			if row.prepare != nil {
				row.prepare(d)
			}
			c.hook(nil, func(in, out any) error {
				err := d.see(in, out)
				if table, ok := out.(*dynamodb.DescribeTableOutput); ok {
					table.Table.TableName = new("t")
					if row.after != nil {
						row.after(d, table)
					}
				}
				return err
			})
			_, err := dynamolog.New(t.Context(), c, "t", dynamolog.WithoutTTL(), dynamolog.WithStreams(d))
			require.ErrorContains(t, err, row.says)
			require.ErrorContains(t, err, `dynamolog: table "t": `)
			require.Equal(t, row.not, !errors.Is(err, progress.ErrUnavailable), fmt.Sprint(err))
		})
	}
}
