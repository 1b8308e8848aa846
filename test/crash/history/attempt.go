package history

import (
	"encoding/json"
	"slices"
	"time"
)

// lostWorkersAreReplaced checks G9: two handlers run at once only where the first one's lease
// was lost, which the log says; and after the kill of a worker the next attempt starts in time,
// where nothing but that one process was disturbed meanwhile.
func lostWorkersAreReplaced(f *found, r *Request) {
	if r.Shared || r.end() == nil {
		return
	}
	replacedInTime(f, r)
	why := map[int]string{} // attempt → why it is over
	for _, e := range r.log() {
		if e.Type == "status" && e.Status == "retrying" {
			why[e.Attempt] = e.Reason
		}
	}
	for _, a := range r.Runs {
		for _, b := range r.Runs {
			overlap := b.Attempt > a.Attempt && (a.End.IsZero() || a.End.After(b.Start))
			if overlap && why[a.Attempt] == "error" {
				f.that("attempt %d began at %v while the handler of attempt %d, which had failed, ran until %v", b.Attempt, b.Start, a.Attempt, a.End)
			}
			if overlap && why[a.Attempt] == "shutdown" && r.Expect.Obeys && !a.End.IsZero() {
				f.that("attempt %d began at %v while the handler of attempt %d, which was handed back, ran until %v", b.Attempt, b.Start, a.Attempt, a.End)
			}
		}
	}
}

// replacement is within which time after the lease of a lost worker another starts.
const replacement = 2 * time.Second

// replacedInTime looks at the time from the kill of a worker to the next attempt.
func replacedInTime(f *found, r *Request) {
	if r.cancelAsked() || r.end().Code() == "PROCESSING_FAILED" {
		return // no other has to begin
	}
	for i, a := range r.Runs {
		if !a.End.IsZero() {
			continue
		}
		for _, x := range f.faults {
			if x.PID != a.PID || x.Kind != "kill" || x.From.Before(a.Start) {
				continue
			}
			due := x.From.Add(f.rules.Lease + f.rules.Stray + replacement + f.rules.Slack)
			others := slices.DeleteFunc(slices.Clone(f.faults), func(o Fault) bool { return o == x })
			alone := &found{faults: others}
			if late := i+1 == len(r.Runs) || r.Runs[i+1].Start.After(due); late && alone.calm(x.From.Add(-f.rules.Lease), due, f.rules.Slack) {
				f.that("process %d was killed at %v with attempt %d, and no other had begun by %v", a.PID, x.From, a.Attempt, due)
			}
		}
	}
}

// replacedWorkersAreNotHeard checks G10: after the start of an attempt no event of an earlier
// one is in the log, each attempt is one call of a handler at most, and none begins after
// the end, unless its process was stopped between the log and the call.
func replacedWorkersAreNotHeard(f *found, r *Request) {
	attempt := 0
	started := map[int]bool{}
	for _, e := range r.log() {
		switch {
		case e.Type == "status" && e.Status == "running":
			if e.Attempt != attempt+1 {
				f.that("event %d starts attempt %d after attempt %d", e.Seq, e.Attempt, attempt)
			}
			attempt = e.Attempt
			started[attempt] = true
		case (e.Type == "output" || e.Status == "retrying") && e.Attempt != attempt:
			f.that("event %d is of attempt %d, after the start of attempt %d: %s", e.Seq, e.Attempt, attempt, e.Raw)
		}
	}
	if r.Shared || r.Expect.Short || r.end() == nil {
		return
	}
	seen := r.endSeen()
	calls := map[int]int{}
	for _, run := range r.Runs {
		calls[run.Attempt]++
		switch {
		case calls[run.Attempt] > 1:
			f.that("the handler was called %d times for attempt %d", calls[run.Attempt], run.Attempt)
		case !started[run.Attempt]:
			f.that("the handler was called for attempt %d, which the log knows nothing of", run.Attempt)
		case run.Start.After(seen) && f.undisturbed(run.PID, run.Start.Add(-2*f.rules.Lease), run.Start, 0):
			f.that("the handler was called for attempt %d at %v, and the end had been seen at %v", run.Attempt, run.Start, seen)
		}
	}
	if end := r.end(); end.Type == "complete" {
		i := slices.IndexFunc(r.Runs, func(run Run) bool { return run.Attempt == attempt })
		if i < 0 || r.Runs[i].End.IsZero() || r.Runs[i].End.After(seen) {
			f.that("attempt %d completed, and no handler had returned for it", attempt)
		}
	}
}

// attemptsAreCounted checks G11: no more attempts than there may be, those that were handed
// back at a shutdown not counted; a request fails for want of attempts only after the last one,
// and fails otherwise only with what its handler returned.
func attemptsAreCounted(f *found, r *Request) {
	used := 0
	for _, e := range r.log() {
		switch {
		case e.Status == "running":
			if used++; used > f.rules.Attempts {
				f.that("event %d starts an attempt when %d were used up", e.Seq, f.rules.Attempts)
			}
		case e.Status == "retrying" && e.Reason == "shutdown":
			used--
		}
	}
	end := r.end()
	if end == nil || end.Type != "error" {
		return
	}
	switch code := end.Code(); {
	case code == "CANCELED":
	case code == "PROCESSING_FAILED":
		var details struct{ Attempts int }
		if err := json.Unmarshal(end.Error.Details, &details); err != nil || details.Attempts != used || used != f.rules.Attempts {
			f.that("after %d of %d attempts the request failed with %s", used, f.rules.Attempts, end.Raw)
		}
	case code != r.Expect.Fails:
		f.that("the request failed with %s, which its handler never returns", end.Raw)
	case r.Expect.Retries && used != f.rules.Attempts:
		f.that("after %d of %d attempts the request failed with %s, though its handler had asked for a retry", used, f.rules.Attempts, end.Raw)
	}
}
