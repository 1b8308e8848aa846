// Command crash kills, stops and restarts a fleet at random for as long as it is told, and
// checks every guarantee on what clients saw meanwhile. The last lines that it prints are the
// totals and the seed; it exits with 1 when a guarantee did not hold, or the run was too tame to
// say.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"math/rand/v2"
	"os"
	"os/signal"
	"syscall"
	"time"

	"github.com/pay-theory/streamer/v2/test/crash"
	"github.com/pay-theory/streamer/v2/test/crash/fleet"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	if err := run(ctx, os.Args[1:]); err != nil && !errors.Is(err, flag.ErrHelp) {
		fmt.Fprintln(os.Stderr, "crash:", err)
		stop()
		os.Exit(1)
	}
}

func run(ctx context.Context, args []string) error {
	c := crash.Config{Out: os.Stdout}
	f := flag.NewFlagSet("crash", flag.ContinueOnError)
	shape := f.String("shape", string(fleet.Cluster), "cluster, embedded, memory or aws (emulators of SQS and DynamoDB, which make emulators installs)")
	f.DurationVar(&c.Time, "time", time.Hour, "for how long processes are disturbed, and up to twice that while a rare state has not come about")
	f.Uint64Var(&c.Seed, "seed", rand.Uint64N(1_000_000), "of the mix of requests and the schedule of faults; default: random")
	f.StringVar(&c.Dir, "dir", "", "for logs, data and histories; default: a new temporary one")
	f.IntVar(&c.InFlight, "inflight", 0, "requests at once, at most; default: 100, with -shape aws 50")
	f.Float64Var(&c.Rate, "rate", 0, "requests per second, at most; default: 25, with -shape aws 8")
	f.BoolVar(&c.Tame, "tame", false, "pass even if not all rare states came about, as in a short run")
	if err := f.Parse(args); err != nil {
		return err
	}
	c.Shape = fleet.Shape(*shape)
	own := c.Dir == ""
	if own {
		dir, err := os.MkdirTemp("", "crash")
		if err != nil {
			return err
		}
		c.Dir = dir
	}
	r, err := crash.Run(ctx, c)
	switch {
	case err != nil:
		return fmt.Errorf("%w (logs are in %s)", err, c.Dir)
	case !r.OK():
		fmt.Print(r.Totals)
		return fmt.Errorf("it did not hold: logs and histories are in %s", r.Dir)
	case own:
		err = os.RemoveAll(c.Dir)
	}
	fmt.Print(r.Totals)
	return err
}
