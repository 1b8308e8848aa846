package progress

import (
	"errors"
	"fmt"
)

// Check returns what is wrong with a record in itself that is to follow record prev: a Log
// returns it from Append, and stores nothing.
func (rec *Record) Check(prev string) error {
	n := len(rec.Events)
	last := rec.State.Last - uint64(n) // before the record
	switch {
	case rec.ID == "":
		return errors.New("record has no ID")
	case rec.State.Record != rec.ID:
		return fmt.Errorf("record %s has a state of record %q", rec.ID, rec.State.Record)
	case prev == "" && n == 0:
		return fmt.Errorf("record %s would start a log without an event", rec.ID)
	case prev == "" && last != 0:
		return fmt.Errorf("record %s would start a log, has %d events and a state of event %d", rec.ID, n, rec.State.Last)
	}
	for i, e := range rec.Events {
		switch {
		case e.Seq != last+uint64(i)+1:
			return fmt.Errorf("record %s has a state of event %d, and its event %d of %d is number %d", rec.ID, rec.State.Last, i+1, n, e.Seq)
		case e.Record != rec.ID:
			return fmt.Errorf("record %s: event %d says it is of record %q", rec.ID, e.Seq, e.Record)
		case e.Kind.Ends() && i < n-1:
			return fmt.Errorf("record %s: event %d is an end and not the last", rec.ID, e.Seq)
		}
	}
	ends := n > 0 && rec.Events[n-1].Kind.Ends()
	if ends != rec.State.Ended() {
		return fmt.Errorf("record %s: its events and its state differ on whether the request has ended", rec.ID)
	}
	if ends != (rec.Retention > 0) || rec.Retention < 0 {
		return fmt.Errorf("record %s has retention %v: it must be more than 0 exactly when the record ends the request", rec.ID, rec.Retention)
	}
	return nil
}

// Optional reports whether a Log that is about to be full refuses the record that is to follow
// record prev: it starts a request or adds outputs. What moves an open request towards its end
// is not optional.
func (rec *Record) Optional(prev string) bool {
	if prev == "" {
		return true
	}
	for _, e := range rec.Events {
		if e.Kind == Output {
			return true
		}
	}
	return false
}
