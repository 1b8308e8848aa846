package main

import (
	"context"
	"fmt"
	"strings"
	"time"

	"github.com/pay-theory/streamer/v2"
)

// Params are what a client asks for: {"year":2026}.
type Params struct {
	Year int `json:"year"`

	// Seconds spreads the work over that time, so that there is something to watch.
	Seconds float64 `json:"seconds,omitempty"`
}

// Validate is asked before a request is accepted. Clients see its text.
func (p Params) Validate() error {
	switch {
	case p.Year < 2000 || p.Year > 2100:
		return fmt.Errorf(`"year" is %d: want 2000 to 2100`, p.Year)
	case p.Seconds < 0 || p.Seconds > 600:
		return fmt.Errorf(`"seconds" is %v: want 0 to 600`, p.Seconds)
	}
	return nil
}

// Part is a partial output: the orders of a month. All parts together are the export. Where a
// part has more than some KiB, it belongs into S3, and the output says where it is.
type Part struct {
	Month string `json:"month"`
	CSV   string `json:"csv"`
}

// Totals are the result. So far they are also the checkpoint, from which another attempt goes on.
type Totals struct {
	Months int `json:"months"`
	Orders int `json:"orders"`
	Cents  int `json:"cents"`
}

// export is the handler: it exports the orders of a year, month by month. When its worker dies,
// another one goes on with the month that the dead one had not finished.
func export(ctx context.Context, in Params, p streamer.Reporter) (Totals, error) {
	const months = 12
	var t Totals
	if _, err := streamer.LastCheckpoint(ctx, &t); err != nil {
		return t, err
	}
	for t.Months < months {
		p.Report(100*float64(t.Months)/months, fmt.Sprintf("exporting month %d of %d", t.Months+1, months))
		select {
		case <-time.After(time.Duration(in.Seconds / months * float64(time.Second))):
		case <-ctx.Done(): // canceled, out of time, or the service shuts down
			return t, ctx.Err()
		}
		part := month(in.Year, time.Month(t.Months+1), &t)
		if err := streamer.Output(ctx, part); err != nil {
			return t, err
		}
		t.Months++
		if err := streamer.Checkpoint(ctx, t); err != nil {
			return t, err
		}
	}
	p.Report(100, fmt.Sprintf("exported %d orders", t.Orders))
	return t, nil
}

// month stands for a query: it returns the orders of a month, and adds them to the totals.
func month(year int, m time.Month, t *Totals) Part {
	var csv strings.Builder
	csv.WriteString("day,cents\n")
	first := time.Date(year, m, 1, 0, 0, 0, 0, time.UTC)
	for day := first; day.Month() == m; day = day.AddDate(0, 0, 5) {
		cents := 1000 + day.YearDay()*7%900
		fmt.Fprintf(&csv, "%s,%d\n", day.Format(time.DateOnly), cents)
		t.Orders, t.Cents = t.Orders+1, t.Cents+cents
	}
	return Part{Month: first.Format("2006-01"), CSV: csv.String()}
}
