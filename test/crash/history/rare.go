package history

import (
	"slices"
	"time"
)

// Rare is what of the states that a run is for happened to one request.
type Rare struct {
	Lost      int             // attempts whose worker was lost
	Returned  int             // attempts that were handed back at a shutdown
	Fenced    int             // handlers that went on after their process was stopped for so long that another attempt had begun
	Exhausted bool            // all attempts were used up by lost workers
	Raced     bool            // a cancel was sent before anybody saw the end, and came too late
	Twins     bool            // two submits were under way at once, and both were acknowledged
	Conflict  bool            // another body was refused
	Takeovers []time.Duration // from the kill of a worker to the next attempt
}

// RareOf looks for rare states.
func RareOf(r *Request, faults []Fault) Rare {
	var x Rare
	for _, e := range r.log() {
		switch {
		case e.Status == "retrying" && e.Reason == "lost":
			x.Lost++
		case e.Status == "retrying" && e.Reason == "shutdown":
			x.Returned++
		}
	}
	end := r.end()
	x.Exhausted = end != nil && end.Code() == "PROCESSING_FAILED"
	seen := r.endSeen()
	for _, c := range r.Cancels {
		x.Raced = x.Raced || c.Outcome == Acked && c.Status == "completed" && c.From.Before(seen)
	}
	for i, a := range r.Submits {
		x.Conflict = x.Conflict || a.Code == "CONFLICT"
		for _, b := range r.Submits[i+1:] {
			x.Twins = x.Twins || a.Outcome == Acked && b.Outcome == Acked && a.From.Before(b.To) && b.From.Before(a.To)
		}
	}
	x.Fenced = fenced(r, faults)
	x.Takeovers = takeovers(r, faults)
	return x
}

// fenced counts the handlers of which a process was stopped until another attempt had begun.
func fenced(r *Request, faults []Fault) (n int) {
	for _, a := range r.Runs {
		again := slices.IndexFunc(r.Runs, func(b Run) bool { return b.Attempt > a.Attempt })
		if again < 0 {
			continue
		}
		next := r.Runs[again].Start
		if slices.ContainsFunc(faults, func(x Fault) bool {
			return x.Kind == "stop" && x.PID == a.PID && x.From.After(a.Start) && x.From.Before(next) && x.To.After(next) &&
				(a.End.IsZero() || a.End.After(next))
		}) {
			n++
		}
	}
	return n
}

// takeovers returns how long a request waited for its next attempt after the process with its
// handler was killed, for each time that this happened.
func takeovers(r *Request, faults []Fault) []time.Duration {
	var waits []time.Duration
	for i, a := range r.Runs {
		if i+1 == len(r.Runs) || !a.End.IsZero() {
			continue
		}
		for _, x := range faults {
			if x.PID == a.PID && (x.Kind == "kill" || x.Kind == "crash") && x.From.After(a.Start) {
				waits = append(waits, r.Runs[i+1].Start.Sub(x.From))
			}
		}
	}
	return waits
}
