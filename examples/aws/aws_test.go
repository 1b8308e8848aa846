package main

import (
	"context"
	"encoding/csv"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"strconv"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"

	"github.com/pay-theory/streamer/v2"
	"github.com/pay-theory/streamer/v2/progress"
)

// TestMain runs the program itself when a test started this one as a process.
func TestMain(m *testing.M) {
	if os.Getenv(asProcess) != "" {
		main()
		return
	}
	goleak.VerifyTestMain(m)
}

const asProcess = "EXAMPLE_AS_PROCESS"

func TestFlagsThatDoNotFitAreRefused(t *testing.T) {
	t.Parallel()
	for _, row := range []struct {
		args []string
		want string
	}{
		{nil, "want -queue and -table"},
		{[]string{"-queue", "http://q/q"}, "want -queue and -table"},
		{[]string{"-queue", "http://q/q", "-table", "t", "-role", "boss"}, "-role boss"},
		{[]string{"-queue", "http://q/q", "-table", "t", "-once"}, "-once"},
		{[]string{"-local", "-role", "worker"}, "-local"},
		{[]string{"-local", "-table", "t"}, "-local"},
		{[]string{"local"}, `"local"`},
	} {
		err := run(t.Context(), row.args, io.Discard, io.Discard)
		require.ErrorContains(t, err, row.want, "%q", row.args)
	}
}

// whole runs the export without interruption.
func whole(t *testing.T, year int) (outputs []json.RawMessage, totals Totals) {
	t.Helper()
	var seen progress.Recorder
	totals, err := export(seen.Context(t.Context()), Params{Year: year}, &seen)
	require.NoError(t, err)
	return seen.Outputs(), totals
}

func TestAnExportHasAPartForEachMonth(t *testing.T) {
	t.Parallel()
	outputs, totals := whole(t, 2026)
	require.Len(t, outputs, 12)
	var orders, cents int
	for i, output := range outputs {
		var part Part
		require.NoError(t, json.Unmarshal(output, &part))
		require.Equal(t, fmt.Sprintf("2026-%02d", i+1), part.Month)
		rows, err := csv.NewReader(strings.NewReader(part.CSV)).ReadAll()
		require.NoError(t, err)
		require.Equal(t, []string{"day", "cents"}, rows[0])
		for _, row := range rows[1:] {
			require.Contains(t, row[0], part.Month)
			n, err := strconv.Atoi(row[1])
			require.NoError(t, err)
			orders, cents = orders+1, cents+n
		}
	}
	require.Greater(t, orders, 12)
	require.Equal(t, Totals{Months: 12, Orders: orders, Cents: cents}, totals)
}

func TestWhatCanNotBeExportedIsRefused(t *testing.T) {
	t.Parallel()
	for payload, want := range map[string]string{
		`{"year":1999}`:                `"year" is 1999`,
		`{"year":2026,"seconds":1000}`: `"seconds" is 1000`,
		`{"yaer":2026}`:                `"yaer"`,
	} {
		err := streamer.Typed(export).(streamer.Validator).Validate(&streamer.Request{Payload: json.RawMessage(payload)})
		require.ErrorContains(t, err, want)
	}
}

func TestACanceledExportEnds(t *testing.T) {
	t.Parallel()
	var seen progress.Recorder
	ctx, cancel := context.WithCancel(seen.Context(t.Context()))
	cancel()
	_, err := export(ctx, Params{Year: 2026, Seconds: 600}, &seen)
	require.ErrorIs(t, err, context.Canceled)
}
