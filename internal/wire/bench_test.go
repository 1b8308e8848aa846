package wire_test

import (
	"encoding/json"
	"testing"
	"time"

	"github.com/pay-theory/streamer/v2/internal/wire"
	"github.com/pay-theory/streamer/v2/progress"
)

const (
	requestMessage = `{"type":"request","id":"0198c0de-0000-7000-8000-000000000001","action":"export_data",` +
		`"payload":{"format":"csv","from":"2026-01-01","columns":["id","name","amount"]},"metadata":{"trace":"00-4bf92f3577b34da6"},"timeout_ms":600000}`
	outputMessage = `{"type":"output","request_id":"0198c0de-0000-7000-8000-000000000001","seq":12,"attempt":1,"index":3,"data":{"text":"Hello, world"}}`
)

func BenchmarkDecodeInbound(b *testing.B) {
	data := []byte(requestMessage)
	b.ReportAllocs()
	for b.Loop() {
		if _, err := wire.DecodeInbound(data); err != nil {
			b.Fatal(err)
		}
	}
}

func BenchmarkDecodeInboundLargePayload(b *testing.B) {
	text, err := json.Marshal(make([]float64, 1<<15))
	if err != nil {
		b.Fatal(err)
	}
	data := (&wire.Inbound{Action: "sum", Payload: text}).Append(nil)
	b.SetBytes(int64(len(data)))
	b.ReportAllocs()
	for b.Loop() {
		if _, err := wire.DecodeInbound(data); err != nil {
			b.Fatal(err)
		}
	}
}

func BenchmarkDecodeOutbound(b *testing.B) {
	data := []byte(outputMessage)
	b.ReportAllocs()
	for b.Loop() {
		if _, err := wire.DecodeOutbound(data); err != nil {
			b.Fatal(err)
		}
	}
}

func BenchmarkEncodeEvent(b *testing.B) {
	e := &progress.Event{Seq: 12, Kind: progress.Output, Attempt: 1, Index: 3, Data: json.RawMessage(`{"text":"Hello, world"}`)}
	b.ReportAllocs()
	for b.Loop() {
		wire.EncodeEvent("0198c0de-0000-7000-8000-000000000001", e)
	}
}

func BenchmarkEncodeProgress(b *testing.B) {
	p := &progress.Progress{Attempt: 1, Percentage: 45.5, Message: "Processed 4550/10000 records", Metadata: json.RawMessage(`{"records":4550}`), Time: time.Unix(1e9, 0)}
	b.ReportAllocs()
	for b.Loop() {
		wire.EncodeProgress("0198c0de-0000-7000-8000-000000000001", p)
	}
}
