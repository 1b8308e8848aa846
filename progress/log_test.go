package progress_test

import (
	"math"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/pay-theory/streamer/v2/progress"
)

func TestGapTellsWhyACursorCannotGoOn(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		oldest, last uint64
		epoch        string
		after        uint64
		reason       string
	}{
		"from the start":                      {1, 10, "here", 0, ""},
		"in the middle":                       {1, 10, "here", 4, ""},
		"has seen all":                        {1, 10, "here", 10, ""},
		"does not know the epoch":             {1, 10, "", 4, ""},
		"of another log":                      {1, 10, "other", 4, "recreated"},
		"of another log, beyond this one":     {1, 10, "other", 40, "recreated"},
		"beyond the log":                      {1, 10, "here", 11, "ahead"},
		"beyond the log, of unknown epoch":    {1, 10, "", 11, "ahead"},
		"beyond all numbers":                  {1, 10, "here", math.MaxUint64, "ahead"},
		"of a cut log, before the cut":        {5, 10, "here", 3, "expired"},
		"of a cut log, from the start":        {5, 10, "", 0, "expired"},
		"of a cut log, just before its event": {5, 10, "here", 4, ""},
	} {
		page := progress.Page{State: progress.State{Epoch: "here", Last: c.last}, Oldest: c.oldest}
		reason, gap := page.Gap(c.epoch, c.after)
		require.Equal(t, c.reason, reason, name)
		require.Equal(t, c.reason != "", gap, name)
	}
}

func TestConflictsSayWhatIsThere(t *testing.T) {
	t.Parallel()
	var err error = &progress.ConflictError{State: progress.State{Last: 9, Phase: progress.Canceling, Attempt: 2}}
	require.EqualError(t, err, "log has moved on: last event is 9 (canceling, attempt 2)")
}
