package natsembed_test

import (
	"bufio"
	"bytes"
	"context"
	"encoding/binary"
	"fmt"
	"os"
	"os/exec"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/pay-theory/streamer/v2/natsembed"
)

// child starts this test binary as another process.
func child(t *testing.T, mode, dir string) *exec.Cmd {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), os.Args[0], dir)
	cmd.Env = append(os.Environ(), childMode+"="+mode)
	return cmd
}

// writeUntilKilled prints the number of each message that was acknowledged.
func writeUntilKilled(dir string) error {
	ctx := context.Background()
	s, err := natsembed.Open(ctx, dir)
	if err != nil {
		return err
	}
	st, err := stream(ctx, s, 1)
	if err != nil {
		return err
	}
	for n := st.CachedInfo().State.LastSeq + 1; ; n++ {
		seq, err := publish(ctx, s, binary.BigEndian.AppendUint64(make([]byte, 200), n))
		if err != nil || seq != n {
			return fmt.Errorf("message %d got sequence %d: %w", n, seq, err)
		}
		fmt.Println(n)
	}
}

func TestWhatWasAcknowledgedSurvivesAKill(t *testing.T) {
	dir := t.TempDir()
	acknowledged := uint64(0)
	for round := range 5 {
		cmd := child(t, "write", dir)
		out, err := cmd.StdoutPipe()
		require.NoError(t, err)
		require.NoError(t, cmd.Start())
		lines := bufio.NewScanner(out)
		for n := 0; lines.Scan(); n++ {
			_, err := fmt.Sscan(lines.Text(), &acknowledged)
			require.NoError(t, err, "round %d: the child says %q", round, lines.Text())
			if n == 200+300*round {
				require.NoError(t, cmd.Process.Kill())
			}
		}
		require.Error(t, cmd.Wait())

		s := open(t, dir)
		st, err := s.JetStream().Stream(t.Context(), "S")
		require.NoError(t, err)
		state := st.CachedInfo().State
		require.GreaterOrEqual(t, state.LastSeq, acknowledged)
		require.EqualValues(t, state.LastSeq, state.Msgs)
		for _, n := range []uint64{1, acknowledged / 2, acknowledged} {
			m, err := st.GetMsg(t.Context(), n)
			require.NoError(t, err)
			require.Equal(t, n, binary.BigEndian.Uint64(m.Data[200:]))
		}
		require.NoError(t, s.Close())
	}
	t.Logf("%d messages were acknowledged", acknowledged)
}

func openOnce(dir string) error {
	s, err := natsembed.Open(context.Background(), dir)
	if err != nil {
		return err
	}
	return s.Close()
}

func TestASecondProcessGetsAClearError(t *testing.T) {
	dir := t.TempDir()
	s := open(t, dir)
	out, err := child(t, "open", dir).CombinedOutput()
	require.Error(t, err)
	require.Contains(t, string(out), fmt.Sprintf("natsembed: open %s: the directory is in use by process %d", dir, os.Getpid()))

	_, err = natsembed.Open(t.Context(), dir)
	require.ErrorContains(t, err, "in use by this process already")
	require.NoError(t, s.Ready(t.Context()), "the first is not disturbed")

	require.NoError(t, s.Close())
	out, err = child(t, "open", dir).CombinedOutput()
	require.NoError(t, err, string(out))
}

func TestAFullDiskIsSeenAndSurvived(t *testing.T) {
	out, err := child(t, "full", t.TempDir()).CombinedOutput()
	require.NoError(t, err, string(out))
	require.True(t, bytes.HasSuffix(out, []byte("survived\n")), string(out))
	t.Log(string(out))
}

// fillTheDisk has the operating system refuse writes for a while.
func fillTheDisk(dir string) error {
	ctx := context.Background()
	s, err := natsembed.Open(ctx, dir)
	if err != nil {
		return err
	}
	defer s.Close()
	if _, err := stream(ctx, s, 1); err != nil {
		return err
	}
	data := bytes.Repeat([]byte("0123456789abcdef"), 64)
	last := uint64(0)
	for range 500 {
		if last, err = publish(ctx, s, data); err != nil {
			return err
		}
	}
	if err := s.Ready(ctx); err != nil {
		return fmt.Errorf("before: %w", err)
	}

	room, err := limitFiles(200 << 10)
	if err != nil {
		return err
	}
	failures := 0
	for range 10 {
		start := time.Now()
		seq, err := publish(ctx, s, data)
		if took := time.Since(start); took > 1500*time.Millisecond {
			return fmt.Errorf("a write took %v", took)
		}
		if err == nil {
			last = seq
			continue
		}
		if failures++; failures == 1 {
			fmt.Println("writes fail:", err)
		}
	}
	if failures == 0 {
		return fmt.Errorf("nothing failed")
	}
	start := time.Now()
	err = s.Ready(ctx)
	if err == nil {
		return fmt.Errorf("it is ready with a full disk")
	}
	fmt.Printf("not ready, found in %v: %v\n", time.Since(start).Round(time.Millisecond), err)
	if err := room(); err != nil {
		return err
	}
	if err := s.Ready(ctx); err == nil {
		return fmt.Errorf("it is ready before Reopen")
	}

	start = time.Now()
	if err := s.Reopen(ctx); err != nil {
		return err
	}
	fmt.Println("open again after", time.Since(start).Round(time.Millisecond))
	if err := s.Ready(ctx); err != nil {
		return fmt.Errorf("after: %w", err)
	}
	st, err := s.JetStream().Stream(ctx, "S")
	if err != nil {
		return err
	}
	for n := uint64(1); n <= last; n++ {
		if m, err := st.GetMsg(ctx, n); err != nil || !bytes.Equal(m.Data, data) {
			return fmt.Errorf("message %d of %d is lost: %w", n, last, err)
		}
	}
	if seq, err := publish(ctx, s, data); err != nil || seq <= last {
		return fmt.Errorf("the next message got sequence %d after %d: %w", seq, last, err)
	}
	fmt.Println("survived")
	return nil
}
