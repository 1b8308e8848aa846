package history

import (
	"fmt"
	"slices"
	"time"
)

// check is the check of one guarantee.
type check struct {
	guarantee string
	of        func(*found, *Request)
}

// checks returns them all.
func checks() []check {
	return []check{
		{"G1", ends},
		{"G2", oneEnd},
		{"G3", noGaps},
		{"G4", sameNumbersSameEvents},
		{"G5", outputsAreComplete},
		{"G6", progressRises},
		{"G7", oneRequestPerID},
		{"G8", cancelWorks},
		{"G9", lostWorkersAreReplaced},
		{"G10", replacedWorkersAreNotHeard},
		{"G11", attemptsAreCounted},
		{"G14", foreignersSeeNothing},
	}
}

// found gathers what a check objects to.
type found struct {
	rules      Rules
	faults     []Fault
	guarantee  string
	violations []Violation
}

func (f *found) that(format string, args ...any) {
	f.violations = append(f.violations, Violation{f.guarantee, fmt.Sprintf(format, args...)})
}

// Check returns what of a request's history the guarantees don't allow. The faults are those
// that were caused while there was the request.
func Check(rules Rules, r *Request, faults []Fault) []Violation {
	f := &found{rules: rules, faults: faults}
	for _, c := range checks() {
		f.guarantee = c.guarantee
		c.of(f, r)
	}
	return f.violations
}

// undisturbed reports whether neither the process with that id nor the store was touched
// between the two times. Nobody can say what to expect at once of a process that was.
func (f *found) undisturbed(pid int, from, to time.Time, aftermath time.Duration) bool {
	return !slices.ContainsFunc(f.faults, func(x Fault) bool {
		return (x.ofStore() || x.PID == pid) && x.Touches(from, to, aftermath)
	})
}

// calm reports whether no process but gateways was touched between the two times.
func (f *found) calm(from, to time.Time, aftermath time.Duration) bool {
	return !slices.ContainsFunc(f.faults, func(x Fault) bool {
		return x.Role != "gateway" && x.Touches(from, to, aftermath)
	})
}
