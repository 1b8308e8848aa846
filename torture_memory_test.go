package streamer_test

import (
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/pay-theory/streamer/v2/internal/fault"
	"github.com/pay-theory/streamer/v2/progress"
	"github.com/pay-theory/streamer/v2/progress/memlog"
	"github.com/pay-theory/streamer/v2/queue"
	"github.com/pay-theory/streamer/v2/queue/memqueue"
)

// memoryFaults is a log and a queue in memory that misbehave as all may.
type memoryFaults struct {
	log   *fault.Log
	queue *fault.Queue
}

// inMemory lives through a world in memory, in the time of a synctest bubble.
func inMemory(t *testing.T, seed uint64, total *tally) {
	terms := terms{lease: 6 * time.Second, patience: 30 * time.Minute, ids: 60, actors: 12, steps: 60, restarts: 6}
	store := memlog.New()
	f := memoryFaults{fault.NewLog(store, seed, longest), fault.NewQueue(memqueue.New(memqueue.WithLease(terms.lease)), seed, longest)}
	newWorld(t, seed, total, terms, store, f).run()
	require.NoError(t, store.Close())
}

func (f memoryFaults) open() (progress.Log, queue.Queue, func()) { return f.log, f.queue, func() {} }

func (f memoryFaults) set(yes bool) {
	for fault, rate := range map[*fault.Fault]float64{
		&f.log.Unavailable:      0.01,
		&f.log.AnswerLost:       0.02,
		&f.log.TimedOut:         0.01,
		&f.log.Delay:            0.02,
		&f.log.DoneLate:         0.01,
		&f.log.ShortPage:        0.1,
		&f.log.NotifiedTwice:    0.1,
		&f.log.NotifiedLate:     0.1,
		&f.queue.Unavailable:    0.01,
		&f.queue.AnswerLost:     0.02,
		&f.queue.Delay:          0.02,
		&f.queue.EnqueuedTwice:  0.05,
		&f.queue.DeliveredTwice: 0.05,
		&f.queue.Reordered:      0.05,
		&f.queue.ExtendLost:     0.03,
		&f.queue.StaleAck:       0.5,
	} {
		if !yes {
			rate = 0
		}
		fault.Set(rate)
	}
}

func (f memoryFaults) duplicates() int64 {
	return f.queue.DeliveredTwice.Count() + f.queue.EnqueuedTwice.Count()
}

func (f memoryFaults) seen() int64 {
	return f.log.Unavailable.Count() + f.log.AnswerLost.Count() + f.log.TimedOut.Count() + f.log.DoneLate.Count() +
		f.queue.Unavailable.Count() + f.queue.AnswerLost.Count() + f.queue.ExtendLost.Count()
}
