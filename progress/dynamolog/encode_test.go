package dynamolog

import (
	"encoding/json"
	"fmt"
	"math"
	"reflect"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/pay-theory/streamer/v2/progress"
)

// The encoder is written by hand: no field may be forgotten, now or when one is added.
func TestAllFieldsComeBack(t *testing.T) {
	t.Parallel()
	n := 0
	var fill func(v reflect.Value)
	fill = func(v reflect.Value) {
		n++
		switch v.Kind() {
		case reflect.String:
			v.SetString(fmt.Sprintf("text %d \x00\xff", n))
		case reflect.Int, reflect.Int64:
			v.SetInt(int64(-n))
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
	for i, e := range events {
		e.Seq, e.Record = uint64(i)+7, "record"
	}

	got, err := decodeState(encodeState(&st, true))
	require.NoError(t, err)
	got.Epoch, got.Record, got.Last = st.Epoch, st.Record, st.Last // are attributes
	require.Equal(t, st, got)
	report, err := decodeProgress(encodeProgress(&p))
	require.NoError(t, err)
	require.Equal(t, &p, report)
	c := chunk{record: "record", first: 7, count: 3}
	back, err := decodeChunk(c.encode(encodeEvents(events)))
	require.NoError(t, err)
	require.Equal(t, events, back.events)
}

func TestKindsKeepTheirCodes(t *testing.T) {
	t.Parallel()
	list := kinds()
	require.Equal(t, "accepted started output retrying canceling completed failed canceled", strings.Trim(fmt.Sprint(list), "[]"))
	for _, k := range append(list[:], "", "another") {
		var w encoder
		w.kind(k)
		r := &decoder{b: w.b}
		require.Equal(t, k, r.kind())
		require.NoError(t, r.finish())
	}
}

func FuzzDecode(f *testing.F) {
	e := &progress.Event{Kind: progress.Accepted, Time: time.Unix(1, 2), Data: json.RawMessage(` {"a" : 1}`), Request: &progress.Request{Metadata: map[string]string{"a": "b"}}, Error: &progress.Failure{}}
	c := chunk{record: "a", first: 1, count: 2}
	inlined := c.encode(encodeEvents([]*progress.Event{e, e}))
	f.Add(inlined)
	f.Add(encodeSegment([]chunk{{record: "a", first: 1, count: 1, events: []*progress.Event{e}}}))
	f.Add((&chunk{record: "a", first: 3, count: 1, where: inTable, size: 5000, parts: 1}).encode(nil))
	f.Add(encodeState(&progress.State{Phase: progress.Accepted, Error: &progress.Failure{Code: "a"}}, true))
	f.Add(encodeProgress(&progress.Progress{Percentage: math.NaN()}))
	f.Add([]byte{0, 1, 'a', 1, 0xff, 0xff, 0xff, 0xff, 7})
	f.Fuzz(func(t *testing.T, b []byte) {
		if c, err := decodeChunk(b); err == nil {
			again, err := decodeChunk(c.encode(encodeEvents(c.events)))
			require.NoError(t, err)
			again.size = c.size // numbers can be written at greater length than the encoder does
			require.Equal(t, c, again)
		}
		if list, err := decodeSegment(b); err == nil {
			require.NotEmpty(t, list)
		}
		if s, err := decodeState(b); err == nil {
			again, err := decodeState(encodeState(&s, true))
			require.NoError(t, err)
			require.Equal(t, s, again)
		}
		if p, err := decodeProgress(b); err == nil {
			again, err := decodeProgress(encodeProgress(p))
			require.NoError(t, err)
			require.Equal(t, math.Float64bits(p.Percentage), math.Float64bits(again.Percentage))
		}
	})
}

func FuzzKeys(f *testing.F) {
	f.Add("tenant/user", "r1", "tenant", "user/r1")
	f.Add("1:a", "", "", "\x00")
	f.Add(strings.Repeat("x", 300), "a", "\xff", "a")
	f.Fuzz(func(t *testing.T, scope, id, scope2, id2 string) {
		a, b := progress.Key{Scope: scope, ID: id}, progress.Key{Scope: scope2, ID: id2}
		pa, pb := path(a), path(b)
		require.Equal(t, a == b, pa == pb)
		require.LessOrEqual(t, len(pa), maxPath)
		if k, ok := keyOf(pa); ok {
			require.Equal(t, a, k)
		}
		require.Equal(t, scope == id, tag(scope) == tag(id))
		require.NotContains(t, tag(scope), "/")
	})
}

func TestClockIsNeverEarlyInWhatItWritesAndNeverLateInWhatItJudges(t *testing.T) {
	t.Parallel()
	var c clock
	real := func() time.Time { return time.Now().Add(time.Hour) } // the store's
	for range 100 {
		asked := time.Now()
		c.heard(real().Truncate(time.Second), asked)
		require.False(t, c.earliest().After(real()))
		require.False(t, c.latest().Before(real()))
		require.Less(t, c.latest().Sub(real()), 1100*time.Millisecond)
		at := c.expiry(time.Minute)
		require.Equal(t, at, at.Truncate(time.Second))
		require.False(t, at.Before(real().Add(time.Minute)))
	}
	require.True(t, c.expiry(math.MaxInt64).Before(real().Add(101*365*24*time.Hour)))
}
