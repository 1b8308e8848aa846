package history

import (
	"encoding/json"
	"reflect"
	"slices"

	"github.com/pay-theory/streamer/v2/test/crash/wire"
)

// outputsAreComplete checks G5: the outputs of an attempt are numbered in steps of one from
// what its start says, and those of the last attempt that completed are all there, with the
// content that the handler gave them.
func outputsAreComplete(f *found, r *Request) {
	var kept []json.RawMessage
	attempt := 0
	for _, e := range r.log() {
		switch {
		case e.Type == "status" && e.Status == "running":
			attempt = e.Attempt
			if e.OutputsFrom > len(kept) {
				f.that("attempt %d goes on from output %d, and there are %d", attempt, e.OutputsFrom, len(kept))
				return
			}
			kept = kept[:e.OutputsFrom]
		case e.Type == "output":
			if e.Index != len(kept) || e.Attempt != attempt {
				f.that("event %d is output %d of attempt %d where output %d of attempt %d is due", e.Seq, e.Index, e.Attempt, len(kept), attempt)
				return
			}
			kept = append(kept, e.Data)
		case e.Type == "complete":
			if len(kept) != r.Expect.Outputs {
				f.that("the request completed with %d outputs of %d", len(kept), r.Expect.Outputs)
			}
		}
	}
	for i, data := range kept {
		var item struct{ I int }
		if err := json.Unmarshal(data, &item); err != nil || item.I != i {
			f.that("output %d is %.100s", i, data)
		}
	}
	if end := r.end(); end != nil {
		resultIsRight(f, r, end, attempt)
	}
}

// resultIsRight checks that the end has what the handler returned.
func resultIsRight(f *found, r *Request, end *wire.Message, attempt int) {
	got := end.Result
	switch {
	case end.Type == "response":
		got = end.Data
	case end.Type != "complete":
		return
	}
	switch x := r.Expect; {
	case x.Fails != "" && !x.Attempt:
		f.that("the handler fails with %s, and the request completed: %s", x.Fails, end.Raw)
	case x.Attempt:
		var result struct{ Attempt int }
		if err := json.Unmarshal(got, &result); err != nil || result.Attempt != attempt {
			f.that("attempt %d completed with the result %s", attempt, got)
		}
	case x.Exact && string(got) != x.Result, x.Result != "" && !sameJSON(string(got), x.Result):
		f.that("the result is %.200s, not %.200s", got, x.Result)
	}
}

func sameJSON(a, b string) bool {
	var x, y any
	return json.Unmarshal([]byte(a), &x) == nil && json.Unmarshal([]byte(b), &y) == nil && reflect.DeepEqual(x, y)
}

// progressRises checks G6: to each viewer, the progress of an attempt never falls, none is
// shown of an attempt that is not the present one or after the end, and before the end of what
// completed comes the last that the handler reported.
func progressRises(f *found, r *Request) {
	last := r.Expect.Progress
	for _, e := range r.log() {
		// An attempt whose checkpoint says that all is done has nothing to report.
		if e.Status == "running" && r.Expect.Outputs > 0 && e.OutputsFrom == r.Expect.Outputs {
			last = 0
		}
	}
	views := r.Views
	if r.Audit != nil {
		views = append(views[:len(views):len(views)], &View{Viewer: "audit", Segments: []*Segment{r.Audit}})
	}
	for _, v := range views {
		p := rising{found: f, viewer: v.Viewer, last: last, highest: map[int]*wire.Message{}}
		for _, s := range v.Segments {
			p.over = false
			for i := range s.Messages {
				p.see(s, &s.Messages[i])
			}
		}
	}
}

// rising is the progress that one viewer was shown, over all its connections.
type rising struct {
	*found
	viewer  string
	last    float64               // that the handler reports
	highest map[int]*wire.Message // by attempt
	attempt int
	over    bool
}

func (p *rising) see(s *Segment, m *wire.Message) {
	switch {
	case m.Type == "attached", m.Status == "running":
		p.attempt = max(p.attempt, m.Attempt)
	case m.Type == "progress":
		before := p.highest[m.Attempt]
		if before != nil && m.Percentage < before.Percentage && !p.forgotten(before, m) {
			p.that("%s saw progress fall from %v to %v within attempt %d, by %s of %s", p.viewer, before.Percentage, m.Percentage, m.Attempt, s.Transport, s.Gateway)
		}
		p.highest[m.Attempt] = m
		if p.over {
			p.that("%s saw progress after the end", p.viewer)
		}
		if m.Attempt < p.attempt {
			p.that("%s saw progress of attempt %d while attempt %d is the present one", p.viewer, m.Attempt, p.attempt)
		}
	case m.IsEnd():
		p.over = true
		seen := 0.0
		if newest := p.highest[p.attempt]; newest != nil {
			seen = newest.Percentage
		}
		if m.Type == "complete" && seen != p.last {
			p.that("%s saw the request complete at %v percent of attempt %d, and its handler reported %v last, by %s of %s",
				p.viewer, seen, p.attempt, p.last, s.Transport, s.Gateway)
		}
	}
}

// forgotten reports whether a process that kept progress in its memory ended between the two.
func (p *rising) forgotten(before, after *wire.Message) bool {
	return p.rules.VolatileProgress && slices.ContainsFunc(p.faults, func(x Fault) bool {
		return x.Kind != "stop" && x.Touches(before.At, after.At, 0)
	})
}
