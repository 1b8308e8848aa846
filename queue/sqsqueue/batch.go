package sqsqueue

import (
	"context"
	"errors"
	"math/rand/v2"
	"slices"
	"strconv"
	"sync"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/sqs"
	"github.com/aws/aws-sdk-go-v2/service/sqs/types"

	"github.com/pay-theory/streamer/v2/internal/onepiece"
)

const (
	maxBatch = 10 // entries that SQS takes in one call
	maxCalls = 8  // full batches of a kind that are on their way at once
)

// batches sends entries in few calls. Without a linger an entry that finds no call on its way
// makes one at once, and those that come meanwhile share the next. With one, an entry waits so
// long for others. A full batch waits for nothing.
type batches[E any] struct {
	queue  *Queue
	call   func(ctx context.Context, entries []E) []error // what became of each
	size   func(E) int                                    // the bytes that an entry counts for; nil: none
	most   int                                            // of these in a batch
	linger time.Duration

	mu        sync.Mutex
	waiting   []*item[E] // as many as there are calls of do
	calls     int        // that are on their way
	lingering bool       // somebody makes a call when the time is over
	hurry     bool       // one of those who wait is not to linger
}

// item is an entry on its way.
type item[E any] struct {
	entry E
	done  chan error // gets what became of it
}

// do sends an entry and returns what became of it, or the context's error. With hurry it does not
// linger.
func (b *batches[E]) do(ctx context.Context, entry E, hurry bool) error {
	if !b.queue.enter() { // nobody is left to share a call with
		bounded, cancel := context.WithTimeout(ctx, callTimeout)
		defer cancel()
		return b.call(bounded, []E{entry})[0]
	}
	defer b.queue.users.Done()
	i := &item[E]{entry, make(chan error, 1)}
	b.mu.Lock()
	b.waiting = append(b.waiting, i)
	b.hurry = b.hurry || hurry
	b.start()
	b.mu.Unlock()
	select {
	case err := <-i.done:
		return err
	case <-ctx.Done():
		b.leave(i)
		return ctx.Err()
	}
}

// leave takes an entry back, unless it is on its way.
func (b *batches[E]) leave(i *item[E]) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if at := slices.Index(b.waiting, i); at >= 0 {
		b.waiting = slices.Delete(b.waiting, at, at+1)
	}
}

// start has the calls made that are due. mu is locked.
func (b *batches[E]) start() {
	for len(b.waiting) > 0 {
		switch {
		case len(b.waiting) >= maxBatch && b.calls < maxCalls:
			b.launch()
		case b.calls > 0 || b.lingering && !b.hurry:
			return
		case b.linger == 0 || b.hurry:
			b.launch()
		default:
			b.lingering = true
			b.queue.users.Go(b.wait)
			return
		}
	}
	b.hurry = false
}

// wait lets the linger pass.
func (b *batches[E]) wait() {
	timer := time.NewTimer(b.linger)
	defer timer.Stop()
	select {
	case <-timer.C:
	case <-b.queue.closing:
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	b.lingering = false
	b.hurry = len(b.waiting) > 0
	b.start()
}

// launch makes a call with those who have waited longest. mu is locked.
func (b *batches[E]) launch() {
	n, size := 0, 0
	for n < min(len(b.waiting), maxBatch) {
		if b.size != nil {
			size += b.size(b.waiting[n].entry)
		}
		if n > 0 && size > b.most {
			break
		}
		n++
	}
	items := slices.Clone(b.waiting[:n])
	b.waiting = slices.Delete(b.waiting, 0, n)
	b.calls++
	b.queue.users.Go(func() { b.run(items) })
}

// run makes a call, then has those made that waited for it.
func (b *batches[E]) run(items []*item[E]) {
	entries := make([]E, len(items))
	for n, i := range items {
		entries[n] = i.entry
	}
	ctx, cancel := context.WithTimeout(b.queue.life, callTimeout)
	errs := b.call(ctx, entries)
	refused := 0
	for _, err := range errs {
		if again(err) {
			refused++
		}
	}
	partly := refused > 0 && refused < len(items)
	for n, i := range items {
		if !partly || !again(errs[n]) {
			i.done <- errs[n]
		}
	}
	if partly {
		pause(ctx)
		for n, i := range items {
			if again(errs[n]) {
				i.done <- b.call(ctx, entries[n:n+1])[0]
			}
		}
	}
	cancel()
	b.mu.Lock()
	defer b.mu.Unlock()
	b.calls--
	b.start()
}

// pause lets 50 to 100 ms pass, or ends with the context.
func pause(ctx context.Context) {
	timer := time.NewTimer(50*time.Millisecond + rand.N(50*time.Millisecond))
	defer timer.Stop()
	select {
	case <-timer.C:
	case <-ctx.Done():
	}
}

// once has a call made without retries: what a failed call means is known better by who made it.
func once(o *sqs.Options) {
	o.Retryer = aws.NopRetryer{}
	o.HTTPClient = onepiece.Client(o.HTTPClient)
}

// change is a message that is to be hidden for so long from now.
type change struct {
	handle  string
	seconds int32
}

// send makes one call.
func (b *box) send(ctx context.Context, entries []types.SendMessageBatchRequestEntry) []error {
	for n := range entries {
		entries[n].Id = new(strconv.Itoa(n))
	}
	out, err := b.client.SendMessageBatch(ctx, &sqs.SendMessageBatchInput{QueueUrl: &b.url, Entries: entries}, once)
	if err != nil {
		return all(len(entries), err)
	}
	return results(len(entries), out.Successful, func(e types.SendMessageBatchResultEntry) *string { return e.Id }, out.Failed)
}

// remove makes one call.
func (b *box) remove(ctx context.Context, handles []string) []error {
	entries := make([]types.DeleteMessageBatchRequestEntry, len(handles))
	for n := range handles {
		entries[n] = types.DeleteMessageBatchRequestEntry{Id: new(strconv.Itoa(n)), ReceiptHandle: &handles[n]}
	}
	out, err := b.client.DeleteMessageBatch(ctx, &sqs.DeleteMessageBatchInput{QueueUrl: &b.url, Entries: entries}, once)
	if err != nil {
		return all(len(entries), err)
	}
	return results(len(entries), out.Successful, func(e types.DeleteMessageBatchResultEntry) *string { return e.Id }, out.Failed)
}

// hide makes one call.
func (b *box) hide(ctx context.Context, changes []change) []error {
	entries := make([]types.ChangeMessageVisibilityBatchRequestEntry, len(changes))
	for n := range changes {
		entries[n] = types.ChangeMessageVisibilityBatchRequestEntry{
			Id: new(strconv.Itoa(n)), ReceiptHandle: &changes[n].handle, VisibilityTimeout: changes[n].seconds,
		}
	}
	out, err := b.client.ChangeMessageVisibilityBatch(ctx, &sqs.ChangeMessageVisibilityBatchInput{QueueUrl: &b.url, Entries: entries}, once)
	if err != nil {
		return all(len(entries), err)
	}
	return results(len(entries), out.Successful, func(e types.ChangeMessageVisibilityBatchResultEntry) *string { return e.Id }, out.Failed)
}

func all(n int, err error) []error { return slices.Repeat([]error{err}, n) }

// errUnnamed is the error of an entry that the answer does not speak of.
var errUnnamed = errors.New("the answer of SQS does not say what became of it")

// results returns what an answer says of each entry.
func results[S any](n int, done []S, id func(S) *string, refused []types.BatchResultErrorEntry) []error {
	errs := all(n, errUnnamed)
	set := func(id *string, err error) {
		if at, wrong := strconv.Atoi(text(id)); wrong == nil && at >= 0 && at < n {
			errs[at] = err
		}
	}
	for _, d := range done {
		set(id(d), nil)
	}
	for _, f := range refused {
		set(f.Id, refusal{text(f.Code), text(f.Message), f.SenderFault})
	}
	return errs
}

func text(s *string) string {
	if s == nil {
		return ""
	}
	return *s
}
