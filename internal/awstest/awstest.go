// Package awstest runs emulators of SQS and DynamoDB for tests and examples, each a process of
// its own on a free port of loopback, and a proxy that disturbs what is between an AWS client
// and one of them. It knows nothing of the AWS SDK.
//
// The emulators are npm packages, which `make emulators` installs.
package awstest

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"sync"
	"testing"
	"time"
)

// Region is what clients of the emulators say. Credentials may be anything but empty.
const Region = "us-east-1"

// service is what an emulator stands for.
type service string

const (
	sqs      service = "sqs"      // fauxqs
	dynamoDB service = "dynamodb" // dynalite
)

// health returns where the emulator tells that it is there.
func (s service) health() string {
	if s == sqs {
		return "/health"
	}
	return "/"
}

// patience bounds how long an emulator takes to start.
const patience = time.Minute

// folder is where the emulators are, seen from the top of the repository.
const folder = "internal/awstest/emulators"

// Emulator is an emulator that runs. It ends with Close, and with the process that started it.
type Emulator struct {
	endpoint string
	cmd      *exec.Cmd
	stdin    io.Closer
	close    func() error // the first call ends it, all return what became of that
}

// SQS starts an emulator of SQS that nobody else uses. It is stopped when the test ends.
func SQS(tb testing.TB) *Emulator {
	tb.Helper()
	return run(tb, StartSQS)
}

// DynamoDB starts an emulator of DynamoDB that nobody else uses. It is stopped when the test ends.
func DynamoDB(tb testing.TB) *Emulator {
	tb.Helper()
	return run(tb, StartDynamoDB)
}

func run(tb testing.TB, start func(context.Context) (*Emulator, error)) *Emulator {
	tb.Helper()
	e, err := start(tb.Context())
	if err != nil {
		tb.Fatal(err)
	}
	tb.Cleanup(func() {
		if err := e.Close(); err != nil {
			tb.Error(err)
		}
	})
	return e
}

// StartSQS starts an emulator of SQS, for programs that are no tests: they must run somewhere
// within the repository. It returns when the emulator answers. The context bounds the start only.
func StartSQS(ctx context.Context) (*Emulator, error) { return start(ctx, sqs) }

// StartDynamoDB starts an emulator of DynamoDB, as StartSQS does one of SQS.
func StartDynamoDB(ctx context.Context) (*Emulator, error) { return start(ctx, dynamoDB) }

// SQSCommand returns the program that emulates SQS on a port of loopback, for those who look after
// the process themselves. It prints its endpoint when it is ready, and ends with its standard input.
func SQSCommand(port int) (path string, args []string, err error) { return command(sqs, port) }

// DynamoDBCommand returns the program that emulates DynamoDB, as SQSCommand does that for SQS.
func DynamoDBCommand(port int) (path string, args []string, err error) {
	return command(dynamoDB, port)
}

// command returns the program that is an emulator; port 0 is a free one.
func command(s service, port int) (path string, args []string, err error) {
	dir, err := emulators()
	if err != nil {
		return "", nil, fmt.Errorf("awstest: %s: %w", s, err)
	}
	args = []string{"--no-warnings", filepath.Join(dir, "run.mjs"), string(s), strconv.Itoa(port)}
	return filepath.Join(dir, "node_modules", ".bin", "node"), args, nil
}

func start(ctx context.Context, s service) (*Emulator, error) {
	path, args, err := command(s, 0)
	if err != nil {
		return nil, err
	}
	ctx, cancel := context.WithTimeoutCause(ctx, patience, fmt.Errorf("it did not start within %v", patience))
	defer cancel()
	out, errs := &line{first: make(chan string, 1)}, new(tail)
	cmd := exec.Command(path, args...)
	cmd.Stdout, cmd.Stderr = out, errs
	stdin, err := cmd.StdinPipe()
	if err != nil {
		return nil, fmt.Errorf("awstest: %s: %w", s, err)
	}
	if err := cmd.Start(); err != nil {
		return nil, fmt.Errorf("awstest: %s: %w", s, err)
	}
	e := &Emulator{cmd: cmd, stdin: stdin}
	exited := make(chan error, 1)
	go func() { exited <- cmd.Wait() }()
	e.close = sync.OnceValue(func() error { return e.end(exited, errs) })
	select {
	case e.endpoint = <-out.first:
		err = healthy(ctx, e.endpoint+s.health())
	case err = <-exited:
		exited <- err
		err = fmt.Errorf("it ended at once: %w: %s", err, errs)
	case <-ctx.Done():
		err = context.Cause(ctx)
	}
	if err != nil {
		return nil, errors.Join(fmt.Errorf("awstest: %s: %w", s, err), e.Close())
	}
	return e, nil
}

// Endpoint returns where the emulator listens: http://127.0.0.1:port.
func (e *Emulator) Endpoint() string { return e.endpoint }

// Close ends the emulator and waits for its end. It may be called again.
func (e *Emulator) Close() error { return e.close() }

// end kills the process. One that had ended before is an error.
func (e *Emulator) end(exited <-chan error, errs *tail) error {
	_ = e.stdin.Close() // the process is killed in any case
	killed := e.cmd.Process.Kill()
	err := <-exited
	if errors.Is(killed, os.ErrProcessDone) && err != nil {
		return fmt.Errorf("awstest: the emulator had ended by itself: %w: %s", err, errs)
	}
	return nil
}

// ErrNotInstalled is wrapped by the errors of StartSQS and StartDynamoDB where there are no emulators.
var ErrNotInstalled = errors.New("the emulators are not installed")

// emulators returns the folder with the installed emulators, which it looks for from the
// working directory upwards.
func emulators() (string, error) {
	at, err := os.Getwd()
	if err != nil {
		return "", err
	}
	for {
		dir := filepath.Join(at, filepath.FromSlash(folder))
		if _, err := os.Stat(dir); err == nil {
			if _, err := os.Stat(filepath.Join(dir, "node_modules", ".bin", "node")); err != nil {
				return "", fmt.Errorf("%w: run `make emulators` in %s", ErrNotInstalled, at)
			}
			return dir, nil
		}
		up := filepath.Dir(at)
		if up == at {
			return "", fmt.Errorf("%w: no %s here or above: run this within the repository", ErrNotInstalled, folder)
		}
		at = up
	}
}

// healthy returns nil when the URL answers that all is well.
func healthy(ctx context.Context, url string) error {
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
	if err != nil {
		return err
	}
	transport := &http.Transport{DisableKeepAlives: true}
	response, err := transport.RoundTrip(request)
	if err != nil {
		return err
	}
	defer response.Body.Close()
	if response.StatusCode != http.StatusOK {
		return fmt.Errorf("GET %s: %s", url, response.Status)
	}
	return nil
}

// line hands on the first line that is written to it.
type line struct {
	first chan string // gets one value
	text  []byte
	done  bool
}

func (l *line) Write(p []byte) (int, error) {
	if !l.done {
		l.text = append(l.text, p...)
		if before, _, ok := bytes.Cut(l.text, []byte("\n")); ok {
			l.done = true
			l.first <- string(before)
		}
	}
	return len(p), nil
}

// tail keeps the end of what is written to it.
type tail struct {
	mu   sync.Mutex
	text []byte
}

// maxTail is how many bytes a tail keeps.
const maxTail = 4 << 10

func (t *tail) Write(p []byte) (int, error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.text = append(t.text, p...)
	t.text = t.text[max(0, len(t.text)-maxTail):]
	return len(p), nil
}

func (t *tail) String() string {
	t.mu.Lock()
	defer t.mu.Unlock()
	return string(t.text)
}
