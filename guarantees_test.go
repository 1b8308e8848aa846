package streamer_test

import (
	"encoding/json"
	"fmt"
	"reflect"
	"sync"

	"github.com/pay-theory/streamer/v2"
	"github.com/pay-theory/streamer/v2/progress"
)

// history is what clients were told about one key, log after log.
type history struct {
	w   *world
	key progress.Key

	mu   sync.Mutex
	logs map[string]*logHistory // by epoch
	last string                 // epoch of the newest
	pos  uint64                 // where a viewer of it stopped
}

type logHistory struct {
	payload  json.RawMessage
	acks     int
	canceled *progress.State // what the first cancel was told
	seen     map[uint64]*progress.Event
	tap      *tap
}

// tap collects a log behind the faults, as it comes into being.
type tap struct {
	mu       sync.Mutex
	state    progress.State
	events   []*progress.Event
	progress []*progress.Progress
}

func (w *world) known(who streamer.Identity, id string) *history {
	key := progress.Key{Scope: who.Tenant + "/" + who.User, ID: id}
	w.mu.Lock()
	defer w.mu.Unlock()
	h := w.history[key]
	if h == nil {
		h = &history{w: w, key: key, logs: make(map[string]*logHistory)}
		w.history[key] = h
	}
	return h
}

// of returns the history of a log. It begins to collect the log when it is new.
func (h *history) of(epoch string) *logHistory {
	l := h.logs[epoch]
	if l == nil {
		l = &logHistory{seen: make(map[uint64]*progress.Event), tap: new(tap)}
		h.logs[epoch] = l
		h.last, h.pos = epoch, 0
		h.collect(epoch, l.tap)
	}
	return l
}

func (h *history) collect(epoch string, c *tap) {
	changed := make(chan struct{}, 1)
	stop, err := h.w.store.Watch(h.w.ctx, h.key, func(string) {
		select {
		case changed <- struct{}{}:
		default:
		}
	})
	if err != nil {
		h.w.t.Errorf("watch: %v", err)
		return
	}
	h.w.work.Go(func() {
		defer stop()
		for {
			page, err := h.w.store.Read(h.w.ctx, h.key, uint64(len(c.events)), 1<<20)
			if err != nil || page.State.Epoch != epoch {
				return
			}
			c.mu.Lock()
			c.state = page.State
			c.events = append(c.events, page.Events...)
			if page.Progress != nil {
				c.progress = append(c.progress, page.Progress)
			}
			c.mu.Unlock()
			if page.State.Ended() {
				return
			}
			select {
			case <-changed:
			case <-h.w.ctx.Done():
				return
			}
		}
	})
}

// acked notes an acknowledgement.
func (h *history) acked(r *streamer.Receipt, payload json.RawMessage) {
	h.mu.Lock()
	defer h.mu.Unlock()
	l := h.of(r.State.Epoch)
	if l.payload != nil && string(l.payload) != string(payload) {
		h.w.t.Errorf("%s: one log for two payloads", h.key.ID)
	}
	l.payload = payload
	l.acks++
}

// canceled notes the answer to a cancel.
func (h *history) canceled(st progress.State) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if st.Phase != progress.Canceling && !st.Ended() {
		h.w.t.Errorf("%s: canceled, and the state is %s", h.key.ID, st.Phase)
	}
	if l := h.of(st.Epoch); l.canceled == nil {
		l.canceled = &st
	}
}

// cursor returns where a viewer goes on: where an earlier one stopped, or anywhere. It tells
// apart the logs that the key has had.
func (h *history) cursor(page *progress.Page, w *world) uint64 {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.last != "" && h.last != page.State.Epoch {
		if reason, gap := page.Gap(h.last, h.pos); !gap || reason != "recreated" {
			w.t.Errorf("%s: another log was not noticed", h.key.ID)
		}
		w.total.gaps.Add(1)
	}
	h.of(page.State.Epoch)
	if w.roll(2) == 0 {
		return uint64(w.roll(int(page.State.Last) + 1))
	}
	return min(h.pos, page.State.Last)
}

// saw notes that a viewer got e.
func (h *history) saw(epoch string, e *progress.Event) {
	h.mu.Lock()
	defer h.mu.Unlock()
	l := h.of(epoch)
	if other := l.seen[e.Seq]; other != nil && !same(other, e) {
		h.w.t.Errorf("%s: viewers got different events %d", h.key.ID, e.Seq)
	}
	l.seen[e.Seq] = e
	if h.last == epoch {
		h.pos = e.Seq
	}
}

// same reports whether two viewers were told the same. One may have been told by the process
// that made the event, whose time then has a zone and a monotonic clock.
func same(a, b *progress.Event) bool { return a == b || reflect.DeepEqual(bare(a), bare(b)) }

// bare returns the exported fields of an event as it is stored.
func bare(e *progress.Event) *progress.Event {
	b := new(progress.Event)
	from, to := reflect.ValueOf(e).Elem(), reflect.ValueOf(b).Elem()
	for i := range from.NumField() {
		if from.Type().Field(i).IsExported() {
			to.Field(i).Set(from.Field(i))
		}
	}
	b.Time = e.Time.Round(0).UTC()
	return b
}

// check checks the guarantees on all that was seen.
func (w *world) check() {
	for _, h := range w.history {
		for epoch, l := range h.logs {
			c := &checker{world: w, name: fmt.Sprintf("seed %d, %s of %s, log %s", w.seed, h.key.ID, h.key.Scope, epoch), log: l}
			l.tap.mu.Lock()
			c.state, c.events = l.tap.state, l.tap.events
			l.tap.mu.Unlock()
			c.reachesOneEnd()
			c.isNumberedAndTheSameForAll()
			c.attemptsAreFencedAndBounded()
			c.outputsAreComplete()
			c.progressNeverFalls()
			c.cancelIsKept()
		}
	}
}

type checker struct {
	*world
	name   string
	log    *logHistory
	state  progress.State
	events []*progress.Event
}

func (c *checker) fail(format string, args ...any) {
	c.t.Errorf("%s: %s\n  %s", c.name, fmt.Sprintf(format, args...), kinds(append([]*progress.Event{{Kind: ":"}}, c.events...)))
}

// reachesOneEnd checks G1 and G2: what was acknowledged has one end, which is its last event.
func (c *checker) reachesOneEnd() {
	for i, e := range c.events {
		if last := i == len(c.events)-1; e.Kind.Ends() != last {
			c.fail("event %d of %d is %s", i+1, len(c.events), e.Kind)
		}
	}
	if len(c.events) == 0 && c.log.acks > 0 {
		c.fail("G1: it was acknowledged and has no events")
	}
}

// isNumberedAndTheSameForAll checks G3.
func (c *checker) isNumberedAndTheSameForAll() {
	for i, e := range c.events {
		if e.Seq != uint64(i)+1 {
			c.fail("G3: event %d has number %d", i+1, e.Seq)
		}
	}
	for seq, e := range c.log.seen {
		if seq > uint64(len(c.events)) || !same(c.events[seq-1], e) {
			c.fail("G3: a viewer got another event %d", seq)
		}
	}
}

// attemptsAreFencedAndBounded checks G10 and G11.
func (c *checker) attemptsAreFencedAndBounded() {
	attempt, used := 0, 0
	for _, e := range c.events {
		switch e.Kind {
		case progress.Started:
			if e.Attempt != attempt+1 {
				c.fail("G10: attempt %d after %d", e.Attempt, attempt)
			}
			attempt = e.Attempt
			used++
		case progress.Retrying:
			switch e.Reason {
			case progress.ReasonShutdown:
				used--
			case progress.ReasonLost:
				c.total.takeovers.Add(1)
			}
		}
		if e.Attempt != attempt && !c.events[0].Short {
			c.fail("G10: event %d is of attempt %d during %d", e.Seq, e.Attempt, attempt)
		}
	}
	if used > attempts {
		c.fail("G11: %d attempts", used)
	}
}

// outputsAreComplete checks G5.
func (c *checker) outputsAreComplete() {
	next := 0
	for _, e := range c.events {
		switch e.Kind {
		case progress.Started:
			if e.Index > next {
				c.fail("G5: an attempt goes on from output %d, there are %d", e.Index, next)
			}
			next = e.Index
		case progress.Output:
			var v struct{ I int }
			if err := json.Unmarshal(e.Data, &v); err != nil || e.Index != next || v.I != next {
				c.fail("G5: output %d is %s, with index %d", next, e.Data, e.Index)
			}
			next++
		case progress.Completed:
			var j job
			if json.Unmarshal(c.log.payload, &j) == nil && j.Do == "count" && !e.Short && next != j.N {
				c.fail("G5: completed with %d of %d outputs", next, j.N)
			}
		}
	}
}

// progressNeverFalls checks G6.
func (c *checker) progressNeverFalls() {
	var last progress.Progress
	for _, p := range c.log.tap.progress {
		if p.Attempt == last.Attempt && (p.Percentage < last.Percentage || p.Rev < last.Rev) {
			c.fail("G6: progress of attempt %d fell from %v to %v", p.Attempt, last.Percentage, p.Percentage)
		}
		last = progress.Progress{Attempt: p.Attempt, Percentage: p.Percentage, Rev: p.Rev}
	}
	var j job
	if c.state.Phase == progress.Completed && !c.events[0].Short && json.Unmarshal(c.log.payload, &j) == nil && j.Do == "count" {
		if last.Percentage != 100 || last.Attempt != c.state.Attempt {
			c.fail("G6: the last progress before the end was %v%% of attempt %d", last.Percentage, last.Attempt)
		}
	}
}

// cancelIsKept checks G8: what was told to whoever canceled is what came.
func (c *checker) cancelIsKept() {
	told := c.log.canceled
	if told == nil || len(c.events) == 0 {
		return
	}
	end := c.events[len(c.events)-1].Kind
	want := told.Phase
	if want == progress.Canceling {
		want = progress.Canceled
	}
	if end != want {
		c.fail("G8: whoever canceled was told %s, and it ended as %s", told.Phase, end)
	}
}
