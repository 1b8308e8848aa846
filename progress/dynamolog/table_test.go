package dynamolog_test

import (
	"context"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/service/dynamodb"
	"github.com/aws/aws-sdk-go-v2/service/dynamodb/types"
	"github.com/aws/smithy-go"
	"github.com/stretchr/testify/require"

	"github.com/pay-theory/streamer/v2/progress"
	"github.com/pay-theory/streamer/v2/progress/dynamolog"
)

func TestNewSaysWhatOfTheTableDoesNotFit(t *testing.T) {
	t.Parallel()
	s := start(t)
	c := newClient(s)
	table := s.create(t)
	denied := &smithy.GenericAPIError{Code: "AccessDeniedException", Message: "User is not authorized"}
	for name, row := range map[string]struct {
		change func(t *types.TableDescription)
		ttl    *types.TimeToLiveDescription
		err    error // of the second call
		says   string
		not    bool // the store's fault: what must be changed is not gone by itself
	}{
		"other keys":    {change: func(t *types.TableDescription) { t.KeySchema = t.KeySchema[:1] }, says: "primary key is p (S, HASH), and p (S, HASH), s (S, RANGE) is needed", not: true},
		"creating":      {change: func(t *types.TableDescription) { t.TableStatus = types.TableStatusCreating }, says: "still being created"},
		"deleting":      {change: func(t *types.TableDescription) { t.TableStatus = types.TableStatusDeleting }, says: "DELETING"},
		"nothing":       {change: func(t *types.TableDescription) { *t = types.TableDescription{} }, says: "status"},
		"no index":      {change: func(t *types.TableDescription) { t.GlobalSecondaryIndexes = nil }, says: "lacks the global secondary index open", not: true},
		"another index": {change: func(t *types.TableDescription) { t.GlobalSecondaryIndexes[0].KeySchema = t.KeySchema }, says: "index open has the key p (S, HASH), s (S, RANGE)", not: true},
		"a full index": {change: func(t *types.TableDescription) {
			t.GlobalSecondaryIndexes[0].Projection.ProjectionType = types.ProjectionTypeAll
		}, says: "KEYS_ONLY", not: true},
		"index creating": {change: func(t *types.TableDescription) { t.GlobalSecondaryIndexes[0].IndexStatus = types.IndexStatusCreating }, says: "CREATING"},
		"time to live":   {ttl: &types.TimeToLiveDescription{TimeToLiveStatus: types.TimeToLiveStatusDisabled}, says: "time to live is off", not: true},
		"another one":    {ttl: &types.TimeToLiveDescription{TimeToLiveStatus: types.TimeToLiveStatusEnabled, AttributeName: new("x")}, says: `is on for the attribute "x", and "ttl" is needed`, not: true},
		"no permission":  {err: denied, says: "the role lacks dynamodb:DescribeTimeToLive on it"},
		"no access":      {change: nil, err: &types.InternalServerError{}, says: "InternalServerError"},
	} {
		t.Run(name, func(t *testing.T) {
			c.hook(func(_ context.Context, in any) error {
				if _, ok := in.(*dynamodb.DescribeTimeToLiveInput); ok {
					return row.err
				}
				return nil
			}, func(_, out any) error {
				switch out := out.(type) {
				case *dynamodb.DescribeTableOutput:
					if row.change != nil {
						row.change(out.Table)
					}
				case *dynamodb.DescribeTimeToLiveOutput:
					out.TimeToLiveDescription = row.ttl
				}
				return nil
			})
			_, err := dynamolog.New(t.Context(), c, table)
			require.ErrorContains(t, err, row.says)
			require.ErrorContains(t, err, `dynamolog: table "`+table+`": `)
			if row.not {
				require.NotErrorIs(t, err, progress.ErrUnavailable)
			} else {
				require.ErrorIs(t, err, progress.ErrUnavailable)
			}
		})
	}
	c.hook(nil, func(_, out any) error {
		if out, ok := out.(*dynamodb.DescribeTimeToLiveOutput); ok {
			out.TimeToLiveDescription = &types.TimeToLiveDescription{TimeToLiveStatus: types.TimeToLiveStatusEnabled, AttributeName: new("ttl")}
		}
		return nil
	})
	l, err := dynamolog.New(t.Context(), c, table)
	require.NoError(t, err)
	require.NoError(t, l.Close())
}

func TestATableThatIsMissingIsNamed(t *testing.T) {
	t.Parallel()
	s := start(t)
	_, err := dynamolog.New(t.Context(), s, "missing")
	require.ErrorContains(t, err, `dynamolog: table "missing": log store unavailable`)
	require.ErrorContains(t, err, "CreateTable")
}

func TestCreateTableDoesNotTakeWhatIsThere(t *testing.T) {
	t.Parallel()
	s := start(t)
	table := s.create(t)
	require.ErrorContains(t, dynamolog.CreateTable(t.Context(), s, table), "dynamolog: create table")
}

func TestOptionsThatMakeNoSenseAreRefused(t *testing.T) {
	t.Parallel()
	for _, poll := range [][2]time.Duration{{0, time.Second}, {time.Second, time.Millisecond}, {time.Second, time.Hour}} {
		_, err := dynamolog.New(t.Context(), nil, "table", dynamolog.WithPoll(poll[0], poll[1]))
		require.ErrorContains(t, err, "dynamolog: WithPoll(")
	}
}

func TestAClosedLogTakesNoWatchers(t *testing.T) {
	t.Parallel()
	l, _ := newLog(t)
	stop, err := l.Watch(t.Context(), key("r"), func(string) {})
	require.NoError(t, err)
	require.NoError(t, l.Close())
	require.NoError(t, l.Close())
	_, err = l.Watch(t.Context(), key("r"), func(string) {})
	require.ErrorIs(t, err, progress.ErrUnavailable)
	require.Zero(t, l.Stats().Watched)
	stop()
}
