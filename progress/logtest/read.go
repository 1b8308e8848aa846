package logtest

import (
	"context"
	"encoding/json"
	"fmt"
	"math"
	"reflect"
	"slices"
	"strings"
	"time"

	"github.com/pay-theory/streamer/v2/progress"
)

func readCases() []contract {
	return []contract{
		{"read-starts-after-the-cursor", "Read returns the events after number after: for every cursor exactly those, for the newest none", (*suite).startsAfterTheCursor},
		{"read-past-the-end-is-empty", "a cursor beyond the log gets no events and the log's state, by which Page.Gap knows", (*suite).pastTheEndIsEmpty},
		{"read-pages-join", "Read returns up to limit events, fewer only where the log has no more or to bound the size, and at least one if there is one", (*suite).pagesJoin},
		{"read-pages-stay-as-they-are", "what is passed out is shared and is not changed: a page stays what it was while the log grows", (*suite).pagesStay},
		{"read-fresh-is-not-behind", "ReadFresh, where a Log has it (progress.Fresh), returns what was appended before it was called, by whomever, and so does each later Read", (*suite).freshIsNotBehind},
		{"read-of-no-log", "Read, Tail and SetProgress of a log that never was return ErrNotFound", (*suite).noLog},
		{"events-come-back-exactly", "events are stored as they are: every field, every byte of JSON, big numbers, white space, what is nil", (*suite).eventsComeBackExactly},
		{"state-comes-back-exactly", "a Log stores the state with each record and returns it as it is, by Tail, Read, Open and conflicts", (*suite).stateComesBackExactly},
		{"keys-are-isolated", "scope and id are arbitrary UTF-8: keys that differ in anything are different logs", (*suite).keysAreIsolated},
	}
}

func (s *suite) startsAfterTheCursor() {
	w := s.open("cursors")
	s.append(w, started())
	for i := range 28 {
		s.append(w, output(i))
	}
	for after := range uint64(31) {
		events, page, err := read(s.Context(), s.peer, w.key, after, 1000)
		s.must(err, "Read")
		s.dense(events, after+1, 30)
		s.equal(page.State, w.state, "the page's state")
		if page.Oldest != 1 {
			s.Errorf("the page's Oldest is %d, want 1", page.Oldest)
		}
		if reason, gap := page.Gap(w.state.Epoch, after); gap {
			s.Errorf("the page shows a gap: %s", reason)
		}
	}
}

func (s *suite) pastTheEndIsEmpty() {
	w := s.open("short")
	for _, after := range []uint64{2, 1000, math.MaxInt64, math.MaxUint64} {
		page, err := s.peer.Read(s.Context(), w.key, after, 10)
		s.must(err, fmt.Sprintf("Read after event %d of 1", after))
		if len(page.Events) != 0 {
			s.Errorf("Read after event %d of 1 returned event %d", after, page.Events[0].Seq)
		}
		s.equal(page.State, w.state, "the page's state")
	}
}

func (s *suite) freshIsNotBehind() {
	l, ok := s.peer.(progress.Fresh)
	if !ok {
		return // it says that its Read is as good
	}
	for _, watched := range []bool{true, false} {
		w := s.open(fmt.Sprint("fresh-", watched))
		s.append(w, started())
		if watched {
			stop, err := l.Watch(s.Context(), w.key, func(string) {})
			s.must(err, "Watch")
			defer stop()
		}
		for i := range 20 {
			s.append(w, output(i))
			s.showsTheNewest(w, l.ReadFresh, "ReadFresh")
			s.showsTheNewest(w, l.Read, "a later Read")
		}
	}
}

func (s *suite) showsTheNewest(w *writer, read func(context.Context, progress.Key, uint64, int) (progress.Page, error), what string) {
	s.Helper()
	page, err := read(s.Context(), w.key, w.state.Last-1, 10)
	s.must(err, what)
	s.dense(page.Events, w.state.Last, w.state.Last)
	s.equal(page.State, w.state, "the state of "+what)
}

func (s *suite) pagesJoin() {
	w := s.open("pages")
	s.append(w, started())
	total := uint64(s.Count*5/2 + 2)
	for i := 0; w.state.Last < total; {
		var events []*progress.Event
		for len(events) < 10 && w.state.Last+uint64(len(events)) < total {
			events = append(events, output(i))
			i++
		}
		s.append(w, events...)
	}
	for _, limit := range []int{1000, 500, 499, 7, math.MaxInt} {
		var events []*progress.Event
		for uint64(len(events)) < total {
			page, err := s.peer.Read(s.Context(), w.key, uint64(len(events)), limit)
			s.must(err, "Read")
			if n := len(page.Events); n < 1 || n > limit {
				s.Fatalf("a page has %d events, want at least 1 and at most %d", n, limit)
			}
			events = append(events, page.Events...)
		}
		s.dense(events, 1, total)
	}
}

func (s *suite) pagesStay() {
	w := s.open("held")
	s.append(w, started())
	page, err := s.peer.Read(s.Context(), w.key, 0, 10)
	s.must(err, "Read")
	state, events, last := page.State, slices.Clone(page.Events), uint64(len(page.Events))
	for i := range 20 {
		s.append(w, output(i))
	}
	s.equal(page.State, state, "the state of an older page")
	if !slices.Equal(page.Events, events) {
		s.Errorf("the events of an older page have changed")
	}
	s.dense(page.Events, 1, last)
}

func (s *suite) noLog() {
	key := progress.Key{Scope: "scope", ID: "never"}
	_, err := s.peer.Read(s.Context(), key, 0, 1)
	s.notFound(err, "Read")
	_, err = s.peer.Tail(s.Context(), key)
	s.notFound(err, "Tail")
	s.notFound(s.log.SetProgress(s.Context(), key, &progress.Progress{Attempt: 1, Rev: 1}), "SetProgress")
}

// exactJSON is JSON that does not survive decoding and encoding.
const exactJSON = "{ \"b\" : 12345678901234567890123, \"a\":1.0,\"a\":-0.0e+400,\n\t\"<&>\":\"\u2028 \\u00e9 \\ud83d\\ude00 é 😀\\/\",\"z\":[ ] }"

// filledEvent returns an event whose every field is set.
func filledEvent() *progress.Event {
	return &progress.Event{
		Kind: progress.Accepted, Attempt: 3, Time: time.Now(), Index: math.MaxInt32, Data: json.RawMessage(exactJSON),
		Request: &progress.Request{
			Action: "export_data", Payload: json.RawMessage(exactJSON), Timeout: time.Hour + 1,
			Metadata: map[string]string{"user_id": "ü", "": "empty", "new\nline": "a\x00b", "x": ""},
		},
		Success: true, Short: true, Error: filledFailure(), Reason: "<why> \u2029 \"\\", Delay: 3*time.Second + 7,
	}
}

func (s *suite) eventsComeBackExactly() {
	full := filledEvent()
	rec := Next(progress.State{}, full)
	s.filled(full, full.Request, full.Error)
	w := &writer{log: s.log, key: progress.Key{Scope: "scope", ID: "exact"}}
	s.must(w.put(s.Context(), rec), "Append")
	s.append(w, started())
	var want []*progress.Event
	for _, data := range []string{
		`null`, `""`, ` {} `, `[]`, `0`, `-0`, `1e400`, "9" + strings.Repeat("0", 10_000), `"\ud800"`, `"<>&"`,
		`{"a":1,"a":2}`, "\"\u2028\u2029\"", strings.Repeat("[", 500) + strings.Repeat("]", 500),
	} {
		want = append(want, &progress.Event{Kind: progress.Output, Data: json.RawMessage(data)})
	}
	want = append(want,
		&progress.Event{Kind: progress.Output},
		&progress.Event{Kind: progress.Retrying, Reason: progress.ReasonError, Error: &progress.Failure{}},
	)
	s.append(w, want...)
	s.append(w, completed())

	events, state := s.all(s.peer, w.key)
	s.equal(events[0], full, "the event with everything")
	for i, e := range want {
		s.equal(events[2+i], e, fmt.Sprintf("the event with %.30q", e.Data))
		if (events[2+i].Data == nil) != (e.Data == nil) {
			s.Errorf("data came back nil: %v, want %v", events[2+i].Data == nil, e.Data == nil)
		}
	}
	if bare := events[2+len(want)-2]; bare.Request != nil || bare.Error != nil {
		s.Errorf("an event without request and error came back with %+v, %+v", bare.Request, bare.Error)
	}
	s.equal(state, w.state, "the state")
}

func (s *suite) stateComesBackExactly() {
	w := &writer{log: s.log, key: progress.Key{Scope: "scope", ID: "state"}, state: filledState()}
	rec := Next(w.state, accepted())
	s.filled(&rec.State, rec.State.Error)
	s.must(w.put(s.Context(), rec), "Append")
	check := func() {
		s.Helper()
		tail, err := s.peer.Tail(s.Context(), w.key)
		s.must(err, "Tail")
		s.equal(tail, w.state, "Tail's state")
		page, err := s.peer.Read(s.Context(), w.key, w.state.Last, 1)
		s.must(err, "Read")
		s.equal(page.State, w.state, "Read's state")
		err = s.log.Append(s.Context(), w.key, "another", Next(w.state, output(0)))
		s.equal(s.conflict(err, "Append after another record"), w.state, "the conflict's state")
	}
	check()
	s.eventually(func() bool {
		found, err := s.idle(0)
		s.must(err, "Open")
		p, ok := found[w.key]
		if ok {
			s.equal(p.State, w.state, "Open's state")
		}
		return ok
	}, "Open yields the request")

	bare := Next(w.state, started())
	bare.State = progress.State{Epoch: w.state.Epoch, Last: 2, Record: bare.ID, Phase: progress.Started}
	s.must(w.put(s.Context(), bare), "Append")
	check()
	if tail, _ := s.peer.Tail(s.Context(), w.key); tail.Error != nil || tail.Checkpoint != nil {
		s.Errorf("a state without error and checkpoint came back with %+v, %q", tail.Error, tail.Checkpoint)
	}
}

func (s *suite) keysAreIsolated() {
	names := []string{
		"", "a", "a.", ".a", "a.b", "a.b.c", "A", "aa", "a a", " a", "a ", "a\n", "a\na", "a\r\n", "a\t", "a\x00", "a\x00b", "\x00",
		"*", "a.*", ">", "a.>", "$", "$JS.API", "/", "a/b", "../a", "..", ".", "%", "%2e", "a%2Eb", "a_b", "a-b", "a:b", "a#b", "a?b", "a=b", "a|b", "~",
		"é", "e\u0301", "ß", "ẞ", "ﬀ", "ff", "😀", "\u200b", "\u2028", "\ufeff", "\u202e", "null", "0", "00", "1e1", "10", "'", "\"", "`", "\\", "{}", "[]", "<a>",
		strings.Repeat("x", 127), strings.Repeat("x", 128), strings.Repeat("é", 128),
	}
	var keys []progress.Key
	for _, n := range names {
		keys = append(keys, progress.Key{Scope: "scope", ID: n}, progress.Key{Scope: n, ID: "id"})
	}
	for _, k := range [][2]string{{"ab", "c"}, {"a", "bc"}, {"a.b", "c"}, {"a", "b.c"}, {"a\x00", "b"}, {"a", "\x00b"}, {"id", "scope"}} {
		keys = append(keys, progress.Key{Scope: k[0], ID: k[1]})
	}
	writers := make([]*writer, len(keys))
	for i, key := range keys {
		w := &writer{log: s.log, key: key}
		if err := w.put(s.Context(), Next(progress.State{}, accepted())); err != nil {
			s.Fatalf("Append that creates %q: %v", key, err)
		}
		s.append(w, started())
		s.append(w, output(i))
		p := &progress.Progress{Attempt: 1, Rev: uint64(i + 1), Beat: 1, Time: time.Now()}
		s.must(s.log.SetProgress(s.Context(), key, p), "SetProgress")
		writers[i] = w
	}
	for i, w := range writers {
		events, state := s.all(s.peer, w.key)
		s.equal(state, w.state, fmt.Sprintf("the state of %q", w.key))
		if want := output(i).Data; len(events) != 3 || !reflect.DeepEqual(events[2].Data, want) {
			s.Errorf("%q has %d events, the last with %s, want 3 and %s", w.key, len(events), events[len(events)-1].Data, want)
		}
		page, err := s.peer.Read(s.Context(), w.key, 3, 1)
		s.must(err, "Read")
		if page.Progress == nil || page.Progress.Rev != uint64(i+1) {
			s.Errorf("%q has progress %+v, want revision %d", w.key, page.Progress, i+1)
		}
	}
	s.eventually(func() bool {
		found, err := s.idle(0)
		s.must(err, "Open")
		return len(found) == len(keys)
	}, "Open yields each of the keys")
}
