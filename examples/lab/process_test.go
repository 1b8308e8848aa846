//go:build unix

package main

import (
	"context"
	"encoding/json"
	"os"
	"os/exec"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/pay-theory/streamer/v2/client"
)

// process starts the lab as a process of its own.
func process(t *testing.T, args ...string) (*exec.Cmd, *client.Client) {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), os.Args[0], append([]string{"-addr", "127.0.0.1:0"}, args...)...)
	cmd.Env = append(os.Environ(), asProcess+"=1")
	out, err := cmd.StdoutPipe()
	require.NoError(t, err)
	require.NoError(t, cmd.Start())
	var ready struct{ Addr string }
	require.NoError(t, json.NewDecoder(out).Decode(&ready))
	c, err := client.New("ws://" + ready.Addr + "/ws")
	require.NoError(t, err)
	t.Cleanup(func() { c.Close() })
	return cmd, c
}

func TestSIGTERMDrainsAndExitsWithZero(t *testing.T) {
	cmd, c := process(t)
	r, err := c.Submit(within(t, 10*time.Second), "sleep", msIn{MS: 300})
	require.NoError(t, err)
	require.NoError(t, cmd.Process.Signal(syscall.SIGTERM))
	_, err = r.Wait(within(t, 10*time.Second))
	require.NoError(t, err, "what runs is finished, and its viewers see it")
	require.NoError(t, cmd.Wait())
}

func TestCrashEndsTheProcess(t *testing.T) {
	cmd, c := process(t)
	ctx, cancel := context.WithCancel(within(t, 10*time.Second))
	gone := make(chan error, 1)
	go func() {
		gone <- cmd.Wait()
		cancel()
	}()
	_, _ = c.Request(ctx, "crash", crashIn{Attempts: 1}) // nothing of it is left in memory
	require.Error(t, <-gone)
	require.Equal(t, 3, cmd.ProcessState.ExitCode())
}
