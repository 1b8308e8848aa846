package crash_test

import (
	"flag"
	"math/rand/v2"
	"os"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"

	"github.com/pay-theory/streamer/v2/test/crash"
	"github.com/pay-theory/streamer/v2/test/crash/fleet"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

var (
	length = flag.Duration("crash.time", 3*time.Minute, "for how long processes of the cluster are disturbed, and up to twice that while a rare state has not come about; of the other shapes a part of it")
	seed   = flag.Uint64("crash.seed", 0, "of requests and faults; 0: random")
)

// smoke runs a shape for a while. With -short it is so short that not all is seen.
func smoke(t *testing.T, shape fleet.Shape, part float64) {
	dir, err := os.MkdirTemp("", "crash")
	require.NoError(t, err)
	c := crash.Config{Shape: shape, Time: time.Duration(float64(*length) * part), Seed: *seed, Dir: dir, Out: t.Output()}
	if c.Seed == 0 {
		c.Seed = rand.Uint64N(1_000_000)
	}
	if testing.Short() {
		c.Time = time.Duration(float64(30*time.Second) * part)
	}
	c.Tame = testing.Short() || shape == fleet.Amazon // emulators are too slow for all of it in a minute
	r, err := crash.Run(t.Context(), c)
	require.NoError(t, err, "logs are in %s", dir)
	t.Logf("%s for %v\n%s", shape, c.Time, r.Totals)
	require.True(t, r.OK(), "logs and histories are in %s", dir)
	require.NoError(t, os.RemoveAll(dir))
}

func TestAClusterKeepsItsPromisesWhateverIsKilled(t *testing.T) { smoke(t, fleet.Cluster, 1) }

func TestOneProcessKeepsItsPromisesAcrossItsKill(t *testing.T) { smoke(t, fleet.Embedded, 0.25) }

func TestAWSKeepsItsPromisesWhateverIsKilled(t *testing.T) { smoke(t, fleet.Amazon, 1./3) }

func TestMemoryKeepsItsPromisesWhileItsProcessLives(t *testing.T) { smoke(t, fleet.Memory, 0.1) }
