// Package fleet runs the lab, and nats-server or emulators of AWS, as processes on loopback, which
// can be killed, stopped, continued and restarted, and of which none outlives its Fleet.
package fleet

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"
)

// Shape is which processes there are and where they keep their logs and tickets.
type Shape string

// The shapes.
const (
	Memory   Shape = "memory"   // one process; all is lost with it
	Embedded Shape = "embedded" // one process with a nats-server and its files inside
	Cluster  Shape = "cluster"  // gateways and workers on a NATS cluster
	Amazon   Shape = "aws"      // gateways and workers on emulators of SQS and DynamoDB
)

// Roles of processes.
const (
	All     = "all"
	Gateway = "gateway"
	Worker  = "worker"
	NATS    = "nats"
	AWS     = "aws" // an emulator, which must not be killed: it keeps all in memory
)

// Spec says what to start.
type Spec struct {
	Shape    Shape
	Gateways int // where they are apart from workers: of a cluster, and on AWS
	Workers  int // likewise
	Nodes    int // of a cluster: NATS servers, as many as there are replicas
	Dir      string

	Lease       time.Duration
	Retention   time.Duration
	Drain       time.Duration
	Attempts    int
	Concurrency int

	// OnExit, if not nil, is told of every process that ended while it was to run.
	OnExit func(Exit)
	// OnReady, if not nil, is told of every process that has become ready.
	OnReady func(*Process)
	// Env, if not nil, returns what the environment of the process with that name has beside that
	// of this process.
	Env func(process string) []string
}

// Fleet is a set of running processes.
type Fleet struct {
	Spec     Spec
	Gateways []*Process // what clients connect to
	Workers  []*Process // what runs handlers: the same process where there is only one
	Nodes    []*Process // NATS servers
	Services []*Process // SQS and DynamoDB
	Journal  string     // file

	stop context.CancelFunc
}

// programs are what a fleet runs.
var programs = []string{"github.com/pay-theory/streamer/v2/examples/lab", "github.com/nats-io/nats-server/v2"}

// Build compiles the lab and nats-server into dir. It must be called within this module.
func Build(ctx context.Context, dir string) error {
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return err
	}
	cmd := exec.CommandContext(ctx, "go", append([]string{"build", "-o", dir + string(filepath.Separator)}, programs...)...)
	if out, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("fleet: go build: %w\n%s", err, out)
	}
	return nil
}

// Start starts all processes with the binaries in bin, and waits until they are ready. Close
// ends them.
func Start(ctx context.Context, bin string, spec Spec) (*Fleet, error) {
	f := &Fleet{Spec: spec, Journal: filepath.Join(spec.Dir, "journal")}
	running, stop := context.WithCancel(context.WithoutCancel(ctx))
	f.stop = stop
	if err := f.start(ctx, running, bin); err != nil {
		f.Close()
		return nil, err
	}
	return f, nil
}

func (f *Fleet) start(ctx, running context.Context, bin string) error {
	for _, dir := range []string{"logs", "data"} {
		if err := os.MkdirAll(filepath.Join(f.Spec.Dir, dir), 0o755); err != nil {
			return err
		}
	}
	var ports ports
	var env []string
	lab := func(name, role string, args ...string) *Process {
		addr := ports.addr()
		p := newProcess(f.Spec, name, role, addr, filepath.Join(bin, "lab"), append(f.labArgs(role, addr), args...))
		p.probe, p.env = p.announced, env
		return p
	}
	split := func(store ...string) {
		for i := range f.Spec.Gateways {
			f.Gateways = append(f.Gateways, lab(fmt.Sprintf("gateway-%d", i+1), Gateway, store...))
		}
		for i := range f.Spec.Workers {
			f.Workers = append(f.Workers, lab(fmt.Sprintf("worker-%d", i+1), Worker, store...))
		}
	}
	switch f.Spec.Shape {
	case Memory:
		f.Gateways = append(f.Gateways, lab("lab", All))
		f.Workers = f.Gateways
	case Embedded:
		f.Gateways = append(f.Gateways, lab("lab", All, "-data", filepath.Join(f.Spec.Dir, "data")))
		f.Workers = f.Gateways
	case Cluster:
		nodes, urls, err := cluster(f.Spec, bin, &ports)
		if err != nil {
			return err
		}
		f.Nodes = nodes
		split("-nats", strings.Join(urls, ","), "-replicas", strconv.Itoa(f.Spec.Nodes))
	case Amazon:
		a, err := emulate(f.Spec, &ports)
		if err != nil {
			return err
		}
		f.Services = []*Process{a.sqs, a.dynamoDB}
		if err := raise(ctx, running, f.Services); err != nil {
			return err
		}
		if err := a.create(ctx, f.Spec.Lease); err != nil {
			return err
		}
		env = a.env()
		split(a.labArgs()...)
	default:
		return fmt.Errorf("fleet: shape %q: want memory, embedded, cluster or aws", f.Spec.Shape)
	}
	if ports.err != nil {
		return ports.err
	}
	if err := raise(ctx, running, f.Nodes); err != nil {
		return err
	}
	return raise(ctx, running, f.labs())
}

// raise starts processes, and waits until they are ready.
func raise(ctx, running context.Context, group []*Process) error {
	for _, p := range group {
		p.supervise(running)
	}
	for _, p := range group {
		if err := p.WaitReady(ctx); err != nil {
			return fmt.Errorf("%w; see %s", err, p.Log)
		}
	}
	return nil
}

func (f *Fleet) labArgs(role, addr string) []string {
	s := f.Spec
	return []string{
		"-addr", addr, "-role", role, "-auth", "dev", "-journal", f.Journal,
		"-lease", s.Lease.String(), "-retention", s.Retention.String(), "-drain", s.Drain.String(),
		"-attempts", strconv.Itoa(s.Attempts), "-concurrency", strconv.Itoa(s.Concurrency),
	}
}

// labs returns the processes that are labs, each once.
func (f *Fleet) labs() []*Process {
	if s := f.Spec.Shape; s == Memory || s == Embedded {
		return f.Gateways
	}
	return slices.Concat(f.Gateways, f.Workers)
}

// Processes returns all.
func (f *Fleet) Processes() []*Process {
	return slices.Concat(f.Nodes, f.Services, f.labs())
}

// WaitReady waits until all processes run and are ready.
func (f *Fleet) WaitReady(ctx context.Context) error {
	var errs []error
	for _, p := range f.Processes() {
		errs = append(errs, p.WaitReady(ctx))
	}
	return errors.Join(errs...)
}

// Close kills all processes and waits for their end.
func (f *Fleet) Close() {
	f.stop()
	for _, p := range f.Processes() {
		p.wait()
	}
}
