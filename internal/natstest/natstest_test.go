package natstest

import (
	"testing"

	"github.com/nats-io/nats.go/jetstream"
	"github.com/stretchr/testify/require"
)

func TestServerKeepsItsPortAndStore(t *testing.T) {
	s := Start(t, nil)
	nc := s.Connect(t)
	js, err := jetstream.New(nc)
	require.NoError(t, err)
	_, err = js.CreateStream(t.Context(), jetstream.StreamConfig{Name: "S", Subjects: []string{"s"}})
	require.NoError(t, err)
	_, err = js.Publish(t.Context(), "s", []byte("kept"))
	require.NoError(t, err)
	url := s.URL()
	s.Stop()
	s.Restart(t)
	require.Equal(t, url, s.URL())
	js, err = jetstream.New(s.Connect(t))
	require.NoError(t, err)
	stream, err := js.Stream(t.Context(), "S")
	require.NoError(t, err)
	require.EqualValues(t, 1, stream.CachedInfo().State.Msgs)
}

func TestClusterElectsAnotherLeader(t *testing.T) {
	c := StartCluster(t, 3)
	nc := Dial(t, c.URL())
	js, err := jetstream.New(nc)
	require.NoError(t, err)
	_, err = js.CreateStream(t.Context(), jetstream.StreamConfig{Name: "S", Subjects: []string{"s"}, Replicas: 3})
	require.NoError(t, err)
	old := c.StreamLeader(t, "S")
	old.Stop()
	require.NotEqual(t, old, c.StreamLeader(t, "S"))
	old.Restart(t)
	c.WaitReady(t)
}
