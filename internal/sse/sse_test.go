package sse

import (
	"bytes"
	"errors"
	"io"
	"strings"
	"testing"
	"testing/iotest"
	"time"

	"github.com/stretchr/testify/require"
)

// all reads a stream, events alone.
func all(t testing.TB, r io.Reader, limit int) (events []Event, retry time.Duration) {
	t.Helper()
	reader := NewReader(r, limit)
	for {
		e, err := reader.Next()
		if errors.Is(err, io.EOF) {
			return events, retry
		}
		require.NoError(t, err)
		if e.Retry > 0 {
			retry = e.Retry
		}
		if e.Data != nil {
			e.Retry = 0
			events = append(events, e)
		}
	}
}

func data(s string) []byte { return []byte(s) }

func TestStreamsAreReadAsTheStandardSays(t *testing.T) {
	for name, row := range map[string]struct {
		stream string
		want   []Event
	}{
		"lines are joined":           {"data: YHOO\ndata: +2\ndata: 10\n\n", []Event{{Data: data("YHOO\n+2\n10")}}},
		"fields":                     {"event: add\nid: 1\ndata:first event\n\n", []Event{{Name: "add", ID: "1", Data: data("first event")}}},
		"one space is dropped":       {"data:  third event\n\n", []Event{{Data: data(" third event")}}},
		"data without colon":         {"data\n\ndata\ndata\n\ndata:", []Event{{Data: data("")}, {Data: data("\n")}}},
		"the id stays":               {"id: 1\ndata: a\n\ndata: b\n\nid\ndata: c\n\n", []Event{{ID: "1", Data: data("a")}, {ID: "1", Data: data("b")}, {Data: data("c")}}},
		"an id with NUL is ignored":  {"id: a\x00b\ndata: x\n\n", []Event{{Data: data("x")}}},
		"comments":                   {": test stream\n\ndata: a\n:\ndata: b\n\n", []Event{{Data: data("a\nb")}}},
		"carriage returns":           {"data: a\rdata: b\r\r", []Event{{Data: data("a\nb")}}},
		"both":                       {"data: a\r\ndata: b\r\n\r\ndata: c\r\n\r\n", []Event{{Data: data("a\nb")}, {Data: data("c")}}},
		"byte order mark":            {"\uFEFFdata: a\n\n", []Event{{Data: data("a")}}},
		"only the first":             {"data: a\n\n\uFEFFdata: b\n\n", []Event{{Data: data("a")}}},
		"unknown fields":             {"foo: bar\nData: x\ndata: a\n\n", []Event{{Data: data("a")}}},
		"an event without data":      {"event: x\n\ndata: a\n\n", []Event{{Data: data("a")}}},
		"what is not ended":          {"data: a\n\ndata: b\n", []Event{{Data: data("a")}}},
		"a colon in the value":       {"data: a:b: c\n\n", []Event{{Data: data("a:b: c")}}},
		"other line ends are none":   {"data: a\u2028b\u0085c\n\n", []Event{{Data: data("a\u2028b\u0085c")}}},
		"an id is of events only":    {"id: 7\n\ndata: a\n\n", []Event{{ID: "7", Data: data("a")}}},
		"empty":                      {"", nil},
		"retry with an event":        {"retry: 10\nevent: x\ndata: a\n\n", []Event{{Name: "x", Data: data("a")}}},
		"a comment before the event": {":\nevent: ping\ndata: {}\n\n", []Event{{Name: "ping", Data: data("{}")}}},
	} {
		t.Run(name, func(t *testing.T) {
			got, _ := all(t, strings.NewReader(row.stream), 1000)
			require.Equal(t, row.want, got)
			got, _ = all(t, iotest.OneByteReader(strings.NewReader(row.stream)), 1000)
			require.Equal(t, row.want, got)
		})
	}
}

func TestRetryIsDigitsOnly(t *testing.T) {
	for field, want := range map[string]time.Duration{"1500": 1500 * time.Millisecond, "-1": 0, "+1": 0, "1.5": 0, "1e3": 0, "abc": 0, "": 0, "99999999999": 0} {
		_, got := all(t, strings.NewReader("retry: "+field+"\n\n"), 1000)
		require.Equal(t, want, got, field)
		_, got = all(t, strings.NewReader("data: a\nretry: "+field+"\n\n"), 1000)
		require.Equal(t, want, got, field)
	}
}

func TestCommentsAreSignsOfLife(t *testing.T) {
	r := NewReader(io.MultiReader(strings.NewReader(":\n"), iotest.ErrReader(errors.New("cut"))), 1000)
	e, err := r.Next()
	require.NoError(t, err)
	require.Equal(t, Event{}, e)
	_, err = r.Next()
	require.EqualError(t, err, "cut")
}

func TestLargeEventsAreRefused(t *testing.T) {
	for _, stream := range []string{
		"data: " + strings.Repeat("x", 200) + "\n\n",
		strings.Repeat("data: x\n", 50),
		strings.Repeat("y", 200),
	} {
		_, err := NewReader(strings.NewReader(stream), 100).Next()
		require.ErrorIs(t, err, ErrTooLarge)
	}
	got, _ := all(t, strings.NewReader(strings.Repeat("data: x\n\n", 50)), 20)
	require.Len(t, got, 50, "the limit is for one event")
}

// reference reads a stream in the words of the standard, all of it at once.
func reference(stream []byte) (events []Event) {
	text := strings.TrimPrefix(string(stream), "\uFEFF")
	text = strings.ReplaceAll(strings.ReplaceAll(text, "\r\n", "\n"), "\r", "\n")
	lines := strings.Split(text, "\n")
	var name, buffer, id string
	has := false
	for _, line := range lines[:len(lines)-1] {
		if line == "" {
			if has {
				events = append(events, Event{Name: name, ID: id, Data: []byte(strings.TrimSuffix(buffer, "\n"))})
			}
			name, buffer, has = "", "", false
			continue
		}
		field, value, _ := strings.Cut(line, ":")
		value = strings.TrimPrefix(value, " ")
		switch field {
		case "event":
			name = value
		case "data":
			buffer += value + "\n"
			has = true
		case "id":
			if !strings.Contains(value, "\x00") {
				id = value
			}
		}
	}
	return events
}

func FuzzReader(f *testing.F) {
	for _, seed := range []string{
		"data: a\n\n", ":\nretry: 1000\n\nevent: x\nid: k:1\ndata: {}\n\n", "\uFEFFdata: a\r\n\r\ndata\r\r", "id: a\x00\ndata\n\n", "data: a\r\n\ndata: b\n\r\n",
	} {
		f.Add([]byte(seed))
	}
	f.Fuzz(func(t *testing.T, stream []byte) {
		want := reference(stream)
		got, _ := all(t, bytes.NewReader(stream), 1<<20)
		require.Equal(t, want, got)
		got, _ = all(t, iotest.HalfReader(bytes.NewReader(stream)), 1<<20)
		require.Equal(t, want, got)
	})
}
