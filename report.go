package streamer

import (
	"encoding/json"
	"fmt"
	"time"

	"github.com/pay-theory/streamer/v2/progress"
)

// reportSlot is the newest progress of an attempt on its way into the log: the first report
// is written at once, later ones at most once per reportInterval, the last one with the
// attempt's final event. The writer's mutex guards it.
type reportSlot struct {
	w *writer

	percentage float64
	message    string
	metadata   map[string]json.RawMessage
	encoded    json.RawMessage // metadata as JSON, nil after a change
	rev        uint64          // reports that changed something
	time       time.Time       // of the newest of them, as far as a write needed it

	written uint64 // rev of the newest write
	beat    uint64 // writes
	quiet   bool   // nothing was written since the last tick of the lease
	due     bool   // the next batch takes it along
	timer   *time.Timer
	waiting bool // timer runs
	closed  bool
}

const (
	reportInterval   = 100 * time.Millisecond
	maxProgressMeta  = 64
	maxProgressBytes = 16 << 10
)

// Report implements Reporter.
func (w *writer) Report(percentage float64, message string) error {
	w.mu.Lock()
	defer w.mu.Unlock()
	r := &w.report
	if r.closed {
		return nil
	}
	if percentage > r.percentage { // false for NaN
		r.percentage = min(percentage, 100)
	}
	if len(message) > maxMessage {
		message = clip(message, maxMessage)
	}
	r.message = message
	r.changed()
	return nil
}

// SetMetadata implements Reporter.
func (w *writer) SetMetadata(key string, value any) error {
	data, err := w.mux.json.encode(value)
	if err != nil {
		return fmt.Errorf("streamer: SetMetadata(%q): %w", key, err)
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	r := &w.report
	if r.closed {
		return nil
	}
	size := len(key) + len(data)
	for k, v := range r.metadata {
		if k != key {
			size += len(k) + len(v)
		}
	}
	_, known := r.metadata[key]
	switch {
	case !known && len(r.metadata) == maxProgressMeta:
		return fmt.Errorf("streamer: SetMetadata(%q): there are %d entries already", clip(key, 64), maxProgressMeta)
	case size > maxProgressBytes:
		return fmt.Errorf("streamer: SetMetadata(%q): the metadata would have %d bytes, at most %d are kept", clip(key, 64), size, maxProgressBytes)
	}
	if r.metadata == nil {
		r.metadata = make(map[string]json.RawMessage)
	}
	r.metadata[key] = data
	r.encoded = nil
	if r.rev > 0 {
		r.changed()
	}
	return nil
}

// changed has the newest state written when its time has come.
func (r *reportSlot) changed() {
	r.rev++
	if !r.waiting && !r.due {
		r.flush()
	}
}

// wait lets the interval pass before the next write.
func (r *reportSlot) wait() {
	r.waiting = true
	if r.timer == nil {
		r.timer = time.AfterFunc(reportInterval, r.elapsed)
	} else {
		r.timer.Reset(reportInterval)
	}
}

func (r *reportSlot) elapsed() {
	r.w.mu.Lock()
	defer r.w.mu.Unlock()
	r.waiting = false
	if !r.closed && r.rev > r.written {
		r.flush()
	}
}

func (r *reportSlot) flush() {
	r.due = true
	r.w.kick()
}

// take returns the progress to be written now, or nil. The last event of an attempt takes it
// whether it is due or not, and whether it was written or not: so a store that keeps progress
// apart need not be asked for it then.
func (r *reportSlot) take(last bool) *progress.Progress {
	fresh := r.rev > r.written
	if !r.due && !(last && r.rev > 0) {
		return nil
	}
	r.due = false
	r.quiet = false
	r.beat++
	if fresh {
		r.written = r.rev
		r.time = time.Now()
		if !r.closed && !r.waiting {
			r.wait()
		}
	}
	if r.encoded == nil && len(r.metadata) > 0 {
		// Every value was encoded before, so this can't fail.
		r.encoded, _ = r.w.mux.json.encode(r.metadata)
	}
	return &progress.Progress{
		Attempt: r.w.attempt, Rev: r.rev, Beat: r.beat, Percentage: r.percentage, Message: r.message,
		Metadata: r.encoded, Time: r.time,
	}
}

// lost has progress that was not stored written again: when the interval has passed, or with
// the attempt's last event.
func (r *reportSlot) lost() {
	r.written = 0
	if !r.closed && !r.waiting {
		r.wait()
	}
}

// alive shows a sign of life where nothing else was written since the last call.
func (w *writer) alive() {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.report.quiet && !w.report.closed {
		w.report.flush()
	}
	w.report.quiet = true
}

// close takes no more reports.
func (r *reportSlot) close() {
	r.closed = true
	if r.timer != nil {
		r.timer.Stop()
	}
}
