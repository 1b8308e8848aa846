package websocket_test

import (
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/pay-theory/streamer/v2"
)

func TestCancelIsAnsweredOnceAndInOrder(t *testing.T) {
	t.Parallel()
	s := start(t)
	p, other := s.hello(), s.hello()
	p.send(`{"type":"request","id":"r1","action":"long"}`)
	p.expect("acknowledgment", "r1")
	s.worker("r1").Start()
	p.expect("status", "r1")

	other.send(`{"type":"cancel","id":"r1","reason":"enough","ref":"o"}`)
	m := other.expect("status", "r1")
	require.Equal(t, "o", m.Ref)
	require.Equal(t, "canceling", m.Status)
	require.Equal(t, "enough", m.Reason)
	other.lives()
	m = p.expect("status", "r1")
	require.Equal(t, "canceling", m.Status)
	require.Empty(t, m.Ref)

	p.send(`{"type":"cancel","id":"r1","ref":"x"}`)
	m = p.expect("status", "r1")
	require.Equal(t, "x", m.Ref)
	require.EqualValues(t, 3, m.Seq)

	s.worker("r1").Complete(`1`) // it won the race
	require.EqualValues(t, 4, p.expect("complete", "r1").Seq)
	for _, q := range []*peer{p, other} {
		q.send(`{"type":"cancel","id":"r1","ref":"y"}`)
		m = q.expect("complete", "r1")
		require.Equal(t, "y", m.Ref)
		require.EqualValues(t, 4, m.Seq)
		q.lives()
	}
	require.Zero(t, s.handler.Stats().Attached)
}

func TestCancelOfWhatWaitsEndsIt(t *testing.T) {
	t.Parallel()
	s := start(t)
	p := s.hello()
	p.send(`{"type":"request","id":"r1","action":"long"}`)
	p.expect("acknowledgment", "r1")
	p.send(`{"type":"cancel","id":"r1","ref":"x"}`)
	m := p.expect("error", "r1")
	require.Equal(t, streamer.ErrCodeCanceled, m.Error.Code)
	require.EqualValues(t, 2, m.Seq)
	require.Equal(t, "x", m.Ref)
	p.lives()
}
