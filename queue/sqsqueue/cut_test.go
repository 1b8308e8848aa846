package sqsqueue_test

import (
	"context"
	"encoding/json"
	"errors"
	"math/rand/v2"
	"net/http"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/pay-theory/streamer/v2/internal/awstest"
	"github.com/pay-theory/streamer/v2/queue"
	"github.com/pay-theory/streamer/v2/queue/sqsqueue"
)

// weather has chance disturb calls, as long as it is on.
type weather struct {
	t        *testing.T
	on       atomic.Bool
	disturbs atomic.Int64
}

func (w *weather) fault(c awstest.Call) awstest.Fault {
	if !w.on.Load() || rand.IntN(3) > 0 {
		return awstest.Fault{}
	}
	w.disturbs.Add(1)
	faults := []awstest.Fault{
		{Status: http.StatusBadRequest, Code: "ThrottlingException"},
		{Status: http.StatusServiceUnavailable, Code: "ServiceUnavailable"},
		{Lost: true},  // a message that this receives is delivered to nobody
		{Twice: true}, // a message that this sends is there twice
		{Late: time.Duration(rand.IntN(500)) * time.Millisecond},
	}
	if strings.HasSuffix(c.Operation, "Batch") {
		faults = append(faults, w.partly(c.Body))
	}
	if c.Operation == "DeleteMessageBatch" {
		faults = append(faults, awstest.Fault{Status: http.StatusOK, Answer: w.succeeded(c.Body)}) // and has done nothing
	}
	return faults[rand.IntN(len(faults))]
}

// batch is a batch of entries as it is asked for, or what its answer says.
type batch struct {
	QueueURL   string           `json:"QueueUrl,omitempty"`
	Entries    []map[string]any `json:",omitempty"`
	Successful []map[string]any `json:",omitempty"`
	Failed     []map[string]any `json:",omitempty"`
}

func (w *weather) decode(body []byte) (b batch) {
	if err := json.Unmarshal(body, &b); err != nil {
		w.t.Error(err)
	}
	return b
}

func (w *weather) encode(b batch) []byte {
	data, err := json.Marshal(b)
	if err != nil {
		w.t.Error(err)
	}
	return data
}

// partly has an entry of a batch fail, and the others not.
func (w *weather) partly(body []byte) awstest.Fault {
	b := w.decode(body)
	failed := []map[string]any{{"Id": b.Entries[0]["Id"], "Code": "InternalError", "SenderFault": false}}
	if b.Entries = b.Entries[1:]; len(b.Entries) == 0 {
		return awstest.Fault{Status: http.StatusOK, Answer: w.encode(batch{Failed: failed})}
	}
	return awstest.Fault{Ask: w.encode(b), Tell: func(answer []byte) []byte {
		a := w.decode(answer)
		a.Failed = append(a.Failed, failed...)
		return w.encode(a)
	}}
}

// succeeded returns the answer to a batch all of which succeeded.
func (w *weather) succeeded(body []byte) []byte {
	var a batch
	for _, e := range w.decode(body).Entries {
		a.Successful = append(a.Successful, map[string]any{"Id": e["Id"]})
	}
	return w.encode(a)
}

func TestNoTicketIsLostToTheNetwork(t *testing.T) {
	t.Parallel()
	const tickets, producers, workers = 300, 4, 3
	e := awstest.SQS(t)
	s := at(t, e.Endpoint())
	url := s.create(t, nil)
	w := &weather{t: t}
	disturbed := func() *sqsqueue.Queue {
		return open(t, at(t, awstest.NewProxy(t, e.Endpoint(), w.fault).Endpoint()), url, sqsqueue.WithLease(time.Second))
	}
	q := disturbed()
	var fleet []*sqsqueue.Queue
	for range workers {
		fleet = append(fleet, disturbed())
	}
	w.on.Store(true)
	ctx, stop := context.WithCancel(t.Context())
	var running sync.WaitGroup
	var delivered sync.Map
	for _, worker := range fleet {
		running.Go(func() { toil(ctx, t, worker, &delivered) })
	}
	var sending sync.WaitGroup
	for p := range producers {
		sending.Go(func() {
			for i := p; i < tickets; {
				err := q.Enqueue(t.Context(), queue.Ticket{ID: strconv.Itoa(i), Group: strconv.Itoa(i % 7)})
				switch {
				case err == nil:
					i += producers
				case !errors.Is(err, queue.ErrUnavailable):
					t.Error(err)
				}
			}
		})
	}
	sending.Wait()
	w.on.Store(false)
	calm := open(t, s, url)
	require.Eventually(t, func() bool {
		depth, err := calm.Depth(t.Context())
		return err == nil && depth == queue.Depth{}
	}, time.Minute, 100*time.Millisecond)
	stop()
	running.Wait()
	for i := range tickets {
		_, ok := delivered.Load(strconv.Itoa(i))
		require.True(t, ok, "ticket %d was not delivered", i)
	}
	t.Logf("%d calls were disturbed", w.disturbs.Load())
	require.Greater(t, w.disturbs.Load(), int64(50))
}

// toil works on tickets until ctx ends, some of which it hands back.
func toil(ctx context.Context, t *testing.T, q *sqsqueue.Queue, delivered *sync.Map) {
	var working sync.WaitGroup
	defer working.Wait()
	for ctx.Err() == nil {
		ds, err := q.Receive(ctx, 5)
		if err != nil && ctx.Err() == nil && !errors.Is(err, queue.ErrUnavailable) {
			t.Error(err)
		}
		for _, d := range ds {
			working.Go(func() {
				err := d.Extend(ctx)
				if err == nil && rand.IntN(4) == 0 {
					_ = d.Retry(ctx, time.Duration(rand.IntN(1500))*time.Millisecond) // when it fails the ticket comes all the same
					return
				}
				delivered.Store(d.Ticket().ID, true)
				_ = d.Ack(ctx) // when it fails the ticket comes again
			})
		}
	}
}
