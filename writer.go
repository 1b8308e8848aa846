package streamer

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"time"

	"github.com/pay-theory/streamer/v2/progress"
)

// writer appends what one attempt says to the request's log. At most one append is in flight;
// what comes meanwhile gathers in the next. The goroutine that appends runs only while there
// is something to append; close waits for it.
//
// An append whose answer is lost is tried again as the same record, which the log or, behind
// a conflict, the events that are there tell from a new one. A conflict with anything but a
// cancel request means that the attempt is over: the writer is fenced.
type writer struct {
	mux     *Mux
	key     progress.Key
	epoch   string
	attempt int
	used    int             // attempts that count, with this one
	ctx     context.Context // of the attempt: ended by close
	cancel  context.CancelFunc

	canceling func()                 // called when an append found a cancel request; must return at once
	sent      atomic.Pointer[string] // ID of the record that was sent to the log last
	done      chan struct{}          // closed when the final event is stored, or nothing more will be

	mu     sync.Mutex
	room   sync.Cond // pending shrank, or the writer stopped
	state  progress.State
	active bool // the appending goroutine runs

	pending    []*progress.Event // outputs, not numbered yet
	size       int               // bytes of pending
	outputs    int               // of the request, with pending
	written    int               // bytes of outputs in this attempt
	checkpoint *checkpoint       // to be stored with or after pending
	final      *progress.Event   // the attempt's last event
	retention  time.Duration
	stored     bool  // final is in the log
	refused    error // why no more outputs are taken
	missing    bool  // an output was refused
	failed     error // why nothing more is written

	report reportSlot
}

// checkpoint is a handler's checkpoint on its way into the log.
type checkpoint struct {
	data    json.RawMessage
	outputs int // number of the next output at the time
	err     error
	stored  chan struct{}
}

const (
	maxPending    = 256 << 10 // bytes of outputs that wait; an Output over it waits for room
	maxRecord     = 128       // events of one record
	maxRecordSize = 512 << 10 // bytes of one record, unless one event alone is larger
	maxCheckpoint = 64 << 10

	appendTimeout = 5 * time.Second
	fullPatience  = 10 * time.Second // how long outputs wait for room in the store
)

var (
	errOver = errors.New("streamer: the attempt is over")
	errGone = errors.New("the log is gone")
)

func newWriter(ctx context.Context, m *Mux, key progress.Key, st progress.State, canceling func()) *writer {
	w := &writer{
		mux: m, key: key, state: st, canceling: canceling, outputs: st.Outputs, done: make(chan struct{}),
		epoch: st.Epoch, attempt: st.Attempt, used: st.Used,
	}
	w.ctx, w.cancel = context.WithCancel(ctx)
	w.room.L = &w.mu
	w.report.w = w
	return w
}

// owns reports whether a change of the log with this record is the writer's own.
func (w *writer) owns(record string) bool {
	sent := w.sent.Load()
	return sent != nil && *sent == record
}

// begin appends rec, the start of the attempt, to the log in state st.
func (w *writer) begin(st *progress.State, rec *progress.Record) bool {
	b := &batch{prev: st.Record, rec: rec, start: true}
	if w.append(b) != nil {
		return false
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	w.state = b.state
	return true
}

// Attempt implements progress.Run.
func (w *writer) Attempt() int { return w.attempt }

// Output implements progress.Run.
func (w *writer) Output(v any) error {
	data, err := w.mux.json.encode(v)
	if err != nil {
		return fmt.Errorf("streamer: Output: %w", err)
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	for w.refused == nil && w.size > 0 && w.size+len(data) > maxPending {
		w.room.Wait()
	}
	if w.refused != nil {
		w.missing = w.missing || w.refused != errOver // what comes after the handler is not missing
		return w.refused
	}
	switch l := w.mux.cfg.limits; {
	case len(data) > l.Output:
		w.refuse(NewError(ErrCodePayloadTooLarge, fmt.Sprintf("an output has %d bytes, at most %d are kept", len(data), l.Output)))
	case w.outputs >= l.Outputs:
		w.refuse(NewError(ErrCodePayloadTooLarge, fmt.Sprintf("the request has more than %d outputs", l.Outputs)))
	case w.written+len(data) > l.OutputBytes:
		w.refuse(NewError(ErrCodePayloadTooLarge, fmt.Sprintf("the outputs have more than %d bytes", l.OutputBytes)))
	}
	if w.refused != nil {
		return w.refused
	}
	w.pending = append(w.pending, &progress.Event{
		Kind: progress.Output, Attempt: w.attempt, Time: time.Now(), Index: w.outputs, Data: data,
	})
	w.outputs++
	w.size += len(data)
	w.written += len(data)
	w.kick()
	return nil
}

// Checkpoint implements progress.Run.
func (w *writer) Checkpoint(v any) error {
	data, err := w.mux.json.encode(v)
	switch {
	case err != nil:
		return fmt.Errorf("streamer: Checkpoint: %w", err)
	case len(data) > maxCheckpoint:
		return fmt.Errorf("streamer: Checkpoint: it has %d bytes, at most %d are kept", len(data), maxCheckpoint)
	}
	w.mu.Lock()
	for w.refused == nil && w.checkpoint != nil {
		w.room.Wait()
	}
	if w.refused != nil {
		defer w.mu.Unlock()
		return w.refused
	}
	c := &checkpoint{data: data, outputs: w.outputs, stored: make(chan struct{})}
	w.checkpoint = c
	w.kick()
	w.mu.Unlock()
	<-c.stored
	return c.err
}

// LastCheckpoint implements progress.Run.
func (w *writer) LastCheckpoint(into any) (bool, error) {
	w.mu.Lock()
	data := w.state.Checkpoint
	w.mu.Unlock()
	if data == nil {
		return false, nil
	}
	if err := json.Unmarshal(data, into); err != nil {
		return false, fmt.Errorf("streamer: LastCheckpoint: %w", err)
	}
	return true, nil
}

// stop takes no more outputs; err tells the handler why. What was taken is still written.
func (w *writer) stop(err error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.refuse(err)
}

func (w *writer) refuse(err error) {
	if w.refused == nil {
		w.refused = err
		w.room.Broadcast()
	}
}

func (w *writer) missesOutputs() bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.missing
}

// finish appends e, without a number yet, as the last event of the attempt, after all that
// was taken before. done is closed when that is stored, or can't be.
func (w *writer) finish(e *progress.Event, retention time.Duration) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.final != nil || w.failed != nil {
		return
	}
	if public, ok := w.refused.(*Error); ok {
		e = spoiled(e, public)
	}
	w.refuse(errOver)
	w.report.close()
	w.final, w.retention = e, retention
	w.kick()
}

// result returns the final event as it was stored; when there is none, why not.
func (w *writer) result() (*progress.Event, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.stored {
		return w.final, nil
	}
	return nil, w.failed
}

// close gives up what is not written yet, and waits until nothing is being written.
func (w *writer) close() {
	w.cancel()
	w.mu.Lock()
	defer w.mu.Unlock()
	w.report.close()
	w.fail(errOver)
	for w.active {
		w.room.Wait()
	}
}

// fail stops the writer.
func (w *writer) fail(err error) {
	w.refuse(err)
	w.report.close()
	if w.failed == nil && !w.stored {
		w.failed = err
		close(w.done)
	}
	if c := w.checkpoint; c != nil && !w.active {
		w.checkpoint = nil
		c.settle(err)
	}
}

func (c *checkpoint) settle(err error) {
	c.err = err
	close(c.stored)
}

// kick has the appending goroutine run.
func (w *writer) kick() {
	if !w.active && w.failed == nil {
		w.active = true
		w.mux.life.spawn(w.write)
	}
}

// write appends until there is nothing to append.
func (w *writer) write() {
	w.mu.Lock()
	defer w.mu.Unlock()
	for w.failed == nil && !w.stored {
		b := w.batch()
		if b == nil {
			break
		}
		w.mu.Unlock()
		err := w.append(b)
		w.mu.Lock()
		w.settle(b, err)
	}
	w.active = false
	if w.failed != nil && w.checkpoint != nil {
		w.checkpoint.settle(w.failed)
		w.checkpoint = nil
	}
	w.room.Broadcast()
}
