package natslog

import (
	"encoding/json"
	"reflect"
	"testing"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/stretchr/testify/require"

	"github.com/pay-theory/streamer/v2/progress"
)

// sample returns a record with everything in it that is raw.
func sample() *progress.Record {
	e := &progress.Event{
		Seq: 1, Kind: progress.Accepted, Record: "a", Data: json.RawMessage(` {"a" : 1}`),
		Request: &progress.Request{Payload: json.RawMessage("[1, 2]")}, Error: &progress.Failure{Details: json.RawMessage("{}")},
	}
	return &progress.Record{ID: "a", Events: []*progress.Event{e}, State: progress.State{
		Epoch: "e", Last: 1, Record: "a", Phase: progress.Accepted, Checkpoint: json.RawMessage("7"), Error: &progress.Failure{Details: json.RawMessage("null")},
	}}
}

func FuzzDecode(f *testing.F) {
	rec := sample()
	h := headerOf(rec, 1)
	data, err := encode(progress.Key{Scope: "s", ID: "i"}, "s.i", rec.State, &progress.Progress{Metadata: json.RawMessage("{}")}, rec.Events, 100)
	require.NoError(f, err)
	f.Add(h.encode(), data)
	report, err := encodeProgress(&progress.Progress{Attempt: 1, Metadata: json.RawMessage("{}")})
	require.NoError(f, err)
	f.Add((&beat{record: "a", epoch: "e", attempt: 1}).encode(), report)
	f.Add("v1 a e accepted 0 1 1 0", []byte(`{"events":[null],"raws":[-1,-2]}`+"\n"))
	f.Fuzz(func(t *testing.T, head string, data []byte) {
		nh := nats.Header{headerName: {head}}
		if h, err := parseHeader(nh); err == nil {
			b, err := decode(&h, data)
			list, errEvents := decodeEvents(&h, data)
			if err == nil {
				require.NoError(t, errEvents, "what is read whole can be read in part")
				require.Equal(t, decoded(b.Events), list)
				again, err := parseHeader(nats.Header{headerName: {h.encode()}})
				require.NoError(t, err)
				require.Equal(t, h, again)
			}
		}
		if _, err := parseBeat(nh); err == nil {
			_, _ = decodeProgress(data)
		}
	})
}

func TestRecordsAreWrittenWithoutBeingChanged(t *testing.T) {
	rec, same := sample(), sample()
	_, err := encode(progress.Key{}, "s.i", rec.State, nil, rec.Events, 0)
	require.NoError(t, err)
	require.Equal(t, same, rec)
}

// The copies that are encoded must have all fields of what they stand for.
func TestMessagesHaveAllFields(t *testing.T) {
	for _, c := range []struct{ of, by reflect.Type }{
		{reflect.TypeFor[progress.Event](), reflect.TypeFor[wireEvent]()},
		{reflect.TypeFor[progress.Progress](), reflect.TypeFor[wireProgress]()},
	} {
		raw := map[string]bool{"Data": true, "Metadata": true}
		for i := range c.of.NumField() {
			f := c.of.Field(i)
			if !f.IsExported() || raw[f.Name] {
				continue
			}
			_, ok := c.by.FieldByName(f.Name)
			require.True(t, ok, "%s has no field %s", c.by, f.Name)
		}
	}
	for _, of := range []any{progress.State{}, progress.Request{}, progress.Failure{}} {
		n := 0
		for i := range reflect.TypeOf(of).NumField() {
			if reflect.TypeOf(of).Field(i).Type == reflect.TypeFor[json.RawMessage]() {
				n++
			}
		}
		require.Equal(t, 1, n, "%T has raw values that are visited", of)
	}
}

func TestAShortAndALongRetentionInSeconds(t *testing.T) {
	for d, want := range map[time.Duration]int64{
		1: 1, time.Second: 1, time.Second + 1: 2, time.Hour: 3600, 1<<63 - 1: 0, 0: 0,
	} {
		require.Equal(t, want, seconds(d), d)
	}
}
