package natsembed_test

import (
	"context"
	"fmt"
	"os"
	"testing"
	"time"

	"github.com/nats-io/nats.go/jetstream"
	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"

	"github.com/pay-theory/streamer/v2/natsembed"
)

// childMode is the environment variable that makes the test binary one of the child processes
// below, on the directory that is its only argument.
const childMode = "NATSEMBED_TEST_CHILD"

func TestMain(m *testing.M) {
	if mode := os.Getenv(childMode); mode != "" {
		if err := children[mode](os.Args[1]); err != nil {
			fmt.Println("error:", err)
			os.Exit(1)
		}
		os.Exit(0)
	}
	goleak.VerifyTestMain(m)
}

// children are what the test binary does as another process.
var children = map[string]func(dir string) error{
	"write": writeUntilKilled,
	"open":  openOnce,
	"full":  fillTheDisk,
}

// patience bounds what must happen but not at once.
const patience = 20 * time.Second

func open(tb testing.TB, dir string, opts ...natsembed.Option) *natsembed.Server {
	tb.Helper()
	s, err := natsembed.Open(tb.Context(), dir, opts...)
	require.NoError(tb, err)
	tb.Cleanup(func() { require.NoError(tb, s.Close()) })
	return s
}

// stream makes the stream that tests write to, when it is missing.
func stream(ctx context.Context, s *natsembed.Server, replicas int) (jetstream.Stream, error) {
	return s.JetStream().CreateOrUpdateStream(ctx, jetstream.StreamConfig{Name: "S", Subjects: []string{"s"}, Replicas: replicas})
}

// publish stores a message within a second and returns its sequence.
func publish(ctx context.Context, s *natsembed.Server, data []byte) (uint64, error) {
	ctx, cancel := context.WithTimeout(ctx, time.Second)
	defer cancel()
	ack, err := s.JetStream().Publish(ctx, "s", data)
	if err != nil {
		return 0, err
	}
	return ack.Sequence, nil
}
