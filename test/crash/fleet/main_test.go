package fleet_test

import (
	"context"
	"fmt"
	"os"
	"testing"

	"go.uber.org/goleak"

	"github.com/pay-theory/streamer/v2/test/crash/fleet"
)

// bin has the binaries, which take a while to link.
var bin string

func TestMain(m *testing.M) {
	dir, err := os.MkdirTemp("", "fleet")
	if err == nil {
		err = fleet.Build(context.Background(), dir)
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	bin = dir
	goleak.VerifyTestMain(m, goleak.Cleanup(func(code int) {
		_ = os.RemoveAll(dir)
		os.Exit(code)
	}))
}
