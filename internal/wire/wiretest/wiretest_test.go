package wiretest_test

import (
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/pay-theory/streamer/v2/internal/wire/wiretest"
)

func TestPlaceholdersStandForWhatDiffersFromRunToRun(t *testing.T) {
	t.Parallel()
	line := wiretest.Line{From: wiretest.Server, Text: `{"epoch":"${epoch}","timestamp":"${time}","a_ms":${ms},"b_ms":${ms}}`}
	values := wiretest.Values{}
	require.NoError(t, line.Match(`{"epoch":"x1","timestamp":"2026-01-02T03:04:05.678Z","a_ms":1,"b_ms":20}`, values))
	require.Equal(t, wiretest.Values{"epoch": "x1"}, values)
	require.NoError(t, line.Match(`{"epoch":"x1","timestamp":"2027-01-02T03:04:05.678Z","a_ms":3,"b_ms":4}`, values))
	for _, other := range []string{
		`{"epoch":"x2","timestamp":"2026-01-02T03:04:05.678Z","a_ms":1,"b_ms":20}`,
		`{"epoch":"x1","timestamp":"2026-01-02T03:04:05Z","a_ms":1,"b_ms":20}`,
		`{"epoch":"x1","timestamp":"2026-01-02T03:04:05.678Z","a_ms":"1","b_ms":20}`,
		`{"epoch":"x1","timestamp":"2026-01-02T03:04:05.678Z","a_ms":1,"b_ms":20}}`,
	} {
		require.Error(t, line.Match(other, values), other)
	}
}

func TestExpandedLinesContractToThemselves(t *testing.T) {
	t.Parallel()
	samples := wiretest.Samples()
	for _, c := range wiretest.Load(t) {
		for _, line := range c.Messages() {
			require.NotContains(t, line.Expand(samples), "${")
			require.Equal(t, line.Text, wiretest.Contract(line.Expand(samples), samples))
		}
	}
}
