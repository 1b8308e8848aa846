package progress_test

import (
	"encoding/json"
	"math"
	"sync"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/pay-theory/streamer/v2/progress"
)

func TestDiscardTakesAnything(t *testing.T) {
	t.Parallel()
	require.NoError(t, progress.Discard.Report(math.NaN(), "any"))
	require.NoError(t, progress.Discard.SetMetadata("key", make(chan int)))
}

func TestRecorderKeepsWhatAHandlerReports(t *testing.T) {
	t.Parallel()
	var rec progress.Recorder
	require.NoError(t, rec.Report(10, "begun"))
	require.NoError(t, rec.Report(5, "as it was said"))
	require.NoError(t, rec.SetMetadata("rows", 7))
	require.NoError(t, rec.SetMetadata("rows", 8))
	require.Error(t, rec.SetMetadata("chan", make(chan int)), "as a real reporter refuses what is no JSON")

	require.Equal(t, []progress.Report{{Percentage: 10, Message: "begun"}, {Percentage: 5, Message: "as it was said"}}, rec.Reports())
	require.Equal(t, map[string]any{"rows": 8}, rec.Metadata())
}

func TestRecorderHandsOutCopies(t *testing.T) {
	t.Parallel()
	var rec progress.Recorder
	require.NoError(t, rec.Report(1, "one"))
	require.NoError(t, rec.SetMetadata("k", "v"))
	rec.Reports()[0].Message = "changed"
	rec.Metadata()["k"] = "changed"
	require.Equal(t, "one", rec.Reports()[0].Message)
	require.Equal(t, "v", rec.Metadata()["k"])
}

func TestRecorderContextRecordsOutputsAndCheckpoints(t *testing.T) {
	t.Parallel()
	var rec progress.Recorder
	run, ok := progress.FromContext(rec.Context(t.Context()))
	require.True(t, ok)
	require.Equal(t, 1, run.Attempt())

	var row int
	found, err := run.LastCheckpoint(&row)
	require.NoError(t, err)
	require.False(t, found)

	require.NoError(t, run.Output(map[string]int{"i": 0}))
	require.NoError(t, run.Checkpoint(41))
	require.NoError(t, run.Checkpoint(42))
	require.Error(t, run.Output(make(chan int)))
	require.Error(t, run.Checkpoint(make(chan int)))

	found, err = run.LastCheckpoint(&row)
	require.NoError(t, err)
	require.True(t, found)
	require.Equal(t, 42, row)
	require.Equal(t, []json.RawMessage{json.RawMessage(`{"i":0}`)}, rec.Outputs())
	require.Equal(t, []json.RawMessage{json.RawMessage(`41`), json.RawMessage(`42`)}, rec.Checkpoints())
}

func TestRecorderResumesFromAnEarlierAttempt(t *testing.T) {
	t.Parallel()
	type point struct{ Row int }
	rec := progress.Recorder{Resume: point{Row: 7}}
	run, _ := progress.FromContext(rec.Context(t.Context()))
	var p point
	found, err := run.LastCheckpoint(&p)
	require.NoError(t, err)
	require.True(t, found)
	require.Equal(t, point{Row: 7}, p)

	require.NoError(t, run.Checkpoint(point{Row: 8}))
	_, err = run.LastCheckpoint(&p)
	require.NoError(t, err)
	require.Equal(t, point{Row: 8}, p, "the handler's own is newer")
	var wrong int
	_, err = run.LastCheckpoint(&wrong)
	require.Error(t, err)

	broken := progress.Recorder{Resume: make(chan int)}
	run, _ = progress.FromContext(broken.Context(t.Context()))
	found, err = run.LastCheckpoint(&p)
	require.Error(t, err)
	require.False(t, found)
}

func TestRecorderIsSafeForConcurrentUse(t *testing.T) {
	t.Parallel()
	var rec progress.Recorder
	run, _ := progress.FromContext(rec.Context(t.Context()))
	var wg sync.WaitGroup
	for range 8 {
		wg.Go(func() {
			for range 50 {
				_ = rec.Report(1, "m")
				_ = rec.SetMetadata("k", 1)
				_ = run.Output(1)
				_ = run.Checkpoint(1)
				_, _, _ = rec.Reports(), rec.Metadata(), rec.Outputs()
			}
		})
	}
	wg.Wait()
	require.Len(t, rec.Reports(), 400)
	require.Len(t, rec.Outputs(), 400)
	require.Len(t, rec.Checkpoints(), 400)
}

func TestAContextWithoutARunHasNone(t *testing.T) {
	t.Parallel()
	run, ok := progress.FromContext(t.Context())
	require.False(t, ok)
	require.Nil(t, run)
}
