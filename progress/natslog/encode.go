package natslog

import (
	"encoding/base64"
	"encoding/json"
	"fmt"
	"math"
	"strconv"
	"time"

	"github.com/pay-theory/streamer/v2/progress"
)

// encoder writes a body: what decode reads with encoding/json, without its reflection and
// copies, since every append and every progress pays for it.
type encoder struct {
	b    []byte
	raws []json.RawMessage // what follows the line
	err  error
}

// encode returns the body of a message with the given events.
func encode(key progress.Key, p string, st *progress.State, pr *progress.Progress, list []*progress.Event, bytes int64) ([]byte, error) {
	room := 512 + len(st.Checkpoint)
	for _, e := range list {
		room += int(storedSize(e))
	}
	w := &encoder{b: make([]byte, 0, room), raws: make([]json.RawMessage, 0, 4+len(list))}
	w.b = append(w.b, '{')
	if _, ok := keyOf(p); !ok {
		w.b = append(base64.StdEncoding.AppendEncode(append(w.b, `"key":{"scope":"`...), []byte(key.Scope)), `","id":"`...)
		w.b = append(base64.StdEncoding.AppendEncode(w.b, []byte(key.ID)), `"},`...)
	}
	w.b = strconv.AppendInt(append(w.b, `"bytes":`...), bytes, 10)
	w.state(st)
	if pr != nil {
		w.b = append(w.b, `,"progress":{`...)
		w.progress(pr)
		w.b = append(w.b, '}')
	}
	for i, e := range list {
		if i == 0 {
			w.b = append(w.b, `,"events":[`...)
		} else {
			w.b = append(w.b, ',')
		}
		w.event(e)
	}
	if len(list) > 0 {
		w.b = append(w.b, ']')
	}
	return w.finish()
}

// encodeProgress returns the body of a progress message.
func encodeProgress(p *progress.Progress) ([]byte, error) {
	w := &encoder{b: make([]byte, 0, 192+len(p.Message)+len(p.Metadata)), raws: make([]json.RawMessage, 0, 1)}
	w.b = append(w.b, '{')
	w.progress(p)
	return w.finish()
}

// finish ends the line and appends the raw values.
func (w *encoder) finish() ([]byte, error) {
	w.b = append(w.b, `,"raws":[`...)
	for i, r := range w.raws {
		if i > 0 {
			w.b = append(w.b, ',')
		}
		n := len(r)
		if r == nil {
			n = -1
		}
		w.b = strconv.AppendInt(w.b, int64(n), 10)
	}
	w.b = append(w.b, "]}\n"...)
	for _, r := range w.raws {
		w.b = append(w.b, r...)
	}
	return w.b, w.err
}

func (w *encoder) raw(r json.RawMessage) { w.raws = append(w.raws, r) }

func (w *encoder) state(s *progress.State) {
	w.b = append(w.b, `,"state":{`...)
	w.text(`"epoch":`, s.Epoch)
	w.text(`,"action":`, s.Action)
	w.text(`,"digest":`, s.Digest)
	w.optional(`,"group":`, s.Group)
	w.time(`,"created":`, s.Created)
	w.b = strconv.AppendUint(append(w.b, `,"last":`...), s.Last, 10)
	w.text(`,"record":`, s.Record)
	w.text(`,"phase":`, string(s.Phase))
	w.number(`,"attempt":`, int64(s.Attempt))
	w.number(`,"used":`, int64(s.Used))
	w.optional(`,"nonce":`, s.Nonce)
	if !s.Started.IsZero() {
		w.time(`,"started":`, s.Started)
	}
	w.number(`,"outputs":`, int64(s.Outputs))
	w.optional(`,"reason":`, s.Reason)
	w.number(`,"delay":`, int64(s.Delay))
	w.number(`,"resume":`, int64(s.Resume))
	w.raw(s.Checkpoint)
	w.failure(s.Error)
	w.b = append(w.b, '}')
}

func (w *encoder) progress(p *progress.Progress) {
	w.b = strconv.AppendInt(append(w.b, `"attempt":`...), int64(p.Attempt), 10)
	w.b = strconv.AppendUint(append(w.b, `,"rev":`...), p.Rev, 10)
	w.b = strconv.AppendUint(append(w.b, `,"beat":`...), p.Beat, 10)
	if f := p.Percentage; math.IsNaN(f) || math.IsInf(f, 0) {
		w.err = fmt.Errorf("percentage %v is not a number in JSON", f)
	} else {
		w.b = strconv.AppendFloat(append(w.b, `,"percentage":`...), f, 'g', -1, 64)
	}
	w.optional(`,"message":`, p.Message)
	if !p.Time.IsZero() {
		w.time(`,"time":`, p.Time)
	}
	w.raw(p.Metadata)
}

func (w *encoder) event(e *progress.Event) {
	w.b = strconv.AppendUint(append(w.b, `{"seq":`...), e.Seq, 10)
	w.text(`,"kind":`, string(e.Kind))
	w.optional(`,"record":`, e.Record)
	w.number(`,"attempt":`, int64(e.Attempt))
	if !e.Time.IsZero() {
		w.time(`,"time":`, e.Time)
	}
	w.number(`,"index":`, int64(e.Index))
	if e.Success {
		w.b = append(w.b, `,"success":true`...)
	}
	if e.Short {
		w.b = append(w.b, `,"short":true`...)
	}
	w.optional(`,"reason":`, e.Reason)
	w.number(`,"delay":`, int64(e.Delay))
	w.raw(e.Data)
	if e.Request != nil {
		w.request(e.Request)
	}
	w.failure(e.Error)
	w.b = append(w.b, '}')
}

func (w *encoder) request(r *progress.Request) {
	w.text(`,"request":{"action":`, r.Action)
	before := `,"metadata":{`
	for k, v := range r.Metadata {
		w.text(before, k)
		w.text(":", v)
		before = ","
	}
	if len(r.Metadata) > 0 {
		w.b = append(w.b, '}')
	}
	w.number(`,"timeout":`, int64(r.Timeout))
	w.b = append(w.b, '}')
	w.raw(r.Payload)
}

func (w *encoder) failure(f *progress.Failure) {
	if f == nil {
		return
	}
	w.text(`,"error":{"code":`, f.Code)
	w.text(`,"message":`, f.Message)
	w.number(`,"retry_after":`, int64(f.RetryAfter))
	w.b = append(w.b, '}')
	w.raw(f.Details)
}

// number writes a field unless it is 0.
func (w *encoder) number(field string, n int64) {
	if n != 0 {
		w.b = strconv.AppendInt(append(w.b, field...), n, 10)
	}
}

// optional writes a field unless it is empty.
func (w *encoder) optional(field, s string) {
	if s != "" {
		w.text(field, s)
	}
}

func (w *encoder) text(field, s string) {
	w.b = append(w.b, field...)
	for i := range len(s) {
		if c := s[i]; c < ' ' || c > '~' || c == '"' || c == '\\' {
			quoted, err := json.Marshal(s)
			if err != nil {
				w.err = err
			}
			w.b = append(w.b, quoted...)
			return
		}
	}
	w.b = append(append(append(w.b, '"'), s...), '"')
}

func (w *encoder) time(field string, t time.Time) {
	w.b = append(append(w.b, field...), '"')
	b, err := t.AppendText(w.b)
	if err != nil {
		w.err = err
		b = w.b
	}
	w.b = append(b, '"')
}
