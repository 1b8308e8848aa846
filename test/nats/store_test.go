package nats

import (
	"bytes"
	"context"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/pay-theory/streamer/v2"
	"github.com/pay-theory/streamer/v2/natsembed"
	"github.com/pay-theory/streamer/v2/progress"
)

// blocks returns the files that hold the messages of the log stream, in order.
func blocks(t testing.TB, dir string) (paths []string) {
	t.Helper()
	require.NoError(t, filepath.WalkDir(dir, func(path string, _ fs.DirEntry, err error) error {
		if strings.Contains(path, "STREAMER_LOG") && filepath.Ext(path) == ".blk" {
			paths = append(paths, path)
		}
		return err
	}))
	slices.Sort(paths)
	require.NotEmpty(t, paths)
	return paths
}

// edit changes the block that has a text.
func edit(t testing.TB, dir, text string, change func(block []byte, at int) []byte) {
	t.Helper()
	for _, path := range slices.Backward(blocks(t, dir)) {
		block, err := os.ReadFile(path)
		require.NoError(t, err)
		if at := bytes.LastIndex(block, []byte(text)); at >= 0 {
			require.NoError(t, os.WriteFile(path, change(block, at), 0o600))
			return
		}
	}
	t.Fatalf("no block has %q", text)
}

func TestDamagedStoreHarmsOnlyWhatItHeld(t *testing.T) {
	t.Parallel()
	const done = 10
	release := make(chan struct{})
	handle := func(m *streamer.Mux) {
		m.Handle("count", counting(3, 1))
		m.Handle("live", doing(func(ctx context.Context) (any, error) {
			for i := range 5 {
				if err := streamer.Output(ctx, fmt.Sprintf("output %d of the live one", i)); err != nil {
					return nil, err
				}
			}
			select {
			case <-release:
				return "done", nil
			case <-ctx.Done():
				return nil, context.Cause(ctx)
			}
		}))
	}
	open := func(dir string) *natsembed.Server {
		s, err := natsembed.Open(t.Context(), dir, natsembed.WithListen("127.0.0.1:0"))
		require.NoError(t, err)
		return s
	}
	dir := t.TempDir()
	server := open(dir)
	w := worker(t, server.URL(), 1, handle)
	for i := range done {
		w.submit("count", fmt.Sprint("done-", i))
		require.Equal(t, "accepted started output output output completed", kinds(w.events(fmt.Sprint("done-", i))))
	}
	epoch := w.submit("live", "live").State.Epoch
	v, err := w.Attach(t.Context(), alice, "live")
	require.NoError(t, err)
	last := uint64(0)
	for e, err := range v.Events(t.Context(), 0) {
		require.NoError(t, err)
		if last = e.Seq; last == 7 {
			break
		}
	}
	// What is acknowledged is in the files, as it would be after kill -9.
	image := t.TempDir()
	require.NoError(t, os.CopyFS(image, os.DirFS(dir)))
	close(release)
	w.stop()
	require.NoError(t, server.Close())

	flip := func(block []byte, at int) []byte {
		block[at] ^= 0x20
		return block
	}
	for name, c := range map[string]struct {
		damage func(t *testing.T, dir string)
		behind bool // the live request has lost events
		lost   int  // from which request on they may be lost or run again: the server gives up the rest of a block
	}{
		"nothing": {lost: done, damage: func(*testing.T, string) {}},
		"the end of the last block is cut": {behind: true, lost: done, damage: func(t *testing.T, dir string) {
			edit(t, dir, "output 4 of the live one", func(block []byte, at int) []byte { return block[:at+4] })
		}},
		"a byte of the last message is flipped": {behind: true, lost: done, damage: func(t *testing.T, dir string) { edit(t, dir, "output 4 of the live one", flip) }},
		"a byte of a finished request is flipped": {lost: 4, damage: func(t *testing.T, dir string) {
			edit(t, dir, "streamer.log.acme/alice.done-4", func(block []byte, at int) []byte { return flip(block, at+100) })
		}},
	} {
		t.Run(name, func(t *testing.T) {
			dir := t.TempDir()
			require.NoError(t, os.CopyFS(dir, os.DirFS(image)))
			c.damage(t, dir)
			server := open(dir)
			defer func() { require.NoError(t, server.Close()) }()
			g := gateway(t, server.URL(), 1, handle)
			defer g.stop()
			v, err := g.Attach(t.Context(), alice, "live")
			if err != nil {
				require.Equal(t, streamer.ErrCodeNotFound, code(t, err))
				require.Less(t, c.lost, done)
				g.submit("live", "live")
			} else {
				page, err := v.Read(t.Context(), last, 10)
				require.NoError(t, err)
				reason, gap := page.Gap(epoch, last)
				require.Equal(t, c.behind, gap, "%+v", page.State)
				if gap {
					require.Equal(t, "ahead", reason)
				}
			}
			w := worker(t, server.URL(), 1, handle)
			defer w.stop()
			all := g.events("live")
			require.Equal(t, progress.Completed, all[len(all)-1].Kind, kinds(all))
			if err == nil {
				require.Equal(t, 2, all[len(all)-1].Attempt, "it ran again")
			}
			for i := range done {
				id := fmt.Sprint("done-", i)
				if _, err := g.Attach(t.Context(), alice, id); err != nil {
					require.Equal(t, streamer.ErrCodeNotFound, code(t, err))
					require.GreaterOrEqual(t, i, c.lost)
				} else if all := g.events(id); i < c.lost {
					require.Equal(t, "accepted started output output output completed", kinds(all))
				} else {
					require.Equal(t, progress.Completed, all[len(all)-1].Kind, kinds(all))
				}
			}
		})
	}
}
