package progress

import (
	"context"
	"encoding/json"
	"maps"
	"sync"
	"sync/atomic"
	"time"
)

// Reporter is what a handler reports its progress to. It is small on purpose: a mock in a
// user's test needs just these two methods. Partial output and checkpoints are functions of
// the root package on the handler's context.
//
// The Reporter that a handler receives may be used by many goroutines, never blocks and does
// no I/O, so it may be called in a tight loop. Calls after the handler returned are ignored.
type Reporter interface {
	// Report sets the newest progress. percentage is clamped to 0–100 and never falls within an
	// attempt; NaN keeps the last value. Values between two writes are merged; the last one is
	// always delivered before the request's end. message is cut at 4 KiB.
	Report(percentage float64, message string) error

	// SetMetadata sets one entry of the metadata that is sent with this and all later
	// progress of the attempt. It returns an error when value can't be encoded as JSON or the
	// metadata would exceed 64 entries or 16 KiB.
	SetMetadata(key string, value any) error
}

// Discard is a Reporter that does nothing.
var Discard Reporter = discard{}

type discard struct{}

func (discard) Report(float64, string) error  { return nil }
func (discard) SetMetadata(string, any) error { return nil }

// Report is one call that a Recorder saw.
type Report struct {
	Percentage float64
	Message    string
}

// Recorder is a Reporter for unit tests of handlers: it keeps every report, output and
// checkpoint. The zero value is ready; it is safe for concurrent use.
type Recorder struct {
	// Resume is what LastCheckpoint finds before the handler made one of its own, as if an
	// earlier attempt had left it. Nil: nothing.
	Resume any

	mu          sync.Mutex
	reports     []Report
	metadata    map[string]any
	outputs     []json.RawMessage
	checkpoints []json.RawMessage
}

// Report implements Reporter.
func (r *Recorder) Report(percentage float64, message string) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.reports = append(r.reports, Report{percentage, message})
	return nil
}

// SetMetadata implements Reporter.
func (r *Recorder) SetMetadata(key string, value any) error {
	if _, err := json.Marshal(value); err != nil {
		return err
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.metadata == nil {
		r.metadata = make(map[string]any)
	}
	r.metadata[key] = value
	return nil
}

// Context returns a context on which Output, Checkpoint, LastCheckpoint and Attempt of the
// root package work against the recorder.
func (r *Recorder) Context(ctx context.Context) context.Context {
	return NewContext(ctx, recording{r})
}

// Reports returns what was reported so far, in order.
func (r *Recorder) Reports() []Report {
	r.mu.Lock()
	defer r.mu.Unlock()
	return append([]Report(nil), r.reports...)
}

// Metadata returns the metadata set so far.
func (r *Recorder) Metadata() map[string]any {
	r.mu.Lock()
	defer r.mu.Unlock()
	return maps.Clone(r.metadata)
}

// Outputs returns the outputs so far, as JSON.
func (r *Recorder) Outputs() []json.RawMessage {
	r.mu.Lock()
	defer r.mu.Unlock()
	return append([]json.RawMessage(nil), r.outputs...)
}

// Checkpoints returns the checkpoints so far, as JSON.
func (r *Recorder) Checkpoints() []json.RawMessage {
	r.mu.Lock()
	defer r.mu.Unlock()
	return append([]json.RawMessage(nil), r.checkpoints...)
}

// recording keeps the methods of Run out of Recorder's own method set.
type recording struct{ *Recorder }

func (r recording) Attempt() int { return 1 }

func (r recording) Output(v any) error {
	data, err := json.Marshal(v)
	if err != nil {
		return err
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	r.outputs = append(r.outputs, data)
	return nil
}

func (r recording) Checkpoint(v any) error {
	data, err := json.Marshal(v)
	if err != nil {
		return err
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	r.checkpoints = append(r.checkpoints, data)
	return nil
}

func (r recording) LastCheckpoint(into any) (bool, error) {
	r.mu.Lock()
	var data json.RawMessage
	if n := len(r.checkpoints); n > 0 {
		data = r.checkpoints[n-1]
	}
	resume := r.Resume
	r.mu.Unlock()
	if data == nil && resume != nil {
		var err error
		if data, err = json.Marshal(resume); err != nil {
			return false, err
		}
	}
	if data == nil {
		return false, nil
	}
	return true, json.Unmarshal(data, into)
}

// Run is what a handler's context carries beside its Reporter. Handlers use it through
// Output, Checkpoint, LastCheckpoint and Attempt of the root package.
type Run interface {
	Attempt() int
	Output(v any) error
	Checkpoint(v any) error
	LastCheckpoint(into any) (bool, error)
}

type runKey struct{}

// NewContext returns a context that carries run.
func NewContext(ctx context.Context, run Run) context.Context {
	return context.WithValue(ctx, runKey{}, run)
}

// FromContext returns the Run that ctx carries, and whether there is one.
func FromContext(ctx context.Context) (Run, bool) {
	run, ok := ctx.Value(runKey{}).(Run)
	return run, ok
}

// Progress is the newest state of the current attempt. It is no event: it has no Seq, and a
// newer one replaces it. A Progress is immutable once it was handed to a Log.
type Progress struct {
	Attempt    int             `json:"attempt"`
	Rev        uint64          `json:"rev"`            // counts reports within the attempt; 0: nothing was reported yet
	Beat       uint64          `json:"beat,omitempty"` // counts writes within the attempt, those without news too: the worker's sign of life
	Percentage float64         `json:"percentage"`     // 0–100
	Message    string          `json:"message,omitempty"`
	Metadata   json.RawMessage `json:"metadata,omitempty"` // a JSON object, or nil
	Time       time.Time       `json:"time"`               // of the last report

	encoded cache
}

// Encoded returns encode(id, p), computed once: all viewers in a process share the bytes,
// which nobody may change. Every caller must pass the same function.
func (p *Progress) Encoded(id string, encode func(id string, p *Progress) []byte) []byte {
	if b := p.encoded.load(); b != nil {
		return b
	}
	return p.encoded.store(encode(id, p))
}

// cache holds an encoding that is made at most a few times and then shared.
type cache struct{ p atomic.Pointer[[]byte] }

func (c *cache) load() []byte {
	if b := c.p.Load(); b != nil {
		return *b
	}
	return nil
}

func (c *cache) store(b []byte) []byte {
	c.p.Store(&b)
	return b
}
