package natslog

import (
	"encoding/json"
	"fmt"
	"math"
	"reflect"
	"strings"
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
	data, err := encode(progress.Key{Scope: "s", ID: "i"}, "s.i", &rec.State, &progress.Progress{Metadata: json.RawMessage("{}")}, rec.Events, 100)
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
	_, err := encode(progress.Key{}, "s.i", &rec.State, nil, rec.Events, 0)
	require.NoError(t, err)
	require.Equal(t, same, rec)
}

// The encoder is written by hand: no field may be forgotten, now or when one is added.
func TestRecordsAndProgressComeBackWithAllFields(t *testing.T) {
	n := 0
	var fill func(v reflect.Value)
	fill = func(v reflect.Value) {
		n++
		switch v.Kind() {
		case reflect.String:
			v.SetString(fmt.Sprintf("text %d \x00\n\"<\u2028\\", n))
		case reflect.Int, reflect.Int64:
			v.SetInt(int64(n))
		case reflect.Uint64:
			v.SetUint(uint64(n))
		case reflect.Float64:
			v.SetFloat(float64(n) + 0.5)
		case reflect.Bool:
			v.SetBool(true)
		case reflect.Slice:
			v.SetBytes(fmt.Appendf(nil, "[%d,\n 0]", n))
		case reflect.Map:
			v.Set(reflect.ValueOf(map[string]string{"a \"": "b", "": "\n", "c": ""}))
		case reflect.Pointer:
			v.Set(reflect.New(v.Type().Elem()))
			fill(v.Elem())
		case reflect.Struct:
			if v.Type() == reflect.TypeFor[time.Time]() {
				v.Set(reflect.ValueOf(time.Unix(int64(n), int64(n)).UTC()))
				return
			}
			for i := range v.NumField() {
				if v.Type().Field(i).IsExported() {
					fill(v.Field(i))
				}
			}
		default:
			t.Fatalf("no value for a %s", v.Type())
		}
	}
	var st progress.State
	var p progress.Progress
	events := []*progress.Event{{}, {}, {}}
	fill(reflect.ValueOf(&st).Elem())
	fill(reflect.ValueOf(&p).Elem())
	fill(reflect.ValueOf(events[0]).Elem())
	fill(reflect.ValueOf(events[1]).Elem())
	st.Last = 3
	for i, e := range events {
		e.Seq = uint64(i) + 1
	}
	key := progress.Key{Scope: strings.Repeat("\xff long ", 100), ID: "i"}
	data, err := encode(key, path(key), &st, &p, events, 77)
	require.NoError(t, err)
	h := header{record: token(st.Record), epoch: token(st.Epoch), first: 1, last: 3}
	b, err := decode(&h, data)
	require.NoError(t, err)
	require.Equal(t, st, b.State)
	require.Equal(t, &p, b.Progress.progress())
	require.Equal(t, events, decoded(b.Events))
	require.Equal(t, int64(77), b.Bytes)
	require.Equal(t, &wireKey{Scope: []byte(key.Scope), ID: []byte(key.ID)}, b.Key)

	data, err = encodeProgress(&p)
	require.NoError(t, err)
	got, err := decodeProgress(data)
	require.NoError(t, err)
	require.Equal(t, &p, got)
}

func FuzzEncode(f *testing.F) {
	f.Add("", "action", int64(0), 0.0, []byte(nil))
	f.Add("\x00", "\"\u2028\ufffd", int64(-1), 1e21, []byte("{\n}"))
	f.Add("\\", "\x7f</script>", int64(1<<62), 5e-324, []byte(""))
	f.Fuzz(func(t *testing.T, a, b string, n int64, x float64, raw []byte) {
		a, b = strings.ToValidUTF8(a, "?"), strings.ToValidUTF8(b, "?")
		at := time.Unix(n%(1<<33), n&0xfffffff).UTC()
		st := progress.State{Epoch: a, Action: b, Created: at, Last: 1, Record: b, Used: int(n), Checkpoint: raw, Error: &progress.Failure{Code: a, Message: b}}
		p := &progress.Progress{Beat: uint64(n), Percentage: x, Message: a, Metadata: raw, Time: at}
		e := &progress.Event{Seq: 1, Kind: progress.Accepted, Record: b, Time: at, Data: raw, Delay: time.Duration(n),
			Request: &progress.Request{Action: a, Metadata: map[string]string{a: b, b: a}}}
		data, err := encode(progress.Key{}, "s.i", &st, p, []*progress.Event{e}, n)
		if math.IsNaN(x) || math.IsInf(x, 0) {
			require.Error(t, err)
			return
		}
		require.NoError(t, err)
		got, err := decode(&header{record: token(b), epoch: token(a), first: 1, last: 1}, data)
		require.NoError(t, err)
		require.Equal(t, st, got.State)
		require.Equal(t, p, got.Progress.progress())
		require.Equal(t, []*progress.Event{e}, decoded(got.Events))
	})
}

func TestAShortAndALongRetentionInSeconds(t *testing.T) {
	for d, want := range map[time.Duration]int64{
		1: 1, time.Second: 1, time.Second + 1: 2, time.Hour: 3600, 1<<63 - 1: 0, 0: 0,
	} {
		require.Equal(t, want, seconds(d), d)
	}
}
