package main

import (
	"bytes"
	"context"
	"fmt"
	"net/http"
	"os"
	"sync"
	"time"

	"github.com/coder/websocket"
	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
)

// natsFloor is what one would write by hand on JetStream: it makes the same durable writes as
// the product (the request, its ticket, the start, outputs gathered while one write is on its
// way, an end that takes the place of what was before), each before the client hears of it,
// and acks the ticket. What it has not, is all that comes of reading any of it again.
type natsFloor struct {
	js      jetstream.JetStream
	tickets jetstream.Consumer

	mu   sync.Mutex
	jobs map[string]natsJob // by id, until a worker has them
}

// natsJob is a request that is stored.
type natsJob struct {
	job
	request []byte
	last    uint64        // sequence of its newest message
	told    chan struct{} // closed when the client knows that it is accepted
}

func newNATSFloor(ctx context.Context, js jetstream.JetStream) (_ *natsFloor, err error) {
	if _, err := js.CreateOrUpdateStream(ctx, jetstream.StreamConfig{
		Name: "FLOOR_LOG", Subjects: []string{"floor.log.*"}, AllowRollup: true, AllowMsgTTL: true, AllowDirect: true,
	}); err != nil {
		return nil, err
	}
	if _, err := js.CreateOrUpdateStream(ctx, jetstream.StreamConfig{
		Name: "FLOOR_TICKETS", Subjects: []string{"floor.ticket"}, Retention: jetstream.WorkQueuePolicy,
	}); err != nil {
		return nil, err
	}
	f := &natsFloor{js: js, jobs: make(map[string]natsJob)}
	if f.tickets, err = js.CreateOrUpdateConsumer(ctx, "FLOOR_TICKETS", jetstream.ConsumerConfig{
		Durable: "workers", AckPolicy: jetstream.AckExplicitPolicy, AckWait: 30 * time.Second, MaxAckPending: -1, MaxDeliver: -1,
	}); err != nil {
		return nil, err
	}
	for range workers {
		go f.work(ctx)
	}
	return f, nil
}

func (f *natsFloor) ServeHTTP(w http.ResponseWriter, r *http.Request) { serveFloor(w, r, f.accept) }

func (f *natsFloor) accept(j job, request []byte) error {
	ack, err := f.js.Publish(j.ctx, "floor.log."+j.id, request, jetstream.WithExpectLastSequencePerSubject(0))
	if err != nil {
		return err
	}
	f.mu.Lock()
	told := make(chan struct{})
	defer close(told)
	f.jobs[j.id] = natsJob{j, request, ack.Sequence, told}
	f.mu.Unlock()
	if _, err := f.js.Publish(j.ctx, "floor.ticket", []byte(j.id)); err != nil {
		return err
	}
	return j.acknowledge()
}

func (f *natsFloor) work(ctx context.Context) {
	for ctx.Err() == nil {
		m, err := f.tickets.Next(jetstream.FetchMaxWait(10 * time.Second))
		if err != nil {
			continue // none came in time
		}
		f.mu.Lock()
		j := f.jobs[string(m.Data())]
		delete(f.jobs, j.id)
		f.mu.Unlock()
		<-j.told
		if err := f.run(j); err != nil {
			continue // the client has gone, which it reports itself
		}
		if err := m.DoubleAck(ctx); err != nil && ctx.Err() == nil {
			fmt.Fprintln(os.Stderr, "bench: floor:", err)
		}
	}
}

// run does the work and stores what comes of it step by step.
func (f *natsFloor) run(j natsJob) error {
	messages, err := frames(j.id)
	if err != nil {
		return err
	}
	steps := storedSteps(messages)
	for i, step := range steps {
		msg := nats.NewMsg("floor.log." + j.id)
		msg.Data = bytes.Join(step, []byte{'\n'})
		opts := []jetstream.PublishOpt{jetstream.WithExpectLastSequencePerSubject(j.last)}
		if i == len(steps)-1 {
			msg.Data = bytes.Join(append([][]byte{j.request}, messages...), []byte{'\n'})
			msg.Header.Set(jetstream.MsgRollup, jetstream.MsgRollupSubject)
			opts = append(opts, jetstream.WithMsgTTL(24*time.Hour))
		}
		ack, err := f.js.PublishMsg(j.ctx, msg, opts...)
		if err != nil {
			return err
		}
		j.last = ack.Sequence
		for _, m := range step {
			if err := j.conn.Write(j.ctx, websocket.MessageText, m); err != nil {
				return err
			}
		}
	}
	return nil
}
