package fleet

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"sync"
	"syscall"
	"time"
)

// patience bounds how long a process takes to be ready, with the store that it needs, or to end
// after SIGTERM.
const patience = time.Minute

// Process is a program that is started again whenever it ends.
type Process struct {
	Name string
	Role string
	Addr string // host:port that it serves
	Log  string // file with what it printed

	monitor string // host:port of a NATS server's monitoring

	path   string
	args   []string
	env    []string                                       // beside that of this process
	probe  func(ctx context.Context, out io.Reader) error // returns when the process is ready
	spec   Spec
	gone   sync.WaitGroup
	raised chan struct{} // has room for one: the process is to start now

	mu      sync.Mutex
	pid     int // 0 while it does not run
	ready   bool
	asked   string        // the signal that is to end it
	down    time.Duration // for how long after that
	changed chan struct{} // closed when any of this changes
}

// Exit is the end of a process that was to run.
type Exit struct {
	*Process
	PID   int
	Ready bool   // it had been ready
	Asked string // the signal that it was sent to end: kill, term; "" for none
	Code  int    // -1 where a signal ended it
	Cause string
}

// defaultDown is how long a process that ended by itself stays down.
const defaultDown = 300 * time.Millisecond

func newProcess(spec Spec, name, role, addr, path string, args []string) *Process {
	return &Process{
		Name: name, Role: role, Addr: addr, Log: filepath.Join(spec.Dir, "logs", name+".log"),
		path: path, args: args, spec: spec, down: defaultDown, changed: make(chan struct{}), raised: make(chan struct{}, 1),
	}
}

// supervise runs the process until ctx ends.
func (p *Process) supervise(ctx context.Context) {
	p.gone.Go(func() {
		for ctx.Err() == nil {
			if err := p.once(ctx); err != nil {
				p.note(err)
			}
			p.mu.Lock()
			down := p.down
			p.down = defaultDown
			p.mu.Unlock()
			select {
			case <-time.After(down):
			case <-p.raised:
			case <-ctx.Done():
			}
		}
	})
}

func (p *Process) wait() { p.gone.Wait() }

// once runs the process until it ends, or ctx does.
func (p *Process) once(ctx context.Context) error {
	log, err := os.OpenFile(p.Log, os.O_APPEND|os.O_CREATE|os.O_WRONLY, 0o644)
	if err != nil {
		return err
	}
	defer log.Close()
	out, in, err := os.Pipe()
	if err != nil {
		return err
	}
	defer out.Close()
	cmd := exec.CommandContext(ctx, p.path, p.args...)
	cmd.Stdout, cmd.Stderr = in, log
	cmd.Env = append(os.Environ(), p.env...)
	if p.spec.Env != nil {
		cmd.Env = append(cmd.Env, p.spec.Env(p.Name)...)
	}
	cmd.SysProcAttr = attributes()
	if _, err = cmd.StdinPipe(); err == nil { // open until Wait: emulators end with their input
		err = cmd.Start()
	}
	_ = in.Close()
	if err != nil {
		return err
	}
	pid := cmd.Process.Pid
	fmt.Fprintf(log, "-- process %d starts at %s\n", pid, time.Now().UTC().Format(time.RFC3339Nano))
	p.set(func() {
		p.pid, p.ready, p.asked = pid, false, ""
		select {
		case <-p.raised: // for a start that was due anyway
		default:
		}
	})

	alive, cancel := context.WithCancel(ctx)
	var watching sync.WaitGroup
	watching.Go(func() {
		if p.probe(alive, out) == nil {
			p.set(func() { p.ready = true })
			if p.spec.OnReady != nil {
				p.spec.OnReady(p)
			}
		}
		_, _ = io.Copy(log, out)
	})
	err = cmd.Wait()
	cancel()
	watching.Wait()
	p.ended(ctx, cmd.ProcessState)
	fmt.Fprintf(log, "-- process %d ended: %v\n", pid, cmd.ProcessState)
	var exit *exec.ExitError
	if errors.As(err, &exit) {
		return nil
	}
	return err
}

func (p *Process) ended(ctx context.Context, state *os.ProcessState) {
	var e Exit
	p.set(func() {
		e = Exit{Process: p, PID: p.pid, Ready: p.ready, Asked: p.asked, Code: state.ExitCode(), Cause: state.String()}
		p.pid, p.ready = 0, false
	})
	if p.spec.OnExit != nil && ctx.Err() == nil {
		p.spec.OnExit(e)
	}
}

// note writes into the log what kept the process from running.
func (p *Process) note(err error) {
	if f, open := os.OpenFile(p.Log, os.O_APPEND|os.O_CREATE|os.O_WRONLY, 0o644); open == nil {
		fmt.Fprintf(f, "-- %v\n", err)
		_ = f.Close()
	}
}

// set changes the state, and wakes those who wait for that.
func (p *Process) set(change func()) {
	p.mu.Lock()
	defer p.mu.Unlock()
	change()
	close(p.changed)
	p.changed = make(chan struct{})
}

// PID returns the id of the process, 0 while it does not run.
func (p *Process) PID() int {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.pid
}

// WaitReady waits until the process runs and is ready.
func (p *Process) WaitReady(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	for {
		p.mu.Lock()
		ready, changed := p.ready, p.changed
		p.mu.Unlock()
		if ready {
			return nil
		}
		select {
		case <-changed:
		case <-ctx.Done():
			return fmt.Errorf("fleet: %s is not ready: %w", p.Name, context.Cause(ctx))
		}
	}
}

// Kill ends the process as kill -9 does, and has it started again after down. It returns the id
// of the process, 0 when there was none.
func (p *Process) Kill(down time.Duration) int { return p.end("kill", syscall.SIGKILL, down) }

// Terminate asks the process to end, and has it started again after down.
func (p *Process) Terminate(down time.Duration) int { return p.end("term", syscall.SIGTERM, down) }

func (p *Process) end(how string, signal syscall.Signal, down time.Duration) int {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.pid == 0 {
		return 0
	}
	p.asked, p.down = how, down
	_ = syscall.Kill(p.pid, signal)
	return p.pid
}

// Raise starts a process that is down at once.
func (p *Process) Raise() {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.pid == 0 {
		select {
		case p.raised <- struct{}{}:
		default:
		}
	}
}

// WaitGone waits until the process with that id has ended. It kills one that does not.
func (p *Process) WaitGone(ctx context.Context, pid int) error {
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	for {
		p.mu.Lock()
		gone, changed := p.pid != pid, p.changed
		p.mu.Unlock()
		if gone {
			return nil
		}
		select {
		case <-changed:
		case <-ctx.Done():
			p.Kill(defaultDown)
			return fmt.Errorf("fleet: %s (process %d) has not ended within %v", p.Name, pid, patience)
		}
	}
}

// Stop stops the process, as if its machine stood still, until Continue. It returns the id of
// the process, 0 when there was none.
func (p *Process) Stop() int {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.pid != 0 {
		_ = syscall.Kill(p.pid, syscall.SIGSTOP)
	}
	return p.pid
}

// Continue continues the process with that id, if it is still there.
func (p *Process) Continue(pid int) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.pid == pid && pid != 0 {
		_ = syscall.Kill(pid, syscall.SIGCONT)
	}
}

// announced waits for the line with which a lab says that it serves.
func (p *Process) announced(_ context.Context, out io.Reader) error {
	line, err := bufio.NewReader(out).ReadBytes('\n')
	if err != nil {
		return err
	}
	var ready struct{ Ready bool }
	if err := json.Unmarshal(line, &ready); err != nil || !ready.Ready {
		return fmt.Errorf("fleet: %s printed %q", p.Name, line)
	}
	return nil
}
