package wire_test

import (
	"encoding/json"
	"math"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/pay-theory/streamer/v2/internal/wire"
	"github.com/pay-theory/streamer/v2/progress"
)

func TestClientsIgnoreWhatTheyDoNotKnow(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		message string
		want    wire.Outbound
	}{
		"unknown fields": {`{"type":"pong","x":{"y":[1]},"error_count":2,"Ref":"x"}`, wire.Outbound{Type: "pong"}},
		"unknown fields within": {`{"type":"error","error":{"code":"A","message":"b","cause":{"code":1}},"limits":{"max_x":"y"}}`,
			wire.Outbound{Type: "error", Error: &progress.Failure{Code: "A", Message: "b"}}},
		"unknown type": {`{"type":"snapshot","request_id":"r1","seq":"x","error":5}`,
			wire.Outbound{Type: "snapshot", RequestID: "r1"}},
		"null for no value": {`{"type":"welcome","session":null,"v":null,"auth_expires_at":null,"limits":null,"caps":null,"error":null,"duplicate":null,"percentage":null,"metadata":null}`,
			wire.Outbound{Type: "welcome"}},
		"null as a value": {`{"type":"complete","seq":3,"success":true,"result":null}`,
			wire.Outbound{Type: "complete", Seq: 3, Success: true, Result: json.RawMessage("null")}},
		"lone surrogates": {`{"type":"output","request_id":"\ud800!","data":"\udc00"}`,
			wire.Outbound{Type: "output", RequestID: "\uFFFD!", Data: json.RawMessage(`"\udc00"`)}},
		"times with an offset": {`{"type":"authenticated","expires_at":"2026-01-02T04:04:05+01:00"}`,
			wire.Outbound{Type: "authenticated", ExpiresAt: time.Date(2026, 1, 2, 4, 4, 5, 0, time.FixedZone("", 3600))}},
	} {
		t.Run(name, func(t *testing.T) {
			m, err := wire.DecodeOutbound([]byte(c.message))
			require.NoError(t, err)
			require.True(t, c.want.ExpiresAt.Equal(m.ExpiresAt))
			m.ExpiresAt = c.want.ExpiresAt
			require.Equal(t, &c.want, m)
		})
	}
}

func TestClientsRefuseTheWrongShape(t *testing.T) {
	t.Parallel()
	for message, want := range map[string]string{
		``:                   "it ends where a value is expected",
		`5`:                  "a message must be a JSON object",
		`{"seq":1}`:          `"type" is missing`,
		`{"type":1}`:         `"type" must be a string`,
		`{"type":"pong"} {}`: "data after the message",
		"{\"type\":\"output\",\"data\":\"\xff\"}":                   "invalid UTF-8",
		`{"type":"output","seq":-1}`:                                `"seq" must be an integer`,
		`{"type":"output","seq":"1"}`:                               `"seq" must be an integer`,
		`{"type":"output","index":2147483648}`:                      `"index" must be an integer from 0 to 2147483647`,
		`{"type":"complete","success":"true"}`:                      `"success" must be true or false`,
		`{"type":"progress","percentage":"5"}`:                      `"percentage" must be a number`,
		`{"type":"progress","percentage":1e999}`:                    `"percentage" must be a number`,
		`{"type":"progress","timestamp":"yesterday"}`:               `"timestamp" must be a time`,
		`{"type":"error","error":"NOT_FOUND"}`:                      `"error" must be an object`,
		`{"type":"error","error":{"retry_after_ms":9223372036855}}`: `"retry_after_ms" must be an integer`,
		`{"type":"welcome","caps":{}}`:                              `"caps" must be an array of strings`,
		`{"type":"welcome","limits":[]}`:                            `"limits" must be an object`,
		`{"type":"output","data":` + strings.Repeat("[", 20_000):    "nested deeper than 10001 levels",
	} {
		m, err := wire.DecodeOutbound([]byte(message))
		require.Nil(t, m, message)
		require.ErrorContains(t, err, want)
	}
}

func TestClientsTakeDataAsDeepAsHandlersCanReturn(t *testing.T) {
	t.Parallel()
	deep := strings.Repeat("[", 10_000) + strings.Repeat("]", 10_000)
	require.True(t, json.Valid([]byte(deep)))
	m, err := wire.DecodeOutbound([]byte(`{"type":"output","data":` + deep + `}`))
	require.NoError(t, err)
	require.Equal(t, deep, string(m.Data))
}

func TestRefIsAddedToASharedMessage(t *testing.T) {
	t.Parallel()
	e := &progress.Event{Seq: 3, Kind: progress.Canceling, Reason: "stop"}
	shared := wire.EncodeEvent("r1", e)
	before := string(shared)
	m, err := wire.DecodeOutbound(wire.AppendRef(nil, shared, `"7"`))
	require.NoError(t, err)
	require.Equal(t, `"7"`, m.Ref)
	require.Equal(t, string(wire.AppendRef(nil, shared, `"7"`)), string(m.Append(nil)))
	require.Equal(t, before, string(shared))
	require.Equal(t, before, string(wire.AppendRef(nil, shared, "")))
}

func TestEventsAsMessages(t *testing.T) {
	t.Parallel()
	at := time.Date(2026, 1, 2, 4, 4, 5, 678_999_999, time.FixedZone("", 3600))
	failure := &progress.Failure{Code: "BUSY", Message: "a \"quote\"", Details: json.RawMessage(`{"n":1}`), RetryAfter: 1500 * time.Microsecond}
	for name, c := range map[string]struct {
		event *progress.Event
		want  string
	}{
		"accepted": {&progress.Event{Seq: 1, Kind: progress.Accepted, Request: &progress.Request{Action: "a"}},
			`{"type":"status","request_id":"r1","seq":1,"status":"queued"}`},
		"started": {&progress.Event{Seq: 2, Kind: progress.Started, Attempt: 1},
			`{"type":"status","request_id":"r1","seq":2,"status":"running","attempt":1}`},
		"started again": {&progress.Event{Seq: 10, Kind: progress.Started, Attempt: 2, Index: 3},
			`{"type":"status","request_id":"r1","seq":10,"status":"running","attempt":2,"outputs_from":3}`},
		"started again from the first output": {&progress.Event{Seq: 10, Kind: progress.Started, Attempt: 2},
			`{"type":"status","request_id":"r1","seq":10,"status":"running","attempt":2,"outputs_from":0}`},
		"output": {&progress.Event{Seq: 12, Kind: progress.Output, Attempt: 2, Index: 3, Data: json.RawMessage(`{"text":"Hel"}`), Time: at},
			`{"type":"output","request_id":"r1","seq":12,"attempt":2,"index":3,"data":{"text":"Hel"}}`},
		"retrying": {&progress.Event{Seq: 9, Kind: progress.Retrying, Attempt: 1, Reason: progress.ReasonError, Delay: 5 * time.Second, Error: failure},
			`{"type":"status","request_id":"r1","seq":9,"status":"retrying","attempt":1,"reason":"error","retry_after_ms":5000,"error":{"code":"BUSY","message":"a \"quote\"","details":{"n":1},"retry_after_ms":2}}`},
		"retrying at once": {&progress.Event{Seq: 9, Kind: progress.Retrying, Attempt: 1, Reason: progress.ReasonLost},
			`{"type":"status","request_id":"r1","seq":9,"status":"retrying","attempt":1,"reason":"lost","retry_after_ms":0}`},
		"canceling": {&progress.Event{Seq: 13, Kind: progress.Canceling, Attempt: 1, Reason: "user pressed stop"},
			`{"type":"status","request_id":"r1","seq":13,"status":"canceling","reason":"user pressed stop"}`},
		"canceling without reason": {&progress.Event{Seq: 13, Kind: progress.Canceling},
			`{"type":"status","request_id":"r1","seq":13,"status":"canceling"}`},
		"completed": {&progress.Event{Seq: 14, Kind: progress.Completed, Success: true, Data: json.RawMessage(`{"url":"<a>"}`), Time: at},
			`{"type":"complete","request_id":"r1","seq":14,"success":true,"result":{"url":"<a>"},"timestamp":"2026-01-02T03:04:05.678Z"}`},
		"completed without success or data": {&progress.Event{Seq: 14, Kind: progress.Completed, Time: at},
			`{"type":"complete","request_id":"r1","seq":14,"success":false,"timestamp":"2026-01-02T03:04:05.678Z"}`},
		"completed, short": {&progress.Event{Seq: 1, Kind: progress.Completed, Short: true, Success: true, Data: json.RawMessage(`"hi"`), Time: at},
			`{"type":"response","request_id":"r1","seq":1,"success":true,"data":"hi"}`},
		"failed": {&progress.Event{Seq: 14, Kind: progress.Failed, Error: failure},
			`{"type":"error","request_id":"r1","seq":14,"error":{"code":"BUSY","message":"a \"quote\"","details":{"n":1},"retry_after_ms":2}}`},
		"failed, short": {&progress.Event{Seq: 1, Kind: progress.Failed, Short: true, Error: &progress.Failure{Code: "BUSY"}},
			`{"type":"error","request_id":"r1","seq":1,"error":{"code":"BUSY","message":""}}`},
		"canceled": {&progress.Event{Seq: 14, Kind: progress.Canceled, Error: &progress.Failure{Code: "CANCELED", Message: "user pressed stop"}},
			`{"type":"error","request_id":"r1","seq":14,"error":{"code":"CANCELED","message":"user pressed stop"}}`},
		"a kind of the future": {&progress.Event{Seq: 3, Kind: "paused"},
			`{"type":"status","request_id":"r1","seq":3,"status":"paused"}`},
		"poison": {&progress.Event{Seq: 3, Kind: progress.Output, Attempt: 1, Data: json.RawMessage("{\"a\":\r\n\"\xff\xfe b\",\n\"c\":1}")},
			`{"type":"output","request_id":"r1","seq":3,"attempt":1,"index":0,"data":{"a":  "� b", "c":1}}`},
		"poisoned error": {&progress.Event{Seq: 3, Kind: progress.Failed, Error: &progress.Failure{Code: "A", Message: "\xff\n\u2029", Details: json.RawMessage("{\n}")}},
			`{"type":"error","request_id":"r1","seq":3,"error":{"code":"A","message":"�\n\u2029","details":{ }}}`},
	} {
		t.Run(name, func(t *testing.T) {
			message := wire.EncodeEvent("r1", c.event)
			require.Equal(t, c.want, string(message))
			m, err := wire.DecodeOutbound(message)
			require.NoError(t, err)
			require.Equal(t, c.want, string(m.Append(nil)), "decoded and encoded again")
		})
	}
}

func TestProgressAsMessage(t *testing.T) {
	t.Parallel()
	p := progress.Progress{Attempt: 1, Rev: 5, Percentage: 45.5, Message: "half", Metadata: json.RawMessage("{\n\"n\":1}"), Time: time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)}
	require.Equal(t, `{"type":"progress","request_id":"r1","attempt":1,"percentage":45.5,"message":"half","metadata":{ "n":1},"timestamp":"2026-01-02T03:04:05.000Z"}`,
		string(wire.EncodeProgress("r1", &p)))
	for percentage, want := range map[float64]string{
		0: "0", 100: "100", 33.333333333333336: "33.333333333333336", 0.1: "0.1", 1e-7: "1e-07", 5e-324: "5e-324",
		-1: "0", 100.5: "100", math.Inf(1): "100", math.Inf(-1): "0", math.NaN(): "0", math.Copysign(0, -1): "0",
	} {
		message := wire.EncodeProgress("r1", &progress.Progress{Attempt: 1, Percentage: percentage})
		require.True(t, json.Valid(message))
		require.Contains(t, string(message), `"percentage":`+want+`,`)
	}
}

func TestEncodingAllocatesOnce(t *testing.T) {
	e := &progress.Event{Seq: 1 << 40, Kind: progress.Output, Attempt: 100, Index: 1 << 20, Data: json.RawMessage(`{"text":"` + strings.Repeat("x", 1000) + `"}`)}
	require.EqualValues(t, 1, testing.AllocsPerRun(100, func() { wire.EncodeEvent("0198c0de-0000-7000-8000-000000000001", e) }))
	failed := &progress.Event{Seq: 9, Kind: progress.Retrying, Attempt: 1, Reason: progress.ReasonError, Delay: time.Hour,
		Error: &progress.Failure{Code: "SERVICE_UNAVAILABLE", Message: "printer is offline", Details: json.RawMessage(`{"n":1}`), RetryAfter: time.Hour}}
	require.EqualValues(t, 1, testing.AllocsPerRun(100, func() { wire.EncodeEvent("r1", failed) }))
	p := &progress.Progress{Attempt: 100, Percentage: 33.333333333333336, Message: "Processed 4550/10000 records", Metadata: json.RawMessage(`{"n":1}`), Time: time.Unix(1e9, 0)}
	require.EqualValues(t, 1, testing.AllocsPerRun(100, func() { wire.EncodeProgress("0198c0de-0000-7000-8000-000000000001", p) }))
}
