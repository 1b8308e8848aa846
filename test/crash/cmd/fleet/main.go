// Command fleet starts three NATS servers, two gateways and three workers on loopback, says
// where they are, and stops them all on Ctrl-C. What is killed meanwhile, by hand, is started
// again.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/signal"
	"path/filepath"
	"syscall"
	"text/tabwriter"
	"time"

	"github.com/pay-theory/streamer/v2/test/crash/fleet"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	if err := run(ctx, os.Stdout, os.Args[1:]); err != nil && !errors.Is(err, flag.ErrHelp) {
		fmt.Fprintln(os.Stderr, "fleet:", err)
		stop()
		os.Exit(1)
	}
}

func run(ctx context.Context, out io.Writer, args []string) error {
	spec := fleet.Spec{Shape: fleet.Cluster, Nodes: 3}
	f := flag.NewFlagSet("fleet", flag.ContinueOnError)
	f.StringVar(&spec.Dir, "dir", "", "for logs and data, which stay; default: a temporary one, which is removed")
	f.IntVar(&spec.Gateways, "gateways", 2, "gateways")
	f.IntVar(&spec.Workers, "workers", 3, "workers")
	f.DurationVar(&spec.Lease, "lease", 10*time.Second, "how long a lost worker's request waits for another")
	f.DurationVar(&spec.Retention, "retention", 15*time.Minute, "how long a request stays after its end")
	f.DurationVar(&spec.Drain, "drain", 10*time.Second, "how long handlers may take to finish after SIGTERM")
	f.IntVar(&spec.Attempts, "attempts", 3, "attempts of a request at most")
	f.IntVar(&spec.Concurrency, "concurrency", 64, "handlers at a time, of each worker")
	if err := f.Parse(args); err != nil {
		return err
	}
	if spec.Gateways < 1 || spec.Workers < 0 {
		return errors.New("-gateways and -workers: want at least 1 and 0")
	}
	if spec.Dir == "" {
		dir, err := os.MkdirTemp("", "fleet")
		if err != nil {
			return err
		}
		defer os.RemoveAll(dir)
		spec.Dir = dir
	}
	bin := filepath.Join(spec.Dir, "bin")
	fmt.Fprintln(out, "building and starting ...")
	if err := fleet.Build(ctx, bin); err != nil {
		return err
	}
	spec.OnExit = func(e fleet.Exit) { fmt.Fprintf(out, "%s (process %d) ended: %s\n", e.Name, e.PID, e.Cause) }
	running, err := fleet.Start(ctx, bin, spec)
	if err != nil {
		return err
	}
	defer running.Close()
	show(out, running)
	<-ctx.Done()
	fmt.Fprintln(out, "stopping")
	return nil
}

const invitation = `
Speak to it, over any gateway, as any tenant:user:
  npx wscat -c "ws://%[1]s/ws?Authorization=Bearer acme:alice"
  > {"action":"count","id":"test-123","payload":{"n":60,"every_ms":1000}}
  curl -N -H "Authorization: Bearer acme:alice" %[2]s/requests/test-123/events
Kill what you like; it is started again. Ctrl-C stops all.
`

func show(out io.Writer, f *fleet.Fleet) {
	t := tabwriter.NewWriter(out, 0, 0, 2, ' ', 0)
	fmt.Fprintln(t, "process\tid\taddress\tlog")
	for _, p := range f.Processes() {
		fmt.Fprintf(t, "%s\t%d\t%s\t%s\n", p.Name, p.PID(), p.Addr, p.Log)
	}
	_ = t.Flush()
	fmt.Fprintf(out, invitation, f.Gateways[0].Addr, f.Gateways[len(f.Gateways)-1].Addr)
}
