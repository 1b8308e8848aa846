// Package fleet runs the lab and nats-server as processes on loopback, which can be killed,
// stopped, continued and restarted, and of which none outlives its Fleet.
package fleet

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
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
)

// Roles of processes.
const (
	All     = "all"
	Gateway = "gateway"
	Worker  = "worker"
	NATS    = "nats"
)

// Spec says what to start.
type Spec struct {
	Shape    Shape
	Gateways int // of a cluster
	Workers  int // of a cluster
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
}

// Fleet is a set of running processes.
type Fleet struct {
	Spec     Spec
	Gateways []*Process // what clients connect to
	Workers  []*Process // what runs handlers: the same process where there is only one
	Nodes    []*Process
	Journal  string // file

	stop context.CancelFunc
}

// Build compiles the lab and nats-server into dir. It must be called within this module.
func Build(ctx context.Context, dir string) error {
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return err
	}
	cmd := exec.CommandContext(ctx, "go", "build", "-o", dir+string(filepath.Separator),
		"github.com/pay-theory/streamer/v2/examples/lab", "github.com/nats-io/nats-server/v2")
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
	lab := func(name, role string, args ...string) *Process {
		addr := ports.addr()
		p := newProcess(f.Spec, name, role, addr, filepath.Join(bin, "lab"), append(f.labArgs(role, addr), args...))
		p.probe = p.announced
		return p
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
		store := []string{"-nats", strings.Join(urls, ","), "-replicas", strconv.Itoa(f.Spec.Nodes)}
		for i := range f.Spec.Gateways {
			f.Gateways = append(f.Gateways, lab(fmt.Sprintf("gateway-%d", i+1), Gateway, store...))
		}
		for i := range f.Spec.Workers {
			f.Workers = append(f.Workers, lab(fmt.Sprintf("worker-%d", i+1), Worker, store...))
		}
	default:
		return fmt.Errorf("fleet: shape %q: want memory, embedded or cluster", f.Spec.Shape)
	}
	if ports.err != nil {
		return ports.err
	}
	for _, group := range [][]*Process{f.Nodes, f.labs()} {
		for _, p := range group {
			p.supervise(running)
		}
		for _, p := range group {
			if err := p.WaitReady(ctx); err != nil {
				return fmt.Errorf("%w; see %s", err, p.Log)
			}
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
	if f.Spec.Shape != Cluster {
		return f.Gateways
	}
	return append(f.Gateways[:len(f.Gateways):len(f.Gateways)], f.Workers...)
}

// Processes returns all.
func (f *Fleet) Processes() []*Process {
	return append(f.Nodes[:len(f.Nodes):len(f.Nodes)], f.labs()...)
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
