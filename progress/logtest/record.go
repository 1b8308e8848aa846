package logtest

import (
	"bytes"
	"context"
	"crypto/rand"
	"encoding/json"
	"fmt"
	"reflect"
	"time"

	"github.com/pay-theory/streamer/v2/progress"
)

// Next returns a record that appends events to a log whose state is s, as a router makes it:
// it numbers the events, gives them time, attempt and index where they have none, and sets
// the record's ID and State. An end gets a retention of an hour. The zero State starts a log.
// Without events the record changes nothing but the state's Record; set its
// State.Checkpoint.
func Next(s progress.State, events ...*progress.Event) *progress.Record {
	if s.Last == 0 && s.Epoch == "" {
		s.Epoch, s.Action, s.Digest, s.Created = rand.Text(), "test", "digest", time.Now()
	}
	rec := &progress.Record{ID: rand.Text(), Events: events}
	s.Record = rec.ID
	for _, e := range events {
		e.Seq, e.Record = s.Last+1, rec.ID
		if e.Time.IsZero() {
			e.Time = time.Now()
		}
		switch {
		case e.Attempt != 0:
		case e.Kind == progress.Started:
			e.Attempt = s.Attempt + 1
		default:
			e.Attempt = s.Attempt
		}
		if e.Kind == progress.Output || e.Kind == progress.Started && e.Index == 0 {
			e.Index = s.Outputs
		}
		s = s.Apply(e)
		if e.Kind.Ends() {
			rec.Retention = time.Hour
		}
	}
	rec.State = s
	return rec
}

func accepted() *progress.Event {
	return &progress.Event{Kind: progress.Accepted, Request: &progress.Request{Action: "test", Payload: json.RawMessage(`{"n":1}`)}}
}

func started() *progress.Event { return &progress.Event{Kind: progress.Started} }

func output(n int) *progress.Event {
	return &progress.Event{Kind: progress.Output, Data: json.RawMessage(fmt.Sprintf(`{"n":%d}`, n))}
}

func retrying() *progress.Event {
	return &progress.Event{Kind: progress.Retrying, Reason: progress.ReasonLost}
}

func completed() *progress.Event {
	return &progress.Event{Kind: progress.Completed, Success: true, Data: json.RawMessage(`"done"`)}
}

// writer appends to one log and knows its state, as the worker of a request does.
type writer struct {
	log   progress.Log
	key   progress.Key
	state progress.State
}

// open starts a log with the given events, accepted if there are none.
func (s *suite) open(id string, events ...*progress.Event) *writer {
	s.Helper()
	w := &writer{log: s.log, key: progress.Key{Scope: "scope", ID: id}}
	if len(events) == 0 {
		events = append(events, accepted())
	}
	s.append(w, events...)
	return w
}

// append ends the case when the events can't be appended.
func (s *suite) append(w *writer, events ...*progress.Event) *progress.Record {
	s.Helper()
	rec := Next(w.state, events...)
	s.must(w.put(s.Context(), rec), "Append")
	return rec
}

// put appends a record that was made for the writer's state.
func (w *writer) put(ctx context.Context, rec *progress.Record) error {
	if err := w.log.Append(ctx, w.key, w.state.Record, rec); err != nil {
		return err
	}
	w.state = rec.State
	return nil
}

// diff says in which exported fields two values of one type differ. Times are equal when
// they are the same instant, bytes and maps when they have the same elements.
func diff(got, want any) []string {
	return diffValue("", reflect.ValueOf(got), reflect.ValueOf(want))
}

func diffValue(path string, got, want reflect.Value) []string {
	differ := func() []string { return []string{fmt.Sprintf("%s: got %+v, want %+v", path, got, want)} }
	switch want.Kind() {
	case reflect.Slice:
		if !bytes.Equal(got.Bytes(), want.Bytes()) {
			return []string{fmt.Sprintf("%s: got %.200q, want %.200q", path, got.Bytes(), want.Bytes())}
		}
	case reflect.Pointer:
		if got.IsNil() != want.IsNil() {
			return differ()
		}
		if !want.IsNil() {
			return diffValue(path, got.Elem(), want.Elem())
		}
	case reflect.Struct:
		if w, ok := instant(want); ok {
			if g, _ := instant(got); !g.Equal(w) {
				return differ()
			}
			return nil
		}
		var all []string
		for i := range want.NumField() {
			if f := want.Type().Field(i); f.IsExported() {
				all = append(all, diffValue(path+"."+f.Name, got.Field(i), want.Field(i))...)
			}
		}
		return all
	case reflect.Map:
		if got.Len()+want.Len() > 0 && !reflect.DeepEqual(got.Interface(), want.Interface()) {
			return differ()
		}
	default:
		if got.Interface() != want.Interface() {
			return differ()
		}
	}
	return nil
}

func instant(v reflect.Value) (time.Time, bool) {
	if v.Type() != reflect.TypeFor[time.Time]() {
		return time.Time{}, false
	}
	return v.Interface().(time.Time), true
}

// empty returns the exported fields of v that have their zero value.
func empty(v reflect.Value) []string {
	var names []string
	for i := range v.NumField() {
		if f := v.Type().Field(i); f.IsExported() && v.Field(i).IsZero() {
			names = append(names, v.Type().Name()+"."+f.Name)
		}
	}
	return names
}
