//go:build unix

package main

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"io"
	"net"
	"os"
	"os/exec"
	"regexp"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/pay-theory/streamer/v2/client"
	"github.com/pay-theory/streamer/v2/internal/awstest"
	"github.com/pay-theory/streamer/v2/progress"
)

// patience bounds what must happen but not at once.
const patience = 2 * time.Minute

// process is the program, run as one.
type process struct {
	*exec.Cmd
	t     *testing.T
	lines *bufio.Scanner
	said  []string
	errs  bytes.Buffer // what it wrote to stderr; to be read when it has ended
}

func start(t *testing.T, env []string, args ...string) *process {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	p := &process{Cmd: exec.CommandContext(ctx, os.Args[0], append([]string{"-addr", "127.0.0.1:0"}, args...)...), t: t}
	p.Cancel = func() error { return p.Process.Signal(syscall.SIGTERM) } // then it ends what it has started
	p.WaitDelay = patience
	p.SysProcAttr = &syscall.SysProcAttr{Setpgid: true} // as a shell starts it
	p.Env = append(only(env), asProcess+"=1")
	out, err := p.StdoutPipe()
	require.NoError(t, err)
	p.lines = bufio.NewScanner(out)
	p.Stderr = io.MultiWriter(t.Output(), &p.errs)
	require.NoError(t, p.Start())
	t.Cleanup(func() {
		cancel()
		_ = p.Wait() // an error where the test has waited
	})
	return p
}

// until returns what a line says that it prints.
func (p *process) until(pattern string) []string {
	p.t.Helper()
	for p.lines.Scan() {
		p.said = append(p.said, p.lines.Text())
		if m := regexp.MustCompile(pattern).FindStringSubmatch(p.lines.Text()); m != nil {
			return m
		}
	}
	require.Fail(p.t, "it ended without the line "+pattern, "%s", strings.Join(p.said, "\n"))
	return nil
}

// end waits for the process, which must end well.
func (p *process) end() {
	p.t.Helper()
	for p.lines.Scan() {
		p.said = append(p.said, p.lines.Text())
	}
	require.NoError(p.t, p.Wait(), "%s", strings.Join(p.said, "\n"))
}

// follow submits an export of some seconds, and calls kill once in its middle. It must end with
// all parts, of which none was made twice but the one that was cut off.
func follow(t *testing.T, host string, seconds float64, kill func()) {
	t.Helper()
	c, err := client.New("ws://" + host + "/api/ws")
	require.NoError(t, err)
	defer c.Close()
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	request, err := c.Submit(ctx, "export_data", Params{Year: 2026, Seconds: seconds})
	require.NoError(t, err)

	var outputs []json.RawMessage
	var totals Totals
	made, reports, attempts := 0, 0, 0
	for e, err := range request.Events(ctx) {
		require.NoError(t, err)
		switch e.Kind {
		case progress.Started:
			attempts++
			outputs = outputs[:e.OutputsFrom]
		case progress.Output:
			require.Equal(t, len(outputs), e.Index)
			outputs = append(outputs, e.Data)
			if made++; made == 4 {
				kill()
			}
		case client.Progressed:
			reports++
		case progress.Completed:
			require.NoError(t, json.Unmarshal(e.Data, &totals))
		}
	}
	wantOutputs, wantTotals := whole(t, 2026)
	require.Equal(t, wantTotals, totals)
	require.Equal(t, len(wantOutputs), len(outputs))
	for i := range outputs {
		require.JSONEq(t, string(wantOutputs[i]), string(outputs[i]))
	}
	require.Greater(t, attempts, 1)
	require.LessOrEqual(t, made, len(outputs)+attempts-1)
	require.Greater(t, reports, 1)
}

func TestAnExportGoesOnAfterItsWorkerWasKilled(t *testing.T) {
	t.Parallel()
	tickets, requests := awstest.SQS(t), awstest.DynamoDB(t)
	flags, err := create(t.Context(), tickets.Endpoint(), requests.Endpoint(), 3*time.Second)
	require.NoError(t, err)
	as := func(role string) *process {
		return start(t, environment(tickets.Endpoint(), requests.Endpoint()), append(flags, "-role", role)...)
	}
	gateway, worker := as("gateway"), as("worker")
	host := gateway.until(serving + "(.+)")[1]
	follow(t, host, 3, func() {
		require.NoError(t, worker.Process.Kill())
		worker = as("worker")
	})
	for _, p := range []*process{worker, gateway} {
		require.NoError(t, p.Process.Signal(syscall.SIGTERM))
		p.end()
	}
}

func TestLocalStartsAKilledServiceAgainAndLeavesNothingBehind(t *testing.T) {
	t.Parallel()
	p := start(t, []string{"AWS_PROFILE=none", "AWS_REGION=nowhere"}, "-local")
	host := p.until("curl -N http://([^/]+)/")[1]
	pid, err := strconv.Atoi(p.until(`kill -9 (\d+)`)[1])
	require.NoError(t, err)
	endpoints := p.until(`AWS_ENDPOINT_URL_SQS=http://(\S+) AWS_ENDPOINT_URL_DYNAMODB=http://(\S+)`)[1:]
	p.until("^Ctrl-C")
	follow(t, host, 3, func() { require.NoError(t, syscall.Kill(pid, syscall.SIGKILL)) })
	again, err := strconv.Atoi(p.until(serving + regexp.QuoteMeta(host) + `, process (\d+)`)[1])
	require.NoError(t, err)

	require.NoError(t, syscall.Kill(-p.Process.Pid, syscall.SIGINT)) // as Ctrl-C does
	p.end()
	require.ErrorIs(t, syscall.Kill(again, 0), syscall.ESRCH)
	for _, at := range append(endpoints, host) {
		_, err := net.Dial("tcp", at)
		require.ErrorIs(t, err, syscall.ECONNREFUSED, at)
	}
}

func TestLocalOnceShowsAnExportAndEnds(t *testing.T) {
	t.Parallel()
	p := start(t, nil, "-local", "-once")
	p.end()
	said := strings.Join(p.said, "\n")
	_, totals := whole(t, 2025)
	result, err := json.Marshal(totals)
	require.NoError(t, err)
	require.Contains(t, said, "completed: "+string(result))
	require.Equal(t, 12, strings.Count(said, "output: 2025-"), said)
	require.Contains(t, said, "exporting month 2 of 12")
}

func TestLocalEndsWithTheErrorOfTheService(t *testing.T) {
	t.Parallel()
	began := time.Now()
	p := start(t, nil, "-local", "-addr", "192.0.2.1:80") // an address of documentation
	for p.lines.Scan() {
	}
	require.Error(t, p.Wait())
	require.Equal(t, 1, p.ProcessState.ExitCode())
	require.Contains(t, p.errs.String(), "192.0.2.1:80")
	require.Less(t, time.Since(began), patience, "then it was stopped, and did not end by itself")
}
