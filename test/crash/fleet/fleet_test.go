package fleet_test

import (
	"context"
	"net"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/pay-theory/streamer/v2/test/crash/fleet"
)

func start(t *testing.T, exits chan fleet.Exit) *fleet.Fleet {
	t.Helper()
	f, err := fleet.Start(t.Context(), bin, fleet.Spec{
		Shape: fleet.Memory, Dir: t.TempDir(), Lease: 3 * time.Second, Retention: time.Minute, Drain: time.Second, Attempts: 3, Concurrency: 4,
		OnExit: func(e fleet.Exit) { exits <- e },
	})
	require.NoError(t, err)
	t.Cleanup(f.Close)
	return f
}

func serves(addr string) bool {
	c, err := net.DialTimeout("tcp", addr, time.Second)
	if err == nil {
		_ = c.Close()
	}
	return err == nil
}

func TestAProcessThatEndsIsStartedAgainAtItsAddress(t *testing.T) {
	exits := make(chan fleet.Exit, 10)
	f := start(t, exits)
	lab := f.Gateways[0]
	require.True(t, serves(lab.Addr))

	first := lab.Kill(50 * time.Millisecond)
	require.NoError(t, lab.WaitGone(t.Context(), first))
	e := <-exits
	require.Equal(t, "kill", e.Asked)
	require.True(t, e.Ready)
	require.Equal(t, -1, e.Code)
	require.NoError(t, f.WaitReady(t.Context()))
	require.NotEqual(t, first, lab.PID())
	require.True(t, serves(lab.Addr))

	second := lab.Terminate(50 * time.Millisecond)
	require.NoError(t, lab.WaitGone(t.Context(), second))
	e = <-exits
	require.Equal(t, "term", e.Asked)
	require.Zero(t, e.Code)
}

func TestAProcessThatIsStoppedStandsStillUntilItIsContinued(t *testing.T) {
	f := start(t, make(chan fleet.Exit, 10))
	lab := f.Gateways[0]
	pid := lab.Stop()
	var c net.Conn
	answer := make([]byte, 1)
	ask := func(patience time.Duration) error {
		var err error
		c, err = net.Dial("tcp", lab.Addr) // the system accepts for it
		require.NoError(t, err)
		t.Cleanup(func() { _ = c.Close() })
		_, err = c.Write([]byte("GET /livez HTTP/1.1\r\nHost: lab\r\n\r\n"))
		require.NoError(t, err)
		require.NoError(t, c.SetReadDeadline(time.Now().Add(patience)))
		_, err = c.Read(answer)
		return err
	}
	// It may take a moment until all threads stand still.
	require.Eventually(t, func() bool { return ask(200*time.Millisecond) != nil }, 10*time.Second, 10*time.Millisecond)
	lab.Continue(pid)
	require.NoError(t, c.SetReadDeadline(time.Now().Add(10*time.Second)))
	_, err := c.Read(answer)
	require.NoError(t, err)
}

func TestAClusterIsReadyAndHasALeader(t *testing.T) {
	f, err := fleet.Start(t.Context(), bin, fleet.Spec{
		Shape: fleet.Cluster, Gateways: 1, Workers: 1, Nodes: 3, Dir: t.TempDir(),
		Lease: 3 * time.Second, Retention: time.Minute, Drain: time.Second, Attempts: 3, Concurrency: 4,
	})
	require.NoError(t, err)
	defer f.Close()
	require.Len(t, f.Processes(), 5)
	const stream = "STREAMER_LOG"
	require.NoError(t, f.Settled(t.Context(), stream))
	leader := f.Leader(t.Context(), stream)
	require.NotNil(t, leader)
	require.Nil(t, f.Leader(t.Context(), "NO_SUCH_STREAM"))

	pid := leader.Kill(5 * time.Second)
	require.NoError(t, leader.WaitGone(t.Context(), pid))
	require.Eventually(t, func() bool {
		next := f.Leader(t.Context(), stream)
		return next != nil && next != leader
	}, 30*time.Second, 100*time.Millisecond)
}

func TestAFleetOnEmulatorsOfAWSIsReadyAndLeavesNothingBehind(t *testing.T) {
	f, err := fleet.Start(t.Context(), bin, fleet.Spec{
		Shape: fleet.Amazon, Gateways: 1, Workers: 1, Dir: t.TempDir(),
		Lease: 3 * time.Second, Retention: time.Minute, Drain: time.Second, Attempts: 3, Concurrency: 4,
	})
	require.NoError(t, err)
	defer f.Close()
	require.Len(t, f.Services, 2)
	require.Len(t, f.Processes(), 4)
	var pids []int
	for _, p := range f.Processes() {
		require.True(t, serves(p.Addr), p.Name)
		pids = append(pids, p.PID())
	}
	f.Services[0].Stop()
	f.Close()
	for _, pid := range pids {
		require.ErrorIs(t, syscall.Kill(pid, 0), syscall.ESRCH)
	}
}

func TestNoProcessOutlivesItsFleet(t *testing.T) {
	exits := make(chan fleet.Exit, 10)
	f := start(t, exits)
	pid := f.Gateways[0].Stop()
	f.Close()
	require.ErrorIs(t, syscall.Kill(pid, 0), syscall.ESRCH)
	require.Empty(t, exits, "an end that was wanted is none to be told of")
}

func TestAProcessThatIsNeverReadyIsSaidToBe(t *testing.T) {
	ctx, cancel := context.WithTimeout(t.Context(), 2*time.Second)
	defer cancel()
	_, err := fleet.Start(ctx, bin, fleet.Spec{Shape: fleet.Memory, Dir: t.TempDir()}) // no lease: the lab refuses
	require.ErrorContains(t, err, "lab is not ready")
}
