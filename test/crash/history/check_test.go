package history_test

import (
	"fmt"
	"slices"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/pay-theory/streamer/v2/test/crash/history"
	"github.com/pay-theory/streamer/v2/test/crash/wire"
)

var rules = history.Rules{Attempts: 3, Lease: 3 * time.Second, Grace: 10 * time.Second, Slack: time.Second, Durable: true}

var noon = time.Date(2026, 1, 2, 12, 0, 0, 0, time.UTC)

func at(s float64) time.Time { return noon.Add(time.Duration(s * float64(time.Second))) }

// shown parses messages that came a second apart, from the first second on.
func shown(t *testing.T, raw ...string) []wire.Message {
	t.Helper()
	var list []wire.Message
	for i, text := range raw {
		m, err := wire.Parse([]byte(text))
		require.NoError(t, err)
		m.At = at(float64(i) + 1)
		list = append(list, m)
	}
	return list
}

const (
	attached = `{"type":"attached","request_id":"r","epoch":"e"}`
	queued   = `{"type":"status","request_id":"r","seq":1,"status":"queued"}`
	running  = `{"type":"status","request_id":"r","seq":2,"status":"running","attempt":1}`
	first    = `{"type":"output","request_id":"r","seq":3,"attempt":1,"index":0,"data":{"i":0}}`
	lost     = `{"type":"status","request_id":"r","seq":4,"status":"retrying","attempt":1,"reason":"lost"}`
	again    = `{"type":"status","request_id":"r","seq":5,"status":"running","attempt":2}`
	second   = `{"type":"output","request_id":"r","seq":6,"attempt":2,"index":0,"data":{"i":0}}`
	half     = `{"type":"progress","request_id":"r","attempt":2,"percentage":50}`
	full     = `{"type":"progress","request_id":"r","attempt":2,"percentage":100}`
	done     = `{"type":"complete","request_id":"r","seq":7,"success":true,"result":{"n":1}}`
	failed   = `{"type":"error","request_id":"r","seq":7,"error":{"code":"OUT_OF_PAPER","message":"refill"}}`
	usedUp   = `{"type":"error","request_id":"r","seq":7,"error":{"code":"PROCESSING_FAILED","message":"no more","details":{"attempts":2}}}`
	asked    = `{"type":"status","request_id":"r","seq":7,"status":"canceling","reason":"enough"}`
	ended    = `{"type":"complete","request_id":"r","seq":8,"success":true,"result":{"n":1}}`
	canceled = `{"type":"error","request_id":"r","seq":8,"error":{"code":"CANCELED","message":"enough"}}`
)

// good is the history of a request that lost a worker, and of which all is as it must be.
func good(t *testing.T) *history.Request {
	log := []string{attached, queued, running, first, lost, again, second, half, full, done}
	return &history.Request{
		ID: "r", Tenant: "acme", User: "alice", Action: "count",
		Expect:  history.Expect{Result: `{"n":1}`, Outputs: 1, Progress: 100, Obeys: true},
		Submits: []history.Submit{{From: at(0), To: at(0.5), Outcome: history.Acked, Epoch: "e"}},
		Views: []*history.View{{Viewer: "viewer 1", Segments: []*history.Segment{
			{From: at(0.6), To: at(4), Messages: shown(t, log[:4]...)},
			{Cursor: wire.Cursor{ID: "r", Epoch: "e", After: 3}, Messages: shown(t, append([]string{`{"type":"attached","request_id":"r","epoch":"e","attempt":1,"after":3}`}, log[4:]...)...)},
		}}},
		Runs:  []history.Run{{Attempt: 1, PID: 7, Start: at(2)}, {Attempt: 2, PID: 8, Start: at(3), End: at(3.5)}},
		Audit: &history.Segment{Messages: shown(t, slices.Concat(log[:7], log[8:])...)},
	}
}

// ending gives all who saw the end another one.
func ending(t *testing.T, r *history.Request, end ...string) {
	for _, s := range []*history.Segment{r.Views[0].Segments[1], r.Audit} {
		s.Messages = append(s.Messages[:len(s.Messages)-1], shown(t, end...)...)
		for i := range s.Messages {
			s.Messages[i].At = at(float64(i) + 1)
		}
	}
}

func TestAHistoryAsItMustBeIsNotObjectedTo(t *testing.T) {
	require.Empty(t, history.Check(rules, good(t), nil))
}

func TestEachCheckObjectsToWhatItsGuaranteeForbids(t *testing.T) {
	view := func(r *history.Request) *history.Segment { return r.Views[0].Segments[1] }
	message := func(r *history.Request, seq uint64) *wire.Message {
		for i := range view(r).Messages {
			if m := &view(r).Messages[i]; m.Seq == seq {
				return m
			}
		}
		panic(fmt.Sprint("no event ", seq))
	}
	cut := func(r *history.Request, seq uint64) {
		view(r).Messages = slices.DeleteFunc(view(r).Messages, func(m wire.Message) bool { return m.Seq == seq })
	}
	cancel := func(r *history.Request, answer string) {
		r.Cancels = []history.Cancel{{From: at(3), To: at(3.2), Outcome: history.Acked, Status: answer}}
	}
	for _, row := range []struct {
		guarantee, name string
		spoil           func(*testing.T, *history.Request)
	}{
		{"G1", "it never ended", func(_ *testing.T, r *history.Request) { r.GaveUp = at(99) }},
		{"G1", "its log has no end", func(_ *testing.T, r *history.Request) { r.Audit.Messages = r.Audit.Messages[:6] }},
		{"G2", "two viewers saw different ends", func(t *testing.T, r *history.Request) {
			view(r).Messages[len(view(r).Messages)-1] = shown(t, failed)[0]
		}},
		{"G2", "an event came after the end", func(t *testing.T, r *history.Request) {
			view(r).Messages = append(view(r).Messages, shown(t, canceled)...)
		}},
		{"G2", "a submit was answered with another end", func(t *testing.T, r *history.Request) {
			end := shown(t, failed)[0]
			r.Submits[0].End = &end
		}},
		{"G3", "an event is missing", func(_ *testing.T, r *history.Request) { cut(r, 5) }},
		{"G3", "an event came twice", func(_ *testing.T, r *history.Request) {
			view(r).Messages = slices.Insert(view(r).Messages, 2, *message(r, 4))
		}},
		{"G3", "it was attached elsewhere than asked", func(_ *testing.T, r *history.Request) { view(r).Messages[0].After = 2 }},
		{"G3", "a gap though nothing was lost", func(t *testing.T, r *history.Request) {
			view(r).Messages[0] = shown(t, `{"type":"gap","request_id":"r","epoch":"e","after":3,"oldest":4,"reason":"expired"}`)[0]
		}},
		{"G3", "the request is said not to be there", func(t *testing.T, r *history.Request) {
			view(r).Messages = shown(t, `{"type":"error","request_id":"r","error":{"code":"NOT_FOUND","message":"no such request"}}`)
		}},
		{"G4", "a number has two contents", func(_ *testing.T, r *history.Request) { message(r, 6).Raw += " " }},
		{"G4", "the log was made anew", func(_ *testing.T, r *history.Request) { r.Audit.Messages[0].Epoch = "f" }},
		{"G5", "an output is missing", func(_ *testing.T, r *history.Request) { r.Expect.Outputs = 2 }},
		{"G5", "an output has another number", func(_ *testing.T, r *history.Request) { r.Audit.Messages[6].Index = 1 }},
		{"G5", "an output has another content", func(_ *testing.T, r *history.Request) { r.Audit.Messages[6].Data = []byte(`{"i":4}`) }},
		{"G5", "an attempt goes on from what is not there", func(_ *testing.T, r *history.Request) { r.Audit.Messages[5].OutputsFrom = 2 }},
		{"G5", "the result is another", func(_ *testing.T, r *history.Request) { r.Expect.Result = `{"n":2}` }},
		{"G6", "progress fell", func(_ *testing.T, r *history.Request) { view(r).Messages[4].Percentage = 101 }},
		{"G6", "the last progress is missing", func(_ *testing.T, r *history.Request) {
			view(r).Messages = slices.DeleteFunc(view(r).Messages, func(m wire.Message) bool { return m.Percentage == 100 })
		}},
		{"G6", "progress of an attempt that is over", func(_ *testing.T, r *history.Request) { view(r).Messages[4].Attempt = 1 }},
		{"G7", "two submits made it", func(_ *testing.T, r *history.Request) { r.Submits = append(r.Submits, r.Submits[0]) }},
		{"G7", "two bodies were accepted", func(_ *testing.T, r *history.Request) {
			r.Submits = append(r.Submits, history.Submit{Outcome: history.Acked, Duplicate: true, Other: true})
		}},
		{"G7", "a conflict with nothing", func(_ *testing.T, r *history.Request) {
			r.Submits = append(r.Submits, history.Submit{Outcome: history.Refused, Code: "CONFLICT"})
		}},
		{"G7", "a refusal that makes no sense", func(_ *testing.T, r *history.Request) {
			r.Submits = append(r.Submits, history.Submit{Outcome: history.Refused, Code: "INTERNAL_ERROR"})
		}},
		{"G8", "a cancel left no trace", func(_ *testing.T, r *history.Request) { cancel(r, "canceling") }},
		{"G8", "a cancel was told another end", func(_ *testing.T, r *history.Request) { cancel(r, "failed") }},
		{"G8", "a recorded cancel came to nothing", func(t *testing.T, r *history.Request) {
			cancel(r, "canceling")
			ending(t, r, asked, ended)
		}},
		{"G8", "nobody asked for the cancel", func(t *testing.T, r *history.Request) { ending(t, r, asked, canceled) }},
		{"G8", "the handler went on", func(t *testing.T, r *history.Request) {
			cancel(r, "canceling")
			ending(t, r, asked, canceled)
			r.Runs[1].End = at(9)
		}},
		{"G8", "the end was late", func(t *testing.T, r *history.Request) {
			r.Cancels = []history.Cancel{{From: at(-30), To: at(-20), Outcome: history.Acked, Status: "canceling"}}
			ending(t, r, asked, canceled)
		}},
		{"G8", "the request could not be found", func(_ *testing.T, r *history.Request) {
			r.Cancels = []history.Cancel{{From: at(3), To: at(3.2), Outcome: history.Refused, Code: "NOT_FOUND"}}
		}},
		{"G9", "two handlers ran though none was lost", func(_ *testing.T, r *history.Request) {
			r.Runs[0].End = at(3.2)
			r.Audit.Messages[4].Reason = "error"
		}},
		{"G10", "an event of an attempt that is over", func(_ *testing.T, r *history.Request) { r.Audit.Messages[6].Attempt = 1 }},
		{"G10", "two handlers for an attempt", func(_ *testing.T, r *history.Request) { r.Runs[1].Attempt = 1 }},
		{"G10", "an attempt that the log does not know", func(_ *testing.T, r *history.Request) { r.Runs[0].Attempt = 3 }},
		{"G10", "a handler was called after the end", func(_ *testing.T, r *history.Request) { r.Runs[0].Start = at(50) }},
		{"G10", "it completed before its handler returned", func(_ *testing.T, r *history.Request) { r.Runs[1].End = at(60) }},
		{"G11", "it failed before its attempts were used up", func(t *testing.T, r *history.Request) { ending(t, r, usedUp) }},
		{"G11", "it failed with what its handler never returns", func(t *testing.T, r *history.Request) { ending(t, r, failed) }},
		{"G11", "it failed though its handler asked for a retry", func(t *testing.T, r *history.Request) {
			r.Expect.Fails, r.Expect.Retries = "OUT_OF_PAPER", true
			ending(t, r, failed)
		}},
		{"G14", "somebody else was answered", func(_ *testing.T, r *history.Request) {
			r.Probes = []history.Probe{{As: "mallory", How: "read", Outcome: history.Acked}}
		}},
		{"G14", "somebody else was told that it exists", func(_ *testing.T, r *history.Request) {
			r.Probes = []history.Probe{{As: "mallory", How: "cancel", Outcome: history.Refused, Code: "FORBIDDEN"}}
		}},
	} {
		t.Run(row.guarantee+" "+row.name, func(t *testing.T) {
			r := good(t)
			row.spoil(t, r)
			found := history.Check(rules, r, nil)
			require.True(t, slices.ContainsFunc(found, func(v history.Violation) bool { return v.Guarantee == row.guarantee }), "found: %v", found)
		})
	}
}

func TestMoreAttemptsThanThereMayBeAreObjectedTo(t *testing.T) {
	strict := rules
	strict.Attempts = 1
	found := history.Check(strict, good(t), nil)
	require.Len(t, found, 1)
	require.Equal(t, "G11", found[0].Guarantee)
}

func TestNobodyExpectsPromptnessOfAProcessThatWasDisturbed(t *testing.T) {
	r := good(t)
	r.Cancels = []history.Cancel{{From: at(3), To: at(3.2), Outcome: history.Acked, Status: "canceling"}}
	ending(t, r, asked, canceled)
	r.Runs[1].End = at(9)
	loss := history.Fault{Kind: "kill", Role: "worker", PID: 7, From: at(2.5), To: at(2.8)}
	with := func(kind, role string, pid int) []history.Fault {
		return []history.Fault{loss, {Kind: kind, Role: role, PID: pid, From: at(3.1), To: at(8.9)}}
	}
	require.NotEmpty(t, history.Check(rules, r, []history.Fault{loss}))
	require.Empty(t, history.Check(rules, r, with("stop", "worker", 8)))
	require.Empty(t, history.Check(rules, r, with("kill", "nats", 1)))
	require.Empty(t, history.Check(rules, r, with("stop", "aws", 1)))
	require.NotEmpty(t, history.Check(rules, r, with("stop", "worker", 9)))
}

func TestProgressMayBeForgottenOnlyWithTheProcessThatKeptIt(t *testing.T) {
	r := good(t)
	messages := r.Views[0].Segments[1].Messages
	fallen := shown(t, `{"type":"progress","request_id":"r","attempt":2,"percentage":10}`)[0]
	fallen.At = messages[4].At.Add(500 * time.Millisecond)
	r.Views[0].Segments[1].Messages = slices.Insert(messages, 5, fallen)
	kill := []history.Fault{{Kind: "kill", Role: "all", PID: 9, From: messages[4].At.Add(100 * time.Millisecond), To: fallen.At}}
	require.Len(t, history.Check(rules, r, kill), 1)
	volatile := rules
	volatile.VolatileProgress = true
	require.Len(t, history.Check(volatile, r, nil), 1)
	require.Empty(t, history.Check(volatile, r, kill))
}

func TestAWorkerThatWasKilledAloneIsReplacedInTime(t *testing.T) {
	r := good(t)
	kill := history.Fault{Kind: "kill", Role: "worker", PID: 7, From: at(2.5), To: at(4)}
	require.Empty(t, history.Check(rules, r, []history.Fault{kill}))
	r.Runs[1].Start, r.Runs[1].End = at(9), at(9.5) // the lease is 3 s
	r.Audit.Messages[len(r.Audit.Messages)-1].At = at(10)
	view := r.Views[0].Segments[1].Messages
	view[len(view)-1].At = at(10)
	found := history.Check(rules, r, []history.Fault{kill})
	require.Len(t, found, 1)
	require.Equal(t, "G9", found[0].Guarantee)
	other := history.Fault{Kind: "stop", Role: "worker", PID: 8, From: at(3), To: at(8)}
	require.Empty(t, history.Check(rules, r, []history.Fault{kill, other}))
}

func TestATicketThatWentAstrayMayBeTakenOverLater(t *testing.T) {
	r := good(t)
	kill := history.Fault{Kind: "kill", Role: "worker", PID: 7, From: at(2.5), To: at(4)}
	r.Runs[1].Start, r.Runs[1].End = at(10), at(10.5)
	r.Audit.Messages[len(r.Audit.Messages)-1].At = at(11)
	view := r.Views[0].Segments[1].Messages
	view[len(view)-1].At = at(11)
	require.Len(t, history.Check(rules, r, []history.Fault{kill}), 1)
	astray := rules
	astray.Stray = 2 * time.Second
	require.Empty(t, history.Check(astray, r, []history.Fault{kill}))
	astray.Stray = time.Second
	require.Len(t, history.Check(astray, r, []history.Fault{kill}), 1)
}

func TestAHandlerMayGoOnUntilItsProcessCanKnowOfTheCancel(t *testing.T) {
	r := good(t)
	r.Cancels = []history.Cancel{{From: at(3), To: at(3.2), Outcome: history.Acked, Status: "canceling"}}
	ending(t, r, asked, canceled)
	r.Runs[1].End = at(5.5)
	loss := []history.Fault{{Kind: "kill", Role: "worker", PID: 7, From: at(2.5), To: at(2.8)}}
	require.Len(t, history.Check(rules, r, loss), 1)
	polling := rules
	polling.Notice = time.Second
	require.Empty(t, history.Check(polling, r, loss))
	r.Runs[1].End = at(6.5)
	require.Len(t, history.Check(polling, r, loss), 1)
}

func TestRareStatesAreRecognised(t *testing.T) {
	r := good(t)
	r.Cancels = []history.Cancel{{From: at(3), To: at(20), Outcome: history.Acked, Status: "completed"}}
	r.Submits = append(r.Submits, history.Submit{From: at(0.1), To: at(0.2), Outcome: history.Acked, Duplicate: true})
	x := history.RareOf(r, []history.Fault{{Kind: "kill", PID: 7, From: at(2.5), To: at(4)}})
	require.Equal(t, history.Rare{Lost: 1, Raced: true, Twins: true, Takeovers: []time.Duration{500 * time.Millisecond}}, x)

	r.Runs[0].End = at(4)
	x = history.RareOf(r, []history.Fault{{Kind: "stop", PID: 7, From: at(2.5), To: at(3.9)}})
	require.Equal(t, 1, x.Fenced)
}
